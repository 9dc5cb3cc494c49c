/*
 * A look at the state of things, and acting on it.
 *
 * Step by step, each an answer of PostgreSQL (pg) or Redis (r):
 *   lock (pg) ─> hash (r) ─> facts, shard_meta, slots (pg) ─> repair_decide ─┬─> wait, take over
 *                                                                            └─> next epoch (pg)
 *   ─> claim (r) ─┬─> RESUME: end the slot's left-over walsender (pg) ─> feed ─> RUNNING
 *                 │   after a switchover, before that: the hash names the new timeline (r);
 *                 │   a handover that is no longer needed is taken out of shard_meta (pg)
 *                 └─> SEED: consumer_generation.c
 * The code stands in the opposite order, so that each step knows the next.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "replication/consumer_internal.h"
#include "router/topology.h"

#define COMMAND_MAX ((size_t)64 << 10)
#define POLL_US 500000 /* of one who waits: for a primary, for Redis, for the lock */
#define SWITCH_POLL_US 50000
#define TAKEN_OVER_US 50000 /* a session that was ended needs a moment */
#define FREE_POLL_US 20000
#define FREE_LIMIT_US 5000000

/* --- acting on the decision ------------------------------------------------------------------- */

static void on_ended(struct consumer *consumer, const struct pgask_answer *answer)
{
    const struct repair_decision *decision = &consumer->decision;
    if (answer->error != SG_OK) {
        consumer_lose(consumer, CONSUMER_LOOKING, "%s: %s", decision->slot->name, answer->reason);
        return;
    }
    if (PQntuples(answer->result) > 0) {
        /* somebody still reads: they were told to end */
        if (clock_mono_us() > consumer->free_until_us)
            consumer_lose(consumer, CONSUMER_LOOKING, "%s is still read by another session",
                          decision->slot->name);
        else
            consumer_look_in(consumer, FREE_POLL_US);
        return;
    }
    consumer->free_until_us = 0;
    consumer->now = generation_new(consumer, decision->slot->generation, decision->slot->name,
                                   decision->start_lsn, true);
    if (!consumer->now)
        consumer_lose(consumer, CONSUMER_LOOKING, "out of memory");
}

static void resume_when_free(struct consumer *consumer)
{
    control_ask(consumer, ask_end_sql, consumer->decision.slot->name, NULL, on_ended);
}

static void begin_resume(struct consumer *consumer)
{
    consumer->free_until_us = clock_mono_us() + FREE_LIMIT_US;
    resume_when_free(consumer);
}

/* Slots of the shard that are not the one to be resumed. */
static void drop_left_over_slots(struct consumer *consumer, const struct repair_slot *keep)
{
    for (size_t i = 0; i < consumer->facts.slot_count; i++) {
        if (&consumer->facts.slots[i] != keep)
            clean_slot(consumer, consumer->facts.slots[i].name);
    }
}

static void remove_left_over_keys(struct consumer *consumer)
{
    const struct repair_facts *facts = &consumer->facts;
    bool has_slot = false;
    for (size_t i = 0; i < facts->slot_count; i++)
        has_slot |= facts->slots[i].generation == facts->generation;
    consumer->clean.given_up = has_slot ? 0 : facts->generation;
    clean_keys_later(consumer, consumer->epoch);
}

static void on_followed(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (answer->error == SG_OK)
        begin_resume(consumer);
    else
        consumer_lose(consumer, CONSUMER_LOOKING, "the handover in shard_meta: %s", answer->reason);
}

/* The handover goes before anything is confirmed to the slot: were it still there, a Redis that
 * comes back with the hash of before the switch would be taken for one that lacks nothing. */
static void forget_handover(struct consumer *consumer)
{
    char timeline[16];
    snprintf(timeline, sizeof(timeline), "%d", consumer->facts.handover_timeline);
    control_ask(consumer, ask_follow_sql, timeline, NULL, on_followed);
}

static void on_hash_followed(struct consumer *consumer, const struct sink_result *result)
{
    if (result->outcome != SINK_DONE) {
        consumer_lose(consumer,
                      result->outcome == SINK_FULL || result->outcome == SINK_LOST
                          ? CONSUMER_NO_REDIS
                          : CONSUMER_LOOKING,
                      "Redis: %s", result->reason);
        return;
    }
    consumer->marked_lsn = consumer->decision.start_lsn;
    forget_handover(consumer);
}

/* From now on the hash compares with the new primary's LSNs. */
static void follow(struct consumer *consumer)
{
    struct dynbuf command;
    dynbuf_init(&command, COMMAND_MAX);
    sink_follow(&command, consumer->shard, consumer->epoch, consumer->facts.generation,
                consumer->decision.start_lsn, consumer->server.timeline);
    if (!redis_send(consumer, &command, 1, on_hash_followed))
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: not connected");
    dynbuf_done(&command);
}

static void act(struct consumer *consumer)
{
    const struct repair_decision *decision = &consumer->decision;
    drop_left_over_slots(consumer, decision->slot);
    remove_left_over_keys(consumer);
    if (decision->action == REPAIR_SEED) {
        consumer_mark_stale(consumer);
        consumer_set_state(consumer, CONSUMER_SEEDING, "%s", repair_reason_text(decision->reason));
        build_begin(consumer, decision->reason);
        return;
    }
    consumer_note_repair(consumer, "resume", decision->reason);
    if (decision->reason == REPAIR_SWITCHED_OVER)
        follow(consumer);
    else if (consumer->facts.handover_timeline) /* the hash has followed, the rest was cut off */
        forget_handover(consumer);
    else
        begin_resume(consumer);
}

static void on_claimed(struct consumer *consumer, const struct sink_result *result)
{
    switch (result->outcome) {
    case SINK_DONE:
        act(consumer);
        return;
    case SINK_FULL:
        remove_left_over_keys(consumer); /* they may be what fills it */
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s", result->reason);
        return;
    case SINK_LOST:
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s", result->reason);
        return;
    case SINK_STALE:
    case SINK_GONE:
    case SINK_FAILED:
        consumer_lose(consumer, CONSUMER_LOOKING, "epoch %lld: %s", (long long)consumer->epoch,
                      result->reason);
        return;
    }
}

static void on_epoch(struct consumer *consumer, int64_t number, const char *reason)
{
    struct dynbuf command;
    if (number <= 0) {
        consumer_lose(consumer, CONSUMER_LOOKING, "sequence cdc_epoch: %s", reason);
        return;
    }
    consumer->epoch = number;
    dynbuf_init(&command, COMMAND_MAX);
    sink_claim(&command, consumer->shard, number);
    if (!redis_send(consumer, &command, 1, on_claimed))
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: not connected");
    dynbuf_done(&command);
}

int64_t consumer_highest_number(const struct consumer *consumer)
{
    int64_t highest = consumer->epoch;
    if (consumer->hash_epoch > highest)
        highest = consumer->hash_epoch;
    if (consumer->facts.generation > highest)
        highest = consumer->facts.generation;
    for (size_t i = 0; i < consumer->facts.slot_count; i++) {
        if (consumer->facts.slots[i].generation > highest)
            highest = consumer->facts.slots[i].generation;
    }
    return highest;
}

static void on_terminated(struct consumer *consumer, const struct pgask_answer *answer)
{
    (void)answer; /* the next look shows it */
    consumer_look_in(consumer, TAKEN_OVER_US);
}

static void take_over(struct consumer *consumer)
{
    const struct log_fields fields = consumer_fields(consumer);
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", consumer->server.holder_pid);
    log_warn(&fields, "consumer: taking over: the one with backend %s has been silent for %lld ms",
             pid, (long long)consumer->facts.other_silent_ms);
    control_ask(consumer, ask_terminate_sql, pid, NULL, on_terminated);
}

static void wait_for_others(struct consumer *consumer)
{
    const bool switching = consumer->decision.reason == REPAIR_SWITCHING;
    if (switching)
        consumer_set_state(consumer, CONSUMER_WAITING, "%s", repair_reason_text(REPAIR_SWITCHING));
    else
        consumer_set_state(consumer, CONSUMER_WAITING,
                           "another consumer has the shard (backend %d), heard %lld ms ago",
                           consumer->server.holder_pid, (long long)consumer->facts.other_silent_ms);
    consumer_look_in(consumer, switching ? SWITCH_POLL_US : POLL_US);
}

static void decide(struct consumer *consumer)
{
    struct repair_decision *decision = &consumer->decision;
    consumer->facts.forced = consumer->forced;
    *decision = repair_decide(&consumer->facts, consumer->config.settings->cdc.takeover_ms);
    switch (decision->action) {
    case REPAIR_WAIT:
        wait_for_others(consumer);
        return;
    case REPAIR_TAKE_OVER:
        take_over(consumer);
        return;
    case REPAIR_RESUME:
    case REPAIR_SEED:
        control_draw(consumer, consumer_highest_number(consumer), on_epoch);
        return;
    }
}

/* --- looking ---------------------------------------------------------------------------------- */

static void on_slots(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (answer->error != SG_OK) {
        consumer_lose(consumer, CONSUMER_LOOKING, "replication slots: %s", answer->reason);
        return;
    }
    ask_read_slots(answer->result, consumer->shard, &consumer->facts);
    decide(consumer);
}

static void on_meta(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (answer->error != SG_OK) {
        consumer_lose(consumer, CONSUMER_LOOKING, "shard_meta: %s", answer->reason);
        return;
    }
    ask_read_meta(answer->result, &consumer->facts);
    control_ask(consumer, ask_slots_sql, consumer->slot_prefix, NULL, on_slots);
}

/* What no repair of ours can mend; NULL if all is well. */
static const char *obstacle(const struct ask_facts *server)
{
    if (strcmp(server->wal_level, "logical") != 0)
        return "wal_level is not logical; set wal_level = logical and restart PostgreSQL";
    if (!server->published || !server->numbered)
        return "the database has no publication seatgrid; run `seatgrid migrate`";
    return NULL;
}

static void on_facts(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (answer->error != SG_OK || !ask_read_facts(answer->result, &consumer->server)) {
        consumer_lose(consumer, CONSUMER_LOOKING, "%s",
                      answer->error != SG_OK ? answer->reason : "an answer of another shape");
        return;
    }
    if (consumer->server.in_recovery) {
        control_close(consumer); /* with the lock, which means nothing on a standby */
        consumer_lose(consumer, CONSUMER_NO_PRIMARY, "the primary has become a standby");
        return;
    }
    const char *problem = obstacle(&consumer->server);
    if (problem) {
        consumer_lose(consumer, CONSUMER_BLOCKED, "%s", problem);
        return;
    }
    consumer->facts.locked = consumer->locked;
    consumer->facts.system_identifier = consumer->server.system_identifier;
    consumer->facts.timeline = consumer->server.timeline;
    consumer->facts.server_lsn = consumer->server.lsn;
    /* a session of our own that the server has not buried yet is nobody to wait for */
    if (!consumer->locked && consumer->backend_pid &&
        consumer->server.holder_pid == consumer->backend_pid)
        consumer->facts.other_silent_ms = INT64_MAX;
    gate_set_synchronous(consumer, consumer->server.synchronous);
    control_ask(consumer, ask_meta_sql, NULL, NULL, on_meta);
}

static const char *element(const redisReply *reply, size_t i)
{
    const redisReply *one = reply->element[i];
    return one->type == REDIS_REPLY_STRING ? one->str : "";
}

/* For how long the hash has said the same: that is how long nobody has worked. A gap in the watch
 * starts it anew. */
static int64_t silent_ms(struct consumer *consumer, const redisReply *reply)
{
    const int64_t now_us = clock_mono_us();
    uint64_t life = HASH_START;
    for (size_t i = 0; i < reply->elements; i++)
        life = hash_bytes(life, element(reply, i), strlen(element(reply, i)) + 1);
    if (life != consumer->life || now_us - consumer->life_seen_us > 4 * POLL_US)
        consumer->life_changed_us = now_us;
    consumer->life = life;
    consumer->life_seen_us = now_us;
    return (now_us - consumer->life_changed_us) / 1000;
}

#define HASH_FIELDS 7

static void on_hash(struct consumer *consumer, const redisReply *reply)
{
    struct repair_facts *facts = &consumer->facts;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != HASH_FIELDS) {
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s",
                      reply && reply->type == REDIS_REPLY_ERROR ? reply->str : "connection lost");
        return;
    }
    facts->generation = strtoll(element(reply, 0), NULL, 10);
    consumer->hash_epoch = strtoll(element(reply, 1), NULL, 10);
    facts->hash_timeline = (int32_t)strtol(element(reply, 2), NULL, 10);
    facts->hash_system = strtoull(element(reply, 3), NULL, 10);
    facts->hash_lsn = strtoull(element(reply, 4), NULL, 10);
    consumer->marked_lsn = facts->hash_lsn;
    facts->other_silent_ms = silent_ms(consumer, reply);
    control_ask(consumer, ask_facts_sql, NULL, NULL, on_facts);
}

static void ask_hash(struct consumer *consumer)
{
    struct dynbuf command;
    char key[REDISKEY_MAX];
    rediskey_shard(key, consumer->shard);
    dynbuf_init(&command, COMMAND_MAX);
    redisresp_command(&command, "HMGET", key, "gen", "epoch", "timeline", "system", "lsn", "beat",
                      "status", NULL);
    if (!redis_ask(consumer, &command, on_hash))
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: not connected");
    dynbuf_done(&command);
}

static void on_lock(struct consumer *consumer, const struct pgask_answer *answer)
{
    if (answer->error != SG_OK) {
        consumer_lose(consumer, CONSUMER_LOOKING, "advisory lock: %s", answer->reason);
        return;
    }
    consumer->locked = PQgetvalue(answer->result, 0, 0)[0] == 't';
    if (consumer->locked)
        consumer->backend_pid = (int32_t)ask_number(answer->result, 1);
    ask_hash(consumer);
}

/* Opens the control session to the shard's primary. False, with the state set, if there is none. */
static bool find_primary(struct consumer *consumer)
{
    bool opened = false;
    snapshot_begin(consumer->config.reader);
    const struct shardmap *map = snapshot_get(consumer->config.maps);
    const struct topology *topology = snapshot_get(consumer->config.topologies);
    const struct topology_node *primary =
        topology ? topology_primary(topology, consumer->shard) : NULL;
    int index = map ? shardmap_shard_by_name(map, consumer->shard) : -1;
    const struct shardmap_shard *shard = index >= 0 ? shardmap_shard(map, index) : NULL;
    for (size_t i = 0; primary && shard && i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, primary->name) == 0)
            opened = control_open(consumer, primary->name, shard->nodes[i].dsn);
    }
    const char *why = "";
    for (size_t i = 0; !primary && topology && i < topology->node_count; i++) {
        if (strcmp(topology->nodes[i].shard, consumer->shard) == 0 &&
            topology->nodes[i].last_error[0])
            why = topology->nodes[i].last_error;
    }
    if (!primary)
        consumer_set_state(consumer, CONSUMER_NO_PRIMARY, "no primary is known%s%s",
                           why[0] ? ": " : "", why);
    else if (!opened)
        consumer_set_state(consumer, CONSUMER_NO_PRIMARY, "out of memory");
    snapshot_end(consumer->config.reader);
    return opened;
}

void consumer_look(struct consumer *consumer)
{
    consumer->look_at_us = INT64_MAX;
    if (consumer->free_until_us) {
        resume_when_free(consumer);
        return;
    }
    if (!find_primary(consumer)) {
        consumer_look_in(consumer, POLL_US);
        return;
    }
    if (!sink_is_up(consumer->sink)) {
        if (consumer->state != CONSUMER_NO_REDIS)
            consumer_set_state(consumer, CONSUMER_NO_REDIS, "Redis does not answer at %s",
                               consumer->config.settings->redis.address);
        consumer_look_in(consumer, POLL_US);
        return;
    }
    consumer_next_attempt(consumer);
    if (consumer->state == CONSUMER_NO_PRIMARY || consumer->state == CONSUMER_NO_REDIS)
        consumer_set_state(consumer, CONSUMER_LOOKING, "%s", "");
    if (consumer->locked)
        ask_hash(consumer);
    else
        control_ask(consumer, ask_lock_sql, NULL, NULL, on_lock);
}
