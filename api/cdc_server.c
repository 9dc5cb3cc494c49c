/*
 * The loop around the consumers. See cdc_server.h.
 *
 * Nothing crosses threads here; the snapshots are those that health publishes and reads by habit.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/cdc_server.h"

#include <event2/event.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "api/cdc_admin.h"
#include "api/http.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "replication/consumer.h"
#include "router/health.h"
#include "shardmap/shardmap.h"

/* The admin listener serves a few operators and a scraper. */
#define ADMIN_MAX_CONNECTIONS 64
#define SIGNALS 3

struct cdc_server {
    const struct settings *settings;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct snapshot_slot topologies;
    struct health *health;
    struct consumer **consumers;
    size_t consumer_count;
    struct cdc_admin *admin;
    struct http_server *http;
    struct event *signals[SIGNALS];
};

/* --- events ----------------------------------------------------------------------------------- */

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct cdc_server *server = arg;
    (void)what;
    log_info(NULL, "signal %d: stopping", (int)number);
    event_base_loopbreak(server->base);
}

static void on_reload_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    (void)arg;
    log_warn(NULL, "SIGHUP does nothing here: restart seatgrid cdc to have another shard map");
}

static void on_topology(void *arg)
{
    struct cdc_server *server = arg;
    for (size_t i = 0; i < server->consumer_count; i++)
        consumer_sync(server->consumers[i]);
}

/* --- start ------------------------------------------------------------------------------------ */

static bool watch_signal(struct cdc_server *server, int slot, int number, event_callback_fn fn)
{
    server->signals[slot] = evsignal_new(server->base, number, fn, server);
    return server->signals[slot] && event_add(server->signals[slot], NULL) == 0;
}

/* A batch gathers for a millisecond, which the coarse clock of the default would make up to four.
 */
static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static bool build_base(struct cdc_server *server)
{
    server->base = new_base();
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

static bool build_consumers(struct cdc_server *server)
{
    const struct shardmap *map = snapshot_get(&server->maps); /* published here, stays */
    const size_t count = shardmap_shard_count(map);
    server->consumers = calloc(count, sizeof(struct consumer *));
    if (!server->consumers)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct consumer_config config = {.base = server->base,
                                         .reap = server->reap,
                                         .metrics = server->metrics,
                                         .settings = server->settings,
                                         .reader = server->publisher,
                                         .maps = &server->maps,
                                         .topologies = &server->topologies,
                                         .shard = shardmap_shard(map, (int)i)->name};
        server->consumers[i] = consumer_new(&config);
        if (!server->consumers[i])
            return false;
        server->consumer_count = i + 1;
    }
    return true;
}

static bool build_parts(struct cdc_server *server)
{
    server->health = health_new(&(struct health_config){.settings = server->settings,
                                                        .base = server->base,
                                                        .reap = server->reap,
                                                        .metrics = server->metrics,
                                                        .publisher = server->publisher,
                                                        .maps = &server->maps,
                                                        .topologies = &server->topologies,
                                                        .on_change = on_topology,
                                                        .arg = server});
    if (!server->health || !build_consumers(server))
        return false;
    server->admin = cdc_admin_new(server->consumers, server->consumer_count);
    return server->admin != NULL;
}

static enum sg_error open_admin(struct cdc_server *server, char *error_text, size_t error_size)
{
    const struct settings *settings = server->settings;
    int fd;
    enum sg_error error = http_listen(settings->cdc.listen, false, 64, &fd, error_text, error_size);
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
        .listener = "cdc",
        .on_request = cdc_admin_handle,
        .arg = server->admin};
    server->http = http_server_new(&config, fd);
    return server->http ? SG_OK : SG_NO_MEMORY;
}

/* --- life ------------------------------------------------------------------------------------- */

static void tear_down(struct cdc_server *server)
{
    /* answers the reconciles that are under way, so the listener is still there */
    for (size_t i = 0; i < server->consumer_count; i++)
        consumer_free(server->consumers[i]);
    free(server->consumers);
    if (server->http)
        http_server_free(server->http);
    cdc_admin_free(server->admin);
    if (server->health)
        health_free(server->health);
    for (int i = 0; i < SIGNALS; i++) {
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

enum sg_error cdc_server_run(const struct settings *settings, struct shardmap *map)
{
    char error_text[256] = "out of memory or file descriptors";
    struct cdc_server *server = calloc(1, sizeof(*server));
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
    if (built && build_parts(server))
        error = open_admin(server, error_text, sizeof(error_text));
    if (error == SG_OK) {
        log_info(NULL, "consuming %zu shards into redis://%s, admin http://%s, map version %lld",
                 server->consumer_count, settings->redis.address, settings->cdc.listen,
                 (long long)shardmap_version(snapshot_get(&server->maps)));
        event_base_loop(server->base, EVLOOP_NO_EXIT_ON_EMPTY);
        log_info(NULL, "stopped");
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
