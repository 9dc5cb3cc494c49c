/*
 * What clients felt in a window of time. See verdict.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drill/verdict.h"

/* Times of one kind, to be sorted. */
struct sample {
    int64_t *values;
    size_t count;
};

struct window {
    const struct history *history;
    int64_t from_us, to_us;
    int64_t start_us, end_us; /* of the history */
    struct measure *measure;
    struct sample bookings;
};

/* --- quantiles -------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t ranked(const int64_t *sorted, size_t count, double q)
{
    size_t rank = (size_t)ceil(q * (double)count);
    if (!count)
        return 0;
    if (rank < 1)
        rank = 1;
    return sorted[(rank > count ? count : rank) - 1];
}

int64_t verdict_quantile(int64_t *values, size_t count, double q)
{
    if (count)
        qsort(values, count, sizeof(*values), by_value);
    return ranked(values, count, q);
}

static void add(struct sample *sample, int64_t value)
{
    sample->values[sample->count++] = value;
}

static struct measure_latency latency_of(struct sample *sample)
{
    qsort(sample->values, sample->count, sizeof(*sample->values), by_value);
    return (struct measure_latency){
        .count = sample->count,
        .p50_us = ranked(sample->values, sample->count, 0.5),
        .p99_us = ranked(sample->values, sample->count, 0.99),
        .max_us = ranked(sample->values, sample->count, 1),
    };
}

/* --- the history's length --------------------------------------------------------------------- */

static void extend(int64_t us, int64_t *from_us, int64_t *to_us)
{
    if (us < *from_us)
        *from_us = us;
    if (us > *to_us)
        *to_us = us;
}

void verdict_span(const struct history *history, int64_t *ret_from_us, int64_t *ret_to_us)
{
    int64_t from_us = INT64_MAX, to_us = INT64_MIN;
    for (size_t i = 0; i < history->booking_count; i++)
        extend(history->bookings[i].due_us, &from_us, &to_us);
    for (size_t i = 0; i < history->attempt_count; i++) {
        extend(history->attempts[i].sent_us, &from_us, &to_us);
        if (history->attempts[i].end != HISTORY_PENDING)
            extend(history->attempts[i].answered_us, &from_us, &to_us);
    }
    for (size_t i = 0; i < history->read_count; i++) {
        extend(history->reads[i].due_us, &from_us, &to_us);
        if (history->reads[i].end != HISTORY_PENDING)
            extend(history->reads[i].answered_us, &from_us, &to_us);
    }
    *ret_from_us = from_us <= to_us ? from_us : 0;
    *ret_to_us = from_us <= to_us ? to_us : 0;
}

/* --- requests of a window --------------------------------------------------------------------- */

const char *measure_kind_name(size_t i)
{
    return i <= SG_ERROR_COUNT ? history_error_name((uint8_t)i)
                               : history_end_name((enum history_end)(i - SG_ERROR_COUNT - 1));
}

static void count_failure(struct measure *measure, uint8_t end, uint8_t error)
{
    size_t kind = (size_t)SG_ERROR_COUNT + 1 + end;
    if (end == HISTORY_ANSWERED) /* "ok" with a status or a body that it should not have */
        kind = error == SG_OK ? (size_t)HISTORY_ERROR_OTHER : error;
    measure->failed_kinds[kind]++;
}

static bool is_proper(const struct history_attempt *attempt)
{
    return history_is_booked(attempt) ||
           (attempt->end == HISTORY_ANSWERED && attempt->status == 409 &&
            attempt->error == SG_SEATS_TAKEN);
}

/* When the booking was settled: its 201 or its refusal; else its last answer. */
static int64_t settled_us(const struct history *history, uint32_t index,
                          enum history_outcome outcome)
{
    const struct history_booking *booking = &history->bookings[index];
    int64_t us = 0;
    if (outcome == HISTORY_BOOKED)
        return history_acknowledged(history, index)->answered_us;
    for (uint32_t i = booking->first_attempt; i != HISTORY_NONE; i = history->attempts[i].next)
        us = history->attempts[i].answered_us;
    return us;
}

static void measure_booking(struct window *window, uint32_t index)
{
    const struct history *history = window->history;
    const struct history_booking *booking = &history->bookings[index];
    struct measure *measure = window->measure;
    enum history_outcome outcome = history_outcome(history, index);
    uint64_t *const counts[HISTORY_OUTCOMES] = {
        [HISTORY_UNSENT] = &measure->not_sent,     [HISTORY_BOOKED] = &measure->booked,
        [HISTORY_REFUSED] = &measure->refused,     [HISTORY_FAILED] = &measure->failed_bookings,
        [HISTORY_AMBIGUOUS] = &measure->unsettled,
    };
    measure->bookings++;
    ++*counts[outcome];
    for (uint32_t i = booking->first_attempt; i != HISTORY_NONE; i = history->attempts[i].next) {
        const struct history_attempt *attempt = &history->attempts[i];
        if (is_proper(attempt))
            continue;
        measure->failed++;
        count_failure(measure, attempt->end, attempt->error);
    }
    if (outcome == HISTORY_UNSENT)
        return;
    int64_t until_us =
        outcome == HISTORY_AMBIGUOUS ? window->end_us : settled_us(history, index, outcome);
    int64_t wait_us = until_us - booking->due_us;
    if (wait_us > measure->longest_wait_us)
        measure->longest_wait_us = wait_us;
    if (outcome == HISTORY_BOOKED || outcome == HISTORY_REFUSED)
        add(&window->bookings, wait_us);
}

static void measure_read(struct window *window, const struct history_read *read)
{
    struct measure *measure = window->measure;
    measure->reads++;
    if (!read->sent_us) {
        measure->reads_not_sent++;
    } else if (read->end == HISTORY_ANSWERED && read->status == 200 &&
               read->seen_at != HISTORY_NONE) {
        measure->reads_ok++;
    } else {
        measure->reads_failed++;
        count_failure(measure, read->end, read->error);
    }
}

static bool is_in(const struct window *window, int64_t due_us)
{
    return due_us >= window->from_us && due_us < window->to_us;
}

static void measure_requests(struct window *window, uint8_t shard)
{
    const struct history *history = window->history;
    for (size_t i = 0; i < history->booking_count; i++) {
        const struct history_booking *booking = &history->bookings[i];
        if (history->events[booking->event].shard == shard && is_in(window, booking->due_us))
            measure_booking(window, (uint32_t)i);
    }
    for (size_t i = 0; i < history->read_count; i++) {
        const struct history_read *read = &history->reads[i];
        if (history->events[read->event].shard == shard && is_in(window, read->due_us))
            measure_read(window, read);
    }
}

/* --- pauses ----------------------------------------------------------------------------------- */

static void measure_gap(struct window *window, int64_t from_us, int64_t to_us)
{
    struct measure *measure = window->measure;
    if (to_us > window->from_us && from_us < window->to_us && to_us - from_us > measure->pause_us)
        measure->pause_us = to_us - from_us;
}

/* `times` has room for all attempts. */
static void measure_pause(struct window *window, uint8_t shard, struct sample *times)
{
    const struct history *history = window->history;
    int64_t before_us = window->start_us;
    times->count = 0;
    for (size_t i = 0; i < history->attempt_count; i++) {
        const struct history_attempt *attempt = &history->attempts[i];
        uint32_t event = history->bookings[attempt->booking].event;
        if (history_is_booked(attempt) && history->events[event].shard == shard)
            add(times, attempt->answered_us);
    }
    qsort(times->values, times->count, sizeof(*times->values), by_value);
    for (size_t i = 0; i < times->count; i++) {
        measure_gap(window, before_us, times->values[i]);
        before_us = times->values[i];
    }
    measure_gap(window, before_us, window->end_us);
}

/* --- all of it -------------------------------------------------------------------------------- */

static bool has_events(const struct history *history, uint8_t shard)
{
    for (size_t i = 0; i < history->event_count; i++) {
        if (history->events[i].shard == shard)
            return true;
    }
    return false;
}

/* Shards of the events that are meant by `shard` and `except`. */
static void measure_shards(struct window *window, const char *shard, const char *except,
                           struct sample *times)
{
    const struct history *history = window->history;
    for (size_t name = 0; name < history->name_count; name++) {
        const char *text = history->names[name];
        if ((shard && strcmp(text, shard) != 0) || (except && strcmp(text, except) == 0) ||
            !has_events(history, (uint8_t)name))
            continue;
        measure_requests(window, (uint8_t)name);
        measure_pause(window, (uint8_t)name, times);
    }
}

enum sg_error verdict_measure(const struct history *history, const char *shard, const char *except,
                              int64_t from_us, int64_t to_us, struct measure *ret_measure)
{
    struct measure measure = {0};
    struct window window = {
        .history = history, .from_us = from_us, .to_us = to_us, .measure = &measure};
    struct sample times = {.values = calloc(history->attempt_count + 1, sizeof(int64_t))};
    enum sg_error error = SG_NO_MEMORY;
    window.bookings.values = calloc(history->booking_count + 1, sizeof(int64_t));
    if (times.values && window.bookings.values) {
        error = SG_OK;
        verdict_span(history, &window.start_us, &window.end_us);
        measure_shards(&window, shard, shard ? NULL : except, &times);
        measure.booking_latency = latency_of(&window.bookings);
        *ret_measure = measure;
    }
    free(times.values);
    free(window.bookings.values);
    return error;
}
