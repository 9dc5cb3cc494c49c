/*
 * The control thread. See server.h.
 *
 * What crosses threads, and nothing else: the two snapshots published here (maps by reload,
 * topologies by health), the mailboxes to and from each worker with one flag each (worker.c), and
 * the metrics sets.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/server.h"

#include <event2/event.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/admin.h"
#include "api/http.h"
#include "api/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/redisconn.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/health.h"
#include "router/reload.h"
#include "router/topology.h"
#include "shardmap/shardmap.h"

#define WORKERS_MAX 256
#define MAILBOX_CAPACITY 256

/* The admin listener serves a few operators and a scraper. */
#define ADMIN_MAX_CONNECTIONS 64

struct server {
    const struct settings *settings;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct snapshot_slot topologies;
    struct health *health;
    struct redisconn *redis; /* for the gauge and the log alone */
    struct reload *reload;
    struct admin *admin;
    struct http_server *admin_http;
    struct event *signals[3];
    unsigned worker_count;
    unsigned drained;
    bool stopping;
    struct worker *workers[WORKERS_MAX];
    struct mailbox *from_workers[WORKERS_MAX];
};

/* --- events of the control thread ------------------------------------------------------------- */

static void stop(struct server *server)
{
    event_base_loopbreak(server->base);
}

static void on_worker_event(void *arg, const struct mailbox_message *message)
{
    struct server *server = arg;
    switch ((enum worker_event)message->kind) {
    case WORKER_SUSPECTS_NODE:
        health_suspect(server->health, message->text);
        break;
    case WORKER_DRAINED:
        if (++server->drained == server->worker_count)
            stop(server);
        break;
    }
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct server *server = arg;
    (void)what;
    if (server->stopping) {
        log_warn(NULL, "second signal: stopping at once");
        stop(server);
        return;
    }
    server->stopping = true;
    log_info(NULL, "signal %d: finishing what is under way, at most %lld ms", (int)number,
             (long long)server->settings->http.drain_timeout_ms);
    for (unsigned i = 0; i < server->worker_count; i++)
        worker_drain(server->workers[i]);
}

static void on_reload_signal(evutil_socket_t number, short what, void *arg)
{
    struct server *server = arg;
    (void)number;
    (void)what;
    enum sg_error error = reload_start(server->reload, false, false, NULL, NULL);
    if (error != SG_OK)
        log_warn(NULL, "reload not started: %s", sg_error_title(error));
}

static void on_topology(void *arg)
{
    struct server *server = arg;
    for (unsigned i = 0; i < server->worker_count; i++)
        worker_topology_changed(server->workers[i]);
}

static void on_published(void *arg)
{
    struct server *server = arg;
    health_sync_map(server->health);
    for (unsigned i = 0; i < server->worker_count; i++)
        worker_map_changed(server->workers[i]);
}

/* --- start ------------------------------------------------------------------------------------ */

static bool watch_signal(struct server *server, int slot, int number, event_callback_fn fn)
{
    server->signals[slot] = evsignal_new(server->base, number, fn, server);
    return server->signals[slot] && event_add(server->signals[slot], NULL) == 0;
}

static bool build_base(struct server *server)
{
    server->base = event_base_new();
    server->domain = snapshot_domain_new();
    server->metrics = metrics_set_new();
    if (!server->base || !server->domain || !server->metrics)
        return false;
    server->reap = reap_list_new(server->base);
    server->publisher = snapshot_reader_new(server->domain);
    return server->reap && server->publisher && watch_signal(server, 0, SIGTERM, on_stop_signal) &&
           watch_signal(server, 1, SIGINT, on_stop_signal) &&
           watch_signal(server, 2, SIGHUP, on_reload_signal);
}

static bool build_control(struct server *server)
{
    server->health = health_new(&(struct health_config){.settings = server->settings,
                                                        .base = server->base,
                                                        .reap = server->reap,
                                                        .metrics = server->metrics,
                                                        .publisher = server->publisher,
                                                        .maps = &server->maps,
                                                        .topologies = &server->topologies,
                                                        .attest = true,
                                                        .on_change = on_topology,
                                                        .arg = server});
    server->reload = reload_new(&(struct reload_config){.settings = server->settings,
                                                        .base = server->base,
                                                        .reap = server->reap,
                                                        .metrics = server->metrics,
                                                        .publisher = server->publisher,
                                                        .maps = &server->maps,
                                                        .topologies = &server->topologies,
                                                        .on_published = on_published,
                                                        .arg = server});
    if (!server->health || !server->reload)
        return false;
    if (server->settings->redis.address[0])
        server->redis = redisconn_new(&(struct redisconn_config){.base = server->base,
                                                                 .reap = server->reap,
                                                                 .metrics = server->metrics,
                                                                 .settings = server->settings,
                                                                 .name = "server",
                                                                 .in_flight_max = 16});
    server->admin = admin_new(&(struct admin_config){.settings = server->settings,
                                                     .reader = server->publisher,
                                                     .maps = &server->maps,
                                                     .topologies = &server->topologies,
                                                     .reload = server->reload});
    return server->admin != NULL;
}

static enum sg_error open_admin(struct server *server, char *error_text, size_t error_size)
{
    const struct settings *settings = server->settings;
    int fd;
    enum sg_error error =
        http_listen(settings->admin.listen, false, 64, &fd, error_text, error_size);
    if (error != SG_OK)
        return error;
    struct http_server_config config = {
        .base = server->base,
        .metrics = server->metrics,
        .reap = server->reap,
        .limits = {.max_connections = ADMIN_MAX_CONNECTIONS,
                   .max_header_bytes = (size_t)settings->http.max_header_bytes,
                   .max_headers = (size_t)settings->http.max_headers,
                   .max_body_bytes = (size_t)settings->http.max_body_bytes,
                   .request_timeout_ms = settings->http.request_timeout_ms,
                   .idle_timeout_ms = settings->http.idle_timeout_ms,
                   .write_timeout_ms = settings->http.write_timeout_ms},
        .listener = "admin",
        .on_request = admin_handle,
        .arg = server->admin};
    server->admin_http = http_server_new(&config, fd);
    return server->admin_http ? SG_OK : SG_NO_MEMORY;
}

/* Workers share their port by SO_REUSEPORT, which would also let a second server of the same user
 * in unnoticed; a socket without it finds out. */
static enum sg_error check_port_free(const struct settings *settings, char *error_text,
                                     size_t error_size)
{
    int fd;
    enum sg_error error = http_listen(settings->http.listen, false, 1, &fd, error_text, error_size);
    if (error == SG_OK)
        close(fd);
    return error;
}

static unsigned wanted_workers(const struct settings *settings)
{
    int64_t count = settings->workers ? settings->workers : sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1)
        count = 1;
    return count > WORKERS_MAX ? WORKERS_MAX : (unsigned)count;
}

static enum sg_error build_workers(struct server *server, char *error_text, size_t error_size)
{
    enum sg_error error = check_port_free(server->settings, error_text, error_size);
    unsigned count = wanted_workers(server->settings);
    for (unsigned i = 0; error == SG_OK && i < count; i++) {
        server->from_workers[i] =
            mailbox_new(server->base, MAILBOX_CAPACITY, on_worker_event, server);
        if (!server->from_workers[i])
            return SG_NO_MEMORY;
        struct worker_config config = {.settings = server->settings,
                                       .index = i,
                                       .count = count,
                                       .domain = server->domain,
                                       .maps = &server->maps,
                                       .topologies = &server->topologies,
                                       .to_control = server->from_workers[i]};
        error = worker_new(&config, &server->workers[i], error_text, error_size);
        server->worker_count = i + 1;
    }
    return error;
}

static enum sg_error start_workers(struct server *server)
{
    enum sg_error error = SG_OK;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the control thread's */
    for (unsigned i = 0; error == SG_OK && i < server->worker_count; i++)
        error = worker_start(server->workers[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* --- life ------------------------------------------------------------------------------------- */

static void tear_down(struct server *server)
{
    for (unsigned i = 0; i < server->worker_count; i++) {
        if (server->workers[i])
            worker_stop(server->workers[i]);
    }
    for (unsigned i = 0; i < server->worker_count; i++) {
        worker_free(server->workers[i]);
        mailbox_free(server->from_workers[i]);
    }
    reload_free(server->reload); /* answers a reload that is under way */
    if (server->admin_http)
        http_server_free(server->admin_http);
    admin_free(server->admin);
    redisconn_free(server->redis);
    if (server->health)
        health_free(server->health);
    for (int i = 0; i < 3; i++) {
        if (server->signals[i])
            event_free(server->signals[i]);
    }
    if (server->reap)
        reap_list_free(server->reap);
    snapshot_slot_done(&server->maps, shardmap_free);
    snapshot_slot_done(&server->topologies, free);
    if (server->publisher) {
        snapshot_poll(server->publisher);
        snapshot_reader_free(server->publisher);
    }
    if (server->domain)
        snapshot_domain_free(server->domain);
    if (server->base)
        event_base_free(server->base);
    metrics_shutdown();
    libevent_global_shutdown();
    free(server);
}

enum sg_error server_run(const struct settings *settings, struct shardmap *map)
{
    char error_text[256] = "out of memory or file descriptors";
    struct server *server = calloc(1, sizeof(*server));
    enum sg_error error = SG_NO_MEMORY;
    if (!server) {
        shardmap_free(map);
        return SG_NO_MEMORY;
    }
    server->settings = settings;
    bool built = build_base(server);
    if (built)
        snapshot_publish(server->publisher, &server->maps, map, shardmap_free);
    else
        shardmap_free(map);
    if (built && build_control(server))
        error = open_admin(server, error_text, sizeof(error_text));
    if (error == SG_OK)
        error = build_workers(server, error_text, sizeof(error_text));
    if (error == SG_OK)
        error = start_workers(server);
    if (error == SG_OK) {
        log_info(NULL,
                 "serving http://%s, admin http://%s, %u workers, strategy %s, map version %lld",
                 settings->http.listen, settings->admin.listen, server->worker_count,
                 booking_strategy_name(settings->booking.strategy),
                 (long long)shardmap_version(snapshot_get(&server->maps)));
        event_base_loop(server->base, EVLOOP_NO_EXIT_ON_EMPTY);
        log_info(NULL, "stopped");
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
