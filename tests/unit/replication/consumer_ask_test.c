/*
 * Goal: what the primary answers is read as it is meant, and an answer of another shape is not read
 * at all; however many slots there are, the one to be resumed is among those that are looked at.
 * Method: results made by hand (libpq can), read by the consumer's own readers.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "replication/consumer_internal.h"

/* One row of texts; NULL is SQL's. */
static PGresult *result_of(int columns)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc attributes[16];
    memset(attributes, 0, sizeof(attributes));
    for (int i = 0; i < columns; i++)
        attributes[i].name = (char *)"c";
    assert_true(PQsetResultAttrs(result, columns, attributes));
    return result;
}

static void set_row(PGresult *result, int row, int columns, const char *const *values)
{
    for (int i = 0; i < columns; i++) {
        assert_true(
            PQsetvalue(result, row, i, (char *)values[i], values[i] ? (int)strlen(values[i]) : -1));
    }
}

static void test_facts(void **state)
{
    (void)state;
    PGresult *result = result_of(9);
    struct ask_facts facts = {.timeline = 77};
    assert_false(ask_read_facts(result, &facts)); /* no row */
    /* a system identifier past 2^63 comes as a negative bigint */
    set_row(result, 0, 9,
            (const char *const[]){"f", "-1", "12", "t", "f", "logical", "t", "50331976", "4711"});
    assert_true(ask_read_facts(result, &facts));
    assert_false(facts.in_recovery);
    assert_true(facts.system_identifier == UINT64_MAX);
    assert_int_equal(facts.timeline, 12);
    assert_true(facts.published);
    assert_false(facts.numbered);
    assert_string_equal(facts.wal_level, "logical");
    assert_true(facts.synchronous);
    assert_true(facts.lsn == 0x3000148);
    assert_int_equal(facts.holder_pid, 4711);
    PQclear(result);

    result = result_of(8);
    set_row(result, 0, 8, (const char *const[]){"f", "1", "2", "t", "t", "replica", "f", "1"});
    facts.timeline = 77;
    assert_false(ask_read_facts(result, &facts));
    assert_int_equal(facts.timeline, 77);
    PQclear(result);
}

static void test_standby(void **state)
{
    (void)state;
    PGresult *result = result_of(9);
    struct ask_facts facts;
    set_row(result, 0, 9,
            (const char *const[]){"t", "5", NULL, "t", "t", "logical", "f", NULL, "0"});
    assert_true(ask_read_facts(result, &facts));
    assert_true(facts.in_recovery);
    assert_int_equal(facts.timeline, 0);
    PQclear(result);
}

static void test_slots(void **state)
{
    (void)state;
    PGresult *result = result_of(4);
    struct repair_facts facts = {.slot_count = 9};
    set_row(result, 0, 4, (const char *const[]){"seatgrid_alpha_12", "f", "50331976", "4711"});
    set_row(result, 1, 4, (const char *const[]){"seatgrid_alpha_b_13", "f", "1", "0"});
    set_row(result, 2, 4, (const char *const[]){"seatgrid_alpha_9", "t", "0", "0"});
    ask_read_slots(result, "alpha", &facts);
    assert_int_equal(facts.slot_count, 2);
    assert_string_equal(facts.slots[0].name, "seatgrid_alpha_12");
    assert_int_equal(facts.slots[0].generation, 12);
    assert_false(facts.slots[0].lost);
    assert_true(facts.slots[0].confirmed_lsn == 50331976);
    assert_int_equal(facts.slots[0].active_pid, 4711);
    assert_int_equal(facts.slots[1].generation, 9);
    assert_true(facts.slots[1].lost);
    PQclear(result);

    result = result_of(4);
    ask_read_slots(result, "alpha", &facts);
    assert_int_equal(facts.slot_count, 0);
    PQclear(result);
}

/* Left-overs of many failures stand before it. */
static void test_more_slots_than_room(void **state)
{
    (void)state;
    for (int64_t wanted = 1; wanted <= 40; wanted++) {
        PGresult *result = result_of(4);
        struct repair_facts facts = {.generation = wanted};
        bool found = false;
        for (int i = 0; i < 40; i++) {
            char name[REPAIR_SLOT_NAME_SIZE];
            repair_slot_name(name, "alpha", 40 - i);
            set_row(result, i, 4, (const char *const[]){name, "f", "1", "0"});
        }
        ask_read_slots(result, "alpha", &facts);
        assert_int_equal(facts.slot_count, REPAIR_SLOTS_MAX);
        for (size_t i = 0; i < facts.slot_count; i++)
            found = found || facts.slots[i].generation == wanted;
        if (!found)
            fail_msg("generation %d fell off the list", (int)wanted);
        PQclear(result);
    }
}

static void test_vitals(void **state)
{
    (void)state;
    PGresult *result = result_of(5);
    struct ask_vitals vitals;
    assert_false(ask_read_vitals(result, &vitals));
    assert_int_equal(ask_number(result, 0), 0);
    set_row(result, 0, 5, (const char *const[]){"4294967297", "f", NULL, "f", "t"});
    assert_true(ask_read_vitals(result, &vitals));
    assert_true(vitals.lsn == 4294967297);
    assert_false(vitals.synchronous);
    assert_int_equal(vitals.kept_bytes, -1); /* no slot is not "keeps nothing" */
    assert_false(vitals.counted_standby);
    assert_true(vitals.switching);
    assert_int_equal(ask_number(result, 5), 0);
    PQclear(result);

    result = result_of(5);
    set_row(result, 0, 5, (const char *const[]){"1", "t", "0", "t", NULL});
    assert_true(ask_read_vitals(result, &vitals));
    assert_int_equal(vitals.kept_bytes, 0);
    assert_true(vitals.counted_standby);
    assert_false(vitals.switching);
    PQclear(result);

    result = result_of(4); /* of another shape */
    set_row(result, 0, 4, (const char *const[]){"1", "t", "0", "t"});
    assert_false(ask_read_vitals(result, &vitals));
    PQclear(result);
}

/* What was read before must not stay when there is no row. */
static void test_meta(void **state)
{
    (void)state;
    PGresult *result = result_of(4);
    struct repair_facts facts = {.generation = 7};
    set_row(result, 0, 4, (const char *const[]){"4", "3", "50331976", "t"});
    ask_read_meta(result, &facts);
    assert_int_equal(facts.attested_timeline, 4);
    assert_int_equal(facts.handover_timeline, 3);
    assert_true(facts.handover_lsn == 0x3000148);
    assert_true(facts.switching);
    PQclear(result);

    result = result_of(4);
    ask_read_meta(result, &facts);
    assert_int_equal(facts.attested_timeline, 0);
    assert_int_equal(facts.handover_timeline, 0);
    assert_true(facts.handover_lsn == 0);
    assert_false(facts.switching);
    assert_int_equal(facts.generation, 7);
    PQclear(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),  cmocka_unit_test(test_standby),
        cmocka_unit_test(test_slots),  cmocka_unit_test(test_more_slots_than_room),
        cmocka_unit_test(test_vitals), cmocka_unit_test(test_meta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
