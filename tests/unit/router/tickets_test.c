/*
 * Goal: "my tickets" is one ordered list however many shards answer, in time whatever they do, and
 * says whom it lacks; a token decides which node is asked, of tickets and of seat maps.
 * Method: a router without Redis on fake servers (router_rig.h) that hold a few tickets each, are
 * dead, silent or slow. With Redis: tests/integration/test_tickets.py.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

#include <endian.h>

#define EPOCH_2000_US INT64_C(946684800000000)

struct stub {
    const char *booking_id;
    const char *event_id;
    const char *starts_us;
    const char *seats;
};

#define ID(n) "00000000-0000-0000-0000-00000000000" #n

static const struct stub of_alpha[] = {{ID(7), "7", "-4000", "{}"},
                                       {ID(1), "5", "1000", "{0,11}"},
                                       {ID(3), "5", "1000", "{1}"},
                                       {ID(5), "6", "3000", "{2}"}};
static const struct stub of_beta[] = {{ID(2), "5", "1000", "{3}"},
                                      {ID(4), "9", "2000", "{4}"},
                                      {ID(5), "6", "3000", "{5}"}}; /* left behind by a move */

/* What the page said; of the last request. */
static struct {
    unsigned count;
    char ids[512]; /* last characters of the bookings' ids */
    char missing[64];
    char source[8];
    bool more;
    struct ticket first;
    size_t first_seats;
    struct seat seats[2];
    int64_t took_us;
} page;

static int64_t asked_start; /* $2 of the last question, microseconds since 2000 */
static int64_t asked_event;
static int64_t asked_limit;
static char asked_user[65];
static bool alpha_hangs;
static bool beta_hangs;
static int64_t begun_us;

static int64_t param_i64(const struct fake_session *session, int i)
{
    int len;
    uint64_t wire;
    const char *bytes = fake_param(session, i, &len);
    assert_int_equal(len, 8);
    memcpy(&wire, bytes, 8);
    return (int64_t)be64toh(wire);
}

static bool answer_tickets(struct rig_server *server, struct fake_session *session)
{
    bool beta = server->node == BETA_1;
    const struct stub *stubs = beta ? of_beta : of_alpha;
    size_t count = beta ? 3 : 4;
    int len;
    if (strcmp(session->statement, "tickets") != 0)
        return false;
    server->reads++;
    if (beta ? beta_hangs : alpha_hangs) {
        fake_hang(session);
        return true;
    }
    const char *user = fake_param(session, 0, &len);
    snprintf(asked_user, sizeof(asked_user), "%.*s", len, user);
    asked_start = param_i64(session, 1);
    asked_event = param_i64(session, 2);
    asked_limit = param_i64(session, 4);
    fake_describe(session, 11);
    for (size_t i = 0; i < count && (int64_t)i < asked_limit; i++) {
        const struct stub *stub = &stubs[i];
        const char *values[] = {stub->booking_id,
                                stub->event_id,
                                "Show",
                                stub->starts_us,
                                "10",
                                "confirmed",
                                stub->seats,
                                "1795219200000000",
                                "1795219260000000",
                                "2500",
                                "EUR"};
        fake_row(session, 11, values);
    }
    fake_complete(session, "SELECT");
    return true;
}

static void on_tickets(void *arg, enum sg_error error, const struct ticket_page *shown)
{
    struct errand *errand = arg;
    memset(&page, 0, sizeof(page));
    page.took_us = clock_mono_us() - begun_us;
    for (size_t i = 0; error == SG_OK && i < shown->ticket_count; i++) {
        assert_int_equal(shown->tickets[i].booking.expires_at_us, 1795219260000000);
        assert_int_equal(shown->tickets[i].booking.amount, 2500);
        assert_string_equal(shown->tickets[i].booking.currency, "EUR");
        size_t len = strlen(page.ids);
        snprintf(page.ids + len, sizeof(page.ids) - len, "%s%c",
                 strcmp(shown->tickets[i].shard, "beta") == 0 ? "b" : "a",
                 shown->tickets[i].booking.booking_id[ROUTER_UUID_LEN - 1]);
    }
    for (size_t i = 0; error == SG_OK && i < shown->missing_count; i++) {
        size_t len = strlen(page.missing);
        snprintf(page.missing + len, sizeof(page.missing) - len, "%s ", shown->missing_shards[i]);
    }
    if (error == SG_OK) {
        page.count++;
        page.more = shown->more;
        snprintf(page.source, sizeof(page.source), "%s", shown->source);
        assert_int_equal(shown->map_version, 1);
    }
    if (error == SG_OK && shown->ticket_count > 1) {
        page.first = shown->tickets[1];
        page.first_seats = shown->tickets[1].booking.seat_count;
        for (size_t i = 0; i < page.first_seats && i < 2; i++)
            page.seats[i] = shown->tickets[1].booking.seats[i];
        assert_string_equal(shown->tickets[1].booking.user_id, "u-1");
        assert_string_equal(shown->tickets[1].booking.status, "confirmed");
        assert_string_equal(shown->tickets[1].event_name, "Show");
    }
    rig_answered(errand, error, NULL);
}

static enum sg_error ask(struct rig *rig, const struct ticket_place *after, size_t limit,
                         const struct read_token *token)
{
    struct errand *errand = rig_errand(rig);
    struct tickets_request request = {
        .user_id = "u-1",
        .after = after,
        .limit = limit,
        .wish = {.max_staleness_us = -1, .tokens = token, .token_count = token ? 1 : 0}};
    begun_us = clock_mono_us();
    enum sg_error error = router_tickets(rig->router, &request, on_tickets, errand);
    assert_int_equal(errand->answers, 0); /* never from inside the call */
    if (error != SG_OK)
        rig->errand_count--;
    return error;
}

static void begin(struct rig *rig)
{
    alpha_hangs = beta_hangs = false;
    for (int i = 0; i < NODES; i++)
        rig->servers[i].instead = answer_tickets;
    rig_start_ready(rig);
}

/* --- the list --------------------------------------------------------------------------------- */

static void test_shards_are_merged(void **state)
{
    struct rig *rig = *state;
    begin(rig);
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    /* by start, event, booking; the copy of a booking once */
    assert_string_equal(page.ids, "a7a1b2a3b4a5");
    assert_false(page.more);
    assert_string_equal(page.missing, "");
    assert_string_equal(page.source, "all");
    assert_int_equal(page.first.starts_at_us, 1000);
    assert_int_equal(page.first.booking.event_id, 5);
    assert_int_equal(page.first.booking.created_at_us, INT64_C(1795219200000000));
    assert_int_equal(page.first_seats, 2);
    assert_int_equal(page.seats[1].row, 2);
    assert_int_equal(page.seats[1].col, 2);
    assert_int_equal(rig->servers[ALPHA_2].reads, 1); /* the replica */
    assert_int_equal(rig->servers[ALPHA_1].reads, 0);
}

static void test_pages_are_cut(void **state)
{
    static const struct {
        size_t limit;
        const char *ids;
        bool more;
    } cuts[] = {{1, "a7", true},
                {2, "a7a1", true},
                {5, "a7a1b2a3b4", true},
                {6, "a7a1b2a3b4a5", false}, /* only a copy is left: that is no more */
                {7, "a7a1b2a3b4a5", false}};
    struct rig *rig = *state;
    begin(rig);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        assert_int_equal(ask(rig, NULL, cuts[i].limit, NULL), SG_OK);
        rig_wait(rig);
        assert_string_equal(page.ids, cuts[i].ids);
        assert_int_equal(page.more, cuts[i].more);
        assert_int_equal(asked_limit, cuts[i].limit + 1);
    }
}

static void test_the_place_is_told_exactly(void **state)
{
    struct ticket_place after = {INT64_C(253402300799999999), 42, ID(9)};
    struct rig *rig = *state;
    begin(rig);
    assert_int_equal(ask(rig, NULL, 1, NULL), SG_OK);
    rig_wait(rig);
    assert_int_equal(asked_start, INT64_MIN); /* -infinity */
    assert_int_equal(asked_event, 0);
    assert_string_equal(asked_user, "u-1");
    assert_int_equal(ask(rig, &after, 1, NULL), SG_OK);
    rig_wait(rig);
    assert_int_equal(asked_start + EPOCH_2000_US, after.starts_at_us);
    assert_int_equal(asked_event, 42);
    after.starts_at_us = -1;
    assert_int_equal(ask(rig, &after, 1, NULL), SG_OK);
    rig_wait(rig);
    assert_int_equal(asked_start + EPOCH_2000_US, -1);
}

/* --- shards that do not answer ---------------------------------------------------------------- */

static void test_a_silent_shard_is_left_out_in_time(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.partial_timeout_ms = 80;
    begin(rig);
    beta_hangs = true;
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    assert_string_equal(page.ids, "a7a1a3a5");
    assert_string_equal(page.missing, "beta ");
    assert_in_range(page.took_us, 75000, 400000);
    alpha_hangs = true;
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    assert_int_equal(rig->errands[1].error, SG_SHARD_UNAVAILABLE);
}

static void test_a_shard_without_a_node_is_missing_at_once(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.partial_timeout_ms = 5000;
    begin(rig);
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = "alpha-1", .beta_down = 1});
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    assert_string_equal(page.missing, "beta ");
    assert_true(page.took_us < 1000000);
    rig_publish_topology(rig, &(struct rig_topology){.replica_down = true, .beta_down = true});
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_SHARD_UNAVAILABLE);
}

/* Up, says the topology, but nobody listens there: the calls wait for a connection, not for ever.
 */
static void test_a_shard_that_cannot_be_reached(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.partial_timeout_ms = 80;
    begin(rig);
    fake_stop_listening(rig->servers[BETA_1].postgres);
    fake_cut(rig->servers[BETA_1].postgres);
    turn_for(rig->base, 20);
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    assert_string_equal(page.missing, "beta ");
    assert_true(page.took_us < 400000);
}

static void test_free_answers(void **state)
{
    struct rig *rig = *state;
    begin(rig);
    alpha_hangs = beta_hangs = true;
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    turn_for(rig->base, 10);
    rig_stop(rig);
    rig_check_once(rig);
    assert_int_equal(rig->errands[0].error, SG_SHARD_UNAVAILABLE);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static const struct read_token token = {.shard = "alpha", .timeline = 1, .lsn = 100};

static void test_a_token_chooses_the_node(void **state)
{
    struct rig *rig = *state;
    begin(rig);
    assert_int_equal(ask(rig, NULL, 100, &token), SG_OK);
    rig_wait(rig);
    assert_int_equal(rig->servers[ALPHA_1].reads, 1); /* no replica is known to have got there */
    assert_int_equal(rig->servers[ALPHA_2].reads, 0);
    assert_int_equal(rig->servers[BETA_1].reads, 1);
    struct read_token gone = {.shard = "gamma", .timeline = 1, .lsn = 100};
    assert_int_equal(ask(rig, NULL, 100, &gone), SG_OK);
    rig_wait(rig);
    assert_int_equal(rig->servers[ALPHA_2].reads, 1);
    assert_string_equal(page.missing, "");
}

/* Nobody has it and nobody can: left out rather than shown without it. */
static void test_a_token_without_a_primary(void **state)
{
    struct rig *rig = *state;
    rig->settings.reads.partial_timeout_ms = 80;
    begin(rig);
    rig_publish_topology(rig, &(struct rig_topology){.alpha_primary = NULL});
    assert_int_equal(ask(rig, NULL, 100, &token), SG_OK);
    rig_wait(rig);
    assert_string_equal(page.missing, "alpha ");
    assert_int_equal(rig->servers[ALPHA_2].reads, 0);
    assert_int_equal(ask(rig, NULL, 100, NULL), SG_OK);
    rig_wait(rig);
    assert_string_equal(page.missing, "");
}

static void on_seatmap(void *arg, const struct route *route, enum sg_error error,
                       struct seatmap *seatmap)
{
    (void)seatmap;
    rig_answered(arg, error, route);
}

static struct errand *get_seatmap(struct rig *rig, const struct read_token *wanted)
{
    struct errand *errand = rig_errand(rig);
    struct read_wish wish = {
        .max_staleness_us = -1, .tokens = wanted, .token_count = wanted ? 1 : 0};
    assert_int_equal(router_seatmap(rig->router, 5, &wish, on_seatmap, errand), SG_OK);
    return errand;
}

/* A reader with a token shares what is surely new enough for it, and asks alone for what is not.
 * What they are given then serves the others, too. */
static void test_a_seat_map_with_a_token_is_shared_where_it_will_do(void **state)
{
    static const struct read_token other = {.shard = "beta", .timeline = 1, .lsn = 100};
    struct rig *rig = *state;
    rig->settings.reads.seatmap_recent_ms = 60000;
    rig->servers[ALPHA_1].lsn = 200;
    rig->servers[ALPHA_2].lsn = 50;
    begin(rig);
    get_seatmap(rig, &token);
    get_seatmap(rig, NULL);
    get_seatmap(rig, &token);
    get_seatmap(rig, NULL);
    rig_wait(rig);
    get_seatmap(rig, &token);
    get_seatmap(rig, &other); /* says nothing of this event */
    rig_wait(rig);
    rig_check_errors(rig, 0, 6, SG_OK);
    static const char *const nodes[] = {"alpha-1", "alpha-2", "alpha-1",
                                        "alpha-2", "alpha-1", "alpha-1"};
    for (int i = 0; i < 6; i++)
        assert_string_equal(rig->errands[i].route.node, nodes[i]);
    assert_int_equal(rig->servers[ALPHA_1].reads, 2);
    assert_int_equal(rig->servers[ALPHA_2].reads, 1);
    assert_int_equal(rig->errands[4].route.seen.lsn, 0x100); /* told by the seat map itself */
    assert_string_equal(rig->errands[4].route.seen.shard, "alpha");
    rig->servers[ALPHA_2].lsn = 300;
    struct read_token later = {.shard = "alpha", .timeline = 1, .lsn = 201};
    get_seatmap(rig, &later); /* newer than what is recent */
    rig_wait(rig);
    assert_string_equal(rig->errands[6].route.node, "alpha-2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_shards_are_merged),
        RIG_TEST(test_pages_are_cut),
        RIG_TEST(test_the_place_is_told_exactly),
        RIG_TEST(test_a_silent_shard_is_left_out_in_time),
        RIG_TEST(test_a_shard_without_a_node_is_missing_at_once),
        RIG_TEST(test_a_shard_that_cannot_be_reached),
        RIG_TEST(test_free_answers),
        RIG_TEST(test_a_token_chooses_the_node),
        RIG_TEST(test_a_token_without_a_primary),
        RIG_TEST(test_a_seat_map_with_a_token_is_shared_where_it_will_do),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
