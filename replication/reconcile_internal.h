/*
 * What the files of one slice of reconcile share; nobody else includes this.
 *
 *   reconcile.c            its life, the session to PostgreSQL, one step after the other
 *   reconcile_suspects.c   SCAN and HSCAN: what Redis has
 *   reconcile_questions.c  what is asked of PostgreSQL, and its answers
 *   reconcile_keys.c       the keys as they are at the end, compared and healed
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_RECONCILE_INTERNAL_H
#define SG_REPLICATION_RECONCILE_INTERNAL_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dynbuf.h"
#include "base/redisconn.h"
#include "base/uuid.h"
#include "replication/reconcile.h"
#include "replication/reconcile_compare.h"

#define RECONCILE_POLL_US 5000
#define RECONCILE_ASKS_MAX 256 /* commands to Redis under way */
#define RECONCILE_COMMAND_MAX ((size_t)128 * 1024)
#define RECONCILE_REASON_SIZE 320

enum reconcile_state {
    RECONCILE_CONNECTING,
    RECONCILE_SCANNING,
    RECONCILE_SNAPSHOT,
    RECONCILE_ASKING,
    RECONCILE_MARKING,
    RECONCILE_WAITING,
    RECONCILE_READING,
    RECONCILE_HEALING,
    RECONCILE_DONE,
    RECONCILE_FAILED
};

enum question { ASK_EVENTS, ASK_SUSPECTED_EVENTS, ASK_TICKETS, ASK_PAIRS, ASK_NO_MORE };

struct pair {
    size_t user; /* index */
    int64_t event_id;
    struct uuid booking_id;
};

struct scanned_user {
    char name[COMPARE_USER_MAX + 1];
};

struct heal {
    bool is_ticket;
    size_t index;
};

struct reconcile {
    struct reconcile_config config; /* shard: a copy */
    char *shard;
    enum reconcile_state state;
    bool freed;
    bool told;
    struct event *turn;     /* polls, tries again, tells the end */
    struct event *deadline; /* of all of it */
    struct pgsession *session;
    struct compare *compare;
    struct reconcile_cursor next;
    struct reconcile_report report;
    char reason[RECONCILE_REASON_SIZE];

    int64_t *events; /* suspects, by SCAN */
    size_t event_count, event_size;
    struct scanned_user *users;
    size_t user_count, user_size, users_asked;
    struct pair *pairs;
    size_t pair_count, pair_size, pairs_asked;
    int scans;

    enum question question;
    bool answered; /* the question had a result */
    int64_t events_taken;
    int64_t bookings_summed;
    uint64_t lsn;  /* C */
    bool unfenced; /* no switchover had fenced the shard, behind C */
    size_t asks_in_flight;
    size_t next_event, next_ticket; /* READING */
    struct heal *heals;             /* found no room in line */
    size_t heal_count, heal_size;
};

/* One command to Redis that is under way. */
struct ask {
    struct reconcile *reconcile;
    size_t index; /* user; event; first ticket */
    size_t count; /* tickets */
};

/* reconcile.c */
bool reconcile_is_over(const struct reconcile *reconcile);
void reconcile_set_state(struct reconcile *reconcile, enum reconcile_state state);
void reconcile_fail(struct reconcile *reconcile, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void reconcile_finish(struct reconcile *reconcile);
/* The step that the state asks for, so much later. */
void reconcile_go_on_in(struct reconcile *reconcile, int64_t us);
/* The array with room for one more, perhaps moved; NULL: that was the end. */
void *reconcile_make_room(struct reconcile *reconcile, void *items, size_t count, size_t *size,
                          size_t item_len);
/* Frees what is freed as soon as no command is under way. */
void reconcile_release(struct reconcile *reconcile);
void reconcile_take_snapshot(struct reconcile *reconcile);

/* reconcile_suspects.c */
void reconcile_scan(struct reconcile *reconcile);
/* Sends one command; fn gets a struct ask. Takes the buffer. */
void reconcile_send_ask(struct reconcile *reconcile, struct dynbuf *command, redisconn_fn *fn,
                        size_t index, size_t count);
/* The reconcile of an answered command, whose array is in `reply`; NULL when it is over. */
struct reconcile *reconcile_take_ask(struct ask *ask, const redisReply *reply);
bool reconcile_parse_number(const char *text, size_t len, int64_t *ret_value);
bool reconcile_parse_uuid(const char *text, size_t len, struct uuid *ret_uuid);

/* reconcile_questions.c */
/* Appends the next question; false when there is none. */
bool reconcile_write_question(struct reconcile *reconcile, struct dynbuf *sql);
void reconcile_on_answer(void *arg, const PGresult *result);
/* The question was answered: which one is next. */
void reconcile_next_question(struct reconcile *reconcile);

/* reconcile_keys.c */
void reconcile_read(struct reconcile *reconcile);
void reconcile_heal(struct reconcile *reconcile);

#endif
