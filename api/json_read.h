/*
 * Reading JSON: what the decoders of request bodies have in common. Pure. For api/json_in*.c alone.
 *
 *   bytes ── nesting, UTF-8, syntax, duplicates ──> tree ── names, types, bounds ──> values
 *
 * A reader carries the first error and where it was found: after it every call does nothing more,
 * so a decoder reads on and looks once, at its end. All text of errors is printable ASCII.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_JSON_READ_H
#define SG_API_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/json_in.h"
#include "base/error.h"

struct json_reader {
    enum sg_error error; /* the first one; SG_OK so far */
    char *detail;        /* JSON_IN_DETAIL_SIZE bytes */
};

/* A reader without an error; what it refuses goes to `detail`. */
void json_read_start(struct json_reader *reader, char detail[JSON_IN_DETAIL_SIZE]);
/* Keeps the error if it is the first one. */
void json_read_refuse(struct json_reader *reader, enum sg_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies what can stand in a one-line message: other bytes become '?'. */
void json_read_shown(const char *text, char *ret_shown, size_t size);

/* The body as an object, the caller's to release; or NULL. */
json_t *json_read_object(struct json_reader *reader, const char *body, size_t len);
/* The members of `object` into ret_values, which is all NULL, in the order of `names`, whose last
 * is NULL; others are refused. `where` stands before what is said of them: "seats[2]: ". */
void json_read_members(struct json_reader *reader, const char *where, json_t *object,
                       const char *const *names, const json_t **ret_values);

/* An integer in bounds, else `min`. NULL value: the field is missing. */
int64_t json_read_integer(struct json_reader *reader, const char *field, const json_t *value,
                          int64_t min, int64_t max);
/* Printable text of 1 to max bytes into ret_text, which holds max + 1. NULL value: missing. */
void json_read_text(struct json_reader *reader, const char *field, const json_t *value, size_t max,
                    char *ret_text);
bool json_read_bool(struct json_reader *reader, const char *field, const json_t *value,
                    bool if_missing);
/* True if valid UTF-8 holds no control character (C0, DEL, C1) and something besides spaces. */
bool json_read_is_printable(const char *text);

#endif
