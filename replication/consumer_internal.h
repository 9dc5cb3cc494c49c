/*
 * What the files of the consumer share; nobody else includes it. See consumer.h.
 *
 *   consumer.c             states, feeds, losing, the clock
 *   consumer_look.c        looking, deciding, taking over, resuming
 *   consumer_drain.c       a switchover's question: is everything up to an LSN in Redis?
 *   consumer_ask.c         the control session: SQL questions one after another
 *   consumer_generation.c  building a new generation: number, seed, catching up, switch
 *   consumer_gate.c        the synchronous standby, WAL kept, heartbeats
 *   consumer_check.c       when which reconcile runs
 *   consumer_clean.c       removal of left-over slots and keys
 *   consumer_status.c      the status, as a struct, as JSON, as metrics, as a word in Redis
 *
 * An attempt is the time from one look to the next loss. Every answer of PostgreSQL or Redis
 * belongs to the attempt that asked; one that comes in a later attempt is dropped.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_CONSUMER_INTERNAL_H
#define SG_REPLICATION_CONSUMER_INTERNAL_H

#include "base/dynbuf.h"
#include "base/log.h"
#include "base/pgask.h"
#include "replication/consumer.h"
#include "replication/feed.h"
#include "replication/sink.h"
#include "shardmap/shardmap.h"

#define CONSUMER_TEXT_SIZE 256
#define CONTROL_QUEUE_MAX 16
#define CONTROL_PARAM_SIZE 80
#define CONSUMER_MISSING_MAX 1024 /* events waiting to be healed alone */
#define CONSUMER_HEAL_MAX 100     /* of them in one slice */

struct consumer;
struct event;
struct metrics_series;
struct shard_series;

/* --- questions -------------------------------------------------------------------------------- */

/* The answer is SG_OK or SG_INTERNAL (the server refused); anything else is a lost session. */
typedef void control_fn(struct consumer *consumer, const struct pgask_answer *answer);

struct control_job {
    const char *sql;
    char params[2][CONTROL_PARAM_SIZE];
    int param_count;
    uint64_t attempt;
    control_fn *fn;
};

struct control {
    struct pgask *ask; /* NULL: no primary was ever known */
    char node[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    size_t first;
    size_t count;
    struct control_job jobs[CONTROL_QUEUE_MAX];
};

/* consumer_ask.c: the texts */
extern const char *const ask_lock_sql;      /* 0 got it, 1 own backend PID */
extern const char *const ask_facts_sql;     /* struct ask_facts */
extern const char *const ask_meta_sql;      /* struct ask_meta */
extern const char *const ask_follow_sql;    /* $1 timeline: takes the handover from it away */
extern const char *const ask_slots_sql;     /* $1 prefix */
extern const char *const ask_draw_sql;      /* 1: next number */
extern const char *const ask_raise_sql;     /* $1 number */
extern const char *const ask_end_sql;       /* $1 slot; a row while a walsender has it */
extern const char *const ask_terminate_sql; /* $1 PID */
extern const char *const ask_drop_sql;      /* $1 slot */
extern const char *const ask_vitals_sql;    /* $1 prefix: struct ask_vitals */
extern const char *const ask_standby_sql;   /* 0 may see it, 1 LSN that the standbys have */
extern const char *const ask_heartbeat_sql; /* 1: LSN */

struct ask_facts {
    bool in_recovery;
    uint64_t system_identifier;
    int32_t timeline;
    bool published; /* the publication is there */
    bool numbered;  /* the sequence is there */
    char wal_level[16];
    bool synchronous; /* synchronous_standby_names is not empty */
    uint64_t lsn;     /* end of the WAL */
    int32_t holder_pid;
};

struct ask_vitals {
    uint64_t lsn;
    bool synchronous;
    int64_t kept_bytes;   /* by the shard's slots together; -1: no slot */
    bool counted_standby; /* who reads them is among the synchronous standbys */
    bool switching;       /* a switchover's fence is up */
};

/* False for a row that is not what was asked for. */
bool ask_read_facts(const PGresult *result, struct ask_facts *ret_facts);
void ask_read_slots(const PGresult *result, const char *shard, struct repair_facts *facts);
/* Into the facts; all of it zero without a row, or before migration 4. */
void ask_read_meta(const PGresult *result, struct repair_facts *facts);
bool ask_read_vitals(const PGresult *result, struct ask_vitals *ret_vitals);
int64_t ask_number(const PGresult *result, int column); /* of the first row; 0 without one */

/* The primary to ask from now on; keeps the session if it is the same. False: no memory. */
bool control_open(struct consumer *consumer, const char *node, const char *dsn);
void control_close(struct consumer *consumer);
/* True if nothing is asked or waiting to be. */
bool control_idle(const struct consumer *consumer);
/* In line behind what was asked before; parameters are copied, NULL for none. A full line is a lost
 * session. */
void control_ask(struct consumer *consumer, const char *sql, const char *first, const char *second,
                 control_fn *fn);
/* The next number of the shard's sequence that is above `floor`; 0 when the server refuses. */
typedef void control_number_fn(struct consumer *consumer, int64_t number, const char *reason);
void control_draw(struct consumer *consumer, int64_t floor, control_number_fn *fn);

/* --- Redis ------------------------------------------------------------------------------------ */

/* Only while the attempt lasts. False: not up. */
typedef void redis_ask_fn(struct consumer *consumer, const redisReply *reply);
bool redis_ask(struct consumer *consumer, const struct dynbuf *command, redis_ask_fn *fn);
typedef void redis_send_fn(struct consumer *consumer, const struct sink_result *result);
bool redis_send(struct consumer *consumer, const struct dynbuf *commands, size_t count,
                redis_send_fn *fn);

/* --- the parts -------------------------------------------------------------------------------- */

/* A generation that is being fed. */
struct generation {
    struct consumer *consumer;
    int64_t number;
    char slot[REPAIR_SLOT_NAME_SIZE];
    struct feed *feed;
    bool started;
};

enum build_step {
    BUILD_NONE,
    BUILD_ROOM,   /* left-over slots go first, for a while */
    BUILD_NUMBER, /* the generation's number is being drawn */
    BUILD_SEED,
    BUILD_FEED,   /* the feed is starting */
    BUILD_TARGET, /* a mark is being written into the WAL */
    BUILD_CATCH_UP,
    BUILD_SWITCH
};

struct build {
    enum build_step step;
    enum repair_reason reason;
    int64_t room_until_us;
    int64_t number;
    char slot[REPAIR_SLOT_NAME_SIZE];
    struct seed *seed;
    struct seed_progress progress;      /* as it was when the seed ended */
    uint64_t target;                    /* LSN of the mark */
    char former[REPAIR_SLOT_NAME_SIZE]; /* slot of the generation that was switched from; "" */
};

struct gate {
    bool synchronous;
    bool blind; /* the role may not see the standbys */
    uint64_t lsn;
    bool asked;
    int64_t pause_us; /* grows while the standby does not move */
    int64_t next_us;
    struct event *timer;
};

struct pulse {
    bool vitals_asked;
    int64_t vitals_at_us; /* when they were answered, monotonic; 0: not known now */
    int64_t next_vitals_us;
    struct ask_vitals vitals;
    bool alarm;
    bool counted;     /* was told */
    uint64_t applied; /* when it moved last, for the heartbeat */
    int64_t applied_us;
    bool heartbeat_asked;
    int64_t heartbeat_us;
};

struct clean {
    size_t drop_count; /* slots to be dropped */
    char drops[REPAIR_SLOTS_MAX][REPAIR_SLOT_NAME_SIZE];
    bool drop_asked;
    int64_t next_drop_us;
    bool wanted; /* a pass over the keys */
    bool asked;
    int64_t next_us;
    bool again;       /* one more pass behind the one under way */
    int64_t below;    /* generations below it that are not in use are left-overs */
    int64_t given_up; /* the hash names it, and it has no slot: nobody can take it up again */
    char cursor[24];
    int64_t removed;
};

struct drain {
    uint64_t lsn;
    int64_t deadline_us;
    bool asked;  /* for the mark */
    bool marked; /* the mark is in the WAL, behind lsn */
    consumer_drain_fn *fn;
    void *arg;
};

struct drains {
    size_t count;
    struct drain items[CONSUMER_DRAINS_MAX]; /* in the order of the calls */
    bool mark_asked;
    struct event *timer;
};

enum check_kind { CHECK_SLOW, CHECK_ASKED, CHECK_HEAL };

struct check {
    struct reconcile *run; /* NULL: none under way */
    enum check_kind kind;
    int64_t next_us; /* of the slow one */
    int64_t next_heal_us;
    int64_t heal_pause_us;
    struct reconcile_cursor slow;
    int64_t event_drift, ticket_drift; /* of the slow pass so far */
    int64_t drift;                     /* of the last whole one */
    int64_t done_us;                   /* wall clock */
    bool asked;
    bool heal;
    struct reconcile_cursor cursor;
    consumer_reconcile_fn *fn;
    void *arg;
    size_t missing_count;
    int64_t missing[CONSUMER_MISSING_MAX];
    size_t healing_count;
    int64_t healing[CONSUMER_HEAL_MAX];
};

struct consumer {
    struct consumer_config config;
    char shard[SHARDMAP_NAME_MAX + 1];
    char slot_prefix[REPAIR_SLOT_NAME_SIZE];
    bool over; /* being freed */

    enum consumer_state state;
    char detail[CONSUMER_TEXT_SIZE];
    uint64_t attempt;
    struct event *tick;
    int64_t look_at_us; /* when to look (again); INT64_MAX: not by itself */
    int64_t pause_ms;   /* before the look after the next loss */
    int64_t running_since_us;

    struct control control;
    int64_t draw_floor;
    control_number_fn *draw_fn;
    struct sink *sink;

    /* what the look has found */
    bool locked;
    int32_t backend_pid; /* of the session that has the lock, or had it last */
    struct ask_facts server;
    struct repair_facts facts;
    int64_t hash_epoch;
    uint64_t marked_lsn; /* what the hash says now, as far as this attempt knows */
    uint64_t life;       /* what the hash said, as one number; changes while somebody works */
    int64_t life_changed_us;
    int64_t life_seen_us;
    struct repair_decision decision;
    enum repair_reason forced; /* seed for this reason, whatever the facts */
    int64_t free_until_us;     /* the slot's left-over walsender has so long to go */

    int64_t epoch;          /* claimed; 0: never */
    struct generation *now; /* what readers read; NULL while nothing is fed */
    struct generation *next;
    struct build build;
    struct gate gate;
    struct pulse pulse;
    struct clean clean;
    struct check check;
    struct drains drains;

    /* for people */
    struct feed_status last; /* of the current feed, kept when it is gone */
    int64_t in_step_us;      /* wall clock: when nothing was unapplied; 0 never */
    int64_t next_tell_us;
    int64_t next_show_us;
    enum repair_reason last_repair;
    int64_t last_repair_us;
    int64_t repairs;
    struct shard_series *series;
};

struct log_fields consumer_fields(const struct consumer *consumer);

/* consumer.c. Ends the attempt: everything but lock and Redis goes, and a look follows, at once or
 * after the pause. */
void consumer_lose(struct consumer *consumer, enum consumer_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void consumer_control_lost(struct consumer *consumer, const char *reason);
void consumer_set_state(struct consumer *consumer, enum consumer_state state, const char *format,
                        ...) __attribute__((format(printf, 3, 4)));
/* Begins an attempt: what was asked in the last one is not waited for any more. */
void consumer_next_attempt(struct consumer *consumer);
/* Looks in so long. */
void consumer_look_in(struct consumer *consumer, int64_t us);
/* Readers are to ask PostgreSQL until the feed marks the hash again. */
void consumer_mark_stale(struct consumer *consumer);
/* The tick comes now. */
void consumer_kick(struct consumer *consumer);
void consumer_note_repair(struct consumer *consumer, const char *how, enum repair_reason reason);
/* The generation is fed from start_lsn. NULL: no memory. */
struct generation *generation_new(struct consumer *consumer, int64_t number, const char *slot,
                                  uint64_t start_lsn, bool current);
void generation_free(struct generation *generation);

/* consumer_look.c. Takes the next step: a look from its beginning, or what it waits for. */
void consumer_look(struct consumer *consumer);
/* Of all epochs and generations that are known: the next one is above it. */
int64_t consumer_highest_number(const struct consumer *consumer);

/* consumer_generation.c */
void build_begin(struct consumer *consumer, enum repair_reason reason);
void build_tick(struct consumer *consumer, int64_t now_us);
/* The next generation's feed has started. / Is over. */
void build_feed_started(struct consumer *consumer);
void build_fail(struct consumer *consumer, const char *reason);
void build_drop(struct consumer *consumer); /* forgets what is under way */

/* consumer_gate.c */
void gate_tick(struct consumer *consumer);
uint64_t gate_now(const struct consumer *consumer);
void gate_set_synchronous(struct consumer *consumer, bool synchronous);
void pulse_tick(struct consumer *consumer, int64_t now_us);
/* A heartbeat now, not only when the shard has been idle. */
void pulse_beat(struct consumer *consumer);
bool gate_init(struct consumer *consumer);
void gate_stop(struct consumer *consumer);

/* consumer_drain.c */
bool drain_init(struct consumer *consumer);
/* Redis has acknowledged more, or the mark is there. */
void drain_check(struct consumer *consumer);
/* Whoever waits is told that it came to nothing. */
void drain_stop(struct consumer *consumer, const char *reason);

/* consumer_clean.c */
void clean_slot(struct consumer *consumer, const char *name);
void clean_keys_later(struct consumer *consumer, int64_t below);
/* Readers are to have time to see the switch that was made just now. */
void clean_after_switch(struct consumer *consumer);
void clean_tick(struct consumer *consumer, int64_t now_us);
void clean_stop(struct consumer *consumer);

/* consumer_check.c */
void check_tick(struct consumer *consumer, int64_t now_us);
void check_missing(struct consumer *consumer, int64_t event_id);
/* Whatever runs is given up, the asker is told. `forget`: another generation comes. */
void check_stop(struct consumer *consumer, const char *reason, bool forget);

/* consumer_status.c */
bool status_init(struct consumer *consumer);
void status_tick(struct consumer *consumer, int64_t now_us);
void status_show_state(struct consumer *consumer);
void status_add_checked(struct consumer *consumer, const struct reconcile_report *report);
void status_set_drift(struct consumer *consumer, int64_t events, int64_t tickets);
void status_done(struct consumer *consumer);

#endif
