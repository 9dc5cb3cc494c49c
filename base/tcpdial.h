/*
 * Opens a TCP connection to "host:port" on the event loop, trying the addresses of the host in
 * turn. The deadline is the owner's: tcpdial_free gives it up.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_TCPDIAL_H
#define SG_BASE_TCPDIAL_H

#include <stdbool.h>

struct event_base;
struct tcpdial;

struct tcpdial_address {
    char host[256];
    char port[8];
};

/* Takes "host:port" or "[v6]:port" apart; false and *ret_address untouched if it is neither. */
bool tcpdial_parse(const char *text, struct tcpdial_address *ret_address);

/* Connected: the socket is non-blocking, without Nagle's delay, and the receiver's to close.
 * Or -1, and why not. */
typedef void tcpdial_fn(void *arg, int fd, const char *reason);

/* Exactly one fn(arg, ...), later, unless freed before. Resolving a host name blocks; an address
 * needs no resolving. NULL when memory runs out. */
struct tcpdial *tcpdial_new(struct event_base *base, const struct tcpdial_address *address,
                            tcpdial_fn *fn, void *arg);
/* From anywhere on the loop, also inside fn; NULL is allowed. Closes what was not handed over. */
void tcpdial_free(struct tcpdial *dial);

#endif
