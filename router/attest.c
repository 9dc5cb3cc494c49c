/*
 * Refusing and attesting primaries. See attest.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/attest.h"

#include "router/health_state.h"

/* --- memory ----------------------------------------------------------------------------------- */

static void remember(struct attest_memory *memory, const struct health_state *state)
{
    const struct topology_node *node = &state->node;
    if (memory->system_identifier != node->system_identifier)
        *memory = (struct attest_memory){.system_identifier = node->system_identifier};
    if (node->timeline > memory->timeline) {
        memory->timeline = node->timeline;
        memory->epoch = 0;
    }
    /* Primaries alone: a replica may have replayed what its primary's last answer did not know. */
    if (node->role == NODE_PRIMARY && node->timeline == memory->timeline &&
        state->epoch_timeline == node->timeline && node->epoch > memory->epoch)
        memory->epoch = node->epoch;
}

void attest_remember(struct attest_memory *memory, const struct health_state *states, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (states[i].node.system_identifier && !states[i].misplaced[0])
            remember(memory, &states[i]);
    }
}

/* --- order ------------------------------------------------------------------------------------ */

static bool is_candidate(const struct health_state *state)
{
    return state->node.up && state->node.role == NODE_PRIMARY && !state->misplaced[0];
}

/* Below 0: `a` is worse; 0: nobody can tell. Both are primaries on one timeline. */
static int compare(const struct topology_node *a, const struct topology_node *b)
{
    if (a->attested != b->attested)
        return a->attested ? 1 : -1;
    return (a->epoch > b->epoch) - (a->epoch < b->epoch);
}

enum node_refusal attest_refusal(const struct attest_memory *memory,
                                 const struct health_state *states, size_t count,
                                 const struct health_state *state)
{
    const struct topology_node *node = &state->node;
    enum node_refusal refusal = NODE_NOT_REFUSED;
    if (!is_candidate(state))
        return NODE_NOT_REFUSED;
    if (node->timeline < memory->timeline)
        return NODE_OLDER_TIMELINE;
    if (memory->epoch && (!node->attested || node->epoch < memory->epoch))
        return NODE_EPOCH_BEHIND;
    for (size_t i = 0; i < count; i++) {
        const struct health_state *other = &states[i];
        if (other == state || !is_candidate(other) || other->node.timeline != node->timeline)
            continue;
        const int order = compare(node, &other->node);
        if (order < 0)
            return NODE_EPOCH_BEHIND;
        if (order == 0)
            refusal = NODE_AMBIGUOUS;
    }
    return refusal;
}

/* --- attesting -------------------------------------------------------------------------------- */

static bool fence_lets(const struct health_state *state, int64_t now_us, int64_t wait_us)
{
    if (!state->node.fenced)
        return true;
    return state->fence_id[0] && now_us - state->waiting_since_us >= wait_us;
}

const struct health_state *attest_due(const struct attest_memory *memory,
                                      const struct health_state *states, size_t count,
                                      int64_t now_us, int64_t wait_us)
{
    for (size_t i = 0; i < count; i++) {
        const struct health_state *state = &states[i];
        if (is_candidate(state) && !state->node.attested &&
            attest_refusal(memory, states, count, state) == NODE_NOT_REFUSED)
            return fence_lets(state, now_us, wait_us) ? state : NULL;
    }
    return NULL;
}

static bool has_successor(const struct attest_memory *memory, const struct health_state *states,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_candidate(&states[i]) && states[i].node.attested && !states[i].node.fenced &&
            attest_refusal(memory, states, count, &states[i]) == NODE_NOT_REFUSED)
            return true;
    }
    return false;
}

const struct health_state *attest_to_fence(const struct attest_memory *memory,
                                           const struct health_state *states, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct health_state *state = &states[i];
        if (!state->node.fenced && state->epoch_timeline != EPOCH_ON_ANY &&
            attest_refusal(memory, states, count, state) == NODE_OLDER_TIMELINE)
            return has_successor(memory, states, count) ? state : NULL;
    }
    return NULL;
}
