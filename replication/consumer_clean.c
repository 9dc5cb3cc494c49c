/*
 * Removal of what former generations have left: replication slots, which keep WAL, and keys.
 *
 *   slots  one after another: end who reads it, drop it, until it is gone
 *   keys   SCAN, a little at a time, not before readers have seen the switch ─> UNLINK
 *
 * Keys go also while nothing is fed, because a Redis that is full of left-overs has no room for a
 * new generation: then the generation that the hash names stays, unless it has lost its slot for
 * good.
 *
 * Only generations below `below` go, and never the current or the next one. `below` is the number
 * of this consumer's epoch or of a generation of its own: whoever came later took a higher number
 * for all it does. So a consumer that was replaced and does not know it yet removes nothing of its
 * successor's.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "replication/consumer_internal.h"

#define SCAN_COUNT 500
#define SCAN_PAUSE_US 20000
#define COMMANDS_MAX ((size_t)16 << 20)
#define DROP_PAUSE_US 100000

/* --- slots ------------------------------------------------------------------------------------ */

void clean_slot(struct consumer *consumer, const char *name)
{
    struct clean *clean = &consumer->clean;
    for (size_t i = 0; i < clean->drop_count; i++) {
        if (strcmp(clean->drops[i], name) == 0)
            return;
    }
    /* with a full list: the next look finds what is still there */
    if (clean->drop_count < REPAIR_SLOTS_MAX)
        snprintf(clean->drops[clean->drop_count++], REPAIR_SLOT_NAME_SIZE, "%s", name);
}

static bool in_use(const struct consumer *consumer, const char *slot)
{
    return (consumer->now && strcmp(consumer->now->slot, slot) == 0) ||
           strcmp(consumer->build.slot, slot) == 0;
}

static void forget_first(struct clean *clean)
{
    clean->drop_count--;
    memmove(clean->drops[0], clean->drops[1], clean->drop_count * sizeof(clean->drops[0]));
}

static void on_dropped(struct consumer *consumer, const struct pgask_answer *answer)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct clean *clean = &consumer->clean;
    clean->drop_asked = false;
    if (clean->drop_count == 0)
        return;
    if (answer->error != SG_OK) {
        /* read again by somebody, it seems */
        log_warn(&fields, "consumer: slot %s: %s", clean->drops[0], answer->reason);
        clean->next_drop_us = clock_mono_us() + 10 * DROP_PAUSE_US;
        return;
    }
    if (PQntuples(answer->result) > 0)
        log_info(&fields, "consumer: dropped the left-over slot %s", clean->drops[0]);
    forget_first(clean);
    consumer_kick(consumer);
}

static void on_ended(struct consumer *consumer, const struct pgask_answer *answer)
{
    struct clean *clean = &consumer->clean;
    if (clean->drop_count && answer->error == SG_OK && PQntuples(answer->result) == 0) {
        control_ask(consumer, ask_drop_sql, clean->drops[0], NULL, on_dropped);
        return;
    }
    clean->drop_asked = false;
    clean->next_drop_us = clock_mono_us() + DROP_PAUSE_US;
}

static void drop_next(struct consumer *consumer, int64_t now_us)
{
    struct clean *clean = &consumer->clean;
    while (clean->drop_count && in_use(consumer, clean->drops[0]))
        forget_first(clean);
    if (clean->drop_count == 0 || clean->drop_asked || now_us < clean->next_drop_us)
        return;
    clean->drop_asked = true;
    control_ask(consumer, ask_end_sql, clean->drops[0], NULL, on_ended);
}

/* --- keys ------------------------------------------------------------------------------------- */

/* A reader has looked at the hash at most poll_ms ago, waits so long for an answer, and believes in
 * a generation that is not marked any more for max_staleness_ms. */
void clean_after_switch(struct consumer *consumer)
{
    const struct settings *settings = consumer->config.settings;
    consumer->clean.next_us =
        clock_mono_us() + (2 * settings->redis.poll_ms + settings->redis.read_timeout_ms +
                           (consumer->now ? 0 : settings->redis.max_staleness_ms) + 1000) *
                              1000;
}

void clean_keys_later(struct consumer *consumer, int64_t below)
{
    struct clean *clean = &consumer->clean;
    if (below > clean->below)
        clean->below = below;
    clean->again = clean->wanted; /* what the pass under way has gone by */
    if (clean->wanted)
        return;
    clean->wanted = true;
    snprintf(clean->cursor, sizeof(clean->cursor), "0");
    clean_after_switch(consumer);
}

static bool is_left_over(const struct consumer *consumer, const redisReply *key)
{
    struct rediskey parsed;
    if (key->type != REDIS_REPLY_STRING ||
        rediskey_parse(key->str, (size_t)key->len, consumer->shard, &parsed) == REDISKEY_OTHER)
        return false;
    const int64_t read = consumer->now ? consumer->now->number : consumer->facts.generation;
    return parsed.generation < consumer->clean.below &&
           (parsed.generation != read || parsed.generation == consumer->clean.given_up) &&
           parsed.generation != consumer->build.number;
}

static void on_unlinked(struct consumer *consumer, const struct sink_result *result)
{
    (void)consumer;
    (void)result; /* what is still there is found in the next pass */
}

static void unlink_left_overs(struct consumer *consumer, const redisReply *keys)
{
    struct dynbuf commands;
    size_t count = 0;
    dynbuf_init(&commands, COMMANDS_MAX);
    for (size_t i = 0; i < keys->elements; i++) {
        if (!is_left_over(consumer, keys->element[i]))
            continue;
        redisresp_begin(&commands, 2);
        redisresp_args(&commands, "UNLINK");
        redisresp_arg(&commands, keys->element[i]->str, (size_t)keys->element[i]->len);
        count++;
    }
    if (count && redis_send(consumer, &commands, count, on_unlinked))
        consumer->clean.removed += (int64_t)count;
    dynbuf_done(&commands);
}

static void on_scanned(struct consumer *consumer, const redisReply *reply)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct clean *clean = &consumer->clean;
    clean->asked = false;
    clean->next_us = clock_mono_us() + SCAN_PAUSE_US;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY) {
        clean->next_us = clock_mono_us() + 100 * SCAN_PAUSE_US;
        return;
    }
    unlink_left_overs(consumer, reply->element[1]);
    snprintf(clean->cursor, sizeof(clean->cursor), "%s", reply->element[0]->str);
    if (strcmp(clean->cursor, "0") != 0)
        return;
    clean->wanted = clean->again;
    clean->again = false;
    if (clean->removed)
        log_info(&fields, "consumer: removed %lld keys of former generations",
                 (long long)clean->removed);
    clean->removed = 0;
}

static void scan_next(struct consumer *consumer, int64_t now_us)
{
    struct clean *clean = &consumer->clean;
    struct dynbuf command;
    char count[16];
    if (!clean->wanted || clean->asked || now_us < clean->next_us)
        return;
    snprintf(count, sizeof(count), "%d", SCAN_COUNT);
    dynbuf_init(&command, COMMANDS_MAX);
    redisresp_command(&command, "SCAN", clean->cursor, "MATCH", "sg1:*", "COUNT", count, NULL);
    clean->asked = redis_ask(consumer, &command, on_scanned);
    dynbuf_done(&command);
}

void clean_tick(struct consumer *consumer, int64_t now_us)
{
    if (!consumer->locked || !consumer->epoch)
        return;
    if (consumer->state != CONSUMER_NO_PRIMARY)
        drop_next(consumer, now_us);
    scan_next(consumer, now_us);
}

void clean_stop(struct consumer *consumer)
{
    struct clean *clean = &consumer->clean;
    clean->drop_asked = false;
    clean->drop_count = 0; /* the next look makes the list anew */
    clean->asked = false;
}
