/*
 * A dropped-out node rejoins its shard. See rejoin.h.
 *
 *   it runs as a standby and answers ── streams from the primary? ───────────────> already
 *        │                                └ no ── point it there, wait ──────────> followed
 *        │ no, or that did not help
 *        v
 *   stop it ── starts as a standby? ── start, wait ──────────────────────────────> started
 *        │                                └ astray, or it does not come ── stop it ┐
 *        │ an old primary                                                          │
 *        ├─────────────────────────────────────────────────────────────────────────┘
 *        v
 *   pg_rewind, start, wait ──────────────────────────────────────────────────────> rewound
 *        │ failed, or a former one was cut short
 *        v
 *   pg_basebackup, start, wait ──────────────────────────────────────────────────> copied
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/rejoin.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "dev/ask.h"
#include "dev/folders.h"
#include "dev/patroni.h"
#include "dev/postgres.h"
#include "dev/rewind.h"
#include "dev/roles.h"
#include "dev/servers.h"
#include "dev/standby.h"

#define FOLLOW_MS 15000
#define STREAM_MS 30000
#define PATRONI_MS 120000
#define ASK_MS 1000

/* --- one means each: true if the node streams ------------------------------------------------- */

static bool wait_streaming(struct cluster *cluster, const struct server *node,
                           const struct server *primary, int64_t timeout_ms)
{
    switch (standby_wait(cluster, node, primary, timeout_ms)) {
    case STANDBY_STREAMS:
        return true;
    case STANDBY_ASTRAY:
        cluster_fail(cluster, "%s has WAL that %s never had", node->name, primary->name);
        return false;
    case STANDBY_DEAD:
        cluster_fail(cluster, "%s has ended", node->name);
        return false;
    case STANDBY_WAITS:
        break;
    }
    cluster_fail(cluster, "%s does not stream from %s after %d s", node->name, primary->name,
                 (int)(timeout_ms / 1000));
    return false;
}

static bool is_living_standby(const struct server *node)
{
    struct ask_answer answer;
    return node->id.pid && !process_stopped(&node->id) && node->role == ROLE_REPLICA &&
           ask_once(node->port, "SELECT 1", ASK_MS, &answer);
}

static bool follows(struct cluster *cluster, struct server *node, const struct server *primary)
{
    return standby_point(cluster, node, primary) == SG_OK &&
           wait_streaming(cluster, node, primary, FOLLOW_MS);
}

static bool starts(struct cluster *cluster, struct server *node, const struct server *primary)
{
    standby_free_slot(node, primary);
    return postgres_start(cluster, node) == SG_OK && postgres_wait_ready(cluster, node) == SG_OK &&
           wait_streaming(cluster, node, primary, STREAM_MS);
}

static bool starts_as_it_is(struct cluster *cluster, struct server *node,
                            const struct server *primary)
{
    if (standby_mark(cluster, node) == SG_OK && starts(cluster, node, primary))
        return true;
    postgres_stop(cluster, node);
    return false;
}

static bool starts_rewound(struct cluster *cluster, struct server *node,
                           const struct server *primary)
{
    if (rewind_node(cluster, node, primary) == SG_OK && starts(cluster, node, primary))
        return true;
    postgres_stop(cluster, node);
    return false;
}

static enum sg_error starts_copied(struct cluster *cluster, struct server *node,
                                   const struct server *primary)
{
    struct process_id maker;
    standby_free_slot(node, primary);
    enum sg_error error = postgres_copy_begin(cluster, node, primary, &maker);
    if (!error)
        error = postgres_copy_end(cluster, node, &maker);
    if (!error)
        rewind_forget(cluster, node);
    if (!error && !starts_as_it_is(cluster, node, primary))
        error = SG_IO;
    return error;
}

/* --- one after the other ---------------------------------------------------------------------- */

static enum sg_error bring_back(struct cluster *cluster, struct server *node,
                                const struct server *primary, enum cluster_rejoin_way *ret_way)
{
    *ret_way = REJOIN_ALREADY;
    if (is_living_standby(node)) {
        if (standby_wait(cluster, node, primary, 0) == STANDBY_STREAMS)
            return SG_OK;
        *ret_way = REJOIN_FOLLOWED;
        if (follows(cluster, node, primary))
            return SG_OK;
    }
    if (!postgres_stop(cluster, node))
        return cluster_fail(cluster, "%s does not stop", node->name);
    *ret_way = REJOIN_STARTED;
    if (node->role == ROLE_REPLICA && starts_as_it_is(cluster, node, primary))
        return SG_OK;
    *ret_way = REJOIN_REWOUND;
    if (!process_interrupted() && node->role != ROLE_HALF_REWOUND &&
        starts_rewound(cluster, node, primary))
        return SG_OK;
    if (process_interrupted())
        return cluster_fail(cluster, "interrupted");
    *ret_way = REJOIN_COPIED;
    return starts_copied(cluster, node, primary);
}

enum sg_error rejoin_node(struct cluster *cluster, struct server *node, struct server *primary,
                          enum cluster_rejoin_way *ret_way)
{
    enum cluster_rejoin_way way;
    enum sg_error error = standby_make_slots(cluster, primary);
    if (!error)
        error = bring_back(cluster, node, primary, &way);
    if (!error)
        error = standby_drop_slots(cluster, node);
    if (error)
        return error;
    standby_leave_others(cluster, node, primary);
    cluster->problem[0] = '\0'; /* of the means that did not help */
    node->role = ROLE_REPLICA;
    *ret_way = way;
    return SG_OK;
}

/* --- a standby follows another one ------------------------------------------------------------ */

/* Through however many: from `node` to `end`. */
static bool leads_to(struct cluster *cluster, const struct server *node, const struct server *end)
{
    for (size_t i = 0; node && i < cluster->node_count; i++) {
        if (node == end)
            return true;
        node = node->id.pid && !process_stopped(&node->id) ? standby_upstream(cluster, node) : NULL;
    }
    return false;
}

enum sg_error rejoin_follow(struct cluster *cluster, struct server *node, struct server *upstream,
                            enum cluster_rejoin_way *ret_way)
{
    if (strcmp(node->shard, upstream->shard) != 0)
        return cluster_fail(cluster, "%s is of another shard than %s", upstream->name, node->name);
    if (!upstream->id.pid || process_stopped(&upstream->id))
        return cluster_fail(cluster, "%s %s", upstream->name,
                            upstream->id.pid ? "is frozen" : "does not run");
    if (!is_living_standby(node))
        return cluster_fail(cluster, "%s is no running replica: it cannot be told whom to follow",
                            node->name);
    if (leads_to(cluster, upstream, node))
        return cluster_fail(cluster, "%s follows %s itself", upstream->name, node->name);
    enum cluster_rejoin_way way = REJOIN_ALREADY;
    if (standby_wait(cluster, node, upstream, 0) != STANDBY_STREAMS) {
        way = REJOIN_FOLLOWED;
        enum sg_error error = standby_make_slot(cluster, node, upstream);
        if (error || !follows(cluster, node, upstream))
            return SG_IO;
    }
    standby_leave_others(cluster, node, upstream);
    *ret_way = way;
    return SG_OK;
}

const char *rejoin_way_text(enum cluster_rejoin_way way)
{
    switch (way) {
    case REJOIN_ALREADY:
        return "streams already from";
    case REJOIN_FOLLOWED:
        return "follows";
    case REJOIN_STARTED:
        return "started, streams from";
    case REJOIN_REWOUND:
        return "rewound and started, streams from";
    case REJOIN_COPIED:
        break;
    }
    return "copied anew and started, streams from";
}

/* --- the command ------------------------------------------------------------------------------ */

/* Patroni rewinds and copies by itself; it has to run. */
static enum sg_error wait_for_patroni(struct cluster *cluster, struct server *node,
                                      const struct server *primary,
                                      enum cluster_rejoin_way *ret_way)
{
    size_t index = (size_t)(node - cluster->nodes);
    *ret_way = REJOIN_ALREADY;
    if (is_living_standby(node) && standby_wait(cluster, node, primary, 0) == STANDBY_STREAMS)
        return SG_OK;
    *ret_way = REJOIN_FOLLOWED;
    if (node->id.pid && process_stopped(&node->id))
        postgres_signal_all(cluster, node, SIGCONT);
    enum sg_error error = SG_OK;
    if (!cluster->patroni[index].id.pid) {
        *ret_way = REJOIN_STARTED;
        error = patroni_start(cluster, index);
    }
    if (!error)
        error = patroni_wait_node(cluster, index);
    if (!error && !wait_streaming(cluster, node, primary, PATRONI_MS))
        error = SG_IO;
    return error;
}

static enum sg_error follow_locked(struct cluster *cluster, struct server *node,
                                   const char *upstream_name, struct cluster_rejoin *ret_rejoin)
{
    struct server *upstream = servers_find_node(cluster, upstream_name);
    if (!upstream)
        return SG_IO;
    if (cluster->options.ha == 1)
        return cluster_fail(cluster, "Patroni decides whom %s follows", node->name);
    snprintf(ret_rejoin->primary, sizeof(ret_rejoin->primary), "%s", upstream->name);
    return rejoin_follow(cluster, node, upstream, &ret_rejoin->way);
}

static enum sg_error rejoin_locked(struct cluster *cluster, const char *name, const char *upstream,
                                   struct cluster_rejoin *ret_rejoin)
{
    struct server *node = servers_find_node(cluster, name);
    if (!node)
        return SG_IO;
    if (upstream)
        return follow_locked(cluster, node, upstream, ret_rejoin);
    struct server *primary = roles_primary(cluster, node->shard);
    if (!primary || (primary != node && !primary->id.pid))
        return cluster_fail(cluster, "shard %s has no running primary that %s could follow%s%s%s",
                            node->shard, name, primary ? "; `seatgrid dev start " : "",
                            primary ? primary->name : "", primary ? "` first" : "");
    if (primary == node)
        return cluster_fail(cluster, "%s is the primary of shard %s itself", name, node->shard);
    if (process_stopped(&primary->id))
        return cluster_fail(cluster, "the primary of shard %s, %s, is frozen", node->shard,
                            primary->name);
    snprintf(ret_rejoin->primary, sizeof(ret_rejoin->primary), "%s", primary->name);
    if (cluster->options.ha == 1)
        return wait_for_patroni(cluster, node, primary, &ret_rejoin->way);
    return rejoin_node(cluster, node, primary, &ret_rejoin->way);
}

enum sg_error cluster_rejoin(struct cluster *cluster, const char *name, const char *upstream,
                             struct cluster_rejoin *ret_rejoin)
{
    struct cluster_rejoin rejoin = {0};
    int64_t start_us = clock_mono_us();
    enum sg_error error = servers_lock(cluster);
    if (error)
        return error;
    error = rejoin_locked(cluster, name, upstream, &rejoin);
    folders_unlock(cluster);
    rejoin.took_us = clock_mono_us() - start_us;
    if (!error)
        *ret_rejoin = rejoin;
    return error;
}
