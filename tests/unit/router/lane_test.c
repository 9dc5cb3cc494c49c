/*
 * Goal: whatever the servers do, each booking is answered once, with what is known of it: asked
 * again after a loss (and then looked for first), never answered by a server's half word, in order,
 * no neighbour failed by a poisonous one, and nothing outlives a lane that the map no longer wants.
 * Method: a router on fake servers (router_rig.h) that die, hang, refuse, move and talk nonsense.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

/* --- misbehaviours -----------------------------------------------------------------------------
 */

static bool dies_once(struct rig_server *server, struct fake_session *session)
{
    server->instead = NULL;
    fake_end(session);
    return true;
}

/* It answers, and goes down before the transaction has ended: nothing of it was kept. */
static bool answers_then_goes_down_once(struct rig_server *server, struct fake_session *session)
{
    server->instead = NULL;
    rig_take_batch(server, session);
    fake_fatal(session, "57P01");
    return true;
}

static bool cannot_commit_once(struct rig_server *server, struct fake_session *session)
{
    server->commit = NULL;
    fake_error(session, "40001");
    return true;
}

static bool hangs(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_hang(session);
    return true;
}

static bool is_poisoned(struct rig_server *server, struct fake_session *session)
{
    for (unsigned i = 0; i < fake_array_len(session, 12); i++) {
        if (fake_u32(fake_array_item(session, 12, i, 4)) % 10 == 7) {
            server->batches++;
            fake_error(session, "22P05");
            return true;
        }
    }
    return false;
}

static bool is_fenced_once(struct rig_server *server, struct fake_session *session)
{
    static const char *const values[TAKE_COLUMNS] = {"0", "fenced"};
    server->instead = NULL;
    fake_describe(session, TAKE_COLUMNS);
    fake_row(session, TAKE_COLUMNS, values);
    fake_complete(session, "SELECT 1");
    return true;
}

static bool talks_nonsense(struct rig_server *server, struct fake_session *session)
{
    static const char *const rows[][TAKE_COLUMNS] = {{"0", "booked", NULL, NULL, NULL},
                                                     {"-1", "booked", NULL, NULL, NULL},
                                                     {"99999999999", "booked", NULL, NULL, NULL},
                                                     {"x", "seats_taken", NULL, NULL, "{1}"},
                                                     {NULL, NULL, NULL, NULL, NULL},
                                                     {"1", "never heard of", NULL, NULL, NULL},
                                                     {"2", "seats_taken", NULL, NULL, "{9,-3,1"},
                                                     {"2", "booked", NULL, NULL, NULL}};
    (void)server;
    fake_describe(session, TAKE_COLUMNS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        fake_row(session, TAKE_COLUMNS, rows[i]);
    fake_complete(session, "SELECT 8");
    return true;
}

/* --- good days ---------------------------------------------------------------------------------
 */

static void test_bookings_are_answered_in_order(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.batch_max = 7;
    rig_start_ready(rig);
    for (int i = 0; i < 100; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 100, SG_OK);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(rig->errands[i].order, i + 1);
        assert_int_equal(rig->asked[i].label, i + 1);
        assert_false(rig->asked[i].recheck);
        assert_string_equal(rig->errands[i].route.node, "alpha-1");
    }
    assert_true(rig->servers[ALPHA_1].batches >= 15);
    assert_int_equal(rig->servers[BETA_1].batches, 0);
}

static const char *every_third_again_at_first(struct rig_server *server, const struct asked *asked)
{
    return server->batches == 1 && asked->label % 3 == 0 ? "again" : "booked";
}

static void test_again_goes_first_in_the_next_batch(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.batch_max = 9;
    rig->servers[ALPHA_1].outcome = every_third_again_at_first;
    rig_start_ready(rig);
    for (int i = 0; i < 18; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 18, SG_OK);
    static const unsigned second[] = {3, 6, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(rig->asked[9 + i].label, second[i]);
}

static void test_fenced_waits_and_goes_again(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = is_fenced_once;
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 3, SG_OK);
}

/* --- losses ------------------------------------------------------------------------------------
 */

static void check_asked_again(struct rig *rig, unsigned count)
{
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, count, SG_OK);
    for (unsigned i = 0; i < count; i++) {
        assert_false(rig->errands[i].replayed);
        assert_int_equal(rig->errands[i].order, i + 1);
    }
    assert_true(rig->suspects > 0);
}

/* One alone is the case in which a made-up error would be taken for its own. */
static void test_a_lost_booking_is_asked_again(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = dies_once;
    rig_book(rig, 5);
    check_asked_again(rig, 1);
    assert_int_equal(rig->asked_count, 1);
    assert_true(rig->asked[0].recheck);
}

static void test_a_lost_batch_is_asked_again_in_order(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = dies_once;
    for (int i = 0; i < 20; i++)
        rig_book(rig, 5);
    turn_until(rig->base, !rig->servers[ALPHA_1].instead);
    for (int i = 0; i < 5; i++)
        rig_book(rig, 5); /* these come behind, and were never asked */
    check_asked_again(rig, 25);
    for (unsigned i = 0; i < 25; i++) {
        assert_int_equal(rig->asked[i].label, i + 1);
        assert_int_equal(rig->asked[i].recheck, i < 20);
    }
}

static void test_an_answer_before_the_commit_is_none(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = answers_then_goes_down_once;
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    check_asked_again(rig, 3);
    assert_int_equal(rig->asked_count, 6);
    for (unsigned i = 3; i < 6; i++)
        assert_true(rig->asked[i].recheck);
}

static void test_an_answer_that_cannot_commit_is_none(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].commit = cannot_commit_once;
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 3, SG_OK);
    assert_int_equal(rig->asked_count, 6);
}

static void test_poison_fails_alone(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = is_poisoned;
    for (int i = 0; i < 64; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    for (unsigned i = 0; i < 64; i++) {
        bool poison = (i + 1) % 10 == 7;
        assert_int_equal(rig->errands[i].error, poison ? SG_INTERNAL : SG_OK);
        assert_int_equal(rig->errands[i].order, i + 1);
    }
    assert_true(rig->servers[ALPHA_1].batches < 64); /* halves, not one by one */
}

static void test_nonsense_answers_nobody_wrongly(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.deadline_ms = 2000;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = talks_nonsense;
    for (int i = 0; i < 2; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    assert_int_equal(rig->errands[1].error, SG_SEATS_TAKEN); /* the one that it answered */
    assert_int_equal(rig->errands[1].seat_count, 1);
    assert_int_equal(sg_error_http_status(rig->errands[0].error), 503);
}

/* --- deadlines ---------------------------------------------------------------------------------
 */

static void test_deadlines_say_what_is_known(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.deadline_ms = 2000;
    rig->settings.booking.batch_max = 4;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = hangs;
    for (int i = 0; i < 10; i++)
        rig_book(rig, 5);
    fake_stop_listening(rig->servers[BETA_1].postgres);
    fake_cut(rig->servers[BETA_1].postgres);
    turn_for(rig->base, 20);
    for (int i = 0; i < 3; i++)
        rig_book(rig, 1500);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 4, SG_OUTCOME_UNKNOWN); /* on their way */
    rig_check_errors(rig, 4, 10, SG_DEADLINE);       /* behind them */
    rig_check_errors(rig, 10, 13, SG_SHARD_UNAVAILABLE);
}

static struct fake_session *held_session;

static bool holds_back(struct rig_server *server, struct fake_session *session)
{
    held_session = session;
    rig_take_batch(server, session);
    session->hung = true; /* no Sync is heard, so none is answered */
    return true;
}

/* The answer that comes too late is nobody's any more. */
static void test_a_late_answer_is_swallowed(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.deadline_ms = 2000;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = holds_back;
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    rig_wait(rig);
    rig_check_errors(rig, 0, 3, SG_OUTCOME_UNKNOWN);
    assert_int_equal(router_in_flight(rig->router), 3);
    rig->servers[ALPHA_1].instead = NULL;
    fake_wake(held_session);
    turn_until(rig->base, router_in_flight(rig->router) == 0);
    rig_check_once(rig);
}

static void test_the_queue_is_bounded(void **state)
{
    struct rig *rig = *state;
    struct errand *errand = rig_errand(rig);
    struct seat seat = {1, 1};
    struct book_request request = {
        .event_id = 5, .user_id = "u", .seats = &seat, .seat_count = 1, .request_id = "r"};
    rig->settings.booking.queue_max = 10;
    rig_start_ready(rig);
    rig->errand_count = 0;
    for (int i = 0; i < 10; i++)
        rig_book(rig, 5);
    assert_int_equal(router_book(rig->router, &request, on_rig_booked, errand), SG_OVERLOADED);
    rig_book(rig, 1500); /* another shard has its own bound */
    rig_wait(rig);
    rig_check_once(rig);
    rig_book(rig, 5);
    rig_wait(rig);
}

/* --- the end of a router -----------------------------------------------------------------------
 */

static void test_free_answers_everybody(void **state)
{
    struct rig *rig = *state;
    rig->settings.booking.batch_max = 4;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = hangs;
    for (int i = 0; i < 10; i++)
        rig_book(rig, 5);
    turn_for(rig->base, 10);
    rig_stop(rig);
    assert_int_equal(rig->answers, 10);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 4, SG_OUTCOME_UNKNOWN);
    rig_check_errors(rig, 4, 10, SG_SHARD_UNAVAILABLE);
    turn_until(rig->base, rig_sessions(rig, ALPHA_1) == 0 && rig_sessions(rig, BETA_1) == 0);
}

/* --- maps and primaries that change ------------------------------------------------------------
 */

/* A shard leaves the map: what is under way ends, then its connections go, though nobody asks. */
static void test_a_lane_retires_by_itself(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[BETA_1].instead = holds_back;
    rig_book(rig, 1500);
    turn_until(rig->base, rig->servers[BETA_1].batches == 1);
    rig_publish_map(rig, &(struct rig_map){.version = 2, .without_beta = true});
    router_sync_map(rig->router);
    turn_for(rig->base, 150);
    assert_int_equal(rig->answers, 0);
    assert_int_equal(rig_sessions(rig, BETA_1), 1); /* its lane's; the others are gone */
    fake_wake(held_session);
    rig_wait(rig);
    rig_check_errors(rig, 0, 1, SG_OK);
    assert_int_equal(rig->errands[0].route.map_version, 1);
    turn_until(rig->base, rig_sessions(rig, BETA_1) == 0);
}

static void publish_and_book(struct errand *errand)
{
    struct rig *rig = errand->rig;
    rig_publish_map(rig, &(struct rig_map){.version = 2, .without_beta = true});
    rig_book(rig, 5);
}

/* The map may change inside the callback of a booking, and of one whose shard goes. */
static void test_the_map_changes_in_a_callback(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    for (int i = 0; i < 3; i++)
        rig_book(rig, 1500);
    rig->errands[0].then = publish_and_book;
    rig->errands[2].then = publish_and_book;
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, rig->errand_count, SG_OK);
    turn_until(rig->base, rig_sessions(rig, BETA_1) == 0);
}

static void test_a_node_that_moved_is_followed(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig_book(rig, 5);
    rig_wait(rig);
    fake_stop_listening(rig->servers[ALPHA_1].postgres);
    fake_cut(rig->servers[ALPHA_1].postgres);
    rig_publish_map(rig, &(struct rig_map){.version = 2, .alpha_1_at_spare = true});
    rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 2, SG_OK);
    assert_int_equal(rig->asked[1].node, SPARE);
}

/* A new primary is named while a batch is under way on the old one, which says nothing. */
static void test_a_new_primary_is_asked_what_became_of_it(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].instead = hangs;
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    turn_for(rig->base, 10);
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-2", .epoch = 2});
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 3, SG_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(rig->asked[i].node, ALPHA_2);
        assert_true(rig->asked[i].recheck);
        assert_int_equal(rig->asked[i].epoch, 2);
        assert_string_equal(rig->errands[i].route.node, "alpha-2");
    }
}

static void test_no_primary_then_one(void **state)
{
    struct rig *rig = *state;
    rig_publish_topology(rig, &(struct rig_topology){0});
    rig_start(rig);
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    turn_for(rig->base, 100);
    assert_int_equal(rig->answers, 0);
    rig_publish_topology(rig, &all_is_well);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 3, SG_OK);
    assert_false(rig->asked[0].recheck);
}

/* --- tokens ------------------------------------------------------------------------------------
 */

static void test_a_booking_brings_a_token(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig_book(rig, 5);
    rig_book(rig, 1500);
    rig_wait(rig);
    rig_check_errors(rig, 0, 2, SG_OK);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(rig->errands[i].token.shard, i ? "beta" : "alpha");
        assert_int_equal(rig->errands[i].token.timeline, 3);
        assert_int_equal(rig->errands[i].token.lsn, 0x16B3748);
    }
}

static bool refuses_wal(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_error(session, "55000");
    return true;
}

static bool talks_nonsense_of_wal(struct rig_server *server, struct fake_session *session)
{
    static const char *const values[] = {"here", "there"};
    (void)server;
    fake_describe(session, 2);
    fake_row(session, 2, values);
    fake_complete(session, "SELECT 1");
    return true;
}

static bool gives_one_column_of_wal(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    fake_value(session, "0/16B3748");
    return true;
}

static bool dies_at_wal_once(struct rig_server *server, struct fake_session *session)
{
    server->wal = NULL;
    fake_end(session);
    return true;
}

/* The booking stands, without a token. */
static void test_a_token_that_got_lost_fails_nobody(void **state)
{
    bool (*const worse[])(struct rig_server *, struct fake_session *) = {
        refuses_wal, talks_nonsense_of_wal, gives_one_column_of_wal};
    struct rig *rig = *state;
    rig_start_ready(rig);
    for (unsigned i = 0; i < 3; i++) {
        rig->servers[ALPHA_1].wal = worse[i];
        rig_book(rig, 5);
        rig_wait(rig);
        rig_check_errors(rig, i, i + 1, SG_OK);
        assert_int_equal(rig->errands[i].token.lsn, 0);
        assert_int_equal(rig->servers[ALPHA_1].batches, i + 1); /* asked once */
    }
    rig->servers[ALPHA_1].wal = dies_at_wal_once; /* nothing was confirmed: asked again */
    rig_book(rig, 5);
    rig_wait(rig);
    rig_check_once(rig);
    rig_check_errors(rig, 3, 4, SG_OK);
    assert_true(rig->asked[4].recheck);
    assert_int_equal(rig->errands[3].token.lsn, 0x16B3748);
}

static const char *is_taken(struct rig_server *server, const struct asked *asked)
{
    (void)server;
    (void)asked;
    return "seats_taken";
}

static void test_a_refusal_has_no_token(void **state)
{
    struct rig *rig = *state;
    rig_start_ready(rig);
    rig->servers[ALPHA_1].outcome = is_taken;
    rig_book(rig, 5);
    rig_wait(rig);
    rig_check_errors(rig, 0, 1, SG_SEATS_TAKEN);
    assert_int_equal(rig->errands[0].token.lsn, 0);
}

/* --- all of it together ------------------------------------------------------------------------
 */

static bool misbehaves_at_random(struct rig_server *server, struct fake_session *session)
{
    if (strcmp(session->statement, "take_batch") != 0)
        return false;
    switch (arc4random_uniform(12)) {
    case 0:
        fake_end(session);
        return true;
    case 1:
        fake_error(session, "40P01");
        return true;
    case 2:
        rig_take_batch(server, session);
        fake_fatal(session, "57P01");
        return true;
    case 3:
        fake_error(session, "22P05");
        return true;
    case 4:
        fake_hang(session);
        return true;
    default:
        return false;
    }
}

static const char *answers_at_random(struct rig_server *server, const struct asked *asked)
{
    static const char *const outcomes[] = {"booked", "booked", "again", "seats_taken",
                                           "key_reused"};
    (void)server;
    (void)asked;
    return outcomes[arc4random_uniform(5)];
}

static void test_a_stormy_day(void **state)
{
    struct rig *rig = *state;
    int64_t end_us = clock_mono_us() + 3000000;
    int64_t version = 1;
    rig->settings.booking.deadline_ms = 300;
    rig->settings.booking.connections = 3;
    rig->settings.postgres.statement_timeout_ms = 40;
    for (int i = 0; i < 3; i++) {
        rig->servers[i].instead = misbehaves_at_random;
        rig->servers[i].outcome = answers_at_random;
    }
    rig_start(rig);
    while (clock_mono_us() < end_us && rig->errand_count < ERRANDS_MAX - 100) {
        for (unsigned i = arc4random_uniform(4); i; i--)
            rig_book(rig, arc4random_uniform(20) + 1);
        if (arc4random_uniform(300) == 0)
            rig_publish_map(rig, &(struct rig_map){.version = ++version,
                                                   .without_beta = arc4random_uniform(2),
                                                   .alpha_1_at_spare = arc4random_uniform(2)});
        if (arc4random_uniform(300) == 0)
            rig_publish_topology(rig, &(struct rig_topology){
                                          .alpha_primary = rig_node_names[arc4random_uniform(2)]});
        if (arc4random_uniform(100) == 0)
            fake_shut_down(rig->servers[arc4random_uniform(3)].postgres, "57P01");
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
        RIG_TEST(test_bookings_are_answered_in_order),
        RIG_TEST(test_again_goes_first_in_the_next_batch),
        RIG_TEST(test_fenced_waits_and_goes_again),
        RIG_TEST(test_a_lost_booking_is_asked_again),
        RIG_TEST(test_a_lost_batch_is_asked_again_in_order),
        RIG_TEST(test_an_answer_before_the_commit_is_none),
        RIG_TEST(test_an_answer_that_cannot_commit_is_none),
        RIG_TEST(test_poison_fails_alone),
        RIG_TEST(test_nonsense_answers_nobody_wrongly),
        RIG_TEST(test_deadlines_say_what_is_known),
        RIG_TEST(test_a_late_answer_is_swallowed),
        RIG_TEST(test_the_queue_is_bounded),
        RIG_TEST(test_free_answers_everybody),
        RIG_TEST(test_a_lane_retires_by_itself),
        RIG_TEST(test_the_map_changes_in_a_callback),
        RIG_TEST(test_a_node_that_moved_is_followed),
        RIG_TEST(test_a_new_primary_is_asked_what_became_of_it),
        RIG_TEST(test_no_primary_then_one),
        RIG_TEST(test_a_booking_brings_a_token),
        RIG_TEST(test_a_token_that_got_lost_fails_nobody),
        RIG_TEST(test_a_refusal_has_no_token),
        RIG_TEST(test_a_stormy_day),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
