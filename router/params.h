/*
 * Parameters of a prepared statement in PostgreSQL's binary format, kept so that they can be sent
 * again after a lost connection.
 *
 * Binary array, as array_recv() reads it: int32 dimensions, int32 has-null, int32 element oid, then
 * per dimension int32 length and int32 lower bound, then per element int32 size (-1: NULL) and the
 * bytes; all in network order.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_PARAMS_H
#define SG_ROUTER_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dynbuf.h"
#include "base/uuid.h"

#define PARAMS_MAX 16

struct params {
    struct dynbuf data; /* owned */
    int count;
    struct {
        size_t offset;
        int len; /* -1: NULL */
    } item[PARAMS_MAX];
};

/* Element types of arrays: oids of pg_type. */
enum params_oid {
    PARAMS_BOOL = 16,
    PARAMS_INT8 = 20,
    PARAMS_INT4 = 23,
    PARAMS_TEXT = 25,
    PARAMS_UUID = 2950
};

void params_init(struct params *params);
void params_done(struct params *params);
/* Each call appends one parameter. */
void params_i64(struct params *params, int64_t value);
void params_i32(struct params *params, int32_t value);
void params_bool(struct params *params, bool value);
void params_text(struct params *params, const char *text); /* NULL: SQL NULL */
void params_uuid(struct params *params, const struct uuid *uuid);

/* Another value for one that params_i64 has appended. */
void params_replace_i64(struct params *params, int index, int64_t value);

/* An array parameter: begin, exactly `count` elements, end. */
void params_array_begin(struct params *params, enum params_oid oid, int32_t count);
void params_array_i64(struct params *params, int64_t value);
void params_array_i32(struct params *params, int32_t value);
void params_array_bool(struct params *params, bool value);
void params_array_text(struct params *params, const char *text); /* NULL: SQL NULL */
void params_array_uuid(struct params *params, const struct uuid *uuid);
void params_array_null(struct params *params); /* SQL NULL, of any type */
void params_array_end(struct params *params);

/* False if memory ran out or a bound was passed on the way. */
bool params_ok(const struct params *params);
/* The arrays that PQsendQueryPrepared wants; valid until the next change. */
void params_export(const struct params *params, const char *ret_values[PARAMS_MAX],
                   int ret_lengths[PARAMS_MAX], int ret_formats[PARAMS_MAX]);

#endif
