/*
 * The sweeper. See sweeper.h; when it looks again says sweep_plan.h.
 *
 * It follows map and topology at each tick: a shard that has left the map is forgotten, one whose
 * primary is another gets a new connection.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/sweeper.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pgask.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/lane_aim.h"
#include "router/statements.h"
#include "router/sweep_plan.h"
#include "router/topology.h"
#include "shardmap/shardmap.h"

/* The settings are made before the function runs, since its argument needs them. Not by
 * enable_seqscan here: the price it puts on a scan would have every sweep compiled (jit). */
static const char sweep_sql[] =
    "SELECT w.outcome, w.expired, w.offered, w.more"
    "  FROM (SELECT set_config('synchronous_commit', 'local', true)"
    "            || set_config('lock_timeout', '1s', true) AS made OFFSET 0) s"
    " CROSS JOIN LATERAL sweep(CASE WHEN s.made <> '' THEN $1::bigint END, $2::integer,"
    "                          $3::bigint) w";

enum sweep_column { COL_OUTCOME, COL_EXPIRED, COL_OFFERED, COL_MORE };

struct swept_shard {
    LIST_ENTRY(swept_shard) link;
    struct sweeper *sweeper;
    char name[SHARDMAP_NAME_MAX + 1];
    struct lane_place place; /* what `ask` was made for */
    struct pgask *ask;       /* NULL: none yet */
    char epoch[24];          /* of the primary, as it is asked with */
    struct sweep_past past;
    int64_t due_us;
    bool logged; /* that it does not answer */
    bool in_map; /* seen at this tick */
};

struct sweeper {
    struct sweeper_config config;
    LIST_HEAD(, swept_shard) shards;
    struct event *tick;
    char limit[24];
    char offer_ms[24];
};

static void ask(struct swept_shard *shard);

/* --- the answer ------------------------------------------------------------------------------- */

static void count(const struct swept_shard *shard, const char *outcome)
{
    const char *labels[] = {shard->name, outcome};
    metrics_add(metrics_series(shard->sweeper->config.metrics, METRIC_SWEEPS, labels), 1);
}

static void count_done(const struct swept_shard *shard, enum metric_family family, const char *done)
{
    const char *labels[] = {shard->name};
    metrics_add(metrics_series(shard->sweeper->config.metrics, family, labels),
                strtoll(done, NULL, 10));
}

static void note_failure(struct swept_shard *shard, const char *reason)
{
    const struct log_fields fields = {.shard = shard->name, .node = shard->place.node};
    count(shard, "failed");
    shard->past.failures++;
    shard->past.more = false;
    if (!shard->logged)
        log_warn(&fields, "holds whose time is over stay uncounted for now: %s", reason);
    shard->logged = true;
}

static void note_outcome(struct swept_shard *shard, const PGresult *row)
{
    const struct log_fields fields = {.shard = shard->name, .node = shard->place.node};
    count(shard, PQgetvalue(row, 0, COL_OUTCOME));
    count_done(shard, METRIC_HOLDS_EXPIRED, PQgetvalue(row, 0, COL_EXPIRED));
    count_done(shard, METRIC_WAITLIST_OFFERED, PQgetvalue(row, 0, COL_OFFERED));
    shard->past.failures = 0;
    shard->past.more = PQgetvalue(row, 0, COL_MORE)[0] == 't';
    if (shard->logged)
        log_info(&fields, "holds whose time is over are ended again");
    shard->logged = false;
}

static void on_answer(void *arg, const struct pgask_answer *said)
{
    struct swept_shard *shard = arg;
    const struct settings *settings = shard->sweeper->config.settings;
    if (said->error != SG_OK)
        note_failure(shard, said->reason);
    else if (PQntuples(said->result) != 1 || PQnfields(said->result) != 4)
        note_failure(shard, "the answer makes no sense");
    else
        note_outcome(shard, said->result);
    int64_t pause_us = sweep_pause_us(&shard->past, settings->sweeper.interval_ms * 1000);
    shard->due_us = clock_mono_us() + pause_us;
    if (pause_us == 0)
        ask(shard);
}

/* --- the question ----------------------------------------------------------------------------- */

static void ask(struct swept_shard *shard)
{
    const struct sweeper *sweeper = shard->sweeper;
    const struct settings *settings = sweeper->config.settings;
    const struct pgask_question question = {
        .sql = sweep_sql,
        .params = {shard->epoch, sweeper->limit, sweeper->offer_ms},
        .param_count = 3,
        .connect_timeout_us = settings->postgres.connect_timeout_ms * 1000,
        .answer_timeout_us = settings->postgres.statement_timeout_ms * 1000};
    pgask_ask(shard->ask, &question, on_answer, shard);
}

static void forget_connection(struct swept_shard *shard)
{
    if (shard->ask)
        pgask_free(shard->ask);
    shard->ask = NULL;
    shard->place.node[0] = '\0';
    shard->past = (struct sweep_past){0};
}

/* The connection is one to that node. */
static bool connect_to(struct swept_shard *shard, const struct shardmap_node *node)
{
    const struct sweeper_config *config = &shard->sweeper->config;
    struct lane_place place = lane_place_of(node, SHARDMAP_ASYNC);
    if (shard->ask && strcmp(place.node, shard->place.node) == 0 &&
        place.dsn_hash == shard->place.dsn_hash)
        return true;
    forget_connection(shard);
    shard->place = place;
    shard->ask = pgask_new(&(struct pgask_config){.base = config->base,
                                                  .reap = config->reap,
                                                  .dsn = node->dsn,
                                                  .application_name = "seatgrid-sweep",
                                                  .options = STATEMENT_WRITE_OPTIONS});
    shard->due_us = 0;
    return shard->ask != NULL;
}

static const struct shardmap_node *find_node(const struct shardmap_shard *shard, const char *name)
{
    for (size_t i = 0; i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, name) == 0)
            return &shard->nodes[i];
    }
    return NULL;
}

/* --- the tick --------------------------------------------------------------------------------- */

static struct swept_shard *find_shard(struct sweeper *sweeper, const char *name)
{
    struct swept_shard *shard;
    LIST_FOREACH (shard, &sweeper->shards, link) {
        if (strcmp(shard->name, name) == 0)
            return shard;
    }
    shard = calloc(1, sizeof(*shard));
    if (!shard)
        return NULL; /* the next tick tries again */
    shard->sweeper = sweeper;
    snprintf(shard->name, sizeof(shard->name), "%s", name);
    LIST_INSERT_HEAD(&sweeper->shards, shard, link);
    return shard;
}

static void forget(struct swept_shard *shard)
{
    forget_connection(shard);
    LIST_REMOVE(shard, link);
    free(shard);
}

static void visit(struct swept_shard *shard, const struct shardmap_shard *mapped,
                  const struct topology *topology, int64_t now_us)
{
    const struct topology_node *primary = route_write(topology, shard->name);
    const struct shardmap_node *node = primary ? find_node(mapped, primary->name) : NULL;
    if (!node || !connect_to(shard, node) || pgask_busy(shard->ask) || now_us < shard->due_us)
        return;
    snprintf(shard->epoch, sizeof(shard->epoch), "%lld", (long long)primary->epoch);
    ask(shard);
}

static void visit_all(struct sweeper *sweeper, const struct shardmap *map,
                      const struct topology *topology)
{
    int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *mapped = shardmap_shard(map, (int)i);
        struct swept_shard *shard = find_shard(sweeper, mapped->name);
        if (!shard)
            continue;
        shard->in_map = true;
        visit(shard, mapped, topology, now_us);
    }
}

static void forget_unmapped(struct sweeper *sweeper)
{
    struct swept_shard *shard = LIST_FIRST(&sweeper->shards);
    while (shard) {
        struct swept_shard *next = LIST_NEXT(shard, link);
        if (!shard->in_map)
            forget(shard);
        else
            shard->in_map = false;
        shard = next;
    }
}

static void set_tick(struct sweeper *sweeper)
{
    struct timeval tv = clock_timeval_us(sweeper->config.settings->sweeper.interval_ms * 1000);
    event_add(sweeper->tick, &tv);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct sweeper *sweeper = arg;
    const struct sweeper_config *config = &sweeper->config;
    (void)fd;
    (void)what;
    snapshot_begin(config->reader);
    const struct shardmap *map = snapshot_get(config->maps);
    const struct topology *topology = snapshot_get(config->topologies);
    if (map && topology) {
        visit_all(sweeper, map, topology);
        forget_unmapped(sweeper);
    }
    snapshot_end(config->reader);
    set_tick(sweeper);
}

/* --- life ------------------------------------------------------------------------------------- */

struct sweeper *sweeper_new(const struct sweeper_config *config)
{
    struct sweeper *sweeper = calloc(1, sizeof(*sweeper));
    if (!sweeper)
        return NULL;
    sweeper->config = *config;
    LIST_INIT(&sweeper->shards);
    snprintf(sweeper->limit, sizeof(sweeper->limit), "%lld",
             (long long)config->settings->sweeper.limit);
    snprintf(sweeper->offer_ms, sizeof(sweeper->offer_ms), "%lld",
             (long long)config->settings->waitlist.offer_ms);
    sweeper->tick = evtimer_new(config->base, on_tick, sweeper);
    if (!sweeper->tick) {
        free(sweeper);
        return NULL;
    }
    set_tick(sweeper);
    return sweeper;
}

void sweeper_free(struct sweeper *sweeper)
{
    if (!sweeper)
        return;
    while (!LIST_EMPTY(&sweeper->shards))
        forget(LIST_FIRST(&sweeper->shards));
    event_free(sweeper->tick);
    free(sweeper);
}
