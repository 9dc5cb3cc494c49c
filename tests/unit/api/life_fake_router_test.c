/*
 * Goal: holds, changes of bookings, best seats and the waiting list ask the router exactly what the
 * client asked, and tell every answer of the router as the documentation says.
 * Method: the real edge and app in front of a fake router.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#define UUID "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a"
#define OTHER "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7b"
#define ONE "{\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7}]}"
#define BOOKING "/events/1/bookings/" UUID
#define NOON INT64_C(1811851200000000) /* 2027-06-01T12:00:00Z */

static const struct seat seats[] = {{3, 7}, {3, 8}};

static void script_held(struct router *router)
{
    memcpy(router->booked.booking_id, UUID, sizeof(UUID));
    router->booked.status = "held";
    router->booked.created_at_us = NOON;
    router->booked.expires_at_us = NOON + 120 * INT64_C(1000000);
    router->booked.amount = 9000;
    memcpy(router->booked.currency, "EUR", 4);
    router->booked.token = (struct read_token){"alpha", 1, 0x10};
}

static void script_booking(struct router *router, const char *status)
{
    router->booking = (struct booking){.booking_id = UUID,
                                       .event_id = 1,
                                       .user_id = "u-1",
                                       .status = status,
                                       .seats = seats,
                                       .seat_count = 2,
                                       .created_at_us = NOON};
}

/* --- holds ------------------------------------------------------------------------------------ */

static void a_hold_is_made(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_held(router);
    assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", "Idempotency-Key: k\r\n", ONE), 201);
    assert_string_equal(edge->body,
                        "{\"bookingId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\","
                        "\"status\":\"held\",\"seats\":[{\"row\":3,\"col\":7}],"
                        "\"createdAt\":\"2027-06-01T12:00:00Z\",\"expiresAt\":"
                        "\"2027-06-01T12:02:00Z\",\"amount\":9000,\"currency\":\"EUR\"}");
    edge_assert_header(edge, "Location", BOOKING);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.1.10");
    assert_null(edge_header(edge, "Idempotent-Replayed"));
    assert_int_equal(router->asked_hold_ms, 120000);
    assert_string_equal(router->asked_key, "k");
    assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", "X-User-Id: u-2\r\n",
                              "{\"seats\":[{\"row\":3,\"col\":7}],\"ttlSeconds\":900}"),
                     201);
    assert_int_equal(router->asked_hold_ms, 900000);
    assert_string_equal(router->asked_user, "u-2");
    assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", "",
                              "{\"userId\":\"u\",\"seats\":[{\"row\":3,\"col\":7}],"
                              "\"ttlSeconds\":901}"),
                     422);
    edge_assert_body_has(edge, "ttlSeconds: must be an integer from 1 to 900, is 901");
    assert_int_equal(router->calls, 2);
}

static void best_seats_are_told(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_held(router);
    router->booked.taken = seats;
    router->booked.taken_count = 2;
    assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", "",
                              "{\"userId\":\"u\",\"best\":[{\"tier\":\"pit\",\"quantity\":1},"
                              "{\"quantity\":1,\"together\":false}]}"),
                     201);
    edge_assert_body_has(edge, "\"seats\":[{\"row\":3,\"col\":7},{\"row\":3,\"col\":8}]");
    assert_int_equal(router->asked_seat_count, 0);
    assert_int_equal(router->asked_best_count, 2);
    assert_string_equal(router->asked_best[0].tier, "pit");
    assert_true(router->asked_best[0].together);
    assert_string_equal(router->asked_best[1].tier, "");
    assert_false(router->asked_best[1].together);
    assert_int_equal(edge_ask(edge, "POST", "/book", "",
                              "{\"eventId\":5,\"userId\":\"u\",\"best\":[{\"quantity\":2}]}"),
                     201);
    assert_int_equal(router->asked_event_id, 5);
    assert_int_equal(router->asked_hold_ms, 0);
    assert_int_equal(router->asked_best[0].quantity, 2);
}

static void too_few_seats_are_counted(void **state)
{
    static const struct {
        enum sg_error error;
        int64_t left;
        int status;
        const char *has;
        const char *tier;
    } cases[] = {
        {SG_SOLD_OUT, 1, 409, "\"detail\":\"1 seat is free where more were asked for", NULL},
        {SG_SOLD_OUT, 0, 409, "\"left\":0}", NULL},
        {SG_OVER_LIMIT, 3, 409, "3 more may be taken; nothing was booked\",\"left\":3}", NULL},
        {SG_NOT_TOGETHER, 0, 409, "not side by side", NULL},
        {SG_UNKNOWN_TIER, 0, 422, "tier: event 1 has none of that name; GET /events/1 names", NULL},
        {SG_UNKNOWN_TIER, 0, 422,
         "tier: event 1 has none named \\\"p\\u0001t\\\"; GET /events/1 names", "p\1t"},
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        edge->router->error = cases[i].error;
        edge->router->booked.left = cases[i].left;
        edge->router->booked.tier = cases[i].tier;
        assert_int_equal(edge_ask(edge, "POST", "/events/1/holds", "",
                                  "{\"userId\":\"u\",\"best\":[{\"quantity\":4}]}"),
                         cases[i].status);
        edge_assert_body_has(edge, sg_error_code(cases[i].error));
        edge_assert_body_has(edge, cases[i].has);
    }
}

/* --- changes ---------------------------------------------------------------------------------- */

static void changes_are_asked_for(void **state)
{
    static const struct {
        const char *method, *path, *headers, *body;
        enum change_kind kind;
        int64_t extend_ms;
        const char *user, *to_user;
    } cases[] = {
        {"POST", BOOKING "/confirm", "X-User-Id: u-1\r\n", NULL, CHANGE_CONFIRM, 0, "u-1", ""},
        {"POST", BOOKING "/confirm", "", "{\"userId\":\"Zo\xc3\xab\"}", CHANGE_CONFIRM, 0,
         "Zo\xc3\xab", ""},
        {"POST", BOOKING "/extend", "X-User-Id: u-1\r\n", NULL, CHANGE_EXTEND, 120000, "u-1", ""},
        {"POST", BOOKING "/extend", "X-User-Id: u-1\r\n", "{\"ttlSeconds\":5}", CHANGE_EXTEND, 5000,
         "u-1", ""},
        {"POST", BOOKING "/transfer", "", "{\"userId\":\"a\",\"toUserId\":\"b\"}", CHANGE_TRANSFER,
         0, "a", "b"},
        {"DELETE", BOOKING, "X-User-Id: u-1\r\n", NULL, CHANGE_CANCEL, 0, "u-1", ""},
        {"DELETE", BOOKING "?userId=Zo%C3%AB", "", NULL, CHANGE_CANCEL, 0, "Zo\xc3\xab", ""},
    };
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_booking(router, "confirmed");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char headers[128], key[16];
        snprintf(key, sizeof(key), "k-%zu", i);
        snprintf(headers, sizeof(headers), "%sIdempotency-Key: %s\r\n", cases[i].headers, key);
        if (edge_ask(edge, cases[i].method, cases[i].path, headers, cases[i].body) != 200)
            fail_msg("%zu: %d %s", i, edge->status, edge->body);
        assert_int_equal(router->asked_change, cases[i].kind);
        assert_int_equal(router->asked_extend_ms, cases[i].extend_ms);
        assert_string_equal(router->asked_user, cases[i].user);
        assert_string_equal(router->asked_to_user, cases[i].to_user);
        assert_string_equal(router->asked_booking, UUID);
        assert_string_equal(router->asked_key, key);
        edge_assert_body_has(edge, "\"status\":\"confirmed\",\"seats\":[{\"row\":3,\"col\":7},");
    }
}

static void a_changed_booking_is_told(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_booking(router, "held");
    router->booking.expires_at_us = NOON;
    router->booking.amount = 0;
    router->booking.currency = "CHF";
    router->changed.replayed = true;
    router->changed.token = (struct read_token){"alpha", 3, 0xff};
    router->changed.durability = SHARDMAP_SYNC;
    assert_int_equal(edge_ask(edge, "POST", BOOKING "/extend", "X-User-Id: u-1\r\n", ""), 200);
    edge_assert_body_has(edge, "\"expiresAt\":\"2027-06-01T12:00:00Z\",\"amount\":0,\"currency\":"
                               "\"CHF\"}");
    edge_assert_header(edge, "Idempotent-Replayed", "true");
    edge_assert_header(edge, "SeatGrid-Token", "alpha.3.FF");
    edge_assert_header(edge, "SeatGrid-Durability", "sync");
    assert_int_equal(
        edge_count("POST /events/{id}/bookings/{bookingId}/extend", "alpha", "alpha-2", "replayed"),
        1);
}

static void every_refusal_of_a_change_has_its_answer(void **state)
{
    static const struct {
        enum sg_error error;
        int status;
        bool retry;
        const char *has;
    } cases[] = {
        {SG_UNKNOWN_BOOKING, 404, false, "event 1 has no booking " UUID},
        {SG_NOT_OWNER, 403, false, "belongs to another user"},
        {SG_HOLD_EXPIRED, 410, false, "its time is over"},
        {SG_BOOKING_ENDED, 409, false, "cancelled"},
        {SG_NOT_HELD, 409, false, "no hold any more"},
        {SG_NOT_CONFIRMED, 409, false, "confirm it first"},
        {SG_EXTENSIONS_USED, 409, false, "as often as"},
        {SG_OVER_LIMIT, 409, false, "2 more may be taken; nothing was changed\",\"left\":2}"},
        {SG_ORDER_OPEN, 409, true, "not through yet"},
        {SG_KEY_REUSED, 422, false, "take a new key"},
        {SG_OUTCOME_UNKNOWN, 503, true, "Idempotency-Key"},
        {SG_SHARD_UNAVAILABLE, 503, true, "does not answer"},
    };
    struct edge *edge = *state;
    edge->router->changed.left = 2;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        edge->router->error = cases[i].error;
        assert_int_equal(edge_ask(edge, "POST", BOOKING "/confirm", "X-User-Id: u\r\n", NULL),
                         cases[i].status);
        edge_assert_body_has(edge, sg_error_code(cases[i].error));
        edge_assert_body_has(edge, cases[i].has);
        assert_int_equal(edge_header(edge, "Retry-After") != NULL, cases[i].retry);
    }
    edge->router->refusal = SG_OVERLOADED;
    assert_int_equal(edge_ask(edge, "DELETE", BOOKING, "X-User-Id: u\r\n", NULL), 503);
}

static void wrong_changes_are_refused(void **state)
{
    static const struct {
        const char *method, *path, *headers, *body;
        int status;
        const char *has;
    } cases[] = {
        {"POST", BOOKING "/confirm", "", NULL, 400, "userId: is missing"},
        {"DELETE", BOOKING, "", NULL, 400, "userId: is missing; give the header X-User-Id, or ?"},
        {"DELETE", BOOKING "?userId=%20", "", NULL, 400, "userId in the query: must be 1 to 64"},
        {"DELETE", BOOKING "?userId=a", "X-User-Id: b\r\n", NULL, 422, "differs from the header"},
        {"POST", BOOKING "/confirm", "X-User-Id: b\r\n", "{\"userId\":\"a\"}", 422, "differs"},
        {"POST", BOOKING "/transfer", "X-User-Id: b\r\n", NULL, 400, "toUserId: is missing"},
        {"POST", BOOKING "/extend", "X-User-Id: b\r\n", "{\"ttl\":1}", 400, "ttlSeconds"},
        {"POST", BOOKING "/extend", "X-User-Id: b\r\nContent-Type: text/plain\r\n", "{}", 415, ""},
        {"POST", BOOKING "/extend", "X-User-Id: b\r\nIdempotency-Key:\r\n", "{}", 400, "1 to 255"},
        {"POST", "/events/1/bookings/x/confirm", "", NULL, 400, "booking id in the path"},
        {"DELETE", "/events/0/bookings/" UUID, "", NULL, 400, "event id in the path"},
        {"PUT", BOOKING, "", NULL, 405, "GET, HEAD, DELETE, OPTIONS"},
        {"GET", BOOKING "/confirm", "", NULL, 405, "POST, OPTIONS are"},
        {"POST", BOOKING "/cancel", "", NULL, 404, "nothing at this path"},
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int status =
            edge_ask(edge, cases[i].method, cases[i].path, cases[i].headers, cases[i].body);
        if (status != cases[i].status)
            fail_msg("%zu: %d %s", i, status, edge->body);
        edge_assert_body_has(edge, cases[i].has);
    }
    assert_int_equal(edge->router->calls, 0);
}

/* --- the waiting list ------------------------------------------------------------------------- */

#define ENTRY "/events/1/waitlist/" UUID

static void script_entry(struct router *router, const char *entry_state)
{
    router->entry = (struct waitlist_entry){.entry_id = UUID,
                                            .event_id = 1,
                                            .user_id = "u-1",
                                            .wish = {.quantity = 2, .together = true},
                                            .state = entry_state,
                                            .created_at_us = NOON};
}

static void a_place_is_taken(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_entry(router, "waiting");
    router->entry.position = 3;
    router->waitlist.token = (struct read_token){"alpha", 1, 0x20};
    assert_int_equal(edge_ask(edge, "POST", "/events/1/waitlist", "Idempotency-Key: w\r\n",
                              "{\"userId\":\"u-1\",\"quantity\":2}"),
                     201);
    assert_string_equal(edge->body,
                        "{\"entryId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\",\"quantity\":2,"
                        "\"tier\":null,\"together\":true,\"state\":\"waiting\",\"position\":3,"
                        "\"createdAt\":\"2027-06-01T12:00:00Z\"}");
    edge_assert_header(edge, "Location", ENTRY);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.1.20");
    assert_string_equal(router->asked_key, "w");
    assert_int_equal(router->asked_best[0].quantity, 2);
    router->waitlist.replayed = true;
    assert_int_equal(edge_ask(edge, "POST", "/events/1/waitlist", "X-User-Id: u-1\r\n",
                              "{\"quantity\":1,\"tier\":\"pit\",\"together\":false}"),
                     201);
    edge_assert_header(edge, "Idempotent-Replayed", "true");
    assert_string_equal(router->asked_best[0].tier, "pit");
    assert_false(router->asked_best[0].together);
}

static void an_offer_is_told(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_entry(router, "offered");
    router->entry.wish.tier = "pit";
    router->entry.booking_id = OTHER;
    router->entry.expires_at_us = NOON;
    assert_int_equal(edge_ask(edge, "GET", ENTRY, "SeatGrid-Token: alpha.1.20\r\n", NULL), 200);
    edge_assert_body_has(edge,
                         "\"tier\":\"pit\",\"together\":true,\"state\":\"offered\","
                         "\"bookingId\":\"" OTHER "\",\"expiresAt\":\"2027-06-01T12:00:00Z\"");
    assert_string_equal(router->asked_booking, UUID);
    assert_int_equal(router->asked_token_count, 1);
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
}

static void reads_are_for_the_owner(void **state)
{
    static const struct refusal refusal = {.code = "seats_taken", .user_id = "u-1"};
    static const char *const paths[] = {BOOKING, "/events/1/queue/" UUID, "/events/1/orders/" UUID,
                                        ENTRY};
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_booking(router, "confirmed");
    script_entry(router, "waiting");
    router->order = (struct order){.order_id = UUID, .state = "confirmed", .method = "card"};
    for (size_t i = 0; i < 5; i++) {
        const char *path = paths[i % 4];
        if (i == 4) { /* a booking that the queue's worker could not make */
            path = paths[1];
            router->booking_error = SG_UNKNOWN_BOOKING;
            router->refusal_kept = &refusal;
        }
        assert_int_equal(edge_ask(edge, "GET", path, "", NULL), 200);
        assert_int_equal(edge_ask(edge, "GET", path, "X-User-Id: u-1\r\n", NULL), 200);
        assert_int_equal(router->asked_staleness_us, -1);
        assert_int_equal(edge_ask(edge, "GET", path, "X-User-Id: u-11\r\n", NULL), 403);
        assert_int_equal(router->asked_staleness_us, 0); /* the primary says so */
        edge_assert_body_has(edge, "\"code\":\"not_owner\"");
        assert_null(strstr(edge->body, "u-1"));
    }
}

static void a_place_is_left(void **state)
{
    struct edge *edge = *state;
    edge->router->entry_gone = true;
    assert_int_equal(
        edge_ask(edge, "DELETE", ENTRY, "X-User-Id: u-1\r\nIdempotency-Key: k\r\n", NULL), 204);
    assert_int_equal(edge->body_len, 0);
    assert_string_equal(edge->router->asked_user, "u-1");
    assert_string_equal(edge->router->asked_key, "k");
    assert_string_equal(edge->router->asked_booking, UUID);
    assert_int_equal(edge_ask(edge, "DELETE", ENTRY "?userId=u-2", "", NULL), 204);
    assert_string_equal(edge->router->asked_user, "u-2");
    assert_int_equal(edge_ask(edge, "DELETE", ENTRY, "", NULL), 400);
    assert_int_equal(edge_ask(edge, "DELETE", "/events/1/waitlist/7", "", NULL), 400);
    edge_assert_body_has(edge, "entry id in the path");
}

static void an_offer_in_the_way_is_named(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    script_entry(router, "offered");
    router->entry.booking_id = OTHER;
    router->left_error = SG_OFFERED;
    assert_int_equal(edge_ask(edge, "DELETE", ENTRY, "X-User-Id: u-1\r\n", NULL), 409);
    edge_assert_body_has(edge, "\"code\":\"seats_offered\"");
    edge_assert_body_has(edge, "\"bookingId\":\"" OTHER "\"}");
    assert_int_equal(router->asked_staleness_us, 0);
    router->entry.state = "expired"; /* since */
    assert_int_equal(edge_ask(edge, "DELETE", ENTRY, "X-User-Id: u-1\r\n", NULL), 409);
    edge_assert_body_has(edge, "or confirm it\"}");
    router->error = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "DELETE", ENTRY, "X-User-Id: u-1\r\n", NULL), 409);
    edge_assert_body_has(edge, "or confirm it\"}");
}

static void every_refusal_of_the_waiting_list_has_its_answer(void **state)
{
    static const struct {
        enum sg_error error;
        int status;
        const char *has;
    } cases[] = {
        {SG_ALREADY_WAITING, 409, "\"entryId\":\"" UUID "\"}"},
        {SG_UNKNOWN_EVENT, 404, "there is no event 1"},
        {SG_UNKNOWN_TIER, 422, "tier: event 1 has none of that name"},
        {SG_TOO_MANY_SEATS, 422, "quantity: is more than"},
        {SG_KEY_REUSED, 422, "take a new key"},
        {SG_UNKNOWN_ENTRY, 404, "event 1 has no place on its waiting list"},
        {SG_NOT_OWNER, 403, "another user"},
        {SG_OFFERED, 409, "cancel their booking, or confirm it"},
        {SG_SHARD_UNAVAILABLE, 503, "does not answer"},
    };
    static const struct {
        const char *method, *path, *body;
    } asked[] = {{"POST", "/events/1/waitlist", "{\"quantity\":1}"},
                 {"GET", ENTRY, NULL},
                 {"DELETE", ENTRY, NULL}};
    struct edge *edge = *state;
    script_entry(edge->router, "waiting");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t k = 0; k < 3; k++) {
            edge->router->error = cases[i].error;
            assert_int_equal(
                edge_ask(edge, asked[k].method, asked[k].path, "X-User-Id: u\r\n", asked[k].body),
                cases[i].status);
            edge_assert_body_has(edge, cases[i].has);
        }
    }
    edge->router->refusal = SG_OVERLOADED;
    for (size_t k = 0; k < 3; k++)
        assert_int_equal(
            edge_ask(edge, asked[k].method, asked[k].path, "X-User-Id: u\r\n", asked[k].body), 503);
    int calls = edge->router->calls;
    assert_int_equal(edge_ask(edge, "POST", "/events/1/waitlist", "X-User-Id: u\r\n", "{}"), 400);
    assert_int_equal(edge_ask(edge, "POST", "/events/1/waitlist", "", "{\"quantity\":1}"), 400);
    assert_int_equal(edge->router->calls, calls);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_hold_is_made),
        TEST(best_seats_are_told),
        TEST(too_few_seats_are_counted),
        TEST(changes_are_asked_for),
        TEST(a_changed_booking_is_told),
        TEST(every_refusal_of_a_change_has_its_answer),
        TEST(wrong_changes_are_refused),
        TEST(a_place_is_taken),
        TEST(an_offer_is_told),
        TEST(reads_are_for_the_owner),
        TEST(a_place_is_left),
        TEST(an_offer_in_the_way_is_named),
        TEST(every_refusal_of_the_waiting_list_has_its_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
