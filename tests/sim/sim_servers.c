/*
 * The simulated shard. See sim_servers.h.
 *
 * A node's WAL is a list of records; records are shared, so two nodes have the same history as far
 * as their lists are equal. LSNs after a fork are used twice, as in PostgreSQL.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/sim/sim_servers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_loop.h"

#define RECORDS_MAX 65536
#define RECORD_BYTES 100
#define RESEND_US 50000
#define RESENDS_MAX 400
#define CUTS_MAX 16

enum parcel_kind {
    PARCEL_OPEN,
    PARCEL_REQUEST,
    PARCEL_OPENED,
    PARCEL_REFUSED,
    PARCEL_ANSWER,
    PARCEL_END
};

/* Something on its way over the network, or waiting at a server. */
struct parcel {
    enum parcel_kind kind;
    struct sim_conn *conn;
    sim_serve_fn *serve;
    void *request;
    struct sim_answer answer;
    int sends;
    bool exclusive;   /* waits for the fence's lock */
    int64_t since_us; /* for so long already */
    uint64_t lsn;     /* waits for a standby */
    enum { HOLDS_NONE, HOLDS_SHARED, HOLDS_EXCLUSIVE } holds;
    struct parcel *next; /* in a server's list */
    struct parcel *all;  /* until the next reset */
};

struct parcel_list {
    struct parcel *first, *last;
};

struct sim_conn {
    struct event_base *from;
    int node;
    int life; /* of the server when it was opened; another one now: the session is gone */
    bool open;
    bool sync;
    struct sim_conn_events events;
    void *arg;
    int64_t to_server_us; /* nothing overtakes on one connection */
    int64_t to_client_us;
    struct sim_conn *all;
};

struct server {
    struct sim_node node;
    int life;
    int shared; /* holders of the fence's lock */
    bool exclusive;
    struct sim_conn *locker;
    struct parcel_list inbox;   /* of a hung server */
    struct parcel_list fence;   /* waiting for the fence's lock */
    struct parcel_list waiting; /* commits, for a standby */
    struct parcel *serving;
};

static struct {
    struct server servers[SIM_NODES];
    struct sim_record records[RECORDS_MAX];
    int record_count;
    bool sync;
    bool node_cuts[SIM_NODES][SIM_NODES];
    struct {
        const struct event_base *process;
        int node;
    } cuts[CUTS_MAX];
    int cut_count;
    struct parcel *parcels;
    struct sim_conn *conns;
} shard;

static void on_parcel(void *arg);
static void serve(struct server *server, struct parcel *parcel);

/* --- lists ------------------------------------------------------------------------------------ */

static void list_add(struct parcel_list *list, struct parcel *parcel)
{
    parcel->next = NULL;
    if (list->last)
        list->last->next = parcel;
    else
        list->first = parcel;
    list->last = parcel;
}

static struct parcel *list_take(struct parcel_list *list)
{
    struct parcel *parcel = list->first;
    if (parcel) {
        list->first = parcel->next;
        if (!list->first)
            list->last = NULL;
    }
    return parcel;
}

static struct parcel *parcel_new(enum parcel_kind kind, struct sim_conn *conn)
{
    struct parcel *parcel = calloc(1, sizeof(*parcel));
    assert(parcel);
    parcel->kind = kind;
    parcel->conn = conn;
    parcel->all = shard.parcels;
    shard.parcels = parcel;
    return parcel;
}

static void answer_done(struct sim_answer *answer)
{
    PQclear(answer->result);
    PQclear(answer->behind);
    answer->result = answer->behind = NULL;
}

/* --- WAL -------------------------------------------------------------------------------------- */

struct sim_node *sim_node(int index)
{
    return &shard.servers[index].node;
}

const struct sim_record *sim_record(int index)
{
    return &shard.records[index];
}

uint64_t sim_lsn(const struct sim_node *node, int count)
{
    return count ? shard.records[node->wal[count - 1]].lsn : RECORD_BYTES;
}

int sim_visible(const struct sim_node *node)
{
    return node->standby ? node->replayed : node->wal_count;
}

bool sim_is_prefix(const struct sim_node *a, const struct sim_node *b)
{
    return a->wal_count == 0 ||
           (a->wal_count <= b->wal_count && a->wal[a->wal_count - 1] == b->wal[a->wal_count - 1]);
}

bool sim_has_standby(const struct sim_node *node)
{
    for (int i = 0; i < SIM_NODES; i++) {
        const struct sim_node *other = &shard.servers[i].node;
        if (i != node->index && other->standby && other->upstream == node->index &&
            other->process != SIM_DOWN && sim_is_prefix(other, node))
            return true;
    }
    return false;
}

void sim_append(struct sim_node *node, const struct sim_record *record)
{
    assert(!node->standby && shard.record_count < RECORDS_MAX && node->wal_count < SIM_WAL_MAX);
    struct sim_record *own = &shard.records[shard.record_count];
    *own = *record;
    own->lsn = sim_lsn(node, node->wal_count) + RECORD_BYTES;
    own->timeline = node->timeline;
    node->wal[node->wal_count++] = shard.record_count++;
}

struct sim_meta sim_meta_of(const struct sim_node *node)
{
    for (int i = sim_visible(node); i > 0; i--) {
        const struct sim_record *record = &shard.records[node->wal[i - 1]];
        if (record->kind == SIM_META)
            return record->meta;
    }
    return (struct sim_meta){.epoch = 0};
}

bool sim_fenced(const struct sim_node *node, const struct sim_meta *meta)
{
    return meta->fenced &&
           (!meta->fence_id[0] || meta->fenced_until_us > sim_now_us() + node->clock_off_us);
}

/* --- the network ------------------------------------------------------------------------------ */

void sim_cut(const struct event_base *process, int node, bool cut)
{
    int kept = 0;
    for (int i = 0; i < shard.cut_count; i++) {
        if (shard.cuts[i].process != process || shard.cuts[i].node != node)
            shard.cuts[kept++] = shard.cuts[i];
    }
    shard.cut_count = kept;
    if (cut) {
        assert(kept < CUTS_MAX);
        shard.cuts[kept].process = process;
        shard.cuts[kept].node = node;
        shard.cut_count++;
    }
}

void sim_cut_nodes(int a, int b, bool cut)
{
    shard.node_cuts[a][b] = shard.node_cuts[b][a] = cut;
}

bool sim_reaches(const struct event_base *process, int node)
{
    for (int i = 0; i < shard.cut_count; i++) {
        if (shard.cuts[i].node == node &&
            (!shard.cuts[i].process || shard.cuts[i].process == process))
            return false;
    }
    return true;
}

static bool to_server(const struct parcel *parcel)
{
    return parcel->kind == PARCEL_OPEN || parcel->kind == PARCEL_REQUEST;
}

static void post(struct parcel *parcel)
{
    struct sim_conn *conn = parcel->conn;
    int64_t *last_us = to_server(parcel) ? &conn->to_server_us : &conn->to_client_us;
    int64_t at_us = sim_now_us() + 50 + sim_random(400);
    if (at_us <= *last_us)
        at_us = *last_us + 1;
    *last_us = at_us;
    sim_after(at_us - sim_now_us(), on_parcel, parcel);
}

static void deliver_to_client(struct parcel *parcel)
{
    struct sim_conn *conn = parcel->conn;
    if (conn->open && sim_base_lives(conn->from)) {
        if (parcel->kind == PARCEL_ANSWER) {
            conn->events.on_answer(conn->arg, &parcel->answer);
        } else if (parcel->kind == PARCEL_END) {
            conn->open = false;
            conn->events.on_end(conn->arg);
        } else {
            conn->open = parcel->kind == PARCEL_OPENED;
            conn->events.on_open(conn->arg, parcel->kind == PARCEL_REFUSED);
        }
    }
    answer_done(&parcel->answer);
}

static void end_conn(struct sim_conn *conn)
{
    post(parcel_new(PARCEL_END, conn));
}

static void arrive(struct server *server, struct parcel *parcel)
{
    struct sim_conn *conn = parcel->conn;
    if (server->node.process == SIM_DOWN) {
        if (parcel->kind == PARCEL_OPEN)
            post(parcel_new(PARCEL_REFUSED, conn));
        else
            end_conn(conn);
    } else if (server->node.process == SIM_HUNG) {
        list_add(&server->inbox, parcel);
    } else if (parcel->kind == PARCEL_OPEN) {
        conn->life = server->life;
        post(parcel_new(PARCEL_OPENED, conn));
    } else if (conn->life != server->life) {
        end_conn(conn);
    } else {
        serve(server, parcel);
    }
}

static void on_parcel(void *arg)
{
    struct parcel *parcel = arg;
    struct sim_conn *conn = parcel->conn;
    if (!sim_reaches(conn->from, conn->node)) { /* lost; TCP sends it again, for a while */
        if (++parcel->sends < RESENDS_MAX)
            sim_after(RESEND_US, on_parcel, parcel);
    } else if (to_server(parcel)) {
        arrive(&shard.servers[conn->node], parcel);
    } else {
        deliver_to_client(parcel);
    }
}

struct sim_conn *sim_conn_open(struct event_base *from, int node, bool sync,
                               const struct sim_conn_events *events, void *arg)
{
    struct sim_conn *conn = calloc(1, sizeof(*conn));
    assert(conn);
    *conn = (struct sim_conn){.from = from,
                              .node = node,
                              .open = true,
                              .sync = sync,
                              .events = *events,
                              .arg = arg,
                              .all = shard.conns};
    shard.conns = conn;
    post(parcel_new(PARCEL_OPEN, conn));
    return conn;
}

void sim_conn_send(struct sim_conn *conn, sim_serve_fn *serve_fn, void *request)
{
    struct parcel *parcel = parcel_new(PARCEL_REQUEST, conn);
    parcel->serve = serve_fn;
    parcel->request = request;
    post(parcel);
}

/* The server learns of it at once if it can: its session's lock goes. */
void sim_conn_close(struct sim_conn *conn)
{
    struct server *server = &shard.servers[conn->node];
    conn->open = false;
    if (server->locker == conn && sim_reaches(conn->from, conn->node))
        server->locker = NULL;
}

void sim_kill(struct event_base *process)
{
    sim_base_kill(process);
    for (struct sim_conn *conn = shard.conns; conn; conn = conn->all) {
        if (conn->from == process && conn->open)
            sim_conn_close(conn);
    }
}

/* --- sessions --------------------------------------------------------------------------------- */

static void serve(struct server *server, struct parcel *parcel)
{
    struct sim_session session = {.conn = parcel->conn,
                                  .node = &server->node,
                                  .sync = parcel->conn->sync,
                                  .request = parcel->request,
                                  .waited_us =
                                      parcel->since_us ? sim_now_us() - parcel->since_us : 0};
    struct parcel *outer = server->serving;
    server->serving = parcel;
    parcel->serve(&session, parcel->request);
    server->serving = outer;
}

static void serve_fence_queue(struct server *server)
{
    while (server->fence.first && server->node.process == SIM_UP) {
        struct parcel *parcel = server->fence.first;
        if (server->exclusive || (parcel->exclusive && server->shared))
            return;
        list_take(&server->fence);
        parcel->holds = parcel->exclusive ? HOLDS_EXCLUSIVE : HOLDS_SHARED;
        if (parcel->exclusive)
            server->exclusive = true;
        else
            server->shared++;
        serve(server, parcel);
    }
}

static void let_go(struct server *server, struct parcel *parcel)
{
    if (parcel->holds == HOLDS_SHARED)
        server->shared--;
    else if (parcel->holds == HOLDS_EXCLUSIVE)
        server->exclusive = false;
    parcel->holds = HOLDS_NONE;
}

bool sim_take_fence(struct sim_session *session, sim_serve_fn *serve_fn, bool exclusive)
{
    struct server *server = &shard.servers[session->node->index];
    struct parcel *parcel = server->serving;
    if (parcel->holds)
        return true;
    parcel->serve = serve_fn;
    parcel->exclusive = exclusive;
    if (server->fence.first || server->exclusive || (exclusive && server->shared)) {
        parcel->since_us = sim_now_us();
        list_add(&server->fence, parcel);
        return false;
    }
    parcel->holds = exclusive ? HOLDS_EXCLUSIVE : HOLDS_SHARED;
    if (exclusive)
        server->exclusive = true;
    else
        server->shared++;
    return true;
}

static void finish(struct server *server, struct parcel *request, const struct sim_answer *answer)
{
    struct parcel *parcel = parcel_new(PARCEL_ANSWER, request->conn);
    parcel->answer = *answer;
    let_go(server, request);
    free(request->request);
    request->request = NULL;
    post(parcel);
    serve_fence_queue(server);
}

void sim_reply(struct sim_session *session, const struct sim_answer *answer)
{
    struct server *server = &shard.servers[session->node->index];
    finish(server, server->serving, answer);
}

void sim_reply_committed(struct sim_session *session, const struct sim_answer *answer)
{
    struct server *server = &shard.servers[session->node->index];
    struct parcel *parcel = server->serving;
    if (!session->sync) {
        finish(server, parcel, answer);
        return;
    }
    parcel->answer = *answer;
    parcel->lsn = sim_lsn(session->node, session->node->wal_count);
    list_add(&server->waiting, parcel);
}

/* A standby has received so much. */
static void acknowledge(struct server *server, uint64_t lsn)
{
    while (server->node.process == SIM_UP && server->waiting.first &&
           server->waiting.first->lsn <= lsn) {
        struct parcel *parcel = list_take(&server->waiting);
        struct sim_answer answer = parcel->answer;
        parcel->answer = (struct sim_answer){.result = NULL};
        finish(server, parcel, &answer);
    }
}

bool sim_try_lock(struct sim_session *session)
{
    struct server *server = &shard.servers[session->node->index];
    if (server->locker && server->locker != session->conn)
        return false;
    server->locker = session->conn;
    return true;
}

void sim_unlock(struct sim_session *session)
{
    struct server *server = &shard.servers[session->node->index];
    if (server->locker == session->conn)
        server->locker = NULL;
}

/* --- replication ------------------------------------------------------------------------------ */

static void stream(struct sim_node *node)
{
    struct server *server = &shard.servers[node->upstream];
    struct sim_node *from = &server->node;
    if (!node->paused)
        node->replayed = node->wal_count;
    if (from->process != SIM_UP || shard.node_cuts[node->index][from->index] ||
        node->timeline > from->timeline || !sim_is_prefix(node, from))
        return;
    for (; node->wal_count < from->wal_count; node->wal_count++)
        node->wal[node->wal_count] = from->wal[node->wal_count];
    node->timeline = from->timeline;
    if (!from->standby)
        acknowledge(server, sim_lsn(node, node->wal_count));
}

static void on_stream(void *arg)
{
    struct sim_node *node = arg;
    if (node->process == SIM_UP && node->standby)
        stream(node);
    sim_after(node->slow ? 20000 + sim_random(400000) : 500 + sim_random(2500), on_stream, node);
}

/* Checkpoints, heartbeats: a primary's WAL grows by itself. */
static void on_noise(void *arg)
{
    struct sim_node *node = arg;
    const struct sim_record record = {.kind = SIM_NOISE};
    if (node->process == SIM_UP && !node->standby)
        sim_append(node, &record);
    sim_after(100000 + sim_random(400000), on_noise, node);
}

/* --- faults ----------------------------------------------------------------------------------- */

/* What a dead server's memory held is gone; its peers see the end of their connections. */
static void lose_memory(struct server *server)
{
    struct parcel *parcel;
    server->life++;
    server->shared = 0;
    server->exclusive = false;
    server->locker = NULL;
    while ((parcel = list_take(&server->waiting)) || (parcel = list_take(&server->fence)) ||
           (parcel = list_take(&server->inbox))) {
        answer_done(&parcel->answer);
        free(parcel->request);
        parcel->request = NULL;
    }
    for (struct sim_conn *conn = shard.conns; conn; conn = conn->all) {
        if (conn->node == server->node.index && conn->open)
            end_conn(conn);
    }
}

void sim_crash(int node)
{
    struct server *server = &shard.servers[node];
    if (server->node.process == SIM_DOWN)
        return;
    server->node.process = SIM_DOWN;
    lose_memory(server);
}

void sim_start(int node)
{
    struct server *server = &shard.servers[node];
    if (server->node.process == SIM_DOWN)
        server->node.process = SIM_UP;
}

void sim_hang(int node)
{
    struct server *server = &shard.servers[node];
    if (server->node.process == SIM_UP)
        server->node.process = SIM_HUNG;
}

void sim_wake(int node)
{
    struct server *server = &shard.servers[node];
    struct parcel *parcel;
    if (server->node.process != SIM_HUNG)
        return;
    server->node.process = SIM_UP;
    while ((parcel = list_take(&server->inbox)))
        arrive(server, parcel);
    serve_fence_queue(server);
}

void sim_cut_waits(int node)
{
    struct server *server = &shard.servers[node];
    if (server->node.process != SIM_UP)
        return;
    for (struct parcel *parcel = server->waiting.first; parcel; parcel = parcel->next)
        parcel->answer.wait_cut = true;
    acknowledge(server, UINT64_MAX);
}

static int32_t highest_timeline(void)
{
    int32_t highest = 0;
    for (int i = 0; i < SIM_NODES; i++) {
        if (shard.servers[i].node.timeline > highest)
            highest = shard.servers[i].node.timeline;
    }
    return highest;
}

void sim_promote(int index)
{
    struct sim_node *node = &shard.servers[index].node;
    if (!node->standby || node->process != SIM_UP)
        return;
    node->replayed = node->wal_count;
    node->standby = false;
    node->paused = false;
    node->timeline = highest_timeline() + 1;
}

void sim_follow(int index, int upstream)
{
    shard.servers[index].node.upstream = upstream;
}

void sim_rejoin(int index, int upstream)
{
    struct server *server = &shard.servers[index];
    struct sim_node *node = &server->node;
    const struct sim_node *from = &shard.servers[upstream].node;
    if (node->process != SIM_DOWN)
        sim_crash(index);
    /* pg_rewind: not consistent, so neither up nor to be promoted, before it has what its source
     * had when it was rewound */
    memcpy(node->wal, from->wal, sizeof(node->wal));
    node->wal_count = node->replayed = from->wal_count;
    node->timeline = from->timeline;
    node->standby = true;
    node->paused = node->slow = false;
    node->upstream = upstream;
    node->process = SIM_UP;
}

/* --- start ------------------------------------------------------------------------------------ */

static void forget(void)
{
    while (shard.parcels) {
        struct parcel *parcel = shard.parcels;
        shard.parcels = parcel->all;
        answer_done(&parcel->answer);
        free(parcel->request);
        free(parcel);
    }
    while (shard.conns) {
        struct sim_conn *conn = shard.conns;
        shard.conns = conn->all;
        free(conn);
    }
}

void sim_servers_reset(bool sync)
{
    const struct sim_record first = {.kind = SIM_META,
                                     .meta = {.epoch = 1, .timeline = 1, .fenced_until_us = -1}};
    forget();
    memset(&shard.servers, 0, sizeof(shard.servers));
    memset(shard.node_cuts, 0, sizeof(shard.node_cuts));
    shard.record_count = shard.cut_count = 0;
    shard.sync = sync;
    for (int i = 0; i < SIM_NODES; i++) {
        struct sim_node *node = &shard.servers[i].node;
        node->index = i;
        node->standby = i > 0;
        node->timeline = 1;
        shard.servers[i].life = 1;
    }
    sim_append(&shard.servers[0].node, &first);
    for (int i = 0; i < SIM_NODES; i++) {
        sim_after(sim_random(2000), on_stream, &shard.servers[i].node);
        sim_after(sim_random(500000), on_noise, &shard.servers[i].node);
    }
}
