/*
 * One order on its way. See saga.h; saga_state.h says where each event leads.
 *
 *   order_happen ── saga_next ──> step ─────> router_order_step ──> on_stepped ─┐
 *        ^                  ├───> question ─> provider ───────────> on_answer ──┤
 *        │                  ├───> pause ────> (later) timer ──────> on_pause_over ┤
 *        │                  └───> end                                           │
 *        └──────────────────────────────────────────────────────────────────────┘
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "payment/saga_internal.h"

static struct log_fields fields_of(const struct open_order *order)
{
    return (struct log_fields){.event_id = order->event_id};
}

/* --- who waits -------------------------------------------------------------------------------- */

void order_tell(struct waiter *waiter)
{
    const struct open_order *order = waiter->order;
    struct saga_result result = {.book = &waiter->book,
                                 .state = saga_state_name(order->state),
                                 .problem = order->problem[0] ? order->problem : NULL,
                                 .token = order->token};
    if (order->state == SAGA_LOST)
        waiter->book.error = SG_SHARD_UNAVAILABLE; /* nothing of it was done: try again */
    LIST_REMOVE(waiter, entry);
    if (waiter->timer)
        event_free(waiter->timer);
    waiter->fn(waiter->arg, &result);
    free(waiter);
}

void order_tell_waiters(struct open_order *order)
{
    struct waiter *waiter;
    while ((waiter = LIST_FIRST(&order->waiters)))
        order_tell(waiter);
}

static void notice_done(struct open_order *order, enum sg_error error)
{
    struct notice notice = order->notice;
    order->notice.there = false;
    if (notice.there)
        notice.fn(notice.arg, error);
}

void order_let_go(struct open_order *order)
{
    if (order->question)
        order->question->order = NULL;
    order->question = NULL;
    if (order->doing == DOING_PAUSE)
        event_del(order->timer);
    if (order->doing == DOING_PAUSE || order->doing == DOING_QUESTION)
        order->doing = DOING_NOTHING;
}

static void end(struct open_order *order)
{
    order_let_go(order);
    order->ended = true;
    notice_done(order, SG_OK);
    order_tell_waiters(order);
    saga_forget(order);
}

/* --- pauses ----------------------------------------------------------------------------------- */

void order_on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    struct open_order *order = arg;
    (void)fd;
    (void)what;
    order->doing = DOING_NOTHING;
    order_happen(order, SAGA_PAUSE_OVER);
}

static void start_timer(struct open_order *order)
{
    struct timeval tv = clock_timeval_us(order->pause_ms * 1000);
    order->doing = DOING_PAUSE;
    if (event_add(order->timer, &tv) < 0)
        log_error(&(struct log_fields){.event_id = order->event_id},
                  "order %s: no timer; it will be taken up when it is due", order->order_id);
}

/* The notice that came while the shard was asked; true if it has moved the order on. */
static bool take_waiting_notice(struct open_order *order);
/* The shard has never heard of the order. */
static void lose(struct open_order *order);

/* What it says of the order, besides the state. */
static void note_moved(struct open_order *order, const struct order_moved *moved)
{
    snprintf(order->problem, sizeof(order->problem), "%s", moved->problem ? moved->problem : "");
    order->token = moved->token;
}

/* The shard has answered. False: there is nothing more to do with it. */
static bool is_answered(struct open_order *order, const struct order_moved *moved)
{
    order->doing = DOING_NOTHING;
    if (order->saga->stopping)
        return false;
    if (moved->error == SG_UNKNOWN_ORDER)
        lose(order);
    return moved->error != SG_UNKNOWN_ORDER;
}

static void on_put_off(void *arg, const struct order_moved *moved)
{
    struct open_order *order = arg;
    if (!is_answered(order, moved))
        return;
    if (moved->error == SG_OK && moved->moved) {
        enum saga_state state = saga_state_by_name(moved->state);
        if (state != SAGA_STATE_COUNT && state != order->state) {
            note_moved(order, moved);
            order->state = state;
            order->pauses = 0;
            order_happen(order, SAGA_READ);
            return;
        }
    }
    if (!take_waiting_notice(order))
        start_timer(order);
}

/* A step goes to the shard that has the order, or nowhere (SG_UNKNOWN_EVENT): that another one,
 * where a map was forced to send the event, has never heard of it does not mean that it is lost. */
static enum sg_error ask_shard(struct open_order *order, const struct order_step *step,
                               router_order_step_fn *fn)
{
    struct router *router = order->saga->config.router;
    struct route route;
    enum sg_error error = router_locate(router, order->event_id, &route);
    if (error == SG_OK && strcmp(route.shard, order->shard) != 0)
        error = SG_UNKNOWN_EVENT;
    return error == SG_OK ? router_order_step(router, step, fn, order) : error;
}

/* Its lease would end before it has done what comes after the pause. */
static bool must_put_off(const struct open_order *order)
{
    const struct settings *settings = order->saga->config.settings;
    int64_t needed_us = (order->pause_ms + settings->payment.timeout_ms) * 1000;
    return clock_mono_us() + needed_us > order->lease_until_us;
}

/* From ask_ms on, doubled each time in one state. */
static void pause_order(struct open_order *order)
{
    const struct settings *settings = order->saga->config.settings;
    unsigned doublings = order->pauses < 20 ? order->pauses : 20;
    int64_t pause_ms = settings->payment.ask_ms << doublings;
    if (pause_ms > settings->payment.ask_max_ms)
        pause_ms = settings->payment.ask_max_ms;
    order->pauses++;
    order->pause_ms = pause_ms;
    notice_done(order, SG_OK);
    if (order->state == SAGA_LOST || !must_put_off(order)) {
        start_timer(order);
        return;
    }
    int64_t due_ms = pause_ms + settings->payment.timeout_ms + settings->payment.lease_ms;
    struct order_step step = {.event_id = order->event_id,
                              .order_id = order->order_id,
                              .from = saga_state_name(order->state),
                              .action = "later",
                              .due_ms = due_ms};
    order->doing = DOING_LATER;
    order->lease_until_us = clock_mono_us() + due_ms * 1000;
    if (ask_shard(order, &step, on_put_off) != SG_OK)
        start_timer(order); /* somebody else may take it up meanwhile, which does no harm */
}

/* --- steps ------------------------------------------------------------------------------------ */

static void enter(struct open_order *order, enum saga_state state)
{
    struct log_fields fields = fields_of(order);
    log_info(&fields, "order %s: %s -> %s%s%s", order->order_id, saga_state_name(order->state),
             saga_state_name(state), order->problem[0] ? ", " : "", order->problem);
    metrics_add(metrics_series(order->saga->config.metrics, METRIC_ORDERS,
                               (const char *[]){saga_state_name(state)}),
                1);
    order->state = state;
    order->pauses = 0;
    saga_crash_point(order->saga, saga_state_name(state));
}

static void lose(struct open_order *order)
{
    enter(order, SAGA_LOST);
    order_tell_waiters(order);
    if (order->amount == 0)
        end(order);
    else
        order_happen(order, SAGA_ENTERED);
}

/* The answer did not come: the step may have been done. It is tried again, and told then. */
static void step_lost(struct open_order *order, enum sg_error error)
{
    struct log_fields fields = fields_of(order);
    log_warn(&fields, "order %s: no step from %s to %s yet: %s", order->order_id,
             saga_state_name(order->state), saga_state_name(order->to), sg_error_title(error));
    notice_done(order, error);
    order_happen(order, SAGA_STEP_LOST);
}

/* The map leads to its shard no more. Whoever has a map that does finds it due. */
static void leave(struct open_order *order)
{
    struct log_fields fields = fields_of(order);
    log_error(&fields, "order %s: %s on shard %s, where the map does not send its event: left",
              order->order_id, saga_state_name(order->state), order->shard);
    notice_done(order, SG_SHARD_UNAVAILABLE);
    end(order);
}

static void on_stepped(void *arg, const struct order_moved *moved)
{
    struct open_order *order = arg;
    if (!is_answered(order, moved))
        return;
    enum saga_state state =
        moved->error == SG_OK ? saga_state_by_name(moved->state) : SAGA_STATE_COUNT;
    if (state == SAGA_STATE_COUNT) {
        step_lost(order, moved->error == SG_OK ? SG_INTERNAL : moved->error);
        return;
    }
    note_moved(order, moved);
    if (moved->moved) {
        order->state = state;
        order->pauses = 0;
    } else {
        enter(order, state);
    }
    order_happen(order, moved->moved ? SAGA_READ : SAGA_ENTERED);
}

/* Why an order fails or is refunded, for those who ask for it. */
static const char *problem_of(const struct open_order *order, enum saga_event event)
{
    if (order->to == SAGA_REFUNDING)
        return "paid_too_late";
    if (order->to != SAGA_FAILED)
        return NULL;
    if (event == SAGA_PAY_DECLINED)
        return "payment_declined";
    return event == SAGA_PAY_REFUNDED ? "payment_returned" : "payment_timeout";
}

static void make_step(struct open_order *order, enum saga_state to, enum saga_event event)
{
    int64_t lease_ms = order->saga->config.settings->payment.lease_ms;
    order_let_go(order);
    order->to = to;
    struct order_step step = {.event_id = order->event_id,
                              .order_id = order->order_id,
                              .from = saga_state_name(order->state),
                              .action = saga_step_name(to),
                              .due_ms = lease_ms,
                              .problem = problem_of(order, event)};
    order->doing = DOING_STEP;
    order->lease_until_us = clock_mono_us() + lease_ms * 1000;
    enum sg_error error = ask_shard(order, &step, on_stepped);
    if (error == SG_OK)
        return;
    order->doing = DOING_NOTHING;
    if (error == SG_UNKNOWN_EVENT)
        leave(order);
    else
        step_lost(order, error);
}

/* --- the payment service ---------------------------------------------------------------------- */

static void note_question(const struct question *question, enum pay_outcome outcome)
{
    struct saga *saga = question->saga;
    const char *what = saga_action_name(question->what);
    char point[16];
    metrics_add(metrics_series(saga->config.metrics, METRIC_PAYMENT_QUESTIONS,
                               (const char *[]){what, pay_outcome_name(outcome)}),
                1);
    snprintf(point, sizeof(point), "%s_sent", what);
    saga_crash_point(saga, point);
}

/* What the answer is to this order. */
static enum pay_outcome understand(const struct open_order *order, enum saga_action what,
                                   const struct payment_word *word, const char *detail)
{
    struct log_fields fields = fields_of(order);
    if (!saga_word_fits(word, order->amount, order->currency)) {
        log_error(&fields, "order %s: %s: %s %lld %s, not %lld %s: it has to be looked into",
                  order->order_id, saga_action_name(what), pay_outcome_name(word->outcome),
                  (long long)word->amount, word->currency, (long long)order->amount,
                  order->currency);
        return PAY_UNKNOWN;
    }
    if (word->outcome == PAY_UNKNOWN || (what == SAGA_REFUND && word->outcome == PAY_NONE))
        log_warn(&fields, "order %s: %s: outcome %s: %s", order->order_id, saga_action_name(what),
                 pay_outcome_name(word->outcome), detail);
    if (what == SAGA_REFUND && word->outcome == PAY_SUCCEEDED)
        return PAY_PENDING; /* it still has the money */
    return word->outcome;
}

static void on_answer(void *arg, const struct payment_word *word, const char *detail)
{
    struct question *question = arg;
    struct open_order *order = question->order;
    enum saga_action what = question->what;
    note_question(question, word->outcome);
    free(question);
    if (!order)
        return;
    order->question = NULL;
    order->doing = DOING_NOTHING;
    enum pay_outcome outcome = understand(order, what, word, detail);
    if (!order->saga->stopping)
        order_happen(order, saga_event_of(outcome));
}

static enum sg_error put(struct open_order *order, struct question *question)
{
    struct payment_provider *provider = order->saga->provider;
    const struct payment_charge charge = {.order_id = order->order_id,
                                          .event_id = order->event_id,
                                          .amount = order->amount,
                                          .currency = order->currency,
                                          .method = order->method};
    switch (question->what) {
    case SAGA_CHARGE:
        return provider->calls->charge(provider, &charge, on_answer, question);
    case SAGA_CANCEL:
        return provider->calls->cancel(provider, order->order_id, on_answer, question);
    case SAGA_REFUND:
        return provider->calls->refund(provider, order->order_id, on_answer, question);
    default:
        return provider->calls->ask(provider, order->order_id, on_answer, question);
    }
}

static void put_question(struct open_order *order, enum saga_action what)
{
    struct question *question = malloc(sizeof(*question));
    enum sg_error error = SG_NO_MEMORY;
    order_let_go(order);
    if (question) {
        *question = (struct question){.order = order, .saga = order->saga, .what = what};
        error = put(order, question);
    }
    if (error == SG_OK) {
        order->question = question;
        order->doing = DOING_QUESTION;
        notice_done(order, SG_OK);
        return;
    }
    free(question);
    pause_order(order); /* nothing was sent */
}

/* --- the driver ------------------------------------------------------------------------------- */

static enum saga_event adjust(const struct open_order *order, enum saga_event event)
{
    int64_t give_up_us = order->saga->config.settings->payment.give_up_ms * 1000;
    if (event != SAGA_READ && event != SAGA_ENTERED && event != SAGA_PAUSE_OVER)
        return event;
    if (order->state == SAGA_RESERVED && order->amount == 0)
        return SAGA_FREE;
    return clock_mono_us() - order->began_us > give_up_us ? SAGA_TOO_LATE : event;
}

/* Before what the event of the driver leads to, unless that is a step: a step comes first. */
static bool take_waiting_notice(struct open_order *order)
{
    if (!order->notice.there)
        return false;
    struct saga_move move = saga_next(order->state, saga_event_of(order->notice.outcome));
    if (move.action != SAGA_STEP) {
        notice_done(order, SG_OK);
        return false;
    }
    make_step(order, move.to, saga_event_of(order->notice.outcome));
    return true;
}

void order_happen(struct open_order *order, enum saga_event event)
{
    event = adjust(order, event);
    struct saga_move move = saga_next(order->state, event);
    if (move.action == SAGA_STEP) {
        make_step(order, move.to, event);
        return;
    }
    if (take_waiting_notice(order))
        return;
    switch (move.action) {
    case SAGA_KEEP:
        if (order->doing == DOING_NOTHING)
            pause_order(order);
        break;
    case SAGA_WAIT:
        order_let_go(order);
        pause_order(order);
        break;
    case SAGA_END:
        end(order);
        break;
    default:
        put_question(order, move.action);
    }
}

void order_notice(struct open_order *order, enum pay_outcome outcome, saga_notice_fn *fn, void *arg)
{
    order->notice = (struct notice){.there = true, .outcome = outcome, .fn = fn, .arg = arg};
    if (order->doing != DOING_STEP && order->doing != DOING_LATER)
        (void)take_waiting_notice(order); /* no step: no news, and what is under way goes on */
}
