/*
 * One run of loadgen: its clients and what has been counted, shared by the loadgen_*.h.
 *
 * Header only, because each bench tool is one file.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_LOADGEN_RUN_H
#define SG_TESTS_BENCH_LOADGEN_RUN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "tests/bench/histogram.h"
#include "tests/bench/loadgen_options.h"

#define SECOND_NS INT64_C(1000000000)
#define MS_NS INT64_C(1000000)
#define HEAD_MAX 4096
#define OUT_MAX 8192
#define LOCATION_MAX 128

enum client_state { CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_IDLE, CLIENT_WAITING };

struct client {
    enum client_state state;
    int fd;
    bool wants;          /* has a request to send once it is connected */
    bool closes;         /* the server said Connection: close */
    int64_t intended_ns; /* latencies run from here */
    int64_t asked_ns;
    int64_t map_version;
    size_t event; /* index of the event asked about, event_count for none */
    size_t out_len, out_done;
    size_t head_len;
    size_t body_left;
    bool in_body;
    int status;
    bool confirms;               /* its request is the second one of a pair */
    char location[LOCATION_MAX]; /* of its hold, until that is confirmed; "": none */
    char out[OUT_MAX];
    char head[HEAD_MAX + 1];
};

/* A client that rests. All rests are equally long, so a ring keeps them in the order of time. */
struct pause {
    int64_t due_ns;
    size_t client;
};

struct tally {
    uint64_t asked, answers, dropped, timeouts, connect_errors, garbage, connects;
    uint64_t misrouted, unrouted, version_backwards;
    int64_t version_min, version_max;
    uint64_t walk_wrapped;
    uint64_t pairs; /* holds that were confirmed */
    uint64_t statuses[600];
    uint64_t bytes;
    struct histogram all, hold, ok, refused;
};

struct run {
    struct options options;
    int epoll_fd;
    struct client *clients;
    struct pause *pauses;
    size_t pause_head, pause_count;
    size_t started; /* clients that came up */
    size_t waiting; /* clients with a request under way */
    uint64_t walked;
    uint64_t random_state;
    int64_t start_ns, hold_ns, end_ns, last_answer_ns, hold_answer_ns;
    struct tally tally;
    char scratch[1 << 18];
};

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

/* How many requests an open loop has in all. */
static uint64_t loadgen_arrivals(const struct options *options)
{
    uint64_t fit = (uint64_t)(options->rate * options->hold_ms / 1000);
    return options->requests && (uint64_t)options->requests < fit ? (uint64_t)options->requests
                                                                  : fit;
}

#endif
