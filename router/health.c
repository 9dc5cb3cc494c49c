/*
 * Health probing. See health.h; what answers mean is in health_state.c.
 *
 * One node's life: start_probe ─> hello, if need be ─> state ─> on_answer ─> conclude, which steps
 * the state, tells what changed, publishes, and has a new primary attested. A failure sets the
 * retry timer; a good node waits for the next round, which is soon while its shard is urgent.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/health.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pgask.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/attester.h"
#include "router/health_report.h"
#include "router/health_state.h"
#include "router/probe.h"

#define RETRY_MIN_US 20000
#define RETRY_MAX_US 1000000
#define RETRY_URGENT_MAX_US 50000

struct health_node {
    struct health *health;
    char name[SHARDMAP_NAME_MAX + 1];
    char shard[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    struct group *group;
    size_t index; /* of its state */
    struct pgask *ask;
    struct event *retry;        /* pending: failing, not asked until then */
    int64_t retry_us;           /* the next pause, before jitter */
    int64_t failed_us;          /* when the last failure came */
    bool suspected;             /* while a probe was under way: ask again after it */
    bool migrated;              /* `state` may be asked */
    struct health_answer heard; /* of the probe under way: hello, then state */
    struct attester *attester;  /* NULL: health only looks on */
    struct health_report report;
};

/* The nodes of one shard. */
struct group {
    struct health_shard shard;
    size_t first; /* of its nodes and states */
    size_t count;
    bool urgent; /* it cannot be written to */
};

struct health {
    struct health_config config;
    struct health_limits limits;
    struct event *round;
    struct event *urgent;       /* pending while a group is urgent */
    struct health_node **nodes; /* grouped by shard, in map order; as are the states */
    struct health_state *states;
    size_t node_count;
    struct group **groups;
    size_t group_count;
    bool unpublished; /* something was learnt since the last publication */
};

static void start_probe(struct health_node *node);
static void ask_again(struct health_node *node);
static void hurry(struct health_node *node);
static void on_retry(evutil_socket_t fd, short what, void *arg);
static void on_connection_lost(void *arg, const char *reason);

static struct health_state *state_of(const struct health_node *node)
{
    return &node->health->states[node->index];
}

/* --- publishing ------------------------------------------------------------------------------- */

static void set_urgent(struct health *health, struct group *group, bool urgent)
{
    if (group->urgent == urgent)
        return;
    group->urgent = urgent;
    for (size_t i = group->first; urgent && i < group->first + group->count; i++)
        hurry(health->nodes[i]);
}

/* Where the shard can't be written to, the next news are awaited more closely. */
static void judge_urgency(struct health *health, const struct topology *topology)
{
    const struct timeval pause = clock_timeval_us(health->config.settings->health.urgent_ms * 1000);
    bool any = false;
    for (size_t i = 0; i < health->group_count; i++) {
        struct group *group = health->groups[i];
        const char *name = group->shard.name;
        const struct topology_node *primary =
            health->config.attest ? route_write(topology, name) : topology_primary(topology, name);
        set_urgent(health, group, !primary);
        any = any || !primary;
    }
    if (!any)
        event_del(health->urgent);
    else if (!event_pending(health->urgent, EV_TIMEOUT, NULL))
        event_add(health->urgent, &pause);
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
    for (size_t i = 0; i < health->group_count; i++) {
        const struct group *group = health->groups[i];
        health_show(&group->shard, health->states + group->first, group->count, &health->limits,
                    now_us, topology->nodes + group->first);
    }
    topology->node_count = health->node_count;
    for (size_t i = 0; i < health->node_count; i++)
        health_report_published(&health->nodes[i]->report, &topology->nodes[i]);
    judge_urgency(health, topology);
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

/* Judges all identities anew. */
static void identify_all(struct health *health)
{
    health_identify(health->states, health->node_count);
    for (size_t i = 0; i < health->node_count; i++)
        health_report_identity(&health->nodes[i]->report, &health->states[i]);
}

static void on_attested(void *arg)
{
    ask_again(arg);
}

static void attest_group(struct health *health, const struct group *group)
{
    const int64_t wait_us = health->config.settings->failover.attest_wait_ms * 1000;
    if (!health->config.attest)
        return;
    const struct attest_memory *memory = &group->shard.memory;
    const struct health_state *states = health->states + group->first;
    const struct health_state *due =
        attest_due(memory, states, group->count, clock_mono_us(), wait_us);
    const struct health_state *former = attest_to_fence(memory, states, group->count);
    if (due)
        attester_start(health->nodes[due - health->states]->attester, due->node.timeline);
    if (former)
        attester_fence(health->nodes[former - health->states]->attester, former->node.timeline);
}

static void pause_node(struct health_node *node)
{
    if (node->group->urgent && node->retry_us > RETRY_URGENT_MAX_US)
        node->retry_us = RETRY_URGENT_MAX_US;
    const int64_t half_us = node->retry_us / 2;
    struct timeval pause =
        clock_timeval_us(half_us + (int64_t)arc4random_uniform((uint32_t)half_us));
    event_add(node->retry, &pause);
    node->retry_us = node->retry_us * 2 < RETRY_MAX_US ? node->retry_us * 2 : RETRY_MAX_US;
}

/* Its shard has become urgent: a long pause is cut short. */
static void hurry(struct health_node *node)
{
    if (event_pending(node->retry, EV_TIMEOUT, NULL) && node->retry_us > RETRY_URGENT_MAX_US)
        pause_node(node);
}

static void schedule(struct health_node *node, bool good)
{
    if (!good) {
        node->failed_us = clock_mono_us();
        pause_node(node);
        return;
    }
    node->retry_us = RETRY_MIN_US;
    event_del(node->retry);
    if (node->suspected)
        start_probe(node);
}

/* The probe is over, well or badly. */
static void conclude(struct health_node *node, const struct health_answer *answer)
{
    struct health *health = node->health;
    struct group *group = node->group;
    struct health_state *state = state_of(node);
    const struct health_state before = *state;
    *state = health_step(&before, answer, &health->limits);
    const bool changed = health_changed(&before, state);
    if (changed)
        identify_all(health);
    if (answer->ok)
        health_learn(&group->shard, health->states + group->first, group->count);
    health_rotate(state, &group->shard, answer->ok, &health->limits, clock_mono_us());
    health_report_step(&node->report, &before, state);
    health->unpublished = true;
    schedule(node, answer->ok);
    if (changed || state->rotation.in != before.rotation.in || round_is_over(health))
        publish(health);
    if (changed && health->config.on_change)
        health->config.on_change(health->config.arg);
    attest_group(health, group);
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
    health_report_probe(&node->report, said->answered_us - said->asked_us);
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
    event_del(node->retry);
    node->suspected = false;
    node->heard = (struct health_answer){.ok = false};
    ask_node(node, node->migrated ? probe_state_sql : probe_hello_sql);
}

/* What is known of the node may be out of date. One that has just failed gets a short pause. */
static void ask_again(struct health_node *node)
{
    const int64_t urgent_us = node->health->config.settings->health.urgent_ms * 1000;
    const struct timeval pause = clock_timeval_us(urgent_us);
    if (pgask_busy(node->ask))
        node->suspected = true; /* the answer under way may be older than the suspicion */
    else if (event_pending(node->retry, EV_TIMEOUT, NULL) &&
             clock_mono_us() - node->failed_us < urgent_us)
        event_add(node->retry, &pause);
    else
        start_probe(node);
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

static void start_if_idle(struct health_node *node)
{
    if (!pgask_busy(node->ask) && !event_pending(node->retry, EV_TIMEOUT, NULL))
        start_probe(node);
}

static void on_urgent(evutil_socket_t fd, short what, void *arg)
{
    struct health *health = arg;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < health->node_count; i++) {
        if (health->nodes[i]->group->urgent)
            start_if_idle(health->nodes[i]);
    }
    snapshot_poll(health->config.publisher);
}

static void on_round(evutil_socket_t fd, short what, void *arg)
{
    struct health *health = arg;
    (void)fd;
    (void)what;
    /* A node that is still thinking must not hold back what the others said. */
    if (health->unpublished)
        publish(health);
    for (size_t i = 0; i < health->node_count; i++)
        start_if_idle(health->nodes[i]);
    snapshot_poll(health->config.publisher);
}

/* --- the set of nodes ------------------------------------------------------------------------- */

static void free_node(struct health_node *node)
{
    if (!node)
        return;
    attester_free(node->attester);
    pgask_free(node->ask);
    if (node->retry)
        event_free(node->retry);
    free(node->dsn);
    free(node);
}

/* If it is wanted. */
static bool give_attester(struct health_node *node)
{
    const struct health_config *config = &node->health->config;
    if (!config->attest)
        return true;
    node->attester = attester_new(
        &(struct attester_config){.base = config->base,
                                  .reap = config->reap,
                                  .metrics = config->metrics,
                                  .shard = node->shard,
                                  .node = node->name,
                                  .dsn = node->dsn,
                                  .timeout_us = config->settings->health.timeout_ms * 1000,
                                  .on_done = on_attested,
                                  .arg = node});
    return node->attester != NULL;
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
    if (!node->dsn || !node->ask || !node->retry || !give_attester(node)) {
        free_node(node);
        return NULL;
    }
    health_report_init(&node->report, health->config.metrics, node->shard, node->name);
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

static struct group *find_group(const struct health *health, const char *shard)
{
    for (size_t i = 0; i < health->group_count; i++) {
        if (strcmp(health->groups[i]->shard.name, shard) == 0)
            return health->groups[i];
    }
    return NULL;
}

/* What a map asks for, made beside what there is, so that running out of memory changes nothing. */
struct wanted {
    struct health_node **nodes;
    struct health_state *states;
    size_t node_count;
    struct group **groups;
    size_t group_count;
};

static bool want_shard(struct health *health, struct wanted *wanted,
                       const struct shardmap_shard *shard)
{
    struct group *kept = find_group(health, shard->name);
    if (!kept) {
        kept = calloc(1, sizeof(*kept));
        if (!kept)
            return false;
        snprintf(kept->shard.name, sizeof(kept->shard.name), "%s", shard->name);
    }
    wanted->groups[wanted->group_count++] = kept;
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

/* Frees of `list` what is not in `kept`; both hold nodes or groups. */
static void drop_nodes(struct health_node **list, size_t count, struct health_node **kept,
                       size_t kept_count)
{
    for (size_t i = 0; i < count; i++) {
        if (contains((void *const *)kept, kept_count, list[i]))
            continue;
        health_report_gone(&list[i]->report);
        free_node(list[i]);
    }
    free(list);
}

static void drop_groups(struct group **list, size_t count, struct group **kept, size_t kept_count)
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
    wanted->groups = calloc(shard_count + 1, sizeof(wanted->groups[0]));
    if (!wanted->nodes || !wanted->states || !wanted->groups)
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
    drop_groups(health->groups, health->group_count, wanted->groups, wanted->group_count);
    free(health->states);
    health->nodes = wanted->nodes;
    health->states = wanted->states;
    health->node_count = wanted->node_count;
    health->groups = wanted->groups;
    health->group_count = wanted->group_count;
    for (size_t i = 0; i < health->group_count; i++)
        health->groups[i]->count = 0;
    for (size_t i = 0; i < health->node_count; i++) {
        struct health_node *node = health->nodes[i];
        node->index = i;
        node->group = find_group(health, node->shard);
        if (node->group->count++ == 0)
            node->group->first = i;
    }
}

static void discard(struct health *health, const struct wanted *wanted)
{
    drop_nodes(wanted->nodes, wanted->node_count, health->nodes, health->node_count);
    drop_groups(wanted->groups, wanted->group_count, health->groups, health->group_count);
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
        if (!health->states[i].judged)
            start_if_idle(health->nodes[i]);
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
        if (strcmp(health->nodes[i]->name, name) == 0)
            ask_again(health->nodes[i]);
    }
}

static struct health_limits limits_of(const struct settings *settings)
{
    const int64_t bound_us = settings->reads.max_staleness_ms * 1000;
    /* What is known of the primary is up to two rounds old: less can't be told from fresh. */
    const int64_t known_us = 2 * settings->health.interval_ms * 1000;
    int64_t back_us = bound_us * settings->health.lag_back_percent / 100;
    if (back_us < known_us)
        back_us = known_us < bound_us ? known_us : bound_us;
    return (struct health_limits){
        .down_after = settings->health.down_after,
        .up_after = settings->health.up_after,
        .rotation = {.bound_us = bound_us,
                     .back_us = back_us,
                     .samples = settings->health.lag_samples,
                     .needed = settings->health.lag_out,
                     .slow_start_us = settings->health.slow_start_ms * 1000}};
}

struct health *health_new(const struct health_config *config)
{
    struct health *health = calloc(1, sizeof(*health));
    if (!health)
        return NULL;
    health->config = *config;
    health->limits = limits_of(config->settings);
    health->round = event_new(config->base, -1, EV_PERSIST, on_round, health);
    health->urgent = event_new(config->base, -1, EV_PERSIST, on_urgent, health);
    struct timeval interval = clock_timeval_us(config->settings->health.interval_ms * 1000);
    if (!health->round || !health->urgent || event_add(health->round, &interval) < 0 ||
        !take_map(health)) {
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
    if (health->urgent)
        event_free(health->urgent);
    for (size_t i = 0; i < health->node_count; i++)
        free_node(health->nodes[i]);
    for (size_t i = 0; i < health->group_count; i++)
        free(health->groups[i]);
    free(health->nodes);
    free(health->states);
    free(health->groups);
    free(health);
}
