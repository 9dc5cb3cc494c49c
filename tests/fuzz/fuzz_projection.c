/*
 * Fuzzes the way from a row change to commands for Redis: the input is a list of pgoutput messages,
 * each behind its length in two bytes.
 *
 * Besides memory errors: what is refused says why and changes nothing; effects keep their bounds;
 * a change adds up (what is given back and what is taken); the outbox never writes more than it
 * says.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "replication/outbox.h"
#include "replication/pgoutput.h"
#include "replication/projection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pgoutput *decoder;
static struct projection *projection;
static struct outbox *outbox;

static void check_problem(const char *problem)
{
    size_t len = strnlen(problem, PROJECTION_PROBLEM_SIZE);
    assert(len > 0 && len < PROJECTION_PROBLEM_SIZE);
}

static void check_effect(const struct effect *effect)
{
    int64_t count = (int64_t)effect->seat_count;
    switch (effect->kind) {
    case EFFECT_SEATS:
        if (count == 0) { /* only another status */
            assert(effect->d_held == 0 && effect->d_booked == 0 && effect->status);
            break;
        }
        assert(effect->seats);
        assert(effect->d_held || effect->d_booked);
        assert(llabs(effect->d_held) == count || effect->d_held == 0);
        assert(llabs(effect->d_booked) == count || effect->d_booked == 0);
        assert(effect->d_held + effect->d_booked == (effect->state == '.'                 ? -count
                                                     : effect->d_held && effect->d_booked ? 0
                                                                                          : count));
        break;
    case EFFECT_TICKET_ADD:
    case EFFECT_TICKET_REMOVE:
        assert(effect->user_len >= 1 && effect->user_len <= 64);
        break;
    case EFFECT_GRID:
    case EFFECT_EVENT_GONE:
        break;
    default:
        abort();
    }
}

static void take_change(const struct pgoutput_message *message, struct position *position)
{
    struct effects effects = {.count = SIZE_MAX};
    char problem[PROJECTION_PROBLEM_SIZE] = "";
    const char *table = NULL;
    enum sg_error error = projection_change(projection, message, &effects, &table, problem);
    if (error) {
        assert(error == SG_MALFORMED && effects.count == SIZE_MAX && !table);
        check_problem(problem);
        return;
    }
    assert(table && effects.count <= PROJECTION_EFFECTS_MAX);
    position->place++;
    for (size_t i = 0; i < effects.count; i++) {
        check_effect(&effects.item[i]);
        error = outbox_add(outbox, &effects.item[i], position);
        assert(error == SG_OK || (error == SG_OVERLOADED && i == 0));
        if (error)
            return;
    }
}

static void take_message(const struct pgoutput_message *message, struct position *position)
{
    char problem[PROJECTION_PROBLEM_SIZE] = "";
    switch (message->type) {
    case PGOUTPUT_RELATION:
        if (projection_relation(projection, message, problem) != SG_OK)
            check_problem(problem);
        break;
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        take_change(message, position);
        break;
    case PGOUTPUT_TRUNCATE:
        (void)projection_truncates(projection, message);
        break;
    default:
        break;
    }
}

static void check_outbox(void)
{
    struct dynbuf out;
    dynbuf_init(&out, SIZE_MAX / 2);
    outbox_encode(outbox, &out);
    assert(!out.failed && out.len <= outbox_bytes(outbox));
    size_t commands = 0;
    for (size_t i = 0; i + 11 < out.len; i++)
        commands += memcmp(out.data + i, "\r\nEVALSHA\r\n", 11) == 0;
    assert(commands >= outbox_keys(outbox));
    dynbuf_done(&out);
    outbox_reset(outbox);
}

static void begin(void)
{
    if (!decoder) {
        decoder = pgoutput_new();
        projection = projection_new();
        outbox = outbox_new(&(struct outbox_config){.shard = "alpha",
                                                    .generation = 1,
                                                    .epoch = 1,
                                                    .live_history = 10,
                                                    .limits = {.keys_max = 8, .bytes_max = 8000}});
        assert(decoder && projection && outbox);
    }
    pgoutput_reset(decoder);
    projection_reset(projection);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct position position = {1, 0};
    begin();
    while (size >= 2) {
        size_t len = (size_t)data[0] << 8 | data[1];
        data += 2;
        size -= 2;
        if (len > size)
            len = size;
        /* As long as the message, so that a step beyond is seen. */
        char *copy = malloc(len ? len : 1);
        struct pgoutput_message message;
        const char *problem;
        memcpy(copy, data, len);
        if (pgoutput_decode(decoder, copy, len, &message, &problem) == SG_OK)
            take_message(&message, &position);
        free(copy);
        data += len;
        size -= len;
    }
    check_outbox();
    return 0;
}
