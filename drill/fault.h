/*
 * Faults of a local cluster: made at a moment that is noted, and undone.
 *
 * In come the rig and the name of a server; out goes the fault with its times, monotonic as in the
 * load's history. Undoing brings the server back as an operator would: a node that was killed, hung
 * or cut off rejoins its shard as a replica of whoever is primary by then.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_FAULT_H
#define SG_DRILL_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dev/process.h"
#include "drill/rig.h"

/* X(enumerator, for people, true: the server is a node and rejoins its shard afterwards) */
#define FAULT_TABLE(X)                                                                             \
    X(FAULT_KILL, "killed", true)                                                                  \
    X(FAULT_HANG, "stopped (SIGSTOP)", true)                                                       \
    X(FAULT_CUT, "cut off from everybody", true)                                                   \
    X(FAULT_CUT_STANDBYS, "cut off from its standbys", true)                                       \
    X(FAULT_CUT_PROGRAMS, "cut off from router and consumer", false)                               \
    X(FAULT_REPLAY_PAUSE, "replay paused", false)                                                  \
    X(FAULT_RECEIVER_STOP, "WAL receiver stopped", false)                                          \
    X(FAULT_PROGRAM_KILL, "killed", false)                                                         \
    X(FAULT_REDIS_FLUSH, "emptied (FLUSHALL)", false)

enum fault_kind {
#define X(name, text, rejoins) name,
    FAULT_TABLE(X)
#undef X
        FAULT_KINDS
};

#define FAULT_PROCESSES_MAX 16

struct fault {
    enum fault_kind kind;
    char server[64];
    int64_t made_us;
    int64_t undone_us;                              /* 0: not yet */
    struct process_id stopped[FAULT_PROCESSES_MAX]; /* single ones, by us */
    size_t stopped_count;
};

const char *fault_text(enum fault_kind kind);
/* Cuts need the rig's own network; without one a cut is made by stopping processes, but for
 * FAULT_CUT_PROGRAMS, which there is not then. */
bool fault_possible(const struct rig *rig, enum fault_kind kind);

/* SG_OK once the fault is there, or rig->problem says why not. */
enum sg_error fault_make(struct rig *rig, enum fault_kind kind, const char *server,
                         struct fault *ret_fault);
/* Lets the server run and be heard again, as it is: an old primary is a primary still. */
enum sg_error fault_release(struct rig *rig, struct fault *fault);
/* Release, and bring it back: started, or rejoined to its shard. */
enum sg_error fault_undo(struct rig *rig, struct fault *fault);

#endif
