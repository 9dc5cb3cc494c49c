/*
 * Integers and clocks as PostgreSQL writes them: network order, microseconds since 2000-01-01 UTC.
 * Used by whatever reads or writes the replication protocol or values in binary form.
 *
 * None of these checks a length: whoever calls has counted the bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_NETINT_H
#define SG_REPLICATION_NETINT_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* From 1970-01-01 to 2000-01-01. */
#define NETINT_EPOCH_US INT64_C(946684800000000)

static inline uint16_t netint_get_u16(const char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return be16toh(value);
}

static inline uint32_t netint_get_u32(const char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return be32toh(value);
}

static inline uint64_t netint_get_u64(const char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}

static inline void netint_put_u64(char *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof value);
}

/* A clock of the server as microseconds since 1970; false if it lies beyond what 64 bits hold. */
static inline bool netint_get_time_us(const char *bytes, int64_t *ret_us)
{
    int64_t us;
    if (__builtin_add_overflow((int64_t)netint_get_u64(bytes), NETINT_EPOCH_US, &us))
        return false;
    *ret_us = us;
    return true;
}

#endif
