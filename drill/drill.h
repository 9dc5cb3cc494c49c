/*
 * Drills: faults in a local cluster under a load, and the account of what they cost.
 *
 *   rig (cluster) ── load ── scenario ──> episodes ─┐
 *                     └────> history ── verdict ────┴─> outcome ─> report
 *
 * Called by the command drill. The cluster is one that the drill starts, in a folder and, where the
 * machine allows it, a network of its own, beside whatever else runs; or one that is given. A
 * process of its own does the work; if that dies, its parent removes what it had started.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_DRILL_H
#define SG_DRILL_DRILL_H

#include <stdbool.h>
#include <stdint.h>

#include "drill/rig.h"

#define DRILL_ALL "all"
#define DRILL_RANDOM "random"
#define DRILL_UNSET (-1) /* the drill's own choice */

struct drill_options {
    struct rig_options rig;
    const char *name; /* a scenario, DRILL_ALL or DRILL_RANDOM */
    int seconds;      /* of each drill, at least; of random, at most */
    int rate;         /* bookings a second; reads come to a third of that */
    int times;        /* each drill's faults; of random, all of them */
    uint64_t seed;
    bool json;
    bool strict; /* promises of speed decide, too */
};

/* Plays it and prints the report. The exit code: 0 every promise was kept; 1 one was broken, or the
 * drill did not come to its end; 2 it cannot be played like that. */
int drill_run(const struct drill_options *options);

#endif
