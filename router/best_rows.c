/*
 * A read of an event's seats, off the wire. See best_rows.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/best_rows.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "router/seatmaps.h"

#define TEXT_OID 25

enum view_column {
    COL_ROWS,
    COL_COLS,
    COL_BOOKED,
    COL_HELD,
    COL_LEFT_MS,
    COL_TIER_NAMES,
    COL_TIER_ROWS,
    COL_COUNT
};

/* What has to be freed of a read. */
struct arrays {
    int32_t *booked;
    int32_t *held;
    int32_t *left_ms;
    int32_t *tier_rows;
};

struct best_names {
    char names[ROUTER_TIERS_MAX][ROUTER_TIER_MAX + 1];
    size_t count;
};

static int32_t read_i32(const char *bytes)
{
    uint32_t wire;
    memcpy(&wire, bytes, sizeof(wire));
    return (int32_t)ntohl(wire);
}

/* PostgreSQL's binary text[], of at most ROUTER_TIERS_MAX names of at most ROUTER_TIER_MAX bytes.
 * False if the bytes are anything else; *ret_names is then of no use. */
static bool read_names(const char *bytes, size_t len, struct best_names *ret_names)
{
    ret_names->count = 0;
    if (len < 12 || read_i32(bytes + 8) != TEXT_OID)
        return false;
    if (read_i32(bytes) == 0)
        return true;
    if (read_i32(bytes) != 1 || len < 20)
        return false;
    int32_t count = read_i32(bytes + 12);
    if (count < 0 || count > ROUTER_TIERS_MAX)
        return false;
    size_t at = 20;
    for (int32_t i = 0; i < count; i++) {
        if (len - at < 4)
            return false;
        int32_t size = read_i32(bytes + at);
        at += 4;
        if (size < 0 || size > ROUTER_TIER_MAX || (size_t)size > len - at)
            return false; /* NULL has the length -1 */
        memcpy(ret_names->names[i], bytes + at, (size_t)size);
        ret_names->names[i][size] = '\0';
        at += (size_t)size;
    }
    ret_names->count = (size_t)count;
    return at == len;
}

static bool column_i32(const PGresult *rows, int column, int32_t *ret_value)
{
    if (PQgetlength(rows, 0, column) != 4)
        return false;
    *ret_value = read_i32(PQgetvalue(rows, 0, column));
    return *ret_value > 0;
}

static bool column_ints(const PGresult *rows, int column, int32_t **ret_values, size_t *ret_count)
{
    if (PQgetisnull(rows, 0, column)) {
        *ret_values = NULL;
        *ret_count = 0;
        return true;
    }
    return seatmap_decode_ints(PQgetvalue(rows, 0, column), (size_t)PQgetlength(rows, 0, column),
                               ret_values, ret_count);
}

static bool column_names(const PGresult *rows, struct best_names *ret_names)
{
    ret_names->count = 0;
    return PQgetisnull(rows, 0, COL_TIER_NAMES) ||
           read_names(PQgetvalue(rows, 0, COL_TIER_NAMES),
                      (size_t)PQgetlength(rows, 0, COL_TIER_NAMES), ret_names);
}

static bool read_arrays(const PGresult *rows, struct arrays *arrays, struct bestview_read *read)
{
    size_t left_count = 0;
    size_t tier_count = 0;
    bool ok = column_ints(rows, COL_BOOKED, &arrays->booked, &read->booked_count) &&
              column_ints(rows, COL_HELD, &arrays->held, &read->held_count) &&
              column_ints(rows, COL_LEFT_MS, &arrays->left_ms, &left_count) &&
              column_ints(rows, COL_TIER_ROWS, &arrays->tier_rows, &tier_count);
    read->booked = arrays->booked;
    read->held = arrays->held;
    read->held_left_ms = arrays->left_ms;
    read->tier_first_rows = arrays->tier_rows;
    return ok && left_count == read->held_count && tier_count == read->tier_count;
}

enum sg_error best_rows_load(struct bestview *view, const PGresult *rows, int64_t now_us)
{
    struct bestview_read read = {.rows = 0};
    struct arrays arrays = {.booked = NULL};
    struct best_names names;
    const char *name_of[ROUTER_TIERS_MAX];
    enum sg_error error = SG_INTERNAL;
    if (PQntuples(rows) == 0) {
        bestview_unask(view);
        return SG_UNKNOWN_EVENT;
    }
    if (PQnfields(rows) == COL_COUNT && column_i32(rows, COL_ROWS, &read.rows) &&
        column_i32(rows, COL_COLS, &read.cols) && column_names(rows, &names)) {
        for (size_t i = 0; i < names.count; i++)
            name_of[i] = names.names[i];
        read.tier_names = name_of;
        read.tier_count = names.count;
        if (read_arrays(rows, &arrays, &read))
            error = bestview_load(view, &read, now_us) ? SG_OK : SG_OVERLOADED;
    }
    if (error != SG_OK)
        bestview_unask(view);
    free(arrays.booked);
    free(arrays.held);
    free(arrays.left_ms);
    free(arrays.tier_rows);
    return error;
}
