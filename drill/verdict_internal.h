/*
 * What the files of the verdict share; see verdict.h.
 *
 *   verdict.c        tables of bookings and seats, what the databases hold, what bookings were told
 *   verdict_reads.c  what readers were shown
 *
 * Nobody else includes this; verdict_measure.c (windows of time: latencies, pauses, failures) needs
 * none of it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_VERDICT_INTERNAL_H
#define SG_DRILL_VERDICT_INTERNAL_H

#include "drill/verdict.h"

/* Who asked for a seat and may have had it, and when the first attempt that can have done it went
 * out. */
struct rival {
    int64_t sent_us;
    uint32_t booking;
};

struct judged_booking {
    uint8_t outcome; /* enum history_outcome */
    bool lost;
    bool lost_async;
    uint32_t there; /* index of its confirmed booking in the truth, or HISTORY_NONE */
};

struct judged_seat {
    int64_t known_us; /* first acknowledgement of a booking there that has it; INT64_MAX: none */
    struct rival rival[2]; /* the two earliest, of two bookings; booking HISTORY_NONE: none */
    uint32_t acknowledged; /* a booking that has it, HISTORY_NONE: none */
    uint32_t owner;        /* a confirmed booking of the truth, HISTORY_NONE: none */
    uint32_t claim;        /* in the truth, HISTORY_NONE: none */
    bool told_twice;
    bool owned_twice;
};

struct judge {
    const struct history *history;
    const struct truth *truth;
    struct verdict *verdict;
    struct judged_booking *bookings; /* one a booking of the history */
    struct judged_seat *seats;       /* of all events, one event after another */
    size_t *seats_at;                /* one an event: where its seats begin */
};

static inline size_t event_seats(const struct history_event *event)
{
    return (size_t)event->rows * (size_t)event->cols;
}

static inline struct judged_seat *judged_seat(const struct judge *judge, uint32_t event,
                                              int32_t seat_no)
{
    return &judge->seats[judge->seats_at[event] + (size_t)seat_no];
}

/* Counts a breach and keeps it as an example if there are few of its kind. */
void verdict_breach(struct judge *judge, enum verdict_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* All that is said of reads. SG_OK or SG_NO_MEMORY. */
enum sg_error verdict_judge_reads(struct judge *judge);

#endif
