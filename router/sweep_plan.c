/*
 * When to sweep. See sweep_plan.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/sweep_plan.h"

int64_t sweep_pause_us(const struct sweep_past *past, int64_t interval_us)
{
    int64_t longest_us = interval_us > SWEEP_PAUSE_MAX_US ? interval_us : SWEEP_PAUSE_MAX_US;
    int64_t pause_us = interval_us;
    if (past->failures == 0)
        return past->more ? 0 : interval_us;
    for (unsigned i = 1; i < past->failures && pause_us < longest_us; i++)
        pause_us *= 2;
    return pause_us < longest_us ? pause_us : longest_us;
}
