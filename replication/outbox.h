/*
 * Outbox: the effects of many changes, gathered by key, and written as one Redis command a key.
 * Pure. This is where a delta and the position it reflects are put together.
 *
 *   outbox_add(effect, position) ... ─> per key: the list of (position, operation) in order
 *   outbox_encode ─> EVALSHA script 1 key epoch [position operation ...] ...
 *
 * The scripts (replication/scripts/) apply, in one atomic step, exactly those operations of the
 * list whose position is above the key's `at`, and set `at` to the last one. So a command that is
 * sent twice, or a list that overlaps what another consumer had sent in other portions, changes
 * nothing that was done; and a script whose epoch is below the key's changes nothing at all.
 *
 *   event.lua    KEYS counters, changes, watched
 *                1: applied (>= 0 operations)   -2: refused, a higher epoch has written
 *                -1: the event is to be healed (deltas or an altered GRID came to a key that is
 *                not there, or a GRID to a tombstone); it shows no counters until a SEED comes. A
 *                SEED counts only if its list reaches `at` or beyond.
 *                While `watched` exists it also appends to `changes` and publishes on the live
 *                channel; ids of the stream are "LSN-PLACE", so they are positions, too.
 *   tickets.lua  KEYS tickets   likewise, without -1
 *   shard.lua    KEYS shard     see sink.h
 *
 * A deleted event stays as a tombstone for an hour, an empty ticket key likewise: their `at` keeps
 * a replay from bringing back what is gone.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_OUTBOX_H
#define SG_REPLICATION_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/dynbuf.h"
#include "base/error.h"
#include "base/rediskeys.h"
#include "replication/projection.h"

struct outbox;

struct outbox_limits {
    size_t keys_max;
    size_t bytes_max; /* of what was gathered; roughly of the commands */
};

struct outbox_config {
    const char *shard; /* copied */
    int64_t generation;
    int64_t epoch;
    int64_t live_history; /* live.history */
    struct outbox_limits limits;
};

struct outbox *outbox_new(const struct outbox_config *config); /* NULL when memory runs out */
void outbox_free(struct outbox *outbox);
/* Copies what it needs. SG_OVERLOADED: full, nothing was added; SG_NO_MEMORY; SG_INVALID_VALUE: the
 * position lies below that of the key's last operation (a SEED may: it starts its list anew; MEND
 * and UNMEND have none). Several effects of one position are one change: when the first of them was
 * taken, the others are, full or not. What follows a SEED of the same event is taken up to twice
 * the limit of bytes, and an empty outbox takes any one effect. */
enum sg_error outbox_add(struct outbox *outbox, const struct effect *effect,
                         const struct position *position);
size_t outbox_keys(const struct outbox *outbox);  /* commands that encode will write */
size_t outbox_bytes(const struct outbox *outbox); /* not less than it will write */
/* Appends the commands; the i-th belongs to outbox_key(i). */
void outbox_encode(const struct outbox *outbox, struct dynbuf *out);
/* What the i-th command is about: event_id of a counters key, 0 for tickets. */
int64_t outbox_event(const struct outbox *outbox, size_t i);
/* Empties it, keeps the memory. */
void outbox_reset(struct outbox *outbox);

/* The scripts, embedded. */
enum script { SCRIPT_EVENT, SCRIPT_TICKETS, SCRIPT_SHARD, SCRIPT_COUNT };
/* Text of a script, and its SHA-1 in hex as EVALSHA wants it. */
const char *script_text(enum script script, size_t *ret_len);
const char *script_sha(enum script script);

#endif
