/*
 * Events out of the rows of the statements `event` and `events`, and copies of what an event points
 * to. Pure.
 *
 * A row: id, name, start, rows, cols, free seats; currency, limit, names of the tiers (a line
 * each), prices and first rows ("{1,5}").
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_EVENT_ROWS_H
#define SG_ROUTER_EVENT_ROWS_H

#include <libpq-fe.h>

#include "router/router.h"

enum event_column {
    EVENT_ID,
    EVENT_NAME,
    EVENT_STARTS_US,
    EVENT_ROWS,
    EVENT_COLS,
    EVENT_AVAILABLE,
    EVENT_CURRENCY,
    EVENT_MAX_PER_USER,
    EVENT_TIER_NAMES,
    EVENT_TIER_PRICES,
    EVENT_TIER_FIRST_ROWS
};

/* All rows, in one block with all that they point to; to be freed. NULL when memory runs out. */
struct event_info *event_rows_read(const PGresult *rows, const char *shard);

/* Room for what an event points to. */
struct event_texts {
    char name[ROUTER_NAME_MAX + 1];
    char currency[4];
    struct event_tier tiers[ROUTER_TIERS_MAX];
    char tier_names[ROUTER_TIERS_MAX][ROUTER_TIER_MAX + 1];
};

/* Copies there what the event points to, and lets it point to the copies. Its shard is left out. */
void event_texts_keep(struct event_texts *ret_texts, struct event_new *event);

#endif
