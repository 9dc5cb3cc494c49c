/*
 * Health probing. See health.h; what answers mean is in health_state.c.
 *
 * One node's life: start_probe ─> hello, if need be ─> state ─> on_answer ─> conclude, which steps
 * the state, logs and counts what changed, and publishes. A failure sets the retry timer; a good
 * node waits for the next round.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/health.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pgask.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/health_state.h"
#include "router/probe.h"

#define RETRY_MIN_US 20000
#define RETRY_MAX_US 1000000

struct health_node {
    struct health *health;
    char name[SHARDMAP_NAME_MAX + 1];
    char shard[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    size_t index; /* of its state */
    struct pgask *ask;
    struct event *retry;        /* pending: failing, not asked until then */
    int64_t retry_us;           /* the next pause, before jitter */
    bool suspected;             /* while a probe was under way: ask again after it */
    bool migrated;              /* `state` may be asked */
    struct health_answer heard; /* of the probe under way: hello, then state */
    char logged_misplaced[HEALTH_ERROR_MAX];
    struct metrics_series *up_series[3]; /* by role, as they come up */
    struct metrics_series *staleness_series;
    struct metrics_series *duration_series;
};

struct health {
    struct health_config config;
    struct health_limits limits;
    struct event *round;
    struct health_node **nodes; /* grouped by shard, in map order; as are the states */
    struct health_state *states;
    size_t node_count;
    struct health_shard **shards;
    size_t shard_count;
    bool unpublished; /* something was learnt since the last publication */
};

static void start_probe(struct health_node *node);
static void on_retry(evutil_socket_t fd, short what, void *arg);
static void on_connection_lost(void *arg, const char *reason);

static struct health_state *state_of(const struct health_node *node)
{
    return &node->health->states[node->index];
}

static struct log_fields fields_of(const struct health_node *node)
{
    return (struct log_fields){.shard = node->shard, .node = node->name};
}

/* --- publishing ------------------------------------------------------------------------------- */

static struct health_shard *find_shard(const struct health *health, const char *name)
{
    for (size_t i = 0; i < health->shard_count; i++) {
        if (strcmp(health->shards[i]->name, name) == 0)
            return health->shards[i];
    }
    return NULL;
}

static void show_metrics(struct health_node *node, const struct topology_node *shown)
{
    struct metrics_set *set = node->health->config.metrics;
    struct metrics_series **up = &node->up_series[shown->role];
    if (!*up)
        *up =
            metrics_series(set, METRIC_NODE_UP,
                           (const char *[]){node->shard, node->name, node_role_name(shown->role)});
    for (int role = NODE_UNKNOWN; role <= NODE_REPLICA; role++) {
        if (node->up_series[role])
            metrics_set_value(node->up_series[role], shown->up && (int)shown->role == role);
    }
    metrics_set_value(node->staleness_series,
                      shown->staleness_us < 0 ? -1 : shown->staleness_us / 1000);
}

static void publish(struct health *health)
{
    struct topology *topology =
        calloc(1, sizeof(*topology) + health->node_count * sizeof(topology->nodes[0]));
    if (!topology) {
        log_error(NULL, "out of memory: the topology stays as it was");
        return;
    }
    const int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < health->node_count; i++) {
        const struct health_shard *shard = find_shard(health, health->nodes[i]->shard);
        health_publishable(&health->states[i], &shard->history, now_us, &topology->nodes[i]);
        show_metrics(health->nodes[i], &topology->nodes[i]);
    }
    topology->node_count = health->node_count;
    snapshot_publish(health->config.publisher, health->config.topologies, topology, free);
    health->unpublished = false;
}

static bool round_is_over(const struct health *health)
{
    for (size_t i = 0; i < health->node_count; i++) {
        if (pgask_busy(health->nodes[i]->ask))
            return false;
    }
    return true;
}

/* --- what an answer changes ------------------------------------------------------------------- */

static void log_transition(const struct health_node *node, const struct health_state *before,
                           const struct health_state *after)
{
    const struct log_fields fields = fields_of(node);
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
    if (is->fenced != was->fenced || (was->epoch && is->epoch != was->epoch))
        log_info(&fields, "node is %s, epoch %lld", is->fenced ? "fenced" : "not fenced",
                 (long long)is->epoch);
}

/* Judges all identities anew and logs each verdict once. */
static void identify_all(struct health *health)
{
    health_identify(health->states, health->node_count);
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        const char *misplaced = health->states[i].misplaced;
        const struct log_fields fields = fields_of(node);
        if (strcmp(node->logged_misplaced, misplaced) == 0)
            continue;
        if (misplaced[0])
            log_error(&fields, "node is not used: %s", misplaced);
        else
            log_info(&fields, "node is used again: its identity is right now");
        snprintf(node->logged_misplaced, sizeof(node->logged_misplaced), "%s", misplaced);
    }
}

static void sample_shard(struct health *health, const struct health_node *node)
{
    size_t first = node->index;
    size_t end = node->index + 1;
    while (first > 0 && strcmp(health->nodes[first - 1]->shard, node->shard) == 0)
        first--;
    while (end < health->node_count && strcmp(health->nodes[end]->shard, node->shard) == 0)
        end++;
    health_sample(find_shard(health, node->shard), health->states + first, end - first);
}

static void schedule(struct health_node *node, bool good)
{
    if (good) {
        node->retry_us = RETRY_MIN_US;
        event_del(node->retry);
        if (node->suspected)
            start_probe(node);
        return;
    }
    const int64_t half_us = node->retry_us / 2;
    struct timeval pause =
        clock_timeval_us(half_us + (int64_t)arc4random_uniform((uint32_t)half_us));
    event_add(node->retry, &pause);
    node->retry_us = node->retry_us * 2 < RETRY_MAX_US ? node->retry_us * 2 : RETRY_MAX_US;
}

/* The probe is over, well or badly. */
static void conclude(struct health_node *node, const struct health_answer *answer)
{
    struct health *health = node->health;
    struct health_state *state = state_of(node);
    const struct health_state before = *state;
    *state = health_step(&before, answer, &health->limits);
    const bool changed = health_changed(&before, state);
    log_transition(node, &before, state);
    if (changed)
        identify_all(health);
    if (answer->ok)
        sample_shard(health, node);
    health->unpublished = true;
    schedule(node, answer->ok);
    if (changed || round_is_over(health))
        publish(health);
    if (changed && health->config.on_change)
        health->config.on_change(health->config.arg);
}

static void fail(struct health_node *node, const char *reason)
{
    struct health_answer answer = {.ok = false};
    snprintf(answer.error, sizeof(answer.error), "%s", reason);
    node->suspected = false;
    conclude(node, &answer);
}

/* --- asking ----------------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct pgask_answer *said);

static void ask_node(struct health_node *node, const char *sql)
{
    const int64_t timeout_us = node->health->config.settings->health.timeout_ms * 1000;
    const struct pgask_question question = {
        .sql = sql, .connect_timeout_us = timeout_us, .answer_timeout_us = timeout_us};
    pgask_ask(node->ask, &question, on_answer, node);
}

static void on_answer(void *arg, const struct pgask_answer *said)
{
    struct health_node *node = arg;
    struct health_answer *heard = &node->heard;
    const bool hello = !node->migrated;
    if (said->error != SG_OK) {
        node->migrated = false; /* whatever it was: begin with the question that always works */
        fail(node, said->reason);
        return;
    }
    metrics_observe_us(node->duration_series, said->answered_us - said->asked_us);
    if (!(hello ? probe_read_hello : probe_read_state)(said->result, heard)) {
        fail(node, "the probe's answer makes no sense");
        return;
    }
    heard->first = heard->first || said->first;
    heard->asked_us = said->asked_us;
    if (hello && heard->migrated) {
        node->migrated = true;
        ask_node(node, probe_state_sql);
        return;
    }
    conclude(node, heard);
}

static void start_probe(struct health_node *node)
{
    if (!pgask_connected(node->ask))
        node->migrated = false;
    node->suspected = false;
    node->heard = (struct health_answer){.ok = false};
    ask_node(node, node->migrated ? probe_state_sql : probe_hello_sql);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start_probe(arg);
}

static void on_connection_lost(void *arg, const char *reason)
{
    fail(arg, reason);
}

static void on_round(evutil_socket_t fd, short what, void *arg)
{
    struct health *health = arg;
    (void)fd;
    (void)what;
    /* A node that is still thinking must not hold back what the others said. */
    if (health->unpublished)
        publish(health);
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        if (!pgask_busy(node->ask) && !event_pending(node->retry, EV_TIMEOUT, NULL))
            start_probe(node);
    }
    snapshot_poll(health->config.publisher);
}

/* --- the set of nodes ------------------------------------------------------------------------- */

static void free_node(struct health_node *node)
{
    if (!node)
        return;
    pgask_free(node->ask);
    if (node->retry)
        event_free(node->retry);
    free(node->dsn);
    free(node);
}

static struct health_node *new_node(struct health *health, const struct shardmap_shard *shard,
                                    const struct shardmap_node *from)
{
    struct health_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->health = health;
    node->retry_us = RETRY_MIN_US;
    snprintf(node->name, sizeof(node->name), "%s", from->name);
    snprintf(node->shard, sizeof(node->shard), "%s", shard->name);
    const struct pgask_config config = {.base = health->config.base,
                                        .reap = health->config.reap,
                                        .dsn = from->dsn,
                                        .application_name = "seatgrid-health",
                                        .on_lost = on_connection_lost,
                                        .arg = node};
    node->dsn = strdup(from->dsn);
    node->ask = pgask_new(&config);
    node->retry = evtimer_new(health->config.base, on_retry, node);
    if (!node->dsn || !node->ask || !node->retry) {
        free_node(node);
        return NULL;
    }
    struct metrics_set *set = health->config.metrics;
    node->staleness_series =
        metrics_series(set, METRIC_NODE_STALENESS, (const char *[]){node->shard, node->name});
    node->duration_series =
        metrics_series(set, METRIC_PROBE_DURATION, (const char *[]){node->name});
    return node;
}

static struct health_node *find_kept(const struct health *health,
                                     const struct shardmap_shard *shard,
                                     const struct shardmap_node *from)
{
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        if (strcmp(node->name, from->name) == 0 && strcmp(node->shard, shard->name) == 0 &&
            strcmp(node->dsn, from->dsn) == 0)
            return node;
    }
    return NULL;
}

/* What a map asks for, made beside what there is, so that running out of memory changes nothing. */
struct wanted {
    struct health_node **nodes;
    struct health_state *states;
    size_t node_count;
    struct health_shard **shards;
    size_t shard_count;
};

static bool want_shard(struct health *health, struct wanted *wanted,
                       const struct shardmap_shard *shard)
{
    struct health_shard *kept = find_shard(health, shard->name);
    if (!kept) {
        kept = calloc(1, sizeof(*kept));
        if (!kept)
            return false;
        snprintf(kept->name, sizeof(kept->name), "%s", shard->name);
    }
    wanted->shards[wanted->shard_count++] = kept;
    for (size_t i = 0; i < shard->node_count; i++) {
        const struct shardmap_node *from = &shard->nodes[i];
        struct health_state *state = &wanted->states[wanted->node_count];
        struct health_node *node = find_kept(health, shard, from);
        if (node) {
            *state = *state_of(node);
        } else {
            node = new_node(health, shard, from);
            if (!node)
                return false;
            health_state_init(state, shard->name, from->name);
        }
        wanted->nodes[wanted->node_count++] = node;
    }
    return true;
}

static bool contains(void *const *list, size_t count, const void *object)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == object)
            return true;
    }
    return false;
}

/* A node that has left the map is neither up nor stale. */
static void retire_node(struct health_node *node)
{
    for (int role = NODE_UNKNOWN; role <= NODE_REPLICA; role++) {
        if (node->up_series[role])
            metrics_set_value(node->up_series[role], 0);
    }
    metrics_set_value(node->staleness_series, -1);
    free_node(node);
}

/* Frees of `list` what is not in `kept`; both hold nodes or shards. */
static void drop_nodes(struct health_node **list, size_t count, struct health_node **kept,
                       size_t kept_count)
{
    for (size_t i = 0; i < count; i++) {
        if (!contains((void *const *)kept, kept_count, list[i]))
            retire_node(list[i]);
    }
    free(list);
}

static void drop_shards(struct health_shard **list, size_t count, struct health_shard **kept,
                        size_t kept_count)
{
    for (size_t i = 0; i < count; i++) {
        if (!contains((void *const *)kept, kept_count, list[i]))
            free(list[i]);
    }
    free(list);
}

static bool build_wanted(struct health *health, const struct shardmap *map, struct wanted *wanted)
{
    const size_t shard_count = shardmap_shard_count(map);
    size_t node_count = 0;
    for (size_t i = 0; i < shard_count; i++)
        node_count += shardmap_shard(map, (int)i)->node_count;
    wanted->nodes = calloc(node_count + 1, sizeof(wanted->nodes[0]));
    wanted->states = calloc(node_count + 1, sizeof(wanted->states[0]));
    wanted->shards = calloc(shard_count + 1, sizeof(wanted->shards[0]));
    if (!wanted->nodes || !wanted->states || !wanted->shards)
        return false;
    for (size_t i = 0; i < shard_count; i++) {
        if (!want_shard(health, wanted, shardmap_shard(map, (int)i)))
            return false;
    }
    return true;
}

static void adopt(struct health *health, const struct wanted *wanted)
{
    drop_nodes(health->nodes, health->node_count, wanted->nodes, wanted->node_count);
    drop_shards(health->shards, health->shard_count, wanted->shards, wanted->shard_count);
    free(health->states);
    health->nodes = wanted->nodes;
    health->states = wanted->states;
    health->node_count = wanted->node_count;
    health->shards = wanted->shards;
    health->shard_count = wanted->shard_count;
    for (size_t i = 0; i < health->node_count; i++)
        health->nodes[i]->index = i;
}

static void discard(struct health *health, const struct wanted *wanted)
{
    drop_nodes(wanted->nodes, wanted->node_count, health->nodes, health->node_count);
    drop_shards(wanted->shards, wanted->shard_count, health->shards, health->shard_count);
    free(wanted->states);
}

static bool take_map(struct health *health)
{
    struct wanted wanted = {0};
    snapshot_begin(health->config.publisher);
    const struct shardmap *map = snapshot_get(health->config.maps);
    const bool built = map && build_wanted(health, map, &wanted);
    snapshot_end(health->config.publisher);
    if (!built) {
        discard(health, &wanted);
        return false;
    }
    adopt(health, &wanted);
    identify_all(health);
    publish(health);
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        if (!node->health->states[i].judged && !pgask_busy(node->ask) &&
            !event_pending(node->retry, EV_TIMEOUT, NULL))
            start_probe(node);
    }
    return true;
}

void health_sync_map(struct health *health)
{
    if (!take_map(health)) {
        log_error(NULL, "out of memory: health goes on with the former shard map");
        return;
    }
    if (health->config.on_change)
        health->config.on_change(health->config.arg);
}

void health_suspect(struct health *health, const char *name)
{
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        if (strcmp(node->name, name) != 0)
            continue;
        if (pgask_busy(node->ask))
            node->suspected = true; /* the answer under way may be older than the suspicion */
        else if (!event_pending(node->retry, EV_TIMEOUT, NULL))
            start_probe(node); /* one that fails already is being asked again soon */
    }
}

struct health *health_new(const struct health_config *config)
{
    struct health *health = calloc(1, sizeof(*health));
    if (!health)
        return NULL;
    health->config = *config;
    health->limits = (struct health_limits){.down_after = config->settings->health.down_after,
                                            .up_after = config->settings->health.up_after};
    health->round = event_new(config->base, -1, EV_PERSIST, on_round, health);
    struct timeval interval = clock_timeval_us(config->settings->health.interval_ms * 1000);
    if (!health->round || event_add(health->round, &interval) < 0 || !take_map(health)) {
        health_free(health);
        return NULL;
    }
    return health;
}

void health_free(struct health *health)
{
    if (!health)
        return;
    if (health->round)
        event_free(health->round);
    for (size_t i = 0; i < health->node_count; i++)
        free_node(health->nodes[i]);
    for (size_t i = 0; i < health->shard_count; i++)
        free(health->shards[i]);
    free(health->nodes);
    free(health->states);
    free(health->shards);
    free(health);
}
