/*
 * Events out of rows. See event_rows.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/event_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of an array of numbers in PostgreSQL's text; "" and "{}" have none. */
static size_t count_numbers(const char *text)
{
    size_t count = text[0] == '{' && text[1] != '}';
    for (; *text; text++)
        count += *text == ',';
    return count;
}

static size_t count_tiers(const PGresult *rows, int row)
{
    size_t count = count_numbers(PQgetvalue(rows, row, EVENT_TIER_FIRST_ROWS));
    return count < ROUTER_TIERS_MAX ? count : ROUTER_TIERS_MAX;
}

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

static char *copy_text(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

/* The next number; 0 past the end. */
static int64_t next_number(const char **text)
{
    char *end;
    if (**text != '{' && **text != ',')
        return 0;
    int64_t value = strtoll(*text + 1, &end, 10);
    *text = end;
    return value;
}

/* Cuts the next line off. */
static const char *next_line(char **text)
{
    char *line = *text;
    char *end = line + strcspn(line, "\n");
    *text = *end ? end + 1 : end;
    *end = '\0';
    return line;
}

static void fill_tiers(const PGresult *rows, int row, struct event_tier *tiers, size_t count,
                       char **texts)
{
    const char *prices = PQgetvalue(rows, row, EVENT_TIER_PRICES);
    const char *first_rows = PQgetvalue(rows, row, EVENT_TIER_FIRST_ROWS);
    char *names = copy_text(texts, PQgetvalue(rows, row, EVENT_TIER_NAMES));
    for (size_t i = 0; i < count; i++)
        tiers[i] = (struct event_tier){.name = next_line(&names),
                                       .price = next_number(&prices),
                                       .first_row = (int32_t)next_number(&first_rows)};
}

static void fill(const PGresult *rows, int row, const char *shard, struct event_info *ret_event,
                 struct event_tier **tiers, char **texts)
{
    struct event_info event = {.event_id = number(rows, row, EVENT_ID),
                               .name = copy_text(texts, PQgetvalue(rows, row, EVENT_NAME)),
                               .starts_at_us = number(rows, row, EVENT_STARTS_US),
                               .rows = (int32_t)number(rows, row, EVENT_ROWS),
                               .cols = (int32_t)number(rows, row, EVENT_COLS),
                               .available = number(rows, row, EVENT_AVAILABLE),
                               .max_per_user = (int32_t)number(rows, row, EVENT_MAX_PER_USER),
                               .tier_count = count_tiers(rows, row)};
    if (!PQgetisnull(rows, row, EVENT_CURRENCY))
        event.currency = copy_text(texts, PQgetvalue(rows, row, EVENT_CURRENCY));
    if (event.tier_count) {
        event.tiers = *tiers;
        fill_tiers(rows, row, *tiers, event.tier_count, texts);
        *tiers += event.tier_count;
    }
    snprintf(event.shard, sizeof(event.shard), "%s", shard);
    *ret_event = event;
}

struct event_info *event_rows_read(const PGresult *rows, const char *shard)
{
    size_t count = (size_t)PQntuples(rows);
    size_t tier_count = 0;
    size_t text_size = 1;
    for (int row = 0; row < (int)count; row++) {
        tier_count += count_tiers(rows, row);
        text_size += (size_t)PQgetlength(rows, row, EVENT_NAME) + 1;
        text_size += (size_t)PQgetlength(rows, row, EVENT_CURRENCY) + 1;
        text_size += (size_t)PQgetlength(rows, row, EVENT_TIER_NAMES) + 1;
    }
    struct event_info *events =
        malloc(count * sizeof(*events) + tier_count * sizeof(struct event_tier) + text_size);
    if (!events)
        return NULL;
    struct event_tier *tiers = (struct event_tier *)(events + count);
    char *texts = (char *)(tiers + tier_count);
    for (int row = 0; row < (int)count; row++)
        fill(rows, row, shard, &events[row], &tiers, &texts);
    return events;
}

void event_texts_keep(struct event_texts *ret_texts, struct event_new *event)
{
    struct event_texts *texts = ret_texts;
    snprintf(texts->name, sizeof(texts->name), "%s", event->name);
    event->name = texts->name;
    if (event->currency) {
        snprintf(texts->currency, sizeof(texts->currency), "%s", event->currency);
        event->currency = texts->currency;
    }
    if (event->tier_count > ROUTER_TIERS_MAX)
        event->tier_count = ROUTER_TIERS_MAX;
    for (size_t i = 0; i < event->tier_count; i++) {
        texts->tiers[i] = event->tiers[i];
        snprintf(texts->tier_names[i], sizeof(texts->tier_names[i]), "%s", event->tiers[i].name);
        texts->tiers[i].name = texts->tier_names[i];
    }
    event->tiers = event->tier_count ? texts->tiers : NULL;
}
