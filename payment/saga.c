/*
 * The orders of a worker, and whoever speaks to them: a request, a callback of the payment service,
 * the look for orders that are due. See saga.h; saga_order.c drives one order.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/saga.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "payment/provider_http.h"
#include "payment/saga_internal.h"

#define DUE_AT_ONCE 100 /* orders of one shard in one look */

void saga_crash_point(const struct saga *saga, const char *name)
{
    if (saga->crash_at && strcmp(saga->crash_at, name) == 0)
        kill(getpid(), SIGKILL);
}

/* --- open orders ------------------------------------------------------------------------------ */

static size_t bucket_of(const char *order_id)
{
    return (size_t)hash_u64(hash_bytes(HASH_START, order_id, strlen(order_id))) % BUCKETS;
}

static struct open_order *find(const struct saga *saga, const char *order_id)
{
    struct open_order *order;
    LIST_FOREACH (order, &saga->buckets[bucket_of(order_id)], entry) {
        if (strcmp(order->order_id, order_id) == 0)
            return order;
    }
    return NULL;
}

static void free_order(void *object)
{
    struct open_order *order = object;
    event_free(order->timer);
    free(order);
}

void saga_forget(struct open_order *order)
{
    struct saga *saga = order->saga;
    LIST_REMOVE(order, entry);
    TAILQ_REMOVE(&saga->orders, order, order);
    saga->open--;
    metrics_add(saga->open_gauge, -1);
    reap(saga->config.reap, order, free_order);
}

/* An order that is not open here yet; NULL when memory runs out. */
static struct open_order *open_order(struct saga *saga, const char *order_id, int64_t event_id,
                                     const char *shard)
{
    struct open_order *order = calloc(1, sizeof(*order));
    if (order)
        order->timer = evtimer_new(saga->config.base, order_on_pause_over, order);
    if (!order || !order->timer) {
        free(order);
        return NULL;
    }
    order->saga = saga;
    order->event_id = event_id;
    order->began_us = clock_mono_us();
    snprintf(order->order_id, sizeof(order->order_id), "%s", order_id);
    snprintf(order->shard, sizeof(order->shard), "%s", shard);
    LIST_INIT(&order->waiters);
    LIST_INSERT_HEAD(&saga->buckets[bucket_of(order_id)], order, entry);
    TAILQ_INSERT_TAIL(&saga->orders, order, order);
    saga->open++;
    metrics_add(saga->open_gauge, 1);
    return order;
}

static void set_terms(struct open_order *order, int64_t amount, const char *currency,
                      const char *method)
{
    order->amount = amount;
    snprintf(order->currency, sizeof(order->currency), "%s", currency ? currency : "");
    snprintf(order->method, sizeof(order->method), "%s", method);
}

/* As the shard has it; false for a state that is not known here. */
static bool set_from_shard(struct open_order *order, const struct order *read)
{
    enum saga_state state = saga_state_by_name(read->state);
    if (state == SAGA_STATE_COUNT)
        return false;
    order->state = state;
    set_terms(order, read->amount, read->currency, read->method);
    snprintf(order->problem, sizeof(order->problem), "%s", read->problem ? read->problem : "");
    order->began_us -= read->age_ms * 1000;
    return true;
}

/* --- a request -------------------------------------------------------------------------------- */

struct start {
    struct saga *saga;
    int64_t event_id;
    char method[ROUTER_METHOD_MAX + 1];
    bool wait;
    saga_fn *fn;
    void *arg;
    /* of a replayed order, while it is read */
    struct waiter *waiter;
};

static void on_waited_long(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    order_tell(arg);
}

/* Keeps what the router said, for later; NULL when memory runs out. */
static struct waiter *waiter_new(const struct start *start, const struct book_result *book)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter) + book->taken_count * sizeof(struct seat));
    if (!waiter)
        return NULL;
    waiter->fn = start->fn;
    waiter->arg = start->arg;
    waiter->book = *book;
    waiter->book.status = "held";
    waiter->book.seats = NULL;
    waiter->book.seat_count = 0;
    if (book->taken) {
        memcpy(waiter->taken, book->taken, book->taken_count * sizeof(struct seat));
        waiter->book.taken = waiter->taken;
    }
    return waiter;
}

/* Until the order ends, or payment.wait_ms have passed. */
static void wait_for(struct open_order *order, struct waiter *waiter)
{
    const struct saga *saga = order->saga;
    struct timeval patience = clock_timeval_us(saga->config.settings->payment.wait_ms * 1000);
    waiter->order = order;
    LIST_INSERT_HEAD(&order->waiters, waiter, entry);
    waiter->timer = evtimer_new(saga->config.base, on_waited_long, waiter);
    if (!waiter->timer || event_add(waiter->timer, &patience) < 0 || saga->draining)
        order_tell_waiters(order);
}

static void tell(const struct start *start, const struct book_result *book, const char *state,
                 const char *problem, const struct read_token *token)
{
    struct saga_result result = {.book = book, .state = state, .problem = problem, .token = *token};
    start->fn(start->arg, &result);
}

/* The first to come: goes on with it. */
static void begin(const struct start *start, const struct book_result *book)
{
    struct saga *saga = start->saga;
    const char *reserved = saga_state_name(SAGA_RESERVED);
    struct waiter *waiter = start->wait ? waiter_new(start, book) : NULL;
    struct open_order *order =
        open_order(saga, book->booking_id, start->event_id, book->route.shard);
    saga_crash_point(saga, reserved);
    if (!waiter)
        tell(start, book, reserved, NULL, &book->token);
    if (!order) { /* it stands in the shard, where it is found when it is due */
        if (waiter)
            waiter->fn(waiter->arg, &(struct saga_result){.book = &waiter->book,
                                                          .state = reserved,
                                                          .token = book->token});
        free(waiter);
        return;
    }
    order->token = book->token;
    order->lease_until_us = clock_mono_us() + saga->config.settings->payment.lease_ms * 1000;
    set_terms(order, book->amount, book->currency, start->method);
    if (waiter)
        wait_for(order, waiter);
    order_happen(order, SAGA_ENTERED);
}

static void on_replayed(void *arg, const struct route *route, enum sg_error error,
                        const struct order *read)
{
    struct start *start = arg;
    struct waiter *waiter = start->waiter;
    (void)route;
    waiter->book.error = error;
    struct saga_result result = {.book = &waiter->book, .token = waiter->book.token};
    if (error == SG_OK) {
        result.state = read->state;
        result.problem = read->problem;
    }
    start->fn(start->arg, &result);
    free(waiter);
    free(start);
}

/* The same request again: the order as it stands, which is to be waited for where it is open. True
 * if `start` is still needed. */
static bool replay(struct start *start, const struct book_result *book)
{
    struct saga *saga = start->saga;
    struct open_order *order = find(saga, book->booking_id);
    struct book_result failed = *book;
    struct waiter *waiter = waiter_new(start, book);
    failed.error = SG_NO_MEMORY;
    if (waiter && order && start->wait) {
        wait_for(order, waiter);
        return false;
    }
    if (waiter) {
        const struct read_wish wish = {.max_staleness_us = 0};
        start->waiter = waiter;
        failed.error = router_order_get(saga->config.router, start->event_id, book->booking_id,
                                        &wish, on_replayed, start);
        if (failed.error == SG_OK)
            return true;
    }
    free(waiter);
    tell(start, &failed, NULL, NULL, &book->token);
    return false;
}

static void on_reserved(void *arg, const struct book_result *book)
{
    struct start *start = arg;
    start->saga->starting--;
    if (book->error != SG_OK)
        tell(start, book, NULL, NULL, &book->token);
    else if (!book->replayed)
        begin(start, book);
    else if (replay(start, book))
        return;
    free(start);
}

enum sg_error saga_start(struct saga *saga, const struct saga_request *request, saga_fn *fn,
                         void *arg)
{
    struct book_request book = *request->book;
    if (saga->open + saga->starting >= (size_t)saga->config.settings->payment.max_open)
        return SG_OVERLOADED;
    struct start *start = calloc(1, sizeof(*start));
    if (!start)
        return SG_NO_MEMORY;
    *start = (struct start){
        .saga = saga, .event_id = book.event_id, .wait = request->wait, .fn = fn, .arg = arg};
    snprintf(start->method, sizeof(start->method), "%s", book.method);
    book.hold_ms = saga->config.settings->payment.hold_ms;
    enum sg_error error = router_book(saga->config.router, &book, on_reserved, start);
    if (error == SG_OK)
        saga->starting++;
    else
        free(start);
    return error;
}

/* --- a callback of the payment service -------------------------------------------------------- */

struct heard {
    struct saga *saga;
    int64_t event_id;
    struct payment_notice notice;
    saga_notice_fn *fn;
    void *arg;
};

static void count_callback(const struct saga *saga, const char *outcome)
{
    metrics_add(
        metrics_series(saga->config.metrics, METRIC_PAYMENT_CALLBACKS, (const char *[]){outcome}),
        1);
}

/* What changes something is this worker's to go on with, wherever the order was begun. *ret_given:
 * the order answers the service. */
static enum sg_error take_up(const struct heard *heard, const char *shard, const struct order *read,
                             bool *ret_given)
{
    struct saga *saga = heard->saga;
    enum saga_state state = saga_state_by_name(read->state);
    if (state == SAGA_STATE_COUNT)
        return SG_INTERNAL;
    if (!saga_word_fits(&heard->notice.word, read->amount, read->currency)) {
        struct log_fields fields = {.event_id = heard->event_id};
        log_error(&fields, "order %s: a callback speaks of another amount: %s %lld %s",
                  heard->notice.order_id, pay_outcome_name(heard->notice.word.outcome),
                  (long long)heard->notice.word.amount, heard->notice.word.currency);
        return SG_INVALID_VALUE;
    }
    struct saga_move move = saga_next(state, saga_event_of(heard->notice.word.outcome));
    if (move.action != SAGA_STEP)
        return SG_OK;                                              /* no news */
    struct open_order *order = find(saga, heard->notice.order_id); /* opened meanwhile */
    if (!order && saga->open >= (size_t)saga->config.settings->payment.max_open)
        return SG_OVERLOADED;
    if (!order) {
        order = open_order(saga, heard->notice.order_id, heard->event_id, shard);
        if (!order)
            return SG_NO_MEMORY;
        (void)set_from_shard(order, read);
    }
    if (order->notice.there)
        return SG_OVERLOADED;
    *ret_given = true;
    order_notice(order, heard->notice.word.outcome, heard->fn, heard->arg);
    return SG_OK;
}

static void on_heard(void *arg, const struct route *route, enum sg_error error,
                     const struct order *read)
{
    struct heard *heard = arg;
    bool given = false;
    if (error == SG_OK && heard->saga->stopping)
        error = SG_SHARD_UNAVAILABLE;
    if (error == SG_OK)
        error = take_up(heard, route->shard, read, &given);
    if (!given)
        heard->fn(heard->arg, error);
    free(heard);
}

static enum sg_error read_for(struct saga *saga, int64_t event_id,
                              const struct payment_notice *notice, saga_notice_fn *fn, void *arg)
{
    const struct read_wish wish = {.max_staleness_us = 0};
    struct heard *heard = malloc(sizeof(*heard));
    if (!heard)
        return SG_NO_MEMORY;
    *heard =
        (struct heard){.saga = saga, .event_id = event_id, .notice = *notice, .fn = fn, .arg = arg};
    enum sg_error error =
        router_order_get(saga->config.router, event_id, notice->order_id, &wish, on_heard, heard);
    if (error != SG_OK)
        free(heard);
    return error;
}

const char *saga_signature_header(const struct saga *saga)
{
    return saga->provider->calls->signature_header;
}

enum sg_error saga_on_callback(struct saga *saga, int64_t event_id, const char *signature,
                               const void *body, size_t len, saga_notice_fn *fn, void *arg)
{
    struct payment_notice notice;
    struct payment_provider *provider = saga->provider;
    enum sg_error error =
        provider->calls->verify(provider, signature, body, len, clock_wall_us() / 1000000, &notice);
    if (error != SG_OK) {
        count_callback(saga, "refused");
        return error;
    }
    error = saga->stopping ? SG_OVERLOADED : read_for(saga, event_id, &notice, fn, arg);
    count_callback(saga, error == SG_OK ? "taken" : "again");
    return error;
}

/* --- orders that are due ---------------------------------------------------------------------- */

static void take_over(struct saga *saga, const char *shard, const struct order *read)
{
    struct log_fields fields = {.event_id = read->event_id};
    if (find(saga, read->order_id))
        return; /* a slow step let its lease run out: it is still ours */
    struct open_order *order = saga->open < (size_t)saga->config.settings->payment.max_open
                                   ? open_order(saga, read->order_id, read->event_id, shard)
                                   : NULL;
    if (!order)
        return; /* due again when the lease is over */
    order->lease_until_us = clock_mono_us() + saga->config.settings->payment.lease_ms * 1000;
    if (!set_from_shard(order, read)) {
        log_error(&fields, "order %s: state %s is unknown here", read->order_id, read->state);
        saga_forget(order);
        return;
    }
    log_info(&fields, "order %s: taken up, %s", order->order_id, read->state);
    order_happen(order, SAGA_READ);
}

static void on_due(void *arg, enum sg_error error, const struct order *orders, size_t count)
{
    struct due_look *look = arg;
    struct saga *saga = look->saga;
    LIST_REMOVE(look, entry);
    for (size_t i = 0; error == SG_OK && !saga->stopping && i < count; i++)
        take_over(saga, look->shard, &orders[i]);
    free(look);
}

static bool is_looked_at(const struct saga *saga, const char *shard)
{
    const struct due_look *look;
    LIST_FOREACH (look, &saga->looks, entry) {
        if (strcmp(look->shard, shard) == 0)
            return true;
    }
    return false;
}

static void look_at(struct saga *saga, const char shard[SHARDMAP_NAME_MAX + 1], size_t limit)
{
    struct due_look *look = malloc(sizeof(*look));
    if (!look)
        return;
    look->saga = saga;
    memcpy(look->shard, shard, sizeof(look->shard));
    if (router_orders_due(saga->config.router, shard, limit,
                          saga->config.settings->payment.lease_ms, on_due, look) == SG_OK)
        LIST_INSERT_HEAD(&saga->looks, look, entry);
    else
        free(look);
}

static void look_for_due(struct saga *saga)
{
    const struct settings *settings = saga->config.settings;
    size_t room = (size_t)settings->payment.max_open > saga->open
                      ? (size_t)settings->payment.max_open - saga->open
                      : 0;
    size_t count = router_status(saga->config.router, NULL, 0);
    struct shard_status *shards = room ? calloc(count, sizeof(*shards)) : NULL;
    if (!shards)
        return;
    (void)router_status(saga->config.router, shards, count);
    for (size_t i = 0; i < count; i++) { /* one that is gone meanwhile is all 0 */
        if (shards[i].writable && !is_looked_at(saga, shards[i].shard))
            look_at(saga, shards[i].shard, room < DUE_AT_ONCE ? room : DUE_AT_ONCE);
    }
    free(shards);
}

static void on_due_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look_for_due(arg);
}

/* --- life ------------------------------------------------------------------------------------- */

static bool build(struct saga *saga)
{
    struct timeval interval = clock_timeval_us(saga->config.settings->payment.due_ms * 1000);
    TAILQ_INIT(&saga->orders);
    saga->crash_at = getenv("SEATGRID_CRASH_AT");
    saga->open_gauge =
        metrics_series(saga->config.metrics, METRIC_ORDERS_OPEN, (const char *[]){"http"});
    saga->due_timer = event_new(saga->config.base, -1, EV_PERSIST, on_due_timer, saga);
    return saga->due_timer && event_add(saga->due_timer, &interval) == 0;
}

enum sg_error saga_new(const struct saga_config *config, struct saga **ret_saga, char *error_text,
                       size_t error_size)
{
    struct saga *saga = calloc(1, sizeof(*saga));
    snprintf(error_text, error_size, "out of memory");
    if (!saga)
        return SG_NO_MEMORY;
    saga->config = *config;
    enum sg_error error = SG_NO_MEMORY;
    if (build(saga))
        error = provider_http_new(config->settings, config->base, &saga->provider, error_text,
                                  error_size);
    if (error == SG_OK)
        *ret_saga = saga;
    else
        saga_free(saga);
    return error;
}

void saga_drain(struct saga *saga)
{
    struct open_order *order;
    if (!saga)
        return;
    saga->draining = true;
    event_del(saga->due_timer);
    TAILQ_FOREACH (order, &saga->orders, order)
        order_tell_waiters(order);
}

void saga_stop(struct saga *saga)
{
    struct open_order *order;
    if (!saga)
        return;
    saga_drain(saga);
    saga->stopping = true;
    TAILQ_FOREACH (order, &saga->orders, order)
        order_let_go(order);
}

void saga_free(struct saga *saga)
{
    struct open_order *order;
    if (!saga)
        return;
    saga->stopping = true;
    if (saga->provider)
        saga->provider->calls->free(saga->provider); /* answers, to nobody */
    while ((order = TAILQ_FIRST(&saga->orders))) {
        if (order->notice.there)
            order->notice.fn(order->notice.arg, SG_SHARD_UNAVAILABLE);
        TAILQ_REMOVE(&saga->orders, order, order);
        metrics_add(saga->open_gauge, -1);
        free_order(order);
    }
    if (saga->due_timer)
        event_free(saga->due_timer);
    free(saga);
}
