/*
 * The keys of a slice as Redis has them behind everything up to C: read, compared, healed. See
 * reconcile.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "replication/feed.h"
#include "replication/reconcile_internal.h"

#define FIELDS_ASKED 500 /* in one HMGET */

/* --- healing ---------------------------------------------------------------------------------- */

/* False: there is no room in line now. */
static bool inject(struct reconcile *reconcile, const struct heal *heal)
{
    struct effect effect;
    struct position position;
    if (heal->is_ticket ? !compare_heal_ticket(reconcile->compare, heal->index, &effect, &position)
                        : !compare_heal_event(reconcile->compare, heal->index, &effect, &position))
        return true;
    enum sg_error error = feed_inject(reconcile->config.feed, &effect, &position);
    if (error == SG_OVERLOADED)
        return false;
    if (error)
        reconcile_fail(reconcile, "healing: %s", sg_error_title(error));
    else
        reconcile->report.healed++;
    return true;
}

static void heal(struct reconcile *reconcile, bool is_ticket, size_t index)
{
    const struct heal one = {is_ticket, index};
    if (!reconcile->config.heal || inject(reconcile, &one))
        return;
    struct heal *heals = reconcile_make_room(reconcile, reconcile->heals, reconcile->heal_count,
                                             &reconcile->heal_size, sizeof(*reconcile->heals));
    if (!heals)
        return;
    reconcile->heals = heals;
    heals[reconcile->heal_count++] = one;
}

void reconcile_heal(struct reconcile *reconcile)
{
    while (!reconcile_is_over(reconcile) && reconcile->heal_count &&
           inject(reconcile, &reconcile->heals[reconcile->heal_count - 1]))
        reconcile->heal_count--;
    if (reconcile_is_over(reconcile))
        return;
    if (reconcile->heal_count)
        reconcile_go_on_in(reconcile, RECONCILE_POLL_US);
    else
        reconcile_finish(reconcile);
}

static struct reconcile_drift *add_drift(struct reconcile *reconcile, const char *what)
{
    static struct reconcile_drift unlisted;
    struct reconcile_report *report = &reconcile->report;
    if (report->drift_count == RECONCILE_DRIFTS_MAX)
        return &unlisted;
    struct reconcile_drift *drift = &report->drifts[report->drift_count++];
    snprintf(drift->what, sizeof(drift->what), "%s", what);
    return drift;
}

/* --- reading Redis ---------------------------------------------------------------------------- */

static const char *const counter_names[] = {"total", "available", "held", "booked", "rows", "cols"};
#define COUNTERS (sizeof(counter_names) / sizeof(counter_names[0]))

static struct compare_event_key read_event(const redisReply *reply)
{
    struct compare_event_key key = {.whole = true};
    int64_t *const values[] = {&key.total,  &key.available, &key.held,
                               &key.booked, &key.rows,      &key.cols};
    for (size_t i = 0; i < COUNTERS; i++) {
        const redisReply *item = reply->element[i];
        const bool there = item->type == REDIS_REPLY_STRING;
        key.any |= there;
        key.whole &= there && reconcile_parse_number(item->str, (size_t)item->len, values[i]);
    }
    const redisReply *at = reply->element[COUNTERS];
    key.placed =
        at->type == REDIS_REPLY_STRING && position_parse(at->str, (size_t)at->len, &key.at);
    return key;
}

static void on_event_read(void *arg, const redisReply *reply)
{
    struct ask *ask = arg;
    size_t index = ask->index;
    char what[COMPARE_WHAT_SIZE];
    struct reconcile *reconcile = reconcile_take_ask(ask, reply);
    if (!reconcile)
        return;
    if (reply->elements != COUNTERS + 1) {
        reconcile_fail(reconcile, "Redis: not the answer to this command");
        return;
    }
    const struct compare_event_key key = read_event(reply);
    reconcile->report.events++;
    if (compare_event(reconcile->compare, index, &key, what) == COMPARE_DRIFT) {
        struct reconcile_drift *drift = add_drift(reconcile, what);
        drift->event_id = compare_event_id(reconcile->compare, index);
        reconcile->report.event_drift++;
        heal(reconcile, false, index);
    } else if (reconcile->config.only_events && !key.any && !key.placed) {
        heal(reconcile, false, index); /* asked for by name, and nowhere: leaves a tombstone */
    }
    reconcile_read(reconcile);
}

static void compare_one_ticket(struct reconcile *reconcile, size_t index, const redisReply *item)
{
    const struct compare_ticket *ticket = compare_ticket_at(reconcile->compare, index);
    char what[COMPARE_WHAT_SIZE];
    int64_t event_id = 0;
    if (item->type == REDIS_REPLY_STRING &&
        (!reconcile_parse_number(item->str, (size_t)item->len, &event_id) || event_id <= 0))
        event_id = -1;
    reconcile->report.tickets++;
    if (compare_ticket(reconcile->compare, index, event_id, what) != COMPARE_DRIFT)
        return;
    struct reconcile_drift *drift = add_drift(reconcile, what);
    drift->event_id = ticket->event_id ? ticket->event_id : event_id;
    snprintf(drift->user, sizeof(drift->user), "%s", ticket->user);
    reconcile->report.ticket_drift++;
    heal(reconcile, true, index);
}

static void on_tickets_read(void *arg, const redisReply *reply)
{
    struct ask *ask = arg;
    const size_t first = ask->index;
    const size_t count = ask->count;
    struct reconcile *reconcile = reconcile_take_ask(ask, reply);
    if (!reconcile)
        return;
    if (reply->elements != count) {
        reconcile_fail(reconcile, "Redis: not the answer to this command");
        return;
    }
    for (size_t i = 0; i < count && !reconcile_is_over(reconcile); i++)
        compare_one_ticket(reconcile, first + i, reply->element[i]);
    reconcile_read(reconcile);
}

static void read_one_event(struct reconcile *reconcile, size_t index)
{
    char key[REDISKEY_MAX];
    struct dynbuf command;
    size_t len = rediskey_event(key, compare_event_id(reconcile->compare, index), reconcile->shard,
                                reconcile->config.generation);
    dynbuf_init(&command, RECONCILE_COMMAND_MAX);
    redisresp_begin(&command, 2 + COUNTERS + 1);
    redisresp_args(&command, "HMGET");
    redisresp_arg(&command, key, len);
    for (size_t i = 0; i < COUNTERS; i++)
        redisresp_args(&command, counter_names[i]);
    redisresp_args(&command, "at");
    reconcile_send_ask(reconcile, &command, on_event_read, index, 0);
}

/* Tickets of one user, which stand together. */
static size_t read_some_tickets(struct reconcile *reconcile, size_t first)
{
    const struct compare *compare = reconcile->compare;
    const char *user = compare_ticket_at(compare, first)->user;
    char key[REDISKEY_MAX];
    char booking[UUID_TEXT_LEN + 1];
    struct dynbuf command;
    size_t count = 1;
    while (count < FIELDS_ASKED && first + count < compare_ticket_count(compare) &&
           strcmp(compare_ticket_at(compare, first + count)->user, user) == 0)
        count++;
    size_t len = rediskey_tickets(key, user, reconcile->shard, reconcile->config.generation);
    dynbuf_init(&command, RECONCILE_COMMAND_MAX);
    redisresp_begin(&command, 2 + count);
    redisresp_args(&command, "HMGET");
    redisresp_arg(&command, key, len);
    for (size_t i = 0; i < count; i++) {
        uuid_format(&compare_ticket_at(compare, first + i)->booking_id, booking);
        redisresp_arg(&command, booking, UUID_TEXT_LEN);
    }
    reconcile_send_ask(reconcile, &command, on_tickets_read, first, count);
    return count;
}

void reconcile_read(struct reconcile *reconcile)
{
    const struct compare *compare = reconcile->compare;
    while (!reconcile_is_over(reconcile) && reconcile->asks_in_flight < RECONCILE_ASKS_MAX) {
        if (reconcile->next_event < compare_event_count(compare))
            read_one_event(reconcile, reconcile->next_event++);
        else if (reconcile->next_ticket < compare_ticket_count(compare))
            reconcile->next_ticket += read_some_tickets(reconcile, reconcile->next_ticket);
        else
            break;
    }
    if (reconcile_is_over(reconcile) || reconcile->asks_in_flight)
        return;
    reconcile_set_state(reconcile, RECONCILE_HEALING);
    reconcile_heal(reconcile);
}
