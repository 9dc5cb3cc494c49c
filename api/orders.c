/*
 * Orders: bookings that are paid for.
 *
 *   POST /events/{id}/orders ─ saga_start ─> 201 confirmed
 *                                         ─> 202 still open: Prefer: respond-async, payment.wait_ms
 *                                         ─> 402 declined, 409 seats taken, or gone: given back
 *   GET  /events/{id}/orders/{orderId} ─> router_order_get
 *
 * What is to be paid is the database's to say, never the client's.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_out.h"
#include "api/problem.h"
#include "api/take.h"
#include "payment/saga.h"

/* --- POST ------------------------------------------------------------------------------------- */

static bool problem_is(const char *problem, const char *code)
{
    return problem && strcmp(problem, code) == 0;
}

/* What a state means to who ordered: SG_OK also while it is open. */
static enum sg_error verdict(enum saga_state state, const char *problem)
{
    switch (state) {
    case SAGA_FAILED:
        return problem_is(problem, "seats_gone") ? SG_HOLD_EXPIRED : SG_PAYMENT_DECLINED;
    case SAGA_REFUNDING:
    case SAGA_REFUNDED:
        return SG_ORDER_REFUNDED;
    default:
        return SG_OK;
    }
}

static const char *verdict_detail(enum sg_error error, const char *problem)
{
    if (error == SG_HOLD_EXPIRED)
        return "the seats went to another before the order was through; nothing was booked";
    if (error == SG_ORDER_REFUNDED && problem_is(problem, "paid_too_late"))
        return "the payment came after the seats had been given back; it is given back, too";
    if (error == SG_ORDER_REFUNDED)
        return "the seats went to another before the payment came; it is given back";
    if (problem_is(problem, "payment_declined"))
        return "the payment service declined the payment; the seats are given back";
    if (problem_is(problem, "payment_returned"))
        return "the payment service gave the payment back; the seats are given back";
    return "the payment did not come in time; none was taken, the seats are given back";
}

static const char *booking_status(enum saga_state state)
{
    if (state == SAGA_CONFIRMED)
        return "confirmed";
    return state == SAGA_RESERVED || state == SAGA_CHARGING || state == SAGA_CHARGED ? "held"
                                                                                     : "cancelled";
}

static void fail_order(struct exchange *exchange, const struct saga_result *result,
                       enum sg_error error)
{
    exchange_fail_problem(exchange,
                          &(struct problem){.error = error,
                                            .detail = verdict_detail(error, result->problem),
                                            .order_id = result->book->booking_id});
}

static void answer_order(struct exchange *exchange, const struct saga_result *result,
                         enum saga_state state)
{
    const struct take *take = exchange->data;
    struct dynbuf *scratch = &exchange->app->scratch;
    struct booking booking;
    struct order order = {.event_id = exchange->event_id,
                          .state = result->state,
                          .problem = result->problem,
                          .method = take->in.method,
                          .booking = &booking};
    take_booking(take, result->book, &booking);
    booking.event_id = exchange->event_id;
    booking.status = booking_status(state);
    if (strcmp(booking.status, "held") != 0)
        booking.expires_at_us = 0;
    memcpy(order.order_id, booking.booking_id, sizeof(order.order_id));
    order.amount = booking.amount;
    order.currency = booking.currency;
    dynbuf_reset(scratch);
    json_out_order(scratch, &order);
    if (state == SAGA_CONFIRMED || state == SAGA_REFUNDING || state == SAGA_REFUNDED ||
        state == SAGA_FAILED)
        exchange_answer_scratch(exchange, 201, JSON_CONTENT_TYPE);
    else
        writes_answer_accepted(exchange, take->headers.respond_async);
}

static void on_ordered(void *arg, const struct saga_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, &result->book->route);
    if (result->book->error != SG_OK) {
        take_fail(exchange, result->book);
        return;
    }
    enum saga_state state = saga_state_by_name(result->state);
    enum sg_error error = verdict(state, result->problem);
    writes_tell_location(exchange, "orders", result->book->booking_id);
    exchange_tell_commit(exchange, &result->token, result->book->durability);
    if (result->book->replayed)
        writes_tell_replayed(exchange);
    /* Cancelled by its owner: so it had been confirmed, and that is what was told first. */
    if (error != SG_OK && !problem_is(result->problem, "cancelled"))
        fail_order(exchange, result, error);
    else
        answer_order(exchange, result, state);
}

void orders_create(struct exchange *exchange)
{
    struct book_request request;
    if (!exchange->app->saga) {
        exchange_fail_router(exchange, SG_PAYMENT_OFF);
        return;
    }
    const struct take *take = take_read(exchange, JSON_IN_ORDER);
    if (!take)
        return;
    take_request(exchange, take, &request);
    request.method = take->in.method;
    struct saga_request order = {.book = &request, .wait = !take->headers.respond_async};
    enum sg_error error = saga_start(exchange->app->saga, &order, on_ordered, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- GET -------------------------------------------------------------------------------------- */

static void on_order_read(void *arg, const struct route *route, enum sg_error error,
                          const struct order *order)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    if (!exchange_may_see(exchange, order->booking->user_id, orders_get))
        return;
    dynbuf_reset(scratch);
    json_out_order(scratch, order);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

void orders_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error = router_order_get(exchange->app->router, exchange->event_id,
                                           exchange->target_id, &wish, on_order_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
