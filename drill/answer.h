/*
 * Answers of our own API, as a client reads them. Pure.
 *
 *   bytes ─> status, the headers that a drill looks at, the body ─> ids, seats, codes in it
 *
 * It knows what api/ sends: HTTP/1.1, a Content-Length (or 304, 204), JSON without white space that
 * json_out.c and problem.c wrote. Anything else is ANSWER_GARBAGE, or is not found.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_ANSWER_H
#define SG_DRILL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uuid.h"

#define ANSWER_HEAD_MAX 16384
#define ANSWER_BODY_MAX (4 << 20)

/* A piece of the bytes that were parsed; len 0: not there. */
struct answer_text {
    const char *at;
    size_t len;
};

struct answer {
    int status;
    bool closes; /* Connection: close */
    bool replayed;
    struct answer_text shard, node, staleness, durability, token;
    struct answer_text body;
    size_t len; /* of the whole answer: what follows is the next one's */
};

enum answer_verdict { ANSWER_NEED_MORE, ANSWER_COMPLETE, ANSWER_GARBAGE };

/* *ret_answer, whose texts are borrowed from `bytes`, on ANSWER_COMPLETE; else untouched. */
enum answer_verdict answer_parse(const char *bytes, size_t len, struct answer *ret_answer);

/* "12ms" to 12; -1 for anything else. */
int32_t answer_staleness_ms(const struct answer_text *text);
/* The integer behind the first "name": of the body. False if there is none. */
bool answer_number(const struct answer *answer, const char *name, int64_t *ret_value);
/* The text behind the first "name": of the body, as it stands between its quotes; len 0: none. */
struct answer_text answer_string(const struct answer *answer, const char *name);
bool answer_booking_id(const struct answer *answer, struct uuid *ret_id);
/* Seats {"row":..,"col":..} of the array behind the first "name":, as seat_no for so many columns.
 * False: no such array, more than max, or something in it that is no seat. */
bool answer_seats(const struct answer *answer, const char *name, int32_t cols, int32_t *ret_seats,
                  size_t max, size_t *ret_count);
/* The rows of characters of a seat map: sets the bit of each booked seat ('x') in `bitmap`, which
 * has room for rows * cols bits, and counts them. False: not exactly such a grid of ". h x". */
bool answer_seat_map(const struct answer *answer, int32_t rows, int32_t cols, uint64_t *bitmap,
                     uint32_t *ret_booked);

#endif
