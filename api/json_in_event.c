/*
 * The request body of POST /events: the grid, tiers and what a user may have. See json_in.h.
 *
 * Tiers come in any order, each with the first and the last of its rows; together they must cover
 * every row once.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_in.h"

#include <stdio.h>
#include <string.h>

#include "api/ids.h"
#include "api/json_read.h"
#include "base/rfc3339.h"

#define FIELD_SIZE 48 /* the name of a field with its index */
#define SHOWN_SIZE 41 /* a tier's name in a message */

static void read_starts_at(struct json_reader *reader, const json_t *value, int64_t *ret_us)
{
    if (!json_is_string(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "startsAt: %s a string with an RFC 3339 time like 2027-06-01T19:00:00Z",
                         value ? "must be" : "is missing; give");
        return;
    }
    if (!rfc3339_parse(json_string_value(value), ret_us))
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "startsAt: must be an RFC 3339 time like 2027-06-01T19:00:00Z");
}

/* Whether a shard of that name exists is the router's to say. */
static void read_shard(struct json_reader *reader, const json_t *value, char *ret_shard)
{
    if (!json_is_string(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "shard: must be a string; leave it out for any shard");
        return;
    }
    if (!ids_is_printable_ascii(json_string_value(value), SHARDMAP_NAME_MAX)) {
        json_read_refuse(reader, SG_UNKNOWN_SHARD, "shard: must be the name of a shard of the map");
        return;
    }
    memcpy(ret_shard, json_string_value(value), json_string_length(value) + 1);
}

/* --- tiers ------------------------------------------------------------------------------------ */

/* A tier as it came: where its rows end is not kept in the end. */
struct tier {
    struct event_tier tier;
    int32_t last_row;
    size_t index;
};

static void read_rows(struct json_reader *reader, size_t index, const json_t *value,
                      int32_t row_count, struct tier *ret_tier)
{
    static const char *const names[] = {"first", "last", NULL};
    const json_t *values[2] = {0};
    char field[FIELD_SIZE];
    if (!json_is_object(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "tiers[%zu].rows: %s an object like {\"first\":1,\"last\":10}", index,
                         value ? "must be" : "is missing; give");
        return;
    }
    snprintf(field, sizeof(field), "tiers[%zu].rows: ", index);
    json_read_members(reader, field, (json_t *)(uintptr_t)value, names, values);
    snprintf(field, sizeof(field), "tiers[%zu].rows.first", index);
    ret_tier->tier.first_row = (int32_t)json_read_integer(reader, field, values[0], 1, row_count);
    snprintf(field, sizeof(field), "tiers[%zu].rows.last", index);
    ret_tier->last_row =
        (int32_t)json_read_integer(reader, field, values[1], ret_tier->tier.first_row, row_count);
}

static void read_tier(struct json_reader *reader, size_t index, json_t *value, int32_t row_count,
                      char *ret_name, struct tier *ret_tier)
{
    static const char *const names[] = {"name", "price", "rows", NULL};
    const json_t *values[3] = {0};
    char field[FIELD_SIZE];
    ret_tier->tier.name = ret_name;
    ret_tier->index = index;
    if (!json_is_object(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE,
                         "tiers[%zu]: must be an object like {\"name\":\"stalls\",\"price\":4500,"
                         "\"rows\":{\"first\":1,\"last\":10}}",
                         index);
        return;
    }
    snprintf(field, sizeof(field), "tiers[%zu]: ", index);
    json_read_members(reader, field, value, names, values);
    snprintf(field, sizeof(field), "tiers[%zu].name", index);
    json_read_text(reader, field, values[0], ROUTER_TIER_MAX, ret_name);
    snprintf(field, sizeof(field), "tiers[%zu].price", index);
    ret_tier->tier.price = json_read_integer(reader, field, values[1], 0, JSON_IN_PRICE_MAX);
    read_rows(reader, index, values[2], row_count, ret_tier);
}

static void check_names(struct json_reader *reader, const struct tier *tiers, size_t count)
{
    const struct tier *last = &tiers[count - 1];
    for (size_t i = 0; i < count - 1; i++) {
        if (strcmp(tiers[i].tier.name, last->tier.name) == 0)
            json_read_refuse(reader, SG_INVALID_VALUE,
                             "tiers[%zu].name: is that of tiers[%zu], too; give each its own",
                             count - 1, i);
    }
}

/* By first row; there are few. */
static void sort_tiers(struct tier *tiers, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct tier tier = tiers[i];
        size_t at = i;
        for (; at && tiers[at - 1].tier.first_row > tier.tier.first_row; at--)
            tiers[at] = tiers[at - 1];
        tiers[at] = tier;
    }
}

static void refuse_gap(struct json_reader *reader, int32_t first, int32_t last)
{
    if (first == last)
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "tiers: row %d is in none; they must cover every row once", (int)first);
    else
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "tiers: rows %d to %d are in none; they must cover every row once",
                         (int)first, (int)last);
}

/* Sorted tiers: every row is in one, and in one only. */
static void check_cover(struct json_reader *reader, const struct tier *tiers, size_t count,
                        int32_t row_count)
{
    int32_t next = 1;
    for (size_t i = 0; i < count; i++) {
        if (tiers[i].tier.first_row > next) {
            refuse_gap(reader, next, tiers[i].tier.first_row - 1);
        } else if (tiers[i].tier.first_row < next) {
            char name[SHOWN_SIZE], other[SHOWN_SIZE];
            json_read_shown(tiers[i].tier.name, name, sizeof(name));
            json_read_shown(tiers[i - 1].tier.name, other, sizeof(other));
            json_read_refuse(reader, SG_INVALID_VALUE,
                             "tiers[%zu].rows: row %d is in '%s' and in '%s'; a row is in one tier",
                             tiers[i].index, (int)tiers[i].tier.first_row, other, name);
        }
        next = tiers[i].last_row + 1;
    }
    if (next <= row_count)
        refuse_gap(reader, next, row_count);
}

static void read_tiers(struct json_reader *reader, const json_t *value,
                       struct json_in_event *ret_event)
{
    struct tier tiers[ROUTER_TIERS_MAX] = {0};
    size_t count = json_array_size(value);
    if (!json_is_array(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "tiers: must be an array of objects");
        return;
    }
    if (count < 1 || count > ROUTER_TIERS_MAX) {
        json_read_refuse(reader, SG_INVALID_VALUE, "tiers: must have 1 to %d members, has %zu",
                         ROUTER_TIERS_MAX, count);
        return;
    }
    for (size_t i = 0; i < count && reader->error == SG_OK; i++) {
        read_tier(reader, i, json_array_get(value, i), ret_event->rows, ret_event->tier_names[i],
                  &tiers[i]);
        if (reader->error == SG_OK)
            check_names(reader, tiers, i + 1);
    }
    if (reader->error != SG_OK)
        return;
    sort_tiers(tiers, count);
    check_cover(reader, tiers, count, ret_event->rows);
    for (size_t i = 0; i < count; i++)
        ret_event->tiers[i] = tiers[i].tier;
    ret_event->tier_count = count;
}

static void read_currency(struct json_reader *reader, const json_t *value,
                          struct json_in_event *ret_event)
{
    if (!ret_event->tier_count) {
        if (value)
            json_read_refuse(reader, SG_INVALID_VALUE,
                             "currency: goes with tiers; without them seats cost nothing");
        return;
    }
    if (!json_is_string(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "currency: %s three letters of ISO 4217 like EUR",
                         value ? "must be" : "is missing; tiers need it: give");
        return;
    }
    const char *text = json_string_value(value);
    if (strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 3 || text[3])
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "currency: must be three capital letters of ISO 4217 like EUR");
    else
        memcpy(ret_event->currency, text, 4);
}

/* --- the event -------------------------------------------------------------------------------- */

static void read_event(struct json_reader *reader, json_t *root, int64_t max_seats,
                       struct json_in_event *ret_event)
{
    static const char *const names[] = {"name",  "startsAt", "rows",       "cols", "shard",
                                        "tiers", "currency", "maxPerUser", NULL};
    const json_t *values[8] = {0};
    json_read_members(reader, "", root, names, values);
    json_read_text(reader, "name", values[0], ROUTER_NAME_MAX, ret_event->name);
    read_starts_at(reader, values[1], &ret_event->starts_at_us);
    ret_event->rows = (int32_t)json_read_integer(reader, "rows", values[2], 1, JSON_IN_GRID_MAX);
    ret_event->cols = (int32_t)json_read_integer(reader, "cols", values[3], 1, JSON_IN_GRID_MAX);
    int64_t total = (int64_t)ret_event->rows * ret_event->cols;
    if (total > max_seats)
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "rows, cols: an event has at most %lld seats, this %lld",
                         (long long)max_seats, (long long)total);
    ret_event->shard[0] = '\0';
    if (values[4])
        read_shard(reader, values[4], ret_event->shard);
    ret_event->tier_count = 0;
    ret_event->currency[0] = '\0';
    if (values[5])
        read_tiers(reader, values[5], ret_event);
    if (reader->error == SG_OK)
        read_currency(reader, values[6], ret_event);
    ret_event->max_per_user = 0;
    if (values[7])
        ret_event->max_per_user =
            (int32_t)json_read_integer(reader, "maxPerUser", values[7], 1, INT32_MAX);
}

enum sg_error json_in_event(const char *body, size_t len, int64_t max_seats,
                            struct json_in_event *ret_event, char ret_detail[JSON_IN_DETAIL_SIZE])
{
    struct json_reader reader;
    json_read_start(&reader, ret_detail);
    json_t *root = json_read_object(&reader, body, len);
    if (root)
        read_event(&reader, root, max_seats, ret_event);
    json_decref(root);
    return reader.error;
}
