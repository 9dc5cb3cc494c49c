/*
 * A router with scripted answers. See fake_router.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/fake_router.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fake_seatmaps_alive;

/* An accepted call whose callback has not run yet. */
struct fake_pending {
    struct fake_pending *next;
    struct router *router;
    void (*run)(struct fake_pending *pending);
    void *fn;
    void *arg;
};

struct router *fake_router_new(struct event_base *base)
{
    struct router *router = calloc(1, sizeof(*router));
    assert(router);
    router->base = base;
    router->map_version = 7;
    router->booked.status = "confirmed";
    router->route = (struct route){
        .shard = "alpha", .node = "alpha-2", .map_version = 7, .staleness_us = 11200};
    return router;
}

void fake_router_free(struct router *router)
{
    assert(!router->pending);
    assert(!router->watches);
    if (router->seatmap)
        seatmap_unref(router->seatmap);
    free(router);
}

static void run_first(struct router *router)
{
    struct fake_pending *pending = router->pending;
    router->pending = pending->next;
    pending->run(pending);
    free(pending);
}

void fake_router_release(struct router *router)
{
    while (router->pending)
        run_first(router);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    run_first(arg);
}

static enum sg_error accept_call(struct router *router, void (*run)(struct fake_pending *pending),
                                 void *fn, void *arg)
{
    router->calls++;
    if (router->refusal != SG_OK)
        return router->refusal;
    struct fake_pending *pending = calloc(1, sizeof(*pending));
    assert(pending);
    *pending = (struct fake_pending){NULL, router, run, fn, arg};
    struct fake_pending **last = &router->pending;
    while (*last)
        last = &(*last)->next;
    *last = pending;
    if (!router->hold)
        event_base_once(router->base, -1, EV_TIMEOUT, on_later, router, &(struct timeval){0});
    return SG_OK;
}

/* --- router.h --------------------------------------------------------------------------------- */

int64_t router_map_version(struct router *router)
{
    return router->map_version;
}

enum sg_error router_locate(struct router *router, int64_t event_id, struct route *ret_route)
{
    if (event_id >= 1000000)
        return SG_UNKNOWN_EVENT;
    *ret_route = (struct route){.map_version = router->map_version, .staleness_us = -1};
    memcpy(ret_route->shard, router->route.shard, sizeof(ret_route->shard));
    return SG_OK;
}

static void run_book(struct fake_pending *pending)
{
    router_book_fn *fn = pending->fn;
    struct book_result result = pending->router->booked;
    result.route = pending->router->route;
    result.error = pending->router->error;
    fn(pending->arg, &result);
}

static void note_best(struct router *router, size_t i, const struct best_wish *wish)
{
    snprintf(router->asked_tiers[i], sizeof(router->asked_tiers[i]), "%s",
             wish->tier ? wish->tier : "");
    router->asked_best[i] = *wish;
    router->asked_best[i].tier = router->asked_tiers[i];
}

enum sg_error router_book(struct router *router, const struct book_request *request,
                          router_book_fn *fn, void *arg)
{
    router->asked_event_id = request->event_id;
    router->asked_seat_count = request->seat_count;
    if (request->seat_count)
        memcpy(router->asked_seats, request->seats, request->seat_count * sizeof(struct seat));
    router->asked_best_count = request->best_count;
    for (size_t i = 0; i < request->best_count; i++)
        note_best(router, i, &request->best[i]);
    router->asked_hold_ms = request->hold_ms;
    snprintf(router->asked_user, sizeof(router->asked_user), "%s", request->user_id);
    snprintf(router->asked_key, sizeof(router->asked_key), "%s",
             request->idempotency_key ? request->idempotency_key : "");
    return accept_call(router, run_book, (void *)fn, arg);
}

static void run_booking(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_booking_fn *fn = pending->fn;
    enum sg_error error = router->booking_error ? router->booking_error : router->error;
    fn(pending->arg, &router->route, error, error ? NULL : &router->booking);
}

static void note_wish(struct router *router, const struct read_wish *wish)
{
    router->asked_staleness_us = wish->max_staleness_us;
    router->asked_token_count = wish->token_count;
    if (wish->token_count)
        memcpy(router->asked_tokens, wish->tokens, wish->token_count * sizeof(wish->tokens[0]));
}

enum sg_error router_booking_get(struct router *router, int64_t event_id, const char *booking_id,
                                 const struct read_wish *wish, router_booking_fn *fn, void *arg)
{
    note_wish(router, wish);
    router->asked_event_id = event_id;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", booking_id);
    return accept_call(router, run_booking, (void *)fn, arg);
}

/* --- the life of a booking -------------------------------------------------------------------- */

static void run_change(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_change_fn *fn = pending->fn;
    struct change_result result = router->changed;
    result.route = router->route;
    result.error = router->error;
    result.booking = router->error ? NULL : &router->booking;
    fn(pending->arg, &result);
}

enum sg_error router_change(struct router *router, const struct change_request *request,
                            router_change_fn *fn, void *arg)
{
    router->asked_change = request->kind;
    router->asked_event_id = request->event_id;
    router->asked_extend_ms = request->extend_ms;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", request->booking_id);
    snprintf(router->asked_user, sizeof(router->asked_user), "%s", request->user_id);
    snprintf(router->asked_to_user, sizeof(router->asked_to_user), "%s",
             request->to_user ? request->to_user : "");
    snprintf(router->asked_key, sizeof(router->asked_key), "%s",
             request->idempotency_key ? request->idempotency_key : "");
    return accept_call(router, run_change, (void *)fn, arg);
}

static void run_refusal(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_refusal_fn *fn = pending->fn;
    fn(pending->arg, &router->route, router->error, router->error ? NULL : router->refusal_kept);
}

enum sg_error router_refusal_get(struct router *router, int64_t event_id, const char *booking_id,
                                 router_refusal_fn *fn, void *arg)
{
    router->asked_event_id = event_id;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", booking_id);
    return accept_call(router, run_refusal, (void *)fn, arg);
}

static void run_order(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_order_fn *fn = pending->fn;
    router->order.booking = &router->booking;
    fn(pending->arg, &router->route, router->error, router->error ? NULL : &router->order);
}

enum sg_error router_order_get(struct router *router, int64_t event_id, const char *order_id,
                               const struct read_wish *wish, router_order_fn *fn, void *arg)
{
    note_wish(router, wish);
    router->asked_event_id = event_id;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", order_id);
    return accept_call(router, run_order, (void *)fn, arg);
}

static void run_step(struct fake_pending *pending)
{
    router_order_step_fn *fn = pending->fn;
    fn(pending->arg, &pending->router->moved);
}

enum sg_error router_order_step(struct router *router, const struct order_step *step,
                                router_order_step_fn *fn, void *arg)
{
    router->steps++;
    snprintf(router->asked_action, sizeof(router->asked_action), "%s", step->action);
    return accept_call(router, run_step, (void *)fn, arg);
}

static void run_due(struct fake_pending *pending)
{
    const struct router *router = pending->router;
    router_orders_fn *fn = pending->fn;
    fn(pending->arg, router->error, router->due, router->error ? 0 : router->due_count);
}

enum sg_error router_orders_due(struct router *router, const char *shard, size_t limit,
                                int64_t lease_ms, router_orders_fn *fn, void *arg)
{
    (void)shard;
    (void)limit;
    (void)lease_ms;
    router->due_looks++;
    return accept_call(router, run_due, (void *)fn, arg);
}

static void run_waitlist(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_waitlist_fn *fn = pending->fn;
    struct waitlist_result result = router->waitlist;
    bool has_entry = router->error == SG_OK || router->error == SG_ALREADY_WAITING;
    result.route = &router->route;
    result.error = router->error;
    result.entry = has_entry && !router->entry_gone ? &router->entry : NULL;
    fn(pending->arg, &result);
}

static void run_left(struct fake_pending *pending)
{
    struct router *router = pending->router;
    enum sg_error error = router->error;
    if (router->left_error)
        router->error = router->left_error;
    run_waitlist(pending);
    router->error = error;
}

enum sg_error router_waitlist_join(struct router *router, const struct waitlist_request *request,
                                   router_waitlist_fn *fn, void *arg)
{
    router->asked_event_id = request->event_id;
    router->asked_best_count = 1;
    note_best(router, 0, &request->wish);
    snprintf(router->asked_user, sizeof(router->asked_user), "%s", request->user_id);
    snprintf(router->asked_key, sizeof(router->asked_key), "%s",
             request->idempotency_key ? request->idempotency_key : "");
    return accept_call(router, run_waitlist, (void *)fn, arg);
}

enum sg_error router_waitlist_get(struct router *router, int64_t event_id, const char *entry_id,
                                  const struct read_wish *wish, router_waitlist_fn *fn, void *arg)
{
    note_wish(router, wish);
    router->asked_event_id = event_id;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", entry_id);
    return accept_call(router, run_waitlist, (void *)fn, arg);
}

enum sg_error router_waitlist_leave(struct router *router, const struct waitlist_request *request,
                                    const char *entry_id, router_waitlist_fn *fn, void *arg)
{
    router->asked_event_id = request->event_id;
    snprintf(router->asked_booking, sizeof(router->asked_booking), "%s", entry_id);
    snprintf(router->asked_user, sizeof(router->asked_user), "%s", request->user_id);
    snprintf(router->asked_key, sizeof(router->asked_key), "%s",
             request->idempotency_key ? request->idempotency_key : "");
    return accept_call(router, run_left, (void *)fn, arg);
}

/* --- events ----------------------------------------------------------------------------------- */

static void run_event(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_event_fn *fn = pending->fn;
    fn(pending->arg, &router->route, router->error, router->error ? NULL : &router->event);
}

enum sg_error router_event_create(struct router *router, const struct event_new *event,
                                  router_event_fn *fn, void *arg)
{
    snprintf(router->asked_name, sizeof(router->asked_name), "%s", event->name);
    snprintf(router->asked_shard, sizeof(router->asked_shard), "%s",
             event->shard ? event->shard : "");
    router->asked_starts_at_us = event->starts_at_us;
    router->asked_tier_count = event->tier_count;
    for (size_t i = 0; i < event->tier_count; i++) {
        snprintf(router->asked_tier_names[i], sizeof(router->asked_tier_names[i]), "%s",
                 event->tiers[i].name);
        router->asked_event_tiers[i] = event->tiers[i];
        router->asked_event_tiers[i].name = router->asked_tier_names[i];
    }
    snprintf(router->asked_currency, sizeof(router->asked_currency), "%s",
             event->currency ? event->currency : "");
    router->asked_max_per_user = event->max_per_user;
    router->asked_rows = event->rows;
    router->asked_cols = event->cols;
    return accept_call(router, run_event, (void *)fn, arg);
}

enum sg_error router_event_get(struct router *router, int64_t event_id,
                               const struct read_wish *wish, router_event_fn *fn, void *arg)
{
    note_wish(router, wish);
    router->asked_event_id = event_id;
    return accept_call(router, run_event, (void *)fn, arg);
}

static void run_page(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_events_fn *fn = pending->fn;
    fn(pending->arg, router->error, router->error ? NULL : &router->page);
}

enum sg_error router_event_list(struct router *router, int64_t after_id, size_t limit,
                                const struct read_wish *wish, router_events_fn *fn, void *arg)
{
    note_wish(router, wish);
    router->asked_after_id = after_id;
    router->asked_limit = limit;
    return accept_call(router, run_page, (void *)fn, arg);
}

static void run_availability(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_availability_fn *fn = pending->fn;
    fn(pending->arg, &router->route, router->error, router->error ? NULL : &router->availability);
}

enum sg_error router_availability(struct router *router, int64_t event_id,
                                  const struct read_wish *wish, router_availability_fn *fn,
                                  void *arg)
{
    note_wish(router, wish);
    router->asked_event_id = event_id;
    return accept_call(router, run_availability, (void *)fn, arg);
}

static void run_tickets(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_tickets_fn *fn = pending->fn;
    fn(pending->arg, router->error, router->error ? NULL : &router->ticket_page);
}

enum sg_error router_tickets(struct router *router, const struct tickets_request *request,
                             router_tickets_fn *fn, void *arg)
{
    snprintf(router->asked_user, sizeof(router->asked_user), "%s", request->user_id);
    router->asked_limit = request->limit;
    router->asked_after = request->after ? *request->after : (struct ticket_place){.event_id = 0};
    note_wish(router, &request->wish);
    return accept_call(router, run_tickets, (void *)fn, arg);
}

static void run_seatmap(struct fake_pending *pending)
{
    struct router *router = pending->router;
    router_seatmap_fn *fn = pending->fn;
    fn(pending->arg, &router->route, router->error, router->error ? NULL : router->seatmap);
}

enum sg_error router_seatmap(struct router *router, int64_t event_id, const struct read_wish *wish,
                             router_seatmap_fn *fn, void *arg)
{
    router->asked_event_id = event_id;
    note_wish(router, wish);
    return accept_call(router, run_seatmap, (void *)fn, arg);
}

size_t router_status(struct router *router, struct shard_status *ret_status, size_t max)
{
    for (size_t i = 0; i < router->status_count && i < max; i++)
        ret_status[i] = router->status[i];
    return router->status_count;
}

/* --- live seats ------------------------------------------------------------------------------- */

struct live_watch {
    struct live_watch *next;
    int64_t event_id;
    router_live_fn *fn;
    void *arg;
};

enum sg_error router_watch(struct router *router, int64_t event_id, const char *last_id,
                           router_live_fn *fn, void *arg, struct live_watch **ret_watch)
{
    router->asked_event_id = event_id;
    snprintf(router->asked_last_id, sizeof(router->asked_last_id), "%s", last_id);
    if (router->watch_refusal != SG_OK)
        return router->watch_refusal;
    struct live_watch *watch = calloc(1, sizeof(*watch));
    assert(watch);
    *watch = (struct live_watch){NULL, event_id, fn, arg};
    struct live_watch **last = &router->watches;
    while (*last)
        last = &(*last)->next;
    *last = watch;
    *ret_watch = watch;
    router->watch_count++;
    return SG_OK;
}

void router_unwatch(struct router *router, struct live_watch *watch)
{
    struct live_watch **at = &router->watches;
    while (*at != watch) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = watch->next;
    router->watch_count--;
    free(watch);
}

int fake_router_tell(struct router *router, const struct live_change *change)
{
    int count = 0;
    struct live_watch *next;
    for (struct live_watch *watch = router->watches; watch; watch = next) {
        next = watch->next; /* a watch may end itself, no other */
        if (watch->event_id != change->event_id)
            continue;
        watch->fn(watch->arg, change);
        count++;
    }
    return count;
}

/* --- seat maps -------------------------------------------------------------------------------- */

struct seatmap *fake_seatmap_new(int64_t event_id, int32_t rows, int32_t cols, const char *states)
{
    struct seatmap *seatmap = calloc(1, sizeof(*seatmap));
    assert(seatmap);
    seatmap->event_id = event_id;
    seatmap->rows = rows;
    seatmap->cols = cols;
    seatmap->hash = UINT64_C(0x00c0ffee12345678);
    seatmap->states = strdup(states);
    seatmap->refs = 1;
    fake_seatmaps_alive++;
    return seatmap;
}

struct seatmap *seatmap_ref(struct seatmap *seatmap)
{
    seatmap->refs++;
    return seatmap;
}

void seatmap_unref(void *object)
{
    struct seatmap *seatmap = object;
    assert(seatmap->refs > 0);
    if (--seatmap->refs)
        return;
    for (size_t i = 0; i < SEATMAP_FORMS; i++)
        free(seatmap->bodies[i].data);
    free((char *)(uintptr_t)seatmap->states);
    free(seatmap);
    fake_seatmaps_alive--;
}
