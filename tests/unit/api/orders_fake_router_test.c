/*
 * Goal: an order is told as it stands, with the status that fits how it ended; what the payment
 * service tells goes to the saga untouched.
 * Method: the real edge and app in front of a fake router and a fake saga.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include "payment/saga.h"

#define UUID "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a"
#define ORDER                                                                                      \
    "{\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7}],\"payment\":{\"method\":\"card\"}}"
#define NOON INT64_C(1811851200000000) /* 2027-06-01T12:00:00Z */

/* --- the fake saga ---------------------------------------------------------------------------- */

static struct {
    enum sg_error refusal; /* by the calls themselves */
    enum sg_error noted;   /* told to the callback of a notice */
    struct saga_result result;
    struct book_result book;
    bool asked_wait;
    char asked_method[ROUTER_METHOD_MAX + 1];
    char asked_user[ROUTER_USER_MAX + 1];
    char asked_key[ROUTER_KEY_MAX + 1];
    int64_t asked_event_id;
    size_t asked_seats, asked_best;
    char asked_signature[128];
    char asked_body[256];
    int calls;
    struct event_base *base;
    saga_fn *fn;
    saga_notice_fn *notice_fn;
    void *arg;
} saga;

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    saga.result.book = &saga.book;
    if (saga.fn)
        saga.fn(saga.arg, &saga.result);
    else
        saga.notice_fn(saga.arg, saga.noted);
}

static enum sg_error accept_call(saga_fn *fn, saga_notice_fn *notice_fn, void *arg)
{
    saga.calls++;
    if (saga.refusal)
        return saga.refusal;
    saga.fn = fn;
    saga.notice_fn = notice_fn;
    saga.arg = arg;
    event_base_once(saga.base, -1, EV_TIMEOUT, on_later, NULL, &(struct timeval){0});
    return SG_OK;
}

enum sg_error saga_start(struct saga *object, const struct saga_request *request, saga_fn *fn,
                         void *arg)
{
    assert_ptr_equal(object, edge_saga);
    saga.asked_wait = request->wait;
    saga.asked_event_id = request->book->event_id;
    saga.asked_seats = request->book->seat_count;
    saga.asked_best = request->book->best_count;
    snprintf(saga.asked_method, sizeof(saga.asked_method), "%s", request->book->method);
    snprintf(saga.asked_user, sizeof(saga.asked_user), "%s", request->book->user_id);
    snprintf(saga.asked_key, sizeof(saga.asked_key), "%s",
             request->book->idempotency_key ? request->book->idempotency_key : "");
    return accept_call(fn, NULL, arg);
}

const char *saga_signature_header(const struct saga *object)
{
    assert_ptr_equal(object, edge_saga);
    return "seatgrid-signature";
}

enum sg_error saga_on_callback(struct saga *object, int64_t event_id, const char *signature,
                               const void *body, size_t len, saga_notice_fn *fn, void *arg)
{
    assert_ptr_equal(object, edge_saga);
    saga.asked_event_id = event_id;
    snprintf(saga.asked_signature, sizeof(saga.asked_signature), "%s", signature ? signature : "");
    snprintf(saga.asked_body, sizeof(saga.asked_body), "%.*s", (int)len, (const char *)body);
    return accept_call(NULL, fn, arg);
}

static int setup(void **state)
{
    memset(&saga, 0, sizeof(saga));
    edge_saga = (struct saga *)&saga;
    edge_setup(state);
    saga.base = ((struct edge *)*state)->base;
    memcpy(saga.book.booking_id, UUID, sizeof(UUID));
    memcpy(saga.book.currency, "EUR", 4);
    saga.book.route = (struct route){.shard = "alpha", .node = "alpha-1", .map_version = 9};
    saga.book.status = "held";
    saga.book.created_at_us = NOON;
    saga.book.expires_at_us = NOON + 120 * INT64_C(1000000);
    saga.book.amount = 4500;
    saga.result.state = "confirmed";
    return 0;
}

static int setup_without(void **state)
{
    memset(&saga, 0, sizeof(saga));
    edge_saga = NULL;
    return edge_setup(state);
}

static int ask(struct edge *edge, const char *headers)
{
    return edge_ask(edge, "POST", "/events/1/orders", headers, ORDER);
}

/* --- POST ------------------------------------------------------------------------------------- */

static void an_order_goes_through(void **state)
{
    struct edge *edge = *state;
    saga.result.token = (struct read_token){"alpha", 1, 0x30};
    assert_int_equal(ask(edge, "Idempotency-Key: k\r\n"), 201);
    assert_string_equal(
        edge->body,
        "{\"orderId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\",\"state\":\"confirmed\","
        "\"amount\":4500,\"currency\":\"EUR\",\"problem\":null,\"payment\":{\"method\":\"card\"},"
        "\"booking\":{\"bookingId\":\"" UUID "\",\"eventId\":1,\"userId\":\"u-1\",\"status\":"
        "\"confirmed\",\"seats\":[{\"row\":3,\"col\":7}],\"createdAt\":\"2027-06-01T12:00:00Z\","
        "\"amount\":4500,\"currency\":\"EUR\"}}");
    edge_assert_header(edge, "Location", "/events/1/orders/" UUID);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.1.30");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    assert_null(edge_header(edge, "Preference-Applied"));
    assert_true(saga.asked_wait);
    assert_string_equal(saga.asked_method, "card");
    assert_string_equal(saga.asked_key, "k");
    assert_string_equal(saga.asked_user, "u-1");
    assert_int_equal(edge_count("POST /events/{id}/orders", "alpha", "alpha-1", "ok"), 1);
}

static void an_open_order_is_accepted(void **state)
{
    struct edge *edge = *state;
    saga.result.state = "reserved";
    assert_int_equal(ask(edge, "Prefer: respond-async\r\n"), 202);
    assert_false(saga.asked_wait);
    edge_assert_header(edge, "Preference-Applied", "respond-async");
    edge_assert_header(edge, "Location", "/events/1/orders/" UUID);
    edge_assert_body_has(edge, "\"state\":\"reserved\"");
    edge_assert_body_has(edge, "\"status\":\"held\"");
    edge_assert_body_has(edge, "\"expiresAt\":\"2027-06-01T12:02:00Z\"");
    saga.result.state = "charging"; /* payment.wait_ms are over */
    assert_int_equal(ask(edge, ""), 202);
    assert_null(edge_header(edge, "Preference-Applied"));
    assert_int_equal(edge_count("POST /events/{id}/orders", "alpha", "alpha-1", "accepted"), 2);
}

static void an_end_without_seats_is_a_problem(void **state)
{
    static const struct {
        const char *state, *problem;
        int status;
        const char *code, *has;
    } cases[] = {
        {"failed", "payment_declined", 402, "payment_declined", "declined the payment"},
        {"failed", "payment_timeout", 402, "payment_declined", "did not come in time"},
        {"failed", NULL, 402, "payment_declined", "did not come in time"},
        {"failed", "payment_returned", 402, "payment_declined", "service gave the payment back"},
        {"failed", "seats_gone", 410, "hold_expired", "went to another before the order"},
        {"refunding", "seats_gone", 409, "order_refunded", "it is given back"},
        {"refunded", "seats_gone", 409, "order_refunded", "it is given back"},
        {"refunding", "paid_too_late", 409, "order_refunded",
         "came after the seats had been given"},
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char code[64];
        saga.result.state = cases[i].state;
        saga.result.problem = cases[i].problem;
        assert_int_equal(ask(edge, ""), cases[i].status);
        snprintf(code, sizeof(code), "\"code\":\"%s\"", cases[i].code);
        edge_assert_body_has(edge, code);
        edge_assert_body_has(edge, cases[i].has);
        edge_assert_body_has(edge, "\"orderId\":\"" UUID "\"}");
        edge_assert_header(edge, "Location", "/events/1/orders/" UUID);
    }
}

/* It was told 201, and is told so again; how it stands now is in the body. */
static void a_cancelled_order_is_replayed(void **state)
{
    struct edge *edge = *state;
    saga.book.replayed = true;
    saga.result.state = "refunded";
    saga.result.problem = "cancelled";
    assert_int_equal(ask(edge, "Idempotency-Key: k\r\n"), 201);
    edge_assert_header(edge, "Idempotent-Replayed", "true");
    edge_assert_body_has(edge, "\"state\":\"refunded\"");
    edge_assert_body_has(edge, "\"problem\":\"cancelled\"");
    edge_assert_body_has(edge, "\"status\":\"cancelled\"");
    saga.result.state = "confirmed";
    saga.result.problem = NULL;
    assert_int_equal(ask(edge, "Idempotency-Key: k\r\n"), 201);
    edge_assert_header(edge, "Idempotent-Replayed", "true");
    assert_int_equal(edge_count("POST /events/{id}/orders", "alpha", "alpha-1", "replayed"), 2);
}

static void nothing_was_reserved(void **state)
{
    static const struct seat seat = {3, 7};
    struct edge *edge = *state;
    saga.book.error = SG_SEATS_TAKEN;
    saga.book.seats = &seat;
    saga.book.seat_count = 1;
    assert_int_equal(ask(edge, ""), 409);
    edge_assert_body_has(edge, "\"conflicts\":[{\"row\":3,\"col\":7}]");
    assert_null(edge_header(edge, "Location"));
    saga.book.seat_count = 0;
    saga.book.error = SG_KEY_REUSED;
    assert_int_equal(ask(edge, ""), 422);
    saga.refusal = SG_OVERLOADED;
    assert_int_equal(ask(edge, ""), 503);
    int calls = saga.calls;
    assert_int_equal(edge_ask(edge, "POST", "/events/1/orders", "", "{\"userId\":\"u\"}"), 400);
    assert_int_equal(edge_ask(edge, "POST", "/events/1/orders", "",
                              "{\"userId\":\"u\",\"best\":[{\"quantity\":1}]}"),
                     400);
    edge_assert_body_has(edge, "payment: is missing");
    assert_int_equal(saga.calls, calls);
}

static void without_a_payment_service(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(ask(edge, ""), 503);
    edge_assert_body_has(edge, "\"code\":\"payment_off\"");
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=1", "", "{}"), 503);
}

/* --- GET -------------------------------------------------------------------------------------- */

static void an_order_is_read(void **state)
{
    static const struct seat seat = {3, 7};
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->order = (struct order){.order_id = UUID,
                                   .event_id = 1,
                                   .state = "refunded",
                                   .problem = "seats_gone",
                                   .method = "card",
                                   .currency = "EUR",
                                   .amount = 4500};
    router->booking = (struct booking){.booking_id = UUID,
                                       .event_id = 1,
                                       .user_id = "u-1",
                                       .status = "failed",
                                       .seats = &seat,
                                       .seat_count = 1};
    assert_int_equal(
        edge_ask(edge, "GET", "/events/1/orders/" UUID, "SeatGrid-Max-Staleness: 0ms\r\n", NULL),
        200);
    edge_assert_body_has(edge, "\"state\":\"refunded\",\"amount\":4500,\"currency\":\"EUR\","
                               "\"problem\":\"seats_gone\"");
    edge_assert_body_has(edge, "\"status\":\"failed\"");
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
    assert_int_equal(router->asked_staleness_us, 0);
    router->order.currency = NULL;
    router->order.problem = NULL;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/orders/" UUID, "", NULL), 200);
    edge_assert_body_has(edge, "\"currency\":null,\"problem\":null");
    router->error = SG_UNKNOWN_ORDER;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/orders/" UUID, "", NULL), 404);
    edge_assert_body_has(edge, "event 1 has no order " UUID);
    router->refusal = SG_OVERLOADED;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/orders/" UUID, "", NULL), 503);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/orders/1", "", NULL), 400);
    edge_assert_body_has(edge, "order id in the path");
}

/* --- the payment service ---------------------------------------------------------------------- */

static void a_callback_reaches_the_saga(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42",
                              "SeatGrid-Signature: t=1,v1=ab\r\n", "{ \"order\" : 1 }"),
                     204);
    assert_int_equal(edge->body_len, 0);
    assert_int_equal(saga.asked_event_id, 42);
    assert_string_equal(saga.asked_signature, "t=1,v1=ab");
    assert_string_equal(saga.asked_body, "{ \"order\" : 1 }");
    saga.noted = SG_UNKNOWN_ORDER;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42", "", "{}"), 404);
    assert_string_equal(saga.asked_signature, "");
    saga.noted = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42", "", "{}"), 503);
    saga.refusal = SG_BAD_SIGNATURE;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42", "", "{}"), 401);
    edge_assert_header(edge, "WWW-Authenticate", "seatgrid-signature");
    edge_assert_body_has(edge, "\"code\":\"bad_signature\"");
    edge_assert_body_has(edge, "SeatGrid-Signature: is missing");
    saga.refusal = SG_INVALID_VALUE;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42", "", "{}"), 422);
    edge_assert_body_has(edge, "one of them cannot be");
    saga.refusal = SG_OK;
    saga.noted = SG_INVALID_VALUE;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=42", "", "{}"), 422);
    edge_assert_body_has(edge, "are not those of the order");
    int calls = saga.calls;
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback", "", "{}"), 400);
    edge_assert_body_has(edge, "event: is missing in the query");
    assert_int_equal(edge_ask(edge, "POST", "/payments/callback?event=0", "", "{}"), 400);
    assert_int_equal(saga.calls, calls);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_order_goes_through),
        TEST(an_open_order_is_accepted),
        TEST(an_end_without_seats_is_a_problem),
        TEST(a_cancelled_order_is_replayed),
        TEST(nothing_was_reserved),
        cmocka_unit_test_setup_teardown(without_a_payment_service, setup_without, edge_teardown),
        TEST(an_order_is_read),
        TEST(a_callback_reaches_the_saga),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
