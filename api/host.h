/*
 * What every server process stands on: a loop, its signals, the snapshots of map and topology, an
 * admin listener. server.c, cdc_server.c, queue_server.c and mockpay_server.c build on one.
 *
 * In: the settings, the first shard map, and what to call. Out: the fields below, to read. Owns all
 * of them. Begin, listen, run, stop listening, end: in this order; what the process builds between
 * goes before what it stands on. Nothing here crosses threads but the two snapshots.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HOST_H
#define SG_API_HOST_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/http.h"
#include "base/error.h"
#include "base/snapshot.h"

#define HOST_SIGNALS 3

struct settings;
struct shardmap;

struct host {
    const struct settings *settings;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *reader; /* of this thread; it publishes, too */
    struct snapshot_slot maps;
    struct snapshot_slot topologies;
    struct http_server *http; /* NULL: not listening */
    struct event *signals[HOST_SIGNALS];
};

/* SIGTERM and SIGINT call on_stop, SIGHUP on_reload (may be NULL), with `arg`. Takes the map (NULL:
 * there is none). With precise timers a wait is not rounded to the coarse clock's 4 ms. False: no
 * memory or descriptors; host_end is due in either case. */
bool host_begin(struct host *host, const struct settings *settings, struct shardmap *map,
                bool precise_timers, event_callback_fn on_stop, event_callback_fn on_reload,
                void *arg);
/* Listens for requests, with the bounds of http.*, but `max_connections`. SG_OK, or what
 * http_listen says, or SG_NO_MEMORY. */
enum sg_error host_listen(struct host *host, const char *address, const char *listener,
                          size_t max_connections,
                          void (*on_request)(void *arg, struct http_request *request), void *arg,
                          char *error_text, size_t error_size);
/* Until event_base_loopbreak. */
void host_run(struct host *host);
/* The map that was published last; valid until the loop goes on. */
const struct shardmap *host_map(struct host *host);
void host_stop_listening(struct host *host);
void host_end(struct host *host);

#endif
