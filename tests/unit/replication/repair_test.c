/*
 * Goal: a consumer never resumes from what cannot be resumed, and never seeds without need.
 * Method: a table of every reason alone; then every combination of the causes at once, against the
 * order that repair.h promises, with and without a switchover's fence; then what is handed over by
 * a switchover, fact by fact; then the names of slots, there and back.
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

#include "replication/repair.h"

#define TAKEOVER_MS 5000

/* A consumer that has the shard and may go on. */
static struct repair_facts healthy(void)
{
    struct repair_facts facts = {.locked = true,
                                 .system_identifier = 7000000000000000001,
                                 .timeline = 3,
                                 .server_lsn = 0x3000200,
                                 .slot_count = 2,
                                 .generation = 12,
                                 .hash_timeline = 3,
                                 .hash_system = 7000000000000000001,
                                 .hash_lsn = 0x3000148};
    facts.slots[0] = (struct repair_slot){
        .name = "seatgrid_alpha_9", .generation = 9, .lost = true, .confirmed_lsn = UINT64_MAX};
    facts.slots[1] = (struct repair_slot){
        .name = "seatgrid_alpha_12", .generation = 12, .confirmed_lsn = 0x3000100};
    return facts;
}

/* Each cause is applied to healthy facts; in the order of their rank. */
static void other_beats(struct repair_facts *facts)
{
    facts->locked = false;
    facts->other_silent_ms = TAKEOVER_MS - 1;
}

static void other_silent(struct repair_facts *facts)
{
    facts->locked = false;
    facts->other_silent_ms = TAKEOVER_MS;
}

static void redis_empty(struct repair_facts *facts)
{
    facts->generation = 0;
}

static void other_system(struct repair_facts *facts)
{
    facts->hash_system++;
}

static void failover(struct repair_facts *facts)
{
    facts->hash_timeline = 2;
}

/* restored from an older copy: same system, same timeline, less WAL */
static void server_behind(struct repair_facts *facts)
{
    facts->server_lsn = 0x1000;
}

static void slot_missing(struct repair_facts *facts)
{
    facts->slot_count = 1; /* the left-over of generation 9 stays */
}

static void slot_lost(struct repair_facts *facts)
{
    facts->slots[1].lost = true;
}

static void redis_behind(struct repair_facts *facts)
{
    facts->hash_lsn = facts->slots[1].confirmed_lsn - 1;
}

static void forced(struct repair_facts *facts)
{
    facts->forced = REPAIR_TRUNCATED;
}

static const struct cause {
    const char *name;
    void (*apply)(struct repair_facts *facts);
    enum repair_action action;
    enum repair_reason reason;
} causes[] = {
    {"another consumer beats", other_beats, REPAIR_WAIT, REPAIR_NONE},
    {"another consumer is silent", other_silent, REPAIR_TAKE_OVER, REPAIR_NONE},
    {"Redis is empty", redis_empty, REPAIR_SEED, REPAIR_REDIS_EMPTY},
    {"another PostgreSQL", other_system, REPAIR_SEED, REPAIR_OTHER_SYSTEM},
    {"another timeline", failover, REPAIR_SEED, REPAIR_FAILOVER},
    {"the server's WAL is older", server_behind, REPAIR_SEED, REPAIR_SERVER_BEHIND},
    {"no slot", slot_missing, REPAIR_SEED, REPAIR_SLOT_MISSING},
    {"slot has lost its WAL", slot_lost, REPAIR_SEED, REPAIR_SLOT_INVALIDATED},
    {"Redis is behind the slot", redis_behind, REPAIR_SEED, REPAIR_REDIS_LOST_TOO_MUCH},
    {"the consumer says so", forced, REPAIR_SEED, REPAIR_TRUNCATED},
};

#define CAUSE_COUNT (sizeof(causes) / sizeof(causes[0]))

static void test_healthy_resumes(void **state)
{
    (void)state;
    struct repair_facts facts = healthy();
    struct repair_decision decision = repair_decide(&facts, TAKEOVER_MS);
    assert_int_equal(decision.action, REPAIR_RESUME);
    assert_int_equal(decision.reason, REPAIR_STARTED);
    assert_ptr_equal(decision.slot, &facts.slots[1]);
    assert_true(decision.start_lsn == 0x3000100);
    /* exactly what the slot was told is enough */
    facts.hash_lsn = facts.slots[1].confirmed_lsn;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
    /* and nothing was written since */
    facts.server_lsn = facts.hash_lsn;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
    /* a left-over walsender of the slot is the consumer's to end, no reason to seed */
    facts.slots[1].active_pid = 4711;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
}

/* Every set of causes: the first of the table decides. The second one contradicts the first. */
static void test_all_combinations(void **state)
{
    (void)state;
    for (unsigned set = 1; set < 1u << CAUSE_COUNT; set++) {
        struct repair_facts facts = healthy();
        const struct cause *first = NULL;
        if ((set & 3) == 3)
            continue;
        for (size_t i = 0; i < CAUSE_COUNT; i++) {
            if (!(set & 1u << i))
                continue;
            causes[i].apply(&facts);
            if (!first)
                first = &causes[i];
        }
        struct repair_decision decision = repair_decide(&facts, TAKEOVER_MS);
        if (decision.action != first->action || decision.reason != first->reason)
            fail_msg("set %x, first \"%s\": action %d reason %s", set, first->name,
                     (int)decision.action, repair_reason_name(decision.reason));
        assert_null(decision.slot);
        assert_true(decision.start_lsn == 0);
        /* behind the fence of a switchover no seed is begun, and nothing else changes */
        facts.switching = true;
        decision = repair_decide(&facts, TAKEOVER_MS);
        bool seed = first->action == REPAIR_SEED;
        if (decision.action != (seed ? REPAIR_WAIT : first->action) ||
            decision.reason != (seed ? REPAIR_SWITCHING : first->reason))
            fail_msg("set %x behind the fence, first \"%s\": action %d reason %s", set, first->name,
                     (int)decision.action, repair_reason_name(decision.reason));
        assert_null(decision.slot);
    }
}

/* --- switched over ---------------------------------------------------------------------------- */

/* The new primary is attested, the old timeline was followed to its end and a little further. */
static struct repair_facts switched(void)
{
    struct repair_facts facts = healthy();
    facts.timeline = 4;
    facts.attested_timeline = 4;
    facts.handover_timeline = 3;
    facts.handover_lsn = 0x3000148;
    facts.server_lsn = 0x3000700;
    facts.slots[1].confirmed_lsn = 0x3000600;
    facts.hash_lsn = 0x3000200;
    return facts;
}

static void test_a_switchover_is_followed(void **state)
{
    (void)state;
    struct repair_facts facts = switched();
    struct repair_decision decision = repair_decide(&facts, TAKEOVER_MS);
    assert_int_equal(decision.action, REPAIR_RESUME);
    assert_int_equal(decision.reason, REPAIR_SWITCHED_OVER);
    assert_ptr_equal(decision.slot, &facts.slots[1]);
    assert_true(decision.start_lsn == 0x3000600);
    /* exactly to the end is enough */
    facts.hash_lsn = facts.handover_lsn;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHED_OVER);
    /* heartbeats behind the fence: past all that the new primary has written */
    facts.hash_lsn = 0x3009000;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHED_OVER);
    /* the slot may have been made at the very end of the old timeline */
    facts.slots[1].confirmed_lsn = facts.handover_lsn;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHED_OVER);
    /* more than one timeline further, as of a standby that had been promoted in vain */
    facts.timeline = 9;
    facts.attested_timeline = 9;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHED_OVER);
    /* a fence that came later, the next switchover's, does not keep it from being followed */
    facts.switching = true;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
}

/* Once the hash names the new timeline, the handover means nothing. */
static void test_followed_is_as_ever(void **state)
{
    (void)state;
    struct repair_facts facts = switched();
    facts.hash_timeline = 4;
    facts.hash_lsn = facts.slots[1].confirmed_lsn;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_STARTED);
    facts.hash_lsn--;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_REDIS_LOST_TOO_MUCH);
    facts.hash_lsn = facts.server_lsn + 1;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SERVER_BEHIND);
}

static void not_drained(struct repair_facts *facts)
{
    facts->hash_lsn = facts->handover_lsn - 1;
}

static void no_handover(struct repair_facts *facts)
{
    facts->handover_timeline = 0;
    facts->handover_lsn = 0;
}

static void handover_of_another_timeline(struct repair_facts *facts)
{
    facts->handover_timeline = 2;
}

/* the consumer was away for two of them */
static void second_switchover(struct repair_facts *facts)
{
    facts->timeline = facts->attested_timeline = 5;
    facts->handover_timeline = 4;
}

/* promoted after the switchover, by nobody's plan: shard_meta still tells of that one */
static void failover_after_it(struct repair_facts *facts)
{
    facts->timeline = 5;
}

static void never_attested(struct repair_facts *facts)
{
    facts->attested_timeline = 0;
}

/* the old primary of a former switchover, promoted again with the slot of that time */
static void old_slot(struct repair_facts *facts)
{
    facts->slots[1].confirmed_lsn = facts->handover_lsn - 1;
}

static void test_what_is_not_handed_over(void **state)
{
    static const struct {
        void (*apply)(struct repair_facts *facts);
        enum repair_reason reason;
    } cases[] = {
        {not_drained, REPAIR_FAILOVER},
        {no_handover, REPAIR_FAILOVER},
        {handover_of_another_timeline, REPAIR_FAILOVER},
        {second_switchover, REPAIR_FAILOVER},
        {failover_after_it, REPAIR_FAILOVER},
        {never_attested, REPAIR_FAILOVER},
        {redis_empty, REPAIR_REDIS_EMPTY},
        {other_system, REPAIR_OTHER_SYSTEM},
        {slot_missing, REPAIR_SLOT_MISSING},
        {old_slot, REPAIR_SLOT_MISSING},
        {slot_lost, REPAIR_SLOT_INVALIDATED},
        {forced, REPAIR_TRUNCATED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct repair_facts facts = switched();
        cases[i].apply(&facts);
        struct repair_decision decision = repair_decide(&facts, TAKEOVER_MS);
        if (decision.action != REPAIR_SEED || decision.reason != cases[i].reason)
            fail_msg("case %zu: action %d reason %s", i, (int)decision.action,
                     repair_reason_name(decision.reason));
    }
}

/* The new primary between its promotion and its attestation, and the old one without its slot. */
static void test_both_sides_of_a_switch_wait(void **state)
{
    (void)state;
    struct repair_facts facts = switched();
    facts.switching = true;
    facts.attested_timeline = 3;
    no_handover(&facts);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_WAIT);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHING);
    facts = healthy();
    facts.switching = true;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_RESUME);
    slot_missing(&facts);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_WAIT);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SWITCHING);
    other_silent(&facts);
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).action, REPAIR_TAKE_OVER);
}

static void test_generation_without_slots(void **state)
{
    (void)state;
    struct repair_facts facts = healthy();
    facts.slot_count = 0;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SLOT_MISSING);
    /* a higher generation's slot, of a seed that never ended, is not the one */
    facts = healthy();
    facts.slots[1].generation = 13;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_SLOT_MISSING);
    facts.generation = -1;
    assert_int_equal(repair_decide(&facts, TAKEOVER_MS).reason, REPAIR_REDIS_EMPTY);
}

static void test_reason_names(void **state)
{
    (void)state;
    for (int i = REPAIR_NONE; i <= REPAIR_REQUESTED; i++) {
        assert_non_null(repair_reason_name(i));
        assert_true(strlen(repair_reason_text(i)) > 10);
        for (int j = REPAIR_NONE; j < i; j++)
            assert_string_not_equal(repair_reason_name(i), repair_reason_name(j));
    }
    assert_string_equal(repair_reason_name(REPAIR_REDIS_EMPTY), "redis_empty");
}

static void test_slot_names(void **state)
{
    (void)state;
    char name[REPAIR_SLOT_NAME_SIZE];
    repair_slot_name(name, "alpha", 7);
    assert_string_equal(name, "seatgrid_alpha_7");
    repair_slot_name(name, "eu-west.1_b", 12);
    assert_string_equal(name, "seatgrid_eu_west_1_b_12");
    assert_int_equal(repair_slot_generation(name, "eu-west.1_b"), 12);

    static const char longest[] = "a23456789012345678901234567890123456789012345678901234567890123";
    repair_slot_name(name, longest, INT64_MAX);
    assert_int_equal(strlen(name), 63);
    assert_true(repair_slot_generation(name, longest) == INT64_MAX);
}

static void test_names_that_are_not_ours(void **state)
{
    (void)state;
    static const char *const foreign[] = {
        "",
        "seatgrid_alpha",
        "seatgrid_alpha_",
        "seatgrid_alpha_0",
        "seatgrid_alpha_07",
        "seatgrid_alpha_7x",
        "seatgrid_alpha_-7",
        "seatgrid_alpha_7 ",
        "seatgrid_alpha_b_7", /* of the shard alpha-b */
        "seatgrid_alphab_7",
        "seatgrid_beta_7",
        "x_seatgrid_alpha_7",
        "seatgrid_alpha_9223372036854775808",
        "seatgrid_alpha_99999999999999999999",
    };
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        if (repair_slot_generation(foreign[i], "alpha") != 0)
            fail_msg("'%s' was taken for one of ours", foreign[i]);
    }
    assert_int_equal(repair_slot_generation("seatgrid_alpha_b_7", "alpha-b"), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy_resumes),
        cmocka_unit_test(test_all_combinations),
        cmocka_unit_test(test_a_switchover_is_followed),
        cmocka_unit_test(test_followed_is_as_ever),
        cmocka_unit_test(test_what_is_not_handed_over),
        cmocka_unit_test(test_both_sides_of_a_switch_wait),
        cmocka_unit_test(test_generation_without_slots),
        cmocka_unit_test(test_reason_names),
        cmocka_unit_test(test_slot_names),
        cmocka_unit_test(test_names_that_are_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
