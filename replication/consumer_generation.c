/*
 * Building a new generation of a shard's keys, alone or beside the current one.
 *
 *   ROOM ─> NUMBER ─> SEED ─> FEED ─> TARGET ─> CATCH_UP ─> SWITCH ─> the next one is the current
 *   slots   sequence  seed.c  from the  a mark in  applied   one step
 *   dropped           + slot  snapshot  the WAL    past it   in Redis
 *
 * Beside a healthy feed nothing that goes wrong here touches it: what was begun is left over and
 * removed. Without one, a failure ends the attempt, and the next look begins anew. The switch comes
 * only when everything is in the new keys that was committed when they were seeded; with a
 * synchronous standby that includes its having it, for the mark is held at the gate, too.
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "replication/consumer_internal.h"

#define COMMAND_MAX 4096
#define ROOM_US 3000000 /* for slots that are left over to go */

static bool beside(const struct consumer *consumer)
{
    return consumer->now != NULL;
}

void build_drop(struct consumer *consumer)
{
    seed_free(consumer->build.seed);
    generation_free(consumer->next);
    consumer->next = NULL;
    consumer->build = (struct build){0};
}

void build_fail(struct consumer *consumer, const char *reason)
{
    const struct log_fields fields = consumer_fields(consumer);
    if (!beside(consumer)) {
        consumer_lose(consumer, CONSUMER_LOOKING, "seed: %s", reason);
        return;
    }
    const int64_t number = consumer->build.number;
    log_error(&fields, "consumer: the new generation was given up: %s", reason);
    consumer_set_state(consumer, consumer->state, "the last reseed was given up: %s", reason);
    if (consumer->build.slot[0])
        clean_slot(consumer, consumer->build.slot);
    build_drop(consumer);
    if (number)
        clean_keys_later(consumer, number + 1);
}

/* --- the switch ------------------------------------------------------------------------------- */

/* The next generation is the one that readers read. */
static void become_current(struct consumer *consumer)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct build *build = &consumer->build;
    feed_set_current(consumer->next->feed);
    consumer->now = consumer->next;
    consumer->next = NULL;
    consumer->facts.generation = consumer->now->number;
    consumer->forced = REPAIR_NONE;
    if (build->former[0])
        clean_slot(consumer, build->former);
    else
        consumer->running_since_us = clock_mono_us();
    clean_keys_later(consumer, consumer->now->number);
    clean_after_switch(consumer);
    build->step = BUILD_NONE;
    log_info(&fields, "consumer: generation %lld is the one to read: %lld events, %lld tickets",
             (long long)consumer->now->number, (long long)build->progress.events,
             (long long)build->progress.tickets);
    consumer_set_state(consumer, CONSUMER_RUNNING, "%s", "");
    consumer_kick(consumer);
}

static void on_switched(struct consumer *consumer, const struct sink_result *result)
{
    if (consumer->build.step != BUILD_SWITCH)
        return;
    if (result->outcome == SINK_DONE)
        become_current(consumer);
    else if (result->outcome == SINK_FULL)
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s", result->reason);
    else
        build_fail(consumer, result->reason);
}

/* The former feed goes first: a mark of its generation behind the switch would be refused, and with
 * it what stands in line behind that. */
static void end_former(struct consumer *consumer)
{
    struct generation *former = consumer->now;
    check_stop(consumer, "the keys were built anew meanwhile", true);
    if (!former)
        return;
    snprintf(consumer->build.former, sizeof(consumer->build.former), "%s", former->slot);
    consumer->now = NULL;
    generation_free(former);
}

static void switch_now(struct consumer *consumer, uint64_t lsn)
{
    struct dynbuf command;
    end_former(consumer);
    dynbuf_init(&command, COMMAND_MAX);
    sink_switch(&command, consumer->shard, consumer->epoch, consumer->build.number, lsn,
                consumer->server.timeline, consumer->server.system_identifier);
    consumer->build.step = BUILD_SWITCH;
    if (!redis_send(consumer, &command, 1, on_switched))
        build_fail(consumer, "Redis is not connected");
    dynbuf_done(&command);
}

/* --- catching up ------------------------------------------------------------------------------ */

static void on_target(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (consumer->build.step != BUILD_TARGET)
        return;
    if (answer->error != SG_OK) {
        build_fail(consumer, answer->reason);
        return;
    }
    consumer->build.target = (uint64_t)ask_number(answer->result, 1);
    consumer->build.step = BUILD_CATCH_UP;
}

void build_feed_started(struct consumer *consumer)
{
    if (consumer->build.step != BUILD_FEED)
        return;
    if (!beside(consumer))
        consumer_set_state(consumer, CONSUMER_CATCHING_UP, "%s",
                           repair_reason_text(consumer->build.reason));
    consumer->build.step = BUILD_TARGET;
    control_ask(consumer, ask_heartbeat_sql, NULL, NULL, on_target);
}

/* --- the seed --------------------------------------------------------------------------------- */

static void on_seeded(void *arg, uint64_t consistent_lsn, const char *reason)
{
    struct consumer *consumer = arg;
    struct build *build = &consumer->build;
    build->progress = seed_get_progress(build->seed);
    seed_free(build->seed);
    build->seed = NULL;
    if (reason) {
        build_fail(consumer, reason);
        return;
    }
    build->step = BUILD_FEED;
    consumer->next = generation_new(consumer, build->number, build->slot, consistent_lsn, false);
    if (!consumer->next)
        build_fail(consumer, "out of memory");
}

static void on_number(struct consumer *consumer, int64_t number, const char *reason)
{
    struct build *build = &consumer->build;
    if (build->step != BUILD_NUMBER)
        return;
    if (number <= 0) {
        build_fail(consumer, reason);
        return;
    }
    build->number = number;
    repair_slot_name(build->slot, consumer->shard, number);
    build->step = BUILD_SEED;
    build->seed = seed_new(&(struct seed_config){.base = consumer->config.base,
                                                 .reap = consumer->config.reap,
                                                 .settings = consumer->config.settings,
                                                 .shard = consumer->shard,
                                                 .dsn = consumer->control.dsn,
                                                 .slot = build->slot,
                                                 .generation = number,
                                                 .epoch = consumer->epoch,
                                                 .sink = consumer->sink,
                                                 .on_done = on_seeded,
                                                 .arg = consumer});
    if (!build->seed)
        build_fail(consumer, "out of memory");
}

void build_begin(struct consumer *consumer, enum repair_reason reason)
{
    consumer->build = (struct build){
        .step = BUILD_ROOM, .reason = reason, .room_until_us = clock_mono_us() + ROOM_US};
    consumer_note_repair(consumer, "reseed", reason);
    consumer_kick(consumer);
}

void build_tick(struct consumer *consumer, int64_t now_us)
{
    struct build *build = &consumer->build;
    struct feed_status status;
    switch (build->step) {
    case BUILD_ROOM:
        if (consumer->clean.drop_count && now_us < build->room_until_us)
            return;
        build->step = BUILD_NUMBER;
        control_draw(consumer, consumer_highest_number(consumer), on_number);
        return;
    case BUILD_SEED:
        if (build->seed)
            build->progress = seed_get_progress(build->seed);
        return;
    case BUILD_CATCH_UP:
        feed_get_status(consumer->next->feed, &status);
        if (status.applied >= build->target)
            switch_now(consumer, status.applied);
        return;
    case BUILD_NONE:
    case BUILD_NUMBER:
    case BUILD_FEED:
    case BUILD_TARGET:
    case BUILD_SWITCH:
        return;
    }
}
