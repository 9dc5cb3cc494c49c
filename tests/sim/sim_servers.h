/*
 * The simulated shard: three PostgreSQL servers, their WAL, replication, and the network.
 *
 *   process ── sim_conn_send ──> server: serve(session) ── sim_reply ──> process (delayed, both)
 *
 *   primary's WAL ── streaming, in pieces, late ──> standby: received, then replayed
 *
 *   commit of a sync session ── waits ──> until a standby has received it
 *
 * What it takes from the real thing, because it is what goes wrong there: a hung server executes
 * what is in its socket when it wakes up, also for clients that have gone; a commit that waits for
 * a standby is done and may outlive its primary or not; a fence waits for every transaction that
 * was let in, and those behind it wait for the fence; a promoted standby starts a timeline where
 * its own WAL ends; who has more WAL than the fork cannot follow before it is rewound; packets over
 * a cut link vanish in silence.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_SIM_SERVERS_H
#define SG_TESTS_SIM_SERVERS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uuid.h"

#define SIM_NODES 3
#define SIM_SHARD "alpha"
#define SIM_EVENTS 3
#define SIM_COLS 12 /* of an event's one row */
#define SIM_WAL_MAX 4096
#define SIM_TEXT_SIZE 80
#define SIM_FOREVER INT64_MAX

struct event_base;
struct sim_conn;

enum sim_record_kind { SIM_BOOKING, SIM_META, SIM_NOISE };

struct sim_booking {
    struct uuid id;
    int64_t event_id;
    uint32_t seats; /* a bit a column */
    char user[SIM_TEXT_SIZE];
    char key[SIM_TEXT_SIZE]; /* "": none */
    int64_t hash;
    int64_t created_us;
};

struct sim_meta {
    int64_t epoch;
    int32_t timeline;
    bool fenced;
    char fence_id[SIM_TEXT_SIZE]; /* "": by hand */
    int64_t fenced_until_us;      /* SIM_FOREVER: lasting */
};

struct sim_record {
    uint64_t lsn; /* of its end */
    int32_t timeline;
    enum sim_record_kind kind;
    struct sim_booking booking;
    struct sim_meta meta;
};

enum sim_process { SIM_UP, SIM_HUNG, SIM_DOWN };

struct sim_node {
    int index;
    enum sim_process process;
    bool standby;
    int32_t timeline;
    int wal[SIM_WAL_MAX]; /* of sim_record() */
    int wal_count;        /* standby: received */
    int replayed;         /* standby; of a primary all is */
    int upstream;
    bool paused; /* replay */
    bool slow;   /* streams late */
    int64_t clock_off_us;
};

/* --- the shard -------------------------------------------------------------------------------- */

/* Node 0 is the primary, the others stream from it; `sync`: commits of sync sessions wait. */
void sim_servers_reset(bool sync);
struct sim_node *sim_node(int index);
const struct sim_record *sim_record(int index);
/* Of a node's WAL. */
uint64_t sim_lsn(const struct sim_node *node, int count);
/* What a reader of the node sees. */
int sim_visible(const struct sim_node *node);
struct sim_meta sim_meta_of(const struct sim_node *node);
/* In the eyes of that server: by its clock. */
bool sim_fenced(const struct sim_node *node, const struct sim_meta *meta);
/* Appends to a primary's WAL; seen at once. */
void sim_append(struct sim_node *node, const struct sim_record *record);
/* True if a's WAL is a beginning of b's. */
bool sim_is_prefix(const struct sim_node *a, const struct sim_node *b);
/* True if a standby streams from it, as far as it knows: a hung one, or a cut link, counts. */
bool sim_has_standby(const struct sim_node *node);

/* Faults and what undoes them. */
void sim_crash(int node); /* connections end, memory goes, WAL stays */
void sim_start(int node); /* as what it was */
void sim_hang(int node);
void sim_wake(int node);
void sim_promote(int node); /* a standby, at once */
void sim_follow(int node, int upstream);
void sim_rejoin(int node, int upstream); /* rewound, as a standby */
/* Whoever waits for a standby there is told to wait no longer: done, and with a warning. */
void sim_cut_waits(int node);
/* Links. Processes are known by their base; NULL is everybody. */
void sim_cut(const struct event_base *process, int node, bool cut);
void sim_cut_nodes(int a, int b, bool cut);
/* The process dies: its connections end, as its kernel tells the servers that it reaches. */
void sim_kill(struct event_base *process);
bool sim_reaches(const struct event_base *process, int node);

/* --- connections ------------------------------------------------------------------------------ */

struct sim_answer {
    PGresult *result; /* NULL with an error */
    PGresult *behind;
    char sqlstate[6];
    bool wait_cut; /* done, but no standby was waited for */
};

struct sim_session {
    struct sim_conn *conn; /* NULL when the client has gone: it is executed all the same */
    struct sim_node *node;
    bool sync;
    void *request;     /* freed after it is served */
    int64_t waited_us; /* for the fence's lock */
};

typedef void sim_serve_fn(struct sim_session *session, void *request);

struct sim_conn_events {
    void (*on_open)(void *arg, bool refused);
    void (*on_answer)(void *arg, struct sim_answer *answer); /* results are freed behind it */
    void (*on_end)(void *arg);                               /* the server ended it */
};

/* Nothing at all may come, if packets are lost. */
struct sim_conn *sim_conn_open(struct event_base *from, int node, bool sync,
                               const struct sim_conn_events *events, void *arg);
/* The request is served at the server, whatever becomes of the connection once it has arrived. */
void sim_conn_send(struct sim_conn *conn, sim_serve_fn *serve, void *request);
void sim_conn_close(struct sim_conn *conn);

/* Answers a session's request: at once; or when a standby has what the node's WAL holds now. */
void sim_reply(struct sim_session *session, const struct sim_answer *answer);
void sim_reply_committed(struct sim_session *session, const struct sim_answer *answer);
/* Serves this request again when the fence's lock is free: shared or exclusive. True: it is, go on.
 */
bool sim_take_fence(struct sim_session *session, sim_serve_fn *serve, bool exclusive);
/* Operators' lock. */
bool sim_try_lock(struct sim_session *session);
void sim_unlock(struct sim_session *session);

#endif
