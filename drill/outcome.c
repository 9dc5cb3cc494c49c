/*
 * What a drill came to. See outcome.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/outcome.h"

#include <stdlib.h>
#include <string.h>

void outcome_init(struct outcome *outcome, const char *drill, int64_t deadline_ms)
{
    *outcome =
        (struct outcome){.drill = drill, .deadline_ms = deadline_ms, .drift = OUTCOME_UNKNOWN};
}

void outcome_done(struct outcome *outcome)
{
    free(outcome->episodes);
    outcome->episodes = NULL;
}

/* --- one episode ------------------------------------------------------------------------------ */

static bool grow(struct outcome *outcome, size_t more)
{
    size_t room = outcome->room ? outcome->room : 16;
    while (room < outcome->count + more)
        room *= 2;
    struct outcome_episode *episodes = realloc(outcome->episodes, room * sizeof(*episodes));
    if (!episodes)
        return false;
    outcome->episodes = episodes;
    outcome->room = room;
    return true;
}

/* The first acknowledgement on that shard at or after the moment; -1: none. */
static int64_t first_booked(const struct history *history, const char *shard, int64_t since_us)
{
    int64_t first_us = -1;
    for (size_t i = 0; i < history->attempt_count; i++) {
        const struct history_attempt *attempt = &history->attempts[i];
        const uint8_t its = history->events[history->bookings[attempt->booking].event].shard;
        if (history_is_booked(attempt) && attempt->answered_us >= since_us &&
            strcmp(history->names[its], shard) == 0 &&
            (first_us < 0 || attempt->answered_us < first_us))
            first_us = attempt->answered_us;
    }
    return first_us;
}

static enum sg_error feel(const struct history *history, const struct episode *episode,
                          struct outcome_episode *ret_felt)
{
    struct measure own;
    struct measure others = {0};
    enum sg_error error =
        verdict_measure(history, episode->shard, NULL, episode->made_us, episode->ended_us, &own);
    if (!error && episode->shard)
        error = verdict_measure(history, NULL, episode->shard, episode->made_us, episode->ended_us,
                                &others);
    if (error)
        return error;
    struct outcome_episode felt = {
        .episode = *episode,
        .pause_us = own.pause_us,
        .back_us = -1,
        .failed = own.failed + own.reads_failed + own.not_sent + own.reads_not_sent,
        .others_p99_us = others.booking_latency.count ? others.booking_latency.p99_us : -1,
        .others_failed =
            others.failed + others.reads_failed + others.not_sent + others.reads_not_sent,
    };
    if (episode->promoted_us && episode->shard) {
        int64_t first_us = first_booked(history, episode->shard, episode->promoted_us);
        felt.back_us = first_us < 0 ? -1 : first_us - episode->promoted_us;
    }
    *ret_felt = felt;
    return SG_OK;
}

/* --- adding up -------------------------------------------------------------------------------- */

static void add_measure(struct measure *sum, const struct measure *one)
{
    sum->bookings += one->bookings;
    sum->booked += one->booked;
    sum->refused += one->refused;
    sum->not_sent += one->not_sent;
    sum->unsettled += one->unsettled;
    sum->reads += one->reads;
    sum->reads_ok += one->reads_ok;
    sum->reads_not_sent += one->reads_not_sent;
    sum->failed += one->failed;
    sum->reads_failed += one->reads_failed;
    for (size_t i = 0; i < MEASURE_KINDS; i++)
        sum->failed_kinds[i] += one->failed_kinds[i];
}

static void add_verdict(struct verdict *sum, const struct verdict *one)
{
    for (size_t i = 0; i < VERDICT_KINDS; i++)
        sum->breaches[i] += one->breaches[i];
    for (size_t i = 0; i < one->example_count && sum->example_count < VERDICT_EXAMPLES_MAX; i++)
        sum->examples[sum->example_count++] = one->examples[i];
    for (size_t i = 0; i < HISTORY_OUTCOMES; i++)
        sum->outcomes[i] += one->outcomes[i];
    sum->bookings += one->bookings;
    sum->resolved += one->resolved;
    sum->ambiguous_done += one->ambiguous_done;
    sum->reads += one->reads;
    sum->reads_bound += one->reads_bound;
    sum->reads_token += one->reads_token;
    sum->reads_session += one->reads_session;
    sum->session_pairs += one->session_pairs;
    sum->refused += one->refused;
}

enum sg_error outcome_add(struct outcome *outcome, const struct outcome_round *round)
{
    struct measure all;
    struct measure calm;
    int64_t from_us;
    int64_t to_us;
    uint64_t past_bound = 0;
    enum sg_error error = grow(outcome, round->episode_count) ? SG_OK : SG_NO_MEMORY;
    if (!error)
        error = verdict_measure(round->history, NULL, NULL, INT64_MIN, INT64_MAX, &all);
    if (!error)
        error = verdict_measure(round->history, NULL, NULL, round->calm_from_us, round->calm_to_us,
                                &calm);
    for (size_t i = 0; !error && i < round->episode_count; i++) {
        struct outcome_episode *felt = &outcome->episodes[outcome->count];
        error = feel(round->history, &round->episodes[i], felt);
        if (error)
            break;
        outcome->count++;
        outcome->others_failed += felt->others_failed;
        outcome->lossy |= felt->episode.lossy;
        if (felt->episode.at_risk > outcome->at_risk)
            outcome->at_risk = felt->episode.at_risk;
        if (felt->pause_us > outcome->deadline_ms * 1000)
            past_bound += felt->failed;
    }
    if (error)
        return error;
    const uint64_t failed = all.failed + all.reads_failed + all.not_sent + all.reads_not_sent;
    outcome->failed_in_bound += failed > past_bound ? failed - past_bound : 0;
    add_measure(&outcome->all, &all);
    if (calm.booking_latency.p99_us > outcome->before_p99_us)
        outcome->before_p99_us = calm.booking_latency.p99_us;
    if (round->verdict)
        add_verdict(&outcome->verdict, round->verdict);
    verdict_span(round->history, &from_us, &to_us);
    outcome->load_us += to_us - from_us;
    outcome->rounds++;
    return SG_OK;
}

/* --- spreads ---------------------------------------------------------------------------------- */

/* The time in question, -1 if the episode has none. */
static int64_t time_of(const struct outcome_episode *felt, enum outcome_time time, int64_t bound_us)
{
    const struct episode *episode = &felt->episode;
    int64_t from_us = episode->made_us;
    int64_t to_us = 0;
    switch (time) {
    case OUTCOME_PAUSE:
        return felt->pause_us;
    case OUTCOME_BACK:
        return felt->back_us;
    case OUTCOME_OTHERS_P99:
        return felt->others_p99_us;
    case OUTCOME_DETECTION:
        to_us = episode->seen_us;
        break;
    case OUTCOME_OUT:
        from_us += bound_us;
        to_us = episode->out_us;
        break;
    case OUTCOME_IN:
        from_us = episode->fresh_us;
        to_us = episode->back_us;
        break;
    case OUTCOME_APART:
        to_us = episode->again_us;
        break;
    case OUTCOME_WHOLE:
        to_us = episode->ended_us;
        break;
    case OUTCOME_TIMES:
        break;
    }
    if (!to_us)
        return -1;
    return to_us > from_us ? to_us - from_us : 0;
}

struct outcome_spread outcome_spread(const struct outcome *outcome, enum outcome_time time,
                                     int64_t bound_us, const char *drill)
{
    struct outcome_spread spread = {0};
    int64_t *values = calloc(outcome->count + 1, sizeof(*values));
    for (size_t i = 0; values && i < outcome->count; i++) {
        const struct outcome_episode *felt = &outcome->episodes[i];
        const int64_t value = time_of(felt, time, bound_us);
        if (value >= 0 && (!drill || strcmp(felt->episode.drill, drill) == 0))
            values[spread.count++] = value;
    }
    if (spread.count) {
        spread.p50_us = verdict_quantile(values, spread.count, 0.5);
        spread.p99_us = verdict_quantile(values, spread.count, 0.99);
        spread.max_us = verdict_quantile(values, spread.count, 1.0);
    }
    free(values);
    return spread;
}
