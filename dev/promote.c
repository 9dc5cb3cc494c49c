/*
 * A standby of the local cluster becomes its shard's primary. See cluster.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/ask.h"
#include "dev/cluster.h"
#include "dev/folders.h"
#include "dev/patroni.h"
#include "dev/roles.h"
#include "dev/servers.h"
#include "dev/standby.h"

#define ASK_MS 2000
#define PROMOTE_MS 60000
#define FOLLOW_MS 10000
#define ANSWER_MS 300   /* of a standby that is well */
#define TURN_MS 1000    /* for a standby to leave the old primary */
#define CATCH_UP_MS 500 /* for the heir to have what the others have */
#define POLL_MS 2

/* --- the node itself -------------------------------------------------------------------------- */

/* Polls by itself: pg_promote's own waiting looks ten times a second. */
static enum sg_error wait_promoted(struct cluster *cluster, const struct server *node,
                                   struct ask *ask)
{
    struct ask_answer answer;
    int64_t deadline_us = clock_mono_us() + PROMOTE_MS * 1000;
    while (ask_again(ask, "SELECT pg_is_in_recovery()", PROMOTE_MS, &answer)) {
        if (strcmp(answer.value[0], "f") == 0)
            return SG_OK;
        if (clock_mono_us() > deadline_us || process_interrupted())
            return cluster_fail(cluster, "%s has not become a primary after %d s", node->name,
                                PROMOTE_MS / 1000);
        process_sleep_ms(POLL_MS);
    }
    return cluster_fail(cluster, "%s: %s", node->name, answer.problem);
}

static enum sg_error promote_node(struct cluster *cluster, const struct server *node)
{
    struct ask_answer answer;
    struct ask *ask = ask_open(node->port, ASK_MS, &answer);
    enum sg_error error = SG_OK;
    if (!ask || !ask_again(ask, "SELECT pg_promote(false)", ASK_MS, &answer))
        error = cluster_fail(cluster, "%s: %s", node->name, answer.problem);
    if (!error)
        error = wait_promoted(cluster, node, ask);
    ask_close(ask);
    return error;
}

/* --- the others ------------------------------------------------------------------------------- */

static bool is_living_standby_beside(const struct server *node, const struct server *heir)
{
    return node != heir && strcmp(node->shard, heir->shard) == 0 && node->id.pid &&
           node->role == ROLE_REPLICA && !process_stopped(&node->id);
}

/* It takes no WAL from anybody but the heir. */
static bool has_turned(const struct server *node, const struct server *heir)
{
    struct ask_answer answer;
    char sql[128];
    snprintf(sql, sizeof(sql), "SELECT 1 FROM pg_stat_wal_receiver WHERE sender_port <> %d",
             heir->port);
    return ask_once(node->port, sql, ANSWER_MS, &answer) && answer.columns == 0;
}

static enum sg_error turn_node(struct cluster *cluster, const struct server *node,
                               const struct server *heir)
{
    int64_t deadline_us = clock_mono_us() + TURN_MS * 1000;
    enum sg_error error = standby_make_slot(cluster, node, heir);
    if (!error)
        error = standby_point(cluster, node, heir);
    while (!error && !has_turned(node, heir) && clock_mono_us() < deadline_us)
        process_sleep_ms(POLL_MS);
    return error;
}

/* -1: it says nothing. */
static int64_t received(const struct server *node)
{
    struct ask_answer answer;
    if (!ask_once(node->port,
                  "SELECT coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
                  " - '0/0', 0)",
                  ANSWER_MS, &answer))
        return -1;
    return strtoll(answer.value[0], NULL, 10);
}

/* The heir may still be getting it from the primary. Who follows an older timeline is left out:
 * what it has beyond that one's end was lost before. */
static enum sg_error check_has_most(struct cluster *cluster, const struct server *heir)
{
    const int64_t deadline_us = clock_mono_us() + CATCH_UP_MS * 1000;
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (!is_living_standby_beside(node, heir) || node->timeline < heir->timeline)
            continue;
        const int64_t has = received(node);
        while (has > received(heir)) {
            if (clock_mono_us() > deadline_us)
                return cluster_fail(
                    cluster,
                    "%s has received more WAL than %s, which would be lost; promote "
                    "that one (--force: %s all the same)",
                    node->name, heir->name, heir->name);
            process_sleep_ms(POLL_MS);
        }
    }
    return SG_OK;
}

/* Back to the primary of until now. */
static void turn_back(struct cluster *cluster, const struct server *heir,
                      const struct server *former)
{
    for (size_t i = 0; former && i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (is_living_standby_beside(node, heir) && standby_point(cluster, node, former) == SG_OK)
            standby_leave_others(cluster, node, former);
    }
}

/* Before the promotion. */
static enum sg_error turn_others(struct cluster *cluster, const struct server *heir,
                                 const struct server *former, bool force)
{
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        if (is_living_standby_beside(&cluster->nodes[i], heir))
            error = turn_node(cluster, &cluster->nodes[i], heir);
    }
    if (!error && !force)
        error = check_has_most(cluster, heir);
    if (error) {
        char problem[sizeof(cluster->problem)];
        memcpy(problem, cluster->problem, sizeof(problem));
        turn_back(cluster, heir, former);
        memcpy(cluster->problem, problem, sizeof(problem));
    }
    return error;
}

/* Afterwards: they go over to the new timeline by themselves. */
static enum sg_error await_others(struct cluster *cluster, const struct server *primary,
                                  struct cluster_promotion *ret)
{
    enum sg_error error = standby_make_slots(cluster, primary);
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (!is_living_standby_beside(node, primary))
            continue;
        if (standby_wait(cluster, node, primary, FOLLOW_MS) == STANDBY_STREAMS) {
            standby_leave_others(cluster, node, primary);
            ret->followers++;
        } else {
            snprintf(ret->astray, sizeof(ret->astray), "%s", node->name);
        }
    }
    return error;
}

/* --- the command ------------------------------------------------------------------------------ */

static enum sg_error promote_locked(struct cluster *cluster, const char *name, bool force,
                                    int64_t start_us, struct cluster_promotion *ret)
{
    struct server *node = servers_find_node(cluster, name);
    if (!node)
        return SG_IO;
    if (!node->id.pid)
        return cluster_fail(cluster, "%s does not run; `seatgrid dev start %s` first", name, name);
    if (process_stopped(&node->id))
        return cluster_fail(cluster, "%s is frozen; `seatgrid dev resume %s` first", name, name);
    const struct server *former = roles_primary(cluster, node->shard);
    ret->already = former == node;
    if (ret->already)
        return SG_OK;
    if (node->role != ROLE_REPLICA)
        return cluster_fail(cluster, "%s is an old primary; `seatgrid dev rejoin %s` first", name,
                            name);
    snprintf(ret->former, sizeof(ret->former), "%s", former ? former->name : "");

    bool ha = cluster->options.ha == 1;
    enum sg_error error = ha ? patroni_switchover(cluster, (size_t)(node - cluster->nodes))
                             : turn_others(cluster, node, former, force);
    if (!error && !ha)
        error = promote_node(cluster, node);
    if (error)
        return error;
    int64_t promoted_us = clock_mono_us();
    ret->promoted_us = promoted_us - start_us;
    roles_learn(cluster);
    error = ha ? SG_OK : await_others(cluster, node, ret);
    ret->followed_us = clock_mono_us() - promoted_us;
    return error;
}

enum sg_error cluster_promote(struct cluster *cluster, const char *name, bool force,
                              struct cluster_promotion *ret_promotion)
{
    int64_t start_us = clock_mono_us();
    struct cluster_promotion promotion = {0};
    enum sg_error error = servers_lock(cluster);
    if (error)
        return error;
    error = promote_locked(cluster, name, force, start_us, &promotion);
    folders_unlock(cluster);
    if (!error)
        *ret_promotion = promotion;
    return error;
}
