/*
 * The table of endpoints: method and path to the function that answers. Pure.
 *
 *   "GET" "/events/7/seats" ── endpoints_match ──> GET /events/{id}/seats, {id} = "7"
 *
 * A path pattern is made of literal segments and of {id} (an event), {userId}, and one
 * of {bookingId}, {orderId}, {entryId}. HEAD is served by GET.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_ENDPOINTS_H
#define SG_API_ENDPOINTS_H

#include <stddef.h>

#include "api/http.h"

struct exchange;

struct endpoint {
    enum http_method method;
    const char *path;  /* the pattern */
    const char *route; /* "GET /events/{id}": label of the metrics and of the log */
    void (*handle)(struct exchange *exchange);
};

struct endpoint_param {
    const char *start; /* inside the path; NULL: the pattern has none */
    size_t len;
};

struct endpoint_match {
    const struct endpoint *endpoint; /* NULL: no such path, or not with this method */
    unsigned methods;                /* bit 1 << enum http_method; 0: no such path */
    struct endpoint_param id;
    struct endpoint_param target; /* a booking, order or place on the waiting list: a UUID */
    const char *target_kind;      /* "booking", "order", "entry" */
    struct endpoint_param user_id;
};

extern const struct endpoint endpoints[];
extern const size_t endpoint_count;

void endpoints_match(enum http_method method, const char *path, struct endpoint_match *ret_match);
/* Value of an Allow header for a set of methods, OPTIONS included. */
const char *endpoints_allow(unsigned methods);

#endif
