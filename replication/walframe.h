/*
 * The frames of streaming replication inside COPY (PostgreSQL manual, "Streaming Replication
 * Protocol"). Pure.
 *
 *   in   w  start8 end8 clock8 payload        k  end8 clock8 reply1
 *   out  r  written8 flushed8 applied8 clock8 reply1      (each LSN is last byte + 1)
 *
 * Clocks are microseconds since 2000-01-01 UTC on the wire, since 1970 here.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_WALFRAME_H
#define SG_REPLICATION_WALFRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define WALFRAME_STATUS_LEN 34

struct walframe {
    char kind;           /* 'w', 'k' */
    uint64_t start_lsn;  /* w; 0 if more of the same change follows (RELATION, TYPE, ...) */
    uint64_t end_lsn;    /* the server's WAL end when it sent this; w: 0 likewise */
    int64_t clock_us;    /* the server's, since 1970 */
    bool reply;          /* k: the server wants a status now */
    const char *payload; /* w: one pgoutput message */
    size_t len;
};

/* SG_MALFORMED, with *ret_frame untouched, if it is neither. */
enum sg_error walframe_parse(const char *bytes, size_t len, struct walframe *ret_frame);
void walframe_status(char ret_bytes[WALFRAME_STATUS_LEN], uint64_t written, uint64_t flushed,
                     uint64_t applied, int64_t clock_us);

#endif
