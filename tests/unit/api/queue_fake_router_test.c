/*
 * Goal: a booking goes through the queue exactly when the client prefers that and there is one; it
 * is accepted only when the queue keeps it; what became of it is told as the documentation says.
 * Method: the real edge and app in front of a fake router and a fake publisher.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include "base/uuid.h"
#include "queue/message.h"
#include "queue/publisher.h"

#define ONE "{\"eventId\":1,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7}]}"
#define ASYNC "Prefer: respond-async\r\n"

/* --- the fake publisher ----------------------------------------------------------------------- */

static struct {
    enum sg_error refusal; /* by the call itself */
    enum sg_error error;   /* told to the callback */
    int count;
    char shard[SHARDMAP_NAME_MAX + 1];
    struct queue_message message; /* the last one */
    struct event_base *base;
    queue_publish_fn *fn;
    void *arg;
} published;

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    published.fn(published.arg, published.error);
}

enum sg_error queue_publish(struct queue_sender *sender, const char *shard, const void *body,
                            size_t len, queue_publish_fn *fn, void *arg)
{
    const char *reason = "";
    assert_ptr_equal(sender, edge_queue);
    if (published.refusal)
        return published.refusal;
    published.count++;
    snprintf(published.shard, sizeof(published.shard), "%s", shard);
    if (queue_message_decode(body, len, &published.message, &reason) != SG_OK)
        fail_msg("%s", reason);
    published.fn = fn;
    published.arg = arg;
    event_base_once(published.base, -1, EV_TIMEOUT, on_later, NULL, &(struct timeval){0});
    return SG_OK;
}

static int setup(void **state)
{
    memset(&published, 0, sizeof(published));
    edge_queue = (struct queue_sender *)&published;
    edge_setup(state);
    published.base = ((struct edge *)*state)->base;
    return 0;
}

static int setup_without(void **state)
{
    memset(&published, 0, sizeof(published));
    edge_queue = NULL;
    return edge_setup(state);
}

/* The id in the Location of the last answer. */
static const char *located(struct edge *edge)
{
    static char id[ROUTER_UUID_LEN + 1];
    const char *location = edge_header(edge, "Location");
    assert_non_null(location);
    assert_int_equal(sscanf(location, "/events/1/queue/%36s", id), 1);
    return id;
}

/* --- accepting -------------------------------------------------------------------------------- */

static void a_booking_is_queued(void **state)
{
    struct edge *edge = *state;
    char body[160];
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC "Idempotency-Key: k\r\n", ONE), 202);
    edge_assert_header(edge, "Preference-Applied", "respond-async");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    snprintf(body, sizeof(body), "{\"bookingId\":\"%s\",\"eventId\":1,\"status\":\"queued\"}",
             located(edge));
    assert_string_equal(edge->body, body);
    assert_string_equal(published.message.booking_id, located(edge));
    assert_string_equal(published.shard, "alpha");
    assert_string_equal(published.message.user_id, "u-1");
    assert_string_equal(published.message.idempotency_key, "k");
    assert_int_equal(published.message.seat_count, 1);
    assert_int_equal(published.message.seats[0].col, 7);
    assert_int_equal(edge->router->calls, 0);
    assert_int_equal(edge_count("POST /book", "alpha", "", "accepted"), 1);
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC,
                              "{\"eventId\":1,\"userId\":\"u-1\",\"best\":[{\"tier\":\"pit\","
                              "\"quantity\":2,\"together\":false}]}"),
                     202);
    assert_int_equal(published.message.best_count, 1);
    assert_string_equal(published.message.tiers[0], "pit");
    assert_string_equal(published.message.idempotency_key, "");
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC,
                              "{\"eventId\":1,\"userId\":\"Zo\xc3\xab\",\"seats\":[{\"row\":1,"
                              "\"col\":1}]}"),
                     202);
    assert_string_equal(published.message.user_id, "Zo\xc3\xab");
}

/* The same request is the same booking; nothing else is. */
static void ids_follow_keys_and_bodies(void **state)
{
    static const char *const others[] = {
        "{\"eventId\":1,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":8}]}",
        "{\"eventId\":1,\"userId\":\"u-2\",\"seats\":[{\"row\":3,\"col\":7}]}",
        "{\"eventId\":1,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7},{\"row\":3,\"col\":8}]"
        "}",
        "{\"eventId\":1,\"userId\":\"u-1\",\"best\":[{\"quantity\":1}]}",
        "{\"eventId\":1,\"userId\":\"u-1\",\"best\":[{\"quantity\":1,\"together\":false}]}",
        "{\"eventId\":1,\"userId\":\"u-1\",\"best\":[{\"quantity\":1,\"tier\":\"pit\"}]}",
    };
    struct edge *edge = *state;
    char first[ROUTER_UUID_LEN + 1];
    char seen[6][ROUTER_UUID_LEN + 1];
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC "Idempotency-Key: k\r\n", ONE), 202);
    snprintf(first, sizeof(first), "%s", located(edge));
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC "Idempotency-Key: k\r\n", ONE), 202);
    assert_string_equal(located(edge), first);
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC "Idempotency-Key: l\r\n", ONE), 202);
    assert_string_not_equal(located(edge), first);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC "Idempotency-Key: k\r\n", others[i]),
                         202);
        snprintf(seen[i], sizeof(seen[i]), "%s", located(edge));
        assert_string_not_equal(seen[i], first);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(seen[i], seen[k]);
    }
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC, ONE), 202);
    snprintf(first, sizeof(first), "%s", located(edge));
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC, ONE), 202);
    assert_string_not_equal(located(edge), first);
    assert_int_equal(published.count, 11);
}

static void a_longest_key_fits(void **state)
{
    struct edge *edge = *state;
    char headers[400];
    snprintf(headers, sizeof(headers), ASYNC "Idempotency-Key: %0255d\r\n", 1);
    assert_int_equal(edge_ask(edge, "POST", "/book", headers, ONE), 202);
    assert_int_equal(strlen(published.message.idempotency_key), 255);
}

static void a_queue_that_does_not_keep_it(void **state)
{
    static const struct {
        enum sg_error refusal, error;
        int status;
        const char *has;
    } cases[] = {
        {SG_QUEUE_UNAVAILABLE, SG_OK, 503, "\"code\":\"queue_unavailable\""},
        {SG_OK, SG_QUEUE_UNAVAILABLE, 503, "nothing was kept"},
        {SG_OK, SG_OUTCOME_UNKNOWN, 503, "or ask for booking "},
        {SG_NO_MEMORY, SG_OK, 500, "\"code\":\"no_memory\""},
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        published.refusal = cases[i].refusal;
        published.error = cases[i].error;
        assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC, ONE), cases[i].status);
        edge_assert_body_has(edge, cases[i].has);
        assert_null(edge_header(edge, "Preference-Applied"));
        assert_int_equal(edge_header(edge, "Retry-After") != NULL, cases[i].status == 503);
    }
}

static void nothing_is_queued(void **state)
{
    struct edge *edge = *state;
    memcpy(edge->router->booked.booking_id, "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a", 37);
    assert_int_equal(edge_ask(edge, "POST", "/book", "Prefer: return=minimal\r\n", ONE), 201);
    assert_null(edge_header(edge, "Preference-Applied"));
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC, "{}"), 400);
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC,
                              "{\"eventId\":1000000,\"userId\":\"u\",\"seats\":[{\"row\":1,"
                              "\"col\":1}]}"),
                     404);
    assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", ASYNC,
                              "{\"userId\":\"u\",\"seats\":[{\"row\":1,\"col\":1}]}"),
                     201);
    assert_int_equal(published.count, 0);
}

static void without_a_queue_the_answer_is_the_booking(void **state)
{
    struct edge *edge = *state;
    memcpy(edge->router->booked.booking_id, "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a", 37);
    assert_int_equal(edge_ask(edge, "POST", "/book", ASYNC, ONE), 201);
    assert_null(edge_header(edge, "Preference-Applied"));
    assert_int_equal(published.count, 0);
}

/* --- asking ----------------------------------------------------------------------------------- */

static void ask_for(struct edge *edge, const char *id)
{
    char path[80];
    snprintf(path, sizeof(path), "/events/1/queue/%s", id);
    edge_ask(edge, "GET", path, "", NULL);
}

/* An id of this version, made so long ago. */
static const char *made(char version, int64_t ago_s)
{
    static char id[UUID_TEXT_LEN + 1];
    struct uuid uuid = uuid_v7(clock_wall_us() - ago_s * 1000000);
    uuid_format(&uuid, id);
    id[14] = version;
    return id;
}

static void a_booking_that_was_made(void **state)
{
    static const struct seat seat = {3, 7};
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->booking = (struct booking){
        .event_id = 1, .user_id = "u-1", .status = "confirmed", .seats = &seat, .seat_count = 1};
    memcpy(router->booking.booking_id, "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a", 37);
    ask_for(edge, "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a");
    assert_int_equal(edge->status, 200);
    edge_assert_body_has(edge,
                         "{\"bookingId\":\"0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a\",\"eventId\":"
                         "1,\"status\":\"confirmed\",\"booking\":{\"bookingId\":");
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
    assert_int_equal(router->calls, 1);
}

static void a_booking_that_was_refused(void **state)
{
    static const struct seat seat = {3, 7};
    static const struct refusal taken = {"seats_taken", "u-1", &seat, 1};
    static const struct refusal over = {"over_limit", "u-1", NULL, 0};
    struct edge *edge = *state;
    edge->router->booking_error = SG_UNKNOWN_BOOKING;
    edge->router->refusal_kept = &taken;
    ask_for(edge, made('7', 90000));
    assert_int_equal(edge->status, 200);
    edge_assert_body_has(edge, "\"status\":\"failed\",\"code\":\"seats_taken\",\"conflicts\":[{"
                               "\"row\":3,\"col\":7}]}");
    edge->router->refusal_kept = &over;
    ask_for(edge, made('8', 0));
    edge_assert_body_has(edge, "\"status\":\"failed\",\"code\":\"over_limit\"}");
}

static void a_booking_that_waits_or_never_was(void **state)
{
    struct edge *edge = *state;
    edge->router->booking_error = SG_UNKNOWN_BOOKING;
    ask_for(edge, made('7', 0));
    assert_int_equal(edge->status, 200);
    edge_assert_body_has(edge, "\"status\":\"queued\"}");
    ask_for(edge, made('7', 86300));
    assert_int_equal(edge->status, 200);
    ask_for(edge, made('8', 0));
    assert_int_equal(edge->status, 200);
    ask_for(edge, made('7', 86500));
    assert_int_equal(edge->status, 404);
    edge_assert_body_has(edge, "\"code\":\"unknown_booking\"");
    ask_for(edge, made('7', -86400));
    assert_int_equal(edge->status, 404);
    ask_for(edge, made('4', 0));
    assert_int_equal(edge->status, 404);
    ask_for(edge, "x");
    assert_int_equal(edge->status, 400);
}

static void a_shard_that_does_not_answer(void **state)
{
    struct edge *edge = *state;
    edge->router->error = SG_SHARD_UNAVAILABLE;
    ask_for(edge, made('7', 0));
    assert_int_equal(edge->status, 503);
    edge->router->booking_error = SG_UNKNOWN_BOOKING; /* and then the refusal cannot be read */
    ask_for(edge, made('7', 0));
    assert_int_equal(edge->status, 503);
    assert_int_equal(edge->router->calls, 3);
    edge->router->refusal = SG_OVERLOADED;
    ask_for(edge, made('7', 0));
    assert_int_equal(edge->status, 503);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_booking_is_queued),
        TEST(ids_follow_keys_and_bodies),
        TEST(a_longest_key_fits),
        TEST(a_queue_that_does_not_keep_it),
        TEST(nothing_is_queued),
        cmocka_unit_test_setup_teardown(without_a_queue_the_answer_is_the_booking, setup_without,
                                        edge_teardown),
        TEST(a_booking_that_was_made),
        TEST(a_booking_that_was_refused),
        TEST(a_booking_that_waits_or_never_was),
        TEST(a_shard_that_does_not_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
