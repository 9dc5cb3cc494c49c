/*
 * The loop around the consumer of the queue. See queue_server.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/queue_server.h"

#include <event2/event.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/host.h"
#include "api/http.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/consumer.h"
#include "router/health.h"
#include "router/reload.h"
#include "router/router.h"
#include "shardmap/shardmap.h"

/* The admin listener serves a few operators and a scraper. */
#define ADMIN_MAX_CONNECTIONS 64
#define DRAIN_CHECK_US 10000
#define MAP_CHECK_US 5000000
#define BODY_MAX ((size_t)64 << 20)
#define JSON_TYPE "application/json"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct queue_server {
    struct host host;
    struct health *health;
    struct router *router;
    struct reload *reload;
    struct queue_consumer *consumer;
    struct event *map_check;
    struct stat map_file; /* as it was when it was last read and not refused */
    struct stat map_seen; /* as it is read now */
    struct event *drain_check;
    int64_t drain_deadline_us; /* 0: not stopping */
    bool replacing;            /* the consumer, for one of more shards, as soon as it has drained */
    enum sg_error error;       /* why it stopped by itself */
    struct dynbuf body;        /* the answer being written; free between any two answers */
};

/* --- the consumer ----------------------------------------------------------------------------- */

static bool build_consumer(struct queue_server *server)
{
    const struct shardmap *map = host_map(&server->host); /* published here, stays */
    const size_t count = shardmap_shard_count(map);
    const char **names = calloc(count, sizeof(*names));
    for (size_t i = 0; names && i < count; i++)
        names[i] = shardmap_shard(map, (int)i)->name;
    if (names)
        server->consumer =
            queue_consumer_new(&(struct queue_consumer_config){.settings = server->host.settings,
                                                               .base = server->host.base,
                                                               .metrics = server->host.metrics,
                                                               .router = server->router,
                                                               .shards = names,
                                                               .shard_count = count});
    free(names);
    return server->consumer != NULL;
}

/* Nothing is under way. What it had and did not ask for comes again. */
static void replace_consumer(struct queue_server *server)
{
    queue_consumer_stop(server->consumer);
    queue_consumer_free(server->consumer);
    server->consumer = NULL;
    server->replacing = false;
    if (build_consumer(server) && queue_consumer_start(server->consumer) == SG_OK)
        return;
    log_error(NULL, "the queues could not be taken anew: out of memory or file descriptors");
    server->error = SG_NO_MEMORY;
    event_base_loopbreak(server->host.base);
}

/* --- events ----------------------------------------------------------------------------------- */

static void on_drain_check(evutil_socket_t fd, short what, void *arg)
{
    struct queue_server *server = arg;
    struct timeval tv = clock_timeval_us(DRAIN_CHECK_US);
    bool stopping = server->drain_deadline_us != 0;
    bool drained = queue_consumer_busy(server->consumer) == 0;
    (void)fd;
    (void)what;
    if (stopping && (drained || clock_mono_us() >= server->drain_deadline_us))
        event_base_loopbreak(server->host.base);
    else if (server->replacing && drained)
        replace_consumer(server);
    else if (stopping || server->replacing)
        event_add(server->drain_check, &tv);
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct queue_server *server = arg;
    (void)what;
    if (server->drain_deadline_us) {
        log_warn(NULL, "second signal: stopping at once");
        event_base_loopbreak(server->host.base);
        return;
    }
    log_info(NULL, "signal %d: finishing what is under way, at most %lld ms", (int)number,
             (long long)server->host.settings->http.drain_timeout_ms);
    queue_consumer_drain(server->consumer);
    server->drain_deadline_us =
        clock_mono_us() + server->host.settings->http.drain_timeout_ms * 1000 + 1;
    on_drain_check(-1, 0, server);
}

static void on_topology(void *arg)
{
    struct queue_server *server = arg;
    if (server->router)
        router_sync_topology(server->router);
}

static void on_suspect(void *arg, const char *node)
{
    struct queue_server *server = arg;
    health_suspect(server->health, node);
}

/* --- another shard map ------------------------------------------------------------------------ */

static void on_reloaded(void *arg, const struct reload_report *report)
{
    struct queue_server *server = arg;
    if (report->outcome != RELOAD_REFUSED)
        server->map_file = server->map_seen;
}

/* Unless one is under way: then the next look finds what it missed. */
static void reload(struct queue_server *server)
{
    struct stat now;
    if (stat(server->host.settings->shard_map, &now) == 0 &&
        reload_start(server->reload, false, false, on_reloaded, server) == SG_OK)
        server->map_seen = now;
}

static void on_reload_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    reload(arg);
}

/* Whoever gives `seatgrid serve` a map with another shard has its bookings accepted from then on:
 * nobody is to remember that there are workers, too. A map that was refused is tried again. */
static void on_map_check(evutil_socket_t fd, short what, void *arg)
{
    struct queue_server *server = arg;
    const struct stat *old = &server->map_file;
    struct timeval tv = clock_timeval_us(MAP_CHECK_US);
    struct stat now;
    (void)fd;
    (void)what;
    if (stat(server->host.settings->shard_map, &now) == 0 &&
        (now.st_ino != old->st_ino || now.st_size != old->st_size ||
         now.st_mtim.tv_sec != old->st_mtim.tv_sec || now.st_mtim.tv_nsec != old->st_mtim.tv_nsec))
        reload(server);
    event_add(server->map_check, &tv);
}

static void on_published(void *arg)
{
    struct queue_server *server = arg;
    const struct shardmap *map = host_map(&server->host);
    health_sync_map(server->health);
    router_sync_map(server->router);
    for (size_t i = 0; i < shardmap_shard_count(map); i++)
        server->replacing =
            server->replacing ||
            !queue_consumer_has(server->consumer, shardmap_shard(map, (int)i)->name);
    if (!server->replacing)
        return;
    log_info(NULL, "the map has another shard: the queues are taken anew");
    queue_consumer_drain(server->consumer);
    on_drain_check(-1, 0, server);
}

/* --- the admin listener ----------------------------------------------------------------------- */

static void reply(struct queue_server *server, struct http_request *request, int status,
                  const char *type)
{
    http_reply_header(request, "Cache-Control", "no-store");
    http_reply(request, status, type, dynbuf_text(&server->body), server->body.len);
}

static void fail(struct queue_server *server, struct http_request *request, enum sg_error error)
{
    const struct problem problem = {.error = error};
    dynbuf_reset(&server->body);
    problem_write(&server->body, &problem);
    reply(server, request, sg_error_http_status(error), PROBLEM_CONTENT_TYPE);
}

static void get_healthz(struct queue_server *server, struct http_request *request)
{
    dynbuf_adds(&server->body, "{\"status\":\"alive\"}");
    reply(server, request, 200, JSON_TYPE);
}

static void get_readyz(struct queue_server *server, struct http_request *request)
{
    bool ready = queue_consumer_is_connected(server->consumer);
    dynbuf_addf(&server->body, "{\"status\":\"%s\"}", ready ? "ready" : "waiting for RabbitMQ");
    reply(server, request, ready ? 200 : 503, JSON_TYPE);
}

static void get_metrics(struct queue_server *server, struct http_request *request)
{
    metrics_render(&server->body);
    reply(server, request, 200, METRICS_TYPE);
}

static void get_queue(struct queue_server *server, struct http_request *request)
{
    queue_consumer_write_status(server->consumer, &server->body);
    reply(server, request, 200, JSON_TYPE);
}

static const struct endpoint {
    const char *path;
    void (*handle)(struct queue_server *server, struct http_request *request);
} endpoints[] = {
    {"/healthz", get_healthz},
    {"/readyz", get_readyz},
    {"/metrics", get_metrics},
    {"/admin/queue", get_queue},
};

static void on_request(void *arg, struct http_request *request)
{
    struct queue_server *server = arg;
    enum http_method method = http_request_method(request);
    dynbuf_reset(&server->body);
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        if (strcmp(endpoints[i].path, http_request_path(request)) != 0)
            continue;
        if (method == HTTP_GET || method == HTTP_HEAD) {
            endpoints[i].handle(server, request);
        } else {
            http_reply_header(request, "Allow", "GET, HEAD");
            fail(server, request, SG_METHOD_NOT_ALLOWED);
        }
        return;
    }
    fail(server, request, SG_NOT_FOUND);
}

/* --- life ------------------------------------------------------------------------------------- */

static bool build_router(struct queue_server *server)
{
    server->health = health_new(&(struct health_config){.settings = server->host.settings,
                                                        .base = server->host.base,
                                                        .reap = server->host.reap,
                                                        .metrics = server->host.metrics,
                                                        .publisher = server->host.reader,
                                                        .maps = &server->host.maps,
                                                        .topologies = &server->host.topologies,
                                                        .attest = true,
                                                        .on_change = on_topology,
                                                        .arg = server});
    if (!server->health)
        return false;
    server->router = router_new(&(struct router_config){.settings = server->host.settings,
                                                        .base = server->host.base,
                                                        .metrics = server->host.metrics,
                                                        .reap = server->host.reap,
                                                        .reader = server->host.reader,
                                                        .maps = &server->host.maps,
                                                        .topologies = &server->host.topologies,
                                                        .on_suspect = on_suspect,
                                                        .on_suspect_arg = server});
    return server->router != NULL;
}

static bool build_reload(struct queue_server *server)
{
    server->reload = reload_new(&(struct reload_config){.settings = server->host.settings,
                                                        .base = server->host.base,
                                                        .reap = server->host.reap,
                                                        .metrics = server->host.metrics,
                                                        .publisher = server->host.reader,
                                                        .maps = &server->host.maps,
                                                        .topologies = &server->host.topologies,
                                                        .on_published = on_published,
                                                        .arg = server});
    return server->reload != NULL;
}

static void tear_down(struct queue_server *server)
{
    reload_free(server->reload);
    queue_consumer_stop(server->consumer);
    if (server->router)
        router_free(server->router); /* calls back what is under way */
    queue_consumer_free(server->consumer);
    host_stop_listening(&server->host);
    if (server->health)
        health_free(server->health);
    if (server->drain_check)
        event_free(server->drain_check);
    if (server->map_check)
        event_free(server->map_check);
    host_end(&server->host);
    dynbuf_done(&server->body);
    free(server);
}

static enum sg_error start(struct queue_server *server, char *error_text, size_t error_size)
{
    server->drain_check = evtimer_new(server->host.base, on_drain_check, server);
    server->map_check = evtimer_new(server->host.base, on_map_check, server);
    if (!server->drain_check || !server->map_check || !build_router(server) ||
        !build_reload(server) || !build_consumer(server))
        return SG_NO_MEMORY;
    on_map_check(-1, 0, server);
    enum sg_error error =
        host_listen(&server->host, server->host.settings->queue.worker_listen, "worker",
                    ADMIN_MAX_CONNECTIONS, on_request, server, error_text, error_size);
    return error ? error : queue_consumer_start(server->consumer);
}

enum sg_error queue_server_run(const struct settings *settings, struct shardmap *map)
{
    char error_text[256] = "out of memory or file descriptors";
    struct queue_server *server = calloc(1, sizeof(*server));
    enum sg_error error = SG_NO_MEMORY;
    if (!server) {
        shardmap_free(map);
        return SG_NO_MEMORY;
    }
    dynbuf_init(&server->body, BODY_MAX);
    if (host_begin(&server->host, settings, map, false, on_stop_signal, on_reload_signal, server))
        error = start(server, error_text, sizeof(error_text));
    if (error == SG_OK) {
        log_info(NULL, "working off the queues of %zu shards, admin http://%s, map version %lld",
                 shardmap_shard_count(host_map(&server->host)), settings->queue.worker_listen,
                 (long long)shardmap_version(host_map(&server->host)));
        host_run(&server->host);
        error = server->error;
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
