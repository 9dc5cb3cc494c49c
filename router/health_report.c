/*
 * Log lines and gauges of a node's health. See health_report.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/health_report.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"

static struct log_fields fields_of(const struct health_report *report)
{
    return (struct log_fields){.shard = report->shard, .node = report->node};
}

void health_report_init(struct health_report *report, struct metrics_set *metrics,
                        const char *shard, const char *node)
{
    const char *const labels[] = {shard, node};
    *report = (struct health_report){.metrics = metrics, .shard = shard, .node = node};
    report->in_rotation = metrics_series(metrics, METRIC_NODE_IN_ROTATION, labels);
    report->staleness = metrics_series(metrics, METRIC_NODE_STALENESS, labels);
    report->duration = metrics_series(metrics, METRIC_PROBE_DURATION, &node);
}

void health_report_probe(struct health_report *report, int64_t duration_us)
{
    metrics_observe_us(report->duration, duration_us);
}

/* --- what changed
 * -----------------------------------------------------------------------------
 */

static void tell_fence(const struct health_report *report, const struct topology_node *was,
                       const struct topology_node *is)
{
    const struct log_fields fields = fields_of(report);
    if (is->fenced != was->fenced)
        log_info(&fields, "node is %s, epoch %lld", is->fenced ? "fenced" : "not fenced",
                 (long long)is->epoch);
    else if (was->epoch && is->epoch != was->epoch)
        log_info(&fields, "epoch %lld, was %lld", (long long)is->epoch, (long long)was->epoch);
}

static void tell_rotation(const struct health_report *report, const struct health_state *before,
                          const struct health_state *after)
{
    const struct log_fields fields = fields_of(report);
    if (!after->node.up || after->node.role != NODE_REPLICA || !before->rotation.known ||
        after->rotation.in == before->rotation.in)
        return;
    if (after->rotation.in)
        log_info(&fields, "replica is back in rotation");
    else
        log_warn(&fields, "replica is out of rotation: it lags behind");
}

void health_report_step(struct health_report *report, const struct health_state *before,
                        const struct health_state *after)
{
    const struct log_fields fields = fields_of(report);
    const struct topology_node *was = &before->node;
    const struct topology_node *is = &after->node;
    if (is->up != was->up || after->judged != before->judged) {
        if (is->up)
            log_info(&fields, "node is up: %s, timeline %d%s", node_role_name(is->role),
                     is->timeline, after->migrated ? "" : "; not migrated (seatgrid migrate)");
        else
            log_warn(&fields, "node is down: %s", is->last_error);
    } else if (is->role != was->role || is->timeline != was->timeline) {
        log_info(&fields, "node is now %s on timeline %d, was %s on timeline %d",
                 node_role_name(is->role), is->timeline, node_role_name(was->role), was->timeline);
    }
    tell_fence(report, was, is);
    tell_rotation(report, before, after);
}

void health_report_identity(struct health_report *report, const struct health_state *state)
{
    const struct log_fields fields = fields_of(report);
    if (strcmp(report->misplaced, state->misplaced) == 0)
        return;
    if (state->misplaced[0])
        log_error(&fields, "node is not used: %s", state->misplaced);
    else
        log_info(&fields, "node is used again: its identity is right now");
    snprintf(report->misplaced, sizeof(report->misplaced), "%s", state->misplaced);
}

/* --- refused primaries
 * ------------------------------------------------------------------------ */

static const char *refusal_text(enum node_refusal refusal)
{
    switch (refusal) {
    case NODE_OLDER_TIMELINE:
        return "the shard has gone on on a newer timeline without it";
    case NODE_EPOCH_BEHIND:
        return "another one has been attested on this timeline";
    case NODE_AMBIGUOUS:
        return "another primary has the same timeline and epoch, nobody can know "
               "which is right";
    case NODE_NOT_REFUSED:
        break;
    }
    return "";
}

/* A switchover, or a router that has seen it first, leaves the former primary fenced until it
 * rejoins: that is no news. */
static void tell_refusal(struct health_report *report, const struct topology_node *node)
{
    const struct log_fields fields = fields_of(report);
    if (node->refused == report->refused)
        return;
    report->refused = node->refused;
    if (!node->refused)
        return;
    if (node->fenced)
        log_info(&fields, "former primary, timeline %d, epoch %lld: fenced, and not written to",
                 node->timeline, (long long)node->epoch);
    else
        log_error(&fields,
                  "PRIMARY REFUSED, timeline %d, epoch %lld: %s. It is not written to; stop it, "
                  "or make it a standby of the shard's primary",
                  node->timeline, (long long)node->epoch, refusal_text(node->refused));
}

static void show_refusal(struct health_report *report, enum node_refusal refused)
{
    struct metrics_series **series = &report->refusals[refused];
    if (refused && !*series)
        *series = metrics_series(
            report->metrics, METRIC_NODE_REFUSED,
            (const char *[]){report->shard, report->node, node_refusal_name(refused)});
    for (int i = 0; i < NODE_REFUSALS; i++) {
        if (report->refusals[i])
            metrics_set_value(report->refusals[i], i == (int)refused);
    }
}

/* --- gauges
 * -----------------------------------------------------------------------------------
 */

static void show_up(struct health_report *report, enum node_role role, bool up)
{
    struct metrics_series **series = &report->up[role];
    if (!*series)
        *series =
            metrics_series(report->metrics, METRIC_NODE_UP,
                           (const char *[]){report->shard, report->node, node_role_name(role)});
    for (int i = NODE_UNKNOWN; i <= NODE_REPLICA; i++) {
        if (report->up[i])
            metrics_set_value(report->up[i], up && i == (int)role);
    }
}

void health_report_published(struct health_report *report, const struct topology_node *node)
{
    tell_refusal(report, node);
    show_up(report, node->role, node->up);
    show_refusal(report, node->refused);
    metrics_set_value(report->in_rotation, node->in_rotation);
    metrics_set_value(report->staleness, node->staleness_us < 0 ? -1 : node->staleness_us / 1000);
}

void health_report_gone(struct health_report *report)
{
    show_up(report, NODE_UNKNOWN, false);
    show_refusal(report, NODE_NOT_REFUSED);
    metrics_set_value(report->in_rotation, 0);
    metrics_set_value(report->staleness, -1);
}
