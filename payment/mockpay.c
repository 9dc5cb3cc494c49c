/*
 * A stand-in for a payment service. See mockpay.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/mockpay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "payment/callbacks.h"

/* A charge that is not decided yet. */
struct decision {
    TAILQ_ENTRY(decision) entry;
    struct mockpay *mockpay;
    struct event *due;
    char order_id[PAY_ORDER_ID_MAX + 1];
    struct wire_charge request;
    struct behaviour_plan plan;
    mockpay_fn *fn; /* NULL: has been answered */
    void *arg;
};

struct mockpay {
    struct event_base *base;
    struct behaviour behaviour;
    struct ledger *ledger;
    struct callbacks *callbacks;
    TAILQ_HEAD(, decision) decisions;
    size_t decision_count;
};

/* --- callbacks -------------------------------------------------------------------------------- */

static void send_callbacks(struct mockpay *mockpay, const struct ledger_charge *charge,
                           const struct behaviour_plan *plan)
{
    struct dynbuf body;
    if (!charge->callback_url || plan->callbacks == 0)
        return;
    dynbuf_init(&body, WIRE_BODY_MAX);
    wire_write_state(&body, charge->order_id, charge->outcome, charge->amount, charge->currency);
    for (int i = 0; i < plan->callbacks; i++) {
        enum sg_error error = callbacks_send(mockpay->callbacks, charge->callback_url, body.data,
                                             body.len, plan->callback_ms * 1000);
        if (error != SG_OK)
            log_warn(NULL, "order %s: callback to %s not sent: %s", charge->order_id,
                     charge->callback_url, sg_error_title(error));
    }
    dynbuf_done(&body);
}

/* --- decisions -------------------------------------------------------------------------------- */

static void decision_free(struct decision *decision)
{
    TAILQ_REMOVE(&decision->mockpay->decisions, decision, entry);
    decision->mockpay->decision_count--;
    event_free(decision->due);
    free(decision);
}

/* The charge as it is now decided, in the ledger. */
static enum sg_error decide(const struct decision *decision,
                            const struct ledger_charge **ret_charge, bool *ret_fresh)
{
    struct mockpay *mockpay = decision->mockpay;
    enum pay_outcome outcome = decision->plan.success ? PAY_SUCCEEDED : PAY_DECLINED;
    const struct ledger_charge *charge = ledger_find(mockpay->ledger, decision->order_id);
    *ret_fresh = !charge || charge->outcome == PAY_PENDING;
    if (!charge)
        return ledger_add(mockpay->ledger, decision->order_id, &decision->request, outcome,
                          ret_charge);
    *ret_charge = charge;
    /* else: cancelled meanwhile, or asked for twice at the same time */
    return *ret_fresh ? ledger_set(mockpay->ledger, decision->order_id, outcome) : SG_OK;
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    struct decision *decision = arg;
    const struct ledger_charge *charge = NULL;
    bool fresh;
    (void)fd;
    (void)what;
    enum sg_error error = decide(decision, &charge, &fresh);
    if (error != SG_OK)
        log_error(NULL, "order %s: not decided: %s", decision->order_id, sg_error_title(error));
    else if (fresh)
        send_callbacks(decision->mockpay, charge, &decision->plan);
    if (decision->fn)
        decision->fn(decision->arg, error, error == SG_OK ? charge : NULL,
                     fresh && decision->plan.silent);
    decision_free(decision);
}

static enum sg_error decide_later(struct mockpay *mockpay, const char *order_id,
                                  const struct wire_charge *request,
                                  const struct behaviour_plan *plan, mockpay_fn *fn, void *arg)
{
    struct timeval delay = clock_timeval_us(plan->decide_ms * 1000);
    if (mockpay->decision_count >= MOCKPAY_DECISIONS_MAX)
        return SG_OVERLOADED;
    struct decision *decision = calloc(1, sizeof(*decision));
    if (decision)
        decision->due = evtimer_new(mockpay->base, on_due, decision);
    if (!decision || !decision->due || event_add(decision->due, &delay) < 0) {
        if (decision && decision->due)
            event_free(decision->due);
        free(decision);
        return SG_NO_MEMORY;
    }
    decision->mockpay = mockpay;
    snprintf(decision->order_id, sizeof(decision->order_id), "%s", order_id);
    decision->request = *request;
    decision->plan = *plan;
    decision->fn = fn;
    decision->arg = arg;
    TAILQ_INSERT_TAIL(&mockpay->decisions, decision, entry);
    mockpay->decision_count++;
    return SG_OK;
}

/* --- what can be asked ------------------------------------------------------------------------ */

/* The same order was charged before: as it stands, unless it is another charge. */
static void answer_known(const struct ledger_charge *charge, const struct wire_charge *request,
                         mockpay_fn *fn, void *arg)
{
    bool cancelled_unseen = charge->currency[0] == '\0';
    bool same =
        charge->amount == request->amount && strcmp(charge->currency, request->currency) == 0;
    if (same || cancelled_unseen)
        fn(arg, SG_OK, charge, false);
    else
        fn(arg, SG_KEY_REUSED, NULL, false);
}

void mockpay_charge(struct mockpay *mockpay, const char *order_id,
                    const struct wire_charge *request, mockpay_fn *fn, void *arg)
{
    const struct ledger_charge *charge = ledger_find(mockpay->ledger, order_id);
    if (charge) {
        answer_known(charge, request, fn, arg);
        return;
    }
    struct behaviour_plan plan = behaviour_plan(&mockpay->behaviour, order_id, request->method);
    enum sg_error error = SG_OK;
    if (plan.pending)
        error = ledger_add(mockpay->ledger, order_id, request, PAY_PENDING, &charge);
    if (error == SG_OK)
        error = decide_later(mockpay, order_id, request, &plan, plan.pending ? NULL : fn, arg);
    if (error != SG_OK)
        fn(arg, error, NULL, false);
    else if (plan.pending)
        fn(arg, SG_OK, charge, false);
}

enum sg_error mockpay_cancel(struct mockpay *mockpay, const char *order_id,
                             const struct ledger_charge **ret_charge)
{
    const struct ledger_charge *charge = ledger_find(mockpay->ledger, order_id);
    enum sg_error error = SG_OK;
    if (!charge)
        return ledger_add(mockpay->ledger, order_id, NULL, PAY_CANCELLED, ret_charge);
    if (charge->outcome == PAY_PENDING)
        error = ledger_set(mockpay->ledger, order_id, PAY_CANCELLED);
    if (error == SG_OK)
        *ret_charge = charge;
    return error;
}

enum sg_error mockpay_refund(struct mockpay *mockpay, const char *order_id,
                             const struct ledger_charge **ret_charge, bool *ret_silent)
{
    const struct ledger_charge *charge = ledger_find(mockpay->ledger, order_id);
    enum sg_error error = SG_OK;
    if (!charge)
        return SG_NOT_FOUND;
    bool fresh = charge->outcome == PAY_SUCCEEDED;
    if (fresh)
        error = ledger_set(mockpay->ledger, order_id, PAY_REFUNDED);
    if (error != SG_OK)
        return error;
    *ret_charge = charge;
    *ret_silent = fresh && behaviour_refund_is_silent(&mockpay->behaviour, order_id);
    return SG_OK;
}

struct behaviour *mockpay_behaviour(struct mockpay *mockpay)
{
    return &mockpay->behaviour;
}

const struct ledger *mockpay_ledger(const struct mockpay *mockpay)
{
    return mockpay->ledger;
}

void mockpay_callbacks(const struct mockpay *mockpay, struct callbacks_counts *ret_counts)
{
    callbacks_counts(mockpay->callbacks, ret_counts);
}

/* --- life ------------------------------------------------------------------------------------- */

/* Those that the last process left pending. Their method is forgotten: the rates decide. */
static bool resume(struct mockpay *mockpay)
{
    const struct ledger_charge *charge;
    for (size_t i = 0; (charge = ledger_at(mockpay->ledger, i)); i++) {
        struct wire_charge request = {0};
        if (charge->outcome != PAY_PENDING)
            continue;
        struct behaviour_plan plan = behaviour_plan(&mockpay->behaviour, charge->order_id, "");
        plan.callbacks = plan.callbacks ? plan.callbacks : 1;
        if (decide_later(mockpay, charge->order_id, &request, &plan, NULL, NULL) != SG_OK)
            return false;
    }
    return true;
}

enum sg_error mockpay_new(const struct mockpay_config *config, struct mockpay **ret_mockpay,
                          char *error_text, size_t error_size)
{
    struct mockpay *mockpay = calloc(1, sizeof(*mockpay));
    snprintf(error_text, error_size, "out of memory");
    if (!mockpay)
        return SG_NO_MEMORY;
    mockpay->base = config->base;
    mockpay->behaviour = config->behaviour;
    TAILQ_INIT(&mockpay->decisions);
    mockpay->callbacks = callbacks_new(config->base, &config->secret);
    enum sg_error error = mockpay->callbacks ? SG_OK : SG_NO_MEMORY;
    if (error == SG_OK)
        error = ledger_open(config->journal, &mockpay->ledger, error_text, error_size);
    if (error == SG_OK && !resume(mockpay))
        error = SG_NO_MEMORY;
    if (error == SG_OK)
        *ret_mockpay = mockpay;
    else
        mockpay_free(mockpay);
    return error;
}

void mockpay_free(struct mockpay *mockpay)
{
    struct decision *decision;
    if (!mockpay)
        return;
    while ((decision = TAILQ_FIRST(&mockpay->decisions))) {
        if (decision->fn)
            decision->fn(decision->arg, SG_SHARD_UNAVAILABLE, NULL, false);
        decision_free(decision);
    }
    callbacks_free(mockpay->callbacks);
    ledger_close(mockpay->ledger);
    free(mockpay);
}
