/*
 * The verdict on reads. See verdict.h.
 *
 * A seat of a watched event is KNOWN to be sold from the first acknowledgement of a booking that is
 * there. A read promises to show what was known a certain time before it was sent (its bound, or
 * the age that it tells), what its token covers, and, in a session, what was shown before.
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "drill/verdict_internal.h"

/* A token that an acknowledgement told: who carries it, or a later one, sees the booking, from then
 * on. Before it the same LSN may have been told by a read of the primary, where the booking's
 * record was the last of the WAL while its COMMIT still waited for a standby: nobody's sale yet. */
struct promise {
    struct history_token token;
    int64_t since_us;
    uint32_t booking;
};

struct readers {
    struct judge *judge;
    struct promise *promises; /* of watched events, one event after another */
    size_t *promises_at;      /* one an event, and the end */
    uint32_t *sessions;       /* reads of sessions with a map, by reader, event, time of answer */
    size_t session_count;
};

static bool covers(const struct history_token *carried, const struct history_token *token)
{
    return carried->lsn >= token->lsn && carried->timeline >= token->timeline;
}

static bool has_map(const struct history_read *read)
{
    return read->end == HISTORY_ANSWERED && read->status == 200 && read->seen_at != HISTORY_NONE;
}

/* --- bounds ----------------------------------------------------------------------------------- */

/* A seat shown as free that was known to be sold more than age_us before the read was sent; -1 if
 * there is none. */
static int32_t missing_seat(const struct judge *judge, const struct history_read *read,
                            int64_t age_us)
{
    int32_t seats = (int32_t)event_seats(&judge->history->events[read->event]);
    for (int32_t seat_no = 0; seat_no < seats; seat_no++) {
        int64_t known_us = judged_seat(judge, read->event, seat_no)->known_us;
        if (known_us < read->sent_us - age_us && !history_seen(judge->history, read, seat_no))
            return seat_no;
    }
    return -1;
}

static void breach_age(struct judge *judge, enum verdict_kind kind, const struct history_read *read,
                       int32_t seat_no, int32_t age_ms)
{
    verdict_breach(judge, kind,
                   "event %" PRId64 " read sent at %" PRId64 " us (%" PRId32
                   " ms, node %s) shows seat %" PRId32 " free, acknowledged at %" PRId64 " us",
                   judge->history->events[read->event].id, read->sent_us, age_ms,
                   judge->history->names[read->node], seat_no,
                   judged_seat(judge, read->event, seat_no)->known_us);
}

static void judge_age(struct judge *judge, const struct history_read *read)
{
    int32_t seat_no;
    if (read->bound_ms >= 0) {
        judge->verdict->reads_bound++;
        seat_no = missing_seat(judge, read, (int64_t)read->bound_ms * 1000);
        if (seat_no >= 0)
            breach_age(judge, VERDICT_STALE_BOUND, read, seat_no, read->bound_ms);
    }
    if (read->staleness_ms < 0)
        return;
    seat_no = missing_seat(judge, read, (int64_t)read->staleness_ms * 1000);
    if (seat_no >= 0)
        breach_age(judge, VERDICT_STALE_TOLD, read, seat_no, read->staleness_ms);
    else if (read->bound_ms >= 0 && read->staleness_ms > read->bound_ms)
        verdict_breach(judge, VERDICT_STALE_TOLD,
                       "event %" PRId64 " read sent at %" PRId64 " us, at most %" PRId32
                       " ms asked for, %" PRId32 " ms told",
                       judge->history->events[read->event].id, read->sent_us, read->bound_ms,
                       read->staleness_ms);
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* Counts (promises NULL) or writes the promises of an event from `at` on. */
static size_t collect_promises(const struct judge *judge, uint32_t event, struct promise *promises,
                               size_t at)
{
    const struct history *history = judge->history;
    for (size_t i = 0; i < history->attempt_count; i++) {
        const struct history_attempt *attempt = &history->attempts[i];
        const struct judged_booking *judged = &judge->bookings[attempt->booking];
        if (history->bookings[attempt->booking].event != event || !history_is_booked(attempt) ||
            !attempt->token.lsn || judged->there == HISTORY_NONE || judged->lost)
            continue;
        if (promises)
            promises[at] = (struct promise){attempt->token, attempt->answered_us, attempt->booking};
        at++;
    }
    return at;
}

static bool make_promises(struct readers *readers)
{
    const struct history *history = readers->judge->history;
    size_t count = 0;
    readers->promises_at = calloc(history->event_count + 1, sizeof(*readers->promises_at));
    if (!readers->promises_at)
        return false;
    for (size_t event = 0; event < history->event_count; event++) {
        readers->promises_at[event] = count;
        if (history->events[event].watched)
            count = collect_promises(readers->judge, (uint32_t)event, NULL, count);
    }
    readers->promises_at[history->event_count] = count;
    readers->promises = calloc(count + 1, sizeof(*readers->promises));
    if (!readers->promises)
        return false;
    for (size_t event = 0; event < history->event_count; event++) {
        if (history->events[event].watched)
            collect_promises(readers->judge, (uint32_t)event, readers->promises,
                             readers->promises_at[event]);
    }
    return true;
}

static bool shows(const struct history *history, const struct history_read *read,
                  const struct history_booking *booking)
{
    for (size_t i = 0; i < booking->seat_count; i++) {
        if (!history_seen(history, read, history->seats[booking->seats_at + i]))
            return false;
    }
    return true;
}

static void judge_token(const struct readers *readers, const struct history_read *read)
{
    struct judge *judge = readers->judge;
    const struct history *history = judge->history;
    char key[HISTORY_KEY_SIZE];
    if (!read->carried.lsn)
        return;
    judge->verdict->reads_token++;
    for (size_t i = readers->promises_at[read->event]; i < readers->promises_at[read->event + 1];
         i++) {
        const struct promise *promise = &readers->promises[i];
        if (promise->since_us > read->sent_us || !covers(&read->carried, &promise->token) ||
            shows(history, read, &history->bookings[promise->booking]))
            continue;
        history_key(history, promise->booking, key);
        verdict_breach(judge, VERDICT_TOKEN_MISSED,
                       "event %" PRId64 " read sent at %" PRId64 " us with token %" PRId32
                       ".%" PRIX64 " (node %s) does not show %s, token %" PRId32 ".%" PRIX64,
                       history->events[read->event].id, read->sent_us, read->carried.timeline,
                       read->carried.lsn, history->names[read->node], key, promise->token.timeline,
                       promise->token.lsn);
        return;
    }
}

/* --- sales that were undone ------------------------------------------------------------------- */

static bool has_owner(const struct judge *judge, uint32_t event, int32_t seat_no)
{
    return judged_seat(judge, event, seat_no)->owner != HISTORY_NONE;
}

static void judge_undone(struct judge *judge, const struct history_read *read)
{
    const struct history *history = judge->history;
    int32_t seats = (int32_t)event_seats(&history->events[read->event]);
    for (int32_t seat_no = 0; seat_no < seats; seat_no++) {
        if (!history_seen(history, read, seat_no) || has_owner(judge, read->event, seat_no))
            continue;
        verdict_breach(judge, VERDICT_UNDONE,
                       "event %" PRId64 " read sent at %" PRId64 " us (node %s) shows seat %" PRId32
                       " booked, nobody has it in the end",
                       history->events[read->event].id, read->sent_us, history->names[read->node],
                       seat_no);
        return;
    }
}

/* --- sessions --------------------------------------------------------------------------------- */

static int by_session(const void *a, const void *b, void *arg)
{
    const struct history *history = arg;
    const struct history_read *x = &history->reads[*(const uint32_t *)a];
    const struct history_read *y = &history->reads[*(const uint32_t *)b];
    if (x->reader != y->reader)
        return x->reader < y->reader ? -1 : 1;
    if (x->event != y->event)
        return x->event < y->event ? -1 : 1;
    return (x->answered_us > y->answered_us) - (x->answered_us < y->answered_us);
}

static bool make_sessions(struct readers *readers)
{
    const struct history *history = readers->judge->history;
    readers->sessions = calloc(history->read_count + 1, sizeof(*readers->sessions));
    if (!readers->sessions)
        return false;
    for (size_t i = 0; i < history->read_count; i++) {
        if (history->reads[i].session && has_map(&history->reads[i]))
            readers->sessions[readers->session_count++] = (uint32_t)i;
    }
    qsort_r(readers->sessions, readers->session_count, sizeof(*readers->sessions), by_session,
            (void *)(uintptr_t)history);
    return true;
}

/* A seat that the earlier read shows as booked, the later one as free, and that has an owner in the
 * end; -1 if there is none. */
static int32_t forgotten_seat(const struct judge *judge, const struct history_read *earlier,
                              const struct history_read *later)
{
    const struct history *history = judge->history;
    size_t words = (event_seats(&history->events[later->event]) + 63) / 64;
    for (size_t word = 0; word < words; word++) {
        uint64_t gone =
            history->seen[earlier->seen_at + word] & ~history->seen[later->seen_at + word];
        for (; gone; gone &= gone - 1) {
            int32_t seat_no = (int32_t)(word * 64) + __builtin_ctzll(gone);
            if (has_owner(judge, later->event, seat_no))
                return seat_no;
        }
    }
    return -1;
}

/* Holds a read of a session against those of the same session and event that stand before it. */
static void judge_session(const struct readers *readers, size_t at)
{
    struct judge *judge = readers->judge;
    const struct history *history = judge->history;
    const struct history_read *read = &history->reads[readers->sessions[at]];
    bool has_pair = false;
    judge->verdict->reads_session++;
    for (size_t i = at; i-- > 0;) {
        const struct history_read *earlier = &history->reads[readers->sessions[i]];
        if (earlier->reader != read->reader || earlier->event != read->event)
            break;
        if (earlier->answered_us >= read->sent_us || !earlier->got.lsn ||
            !covers(&read->carried, &earlier->got))
            continue;
        has_pair = true;
        int32_t seat_no = forgotten_seat(judge, earlier, read);
        if (seat_no < 0)
            continue;
        verdict_breach(judge, VERDICT_BACKWARDS,
                       "event %" PRId64 " reader %" PRIu32 ": seat %" PRId32 " booked at %" PRId64
                       " us (node %s), free when read at %" PRId64 " us (node %s)",
                       history->events[read->event].id, read->reader, seat_no, earlier->answered_us,
                       history->names[earlier->node], read->sent_us, history->names[read->node]);
        break;
    }
    judge->verdict->session_pairs += has_pair;
}

/* --- all of it -------------------------------------------------------------------------------- */

enum sg_error verdict_judge_reads(struct judge *judge)
{
    const struct history *history = judge->history;
    struct readers readers = {.judge = judge};
    enum sg_error error = SG_NO_MEMORY;
    if (make_promises(&readers) && make_sessions(&readers)) {
        error = SG_OK;
        for (size_t i = 0; i < history->read_count; i++) {
            const struct history_read *read = &history->reads[i];
            if (!has_map(read))
                continue;
            judge->verdict->reads++;
            judge_age(judge, read);
            judge_token(&readers, read);
            judge_undone(judge, read);
        }
        for (size_t i = 0; i < readers.session_count; i++)
            judge_session(&readers, i);
    }
    free(readers.promises);
    free(readers.promises_at);
    free(readers.sessions);
    return error;
}
