/*
 * Goal: whatever Redis and the stream do, every change goes to Redis in order and under the same
 * position, no LSN is taken for applied before all of it was acknowledged, and the stream waits
 * instead of the memory growing.
 * Method: the feed between a stream, a projection and a sink that are made here: its sources are
 * included with those functions, and its own, under other names. The test puts messages in and
 * answers batches. Outbox and progress are the real ones. An INSERT of oid N books a seat of event
 * N; 666 cannot be understood, 777 is no table of ours.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define stream_new fake_stream_new
#define stream_free fake_stream_free
#define stream_resume fake_stream_resume
#define stream_confirm fake_stream_confirm
#define sink_send fake_sink_send
#define projection_new fake_projection_new
#define projection_free fake_projection_free
#define projection_relation fake_projection_relation
#define projection_change fake_projection_change
#define projection_truncates fake_projection_truncates
#define feed_new tested_new
#define feed_free tested_free
#define feed_set_gate tested_set_gate
#define feed_set_current tested_set_current
#define feed_set_tap tested_set_tap
#define feed_inject tested_inject
#define feed_get_status tested_get_status
#define feed_over tested_over
#define feed_free_memory tested_free_memory
#define feed_take tested_take
#define feed_table_names tested_table_names
#define feed_gathered tested_gathered
#define feed_send_gathered tested_send_gathered
#define feed_send_again tested_send_again
#define feed_go_on tested_go_on
#define feed_confirm tested_confirm
#define feed_mark_idle tested_mark_idle
#define feed_mark_us tested_mark_us

/* NOLINTBEGIN(bugprone-suspicious-include) */
#include "replication/feed.c"
#include "replication/feed_send.c"
#include "replication/feed_take.c"
/* NOLINTEND(bugprone-suspicious-include) */

#include <unistd.h>

/* --- what stands around the feed -------------------------------------------------------------- */

#define BATCHES_MAX 256

struct stream {
    int unused;
};
struct projection {
    int unused;
};

static struct {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct stream_config stream; /* as the feed made it */
    struct stream stream_object;
    struct projection projection_object;
    bool stream_lives;
    unsigned resumed;
    uint64_t confirmed;
    struct {
        char *commands;
        size_t count;
        sink_fn *fn;
        void *arg;
    } sent[BATCHES_MAX];
    size_t sent_count;
    size_t answered;
    bool sink_down;
    struct feed *feed;
    unsigned overs;
    enum feed_end end;
    char reason[256];
    int64_t missing[8];
    size_t missing_count;
    bool free_on_missing;
    bool free_on_applied;
    uint64_t applied[8]; /* as it was when told */
    size_t applied_count;
    struct position tapped[64];
    size_t tapped_count;
} rig;

struct stream *stream_new(const struct stream_config *config)
{
    rig.stream = *config;
    rig.stream_lives = true;
    return &rig.stream_object;
}

void stream_free(struct stream *stream)
{
    if (stream)
        rig.stream_lives = false;
}

void stream_resume(struct stream *stream)
{
    assert_ptr_equal(stream, &rig.stream_object);
    rig.resumed++;
}

void stream_confirm(struct stream *stream, uint64_t received, uint64_t confirmed)
{
    assert_ptr_equal(stream, &rig.stream_object);
    assert_true(received >= confirmed);
    rig.confirmed = confirmed;
}

bool sink_send(struct sink *sink, const struct dynbuf *commands, size_t count, sink_fn *fn,
               void *arg)
{
    (void)sink;
    assert_true(count >= 1);
    if (rig.sink_down)
        return false;
    assert_true(rig.sent_count < BATCHES_MAX);
    rig.sent[rig.sent_count].commands = strdup(dynbuf_text(commands));
    rig.sent[rig.sent_count].count = count;
    rig.sent[rig.sent_count].fn = fn;
    rig.sent[rig.sent_count++].arg = arg;
    return true;
}

struct projection *projection_new(void)
{
    return &rig.projection_object;
}

void projection_free(struct projection *projection)
{
    (void)projection;
}

enum sg_error projection_relation(struct projection *projection,
                                  const struct pgoutput_message *message,
                                  char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    (void)projection;
    if (strcmp(message->name, "broken") != 0)
        return SG_OK;
    snprintf(ret_problem, PROJECTION_PROBLEM_SIZE, "bookings has no column seats");
    return SG_MALFORMED;
}

enum sg_error projection_change(struct projection *projection,
                                const struct pgoutput_message *message, struct effects *ret_effects,
                                const char **ret_table, char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    static const int32_t seat = 3;
    (void)projection;
    ret_effects->count = 0;
    *ret_table = "unknown";
    if (message->oid == 666) {
        snprintf(ret_problem, PROJECTION_PROBLEM_SIZE, "bookings.seats: not an array");
        return SG_MALFORMED;
    }
    if (message->oid == 777)
        return SG_OK;
    *ret_table = "bookings";
    ret_effects->count = 2;
    ret_effects->item[0] = (struct effect){.kind = EFFECT_SEATS,
                                           .event_id = message->oid,
                                           .d_booked = 1,
                                           .state = 'x',
                                           .seats = &seat,
                                           .seat_count = 1};
    ret_effects->item[1] = (struct effect){
        .kind = EFFECT_TICKET_ADD, .event_id = message->oid, .user = "u", .user_len = 1};
    return SG_OK;
}

bool projection_truncates(const struct projection *projection,
                          const struct pgoutput_message *message)
{
    (void)projection;
    return message->oid_count == 1 && message->oids[0] == 1;
}

/* --- helpers ---------------------------------------------------------------------------------- */

static void on_tested_started(void *arg)
{
    (void)arg;
}

static void on_tested_over(void *arg, enum feed_end end, const char *reason)
{
    (void)arg;
    rig.overs++;
    rig.end = end;
    snprintf(rig.reason, sizeof(rig.reason), "%s", reason);
}

static void on_tested_missing(void *arg, int64_t event_id)
{
    (void)arg;
    rig.missing[rig.missing_count++] = event_id;
    if (rig.free_on_missing) {
        feed_free(rig.feed);
        rig.feed = NULL;
    }
}

static void on_tested_effect(void *arg, const struct effect *effect,
                             const struct position *position)
{
    (void)arg;
    (void)effect;
    rig.tapped[rig.tapped_count++ % 64] = *position;
}

static void on_tested_applied(void *arg)
{
    struct feed_status said;
    (void)arg;
    feed_get_status(rig.feed, &said);
    rig.applied[rig.applied_count++ % 8] = said.applied;
    if (rig.free_on_applied) {
        feed_free(rig.feed);
        rig.feed = NULL;
    }
}

static void turn(void)
{
    event_base_loop(rig.base, EVLOOP_NONBLOCK);
}

static void turn_for(int64_t ms)
{
    int64_t end_us = clock_mono_us() + ms * 1000;
    while (clock_mono_us() < end_us) {
        turn();
        usleep(200);
    }
}

/* Until so many batches were sent; fails after ten seconds. */
static void turn_until_sent(size_t count)
{
    int64_t end_us = clock_mono_us() + 10000000;
    while (rig.sent_count < count) {
        assert_true(clock_mono_us() < end_us);
        turn();
        usleep(200);
    }
    assert_int_equal(rig.sent_count, count);
}

static void start(uint64_t start_lsn, bool current, uint64_t gate)
{
    const struct feed_config config = {.base = rig.base,
                                       .reap = rig.reap,
                                       .metrics = rig.metrics,
                                       .settings = &rig.settings,
                                       .shard = "alpha",
                                       .dsn = "",
                                       .slot = "seatgrid_alpha_1",
                                       .generation = 1,
                                       .epoch = 5,
                                       .start_lsn = start_lsn,
                                       .current = current,
                                       .gate = gate,
                                       .on_started = on_tested_started,
                                       .on_over = on_tested_over,
                                       .on_applied = on_tested_applied,
                                       .on_missing = on_tested_missing,
                                       .on_effect = on_tested_effect};
    rig.feed = feed_new(&config);
    assert_non_null(rig.feed);
    rig.stream.on_started(rig.stream.arg);
}

static bool put(const struct pgoutput_message *message)
{
    return rig.stream.on_message(rig.stream.arg, message, message->lsn);
}

static bool put_begin(uint64_t final_lsn)
{
    return put(&(struct pgoutput_message){
        .type = PGOUTPUT_BEGIN, .lsn = final_lsn, .time_us = clock_wall_us()});
}

static bool put_insert(uint32_t event)
{
    return put(&(struct pgoutput_message){.type = PGOUTPUT_INSERT, .oid = event});
}

static void put_commit(uint64_t end_lsn)
{
    assert_true(put(&(struct pgoutput_message){.type = PGOUTPUT_COMMIT,
                                               .lsn = end_lsn - 8,
                                               .end_lsn = end_lsn,
                                               .time_us = clock_wall_us()}));
}

/* A whole transaction with one change. */
static void put_transaction(uint64_t final_lsn, uint32_t event)
{
    assert_true(put_begin(final_lsn));
    assert_true(put_insert(event));
    put_commit(final_lsn + 8);
}

static void answer_missing(enum sink_outcome outcome, const char *reason, const size_t *missing,
                           size_t missing_count)
{
    assert_true(rig.answered < rig.sent_count);
    const struct sink_result result = {outcome, reason, missing, missing_count};
    size_t i = rig.answered++;
    rig.sent[i].fn(rig.sent[i].arg, &result);
}

static void answer(enum sink_outcome outcome)
{
    answer_missing(outcome, outcome == SINK_DONE ? "" : "said so", NULL, 0);
}

static bool has(size_t batch, const char *text)
{
    assert_true(batch < rig.sent_count);
    return strstr(rig.sent[batch].commands, text) != NULL;
}

static struct feed_status status(void)
{
    struct feed_status said;
    feed_get_status(rig.feed, &said);
    return said;
}

static int set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    settings_init(&rig.settings);
    rig.settings.cdc.redis_loss_ms = 0;
    rig.settings.cdc.batches_in_flight = 2;
    rig.settings.cdc.gather_us = 1000;
    rig.settings.cdc.repair_min_ms = 5;
    rig.settings.cdc.repair_max_ms = 20;
    rig.base = event_base_new();
    rig.reap = reap_list_new(rig.base);
    rig.metrics = metrics_set_new();
    log_setup(LOG_LEVEL_ERROR, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    feed_free(rig.feed);
    while (rig.answered < rig.sent_count)
        answer(SINK_LOST);
    assert_false(rig.stream_lives);
    for (size_t i = 0; i < rig.sent_count; i++)
        free(rig.sent[i].commands);
    reap_list_free(rig.reap);
    event_base_free(rig.base);
    metrics_shutdown();
    return 0;
}

/* --- batches ---------------------------------------------------------------------------------- */

static void test_a_quiet_feed_sends_at_once_and_confirms_what_was_acknowledged(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    assert_int_equal(rig.sent_count, 0); /* not before the turn is over */
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_int_equal(rig.sent[0].count, 3); /* event, tickets, mark */
    assert_true(has(0, "000000000000000010000000000001"));
    assert_true(has(0, "mark"));
    assert_true(has(0, "1008"));
    assert_true(has(0, "live"));
    assert_int_equal(status().applied, 0);
    assert_true(status().oldest_unapplied_us > 0);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
    assert_int_equal(rig.confirmed, 1008);
    assert_int_equal(status().commits, 1);
    assert_int_equal(status().oldest_unapplied_us, 0);
}

static void test_changes_of_a_turn_go_together(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    for (uint32_t i = 0; i < 10; i++)
        put_transaction(1000 + i * 100, 1 + i);
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_int_equal(rig.sent[0].count, 12);
    answer(SINK_DONE);
    assert_int_equal(status().commits, 10);
    assert_int_equal(status().changes, 10);
    assert_int_equal(status().applied, 1908);
}

/* Places count changes with an effect; all effects of one change share its place. */
static void test_places(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    assert_true(put_insert(1));
    assert_true(put_insert(777));
    assert_true(put_insert(2));
    put_commit(1008);
    put_transaction(2000, 1);
    const struct position expected[] = {{1000, 1}, {1000, 1}, {1000, 2},
                                        {1000, 2}, {2000, 1}, {2000, 1}};
    assert_int_equal(rig.tapped_count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(position_compare(&rig.tapped[i], &expected[i]), 0);
}

static void test_a_transaction_is_cut_and_counts_only_when_all_of_it_is_there(void **state)
{
    (void)state;
    rig.settings.cdc.batch_max = 4;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    for (uint32_t i = 1; i <= 6; i++)
        assert_true(put_insert(i));
    turn();
    assert_int_equal(rig.sent_count, 2);
    assert_false(has(0, "mark"));
    assert_false(has(1, "mark"));
    answer(SINK_DONE);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 0);
    assert_true(status().oldest_unapplied_us > 0);
    put_commit(1008);
    turn();
    assert_int_equal(rig.sent_count, 3);
    assert_true(has(2, "mark"));
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
    assert_int_equal(status().changes, 6);
}

static void test_a_full_outbox_holds_the_stream_until_there_is_room(void **state)
{
    uint32_t next = 1;
    (void)state;
    rig.settings.cdc.batch_max = 4;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    while (put_insert(next))
        assert_true(next++ < 100);
    turn();
    assert_int_equal(rig.sent_count, 2); /* as many as may be in flight */
    size_t tapped = rig.tapped_count;
    assert_false(put_insert(next));
    assert_int_equal(rig.tapped_count, tapped);
    assert_int_equal(rig.resumed, 0);
    answer(SINK_DONE);
    assert_int_equal(rig.sent_count, 3);
    assert_int_equal(rig.resumed, 1);
    assert_true(put_insert(next));
    assert_int_equal(rig.tapped[(rig.tapped_count - 1) % 64].place, next);
}

static void test_two_in_flight_in_order(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    put_transaction(2000, 2);
    assert_int_equal(rig.sent_count, 1); /* gathers */
    turn_until_sent(2);
    put_transaction(3000, 3);
    turn_for(3);
    assert_int_equal(rig.sent_count, 2); /* not a third */
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
    assert_int_equal(rig.sent_count, 3);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 2008);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 3008);
}

static void test_an_empty_commit_moves_on(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    assert_true(put(&(struct pgoutput_message){
        .type = PGOUTPUT_MESSAGE, .name = "seatgrid.cdc", .transactional = true, .lsn = 990}));
    put_commit(1008);
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_int_equal(rig.sent[0].count, 1);
    answer(SINK_DONE);
    assert_int_equal(rig.confirmed, 1008);
}

/* --- marks ------------------------------------------------------------------------------------ */

static void test_only_the_current_generation_is_marked(void **state)
{
    (void)state;
    start(0, false, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    assert_false(has(0, "mark"));
    answer(SINK_DONE);
    assert_true(put_begin(2000));
    put_commit(2008); /* nothing to send: applied as it is */
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_int_equal(rig.confirmed, 2008);
    feed_set_current(rig.feed);
    put_transaction(3000, 1);
    turn();
    assert_true(has(1, "mark"));
}

/* A commit without effects is not applied before what was sent ahead of it. */
static void test_an_empty_commit_of_an_unmarked_generation_waits_its_turn(void **state)
{
    (void)state;
    start(0, false, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    assert_true(put_begin(2000));
    put_commit(2008);
    turn_for(3);
    assert_int_equal(status().applied, 0);
    answer(SINK_DONE);
    turn();
    assert_int_equal(status().applied, 2008);
}

static void test_an_idle_shard_beats(void **state)
{
    (void)state;
    rig.settings.redis.max_staleness_ms = 100;
    start(0, true, FEED_GATE_OPEN);
    turn_for(60);
    assert_int_equal(rig.sent_count, 0); /* nothing is known yet */
    put_transaction(1000, 1);
    turn();
    answer(SINK_DONE);
    turn_until_sent(2);
    assert_int_equal(rig.sent[1].count, 1);
    assert_true(has(1, "1008"));
    turn_for(60);
    assert_int_equal(rig.sent_count, 2); /* one at a time */
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
    assert_int_equal(status().commits, 1);
}

static void test_what_happened_long_ago_is_marked_stale(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    assert_true(put(&(struct pgoutput_message){.type = PGOUTPUT_COMMIT,
                                               .lsn = 1000,
                                               .end_lsn = 1008,
                                               .time_us = clock_wall_us() - 3600000000LL}));
    turn();
    assert_true(has(0, "stale"));
}

/* --- Redis says no ---------------------------------------------------------------------------- */

static void test_refused_batches_are_sent_again_in_order_until_taken(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    put_transaction(2000, 2);
    turn_until_sent(2);
    for (size_t round = 1; round <= 12; round++) {
        answer(SINK_FULL);
        turn_for(8);
        assert_int_equal(rig.sent_count, 2 * round); /* not before both are answered */
        answer(SINK_FULL);
        put_transaction(2000 + 100 * round, 3);
        turn_until_sent(2 * round + 2);
        assert_string_equal(rig.sent[2 * round].commands, rig.sent[0].commands);
        assert_string_equal(rig.sent[2 * round + 1].commands, rig.sent[1].commands);
        assert_int_equal(status().applied, 0);
    }
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 2008);
    turn_until_sent(27);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 3208);
    assert_int_equal(rig.overs, 0);
}

static void test_scripts_that_were_lost_are_no_loss(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    answer_missing(SINK_FAILED, "NOSCRIPT No matching script.", NULL, 0);
    turn_until_sent(2);
    answer(SINK_DONE);
    assert_int_equal(status().applied, 1008);
}

static void check_over(enum sink_outcome outcome, enum feed_end end)
{
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 1);
    turn();
    put_transaction(2000, 2);
    turn_until_sent(2);
    answer(outcome);
    assert_int_equal(rig.overs, 0); /* from the loop */
    turn();
    assert_int_equal(rig.overs, 1);
    assert_int_equal(rig.end, end);
    assert_string_equal(rig.reason, "said so");
    answer(outcome);
    turn_for(30);
    assert_int_equal(rig.overs, 1);
    assert_int_equal(rig.sent_count, 2);
    assert_int_equal(status().applied, 0);
}

static void test_stale(void **state)
{
    (void)state;
    check_over(SINK_STALE, FEED_REPLACED);
}

static void test_gone(void **state)
{
    (void)state;
    check_over(SINK_GONE, FEED_KEYS_GONE);
}

static void test_lost(void **state)
{
    (void)state;
    check_over(SINK_LOST, FEED_SINK_LOST);
}

static void test_failed(void **state)
{
    (void)state;
    check_over(SINK_FAILED, FEED_SINK_LOST);
}

static void test_a_sink_that_is_down(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    rig.sink_down = true;
    put_transaction(1000, 1);
    turn();
    turn();
    assert_int_equal(rig.overs, 1);
    assert_int_equal(rig.end, FEED_SINK_LOST);
}

/* Told when Redis has acknowledged it, not before; also inside it the feed may be freed. */
static void test_applied_is_told(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 41);
    turn();
    assert_int_equal(rig.sent_count, 1);
    put_transaction(2000, 42);
    turn_until_sent(2);
    assert_int_equal(rig.applied_count, 0);
    answer(SINK_DONE);
    assert_int_equal(rig.applied_count, 1);
    assert_int_equal(rig.applied[0], 1008);
    rig.free_on_applied = true;
    answer(SINK_DONE);
    assert_int_equal(rig.applied_count, 2);
    assert_int_equal(rig.applied[1], 2008);
    turn();
}

static void test_missing_names_the_event(void **state)
{
    const size_t missing[] = {0, 2};
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 41);
    put_transaction(2000, 42);
    turn();
    assert_int_equal(rig.sent[0].count, 4);
    answer_missing(SINK_DONE, "", missing, 2);
    assert_int_equal(rig.missing_count, 2);
    assert_int_equal(rig.missing[0], 41);
    assert_int_equal(rig.missing[1], 42);
    assert_int_equal(status().applied, 2008);
}

static void test_freed_inside_a_callback(void **state)
{
    const size_t missing[] = {0, 2};
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put_transaction(1000, 41);
    put_transaction(2000, 42);
    turn();
    put_transaction(3000, 43);
    turn_until_sent(2);
    rig.free_on_missing = true;
    answer_missing(SINK_DONE, "", missing, 2);
    assert_int_equal(rig.missing_count, 1);
    turn();
    answer(SINK_DONE); /* the memory has waited for it */
    turn();
    assert_int_equal(rig.overs, 0);
}

/* --- the stream ------------------------------------------------------------------------------- */

static void test_the_gate(void **state)
{
    (void)state;
    start(0, true, 2001);
    put_transaction(2000, 1);
    assert_false(put_begin(3001));
    turn();
    answer(SINK_DONE);
    assert_true(status().oldest_unapplied_us > 0); /* waits at the gate */
    assert_int_equal(rig.resumed, 1);              /* there is room: once for nothing */
    assert_false(put_begin(3001));
    feed_set_gate(rig.feed, 3000);
    assert_int_equal(rig.resumed, 2);
    assert_false(put_begin(3001));
    feed_set_gate(rig.feed, 3000);
    assert_int_equal(rig.resumed, 2); /* has not moved */
    feed_set_gate(rig.feed, 3001);
    assert_false(put_begin(3001)); /* at the gate is not behind it */
    feed_set_gate(rig.feed, 3002);
    assert_int_equal(rig.resumed, 4);
    assert_true(put_begin(3001));
    assert_true(put_insert(1));
    put_commit(3009);
    turn();
    answer(SINK_DONE);
    assert_int_equal(status().applied, 3009);
    assert_int_equal(status().oldest_unapplied_us, 0);
}

/* A standby's LSN at the border of a page may cut the commit's record in two. */
static void test_the_gate_at_the_border_of_a_page(void **state)
{
    (void)state;
    start(0, true, 0x100000);
    assert_false(put_begin(0x100000 - 8));
    feed_set_gate(rig.feed, 0x100000 + 24);
    assert_true(put_begin(0x100000 - 8));
}

static void test_what_is_in_the_keys_is_skipped(void **state)
{
    (void)state;
    start(2000, true, FEED_GATE_OPEN);
    put_transaction(1500, 1);
    put_transaction(1992, 1); /* ends at 2000 */
    turn();
    assert_int_equal(rig.sent_count, 0);
    assert_int_equal(rig.tapped_count, 0);
    put_transaction(2000, 2);
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_true(has(0, "sg1:{e:2}"));
    assert_false(has(0, "sg1:{e:1}"));
}

static void test_truncate(void **state)
{
    (void)state;
    start(2000, true, FEED_GATE_OPEN);
    struct pgoutput_message truncate = {.type = PGOUTPUT_TRUNCATE, .oid_count = 1, .oids = {1}};
    assert_true(put_begin(1000));
    assert_true(put(&truncate)); /* seeded after it */
    put_commit(1008);
    turn();
    assert_int_equal(rig.overs, 0);
    assert_true(put_begin(3000));
    truncate.oids[0] = 2;
    assert_true(put(&truncate)); /* none of ours */
    turn();
    assert_int_equal(rig.overs, 0);
    truncate.oids[0] = 1;
    put(&truncate);
    turn();
    assert_int_equal(rig.end, FEED_TRUNCATED);
}

static void test_what_cannot_be_understood_blocks(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    assert_true(put_begin(1000));
    put_insert(666);
    assert_false(rig.stream_lives);
    turn();
    assert_int_equal(rig.end, FEED_BLOCKED);
    assert_string_equal(rig.reason, "bookings.seats: not an array");
    assert_int_equal(rig.sent_count, 0);
}

static void test_a_relation_without_its_columns_blocks(void **state)
{
    (void)state;
    start(0, true, FEED_GATE_OPEN);
    put(&(struct pgoutput_message){
        .type = PGOUTPUT_RELATION, .oid = 1, .schema = "public", .name = "broken"});
    turn();
    assert_int_equal(rig.end, FEED_BLOCKED);
    assert_string_equal(rig.reason, "bookings has no column seats");
}

static void test_ends_of_the_stream(void **state)
{
    static const struct {
        const char *sqlstate;
        enum feed_end end;
    } table[] = {{"42704", FEED_SLOT_GONE}, {"55000", FEED_SLOT_GONE},   {"55006", FEED_SLOT_TAKEN},
                 {"08P01", FEED_BLOCKED},   {"57P01", FEED_STREAM_LOST}, {"", FEED_STREAM_LOST}};
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        start(0, true, FEED_GATE_OPEN);
        rig.stream.on_lost(rig.stream.arg, table[i].sqlstate, "gone");
        turn();
        assert_int_equal(rig.overs, i + 1);
        assert_int_equal(rig.end, table[i].end);
        feed_free(rig.feed);
        rig.feed = NULL;
        turn();
    }
}

/* --- injected --------------------------------------------------------------------------------- */

static void test_injected_effects_stand_in_line(void **state)
{
    const struct effect seed = {
        .kind = EFFECT_EVENT_SEED, .event_id = 9, .rows = 1, .cols = 10, .d_booked = 1};
    struct position position = {500, 0};
    size_t taken = 0;
    (void)state;
    rig.settings.cdc.batch_max = 2;
    rig.settings.cdc.batches_in_flight = 1;
    start(0, true, FEED_GATE_OPEN);
    assert_int_equal(feed_inject(rig.feed, &seed, &position), SG_OK);
    turn();
    assert_int_equal(rig.sent_count, 1);
    assert_int_equal(rig.sent[0].count, 1);
    for (struct effect more = seed; taken < 100; taken++) {
        more.event_id++;
        position.place++;
        if (feed_inject(rig.feed, &more, &position) == SG_OVERLOADED)
            break;
    }
    assert_int_equal(taken, 2);
    answer(SINK_DONE);
    assert_int_equal(rig.sent_count, 2);
    assert_int_equal(status().applied, 0);
    assert_int_equal(rig.tapped_count, 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_quiet_feed_sends_at_once_and_confirms_what_was_acknowledged),
        CASE(test_changes_of_a_turn_go_together),
        CASE(test_places),
        CASE(test_a_transaction_is_cut_and_counts_only_when_all_of_it_is_there),
        CASE(test_a_full_outbox_holds_the_stream_until_there_is_room),
        CASE(test_two_in_flight_in_order),
        CASE(test_an_empty_commit_moves_on),
        CASE(test_only_the_current_generation_is_marked),
        CASE(test_an_empty_commit_of_an_unmarked_generation_waits_its_turn),
        CASE(test_an_idle_shard_beats),
        CASE(test_what_happened_long_ago_is_marked_stale),
        CASE(test_refused_batches_are_sent_again_in_order_until_taken),
        CASE(test_scripts_that_were_lost_are_no_loss),
        CASE(test_stale),
        CASE(test_gone),
        CASE(test_lost),
        CASE(test_failed),
        CASE(test_a_sink_that_is_down),
        CASE(test_applied_is_told),
        CASE(test_missing_names_the_event),
        CASE(test_freed_inside_a_callback),
        CASE(test_the_gate),
        CASE(test_the_gate_at_the_border_of_a_page),
        CASE(test_what_is_in_the_keys_is_skipped),
        CASE(test_truncate),
        CASE(test_what_cannot_be_understood_blocks),
        CASE(test_a_relation_without_its_columns_blocks),
        CASE(test_ends_of_the_stream),
        CASE(test_injected_effects_stand_in_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
