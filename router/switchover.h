/*
 * A planned switchover of one shard: walks the steps of router/switchover_state.h over one
 * connection a node (base/pgask.h) and one that holds the operators' lock.
 *
 *   answers, polls, deadlines ─> event ─> switchover_advance ─> the next step's question
 *                                            └ on_begin, on_step, at the end on_done
 *
 * Called by cli/switchover.c. Hides the questions and their order. What is not PostgreSQL (the
 * consumer of the WAL, the command that makes a node follow another) is behind struct
 * switchover_world.
 *
 * Deadlines: everything before the promotion shares timeout_ms, of which what lies behind the fence
 * has fence_ms, at most half; past it all is undone. Leading the other standbys has at most lead_ms
 * of what comes before the fence. Asking for the promotion and watching it have promote_ms
 * together; each later step has promote_ms or slot_ms of its own, rejoining rejoin_ms a node. The
 * fence ends by itself on the server until it is made lasting.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWITCHOVER_H
#define SG_ROUTER_SWITCHOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "router/switchover_plan.h"
#include "router/switchover_state.h"

struct event_base;
struct reap_list;
struct settings;
struct switchover;

#define SWITCHOVER_SLOT_MAX 64

/* What the consumer answered. Valid during the callback. */
struct switchover_drained {
    enum switchover_event event; /* LOST: there is none. NO, DEADLINE: it cannot follow in time */
    uint64_t lsn;                /* OK: acknowledged by Redis up to there, of */
    int32_t timeline;            /*   this timeline; 0 unknown */
    int64_t generation;
    char slot[SWITCHOVER_SLOT_MAX]; /* that it reads through */
    char text[SWITCHOVER_TEXT_MAX]; /* not OK: why, for people */
};

typedef void switchover_drained_fn(void *arg, const struct switchover_drained *drained);
/* ok: it follows; else why not in `text`. */
typedef void switchover_rejoined_fn(void *arg, bool ok, const char *text);

/* Each calls fn exactly once, later, never from inside the call. */
struct switchover_world {
    /* Have the consumer of the shard follow the WAL up to lsn, in timeout_ms. */
    void (*drain)(void *world, const char *shard, uint64_t lsn, int64_t timeout_ms,
                  switchover_drained_fn *fn, void *arg);
    /* Make the node follow the shard's primary, whatever it was; or, if it is a standby, the node
     * `upstream`, which may be one itself. NULL: nobody does. */
    void (*rejoin)(void *world, const char *node, const char *upstream, int64_t timeout_ms,
                   switchover_rejoined_fn *fn, void *arg);
    void *world;
};

/* Valid during on_done. */
struct switchover_result {
    enum switchover_step end; /* SWITCHOVER_DONE and so on */
    const char *text;         /* for people: why it is not DONE; "" */
    const char *primary;      /* before; "" if it was never found */
    const char *target;       /* "" likewise */
    bool asked;               /* the promotion */
    int32_t timeline;         /* the new one; 0 unknown */
    int64_t epoch;            /* of the attestation; 0 none */
    int64_t pause_us;         /* from asking for the fence until attested, or lifted; 0 none */
    bool handover;            /* the consumer goes on where it was */
};

struct switchover_config {
    const struct settings *settings; /* switchover, postgres.connect_timeout_ms; borrowed */
    struct event_base *base;
    struct reap_list *reap;
    const struct shardmap_shard *shard; /* borrowed */
    const char *to;                     /* NULL: the best one; borrowed */
    const char *operator_name;          /* as application_name, so that a rival can be named */
    int64_t timeout_ms;                 /* before the promotion */
    bool abort;
    bool without_cdc;
    struct switchover_world world;
    /* All may be NULL but on_done. From the loop, never from inside switchover_new. */
    void (*on_begin)(void *arg, enum switchover_step step);
    void (*on_step)(void *arg, enum switchover_step step, int64_t took_us, bool ok,
                    const char *text);            /* text: why not ok */
    void (*on_note)(void *arg, const char *text); /* something that people should know */
    void (*on_done)(void *arg, const struct switchover_result *result); /* once; may free */
    void *arg;
};

/* Starts. NULL when memory runs out. */
struct switchover *switchover_new(const struct switchover_config *config);
/* The operator wants out: undone if the promotion was not asked for, else nothing changes.
 * on_done tells. */
void switchover_stop(struct switchover *switchover);
/* Closes all connections, which gives back the lock, and frees; from anywhere on the loop. */
void switchover_free(struct switchover *switchover);

#endif
