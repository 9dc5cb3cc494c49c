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
#include "base/uuid.h"
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
    struct best_news *best_news; /* what the workers tell each other of seats; NULL: nothing */
    unsigned worker;             /* which one this is, from 0 */
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

/* Seats that the router is to choose: the best ones of a tier. router/best.h has the rule. */
struct best_wish {
    const char *tier; /* its name; NULL: the whole house */
    int32_t quantity; /* from 1 */
    bool together;    /* side by side */
};

#define ROUTER_BEST_MAX 8  /* wishes in one request */
#define ROUTER_TIER_MAX 64 /* bytes of a tier's name, UTF-8 */
#define ROUTER_TIERS_MAX 32
#define ROUTER_METHOD_MAX 64 /* bytes of a payment's method, printable ASCII */

struct book_request {
    int64_t event_id;
    const char *user_id;      /* 1..ROUTER_USER_MAX bytes */
    const struct seat *seats; /* 1..booking.max_seats, none twice; none with `best` */
    size_t seat_count;
    const struct best_wish *best; /* instead of seats, all or nothing; all together at most
                                     booking.max_seats seats */
    size_t best_count;            /* at most ROUTER_BEST_MAX */
    int64_t hold_ms;              /* held so long; 0: booked at once */
    const char *method;           /* with hold_ms: an order that is paid so; NULL: no order */
    const char *booking_id;       /* UUID in text; NULL: made here */
    const char *idempotency_key;  /* the client's, NULL for none */
    const char *request_id;       /* for the log */
};

struct book_result {
    struct route route;
    enum sg_error error; /* SG_OK, SG_SEATS_TAKEN, SG_UNKNOWN_EVENT, SG_UNKNOWN_SEAT, SG_KEY_REUSED,
                            SG_OVER_LIMIT, SG_SOLD_OUT, SG_NOT_TOGETHER, SG_UNKNOWN_TIER,
                            SG_DEADLINE, SG_OUTCOME_UNKNOWN, SG_SHARD_UNAVAILABLE, ... */
    bool replayed;       /* SG_OK: the answer of an earlier request with the same key */
    char booking_id[ROUTER_UUID_LEN + 1]; /* SG_OK */
    int64_t created_at_us;                /* SG_OK: since 1970 UTC, the database's clock */
    const char *status;                   /* SG_OK: "confirmed" or "held", as it was told first */
    int64_t expires_at_us;                /* of a hold; else 0 */
    int64_t amount;                       /* SG_OK: integer minor units */
    char currency[4];                     /* ISO 4217; "" for none */
    const struct seat *taken; /* SG_OK: the seats, in request order; NULL: those asked for */
    size_t taken_count;
    int64_t left; /* SG_OVER_LIMIT: seats the user may still take; SG_SOLD_OUT: seats that are free
                     in the tier that has too few */
    const char *tier;        /* SG_UNKNOWN_TIER: the one that the event lacks; NULL: not known */
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
    int64_t expires_at_us; /* of a hold; else 0 */
    int64_t amount;        /* integer minor units */
    const char *currency;  /* ISO 4217; NULL for none */
};

/* error: SG_OK, SG_UNKNOWN_BOOKING, SG_UNKNOWN_EVENT, SG_DEADLINE, SG_SHARD_UNAVAILABLE. */
typedef void router_booking_fn(void *arg, const struct route *route, enum sg_error error,
                               const struct booking *booking);
/* `booking_id`: a UUID in text, checked by the caller. Asked of a replica; a replica that does not
 * know it (yet) does not have the last word, the primary has. */
enum sg_error router_booking_get(struct router *router, int64_t event_id, const char *booking_id,
                                 const struct read_wish *wish, router_booking_fn *fn, void *arg);

/* --- changes of a booking --------------------------------------------------------------------- */

enum change_kind {
    CHANGE_CONFIRM,
    CHANGE_EXTEND,  /* of a hold */
    CHANGE_CANCEL,  /* releases a hold, cancels a booking; what has been paid is given back */
    CHANGE_TRANSFER /* of a confirmed booking to another user */
};

struct change_request {
    enum change_kind kind;
    int64_t event_id;
    const char *booking_id;      /* UUID in text */
    const char *user_id;         /* who asks: only the owner may */
    int64_t extend_ms;           /* CHANGE_EXTEND: from now on */
    const char *to_user;         /* CHANGE_TRANSFER */
    const char *idempotency_key; /* NULL for none */
    const char *request_id;      /* for the log */
};

struct change_result {
    struct route route;
    enum sg_error error; /* SG_OK, SG_UNKNOWN_BOOKING, SG_NOT_OWNER, SG_HOLD_EXPIRED,
                            SG_BOOKING_ENDED, SG_NOT_HELD, SG_NOT_CONFIRMED, SG_EXTENSIONS_USED,
                            SG_OVER_LIMIT, SG_ORDER_OPEN, SG_KEY_REUSED, SG_DEADLINE,
                            SG_OUTCOME_UNKNOWN, SG_SHARD_UNAVAILABLE, ... */
    bool replayed;
    const struct booking *booking; /* SG_OK: as it stands now; else NULL */
    struct read_token token;
    enum shardmap_durability durability;
    int64_t left; /* SG_OVER_LIMIT: seats that the user may still take */
};

typedef void router_change_fn(void *arg, const struct change_result *result);
/* In the lane of changes of the shard. Refuses like router_book. */
enum sg_error router_change(struct router *router, const struct change_request *request,
                            router_change_fn *fn, void *arg);

/* --- refusals that are kept ------------------------------------------------------------------- */

struct refusal {
    const char *code; /* as in the API's problems */
    const char *user_id;
    const struct seat *seats; /* the conflicts */
    size_t seat_count;
};

typedef void router_done_fn(void *arg, enum sg_error error);
/* What became of a booking from the queue that was refused. Once: a second one changes nothing. */
enum sg_error router_refusal_store(struct router *router, int64_t event_id, const char *booking_id,
                                   const struct refusal *refusal, router_done_fn *fn, void *arg);

typedef void router_refusal_fn(void *arg, const struct route *route, enum sg_error error,
                               const struct refusal *refusal);
/* error: SG_OK (refusal NULL: there is none), ... Asked of the primary. */
enum sg_error router_refusal_get(struct router *router, int64_t event_id, const char *booking_id,
                                 router_refusal_fn *fn, void *arg);

/* --- orders ----------------------------------------------------------------------------------- */

/* An order is a booking that is paid for: its id is the booking's. migrations/0005_life.sql has the
 * states; payment/ goes through them. */
struct order {
    char order_id[ROUTER_UUID_LEN + 1];
    int64_t event_id;
    const char *state;   /* reserved charging charged confirmed failed refunding refunded */
    const char *problem; /* why it failed or was refunded, a code; NULL for none */
    const char *method;
    const char *currency;          /* NULL for none */
    int64_t amount;                /* integer minor units */
    int64_t age_ms;                /* router_orders_due: since it began; else 0 */
    const struct booking *booking; /* router_order_get; else NULL */
};

typedef void router_order_fn(void *arg, const struct route *route, enum sg_error error,
                             const struct order *order);
/* error: SG_OK, SG_UNKNOWN_ORDER, SG_UNKNOWN_EVENT, ... Read as router_booking_get. */
enum sg_error router_order_get(struct router *router, int64_t event_id, const char *order_id,
                               const struct read_wish *wish, router_order_fn *fn, void *arg);

struct order_step {
    int64_t event_id;
    const char *order_id;
    const char *from;    /* the state it is in, as far as is known */
    const char *action;  /* charging later charged confirm fail refund refunded */
    int64_t due_ms;      /* nobody else goes on with it so long */
    const char *problem; /* NULL: as it is */
};

struct order_moved {
    enum sg_error error; /* SG_OK: done, or `moved`; SG_UNKNOWN_ORDER, SG_OUTCOME_UNKNOWN, ... */
    bool moved;          /* it was not in `from`: nothing was done, `state` says where it is */
    const char *state;
    const char *problem;
    struct read_token token;
};

typedef void router_order_step_fn(void *arg, const struct order_moved *moved);
/* One compare-and-set of order_step() in SQL; the same step again does nothing more. */
enum sg_error router_order_step(struct router *router, const struct order_step *step,
                                router_order_step_fn *fn, void *arg);

typedef void router_orders_fn(void *arg, enum sg_error error, const struct order *orders,
                              size_t count);
/* Orders of the shard that nobody goes on with, now the caller's for lease_ms; at most 100. */
enum sg_error router_orders_due(struct router *router, const char *shard, size_t limit,
                                int64_t lease_ms, router_orders_fn *fn, void *arg);

/* --- the waiting list ------------------------------------------------------------------------- */

struct waitlist_entry {
    char entry_id[ROUTER_UUID_LEN + 1];
    int64_t event_id;
    const char *user_id;
    struct best_wish wish;
    const char *state;      /* waiting offered accepted expired left */
    int64_t position;       /* waiting: from 1; else 0 */
    const char *booking_id; /* the hold that was offered; NULL: none yet */
    int64_t expires_at_us;  /* offered: until then it may be confirmed; else 0 */
    int64_t created_at_us;
};

struct waitlist_request {
    int64_t event_id;
    const char *user_id;
    struct best_wish wish;
    const char *idempotency_key; /* NULL for none */
};

struct waitlist_result {
    const struct route *route;
    enum sg_error error; /* SG_OK, SG_ALREADY_WAITING, SG_UNKNOWN_EVENT, SG_UNKNOWN_TIER,
                            SG_TOO_MANY_SEATS, SG_KEY_REUSED, SG_UNKNOWN_ENTRY, SG_NOT_OWNER,
                            SG_OFFERED (leave: release the hold), ... */
    bool replayed;
    const struct waitlist_entry *entry; /* SG_OK, SG_ALREADY_WAITING (only entry_id); NULL: left */
    struct read_token token;            /* lsn 0: none */
    enum shardmap_durability durability;
};

typedef void router_waitlist_fn(void *arg, const struct waitlist_result *result);
enum sg_error router_waitlist_join(struct router *router, const struct waitlist_request *request,
                                   router_waitlist_fn *fn, void *arg);
enum sg_error router_waitlist_get(struct router *router, int64_t event_id, const char *entry_id,
                                  const struct read_wish *wish, router_waitlist_fn *fn, void *arg);
/* The wish does not count. */
enum sg_error router_waitlist_leave(struct router *router, const struct waitlist_request *request,
                                    const char *entry_id, router_waitlist_fn *fn, void *arg);

/* --- events ----------------------------------------------------------------------------------- */

/* Rows from first_row to the next tier's; the first tier begins at row 1. */
struct event_tier {
    const char *name;
    int64_t price; /* of a seat, integer minor units */
    int32_t first_row;
};

struct event_info {
    int64_t event_id;
    const char *name;
    int64_t starts_at_us;
    int32_t rows;
    int32_t cols;
    int64_t available;
    const struct event_tier *tiers; /* NULL for none */
    size_t tier_count;
    const char *currency; /* NULL for none */
    int32_t max_per_user; /* seats; 0: no limit */
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
    const struct event_tier *tiers; /* NULL for none; at most ROUTER_TIERS_MAX, no name twice */
    size_t tier_count;
    const char *currency; /* ISO 4217, with tiers */
    int32_t max_per_user; /* 0: no limit */
    const char *shard;    /* NULL: the least loaded that has room */
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
    const char *states;     /* one character a seat: . h x */
    const char *status;     /* of the one booking that changed: held confirmed cancelled expired
                               failed; NULL: nobody says which it was */
    struct uuid booking_id; /* with a status: which it was */
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
