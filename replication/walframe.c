/*
 * Frames of the streaming replication protocol: the first thing that looks at the bytes of a
 * replication connection, and the last that writes some. In: one COPY message, or what a status
 * shall say. Out: a struct walframe that points into the message, or 34 bytes. Owns nothing.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/walframe.h"

#include "replication/netint.h"

#define WAL_HEADER_LEN 25 /* w start8 end8 clock8 */
#define KEEPALIVE_LEN 18  /* k end8 clock8 reply1 */

static enum sg_error parse_wal(const char *bytes, size_t len, struct walframe *ret_frame)
{
    int64_t clock_us;
    if (len < WAL_HEADER_LEN || !netint_get_time_us(bytes + 17, &clock_us))
        return SG_MALFORMED;
    *ret_frame = (struct walframe){.kind = 'w',
                                   .start_lsn = netint_get_u64(bytes + 1),
                                   .end_lsn = netint_get_u64(bytes + 9),
                                   .clock_us = clock_us,
                                   .payload = bytes + WAL_HEADER_LEN,
                                   .len = len - WAL_HEADER_LEN};
    return SG_OK;
}

static enum sg_error parse_keepalive(const char *bytes, size_t len, struct walframe *ret_frame)
{
    int64_t clock_us;
    if (len != KEEPALIVE_LEN || !netint_get_time_us(bytes + 9, &clock_us))
        return SG_MALFORMED;
    *ret_frame = (struct walframe){.kind = 'k',
                                   .end_lsn = netint_get_u64(bytes + 1),
                                   .clock_us = clock_us,
                                   .reply = bytes[17] != 0};
    return SG_OK;
}

enum sg_error walframe_parse(const char *bytes, size_t len, struct walframe *ret_frame)
{
    if (len == 0)
        return SG_MALFORMED;
    switch (bytes[0]) {
    case 'w':
        return parse_wal(bytes, len, ret_frame);
    case 'k':
        return parse_keepalive(bytes, len, ret_frame);
    default:
        return SG_MALFORMED;
    }
}

void walframe_status(char ret_bytes[WALFRAME_STATUS_LEN], uint64_t written, uint64_t flushed,
                     uint64_t applied, int64_t clock_us)
{
    ret_bytes[0] = 'r';
    netint_put_u64(ret_bytes + 1, written);
    netint_put_u64(ret_bytes + 9, flushed);
    netint_put_u64(ret_bytes + 17, applied);
    netint_put_u64(ret_bytes + 25, (uint64_t)clock_us - (uint64_t)NETINT_EPOCH_US);
    ret_bytes[33] = 0; /* asks for no answer */
}
