/*
 * The drills as lists of steps. See scenario.h.
 *
 * A step is a function of the scene; the lists stand at the end of this file.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/cluster.h"
#include "drill/load.h"

#define SEEN_TIMEOUT_MS 60000
#define PATRONI_TIMEOUT_MS 180000
#define WRITES_TIMEOUT_MS 60000
#define LAG_TIMEOUT_MS 60000
#define WHOLE_TIMEOUT_MS 90000
#define STEADY_TIMEOUT_MS 60000
#define SWITCHOVER_TIMEOUT_MS 120000
#define POLL_MS 2
#define HOLD_MS 500      /* a state that shall be felt */
#define LAG_HOLD_MS 1000 /* a replica stays out for that long */

/* What an episode knows while it is played. */
struct scene {
    const struct stage *stage;
    struct rig *rig;
    const struct variant *variant;
    size_t shard;
    struct fault fault;
    bool struck;      /* the fault is there and not undone */
    int64_t since_us; /* a booking that is sent after this shows that bookings are made again */
    struct episode *episode;
};

typedef enum sg_error step_fn(struct scene *scene);

struct step {
    const char *doing; /* NULL ends the list */
    step_fn *fn;
};

struct variant {
    const char *what;
    enum victim victim;
    enum fault_kind fault;
    const struct step *steps;
    int replicas; /* that it wants; */
    bool spare;   /* one more with durability sync, whose writes wait for one that is left */
};

/* --- waiting ---------------------------------------------------------------------------------- */

typedef bool condition_fn(struct scene *scene);

/* Until the condition holds; the moment it did. */
static enum sg_error await(struct scene *scene, condition_fn *condition, int64_t timeout_ms,
                           int64_t *ret_us)
{
    const int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    while (!condition(scene)) {
        if (process_interrupted())
            return rig_fail(scene->rig, "interrupted");
        if (clock_mono_us() > deadline_us)
            return rig_fail(scene->rig, "not within %lld s", (long long)timeout_ms / 1000);
        process_reap();
        process_sleep_ms(POLL_MS);
    }
    *ret_us = clock_mono_us();
    return SG_OK;
}

static const char *shard_name(const struct scene *scene)
{
    return scene->stage->shards[scene->shard];
}

/* --- the victim ------------------------------------------------------------------------------- */

/* The primary, or the first replica, of the shard. */
static bool find_node(struct scene *scene, bool primary, char *ret_name)
{
    struct rig_view view;
    if (!rig_look(scene->rig, &view))
        return false;
    const struct rig_node *found = primary ? rig_primary(&view, shard_name(scene)) : NULL;
    for (size_t i = 0; !primary && !found && i < view.count; i++) {
        const struct rig_node *node = &view.nodes[i];
        if (strcmp(node->shard, shard_name(scene)) == 0 && node->up && !node->primary)
            found = node;
    }
    if (found)
        snprintf(ret_name, 64, "%s", found->name);
    return found != NULL;
}

static enum sg_error choose_victim(struct scene *scene, char *ret_name)
{
    switch (scene->variant->victim) {
    case VICTIM_REDIS:
        snprintf(ret_name, 64, "redis");
        return SG_OK;
    case VICTIM_CDC:
        snprintf(ret_name, 64, "cdc");
        return SG_OK;
    default:
        if (find_node(scene, scene->variant->victim == VICTIM_PRIMARY, ret_name))
            return SG_OK;
        return rig_fail(scene->rig, "shard %s has no such node", shard_name(scene));
    }
}

/* --- steps: faults ---------------------------------------------------------------------------- */

static void note_begin(struct episode *episode, const char *victim, int64_t now_us)
{
    if (episode->made_us) {
        episode->again_us = now_us;
        return;
    }
    episode->made_us = now_us;
    snprintf(episode->victim, sizeof(episode->victim), "%s", victim);
}

static enum sg_error strike(struct scene *scene)
{
    char victim[64];
    enum sg_error error = choose_victim(scene, victim);
    if (error)
        return error;
    scene->episode->lossy = !scene->rig->options.sync && scene->variant->victim == VICTIM_PRIMARY;
    if (scene->episode->lossy)
        scene->episode->at_risk = rig_metric(scene->rig, "seatgrid_bookings_at_risk");
    scene->struck = true;
    error = fault_make(scene->rig, scene->variant->fault, victim, &scene->fault);
    note_begin(scene->episode, victim, scene->fault.made_us);
    scene->since_us = scene->fault.made_us;
    return error;
}

static enum sg_error release(struct scene *scene)
{
    scene->since_us = clock_mono_us();
    return fault_release(scene->rig, &scene->fault);
}

static enum sg_error undo(struct scene *scene)
{
    enum sg_error error = fault_undo(scene->rig, &scene->fault);
    scene->struck = error != SG_OK;
    return error;
}

static enum sg_error hold(struct scene *scene)
{
    (void)scene;
    process_sleep_ms(HOLD_MS);
    return SG_OK;
}

static enum sg_error hold_lag(struct scene *scene)
{
    (void)scene;
    process_sleep_ms(LAG_HOLD_MS);
    return SG_OK;
}

/* --- steps: what the router sees -------------------------------------------------------------- */

/* The victim has lost the place that it had. */
static bool is_seen(struct scene *scene)
{
    struct rig_view view;
    if (scene->variant->victim == VICTIM_REDIS)
        return rig_metric(scene->rig, "seatgrid_redis_up") == 0;
    if (!rig_look(scene->rig, &view))
        return false;
    const struct rig_node *node = rig_find(&view, scene->fault.server);
    return node && (!node->up || (scene->variant->victim == VICTIM_PRIMARY &&
                                  rig_primary(&view, node->shard) != node));
}

static enum sg_error await_seen(struct scene *scene)
{
    int64_t seen_us;
    enum sg_error error = await(scene, is_seen, SEEN_TIMEOUT_MS, &seen_us);
    if (!error && !scene->episode->seen_us)
        scene->episode->seen_us = seen_us;
    return error;
}

static bool is_in_rotation(struct scene *scene)
{
    struct rig_view view;
    const struct rig_node *node =
        rig_look(scene->rig, &view) ? rig_find(&view, scene->fault.server) : NULL;
    return node && node->up && node->in_rotation;
}

static bool is_out_of_rotation(struct scene *scene)
{
    struct rig_view view;
    const struct rig_node *node =
        rig_look(scene->rig, &view) ? rig_find(&view, scene->fault.server) : NULL;
    return node && !node->in_rotation;
}

static enum sg_error await_out(struct scene *scene)
{
    return await(scene, is_out_of_rotation, LAG_TIMEOUT_MS, &scene->episode->out_us);
}

static enum sg_error await_back(struct scene *scene)
{
    return await(scene, is_in_rotation, LAG_TIMEOUT_MS, &scene->episode->back_us);
}

/* The replica has replayed up to where the primary was when it was let go. */
static enum sg_error await_fresh(struct scene *scene)
{
    char primary[64];
    char lsn[RIG_ANSWER_MAX];
    char sql[RIG_ANSWER_MAX + 100];
    char reached[RIG_ANSWER_MAX] = "";
    if (!find_node(scene, true, primary))
        return rig_fail(scene->rig, "shard %s has no primary", shard_name(scene));
    enum sg_error error = rig_ask(scene->rig, primary, "SELECT pg_current_wal_lsn()", lsn);
    const int64_t deadline_us = clock_mono_us() + LAG_TIMEOUT_MS * 1000LL;
    snprintf(sql, sizeof(sql), "SELECT pg_last_wal_replay_lsn() >= '%s'", lsn);
    while (!error && strcmp(reached, "t") != 0) {
        error = clock_mono_us() > deadline_us
                    ? rig_fail(scene->rig, "%s does not catch up", scene->fault.server)
                    : rig_ask(scene->rig, scene->fault.server, sql, reached);
    }
    scene->episode->fresh_us = clock_mono_us();
    return error;
}

/* --- steps: a new primary --------------------------------------------------------------------- */

/* The node's WAL on disk, or an error if it does not answer or is no replica. Whatever a client was
 * told is done, with a synchronous shard, at least one of them has. */
static enum sg_error ask_received(struct scene *scene, const char *name, int64_t *ret_lsn)
{
    char text[RIG_ANSWER_MAX];
    enum sg_error error =
        rig_ask(scene->rig, name,
                "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(),"
                " pg_last_wal_replay_lsn()), '0/0')::bigint WHERE pg_is_in_recovery()",
                text);
    if (!error && !text[0])
        error = rig_fail(scene->rig, "%s is no replica", name);
    if (!error)
        *ret_lsn = strtoll(text, NULL, 10);
    return error;
}

/* The replica that has most, as a high-availability manager would choose. */
static enum sg_error choose_heir(struct scene *scene, char *ret_name)
{
    struct rig_view view;
    int64_t most = -1;
    if (!rig_look(scene->rig, &view))
        return rig_fail(scene->rig, "the router does not answer");
    for (size_t i = 0; i < view.count; i++) {
        const struct rig_node *node = &view.nodes[i];
        int64_t lsn;
        if (strcmp(node->shard, shard_name(scene)) != 0 || !node->up || node->primary ||
            strcmp(node->name, scene->fault.server) == 0 || ask_received(scene, node->name, &lsn))
            continue;
        if (lsn > most)
            snprintf(ret_name, 64, "%s", node->name);
        most = lsn > most ? lsn : most;
    }
    return most >= 0 ? SG_OK : rig_fail(scene->rig, "no replica of %s answers", shard_name(scene));
}

/* Another node of the shard has left recovery, by whoever's order. */
static bool is_promoted(struct scene *scene)
{
    const struct cluster *cluster = scene->rig->cluster;
    char text[RIG_ANSWER_MAX];
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (strcmp(node->shard, shard_name(scene)) != 0 ||
            strcmp(node->name, scene->fault.server) == 0 ||
            rig_ask(scene->rig, node->name, "SELECT pg_is_in_recovery()", text) ||
            strcmp(text, "f") != 0)
            continue;
        snprintf(scene->episode->promoted, sizeof(scene->episode->promoted), "%s", node->name);
        return true;
    }
    return false;
}

static enum sg_error promote_heir(struct scene *scene)
{
    struct episode *episode = scene->episode;
    struct cluster_promotion promotion;
    enum sg_error error = choose_heir(scene, episode->promoted);
    if (error)
        return error;
    const int64_t ordered_us = clock_mono_us();
    if (cluster_promote(scene->rig->cluster, episode->promoted, false, &promotion))
        return rig_fail(scene->rig, "%.500s", scene->rig->cluster->problem);
    episode->promoted_us = ordered_us + promotion.promoted_us;
    scene->since_us = episode->promoted_us;
    return SG_OK;
}

/* As a high-availability manager would; where there is one, it does. */
static enum sg_error promote(struct scene *scene)
{
    if (!scene->rig->options.ha)
        return promote_heir(scene);
    enum sg_error error =
        await(scene, is_promoted, PATRONI_TIMEOUT_MS, &scene->episode->promoted_us);
    scene->since_us = scene->episode->promoted_us;
    return error;
}

static enum sg_error switch_over(struct scene *scene)
{
    char config[CLUSTER_PATH_MAX];
    char victim[64];
    enum sg_error error = choose_victim(scene, victim);
    if (error)
        return error;
    note_begin(scene->episode, victim, clock_mono_us());
    /* Patroni keeps its own promise of who is primary; it makes the change. */
    if (scene->rig->options.ha)
        return promote_heir(scene);
    cluster_path(config, "%s/seatgrid.cfg", scene->rig->var);
    error = rig_command(scene->rig, SWITCHOVER_TIMEOUT_MS, "switchover", shard_name(scene), "-c",
                        config, NULL);
    if (!error && !find_node(scene, true, scene->episode->promoted))
        error = rig_fail(scene->rig, "shard %s has no primary", shard_name(scene));
    scene->since_us = clock_mono_us();
    return error;
}

/* --- steps: well again ------------------------------------------------------------------------ */

static enum sg_error await_writes(struct scene *scene)
{
    if (!load_wait_writes(scene->stage->load, scene->shard, scene->since_us, WRITES_TIMEOUT_MS))
        return rig_fail(scene->rig, "no booking after %d s", WRITES_TIMEOUT_MS / 1000);
    return SG_OK;
}

static enum sg_error await_whole(struct scene *scene)
{
    enum sg_error error = rig_await_whole(scene->rig, WHOLE_TIMEOUT_MS);
    if (!error && !load_wait_steady(scene->stage->load, STEADY_TIMEOUT_MS))
        error = rig_fail(scene->rig, "the load is not answered at its rate");
    scene->episode->ended_us = clock_mono_us();
    return error;
}

/* --- lists of steps --------------------------------------------------------------------------- */

#define STRIKE                                                                                     \
    {                                                                                              \
        "making the fault", strike                                                                 \
    }
#define SEEN                                                                                       \
    {                                                                                              \
        "the router sees it", await_seen                                                           \
    }
#define PROMOTE                                                                                    \
    {                                                                                              \
        "another node is promoted", promote                                                        \
    }
#define WRITES                                                                                     \
    {                                                                                              \
        "bookings are made again", await_writes                                                    \
    }
#define RELEASE                                                                                    \
    {                                                                                              \
        "the fault goes away", release                                                             \
    }
#define HOLD                                                                                       \
    {                                                                                              \
        "a moment like that", hold                                                                 \
    }
#define UNDO                                                                                       \
    {                                                                                              \
        "the server comes back", undo                                                              \
    }
#define SWITCH                                                                                     \
    {                                                                                              \
        "switchover", switch_over                                                                  \
    }
#define WHOLE                                                                                      \
    {                                                                                              \
        "all is whole again", await_whole                                                          \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }

static const struct step switchover_steps[] = {SWITCH, WRITES, WHOLE, END};
static const struct step crash_steps[] = {STRIKE, SEEN, PROMOTE, WRITES, UNDO, WHOLE, END};
/* The old primary wakes, or is heard again, beside the new one. */
static const struct step silence_steps[] = {STRIKE, SEEN, PROMOTE, WRITES, RELEASE,
                                            HOLD,   UNDO, WHOLE,   END};
/* The router sees the old primary all the time. */
static const struct step standbys_steps[] = {STRIKE, HOLD, PROMOTE, WRITES, RELEASE,
                                             HOLD,   UNDO, WHOLE,   END};
static const struct step absence_steps[] = {STRIKE, SEEN, HOLD, RELEASE, WRITES, WHOLE, END};
static const struct step lag_steps[] = {STRIKE,
                                        {"the replica is taken out", await_out},
                                        {"it stays out", hold_lag},
                                        RELEASE,
                                        {"it catches up", await_fresh},
                                        {"it is back", await_back},
                                        WHOLE,
                                        END};
static const struct step loss_steps[] = {STRIKE, SEEN, HOLD, WRITES, UNDO, WHOLE, END};
static const struct step flush_steps[] = {STRIKE, HOLD, WRITES, WHOLE, END};
static const struct step restart_steps[] = {STRIKE, HOLD, WRITES, UNDO, WHOLE, END};
static const struct step twice_switchover_steps[] = {SWITCH, SWITCH, WRITES, WHOLE, END};
static const struct step twice_crash_steps[] = {STRIKE, SEEN,    PROMOTE, WRITES, UNDO,  STRIKE,
                                                SEEN,   PROMOTE, WRITES,  UNDO,   WHOLE, END};

/* --- scenarios -------------------------------------------------------------------------------- */

static const struct variant switchover_variants[] = {
    {"planned", VICTIM_PRIMARY, FAULT_KINDS, switchover_steps, 1, false}};
static const struct variant crash_variants[] = {
    {"primary killed", VICTIM_PRIMARY, FAULT_KILL, crash_steps, 1, true}};
static const struct variant hang_variants[] = {
    {"primary frozen", VICTIM_PRIMARY, FAULT_HANG, silence_steps, 1, true}};
static const struct variant lag_variants[] = {
    {"replay paused", VICTIM_REPLICA, FAULT_REPLAY_PAUSE, lag_steps, 1, true},
    {"receiver silent", VICTIM_REPLICA, FAULT_RECEIVER_STOP, lag_steps, 1, true}};
static const struct variant replica_variants[] = {
    {"replica killed", VICTIM_REPLICA, FAULT_KILL, loss_steps, 1, true}};
static const struct variant partition_variants[] = {
    {"cut off from all", VICTIM_PRIMARY, FAULT_CUT, silence_steps, 1, true},
    {"cut off from standbys", VICTIM_PRIMARY, FAULT_CUT_STANDBYS, standbys_steps, 1, true},
    {"cut off from router", VICTIM_PRIMARY, FAULT_CUT_PROGRAMS, absence_steps, 0, false}};
static const struct variant redis_variants[] = {
    {"redis killed", VICTIM_REDIS, FAULT_PROGRAM_KILL, loss_steps, 0, false},
    {"redis emptied", VICTIM_REDIS, FAULT_REDIS_FLUSH, flush_steps, 0, false},
    {"consumer killed", VICTIM_CDC, FAULT_PROGRAM_KILL, restart_steps, 0, false}};
static const struct variant twice_variants[] = {
    {"two switchovers", VICTIM_PRIMARY, FAULT_KINDS, twice_switchover_steps, 1, false},
    {"two crashes", VICTIM_PRIMARY, FAULT_KILL, twice_crash_steps, 1, true}};

#define VARIANTS(list) list, sizeof(list) / sizeof((list)[0])

const struct scenario scenarios[] = {
    {"switchover", "planned change of the primary", VARIANTS(switchover_variants)},
    {"crash", "kill -9 of a primary", VARIANTS(crash_variants)},
    {"hang", "a primary that takes connections and says nothing", VARIANTS(hang_variants)},
    {"lag", "a replica that falls behind", VARIANTS(lag_variants)},
    {"replica-loss", "kill -9 of a replica", VARIANTS(replica_variants)},
    {"partition", "a primary cut off from others", VARIANTS(partition_variants)},
    {"redis-loss", "Redis or the consumer dies, or forgets", VARIANTS(redis_variants)},
    {"back-to-back", "two changes of the primary at once", VARIANTS(twice_variants)},
};
const size_t scenario_count = sizeof(scenarios) / sizeof(scenarios[0]);

const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; i < scenario_count; i++) {
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    }
    return NULL;
}

static bool is_playable(const struct variant *variant, const struct rig *rig)
{
    const int wanted = variant->replicas + (variant->spare && rig->options.sync);
    return wanted <= rig->options.replicas &&
           (variant->fault == FAULT_KINDS || fault_possible(rig, variant->fault));
}

static const struct variant *nth_variant(const struct scenario *scenario, const struct rig *rig,
                                         size_t number)
{
    for (size_t i = 0; i < scenario->variant_count; i++) {
        if (is_playable(&scenario->variants[i], rig) && number-- == 0)
            return &scenario->variants[i];
    }
    return NULL;
}

size_t scenario_variants(const struct scenario *scenario, const struct rig *rig)
{
    size_t count = 0;
    for (size_t i = 0; i < scenario->variant_count; i++)
        count += is_playable(&scenario->variants[i], rig);
    return count;
}

/* --- playing ---------------------------------------------------------------------------------- */

static enum sg_error play(struct scene *scene)
{
    for (const struct step *step = scene->variant->steps; step->doing; step++) {
        enum sg_error error = step->fn(scene);
        if (error) {
            char why[sizeof(scene->rig->problem)];
            snprintf(why, sizeof(why), "%s", scene->rig->problem);
            return rig_fail(scene->rig, "%s, %s: %.400s", scene->variant->what, step->doing, why);
        }
    }
    return SG_OK;
}

enum sg_error scenario_play(const struct scenario *scenario, size_t number, size_t shard,
                            const struct stage *stage, struct episode *ret_episode)
{
    const struct variant *variant = nth_variant(scenario, stage->rig, number);
    if (!variant)
        return rig_fail(stage->rig, "%s: not possible with this cluster", scenario->name);
    const bool of_shard = variant->victim == VICTIM_PRIMARY || variant->victim == VICTIM_REPLICA;
    *ret_episode = (struct episode){.drill = scenario->name,
                                    .what = variant->what,
                                    .shard = of_shard ? stage->shards[shard] : NULL};
    struct scene scene = {.stage = stage,
                          .rig = stage->rig,
                          .variant = variant,
                          .shard = shard,
                          .episode = ret_episode};
    enum sg_error error = play(&scene);
    if (error && scene.struck) {
        char why[sizeof(stage->rig->problem)];
        snprintf(why, sizeof(why), "%s", stage->rig->problem);
        process_interrupt_reset();
        fault_undo(stage->rig, &scene.fault);
        snprintf(stage->rig->problem, sizeof(stage->rig->problem), "%s", why);
    }
    if (!ret_episode->ended_us)
        ret_episode->ended_us = clock_mono_us();
    return error;
}
