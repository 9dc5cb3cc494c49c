/*
 * Judges a drill: the history of what clients were told, set against the truth of the databases.
 * Pure.
 *
 *   history + truth ─> verdict_judge ───> breaches of promises, counted, the first ones in words
 *   history ─────────> verdict_measure ─> what a shard's clients felt in a window of time
 *
 * In what follows: a booking is ACKNOWLEDGED if an attempt of it got 201; AMBIGUOUS, REFUSED,
 * FAILED, UNSENT as in history.h (enum history_outcome). A booking is THERE if the truth has a
 * confirmed booking with its key. It is LOST if it is acknowledged and not there. The workload
 * never cancels, so a seat that was once sold stays sold, unless its booking is lost.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_VERDICT_H
#define SG_DRILL_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "drill/history.h"
#include "drill/truth.h"

/* Each is counted in bookings, seats or reads as said; every one of them has to be 0, save
 * LOST_ASYNC and UNDONE where a primary went with an asynchronous shard. X(enumerator, name in JSON
 * and tables, for people) */
#define VERDICT_TABLE(X)                                                                           \
    /* bookings acknowledged and not there, or there with other seats; not all told async */       \
    X(VERDICT_LOST, "lost", "acknowledged bookings lost")                                          \
    /* the same, where every 201 of the booking told async */                                      \
    X(VERDICT_LOST_ASYNC, "lost_async", "bookings lost that were acknowledged as async")           \
    /* seats that two acknowledged bookings have, those in LOST_ASYNC left out, or that stand in   \
     * two confirmed bookings of the truth; a seat counts once */                                  \
    X(VERDICT_SOLD_TWICE, "sold_twice", "seats sold twice")                                        \
    /* seats of the truth, but those sold twice: a claim whose booking is not there with that      \
     * seat, a confirmed booking's seat without its claim, a claim that is held (the load makes no \
     * holds), a seat outside the grid */                                                          \
    X(VERDICT_TORN, "torn", "claims and bookings that do not match")                               \
    /* bookings there that are refused, failed or unsent: somebody was told no, and it was done */ \
    X(VERDICT_DENIED, "denied", "bookings done that the client was told were not")                 \
    /* bookings of the truth, of any status, that are none of ours by key, or not confirmed */     \
    X(VERDICT_STRANGE, "strange", "bookings that nobody asked for")                                \
    /* bookings with two 201 that name two ids, an acknowledged id that is not the truth's, or a   \
     * 201 for another event or other seats than were asked for */                                 \
    X(VERDICT_CONTRADICTION, "contradictions", "answers that contradict each other")               \
    /* attempts answered 409 that name no seat, a seat that was not asked for, or a seat that      \
     * nobody else can have had by then: no other booking that is acknowledged, there or ambiguous \
     * asks for it with an attempt sent before the 409 came */                                     \
    X(VERDICT_FALSE_NO, "false_no", "seats refused that nobody had")                               \
    /* reads with a bound that were sent later than the bound after a booking of their event had   \
     * been acknowledged (its first 201; lost ones do not count) and show a seat of it as free */  \
    X(VERDICT_STALE_BOUND, "stale_bound", "reads older than the bound asked for")                  \
    /* reads, with a bound or not, that are older in the same sense than SeatGrid-Staleness said,  \
     * or that said more than was asked for */                                                     \
    X(VERDICT_STALE_TOLD, "stale_told", "reads older than they said they were")                    \
    /* reads that carry a token and do not show a booking there whose 201 came before they were    \
     * sent and told a token of the same shard with timeline and LSN both at most the carried ones \
     */                                                                                            \
    X(VERDICT_TOKEN_MISSED, "token_missed", "reads that do not show what their token promises")    \
    /* reads of a session (history_read.session) that show a seat free which an earlier read of    \
     * the same session and event, answered before this one was sent, showed as booked; the seat   \
     * has an owner in the end; the earlier read's answer had given a token, which this one        \
     * carried or a later one (without a token from reads nothing is promised between two) */      \
    X(VERDICT_BACKWARDS, "backwards", "reads of a session that went back in time")                 \
    /* reads that showed a seat as booked which nobody has in the end */                           \
    X(VERDICT_UNDONE, "undone", "reads of sales that were undone")

enum verdict_kind {
#define X(name, label, text) name,
    VERDICT_TABLE(X)
#undef X
        VERDICT_KINDS
};

const char *verdict_name(enum verdict_kind kind); /* "sold_twice" */
const char *verdict_text(enum verdict_kind kind); /* "seats sold twice" */

#define VERDICT_EXAMPLES_MAX 20
#define VERDICT_EXAMPLE_SIZE 240

struct verdict_example {
    enum verdict_kind kind;
    char text[VERDICT_EXAMPLE_SIZE]; /* one line: key, event, seat, times; enough to find it */
};

struct verdict {
    uint64_t breaches[VERDICT_KINDS];
    struct verdict_example examples[VERDICT_EXAMPLES_MAX]; /* at most 3 of a kind */
    size_t example_count;

    uint64_t bookings;                   /* that arrived */
    uint64_t outcomes[HISTORY_OUTCOMES]; /* of them, by enum history_outcome */
    uint64_t resolved; /* had an ambiguous attempt, and a later one got 201 or a refusal */
    uint64_t
        ambiguous_done; /* still ambiguous, and there: allowed, the client knows it has to ask */
    uint64_t reads;     /* seat maps got */
    uint64_t reads_bound, reads_token, reads_session; /* of them: that were held to that promise */
    uint64_t session_pairs; /* reads that could be held against an earlier one of their session */
    uint64_t refused;       /* records that the history had no room for */
};

/* SG_OK and *ret_verdict, or SG_NO_MEMORY. */
enum sg_error verdict_judge(const struct history *history, const struct truth *truth,
                            struct verdict *ret_verdict);

/* --- what was felt ---------------------------------------------------------------------------- */

#define MEASURE_KINDS (SG_ERROR_COUNT + 1 + HISTORY_ENDS)

struct measure_latency {
    uint64_t count;
    int64_t p50_us, p99_us, max_us; /* 0 when count is 0 */
};

/* Of the requests to one shard that were due in [from_us, to_us). */
struct measure {
    /* By enum history_outcome: booked + refused + failed_bookings + unsettled + not_sent. */
    uint64_t bookings;
    uint64_t booked, refused, failed_bookings, unsettled, not_sent;
    uint64_t reads, reads_ok, reads_not_sent;
    /* Every attempt or read that a client saw fail: no 201 and no 409 seats_taken, or no seat map.
     * Also those that a later attempt made good. By kind: see measure_kind_name. */
    uint64_t failed, reads_failed;
    uint64_t failed_kinds[MEASURE_KINDS];   /* bookings' and reads' together */
    struct measure_latency booking_latency; /* from due to the answer: 201 or a refusal */
    /* The write pause: longest time between two acknowledgements (any 201 of the shard) that follow
     * each other, looking at every such gap that has a part in the window; the edges of the history
     * count as acknowledgements. So a pause that begins or ends outside counts with all of its
     * length; on a quiet shard it is at least the time between two arrivals. */
    int64_t pause_us;
    /* The longest that any booking due in the window waited, from due until it was settled or, if
     * it failed, until its last answer; for one ambiguous to the end, until the history's end.
     * Those not sent are left out. */
    int64_t longest_wait_us;
};

/* `shard` by name; NULL: all shards. `except`: with shard NULL, all shards but this one (NULL: none
 * left out). Pauses are of single shards: with several, the longest of any of them. INT64_MIN and
 * INT64_MAX: no bound. SG_OK or SG_NO_MEMORY. */
enum sg_error verdict_measure(const struct history *history, const char *shard, const char *except,
                              int64_t from_us, int64_t to_us, struct measure *ret_measure);

/* "shard_unavailable", "other", "closed", ...: the name of failed_kinds[i]. */
const char *measure_kind_name(size_t i);

/* The nearest-rank quantile: the smallest value such that at least q (0 < q <= 1) of all are not
 * greater. Sorts `values`; 0 when count is 0. */
int64_t verdict_quantile(int64_t *values, size_t count, double q);

/* First and last moment of the history: the earliest due, the latest answer (or due). Both 0 when
 * it is empty. */
void verdict_span(const struct history *history, int64_t *ret_from_us, int64_t *ret_to_us);

#endif
