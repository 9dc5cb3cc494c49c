/*
 * Goal: whatever dies, hangs, is cut off, promoted or comes back, and whenever it does so, nobody
 * gets a seat twice, no booking that was acknowledged with a standby behind it is lost, every
 * request has one true answer in time, and when the trouble is over everything works again.
 * Method: the real health, attestation, topology, router and lanes of two router processes, on
 * simulated time, servers and network (sim_*.h). A seed makes a history of bookings and faults; it
 * is run, the faults are mended, and then what clients were told is laid beside the WAL of the
 * primary that is left. SIM_SEED=n replays one history with its log, SIM_SEEDS=n runs so many.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "router/health.h"
#include "router/router.h"
#include "router/switchover.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_pg.h"
#include "tests/sim/sim_servers.h"
#include "tests/unit/router/published.h"

#define ROUTERS 2
#define CLIENTS_MAX 600
#define ATTEMPTS_MAX 6
#define TROUBLE_US 9000000 /* of a history; then all is mended */
#define CALM_US 14000000
#define SLACK_US 250000 /* an answer may come so much after its deadline */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HISTORIES 100
#else
#define HISTORIES 1000
#endif

/* --- a router process ------------------------------------------------------------------------- */

struct process {
    int index;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct published published;
    struct health *health;
    struct router *router;
};

/* One booking that somebody wants, over all its attempts. */
struct client {
    int64_t event_id;
    struct seat seats[3];
    size_t seat_count;
    char key[24]; /* "": none, so it asks only once */
    char user[24];
    int attempts;
    bool asking;
    int64_t asked_us;
    bool acknowledged;
    bool refused; /* for good: seats taken */
    bool unsure;  /* of an attempt's outcome */
    char booking_id[ROUTER_UUID_LEN + 1];
};

static struct {
    uint64_t seed;
    bool sync;
    struct process processes[ROUTERS];
    struct client clients[CLIENTS_MAX];
    int client_count;
    bool mended;
    /* the one who promotes */
    bool promoting;
    int primary;
    /* the one who switches over */
    struct event_base *operator_base; /* NULL: nobody is at it */
    struct reap_list *operator_reap;
    struct switchover *switchover;
    struct shardmap *operator_map;
    int switchovers;  /* done */
    int64_t failures; /* of requests, in all attempts */
    int64_t answers;
    int promotions;
} run;

static void on_change(void *arg)
{
    struct process *process = arg;
    if (process->router)
        router_sync_topology(process->router);
}

static void on_suspect(void *arg, const char *node)
{
    struct process *process = arg;
    if (process->health)
        health_suspect(process->health, node);
}

static struct shardmap *make_map(void)
{
    struct dynbuf text;
    dynbuf_init(&text, 4096);
    dynbuf_addf(&text,
                "map_version = 1;\nshards = ( { name = \"%s\"; durability = \"%s\"; nodes = (",
                SIM_SHARD, run.sync ? "sync" : "async");
    for (int i = 0; i < SIM_NODES; i++)
        dynbuf_addf(&text, "%s{ name = \"alpha-%d\"; dsn = \"" SIM_DSN_FORMAT "\"; }",
                    i ? ", " : " ", i + 1, i + 1);
    dynbuf_addf(&text, "); } );\nranges = ( { first = 1; last = 1000; shard = \"%s\"; } );\n",
                SIM_SHARD);
    struct shardmap *map = map_of(dynbuf_text(&text));
    dynbuf_done(&text);
    return map;
}

static void process_start(struct process *process, int index)
{
    struct published *published = &process->published;
    *process = (struct process){.index = index};
    process->base = sim_base_new();
    process->reap = reap_list_new(process->base);
    process->metrics = metrics_set_new();
    published_init(published);
    settings_init(&process->settings);
    process->settings.booking.deadline_ms = 5000;
    snapshot_publish(published->publisher, &published->maps, make_map(), shardmap_free);
    process->health = health_new(&(struct health_config){.settings = &process->settings,
                                                         .base = process->base,
                                                         .reap = process->reap,
                                                         .metrics = process->metrics,
                                                         .publisher = published->publisher,
                                                         .maps = &published->maps,
                                                         .topologies = &published->topologies,
                                                         .attest = true,
                                                         .on_change = on_change,
                                                         .arg = process});
    process->router = router_new(&(struct router_config){.settings = &process->settings,
                                                         .base = process->base,
                                                         .metrics = process->metrics,
                                                         .reap = process->reap,
                                                         .reader = published->reader,
                                                         .maps = &published->maps,
                                                         .topologies = &published->topologies,
                                                         .on_suspect = on_suspect,
                                                         .on_suspect_arg = process});
    assert_non_null(process->health);
    assert_non_null(process->router);
}

static void process_end(struct process *process)
{
    router_free(process->router);
    process->router = NULL;
    health_free(process->health);
    process->health = NULL;
    reap_list_free(process->reap);
    published_done(&process->published);
}

/* --- clients ---------------------------------------------------------------------------------- */

static void on_next_attempt(void *arg);

static const char *name_of(const struct client *client)
{
    return client->key[0] ? client->key : client->user;
}

static bool has_ended(const struct client *client)
{
    return client->acknowledged || client->refused;
}

static void on_booked(void *arg, const struct book_result *result)
{
    struct client *client = arg;
    run.answers++;
    if (!client->asking)
        fail_msg("seed %llu: %s was answered twice", (unsigned long long)run.seed, name_of(client));
    client->asking = false;
    if (sim_now_us() > client->asked_us + 5000000 + SLACK_US)
        fail_msg("seed %llu: %s was answered %lld ms late", (unsigned long long)run.seed,
                 name_of(client), (long long)(sim_now_us() - client->asked_us) / 1000 - 5000);
    if (result->error == SG_OK) {
        client->acknowledged = true;
        snprintf(client->booking_id, sizeof(client->booking_id), "%s", result->booking_id);
    } else if (result->error == SG_SEATS_TAKEN) {
        client->refused = true;
    } else {
        run.failures++;
        client->unsure |= result->error == SG_OUTCOME_UNKNOWN;
        log_info(NULL, "%s: %s", name_of(client), sg_error_code(result->error));
        if (client->attempts < ATTEMPTS_MAX && client->key[0])
            sim_after(50000 + sim_random(500000), on_next_attempt, client);
    }
}

static void attempt(struct client *client)
{
    struct process *process = &run.processes[sim_random(ROUTERS)];
    const struct book_request request = {.event_id = client->event_id,
                                         .user_id = client->user,
                                         .seats = client->seats,
                                         .seat_count = client->seat_count,
                                         .idempotency_key = client->key[0] ? client->key : NULL,
                                         .request_id = name_of(client)};
    client->attempts++;
    client->asking = true;
    client->asked_us = sim_now_us();
    if (router_book(process->router, &request, on_booked, client) != SG_OK)
        fail_msg("seed %llu: %s was not accepted", (unsigned long long)run.seed, name_of(client));
}

static void on_next_attempt(void *arg)
{
    attempt(arg);
}

static struct client *new_client(void)
{
    assert_true(run.client_count < CLIENTS_MAX);
    struct client *client = &run.clients[run.client_count++];
    uint32_t taken = 0;
    *client =
        (struct client){.event_id = 1 + sim_random(SIM_EVENTS), .seat_count = 1 + sim_random(3)};
    if (sim_chance(60)) {
        snprintf(client->key, sizeof(client->key), "key-%d", run.client_count);
        snprintf(client->user, sizeof(client->user), "user-%u", sim_random(20));
    } else {
        snprintf(client->user, sizeof(client->user), "keyless-%d", run.client_count);
    }
    for (size_t i = 0; i < client->seat_count;) {
        uint32_t col = 1 + sim_random(SIM_COLS);
        if (taken & 1u << col)
            continue;
        taken |= 1u << col;
        client->seats[i++] = (struct seat){.row = 1, .col = (int32_t)col};
    }
    return client;
}

static void on_client(void *arg)
{
    (void)arg;
    if (run.mended)
        return;
    if (run.client_count < CLIENTS_MAX - 10)
        attempt(new_client());
    sim_after(5000 + sim_random(60000), on_client, NULL);
}

/* --- the one who promotes: what Patroni or an operator does --------------------------------------
 */

static bool is_well(int index)
{
    return sim_node(index)->process == SIM_UP && sim_reaches(NULL, index);
}

/* Everybody else follows the new primary; who has diverged is rewound. */
static void on_follow(void *arg)
{
    (void)arg;
    const struct sim_node *primary = sim_node(run.primary);
    run.promoting = false;
    for (int i = 0; i < SIM_NODES; i++) {
        struct sim_node *node = sim_node(i);
        if (i == run.primary || !node->standby)
            continue;
        if (sim_is_prefix(node, primary))
            sim_follow(i, run.primary);
        else if (is_well(i) && is_well(run.primary))
            sim_rejoin(i, run.primary);
    }
}

/* It follows the newest timeline: whoever was left behind on an older one may lack what was
 * acknowledged since, and also before by others. What Patroni knows by its key /sync. */
static bool is_heir(int index)
{
    const struct sim_node *node = sim_node(index);
    for (int i = 0; i < SIM_NODES; i++) {
        if (sim_node(i)->timeline > node->timeline)
            return false;
    }
    return node->standby && index != run.primary && is_well(index);
}

static void on_promote(void *arg)
{
    int best = -1;
    bool all = true;
    (void)arg;
    for (int i = 0; i < SIM_NODES; i++) {
        struct sim_node *node = sim_node(i);
        if (!node->standby || i == run.primary)
            continue;
        all &= is_well(i);
        if (is_heir(i) && sim_is_prefix(sim_node(best < 0 ? i : best), node))
            best = i;
    }
    if (is_well(run.primary) && sim_chance(50)) { /* it is back: all as it was */
        on_follow(NULL);
        return;
    }
    if (best < 0 || (run.sync && !all)) { /* who is not seen may be the only one that has it all */
        sim_after(200000, on_promote, NULL);
        return;
    }
    log_info(NULL, "--- %lld ms: alpha-%d is promoted", (long long)sim_now_us() / 1000, best + 1);
    sim_promote(best);
    run.primary = best;
    run.promotions++;
    sim_after(1000 + sim_random(100000), on_follow, NULL);
}

/* First nobody takes WAL from the old primary any more: then what they have is what counts. */
static void begin_promotion(void)
{
    run.promoting = true;
    for (int i = 0; i < SIM_NODES; i++) {
        if (sim_node(i)->standby)
            sim_follow(i, i);
    }
    sim_after(1000 + sim_random(50000), on_promote, NULL);
}

/* A switchover may have made another primary. */
static void find_primary(void)
{
    const int before = run.primary;
    for (int i = 0; i < SIM_NODES; i++) {
        if (!sim_node(i)->standby && sim_node(i)->timeline > sim_node(run.primary)->timeline)
            run.primary = i;
    }
    if (run.primary != before)
        sim_after(1000 + sim_random(100000), on_follow, NULL);
}

static void on_watch(void *arg)
{
    (void)arg;
    if (!run.promoting && !run.operator_base) {
        find_primary();
        if (!is_well(run.primary) && sim_chance(40))
            begin_promotion();
    }
    sim_after(100000 + sim_random(200000), on_watch, NULL);
}

/* --- the one who switches over ---------------------------------------------------------------- */

static void operator_goes(void)
{
    switchover_free(run.switchover);
    run.switchover = NULL;
    reap_list_free(run.operator_reap);
    shardmap_free(run.operator_map);
    run.operator_base = NULL;
}

static void on_operator_done(void *arg)
{
    (void)arg;
    if (run.operator_base)
        operator_goes();
}

static void on_switched_over(void *arg, const struct switchover_result *result)
{
    (void)arg;
    log_info(NULL, "--- %lld ms: switchover %s: %s", (long long)sim_now_us() / 1000,
             switchover_step_name(result->end), result->text);
    run.switchovers += result->end == SWITCHOVER_DONE;
    sim_after(0, on_operator_done, NULL);
}

/* kill -9: nothing is told to anybody. Its memory goes with the run. */
static void on_operator_killed(void *arg)
{
    (void)arg;
    if (!run.operator_base)
        return;
    log_info(NULL, "--- %lld ms: the operator is killed", (long long)sim_now_us() / 1000);
    sim_kill(run.operator_base);
    operator_goes();
}

static void drain_nobody(void *world, const char *shard, uint64_t lsn, int64_t timeout_ms,
                         switchover_drained_fn *fn, void *arg);
static void point_standby(void *world, const char *node, const char *upstream, int64_t timeout_ms,
                          switchover_rejoined_fn *fn, void *arg);

static void operator_comes(bool abort)
{
    run.operator_base = sim_base_new();
    run.operator_reap = reap_list_new(run.operator_base);
    run.operator_map = make_map();
    log_info(NULL, "--- %lld ms: switchover%s begins", (long long)sim_now_us() / 1000,
             abort ? " --abort" : "");
    run.switchover =
        switchover_new(&(struct switchover_config){.settings = &run.processes[0].settings,
                                                   .base = run.operator_base,
                                                   .reap = run.operator_reap,
                                                   .shard = shardmap_shard(run.operator_map, 0),
                                                   .operator_name = "operator",
                                                   .timeout_ms = 5000,
                                                   .abort = abort,
                                                   .world = {drain_nobody, point_standby, NULL},
                                                   .on_done = on_switched_over});
    assert_non_null(run.switchover);
}

struct drain {
    switchover_drained_fn *fn;
    void *arg;
    struct event_base *base;
};

static void on_drain_answered(void *arg)
{
    struct drain *drain = arg;
    const struct switchover_drained drained = {.event = SWITCHOVER_LOST, .text = "nobody"};
    if (sim_base_lives(drain->base) && run.operator_base == drain->base)
        drain->fn(drain->arg, &drained);
    free(drain);
}

static void drain_nobody(void *world, const char *shard, uint64_t lsn, int64_t timeout_ms,
                         switchover_drained_fn *fn, void *arg)
{
    struct drain *drain = malloc(sizeof(*drain));
    (void)world;
    (void)shard;
    (void)lsn;
    (void)timeout_ms;
    assert_non_null(drain);
    *drain = (struct drain){fn, arg, run.operator_base};
    sim_after(500, on_drain_answered, drain);
}

struct errand {
    switchover_rejoined_fn *fn;
    void *arg;
    struct event_base *base;
    int node;
    int upstream; /* -1: who becomes a primary is seen to by others (on_follow) */
};

static int node_by_name(const char *name)
{
    return name ? atoi(name + strlen("alpha-")) - 1 : -1;
}

static bool follows(int node, int upstream)
{
    return sim_node(node)->standby && sim_node(node)->upstream == upstream;
}

static void on_errand_done(void *arg)
{
    struct errand *errand = arg;
    const bool lives = sim_base_lives(errand->base) && run.operator_base == errand->base;
    const bool ok = errand->upstream >= 0 && sim_node(errand->node)->standby && !run.promoting &&
                    is_well(errand->node) && !follows(errand->upstream, errand->node) &&
                    !sim_chance(10);
    if (ok)
        sim_follow(errand->node, errand->upstream);
    if (lives)
        errand->fn(errand->arg, ok, "");
    free(errand);
}

/* The process that is started goes on also when the operator has died. */
static void point_standby(void *world, const char *node, const char *upstream, int64_t timeout_ms,
                          switchover_rejoined_fn *fn, void *arg)
{
    struct errand *errand = malloc(sizeof(*errand));
    (void)world;
    (void)timeout_ms;
    assert_non_null(errand);
    *errand =
        (struct errand){fn, arg, run.operator_base, node_by_name(node), node_by_name(upstream)};
    sim_after(5000 + sim_random(100000), on_errand_done, errand);
}

/* A fence that an operator has left for ever, on a shard that nobody has promoted since. */
static bool is_left_fenced(void)
{
    const struct sim_meta meta = sim_meta_of(sim_node(run.primary));
    return sim_fenced(sim_node(run.primary), &meta) && meta.fenced_until_us == SIM_FOREVER &&
           meta.timeline == sim_node(run.primary)->timeline;
}

static void on_operator(void *arg)
{
    (void)arg;
    if (!run.operator_base && !run.promoting) {
        find_primary();
        if (is_left_fenced())
            operator_comes(true);
        else if (!run.mended)
            operator_comes(false);
        if (run.operator_base && !run.mended && sim_chance(30))
            sim_after(sim_random(300000), on_operator_killed, NULL);
    }
    sim_after(run.mended ? 500000 : 500000 + sim_random(4000000), on_operator, NULL);
}

/* A former primary: taken in as a standby, or first left to itself for a while. */
static void on_old_primaries(void *arg)
{
    (void)arg;
    for (int i = 0; i < SIM_NODES && !run.promoting && !run.operator_base; i++) {
        struct sim_node *node = sim_node(i);
        find_primary();
        if (i == run.primary || node->process == SIM_HUNG)
            continue;
        if (node->process == SIM_DOWN && sim_chance(50)) {
            log_info(NULL, "--- %lld ms: alpha-%d starts as what it was",
                     (long long)sim_now_us() / 1000, i + 1);
            sim_start(i);
        } else if (!node->standby && (run.mended || sim_chance(50)) && is_well(run.primary)) {
            log_info(NULL, "--- %lld ms: alpha-%d rejoins", (long long)sim_now_us() / 1000, i + 1);
            sim_rejoin(i, run.primary);
        }
    }
    sim_after(200000 + sim_random(800000), on_old_primaries, NULL);
}

/* --- faults ----------------------------------------------------------------------------------- */

static void on_mend_links(void *arg)
{
    (void)arg;
    for (int i = 0; i < SIM_NODES; i++) {
        sim_cut(NULL, i, false);
        for (int r = 0; r < ROUTERS; r++)
            sim_cut(run.processes[r].base, i, false);
        for (int j = 0; j < SIM_NODES; j++)
            sim_cut_nodes(i, j, false);
        sim_node(i)->slow = sim_node(i)->paused = false;
    }
}

static void on_clock(void *arg)
{
    struct sim_node *node = arg;
    if (!run.mended)
        node->clock_off_us = (int64_t)sim_random(10000000) - 5000000;
}

static void on_crash(void *arg)
{
    const struct sim_node *node = arg;
    if (!run.mended)
        sim_crash(node->index);
}

static void on_wake(void *arg)
{
    struct sim_node *node = arg;
    log_info(NULL, "--- %lld ms: alpha-%d wakes up", (long long)sim_now_us() / 1000,
             node->index + 1);
    sim_wake(node->index);
}

static void on_impatience(void *arg)
{
    const struct sim_node *node = arg;
    log_info(NULL, "--- %lld ms: alpha-%d waits for its standbys no longer",
             (long long)sim_now_us() / 1000, node->index + 1);
    sim_cut_waits(node->index);
    if (sim_chance(50) && !run.mended)
        sim_after(sim_random(5000), on_crash, arg);
}

static void make_fault(void)
{
    int node = (int)sim_random(SIM_NODES);
    int other = (node + 1 + (int)sim_random(SIM_NODES - 1)) % SIM_NODES;
    const uint32_t kind = sim_random(10);
    if (sim_chance(50))
        node = run.primary;
    log_info(NULL, "--- %lld ms: fault %u, alpha-%d%s", (long long)sim_now_us() / 1000, kind,
             node + 1, node == run.primary ? " (the primary)" : "");
    switch (kind) {
    case 0:
    case 1:
        sim_crash(node);
        break;
    case 2:
        sim_hang(node);
        sim_after(200000 + sim_random(6000000), on_wake, sim_node(node));
        break;
    case 3: /* one router loses sight of it */
        sim_cut(run.processes[sim_random(ROUTERS)].base, node, true);
        sim_after(100000 + sim_random(4000000), on_mend_links, NULL);
        break;
    case 4: /* everybody does */
        sim_cut(NULL, node, true);
        for (int i = 0; i < SIM_NODES; i++)
            sim_cut_nodes(i, node, i != node);
        sim_after(100000 + sim_random(4000000), on_mend_links, NULL);
        break;
    case 5:
        if (node != other)
            sim_cut_nodes(node, other, true);
        sim_after(100000 + sim_random(2000000), on_mend_links, NULL);
        break;
    case 6:
        sim_node(node)->slow = true;
        break;
    case 7:
        sim_node(node)->paused = sim_node(node)->standby;
        break;
    case 8: /* no standby gets its WAL; somebody loses patience, or it dies, or both */
        for (int i = 0; i < SIM_NODES; i++)
            sim_cut_nodes(i, node, i != node);
        sim_after(sim_random(500000), on_impatience, sim_node(node));
        sim_after(500000 + sim_random(1500000), on_mend_links, NULL);
        break;
    case 9: /* its clock steps, and soon after perhaps back */
        on_clock(sim_node(node));
        if (sim_chance(50))
            sim_after(sim_random(200000), on_clock, sim_node(node));
        break;
    }
}

static void on_fault(void *arg)
{
    (void)arg;
    if (run.mended)
        return;
    make_fault();
    sim_after(100000 + sim_random(2500000), on_fault, NULL);
}

static void mend_all(void)
{
    run.mended = true;
    log_info(NULL, "--- %lld ms: all is mended", (long long)sim_now_us() / 1000);
    on_mend_links(NULL);
    for (int i = 0; i < SIM_NODES; i++) {
        sim_wake(i);
        if (sim_node(i)->process == SIM_DOWN)
            sim_start(i);
    }
}

/* --- judgement -------------------------------------------------------------------------------- */

static bool is_of(const struct sim_booking *booking, const struct client *client)
{
    return client->key[0] ? strcmp(booking->key, client->key) == 0
                          : strcmp(booking->user, client->user) == 0;
}

static const struct sim_booking *find_booking(const struct sim_node *node,
                                              const struct client *client)
{
    const struct sim_booking *found = NULL;
    for (int i = 0; i < node->wal_count; i++) {
        const struct sim_record *record = sim_record(node->wal[i]);
        if (record->kind != SIM_BOOKING || !is_of(&record->booking, client))
            continue;
        if (found)
            fail_msg("seed %llu: %s is there twice", (unsigned long long)run.seed, name_of(client));
        found = &record->booking;
    }
    return found;
}

static void check_seats(const struct sim_node *node)
{
    uint32_t taken[SIM_EVENTS + 1] = {0};
    for (int i = 0; i < node->wal_count; i++) {
        const struct sim_record *record = sim_record(node->wal[i]);
        if (record->kind != SIM_BOOKING)
            continue;
        if (taken[record->booking.event_id] & record->booking.seats)
            fail_msg("seed %llu: a seat was sold twice", (unsigned long long)run.seed);
        taken[record->booking.event_id] |= record->booking.seats;
    }
}

static void check_client(const struct sim_node *node, const struct client *client)
{
    char id[UUID_TEXT_LEN + 1] = "";
    const struct sim_booking *booking = find_booking(node, client);
    if (booking)
        uuid_format(&booking->id, id);
    if (client->asking)
        fail_msg("seed %llu: %s was never answered", (unsigned long long)run.seed, name_of(client));
    if (client->refused && booking)
        fail_msg("seed %llu: %s was refused, and is booked", (unsigned long long)run.seed,
                 name_of(client));
    if (!has_ended(client) && !client->unsure && booking)
        fail_msg("seed %llu: %s was told that it failed, and is booked",
                 (unsigned long long)run.seed, name_of(client));
    if (client->acknowledged && run.sync && !booking)
        fail_msg("seed %llu: %s was acknowledged, and is lost", (unsigned long long)run.seed,
                 name_of(client));
    if (client->acknowledged && booking && strcmp(client->booking_id, id) != 0)
        fail_msg("seed %llu: %s was told another booking", (unsigned long long)run.seed,
                 name_of(client));
}

/* Nothing waits, nothing is kept, nothing is at risk any more. */
static void check_gauges(void)
{
    static const char *const names[] = {"seatgrid_lane_waiting", "seatgrid_lane_waiting_bytes",
                                        "seatgrid_bookings_at_risk"};
    struct dynbuf text;
    dynbuf_init(&text, 1 << 20);
    metrics_render(&text);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "\n%s{shard=\"" SIM_SHARD "\"} 0\n", names[i]);
        if (!strstr(dynbuf_text(&text), line))
            fail_msg("seed %llu: all is over, and %s is not 0", (unsigned long long)run.seed,
                     names[i]);
    }
    dynbuf_done(&text);
}

/* A request through each router, when all is well again. */
static void check_alive(void)
{
    struct client *last[ROUTERS];
    for (int i = 0; i < ROUTERS; i++) {
        last[i] = new_client();
        last[i]->attempts = ATTEMPTS_MAX;
        attempt(last[i]);
    }
    sim_run(sim_now_us() + 1000000);
    for (int i = 0; i < ROUTERS; i++) {
        if (!has_ended(last[i]))
            fail_msg("seed %llu: all is mended, and %s gets no answer",
                     (unsigned long long)run.seed, name_of(last[i]));
    }
}

static void play(uint64_t seed, bool sync)
{
    memset(&run, 0, sizeof(run));
    run.seed = seed;
    run.sync = sync;
    sim_loop_reset(seed);
    sim_servers_reset(sync);
    for (int i = 0; i < ROUTERS; i++)
        process_start(&run.processes[i], i);
    sim_after(300000, on_client, NULL);
    sim_after(500000, on_watch, NULL);
    sim_after(600000, on_old_primaries, NULL);
    sim_after(700000, on_operator, NULL);
    sim_after(500000 + sim_random(1500000), on_fault, NULL);
    sim_run(TROUBLE_US);
    mend_all();
    sim_run(TROUBLE_US + CALM_US);
    check_alive();
    check_gauges();
    const struct sim_node *primary = sim_node(run.primary);
    if (run.operator_base)
        operator_goes();
    check_seats(primary);
    for (int i = 0; i < run.client_count; i++)
        check_client(primary, &run.clients[i]);
    for (int i = 0; i < ROUTERS; i++)
        process_end(&run.processes[i]);
    metrics_shutdown();
}

static void play_many(bool sync, unsigned long long first)
{
    const char *one = getenv("SIM_SEED");
    const char *many = getenv("SIM_SEEDS");
    unsigned long long count = many ? strtoull(many, NULL, 10) : HISTORIES;
    int64_t promotions = 0, switchovers = 0, failures = 0, answers = 0;
    if (one) {
        log_setup(LOG_LEVEL_INFO, false);
        play(strtoull(one, NULL, 10), sync);
        return;
    }
    log_setup((enum log_level)(LOG_LEVEL_ERROR + 1), false); /* none at all */
    for (unsigned long long seed = first; seed < first + count; seed++) {
        play(seed, sync);
        promotions += run.promotions;
        switchovers += run.switchovers;
        failures += run.failures;
        answers += run.answers;
    }
    print_message("%llu histories: %lld promotions, %lld switchovers, %lld answers, %lld of them "
                  "failures\n",
                  count, (long long)promotions, (long long)switchovers, (long long)answers,
                  (long long)failures);
    assert_true(promotions > (int64_t)count / 4); /* there was trouble */
    assert_true(switchovers > (int64_t)count / 4);
    assert_true(failures * 2 < answers); /* and most of it was not seen */
}

static void no_acknowledged_booking_is_lost(void **state)
{
    (void)state;
    play_many(true, 1);
}

static void no_seat_is_sold_twice_without_standbys_either(void **state)
{
    (void)state;
    play_many(false, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_acknowledged_booking_is_lost),
        cmocka_unit_test(no_seat_is_sold_twice_without_standbys_either),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
