/*
 * How a lane follows its shard's primary. See lane.h; where it is to go says lane_aim.h.
 *
 *   topology, map ── lane_aim ──> leave, connect, open ─┬─> connections of the slots
 *   refusals, losses, acknowledgements of the slots ────┼─> state: may anything be sent
 *                                                       └─> bookings at risk (at_risk.h)
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_internal.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/snapshot.h"
#include "router/lane_best.h"
#include "router/pgconn.h"
#include "router/topology.h"

/* --- connections ------------------------------------------------------------------------------ */

static void suspect(struct lane *lane)
{
    if (lane->config->on_suspect && lane->place.node[0])
        lane->config->on_suspect(lane->config->on_suspect_arg, lane->place.node);
}

static void on_conn_ready(void *arg)
{
    struct lane_slot *slot = arg;
    lane_schedule_flush(slot->lane);
}

static void on_conn_lost(void *arg, const char *reason)
{
    struct lane_slot *slot = arg;
    (void)reason;
    suspect(slot->lane);
}

void lane_set_state(struct lane *lane, enum lane_state state)
{
    lane->state = state;
    if (state == LANE_OPEN)
        lane_schedule_flush(lane);
}

void lane_disconnect(struct lane *lane)
{
    for (size_t i = 0; i < lane->slot_count; i++) {
        pgconn_free(lane->slots[i].conn);
        lane->slots[i].conn = NULL;
    }
    lane->place.node[0] = '\0';
}

static void connect_to(struct lane *lane, const struct shardmap_node *node,
                       enum shardmap_durability durability)
{
    lane->place = lane_place_of(node, durability);
    if (lane->best)
        lane_best_moved(lane->best);
    for (size_t i = 0; i < lane->slot_count; i++) {
        struct lane_slot *slot = &lane->slots[i];
        slot->conn = pgconn_new(&(struct pgconn_config){.base = lane->config->base,
                                                        .reap = lane->config->reap,
                                                        .metrics = lane->config->metrics,
                                                        .settings = lane->config->settings,
                                                        .shard = lane->shard,
                                                        .node = lane->place.node,
                                                        .dsn = node->dsn,
                                                        .use = PGCONN_WRITE,
                                                        .durability = durability,
                                                        .on_ready = on_conn_ready,
                                                        .on_lost = on_conn_lost,
                                                        .arg = slot});
    }
}

/* Whose word it is that a primary takes writes (again): a connection that is pausing before its
 * next try need not. */
static void open_lane(struct lane *lane)
{
    for (size_t i = 0; i < lane->slot_count; i++) {
        if (lane->slots[i].conn)
            pgconn_hurry(lane->slots[i].conn);
    }
    lane_set_state(lane, LANE_OPEN);
}

/* What a primary refused it will not take before something has changed: its epoch, or that it is
 * seen to take no writes and then to take them. */
static void follow_state(struct lane *lane, const struct lane_aim *aim, bool moved)
{
    bool news = moved || aim->epoch != lane->epoch;
    if (aim->open)
        lane->epoch = aim->epoch;
    if (!aim->open)
        lane_set_state(lane, LANE_CLOSED);
    else if (lane->state == LANE_CLOSED)
        open_lane(lane);
    else if (lane->state == LANE_REFUSED && news)
        lane_set_state(lane, LANE_OPEN);
}

/* What was at risk when the primary changed is no risk any more: it is there, or it is not. */
static void follow_timeline(struct lane *lane, int32_t timeline)
{
    int32_t before = lane->risk.timeline;
    int64_t lost = at_risk_timeline(&lane->risk, timeline);
    if (lost == 0)
        return;
    struct log_fields fields = {.shard = lane->shard, .node = lane->place.node};
    log_warn(&fields,
             "up to %lld acknowledged bookings may be lost: no replica was seen to have them when "
             "timeline %d became %d (durability is async)",
             (long long)lost, (int)before, (int)timeline);
    metrics_add(lane->risk_gauge, -lost);
    metrics_add(
        metrics_series(lane->config->metrics, METRIC_MAYBE_LOST, (const char *[]){lane->shard}),
        lost);
}

/* Looks what the replicas have of what was acknowledged. */
static void follow_risk(struct lane *lane, const struct topology *topology, int32_t timeline)
{
    int64_t before = at_risk_count(&lane->risk);
    for (size_t i = 0; i < topology->node_count && before; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (node->up && node->role == NODE_REPLICA && strcmp(node->shard, lane->shard) == 0)
            at_risk_received(&lane->risk, node->timeline, node->received_lsn);
    }
    metrics_add(lane->risk_gauge, at_risk_count(&lane->risk) - before);
    follow_timeline(lane, timeline);
}

void lane_follow(struct lane *lane)
{
    const struct router_config *config = lane->config;
    uint64_t serial = snapshot_serial(config->topologies);
    uint64_t map_serial = snapshot_serial(config->maps);
    if (serial == lane->topology_serial && map_serial == lane->map_serial)
        return;
    lane->topology_serial = serial;
    lane->map_serial = map_serial;
    snapshot_begin(config->reader);
    const struct topology *topology = snapshot_get(config->topologies);
    struct lane_aim aim = lane_aim(topology, snapshot_get(config->maps), lane->shard, &lane->place);
    if (aim.leave)
        lane_disconnect(lane); /* what was in flight comes back, to be asked again */
    if (aim.connect_to)
        connect_to(lane, aim.connect_to, aim.durability);
    follow_state(lane, &aim, aim.leave || aim.connect_to);
    if (topology)
        follow_risk(lane, topology, aim.timeline);
    snapshot_end(config->reader);
}

/* --- what the slots meet there ---------------------------------------------------------------- */

void lane_refused(struct lane_slot *slot, enum sg_error refusal)
{
    struct lane *lane = slot->lane;
    lane->refusal = refusal;
    lane->refused_us = clock_mono_us();
    if (lane->state == LANE_OPEN)
        lane_set_state(lane, LANE_REFUSED);
    suspect(lane);
}

void lane_acknowledged(struct lane_slot *slot, const struct read_token *token)
{
    struct lane *lane = slot->lane;
    if (lane->place.durability == SHARDMAP_SYNC)
        return;
    if (token->lsn)
        follow_timeline(lane, token->timeline);
    at_risk_add(&lane->risk, token->lsn, 1);
    metrics_add(lane->risk_gauge, 1);
}

void lane_slot_suspect(struct lane_slot *slot, const char *reason)
{
    suspect(slot->lane);
    if (slot->conn)
        pgconn_reset(slot->conn, reason);
}
