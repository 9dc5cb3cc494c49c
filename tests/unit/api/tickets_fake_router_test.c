/*
 * Goal: my tickets and the availability of an event are answered as the documentation says; tokens
 * come with a booking and go with a read; a malformed parameter never reaches the router.
 * Method: the real edge and app in front of a fake router.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include "api/cursor.h"

#define UUID "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
#define STARTS_US INT64_C(1811876400000000)
#define TICKET_JSON                                                                                \
    "{\"bookingId\":\"" UUID "\",\"eventId\":42,\"userId\":\"u-1\",\"status\":\"confirmed\","      \
    "\"seats\":[{\"row\":1,\"col\":4}],\"createdAt\":\"2027-06-01T19:00:00Z\","                    \
    "\"eventName\":\"Op \\\"é\\\"\",\"startsAt\":\"2027-06-01T19:00:00Z\",\"shard\":\"beta\"}"

static const struct seat seats[] = {{1, 4}};

static const struct ticket ticket = {
    .booking = {.booking_id = UUID,
                .event_id = 42,
                .user_id = "u-1",
                .status = "confirmed",
                .seats = seats,
                .seat_count = 1,
                .created_at_us = STARTS_US},
    .event_name = "Op \"é\"",
    .starts_at_us = STARTS_US,
    .shard = "beta",
};

static void availability_says_where_from(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->availability = (struct availability){
        .event_id = 1, .total = 10, .available = 8, .held = 1, .booked = 1, .source = "redis"};
    router->route.staleness_us = -1;
    snprintf(router->route.node, sizeof(router->route.node), "redis");
    assert_int_equal(edge_ask(edge, "GET", "/events/1/availability", "", NULL), 200);
    assert_string_equal(edge->body, "{\"eventId\":1,\"total\":10,\"available\":8,\"held\":1,"
                                    "\"booked\":1,\"source\":\"redis\"}");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    edge_assert_header(edge, "SeatGrid-Node", "redis");
    assert_null(edge_header(edge, "SeatGrid-Staleness")); /* unknown is never zero */
    assert_int_equal(router->asked_event_id, 1);
    router->error = SG_UNKNOWN_EVENT;
    assert_int_equal(edge_ask(edge, "GET", "/events/2/availability", "", NULL), 404);
    edge_assert_body_has(edge, "there is no event 2");
    router->refusal = SG_OVERLOADED;
    assert_int_equal(edge_ask(edge, "GET", "/events/2/availability", "", NULL), 503);
    assert_int_equal(edge_ask(edge, "GET", "/events/x/availability", "", NULL), 400);
    assert_int_equal(edge_ask(edge, "POST", "/events/2/availability", "", "{}"), 405);
}

static void tickets_are_paged(void **state)
{
    static const char *const missing[] = {"beta", "gamma"};
    struct edge *edge = *state;
    struct router *router = edge->router;
    char target[128], next[128], cursor[CURSOR_PLACE_LEN + 1];
    router->ticket_page = (struct ticket_page){.source = "redis", .map_version = 8};
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets", "", NULL), 200);
    assert_string_equal(edge->body, "{\"userId\":\"u-1\",\"tickets\":[],\"nextCursor\":null,"
                                    "\"partial\":false,\"missing\":[],\"source\":\"redis\"}");
    edge_assert_header(edge, "SeatGrid-Map-Version", "8");
    assert_string_equal(router->asked_user, "u-1");
    assert_int_equal(router->asked_limit, 20);
    assert_int_equal(router->asked_after.event_id, 0);
    assert_int_equal(router->asked_token_count, 0);

    router->ticket_page = (struct ticket_page){
        .tickets = &ticket, .ticket_count = 1, .more = true, .source = "all", .map_version = 8};
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets?limit=1", "", NULL), 200);
    struct ticket_place place = {STARTS_US, 42, UUID};
    cursor_write_place(&place, cursor);
    snprintf(next, sizeof(next), "\"nextCursor\":\"%s\",\"partial\":false", cursor);
    edge_assert_body_has(edge, next);

    snprintf(target, sizeof(target), "/users/u-1/tickets?cursor=%s&limit=100", cursor);
    router->ticket_page.more = false;
    router->ticket_page.missing_shards = missing;
    router->ticket_page.missing_count = 2;
    assert_int_equal(edge_ask(edge, "GET", target, "", NULL), 200);
    assert_string_equal(edge->body,
                        "{\"userId\":\"u-1\",\"tickets\":[" TICKET_JSON "],\"nextCursor\":null,"
                        "\"partial\":true,\"missing\":[\"beta\",\"gamma\"],\"source\":\"all\"}");
    assert_int_equal(router->asked_limit, 100);
    assert_int_equal(router->asked_after.starts_at_us, STARTS_US);
    assert_int_equal(router->asked_after.event_id, 42);
    assert_string_equal(router->asked_after.booking_id, UUID);

    router->error = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets", "", NULL), 503);
    edge_assert_body_has(edge, "no shard of the map answers");
    edge_assert_header(edge, "Retry-After", "2");
    router->refusal = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets", "", NULL), 503);
    router->refusal = SG_NO_MEMORY;
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets", "", NULL), 500);
}

/* Decoded once, and held to what a booking's user may be. */
static void user_ids_are_checked(void **state)
{
    static const char *const bad[] = {
        "/users/%09/tickets", "/users/%20/tickets", "/users/%C2%85/tickets", "/users/%C3/tickets",
        "/users/12345678901234567890123456789012345678901234567890123456789012345/tickets"};
    struct edge *edge = *state;
    edge->router->ticket_page.source = "redis";
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (edge_ask(edge, "GET", bad[i], "", NULL) != 400)
            fail_msg("%s gives %d", bad[i], edge->status);
        edge_assert_body_has(edge, "\"code\":\"malformed_request\"");
    }
    assert_int_equal(edge->router->calls, 0);
    assert_int_equal(edge_ask(edge, "GET", "/users/a%20%25b%22%7B+~/tickets", "", NULL), 200);
    assert_string_equal(edge->router->asked_user, "a %b\"{+~");
    edge_assert_body_has(edge, "{\"userId\":\"a %b\\\"{+~\",");
    assert_int_equal(
        edge_ask(edge, "GET",
                 "/users/1234567890123456789012345678901234567890123456789012345678901234/tickets",
                 "", NULL),
        200);
    assert_int_equal(strlen(edge->router->asked_user), 64);
    assert_int_equal(edge_ask(edge, "GET", "/users/Zo%C3%AB/tickets", "", NULL), 200);
    assert_string_equal(edge->router->asked_user, "Zo\xc3\xab");
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1", "", NULL), 404);
    assert_int_equal(edge_ask(edge, "GET", "/users//tickets", "", NULL), 400);
}

static void paging_parameters_are_checked(void **state)
{
    static const char *const bad[] = {
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=",
        "cursor=AAAAAAAAAAHChNCK", /* of the list of events */
        "cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char target[128];
        snprintf(target, sizeof(target), "/users/u-1/tickets?%s", bad[i]);
        if (edge_ask(edge, "GET", target, "", NULL) != 400)
            fail_msg("%s gives %d", bad[i], edge->status);
        edge_assert_body_has(edge, "\"code\":\"malformed_request\"");
    }
    assert_int_equal(edge->router->calls, 0);
}

static void tokens_reach_the_router(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->ticket_page.source = "redis";
    assert_int_equal(edge_ask(edge, "GET", "/users/u-1/tickets",
                              "SeatGrid-Token: alpha.1.16B3748 ,\tbeta.2.FF\r\n", NULL),
                     200);
    assert_int_equal(router->asked_token_count, 2);
    assert_string_equal(router->asked_tokens[0].shard, "alpha");
    assert_int_equal(router->asked_tokens[0].lsn, 0x16B3748);
    assert_string_equal(router->asked_tokens[1].shard, "beta");
    assert_int_equal(router->asked_tokens[1].timeline, 2);
    router->seatmap = fake_seatmap_new(1, 1, 2, "..");
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats",
                              "SeatGrid-Token: beta.2.FF\r\nSeatGrid-Token: alpha.1.16B3748\r\n",
                              NULL),
                     200);
    assert_int_equal(router->asked_token_count, 2);
    assert_string_equal(router->asked_tokens[1].shard, "alpha");
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 200);
    assert_int_equal(router->asked_token_count, 0);
}

static void malformed_tokens_are_refused(void **state)
{
    static const char *const bad[] = {"x",          "alpha.1",     "alpha.1.16b3748",
                                      "alpha.1.0,", "alpha.1.FF,", "alpha.01.FF"};
    static const char *const targets[] = {
        "/users/u-1/tickets",
        "/events/1/seats",
        "/events",
        "/events/1",
        "/events/1/availability",
        "/events/1/bookings/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"};
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (size_t k = 0; k < sizeof(targets) / sizeof(targets[0]); k++) {
            char header[128];
            snprintf(header, sizeof(header), "SeatGrid-Token: %s\r\n", bad[i]);
            if (edge_ask(edge, "GET", targets[k], header, NULL) != 400)
                fail_msg("%s with %s gives %d", targets[k], header, edge->status);
            edge_assert_body_has(edge, "SeatGrid-Token: must be what");
            if (edge_ask(edge, "GET", targets[k], "SeatGrid-Max-Staleness: soon\r\n", NULL) != 400)
                fail_msg("%s with a bad bound gives %d", targets[k], edge->status);
        }
    }
    assert_int_equal(edge->router->calls, 0);
}

static void a_booking_brings_its_token(void **state)
{
    static const char body[] =
        "{\"eventId\":1,\"userId\":\"u-1\",\"seats\":[{\"row\":1,\"col\":4}]}";
    struct edge *edge = *state;
    edge->router->booked = (struct book_result){
        .booking_id = UUID,
        .status = "confirmed",
        .created_at_us = STARTS_US,
        .token = {.shard = "alpha", .timeline = 3, .lsn = UINT64_C(0xF00000016B3748)}};
    assert_int_equal(edge_ask(edge, "POST", "/book", "", body), 201);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.3.F00000016B3748");
    edge->router->booked.token.lsn = 0; /* it got lost: the booking stands */
    assert_int_equal(edge_ask(edge, "POST", "/book", "", body), 201);
    assert_null(edge_header(edge, "SeatGrid-Token"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(availability_says_where_from), TEST(tickets_are_paged),
        TEST(user_ids_are_checked),         TEST(paging_parameters_are_checked),
        TEST(tokens_reach_the_router),      TEST(malformed_tokens_are_refused),
        TEST(a_booking_brings_its_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
