/*
 * What becomes of a message after the router's answer. Pure.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_VERDICT_H
#define SG_QUEUE_VERDICT_H

#include <stdint.h>

#include "base/error.h"

enum queue_verdict {
    VERDICT_BOOKED,    /* acknowledged */
    VERDICT_REFUSED,   /* its refusal is stored, then it is acknowledged */
    VERDICT_AGAIN_ALL, /* the shard is in trouble: it and those behind it wait a little */
    VERDICT_AGAIN_ONE, /* the message is in trouble: only it waits */
    VERDICT_DEAD,      /* to the dead letters */
};

/* `tries`: how often this message has been tried, this time included. What may pass (503) is tried
 * for ever; what is wrong inside, `tries_max` times; the rest is an answer. */
enum queue_verdict queue_verdict(enum sg_error error, int64_t tries, int64_t tries_max);

#endif
