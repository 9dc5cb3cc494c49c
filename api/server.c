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
#include "api/host.h"
#include "api/http.h"
#include "api/worker.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/redisconn.h"
#include "base/settings.h"
#include "queue/publisher.h"
#include "router/best_news.h"
#include "router/health.h"
#include "router/reload.h"
#include "router/sweeper.h"
#include "router/topology.h"
#include "shardmap/shardmap.h"

#define WORKERS_MAX 256
#define MAILBOX_CAPACITY 256

/* The admin listener serves a few operators and a scraper. */
#define ADMIN_MAX_CONNECTIONS 64

struct server {
    struct host host; /* its listener is the admin one */
    struct health *health;
    struct sweeper *sweeper;
    struct redisconn *redis; /* for the gauge and the log alone */
    struct reload *reload;
    struct queue_publisher *queue; /* NULL: no RabbitMQ */
    struct best_news *best_news;
    struct admin *admin;
    unsigned worker_count;
    unsigned drained;
    bool stopping;
    struct worker *workers[WORKERS_MAX];
    struct mailbox *from_workers[WORKERS_MAX];
};

/* --- events of the control thread ------------------------------------------------------------- */

static void stop(struct server *server)
{
    event_base_loopbreak(server->host.base);
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
             (long long)server->host.settings->http.drain_timeout_ms);
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

static bool build_control(struct server *server)
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
    server->reload = reload_new(&(struct reload_config){.settings = server->host.settings,
                                                        .base = server->host.base,
                                                        .reap = server->host.reap,
                                                        .metrics = server->host.metrics,
                                                        .publisher = server->host.reader,
                                                        .maps = &server->host.maps,
                                                        .topologies = &server->host.topologies,
                                                        .on_published = on_published,
                                                        .arg = server});
    server->sweeper = sweeper_new(&(struct sweeper_config){.settings = server->host.settings,
                                                           .base = server->host.base,
                                                           .reap = server->host.reap,
                                                           .metrics = server->host.metrics,
                                                           .reader = server->host.reader,
                                                           .maps = &server->host.maps,
                                                           .topologies = &server->host.topologies});
    if (!server->health || !server->reload || !server->sweeper)
        return false;
    if (server->host.settings->redis.address[0])
        server->redis = redisconn_new(&(struct redisconn_config){.base = server->host.base,
                                                                 .reap = server->host.reap,
                                                                 .metrics = server->host.metrics,
                                                                 .settings = server->host.settings,
                                                                 .name = "server",
                                                                 .in_flight_max = 16});
    server->admin = admin_new(&(struct admin_config){.settings = server->host.settings,
                                                     .reader = server->host.reader,
                                                     .maps = &server->host.maps,
                                                     .topologies = &server->host.topologies,
                                                     .reload = server->reload});
    return server->admin != NULL;
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

/* With the queues of the shards that are there now; another's is made when it is needed. */
static enum sg_error build_publisher(struct server *server, char *error_text, size_t error_size)
{
    const struct shardmap *map = host_map(&server->host); /* published here, stays */
    if (!server->host.settings->queue.url[0])
        return SG_OK;
    struct queue_publisher_config config = {.settings = server->host.settings,
                                            .shard_count = shardmap_shard_count(map)};
    const char **names = calloc(config.shard_count, sizeof(*names));
    for (size_t i = 0; names && i < config.shard_count; i++)
        names[i] = shardmap_shard(map, (int)i)->name;
    config.shards = names;
    if (names)
        server->queue = queue_publisher_new(&config);
    free(names);
    if (server->queue)
        return SG_OK;
    snprintf(error_text, error_size, "the publisher for queue.url could not be made");
    return SG_NO_MEMORY;
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
    enum sg_error error = check_port_free(server->host.settings, error_text, error_size);
    unsigned count = wanted_workers(server->host.settings);
    server->best_news = best_news_new(count);
    if (!server->best_news)
        return SG_NO_MEMORY;
    for (unsigned i = 0; error == SG_OK && i < count; i++) {
        server->from_workers[i] =
            mailbox_new(server->host.base, MAILBOX_CAPACITY, on_worker_event, server);
        if (!server->from_workers[i])
            return SG_NO_MEMORY;
        struct worker_config config = {.settings = server->host.settings,
                                       .index = i,
                                       .count = count,
                                       .domain = server->host.domain,
                                       .maps = &server->host.maps,
                                       .topologies = &server->host.topologies,
                                       .to_control = server->from_workers[i],
                                       .publisher = server->queue,
                                       .best_news = server->best_news};
        error = worker_new(&config, &server->workers[i], error_text, error_size);
        server->worker_count = i + 1;
    }
    return error;
}

static enum sg_error start_workers(struct server *server)
{
    enum sg_error error = server->queue ? queue_publisher_start(server->queue) : SG_OK;
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
    queue_publisher_stop(server->queue);
    for (unsigned i = 0; i < server->worker_count; i++) {
        worker_free(server->workers[i]);
        mailbox_free(server->from_workers[i]);
    }
    best_news_free(server->best_news);
    queue_publisher_free(server->queue);
    reload_free(server->reload); /* answers a reload that is under way */
    host_stop_listening(&server->host);
    admin_free(server->admin);
    redisconn_free(server->redis);
    sweeper_free(server->sweeper);
    if (server->health)
        health_free(server->health);
    host_end(&server->host);
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
    if (host_begin(&server->host, settings, map, false, on_stop_signal, on_reload_signal, server) &&
        build_control(server))
        error = host_listen(&server->host, settings->admin.listen, "admin", ADMIN_MAX_CONNECTIONS,
                            admin_handle, server->admin, error_text, sizeof(error_text));
    if (error == SG_OK)
        error = build_publisher(server, error_text, sizeof(error_text));
    if (error == SG_OK)
        error = build_workers(server, error_text, sizeof(error_text));
    if (error == SG_OK)
        error = start_workers(server);
    if (error == SG_OK) {
        log_info(NULL,
                 "serving http://%s, admin http://%s, %u workers, strategy %s, map version %lld",
                 settings->http.listen, settings->admin.listen, server->worker_count,
                 booking_strategy_name(settings->booking.strategy),
                 (long long)shardmap_version(host_map(&server->host)));
        host_run(&server->host);
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
