/*
 * Goal: a switchover is told "drained" only when Redis has acknowledged everything up to its LSN
 * and that LSN is one of this server's; whoever waits is told once, whatever happens; nobody waits
 * for ever, and not too many at once. Method: the drain's source, included under other names, with
 * a control session and a feed that are made here: the test answers the mark and says how far the
 * feed is.
 *
 * SPDX-License-Identifier: MIT
 */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define control_ask fake_control_ask
#define feed_get_status fake_feed_get_status
#define consumer_drain tested_drain
#define drain_init tested_drain_init
#define drain_check tested_drain_check
#define drain_stop tested_drain_stop

/* NOLINTBEGIN(bugprone-suspicious-include) */
#include "replication/consumer_drain.c"
/* NOLINTEND(bugprone-suspicious-include) */

#define SLOT "seatgrid_alpha_7"
#define LONG_MS 600000

static struct {
    struct consumer consumer;
    struct generation generation;
    uint64_t applied;
    unsigned marks_asked;
    control_fn *mark_fn; /* NULL: none is asked for */
    char told[128];      /* a letter and the caller's number each */
    char reason[128];
    struct consumer_drained drained;
} rig;

void control_ask(struct consumer *consumer, const char *sql, const char *first, const char *second,
                 control_fn *fn)
{
    assert_ptr_equal(consumer, &rig.consumer);
    assert_ptr_equal(sql, ask_heartbeat_sql);
    assert_true(!first && !second && !rig.mark_fn);
    rig.mark_fn = fn;
    rig.marks_asked++;
}

void feed_get_status(const struct feed *feed, struct feed_status *ret_status)
{
    (void)feed;
    *ret_status = (struct feed_status){.applied = rig.applied};
}

static int numbers[] = {0, 1, 2, 3, 4, 5};

static void on_told(void *arg, enum sg_error error, const struct consumer_drained *drained,
                    const char *reason)
{
    size_t len = strlen(rig.told);
    const char letter = error == SG_OK                  ? 'D'
                        : error == SG_DEADLINE          ? 'T'
                        : error == SG_INVALID_VALUE     ? 'I'
                        : error == SG_SHARD_UNAVAILABLE ? 'L'
                                                        : '?';
    assert_true((error == SG_OK) == (drained != NULL));
    snprintf(rig.told + len, sizeof(rig.told) - len, "%c%d", letter, *(int *)arg);
    snprintf(rig.reason, sizeof(rig.reason), "%s", reason);
    if (drained)
        rig.drained = *drained;
}

static enum sg_error drain(int number, uint64_t lsn, int64_t timeout_ms)
{
    return consumer_drain(&rig.consumer, lsn, timeout_ms, on_told, &numbers[number]);
}

/* The primary wrote the mark and says where. */
static void answer_mark(uint64_t lsn)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc attributes[2];
    char text[24];
    control_fn *fn = rig.mark_fn;
    assert_non_null(fn);
    memset(attributes, 0, sizeof(attributes));
    attributes[0].name = attributes[1].name = (char *)"c";
    assert_true(PQsetResultAttrs(result, 2, attributes));
    snprintf(text, sizeof(text), "%llu", (unsigned long long)lsn);
    assert_true(PQsetvalue(result, 0, 0, (char *)"local", 5));
    assert_true(PQsetvalue(result, 0, 1, text, (int)strlen(text)));
    const struct pgask_answer answer = {.error = SG_OK, .result = result};
    rig.mark_fn = NULL;
    fn(&rig.consumer, &answer);
    PQclear(result);
}

static void refuse_mark(const char *reason)
{
    control_fn *fn = rig.mark_fn;
    const struct pgask_answer answer = {.error = SG_INTERNAL, .reason = reason};
    assert_non_null(fn);
    rig.mark_fn = NULL;
    fn(&rig.consumer, &answer);
}

static void apply(uint64_t lsn)
{
    rig.applied = lsn;
    drain_check(&rig.consumer);
}

static int set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    rig.consumer.config.base = event_base_new();
    rig.consumer.state = CONSUMER_RUNNING;
    rig.consumer.now = &rig.generation;
    rig.consumer.server.timeline = 3;
    rig.consumer.server.system_identifier = 7300000000000000000;
    rig.generation.number = 7;
    snprintf(rig.generation.slot, sizeof(rig.generation.slot), SLOT);
    return drain_init(&rig.consumer) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    event_free(rig.consumer.drains.timer);
    event_base_free(rig.consumer.config.base);
    return 0;
}

static void test_drained(void **state)
{
    (void)state;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    assert_int_equal(rig.marks_asked, 1);
    apply(990);
    answer_mark(1040);
    assert_string_equal(rig.told, "");
    apply(999);
    assert_string_equal(rig.told, "");
    assert_false(rig.consumer.pulse.vitals.switching);
    apply(1000);
    assert_string_equal(rig.told, "D0");
    assert_true(rig.consumer.pulse.vitals.switching);
    assert_int_equal(rig.drained.generation, 7);
    assert_string_equal(rig.drained.slot, SLOT);
    assert_true(rig.drained.lsn == 1000);
    assert_int_equal(rig.drained.timeline, 3);
    assert_true(rig.drained.system_identifier == 7300000000000000000);
    apply(2000);
    assert_string_equal(rig.told, "D0");
}

/* The mark may be in Redis before its question is answered; the LSN may have been there long ago.
 * Neither is believed before the server has shown that the LSN is one of its own. */
static void test_applied_before_the_answer(void **state)
{
    (void)state;
    apply(5000);
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    apply(5100);
    assert_string_equal(rig.told, "");
    answer_mark(5080);
    assert_string_equal(rig.told, "D0");
    assert_true(rig.drained.lsn == 5100);
}

static void test_an_lsn_of_nowhere(void **state)
{
    (void)state;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    answer_mark(999);
    assert_string_equal(rig.told, "I0");
    assert_int_equal(rig.consumer.drains.count, 0);
}

/* One mark serves all who were there when it was asked for; who comes meanwhile gets the next. */
static void test_several(void **state)
{
    (void)state;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    assert_int_equal(drain(1, 3000, LONG_MS), SG_OK);
    assert_int_equal(drain(2, 2000, LONG_MS), SG_OK);
    assert_int_equal(rig.marks_asked, 1);
    answer_mark(1010); /* behind the first alone: the others are no nonsense yet */
    assert_int_equal(rig.marks_asked, 2);
    assert_string_equal(rig.told, "");
    assert_int_equal(drain(3, 4000, LONG_MS), SG_OK);
    assert_int_equal(drain(4, 5000, LONG_MS), SG_OVERLOADED);
    answer_mark(3010);
    apply(2500);
    assert_string_equal(rig.told, "D0D2");
    assert_int_equal(drain(4, 5000, LONG_MS), SG_OK);
    answer_mark(4010);
    answer_mark(5010);
    assert_int_equal(rig.marks_asked, 4);
    apply(6000);
    assert_string_equal(rig.told, "D0D2D1D3D4");
    assert_null(rig.mark_fn);
}

static void test_time_is_over(void **state)
{
    (void)state;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    assert_int_equal(drain(1, 1000, 20), SG_OK);
    int64_t first_ends_us = clock_mono_us() + 20000;
    assert_int_equal(drain(2, 1000, 1), SG_OK);
    apply(0x3000148);
    while (!*rig.told)
        event_base_loop(rig.consumer.config.base, EVLOOP_ONCE);
    if (strlen(rig.told) == 2) /* else nothing ran here for so long that both were over at once */
        assert_string_equal(rig.told, "T2");
    else
        assert_true(clock_mono_us() >= first_ends_us - 1000);
    while (strlen(rig.told) < 4)
        event_base_loop(rig.consumer.config.base, EVLOOP_ONCE);
    assert_non_null(strstr(rig.told, "T1"));
    assert_non_null(strstr(rig.told, "T2"));
    assert_string_equal(rig.reason, "Redis has everything up to 0/3000148");
    answer_mark(0x3000200); /* of those who are gone, too */
    assert_string_equal(rig.told + 4, "D0");
}

static void test_lost(void **state)
{
    (void)state;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OK);
    assert_int_equal(drain(1, 1000, LONG_MS), SG_OK);
    refuse_mark("read-only");
    assert_string_equal(rig.told, "L0L1");
    assert_string_equal(rig.reason, "read-only");
    assert_int_equal(drain(2, 1000, LONG_MS), SG_OK);
    drain_stop(&rig.consumer, "the stream ended");
    assert_string_equal(rig.told, "L0L1L2");
    assert_string_equal(rig.reason, "the stream ended");
    drain_stop(&rig.consumer, "again");
    assert_string_equal(rig.told, "L0L1L2");
}

static void test_refused(void **state)
{
    (void)state;
    for (int i = 0; i < CONSUMER_STATES; i++) {
        rig.consumer.state = (enum consumer_state)i;
        if (i != CONSUMER_RUNNING)
            assert_int_equal(drain(0, 1000, LONG_MS), SG_SHARD_UNAVAILABLE);
    }
    rig.consumer.state = CONSUMER_RUNNING;
    rig.consumer.build.step = BUILD_SEED;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_RELOAD_BUSY);
    rig.consumer.build.step = BUILD_NONE;
    rig.consumer.control.count = CONTROL_QUEUE_MAX;
    assert_int_equal(drain(0, 1000, LONG_MS), SG_OVERLOADED);
    assert_int_equal(rig.marks_asked, 0);
    assert_string_equal(rig.told, "");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_drained),           CASE(test_applied_before_the_answer),
        CASE(test_an_lsn_of_nowhere), CASE(test_several),
        CASE(test_time_is_over),      CASE(test_lost),
        CASE(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
