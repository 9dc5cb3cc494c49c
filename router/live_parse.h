/*
 * What Redis tells of seats as they change: lines to values (base/rediskeys.h has the format), and
 * the ids that clients bring back. Pure.
 *
 *   "alpha.7 91234-1 91300-2 100 97 1 2 x:4,5;.:9" ── live_line_parse ──> struct live_line
 *   its groups of seats ── live_seats_parse ──> rows, columns and states
 *   its note, "01973c6e-... confirmed" ── live_note_parse ──> struct live_note
 *   "alpha.7-91300-2" ── live_id_parse / live_id_format ──> a place in one generation
 *
 * Bytes from outside are checked, never trusted: what is not exactly of the format is refused.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LIVE_PARSE_H
#define SG_ROUTER_LIVE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rediskeys.h"
#include "base/uuid.h"
#include "router/router.h"

/* Seats of one change; more of them count as "look at all seats again". */
#define LIVE_SEATS_MAX 4096

struct live_counts {
    int64_t total, available, held, booked;
};

enum live_kind {
    LIVE_SEATS,  /* `groups` */
    LIVE_NONE,   /* counters alone */
    LIVE_RESYNC, /* look at all seats again, and at the grid */
    LIVE_GONE    /* the event was deleted */
};

struct live_line {
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t generation;
    struct position previous; /* 0-0: none */
    struct position id;
    struct live_counts counts;
    enum live_kind kind;
    const char *groups; /* borrowed from the line */
    size_t groups_len;
};

/* One line without its '\n'. False and *ret_line untouched if it is none. */
bool live_line_parse(const char *text, size_t len, struct live_line *ret_line);

struct live_seats {
    struct seat seats[LIVE_SEATS_MAX];
    char states[LIVE_SEATS_MAX]; /* . h x */
    size_t count;
};

/* The seats of a LIVE_SEATS line in a grid of `cols` columns and `total` seats, in order; those
 * outside of the grid are left out. False if the text is malformed or names too many; *ret_seats is
 * then of no use. */
bool live_seats_parse(const struct live_line *line, int32_t cols, int64_t total,
                      struct live_seats *ret_seats);

/* What became of the booking of the line that comes next. */
struct live_note {
    struct uuid booking_id;
    const char *status; /* static; NULL: there is no note */
};

/* "BOOKING STATUS". False and *ret_note untouched if it is none. */
bool live_note_parse(const char *text, size_t len, struct live_note *ret_note);

#define LIVE_POSITION_MAX 31

/* "LSN-PLACE" in decimal without leading zeros. Gives its length. */
size_t live_position_format(const struct position *position, char ret_text[LIVE_POSITION_MAX + 1]);
/* A counter: decimal without leading zeros, below zero only if something has gone wrong, which is
 * for reconcile to find and no reason to fall silent. False and *ret_count untouched otherwise. */
bool live_count_parse(const char *text, size_t len, int64_t *ret_count);

/* The place of a reader of one shard's generation: "SHARD.GEN-LSN-PLACE". */
struct live_id {
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t generation;
    struct position position;
};

void live_id_format(const struct live_id *id, char ret_text[ROUTER_LIVE_ID_MAX + 1]);
bool live_id_parse(const char *text, struct live_id *ret_id);

#endif
