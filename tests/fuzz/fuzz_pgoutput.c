/*
 * Goal: no sequence of messages makes the decoder read past one, or break the word of its header.
 * Method: the input is a sequence of messages, each behind its length in 4 bytes (network order;
 * what is longer than the rest is the rest), so that stream blocks open and close. Each is decoded
 * from memory of exactly its size; all that it shows must lie inside. One that is taken must be
 * refused with a byte less and a byte more, and a refusal must not change the decoder's state.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "replication/netint.h"
#include "replication/pgoutput.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct span {
    const char *bytes;
    size_t len;
};

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void check_inside(struct span whole, const char *part, size_t len)
{
    check(part >= whole.bytes && part <= whole.bytes + whole.len);
    check(len <= (size_t)(whole.bytes + whole.len - part));
}

static void check_text(struct span whole, const char *text)
{
    if (!text)
        return;
    check_inside(whole, text, 1);
    check(memchr(text, '\0', (size_t)(whole.bytes + whole.len - text)) != NULL);
}

static void check_tuple(struct span whole, const struct pgoutput_tuple *tuple)
{
    if (!tuple)
        return;
    check(tuple->count <= PGOUTPUT_COLUMNS_MAX);
    for (size_t i = 0; i < tuple->count; i++) {
        const struct pgoutput_value *value = &tuple->values[i];
        bool has_data = value->kind == 't' || value->kind == 'b';
        check(has_data || value->kind == 'n' || value->kind == 'u');
        check(has_data == (value->data != NULL) && (has_data || value->len == 0));
        if (has_data)
            check_inside(whole, value->data, value->len);
    }
}

static void check_message(struct span whole, const struct pgoutput_message *message, bool in_block)
{
    check_text(whole, message->schema);
    check_text(whole, message->name);
    check_tuple(whole, message->old);
    check_tuple(whole, message->new);
    check((message->old != NULL) == (message->old_kind != 0));
    check(message->column_count <= PGOUTPUT_COLUMNS_MAX);
    for (size_t i = 0; i < message->column_count; i++)
        check_text(whole, message->columns[i].name);
    if (message->data)
        check_inside(whole, message->data, message->len);
    check(message->oid_count <= whole.len / 4);
    if (message->type >= PGOUTPUT_TYPE && message->type <= PGOUTPUT_MESSAGE)
        check(in_block == (message->xid != 0));
}

static enum sg_error decode(struct pgoutput *decoder, const uint8_t *data, size_t len, size_t more,
                            bool in_block, struct pgoutput_message *ret_message)
{
    const char *problem = NULL;
    char *copy = malloc(len + more + 1);
    check(copy != NULL);
    char *start = copy + 1; /* not aligned */
    memcpy(start, data, len);
    memset(start + len, 'n', more);
    enum sg_error error = pgoutput_decode(decoder, start, len + more, ret_message, &problem);
    check(error == SG_OK || (error == SG_MALFORMED && problem != NULL));
    if (error == SG_OK)
        check_message((struct span){start, len + more}, ret_message, in_block);
    free(copy);
    return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pgoutput *decoder = pgoutput_new();
    struct pgoutput_message message;
    bool in_block = false;
    check(decoder != NULL);
    while (size >= 4) {
        size_t len = netint_get_u32((const char *)data);
        data += 4;
        size -= 4;
        if (len > size)
            len = size;
        enum sg_error error = decode(decoder, data, len, 0, in_block, &message);
        if (error == SG_OK) {
            if (message.type == PGOUTPUT_STREAM_START || message.type == PGOUTPUT_STREAM_STOP) {
                check(in_block == (message.type == PGOUTPUT_STREAM_STOP));
                in_block = !in_block;
            } else {
                check(decode(decoder, data, len - 1, 0, in_block, &message) != SG_OK);
                check(decode(decoder, data, len, 1, in_block, &message) != SG_OK);
            }
        }
        data += len;
        size -= len;
    }
    pgoutput_free(decoder);
    return 0;
}
