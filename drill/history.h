/*
 * What a drill asked and what it was answered: every request of its load, in memory.
 *
 *   load ── arrival, attempt, answer ──> history ──> verdict (with the truth of the databases)
 *                                           └─────> JSON lines, for people who look into a failure
 *
 * Append-only. A booking is one wish of one customer under one Idempotency-Key; each time it is
 * sent is an attempt, so that what the client asked again belongs to one booking. A read is sent
 * once. All times are microseconds of the monotonic clock of the process that made the load. Seats
 * go by seat_no as in the database: (row - 1) * cols + col - 1.
 *
 * One thread writes; others read only after it has ended. Nothing here calls a clock. What does not
 * fit into the bounds is refused and counted (refused): such a history proves nothing any more.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_HISTORY_H
#define SG_DRILL_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/uuid.h"
#include "router/router.h"

#define HISTORY_NAMES_MAX 64 /* shards and nodes; the first is "", for none told */
#define HISTORY_KEY_SIZE 40  /* of an Idempotency-Key, with its NUL */
#define HISTORY_NONE UINT32_MAX

/* How an attempt or a read ended, as the client saw it. */
enum history_end {
    HISTORY_PENDING,   /* not yet; when the load has been stopped: never */
    HISTORY_ANSWERED,  /* status and error say what */
    HISTORY_UNREACHED, /* no connection could be made: certainly never sent */
    HISTORY_CLOSED,    /* the connection ended without an answer */
    HISTORY_TIMED_OUT, /* the client waited no longer */
    HISTORY_GARBLED,   /* bytes that are no answer */
    HISTORY_ENDS
};

/* `error` of an answer with a code that is not in the table of base/error.h, or with none. */
#define HISTORY_ERROR_OTHER ((uint8_t)SG_ERROR_COUNT)

enum history_durability { HISTORY_NOT_TOLD, HISTORY_ASYNC, HISTORY_SYNC };

/* As an answer tells it; lsn 0: none. */
struct history_token {
    uint64_t lsn;
    int32_t timeline;
};

struct history_event {
    int64_t id;
    int32_t rows;
    int32_t cols;
    uint8_t shard; /* a name */
    bool watched;  /* readers look at it; small enough that every seat map is kept */
};

struct history_attempt {
    int64_t sent_us;
    int64_t answered_us; /* when it ended, however it did; 0 while pending */
    struct uuid booking_id;
    struct history_token token;
    uint32_t booking;
    uint32_t next; /* of the same booking, HISTORY_NONE at the end */
    uint32_t connection;
    uint32_t conflicts_at; /* 409: the seats it names, in history->seats */
    uint16_t conflict_count;
    uint16_t status;    /* 0 without an answer */
    uint8_t end;        /* enum history_end */
    uint8_t error;      /* enum sg_error of the answer's code, SG_OK for 201 */
    uint8_t shard;      /* names; 0: not told */
    uint8_t node;       /* bookings are told none */
    uint8_t durability; /* enum history_durability */
    bool replayed;      /* Idempotent-Replayed: true */
    bool differs;       /* 201 whose event or seats are not those that were asked for */
};

struct history_booking {
    int64_t due_us; /* when it was to be sent; open loop: latencies run from here */
    uint32_t event; /* index in history->events */
    uint32_t seats_at;
    uint16_t seat_count;
    uint16_t attempt_count; /* 0: not sent, too many were under way */
    uint32_t first_attempt; /* HISTORY_NONE: none */
    uint32_t last_attempt;
    uint32_t user;
};

struct history_read {
    int64_t due_us;
    int64_t sent_us;     /* 0: not sent, too many were under way */
    int64_t answered_us; /* as in an attempt */
    struct history_token carried;
    struct history_token got;
    uint32_t event;
    uint32_t reader;
    uint32_t connection;
    uint32_t seen_at;     /* bitmap in history->seen: seats that are booked; HISTORY_NONE: no map */
    uint32_t seen_booked; /* how many of them */
    int32_t bound_ms;     /* SeatGrid-Max-Staleness asked for; -1: none */
    int32_t staleness_ms; /* SeatGrid-Staleness told; -1: none */
    uint16_t status;
    uint8_t end;
    uint8_t error;
    uint8_t shard;
    uint8_t node;
    bool session; /* the reader carries forward every token that it gets */
};

/* Read it freely; only the functions below write. */
struct history {
    uint64_t run; /* in every key: bookings of other drills are told apart */
    struct history_event *events;
    struct history_booking *bookings;
    struct history_attempt *attempts;
    struct history_read *reads;
    int32_t *seats; /* of bookings and conflicts */
    uint64_t *seen; /* bitmaps, bit seat_no % 64 of word seat_no / 64 */
    size_t event_count, booking_count, attempt_count, read_count, seat_count, seen_words;
    size_t event_room, booking_room, attempt_room, read_room, seat_room, seen_room;
    size_t max_bytes;
    size_t bytes;
    uint64_t refused; /* records that did not fit into max_bytes or memory */
    char names[HISTORY_NAMES_MAX][SHARDMAP_NAME_MAX + 1];
    size_t name_count;
};

/* What became of a booking, from what the client was told alone. An attempt is AMBIGUOUS if it may
 * have been done although no answer says so: closed, timed out, garbled or pending after it was
 * sent, or answered with an error that does not promise that nothing happened
 * (history_is_ambiguous). */
enum history_outcome {
    HISTORY_UNSENT,  /* no attempt: too many requests were under way */
    HISTORY_BOOKED,  /* an attempt got 201, whatever the others got */
    HISTORY_REFUSED, /* no 201; a refusal came, and no ambiguous attempt was sent after that */
    HISTORY_FAILED, /* no 201, no refusal, no ambiguous attempt: errors that say nothing was done */
    HISTORY_AMBIGUOUS, /* no 201; an ambiguous attempt that no later refusal settled */
    HISTORY_OUTCOMES
};

/* Memory is bounded by max_bytes; a booking with one attempt costs about 170 bytes, a read 150.
 * NULL without memory. */
struct history *history_new(size_t max_bytes, uint64_t run);
void history_free(struct history *history);

/* Index of a name, noted when new; 0 for "" and when there is no room for it. */
uint8_t history_name(struct history *history, const char *text, size_t len);

/* Each appends and returns the index, or HISTORY_NONE: refused and counted. Seats are copied. */
uint32_t history_add_event(struct history *history, const struct history_event *event);
uint32_t history_add_booking(struct history *history, int64_t due_us, uint32_t event, uint32_t user,
                             const int32_t *seats, size_t seat_count);
/* An attempt that is now sent: PENDING, on that connection. */
uint32_t history_add_attempt(struct history *history, uint32_t booking, int64_t sent_us,
                             uint32_t connection);
/* *read with its seen_* set here: PENDING. */
uint32_t history_add_read(struct history *history, const struct history_read *read);
/* The seats that the 409 of an attempt names. False: refused. */
bool history_set_conflicts(struct history *history, uint32_t attempt, const int32_t *seats,
                           size_t count);
/* Room for the bitmap of a read's seat map, all 0; NULL: refused. The caller sets the bits, then
 * seen_booked. Valid until the next call. */
uint64_t *history_set_seen(struct history *history, uint32_t read);

/* The Idempotency-Key of a booking, "drill-<run>-<index>", and back: HISTORY_NONE if the key is not
 * one of this history's bookings. */
void history_key(const struct history *history, uint32_t booking, char ret_key[HISTORY_KEY_SIZE]);
uint32_t history_key_booking(const struct history *history, const char *key);

/* The error of a problem's code; HISTORY_ERROR_OTHER for one that the table does not know. */
uint8_t history_error(const char *code, size_t len);
/* Text for an error of an attempt or a read: its code, or "other". */
const char *history_error_name(uint8_t error);
const char *history_end_name(enum history_end end);
const char *history_outcome_name(enum history_outcome outcome);

/* May this attempt have been done although no answer says so? False for 201, for 4xx, for a request
 * that was never sent, and for overloaded, shard_unavailable, deadline_exceeded, shard_fenced,
 * stale_epoch, not_synchronous: these promise that nothing happened. True for all else. */
bool history_is_ambiguous(const struct history_attempt *attempt);
/* Answered 201. */
bool history_is_booked(const struct history_attempt *attempt);
/* Answered with a REFUSAL: 4xx, save 408 and 429, which only ask to come again. */
bool history_is_refusal(const struct history_attempt *attempt);
enum history_outcome history_outcome(const struct history *history, uint32_t booking);
/* The first attempt that got 201, or NULL. */
const struct history_attempt *history_acknowledged(const struct history *history, uint32_t booking);

static inline bool history_seen(const struct history *history, const struct history_read *read,
                                int32_t seat_no)
{
    return history->seen[read->seen_at + (uint32_t)seat_no / 64] >> (seat_no % 64) & 1;
}

/* All of it, one JSON object a line: {"event":..}, {"booking":..}, {"read":..}. False: errno. */
bool history_write(const struct history *history, FILE *file);

#endif
