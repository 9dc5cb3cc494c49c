/*
 * Projection: what one row change means for Redis. Pure but for the cache of relations.
 *
 *   relation ─> projection_relation (which columns are ours, by name; replaces what was known)
 *   insert, update, delete ─> projection_change ─> 0 to 4 effects
 *
 *   bookings   held and confirmed rows hold seats and are tickets; all other states hold nothing.
 *              insert: what the new row holds is added. delete: what the old one held is taken
 *              away. update: the old one's is taken away, the new one's added, as one effect if
 *              the seats are the same. The old row is whole (REPLICA IDENTITY FULL); a value that
 *              is 'u' (unchanged TOAST) in the new row is the old row's. An update to another
 *              status is told, too, if it moves no seats (expired to failed): somebody may wait.
 *   events     insert, update: the grid; delete: the event is gone
 *   others     nothing; counted and named once in the log by the caller
 *
 * Columns are found by name; further ones are ignored, order and number do not matter. Values may
 * be text or binary. A missing column of ours, or a value that cannot be read, is SG_MALFORMED with
 * the reason: nothing may be guessed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_PROJECTION_H
#define SG_REPLICATION_PROJECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "replication/pgoutput.h"

#define PROJECTION_EFFECTS_MAX 4
#define PROJECTION_PROBLEM_SIZE 240

enum effect_kind {
    EFFECT_GRID,       /* the event exists, with rows x cols seats */
    EFFECT_SEATS,      /* held and booked change by d_held and d_booked; `seats` are now `state` */
    EFFECT_EVENT_GONE, /* the event was deleted */
    EFFECT_TICKET_ADD, /* the user holds the booking */
    EFFECT_TICKET_REMOVE, /* not any more */
    /* not from changes, but from seed and reconcile: */
    EFFECT_EVENT_SEED,   /* counters as of a position: rows, cols, held, booked; replaces */
    EFFECT_TICKET_MEND,  /* add, whatever the key's position */
    EFFECT_TICKET_UNMEND /* remove, likewise */
};

struct effect {
    enum effect_kind kind;
    int64_t event_id;
    int32_t rows; /* GRID, EVENT_SEED */
    int32_t cols;
    bool altered;   /* GRID: the row was there before, so its key has to be */
    int64_t d_held; /* SEATS; EVENT_SEED: absolute */
    int64_t d_booked;
    char state;           /* SEATS: '.' available, 'h', 'x' */
    const int32_t *seats; /* SEATS: seat_no, from 0 */
    size_t seat_count;
    const char *status; /* SEATS: of the booking from now on, static; NULL: not known, or no more */
    const char *user;   /* TICKET_*; 1 to 64 bytes */
    size_t user_len;
    struct uuid booking_id; /* TICKET_*; SEATS with a status */
};

/* Borrowed until the next call of the projection, as are the bytes of the message. */
struct effects {
    size_t count;
    struct effect item[PROJECTION_EFFECTS_MAX];
};

struct projection;

struct projection *projection_new(void); /* NULL when memory runs out */
void projection_free(struct projection *projection);
/* A new connection: forgets all relations. */
void projection_reset(struct projection *projection);

/* SG_OK also for tables that are not ours. SG_MALFORMED: a table of ours lacks a column, or an
 * update would come without its old row (replica identity is not FULL). */
enum sg_error projection_relation(struct projection *projection,
                                  const struct pgoutput_message *message,
                                  char ret_problem[PROJECTION_PROBLEM_SIZE]);
/* INSERT, UPDATE, DELETE. Names the table in *ret_table ("bookings", "events", else "unknown"). */
enum sg_error projection_change(struct projection *projection,
                                const struct pgoutput_message *message, struct effects *ret_effects,
                                const char **ret_table, char ret_problem[PROJECTION_PROBLEM_SIZE]);
/* True if one of the truncated relations is ours (then only a seed helps). */
bool projection_truncates(const struct projection *projection,
                          const struct pgoutput_message *message);

#endif
