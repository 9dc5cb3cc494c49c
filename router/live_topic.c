/*
 * One watched event. See live_topic.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/live_topic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lines kept while a reading is on its way; with more of them another reading follows. */
#define KEPT_BYTES_MAX (256 * 1024)

void live_topic_init(struct live_topic *topic, int64_t event_id, const char *shard,
                     int64_t generation, struct live_seats *scratch)
{
    memset(topic, 0, sizeof(*topic));
    topic->event_id = event_id;
    topic->generation = generation;
    topic->scratch = scratch;
    snprintf(topic->shard, sizeof(topic->shard), "%s", shard);
    TAILQ_INIT(&topic->watches);
    dynbuf_init(&topic->kept, KEPT_BYTES_MAX);
}

static void remove_watch(struct live_watch *watch)
{
    TAILQ_REMOVE(&watch->topic->watches, watch, link);
    free(watch);
}

void live_topic_done(struct live_topic *topic)
{
    while (!TAILQ_EMPTY(&topic->watches))
        remove_watch(TAILQ_FIRST(&topic->watches));
    dynbuf_done(&topic->kept);
}

/* --- who watches ------------------------------------------------------------------------------ */

struct live_watch *live_topic_join(struct live_topic *topic, const char *last_id,
                                   router_live_fn *fn, void *arg)
{
    struct live_watch *watch = calloc(1, sizeof(*watch));
    struct live_id id;
    if (!watch)
        return NULL;
    watch->topic = topic;
    watch->fn = fn;
    watch->arg = arg;
    if (!last_id[0]) {
        watch->step = LIVE_FRESH;
    } else if (live_id_parse(last_id, &id) && id.generation == topic->generation &&
               strcmp(id.shard, topic->shard) == 0) {
        watch->step = LIVE_RESUMING;
        watch->told = id.position;
    } else {
        watch->step = LIVE_LOST;
    }
    TAILQ_INSERT_TAIL(&topic->watches, watch, link);
    topic->watch_count++;
    return watch;
}

void live_topic_leave(struct live_watch *watch)
{
    struct live_topic *topic = watch->topic;
    topic->watch_count--;
    if (topic->telling) {
        watch->fn = NULL;
        topic->left_while_telling = true;
        return;
    }
    remove_watch(watch);
}

static void begin_telling(struct live_topic *topic)
{
    topic->telling++;
}

static void end_telling(struct live_topic *topic)
{
    if (--topic->telling || !topic->left_while_telling)
        return;
    topic->left_while_telling = false;
    struct live_watch *watch = TAILQ_FIRST(&topic->watches);
    while (watch) {
        struct live_watch *next = TAILQ_NEXT(watch, link);
        if (!watch->fn)
            remove_watch(watch);
        watch = next;
    }
}

/* Those who know something cannot go on from it. */
static void lose_all(struct live_topic *topic)
{
    struct live_watch *watch;
    TAILQ_FOREACH (watch, &topic->watches, link) {
        if (watch->step != LIVE_FRESH)
            watch->step = LIVE_LOST;
    }
}

void live_topic_turn(struct live_topic *topic, const char *shard, int64_t generation)
{
    if (shard != topic->shard)
        snprintf(topic->shard, sizeof(topic->shard), "%s", shard);
    topic->generation = generation;
    topic->now = (struct position){0, 0};
    live_topic_interrupt(topic);
    lose_all(topic);
}

void live_topic_interrupt(struct live_topic *topic)
{
    topic->current = false;
}

/* --- telling ---------------------------------------------------------------------------------- */

static void set_place(const struct live_topic *topic, const struct position *position,
                      const struct live_counts *counts, struct live_change *change)
{
    struct live_id id = {.generation = topic->generation, .position = *position};
    memcpy(id.shard, topic->shard, sizeof(id.shard));
    live_id_format(&id, change->id);
    change->event_id = topic->event_id;
    change->total = counts->total;
    change->available = counts->available;
    change->held = counts->held;
    change->booked = counts->booked;
}

static void tell(struct live_watch *watch, const struct live_change *change,
                 const struct position *position)
{
    watch->step = LIVE_IN_STEP;
    watch->told = *position;
    watch->greeted = true;
    if (watch->fn)
        watch->fn(watch->arg, change);
}

static void advance(struct live_topic *topic, const struct position *position,
                    const struct live_counts *counts)
{
    if (position_compare(position, &topic->now) < 0)
        return;
    topic->now = *position;
    topic->counts = *counts;
}

/* Seats or counters, to those who have seen the change before. Those who have not are left
 * `behind`: RESUMING if a reading may help, LOST if this is from one. True if there are any. */
static bool tell_change(struct live_topic *topic, const struct live_line *line,
                        const struct live_change *change, enum live_step behind)
{
    struct live_watch *watch;
    bool gap = false;
    TAILQ_FOREACH (watch, &topic->watches, link) {
        bool waits = watch->step == LIVE_FRESH || watch->step == LIVE_LOST ||
                     (watch->step == LIVE_RESUMING && behind == LIVE_RESUMING);
        bool not_for_it = behind == LIVE_LOST && !watch->asked;
        if (waits || not_for_it || position_compare(&watch->told, &line->id) >= 0)
            continue;
        if (position_compare(&watch->told, &line->previous) == 0) {
            tell(watch, change, &line->id);
        } else {
            watch->step = behind;
            gap = true;
        }
    }
    return gap;
}

/* To everybody who knows of the event. Its id may be given to a new one: whoever joins now has to
 * look for that. */
static void tell_gone(struct live_topic *topic, const struct position *position)
{
    const struct live_counts none = {0};
    struct live_change change = {.resync = true, .gone = true};
    struct live_watch *watch;
    set_place(topic, position, &none, &change);
    topic->current = false;
    TAILQ_FOREACH (watch, &topic->watches, link)
        tell(watch, &change, position);
}

static bool belongs(const struct live_topic *topic, const struct live_line *line)
{
    return line->generation == topic->generation && strcmp(line->shard, topic->shard) == 0;
}

/* True if a reading is wanted. */
static bool tell_line(struct live_topic *topic, const struct live_line *line,
                      const struct live_note *note, enum live_step behind)
{
    struct live_change change = {.seats = topic->scratch->seats,
                                 .states = topic->scratch->states,
                                 .status = note->status,
                                 .booking_id = note->booking_id};
    switch (line->kind) {
    case LIVE_GONE:
        if (position_compare(&line->id, &topic->now) < 0)
            return false;
        advance(topic, &line->id, &line->counts);
        tell_gone(topic, &line->id);
        return false;
    case LIVE_RESYNC:
        break;
    case LIVE_SEATS:
        if (!live_seats_parse(line, topic->cols, line->counts.total, topic->scratch))
            break;
        change.seat_count = topic->scratch->count;
        /* fallthrough */
    case LIVE_NONE:
        set_place(topic, &line->id, &line->counts, &change);
        advance(topic, &line->id, &line->counts);
        return tell_change(topic, line, &change, behind);
    }
    if (position_compare(&line->id, &topic->now) < 0)
        return false; /* a reading has told it already */
    lose_all(topic);
    return true;
}

/* --- readings --------------------------------------------------------------------------------- */

bool live_topic_ask(struct live_topic *topic, struct position *ret_from)
{
    struct live_watch *watch;
    bool wanted = false;
    topic->asking = true;
    topic->asked_at = topic->now;
    dynbuf_reset(&topic->kept);
    TAILQ_FOREACH (watch, &topic->watches, link) {
        watch->asked = true;
        if (watch->step != LIVE_RESUMING && watch->step != LIVE_IN_STEP)
            continue;
        if (!wanted || position_compare(&watch->told, ret_from) < 0)
            *ret_from = watch->told;
        wanted = true;
    }
    return wanted;
}

void live_topic_unanswered(struct live_topic *topic)
{
    topic->asking = false;
    dynbuf_reset(&topic->kept);
}

/* Redis has less than a client was told, by whomever: those who know of it look again. For who is
 * in step that is so only if Redis had it when it was asked: a line may have overtaken the answer.
 */
static void lose_those_ahead(struct live_topic *topic, const struct position *at)
{
    struct live_watch *watch;
    bool went_back = position_compare(at, &topic->asked_at) < 0;
    if (went_back)
        topic->now = *at;
    TAILQ_FOREACH (watch, &topic->watches, link) {
        bool concerned = watch->step == LIVE_RESUMING || (watch->step == LIVE_IN_STEP && went_back);
        if (concerned && watch->asked && position_compare(&watch->told, at) > 0)
            watch->step = LIVE_LOST;
    }
}

static void tell_reading(struct live_topic *topic, const struct live_reading *reading)
{
    struct live_line line;
    for (size_t i = 0; i < reading->line_count; i++) {
        const struct live_text *text = &reading->lines[i];
        struct live_note note = {.status = NULL};
        if (text->note)
            (void)live_note_parse(text->note, text->note_len, &note);
        if (live_line_parse(text->text, text->len, &line) && belongs(topic, &line) &&
            (line.kind == LIVE_SEATS || line.kind == LIVE_NONE))
            (void)tell_line(topic, &line, &note, LIVE_LOST);
        /* any other line leaves a gap, which the next one or the end finds */
    }
}

/* Everybody is at the reading's position from now on, but for those who came too late to be asked
 * for. True if there are any. */
static bool settle(struct live_topic *topic, const struct live_reading *reading)
{
    bool late = false;
    struct live_change counters = {.resync = false};
    struct live_watch *watch;
    set_place(topic, &reading->at, &reading->counts, &counters);
    struct live_change resync = counters;
    resync.resync = true;
    TAILQ_FOREACH (watch, &topic->watches, link) {
        bool behind = position_compare(&watch->told, &reading->at) < 0;
        bool knows = watch->step == LIVE_RESUMING || watch->step == LIVE_IN_STEP;
        if (!watch->asked && watch->step != LIVE_FRESH)
            late |= watch->step != LIVE_IN_STEP || behind;
        else if (watch->step == LIVE_LOST || (knows && behind))
            tell(watch, &resync, &reading->at);
        else if (!knows || !watch->greeted)
            tell(watch, &counters, &reading->at);
        else
            watch->step = LIVE_IN_STEP;
        watch->asked = false;
    }
    return late;
}

/* "b BOOKING STATUS" */
static bool is_note(const char *text, size_t len, struct live_note *ret_note)
{
    return len > 2 && memcmp(text, "b ", 2) == 0 && live_note_parse(text + 2, len - 2, ret_note);
}

static bool tell_message(struct live_topic *topic, const char *payload, size_t len)
{
    const char *end = payload + len;
    struct live_note note = {.status = NULL}; /* of the next line */
    bool wanted = false;
    while (payload < end) {
        const char *stop = memchr(payload, '\n', (size_t)(end - payload));
        struct live_line line;
        if (!stop)
            stop = end;
        /* what cannot be read leaves a gap, which the next line or a renewal finds */
        if (!is_note(payload, (size_t)(stop - payload), &note)) {
            if (live_line_parse(payload, (size_t)(stop - payload), &line) && belongs(topic, &line))
                wanted |= tell_line(topic, &line, &note, LIVE_RESUMING);
            note.status = NULL;
        }
        payload = stop + 1;
    }
    return wanted;
}

bool live_topic_read(struct live_topic *topic, const struct live_reading *reading)
{
    bool again = topic->kept.failed;
    begin_telling(topic);
    topic->asking = false;
    topic->current = true;
    lose_those_ahead(topic, &reading->at);
    topic->cols = reading->cols;
    if (reading->gone) {
        advance(topic, &reading->at, &reading->counts);
        tell_gone(topic, &reading->at);
    } else {
        tell_reading(topic, reading);
        advance(topic, &reading->at, &reading->counts);
        again |= settle(topic, reading);
    }
    again |= tell_message(topic, dynbuf_text(&topic->kept), topic->kept.len);
    dynbuf_done(&topic->kept);
    dynbuf_init(&topic->kept, KEPT_BYTES_MAX);
    end_telling(topic);
    return again;
}

/* --- while it is current ---------------------------------------------------------------------- */

bool live_topic_message(struct live_topic *topic, const char *payload, size_t len)
{
    if (topic->asking) {
        if (topic->kept.len)
            dynbuf_addc(&topic->kept, '\n');
        dynbuf_add(&topic->kept, payload, len);
    }
    if (!topic->current)
        return false;
    begin_telling(topic);
    bool wanted = tell_message(topic, payload, len);
    end_telling(topic);
    return wanted;
}

bool live_topic_greet(struct live_topic *topic)
{
    struct live_change counters = {.resync = false};
    struct live_watch *watch;
    bool others = false;
    if (!topic->current)
        return true;
    begin_telling(topic);
    set_place(topic, &topic->now, &topic->counts, &counters);
    TAILQ_FOREACH (watch, &topic->watches, link) {
        bool there = watch->step == LIVE_RESUMING &&
                     position_compare(&watch->told, &topic->now) == 0 && !watch->greeted;
        if (watch->step == LIVE_FRESH || there)
            tell(watch, &counters, &topic->now);
        else
            others |= watch->step != LIVE_IN_STEP;
    }
    end_telling(topic);
    return others;
}
