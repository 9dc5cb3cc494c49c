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
#include "api/host.h"
#include "base/log.h"
#include "base/settings.h"
#include "replication/consumer.h"
#include "router/health.h"
#include "shardmap/shardmap.h"

/* The admin listener serves a few operators and a scraper. */
#define ADMIN_MAX_CONNECTIONS 64

struct cdc_server {
    struct host host;
    struct health *health;
    struct consumer **consumers;
    size_t consumer_count;
    struct cdc_admin *admin;
};

/* --- events ----------------------------------------------------------------------------------- */

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct cdc_server *server = arg;
    (void)what;
    log_info(NULL, "signal %d: stopping", (int)number);
    event_base_loopbreak(server->host.base);
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

/* --- life ------------------------------------------------------------------------------------- */

static bool build_consumers(struct cdc_server *server)
{
    const struct shardmap *map = host_map(&server->host); /* published here, stays */
    const size_t count = shardmap_shard_count(map);
    server->consumers = calloc(count, sizeof(struct consumer *));
    if (!server->consumers)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct consumer_config config = {.base = server->host.base,
                                         .reap = server->host.reap,
                                         .metrics = server->host.metrics,
                                         .settings = server->host.settings,
                                         .reader = server->host.reader,
                                         .maps = &server->host.maps,
                                         .topologies = &server->host.topologies,
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
    server->health = health_new(&(struct health_config){.settings = server->host.settings,
                                                        .base = server->host.base,
                                                        .reap = server->host.reap,
                                                        .metrics = server->host.metrics,
                                                        .publisher = server->host.reader,
                                                        .maps = &server->host.maps,
                                                        .topologies = &server->host.topologies,
                                                        .on_change = on_topology,
                                                        .arg = server});
    if (!server->health || !build_consumers(server))
        return false;
    server->admin = cdc_admin_new(server->consumers, server->consumer_count);
    return server->admin != NULL;
}

static void tear_down(struct cdc_server *server)
{
    /* answers the reconciles that are under way, so the listener is still there */
    for (size_t i = 0; i < server->consumer_count; i++)
        consumer_free(server->consumers[i]);
    free(server->consumers);
    host_stop_listening(&server->host);
    cdc_admin_free(server->admin);
    if (server->health)
        health_free(server->health);
    host_end(&server->host);
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
    /* A batch gathers for a millisecond. */
    if (host_begin(&server->host, settings, map, true, on_stop_signal, on_reload_signal, server) &&
        build_parts(server))
        error = host_listen(&server->host, settings->cdc.listen, "cdc", ADMIN_MAX_CONNECTIONS,
                            cdc_admin_handle, server->admin, error_text, sizeof(error_text));
    if (error == SG_OK) {
        log_info(NULL, "consuming %zu shards into redis://%s, admin http://%s, map version %lld",
                 server->consumer_count, settings->redis.address, settings->cdc.listen,
                 (long long)shardmap_version(host_map(&server->host)));
        host_run(&server->host);
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
