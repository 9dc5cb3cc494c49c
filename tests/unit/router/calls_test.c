/*
 * Goal: each read is answered once, from a replica while there is one, from the primary if not, and
 * "there is none" only on the primary's word; maps may change at any moment without pulling a pool
 * from under its calls.
 * Method: a router on fake servers (router_rig.h), reads of every kind, servers that die, hang and
 * leave the map.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

/* --- requests of every kind --------------------------------------------------------------------
 */

static const char *const some_booking = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

static void on_booking(void *arg, const struct route *route, enum sg_error error,
                       const struct booking *booking)
{
    if (error == SG_OK) {
        assert_int_equal(booking->seat_count, 2);
        assert_true(booking->seats[1].row == 2 && booking->seats[1].col == 2);
        assert_string_equal(booking->booking_id, some_booking);
    }
    rig_answered(arg, error, route);
}

static void on_seatmap(void *arg, const struct route *route, enum sg_error error,
                       struct seatmap *seatmap)
{
    assert_true((error == SG_OK) == (seatmap != NULL));
    if (seatmap)
        assert_int_equal(strlen(seatmap->states), 100);
    rig_answered(arg, error, route);
}

static struct errand *get_booking(struct rig *rig)
{
    struct errand *errand = rig_errand(rig);
    assert_int_equal(router_booking_get(rig->router, 5, some_booking, NULL, on_booking, errand),
                     SG_OK);
    return errand;
}

static struct errand *get_seatmap(struct rig *rig, int64_t event_id)
{
    struct errand *errand = rig_errand(rig);
    assert_int_equal(router_seatmap(rig->router, event_id, NULL, on_seatmap, errand), SG_OK);
    assert_int_equal(errand->answers, 0);
    return errand;
}

static struct errand *create_event(struct rig *rig)
{
    struct errand *errand = rig_errand(rig);
    struct event_new event = {.name = "New", .rows = 10, .cols = 10, .shard = "alpha"};
    assert_int_equal(router_event_create(rig->router, &event, on_rig_event, errand), SG_OK);
    return errand;
}

static bool hangs(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_hang(session);
    return true;
}

static bool dies_once(struct rig_server *server, struct fake_session *session)
{
    server->instead = NULL;
    fake_end(session);
    return true;
}

static bool conflicts_with_recovery_once(struct rig_server *server, struct fake_session *session)
{
    server->instead = NULL;
    fake_error(session, "40001");
    return true;
}

static bool fails(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_error(session, "XX001");
    return true;
}

/* --- where reads go ----------------------------------------------------------------------------
 */

static void test_reads_go_to_the_replica(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    for (int i = 0; i < 50; i++)
        rig_get_event(rig, 5);
    get_booking(rig);
    get_seatmap(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 52, SG_OK);
    assert_int_equal(rig->servers[ALPHA_2].reads, 52);
    assert_string_equal(rig->errands[0].route.node, "alpha-2");
    assert_true(rig->errands[0].route.staleness_us >= 1000);
}

static void test_a_dead_replica_costs_nobody_an_answer(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = hangs;
    for (int i = 0; i < 30; i++)
        rig_get_event(rig, 5);
    turn_for(rig->base, 10);
    fake_stop_listening(rig->servers[ALPHA_2].postgres);
    fake_cut(rig->servers[ALPHA_2].postgres);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 30, SG_OK);
    assert_string_equal(rig->errands[0].route.node, "alpha-1");
    assert_int_equal(rig->errands[0].route.staleness_us, 0);
    assert_true(rig->suspects > 0);
}

static void test_passing_errors_are_asked_again(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = conflicts_with_recovery_once;
    rig_get_event(rig, 5);
    rig_wait(rig);
    rig->servers[ALPHA_2].instead = dies_once;
    rig_get_event(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 2, SG_OK);
}

static void test_a_lasting_error_is_told(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = fails;
    rig_get_event(rig, 5);
    get_seatmap(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 2, SG_INTERNAL);
}

static void test_a_replica_has_not_the_last_word(void **state)
{
    struct rig *rig = *state;
    rig->servers[ALPHA_2].knows_nothing = true;
    rig_start_ready(rig);
    rig_get_event(rig, 5);
    get_booking(rig);
    get_seatmap(rig, 5);
    get_seatmap(rig, 5); /* shares the flight of the first */
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 4, SG_OK);
    assert_int_equal(rig->servers[ALPHA_1].reads, 3);
    rig->servers[ALPHA_1].knows_nothing = true;
    turn_for(rig->base, 30); /* the seat map is not recent any more */
    rig_get_event(rig, 5);
    get_booking(rig);
    get_seatmap(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    assert_int_equal(rig->errands[4].error, SG_UNKNOWN_EVENT);
    assert_int_equal(rig->errands[5].error, SG_UNKNOWN_BOOKING);
    assert_int_equal(rig->errands[6].error, SG_UNKNOWN_EVENT);
    assert_int_equal(rig->servers[ALPHA_1].reads, 6);
}

/* The second question may be refused; that is no "there is none". */
static void test_a_refused_second_question_is_no_404(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.queue_max = 1;
    rig->servers[ALPHA_2].knows_nothing = true;
    rig_start_ready(rig);
    rig_get_event(rig, 5);
    rig_wait(rig);
    get_booking(rig);
    rig_wait(rig);
    get_seatmap(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sg_error_http_status(rig->errands[i].error), 503);
}

static void test_more_than_the_pipelines_hold(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.connections = 2;
    rig->settings.reads.pipeline_max = 3;
    rig_start_ready(rig);
    for (int i = 0; i < 200; i++)
        rig_get_event(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 200, SG_OK);
    assert_int_equal(rig->servers[ALPHA_2].reads, 200);
}

/* Half of the connections go while calls wait for them: the other half serves those, too. */
static void test_those_who_wait_outlive_a_connection(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.connections = 2;
    rig->settings.reads.pipeline_max = 2;
    rig_start_ready(rig);
    for (int i = 0; i < 100; i++)
        rig_get_event(rig, 5);
    fake_close(LIST_FIRST(&rig->servers[ALPHA_2].postgres->sessions));
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 100, SG_OK);
}

static void test_the_queue_is_bounded(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.queue_max = 5;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = hangs;
    for (int i = 0; i < 5; i++)
        rig_get_event(rig, 5);
    struct errand *refused = rig_errand(rig);
    assert_int_equal(router_event_get(rig->router, 5, NULL, on_rig_event, refused), SG_OVERLOADED);
    assert_int_equal(router_seatmap(rig->router, 5, NULL, on_seatmap, refused), SG_OVERLOADED);
    assert_int_equal(refused->answers, 0);
    rig->errand_count--; /* its place is given to the next: two answers would show */
    struct errand *other = rig_get_event(rig, 1005); /* another shard does not notice */
    turn_until(rig->base, other->answers);
    fake_cut(rig->servers[ALPHA_2].postgres);
    rig->servers[ALPHA_2].instead = NULL;
    rig_wait(rig);
    rig_check_once(rig);
}

/* --- deadlines ---------------------------------------------------------------------------------
 */

static void test_deadlines_say_what_is_known(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.deadline_ms = 100;
    rig->settings.booking.deadline_ms = 100;
    rig_start_ready(rig);
    create_event(rig);
    rig_wait(rig);
    rig_check_errors(rig, 0, 1, SG_OK);
    rig->servers[ALPHA_1].instead = hangs;
    rig->servers[ALPHA_2].instead = hangs;
    rig_get_event(rig, 5);
    get_seatmap(rig, 5);
    create_event(rig);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 1, 3, SG_DEADLINE);
    rig_check_errors(rig, 3, 4, SG_OUTCOME_UNKNOWN);
    rig_publish_topology(rig, &(struct rig_topology){.replica_down = true});
    rig_get_event(rig, 5);
    rig_wait(rig);
    assert_int_equal(rig->errands[4].error, SG_SHARD_UNAVAILABLE);
}

static void publish_and_ask(struct errand *errand)
{
    struct rig *rig = errand->rig;
    rig_publish_map(rig, &(struct rig_map){.version = 2, .without_replica = true});
    rig_get_event(rig, 5);
}

/* In flight, answered by its deadline, and in that callback its node leaves the map. */
static void test_the_map_changes_in_a_deadline_s_callback(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.deadline_ms = 60;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = hangs;
    for (int i = 0; i < 3; i++)
        rig_get_event(rig, 5);
    rig->errands[0].then = publish_and_ask;
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 3, SG_DEADLINE);
    assert_int_equal(rig->errands[3].error, SG_OK);
}

/* --- maps that change --------------------------------------------------------------------------
 */

static void test_the_map_changes_in_a_callback(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    for (int i = 0; i < 5; i++)
        rig_get_event(rig, 5);
    get_seatmap(rig, 5);
    get_booking(rig);
    rig->errands[1].then = publish_and_ask;
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, rig->errand_count, SG_OK);
    turn_until(rig->base, rig_sessions(rig, ALPHA_2) == 0);
}

static void test_the_map_changes_in_the_last_callback(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig_get_event(rig, 5);
    rig->errands[0].then = publish_and_ask;
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 2, SG_OK);
    turn_until(rig->base, rig_sessions(rig, ALPHA_2) == 0);
}

static struct fake_session *held_session;

static bool holds_back(struct rig_server *server, struct fake_session *session)
{
    held_session = session;
    rig_event(server, session);
    session->hung = true;
    return true;
}

/* What is under way when a shard leaves the map ends on the map it began with; nothing is dropped.
 */
static void test_a_pool_retires_when_its_calls_are_done(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.pipeline_max = 1;
    rig_start_ready(rig);
    rig->servers[BETA_1].instead = holds_back;
    for (int i = 0; i < 5; i++)
        rig_get_event(rig, 1500); /* one is sent, four wait */
    turn_until(rig->base, rig->servers[BETA_1].postgres->executed == 1);
    rig->servers[BETA_1].instead = NULL;
    rig_publish_map(rig, &(struct rig_map){.version = 2, .without_beta = true});
    router_sync_map(rig->router);
    turn_for(rig->base, 30);
    assert_int_equal(rig->answers, 0);
    fake_wake(held_session);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 5, SG_OK);
    for (int i = 0; i < 5; i++)
        assert_string_equal(rig->errands[i].route.node, "beta-1");
    turn_until(rig->base, rig_sessions(rig, BETA_1) == 0);
}

static void test_a_node_that_moved_is_asked_where_it_is(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig_publish_topology(rig,
                         &(struct rig_topology){.alpha_primary = "alpha-1", .replica_down = true});
    create_event(rig);
    rig_get_event(rig, 5);
    rig_wait(rig);
    rig_publish_map(rig, &(struct rig_map){.version = 2, .alpha_1_at_spare = true});
    create_event(rig);
    rig_get_event(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 4, SG_OK);
    assert_int_equal(rig->servers[ALPHA_1].reads, 2);
    assert_int_equal(rig->servers[SPARE].reads, 2);
    turn_until(rig->base, rig_sessions(rig, ALPHA_1) == 0);
}

/* --- many at once ------------------------------------------------------------------------------
 */

static void ask_seatmap_again(struct errand *errand)
{
    get_seatmap(errand->rig, 5);
}

static void test_readers_share_a_flight(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.seatmap_recent_ms = 0;
    rig_start_ready(rig);
    for (int i = 0; i < 20; i++)
        get_seatmap(rig, 5);
    rig->errands[3].then = ask_seatmap_again;
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 21, SG_OK);
    assert_int_equal(rig->servers[ALPHA_2].reads, 2);
}

static void test_a_recent_seatmap_is_served_again(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.seatmap_recent_ms = 5000;
    rig_start_ready(rig);
    get_seatmap(rig, 5)->then = ask_seatmap_again;
    rig_wait(rig);
    for (int i = 0; i < 10; i++)
        get_seatmap(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    assert_int_equal(rig->servers[ALPHA_2].reads, 1);
    for (unsigned i = 1; i < rig->errand_count; i++) /* its age counts from the question */
        assert_true(rig->errands[i].route.staleness_us >= rig->errands[0].route.staleness_us);
    get_seatmap(rig, 5); /* due, but not yet given, when the router goes */
    rig_stop(rig);
    rig_check_once(rig);
}

static void on_page(void *arg, enum sg_error error, const struct event_page *page)
{
    struct errand *errand = arg;
    errand->seat_count = error == SG_OK ? page->missing_count : 99;
    rig_answered(errand, error, NULL);
}

static void test_a_list_is_partial_when_a_shard_is_dead(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.deadline_ms = 100;
    rig_start_ready(rig);
    rig_publish_topology(rig,
                         &(struct rig_topology){.alpha_primary = "alpha-1", .beta_down = true});
    struct errand *errand = rig_errand(rig);
    assert_int_equal(router_event_list(rig->router, 0, 10, NULL, on_page, errand), SG_OK);
    rig_wait(rig);
    rig_check_errors(rig, 0, 1, SG_OK);
    assert_int_equal(errand->seat_count, 1);
    rig_publish_topology(rig, &(struct rig_topology){.replica_down = true, .beta_down = true});
    errand = rig_errand(rig);
    assert_int_equal(router_event_list(rig->router, 0, 10, NULL, on_page, errand), SG_OK);
    rig_wait(rig);
    assert_int_equal(errand->error, SG_SHARD_UNAVAILABLE);
    rig_check_once(rig);
}

static void test_free_answers_everybody(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.pipeline_max = 2;
    rig_start_ready(rig);
    create_event(rig);
    rig_wait(rig);
    rig->servers[ALPHA_1].instead = hangs;
    rig->servers[ALPHA_2].instead = hangs;
    for (int i = 0; i < 5; i++) {
        rig_get_event(rig, 5);
        get_booking(rig);
        get_seatmap(rig, 5 + i);
        assert_int_equal(router_event_list(rig->router, 0, 10, NULL, on_page, rig_errand(rig)),
                         SG_OK);
    }
    create_event(rig);
    turn_for(rig->base, 10);
    rig_stop(rig);
    assert_int_equal(rig->answers, rig->errand_count);
    rig_check_once(rig);
    assert_int_equal(rig->errands[rig->errand_count - 1].error, SG_OUTCOME_UNKNOWN);
    turn_until(rig->base, rig_sessions(rig, ALPHA_1) == 0 && rig_sessions(rig, ALPHA_2) == 0);
}

/* --- tokens ------------------------------------------------------------------------------------
 */

static const struct read_token token = {.shard = "alpha", .timeline = 1, .lsn = 100};

static struct errand *get_with_token(struct rig *rig, const struct read_token *wanted)
{
    struct errand *errand = rig_errand(rig);
    struct read_wish wish = {.max_staleness_us = -1, .tokens = wanted, .token_count = 1};
    assert_int_equal(router_event_get(rig->router, 5, &wish, on_rig_event, errand), SG_OK);
    return errand;
}

static void check_node(const struct errand *errand, const char *node)
{
    assert_string_equal(sg_error_code(errand->error), "ok");
    assert_string_equal(errand->route.node, node);
}

/* What the topology knows is old; the replica itself has the last word, before the statement. */
static void test_a_replica_is_asked_for_its_position(void **state)
{
    struct rig *rig = *state;
    struct rig_server *replica = &rig->servers[ALPHA_2];
    rig_start_ready(rig);
    replica->lsn = 100;
    struct errand *errand = get_with_token(rig, &token);
    rig_wait(rig);
    check_node(errand, "alpha-2");
    assert_int_equal(replica->positions, 1);
    rig_publish_topology(rig,
                         &(struct rig_topology){.alpha_primary = "alpha-1", .replica_lsn = 100});
    errand = get_with_token(rig, &token); /* sent together, as it is known to be there */
    rig_wait(rig);
    check_node(errand, "alpha-2");
    assert_int_equal(replica->positions, 2);
    replica->lsn = 99; /* it was built anew, and nobody has noticed */
    errand = get_with_token(rig, &token);
    rig_wait(rig);
    check_node(errand, "alpha-1");
    rig_check_once(rig);
}

static void test_a_replica_that_catches_up_in_time(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.token_wait_ms = 5000;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].lsn = 99;
    struct errand *errand = get_with_token(rig, &token);
    turn_until(rig->base, rig->servers[ALPHA_2].positions >= 3);
    assert_int_equal(errand->answers, 0);
    rig->servers[ALPHA_2].lsn = 101;
    rig_wait(rig);
    check_node(errand, "alpha-2");
    assert_int_equal(rig->servers[ALPHA_2].reads, 1); /* never before it was there */
    assert_int_equal(rig->servers[ALPHA_1].reads, 0);
}

/* A token one byte into a record that nobody may ever have whole. */
static void test_half_a_record_is_enough_without_a_primary(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.token_wait_ms = 10;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].lsn = 99;
    struct errand *errand = get_with_token(rig, &token);
    rig_wait(rig);
    check_node(errand, "alpha-1");
    rig_publish_topology(rig, &(struct rig_topology){.replica_lsn = 100}); /* no primary any more */
    errand = get_with_token(rig, &token);
    rig_wait(rig);
    check_node(errand, "alpha-2");
}

/* Nobody may answer: a replica that lacks it, a primary of the past. */
static void test_a_token_of_a_later_timeline_waits_for_it(void **state)
{
    static const struct read_token later = {.shard = "alpha", .timeline = 2, .lsn = 100};
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].lsn = 1000;
    struct errand *errand = get_with_token(rig, &later);
    turn_for(rig->base, 60);
    assert_int_equal(errand->answers, 0);
    assert_int_equal(rig->suspects, 1); /* and health is told once that there is another */
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-2", .timeline = 2});
    router_sync_topology(rig->router);
    rig_wait(rig);
    check_node(errand, "alpha-2");
    assert_int_equal(rig->servers[ALPHA_1].reads, 0);
}

/* --- the primary's protection ------------------------------------------------------------------
 */

static struct errand *get_with_bound(struct rig *rig, int64_t max_staleness_us)
{
    struct errand *errand = rig_errand(rig);
    struct read_wish wish = {.max_staleness_us = max_staleness_us};
    assert_int_equal(router_event_get(rig->router, 5, &wish, on_rig_event, errand), SG_OK);
    return errand;
}

static const struct rig_topology lagging = {.alpha_primary = "alpha-1",
                                            .replica_staleness_us = 60000000};

static void test_fallbacks_are_capped(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.primary_max = 2;
    rig->settings.reads.deadline_ms = 150;
    rig_start_ready(rig);
    rig_publish_topology(rig, &lagging);
    rig->servers[ALPHA_1].instead = hangs;
    for (int i = 0; i < 2; i++)
        rig_get_event(rig, 5); /* these hold the room */
    struct errand *strict = get_with_bound(rig, 0);
    struct errand *loose = get_with_bound(rig, 3600000000);
    struct errand *plain = rig_get_event(rig, 5);
    turn_until(rig->base, loose->answers && plain->answers);
    check_node(loose, "alpha-2");
    check_node(plain, "alpha-2");
    assert_true(plain->route.staleness_us >= 60000000);
    assert_int_equal(strict->answers, 0);
    rig_wait(rig);
    assert_int_equal(strict->error, SG_OVERLOADED);
    rig_check_errors(rig, 0, 2, SG_DEADLINE);
    assert_int_equal(rig->servers[ALPHA_1].postgres->executed, 1); /* it hangs at the first */
}

static void test_who_waits_for_room_gets_it(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.primary_max = 1;
    rig_start_ready(rig);
    rig_publish_topology(rig, &lagging);
    for (int i = 0; i < 30; i++)
        get_with_bound(rig, 0);
    rig_wait(rig);
    rig_check_once(rig);
    for (int i = 0; i < 30; i++) {
        check_node(&rig->errands[i], "alpha-1");
        assert_int_equal(rig->errands[i].order, i + 1);
    }
}

/* --- nodes that change -------------------------------------------------------------------------
 */

/* "There is none" of a replica sends the reader to the primary like lag does: through the cap. */
static void test_what_a_replica_does_not_know_is_capped_too(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.primary_max = 2;
    rig->settings.reads.deadline_ms = 300;
    rig->servers[ALPHA_2].knows_nothing = true;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = hangs;
    for (int i = 0; i < 10; i++)
        rig_get_event(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    unsigned refused = 0;
    for (int i = 0; i < 10; i++)
        refused += rig->errands[i].error == SG_OVERLOADED;
    assert_int_equal(refused, 8);
}

/* What is in flight on a node that is found dead does not wait for its deadline. */
static void test_a_node_that_hangs_is_given_up(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_2].instead = hangs;
    rig_get_event(rig, 5);
    get_booking(rig);
    turn_for(rig->base, 10);
    assert_int_equal(rig->answers, 0);
    rig_publish_topology(rig,
                         &(struct rig_topology){.alpha_primary = "alpha-1", .replica_down = true});
    router_sync_topology(rig->router);
    rig_wait(rig);
    check_node(&rig->errands[0], "alpha-1");
    check_node(&rig->errands[1], "alpha-1");
}

static const char *refusal; /* of create_event with another epoch than: */
static uint32_t right_epoch;
static uint32_t asked_epoch;

static bool refuses_to_create(struct rig_server *server, struct fake_session *session)
{
    const char *values[] = {refusal, NULL};
    int len;
    (void)server;
    if (strcmp(session->statement, "create_event") != 0)
        return false;
    asked_epoch = fake_u32(fake_param(session, 0, &len) + 4);
    if (asked_epoch == right_epoch)
        return false;
    fake_describe(session, 2);
    fake_row(session, 2, values);
    fake_complete(session, "SELECT 1");
    return true;
}

/* Refused for the time being: asked again, with the epoch that the topology says by then. */
static void test_an_event_is_created_across_a_change_of_primary(void **state)
{
    static const char *const refusals[] = {"fenced", "stale_epoch", "not_synchronous"};
    struct rig *rig = *state;
    rig->servers[ALPHA_1].instead = refuses_to_create;
    right_epoch = 7;
    rig_start_ready(rig);
    for (int i = 0; i < 3; i++) {
        refusal = refusals[i];
        rig_publish_topology(rig, &all_is_well);
        struct errand *errand = create_event(rig);
        turn_for(rig->base, 60);
        assert_int_equal(errand->answers, 0);
        assert_int_equal(asked_epoch, 1);
        assert_true(rig->suspects > 0);
        rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .epoch = 7});
        router_sync_topology(rig->router);
        rig_wait(rig);
        check_node(errand, "alpha-1");
        assert_int_equal(asked_epoch, 7);
    }
    rig->settings.booking.deadline_ms = 60;
    refusal = "fenced";
    right_epoch = 8;
    struct errand *errand = create_event(rig);
    rig_wait(rig);
    assert_int_equal(errand->error, SG_FENCED);
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = NULL});
    errand = create_event(rig);
    rig_wait(rig);
    assert_int_equal(errand->error, SG_SHARD_UNAVAILABLE);
}

/* A connection for writing is not made to a replica over and over. */
static void test_write_connections_to_a_former_primary_close(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    create_event(rig);
    rig_wait(rig);
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-2", .timeline = 2});
    router_sync_topology(rig->router);
    turn_until(rig->base, rig_sessions(rig, ALPHA_1) == 1); /* for reads */
    create_event(rig);
    rig_wait(rig);
    check_node(&rig->errands[1], "alpha-2");
}

/* --- all of it together ------------------------------------------------------------------------
 */

static bool misbehaves_at_random(struct rig_server *server, struct fake_session *session)
{
    switch (arc4random_uniform(16)) {
    case 0:
        fake_end(session);
        return true;
    case 1:
        fake_error(session, "40001");
        return true;
    case 2:
        fake_hang(session);
        return true;
    case 3:
        server->knows_nothing = !server->knows_nothing;
        return false;
    default:
        return false;
    }
}

static void test_a_stormy_day(void **state)
{
    struct rig *rig = *state;
    int64_t end_us = clock_mono_us() + 3000000;
    int64_t version = 1;
    rig->settings.reads.deadline_ms = 200;
    rig->settings.reads.connections = 2;
    rig->settings.reads.pipeline_max = 3;
    rig->settings.postgres.statement_timeout_ms = 40;
    for (int i = 0; i < NODES; i++)
        rig->servers[i].instead = misbehaves_at_random;
    rig_start(rig);
    while (clock_mono_us() < end_us && rig->errand_count < ERRANDS_MAX - 100) {
        for (unsigned i = arc4random_uniform(3); i; i--)
            rig_get_event(rig, 5);
        if (arc4random_uniform(2))
            get_booking(rig);
        if (arc4random_uniform(2))
            get_seatmap(rig, 1 + arc4random_uniform(20));
        if (arc4random_uniform(200) == 0)
            rig_publish_map(rig, &(struct rig_map){.version = ++version,
                                                   .without_beta = arc4random_uniform(2),
                                                   .without_replica = arc4random_uniform(2),
                                                   .alpha_1_at_spare = arc4random_uniform(2)});
        if (arc4random_uniform(200) == 0)
            rig_publish_topology(rig, &(struct rig_topology){
                                          .alpha_primary = arc4random_uniform(2) ? "alpha-1" : NULL,
                                          .replica_down = arc4random_uniform(2)});
        if (arc4random_uniform(100) == 0)
            fake_shut_down(rig->servers[arc4random_uniform(NODES)].postgres, "57P01");
        turn(rig->base);
        usleep(500);
    }
    rig_wait(rig);
    rig_check_once(rig);
    turn_until(rig->base, router_in_flight(rig->router) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_reads_go_to_the_replica),
        RIG_TEST(test_a_dead_replica_costs_nobody_an_answer),
        RIG_TEST(test_passing_errors_are_asked_again),
        RIG_TEST(test_a_lasting_error_is_told),
        RIG_TEST(test_a_replica_has_not_the_last_word),
        RIG_TEST(test_a_refused_second_question_is_no_404),
        RIG_TEST(test_more_than_the_pipelines_hold),
        RIG_TEST(test_those_who_wait_outlive_a_connection),
        RIG_TEST(test_the_queue_is_bounded),
        RIG_TEST(test_deadlines_say_what_is_known),
        RIG_TEST(test_the_map_changes_in_a_deadline_s_callback),
        RIG_TEST(test_the_map_changes_in_a_callback),
        RIG_TEST(test_the_map_changes_in_the_last_callback),
        RIG_TEST(test_a_pool_retires_when_its_calls_are_done),
        RIG_TEST(test_a_node_that_moved_is_asked_where_it_is),
        RIG_TEST(test_readers_share_a_flight),
        RIG_TEST(test_a_recent_seatmap_is_served_again),
        RIG_TEST(test_a_list_is_partial_when_a_shard_is_dead),
        RIG_TEST(test_free_answers_everybody),
        RIG_TEST(test_a_replica_is_asked_for_its_position),
        RIG_TEST(test_a_replica_that_catches_up_in_time),
        RIG_TEST(test_half_a_record_is_enough_without_a_primary),
        RIG_TEST(test_a_token_of_a_later_timeline_waits_for_it),
        RIG_TEST(test_fallbacks_are_capped),
        RIG_TEST(test_what_a_replica_does_not_know_is_capped_too),
        RIG_TEST(test_who_waits_for_room_gets_it),
        RIG_TEST(test_a_node_that_hangs_is_given_up),
        RIG_TEST(test_an_event_is_created_across_a_change_of_primary),
        RIG_TEST(test_write_connections_to_a_former_primary_close),
        RIG_TEST(test_a_stormy_day),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
