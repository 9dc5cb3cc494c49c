/*
 * Asking the servers before a reload. See reload_ask.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/reload_ask.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/pgask.h"
#include "router/health_state.h"
#include "router/probe.h"
#include "router/topology.h"
#include "shardmap/diff.h"

/* One index range scan for each lost interval, never more than the bound in all. */
static const char events_sql[] =
    "SELECT pg_is_in_recovery(), count(*), array_to_string((array_agg(event_id))[1:20], ' ')"
    "  FROM (SELECT e.event_id"
    "          FROM unnest($1::bigint[], $2::bigint[]) AS lost (first, last)"
    "         CROSS JOIN LATERAL (SELECT event_id FROM events"
    "                              WHERE event_id BETWEEN lost.first AND lost.last"
    "                              ORDER BY event_id LIMIT 10001) e"
    "         LIMIT 10001) AS found";

#define UNDEFINED_TABLE "42P01"

enum ask_kind { ASK_IDENTITY, ASK_EVENTS };

struct ask {
    struct reload_asks *asks;
    enum ask_kind kind;
    char node[SHARDMAP_NAME_MAX + 1];
    char shard[SHARDMAP_NAME_MAX + 1];
    struct pgask *pg;
    struct losing *losing; /* ASK_EVENTS */
    bool known_down;       /* by health, when the question was sent */
    bool done;
    bool answered;
    bool decisive; /* ASK_EVENTS: the primary's word */
    char reason[128];
    struct health_answer heard; /* ASK_IDENTITY */
};

/* A shard that loses ids. */
struct losing {
    struct dynbuf firsts; /* bigint[] in text: the intervals' ends */
    struct dynbuf lasts;
    bool answered;
    int64_t first; /* for the message: the span of what it loses */
    int64_t last;
    struct reload_stranded found;
};

struct reload_asks {
    struct reload_asks_config config;
    struct event *deadline;
    struct ask *list;
    size_t count;
    struct losing *losing;
    size_t losing_count;
    bool finished;
};

/* --- whom to ask what ------------------------------------------------------------------------- */

static bool add_ask(struct reload_asks *asks, enum ask_kind kind, const char *shard,
                    const struct shardmap_node *node, const struct topology *topology)
{
    const struct topology_node *known = topology ? topology_find(topology, node->name) : NULL;
    const struct pgask_config config = {.base = asks->config.base,
                                        .reap = asks->config.reap,
                                        .dsn = node->dsn,
                                        .application_name = "seatgrid-reload"};
    struct ask *ask = &asks->list[asks->count];
    *ask = (struct ask){.asks = asks, .kind = kind};
    snprintf(ask->node, sizeof(ask->node), "%s", node->name);
    snprintf(ask->shard, sizeof(ask->shard), "%s", shard);
    snprintf(ask->reason, sizeof(ask->reason), "no answer in time");
    ask->known_down = known && !known->up && strcmp(known->shard, shard) == 0;
    ask->pg = pgask_new(&config);
    if (!ask->pg)
        return false;
    asks->count++;
    return true;
}

static bool node_is_new(const struct shardmap_diff *diff, const char *node)
{
    for (size_t i = 0; i < diff->change_count; i++) {
        const struct shardmap_change *change = &diff->changes[i];
        if (change->node && strcmp(change->node, node) == 0 &&
            change->kind != SHARDMAP_NODE_REMOVED)
            return true;
    }
    return false;
}

static bool add_identities(struct reload_asks *asks, const struct shardmap *map,
                           const struct shardmap_diff *diff)
{
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        for (size_t j = 0; j < shard->node_count; j++) {
            if (node_is_new(diff, shard->nodes[j].name) &&
                !add_ask(asks, ASK_IDENTITY, shard->name, &shard->nodes[j], NULL))
                return false;
        }
    }
    return true;
}

static bool write_intervals(struct losing *losing, const struct shardmap_interval *intervals,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dynbuf_addc(&losing->firsts, i ? ',' : '{');
        dynbuf_add_i64(&losing->firsts, intervals[i].first);
        dynbuf_addc(&losing->lasts, i ? ',' : '{');
        dynbuf_add_i64(&losing->lasts, intervals[i].last);
    }
    dynbuf_addc(&losing->firsts, '}');
    dynbuf_addc(&losing->lasts, '}');
    losing->first = intervals[0].first;
    losing->last = intervals[count - 1].last;
    return !losing->firsts.failed && !losing->lasts.failed;
}

static bool add_losing(struct reload_asks *asks, const struct shardmap_shard *shard,
                       const struct shardmap_diff *diff, const struct topology *topology)
{
    const size_t text_max = (size_t)64 << 20;
    struct shardmap_interval *intervals = NULL;
    size_t count = 0;
    if (shardmap_lost(diff, shard->name, &intervals, &count) != SG_OK)
        return false;
    if (count == 0)
        return true;
    struct losing *losing = &asks->losing[asks->losing_count++];
    dynbuf_init(&losing->firsts, text_max);
    dynbuf_init(&losing->lasts, text_max);
    snprintf(losing->found.shard, sizeof(losing->found.shard), "%s", shard->name);
    bool ok = write_intervals(losing, intervals, count);
    free(intervals);
    for (size_t i = 0; ok && i < shard->node_count; i++) {
        ok = add_ask(asks, ASK_EVENTS, shard->name, &shard->nodes[i], topology);
        if (ok)
            asks->list[asks->count - 1].losing = losing;
    }
    return ok;
}

static size_t node_count(const struct shardmap *map)
{
    size_t count = 0;
    for (size_t i = 0; i < shardmap_shard_count(map); i++)
        count += shardmap_shard(map, (int)i)->node_count;
    return count;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg);

enum sg_error reload_asks_new(const struct reload_asks_config *config,
                              const struct shardmap *old_map, const struct shardmap *new_map,
                              const struct shardmap_diff *diff, const struct topology *topology,
                              struct reload_asks **ret_asks)
{
    struct reload_asks *asks = calloc(1, sizeof(*asks));
    if (!asks)
        return SG_NO_MEMORY;
    asks->config = *config;
    asks->list = calloc(node_count(old_map) + node_count(new_map) + 1, sizeof(asks->list[0]));
    asks->losing = calloc(shardmap_shard_count(old_map) + 1, sizeof(asks->losing[0]));
    asks->deadline = evtimer_new(config->base, on_deadline, asks);
    bool ok = asks->list && asks->losing && asks->deadline && add_identities(asks, new_map, diff);
    for (size_t i = 0; ok && i < shardmap_shard_count(old_map); i++)
        ok = add_losing(asks, shardmap_shard(old_map, (int)i), diff, topology);
    if (!ok) {
        reload_asks_free(asks);
        return SG_NO_MEMORY;
    }
    *ret_asks = asks;
    return SG_OK;
}

size_t reload_asks_count(const struct reload_asks *asks)
{
    return asks->count;
}

void reload_asks_free(struct reload_asks *asks)
{
    if (!asks)
        return;
    assert(asks->count == 0 || asks->list);
    for (size_t i = 0; i < asks->count; i++)
        pgask_free(asks->list[i].pg);
    for (size_t i = 0; i < asks->losing_count; i++) {
        dynbuf_done(&asks->losing[i].firsts);
        dynbuf_done(&asks->losing[i].lasts);
    }
    if (asks->deadline)
        event_free(asks->deadline);
    free(asks->list);
    free(asks->losing);
    free(asks);
}

/* --- asking ----------------------------------------------------------------------------------- */

/* Is the shard's word known well enough, or not to be had? */
static bool losing_settled(const struct reload_asks *asks, const struct losing *losing)
{
    bool waiting = false; /* for a node that may be alive */
    bool waiting_at_all = false;
    for (size_t i = 0; i < asks->count; i++) {
        const struct ask *ask = &asks->list[i];
        if (ask->losing != losing)
            continue;
        if (ask->decisive)
            return true;
        waiting_at_all = waiting_at_all || !ask->done;
        waiting = waiting || (!ask->done && !ask->known_down);
    }
    return !waiting && (losing->answered || !waiting_at_all);
}

static bool all_settled(const struct reload_asks *asks)
{
    for (size_t i = 0; i < asks->count; i++) {
        if (asks->list[i].kind == ASK_IDENTITY && !asks->list[i].done)
            return false;
    }
    for (size_t i = 0; i < asks->losing_count; i++) {
        if (!losing_settled(asks, &asks->losing[i]))
            return false;
    }
    return true;
}

/* Last thing in a callback: on_done may free everything. */
static void finish(struct reload_asks *asks)
{
    asks->finished = true;
    event_del(asks->deadline);
    for (size_t i = 0; i < asks->count; i++) {
        pgask_free(asks->list[i].pg);
        asks->list[i].pg = NULL;
    }
    asks->config.on_done(asks->config.arg);
}

static void settle(struct ask *ask)
{
    struct reload_asks *asks = ask->asks;
    ask->done = true;
    if (!asks->finished && all_settled(asks))
        finish(asks);
}

/* More events are worse news: a replica that lags must not hide what the primary has. */
static void take_found(struct ask *ask, const PGresult *result)
{
    struct reload_stranded *found = &ask->losing->found;
    const int64_t count = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
    const char *next = PQgetvalue(result, 0, 2);
    ask->answered = true;
    ask->decisive = PQgetvalue(result, 0, 0)[0] == 'f';
    ask->losing->answered = true;
    if (count <= found->count)
        return;
    found->count = count;
    found->shown = 0;
    while (*next && found->shown < RELOAD_SHOWN_MAX) {
        char *end;
        found->event_ids[found->shown++] = strtoll(next, &end, 10);
        next = end;
    }
}

static void on_events(void *arg, const struct pgask_answer *said)
{
    struct ask *ask = arg;
    if (said->error == SG_OK && PQntuples(said->result) == 1) {
        take_found(ask, said->result);
    } else if (strcmp(said->sqlstate, UNDEFINED_TABLE) == 0) {
        ask->answered = true; /* never migrated: it holds nothing */
        ask->losing->answered = true;
    } else {
        snprintf(ask->reason, sizeof(ask->reason), "%s", said->reason ? said->reason : "no rows");
    }
    settle(ask);
}

static void on_identity(void *arg, const struct pgask_answer *said);

static void put(struct ask *ask, const char *sql, pgask_fn *fn)
{
    struct pgask_question question = {.sql = sql,
                                      .connect_timeout_us = ask->asks->config.timeout_us,
                                      .answer_timeout_us = ask->asks->config.timeout_us};
    if (ask->losing) {
        question.params[0] = dynbuf_text(&ask->losing->firsts);
        question.params[1] = dynbuf_text(&ask->losing->lasts);
        question.param_count = 2;
    }
    pgask_ask(ask->pg, &question, fn, ask);
}

static void on_claim(void *arg, const struct pgask_answer *said)
{
    struct ask *ask = arg;
    if (said->error == SG_OK)
        probe_read_state(said->result, &ask->heard);
    settle(ask);
}

static void on_identity(void *arg, const struct pgask_answer *said)
{
    struct ask *ask = arg;
    if (said->error == SG_OK && probe_read_hello(said->result, &ask->heard)) {
        ask->answered = true;
        if (ask->heard.migrated) {
            put(ask, probe_state_sql, on_claim);
            return;
        }
    } else {
        snprintf(ask->reason, sizeof(ask->reason), "%s",
                 said->reason ? said->reason : "its answer makes no sense");
    }
    settle(ask);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    finish(arg);
}

void reload_asks_start(struct reload_asks *asks)
{
    struct timeval timeout = clock_timeval_us(asks->config.timeout_us);
    event_add(asks->deadline, &timeout);
    for (size_t i = 0; i < asks->count; i++) {
        struct ask *ask = &asks->list[i];
        bool identity = ask->kind == ASK_IDENTITY;
        put(ask, identity ? probe_hello_sql : events_sql, identity ? on_identity : on_events);
    }
}

/* --- judging ---------------------------------------------------------------------------------- */

/* The shard's node of that name in the map, if it is there. */
static bool map_has_node(const struct shardmap *map, const char *shard, const char *node)
{
    int index = shardmap_shard_by_name(map, shard);
    const struct shardmap_shard *found = index < 0 ? NULL : shardmap_shard(map, index);
    for (size_t i = 0; found && i < found->node_count; i++) {
        if (strcmp(found->nodes[i].name, node) == 0)
            return true;
    }
    return false;
}

static bool was_asked(const struct reload_asks *asks, const char *node)
{
    for (size_t i = 0; i < asks->count; i++) {
        if (asks->list[i].kind == ASK_IDENTITY && strcmp(asks->list[i].node, node) == 0)
            return true;
    }
    return false;
}

struct twin {
    const char *shard;
    const char *node;
};

/* A node of another shard of the new map that is the same PostgreSQL: asked before this one, or
 * known to health and not asked again. */
static bool find_twin(const struct reload_asks *asks, const struct ask *ask,
                      const struct shardmap *map, const struct topology *topology,
                      struct twin *ret_twin)
{
    for (const struct ask *other = asks->list; other < ask; other++) {
        if (other->kind == ASK_IDENTITY && strcmp(other->shard, ask->shard) != 0 &&
            other->answered && other->heard.system_identifier == ask->heard.system_identifier) {
            *ret_twin = (struct twin){other->shard, other->node};
            return true;
        }
    }
    for (size_t i = 0; topology && i < topology->node_count; i++) {
        const struct topology_node *known = &topology->nodes[i];
        if (known->system_identifier == ask->heard.system_identifier &&
            strcmp(known->shard, ask->shard) != 0 && !was_asked(asks, known->name) &&
            map_has_node(map, known->shard, known->name)) {
            *ret_twin = (struct twin){known->shard, known->name};
            return true;
        }
    }
    return false;
}

static void judge_identity(const struct reload_asks *asks, const struct ask *ask,
                           const struct shardmap *map, const struct topology *topology,
                           struct dynbuf *errors, struct dynbuf *warnings)
{
    if (!ask->answered) {
        dynbuf_addf(warnings,
                    "node \"%s\" of shard \"%s\" does not answer, so it was not checked: %s\n",
                    ask->node, ask->shard, ask->reason);
        return;
    }
    if (ask->heard.shard[0] && strcmp(ask->heard.shard, ask->shard) != 0)
        dynbuf_addf(errors,
                    "node \"%s\" is listed under shard \"%s\" but its shard_meta says it is of "
                    "shard \"%s\"\n",
                    ask->node, ask->shard, ask->heard.shard);
    struct twin twin;
    if (find_twin(asks, ask, map, topology, &twin))
        dynbuf_addf(errors,
                    "shards \"%s\" and \"%s\" are the same PostgreSQL: nodes \"%s\" and \"%s\" "
                    "both have system identifier %llu\n",
                    twin.shard, ask->shard, twin.node, ask->node,
                    (unsigned long long)ask->heard.system_identifier);
}

static void judge_losing(const struct losing *losing, const struct shardmap *map,
                         struct dynbuf *objections)
{
    const struct reload_stranded *found = &losing->found;
    if (!losing->answered) {
        dynbuf_addf(
            objections,
            "shard \"%s\" loses ids between %lld and %lld and none of its nodes answers, so "
            "nobody knows whether events would be stranded; start one of them, or reload "
            "with force=1\n",
            found->shard, (long long)losing->first, (long long)losing->last);
        return;
    }
    if (found->count == 0)
        return;
    bool more = found->count > RELOAD_COUNTED_MAX;
    dynbuf_addf(objections,
                "shard \"%s\" holds %s%lld event%s that the new map takes from it: ", found->shard,
                more ? "more than " : "", (long long)(more ? RELOAD_COUNTED_MAX : found->count),
                found->count == 1 ? "" : "s");
    for (size_t i = 0; i < found->shown; i++) {
        int to = shardmap_find(map, found->event_ids[i]);
        dynbuf_addf(objections, "%s%lld (to %s)", i ? ", " : "", (long long)found->event_ids[i],
                    to < 0 ? "no shard" : shardmap_shard(map, to)->name);
    }
    dynbuf_addf(objections, "%s; leave them where they are, or reload with force=1\n",
                found->count > (int64_t)found->shown ? ", ..." : "");
}

void reload_asks_judge(const struct reload_asks *asks, const struct shardmap *new_map,
                       const struct topology *topology, struct dynbuf *errors,
                       struct dynbuf *objections, struct dynbuf *warnings)
{
    for (size_t i = 0; i < asks->count; i++) {
        if (asks->list[i].kind == ASK_IDENTITY)
            judge_identity(asks, &asks->list[i], new_map, topology, errors, warnings);
    }
    for (size_t i = 0; i < asks->losing_count; i++)
        judge_losing(&asks->losing[i], new_map, objections);
}

const struct reload_stranded *reload_asks_stranded(const struct reload_asks *asks, size_t i)
{
    for (size_t j = 0; j < asks->losing_count; j++) {
        if (asks->losing[j].found.count > 0 && i-- == 0)
            return &asks->losing[j].found;
    }
    return NULL;
}
