/*
 * N of M in both directions, and the slow start. See rotation.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/rotation.h"

#include <assert.h>

#define WEIGHT_FULL 100
#define WEIGHT_FIRST 10

static void decide(struct rotation *rotation, bool in)
{
    rotation->in = in;
    rotation->bad = 0;
    rotation->good = 0;
    rotation->returned = false;
}

/* The newest `samples` bits. */
static uint32_t mask_of(int64_t samples)
{
    return samples >= ROTATION_SAMPLES_MAX ? UINT32_MAX : (UINT32_C(1) << samples) - 1;
}

void rotation_sample(struct rotation *rotation, int64_t staleness_us,
                     const struct rotation_limits *limits, int64_t now_us)
{
    const bool bad = staleness_us < 0 || staleness_us > limits->bound_us;
    const bool good = !bad && staleness_us <= limits->back_us;
    const uint32_t mask = mask_of(limits->samples);
    assert(limits->needed >= 1 && limits->needed <= limits->samples);
    if (!rotation->known) {
        rotation->known = true;
        decide(rotation, true);
    }
    rotation->bad = (rotation->bad << 1 | bad) & mask;
    rotation->good = (rotation->good << 1 | good) & mask;
    if (rotation->in && __builtin_popcount(rotation->bad) >= limits->needed) {
        decide(rotation, false);
    } else if (!rotation->in && __builtin_popcount(rotation->good) >= limits->needed) {
        decide(rotation, true);
        rotation->returned = true;
        rotation->returned_us = now_us;
    }
}

void rotation_leave(struct rotation *rotation)
{
    rotation->known = true;
    decide(rotation, false);
}

int32_t rotation_weight(const struct rotation *rotation, const struct rotation_limits *limits,
                        int64_t now_us)
{
    const int64_t since_us = now_us - rotation->returned_us;
    if (!rotation->returned || since_us >= limits->slow_start_us)
        return WEIGHT_FULL;
    if (since_us <= 0)
        return WEIGHT_FIRST;
    return WEIGHT_FIRST +
           (int32_t)((WEIGHT_FULL - WEIGHT_FIRST) * since_us / limits->slow_start_us);
}
