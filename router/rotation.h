/*
 * Rotation: is a replica fresh enough, for long enough, to be read from without asking. Pure, the
 * caller brings staleness and clock.
 *
 *   staleness at each probe ── rotation_sample ──> in or out: N of the last M, both ways
 *   its death               ── rotation_leave ───> out at once
 *   its return              ── rotation_weight ──> share of the reads, rising from 10 to 100
 *
 *        0        back_us             bound_us
 *        ├── good ──┼── neither, stays ──┼── bad, as is unknown ──>
 *
 * One slow probe is one bad sample and flaps nothing; a replica that hovers around the bound is
 * either in or out, and not now and then. A change of mind begins with an empty list of samples.
 * Rotation is only about readers that set no bound of their own: what a reader is given is
 * measured against the bound anyway.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ROTATION_H
#define SG_ROUTER_ROTATION_H

#include <stdbool.h>
#include <stdint.h>

#define ROTATION_SAMPLES_MAX 32

struct rotation_limits {
    int64_t bound_us;      /* staler is bad */
    int64_t back_us;       /* at most this is good */
    int64_t samples;       /* M, at most ROTATION_SAMPLES_MAX */
    int64_t needed;        /* N: bad ones to leave, good ones to come back */
    int64_t slow_start_us; /* 0: none */
};

/* One replica. Zero-initialise: nothing is known, the first sample takes it in. */
struct rotation {
    bool known;
    bool in;
    uint32_t bad;        /* a bit a sample, the newest lowest */
    uint32_t good;       /* likewise */
    bool returned;       /* it is in and was out before, since returned_us */
    int64_t returned_us; /* monotonic */
};

/* Notes what a probe found at now_us: staleness_us may be STALENESS_UNKNOWN. */
void rotation_sample(struct rotation *rotation, int64_t staleness_us,
                     const struct rotation_limits *limits, int64_t now_us);
/* It is down, or no replica: it has to earn its return. */
void rotation_leave(struct rotation *rotation);
/* 10 to 100. Of one that is out, too: a reader may ask for it by a wider bound. */
int32_t rotation_weight(const struct rotation *rotation, const struct rotation_limits *limits,
                        int64_t now_us);

#endif
