/*
 * Goal: health finds out what changed and has a new primary attested, once, however many look on;
 * it respects fences, forgets no timeline when the map changes, asks the nodes of a shard that
 * can't be written to more often than the others, and survives servers that refuse, hang or die in
 * the middle of it.
 * Method: the real health, probes and attester against scripted servers (fake_postgres.h) whose
 * shard_meta is a struct of the test. Nothing is measured: where something has to be soon, the
 * usual interval is ten minutes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/fake_postgres.h"
#include "tests/unit/router/published.h"

#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/health.h"
#include "router/topology.h"
#include "shardmap/shardmap.h"

#define NEVER_MS 600000
#define NODES 3

/* What a server says of itself. */
struct actor {
    struct fake_postgres *postgres;
    bool in_recovery;
    int timeline;
    int epoch;
    int epoch_timeline;
    bool fenced;
    const char *fence_id; /* NULL: none */
    unsigned hang_attests;
    unsigned attests; /* asked for */
    unsigned raised;  /* by them */
    unsigned probes;
};

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct snapshot_slot topologies[2];
    struct settings settings;
    struct actor actors[NODES];
    struct health *health[2];
    unsigned changes;
};

static const char *const names[NODES] = {"a1", "a2", "a3"};

/* --- the servers ------------------------------------------------------------------------------ */

static void say(struct fake_session *session, int columns, const char *const *values)
{
    fake_describe(session, columns);
    fake_row(session, columns, values);
    fake_complete(session, "SELECT 1");
}

/* As shard_attest of migrations/0004 does. */
static void attest(struct actor *actor, struct fake_session *session)
{
    char epoch[16];
    int len;
    const int timeline = atoi(fake_param(session, 0, &len));
    const char *outcome = "ok";
    actor->attests++;
    if (actor->hang_attests) {
        actor->hang_attests--;
        fake_hang(session);
        return;
    }
    if (actor->timeline != timeline) {
        outcome = "stale";
    } else if (actor->epoch_timeline == timeline) {
        outcome = "already";
    } else if (actor->fenced && !actor->fence_id) {
        outcome = "fenced";
    } else {
        actor->epoch++;
        actor->epoch_timeline = timeline;
        actor->fenced = false;
        actor->fence_id = NULL;
        actor->raised++;
    }
    snprintf(epoch, sizeof(epoch), "%d", actor->epoch);
    say(session, 2, (const char *const[]){outcome, epoch});
}

/* As the question of attester.c does: by hand, if it still is what it was. */
static void fence(struct actor *actor, struct fake_session *session)
{
    int len;
    fake_describe(session, 2);
    if (actor->timeline == atoi(fake_param(session, 0, &len))) {
        actor->fenced = true;
        actor->fence_id = NULL;
        fake_row(session, 2, (const char *const[]){"ok", "1"});
    }
    fake_complete(session, "SELECT 1");
}

static void on_execute(void *arg, struct fake_session *session)
{
    struct actor *actor = arg;
    char timeline[16];
    char epoch[16];
    char epoch_timeline[16];
    const char *recovery = actor->in_recovery ? "t" : "f";
    const char *received = actor->in_recovery ? "1000" : NULL;
    if (session->param_count == 2) {
        (strstr(session->sql, "shard_fence(") ? fence : attest)(actor, session);
        return;
    }
    actor->probes++;
    snprintf(timeline, sizeof(timeline), "%d", actor->timeline);
    snprintf(epoch, sizeof(epoch), "%d", actor->epoch);
    snprintf(epoch_timeline, sizeof(epoch_timeline), "%d", actor->epoch_timeline);
    if (session->executed == 1)
        say(session, 6, (const char *const[]){recovery, timeline, "1000", received, "77", "t"});
    else
        say(session, 10,
            (const char *const[]){recovery, timeline, "1000", received, "a", epoch, epoch_timeline,
                                  actor->fenced ? "t" : "f", actor->fence_id, "0"});
}

/* --- the rig ---------------------------------------------------------------------------------- */

static void on_change(void *arg)
{
    struct rig *rig = arg;
    rig->changes++;
}

/* Which nodes the map holds, as letters. */
static void publish_map(struct rig *rig, const char *which)
{
    struct dynbuf text;
    char dsn[256];
    dynbuf_init(&text, 1 << 16);
    dynbuf_adds(&text, "map_version = 1; shards = ( { name = \"a\"; nodes = ( ");
    for (const char *at = which; *at; at++) {
        fake_dsn(rig->actors[*at - '1'].postgres, dsn, sizeof(dsn));
        dynbuf_addf(&text, "%s{ name = \"a%c\"; dsn = \"%s\"; }", at == which ? "" : ", ", *at,
                    dsn);
    }
    dynbuf_adds(&text, " ); } ); ranges = ( { first = 1; last = 9; shard = \"a\"; } );");
    snapshot_publish(rig->publisher, &rig->maps, map_of(dynbuf_text(&text)), shardmap_free);
    dynbuf_done(&text);
}

/* a1 is the primary, on timeline 1; the others are replicas. */
static void set_up(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    log_setup(LOG_LEVEL_ERROR, false);
    settings_init(&rig->settings);
    rig->settings.health.interval_ms = NEVER_MS;
    rig->settings.health.timeout_ms = 200;
    rig->settings.health.urgent_ms = 2;
    rig->settings.reads.max_staleness_ms = NEVER_MS;
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    rig->domain = snapshot_domain_new();
    rig->publisher = snapshot_reader_new(rig->domain);
    for (int i = 0; i < NODES; i++) {
        struct actor *actor = &rig->actors[i];
        *actor = (struct actor){.postgres = fake_new(rig->base),
                                .in_recovery = i > 0,
                                .timeline = 1,
                                .epoch = 1,
                                .epoch_timeline = 1};
        actor->postgres->on_execute = on_execute;
        actor->postgres->arg = actor;
    }
    publish_map(rig, "123");
}

static void start(struct rig *rig, int i, bool attests)
{
    rig->health[i] = health_new(&(struct health_config){.settings = &rig->settings,
                                                        .base = rig->base,
                                                        .reap = rig->reap,
                                                        .metrics = rig->metrics,
                                                        .publisher = rig->publisher,
                                                        .maps = &rig->maps,
                                                        .topologies = &rig->topologies[i],
                                                        .attest = attests,
                                                        .on_change = on_change,
                                                        .arg = rig});
    assert_non_null(rig->health[i]);
}

static void tear_down(struct rig *rig)
{
    health_free(rig->health[0]);
    health_free(rig->health[1]);
    for (int i = 0; i < NODES; i++)
        fake_free(rig->actors[i].postgres);
    reap_list_free(rig->reap);
    snapshot_slot_done(&rig->maps, shardmap_free);
    snapshot_slot_done(&rig->topologies[0], free);
    snapshot_slot_done(&rig->topologies[1], free);
    snapshot_poll(rig->publisher);
    snapshot_reader_free(rig->publisher);
    snapshot_domain_free(rig->domain);
    event_base_free(rig->base);
    metrics_shutdown();
}

static const struct topology_node *node_of(struct rig *rig, int health, int node)
{
    return topology_find(snapshot_get(&rig->topologies[health]), names[node]);
}

/* The primary that one health would have written to; "-" for none. */
static const char *writable(struct rig *rig, int health)
{
    const struct topology_node *node = route_write(snapshot_get(&rig->topologies[health]), "a");
    return node ? node->name : "-";
}

#define WAIT_FOR(rig, condition) turn_until((rig)->base, condition)

static void wait_all_known(struct rig *rig, int health)
{
    for (int i = 0; i < NODES; i++)
        WAIT_FOR(rig, node_of(rig, health, i)->up);
}

/* a1 is cut off and dead, a2 promoted. */
static void fail_over(struct rig *rig)
{
    rig->actors[1].in_recovery = false;
    rig->actors[1].timeline = 2;
    fake_stop_listening(rig->actors[0].postgres);
    fake_cut(rig->actors[0].postgres);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void a_new_primary_is_attested_once(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.settings.health.interval_ms = 20;
    start(&rig, 0, true);
    start(&rig, 1, true);
    for (int i = 0; i < 2; i++) {
        wait_all_known(&rig, i);
        assert_string_equal(writable(&rig, i), "a1");
    }
    const unsigned changes = rig.changes;
    fail_over(&rig);
    for (int i = 0; i < 2; i++) {
        WAIT_FOR(&rig, strcmp(writable(&rig, i), "a2") == 0);
        assert_int_equal(node_of(&rig, i, 1)->epoch, 2);
    }
    assert_int_equal(rig.actors[1].raised, 1);
    assert_true(rig.actors[1].attests >= 1);
    assert_true(rig.changes > changes);
    /* what comes back from the past, writable: refused by both */
    fake_listen(rig.actors[0].postgres);
    for (int i = 0; i < 2; i++) {
        health_suspect(rig.health[i], "a1");
        WAIT_FOR(&rig, node_of(&rig, i, 0)->up);
        assert_int_equal(node_of(&rig, i, 0)->refused, NODE_OLDER_TIMELINE);
        assert_string_equal(writable(&rig, i), "a2");
    }
    assert_int_equal(rig.actors[0].attests, 0);
    tear_down(&rig);
}

static void who_only_looks_on_attests_nothing(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.actors[0].epoch_timeline = 0;
    start(&rig, 0, false);
    wait_all_known(&rig, 0);
    const struct topology *topology = snapshot_get(&rig.topologies[0]);
    assert_string_equal(topology_primary(topology, "a")->name, "a1"); /* its WAL is the truth */
    assert_null(route_write(topology, "a"));
    turn_for(rig.base, 100);
    assert_int_equal(rig.actors[0].attests, 0);
    tear_down(&rig);
}

static void fences_are_respected(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.settings.failover.attest_wait_ms = 150;
    start(&rig, 0, true);
    wait_all_known(&rig, 0);
    for (int i = 0; i < NODES; i++)
        rig.actors[i].fenced = true; /* by hand */
    fail_over(&rig);
    WAIT_FOR(&rig, node_of(&rig, 0, 1)->role == NODE_PRIMARY);
    turn_for(rig.base, 400);
    assert_int_equal(rig.actors[1].attests, 0);
    assert_string_equal(writable(&rig, 0), "-");
    /* by a switchover whose operator is no more */
    const int64_t fenced_us = clock_mono_us();
    rig.actors[1].fence_id = "7c1d2f3e-0000-4000-8000-000000000001";
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a2") == 0);
    assert_true(clock_mono_us() - fenced_us >= 150000);
    assert_int_equal(rig.actors[1].raised, 1);
    tear_down(&rig);
}

static void an_attestation_that_hangs_is_tried_again(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.actors[0].epoch_timeline = 0;
    rig.actors[0].hang_attests = 2;
    start(&rig, 0, true);
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a1") == 0);
    assert_int_equal(rig.actors[0].attests, 3);
    assert_int_equal(rig.actors[0].raised, 1);
    tear_down(&rig);
}

static void health_may_end_in_the_middle_of_one(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.actors[0].epoch_timeline = 0;
    rig.actors[0].hang_attests = 1;
    start(&rig, 0, true);
    WAIT_FOR(&rig, rig.actors[0].attests == 1);
    tear_down(&rig);
}

static void a_map_change_in_the_middle_of_one_forgets_no_timeline(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    start(&rig, 0, true);
    wait_all_known(&rig, 0);
    rig.actors[1].hang_attests = 1;
    rig.actors[1].in_recovery = false;
    rig.actors[1].timeline = 2;
    health_suspect(rig.health[0], "a2");
    WAIT_FOR(&rig, rig.actors[1].attests == 1);
    publish_map(&rig, "13"); /* without the node that is being attested */
    health_sync_map(rig.health[0]);
    const unsigned probes = rig.actors[0].probes;
    WAIT_FOR(&rig, rig.actors[0].probes > probes + 5);
    assert_null(node_of(&rig, 0, 1));
    assert_int_equal(node_of(&rig, 0, 0)->refused, NODE_OLDER_TIMELINE);
    assert_string_equal(writable(&rig, 0), "-");
    publish_map(&rig, "123");
    health_sync_map(rig.health[0]);
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a2") == 0);
    tear_down(&rig);
}

static void a_shard_that_cannot_be_written_to_is_asked_often(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    start(&rig, 0, true);
    wait_all_known(&rig, 0);
    turn_for(rig.base, 100); /* the last of the hurry at the start */
    const unsigned calm = rig.actors[1].probes;
    turn_for(rig.base, 200);
    assert_int_equal(rig.actors[1].probes, calm);
    rig.actors[0].fenced = true;
    health_suspect(rig.health[0], "a1");
    WAIT_FOR(&rig, rig.actors[1].probes > calm + 20);
    /* the end of the fence is seen without being told, and the hurry is over */
    rig.actors[0].fenced = false;
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a1") == 0);
    turn_for(rig.base, 100);
    const unsigned again = rig.actors[1].probes;
    turn_for(rig.base, 200);
    assert_int_equal(rig.actors[1].probes, again);
    tear_down(&rig);
}

static void a_dead_node_is_found_again_without_a_round(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    start(&rig, 0, true);
    wait_all_known(&rig, 0);
    fake_stop_listening(rig.actors[0].postgres);
    fake_cut(rig.actors[0].postgres);
    WAIT_FOR(&rig, !node_of(&rig, 0, 0)->up);
    assert_string_equal(writable(&rig, 0), "-");
    fake_listen(rig.actors[0].postgres);
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a1") == 0);
    /* hung, then well again; a suspicion while it is asked is not lost */
    rig.actors[0].postgres->mood = FAKE_SILENT;
    fake_cut(rig.actors[0].postgres);
    health_suspect(rig.health[0], "a1");
    health_suspect(rig.health[0], "a1");
    health_suspect(rig.health[0], "nobody");
    WAIT_FOR(&rig, !node_of(&rig, 0, 0)->up);
    rig.actors[0].postgres->mood = FAKE_WELL;
    WAIT_FOR(&rig, strcmp(writable(&rig, 0), "a1") == 0);
    tear_down(&rig);
}

static void a_replica_that_died_has_to_earn_its_return(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig);
    rig.settings.health.interval_ms = 20;
    start(&rig, 0, true);
    wait_all_known(&rig, 0);
    WAIT_FOR(&rig, node_of(&rig, 0, 1)->in_rotation);
    assert_int_equal(node_of(&rig, 0, 1)->weight, 100);
    assert_int_equal(node_of(&rig, 0, 1)->received_lsn, 1000);
    fake_stop_listening(rig.actors[1].postgres);
    fake_cut(rig.actors[1].postgres);
    WAIT_FOR(&rig, !node_of(&rig, 0, 1)->up);
    assert_false(node_of(&rig, 0, 1)->in_rotation);
    fake_listen(rig.actors[1].postgres);
    WAIT_FOR(&rig, node_of(&rig, 0, 1)->in_rotation);
    assert_true(node_of(&rig, 0, 1)->up);
    WAIT_FOR(&rig, node_of(&rig, 0, 1)->weight == 100);
    tear_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_primary_is_attested_once),
        cmocka_unit_test(who_only_looks_on_attests_nothing),
        cmocka_unit_test(fences_are_respected),
        cmocka_unit_test(an_attestation_that_hangs_is_tried_again),
        cmocka_unit_test(health_may_end_in_the_middle_of_one),
        cmocka_unit_test(a_map_change_in_the_middle_of_one_forgets_no_timeline),
        cmocka_unit_test(a_shard_that_cannot_be_written_to_is_asked_often),
        cmocka_unit_test(a_dead_node_is_found_again_without_a_round),
        cmocka_unit_test(a_replica_that_died_has_to_earn_its_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
