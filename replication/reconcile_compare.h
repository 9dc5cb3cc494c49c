/*
 * The comparison of reconcile: what PostgreSQL has at C, what the feed put in line since, and what
 * Redis has now. Pure: no I/O, no clock.
 *
 *   compare_note(effect, position)        from before C is known, until the end
 *   compare_add_event, compare_add_ticket what PostgreSQL has at C, what Redis is suspected to have
 *   compare_seal(C)                       from here on only notes of the slice and above C count
 *   compare_event, compare_ticket         one key as Redis has it now ─> SAME, DRIFT, LATER
 *   compare_heal_event, _ticket           the effect that puts it right
 *
 * An event is followed forwards: the counters at C, then every note above C up to the key's `at`,
 * as event.lua applies them, are what Redis must hold, however busy the event is. It is healed by
 * one effect: the counters after all its notes, as of the last one; whatever comes later in line is
 * above that. An event that was made above C, perhaps again, is left for LATER: bookings may have
 * outlived one of the same id. So is a ticket that was touched above C.
 *
 * C is the end of a WAL record: everything whose commit starts below it is in the snapshot, and a
 * commit may start right there. So C as a position is {C, 0}.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_RECONCILE_COMPARE_H
#define SG_REPLICATION_RECONCILE_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rediskeys.h"
#include "base/uuid.h"
#include "replication/projection.h"

#define COMPARE_WHAT_SIZE 120
#define COMPARE_USER_MAX 64

struct compare;

/* An event in PostgreSQL. */
struct compare_counters {
    bool exists;
    int32_t rows, cols;
    int64_t held, booked;
};

/* The key of an event in Redis. */
struct compare_event_key {
    bool any;    /* one of the counters is there */
    bool whole;  /* all are, and are numbers */
    bool placed; /* `at` is there, and is a position */
    struct position at;
    int64_t total, available, held, booked, rows, cols;
};

struct compare_ticket {
    const char *user; /* NUL-terminated, into the comparison */
    size_t user_len;
    struct uuid booking_id;
    int64_t event_id; /* 0: PostgreSQL has no such ticket */
    bool touched;     /* above C */
};

enum compare_verdict { COMPARE_SAME, COMPARE_DRIFT, COMPARE_LATER };

struct compare *compare_new(size_t notes_max); /* NULL when memory runs out */
void compare_free(struct compare *compare);

/* In the order of the stream. */
void compare_note(struct compare *compare, const struct effect *effect,
                  const struct position *position);
/* More was to be noted than there is room for, or memory ran out: nothing is known. */
bool compare_is_full(const struct compare *compare);

/* Before the seal; also twice. Of a ticket's doubles the one that PostgreSQL has counts. */
void compare_add_event(struct compare *compare, int64_t event_id,
                       const struct compare_counters *counters);
void compare_add_ticket(struct compare *compare, const char *user, size_t user_len,
                        const struct uuid *booking_id, int64_t event_id);
/* Sorts: events by id, tickets by user and booking. */
void compare_seal(struct compare *compare, uint64_t lsn);

size_t compare_event_count(const struct compare *compare);
int64_t compare_event_id(const struct compare *compare, size_t i);
size_t compare_ticket_count(const struct compare *compare);
const struct compare_ticket *compare_ticket_at(const struct compare *compare, size_t i);

/* What differs, in ret_what, for DRIFT alone. */
enum compare_verdict compare_event(const struct compare *compare, size_t i,
                                   const struct compare_event_key *key,
                                   char ret_what[COMPARE_WHAT_SIZE]);
/* event_id: what Redis has under the booking; 0 nothing, -1 no number. */
enum compare_verdict compare_ticket(const struct compare *compare, size_t i, int64_t event_id,
                                    char ret_what[COMPARE_WHAT_SIZE]);

/* To be put in line before anything else is noted. False: made since C, to be left alone. */
bool compare_heal_event(const struct compare *compare, size_t i, struct effect *ret_effect,
                        struct position *ret_position);
/* False: touched meanwhile, to be left alone. */
bool compare_heal_ticket(const struct compare *compare, size_t i, struct effect *ret_effect,
                         struct position *ret_position);

#endif
