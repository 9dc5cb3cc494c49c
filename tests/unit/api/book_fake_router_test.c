/*
 * Goal: POST /book asks the router exactly what the client asked, and tells every answer of the
 * router as the documentation says.
 * Method: the real edge and app in front of a fake router; also a client that leaves early.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#define ROUTE "POST /book"
#define TWO_SEATS                                                                                  \
    "{\"eventId\":1,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7},{\"row\":3,\"col\":8}]}"
#define UUID "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"

static void script_booked(struct router *router)
{
    memcpy(router->booked.booking_id, UUID, sizeof(UUID));
    router->booked.created_at_us = INT64_C(1811876400123456);
    router->route = (struct route){.shard = "alpha", .node = "alpha-1", .map_version = 9};
}

static void a_booking_is_made(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_booked(router);
    assert_int_equal(edge_ask(edge, "POST", "/book",
                              "Content-Type: application/json\r\nIdempotency-Key: k 1\r\n",
                              TWO_SEATS),
                     201);
    assert_string_equal(edge->body,
                        "{\"bookingId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\",\"status\":"
                        "\"confirmed\",\"seats\":[{\"row\":3,\"col\":7},{\"row\":3,\"col\":8}],"
                        "\"createdAt\":\"2027-06-01T19:00:00.123456Z\"}");
    edge_assert_header(edge, "Location", "/events/1/bookings/" UUID);
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    edge_assert_header(edge, "SeatGrid-Map-Version", "9");
    assert_null(edge_header(edge, "SeatGrid-Staleness"));
    assert_null(edge_header(edge, "Idempotent-Replayed"));
    assert_null(edge_header(edge, "SeatGrid-Token"));
    edge_assert_header(edge, "SeatGrid-Durability", "async");
    assert_non_null(edge_header(edge, "X-Request-Id"));
    assert_int_equal(router->asked_event_id, 1);
    assert_string_equal(router->asked_user, "u-1");
    assert_string_equal(router->asked_key, "k 1");
    assert_int_equal(router->asked_seat_count, 2);
    assert_int_equal(router->asked_seats[1].col, 8);
    assert_int_equal(edge_count(ROUTE, "alpha", "alpha-1", "ok"), 1);
}

static void a_replay_says_so(void **state)
{
    struct edge *edge = *state;
    script_booked(edge->router);
    edge->router->booked.replayed = true;
    assert_int_equal(edge_ask(edge, "POST", "/book", "", TWO_SEATS), 201);
    edge_assert_header(edge, "Idempotent-Replayed", "true");
    assert_string_equal(edge->router->asked_key, "");
    assert_int_equal(edge_count(ROUTE, "alpha", "alpha-1", "replayed"), 1);
    assert_int_equal(edge_count(ROUTE, "alpha", "alpha-1", "ok"), 0);
}

static void taken_seats_are_named(void **state)
{
    static const struct seat taken[] = {{3, 8}};
    struct edge *edge = *state;
    edge->router->error = SG_SEATS_TAKEN;
    edge->router->booked.seats = taken;
    edge->router->booked.seat_count = 1;
    assert_int_equal(edge_ask(edge, "POST", "/book", "", TWO_SEATS), 409);
    edge_assert_header(edge, "Content-Type", "application/problem+json");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    edge_assert_body_has(edge, "\"code\":\"seats_taken\"");
    edge_assert_body_has(edge, "\"conflicts\":[{\"row\":3,\"col\":8}]");
    edge->router->error = SG_UNKNOWN_SEAT;
    assert_int_equal(edge_ask(edge, "POST", "/book", "", TWO_SEATS), 422);
    edge_assert_body_has(edge, "\"conflicts\":[{\"row\":3,\"col\":8}]");
    edge_assert_body_has(edge, "outside the event's grid");
}

static void every_word_of_the_router_has_its_answer(void **state)
{
    static const struct {
        enum sg_error error;
        int status;
        bool retry;
    } cases[] = {
        {SG_UNKNOWN_EVENT, 404, false},    {SG_KEY_REUSED, 422, false},
        {SG_DEADLINE, 503, true},          {SG_OUTCOME_UNKNOWN, 503, true},
        {SG_SHARD_UNAVAILABLE, 503, true}, {SG_FENCED, 503, true},
        {SG_STALE_EPOCH, 503, true},       {SG_NOT_SYNCHRONOUS, 503, true},
        {SG_OVERLOADED, 503, true},        {SG_INTERNAL, 500, false},
        {SG_NO_MEMORY, 500, false},
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int refused = 0; refused < 2; refused++) {
            char code[64];
            edge->router->error = refused ? SG_OK : cases[i].error;
            edge->router->refusal = refused ? cases[i].error : SG_OK;
            assert_int_equal(edge_ask(edge, "POST", "/book", "", TWO_SEATS), cases[i].status);
            snprintf(code, sizeof(code), "\"code\":\"%s\"", sg_error_code(cases[i].error));
            edge_assert_body_has(edge, code);
            edge_assert_header(edge, "SeatGrid-Shard", "alpha");
            assert_int_equal(edge_header(edge, "Retry-After") != NULL, cases[i].retry);
        }
        assert_int_equal(edge_count(ROUTE, "alpha", "", sg_error_code(cases[i].error)), 1);
    }
}

static void an_event_on_no_shard_has_no_shard(void **state)
{
    struct edge *edge = *state;
    edge->router->refusal = SG_UNKNOWN_EVENT;
    assert_int_equal(edge_ask(edge, "POST", "/book", "",
                              "{\"eventId\":5000000,\"userId\":\"u\",\"seats\":[{\"row\":1,"
                              "\"col\":1}]}"),
                     404);
    assert_null(edge_header(edge, "SeatGrid-Shard"));
    edge_assert_header(edge, "SeatGrid-Map-Version", "7");
    edge_assert_body_has(edge, "there is no event 5000000");
}

#define NOBODY "{\"eventId\":1,\"seats\":[{\"row\":3,\"col\":7}]}"

static void the_user_may_stand_in_a_header(void **state)
{
    struct edge *edge = *state;
    script_booked(edge->router);
    assert_int_equal(edge_ask(edge, "POST", "/book", "X-User-Id: u-9\r\n", NOBODY), 201);
    assert_string_equal(edge->router->asked_user, "u-9");
    edge_assert_body_has(edge, "\"userId\":\"u-9\"");
    assert_int_equal(edge_ask(edge, "POST", "/book", "X-User-Id: u-1\r\n", TWO_SEATS), 201);
    assert_int_equal(edge_ask(edge, "POST", "/book", "X-User-Id: u-2\r\n", TWO_SEATS), 422);
    edge_assert_body_has(edge, "userId: differs from the header X-User-Id");
    assert_int_equal(edge_ask(edge, "POST", "/book", "", NOBODY), 400);
    edge_assert_body_has(edge, "userId: is missing");
    assert_int_equal(edge_ask(edge, "POST", "/book", "X-User-Id: Zo\xc3\xab\r\n", NOBODY), 400);
    assert_int_equal(edge->router->calls, 2);
}

static void headers_are_checked(void **state)
{
    struct edge *edge = *state;
    char header[400];
    assert_int_equal(edge_ask(edge, "POST", "/book", "Content-Type: text/plain\r\n", TWO_SEATS),
                     415);
    edge_assert_body_has(edge, "\"code\":\"unsupported_media_type\"");
    snprintf(header, sizeof(header), "Idempotency-Key: %0256d\r\n", 1);
    assert_int_equal(edge_ask(edge, "POST", "/book", header, TWO_SEATS), 400);
    edge_assert_body_has(edge, "Idempotency-Key: must be 1 to 255 bytes");
    assert_int_equal(edge_ask(edge, "POST", "/book", "Idempotency-Key:\r\n", TWO_SEATS), 400);
    assert_int_equal(edge_ask(edge, "POST", "/book", "Idempotency-Key: \xc3\xa9\r\n", TWO_SEATS),
                     400);
    assert_int_equal(edge->router->calls, 0);
    script_booked(edge->router);
    snprintf(header, sizeof(header), "Idempotency-Key: %0255d\r\n", 1);
    assert_int_equal(edge_ask(edge, "POST", "/book", header, TWO_SEATS), 201);
    assert_int_equal(strlen(edge->router->asked_key), 255);
}

static void bodies_are_checked(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "POST", "/book", "", "{\"eventId\":1"), 400);
    edge_assert_body_has(edge, "\"code\":\"malformed_json\"");
    assert_int_equal(edge_ask(edge, "POST", "/book", "", "{\"eventId\":\"1\"}"), 400);
    edge_assert_body_has(edge, "\"code\":\"wrong_type\"");
    assert_int_equal(edge_ask(edge, "POST", "/book", "",
                              "{\"eventId\":1,\"userId\":\"u\",\"seats\":[{\"row\":1,\"col\":1},"
                              "{\"row\":1,\"col\":1}]}"),
                     422);
    edge_assert_body_has(edge, "\"code\":\"duplicate_seat\"");
    assert_int_equal(edge_ask(edge, "POST", "/book", "", ""), 400);
    edge_assert_body_has(edge, "the body is empty");
    assert_int_equal(edge->router->calls, 0);
    assert_int_equal(edge_count(ROUTE, "", "", "duplicate_seat"), 1);
}

/* The answer has nowhere to go; it is counted and nothing leaks or is used after its end. */
static void the_client_leaves_before_the_answer(void **state)
{
    struct edge *edge = *state;
    struct linger reset = {.l_onoff = 1};
    char request[512];
    int len = snprintf(request, sizeof(request),
                       "POST /book HTTP/1.1\r\nHost: t\r\nContent-Length: %zu\r\n\r\n%s",
                       strlen(TWO_SEATS), TWO_SEATS);
    script_booked(edge->router);
    edge->router->hold = true;
    int fd = edge_connect(edge);
    assert_int_equal(send(fd, request, (size_t)len, MSG_NOSIGNAL), len);
    while (!edge->router->calls)
        event_base_loop(edge->base, EVLOOP_ONCE);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    for (int i = 0; i < 5; i++)
        event_base_loop(edge->base, EVLOOP_NONBLOCK);
    fake_router_release(edge->router);
    assert_int_equal(edge_count(ROUTE, "alpha", "alpha-1", "ok"), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_booking_is_made),
        TEST(a_replay_says_so),
        TEST(taken_seats_are_named),
        TEST(every_word_of_the_router_has_its_answer),
        TEST(an_event_on_no_shard_has_no_shard),
        TEST(the_user_may_stand_in_a_header),
        TEST(headers_are_checked),
        TEST(bodies_are_checked),
        TEST(the_client_leaves_before_the_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
