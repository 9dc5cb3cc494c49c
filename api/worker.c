/*
 * The worker thread. See worker.h.
 *
 * Built by the control thread before the thread starts, torn down after it was joined; in between
 * everything belongs to the thread alone, but for the mailboxes and topology_ordered.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/worker.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/app.h"
#include "api/http.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "payment/saga.h"
#include "queue/publisher.h"
#include "router/router.h"

#define DRAIN_CHECK_US 20000
#define MAILBOX_CAPACITY 64

enum worker_order { ORDER_MAP_CHANGED, ORDER_TOPOLOGY_CHANGED, ORDER_DRAIN, ORDER_STOP };

struct worker {
    struct worker_config config;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_reader *reader;
    struct router *router;
    struct queue_sender *sender; /* NULL: no RabbitMQ */
    struct saga *saga;           /* NULL: no payment service */
    struct app *app;
    struct http_server *http;
    struct mailbox *orders;
    bool topology_ordered; /* atomic: such an order is on its way, no other is needed */
    struct event *drain_check;
    int64_t drain_deadline_us;
    pthread_t thread;
    bool started;
};

static void on_suspect(void *arg, const char *node)
{
    struct worker *worker = arg;
    /* full: the control thread has more than enough of them to look at */
    (void)mailbox_send(worker->config.to_control, WORKER_SUSPECTS_NODE, node);
}

static void on_drain_check(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;
    (void)fd;
    (void)what;
    bool empty =
        http_server_connections(worker->http) == 0 && router_in_flight(worker->router) == 0;
    if (empty || clock_mono_us() >= worker->drain_deadline_us) {
        (void)mailbox_send(worker->config.to_control, WORKER_DRAINED, NULL);
        return;
    }
    struct timeval tv = clock_timeval_us(DRAIN_CHECK_US);
    event_add(worker->drain_check, &tv);
}

static void on_order(void *arg, const struct mailbox_message *message)
{
    struct worker *worker = arg;
    switch ((enum worker_order)message->kind) {
    case ORDER_MAP_CHANGED:
        router_sync_map(worker->router);
        break;
    case ORDER_TOPOLOGY_CHANGED:
        /* First: what is published from here on is ordered anew. */
        (void)__atomic_exchange_n(&worker->topology_ordered, false, __ATOMIC_ACQ_REL);
        router_sync_topology(worker->router);
        break;
    case ORDER_DRAIN:
        http_server_drain(worker->http);
        saga_drain(worker->saga);
        worker->drain_deadline_us =
            clock_mono_us() + worker->config.settings->http.drain_timeout_ms * 1000;
        on_drain_check(-1, 0, worker);
        break;
    case ORDER_STOP:
        event_base_loopbreak(worker->base);
        break;
    }
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    event_base_loop(worker->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static enum sg_error open_http(struct worker *worker, char *error_text, size_t error_size)
{
    const struct settings *settings = worker->config.settings;
    int fd;
    enum sg_error error = http_listen(settings->http.listen, true, (int)settings->http.backlog, &fd,
                                      error_text, error_size);
    if (error != SG_OK)
        return error;
    struct http_server_config config = {
        .base = worker->base,
        .metrics = worker->metrics,
        .reap = worker->reap,
        .limits = http_limits(settings,
                              (size_t)(settings->http.max_connections / worker->config.count + 1)),
        .listener = "http",
        .on_request = app_handle,
        .on_refused = app_refused,
        .arg = worker->app};
    worker->http = http_server_new(&config, fd);
    return worker->http ? SG_OK : SG_NO_MEMORY;
}

static enum sg_error build_saga(struct worker *worker, char *error_text, size_t error_size)
{
    const struct settings *settings = worker->config.settings;
    if (!settings->payment.provider_url[0])
        return SG_OK;
    return saga_new(&(struct saga_config){.settings = settings,
                                          .base = worker->base,
                                          .reap = worker->reap,
                                          .metrics = worker->metrics,
                                          .router = worker->router},
                    &worker->saga, error_text, error_size);
}

static bool build_app(struct worker *worker)
{
    worker->app = app_new(&(struct app_config){.settings = worker->config.settings,
                                               .router = worker->router,
                                               .metrics = worker->metrics,
                                               .base = worker->base,
                                               .saga = worker->saga,
                                               .queue = worker->sender,
                                               .workers = worker->config.count});
    return worker->app != NULL;
}

static bool build(struct worker *worker)
{
    worker->base = event_base_new();
    if (!worker->base)
        return false;
    worker->reap = reap_list_new(worker->base);
    worker->metrics = metrics_set_new();
    worker->reader = snapshot_reader_new(worker->config.domain);
    worker->orders = mailbox_new(worker->base, MAILBOX_CAPACITY, on_order, worker);
    worker->drain_check = evtimer_new(worker->base, on_drain_check, worker);
    if (!worker->reap || !worker->metrics || !worker->reader || !worker->orders ||
        !worker->drain_check)
        return false;
    worker->router = router_new(&(struct router_config){.settings = worker->config.settings,
                                                        .base = worker->base,
                                                        .metrics = worker->metrics,
                                                        .reap = worker->reap,
                                                        .reader = worker->reader,
                                                        .maps = worker->config.maps,
                                                        .topologies = worker->config.topologies,
                                                        .on_suspect = on_suspect,
                                                        .on_suspect_arg = worker,
                                                        .best_news = worker->config.best_news,
                                                        .worker = worker->config.index});
    if (!worker->router)
        return false;
    if (worker->config.publisher) {
        worker->sender = queue_sender_new(worker->config.publisher, worker->base);
        if (!worker->sender)
            return false;
    }
    return true;
}

enum sg_error worker_new(const struct worker_config *config, struct worker **ret_worker,
                         char *error_text, size_t error_size)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return SG_NO_MEMORY;
    worker->config = *config;
    enum sg_error error = SG_NO_MEMORY;
    snprintf(error_text, error_size, "out of memory or file descriptors");
    if (build(worker))
        error = build_saga(worker, error_text, error_size);
    if (error == SG_OK && !build_app(worker))
        error = SG_NO_MEMORY;
    if (error == SG_OK)
        error = open_http(worker, error_text, error_size);
    if (error != SG_OK) {
        worker_free(worker);
        return error;
    }
    *ret_worker = worker;
    return SG_OK;
}

enum sg_error worker_start(struct worker *worker)
{
    if (pthread_create(&worker->thread, NULL, run, worker) != 0)
        return SG_NO_MEMORY;
    worker->started = true;
    return SG_OK;
}

void worker_map_changed(struct worker *worker)
{
    (void)mailbox_send(worker->orders, ORDER_MAP_CHANGED, NULL); /* it notices by itself, too */
}

void worker_topology_changed(struct worker *worker)
{
    if (__atomic_exchange_n(&worker->topology_ordered, true, __ATOMIC_ACQ_REL))
        return;
    /* full of other orders: it notices by itself, a tick later */
    if (!mailbox_send(worker->orders, ORDER_TOPOLOGY_CHANGED, NULL))
        __atomic_store_n(&worker->topology_ordered, false, __ATOMIC_RELEASE);
}

void worker_drain(struct worker *worker)
{
    (void)mailbox_send(worker->orders, ORDER_DRAIN, NULL);
}

void worker_stop(struct worker *worker)
{
    if (!worker->started)
        return;
    while (!mailbox_send(worker->orders, ORDER_STOP, NULL))
        usleep(1000); /* full of earlier orders, which the worker is about to take */
    pthread_join(worker->thread, NULL);
    worker->started = false;
}

void worker_free(struct worker *worker)
{
    if (!worker)
        return;
    if (worker->app)
        app_end_streams(worker->app);
    saga_stop(worker->saga);
    queue_sender_free(worker->sender); /* all answer what is under way */
    router_free(worker->router);
    saga_free(worker->saga);
    if (worker->http)
        http_server_free(worker->http);
    app_free(worker->app);
    if (worker->drain_check)
        event_free(worker->drain_check);
    if (worker->orders)
        mailbox_free(worker->orders);
    if (worker->reader)
        snapshot_reader_free(worker->reader);
    if (worker->reap)
        reap_list_free(worker->reap);
    if (worker->base)
        event_base_free(worker->base);
    free(worker);
}
