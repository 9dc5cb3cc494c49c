/*
 * Time. Durations and deadlines use the monotonic clock; the wall clock is for people only.
 * Pure code takes the time as an argument and never calls these.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_CLOCK_H
#define SG_BASE_CLOCK_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

/* Monotonic microseconds; only differences mean anything. */
static inline int64_t clock_mono_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Microseconds since 1970-01-01 UTC. */
static inline int64_t clock_wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* A duration as libevent wants it. */
static inline struct timeval clock_timeval_us(int64_t us)
{
    if (us < 0)
        us = 0;
    return (struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000};
}

#endif
