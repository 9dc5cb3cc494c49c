/*
 * A row by event and perhaps an id: asked of a replica, and if it finds nothing, once more of the
 * primary, since what a replica does not know may be too young for it.
 *
 *   lookup_row ─> replica ─> no row ─> primary ─> fn
 *                    └─────── row ────────────────^
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LOOKUP_ROW_H
#define SG_ROUTER_LOOKUP_ROW_H

#include "router/calls.h"
#include "router/router.h"

/* `result` has one row; NULL: error is not SG_OK. Borrowed for the callback. */
typedef void lookup_row_fn(void *arg, const struct route *route, enum sg_error error,
                           const PGresult *result);

struct row_wanted {
    enum statement statement; /* parameters: event id; the id, if there is one */
    int64_t event_id;
    const char *id;         /* UUID in text; NULL: none */
    enum sg_error missing;  /* what it is when the primary has none */
    bool of_primary;        /* it alone is asked */
    struct freshness fresh; /* else */
    int64_t deadline_us;    /* monotonic; 0: reads.deadline_ms from now */
};

/* `route` has shard and map_version filled in. SG_INVALID_VALUE: the id is none. */
enum sg_error lookup_row(const struct router_config *config, struct calls *calls,
                         const struct route *route, const struct row_wanted *wanted,
                         lookup_row_fn *fn, void *arg);

/* What a reader asks for, with the default bound of the settings. */
struct freshness lookup_fresh(const struct router_config *config, const struct route *route,
                              const struct read_wish *wish);

/* For call_request.refusal: the guard's word, in the first column of the first row. */
enum sg_error lookup_guard(const PGresult *result);

/* A text column, NULL for SQL NULL; a number, 0 for NULL. Borrowed from the result. */
const char *lookup_text(const PGresult *rows, int row, int column);
int64_t lookup_number(const PGresult *rows, int row, int column);
/* Allocated parameters for a call, NULL when memory runs out. */
struct params *lookup_params(void);

#endif
