/*
 * What Redis has of a generation: the keys that a SCAN brings, and the tickets in them. They are
 * suspects, to be asked for in PostgreSQL and read again. See reconcile.h.
 *
 * Also how commands go to Redis and come back.
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/redisresp.h"
#include "base/settings.h"
#include "replication/reconcile_internal.h"
#include "replication/sink.h"

#define SCANS_MAX 100
#define SCAN_COUNT_MIN 10
#define SCAN_COUNT_MAX 1000
#define SCANNED_EVENTS_MAX 10000
/* Suspected tickets; past it only the first page of each user is looked at. */
#define PAIRS_MAX 50000

/* --- asking Redis ----------------------------------------------------------------------------- */

/* The reconcile of an answered command; NULL when it is over, or the answer is the end of it. */
struct reconcile *reconcile_take_ask(struct ask *ask, const redisReply *reply)
{
    struct reconcile *reconcile = ask->reconcile;
    free(ask);
    reconcile->asks_in_flight--;
    reconcile_release(reconcile);
    if (reconcile_is_over(reconcile))
        return NULL;
    if (!reply)
        reconcile_fail(reconcile, "the connection to Redis was lost");
    else if (reply->type != REDIS_REPLY_ARRAY)
        reconcile_fail(reconcile, "Redis: %s",
                       reply->type == REDIS_REPLY_ERROR ? reply->str
                                                        : "not the answer to this command");
    else
        return reconcile;
    return NULL;
}

void reconcile_send_ask(struct reconcile *reconcile, struct dynbuf *command, redisconn_fn *fn,
                        size_t index, size_t count)
{
    struct ask *ask = malloc(sizeof(*ask));
    if (ask)
        *ask = (struct ask){reconcile, index, count};
    if (!ask || command->failed)
        reconcile_fail(reconcile, "out of memory");
    else if (!sink_ask(reconcile->config.sink, command, fn, ask))
        reconcile_fail(reconcile, "Redis is not connected");
    else {
        reconcile->asks_in_flight++;
        ask = NULL;
    }
    free(ask);
    dynbuf_done(command);
}

/* A whole number, as Redis has it in a hash. */
bool reconcile_parse_number(const char *text, size_t len, int64_t *ret_value)
{
    char copy[24];
    char *end;
    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    int64_t value = strtoll(copy, &end, 10);
    if (*end || strspn(copy, "-0123456789") != len)
        return false;
    *ret_value = value;
    return true;
}

bool reconcile_parse_uuid(const char *text, size_t len, struct uuid *ret_uuid)
{
    return len == UUID_TEXT_LEN && uuid_parse(text, ret_uuid);
}

/* --- suspects: what Redis has ----------------------------------------------------------------- */

static void go_on_listing(struct reconcile *reconcile);
/* SCAN, HSCAN: the cursor to go on with, and the items. */
static const redisReply *read_page(struct reconcile *reconcile, const redisReply *reply,
                                   uint64_t *ret_cursor)
{
    if (reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY) {
        reconcile_fail(reconcile, "Redis: not the answer to this command");
        return NULL;
    }
    *ret_cursor = strtoull(reply->element[0]->str, NULL, 10);
    return reply->element[1];
}

static void add_pair(struct reconcile *reconcile, size_t user, const redisReply *field,
                     const redisReply *value)
{
    struct pair pair = {.user = user};
    if (field->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING ||
        !reconcile_parse_uuid(field->str, (size_t)field->len, &pair.booking_id))
        return; /* at, epoch */
    if (!reconcile_parse_number(value->str, (size_t)value->len, &pair.event_id))
        pair.event_id = 0;
    struct pair *pairs = reconcile_make_room(reconcile, reconcile->pairs, reconcile->pair_count,
                                             &reconcile->pair_size, sizeof(*reconcile->pairs));
    if (!pairs)
        return;
    reconcile->pairs = pairs;
    pairs[reconcile->pair_count++] = pair;
}

static void on_listed(void *arg, const redisReply *reply);

static void list_user(struct reconcile *reconcile, size_t user, uint64_t cursor)
{
    char key[REDISKEY_MAX];
    char digits[24];
    struct dynbuf command;
    size_t len = rediskey_tickets(key, reconcile->users[user].name, reconcile->shard,
                                  reconcile->config.generation);
    dynbuf_init(&command, RECONCILE_COMMAND_MAX);
    snprintf(digits, sizeof(digits), "%" PRIu64, cursor);
    redisresp_begin(&command, 5);
    redisresp_args(&command, "HSCAN");
    redisresp_arg(&command, key, len);
    redisresp_args(&command, digits);
    redisresp_args(&command, "COUNT");
    redisresp_arg_i64(&command, SCAN_COUNT_MAX);
    reconcile_send_ask(reconcile, &command, on_listed, user, 0);
}

static void on_listed(void *arg, const redisReply *reply)
{
    struct ask *ask = arg;
    size_t user = ask->index;
    uint64_t cursor;
    struct reconcile *reconcile = reconcile_take_ask(ask, reply);
    const redisReply *page = reconcile ? read_page(reconcile, reply, &cursor) : NULL;
    if (!page)
        return;
    for (size_t i = 0; i + 1 < page->elements && !reconcile_is_over(reconcile); i += 2)
        add_pair(reconcile, user, page->element[i], page->element[i + 1]);
    if (reconcile_is_over(reconcile))
        return;
    if (cursor && reconcile->pair_count < PAIRS_MAX)
        list_user(reconcile, user, cursor);
    else
        go_on_listing(reconcile);
}

static void go_on_listing(struct reconcile *reconcile)
{
    while (!reconcile_is_over(reconcile) && reconcile->users_asked < reconcile->user_count &&
           reconcile->asks_in_flight < RECONCILE_ASKS_MAX)
        list_user(reconcile, reconcile->users_asked++, 0);
    if (!reconcile_is_over(reconcile) && !reconcile->asks_in_flight)
        reconcile_take_snapshot(reconcile);
}

static void add_suspect(struct reconcile *reconcile, const redisReply *item)
{
    struct rediskey key = {0};
    if (item->type != REDIS_REPLY_STRING)
        return;
    enum rediskey_kind kind = rediskey_parse(item->str, (size_t)item->len, reconcile->shard, &key);
    if (kind == REDISKEY_OTHER || key.generation != reconcile->config.generation)
        return;
    if (kind == REDISKEY_TICKETS) {
        struct scanned_user *users =
            reconcile_make_room(reconcile, reconcile->users, reconcile->user_count,
                                &reconcile->user_size, sizeof(*reconcile->users));
        if (!users)
            return;
        reconcile->users = users;
        memcpy(users[reconcile->user_count++].name, key.user, sizeof(key.user));
    } else if (kind == REDISKEY_EVENT) {
        int64_t *events = reconcile_make_room(reconcile, reconcile->events, reconcile->event_count,
                                              &reconcile->event_size, sizeof(*reconcile->events));
        if (!events)
            return;
        reconcile->events = events;
        events[reconcile->event_count++] = key.event_id;
    }
}

static void on_scanned(void *arg, const redisReply *reply)
{
    uint64_t cursor;
    struct reconcile *reconcile = reconcile_take_ask(arg, reply);
    const redisReply *page = reconcile ? read_page(reconcile, reply, &cursor) : NULL;
    if (!page)
        return;
    for (size_t i = 0; i < page->elements && !reconcile_is_over(reconcile); i++)
        add_suspect(reconcile, page->element[i]);
    if (reconcile_is_over(reconcile))
        return;
    reconcile->next.scan = cursor;
    reconcile->next.scanned = cursor == 0;
    const size_t slice = (size_t)reconcile->config.settings->cdc.reconcile_slice;
    if (reconcile->next.scanned || ++reconcile->scans >= SCANS_MAX ||
        reconcile->user_count >= slice || reconcile->event_count >= SCANNED_EVENTS_MAX)
        go_on_listing(reconcile);
    else
        reconcile_scan(reconcile);
}

/* Keys of this generation: sg1:{...}:SHARD.GEN, and none that goes on behind that. */
void reconcile_scan(struct reconcile *reconcile)
{
    struct dynbuf command;
    struct dynbuf pattern;
    char digits[24];
    int64_t count = reconcile->config.settings->cdc.reconcile_slice;
    count = count < SCAN_COUNT_MIN ? SCAN_COUNT_MIN : count;
    count = count > SCAN_COUNT_MAX ? SCAN_COUNT_MAX : count;
    dynbuf_init(&command, RECONCILE_COMMAND_MAX);
    dynbuf_init(&pattern, RECONCILE_COMMAND_MAX);
    dynbuf_adds(&pattern, "sg1:{*}:");
    for (const char *c = reconcile->shard; *c; c++)
        dynbuf_addf(&pattern, "\\%c", *c);
    dynbuf_addf(&pattern, ".%lld", (long long)reconcile->config.generation);
    snprintf(digits, sizeof(digits), "%" PRIu64, reconcile->next.scan);
    redisresp_begin(&command, 6);
    redisresp_args(&command, "SCAN");
    redisresp_args(&command, digits);
    redisresp_args(&command, "MATCH");
    redisresp_arg(&command, dynbuf_text(&pattern), pattern.len);
    redisresp_args(&command, "COUNT");
    redisresp_arg_i64(&command, count);
    dynbuf_done(&pattern);
    reconcile_send_ask(reconcile, &command, on_scanned, 0, 0);
}
