/*
 * Goal: while a shard has no primary that takes writes its bookings wait, in order and bounded;
 * what was sent and not answered is asked for again under its id, never sent anew; nothing goes to
 * a primary that may not be written to; a refusal makes no busy loop; a booking of durability sync
 * is acknowledged only when a standby surely has it; other shards notice nothing. Method: a router
 * on fake servers (router_rig.h) whose topology the test changes as failovers do.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

#include "base/dynbuf.h"

/* --- misbehaviours ---------------------------------------------------------------------------- */

static bool hangs(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_hang(session);
    return true;
}

/* Books, and nobody hears of it. */
static bool books_and_hangs(struct rig_server *server, struct fake_session *session)
{
    size_t before = session->out.len;
    rig_take_batch(server, session);
    session->out.len = before;
    fake_hang(session);
    return true;
}

static bool is_read_only(struct rig_server *server, struct fake_session *session)
{
    server->batches++;
    fake_error(session, "25006");
    return true;
}

static const char *refusal;

static bool refuses(struct rig_server *server, struct fake_session *session)
{
    const char *const values[TAKE_COLUMNS] = {"0", refusal};
    server->batches++;
    fake_describe(session, TAKE_COLUMNS);
    fake_row(session, TAKE_COLUMNS, values);
    fake_complete(session, "SELECT 1");
    return true;
}

static bool refuses_once(struct rig_server *server, struct fake_session *session)
{
    server->instead = NULL;
    return refuses(server, session);
}

/* COMMIT succeeds, with the warning that the wait for a standby was cancelled. */
static bool warns_at_commit_once(struct rig_server *server, struct fake_session *session)
{
    server->commit = NULL;
    fake_put_report(session, 'N', "WARNING", "01000");
    fake_command(session, "COMMIT");
    return true;
}

/* --- what the test does ----------------------------------------------------------------------- */

static void publish(struct rig *rig, const struct rig_topology *topology)
{
    rig_publish_topology(rig, topology);
    router_sync_topology(rig->router);
}

static const struct rig_topology nobody = {.alpha_primary = NULL, .replica_down = true};
static const struct rig_topology promoted = {
    .alpha_primary = "alpha-2", .epoch = 2, .timeline = 2, .replica_down = true};

static void book(struct rig *rig, int count)
{
    for (int i = 0; i < count; i++)
        rig_book(rig, 5);
}

static void check_all_booked_in_order(struct rig *rig)
{
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, rig->errand_count, SG_OK);
    for (unsigned i = 0; i < rig->errand_count; i++) {
        assert_int_equal(rig->errands[i].order, i + 1);
        assert_false(rig->errands[i].replayed);
    }
}

/* All are waiting, until this is published. */
static void check_waiting_until(struct rig *rig, const struct rig_topology *topology)
{
    turn_for(rig->base, 50);
    assert_int_equal(rig->answers, 0);
    publish(rig, topology);
    check_all_booked_in_order(rig);
}

/* Beta books while alpha waits. */
static void check_other_shard(struct rig *rig)
{
    struct errand *errand = rig_book(rig, 1500);
    turn_until(rig->base, errand->answers == 1);
    assert_int_equal(errand->error, SG_OK);
    rig->errand_count--; /* it is not one of those that the story is about */
    rig->answers--;
}

static void kill_server(struct rig *rig, enum rig_node node)
{
    fake_stop_listening(rig->servers[node].postgres);
    fake_cut(rig->servers[node].postgres);
}

static void check_metric(const char *expected)
{
    struct dynbuf text;
    dynbuf_init(&text, 1 << 20);
    metrics_render(&text);
    if (!strstr(dynbuf_text(&text), expected))
        fail_msg("not on /metrics: %s", expected);
    dynbuf_done(&text);
}

/* --- deaths ----------------------------------------------------------------------------------- */

/* Nothing was under way when it died: health is told all the same, and the first booking waits. */
static void test_a_quiet_router_waits_too(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    kill_server(rig, ALPHA_1);
    turn_until(rig->base, rig->suspects > 0);
    publish(rig, &nobody);
    book(rig, 3);
    check_other_shard(rig);
    check_waiting_until(rig, &promoted);
    for (unsigned i = 0; i < 3; i++) {
        const struct asked *asked = &rig->asked[rig->asked_count - 3 + i];
        assert_int_equal(asked->node, ALPHA_2);
        assert_int_equal(asked->epoch, 2);
        assert_false(asked->recheck); /* never sent before */
    }
}

/* The topology still names the dead one, and connections are refused. */
static void test_a_refused_connection_waits(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    kill_server(rig, ALPHA_1);
    book(rig, 3);
    check_other_shard(rig);
    check_waiting_until(rig, &promoted);
}

/* The same primary comes back, long before the next try of a connection that has long been failing.
 */
static void test_a_primary_that_is_back_is_met_at_once(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.backoff_min_ms = 60000;
    rig->settings.postgres.backoff_max_ms = 60000;
    rig_start_ready(rig);
    kill_server(rig, ALPHA_1);
    turn_until(rig->base, rig->suspects > 0);
    publish(rig, &nobody);
    book(rig, 3);
    turn_for(rig->base, 30);
    fake_listen(rig->servers[ALPHA_1].postgres);
    publish(rig, &all_is_well);
    check_all_booked_in_order(rig);
}

static void test_a_hung_primary_is_left_for_a_new_one(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = books_and_hangs;
    book(rig, 3);
    turn_until(rig->base, rig->servers[ALPHA_1].batches == 1);
    book(rig, 2);
    check_other_shard(rig);
    publish(rig, &nobody); /* down, says health; but nobody is there yet */
    check_waiting_until(rig, &promoted);
    for (unsigned i = rig->asked_count - 5; i < rig->asked_count; i++) {
        assert_int_equal(rig->asked[i].node, ALPHA_2);
        assert_int_equal(rig->asked[i].recheck, rig->asked[i].label <= 3);
    }
}

/* Nobody takes over; after the statement's deadline it is asked for again where it was. */
static void test_a_hung_primary_that_wakes(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.statement_timeout_ms = 60;
    rig_start_ready(rig);
    fake_set_deaf(rig->servers[ALPHA_1].postgres, true);
    book(rig, 3);
    check_other_shard(rig);
    turn_until(rig->base, rig->suspects > 0);
    assert_int_equal(rig->answers, 0);
    fake_set_deaf(rig->servers[ALPHA_1].postgres, false);
    check_all_booked_in_order(rig);
    assert_true(rig->asked[rig->asked_count - 1].recheck);
}

static void test_two_failovers_in_a_row(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = hangs;
    rig->servers[ALPHA_2].instead = books_and_hangs;
    book(rig, 4);
    turn_for(rig->base, 10);
    publish(rig, &promoted);
    turn_until(rig->base, rig->servers[ALPHA_2].batches == 1);
    book(rig, 2);
    publish(rig, &nobody);
    rig->servers[ALPHA_1].instead = NULL;
    turn_for(rig->base, 10);
    publish(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .epoch = 3, .timeline = 3});
    check_all_booked_in_order(rig);
    for (unsigned i = rig->asked_count - 6; i < rig->asked_count; i++) {
        assert_int_equal(rig->asked[i].node, ALPHA_1);
        assert_int_equal(rig->asked[i].epoch, 3);
        assert_int_equal(rig->asked[i].recheck, rig->asked[i].label <= 4);
    }
}

/* Its old connections answer 25006; the topology is told, and learns better in time. */
static void test_a_demoted_primary(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = is_read_only;
    rig->servers[ALPHA_1].postgres->mood = FAKE_STANDBY;
    book(rig, 3);
    turn_until(rig->base, rig->suspects > 0);
    turn_for(rig->base, 60);
    assert_int_equal(rig->answers, 0);
    assert_int_equal(rig->servers[ALPHA_1].batches, 1); /* no more: it cannot be written to */
    publish(rig, &promoted);
    check_all_booked_in_order(rig);
    assert_false(rig->asked[0].recheck); /* it was refused, not lost */
}

/* --- who may not be written to ---------------------------------------------------------------- */

static void test_nothing_goes_to_a_primary_that_may_not(void **state)
{
    static const struct rig_topology no[] = {
        {.alpha_primary = "alpha-2", .epoch = 1, .timeline = 2, .unattested = true},
        {.alpha_primary = "alpha-2", .epoch = 1, .timeline = 2, .fenced = true},
        {.alpha_primary = NULL, .timeline = 2},
    };
    struct rig *rig = *state;
    rig_start_ready(rig);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        publish(rig, &no[i]);
        book(rig, 2);
        turn_for(rig->base, 60);
        assert_int_equal(rig->answers, 0);
        assert_int_equal(rig->servers[ALPHA_1].batches, 0);
        assert_int_equal(rig->servers[ALPHA_2].batches, 0);
    }
    publish(rig, &promoted);
    check_all_booked_in_order(rig);
    assert_int_equal(rig->servers[ALPHA_1].batches, 0);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void refused_until_the_epoch_changes(struct rig *rig, const char *word, enum sg_error error,
                                            unsigned batches_max)
{
    refusal = word;
    rig->settings.booking.deadline_ms = 1500;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = refuses;
    book(rig, 3);
    check_other_shard(rig);
    rig_wait(rig);
    rig_check_errors(rig, 0, 3, error);
    assert_true(rig->suspects > 0);
    assert_in_range(rig->servers[ALPHA_1].batches, 1, batches_max);

    rig->errand_count = rig->answers = 0;
    rig->settings.booking.deadline_ms = 8000;
    book(rig, 3);
    turn_for(rig->base, 10);
    rig->servers[ALPHA_1].instead = NULL;
    publish(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .epoch = 7});
    check_all_booked_in_order(rig);
    for (unsigned i = rig->asked_count - 3; i < rig->asked_count; i++) {
        assert_int_equal(rig->asked[i].epoch, 7);
        assert_false(rig->asked[i].recheck);
    }
}

static void test_a_fence(void **state)
{
    refused_until_the_epoch_changes(*state, "fenced", SG_FENCED, 10);
}

static void test_a_stale_epoch(void **state)
{
    refused_until_the_epoch_changes(*state, "stale_epoch", SG_STALE_EPOCH, 10);
}

static void test_no_standby(void **state)
{
    refused_until_the_epoch_changes(*state, "not_synchronous", SG_NOT_SYNCHRONOUS, 150);
}

/* A fence that comes and goes without the topology noticing: the slow tick. One that the topology
 * has seen come and go: at once. */
static void test_a_fence_that_is_lifted(void **state)
{
    struct rig *rig = *state;
    refusal = "fenced";
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = refuses_once;
    book(rig, 3);
    check_all_booked_in_order(rig);
    rig->servers[ALPHA_1].instead = refuses_once;
    book(rig, 3);
    turn_until(rig->base, !rig->servers[ALPHA_1].instead);
    publish(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .fenced = true});
    turn_for(rig->base, 250);
    assert_int_equal(rig->answers, 3);
    publish(rig, &all_is_well);
    check_all_booked_in_order(rig);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void test_the_buffer_has_bounds(void **state)
{
    struct rig *rig = *state;
    struct errand *errand = &rig->errands[ERRANDS_MAX - 1];
    struct seat seat = {1, 1};
    char key[ROUTER_KEY_MAX + 1];
    struct book_request request = {.event_id = 5,
                                   .user_id = "u",
                                   .seats = &seat,
                                   .seat_count = 1,
                                   .request_id = "r",
                                   .idempotency_key = key};
    size_t taken = 0;
    memset(key, 'k', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    errand->rig = rig;
    rig->settings.booking.queue_bytes = 65536;
    rig->settings.booking.deadline_ms = 2000;
    rig_publish_topology(rig, &nobody);
    rig_start(rig);
    while (router_book(rig->router, &request, on_rig_booked, errand) == SG_OK)
        assert_true(++taken < 1000);
    assert_in_range(taken, 65536 / 1000, 65536 / 255);
    check_metric("seatgrid_lane_waiting{shard=\"alpha\"} ");
    check_other_shard(rig);
    turn_until(rig->base, errand->answers == taken);
    assert_int_equal(errand->error, SG_SHARD_UNAVAILABLE);
    check_metric("seatgrid_lane_waiting_bytes{shard=\"alpha\"} 0\n");
    assert_int_equal(router_book(rig->router, &request, on_rig_booked, errand), SG_OK);
}

/* --- durability ------------------------------------------------------------------------------- */

/* A lane's connection to the node has these words in its options. */
static bool has_options(struct rig *rig, enum rig_node node, const char *words)
{
    struct fake_session *session;
    LIST_FOREACH (session, &rig->servers[node].postgres->sessions, link) {
        if (strstr(session->options, words))
            return true;
    }
    return false;
}

static void test_connections_say_what_they_promise(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    assert_true(
        has_options(rig, ALPHA_1, "-c seatgrid.durability=async -c synchronous_commit=local"));
    rig_book(rig, 5);
    rig_wait(rig);
    assert_int_equal(rig->errands[0].durability, SHARDMAP_ASYNC);
    rig->servers[ALPHA_1].waits = true;
    rig_publish_map(rig, &(struct rig_map){.version = 2, .sync = true});
    router_sync_map(rig->router);
    rig_book(rig, 5);
    rig_wait(rig);
    assert_true(has_options(rig, ALPHA_1, "-c seatgrid.durability=sync -c synchronous_commit=on"));
    assert_false(has_options(rig, ALPHA_1, "synchronous_commit=local"));
    assert_int_equal(rig->errands[1].durability, SHARDMAP_SYNC);
    assert_int_equal(rig->errands[1].token.lsn, 0x16B3748);
    rig_book(rig, 1500); /* the other shard promises what it did */
    rig_wait(rig);
    assert_true(has_options(rig, BETA_1, "synchronous_commit=local"));
    assert_int_equal(rig->errands[2].durability, SHARDMAP_ASYNC);
}

static void start_sync(struct rig *rig)
{
    rig_publish_map(rig, &(struct rig_map){.version = 2, .sync = true});
    rig_start_ready(rig);
}

/* Booked, but the server waits for nobody (any more): that is not what was asked for. */
static void unsure_until_it_waits(struct rig *rig)
{
    start_sync(rig);
    book(rig, 3);
    turn_until(rig->base, rig->asked_count >= 6);
    assert_int_equal(rig->answers, 0);
    rig->servers[ALPHA_1].waits = true;
    check_all_booked_in_order(rig);
    for (unsigned i = 0; i < rig->asked_count; i++)
        assert_int_equal(rig->asked[i].recheck, i >= 3); /* never blindly replayed */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rig->errands[i].durability, SHARDMAP_SYNC);
}

static void test_sync_is_told_only_if_it_is(void **state)
{
    unsure_until_it_waits(*state);
}

static void test_sync_past_its_deadline_is_unknown(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.deadline_ms = 2000;
    start_sync(rig);
    book(rig, 3);
    rig_wait(rig);
    rig_check_errors(rig, 0, 3, SG_OUTCOME_UNKNOWN);
}

static void test_a_wait_that_was_cut_short(void **state)
{
    struct rig *rig = *state;
    rig->servers[ALPHA_1].waits = true;
    rig->servers[ALPHA_1].commit = warns_at_commit_once;
    start_sync(rig);
    book(rig, 3);
    check_all_booked_in_order(rig);
    assert_int_equal(rig->asked_count, 6);
    assert_true(rig->asked[5].recheck);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rig->errands[i].durability, SHARDMAP_SYNC);
}

static bool says_nothing_of_wal_once(struct rig_server *server, struct fake_session *session)
{
    server->wal = NULL;
    fake_error(session, "55000");
    return true;
}

static void test_an_answer_without_its_proof(void **state)
{
    struct rig *rig = *state;
    rig->servers[ALPHA_1].waits = true;
    rig->servers[ALPHA_1].wal = says_nothing_of_wal_once;
    start_sync(rig);
    book(rig, 1);
    check_all_booked_in_order(rig);
    assert_int_equal(rig->asked_count, 2);
    assert_true(rig->asked[1].recheck);
}

/* A "no" promises nothing, so it needs no standby. */
static const char *all_taken(struct rig_server *server, const struct asked *asked)
{
    (void)server;
    (void)asked;
    return "seats_taken";
}

static void test_a_no_is_told_at_once(void **state)
{
    struct rig *rig = *state;
    rig->servers[ALPHA_1].outcome = all_taken;
    start_sync(rig);
    book(rig, 3);
    rig_wait(rig);
    rig_check_errors(rig, 0, 3, SG_SEATS_TAKEN);
    assert_int_equal(rig->asked_count, 3);
}

static struct errand *create_event(struct rig *rig)
{
    struct errand *errand = rig_errand(rig);
    struct event_new event = {.name = "Show", .rows = 2, .cols = 3, .shard = "alpha"};
    assert_int_equal(router_event_create(rig->router, &event, on_rig_event, errand), SG_OK);
    return errand;
}

static void test_a_created_event_brings_both(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    struct errand *errand = create_event(rig);
    rig_wait(rig);
    assert_int_equal(errand->error, SG_OK);
    assert_int_equal(errand->token.lsn, 0x16B3748);
    assert_int_equal(errand->durability, SHARDMAP_ASYNC);

    rig->servers[ALPHA_1].waits = true;
    rig->servers[ALPHA_1].commit = warns_at_commit_once;
    rig_publish_map(rig, &(struct rig_map){.version = 2, .sync = true});
    unsigned reads = rig->servers[ALPHA_1].reads;
    errand = create_event(rig);
    rig_wait(rig);
    assert_int_equal(errand->error, SG_OK);
    assert_int_equal(errand->durability, SHARDMAP_SYNC);
    assert_int_equal(rig->servers[ALPHA_1].reads, reads + 2); /* asked again */
}

/* --- at risk ---------------------------------------------------------------------------------- */

static void test_bookings_at_risk(void **state)
{
    struct rig *rig = *state;
    struct rig_topology topology = {.alpha_primary = "alpha-1", .timeline = 3};
    rig_publish_topology(rig, &topology);
    rig_start_ready(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 0\n");
    book(rig, 3);
    rig_wait(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 3\n");
    topology.received_lsn = 0x16B3747;
    publish(rig, &topology);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 3\n");
    topology.received_lsn = 0x16B3748;
    publish(rig, &topology);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 0\n");
    topology.received_lsn = 0;
    publish(rig, &topology);
    book(rig, 2);
    rig_wait(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 2\n");
    publish(rig, &(struct rig_topology){.alpha_primary = "alpha-2", .timeline = 4, .epoch = 2});
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 0\n");
    check_metric("seatgrid_bookings_maybe_lost_total{shard=\"alpha\"} 2\n");
    rig_check_errors(rig, 0, 5, SG_OK);
}

/* A router that ends, or gives a shard up, leaves none on the gauge. */
static void test_what_is_at_risk_goes_with_its_lane(void **state)
{
    struct rig *rig = *state;
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .timeline = 3});
    rig_start_ready(rig);
    book(rig, 3);
    rig_wait(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 3\n");
    rig_stop(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 0\n");
}

/* A standby had them before they were acknowledged. */
static void test_sync_risks_nothing(void **state)
{
    struct rig *rig = *state;
    rig->servers[ALPHA_1].waits = true;
    start_sync(rig);
    book(rig, 3);
    rig_wait(rig);
    check_metric("seatgrid_bookings_at_risk{shard=\"alpha\"} 0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_a_quiet_router_waits_too),
        RIG_TEST(test_a_refused_connection_waits),
        RIG_TEST(test_a_primary_that_is_back_is_met_at_once),
        RIG_TEST(test_a_hung_primary_is_left_for_a_new_one),
        RIG_TEST(test_a_hung_primary_that_wakes),
        RIG_TEST(test_two_failovers_in_a_row),
        RIG_TEST(test_a_demoted_primary),
        RIG_TEST(test_nothing_goes_to_a_primary_that_may_not),
        RIG_TEST(test_a_fence),
        RIG_TEST(test_a_stale_epoch),
        RIG_TEST(test_no_standby),
        RIG_TEST(test_a_fence_that_is_lifted),
        RIG_TEST(test_the_buffer_has_bounds),
        RIG_TEST(test_connections_say_what_they_promise),
        RIG_TEST(test_sync_is_told_only_if_it_is),
        RIG_TEST(test_sync_past_its_deadline_is_unknown),
        RIG_TEST(test_a_wait_that_was_cut_short),
        RIG_TEST(test_an_answer_without_its_proof),
        RIG_TEST(test_a_no_is_told_at_once),
        RIG_TEST(test_a_created_event_brings_both),
        RIG_TEST(test_bookings_at_risk),
        RIG_TEST(test_what_is_at_risk_goes_with_its_lane),
        RIG_TEST(test_sync_risks_nothing),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
