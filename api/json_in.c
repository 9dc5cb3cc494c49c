/*
 * Request bodies that take or change bookings, or join the waiting list. See json_in.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_in.h"

#include <stdio.h>
#include <string.h>

#include "api/ids.h"
#include "api/json_read.h"

#define FIELD_SIZE 48 /* the name of a field with its index */

bool json_in_is_user_id(const char *text)
{
    return ids_is_printable_ascii(text, ROUTER_USER_MAX) && text[strspn(text, " ")];
}

bool json_in_is_user_text(const char *text)
{
    return strlen(text) <= ROUTER_USER_MAX && json_read_is_printable(text);
}

/* A user id that may be missing. */
static void read_user(struct json_reader *reader, const json_t *value,
                      char ret_user_id[ROUTER_USER_MAX + 1])
{
    ret_user_id[0] = '\0';
    if (value)
        json_read_text(reader, "userId", value, ROUTER_USER_MAX, ret_user_id);
}

/* 0 if it is missing. */
static int64_t read_ttl_ms(struct json_reader *reader, const json_t *value,
                           const struct json_in_bounds *bounds)
{
    if (!value)
        return 0;
    return json_read_integer(reader, "ttlSeconds", value, bounds->ttl_min_s, bounds->ttl_max_s) *
           1000;
}

/* --- seats ------------------------------------------------------------------------------------ */

static void read_seat(struct json_reader *reader, size_t index, json_t *value,
                      struct seat *ret_seat)
{
    static const char *const names[] = {"row", "col", NULL};
    const json_t *values[2] = {0};
    char field[FIELD_SIZE];
    if (!json_is_object(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "seats[%zu]: must be an object like {\"row\":1,\"col\":1}", index);
        return;
    }
    snprintf(field, sizeof(field), "seats[%zu]: ", index);
    json_read_members(reader, field, value, names, values);
    snprintf(field, sizeof(field), "seats[%zu].row", index);
    ret_seat->row = (int32_t)json_read_integer(reader, field, values[0], 1, JSON_IN_GRID_MAX);
    memcpy(strchr(field, '.'), ".col", 5);
    ret_seat->col = (int32_t)json_read_integer(reader, field, values[1], 1, JSON_IN_GRID_MAX);
}

/* The last seat must not be among those before it. */
static void check_duplicate(struct json_reader *reader, const struct seat *seats, size_t count)
{
    const struct seat *last = &seats[count - 1];
    for (size_t i = 0; i < count - 1; i++) {
        if (seats[i].row == last->row && seats[i].col == last->col) {
            json_read_refuse(reader, SG_DUPLICATE_SEAT,
                             "seats[%zu]: is seats[%zu] again (row %d, col %d)", count - 1, i,
                             (int)last->row, (int)last->col);
            return;
        }
    }
}

static void read_seats(struct json_reader *reader, const json_t *value, size_t max_seats,
                       struct json_in_take *ret_take)
{
    if (!json_is_array(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "seats: %s an array like [{\"row\":1,\"col\":1}]%s",
                         value ? "must be" : "is missing; give",
                         value ? "" : ", or best like [{\"quantity\":2}]");
        return;
    }
    size_t count = json_array_size(value);
    if (count == 0) {
        json_read_refuse(reader, SG_INVALID_VALUE, "seats: must name at least one seat");
        return;
    }
    if (count > max_seats) {
        json_read_refuse(reader, SG_TOO_MANY_SEATS, "seats: must name at most %zu seats, names %zu",
                         max_seats, count);
        return;
    }
    for (size_t i = 0; i < count && reader->error == SG_OK; i++) {
        read_seat(reader, i, json_array_get(value, i), &ret_take->seats[i]);
        if (reader->error == SG_OK)
            check_duplicate(reader, ret_take->seats, i + 1);
    }
    ret_take->seat_count = count;
}

/* --- best seats ------------------------------------------------------------------------------- */

/* The values of tier, quantity and together; `where` is "best[1]." or "". */
static void read_wish(struct json_reader *reader, const char *where, const json_t *const *values,
                      size_t max_seats, char ret_tier[ROUTER_TIER_MAX + 1],
                      struct best_wish *ret_wish)
{
    char field[FIELD_SIZE];
    ret_wish->tier = NULL;
    if (values[0]) {
        snprintf(field, sizeof(field), "%stier", where);
        json_read_text(reader, field, values[0], ROUTER_TIER_MAX, ret_tier);
        ret_wish->tier = ret_tier;
    }
    snprintf(field, sizeof(field), "%squantity", where);
    ret_wish->quantity =
        (int32_t)json_read_integer(reader, field, values[1], 1, (int64_t)max_seats);
    snprintf(field, sizeof(field), "%stogether", where);
    ret_wish->together = json_read_bool(reader, field, values[2], true);
}

static void read_best_one(struct json_reader *reader, size_t index, json_t *value, size_t max_seats,
                          struct json_in_take *ret_take)
{
    static const char *const names[] = {"tier", "quantity", "together", NULL};
    const json_t *values[3] = {0};
    char where[FIELD_SIZE / 2];
    if (!json_is_object(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "best[%zu]: must be an object like {\"tier\":\"stalls\",\"quantity\":2}",
                         index);
        return;
    }
    snprintf(where, sizeof(where), "best[%zu]: ", index);
    json_read_members(reader, where, value, names, values);
    snprintf(where, sizeof(where), "best[%zu].", index);
    read_wish(reader, where, values, max_seats, ret_take->tiers[index], &ret_take->best[index]);
}

static void read_best(struct json_reader *reader, const json_t *value, size_t max_seats,
                      struct json_in_take *ret_take)
{
    if (!json_is_array(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "best: must be an array like [{\"quantity\":2}]");
        return;
    }
    size_t count = json_array_size(value);
    int64_t seats = 0;
    if (count < 1 || count > ROUTER_BEST_MAX) {
        json_read_refuse(reader, SG_INVALID_VALUE, "best: must have 1 to %d members, has %zu",
                         ROUTER_BEST_MAX, count);
        return;
    }
    for (size_t i = 0; i < count && reader->error == SG_OK; i++) {
        read_best_one(reader, i, json_array_get(value, i), max_seats, ret_take);
        if (reader->error == SG_OK)
            seats += ret_take->best[i].quantity;
    }
    if (seats > (int64_t)max_seats)
        json_read_refuse(reader, SG_TOO_MANY_SEATS,
                         "best: must want at most %zu seats, wants %lld in all", max_seats,
                         (long long)seats);
    ret_take->best_count = count;
}

/* --- taking seats ----------------------------------------------------------------------------- */

static void read_payment(struct json_reader *reader, const json_t *value,
                         char ret_method[ROUTER_METHOD_MAX + 1])
{
    static const char *const names[] = {"method", NULL};
    const json_t *method = NULL;
    ret_method[0] = '\0';
    if (!json_is_object(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "payment: %s an object like {\"method\":\"card\"}",
                         value ? "must be" : "is missing; give");
        return;
    }
    json_read_members(reader, "payment: ", (json_t *)(uintptr_t)value, names, &method);
    json_read_text(reader, "payment.method", method, ROUTER_METHOD_MAX, ret_method);
    if (reader->error == SG_OK && !ids_is_printable_ascii(ret_method, ROUTER_METHOD_MAX))
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "payment.method: must be 1 to %d bytes of printable ASCII",
                         ROUTER_METHOD_MAX);
}

static void read_take(struct json_reader *reader, enum json_in_kind kind, json_t *root,
                      const struct json_in_bounds *bounds, struct json_in_take *ret_take)
{
    /* The first three are everybody's. */
    static const char *const book[] = {"userId", "seats", "best", "eventId", NULL};
    static const char *const hold[] = {"userId", "seats", "best", "ttlSeconds", NULL};
    static const char *const order[] = {"userId", "seats", "best", "payment", NULL};
    static const char *const *const names[] = {book, hold, order};
    const json_t *values[4] = {0};
    size_t max_seats = bounds->max_seats < ROUTER_SEATS_MAX ? bounds->max_seats : ROUTER_SEATS_MAX;
    json_read_members(reader, "", root, names[kind], values);
    ret_take->event_id = 0;
    ret_take->ttl_ms = 0;
    ret_take->method[0] = '\0';
    ret_take->seat_count = 0;
    ret_take->best_count = 0;
    if (kind == JSON_IN_BOOK)
        ret_take->event_id = json_read_integer(reader, "eventId", values[3], 1, INT64_MAX);
    read_user(reader, values[0], ret_take->user_id);
    if (values[1] && values[2])
        json_read_refuse(reader, SG_INVALID_VALUE, "seats, best: send one of them");
    if (values[2])
        read_best(reader, values[2], max_seats, ret_take);
    else
        read_seats(reader, values[1], max_seats, ret_take);
    if (kind == JSON_IN_HOLD)
        ret_take->ttl_ms = read_ttl_ms(reader, values[3], bounds);
    if (kind == JSON_IN_ORDER)
        read_payment(reader, values[3], ret_take->method);
}

enum sg_error json_in_take(enum json_in_kind kind, const char *body, size_t len,
                           const struct json_in_bounds *bounds, struct json_in_take *ret_take,
                           char ret_detail[JSON_IN_DETAIL_SIZE])
{
    struct json_reader reader;
    json_read_start(&reader, ret_detail);
    json_t *root = json_read_object(&reader, body, len);
    if (root)
        read_take(&reader, kind, root, bounds, ret_take);
    json_decref(root);
    return reader.error;
}

/* --- changing a booking ----------------------------------------------------------------------- */

static void read_change(struct json_reader *reader, enum change_kind kind, json_t *root,
                        const struct json_in_bounds *bounds, struct json_in_change *ret_change)
{
    static const char *const extend[] = {"userId", "ttlSeconds", NULL};
    static const char *const transfer[] = {"userId", "toUserId", NULL};
    static const char *const others[] = {"userId", NULL};
    const json_t *values[2] = {0};
    json_read_members(reader, "", root,
                      kind == CHANGE_EXTEND     ? extend
                      : kind == CHANGE_TRANSFER ? transfer
                                                : others,
                      values);
    read_user(reader, values[0], ret_change->user_id);
    ret_change->ttl_ms = kind == CHANGE_EXTEND ? read_ttl_ms(reader, values[1], bounds) : 0;
    ret_change->to_user[0] = '\0';
    if (kind == CHANGE_TRANSFER)
        json_read_text(reader, "toUserId", values[1], ROUTER_USER_MAX, ret_change->to_user);
}

enum sg_error json_in_change(enum change_kind kind, const char *body, size_t len,
                             const struct json_in_bounds *bounds, struct json_in_change *ret_change,
                             char ret_detail[JSON_IN_DETAIL_SIZE])
{
    struct json_reader reader;
    json_read_start(&reader, ret_detail);
    json_t *root = len ? json_read_object(&reader, body, len) : json_object();
    if (root)
        read_change(&reader, kind, root, bounds, ret_change);
    else
        json_read_refuse(&reader, SG_NO_MEMORY, "no memory for the request");
    json_decref(root);
    return reader.error;
}

/* --- the waiting list ------------------------------------------------------------------------- */

enum sg_error json_in_waitlist(const char *body, size_t len, const struct json_in_bounds *bounds,
                               struct json_in_waitlist *ret_waitlist,
                               char ret_detail[JSON_IN_DETAIL_SIZE])
{
    static const char *const names[] = {"userId", "tier", "quantity", "together", NULL};
    struct json_reader reader;
    const json_t *values[4] = {0};
    size_t max_seats = bounds->max_seats < ROUTER_SEATS_MAX ? bounds->max_seats : ROUTER_SEATS_MAX;
    json_read_start(&reader, ret_detail);
    json_t *root = json_read_object(&reader, body, len);
    if (root) {
        json_read_members(&reader, "", root, names, values);
        read_user(&reader, values[0], ret_waitlist->user_id);
        read_wish(&reader, "", values + 1, max_seats, ret_waitlist->tier, &ret_waitlist->wish);
    }
    json_decref(root);
    return reader.error;
}
