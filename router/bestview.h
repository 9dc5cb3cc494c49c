/*
 * What a lane knows of an event's seats, to choose the best of them in memory. Pure.
 *
 *   read from the primary ──load──> free ──choose──> tentative ──settle──> taken
 *                                    ^ ^                 │                   │
 *                                    │ └── given back ───┘                   │
 *                                    └── the end of a hold, the next read ───┘
 *
 * A view may be wrong in both directions, because others sell the same seats: what it takes for
 * free is claimed in the database, which decides; what it takes for taken is no reason for a "no".
 * That comes only from bestview_decide: when a read asked after the request came says so, nothing
 * was taken in the view since, and no attempt is under way whose seats would do if they came back.
 *
 * A hold is free again at its end, a little after the database's own end of it, so that a buyer is
 * not sent for seats that are not free yet.
 *
 * The views of a lane live in a bestviews: within a number of bytes; the one that was asked for
 * least recently goes first, and one with attempts, a read under way or a user does not go.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BESTVIEW_H
#define SG_ROUTER_BESTVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/best.h"

#define BESTVIEW_MARGIN_US 2000  /* behind the end of a hold */
#define BESTVIEW_STALE_US 100000 /* so old is a view that is read anew because it misled */
#define BESTVIEW_CONTEST_US 5000
#define BESTVIEW_ENDS_MAX                                                                          \
    65536 /* ends of holds it knows, if there is room; others come with a read */

struct bestview;
struct bestviews;

/* --- the views of a lane ---------------------------------------------------------------------- */

/* NULL when memory runs out. */
struct bestviews *bestviews_new(size_t bytes_max);
void bestviews_free(struct bestviews *views);
/* The event's view, made if there is none: then it knows nothing. NULL when memory runs
 * out, or the views that cannot go leave no room. */
struct bestview *bestviews_get(struct bestviews *views, int64_t event_id);
/* NULL if there is none. */
struct bestview *bestviews_find(struct bestviews *views, int64_t event_id);
/* Another primary: what all views say is only good for a try, and the reads under way are lost. */
void bestviews_age(struct bestviews *views);
/* Who has something to do with the view, NULL for nobody; at first it is nobody. */
void bestview_set_user(struct bestview *view, void *user);
void *bestview_user(const struct bestview *view);
int64_t bestview_event(const struct bestview *view);
size_t bestviews_count(const struct bestviews *views);
size_t bestviews_bytes(const struct bestviews *views);

/* --- reads ------------------------------------------------------------------------------------ */

/* One state of an event; seat numbers count from 0, row by row. */
struct bestview_read {
    int32_t rows;
    int32_t cols;
    const int32_t *booked;
    size_t booked_count;
    const int32_t *held;
    const int32_t *held_left_ms; /* until the end of each hold, from the moment of the read */
    size_t held_count;
    const char *const *tier_names;  /* from front to back */
    const int32_t *tier_first_rows; /* each ends before the next one */
    size_t tier_count;              /* at most ROUTER_TIERS_MAX */
};

/* A read goes to the primary now, or came to nothing. */
void bestview_ask(struct bestview *view, int64_t now_us);
void bestview_unask(struct bestview *view);
/* When the read under way was asked; 0: there is none. */
int64_t bestview_reading_us(const struct bestview *view);
/* The read under way has come. Seats of attempts under way stay tentative. False when memory runs
 * out or the views that cannot go leave no room; the view is then as before, without a read. */
bool bestview_load(struct bestview *view, const struct bestview_read *read, int64_t now_us);
/* Behind bestview_load, and behind the "no"s that come of it: what was taken since that read was
 * asked may not be in it, and is taken again. */
void bestview_remember(struct bestview *view);
/* It has been read once. */
bool bestview_is_known(const struct bestview *view);
/* The rows of a tier of a view that is known; NULL: of the whole house. False, and *ret_part as it
 * was, if the event has no such tier. */
bool bestview_tier(const struct bestview *view, const char *name, struct best_part *ret_part);

/* --- attempts --------------------------------------------------------------------------------- */

/* What has become of a seat that was tentative, or was heard of it elsewhere. */
enum bestview_end {
    BESTVIEW_BOOKED,
    BESTVIEW_HELD,  /* until until_us */
    BESTVIEW_TAKEN, /* by somebody else: so it stays until the next read */
    BESTVIEW_FREE   /* given back; stays taken if a read has said so meanwhile */
};

/* best_choose of a view that is known; the seats are tentative then, until they are settled. */
bool bestview_choose(struct bestview *view, int64_t now_us, const struct best_part *parts,
                     size_t part_count, uint32_t skip, struct seat *ret_seats, size_t *ret_count);
/* The end of an attempt, or of a part of its seats. */
void bestview_settle(struct bestview *view, const struct seat *seats, size_t count,
                     enum bestview_end end, int64_t until_us);
/* Heard from elsewhere, of seats that are nobody's attempt of this lane: booked, held, or free. */
void bestview_tell(struct bestview *view, const struct seat *seats, size_t count,
                   enum bestview_end end, int64_t until_us);
/* A view that has misled a request accepted at accepted_us time and again is to be read anew: it
 * comes from before the request and is old, also beside the time that reading it takes. */
bool bestview_is_stale(const struct bestview *view, int64_t accepted_us, int64_t now_us);
/* When the read that it comes from was asked; 0: there is none, or of an older primary. */
int64_t bestview_asked_us(const struct bestview *view);
/* The view has misled an attempt, `who` it was. True if it is contested: it has misled another one
 * only BESTVIEW_CONTEST_US before. Then not its age is the reason: rivals want the same seats. */
bool bestview_misled(struct bestview *view, const void *who, int64_t now_us);
/* Seats in these rows could still come back from attempts under way. */
bool bestview_is_tentative(const struct bestview *view, const struct best_part *parts,
                           size_t part_count);
size_t bestview_tentative_count(const struct bestview *view);
/* Free seats in the rows of a part. */
int64_t bestview_free_count(const struct bestview *view, const struct best_part *part);

/* --- the decision ----------------------------------------------------------------------------- */

enum bestview_action {
    BESTVIEW_TRY,         /* claim what was chosen */
    BESTVIEW_WAIT,        /* for an attempt or the read under way, then choose again */
    BESTVIEW_READ,        /* ask the primary, then choose again */
    BESTVIEW_SOLD_OUT,    /* "no": fewer seats than wanted */
    BESTVIEW_NOT_TOGETHER /* "no": seats enough, but not side by side */
};

/* An attempt that would go now. */
struct bestview_finding {
    int64_t accepted_us; /* the request came */
    int64_t asked_us;    /* the read that the view comes from; 0: it is not known, or of old */
    bool known;
    bool reading;   /* a read is under way */
    bool worn;      /* the view has misled this attempt as often as it may */
    bool found;     /* seats for all parts */
    bool changed;   /* seats were taken in the view since it was read */
    bool tentative; /* seats of attempts under way would do, if they came back */
    bool enough;    /* free seats for all parts, not counting whether side by side */
};

enum bestview_action bestview_decide(const struct bestview_finding *finding);
/* What the view has to say to it; `found` and `worn` are the caller's. */
struct bestview_finding bestview_find_out(struct bestview *view, int64_t accepted_us,
                                          const struct best_part *parts, size_t part_count);

#endif
