/*
 * Transactions that the server streams before they commit (protocol 2): their changes wait in a
 * file each, without a name, until the commit or the abort comes.
 *
 *   stream block: spool_add(xid, subxid, bytes) ...
 *   stream commit: spool_replay_begin(xid), spool_replay_next ...: every change whose
 *                  subtransaction was not aborted, in order, as the bytes of the plain message
 *                  (without its xid); then forgotten
 *   stream abort: spool_abort(xid, subxid): the whole (subxid == xid), or one part
 *
 * Owns the files (in $TMPDIR or /tmp, unlinked at once), the lists of aborted parts and one buffer
 * each for writing and reading. Bounded: all files together hold at most max_bytes, then spool_add
 * says SG_OVERLOADED. A transaction that missed a change or an abort is broken: it takes no more
 * and is not replayed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_SPOOL_H
#define SG_REPLICATION_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct spool;

struct spool *spool_new(int64_t max_bytes); /* NULL when memory runs out */
void spool_free(struct spool *spool);
/* Forgets everything: the connection is gone. */
void spool_reset(struct spool *spool);
/* One change as decoded inside a stream block of xid: bytes of the message with its xid (type1 xid4
 * ...), which is subxid. ORIGIN has none there and is no change: not for here (SG_MALFORMED, and
 * nothing happens). SG_OK, SG_OVERLOADED, SG_IO, SG_NO_MEMORY. */
enum sg_error spool_add(struct spool *spool, uint32_t xid, uint32_t subxid, const char *bytes,
                        size_t len);
/* Nothing happens for a transaction that is not known. */
void spool_abort(struct spool *spool, uint32_t xid, uint32_t subxid);

/* Reading back is by steps, because whoever takes the changes may be full: */
/* Begins; SG_NOT_FOUND when nothing was spooled for xid (an empty transaction); what broke it if it
 * is broken. One replay at a time: the one before has come to SG_NOT_FOUND. */
enum sg_error spool_replay_begin(struct spool *spool, uint32_t xid);
/* The next change: *ret_bytes stays valid until the next call; SG_NOT_FOUND at the end, when the
 * transaction is forgotten; SG_IO, SG_NO_MEMORY: it cannot be read, only spool_reset helps. */
enum sg_error spool_replay_next(struct spool *spool, const char **ret_bytes, size_t *ret_len);
/* Of all transactions that are not forgotten, with 8 bytes for each change. */
int64_t spool_bytes(const struct spool *spool);

#endif
