/*
 * Errors as RFC 9457 problem details: enum sg_error and what is known about the case, as JSON.
 *
 * Pure writing; whoever answers adds the headers. Also used wherever else an HTTP answer carries an
 * error (the edge, the admin listener), so that all of them look alike.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_PROBLEM_H
#define SG_API_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;
struct seat;

#define PROBLEM_CONTENT_TYPE "application/problem+json"

/* Borrowed for the call. */
struct problem {
    enum sg_error error;
    const char *detail;           /* valid UTF-8; NULL for none */
    const struct seat *conflicts; /* NULL for none */
    size_t conflict_count;
    const char *entry_id;   /* the place on the waiting list that is meant; NULL for none */
    const char *order_id;   /* the order that is meant; NULL for none */
    const char *booking_id; /* the booking that is meant; NULL for none */
    bool has_left;
    int64_t left; /* seats that there still are */
};

/* {"type":"/docs#seats_taken","title":…,"status":409,"code":"seats_taken","detail":…,
 *  "conflicts":[{"row":1,"col":4}]} */
void problem_write(struct dynbuf *out, const struct problem *problem);
/* The same without the closing brace, for one who adds members. */
void problem_write_open(struct dynbuf *out, const struct problem *problem);
/* Value of Retry-After: seconds, rounded up, at least 1. */
int64_t problem_retry_after_s(int64_t retry_after_ms);

#endif
