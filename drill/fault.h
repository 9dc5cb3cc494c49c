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

enum fault_kind {
    FAULT_KILL,
    FAULT_HANG,         /* SIGSTOP */
    FAULT_CUT,          /* from everybody */
    FAULT_CUT_STANDBYS, /* from its standbys */
    FAULT_CUT_PROGRAMS, /* a node from router and consumer */
    FAULT_REPLAY_PAUSE,
    FAULT_RECEIVER_STOP, /* of the WAL */
    FAULT_PROGRAM_KILL,
    FAULT_REDIS_FLUSH, /* FLUSHALL */
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

/* Cuts need the rig's own network; without one a cut is made by stopping processes, but for
 * FAULT_CUT_PROGRAMS, which there is not then. Under Patroni there is no FAULT_CUT_STANDBYS. */
bool fault_possible(const struct rig *rig, enum fault_kind kind);

/* SG_OK once the fault is there, or rig->problem says why not. */
enum sg_error fault_make(struct rig *rig, enum fault_kind kind, const char *server,
                         struct fault *ret_fault);
/* Lets the server run and be heard again, as it is: an old primary is a primary still. */
enum sg_error fault_release(struct rig *rig, struct fault *fault);
/* Release, and bring it back: started, or rejoined to its shard. */
enum sg_error fault_undo(struct rig *rig, struct fault *fault);

#endif
