/*
 * The names of outcomes, which every provider shares. See provider.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/provider.h"

#include <string.h>

static const char *const names[] = {
    [PAY_SUCCEEDED] = "succeeded", [PAY_DECLINED] = "declined", [PAY_PENDING] = "pending",
    [PAY_UNKNOWN] = "unknown",     [PAY_NONE] = "none",         [PAY_CANCELLED] = "cancelled",
    [PAY_REFUNDED] = "refunded",
};

_Static_assert(sizeof(names) / sizeof(*names) == PAY_OUTCOME_COUNT, "a name each");

const char *pay_outcome_name(enum pay_outcome outcome)
{
    return names[outcome];
}

enum pay_outcome pay_outcome_by_name(const char *name)
{
    int i = 0;
    while (i < PAY_OUTCOME_COUNT && strcmp(names[i], name) != 0)
        i++;
    return (enum pay_outcome)i;
}
