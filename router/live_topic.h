/*
 * One watched event: who watches it, what each of them has been told, what is to be told next. No
 * I/O, no clock; live.c brings what Redis says.
 *
 *   join ─> FRESH ─────────────────── counters ──────────────────────> IN STEP
 *           RESUMING (Last-Event-ID) ─ a reading that goes back to it ─> IN STEP
 *           LOST ──────────────────── a reading, and a resync ────────> IN STEP
 *   a line of changes ─> to all who are in step with the change before it; another makes the watch
 *                        RESUMING again, so that a gap is closed or told, and never passed over
 *
 * Every line names the position before it (base/rediskeys.h), so a reader at exactly that one has
 * missed nothing. A reading is the counters and the latest changes at one instant. Lines that come
 * between a question and its reading belong behind it, so they are kept until then (bounded).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LIVE_TOPIC_H
#define SG_ROUTER_LIVE_TOPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/dynbuf.h"
#include "router/live_parse.h"

enum live_step { LIVE_FRESH, LIVE_RESUMING, LIVE_LOST, LIVE_IN_STEP };

struct live_watch {
    TAILQ_ENTRY(live_watch) link;
    struct live_topic *topic;
    router_live_fn *fn; /* NULL: left while the topic was telling */
    void *arg;
    struct position told; /* RESUMING, IN STEP: everything up to it is known to the reader */
    enum live_step step;
    bool greeted; /* fn has run */
    bool asked;   /* was there when the question went out: its reading is for it, too */
};

TAILQ_HEAD(live_watches, live_watch);

struct live_topic {
    int64_t event_id;
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t generation;
    struct live_seats *scratch; /* borrowed */
    struct live_watches watches;
    size_t watch_count;
    bool current; /* lines come, and `now` and `counts` are right */
    struct position now;
    struct live_counts counts;
    int32_t cols;
    bool asking;              /* between a question and its reading */
    struct position asked_at; /* `now` at that time */
    struct dynbuf kept;       /* lines that came meanwhile */
    unsigned telling;         /* fn may be on the stack */
    bool left_while_telling;
};

/* What Redis said at one instant. Borrowed. */
struct live_reading {
    struct position at;
    bool gone; /* deleted; no counters */
    struct live_counts counts;
    int32_t cols;
    const struct live_text {
        const char *text;
        size_t len;
        const char *note; /* NULL: none */
        size_t note_len;
    } * lines; /* of the latest changes, from the position that was asked for; in order */
    size_t line_count;
};

/* `scratch` is borrowed; topics of one thread may share it. */
void live_topic_init(struct live_topic *topic, int64_t event_id, const char *shard,
                     int64_t generation, struct live_seats *scratch);
/* Frees the watches without a word. */
void live_topic_done(struct live_topic *topic);

/* NULL when memory runs out. Nothing is told before live_topic_greet or a reading. */
struct live_watch *live_topic_join(struct live_topic *topic, const char *last_id,
                                   router_live_fn *fn, void *arg);
void live_topic_leave(struct live_watch *watch);

/* The shard's keys are another generation's: whoever was told anything has to look again. */
void live_topic_turn(struct live_topic *topic, const char *shard, int64_t generation);
/* Lines do not come any more. */
void live_topic_interrupt(struct live_topic *topic);

/* A question is about to go out. True if changes are wanted, from *ret_from on. */
bool live_topic_ask(struct live_topic *topic, struct position *ret_from);
/* It was not answered. */
void live_topic_unanswered(struct live_topic *topic);
/* The answer: from now on the topic is current, and every watch in step or told to look again.
 * True: another reading is wanted at once. */
bool live_topic_read(struct live_topic *topic, const struct live_reading *reading);

/* What came on the channel: lines with '\n' between them. True: a reading is wanted. */
bool live_topic_message(struct live_topic *topic, const char *payload, size_t len);
/* Tells the counters to those who joined a current topic. True: others want a reading. */
bool live_topic_greet(struct live_topic *topic);

#endif
