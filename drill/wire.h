/*
 * HTTP connections of a drill's load: one request at a time on each, kept for the next one.
 *
 *                 wire_send                  connected                   answer
 *   (none idle) ───────────> WIRE_CONNECTING ─────────> WIRE_BUSY ─────────────────> WIRE_IDLE
 *                                  │                     ^   │ EOF, timeout, garbage     │
 *                                  │ refused             └───┼──────── wire_send ────────┤
 *                                  └────────────> WIRE_CLOSED <──────────────────────────┘
 *
 * A connection is taken anew for a request only when none is idle, and one that has been idle for
 * long is not taken again, so that the server's own timeout never meets a request. Each request
 * that was accepted ends with exactly one callback, later. Everything on one event loop.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_WIRE_H
#define SG_DRILL_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "drill/answer.h"
#include "drill/history.h"

struct event_base;
struct reap_list;
struct wire;

struct wire_config {
    struct event_base *base;
    struct reap_list *reap;
    const struct sockaddr *address; /* copied */
    socklen_t address_len;
    int64_t timeout_us; /* from wire_send to the answer */
    /* HISTORY_ANSWERED with the answer, valid during the callback; else `answer` is NULL. It may
     * call wire_send. */
    void (*on_end)(void *arg, uint64_t tag, enum history_end end, const struct answer *answer);
    void *arg;
};

/* NULL without memory. */
struct wire *wire_new(const struct wire_config *config);
/* Closes everything; nobody is called back any more. NULL is fine. */
void wire_free(struct wire *wire);

/* Sends one request, which is copied. The number of the connection, from 1 on; 0: refused, no
 * memory. `tag` comes back in on_end. */
uint32_t wire_send(struct wire *wire, const char *bytes, size_t len, uint64_t tag);
/* To be called every few milliseconds: ends requests that have waited too long, and those whose
 * connection could not even be begun. */
void wire_tick(struct wire *wire, int64_t now_us);
/* Requests that have not ended. */
size_t wire_busy(const struct wire *wire);

#endif
