/*
 * One replication connection, from START_REPLICATION to its end. See stream.h.
 *
 *   on_piece: frame ─> keepalive: status if asked
 *                   └> message ─┬─ plain ───────────────────────────────> on_message
 *                               ├─ in a stream block ─> spool
 *                               └─ stream commit ─> replay: BEGIN, spool ─> on_message, COMMIT
 *
 * A message that is not taken stays the session's held piece, and is simply decoded again when it
 * comes again; of a replay the one change is kept that was not taken. A replay goes by turns of
 * the loop, like the stream itself.
 *
 * RELATION in a stream block: the server sends it once for the whole streamed transaction, and
 * counts it as known for plain changes once that one has committed. So it is spooled, under the
 * transaction itself (the abort of the subtransaction that it came with does not take it away),
 * replayed in its place, and thereby known before any plain change that relies on it: nothing else
 * is read during a replay. Of an aborted transaction it is forgotten, by the server, too.
 *
 * When the spool is full, the connection is made anew without streaming, from the last commit that
 * was taken.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/stream.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/reap.h"
#include "base/settings.h"
#include "replication/pgsession.h"
#include "replication/spool.h"
#include "replication/walframe.h"

#define SQL_SIZE 512
#define REASON_SIZE 256
#define REPLAY_BYTES (256 * 1024) /* in one turn of the loop */
#define REPLAY_US 1000
#define REOPEN_US 100000 /* the server needs a moment to see that the old connection is gone */
#define REOPEN_TRIES 50

enum stream_state { STREAM_STARTING, STREAM_RUNNING, STREAM_REOPENING, STREAM_LOST };

enum replay_step { REPLAY_NONE, REPLAY_BEGIN, REPLAY_CHANGES, REPLAY_COMMIT };

struct replay {
    enum replay_step step;
    struct pgoutput_message commit; /* the STREAM_COMMIT; points to nothing */
    bool pending;                   /* `bytes` was not taken yet */
    const char *bytes;              /* the spool's */
    size_t len;
};

struct stream {
    struct stream_config config; /* dsn, shard, slot: copies */
    enum stream_state state;
    bool freed;
    bool started_before; /* on_started was called */
    bool streaming;
    unsigned reopened;  /* tries in a row */
    uint64_t taken_lsn; /* end of the last commit that was taken; start_lsn before */
    uint64_t server_end;
    uint64_t received;
    uint64_t confirmed;
    bool heard; /* something since the last tick */
    int64_t heard_us;
    bool held;          /* a message was not taken */
    uint32_t block_xid; /* of the stream block; 0: outside */
    struct pgsession *session;
    struct event *tick;
    struct pgoutput *decoder;
    struct pgoutput *replayer; /* decodes what was spooled: plain messages */
    struct spool *spool;
    struct replay replay;
};

static void on_tick(evutil_socket_t fd, short what, void *arg);
static bool open_session(struct stream *stream);

/* --- life ------------------------------------------------------------------------------------- */

static void free_memory(void *object)
{
    struct stream *stream = object;
    if (stream->tick)
        event_free(stream->tick);
    pgoutput_free(stream->decoder);
    pgoutput_free(stream->replayer);
    spool_free(stream->spool);
    free((char *)stream->config.dsn);
    free((char *)stream->config.shard);
    free((char *)stream->config.slot);
    free(stream);
}

static void set_tick(struct stream *stream, int64_t us)
{
    struct timeval tv = clock_timeval_us(us);
    event_add(stream->tick, &tv);
}

struct stream *stream_new(const struct stream_config *config)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->config = *config;
    stream->config.dsn = strdup(config->dsn);
    stream->config.shard = strdup(config->shard);
    stream->config.slot = strdup(config->slot);
    stream->streaming = config->streaming;
    stream->taken_lsn = config->start_lsn;
    stream->received = config->start_lsn;
    stream->confirmed = config->start_lsn;
    stream->tick = evtimer_new(config->base, on_tick, stream);
    stream->decoder = pgoutput_new();
    stream->replayer = pgoutput_new();
    stream->spool = spool_new(config->settings->cdc.spool_bytes);
    if (!stream->config.dsn || !stream->config.shard || !stream->config.slot || !stream->tick ||
        !stream->decoder || !stream->replayer || !stream->spool || !open_session(stream)) {
        free_memory(stream);
        return NULL;
    }
    return stream;
}

/* What a callback may stand on lives until the loop turns. */
void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    stream->freed = true;
    event_del(stream->tick);
    pgsession_free(stream->session);
    stream->session = NULL;
    reap(stream->config.reap, stream, free_memory);
}

static void set_state(struct stream *stream, enum stream_state state)
{
    stream->state = state;
    event_del(stream->tick);
}

static void lose(struct stream *stream, const char *sqlstate, const char *reason)
{
    set_state(stream, STREAM_LOST);
    pgsession_free(stream->session);
    stream->session = NULL;
    stream->config.on_lost(stream->config.arg, sqlstate, reason);
}

static void lose_malformed(struct stream *stream, const char *problem)
{
    char reason[REASON_SIZE];
    snprintf(reason, sizeof(reason), "not understood: %s", problem);
    lose(stream, "08P01", reason);
}

/* --- status ----------------------------------------------------------------------------------- */

static void send_status(struct stream *stream, bool ask)
{
    char status[WALFRAME_STATUS_LEN];
    walframe_status(status, stream->received, stream->confirmed, stream->confirmed,
                    clock_wall_us());
    status[WALFRAME_STATUS_LEN - 1] = ask ? 1 : 0;
    pgsession_put(stream->session, status, sizeof(status));
}

void stream_confirm(struct stream *stream, uint64_t received, uint64_t confirmed)
{
    stream->received = received;
    stream->confirmed = confirmed;
}

/* A server that is silent for half of its time is asked for a sign of life; the session's own
 * deadline is the end. */
static void report(struct stream *stream)
{
    int64_t now_us = clock_mono_us();
    if (stream->heard || stream->held)
        stream->heard_us = now_us;
    stream->heard = false;
    int64_t silent_us = now_us - stream->heard_us;
    send_status(stream, silent_us >= stream->config.settings->cdc.silence_timeout_ms * 500);
    set_tick(stream, stream->config.settings->cdc.feedback_ms * 1000);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct stream *stream = arg;
    (void)fd;
    (void)what;
    if (stream->state == STREAM_RUNNING)
        report(stream);
    else if (stream->state == STREAM_REOPENING && !open_session(stream))
        lose(stream, "", "out of memory");
}

/* --- making it anew without streaming --------------------------------------------------------- */

static void reopen(struct stream *stream)
{
    pgsession_free(stream->session);
    stream->session = NULL;
    stream->streaming = false;
    stream->block_xid = 0;
    stream->held = false;
    stream->reopened++;
    stream->replay = (struct replay){0};
    pgoutput_reset(stream->decoder);
    spool_reset(stream->spool);
    set_state(stream, STREAM_REOPENING);
    set_tick(stream, REOPEN_US);
}

static void spool_failed(struct stream *stream, enum sg_error error)
{
    struct log_fields fields = {.shard = stream->config.shard};
    if (error != SG_OVERLOADED) {
        lose(stream, "",
             error == SG_IO ? "the file of a streamed transaction failed" : "out of memory");
        return;
    }
    log_warn(&fields, "streamed transactions take more than cdc.spool_bytes: "
                      "the stream starts anew without streaming");
    reopen(stream);
}

/* --- transactions streamed before their commit ------------------------------------------------ */

/* Hands one message over; false: not now. */
static bool hand_over(struct stream *stream, const struct pgoutput_message *message, uint64_t lsn)
{
    bool taken = stream->config.on_message(stream->config.arg, message, lsn);
    if (!stream->freed && taken && message->type == PGOUTPUT_COMMIT)
        stream->taken_lsn = message->end_lsn;
    return taken || stream->freed;
}

/* One change out of the spool. False: not now, the end, or lost. */
static bool replay_change(struct stream *stream)
{
    struct replay *replay = &stream->replay;
    struct pgoutput_message message;
    const char *problem = "";
    if (!replay->pending) {
        enum sg_error error = spool_replay_next(stream->spool, &replay->bytes, &replay->len);
        if (error == SG_NOT_FOUND) {
            replay->step = REPLAY_COMMIT;
            return false;
        }
        if (error != SG_OK) {
            replay->step = REPLAY_NONE;
            spool_failed(stream, error);
            return false;
        }
    }
    if (pgoutput_decode(stream->replayer, replay->bytes, replay->len, &message, &problem) !=
        SG_OK) {
        replay->step = REPLAY_NONE;
        lose_malformed(stream, problem);
        return false;
    }
    replay->pending = !hand_over(stream, &message, replay->commit.lsn);
    return !replay->pending && !stream->freed;
}

/* A turn's share of the changes. True: all of them are through. */
static bool replay_changes(struct stream *stream)
{
    struct replay *replay = &stream->replay;
    int64_t end_us = clock_mono_us() + REPLAY_US;
    size_t bytes = 0;
    for (unsigned count = 1; replay_change(stream); count++) {
        bytes += replay->len;
        if (bytes >= REPLAY_BYTES || (count % 32 == 0 && clock_mono_us() >= end_us)) {
            pgsession_resume(stream->session); /* at the next turn */
            return false;
        }
    }
    return !stream->freed && replay->step == REPLAY_COMMIT;
}

/* The transaction as if it came now. True: it is through, or the stream is lost; false: again. */
static bool replay_on(struct stream *stream)
{
    struct replay *replay = &stream->replay;
    struct pgoutput_message message = replay->commit;
    if (replay->step == REPLAY_BEGIN) {
        message.type = PGOUTPUT_BEGIN;
        if (!hand_over(stream, &message, message.lsn))
            return false;
        replay->step = REPLAY_CHANGES;
    }
    if (stream->freed)
        return true;
    if (replay->step == REPLAY_CHANGES && !replay_changes(stream))
        return stream->freed || stream->state != STREAM_RUNNING;
    message.type = PGOUTPUT_COMMIT;
    if (!hand_over(stream, &message, message.lsn))
        return false;
    replay->step = REPLAY_NONE;
    return true;
}

static bool replay_begin(struct stream *stream, const struct pgoutput_message *commit)
{
    enum sg_error error = spool_replay_begin(stream->spool, commit->xid);
    if (error != SG_OK && error != SG_NOT_FOUND) {
        spool_failed(stream, error);
        return true;
    }
    stream->replay = (struct replay){.step = REPLAY_BEGIN, .commit = *commit};
    if (error == SG_NOT_FOUND) { /* empty: its commit counts all the same */
        struct pgoutput_message begin = *commit;
        begin.type = PGOUTPUT_BEGIN;
        stream->replay.step = REPLAY_COMMIT;
        if (!hand_over(stream, &begin, begin.lsn)) {
            stream->replay.step = REPLAY_NONE;
            return false;
        }
    }
    return stream->freed || replay_on(stream);
}

/* The same RELATION as of the transaction itself. */
static enum sg_error spool_relation(struct stream *stream, const struct walframe *frame)
{
    char *copy = malloc(frame->len);
    if (!copy)
        return SG_NO_MEMORY;
    const uint32_t xid = htonl(stream->block_xid);
    memcpy(copy, frame->payload, frame->len);
    memcpy(copy + 1, &xid, sizeof(xid));
    enum sg_error error =
        spool_add(stream->spool, stream->block_xid, stream->block_xid, copy, frame->len);
    free(copy);
    return error;
}

static void spool_change(struct stream *stream, const struct pgoutput_message *message,
                         const struct walframe *frame)
{
    enum sg_error error =
        message->type == PGOUTPUT_RELATION
            ? spool_relation(stream, frame)
            : spool_add(stream->spool, stream->block_xid, message->xid, frame->payload, frame->len);
    if (error != SG_OK)
        spool_failed(stream, error);
}

/* --- messages --------------------------------------------------------------------------------- */

/* False: not now. */
static bool take_message(struct stream *stream, const struct pgoutput_message *message,
                         const struct walframe *frame)
{
    switch (message->type) {
    case PGOUTPUT_ORIGIN:
    case PGOUTPUT_TYPE:
        return true;
    case PGOUTPUT_STREAM_START:
        stream->block_xid = message->xid;
        return true;
    case PGOUTPUT_STREAM_STOP:
        stream->block_xid = 0;
        return true;
    case PGOUTPUT_STREAM_ABORT:
        spool_abort(stream->spool, message->xid, message->subxid);
        return true;
    case PGOUTPUT_STREAM_COMMIT:
        return replay_begin(stream, message);
    default:
        if (!stream->block_xid)
            return hand_over(stream, message, frame->start_lsn);
        spool_change(stream, message, frame);
        return true;
    }
}

static bool take_wal(struct stream *stream, const struct walframe *frame)
{
    struct pgoutput_message message;
    const char *problem = "";
    if (stream->replay.step != REPLAY_NONE)
        return replay_on(stream);
    if (pgoutput_decode(stream->decoder, frame->payload, frame->len, &message, &problem) != SG_OK) {
        lose_malformed(stream, problem);
        return true;
    }
    return take_message(stream, &message, frame);
}

static bool on_piece(void *arg, const char *bytes, size_t len)
{
    struct stream *stream = arg;
    struct walframe frame;
    stream->heard = true;
    if (walframe_parse(bytes, len, &frame) != SG_OK) {
        lose_malformed(stream, "a frame that is neither WAL nor keepalive");
        return true;
    }
    if (frame.end_lsn > stream->server_end || frame.kind == 'k') {
        if (frame.end_lsn > stream->server_end)
            stream->server_end = frame.end_lsn;
        stream->config.on_server_end(stream->config.arg, stream->server_end);
        if (stream->freed)
            return true;
    }
    if (frame.kind == 'k') {
        if (frame.reply)
            send_status(stream, false);
        return true;
    }
    bool taken = take_wal(stream, &frame);
    if (!stream->freed)
        stream->held = !taken;
    return taken;
}

/* --- the session ------------------------------------------------------------------------------ */

static void on_copy_both(void *arg)
{
    struct stream *stream = arg;
    stream->reopened = 0;
    stream->heard_us = clock_mono_us();
    set_state(stream, STREAM_RUNNING);
    report(stream);
    if (!stream->started_before) {
        stream->started_before = true;
        stream->config.on_started(stream->config.arg);
    }
}

static void on_done(void *arg, const char *sqlstate, const char *error)
{
    struct stream *stream = arg;
    if (stream->reopened && stream->reopened < REOPEN_TRIES && strcmp(sqlstate, "55006") == 0)
        reopen(stream);
    else
        lose(stream, sqlstate, error ? error : "the server ended the stream");
}

static void on_session_lost(void *arg, const char *sqlstate, const char *reason)
{
    lose(arg, sqlstate, reason);
}

/* "a""b" */
static void quote(char *out, size_t size, const char *name)
{
    size_t at = 0;
    out[at++] = '"';
    for (; *name && at + 4 < size; name++) {
        if (*name == '"')
            out[at++] = '"';
        out[at++] = *name;
    }
    out[at++] = '"';
    out[at] = '\0';
}

static void on_connected(void *arg)
{
    struct stream *stream = arg;
    char slot[160];
    char sql[SQL_SIZE];
    quote(slot, sizeof(slot), stream->config.slot);
    snprintf(
        sql, sizeof(sql),
        "START_REPLICATION SLOT %s LOGICAL %" PRIX32 "/%" PRIX32
        " (proto_version '%d', publication_names 'seatgrid', binary 'true', messages 'true'%s)",
        slot, (uint32_t)(stream->taken_lsn >> 32), (uint32_t)stream->taken_lsn,
        stream->streaming ? 2 : 1, stream->streaming ? ", streaming 'on'" : "");
    struct pgsession_command command = {.sql = sql,
                                        .on_copy = on_piece,
                                        .on_copy_both = on_copy_both,
                                        .on_done = on_done,
                                        .arg = stream,
                                        .timeout_us =
                                            stream->config.settings->cdc.silence_timeout_ms * 1000};
    pgsession_run(stream->session, &command);
}

static bool open_session(struct stream *stream)
{
    struct pgsession_config config = {.base = stream->config.base,
                                      .reap = stream->config.reap,
                                      .dsn = stream->config.dsn,
                                      .replication = true,
                                      .application_name = stream->config.slot,
                                      .connect_timeout_us =
                                          stream->config.settings->cdc.connect_timeout_ms * 1000,
                                      .on_connected = on_connected,
                                      .on_lost = on_session_lost,
                                      .arg = stream};
    set_state(stream, STREAM_STARTING);
    stream->session = pgsession_new(&config);
    return stream->session != NULL;
}

void stream_resume(struct stream *stream)
{
    if (stream->session)
        pgsession_resume(stream->session);
}
