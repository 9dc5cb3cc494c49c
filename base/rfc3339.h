/*
 * RFC 3339 timestamps: text to microseconds since 1970-01-01 UTC and back. Pure.
 *
 * In: any offset, any number of fraction digits up to nine (what is under a microsecond is cut).
 * Out: always UTC with 'Z', with a fraction only where there is one. Hides the calendar.
 * A leap second (":60") is refused: the database's clock has none.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_RFC3339_H
#define SG_BASE_RFC3339_H

#include <stdbool.h>
#include <stdint.h>

#define RFC3339_SIZE 32 /* bytes that hold any formatted time and its NUL */

/* 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z */
#define RFC3339_MIN_US INT64_C(-62135596800000000)
#define RFC3339_MAX_US INT64_C(253402300799999999)

/* False and *ret_us untouched if `text` is not exactly one timestamp inside the bounds. */
bool rfc3339_parse(const char *text, int64_t *ret_us);
/* "2027-06-01T19:00:00Z", "…00.250Z", "…00.000001Z". A time out of bounds is clamped to them.
 * Returns the length. */
int rfc3339_format(int64_t us, char ret_text[RFC3339_SIZE]);

#endif
