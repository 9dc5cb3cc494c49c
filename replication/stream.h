/*
 * Stream: one replication connection to a primary, from START_REPLICATION to its end.
 *
 *   pgsession (COPY both) ─> walframe ─> pgoutput ─> on_message, one by one
 *   stream_confirm ─> status message, every cdc.feedback_ms and whenever the server asks
 *
 * The one who takes the messages may say "not now" (false): the message stays, nothing is read,
 * and stream_resume brings it again. Status messages go on meanwhile, so that the server does not
 * think us dead. Transactions that are streamed before their commit pass through the spool and come
 * out as BEGIN, changes, COMMIT like any other.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_STREAM_H
#define SG_REPLICATION_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "replication/pgoutput.h"

struct event_base;
struct reap_list;
struct settings;
struct stream;

struct stream_config {
    struct event_base *base;
    struct reap_list *reap;
    const struct settings *settings; /* cdc.* */
    const char *dsn;
    const char *shard;
    const char *slot;
    uint64_t start_lsn; /* 0: where the slot stands */
    bool streaming;     /* ask for protocol 2 with streaming */
    /* START_REPLICATION was accepted. */
    void (*on_started)(void *arg);
    /* Only BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE. `lsn` is where the
     * message stands in the WAL; at COMMIT use end_lsn. False: bring it again after stream_resume.
     */
    bool (*on_message)(void *arg, const struct pgoutput_message *message, uint64_t lsn);
    /* The server's WAL end moved, or at least a keepalive came. */
    void (*on_server_end)(void *arg, uint64_t end_lsn);
    /* Over. sqlstate: of the server's word, or "": 42704 no such slot, 55006 somebody else has it,
     * 55000 it has lost its WAL, "08P01" what came was not pgoutput. */
    void (*on_lost)(void *arg, const char *sqlstate, const char *reason);
    void *arg;
};

struct stream *stream_new(const struct stream_config *config); /* NULL when memory runs out */
void stream_free(struct stream *stream);
void stream_resume(struct stream *stream);
/* What the next status says: written and applied are for the server's views, `confirmed` moves the
 * slot. */
void stream_confirm(struct stream *stream, uint64_t received, uint64_t confirmed);

#endif
