/*
 * Decoder of pgoutput, protocol versions 1 and 2 (PostgreSQL manual, "Logical Replication Message
 * Formats"). Pure: bytes in, one message out, every length checked.
 *
 *   B  begin          lsn8 time8 xid4
 *   C  commit         flags1 lsn8 end8 time8
 *   O  origin         lsn8 name0
 *   Y  type           [xid4] oid4 namespace0 name0
 *   R  relation       [xid4] oid4 namespace0 name0 identity1 n2 n*(flags1 name0 type4 modifier4)
 *   I  insert         [xid4] oid4 'N' tuple
 *   U  update         [xid4] oid4 [('K'|'O') tuple] 'N' tuple
 *   D  delete         [xid4] oid4 ('K'|'O') tuple
 *   T  truncate       [xid4] n4 options1 n*oid4
 *   M  message        [xid4] flags1 lsn8 prefix0 len4 bytes
 *   S  stream start   xid4 first1
 *   E  stream stop
 *   c  stream commit  xid4 flags1 lsn8 end8 time8
 *   A  stream abort   xid4 subxid4
 *      tuple          n2 n*('n' | 'u' | ('t'|'b') len4 bytes)
 *
 * All integers in network order, name0 is text with its NUL. [xid4] is there between S and E only,
 * which is why the decoder has a state; B, C, c and A stand outside of such a block. Reads with a
 * cursor whose error is sticky.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_PGOUTPUT_H
#define SG_REPLICATION_PGOUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PGOUTPUT_COLUMNS_MAX 1664 /* PostgreSQL's own bound of a target list */
#define PGOUTPUT_TRUNCATE_MAX 64  /* relations named; more are counted, not listed */

enum pgoutput_type {
    PGOUTPUT_BEGIN,
    PGOUTPUT_COMMIT,
    PGOUTPUT_ORIGIN,
    PGOUTPUT_TYPE,
    PGOUTPUT_RELATION,
    PGOUTPUT_INSERT,
    PGOUTPUT_UPDATE,
    PGOUTPUT_DELETE,
    PGOUTPUT_TRUNCATE,
    PGOUTPUT_MESSAGE,
    PGOUTPUT_STREAM_START,
    PGOUTPUT_STREAM_STOP,
    PGOUTPUT_STREAM_COMMIT,
    PGOUTPUT_STREAM_ABORT
};

struct pgoutput_value {
    char kind;        /* 'n' NULL, 'u' unchanged TOAST, 't' text, 'b' binary */
    const char *data; /* 't', 'b': into the message; not NUL-terminated */
    uint32_t len;
};

struct pgoutput_tuple {
    uint16_t count;
    struct pgoutput_value values[PGOUTPUT_COLUMNS_MAX];
};

struct pgoutput_column {
    bool key;
    const char *name; /* into the message, NUL-terminated there */
    uint32_t type_oid;
};

/* One message. Everything points into the bytes it was decoded from, or into the decoder. */
struct pgoutput_message {
    enum pgoutput_type type;
    uint32_t xid;       /* BEGIN, STREAM_*; of a change inside a stream block: its (sub)transaction;
                           0: none */
    uint32_t subxid;    /* STREAM_ABORT */
    bool first;         /* STREAM_START: the first block of the transaction */
    uint64_t lsn;       /* BEGIN: final; COMMIT, STREAM_COMMIT: of the commit; MESSAGE, ORIGIN */
    uint64_t end_lsn;   /* COMMIT, STREAM_COMMIT */
    int64_t time_us;    /* BEGIN, COMMIT, STREAM_COMMIT: since 1970 UTC */
    uint32_t oid;       /* RELATION, INSERT, UPDATE, DELETE, TYPE */
    const char *schema; /* RELATION, TYPE ("pg_catalog" comes as "") */
    const char *name;   /* RELATION, TYPE, ORIGIN; MESSAGE: its prefix */
    char identity;      /* RELATION: d default, n nothing, f full, i index */
    bool transactional; /* MESSAGE */
    const char *data;   /* MESSAGE */
    uint32_t len;
    bool cascade; /* TRUNCATE */
    bool restart;
    uint32_t oid_count;
    uint32_t oids[PGOUTPUT_TRUNCATE_MAX];
    char old_kind;                    /* UPDATE, DELETE: 'K' key, 'O' whole row, 0 none */
    const struct pgoutput_tuple *old; /* or NULL */
    const struct pgoutput_tuple *new; /* INSERT, UPDATE; else NULL */
    uint16_t column_count;            /* RELATION */
    const struct pgoutput_column *columns;
};

struct pgoutput; /* the decoder: room for two tuples and a relation, and whether in a stream block
                  */

struct pgoutput *pgoutput_new(void); /* NULL when memory runs out */
void pgoutput_free(struct pgoutput *decoder);
/* A new connection: outside any stream block. */
void pgoutput_reset(struct pgoutput *decoder);
/* SG_OK and *ret_message, valid until the next call and while `bytes` stay; SG_MALFORMED and a line
 * of text in *ret_problem (static) for bytes that are no message, or one left over or cut short. */
enum sg_error pgoutput_decode(struct pgoutput *decoder, const char *bytes, size_t len,
                              struct pgoutput_message *ret_message, const char **ret_problem);

#endif
