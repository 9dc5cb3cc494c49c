/*
 * Ops out of requests. See lane_op.h.
 *
 * The hash is what makes two requests with one key the same request. Of a plain booking it is made
 * of the user and the seats alone.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_op.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

/* --- hashes ----------------------------------------------------------------------------------- */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return text ? hash_bytes(hash, text, strlen(text) + 1) : hash_bytes(hash, "\xff", 1);
}

static uint64_t hash_number(uint64_t hash, int64_t number)
{
    return hash_bytes(hash, &number, sizeof(number));
}

static int64_t take_hash(const struct book_request *request)
{
    uint64_t hash = hash_text(HASH_START, request->user_id);
    for (size_t i = 0; i < request->seat_count; i++) {
        uint64_t place =
            (uint64_t)(uint32_t)request->seats[i].row << 32 | (uint32_t)request->seats[i].col;
        hash = hash_bytes(hash, &place, sizeof(place));
    }
    for (size_t i = 0; i < request->best_count; i++) {
        hash = hash_text(hash, request->best[i].tier);
        hash = hash_number(hash, request->best[i].quantity);
        hash = hash_number(hash, request->best[i].together);
    }
    if (request->hold_ms) {
        hash = hash_number(hash, request->hold_ms);
        hash = hash_text(hash, request->method);
    }
    return (int64_t)hash;
}

static int64_t change_hash(const struct change_request *request)
{
    uint64_t hash = hash_text(HASH_START, request->user_id);
    hash = hash_number(hash, request->kind);
    hash = hash_text(hash, request->booking_id);
    hash = hash_number(hash, request->extend_ms);
    return (int64_t)hash_text(hash, request->to_user);
}

/* --- copies ----------------------------------------------------------------------------------- */

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static char *append(char **at, const char *text)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

/* So many seats a take may have: those asked for, or those wished for. */
static size_t seat_room(const struct book_request *request)
{
    size_t room = request->seat_count;
    for (size_t i = 0; i < request->best_count; i++)
        room += (size_t)request->best[i].quantity;
    return room;
}

static size_t take_texts_size(const struct book_request *request)
{
    size_t size = text_size(request->user_id) + text_size(request->idempotency_key);
    size += text_size(request->request_id) + text_size(request->method);
    for (size_t i = 0; i < request->best_count; i++)
        size += text_size(request->best[i].tier);
    return size;
}

enum sg_error lane_op_take(const struct book_request *request, struct lane_op **ret_op)
{
    size_t wishes_size = request->best_count * sizeof(struct best_wish);
    size_t room = seat_room(request);
    size_t size = sizeof(struct lane_op) + wishes_size + room * sizeof(struct seat) +
                  take_texts_size(request);
    struct uuid booking_id;
    if (!request->booking_id)
        booking_id = uuid_v7(clock_wall_us());
    else if (!uuid_parse(request->booking_id, &booking_id))
        return SG_INVALID_VALUE;
    struct lane_op *op = malloc(size);
    if (!op)
        return SG_NO_MEMORY;
    *op = (struct lane_op){.event_id = request->event_id,
                           .booking_id = booking_id,
                           .request_hash = take_hash(request),
                           .look_first = request->booking_id != NULL,
                           .size = size,
                           .hold_ms = request->hold_ms,
                           .wish_count = request->best_count,
                           .seat_count = request->seat_count,
                           .seat_room = room};
    op->wishes = (struct best_wish *)(op + 1);
    op->seats = (struct seat *)(op->wishes + request->best_count);
    char *at = (char *)(op->seats + room);
    for (size_t i = 0; i < request->best_count; i++) {
        op->wishes[i] = request->best[i];
        op->wishes[i].tier = append(&at, request->best[i].tier);
    }
    if (request->seat_count)
        memcpy(op->seats, request->seats, request->seat_count * sizeof(struct seat));
    op->user_id = append(&at, request->user_id);
    op->idempotency_key = append(&at, request->idempotency_key);
    op->request_id = append(&at, request->request_id);
    op->method = append(&at, request->method);
    *ret_op = op;
    return SG_OK;
}

enum sg_error lane_op_change(const struct change_request *request, struct lane_op **ret_op)
{
    size_t size = sizeof(struct lane_op) + text_size(request->user_id) +
                  text_size(request->idempotency_key) + text_size(request->request_id) +
                  text_size(request->to_user);
    struct uuid booking_id;
    if (!uuid_parse(request->booking_id, &booking_id))
        return SG_INVALID_VALUE;
    struct lane_op *op = malloc(size);
    if (!op)
        return SG_NO_MEMORY;
    *op = (struct lane_op){.event_id = request->event_id,
                           .booking_id = booking_id,
                           .request_hash = change_hash(request),
                           .size = size,
                           .kind = request->kind,
                           .change_id = uuid_v7(clock_wall_us()),
                           .extend_ms = request->extend_ms};
    char *at = (char *)(op + 1);
    op->user_id = append(&at, request->user_id);
    op->idempotency_key = append(&at, request->idempotency_key);
    op->request_id = append(&at, request->request_id);
    op->to_user = append(&at, request->to_user);
    *ret_op = op;
    return SG_OK;
}
