/*
 * My tickets: the bookings of one user over all shards. See lookups.h.
 *
 *   index in Redis ─> which shards hold some ─┬─> shard 1 ─┐
 *     └ not known: all of them                ├─> shard 2 ─┼─> all in: merge, cut at limit ─> fn
 *   tokens of the request: those shards, too ─┴─> shard n ─┘   (who is late is named as missing)
 *
 * How far the index is behind is not known, so a reader who has set a bound has all shards asked.
 *
 * The order is that of struct ticket_place, the same on every shard and for every map, so a cursor
 * is a place in it and no list of shards: a page begins behind it wherever its tickets come from. A
 * shard that comes back later shows what lies behind the cursor, never again what was shown.
 *
 * Everything together takes reads.partial_timeout_ms. The index may take half of that at most; a
 * shard of which no node is up is missing at once.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/params.h"
#include "router/route.h"
#include "router/topology.h"

/* PostgreSQL's binary timestamptz counts from 2000-01-01; INT64_MIN is '-infinity'. */
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

struct search;

struct search_shard {
    struct search *search;
    char name[SHARDMAP_NAME_MAX + 1];
    struct freshness fresh;
    struct route route; /* who answered */
    bool asked;
    bool wanted;
    bool missing;
    struct ticket *tickets; /* one block with all that they point to */
    size_t count;
    size_t next; /* during the merge */
};

struct search {
    const struct router_config *config;
    struct calls *calls;
    router_tickets_fn *fn;
    void *arg;
    char user_id[ROUTER_USER_MAX + 1];
    bool has_after;
    struct ticket_place after;
    size_t limit;
    int64_t map_version;
    int64_t deadline_us;
    const char *source;
    size_t waiting; /* shards that have not answered */
    size_t shard_count;
    struct search_shard shards[];
};

static void search_free(struct search *search)
{
    for (size_t i = 0; i < search->shard_count; i++)
        free(search->shards[i].tickets);
    free(search);
}

/* --- one shard's rows ------------------------------------------------------------------------- */

enum column {
    COL_BOOKING,
    COL_EVENT,
    COL_NAME,
    COL_STARTS_US,
    COL_COLS,
    COL_STATUS,
    COL_SEATS,
    COL_CREATED_US,
    COL_EXPIRES_US,
    COL_AMOUNT,
    COL_CURRENCY
};

static size_t count_seats(const char *text)
{
    size_t count = 1; /* commas and one; "{}" is none, and room for it does no harm */
    for (; *text; text++)
        count += *text == ',';
    return count < ROUTER_SEATS_MAX ? count : ROUTER_SEATS_MAX;
}

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

static const char *copy_text(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    const char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

static void fill_ticket(const struct search_shard *shard, const PGresult *rows, int row,
                        struct seat **seats, char **texts, struct ticket *ret_ticket)
{
    const char *numbers = PQgetvalue(rows, row, COL_SEATS);
    struct ticket ticket = {
        .booking = {.event_id = number(rows, row, COL_EVENT),
                    .user_id = shard->search->user_id,
                    .status = copy_text(texts, PQgetvalue(rows, row, COL_STATUS)),
                    .seats = *seats,
                    .created_at_us = number(rows, row, COL_CREATED_US),
                    .expires_at_us = number(rows, row, COL_EXPIRES_US),
                    .amount = number(rows, row, COL_AMOUNT)},
        .event_name = copy_text(texts, PQgetvalue(rows, row, COL_NAME)),
        .starts_at_us = number(rows, row, COL_STARTS_US)};
    snprintf(ticket.booking.booking_id, sizeof(ticket.booking.booking_id), "%s",
             PQgetvalue(rows, row, COL_BOOKING));
    memcpy(ticket.shard, shard->name, sizeof(ticket.shard));
    if (!PQgetisnull(rows, row, COL_CURRENCY))
        ticket.booking.currency = copy_text(texts, PQgetvalue(rows, row, COL_CURRENCY));
    ticket.booking.seat_count =
        lookup_seats(numbers, (int32_t)number(rows, row, COL_COLS), *seats, count_seats(numbers));
    *seats += ticket.booking.seat_count;
    *ret_ticket = ticket;
}

/* Copies the rows: the result goes away before the last shard has answered. */
static bool keep_rows(struct search_shard *shard, const PGresult *rows)
{
    size_t count = (size_t)PQntuples(rows);
    size_t seat_count = 0;
    size_t text_size = 1;
    for (int row = 0; row < (int)count; row++) {
        seat_count += count_seats(PQgetvalue(rows, row, COL_SEATS));
        text_size += (size_t)PQgetlength(rows, row, COL_NAME) + 1;
        text_size += (size_t)PQgetlength(rows, row, COL_STATUS) + 1;
        text_size += (size_t)PQgetlength(rows, row, COL_CURRENCY) + 1;
    }
    shard->tickets =
        malloc(count * sizeof(struct ticket) + seat_count * sizeof(struct seat) + text_size);
    if (!shard->tickets)
        return false;
    struct seat *seats = (struct seat *)(shard->tickets + count);
    char *texts = (char *)(seats + seat_count);
    for (int row = 0; row < (int)count; row++)
        fill_ticket(shard, rows, row, &seats, &texts, &shard->tickets[row]);
    shard->count = count;
    return true;
}

/* --- the merge -------------------------------------------------------------------------------- */

/* -1, 0, 1. Text of UUIDs in lower case sorts as the UUIDs do. */
static int compare(const struct ticket *a, const struct ticket *b)
{
    if (a->starts_at_us != b->starts_at_us)
        return a->starts_at_us < b->starts_at_us ? -1 : 1;
    if (a->booking.event_id != b->booking.event_id)
        return a->booking.event_id < b->booking.event_id ? -1 : 1;
    return strcmp(a->booking.booking_id, b->booking.booking_id);
}

/* The shard whose next ticket comes first, or NULL at the end. */
static struct search_shard *first_of_all(struct search *search)
{
    struct search_shard *best = NULL;
    for (size_t i = 0; i < search->shard_count; i++) {
        struct search_shard *shard = &search->shards[i];
        if (shard->next < shard->count &&
            (!best || compare(&shard->tickets[shard->next], &best->tickets[best->next]) < 0))
            best = shard;
    }
    return best;
}

/* A copy of a booking that a moved range left behind on another shard is shown once. */
static size_t merge(struct search *search, struct ticket *ret_tickets)
{
    size_t count = 0;
    struct search_shard *shard;
    while ((shard = first_of_all(search))) {
        const struct ticket *ticket = &shard->tickets[shard->next];
        bool again = count > 0 && compare(&ret_tickets[count - 1], ticket) == 0;
        if (!again && count == search->limit)
            break;
        shard->next++;
        if (!again)
            ret_tickets[count++] = *ticket;
    }
    return count;
}

static void finish(struct search *search)
{
    struct ticket *tickets = calloc(search->limit, sizeof(*tickets));
    const char **missing = calloc(search->shard_count + 1, sizeof(*missing));
    struct route *sources = calloc(search->shard_count + 1, sizeof(*sources));
    struct ticket_page page = {.tickets = tickets,
                               .missing_shards = missing,
                               .sources = sources,
                               .source = search->source,
                               .map_version = search->map_version};
    enum sg_error error = tickets && missing && sources ? SG_OK : SG_NO_MEMORY;
    for (size_t i = 0; error == SG_OK && i < search->shard_count; i++) {
        const struct search_shard *shard = &search->shards[i];
        if (shard->missing)
            missing[page.missing_count++] = shard->name;
        else if (shard->asked)
            sources[page.source_count++] = shard->route;
    }
    if (error == SG_OK && page.missing_count == search->shard_count)
        error = SG_SHARD_UNAVAILABLE;
    if (error == SG_OK) {
        page.ticket_count = merge(search, tickets);
        page.more = first_of_all(search) != NULL;
    }
    search->fn(search->arg, error, &page);
    free(tickets);
    free(missing);
    free(sources);
    search_free(search);
}

/* --- asking ----------------------------------------------------------------------------------- */

static void on_rows(void *arg, const struct call_reply *reply)
{
    struct search_shard *shard = arg;
    shard->route = *reply->route;
    if (reply->error != SG_OK || !keep_rows(shard, reply->result))
        shard->missing = true;
    if (--shard->search->waiting == 0)
        finish(shard->search);
}

/* User, then the place to go on from, then how many. */
static bool encode(struct params *params, const struct search *search)
{
    struct uuid booking_id = {{0}};
    if (search->has_after && !uuid_parse(search->after.booking_id, &booking_id))
        return false;
    params_text(params, search->user_id);
    params_i64(params,
               search->has_after ? search->after.starts_at_us - POSTGRES_EPOCH_US : INT64_MIN);
    params_i64(params, search->has_after ? search->after.event_id : 0);
    params_uuid(params, &booking_id);
    params_i64(params, (int64_t)search->limit + 1);
    return true;
}

static enum sg_error ask(struct search_shard *shard, int64_t deadline_ms)
{
    const struct search *search = shard->search;
    struct params *params = malloc(sizeof(*params));
    if (!params)
        return SG_NO_MEMORY;
    params_init(params);
    if (!encode(params, search)) {
        params_done(params);
        free(params);
        return SG_INTERNAL;
    }
    struct call_request request = {.target = CALL_READ,
                                   .fresh = shard->fresh,
                                   .deadline_ms = deadline_ms,
                                   .statement = STATEMENT_TICKETS,
                                   .params = params};
    memcpy(request.route.shard, shard->name, sizeof(shard->name));
    request.route.map_version = search->map_version;
    return call_start(search->calls, &request, on_rows, shard);
}

/* True if some node of the shard is up, or nobody has looked yet. */
static bool may_answer(const struct search *search, const char *shard)
{
    const struct router_config *config = search->config;
    snapshot_begin(config->reader);
    const struct topology *topology = snapshot_get(config->topologies);
    bool may = !topology || route_is_readable(topology, shard);
    snapshot_end(config->reader);
    return may;
}

/* Asks the wanted shards; search->waiting says how many will answer. */
static void ask_wanted(struct search *search)
{
    int64_t whole_ms = search->config->settings->reads.partial_timeout_ms;
    int64_t left_ms = (search->deadline_us - clock_mono_us()) / 1000;
    if (left_ms < whole_ms / 2)
        left_ms = whole_ms / 2;
    for (size_t i = 0; i < search->shard_count; i++) {
        struct search_shard *shard = &search->shards[i];
        if (!shard->wanted)
            continue;
        shard->asked = may_answer(search, shard->name) && ask(shard, left_ms) == SG_OK;
        search->waiting += shard->asked;
        shard->missing = !shard->asked;
    }
}

static void on_owners(void *arg, const bool *holds, size_t count)
{
    struct search *search = arg;
    for (size_t i = 0; i < count; i++)
        search->shards[i].wanted =
            !holds || holds[i] || freshness_is_asked(&search->shards[i].fresh);
    search->source = holds ? "redis" : "all";
    ask_wanted(search);
    if (search->waiting == 0)
        finish(search);
}

static bool ask_index(struct search *search, struct counters *counters)
{
    const char **names = malloc(search->shard_count * sizeof(*names));
    if (!names)
        return false;
    for (size_t i = 0; i < search->shard_count; i++)
        names[i] = search->shards[i].name;
    enum sg_error error =
        counters_owners(counters, search->user_id, names, search->shard_count, on_owners, search);
    free(names);
    return error == SG_OK;
}

static struct search *search_new(const struct router_config *config, struct calls *calls,
                                 const struct shardmap *map, const struct tickets_request *request)
{
    size_t count = shardmap_shard_count(map);
    struct search *search = calloc(1, sizeof(*search) + count * sizeof(search->shards[0]));
    if (!search)
        return NULL;
    search->config = config;
    search->calls = calls;
    snprintf(search->user_id, sizeof(search->user_id), "%s", request->user_id);
    if (request->after) {
        search->has_after = true;
        search->after = *request->after;
    }
    search->limit = request->limit;
    search->map_version = shardmap_version(map);
    search->deadline_us = clock_mono_us() + config->settings->reads.partial_timeout_ms * 1000;
    search->source = "all";
    search->shard_count = count;
    for (size_t i = 0; i < count; i++) {
        struct search_shard *shard = &search->shards[i];
        shard->search = search;
        shard->wanted = true;
        snprintf(shard->name, sizeof(shard->name), "%s", shardmap_shard(map, (int)i)->name);
        shard->fresh = freshness_of(&request->wish, shard->name,
                                    config->settings->reads.max_staleness_ms * 1000);
    }
    return search;
}

enum sg_error tickets_start(const struct router_config *config, struct calls *calls,
                            struct counters *counters, const struct shardmap *map,
                            const struct tickets_request *request, router_tickets_fn *fn, void *arg)
{
    struct search *search = search_new(config, calls, map, request);
    if (!search)
        return SG_NO_MEMORY;
    search->fn = fn;
    search->arg = arg;
    if (counters && ask_index(search, counters))
        return SG_OK;
    ask_wanted(search);
    if (search->waiting > 0)
        return SG_OK;
    search_free(search);
    return SG_SHARD_UNAVAILABLE;
}
