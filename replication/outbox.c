/*
 * Effects, gathered by key, to Redis commands. See outbox.h.
 *
 *   keys    one a command, in the order of their first effect; found through a hash table
 *   ops     a list a key, in blocks of memory that are kept from one batch to the next
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/outbox.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/redisresp.h"

#define BLOCK_BYTES ((size_t)64 * 1024)
#define SLOTS_MIN 256
#define SEAT_CHARS 12 /* a number of 32 bits with its sign and comma */
#define USER_MAX 64
/* Upper bounds of what is written: of an operation without its text, of a command without the
 * names in its keys. */
#define OP_BYTES ((size_t)128)
#define NOTE_BYTES ((size_t)(1 + UUID_TEXT_LEN + 1 + 16))
#define COMMAND_BYTES ((size_t)400)

enum op_kind { OP_SEATS, OP_GRID, OP_REGRID, OP_GONE, OP_SEED, OP_ADD, OP_REMOVE };

struct op {
    struct op *next;
    struct position position;
    enum op_kind kind;
    bool mend;              /* ADD, REMOVE */
    int64_t a;              /* SEATS d_held, GRID rows, SEED held, ADD event_id */
    int64_t b;              /* SEATS d_booked, GRID cols, SEED booked */
    struct uuid booking_id; /* ADD, REMOVE; SEATS with a status */
    const char *text;       /* SEATS: "x:1,2,3;.:4", in a block like all of this */
    size_t text_len;
    const char *status; /* SEATS: of the booking; NULL: no note */
};

struct key {
    uint64_t hash;
    int64_t event_id; /* 0: tickets of the user */
    char user[USER_MAX + 1];
    size_t user_len;
    struct op *first;
    struct op *last;
    size_t op_count; /* as the scripts count them */
    bool seeded;     /* the first one is a SEED */
};

struct block {
    struct block *next;
    size_t size;
    size_t used;
    max_align_t bytes[];
};

struct outbox {
    char *shard;
    int64_t generation;
    int64_t epoch;
    int64_t live_history;
    struct outbox_limits limits;
    size_t command_bytes;
    size_t bytes;
    /* The effects of one position, added one after the other. */
    struct position run_position;
    size_t run;

    struct key *keys;
    size_t key_count;
    size_t key_size;
    uint32_t *slots; /* index of a key + 1; 0: none */
    size_t slot_count;
    struct block *blocks;
    struct block *block; /* the one that is being filled */
};

/* --- memory --------------------------------------------------------------------------------- */

/* Room at the end of the block that is being filled; nothing is taken until take(). */
static void *reserve(struct outbox *outbox, size_t size)
{
    while (outbox->block && outbox->block->size - outbox->block->used < size && outbox->block->next)
        outbox->block = outbox->block->next;
    if (!outbox->block || outbox->block->size - outbox->block->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        struct block *block = malloc(sizeof(*block) + room);
        if (!block)
            return NULL;
        block->size = room;
        block->used = 0;
        block->next = NULL;
        if (outbox->block)
            outbox->block->next = block;
        else
            outbox->blocks = block;
        outbox->block = block;
    }
    return (char *)outbox->block->bytes + outbox->block->used;
}

static void take(struct outbox *outbox, size_t size)
{
    size_t align = sizeof(max_align_t);
    size = (size + align - 1) / align * align;
    size_t room = outbox->block->size - outbox->block->used;
    outbox->block->used += size < room ? size : room;
}

/* Keeps the ordinary blocks, gives back what one large effect needed. */
static void empty_blocks(struct outbox *outbox)
{
    struct block **link = &outbox->blocks;
    while (*link) {
        struct block *block = *link;
        block->used = 0;
        if (block->size > BLOCK_BYTES) {
            *link = block->next;
            free(block);
        } else {
            link = &block->next;
        }
    }
    outbox->block = outbox->blocks;
}

struct outbox *outbox_new(const struct outbox_config *config)
{
    struct outbox *outbox = calloc(1, sizeof(*outbox));
    if (!outbox)
        return NULL;
    outbox->shard = strdup(config->shard);
    outbox->slots = calloc(SLOTS_MIN, sizeof(*outbox->slots));
    if (!outbox->shard || !outbox->slots) {
        outbox_free(outbox);
        return NULL;
    }
    outbox->slot_count = SLOTS_MIN;
    outbox->generation = config->generation;
    outbox->epoch = config->epoch;
    outbox->live_history = config->live_history;
    outbox->limits = config->limits;
    outbox->command_bytes = COMMAND_BYTES + 2 * strlen(config->shard);
    return outbox;
}

void outbox_free(struct outbox *outbox)
{
    if (!outbox)
        return;
    while (outbox->blocks) {
        struct block *block = outbox->blocks;
        outbox->blocks = block->next;
        free(block);
    }
    free(outbox->keys);
    free(outbox->slots);
    free(outbox->shard);
    free(outbox);
}

/* --- keys ----------------------------------------------------------------------------------- */

static bool is_ticket(const struct effect *effect)
{
    return effect->kind == EFFECT_TICKET_ADD || effect->kind == EFFECT_TICKET_REMOVE ||
           effect->kind == EFFECT_TICKET_MEND || effect->kind == EFFECT_TICKET_UNMEND;
}

static bool key_is(const struct key *key, const struct effect *effect)
{
    if (!is_ticket(effect))
        return key->user_len == 0 && key->event_id == effect->event_id;
    return key->user_len == effect->user_len &&
           memcmp(key->user, effect->user, effect->user_len) == 0;
}

/* The slot of the effect's key, or the empty one where it belongs. */
static uint32_t *find_slot(const struct outbox *outbox, const struct effect *effect, uint64_t hash)
{
    size_t mask = outbox->slot_count - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        uint32_t *slot = &outbox->slots[i];
        if (*slot == 0)
            return slot;
        const struct key *key = &outbox->keys[*slot - 1];
        if (key->hash == hash && key_is(key, effect))
            return slot;
    }
}

static bool grow_slots(struct outbox *outbox)
{
    size_t count = outbox->slot_count * 2;
    uint32_t *slots = calloc(count, sizeof(*slots));
    if (!slots)
        return false;
    for (size_t k = 0; k < outbox->key_count; k++) {
        size_t i = outbox->keys[k].hash & (count - 1);
        while (slots[i])
            i = (i + 1) & (count - 1);
        slots[i] = (uint32_t)k + 1;
    }
    free(outbox->slots);
    outbox->slots = slots;
    outbox->slot_count = count;
    return true;
}

static bool grow_keys(struct outbox *outbox)
{
    size_t size = outbox->key_size ? outbox->key_size * 2 : SLOTS_MIN / 2;
    struct key *keys = realloc(outbox->keys, size * sizeof(*keys));
    if (!keys)
        return false;
    outbox->keys = keys;
    outbox->key_size = size;
    return true;
}

/* Room for one more key; the table stays at most half full. */
static bool reserve_key(struct outbox *outbox)
{
    if (outbox->key_count == outbox->key_size && !grow_keys(outbox))
        return false;
    return (outbox->key_count + 1) * 2 <= outbox->slot_count || grow_slots(outbox);
}

static struct key *add_key(struct outbox *outbox, const struct effect *effect, uint64_t hash)
{
    uint32_t *slot = find_slot(outbox, effect, hash);
    struct key *key = &outbox->keys[outbox->key_count++];
    *slot = (uint32_t)outbox->key_count;
    key->hash = hash;
    key->event_id = 0;
    key->user_len = 0;
    key->first = key->last = NULL;
    key->op_count = 0;
    key->seeded = false;
    outbox->bytes += outbox->command_bytes;
    if (is_ticket(effect)) {
        memcpy(key->user, effect->user, effect->user_len);
        key->user[effect->user_len] = '\0';
        key->user_len = effect->user_len;
        outbox->bytes += effect->user_len;
    } else {
        key->event_id = effect->event_id;
    }
    return key;
}

/* --- operations ----------------------------------------------------------------------------- */

static char *write_seat(char *to, int32_t seat)
{
    char digits[11];
    size_t i = sizeof(digits);
    uint32_t rest = seat < 0 ? 0 - (uint32_t)seat : (uint32_t)seat;
    do {
        digits[--i] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (seat < 0)
        digits[--i] = '-';
    memcpy(to, digits + i, sizeof(digits) - i);
    return to + sizeof(digits) - i;
}

/* "x:1,2,3"; nothing without seats. */
static char *write_seats(char *to, const struct effect *effect)
{
    for (size_t i = 0; i < effect->seat_count; i++) {
        if (i == 0)
            *to++ = effect->state;
        *to++ = i == 0 ? ':' : ',';
        to = write_seat(to, effect->seats[i]);
    }
    return to;
}

/* Adds the effect's seats to the text of the operation. */
static bool add_text(struct outbox *outbox, struct op *op, const struct effect *effect)
{
    char *text = reserve(outbox, op->text_len + 2 + effect->seat_count * SEAT_CHARS);
    if (!text)
        return false;
    char *to = text;
    if (op->text_len) {
        memcpy(to, op->text, op->text_len);
        to += op->text_len;
        if (effect->seat_count)
            *to++ = ';';
    }
    to = write_seats(to, effect);
    outbox->bytes += (size_t)(to - text) - op->text_len;
    op->text = text;
    op->text_len = (size_t)(to - text);
    take(outbox, op->text_len);
    return true;
}

static struct op *make_op(struct outbox *outbox, enum op_kind kind, const struct effect *effect,
                          const struct position *position)
{
    struct op *op = reserve(outbox, sizeof(*op));
    if (!op)
        return NULL;
    take(outbox, sizeof(*op));
    *op = (struct op){.position = *position, .kind = kind, .booking_id = effect->booking_id};
    switch (kind) {
    case OP_SEATS:
    case OP_SEED:
        op->a = effect->d_held;
        op->b = effect->d_booked;
        op->status = effect->status;
        break;
    case OP_GRID:
    case OP_REGRID:
        op->a = effect->rows;
        op->b = effect->cols;
        break;
    case OP_ADD:
    case OP_REMOVE:
        op->a = effect->event_id;
        op->mend = effect->kind == EFFECT_TICKET_MEND || effect->kind == EFFECT_TICKET_UNMEND;
        break;
    case OP_GONE:
        break;
    }
    return kind != OP_SEATS || add_text(outbox, op, effect) ? op : NULL;
}

static enum op_kind kind_of(const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_SEATS:
        return OP_SEATS;
    case EFFECT_GRID:
        return effect->altered ? OP_REGRID : OP_GRID;
    case EFFECT_EVENT_GONE:
        return OP_GONE;
    case EFFECT_EVENT_SEED:
        return OP_SEED;
    case EFFECT_TICKET_ADD:
    case EFFECT_TICKET_MEND:
        return OP_ADD;
    case EFFECT_TICKET_REMOVE:
    case EFFECT_TICKET_UNMEND:
        break;
    }
    return OP_REMOVE;
}

static void append(struct outbox *outbox, struct key *key, struct op *op)
{
    /* A mend has no position of its own: it goes with what is before it. */
    if (op->mend)
        op->position = key->last ? key->last->position : (struct position){0};
    if (key->last)
        key->last->next = op;
    else
        key->first = op;
    key->last = op;
    key->op_count++;
    outbox->bytes += OP_BYTES + (op->status ? NOTE_BYTES : 0);
}

/* --- adding --------------------------------------------------------------------------------- */

/* A change is taken whole: what has the position of the effect before it still goes in. So does
 * what follows a seed, which is of no use without it. */
static bool has_room(const struct outbox *outbox, const struct key *key,
                     const struct position *position)
{
    const struct outbox_limits *limits = &outbox->limits;
    if (outbox->key_count == 0)
        return true;
    if (outbox->key_count < limits->keys_max && outbox->bytes < limits->bytes_max)
        return true;
    if (outbox->run > 0 && outbox->run < PROJECTION_EFFECTS_MAX &&
        position_compare(&outbox->run_position, position) == 0)
        return true;
    return key && key->seeded && outbox->bytes / 2 < limits->bytes_max;
}

static bool is_behind(const struct key *key, const struct effect *effect,
                      const struct position *position)
{
    if (!key || effect->kind == EFFECT_EVENT_SEED || effect->kind == EFFECT_TICKET_MEND ||
        effect->kind == EFFECT_TICKET_UNMEND)
        return false;
    return position_compare(position, &key->last->position) < 0;
}

/* Seats released and seats taken by one change are one operation: it has one position. */
static bool joins(const struct key *key, enum op_kind kind, const struct position *position)
{
    return kind == OP_SEATS && key && key->last->kind == OP_SEATS &&
           position_compare(&key->last->position, position) == 0;
}

static enum sg_error add_op(struct outbox *outbox, struct key *key, uint64_t hash,
                            const struct effect *effect, const struct position *position)
{
    enum op_kind kind = kind_of(effect);
    if (joins(key, kind, position)) {
        if (!add_text(outbox, key->last, effect))
            return SG_NO_MEMORY;
        key->last->a += effect->d_held;
        key->last->b += effect->d_booked;
        return SG_OK;
    }
    struct op *op = make_op(outbox, kind, effect, position);
    struct op *grid = op && kind == OP_SEED ? make_op(outbox, OP_GRID, effect, position) : NULL;
    if (!op || (kind == OP_SEED && !grid))
        return SG_NO_MEMORY;
    if (!key)
        key = add_key(outbox, effect, hash);
    if (kind == OP_SEED) {
        key->first = key->last = NULL;
        key->op_count = 0;
        key->seeded = true;
    }
    append(outbox, key, op);
    if (grid)
        append(outbox, key, grid);
    return SG_OK;
}

enum sg_error outbox_add(struct outbox *outbox, const struct effect *effect,
                         const struct position *position)
{
    assert(!is_ticket(effect) || (effect->user_len >= 1 && effect->user_len <= USER_MAX));
    uint64_t hash = is_ticket(effect)
                        ? hash_u64(hash_bytes(HASH_START, effect->user, effect->user_len))
                        : hash_u64((uint64_t)effect->event_id);
    uint32_t slot = *find_slot(outbox, effect, hash);
    struct key *key = slot ? &outbox->keys[slot - 1] : NULL;
    if (is_behind(key, effect, position))
        return SG_INVALID_VALUE;
    if (!has_room(outbox, key, position))
        return SG_OVERLOADED;
    if (!key && !reserve_key(outbox))
        return SG_NO_MEMORY;
    enum sg_error error = add_op(outbox, key, hash, effect, position);
    if (error)
        return error;
    if (outbox->run == 0 || position_compare(&outbox->run_position, position) != 0) {
        outbox->run_position = *position;
        outbox->run = 0;
    }
    outbox->run++;
    return SG_OK;
}

size_t outbox_keys(const struct outbox *outbox)
{
    return outbox->key_count;
}

size_t outbox_bytes(const struct outbox *outbox)
{
    return outbox->bytes;
}

int64_t outbox_event(const struct outbox *outbox, size_t i)
{
    return outbox->keys[i].event_id;
}

void outbox_reset(struct outbox *outbox)
{
    size_t mask = outbox->slot_count - 1;
    for (size_t k = 0; k < outbox->key_count; k++) {
        size_t i = outbox->keys[k].hash & mask;
        while (outbox->slots[i] != k + 1)
            i = (i + 1) & mask;
        outbox->slots[i] = 0;
    }
    outbox->key_count = 0;
    outbox->bytes = 0;
    outbox->run = 0;
    empty_blocks(outbox);
}

/* --- encoding ------------------------------------------------------------------------------- */

static void encode_position(struct dynbuf *out, const struct position *position)
{
    char text[POSITION_TEXT_LEN + 1];
    position_format(position, text);
    redisresp_arg(out, text, POSITION_TEXT_LEN);
}

static void encode_script(struct dynbuf *out, enum script script, size_t arg_count,
                          const char *key_count)
{
    redisresp_begin(out, 3 + arg_count);
    redisresp_arg(out, "EVALSHA", 7);
    redisresp_args(out, script_sha(script));
    redisresp_args(out, key_count);
}

/* "x:1,2,3;.:4 BOOKING STATUS" */
static void encode_seats(struct dynbuf *out, const struct op *op)
{
    char note[NOTE_BYTES + 1];
    size_t len = 0;
    if (op->status) {
        note[0] = ' ';
        uuid_format(&op->booking_id, note + 1);
        len = 1 + UUID_TEXT_LEN;
        note[len++] = ' ';
        size_t status_len = strlen(op->status);
        assert(len + status_len <= NOTE_BYTES);
        memcpy(note + len, op->status, status_len);
        len += status_len;
    }
    redisresp_arg_pair(out, op->text_len ? op->text : "-", op->text_len ? op->text_len : 1, note,
                       len);
}

static void encode_event_op(struct dynbuf *out, const struct op *op)
{
    encode_position(out, &op->position);
    redisresp_arg_i64(out, op->a);
    redisresp_arg_i64(out, op->b);
    switch (op->kind) {
    case OP_GRID:
        redisresp_args(out, "grid");
        break;
    case OP_REGRID:
        redisresp_args(out, "regrid");
        break;
    case OP_GONE:
        redisresp_args(out, "gone");
        break;
    case OP_SEED:
        redisresp_args(out, "seed");
        break;
    default:
        encode_seats(out, op);
        break;
    }
}

static void encode_event(const struct outbox *outbox, const struct key *key, struct dynbuf *out)
{
    char name[REDISKEY_MAX];
    encode_script(out, SCRIPT_EVENT, 3 + 2 + 4 * key->op_count, "3");
    size_t len = rediskey_event(name, key->event_id, outbox->shard, outbox->generation);
    redisresp_arg(out, name, len);
    len = rediskey_changes(name, key->event_id, outbox->shard, outbox->generation);
    redisresp_arg(out, name, len);
    len = rediskey_watched(name, key->event_id);
    redisresp_arg(out, name, len);
    redisresp_arg_i64(out, outbox->epoch);
    redisresp_arg_i64(out, outbox->live_history);
    for (const struct op *op = key->first; op; op = op->next)
        encode_event_op(out, op);
}

static void encode_ticket_op(struct dynbuf *out, const struct op *op)
{
    char booking[UUID_TEXT_LEN + 1];
    uuid_format(&op->booking_id, booking);
    if (op->mend)
        redisresp_args(out, "");
    else
        encode_position(out, &op->position);
    redisresp_arg(out, booking, UUID_TEXT_LEN);
    if (op->kind == OP_ADD)
        redisresp_arg_i64(out, op->a);
    else
        redisresp_args(out, "");
}

static void encode_tickets(const struct outbox *outbox, const struct key *key, struct dynbuf *out)
{
    char name[REDISKEY_MAX];
    encode_script(out, SCRIPT_TICKETS, 1 + 1 + 3 * key->op_count, "1");
    size_t len = rediskey_tickets(name, key->user, outbox->shard, outbox->generation);
    redisresp_arg(out, name, len);
    redisresp_arg_i64(out, outbox->epoch);
    for (const struct op *op = key->first; op; op = op->next)
        encode_ticket_op(out, op);
}

void outbox_encode(const struct outbox *outbox, struct dynbuf *out)
{
    for (size_t i = 0; i < outbox->key_count; i++) {
        const struct key *key = &outbox->keys[i];
        if (key->user_len)
            encode_tickets(outbox, key, out);
        else
            encode_event(outbox, key, out);
    }
}
