/*
 * The load of a drill: customers and readers at a fixed rate, whatever the answers do.
 *
 *   clock ─> arrival due ─> traffic: what to ask ─> a kept connection ─> answer ─> history
 *                                                         ^                │
 *                                                         └─ asked again ──┘
 *
 * Open loop: arrivals are due on a fixed grid and a latency runs from there, so a stall is charged
 * to every request that it delayed. What arrives while max_in_flight requests are under way is
 * noted as not sent. Each booking has its Idempotency-Key; one that may have been done without our
 * knowing (history.h: ambiguous) or that reached nobody is asked again with the same key after a
 * pause, until it is answered 201 or refused, or retry_for_ms are over. Any other failure stands: a
 * client of ours sees it.
 *
 * The load has a thread and an event loop of its own, so that the caller may block meanwhile. It
 * writes the history, which nobody else may touch between load_start and load_stop. Everything else
 * here is called from the thread that started it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_LOAD_H
#define SG_DRILL_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct history;
struct load;

#define LOAD_SHARDS_MAX 16

/* load_options_init sets all but address and shards. */
struct load_options {
    const char *address; /* of the HTTP API: "127.0.0.1:8080" */
    const char *const *shards;
    size_t shard_count;
    int bookings_per_s;    /* 1000, over all shards in turn */
    int reads_per_s;       /* 300, likewise */
    int expected_s;        /* 60: how long it will run; sizes the events */
    int events_per_shard;  /* 4 large ones, for most bookings */
    int watched_per_shard; /* 4 of 20 x 20: readers look at them, and they sell slowly */
    int fight_percent;     /* 5: bookings that ask for seats asked for just now */
    int bounds_ms[2];      /* 250, 1000: what readers with a bound ask for */
    int max_in_flight;     /* 4000: connections, and so requests under way */
    int answer_timeout_ms; /* 15000: the client waits no longer */
    int retry_pause_ms;    /* 100 */
    int retry_for_ms;      /* 20000, from the first attempt */
    uint64_t seed;         /* of what is asked, not of when */
};

void load_options_init(struct load_options *options);

/* Makes the events (blocking, asked again for up to 10 s) and starts the load. All options are
 * copied. SG_OK and *ret_load, or a line for people in error_text. The history is borrowed until
 * load_stop and has to be empty. */
enum sg_error load_start(const struct load_options *options, struct history *history,
                         struct load **ret_load, char *error_text, size_t error_size);

/* What one shard's load has come to up to now; all counts since the start. */
struct load_progress {
    uint64_t acknowledged;        /* bookings answered 201 */
    uint64_t refused;             /* bookings refused: history_is_refusal */
    uint64_t failed;              /* attempts and reads that ended any other way */
    uint64_t not_sent;            /* arrivals beyond max_in_flight, or beyond the history's bound */
    uint64_t reads;               /* seat maps got */
    int64_t acknowledged_sent_us; /* latest sent_us of an acknowledged booking; 0: none yet */
    int64_t acknowledged_us;      /* when the last acknowledgement came */
};

/* From any thread, while it runs or afterwards; an index of options.shards. */
void load_progress(const struct load *load, size_t shard, struct load_progress *ret_progress);

/* Waits until every shard acknowledges bookings and answers reads at the rate asked for: within one
 * half second no failure, nothing left unsent, and at least half of the arrivals done. False when
 * timeout_ms are over. Also for "steady again" after a fault. */
bool load_wait_steady(const struct load *load, int64_t timeout_ms);
/* Waits until a booking that was SENT at since_us or later has been acknowledged on that shard: it
 * is written to again. False when timeout_ms are over. */
bool load_wait_writes(const struct load *load, size_t shard, int64_t since_us, int64_t timeout_ms);

/* No new arrivals; waits until what is under way, or waits to be asked again, has ended, at most
 * drain_ms; ends and joins the thread. Then the history is the caller's. What is still under way
 * stays PENDING in it. Once only. */
void load_stop(struct load *load, int64_t drain_ms);
/* NULL is fine. Stops it first, with no drain, unless it has been stopped. */
void load_free(struct load *load);

#endif
