/*
 * The router: which shard, which node, and doing it there. What the API may ask of it.
 *
 *   api ── router_book ──────> lane of the shard ── batch ──> primary
 *   api ── router_seatmap ───> single flight ─────── read ──> replica
 *   api <── callback(result) ─────────────────────────────────┘
 *
 * One router a worker thread; everything here is called, and calls back, on that thread.
 * The contract of every call that takes a callback: SG_OK means accepted, and the callback runs
 * exactly once, later, never from inside the call; any other value means refused, and it never
 * runs. Arguments are borrowed for the call, results for the callback. libpq stays behind this
 * line.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ROUTER_H
#define SG_ROUTER_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "shardmap/shardmap.h"

struct event_base;
struct metrics_set;
struct reap_list;
struct router;
struct settings;
struct snapshot_reader;
struct snapshot_slot;

#define ROUTER_USER_MAX 64   /* bytes of a user id, printable */
#define ROUTER_KEY_MAX 255   /* bytes of an Idempotency-Key, printable ASCII */
#define ROUTER_NAME_MAX 200  /* bytes of an event's name, UTF-8 */
#define ROUTER_UUID_LEN 36   /* bytes of a booking id in text */
#define ROUTER_SEATS_MAX 100 /* hard bound of booking.max_seats */

/* What is borrowed by a router and outlives it. */
struct router_config {
    const struct settings *settings;
    struct event_base *base;
    struct metrics_set *metrics;
    struct reap_list *reap;
    struct snapshot_reader *reader;
    const struct snapshot_slot *maps;       /* struct shardmap */
    const struct snapshot_slot *topologies; /* struct topology */
    /* Called when a node turned out not to be what the topology says (may be NULL). */
    void (*on_suspect)(void *arg, const char *node);
    void *on_suspect_arg;
};

struct router *router_new(const struct router_config *config);
/* Calls back everything that is under way with SG_SHARD_UNAVAILABLE first. */
void router_free(struct router *router);
/* The shard map changed: open and close what it asks for. Requests in flight are left in peace.
 * Every call also notices by itself; this is for workers without requests. */
void router_sync_map(struct router *router);
/* The topology changed: everything that waits for a node looks at it now, and not at its next tick.
 */
void router_sync_topology(struct router *router);
/* Requests that are accepted and not yet called back. */
size_t router_in_flight(const struct router *router);

/* SeatGrid-Token: what a write tells, and a later read brings, so that a user sees their own
 * booking. The read goes to a replica that has replayed it, else to the primary. */
struct read_token {
    char shard[SHARDMAP_NAME_MAX + 1];
    int32_t timeline;
    uint64_t lsn; /* 0: no token */
};

#define ROUTER_TOKENS_MAX 16

/* How fresh a reader wants the answer. Where a function takes one, NULL asks for nothing. */
struct read_wish {
    int64_t max_staleness_us;        /* -1: the default bound, reads.max_staleness_ms */
    const struct read_token *tokens; /* what the reader has seen, one a shard at most */
    size_t token_count;
};

/* Where an answer came from. shard "" when the event is on no shard, node "" when none was asked.
 */
struct route {
    char shard[SHARDMAP_NAME_MAX + 1];
    char node[SHARDMAP_NAME_MAX + 1];
    int64_t map_version;
    int64_t staleness_us;   /* upper bound of the data's age; 0 from a primary, -1 unknown/none */
    struct read_token seen; /* who reads on with it is not shown anything older; lsn 0: not told */
};

/* A version of the map for answers that need no shard (errors before routing). */
int64_t router_map_version(struct router *router);
/* Fills shard and map_version for an event; SG_UNKNOWN_EVENT if the map has no shard for it. */
enum sg_error router_locate(struct router *router, int64_t event_id, struct route *ret_route);

struct seat {
    int32_t row; /* from 1 */
    int32_t col; /* from 1 */
};

/* --- bookings --------------------------------------------------------------------------------- */

struct book_request {
    int64_t event_id;
    const char *user_id;      /* 1..ROUTER_USER_MAX bytes */
    const struct seat *seats; /* 1..booking.max_seats, none twice */
    size_t seat_count;
    const char *idempotency_key; /* the client's, NULL for none */
    const char *request_id;      /* for the log */
};

struct book_result {
    struct route route;
    enum sg_error error; /* SG_OK, SG_SEATS_TAKEN, SG_UNKNOWN_EVENT, SG_UNKNOWN_SEAT, SG_KEY_REUSED,
                            SG_DEADLINE, SG_OUTCOME_UNKNOWN, SG_SHARD_UNAVAILABLE, ... */
    bool replayed;       /* SG_OK: the answer of an earlier request with the same key */
    char booking_id[ROUTER_UUID_LEN + 1]; /* SG_OK */
    int64_t created_at_us;                /* SG_OK: since 1970 UTC, the database's clock */
    struct read_token token; /* SG_OK: a read that carries it sees this booking; lsn 0: none */
    enum shardmap_durability durability; /* SG_OK: of this booking, whoever asked for it first */
    const struct seat *seats; /* SG_SEATS_TAKEN, SG_UNKNOWN_SEAT: which ones, in request order */
    size_t seat_count;
};

typedef void router_book_fn(void *arg, const struct book_result *result);

/* Takes all seats or none. Refuses: SG_UNKNOWN_EVENT (no shard), SG_OVERLOADED (lane full),
 * SG_NO_MEMORY. */
enum sg_error router_book(struct router *router, const struct book_request *request,
                          router_book_fn *fn, void *arg);

struct booking {
    char booking_id[ROUTER_UUID_LEN + 1];
    int64_t event_id;
    const char *user_id;
    const char *status; /* held confirmed cancelled expired failed */
    const struct seat *seats;
    size_t seat_count;
    int64_t created_at_us;
};

/* error: SG_OK, SG_UNKNOWN_BOOKING, SG_UNKNOWN_EVENT, SG_DEADLINE, SG_SHARD_UNAVAILABLE. */
typedef void router_booking_fn(void *arg, const struct route *route, enum sg_error error,
                               const struct booking *booking);
/* `booking_id`: a UUID in text, checked by the caller. Asked of a replica; a replica that does not
 * know it (yet) does not have the last word, the primary has. */
enum sg_error router_booking_get(struct router *router, int64_t event_id, const char *booking_id,
                                 const struct read_wish *wish, router_booking_fn *fn, void *arg);

/* --- events ----------------------------------------------------------------------------------- */

struct event_info {
    int64_t event_id;
    const char *name;
    int64_t starts_at_us;
    int32_t rows;
    int32_t cols;
    int64_t available;
    char shard[SHARDMAP_NAME_MAX + 1];
    /* of router_event_create only: */
    struct read_token token; /* lsn 0: none */
    enum shardmap_durability durability;
};

struct event_new {
    const char *name;     /* 1..ROUTER_NAME_MAX bytes of UTF-8 */
    int64_t starts_at_us; /* since 1970 UTC */
    int32_t rows;
    int32_t cols;
    const char *shard; /* NULL: the least loaded that has room */
};

typedef void router_event_fn(void *arg, const struct route *route, enum sg_error error,
                             const struct event_info *event);
/* error: SG_OK, SG_MAP_FULL, SG_DEADLINE, SG_OUTCOME_UNKNOWN, SG_SHARD_UNAVAILABLE. Refuses:
 * SG_UNKNOWN_SHARD, SG_OVERLOADED, SG_SHARD_UNAVAILABLE, SG_NO_MEMORY. */
enum sg_error router_event_create(struct router *router, const struct event_new *event,
                                  router_event_fn *fn, void *arg);
/* error: SG_OK, SG_UNKNOWN_EVENT, ... A just created event that no replica has yet is found on the
 * primary. */
enum sg_error router_event_get(struct router *router, int64_t event_id,
                               const struct read_wish *wish, router_event_fn *fn, void *arg);

struct availability {
    int64_t event_id;
    int64_t total, available, held, booked;
    const char *source; /* "redis", "replica", "primary" */
};

typedef void router_availability_fn(void *arg, const struct route *route, enum sg_error error,
                                    const struct availability *availability);
/* One read of Redis; PostgreSQL when Redis does not know, or the wish asks for something: how far
 * Redis is behind is not known. error as router_event_get. */
enum sg_error router_availability(struct router *router, int64_t event_id,
                                  const struct read_wish *wish, router_availability_fn *fn,
                                  void *arg);

struct event_page {
    const struct event_info *events; /* ascending ids, at most `limit` */
    size_t event_count;
    bool more;                         /* there are further events behind the last one */
    const char *const *missing_shards; /* shards that did not answer: the page is partial */
    size_t missing_count;
    const struct route *sources; /* who answered, one a shard */
    size_t source_count;
    int64_t map_version;
};

typedef void router_events_fn(void *arg, enum sg_error error, const struct event_page *page);
/* Events with id > after_id from all shards, merged. error: SG_OK (also partial),
 * SG_SHARD_UNAVAILABLE when no shard answered. */
enum sg_error router_event_list(struct router *router, int64_t after_id, size_t limit,
                                const struct read_wish *wish, router_events_fn *fn, void *arg);

/* --- my tickets ------------------------------------------------------------------------------- */

/* Tickets are sorted by the event's start, then event, then booking: a place in that order is the
 * same whichever shards answer. */
struct ticket_place {
    int64_t starts_at_us;
    int64_t event_id;
    char booking_id[ROUTER_UUID_LEN + 1];
};

struct ticket {
    struct booking booking;
    const char *event_name;
    int64_t starts_at_us;
    char shard[SHARDMAP_NAME_MAX + 1];
};

struct tickets_request {
    const char *user_id;
    const struct ticket_place *after; /* NULL: from the beginning */
    size_t limit;                     /* 1 to 100 */
    struct read_wish wish;            /* shards of its tokens are asked in any case; with a bound of
                                         the reader's own all of them are */
};

struct ticket_page {
    const struct ticket *tickets;
    size_t ticket_count;
    bool more;
    const char *const *missing_shards; /* did not answer in time: the page is partial */
    size_t missing_count;
    const char *source;          /* "redis": only owning shards were asked; "all": every shard */
    const struct route *sources; /* who answered, one a shard */
    size_t source_count;
    int64_t map_version;
};

typedef void router_tickets_fn(void *arg, enum sg_error error, const struct ticket_page *page);
/* Held and confirmed bookings of a user over all shards, without holds whose time is over. error:
 * SG_OK (also partial), SG_SHARD_UNAVAILABLE when all shards had to be asked and none answered. */
enum sg_error router_tickets(struct router *router, const struct tickets_request *request,
                             router_tickets_fn *fn, void *arg);

/* --- live seats ------------------------------------------------------------------------------- */

#define ROUTER_LIVE_ID_MAX 120

struct live_change {
    int64_t event_id;
    char id[ROUTER_LIVE_ID_MAX + 1]; /* for Last-Event-ID: everything up to it has been told */
    bool resync;                     /* changes may have been missed: read the seat map anew */
    bool gone; /* with resync: the event was deleted, nothing more will come */
    const struct seat *seats;
    size_t seat_count;
    const char *states; /* one character a seat: . h x */
    int64_t total, available, held, booked;
};

struct live_watch;
/* May call router_unwatch, also for its own watch. */
typedef void router_live_fn(void *arg, const struct live_change *change);
/* Watches an event's seats until router_unwatch. `last_id` ("" for none) is the id of the last
 * change that was told, by whichever router: then what came after it is told first, in order. fn is
 * called at least once, later, never from inside: with what was missed, or the counters (no seats),
 * or a resync. Each change is told once, or a resync in its place. While Redis is away nothing is
 * told, and afterwards all of it. Refuses: SG_UNKNOWN_EVENT (no shard), SG_SHARD_UNAVAILABLE (no
 * Redis, or its keys are not kept in step), SG_NO_MEMORY. */
enum sg_error router_watch(struct router *router, int64_t event_id, const char *last_id,
                           router_live_fn *fn, void *arg, struct live_watch **ret_watch);
/* fn is not called any more. */
void router_unwatch(struct router *router, struct live_watch *watch);

/* --- seat maps -------------------------------------------------------------------------------- */

enum seatmap_form { /* representations the API keeps with a seat map, so that readers share them */
                    SEATMAP_JSON,
                    SEATMAP_JSON_GZIP,
                    SEATMAP_FULL,
                    SEATMAP_FULL_GZIP,
                    SEATMAP_PROTOBUF,
                    SEATMAP_PROTOBUF_GZIP,
                    SEATMAP_FORMS
};

struct seatmap_body {
    char *data; /* malloc'ed, freed with the seat map; NULL: not made yet */
    size_t len;
};

/* One state of one event's seats. Shared and counted; immutable but for `bodies`. */
struct seatmap {
    int64_t event_id;
    int32_t rows;
    int32_t cols;
    uint64_t hash;      /* of rows, cols and states; the ETag */
    const char *states; /* rows * cols characters, row by row: . available, h held, x booked */
    struct seatmap_body bodies[SEATMAP_FORMS];
    unsigned refs; /* seatmap_ref / seatmap_unref */
};

struct seatmap *seatmap_ref(struct seatmap *seatmap);
void seatmap_unref(void *seatmap);

/* error: SG_OK, SG_UNKNOWN_EVENT, SG_DEADLINE, SG_SHARD_UNAVAILABLE. The seat map is the callback's
 * to read; to keep it (a body on its way to a socket) take a reference. */
typedef void router_seatmap_fn(void *arg, const struct route *route, enum sg_error error,
                               struct seatmap *seatmap);
enum sg_error router_seatmap(struct router *router, int64_t event_id, const struct read_wish *wish,
                             router_seatmap_fn *fn, void *arg);

/* --- readiness -------------------------------------------------------------------------------- */

struct shard_status {
    char shard[SHARDMAP_NAME_MAX + 1];
    bool writable; /* an up, unfenced primary */
    bool readable; /* any node up */
};

/* Fills at most `max`, returns how many shards the map has. */
size_t router_status(struct router *router, struct shard_status *ret_status, size_t max);

#endif
