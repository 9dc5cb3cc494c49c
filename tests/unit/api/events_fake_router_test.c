/*
 * Goal: events and bookings are created, read and listed as the documentation says.
 * Method: the real edge and app in front of a fake router.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include "api/cursor.h"

#define UUID "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
#define EVENT_JSON                                                                                 \
    "{\"id\":42,\"name\":\"Op \\\"é\\\"\",\"startsAt\":\"2027-06-01T19:00:00Z\",\"rows\":1000,"   \
    "\"cols\":1000,\"shard\":\"beta\",\"total\":1000000,\"available\":999998}"

static const struct event_info event = {
    .event_id = 42,
    .name = "Op \"é\"",
    .starts_at_us = INT64_C(1811876400000000),
    .rows = 1000,
    .cols = 1000,
    .available = 999998,
    .shard = "beta",
};

static void an_event_is_created(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->event = event;
    router->event.token = (struct read_token){"beta", 2, 0x16B3748};
    router->event.durability = SHARDMAP_SYNC;
    assert_int_equal(edge_ask(edge, "POST", "/events", "Content-Type: application/json\r\n",
                              "{\"name\":\"Op \\\"é\\\"\",\"startsAt\":\"2027-06-01T21:00:00+02:00"
                              "\",\"rows\":1000,\"cols\":1000,\"shard\":\"beta\"}"),
                     201);
    assert_string_equal(edge->body, EVENT_JSON);
    edge_assert_header(edge, "Location", "/events/42");
    edge_assert_header(edge, "SeatGrid-Token", "beta.2.16B3748");
    edge_assert_header(edge, "SeatGrid-Durability", "sync");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    assert_null(edge_header(edge, "SeatGrid-Node"));
    assert_string_equal(router->asked_name, "Op \"é\"");
    assert_string_equal(router->asked_shard, "beta");
    assert_int_equal(router->asked_starts_at_us, INT64_C(1811876400000000));
    assert_int_equal(router->asked_rows, 1000);
    assert_int_equal(edge_ask(edge, "POST", "/events", "",
                              "{\"name\":\"n\",\"startsAt\":\"2027-06-01T21:00:00Z\",\"rows\":1,"
                              "\"cols\":2}"),
                     201);
    assert_string_equal(router->asked_shard, "");
}

static void an_event_with_tiers(void **state)
{
    static const struct event_tier tiers[] = {{"pit", 4500, 1}, {"Balkön", 3000, 6}};
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->event = event;
    router->event.rows = 10;
    router->event.tiers = tiers;
    router->event.tier_count = 2;
    router->event.currency = "EUR";
    router->event.max_per_user = 4;
    assert_int_equal(
        edge_ask(edge, "POST", "/events", "",
                 "{\"name\":\"n\",\"startsAt\":\"2027-06-01T19:00:00Z\",\"rows\":10,"
                 "\"cols\":2,\"maxPerUser\":4,\"currency\":\"EUR\",\"tiers\":["
                 "{\"name\":\"Balkön\",\"price\":3000,\"rows\":{\"first\":6,\"last\":10}},"
                 "{\"name\":\"pit\",\"price\":4500,\"rows\":{\"first\":1,\"last\":5}}]}"),
        201);
    edge_assert_body_has(edge, ",\"tiers\":[{\"name\":\"pit\",\"price\":4500,\"rows\":{\"first\":1,"
                               "\"last\":5}},{\"name\":\"Balkön\",\"price\":3000,\"rows\":{"
                               "\"first\":6,\"last\":10}}],\"currency\":\"EUR\",\"maxPerUser\":4}");
    assert_int_equal(router->asked_tier_count, 2);
    assert_string_equal(router->asked_event_tiers[1].name, "Balkön");
    assert_int_equal(router->asked_event_tiers[1].first_row, 6);
    assert_int_equal(router->asked_event_tiers[0].price, 4500);
    assert_string_equal(router->asked_currency, "EUR");
    assert_int_equal(router->asked_max_per_user, 4);
    assert_int_equal(edge_ask(edge, "GET", "/events/42", "", NULL), 200);
    edge_assert_body_has(edge, "\"currency\":\"EUR\",\"maxPerUser\":4}");
}

static void impossible_events_are_refused(void **state)
{
    static const char body[] =
        "{\"name\":\"n\",\"startsAt\":\"2027-06-01T21:00:00Z\",\"rows\":1,\"cols\":2}";
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "POST", "/events", "", "{}"), 400);
    assert_int_equal(edge_ask(edge, "POST", "/events", "Content-Type: text/xml\r\n", body), 415);
    assert_int_equal(edge->router->calls, 0);
    edge->router->refusal = SG_UNKNOWN_SHARD;
    assert_int_equal(edge_ask(edge, "POST", "/events", "", body), 422);
    edge_assert_body_has(edge, "\"code\":\"unknown_shard\"");
    edge->router->refusal = SG_OK;
    edge->router->error = SG_MAP_FULL;
    assert_int_equal(edge_ask(edge, "POST", "/events", "", body), 507);
    edge_assert_body_has(edge, "\"code\":\"map_full\"");
    edge->router->error = SG_OUTCOME_UNKNOWN;
    assert_int_equal(edge_ask(edge, "POST", "/events", "", body), 503);
    edge_assert_header(edge, "Retry-After", "2");
}

static void an_event_is_read(void **state)
{
    struct edge *edge = *state;
    edge->router->event = event;
    assert_int_equal(edge_ask(edge, "GET", "/events/42", "", NULL), 200);
    assert_string_equal(edge->body, EVENT_JSON);
    assert_int_equal(edge->router->asked_event_id, 42);
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
    edge_assert_header(edge, "SeatGrid-Staleness", "12ms"); /* 11.2, rounded up */
    edge->router->route.staleness_us = 0;
    edge_ask(edge, "GET", "/events/42", "", NULL);
    edge_assert_header(edge, "SeatGrid-Staleness", "0ms");
    edge->router->route.staleness_us = -1; /* unknown is never zero */
    edge_ask(edge, "GET", "/events/42", "", NULL);
    assert_null(edge_header(edge, "SeatGrid-Staleness"));
    edge->router->error = SG_UNKNOWN_EVENT;
    assert_int_equal(edge_ask(edge, "GET", "/events/9223372036854775807", "", NULL), 404);
    edge_assert_body_has(edge, "there is no event 9223372036854775807");
}

static void events_are_paged(void **state)
{
    static const char *const missing[] = {"beta"};
    struct edge *edge = *state;
    struct router *router = edge->router;
    char target[64], cursor[CURSOR_LEN + 1], next[64];
    assert_int_equal(edge_ask(edge, "GET", "/events", "", NULL), 200);
    assert_string_equal(edge->body,
                        "{\"events\":[],\"nextCursor\":null,\"partial\":false,\"missing\":[]}");
    assert_int_equal(router->asked_limit, 20);
    assert_int_equal(router->asked_after_id, 0);
    router->page =
        (struct event_page){.events = &event, .event_count = 1, .more = true, .map_version = 8};
    assert_int_equal(edge_ask(edge, "GET", "/events?limit=1", "", NULL), 200);
    edge_assert_header(edge, "SeatGrid-Map-Version", "8");
    assert_null(edge_header(edge, "SeatGrid-Shard"));
    cursor_write(42, cursor);
    snprintf(next, sizeof(next), "\"nextCursor\":\"%s\",\"partial\":false", cursor);
    edge_assert_body_has(edge, next);
    snprintf(target, sizeof(target), "/events?cursor=%s&limit=100", cursor);
    router->page.more = false;
    router->page.missing_shards = missing;
    router->page.missing_count = 1;
    assert_int_equal(edge_ask(edge, "GET", target, "", NULL), 200);
    assert_int_equal(router->asked_after_id, 42);
    assert_int_equal(router->asked_limit, 100);
    assert_string_equal(edge->body, "{\"events\":[" EVENT_JSON "],\"nextCursor\":null,"
                                    "\"partial\":true,\"missing\":[\"beta\"]}");
    router->error = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "GET", "/events", "", NULL), 503);
    edge_assert_body_has(edge, "no shard of the map answers");
}

static void paging_parameters_are_checked(void **state)
{
    static const char *const bad[] = {
        "limit=0",  "limit=101", "limit=-1",  "limit=",  "limit=abc",
        "limit=1.", "limit=1e1", "cursor=42", "cursor=", "cursor=AAAAAAAAAAEAAAAA",
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char target[64];
        snprintf(target, sizeof(target), "/events?%s", bad[i]);
        if (edge_ask(edge, "GET", target, "", NULL) != 400)
            fail_msg("%s gives %d", bad[i], edge->status);
        edge_assert_body_has(edge, "\"code\":\"malformed_request\"");
    }
    assert_int_equal(edge->router->calls, 0);
}

static void a_booking_is_read(void **state)
{
    static const struct seat seats[] = {{1, 4}};
    struct edge *edge = *state;
    edge->router->booking = (struct booking){
        .booking_id = UUID,
        .event_id = 1,
        .user_id = "u-1",
        .status = "confirmed",
        .seats = seats,
        .seat_count = 1,
        .created_at_us = INT64_C(1811876400000000),
    };
    assert_int_equal(
        edge_ask(edge, "GET", "/events/1/bookings/0190F3C2-7D1E-4C55-9E5A-3F0F6D1C2B7A", "", NULL),
        200);
    assert_string_equal(edge->router->asked_booking, UUID);
    assert_string_equal(edge->body,
                        "{\"bookingId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\",\"status\":"
                        "\"confirmed\",\"seats\":[{\"row\":1,\"col\":4}],\"createdAt\":"
                        "\"2027-06-01T19:00:00Z\"}");
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
    edge->router->error = SG_UNKNOWN_BOOKING;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/bookings/" UUID, "", NULL), 404);
    edge_assert_body_has(edge, "event 1 has no booking " UUID);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_event_is_created),
        TEST(an_event_with_tiers),
        TEST(impossible_events_are_refused),
        TEST(an_event_is_read),
        TEST(events_are_paged),
        TEST(a_booking_is_read),
        TEST(paging_parameters_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
