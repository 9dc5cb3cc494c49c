/*
 * What probes mean. See health_state.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/health_state.h"

#include <stdio.h>
#include <string.h>

void health_state_init(struct health_state *state, const char *shard, const char *node)
{
    *state = (struct health_state){.node = {.staleness_us = STALENESS_UNKNOWN}};
    snprintf(state->node.shard, sizeof(state->node.shard), "%s", shard);
    snprintf(state->node.name, sizeof(state->node.name), "%s", node);
    snprintf(state->node.last_error, sizeof(state->node.last_error), "no answer yet");
}

static void note_failure(struct health_state *state, const struct health_answer *answer,
                         const struct health_limits *limits)
{
    state->good = 0;
    state->bad++;
    if (state->bad < limits->down_after && state->judged && state->node.up)
        return;
    /* Down, or not up yet: the newest reason is the one to show. */
    snprintf(state->node.last_error, sizeof(state->node.last_error), "%s", answer->error);
    if (state->bad >= limits->down_after) {
        state->node.up = false;
        state->judged = true;
    }
}

/* A replica without a WAL receiver knows its timeline from its control file alone, which may lag:
 * on one connection (so without a restart) its timeline never goes back. */
static int32_t believed_timeline(const struct health_state *state,
                                 const struct health_answer *answer)
{
    bool same_replica =
        !answer->first && answer->role == NODE_REPLICA && state->node.role == NODE_REPLICA;
    if (same_replica && answer->timeline < state->node.timeline)
        return state->node.timeline;
    return answer->timeline;
}

/* What shard_meta says of the epoch and of the fence. */
static void note_attestation(struct health_state *state, const struct health_answer *answer)
{
    struct topology_node *node = &state->node;
    const char *fence_id = answer->migrated ? answer->fence_id : "";
    node->epoch = answer->migrated ? answer->epoch : 0;
    node->fenced = answer->migrated && answer->fenced;
    state->epoch_timeline = answer->migrated ? answer->epoch_timeline : EPOCH_ON_ANY;
    node->attested = node->role == NODE_PRIMARY && (state->epoch_timeline == EPOCH_ON_ANY ||
                                                    state->epoch_timeline == node->timeline);
    if (node->role != NODE_PRIMARY || node->attested || !node->fenced)
        state->waiting_since_us = 0;
    else if (!state->waiting_since_us || strcmp(state->fence_id, fence_id) != 0)
        state->waiting_since_us = answer->asked_us;
    snprintf(state->fence_id, sizeof(state->fence_id), "%s", fence_id);
}

static void note_success(struct health_state *state, const struct health_answer *answer,
                         const struct health_limits *limits)
{
    struct topology_node *node = &state->node;
    if (answer->timeline != node->timeline)
        state->waiting_since_us = 0;
    node->timeline = believed_timeline(state, answer);
    node->role = answer->role;
    node->lsn = answer->lsn;
    node->received_lsn = answer->role == NODE_REPLICA ? answer->received_lsn : 0;
    note_attestation(state, answer);
    node->event_count = answer->event_count;
    if (answer->system_identifier)
        node->system_identifier = answer->system_identifier;
    state->migrated = answer->migrated;
    state->asked_us = answer->asked_us;
    snprintf(state->claimed_shard, sizeof(state->claimed_shard), "%s",
             answer->migrated ? answer->shard : "");
    state->bad = 0;
    state->good++;
    if (!state->judged || state->good >= limits->up_after) {
        node->up = true;
        state->judged = true;
    }
    if (node->up)
        node->last_error[0] = '\0';
}

struct health_state health_step(const struct health_state *before,
                                const struct health_answer *answer,
                                const struct health_limits *limits)
{
    struct health_state after = *before;
    if (answer->ok)
        note_success(&after, answer, limits);
    else
        note_failure(&after, answer, limits);
    return after;
}

bool health_changed(const struct health_state *before, const struct health_state *after)
{
    const struct topology_node *a = &before->node;
    const struct topology_node *b = &after->node;
    return a->up != b->up || a->role != b->role || a->timeline != b->timeline ||
           a->epoch != b->epoch || a->fenced != b->fenced || a->attested != b->attested ||
           a->system_identifier != b->system_identifier ||
           strcmp(before->claimed_shard, after->claimed_shard) != 0 ||
           strcmp(before->misplaced, after->misplaced) != 0;
}

/* The node that stands for its shard: the first one whose own shard_meta names the shard, else the
 * first one that has answered at all. */
static const struct health_state *find_owner(const struct health_state *states, size_t count,
                                             const char *shard)
{
    const struct health_state *answered = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct health_state *state = &states[i];
        if (strcmp(state->node.shard, shard) != 0 || !state->node.system_identifier)
            continue;
        if (strcmp(state->claimed_shard, shard) == 0)
            return state;
        if (!answered && !state->claimed_shard[0])
            answered = state;
    }
    return answered;
}

/* The representative of an earlier shard that is the same PostgreSQL as `state`. */
static const struct health_state *find_earlier_twin(const struct health_state *states,
                                                    const struct health_state *state)
{
    for (const struct health_state *other = states; other < state; other++) {
        if (strcmp(other->node.shard, state->node.shard) == 0)
            return NULL; /* grouped by shard: from here on its own */
        if (other->node.system_identifier == state->node.system_identifier && !other->misplaced[0])
            return other;
    }
    return NULL;
}

static void judge_identity(struct health_state *states, size_t count, struct health_state *state)
{
    const struct topology_node *node = &state->node;
    const size_t size = sizeof(state->misplaced);
    state->misplaced[0] = '\0';
    if (!node->system_identifier)
        return;
    if (state->claimed_shard[0] && strcmp(state->claimed_shard, node->shard) != 0) {
        snprintf(state->misplaced, size, "its shard_meta says it is of shard \"%s\"",
                 state->claimed_shard);
        return;
    }
    const struct health_state *twin = find_earlier_twin(states, state);
    if (twin) {
        snprintf(state->misplaced, size, "the same PostgreSQL as node \"%.32s\" of shard \"%.32s\"",
                 twin->node.name, twin->node.shard);
        return;
    }
    const struct health_state *owner = find_owner(states, count, node->shard);
    if (owner && owner->node.system_identifier != node->system_identifier)
        snprintf(state->misplaced, size, "another PostgreSQL cluster than node \"%s\"",
                 owner->node.name);
}

void health_identify(struct health_state *states, size_t count)
{
    for (size_t i = 0; i < count; i++)
        judge_identity(states, count, &states[i]);
}

static void sample_primary(struct health_shard *shard, const struct health_state *state)
{
    const struct topology_node *node = &state->node;
    if (shard->system_identifier != node->system_identifier) {
        /* Another cluster stands in its place: LSNs and timelines begin anew. */
        memset(&shard->history, 0, sizeof(shard->history));
        shard->system_identifier = node->system_identifier;
    }
    staleness_sample(&shard->history, node->timeline, node->lsn, state->asked_us);
}

void health_learn(struct health_shard *shard, const struct health_state *states, size_t count)
{
    attest_remember(&shard->memory, states, count);
    for (size_t i = 0; i < count; i++) {
        const struct topology_node *node = &states[i].node;
        if (node->up && node->role == NODE_PRIMARY && !states[i].misplaced[0] &&
            attest_refusal(&shard->memory, states, count, &states[i]) == NODE_NOT_REFUSED)
            sample_primary(shard, &states[i]);
    }
}

void health_rotate(struct health_state *state, const struct health_shard *shard, bool answered,
                   const struct health_limits *limits, int64_t now_us)
{
    const struct topology_node *node = &state->node;
    if (!state->judged)
        return;
    if (!node->up || node->role != NODE_REPLICA || state->misplaced[0])
        rotation_leave(&state->rotation);
    else if (answered)
        rotation_sample(&state->rotation,
                        staleness_of(&shard->history, node->timeline, node->lsn, now_us),
                        &limits->rotation, now_us);
}

/* What a misplaced node says of itself belongs to another shard's story. */
static void hide_misplaced(const struct health_state *state, struct topology_node *node)
{
    node->up = false;
    node->role = NODE_UNKNOWN;
    node->attested = false;
    node->timeline = 0;
    node->staleness_us = STALENESS_UNKNOWN;
    snprintf(node->last_error, sizeof(node->last_error), "%s", state->misplaced);
}

void health_show(const struct health_shard *shard, const struct health_state *states, size_t count,
                 const struct health_limits *limits, int64_t now_us,
                 struct topology_node *ret_nodes)
{
    for (size_t i = 0; i < count; i++) {
        const struct health_state *state = &states[i];
        struct topology_node *node = &ret_nodes[i];
        *node = state->node;
        node->sampled_us = now_us;
        node->weight = rotation_weight(&state->rotation, &limits->rotation, now_us);
        if (state->misplaced[0]) {
            hide_misplaced(state, node);
        } else if (node->role == NODE_PRIMARY) {
            node->staleness_us = 0;
            node->refused = attest_refusal(&shard->memory, states, count, state);
        } else if (node->role == NODE_REPLICA) {
            node->staleness_us = staleness_of(&shard->history, node->timeline, node->lsn, now_us);
            node->in_rotation = node->up && state->rotation.in;
        }
    }
}
