/*
 * What a consumer has to do next. See repair.h; the table there is the order of the code here.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/repair.h"

#include <stdio.h>
#include <string.h>

/* A slot's name holds 63 bytes: "seatgrid_", the shard, "_" and up to 19 digits. A server has one
 * shard, so what is cut off a long name makes no two of them alike. */
#define SHARD_PART_MAX 34
#define PREFIX "seatgrid_"

static const struct {
    const char *name;
    const char *text;
} reasons[] = {
    [REPAIR_NONE] = {"none", "nothing was repaired yet"},
    [REPAIR_STARTED] = {"started", "taken up where the slot stands"},
    [REPAIR_SWITCHED_OVER] = {"switched_over", "followed a switchover to the new primary"},
    [REPAIR_SWITCHING] = {"switching", "a switchover is under way; nothing is written meanwhile"},
    [REPAIR_REDIS_EMPTY] = {"redis_empty", "Redis has no keys of this shard"},
    [REPAIR_OTHER_SYSTEM] = {"other_system", "the keys were read from another PostgreSQL"},
    [REPAIR_FAILOVER] = {"failover", "the shard has failed over to another timeline"},
    [REPAIR_SERVER_BEHIND] = {"server_behind",
                              "the server's WAL ends before what Redis has: an older copy of it"},
    [REPAIR_SLOT_MISSING] = {"slot_missing", "the replication slot is gone"},
    [REPAIR_SLOT_INVALIDATED] = {"slot_invalidated", "the replication slot has lost its WAL"},
    [REPAIR_SLOT_UNREADABLE] = {"slot_unreadable",
                                "PostgreSQL cannot decode what the replication slot still has"},
    [REPAIR_REDIS_LOST_TOO_MUCH] = {"redis_lost_too_much",
                                    "Redis has lost more than the slot still has"},
    [REPAIR_TRUNCATED] = {"truncated", "a table was truncated"},
    [REPAIR_REQUESTED] = {"requested", "somebody asked for it"},
};

static struct repair_decision seed_for(enum repair_reason reason)
{
    return (struct repair_decision){.action = REPAIR_SEED, .reason = reason};
}

static const struct repair_slot *slot_of(const struct repair_facts *facts, int64_t generation)
{
    for (size_t i = 0; i < facts->slot_count; i++) {
        if (facts->slots[i].generation == generation)
            return &facts->slots[i];
    }
    return NULL;
}

/* A slot of the generation that stands below the handover was made before it: it is a left-over of
 * the time when this server was the primary before. */
static bool is_of_handover(const struct repair_facts *facts, const struct repair_slot *slot)
{
    return slot->confirmed_lsn >= facts->handover_lsn;
}

static bool is_handed_over(const struct repair_facts *facts)
{
    return facts->hash_timeline != facts->timeline && facts->handover_timeline > 0 &&
           facts->attested_timeline == facts->timeline &&
           facts->hash_timeline == facts->handover_timeline &&
           facts->hash_lsn >= facts->handover_lsn;
}

static struct repair_decision judge(const struct repair_facts *facts)
{
    if (facts->generation <= 0)
        return seed_for(REPAIR_REDIS_EMPTY);
    if (facts->hash_system != facts->system_identifier)
        return seed_for(REPAIR_OTHER_SYSTEM);
    const bool handed_over = is_handed_over(facts);
    if (facts->hash_timeline != facts->timeline && !handed_over)
        return seed_for(REPAIR_FAILOVER);
    if (!handed_over && facts->hash_lsn > facts->server_lsn)
        return seed_for(REPAIR_SERVER_BEHIND);
    const struct repair_slot *slot = slot_of(facts, facts->generation);
    if (!slot || (handed_over && !is_of_handover(facts, slot)))
        return seed_for(REPAIR_SLOT_MISSING);
    if (slot->lost)
        return seed_for(REPAIR_SLOT_INVALIDATED);
    if (!handed_over && facts->hash_lsn < slot->confirmed_lsn)
        return seed_for(REPAIR_REDIS_LOST_TOO_MUCH);
    if (facts->forced != REPAIR_NONE)
        return seed_for(facts->forced);
    return (struct repair_decision){.action = REPAIR_RESUME,
                                    .reason = handed_over ? REPAIR_SWITCHED_OVER : REPAIR_STARTED,
                                    .slot = slot,
                                    .start_lsn = slot->confirmed_lsn};
}

struct repair_decision repair_decide(const struct repair_facts *facts, int64_t takeover_ms)
{
    if (!facts->locked)
        return (struct repair_decision){
            .action = facts->other_silent_ms >= takeover_ms ? REPAIR_TAKE_OVER : REPAIR_WAIT};
    const struct repair_decision decision = judge(facts);
    if (decision.action == REPAIR_SEED && facts->switching)
        return (struct repair_decision){.action = REPAIR_WAIT, .reason = REPAIR_SWITCHING};
    return decision;
}

/* --- names ------------------------------------------------------------------------------------ */

/* "seatgrid_alpha_". What a shard's name may hold and a slot's may not becomes '_'. */
static size_t write_prefix(char ret_name[REPAIR_SLOT_NAME_SIZE], const char *shard)
{
    int len = snprintf(ret_name, REPAIR_SLOT_NAME_SIZE, PREFIX "%.*s_", SHARD_PART_MAX, shard);
    for (char *c = ret_name; *c; c++) {
        if (*c == '-' || *c == '.')
            *c = '_';
    }
    return (size_t)len;
}

void repair_slot_name(char ret_name[REPAIR_SLOT_NAME_SIZE], const char *shard, int64_t generation)
{
    size_t len = write_prefix(ret_name, shard);
    snprintf(ret_name + len, REPAIR_SLOT_NAME_SIZE - len, "%lld", (long long)generation);
}

int64_t repair_slot_generation(const char *name, const char *shard)
{
    char prefix[REPAIR_SLOT_NAME_SIZE];
    size_t len = write_prefix(prefix, shard);
    int64_t generation = 0;
    if (strncmp(name, prefix, len) != 0 || name[len] < '1' || name[len] > '9')
        return 0;
    for (const char *c = name + len; *c; c++) {
        if (*c < '0' || *c > '9' || generation > (INT64_MAX - (*c - '0')) / 10)
            return 0;
        generation = generation * 10 + (*c - '0');
    }
    return generation;
}

const char *repair_reason_name(enum repair_reason reason)
{
    return reasons[reason].name;
}

const char *repair_reason_text(enum repair_reason reason)
{
    return reasons[reason].text;
}
