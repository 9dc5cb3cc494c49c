/*
 * Bookings at risk: acknowledged by a primary that waits for no standby, and not yet on any
 * replica's disk. If the primary's machine died now, they would be lost. Pure.
 *
 *   answers of a primary (LSN, how many) ── at_risk_add ──> ring ── at_risk_count ──> gauge
 *   what replicas have received ─────────── at_risk_received ─┘ │
 *   a newer timeline has begun ──────────── at_risk_timeline ───┴─> how many may be lost
 *
 * The ring is bounded: when it is full the two oldest entries become one, with the LSN of the later
 * one. So the count may stay high for longer than it had to, and is never too low.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_AT_RISK_H
#define SG_ROUTER_AT_RISK_H

#include <stddef.h>
#include <stdint.h>

#define AT_RISK_ENTRIES 1024

/* Zero-initialise. */
struct at_risk {
    int32_t timeline; /* of all LSNs here; 0: none yet */
    size_t head;      /* the oldest entry */
    size_t count;     /* entries */
    int64_t bookings; /* the sum of all, with those that have no LSN */
    int64_t without;  /* acknowledged without an LSN: they go with the next that has one */
    struct {
        uint64_t lsn;
        int64_t bookings;
    } entries[AT_RISK_ENTRIES];
};

/* Bookings acknowledged: all their WAL ends at or before `lsn` (0: not known) of the timeline last
 * told. */
void at_risk_add(struct at_risk *risk, uint64_t lsn, int64_t bookings);
/* A replica on that timeline has everything before `lsn`. */
void at_risk_received(struct at_risk *risk, int32_t timeline, uint64_t lsn);
/* The shard's primary is on that timeline. When it is a newer one: returns how many bookings of the
 * old one no replica was seen to have, and forgets them; else 0. */
int64_t at_risk_timeline(struct at_risk *risk, int32_t timeline);
/* How many there are now. */
int64_t at_risk_count(const struct at_risk *risk);

#endif
