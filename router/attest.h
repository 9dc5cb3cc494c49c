/*
 * Who of a shard's nodes is its primary, and is it to be attested now. Pure: states and clock in.
 *
 *   all states of a shard ── attest_remember ──> what was ever seen of it ─┐
 *                              attest_refusal <────────────────────────────┤ why one is not ours
 *                              attest_due <────────────────────────────────┘ which one to attest
 *
 * A promotion begins a timeline, and an attestation gives it an epoch (migrations/0004). So
 * primaries are ordered by their timeline first; on one timeline by whether they are attested, then
 * by epoch. Only the best is the shard's; where two are equally good nobody can know which one is
 * right, so neither is. And none is that is worse than the best ever seen, dead or gone by now:
 * such a one was replaced while nobody told it, or its WAL is another branch of the same timeline.
 *
 * An epoch counts only on the timeline it was given on: a node that is promoted before it has
 * replayed the latest attestation carries an older epoch and is right nevertheless.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ATTEST_H
#define SG_ROUTER_ATTEST_H

#include <stddef.h>
#include <stdint.h>

#include "router/topology.h"

struct health_state;

/* What a shard's nodes ever were, those included that have left the map. Zero-initialise. */
struct attest_memory {
    uint64_t system_identifier; /* of the cluster it is about; another starts afresh */
    int32_t timeline;           /* the highest that a node was on */
    int64_t epoch;              /* the highest that was given on that timeline; 0: none */
};

/* Notes what the shard's nodes say. Their identities have been judged. */
void attest_remember(struct attest_memory *memory, const struct health_state *states, size_t count);

/* Why `state`, one of the shard's, is no primary of ours; NODE_NOT_REFUSED for what is none, is
 * down, or is misplaced. */
enum node_refusal attest_refusal(const struct attest_memory *memory,
                                 const struct health_state *states, size_t count,
                                 const struct health_state *state);

/* The node of the shard that is to be attested at now_us, or NULL. A switchover's fence on it is
 * respected for wait_us, so that the switchover can do it; one by hand for ever. */
const struct health_state *attest_due(const struct attest_memory *memory,
                                      const struct health_state *states, size_t count,
                                      int64_t now_us, int64_t wait_us);

/* A former primary that takes writes although the shard has an attested one on a newer timeline, or
 * NULL: it is to be fenced, for a router whose map or view lacks its successor would write to it.
 */
const struct health_state *attest_to_fence(const struct attest_memory *memory,
                                           const struct health_state *states, size_t count);

#endif
