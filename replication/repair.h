/*
 * Repair: what a consumer has to do next, from what PostgreSQL and Redis say. Pure.
 *
 *   facts ─> repair_decide ─> WAIT | RESUME a generation | SEED a new one, and why
 *
 * In this order; the first that holds:
 *   another consumer has the lock and beats                 WAIT
 *   it has the lock, silent for cdc.takeover_ms             TAKE_OVER: end its session, look again
 *   Redis has no hash of the shard, or one without gen      SEED  redis_empty
 *   the hash is of another PostgreSQL (system identifier)   SEED  other_system
 *   the hash is of another timeline                         SEED  failover
 *   the hash's lsn is past the server's WAL (older copy)    SEED  server_behind
 *   no slot of the generation                               SEED  slot_missing
 *   the slot has lost its WAL (wal_status lost)             SEED  slot_invalidated
 *   the hash's lsn is below what the slot was told          SEED  redis_lost_too_much
 *   else                                                    RESUME
 *
 * Slots of this shard's consumers that are not of the generation to be resumed are left-overs.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_REPAIR_H
#define SG_REPLICATION_REPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPAIR_SLOTS_MAX 16
#define REPAIR_SLOT_NAME_SIZE 64

enum repair_action { REPAIR_WAIT, REPAIR_TAKE_OVER, REPAIR_RESUME, REPAIR_SEED };

enum repair_reason {
    REPAIR_NONE,
    REPAIR_STARTED, /* resumed after a start or a lost connection */
    REPAIR_REDIS_EMPTY,
    REPAIR_OTHER_SYSTEM,
    REPAIR_FAILOVER,
    REPAIR_SERVER_BEHIND,
    REPAIR_SLOT_MISSING,
    REPAIR_SLOT_INVALIDATED,
    REPAIR_SLOT_UNREADABLE, /* known by trying alone: repair_decide never says it */
    REPAIR_REDIS_LOST_TOO_MUCH,
    REPAIR_TRUNCATED,
    REPAIR_REQUESTED
};

struct repair_slot {
    char name[REPAIR_SLOT_NAME_SIZE]; /* seatgrid_SHARD_GENERATION, '-' in the name as '_' */
    int64_t generation;
    bool lost;
    uint64_t confirmed_lsn;
    int32_t active_pid; /* 0: none */
};

struct repair_facts {
    /* PostgreSQL */
    bool locked;             /* this consumer has the shard's lock */
    int64_t other_silent_ms; /* not locked: for how long the hash's beat has not moved */
    uint64_t system_identifier;
    int32_t timeline;
    uint64_t server_lsn; /* end of its WAL, asked after the hash */
    size_t slot_count;
    struct repair_slot slots[REPAIR_SLOTS_MAX];
    /* Redis */
    int64_t generation; /* 0: none */
    int32_t hash_timeline;
    uint64_t hash_system;
    uint64_t hash_lsn;
};

struct repair_decision {
    enum repair_action action;
    enum repair_reason reason;
    const struct repair_slot *slot; /* RESUME */
    uint64_t start_lsn;             /* RESUME: the slot's confirmed LSN */
};

struct repair_decision repair_decide(const struct repair_facts *facts, int64_t takeover_ms);
/* "seatgrid_alpha_7" */
void repair_slot_name(char ret_name[REPAIR_SLOT_NAME_SIZE], const char *shard, int64_t generation);
/* The generation in a slot's name, 0 if it is none of the shard's. */
int64_t repair_slot_generation(const char *name, const char *shard);
/* "redis_empty" ...: in logs, metrics, status. */
const char *repair_reason_name(enum repair_reason reason);
/* One sentence for people. */
const char *repair_reason_text(enum repair_reason reason);

#endif
