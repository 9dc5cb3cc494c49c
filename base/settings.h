/*
 * The settings of `seatgrid serve`: one struct, filled from a libconfig file by one table.
 *
 * Every key, its type, bounds, default and explanation stand in the table in settings.c and nowhere
 * else; configs/seatgrid.example.cfg is written from it and a test holds the two together.
 * Durations end in _ms, sizes in _bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_SETTINGS_H
#define SG_BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;

enum booking_strategy {
    STRATEGY_BATCHED,
    STRATEGY_PESSIMISTIC,
    STRATEGY_OPTIMISTIC,
    STRATEGY_NAIVE
};

enum best_choose { BEST_CHOOSE_MEMORY, BEST_CHOOSE_DATABASE };

enum cdc_streaming { CDC_STREAMING_OFF, CDC_STREAMING_ON };

#define SETTINGS_TEXT_MAX 1024

struct settings {
    int64_t workers;                   /* worker threads; 0: one a core */
    char shard_map[SETTINGS_TEXT_MAX]; /* path; relative to the settings file */
    struct {
        char level[16];  /* debug info warn error */
        char format[16]; /* text json */
    } log;
    struct {
        char listen[256]; /* host:port */
        int64_t backlog;
        int64_t max_connections; /* over all workers */
        int64_t max_header_bytes;
        int64_t max_headers;
        int64_t max_body_bytes;
        int64_t request_timeout_ms;
        int64_t idle_timeout_ms;
        int64_t write_timeout_ms;
        int64_t gzip_min_bytes;   /* smaller bodies are never compressed */
        int64_t retry_after_ms;   /* told in Retry-After, rounded up to seconds */
        int64_t drain_timeout_ms; /* at shutdown: how long requests may take to finish */
    } http;
    struct {
        char listen[256];
    } admin;
    struct {
        enum booking_strategy strategy;
        int64_t max_seats;   /* a booking, at most ROUTER_SEATS_MAX */
        int64_t deadline_ms; /* from acceptance to answer */
        int64_t connections; /* to a primary, a worker and shard; 0: 1 batched, 16 otherwise */
        enum best_choose best_choose; /* who chooses the best seats */
        int64_t best_tries;           /* misses before a view is read anew */
        int64_t best_refresh_ms;      /* 0: never */
        int64_t best_views_bytes;     /* a worker and shard */
        int64_t batch_max;            /* bookings in one batch */
        int64_t gather_us;            /* how long a busy lane lets a batch gather; 0: not at all */
        int64_t queue_max;            /* bookings waiting or in flight, a worker and shard */
        int64_t queue_bytes;          /* the same, their memory */
        int64_t optimistic_tries;
    } booking;
    struct {
        int64_t default_ms; /* of a hold that does not say */
        int64_t min_ms;
        int64_t max_ms; /* also of what an extension adds from now on */
        int64_t max_extensions;
    } holds;
    struct {
        int64_t interval_ms; /* between two looks for holds whose time is over, a shard */
        int64_t limit;       /* seats and bookings in one transaction */
    } sweeper;
    struct {
        int64_t offer_ms; /* how long offered seats are held */
    } waitlist;
    struct {
        int64_t max_seats; /* of an event's grid */
    } events;
    struct {
        int64_t deadline_ms;
        int64_t connections;          /* to a node, a worker */
        int64_t pipeline_max;         /* reads in flight on one connection */
        int64_t queue_max;            /* reads waiting, a worker and node */
        int64_t max_staleness_ms;     /* default bound for a replica to be read from */
        int64_t token_wait_ms;        /* for a replica to replay a token's LSN */
        int64_t primary_max;          /* of these in flight for want of a replica, a worker */
        int64_t partial_timeout_ms;   /* my tickets: a shard without answer by then is left out */
        int64_t seatmap_recent_ms;    /* a seat map this young is served again without asking */
        int64_t seatmap_recent_bytes; /* kept for that, a worker */
    } reads;
    struct {
        int64_t connect_timeout_ms;
        int64_t statement_timeout_ms; /* a batch or read without answer for so long: reconnect */
        int64_t backoff_min_ms;
        int64_t backoff_max_ms;
    } postgres;
    struct {
        int64_t interval_ms;
        int64_t urgent_ms; /* the same for the nodes of a shard that cannot be written to */
        int64_t timeout_ms;
        int64_t down_after;       /* failed probes in a row */
        int64_t up_after;         /* good probes in a row */
        int64_t lag_samples;      /* a replica's newest samples of staleness that are looked at */
        int64_t lag_out;          /* bad ones among them take it out of rotation, good ones in */
        int64_t lag_back_percent; /* of reads.max_staleness_ms: below it a sample is good */
        int64_t slow_start_ms;    /* from its return until a replica has its full share again */
    } health;
    struct {
        int64_t attest_wait_ms; /* for the switchover that has fenced a shard to attest it */
    } failover;
    struct {
        int64_t timeout_ms;    /* all that comes before the promotion; past it, it is undone */
        int64_t fence_ms;      /* of that: how long writes may have to wait for the promotion */
        int64_t max_lag_bytes; /* a target that is further behind is refused */
        int64_t promote_ms;    /* from asking for the promotion until it is a primary */
        int64_t slot_ms;       /* for the consumer's slot, and for tidying the old one */
        int64_t lead_ms;       /* for the other standbys to follow the target before the fence */
        char rejoin_command[SETTINGS_TEXT_MAX]; /* run as COMMAND NODE [UPSTREAM]; "" for none */
        int64_t rejoin_ms;
    } switchover;
    struct {
        char provider_url[SETTINGS_TEXT_MAX]; /* http://host:port[/path]; "": no orders */
        char secret_file[SETTINGS_TEXT_MAX];  /* path; relative to the settings file */
        char callback_url[SETTINGS_TEXT_MAX]; /* "": the service is asked only */
        int64_t timeout_ms;                   /* a question without an answer: unknown */
        int64_t connections;                  /* to the service, a worker */
        int64_t ask_ms;                       /* first pause before it is asked again */
        int64_t ask_max_ms;                   /* the pause doubles up to this */
        int64_t give_up_ms;                   /* a charge undecided for so long is cancelled */
        int64_t hold_ms;                      /* how long an order keeps its seats */
        int64_t wait_ms;                      /* a POST waits no longer for the end */
        int64_t signature_tolerance_ms;       /* a callback's age, or its clock's lead */
        int64_t max_open;                     /* orders under way, a worker */
        int64_t due_ms;                       /* between two looks for orders left behind */
        int64_t lease_ms;                     /* an order is its worker's for so long */
    } payment;
    struct {
        int64_t ask_timeout_ms; /* how long a reload waits for the shards' word */
    } reload;
    struct {
        char address[256]; /* host:port; "" for none */
        int64_t connect_timeout_ms;
        int64_t reply_timeout_ms; /* no answer for so long: the connection is made anew */
        int64_t backoff_min_ms;
        int64_t backoff_max_ms;
        int64_t read_timeout_ms;  /* a request waits no longer for Redis, PostgreSQL answers */
        int64_t max_staleness_ms; /* counters not kept in step for so long are not shown */
        int64_t poll_ms;          /* how often a worker looks which generation is current */
    } redis;
    struct {
        int64_t max_streams;  /* open event streams, over all workers */
        int64_t buffer_bytes; /* waiting for a slow reader; past it the stream is dropped */
        int64_t heartbeat_ms; /* a comment line on a quiet stream */
        int64_t history;      /* changes kept in Redis for Last-Event-ID, an event */
        int64_t keep_ms;      /* the history of an event goes on for so long unwatched */
    } live;
    struct {
        char url[SETTINGS_TEXT_MAX]; /* amqp://user:password@host:port/vhost; "" for none */
        int64_t confirm_ms;          /* from accepting a message to RabbitMQ's word for it */
        int64_t max_pending;         /* messages without that word, a worker */
        int64_t connect_timeout_ms;
        int64_t heartbeat_ms; /* a broker that is silent for two of them is gone */
        int64_t backoff_min_ms;
        int64_t backoff_max_ms;
        char worker_listen[256]; /* admin listener of `seatgrid worker` */
        int64_t prefetch;        /* messages under way in a worker, a shard */
        int64_t gather_us;       /* what comes so soon behind a batch waits for the next one */
        int64_t retry_ms;        /* pause before what could not be booked now is tried again */
        int64_t tries;           /* of a message that fails by itself; then: dead letters */
        int64_t deliveries;      /* that came back unanswered; then: likewise */
    } queue;
    struct {
        char listen[256]; /* admin listener of `seatgrid cdc` */
        enum cdc_streaming streaming;
        int64_t batch_max; /* keys written in one batch */
        int64_t batch_bytes;
        int64_t batches_in_flight;
        int64_t gather_us;     /* how long a busy feed lets a batch gather */
        int64_t redis_loss_ms; /* what Redis may lose in a crash: confirmed only later */
        int64_t feedback_ms;   /* between two reports to the server */
        int64_t heartbeat_ms;  /* of an idle shard, as a WAL message */
        int64_t connect_timeout_ms;
        int64_t silence_timeout_ms; /* a stream without a byte for so long is made anew */
        int64_t takeover_ms;        /* a consumer that is silent for so long is replaced */
        int64_t repair_min_ms;      /* pause before a failed repair is tried again */
        int64_t repair_max_ms;
        int64_t wal_budget_bytes; /* WAL kept by a slot: alarm past it */
        int64_t spool_bytes;      /* of streamed transactions on disk */
        int64_t seed_timeout_ms;  /* for running transactions to end, and for rows */
        int64_t reconcile_ms;     /* between two slices of the slow reconcile; 0: none */
        int64_t reconcile_slice;  /* events and users compared in one slice */
        int64_t reconcile_timeout_ms;
    } cdc;
};

/* Defaults alone. */
void settings_init(struct settings *settings);
/* Reads the file over the defaults. On failure all problems are in *errors, one a line:
 * "file:line: key: what is wrong; how to mend it". SG_IO, SG_CONFIG_INVALID or SG_NO_MEMORY. */
enum sg_error settings_load(const char *path, struct settings *ret_settings, struct dynbuf *errors);
/* Writes the annotated example file: every key with its default, bounds and meaning. */
void settings_write_example(struct dynbuf *out);
/* "batched", "pessimistic", "optimistic", "naive" */
const char *booking_strategy_name(enum booking_strategy strategy);

#endif
