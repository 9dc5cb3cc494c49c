/*
 * Single values of PostgreSQL, as a replication stream carries them: text or binary. Pure.
 *
 *   text     42   {1,2,3}   0192a3b4-...-...   confirmed
 *   binary   integers of 2, 4 or 8 bytes in network order, 16 bytes of uuid, the label of an enum,
 *            array: dimensions4 has_null4 element_oid4 (length4 lower_bound4)* (len4 bytes)*
 *
 * Every function leaves its result untouched and says SG_MALFORMED for NULL, 'u', and whatever is
 * not exactly such a value.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_PGVALUE_H
#define SG_REPLICATION_PGVALUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "replication/pgoutput.h"

/* A list that keeps its memory from one value to the next; zero-initialise. */
struct pgvalue_list {
    int32_t *items; /* owned; free() it at the end */
    size_t count;
    size_t size;
};

enum sg_error pgvalue_i64(const struct pgoutput_value *value, int64_t *ret_number);
enum sg_error pgvalue_i32(const struct pgoutput_value *value, int32_t *ret_number);
enum sg_error pgvalue_uuid(const struct pgoutput_value *value, struct uuid *ret_uuid);
/* An array of one dimension or none, without NULLs; elements of any size of integer that fit. Also
 * SG_NO_MEMORY. On failure the content of the list is undefined. */
enum sg_error pgvalue_array(const struct pgoutput_value *value, struct pgvalue_list *list);

#endif
