/*
 * Who hands over to whom. See switchover_plan.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/switchover_plan.h"

#include <stdio.h>
#include <string.h>

/* Where a refusal is told. */
struct reason {
    char *text;
    size_t size;
};

/* Always false, so that a check can end with it. */
#define no(reason, ...) (snprintf((reason)->text, (reason)->size, __VA_ARGS__), false)

/* --- the primary ------------------------------------------------------------------------------ */

static bool is_primary(const struct switchover_node *node)
{
    return node->answered && !node->in_recovery;
}

/* The first node that did not answer, to name it; NULL if all did. */
static const struct switchover_node *silent_one(const struct switchover_node *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!nodes[i].answered)
            return &nodes[i];
    }
    return NULL;
}

/* The primary on the highest timeline that any node is on. */
static bool find_primary(const struct switchover_node *nodes, size_t count, const char *shard,
                         size_t *ret_primary, const struct reason *reason)
{
    int32_t highest = 0;
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i].answered && nodes[i].timeline > highest)
            highest = nodes[i].timeline;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_primary(&nodes[i]) || nodes[i].timeline != highest)
            continue;
        if (found < count)
            return no(reason, "%s and %s both are primaries on timeline %d; stop the wrong one",
                      nodes[found].name, nodes[i].name, (int)highest);
        found = i;
    }
    const struct switchover_node *silent = silent_one(nodes, count);
    if (found == count && silent)
        return no(reason,
                  "shard %s has no primary that could hand over; %s does not answer: %.150s", shard,
                  silent->name, silent->problem);
    if (found == count)
        return no(reason, "shard %s has no primary on timeline %d that could hand over", shard,
                  (int)highest);
    *ret_primary = found;
    return true;
}

static bool check_primary(const struct switchover_node *primary, const char *shard,
                          const struct reason *reason)
{
    if (!primary->migrated)
        return no(reason, "%s: its schema is too old; run `seatgrid migrate` first", primary->name);
    if (strcmp(primary->shard, shard) != 0)
        return no(reason, "%s says that it belongs to shard '%s', not to %s; mend the shard map",
                  primary->name, primary->shard, shard);
    return true;
}

static bool check_unfenced(const struct switchover_node *primary, const struct reason *reason)
{
    if (!primary->fenced)
        return true;
    if (!primary->fence_id[0])
        return no(reason, "%s is fenced by hand; take that fence away first", primary->name);
    if (strcmp(primary->fenced_until, "infinity") == 0)
        return no(reason,
                  "%s is fenced by switchover %s, which did not end; if its operator is gone, "
                  "--abort lifts the fence",
                  primary->name, primary->fence_id);
    return no(reason, "%s is fenced by switchover %s until %s; wait for it", primary->name,
              primary->fence_id, primary->fenced_until);
}

/* --- the target ------------------------------------------------------------------------------- */

static bool check_target(const struct switchover_node *target,
                         const struct switchover_node *primary, uint64_t max_lag_bytes,
                         const struct reason *reason)
{
    const uint64_t lag = primary->lsn > target->lsn ? primary->lsn - target->lsn : 0;
    if (!target->answered)
        return no(reason, "%s does not answer: %.200s", target->name, target->problem);
    if (!target->in_recovery)
        return no(reason, "%s is no standby, but a primary on timeline %d", target->name,
                  (int)target->timeline);
    if (target->system_identifier != primary->system_identifier)
        return no(reason, "%s is no copy of %s: another system identifier", target->name,
                  primary->name);
    if (!target->streaming)
        return no(reason, "%s is not streaming: it has no connection to its primary", target->name);
    if (target->timeline != primary->timeline)
        return no(reason, "%s is on timeline %d, its primary %s on %d", target->name,
                  (int)target->timeline, primary->name, (int)primary->timeline);
    if (target->replay_paused)
        return no(reason, "%s has its replay paused; pg_wal_replay_resume() lets it go on",
                  target->name);
    if (target->delayed)
        return no(reason, "%s replays late on purpose (recovery_min_apply_delay)", target->name);
    if (!target->may_promote)
        return no(reason,
                  "%s: our user may not promote it; on %s: GRANT EXECUTE ON FUNCTION pg_promote",
                  target->name, primary->name);
    if (lag > max_lag_bytes)
        return no(reason,
                  "%s is %llu bytes of WAL behind, more than switchover.max_lag_bytes, %llu",
                  target->name, (unsigned long long)lag, (unsigned long long)max_lag_bytes);
    return true;
}

/* The first is the better one. */
static bool is_better(const struct switchover_node *node, const struct switchover_node *than)
{
    if (node->sync != than->sync)
        return node->sync;
    return node->lsn > than->lsn;
}

static bool find_named(const struct switchover_node *nodes, size_t count, const char *shard,
                       const char *to, size_t primary, size_t *ret_target,
                       const struct reason *reason)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(nodes[i].name, to) != 0)
            continue;
        if (i == primary)
            return no(reason, "%s is the primary already", to);
        *ret_target = i;
        return true;
    }
    return no(reason, "shard %s has no node '%s'", shard, to);
}

/* Of those that may take over the best; when none may, why the first one may not. */
static bool find_best(const struct switchover_node *nodes, size_t count, const char *shard,
                      size_t primary, uint64_t max_lag_bytes, size_t *ret_target,
                      const struct reason *reason)
{
    char why[SWITCHOVER_TEXT_MAX] = "";
    char last[SWITCHOVER_TEXT_MAX];
    const struct reason aside = {last, sizeof(last)};
    size_t best = count;
    for (size_t i = 0; i < count; i++) {
        if (i == primary)
            continue;
        if (!check_target(&nodes[i], &nodes[primary], max_lag_bytes, &aside)) {
            if (!why[0])
                memcpy(why, last, sizeof(why));
            continue;
        }
        if (best == count || is_better(&nodes[i], &nodes[best]))
            best = i;
    }
    if (best == count)
        return why[0] ? no(reason, "no replica can take over: %s", why)
                      : no(reason, "shard %s has no replica", shard);
    *ret_target = best;
    return true;
}

bool switchover_plan(const struct switchover_node *nodes, size_t count, const char *shard,
                     const char *to, uint64_t max_lag_bytes, struct switchover_plan *ret_plan,
                     char *text, size_t size)
{
    struct reason reason;
    reason.text = text;
    reason.size = size;
    struct switchover_plan plan = {0};
    if (!find_primary(nodes, count, shard, &plan.primary, &reason))
        return false;
    const struct switchover_node *primary = &nodes[plan.primary];
    if (!check_primary(primary, shard, &reason) || !check_unfenced(primary, &reason))
        return false;
    if (to && (!find_named(nodes, count, shard, to, plan.primary, &plan.target, &reason) ||
               !check_target(&nodes[plan.target], primary, max_lag_bytes, &reason)))
        return false;
    if (!to && !find_best(nodes, count, shard, plan.primary, max_lag_bytes, &plan.target, &reason))
        return false;
    *ret_plan = plan;
    return true;
}

/* --- abort ------------------------------------------------------------------------------------ */

bool switchover_may_abort(const struct switchover_node *nodes, size_t count, const char *shard,
                          size_t *ret_primary, char *text, size_t size)
{
    struct reason reason;
    reason.text = text;
    reason.size = size;
    const struct switchover_node *silent = silent_one(nodes, count);
    size_t primary = count;
    if (silent)
        return no(&reason,
                  "%s does not answer, so it may have been promoted; bring it back, or take it "
                  "out of the shard map: %.120s",
                  silent->name, silent->problem);
    if (!find_primary(nodes, count, shard, &primary, &reason) ||
        !check_primary(&nodes[primary], shard, &reason))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (i != primary && is_primary(&nodes[i]))
            return no(&reason,
                      "%s has been promoted; there is no way back, %s has to rejoin as its standby",
                      nodes[primary].name, nodes[i].name);
    }
    if (!nodes[primary].fenced)
        return no(&reason, "%s is not fenced: there is nothing to lift", nodes[primary].name);
    if (!nodes[primary].fence_id[0])
        return no(&reason, "%s is fenced by hand, not by a switchover", nodes[primary].name);
    if (nodes[primary].meta_timeline && nodes[primary].meta_timeline != nodes[primary].timeline)
        return no(&reason,
                  "%s has been promoted and waits to be attested, which a router does by itself",
                  nodes[primary].name);
    *ret_primary = primary;
    return true;
}
