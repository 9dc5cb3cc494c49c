/*
 * Goal: what was added comes out as one command a key, to the byte, in order; a change is taken
 * whole or not at all; limits hold; memory that is used again shows no traces of what was there.
 * Method: the commands are parsed back into words and compared; the same large load again gives the
 * same bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha1.h"
#include "replication/outbox.h"
#include "replication/sink.h"

#define ID1 "01020304-0506-0708-090a-0b0c0d0e0f10"
#define HEAD_EVENT "sg1:{e:12}:alpha.7 sg1:{e:12}:alpha.7:changes sg1:{e:12}:watched 5 256"

static struct outbox *new_outbox(size_t keys_max, size_t bytes_max)
{
    struct outbox *outbox = outbox_new(
        &(struct outbox_config){.shard = "alpha",
                                .generation = 7,
                                .epoch = 5,
                                .live_history = 256,
                                .limits = {.keys_max = keys_max, .bytes_max = bytes_max}});
    assert_non_null(outbox);
    return outbox;
}

static enum sg_error add(struct outbox *outbox, uint64_t lsn, uint32_t place,
                         const struct effect *effect)
{
    struct position position = {lsn, place};
    return outbox_add(outbox, effect, &position);
}

static struct effect seats(int64_t event_id, int d_held, int d_booked, char state,
                           const int32_t *numbers, size_t count)
{
    return (struct effect){.kind = EFFECT_SEATS,
                           .event_id = event_id,
                           .d_held = d_held,
                           .d_booked = d_booked,
                           .state = state,
                           .seats = numbers,
                           .seat_count = count};
}

static struct effect ticket(enum effect_kind kind, const char *user, int64_t event_id)
{
    struct effect effect = {
        .kind = kind, .event_id = event_id, .user = user, .user_len = strlen(user)};
    assert_true(uuid_parse(ID1, &effect.booking_id));
    return effect;
}

/* RESP as lines: "EVALSHA event 3 ..." (the script's name for its SHA-1), "" as "''"; positions
 * without their zeros as LSN-PLACE. */
static size_t number_after(const char **at, char mark)
{
    char *end;
    assert_int_equal(**at, mark);
    size_t number = strtoul(*at + 1, &end, 10);
    assert_memory_equal(end, "\r\n", 2);
    *at = end + 2;
    return number;
}

static void add_word(struct dynbuf *text, const char *word, size_t len)
{
    static const char *const names[] = {"event", "tickets", "shard"};
    struct position position;
    for (size_t i = 0; i < SCRIPT_COUNT; i++) {
        if (len == SHA1_HEX_LEN && memcmp(word, script_sha((enum script)i), len) == 0) {
            dynbuf_adds(text, names[i]);
            return;
        }
    }
    if (position_parse(word, len, &position))
        dynbuf_addf(text, "%llu-%u", (unsigned long long)position.lsn, position.place);
    else if (len == 0)
        dynbuf_adds(text, "''");
    else
        dynbuf_add(text, word, len);
}

static void read_back(const struct dynbuf *resp, struct dynbuf *text)
{
    const char *at = resp->data;
    while (at < resp->data + resp->len) {
        size_t words = number_after(&at, '*');
        for (size_t i = 0; i < words; i++) {
            size_t len = number_after(&at, '$');
            if (i)
                dynbuf_addc(text, ' ');
            add_word(text, at, len);
            assert_memory_equal(at + len, "\r\n", 2);
            at += len + 2;
        }
        dynbuf_addc(text, '\n');
    }
    assert_ptr_equal(at, resp->data + resp->len);
}

static void check(const struct outbox *outbox, const char *wanted)
{
    struct dynbuf resp;
    struct dynbuf text;
    dynbuf_init(&resp, SIZE_MAX / 2);
    dynbuf_init(&text, SIZE_MAX / 2);
    outbox_encode(outbox, &resp);
    assert_false(resp.failed);
    assert_true(resp.len <= outbox_bytes(outbox));
    if (resp.len)
        read_back(&resp, &text);
    assert_string_equal(dynbuf_text(&text), wanted);
    dynbuf_done(&resp);
    dynbuf_done(&text);
}

static void test_commands(void **state)
{
    static const int32_t some[] = {4, 0, 2147483647};
    struct outbox *outbox = new_outbox(100, 100000);
    (void)state;
    check(outbox, "");
    struct effect grid = {.kind = EFFECT_GRID, .event_id = 12, .rows = 10, .cols = 20};
    struct effect gone = {.kind = EFFECT_EVENT_GONE, .event_id = 13};
    struct effect book = seats(12, -3, 3, 'x', some, 3);
    struct effect join = ticket(EFFECT_TICKET_ADD, "ann", 12);
    struct effect leave = ticket(EFFECT_TICKET_REMOVE, "ann", 12);
    const struct effect regrid = {
        .kind = EFFECT_GRID, .event_id = 12, .rows = 10, .cols = 30, .altered = true};
    assert_int_equal(add(outbox, 100, 1, &grid), SG_OK);
    assert_int_equal(add(outbox, 100, 2, &regrid), SG_OK);
    assert_int_equal(add(outbox, 100, 2, &join), SG_OK);
    assert_int_equal(add(outbox, 100, 3, &book), SG_OK);
    assert_int_equal(add(outbox, 101, 1, &gone), SG_OK);
    assert_int_equal(add(outbox, UINT64_MAX, UINT32_MAX, &leave), SG_OK);
    assert_int_equal(outbox_keys(outbox), 3);
    assert_int_equal(outbox_event(outbox, 0), 12);
    assert_int_equal(outbox_event(outbox, 1), 0);
    assert_int_equal(outbox_event(outbox, 2), 13);
    check(outbox,
          "EVALSHA event 3 " HEAD_EVENT
          " 100-1 10 20 grid 100-2 10 30 regrid 100-3 -3 3 x:4,0,2147483647\n"
          "EVALSHA tickets 1 sg1:{u:ann}:alpha.7 5 100-2 " ID1 " 12"
          " 18446744073709551615-4294967295 " ID1 " ''\n"
          "EVALSHA event 3 sg1:{e:13}:alpha.7 sg1:{e:13}:alpha.7:changes sg1:{e:13}:watched 5 256"
          " 101-1 0 0 gone\n");
    outbox_reset(outbox);
    assert_int_equal(outbox_keys(outbox), 0);
    assert_int_equal(outbox_bytes(outbox), 0);
    assert_int_equal(add(outbox, 1, 1, &join), SG_OK);
    check(outbox, "EVALSHA tickets 1 sg1:{u:ann}:alpha.7 5 1-1 " ID1 " 12\n");
    outbox_free(outbox);
}

static void test_seats_of_one_change_are_one_operation(void **state)
{
    static const int32_t numbers[] = {1, 2, 3, 4};
    struct outbox *outbox = new_outbox(100, 100000);
    struct effect release = seats(12, -2, 0, '.', numbers, 2);
    struct effect take = seats(12, 0, 3, 'x', numbers + 1, 3);
    (void)state;
    add(outbox, 50, 1, &release);
    add(outbox, 50, 1, &take);
    add(outbox, 50, 2, &release);
    add(outbox, 51, 2, &take);
    check(outbox, "EVALSHA event 3 " HEAD_EVENT
                  " 50-1 -2 3 .:1,2;x:2,3,4 50-2 -2 0 .:1,2 51-2 0 3 x:2,3,4\n");
    outbox_free(outbox);
}

static struct effect noted(struct effect effect, const char *status)
{
    effect.status = status;
    assert_true(uuid_parse(ID1, &effect.booking_id));
    return effect;
}

static void test_notes_of_bookings(void **state)
{
    static const int32_t numbers[] = {1, 2, 3, 4};
    struct outbox *outbox = new_outbox(100, 100000);
    struct effect hold = noted(seats(12, 2, 0, 'h', numbers, 2), "held");
    struct effect fail = noted(seats(12, 0, 0, '.', NULL, 0), "failed");
    struct effect release = noted(seats(12, -2, 0, '.', numbers, 2), "cancelled");
    struct effect take = noted(seats(12, 0, 1, 'x', numbers + 3, 1), "confirmed");
    (void)state;
    add(outbox, 50, 1, &hold);
    add(outbox, 51, 1, &fail);
    add(outbox, 52, 1, &release);
    check(outbox, "EVALSHA event 3 " HEAD_EVENT " 50-1 2 0 h:1,2 " ID1 " held 51-1 0 0 - " ID1
                  " failed 52-1 -2 0 .:1,2 " ID1 " cancelled\n");
    outbox_reset(outbox);
    /* two effects of one change: one operation, one note */
    release.status = take.status;
    add(outbox, 60, 1, &release);
    add(outbox, 60, 1, &take);
    check(outbox, "EVALSHA event 3 " HEAD_EVENT " 60-1 -2 1 .:1,2;x:4 " ID1 " confirmed\n");
    /* what is counted is never less than what is written, which check() looks at */
    outbox_reset(outbox);
    for (uint64_t lsn = 1; lsn < 100; lsn++)
        add(outbox, lsn, 1, &release);
    struct dynbuf out;
    dynbuf_init(&out, SIZE_MAX / 2);
    outbox_encode(outbox, &out);
    assert_true(out.len <= outbox_bytes(outbox));
    dynbuf_done(&out);
    outbox_free(outbox);
}

static void test_a_seed_begins_its_list_anew(void **state)
{
    static const int32_t numbers[] = {1};
    struct outbox *outbox = new_outbox(100, 100000);
    struct effect book = seats(12, 0, 1, 'x', numbers, 1);
    struct effect seed = {.kind = EFFECT_EVENT_SEED,
                          .event_id = 12,
                          .rows = 3,
                          .cols = 4,
                          .d_held = 5,
                          .d_booked = 6};
    (void)state;
    add(outbox, 50, 1, &book);
    add(outbox, 60, 1, &book);
    assert_int_equal(add(outbox, 55, 0, &seed), SG_OK);
    assert_int_equal(add(outbox, 60, 1, &book), SG_OK);
    check(outbox, "EVALSHA event 3 " HEAD_EVENT " 55-0 5 6 seed 55-0 3 4 grid 60-1 0 1 x:1\n");
    outbox_free(outbox);
}

static void test_mends_have_no_position(void **state)
{
    struct outbox *outbox = new_outbox(100, 100000);
    struct effect join = ticket(EFFECT_TICKET_ADD, "ann", 12);
    struct effect mend = ticket(EFFECT_TICKET_MEND, "ann", 13);
    struct effect unmend = ticket(EFFECT_TICKET_UNMEND, "ann", 13);
    (void)state;
    add(outbox, 50, 1, &join);
    assert_int_equal(add(outbox, 10, 0, &mend), SG_OK);
    assert_int_equal(add(outbox, 49, 1, &join), SG_INVALID_VALUE);
    assert_int_equal(add(outbox, 50, 1, &join), SG_OK);
    assert_int_equal(add(outbox, 10, 0, &unmend), SG_OK);
    check(outbox, "EVALSHA tickets 1 sg1:{u:ann}:alpha.7 5 50-1 " ID1 " 12 '' " ID1 " 13 50-1 " ID1
                  " 12 '' " ID1 " ''\n");
    outbox_free(outbox);
}

static void test_positions_never_go_down(void **state)
{
    static const int32_t numbers[] = {1};
    struct outbox *outbox = new_outbox(100, 100000);
    struct effect book = seats(12, 0, 1, 'x', numbers, 1);
    struct effect other = seats(13, 0, 1, 'x', numbers, 1);
    (void)state;
    add(outbox, 50, 2, &book);
    size_t bytes = outbox_bytes(outbox);
    assert_int_equal(add(outbox, 50, 1, &book), SG_INVALID_VALUE);
    assert_int_equal(add(outbox, 49, 9, &book), SG_INVALID_VALUE);
    assert_int_equal(outbox_bytes(outbox), bytes);
    assert_int_equal(add(outbox, 49, 9, &other), SG_OK);
    check(outbox, "EVALSHA event 3 " HEAD_EVENT " 50-2 0 1 x:1\n"
                  "EVALSHA event 3 sg1:{e:13}:alpha.7 sg1:{e:13}:alpha.7:changes "
                  "sg1:{e:13}:watched 5 256 49-9 0 1 x:1\n");
    outbox_free(outbox);
}

static void test_a_change_is_taken_whole(void **state)
{
    static const int32_t numbers[] = {1};
    struct outbox *outbox = new_outbox(2, 100000);
    struct effect first = seats(1, 0, 1, 'x', numbers, 1);
    struct effect second = seats(2, 0, 1, 'x', numbers, 1);
    struct effect third = seats(3, 0, 1, 'x', numbers, 1);
    struct effect join = ticket(EFFECT_TICKET_ADD, "ann", 12);
    struct effect more = ticket(EFFECT_TICKET_ADD, "bob", 12);
    (void)state;
    assert_int_equal(add(outbox, 50, 1, &first), SG_OK);
    assert_int_equal(add(outbox, 51, 1, &second), SG_OK);
    assert_int_equal(add(outbox, 51, 1, &join), SG_OK); /* of the same change */
    assert_int_equal(add(outbox, 51, 1, &third), SG_OK);
    assert_int_equal(add(outbox, 51, 1, &more), SG_OK);
    assert_int_equal(outbox_keys(outbox), 5);
    assert_int_equal(add(outbox, 51, 1, &more), SG_OVERLOADED); /* no change has five */
    assert_int_equal(add(outbox, 51, 2, &third), SG_OVERLOADED);
    assert_int_equal(add(outbox, 52, 1, &first), SG_OVERLOADED); /* a key that is there, too */
    assert_int_equal(outbox_keys(outbox), 5);
    outbox_reset(outbox);
    assert_int_equal(add(outbox, 52, 1, &first), SG_OK);
    outbox_free(outbox);
}

static void test_the_limit_of_bytes(void **state)
{
    static int32_t many[100000];
    struct outbox *outbox = new_outbox(1000, 20000);
    struct effect huge = seats(12, 0, 100000, 'x', many, 100000);
    struct effect small = seats(13, 0, 1, 'x', many, 1);
    struct effect seed = {.kind = EFFECT_EVENT_SEED, .event_id = 14, .rows = 1, .cols = 1};
    struct effect seeded = seats(14, 0, 1, 'x', many, 1);
    (void)state;
    assert_int_equal(add(outbox, 1, 1, &huge), SG_OK); /* empty: any one effect */
    assert_true(outbox_bytes(outbox) > 200000);
    assert_int_equal(add(outbox, 2, 1, &small), SG_OVERLOADED);
    outbox_reset(outbox);

    uint64_t lsn = 1;
    while (add(outbox, lsn, 1, &small) == SG_OK)
        lsn++;
    assert_true(outbox_bytes(outbox) >= 20000 && outbox_bytes(outbox) < 21000);
    outbox_reset(outbox);

    /* What follows a seed still goes in, up to twice as much. */
    assert_int_equal(add(outbox, 1, 0, &seed), SG_OK);
    for (lsn = 1; outbox_bytes(outbox) < 20000; lsn++)
        assert_int_equal(add(outbox, lsn, 1, &small), SG_OK);
    assert_int_equal(add(outbox, lsn, 1, &small), SG_OVERLOADED);
    while (add(outbox, lsn, 1, &seeded) == SG_OK)
        lsn++;
    assert_true(outbox_bytes(outbox) >= 40000 && outbox_bytes(outbox) < 41000);
    outbox_free(outbox);
}

static void fill_with_many(struct outbox *outbox, struct dynbuf *out)
{
    static const int32_t numbers[] = {1, 2, 3};
    for (uint32_t i = 0; i < 5000; i++) {
        char user[16];
        snprintf(user, sizeof(user), "u-%u", i % 700);
        struct effect book = seats(1 + i % 900, 0, 3, 'x', numbers, 3);
        struct effect join = ticket(EFFECT_TICKET_ADD, user, 1 + i % 900);
        assert_int_equal(add(outbox, 100 + i, 1, &book), SG_OK);
        assert_int_equal(add(outbox, 100 + i, 1, &join), SG_OK);
    }
    assert_int_equal(outbox_keys(outbox), 1600);
    outbox_encode(outbox, out);
}

static void test_many_keys_again_and_again(void **state)
{
    struct outbox *outbox = new_outbox(100000, 100000000);
    struct dynbuf first;
    struct dynbuf again;
    (void)state;
    dynbuf_init(&first, SIZE_MAX / 2);
    dynbuf_init(&again, SIZE_MAX / 2);
    fill_with_many(outbox, &first);
    for (int round = 0; round < 3; round++) {
        outbox_reset(outbox);
        dynbuf_reset(&again);
        fill_with_many(outbox, &again);
        assert_int_equal(first.len, again.len);
        assert_memory_equal(first.data, again.data, first.len);
    }
    outbox_free(outbox);
    dynbuf_done(&first);
    dynbuf_done(&again);
}

/* --- the scripts ---------------------------------------------------------------------------- */

static void test_scripts_are_embedded(void **state)
{
    (void)state;
    for (int i = 0; i < SCRIPT_COUNT; i++) {
        size_t len;
        char hex[SHA1_HEX_LEN + 1];
        const char *text = script_text((enum script)i, &len);
        assert_true(len > 500);
        assert_int_equal(text[len], '\0');
        assert_int_equal(strlen(text), len);
        assert_memory_equal(text, "-- ", 3);
        sha1_hex(text, len, hex);
        assert_string_equal(script_sha((enum script)i), hex);
    }
}

static void test_commands_of_the_shard(void **state)
{
    struct dynbuf out;
    struct dynbuf text;
    (void)state;
    dynbuf_init(&out, 10000);
    dynbuf_init(&text, 10000);
    sink_claim(&out, "alpha", 5);
    sink_mark(&out, "alpha", 5, 7, UINT64_MAX, true);
    sink_mark(&out, "alpha", 5, 7, 0, false);
    sink_switch(&out, "alpha", 5, 7, 100, 2, UINT64_C(7300000000000000000));
    sink_follow(&out, "alpha", 5, 7, UINT64_MAX - 1, 4);
    sink_tell(&out, "alpha", 5, "{\"a\":1}");
    read_back(&out, &text);
    assert_string_equal(dynbuf_text(&text),
                        "EVALSHA shard 1 sg1:{s:alpha} claim 5\n"
                        "EVALSHA shard 1 sg1:{s:alpha} mark 5 7 18446744073709551615 live\n"
                        "EVALSHA shard 1 sg1:{s:alpha} mark 5 7 0 stale\n"
                        "EVALSHA shard 1 sg1:{s:alpha} switch 5 7 100 2 7300000000000000000\n"
                        "EVALSHA shard 1 sg1:{s:alpha} follow 5 7 18446744073709551614 4\n"
                        "EVALSHA shard 1 sg1:{s:alpha} tell 5 {\"a\":1}\n");
    dynbuf_done(&out);
    dynbuf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_seats_of_one_change_are_one_operation),
        cmocka_unit_test(test_notes_of_bookings),
        cmocka_unit_test(test_a_seed_begins_its_list_anew),
        cmocka_unit_test(test_mends_have_no_position),
        cmocka_unit_test(test_positions_never_go_down),
        cmocka_unit_test(test_a_change_is_taken_whole),
        cmocka_unit_test(test_the_limit_of_bytes),
        cmocka_unit_test(test_many_keys_again_and_again),
        cmocka_unit_test(test_scripts_are_embedded),
        cmocka_unit_test(test_commands_of_the_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
