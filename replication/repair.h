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
 *   the hash is of another timeline, and not handed over    SEED  failover
 *   the hash's lsn is past the server's WAL (older copy)    SEED  server_behind        *
 *   no slot of the generation                               SEED  slot_missing
 *   the slot has lost its WAL (wal_status lost)             SEED  slot_invalidated
 *   the hash's lsn is below what the slot was told          SEED  redis_lost_too_much  *
 *   the consumer knows a reason of its own (`forced`)       SEED  that reason
 *   else                                                    RESUME
 * Instead of any SEED, while a switchover's fence is up     WAIT  switching
 *
 * Handed over. A switchover fences the old primary, waits until Redis has everything up to an LSN
 * behind the fence, promotes, makes the generation's slot on the new primary and then attests that,
 * with the old timeline and that LSN (migrations/0004). So a hash of just this timeline that has
 * reached the LSN lacks nothing that was committed before the fence; nothing was committed between
 * the fence and the attestation; and the slot has all that came later. It is RESUMED. The lines
 * with a * say nothing then, for they would compare LSNs of two timelines: the hash's may be past
 * the new server's WAL (heartbeats went on behind the fence, and changed no key) or below the
 * slot's (it was made later). The consumer takes the handover out of the database once the hash
 * names the new timeline: a Redis that loses the hash's word later is no case for it any more.
 * One handover is as deep as it goes: it counts only on the timeline that it was attested for.
 *
 * Switching. Nothing is written while the fence is up, so nothing is missed by waiting; a seed on
 * either side of the switch would only be for nothing.
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
    REPAIR_STARTED,       /* resumed after a start or a lost connection */
    REPAIR_SWITCHED_OVER, /* resumed on the new primary's timeline */
    REPAIR_SWITCHING,     /* waits */
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
    bool switching;            /* a switchover's fence is up */
    int32_t attested_timeline; /* that the server's epoch was given on; 0: none, or not known */
    int32_t handover_timeline; /* 0: none */
    uint64_t handover_lsn;
    /* Redis */
    int64_t generation; /* 0: none */
    int32_t hash_timeline;
    uint64_t hash_system;
    uint64_t hash_lsn;
    /* the consumer */
    enum repair_reason forced; /* REPAIR_NONE: nothing speaks against resuming */
};

struct repair_decision {
    enum repair_action action;
    enum repair_reason reason;      /* WAIT: SWITCHING, or NONE: for another consumer */
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
