/*
 * When a shard is looked through again for holds whose time is over. Pure.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWEEP_PLAN_H
#define SG_ROUTER_SWEEP_PLAN_H

#include <stdbool.h>
#include <stdint.h>

/* What the last looks have come to. */
struct sweep_past {
    bool more;         /* there was more to do than one transaction takes */
    unsigned failures; /* looks without an answer, in a row */
};

#define SWEEP_PAUSE_MAX_US 5000000 /* between two looks at a shard that does not answer */

/* The pause before the next look, 0: none. It doubles while there are no answers. */
int64_t sweep_pause_us(const struct sweep_past *past, int64_t interval_us);

#endif
