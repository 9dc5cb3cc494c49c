/*
 * Messages of the stream become effects in the outbox. See feed.h.
 *
 * Positions. The LSN of a position is that of the commit's record, which BEGIN tells beforehand;
 * progress and the shard's mark count by the commit's end, which only COMMIT tells. Places count
 * the transaction's changes of our tables from 1, whether they have an effect or not; all effects
 * of one change share its place, and the outbox takes them as a whole. Both follow from the WAL
 * alone, so every decoding of it gives the same, also by another version of the projection. A
 * transaction whose BEGIN lies below start_lsn ended at or before it: both are borders of records.
 *
 * A message that finds the outbox full, or the gate closed, stays with the stream and comes again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "replication/feed_internal.h"

#define WAL_PAGE 8192
#define COMMIT_RECORD_MAX 65536 /* with thousands of subtransactions */

const char *const feed_table_names[FEED_TABLES] = {"events", "bookings", "unknown"};

static void blocked(struct feed *feed, const char *problem)
{
    feed_over(feed, FEED_BLOCKED, problem);
}

/* False, and the message stays with the stream. */
static bool not_now(struct feed *feed)
{
    feed->stalled = feed->state == FEED_RUNNING;
    return feed->state != FEED_RUNNING;
}

/* The transaction is whole on the standby. Its LSN may lie inside a record, but only at the border
 * of a page; the commit's record, of which BEGIN tells the start alone, is to end before that. */
static bool is_behind_gate(const struct feed *feed, uint64_t final_lsn)
{
    uint64_t gate = feed->config.gate;
    uint64_t spare = gate % WAL_PAGE == 0 ? COMMIT_RECORD_MAX : 0;
    return gate > spare && final_lsn < gate - spare;
}

static bool take_begin(struct feed *feed, const struct pgoutput_message *message)
{
    bool skip = message->lsn < feed->config.start_lsn;
    if (!skip && !is_behind_gate(feed, message->lsn)) {
        feed->gate_us = message->time_us;
        return not_now(feed);
    }
    feed->gate_us = 0;
    feed->begin_lsn = message->lsn;
    feed->begin_us = message->time_us;
    feed->skip = skip;
    feed->place = 0;
    if (!skip && !feed->gathering.oldest_us)
        feed->gathering.oldest_us = message->time_us;
    return true;
}

static void take_commit(struct feed *feed, const struct pgoutput_message *message)
{
    feed->begin_lsn = 0;
    progress_received(&feed->progress, message->end_lsn);
    if (feed->skip)
        return;
    feed->gathering.end_lsn = message->end_lsn;
    feed->gathering.commit_us = message->time_us;
    feed->gathering.commits++;
    feed_gathered(feed);
}

static struct feed_relation *find_relation(struct feed *feed, uint32_t oid)
{
    for (size_t i = 0; i < feed->relation_count; i++) {
        if (feed->relations[i].oid == oid)
            return &feed->relations[i];
    }
    return NULL;
}

static void take_relation(struct feed *feed, const struct pgoutput_message *message)
{
    char problem[PROJECTION_PROBLEM_SIZE];
    enum sg_error error = projection_relation(feed->projection, message, problem);
    struct feed_relation *relation = find_relation(feed, message->oid);
    if (error == SG_MALFORMED)
        blocked(feed, problem);
    else if (error != SG_OK)
        feed_over(feed, FEED_STREAM_LOST, "out of memory");
    if (!relation && feed->relation_count < FEED_RELATIONS_MAX) {
        relation = &feed->relations[feed->relation_count++];
        relation->oid = message->oid;
    }
    if (relation)
        snprintf(relation->name, sizeof(relation->name), "%s.%s", message->schema, message->name);
}

static void count_change(struct feed *feed, const char *table, uint32_t oid)
{
    struct log_fields fields = feed_fields(feed);
    enum feed_table which = FEED_TABLE_UNKNOWN;
    for (int i = 0; i < FEED_TABLE_UNKNOWN; i++) {
        if (strcmp(table, feed_table_names[i]) == 0)
            which = (enum feed_table)i;
    }
    metrics_add(feed->changes_series[which], 1);
    if (which != FEED_TABLE_UNKNOWN)
        return;
    struct feed_relation *relation = find_relation(feed, oid);
    if (!relation || relation->logged)
        return;
    relation->logged = true;
    log_warn(&fields, "changes of %s are in the publication and mean nothing here", relation->name);
}

/* The effects of one change, all or none. */
static enum sg_error add_effects(struct feed *feed, const struct effects *effects)
{
    struct position position = {.lsn = feed->begin_lsn, .place = feed->place + 1};
    for (size_t i = 0; i < effects->count; i++) {
        enum sg_error error = outbox_add(feed->outbox, &effects->item[i], &position);
        if (error == SG_OVERLOADED && i == 0) {
            feed_send_gathered(feed);
            error = outbox_add(feed->outbox, &effects->item[i], &position);
        }
        if (error != SG_OK)
            return error;
        if (feed->tap)
            feed->tap(feed->tap_arg, &effects->item[i], &position);
    }
    return SG_OK;
}

static bool take_change(struct feed *feed, const struct pgoutput_message *message)
{
    struct effects effects;
    const char *table = feed_table_names[FEED_TABLE_UNKNOWN];
    char problem[PROJECTION_PROBLEM_SIZE];
    enum sg_error error = projection_change(feed->projection, message, &effects, &table, problem);
    if (error == SG_MALFORMED || !feed->begin_lsn) {
        blocked(feed, error == SG_MALFORMED ? problem : "a change outside a transaction");
        return true;
    }
    if (error == SG_OK)
        error = add_effects(feed, &effects);
    if (error == SG_OVERLOADED)
        return not_now(feed);
    if (error == SG_INVALID_VALUE)
        blocked(feed, "a change that stands before one that came earlier");
    else if (error != SG_OK)
        feed_over(feed, FEED_STREAM_LOST, "out of memory");
    count_change(feed, table, message->oid);
    if (strcmp(table, feed_table_names[FEED_TABLE_UNKNOWN]) != 0)
        feed->place++;
    if (effects.count) {
        feed->gathering.changes++;
        feed_gathered(feed);
    }
    return true;
}

bool feed_take(void *arg, const struct pgoutput_message *message, uint64_t lsn)
{
    struct feed *feed = arg;
    progress_received(&feed->progress, lsn);
    switch (message->type) {
    case PGOUTPUT_BEGIN:
        return take_begin(feed, message);
    case PGOUTPUT_COMMIT:
        take_commit(feed, message);
        return true;
    case PGOUTPUT_RELATION:
        take_relation(feed, message);
        return true;
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        return feed->skip || take_change(feed, message);
    case PGOUTPUT_TRUNCATE:
        if (!feed->skip && projection_truncates(feed->projection, message))
            feed_over(feed, FEED_TRUNCATED, "a table was truncated");
        return true;
    default: /* MESSAGE: the heartbeat, whose commit is what counts */
        return true;
    }
}
