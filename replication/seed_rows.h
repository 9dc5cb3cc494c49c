/*
 * Rows of a seed's snapshot, as COPY writes them, to Redis commands. Pure.
 *
 *   counters   event_id \t rows \t cols \t held \t booked \n   ─> HSET of the event's key; of one
 *              that is gone, but not its bookings (0 rows), a tombstone
 *   tickets    user_id \t booking_id \t event_id \n            ─> HSET of the user's key
 *
 * The text format of COPY (PostgreSQL manual, "COPY", File Formats): fields between tabs, \N for
 * NULL, and in a value \b \f \n \r \t \v, \\, octal and \x hex. Numbers and uuids have no escapes
 * and go from the row into the command as they are; a user's name may have any.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_SEED_ROWS_H
#define SG_REPLICATION_SEED_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "base/dynbuf.h"
#include "base/error.h"
#include "base/rediskeys.h"

/* What all keys of a seed have in common. */
struct seed_rows {
    const char *shard;
    int64_t generation;
    char at[POSITION_TEXT_LEN + 1];
    size_t epoch_len;
    char epoch[21];
};

void seed_rows_init(struct seed_rows *rows, const char *shard, int64_t generation, int64_t epoch,
                    uint64_t consistent_lsn);
/* Each appends one command; SG_MALFORMED, and nothing appended, when the row is not such a row. */
enum sg_error seed_rows_event(const struct seed_rows *rows, const char *row, size_t len,
                              struct dynbuf *out);
enum sg_error seed_rows_ticket(const struct seed_rows *rows, const char *row, size_t len,
                               struct dynbuf *out);

#endif
