/*
 * Sink: batches of commands to Redis, in order, over one connection a shard.
 *
 *   sink_send(batch) ─> line ─> redisconn ─> Redis
 *   on_batch(result) <── all answers of it are in: done, or what went wrong
 *
 * One batch is at Redis at a time, the others stand in line, ready to go. For a script skips what
 * is below its key's position: had a key's next batch been applied while this one was refused (out
 * of memory for a moment, a lost script), nothing could bring this one's changes back. So a batch
 * that does not end with SINK_DONE takes all behind it along: they are not sent, and answered with
 * its outcome after it (with SINK_LOST if the connection went). The owner sends from there again.
 *
 * Owns the connection; sees to it that the scripts are there (SCRIPT LOAD before on_up, and again
 * on NOSCRIPT, after which the batch counts as failed and is sent again by its owner, harmlessly).
 * Warns once a connection if Redis may evict keys (maxmemory-policy other than noeviction).
 * Bounded by the number of batches that its owner lets fly.
 * Counts seatgrid_cdc_batches_total and seatgrid_cdc_refused_total.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_SINK_H
#define SG_REPLICATION_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dynbuf.h"
#include "base/redisconn.h"

struct event_base;
struct metrics_set;
struct reap_list;
struct settings;
struct sink;

struct sink_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    const struct settings *settings;
    const char *shard; /* copied */
    /* Connected, scripts loaded. / Once for each on_up: lost; everything in flight was answered
     * with SINK_LOST before it. Both from the loop. */
    void (*on_up)(void *arg);
    void (*on_lost)(void *arg, const char *reason);
    void *arg;
};

enum sink_outcome {
    SINK_DONE,   /* every command was applied, or was a replay */
    SINK_FULL,   /* out of memory (OOM): what was refused may be sent again later */
    SINK_FAILED, /* any other error (NOSCRIPT, MISCONF, READONLY ...): `reason` */
    SINK_LOST,   /* the connection went; unknown */
    SINK_GONE,   /* the shard's hash is not there or names another generation (FLUSHALL) */
    SINK_STALE   /* a higher epoch has written: this consumer was replaced */
};

/* Valid during the callback. The worst outcome of the batch's commands counts, STALE the worst:
 * STALE > GONE > LOST > FAILED > FULL > DONE. */
struct sink_result {
    enum sink_outcome outcome;
    const char *reason;    /* "" for DONE; else what the first command of that outcome was told */
    const size_t *missing; /* commands answered -1: events to be healed, by their index, ascending;
                              also of a batch that is not DONE */
    size_t missing_count;
};

typedef void sink_fn(void *arg, const struct sink_result *result);

/* NULL when memory runs out, or settings->redis.address is none. */
struct sink *sink_new(const struct sink_config *config);
/* From anywhere on the loop; NULL is allowed. Answers what is in flight with SINK_LOST; no on_lost
 * follows. */
void sink_free(struct sink *sink);
bool sink_is_up(const struct sink *sink);
/* Sends `count` commands, at least one, each of which answers with an integer of outbox.h or
 * shard.lua, or with a plain one >= 0 or +OK (HSET, UNLINK, SET). True: exactly one fn(arg,
 * result), later, in the order of the calls. False: not up, or no memory. */
bool sink_send(struct sink *sink, const struct dynbuf *commands, size_t count, sink_fn *fn,
               void *arg);
/* One plain command with its raw answer (HGETALL of the shard, HMGET, SCAN ...), in the same order
 * as the batches, but also behind one that failed. NULL: lost. True and false as above. */
bool sink_ask(struct sink *sink, const struct dynbuf *command, redisconn_fn *fn, void *arg);

/* --- the shard's hash, through shard.lua: commands to append to a batch or to send alone ------ */

/* Each answers 1, or -2 when a higher epoch is there, or (all but claim) -3 when the hash is not
 * the one that was claimed, as after FLUSHALL, or (mark, follow) its generation is another. */

/* This consumer writes from now on: sets epoch; leaves the rest. */
void sink_claim(struct dynbuf *out, const char *shard, int64_t epoch);
/* Everything up to lsn is in the keys of `generation`; counts beat up and sets state live, or
 * stale.
 */
void sink_mark(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
               uint64_t lsn, bool live);
/* Readers are to read `generation` from now on. */
void sink_switch(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
                 uint64_t lsn, int32_t timeline, uint64_t system_identifier);
/* The keys of `generation` are those of that LSN of another timeline of the same server; answers as
 * mark does. */
void sink_follow(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
                 uint64_t lsn, int32_t timeline);
/* Text for people. */
void sink_tell(struct dynbuf *out, const char *shard, int64_t epoch, const char *status_json);

#endif
