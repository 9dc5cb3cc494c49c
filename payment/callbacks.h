/*
 * Sends the callbacks of the stand-in: signed, and again with a longer pause each time until
 * somebody says 2xx, a bounded number of times.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_CALLBACKS_H
#define SG_PAYMENT_CALLBACKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "payment/hmac.h"

struct callbacks;
struct event_base;

#define CALLBACKS_TRIES 10
#define CALLBACKS_FIRST_PAUSE_US 200000 /* doubles each time: the last try is about 100 s later */
#define CALLBACKS_TIMEOUT_US 5000000
#define CALLBACKS_OPEN_MAX 100000 /* waiting or under way */
#define CALLBACKS_SERVERS_MAX 64  /* different host:port that are called */

/* The secret is copied. NULL when memory runs out. */
struct callbacks *callbacks_new(struct event_base *base, const struct hmac_secret *secret);
/* Those that are not delivered yet never are. */
void callbacks_free(struct callbacks *callbacks);
/* Calls `url` with the body after pause_us. SG_INVALID_VALUE: that is no URL; SG_OVERLOADED: one of
 * the bounds; SG_NO_MEMORY. */
enum sg_error callbacks_send(struct callbacks *callbacks, const char *url, const void *body,
                             size_t len, int64_t pause_us);

struct callbacks_counts {
    int64_t sent; /* tries */
    int64_t delivered;
    int64_t given_up;
    int64_t open;
};
void callbacks_counts(const struct callbacks *callbacks, struct callbacks_counts *ret_counts);

#endif
