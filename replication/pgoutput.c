/*
 * Decoder of pgoutput: what the payload of a WAL frame says. In: the bytes of one message. Out: a
 * struct pgoutput_message that points into them and into the decoder. Owns room for two tuples and
 * the columns of a relation, taken once, and the knowledge whether a stream block is open. Hides
 * the wire format, drawn in pgoutput.h.
 *
 *   pgoutput_decode ─> one read_<message> per type, all through one cursor
 *
 * The cursor stands at its end after the first thing that does not fit and keeps the reason; what
 * is read after that is zero, so the readers check once, at their end.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/pgoutput.h"

#include <stdlib.h>
#include <string.h>

#include "replication/netint.h"

#define COLUMN_IN_KEY 1
#define TRUNCATE_CASCADE 1
#define TRUNCATE_RESTART 2
#define MESSAGE_TRANSACTIONAL 1

struct pgoutput {
    bool in_block; /* between stream start and stream stop */
    struct pgoutput_tuple old;
    struct pgoutput_tuple new;
    struct pgoutput_column columns[PGOUTPUT_COLUMNS_MAX];
};

struct cursor {
    const char *at;
    const char *end;
    const char *problem; /* NULL: all fine so far */
};

/* --- cursor --------------------------------------------------------------------------------- */

static size_t left(const struct cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

static void fail(struct cursor *cursor, const char *problem)
{
    if (!cursor->problem)
        cursor->problem = problem;
    cursor->at = cursor->end;
}

/* The next `len` bytes, or NULL. */
static const char *take(struct cursor *cursor, size_t len)
{
    const char *bytes = cursor->at;
    if (left(cursor) < len) {
        fail(cursor, "cut short");
        return NULL;
    }
    cursor->at += len;
    return bytes;
}

static uint8_t take_u8(struct cursor *cursor)
{
    const char *bytes = take(cursor, 1);
    return bytes ? (uint8_t)bytes[0] : 0;
}

static uint16_t take_u16(struct cursor *cursor)
{
    const char *bytes = take(cursor, 2);
    return bytes ? netint_get_u16(bytes) : 0;
}

static uint32_t take_u32(struct cursor *cursor)
{
    const char *bytes = take(cursor, 4);
    return bytes ? netint_get_u32(bytes) : 0;
}

static uint64_t take_u64(struct cursor *cursor)
{
    const char *bytes = take(cursor, 8);
    return bytes ? netint_get_u64(bytes) : 0;
}

static int64_t take_time_us(struct cursor *cursor)
{
    const char *bytes = take(cursor, 8);
    int64_t us = 0;
    if (bytes && !netint_get_time_us(bytes, &us))
        fail(cursor, "a time out of range");
    return us;
}

/* A text and its NUL; "" after a failure. */
static const char *take_text(struct cursor *cursor)
{
    const char *text = cursor->at;
    const char *nul = left(cursor) ? memchr(text, '\0', left(cursor)) : NULL;
    if (!nul) {
        fail(cursor, "a name without its end");
        return "";
    }
    cursor->at = nul + 1;
    return text;
}

/* --- parts of messages ------------------------------------------------------------------------ */

static void take_tuple(struct cursor *cursor, struct pgoutput_tuple *tuple)
{
    uint16_t count = take_u16(cursor);
    if (count > PGOUTPUT_COLUMNS_MAX) {
        fail(cursor, "a tuple with too many values");
        return;
    }
    for (uint16_t i = 0; i < count && !cursor->problem; i++) {
        struct pgoutput_value *value = &tuple->values[i];
        value->kind = (char)take_u8(cursor);
        value->data = NULL;
        value->len = 0;
        switch (value->kind) {
        case 'n':
        case 'u':
            break;
        case 't':
        case 'b':
            value->len = take_u32(cursor);
            value->data = take(cursor, value->len);
            break;
        default:
            fail(cursor, "a value of an unknown kind");
        }
    }
    tuple->count = count;
}

/* The (sub)transaction that every change names inside a stream block, and no other. */
static void take_block_xid(struct cursor *cursor, const struct pgoutput *decoder,
                           struct pgoutput_message *message)
{
    if (!decoder->in_block)
        return;
    message->xid = take_u32(cursor);
    if (message->xid == 0)
        fail(cursor, "a change of no transaction in a stream block");
}

static void take_top_xid(struct cursor *cursor, struct pgoutput_message *message)
{
    message->xid = take_u32(cursor);
    if (message->xid == 0)
        fail(cursor, "a transaction without a number");
}

/* flags1 lsn8 end8 time8, of a commit of either kind. */
static void take_commit(struct cursor *cursor, struct pgoutput_message *message)
{
    if (take_u8(cursor) != 0)
        fail(cursor, "a commit with unknown flags");
    message->lsn = take_u64(cursor);
    message->end_lsn = take_u64(cursor);
    message->time_us = take_time_us(cursor);
}

/* --- messages: schema ------------------------------------------------------------------------- */

static void read_relation(struct cursor *cursor, struct pgoutput *decoder,
                          struct pgoutput_message *message)
{
    message->type = PGOUTPUT_RELATION;
    take_block_xid(cursor, decoder, message);
    message->oid = take_u32(cursor);
    message->schema = take_text(cursor);
    message->name = take_text(cursor);
    char identity = (char)take_u8(cursor);
    message->identity = identity;
    if (identity != 'd' && identity != 'n' && identity != 'f' && identity != 'i')
        fail(cursor, "a relation with an unknown replica identity");
    uint16_t count = take_u16(cursor);
    if (count > PGOUTPUT_COLUMNS_MAX) {
        fail(cursor, "a relation with too many columns");
        return;
    }
    for (uint16_t i = 0; i < count && !cursor->problem; i++) {
        struct pgoutput_column *column = &decoder->columns[i];
        column->key = (take_u8(cursor) & COLUMN_IN_KEY) != 0;
        column->name = take_text(cursor);
        column->type_oid = take_u32(cursor);
        take_u32(cursor); /* the type's modifier */
    }
    message->column_count = count;
    message->columns = decoder->columns;
}

static void read_type(struct cursor *cursor, struct pgoutput *decoder,
                      struct pgoutput_message *message)
{
    message->type = PGOUTPUT_TYPE;
    take_block_xid(cursor, decoder, message);
    message->oid = take_u32(cursor);
    message->schema = take_text(cursor);
    message->name = take_text(cursor);
}

/* It has no transaction's number, not even inside a stream block. */
static void read_origin(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_ORIGIN;
    message->lsn = take_u64(cursor);
    message->name = take_text(cursor);
}

/* --- messages: changes ------------------------------------------------------------------------ */

static void read_insert(struct cursor *cursor, struct pgoutput *decoder,
                        struct pgoutput_message *message)
{
    message->type = PGOUTPUT_INSERT;
    take_block_xid(cursor, decoder, message);
    message->oid = take_u32(cursor);
    if (take_u8(cursor) != 'N')
        fail(cursor, "an insert without its row");
    take_tuple(cursor, &decoder->new);
    message->new = &decoder->new;
}

static void read_update(struct cursor *cursor, struct pgoutput *decoder,
                        struct pgoutput_message *message)
{
    message->type = PGOUTPUT_UPDATE;
    take_block_xid(cursor, decoder, message);
    message->oid = take_u32(cursor);
    char kind = (char)take_u8(cursor);
    if (kind == 'K' || kind == 'O') {
        take_tuple(cursor, &decoder->old);
        message->old_kind = kind;
        message->old = &decoder->old;
        kind = (char)take_u8(cursor);
    }
    if (kind != 'N')
        fail(cursor, "an update without its new row");
    take_tuple(cursor, &decoder->new);
    message->new = &decoder->new;
}

static void read_delete(struct cursor *cursor, struct pgoutput *decoder,
                        struct pgoutput_message *message)
{
    message->type = PGOUTPUT_DELETE;
    take_block_xid(cursor, decoder, message);
    message->oid = take_u32(cursor);
    message->old_kind = (char)take_u8(cursor);
    if (message->old_kind != 'K' && message->old_kind != 'O')
        fail(cursor, "a delete without its row");
    take_tuple(cursor, &decoder->old);
    message->old = &decoder->old;
}

static void read_truncate(struct cursor *cursor, struct pgoutput *decoder,
                          struct pgoutput_message *message)
{
    message->type = PGOUTPUT_TRUNCATE;
    take_block_xid(cursor, decoder, message);
    uint32_t count = take_u32(cursor);
    uint8_t options = take_u8(cursor);
    message->cascade = (options & TRUNCATE_CASCADE) != 0;
    message->restart = (options & TRUNCATE_RESTART) != 0;
    if (count > left(cursor) / 4) {
        fail(cursor, "a truncate that names more relations than it holds");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t oid = take_u32(cursor);
        if (i < PGOUTPUT_TRUNCATE_MAX)
            message->oids[i] = oid;
    }
    message->oid_count = count;
}

static void read_message(struct cursor *cursor, struct pgoutput *decoder,
                         struct pgoutput_message *message)
{
    message->type = PGOUTPUT_MESSAGE;
    take_block_xid(cursor, decoder, message);
    message->transactional = (take_u8(cursor) & MESSAGE_TRANSACTIONAL) != 0;
    message->lsn = take_u64(cursor);
    message->name = take_text(cursor);
    message->len = take_u32(cursor);
    message->data = take(cursor, message->len);
}

/* --- messages: borders ------------------------------------------------------------------------ */

static void read_begin(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_BEGIN;
    message->lsn = take_u64(cursor);
    message->time_us = take_time_us(cursor);
    take_top_xid(cursor, message);
}

static void read_commit(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_COMMIT;
    take_commit(cursor, message);
}

static void read_stream_start(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_STREAM_START;
    take_top_xid(cursor, message);
    message->first = take_u8(cursor) == 1;
}

static void read_stream_commit(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_STREAM_COMMIT;
    take_top_xid(cursor, message);
    take_commit(cursor, message);
}

static void read_stream_abort(struct cursor *cursor, struct pgoutput_message *message)
{
    message->type = PGOUTPUT_STREAM_ABORT;
    take_top_xid(cursor, message);
    message->subxid = take_u32(cursor);
    if (message->subxid == 0)
        fail(cursor, "an abort of no transaction");
}

/* B, S, C, c, A: they belong outside of a stream block, E inside. */
static void read_border(struct cursor *cursor, const struct pgoutput *decoder, char letter,
                        struct pgoutput_message *message)
{
    if (decoder->in_block != (letter == 'E')) {
        fail(cursor, letter == 'E' ? "the end of no stream block"
                                   : "a border of a transaction inside a stream block");
        return;
    }
    switch (letter) {
    case 'B':
        read_begin(cursor, message);
        break;
    case 'C':
        read_commit(cursor, message);
        break;
    case 'S':
        read_stream_start(cursor, message);
        break;
    case 'c':
        read_stream_commit(cursor, message);
        break;
    case 'A':
        read_stream_abort(cursor, message);
        break;
    default:
        message->type = PGOUTPUT_STREAM_STOP;
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static void read_any(struct cursor *cursor, struct pgoutput *decoder,
                     struct pgoutput_message *message)
{
    char letter = (char)take_u8(cursor);
    switch (letter) {
    case 'I':
        read_insert(cursor, decoder, message);
        break;
    case 'U':
        read_update(cursor, decoder, message);
        break;
    case 'D':
        read_delete(cursor, decoder, message);
        break;
    case 'T':
        read_truncate(cursor, decoder, message);
        break;
    case 'M':
        read_message(cursor, decoder, message);
        break;
    case 'R':
        read_relation(cursor, decoder, message);
        break;
    case 'Y':
        read_type(cursor, decoder, message);
        break;
    case 'O':
        read_origin(cursor, message);
        break;
    case 'B':
    case 'C':
    case 'S':
    case 'E':
    case 'c':
    case 'A':
        read_border(cursor, decoder, letter, message);
        break;
    default:
        fail(cursor, "a message of an unknown type");
    }
}

enum sg_error pgoutput_decode(struct pgoutput *decoder, const char *bytes, size_t len,
                              struct pgoutput_message *ret_message, const char **ret_problem)
{
    struct cursor cursor = {.at = bytes, .end = bytes + len};
    struct pgoutput_message message;
    memset(&message, 0, sizeof message);
    if (len == 0)
        fail(&cursor, "an empty message");
    else
        read_any(&cursor, decoder, &message);
    if (!cursor.problem && left(&cursor) > 0)
        fail(&cursor, "bytes left over");
    if (cursor.problem) {
        *ret_problem = cursor.problem;
        return SG_MALFORMED;
    }
    if (message.type == PGOUTPUT_STREAM_START)
        decoder->in_block = true;
    else if (message.type == PGOUTPUT_STREAM_STOP)
        decoder->in_block = false;
    *ret_message = message;
    return SG_OK;
}

/* Not cleared: a tuple is read before it is shown, and most relations are small. */
struct pgoutput *pgoutput_new(void)
{
    struct pgoutput *decoder = malloc(sizeof *decoder);
    if (decoder)
        pgoutput_reset(decoder);
    return decoder;
}

void pgoutput_free(struct pgoutput *decoder)
{
    free(decoder);
}

void pgoutput_reset(struct pgoutput *decoder)
{
    decoder->in_block = false;
}
