/*
 * A router on three fake servers, for tests that want to see what it does when they misbehave.
 *
 *   shard alpha (events 1 to 1000): alpha-1 primary, alpha-2 replica     beta (to 2000): beta-1
 *
 * The servers answer bookings and reads as a simple PostgreSQL would, and write down what they were
 * asked; a test changes their answers, the topology and the map at will.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_ROUTER_RIG_H
#define SG_TESTS_ROUTER_RIG_H

#include "tests/unit/router/fake_postgres.h"
#include "tests/unit/router/published.h"

#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "router/router.h"
#include "router/topology.h"

#define ERRANDS_MAX 4096
#define ASKED_MAX 65536

enum rig_node { ALPHA_1, ALPHA_2, BETA_1, SPARE, NODES };

static const char *const rig_node_names[NODES] = {"alpha-1", "alpha-2", "beta-1", "alpha-9"};

/* One booking that a server was asked for. */
struct asked {
    enum rig_node node;
    unsigned batch;
    unsigned label; /* the column of its first seat */
    bool recheck;
    bool rival;
    int64_t epoch;
};

struct rig;

struct rig_server {
    struct rig *rig;
    enum rig_node node;
    struct fake_postgres *postgres;
    unsigned batches;
    unsigned reads;
    bool knows_nothing; /* reads find no rows */
    uint64_t lsn;       /* "position" */
    unsigned positions; /* how often it was asked for */
    bool waits;         /* for a standby, at COMMIT */
    /* What becomes of the next statements; NULL: all is well. True: it has answered itself. */
    bool (*instead)(struct rig_server *server, struct fake_session *session);
    bool (*commit)(struct rig_server *server, struct fake_session *session); /* of "commit" */
    bool (*wal)(struct rig_server *server, struct fake_session *session);    /* of "wal" */
    /* The outcome for one booking of a batch; NULL: booked. */
    const char *(*outcome)(struct rig_server *server, const struct asked *asked);
};

/* One request to the router, and what came back. */
struct errand {
    struct rig *rig;
    unsigned answers;
    unsigned order; /* of its answer among all */
    enum sg_error error;
    bool replayed;
    struct read_token token;
    enum shardmap_durability durability;
    char booking_id[ROUTER_UUID_LEN + 1];
    struct route route;
    size_t seat_count;
    void (*then)(struct errand *errand); /* at its answer; NULL: nothing */
};

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct published published;
    struct rig_server servers[NODES];
    struct router *router;
    unsigned suspects;
    unsigned answers;
    unsigned errand_count;
    struct errand errands[ERRANDS_MAX];
    unsigned asked_count;
    struct asked asked[ASKED_MAX];
};

/* --- the servers -------------------------------------------------------------------------------
 */

/* What take_batch and change_batch answer. */
#define TAKE_COLUMNS 12
#define CHANGE_COLUMNS 11

static inline void rig_take_batch(struct rig_server *server, struct fake_session *session)
{
    struct rig *rig = server->rig;
    unsigned count = fake_array_len(session, 1);
    unsigned seat = 0;
    int len;
    server->batches++;
    fake_describe(session, TAKE_COLUMNS);
    for (unsigned i = 0; i < count; i++) {
        struct asked *asked = &rig->asked[rig->asked_count];
        assert_true(rig->asked_count++ < ASKED_MAX);
        while (fake_u32(fake_array_item(session, 10, seat, 4)) != i + 1)
            seat++;
        *asked = (struct asked){.node = server->node,
                                .batch = server->batches,
                                .label = fake_u32(fake_array_item(session, 12, seat, 4)),
                                .recheck = *fake_array_item(session, 6, i, 1),
                                .rival = *fake_array_item(session, 7, i, 1),
                                .epoch = fake_u32(fake_param(session, 0, &len) + 4)};
        const char *outcome = server->outcome ? server->outcome(server, asked) : "booked";
        char ord[16];
        snprintf(ord, sizeof(ord), "%u", i + 1);
        const char *conflicts = strcmp(outcome, "seats_taken") == 0 ? "{1}" : NULL;
        const char *values[TAKE_COLUMNS] = {
            ord, outcome, NULL, "1795219200000000", conflicts, "confirmed", NULL, "2500", "EUR"};
        fake_row(session, TAKE_COLUMNS, values);
    }
    fake_complete(session, "SELECT");
}

/* What is asked behind each batch. */
static inline void rig_wal(struct rig_server *server, struct fake_session *session)
{
    const char *values[] = {"0/16B3748", "000000030000000000000001", server->waits ? "t" : "f"};
    if (server->wal && server->wal(server, session))
        return;
    fake_describe(session, 3);
    fake_row(session, 3, values);
    fake_complete(session, "SELECT 1");
}

/* What is asked ahead of a read that wants to know it. */
static inline void rig_position(struct rig_server *server, struct fake_session *session)
{
    char lsn[24];
    const char *values[] = {lsn};
    snprintf(lsn, sizeof(lsn), "%llu", (unsigned long long)server->lsn);
    server->positions++;
    fake_describe(session, 1);
    fake_row(session, 1, values);
    fake_complete(session, "SELECT 1");
}

static inline void rig_event(struct rig_server *server, struct fake_session *session)
{
    static const char *const values[] = {
        "1",   "Show", "1795219200000000", "10",          "10",   "100",
        "EUR", "4",    "Stalls\nCircle",   "{2500,1200}", "{1,6}"};
    fake_describe(session, 11);
    if (!server->knows_nothing)
        fake_row(session, 11, values);
    fake_complete(session, "SELECT");
}

static inline void rig_booking(struct rig_server *server, struct fake_session *session)
{
    static const char *const values[] = {
        "10",   "u-1", "held", "{0,11}", "1795219200000000", "1795219260000000",
        "5000", "EUR", "0/100"};
    fake_describe(session, 9);
    if (!server->knows_nothing)
        fake_row(session, 9, values);
    fake_complete(session, "SELECT");
}

/* A grid of 10 x 10, nothing taken; LSN 0/100. */
static inline void rig_seatmap(struct rig_server *server, struct fake_session *session)
{
    static const char row[] =
        "\0\5\0\0\0\4\0\0\0\x0a\0\0\0\4\0\0\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff"
        "\0\0\0\x8\0\0\0\0\0\0\1\0";
    fake_describe(session, 5);
    if (!server->knows_nothing)
        fake_put(session, 'D', row, sizeof(row) - 1);
    fake_complete(session, "SELECT");
}

static inline void rig_create_event(struct fake_session *session)
{
    static const char *const values[] = {"created", "17"};
    fake_describe(session, 2);
    fake_row(session, 2, values);
    fake_complete(session, "SELECT 1");
}

/* True for the statements that come with each batch. */
static inline bool rig_around_a_batch(struct rig_server *server, struct fake_session *session)
{
    const char *statement = session->statement;
    if (strcmp(statement, "begin") == 0)
        fake_command(session, "BEGIN");
    else if (strcmp(statement, "commit") == 0 && server->commit && server->commit(server, session))
        return true;
    else if (strcmp(statement, "commit") == 0)
        fake_command(session, "COMMIT");
    else if (strcmp(statement, "rollback") == 0)
        fake_command(session, "ROLLBACK");
    else if (strcmp(statement, "wal") == 0)
        rig_wal(server, session);
    else
        return false;
    return true;
}

static inline void on_rig_execute(void *arg, struct fake_session *session)
{
    struct rig_server *server = arg;
    const char *statement = session->statement;
    if (server->rig->settings.booking.strategy == STRATEGY_BATCHED &&
        rig_around_a_batch(server, session))
        return;
    if (strcmp(statement, "position") == 0) {
        rig_position(server, session);
        return;
    }
    if (server->instead && server->instead(server, session))
        return;
    if (strcmp(statement, "take_batch") == 0) {
        rig_take_batch(server, session);
        return;
    }
    server->reads++;
    if (strcmp(statement, "event") == 0 || strcmp(statement, "events") == 0)
        rig_event(server, session);
    else if (strcmp(statement, "booking") == 0)
        rig_booking(server, session);
    else if (strcmp(statement, "seatmap") == 0)
        rig_seatmap(server, session);
    else if (strcmp(statement, "create_event") == 0)
        rig_create_event(session);
    else
        fail_msg("the server was asked for %s", statement);
}

/* --- map and topology --------------------------------------------------------------------------
 */

struct rig_map {
    int64_t version;
    bool without_beta;
    bool without_replica;
    bool alpha_1_at_spare; /* the same node, another address */
    bool sync;             /* what alpha promises */
};

static inline void rig_add_node(struct rig *rig, struct dynbuf *text, enum rig_node node,
                                enum rig_node at)
{
    char dsn[256];
    fake_dsn(rig->servers[at].postgres, dsn, sizeof(dsn));
    dynbuf_addf(text, "{ name = \"%s\"; dsn = \"%s\"; }", rig_node_names[node], dsn);
}

static inline void rig_publish_map(struct rig *rig, const struct rig_map *wanted)
{
    struct dynbuf text;
    dynbuf_init(&text, 1 << 16);
    dynbuf_addf(&text, "map_version = %lld; shards = ( { name = \"alpha\"; %snodes = ( ",
                (long long)wanted->version, wanted->sync ? "durability = \"sync\"; " : "");
    rig_add_node(rig, &text, ALPHA_1, wanted->alpha_1_at_spare ? SPARE : ALPHA_1);
    if (!wanted->without_replica) {
        dynbuf_adds(&text, ", ");
        rig_add_node(rig, &text, ALPHA_2, ALPHA_2);
    }
    if (!wanted->without_beta) {
        dynbuf_adds(&text, " ); }, { name = \"beta\"; nodes = ( ");
        rig_add_node(rig, &text, BETA_1, BETA_1);
    }
    dynbuf_addf(&text, " ); } ); ranges = ( { first = 1; last = 1000; shard = \"alpha\"; }%s );",
                wanted->without_beta ? "" : ", { first = 1001; last = 2000; shard = \"beta\"; }");
    published_map(&rig->published, dynbuf_text(&text));
    dynbuf_done(&text);
}

struct rig_topology {
    const char *alpha_primary; /* NULL: none is up */
    bool replica_down;
    bool beta_down;
    int64_t epoch;
    int32_t timeline;      /* of alpha's nodes; 0: as everybody's, 1 */
    bool fenced;           /* alpha's primary */
    bool unattested;       /* likewise */
    uint64_t received_lsn; /* of alpha's replica */
    uint64_t replica_lsn;
    int64_t replica_staleness_us; /* 0: as usual, 1 ms */
};

static inline void rig_publish_topology(struct rig *rig, const struct rig_topology *wanted)
{
    struct topology *topology = calloc(1, sizeof(*topology) + 3 * sizeof(topology->nodes[0]));
    topology->node_count = 3;
    for (int i = 0; i < 3; i++) {
        struct topology_node *node = &topology->nodes[i];
        const char *name = rig_node_names[i];
        bool primary =
            i == BETA_1 || (wanted->alpha_primary && !strcmp(name, wanted->alpha_primary));
        *node = (struct topology_node){.up = primary || (i == ALPHA_2 && !wanted->replica_down),
                                       .role = primary ? NODE_PRIMARY : NODE_REPLICA,
                                       .timeline = 1,
                                       .epoch = wanted->epoch ? wanted->epoch : 1,
                                       .attested = primary,
                                       .in_rotation = !primary,
                                       .weight = 100,
                                       .staleness_us = primary ? 0 : 1000,
                                       .sampled_us = clock_mono_us()};
        if (i == BETA_1 && wanted->beta_down)
            node->up = false;
        if (i != BETA_1 && wanted->timeline)
            node->timeline = wanted->timeline;
        if (i != BETA_1 && primary) {
            node->fenced = wanted->fenced;
            node->attested = !wanted->unattested;
        }
        if (!primary) {
            node->received_lsn = wanted->received_lsn;
            node->lsn = wanted->replica_lsn;
        }
        if (!primary && wanted->replica_staleness_us)
            node->staleness_us = wanted->replica_staleness_us;
        snprintf(node->name, sizeof(node->name), "%s", name);
        snprintf(node->shard, sizeof(node->shard), "%s", i == BETA_1 ? "beta" : "alpha");
    }
    snapshot_publish(rig->published.publisher, &rig->published.topologies, topology, free);
}

static const struct rig_map map_as_usual = {.version = 1};
static const struct rig_topology all_is_well = {.alpha_primary = "alpha-1"};

/* --- requests ----------------------------------------------------------------------------------
 */

static inline struct errand *rig_errand(struct rig *rig)
{
    struct errand *errand = &rig->errands[rig->errand_count];
    assert_true(rig->errand_count++ < ERRANDS_MAX);
    *errand = (struct errand){.rig = rig};
    return errand;
}

static inline void rig_answered(struct errand *errand, enum sg_error error,
                                const struct route *route)
{
    errand->answers++;
    errand->order = ++errand->rig->answers;
    errand->error = error;
    if (route)
        errand->route = *route;
    if (errand->then)
        errand->then(errand);
}

static inline void on_rig_booked(void *arg, const struct book_result *result)
{
    struct errand *errand = arg;
    errand->replayed = result->replayed;
    errand->token = result->token;
    errand->durability = result->durability;
    errand->seat_count = result->seat_count;
    memcpy(errand->booking_id, result->booking_id, sizeof(errand->booking_id));
    rig_answered(errand, result->error, &result->route);
}

/* Books seat (1, label), its number among the errands from 1. */
static inline struct errand *rig_book(struct rig *rig, int64_t event_id)
{
    struct errand *errand = rig_errand(rig);
    struct seat seat = {.row = 1, .col = (int32_t)rig->errand_count};
    struct book_request request = {
        .event_id = event_id, .user_id = "u-1", .seats = &seat, .seat_count = 1, .request_id = "r"};
    assert_int_equal(router_book(rig->router, &request, on_rig_booked, errand), SG_OK);
    assert_int_equal(errand->answers, 0); /* never from inside the call */
    return errand;
}

static inline void on_rig_event(void *arg, const struct route *route, enum sg_error error,
                                const struct event_info *event)
{
    struct errand *errand = arg;
    assert_true((error == SG_OK) == (event != NULL));
    if (event) {
        errand->token = event->token;
        errand->durability = event->durability;
    }
    rig_answered(arg, error, route);
}

static inline struct errand *rig_get_event(struct rig *rig, int64_t event_id)
{
    struct errand *errand = rig_errand(rig);
    assert_int_equal(router_event_get(rig->router, event_id, NULL, on_rig_event, errand), SG_OK);
    assert_int_equal(errand->answers, 0);
    return errand;
}

static inline void rig_wait(struct rig *rig)
{
    turn_until(rig->base, rig->answers == rig->errand_count);
}

/* Everybody has got one answer. */
static inline void rig_check_once(const struct rig *rig)
{
    for (unsigned i = 0; i < rig->errand_count; i++)
        assert_int_equal(rig->errands[i].answers, 1);
}

static inline void rig_check_errors(const struct rig *rig, unsigned from, unsigned to,
                                    enum sg_error error)
{
    for (unsigned i = from; i < to; i++)
        assert_string_equal(sg_error_code(rig->errands[i].error), sg_error_code(error));
}

/* Connections to the node. */
static inline unsigned rig_sessions(const struct rig *rig, enum rig_node node)
{
    return fake_session_count(rig->servers[node].postgres);
}

/* --- life --------------------------------------------------------------------------------------
 */

static inline void on_rig_suspect(void *arg, const char *node)
{
    struct rig *rig = arg;
    assert_true(node[0] != '\0');
    rig->suspects++;
}

static inline int rig_setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    alarm(60); /* a call that blocks never comes back: all of it is this thread */
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    published_init(&rig->published);
    settings_init(&rig->settings);
    rig->settings.postgres.backoff_min_ms = 2;
    rig->settings.postgres.backoff_max_ms = 10;
    rig->settings.reads.connections = 1;
    rig->settings.reads.deadline_ms = 8000;
    rig->settings.booking.deadline_ms = 8000;
    rig->settings.postgres.statement_timeout_ms = 9000;
    for (int i = 0; i < NODES; i++) {
        struct rig_server *server = &rig->servers[i];
        *server = (struct rig_server){.rig = rig, .node = (enum rig_node)i};
        server->postgres = fake_new(rig->base);
        server->postgres->on_execute = on_rig_execute;
        server->postgres->arg = server;
    }
    rig_publish_map(rig, &map_as_usual);
    rig_publish_topology(rig, &all_is_well);
    *state = rig;
    return 0;
}

static inline void rig_start(struct rig *rig)
{
    rig->router = router_new(&(struct router_config){.settings = &rig->settings,
                                                     .base = rig->base,
                                                     .metrics = rig->metrics,
                                                     .reap = rig->reap,
                                                     .reader = rig->published.reader,
                                                     .maps = &rig->published.maps,
                                                     .topologies = &rig->published.topologies,
                                                     .on_suspect = on_rig_suspect,
                                                     .on_suspect_arg = rig});
    assert_non_null(rig->router);
}

/* Started, and every connection made. */
static inline void rig_start_ready(struct rig *rig)
{
    rig_start(rig);
    unsigned reads = (unsigned)rig->settings.reads.connections;
    turn_until(rig->base, rig_sessions(rig, ALPHA_1) == reads + 2 &&
                              rig_sessions(rig, ALPHA_2) == reads &&
                              rig_sessions(rig, BETA_1) == reads + 2); /* of each lane one */
    turn_for(rig->base, 30);
}

static inline void rig_stop(struct rig *rig)
{
    router_free(rig->router);
    rig->router = NULL;
}

static inline int rig_teardown(void **state)
{
    struct rig *rig = *state;
    rig_stop(rig);
    reap_list_free(rig->reap);
    for (int i = 0; i < NODES; i++)
        fake_free(rig->servers[i].postgres);
    published_done(&rig->published);
    metrics_shutdown();
    event_base_free(rig->base);
    free(rig);
    libevent_global_shutdown();
    return 0;
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

#endif
