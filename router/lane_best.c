/*
 * The best seats for takes. See lane_best.h; router/bestview.h has what is known of an event, and
 * when the answer may be "no".
 *
 *   choose ─> decide ─┬─ try ──> the batch ─┬─ booked, held ──────────────────────> done
 *               ^     │                     └─ missed: learnt, again, first in line
 *               │     ├─ wait, read ─> a crowd, one an event with somebody who waits
 *               │     │                     │ an attempt has ended, or the view has come
 *               └─────┼─────────────────────┘
 *                     └─ no ──> refused (who may have been answered before: looks first)
 *
 * A "no" is given when the view comes, before anything else happens to it: at a later moment seats
 * of the lane's own sales have changed it, and it would have to be read again, and again. Who may
 * have been answered before is looked for behind that, and once: a later view could miss what a
 * double click has had meanwhile.
 *
 * Who missed what others took chooses again by what the miss has taught; after some misses an old
 * view is read anew. If several miss at one time, the lanes of others, which see the same best
 * seats, are at them: then the next choice is one further behind, by chance, so that they come
 * apart. Lanes of one process tell each other what they choose and what is free again (see
 * best_news.h), so it is those of other processes that are met.
 *
 * What others give back no miss teaches. So a view that is in use and old is refreshed: read beside
 * the work, one at a time, and seldom beside the time that takes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_best.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/settings.h"
#include "router/best_news.h"
#include "router/best_rows.h"
#include "router/best_take.h"
#include "router/bestview.h"
#include "router/calls.h"
#include "router/lane.h"

/* Choices that are passed over after a miss: one of so many, twice as many after the next. */
#define SPREAD_FIRST 16
#define STALE_MISSES                                                                               \
    3 /* of an old view, before it is read anew; learning is cheaper than reading */
#define SPREAD_DOUBLINGS_MAX 4
#define READ_PAUSE_US 20000 /* after a read that came to nothing */
#define REFRESH_REST 50     /* after a refresh: so many times as long as it took */

TAILQ_HEAD(attempt_list, attempt);
TAILQ_HEAD(crowd_list, crowd);
LIST_HEAD(reading_list, reading);

/* One op with wishes. Hangs on op->best until lane_best_done. */
struct attempt {
    TAILQ_ENTRY(attempt) link; /* in its crowd */
    struct lane_op *op;
    struct crowd *crowd;    /* it waits there; NULL: it does not */
    struct best_take *take; /* it is at the database; NULL: it is not */
    unsigned misses;        /* since a view was read for it */
    bool contested;         /* the last one beside others' */
    bool chosen;            /* its seats are tentative in the event's view */
    bool to_look;           /* it goes without seats, once */
    bool looked;            /* it has, in vain: it has seats chosen now, or is told its "no" */
    enum sg_error no;       /* what a view has said */
    int64_t left;           /* likewise */
};

/* Those who wait for seats of one event, longest first. The user of the view. */
struct crowd {
    TAILQ_ENTRY(crowd) link;
    struct bestview *view;
    struct attempt_list waiting;
    bool stirred; /* something has happened: to be looked at again */
};

/* A view under way. */
struct reading {
    LIST_ENTRY(reading) link;
    struct lane_best *best; /* NULL: gone */
    int64_t event_id;
    int64_t asked_us;
    bool refreshes; /* nobody waited for it when it was asked */
};

struct lane_best {
    struct lane *lane;
    struct calls *calls;
    const struct settings *settings;
    struct bestviews *views;
    struct crowd_list crowds;
    struct reading_list readings;
    struct event *stir;   /* runs behind what has stirred crowds */
    struct event *pause;  /* stirs all */
    struct best_ear *ear; /* NULL: there are no news */
    uint32_t shard;       /* as in the news */
    bool refreshing;
    int64_t refresh_us; /* the next refresh not before */
};

/* --- crowds ----------------------------------------------------------------------------------- */

static void stir(struct lane_best *best, struct bestview *view)
{
    struct crowd *crowd = bestview_user(view);
    if (!crowd)
        return;
    crowd->stirred = true;
    event_active(best->stir, EV_TIMEOUT, 0);
}

static void stir_all(struct lane_best *best)
{
    struct crowd *crowd;
    TAILQ_FOREACH (crowd, &best->crowds, link)
        stir(best, crowd->view);
}

static struct crowd *crowd_of(struct lane_best *best, struct bestview *view)
{
    struct crowd *crowd = bestview_user(view);
    if (crowd)
        return crowd;
    crowd = calloc(1, sizeof(*crowd));
    if (!crowd)
        return NULL;
    crowd->view = view;
    TAILQ_INIT(&crowd->waiting);
    TAILQ_INSERT_TAIL(&best->crowds, crowd, link);
    bestview_set_user(view, crowd);
    return crowd;
}

static void crowd_free(struct lane_best *best, struct crowd *crowd)
{
    bestview_set_user(crowd->view, NULL);
    TAILQ_REMOVE(&best->crowds, crowd, link);
    free(crowd);
}

static enum sg_error join(struct lane_best *best, struct attempt *attempt, struct bestview *view)
{
    if (attempt->crowd)
        return SG_OK;
    attempt->crowd = crowd_of(best, view);
    if (!attempt->crowd)
        return SG_NO_MEMORY;
    TAILQ_INSERT_TAIL(&attempt->crowd->waiting, attempt, link);
    return SG_OK;
}

/* Its crowd is freed when it is looked at the next time and nobody is there. */
static void leave(struct lane_best *best, struct attempt *attempt)
{
    struct crowd *crowd = attempt->crowd;
    if (!crowd)
        return;
    TAILQ_REMOVE(&crowd->waiting, attempt, link);
    attempt->crowd = NULL;
    if (TAILQ_EMPTY(&crowd->waiting))
        stir(best, crowd->view);
}

/* --- news ------------------------------------------------------------------------------------- */

/* `until_us`: of a hold. */
static void say(const struct lane_best *best, int64_t event_id, const struct seat *seats,
                size_t count, enum bestview_end end, int64_t until_us)
{
    const struct router_config *config = lane_config(best->lane);
    const struct best_note about = {
        .shard = best->shard, .event_id = event_id, .end = end, .until_us = until_us};
    if (best->ear)
        best_news_say(config->best_news, config->worker, &about, seats, count);
}

static void take_note(struct lane_best *best, const struct best_note *note)
{
    struct bestview *view =
        note->shard == best->shard ? bestviews_find(best->views, note->event_id) : NULL;
    if (!view || note->said_us < bestview_asked_us(view))
        return; /* the read knows */
    for (int32_t i = 0; i < note->count; i++) {
        struct seat seat = {note->first.row, note->first.col + i};
        bestview_tell(view, &seat, 1, note->end, note->until_us);
    }
    if (note->end == BESTVIEW_FREE)
        stir(best, view);
}

static void hear_news(struct lane_best *best)
{
    struct best_note note;
    while (best->ear && best_news_hear(best->ear, &note))
        take_note(best, &note);
}

/* --- the decision ----------------------------------------------------------------------------- */

/* The tier that the event lacks; NULL: none, the parts are filled in. */
static const char *parts_of(const struct bestview *view, const struct lane_op *op,
                            struct best_part ret_parts[ROUTER_BEST_MAX])
{
    for (size_t i = 0; i < op->wish_count; i++) {
        const struct best_wish *wish = &op->wishes[i];
        ret_parts[i] = (struct best_part){.quantity = wish->quantity, .together = wish->together};
        if (!bestview_tier(view, wish->tier, &ret_parts[i]))
            return wish->tier;
    }
    return NULL;
}

static uint32_t skip_of(const struct attempt *attempt)
{
    if (attempt->misses == 0 || !attempt->contested)
        return 0;
    unsigned doublings = attempt->misses - 1;
    if (doublings > SPREAD_DOUBLINGS_MAX)
        doublings = SPREAD_DOUBLINGS_MAX;
    uint64_t chance = hash_bytes(HASH_START ^ attempt->misses, &attempt->op->booking_id,
                                 sizeof(attempt->op->booking_id));
    return (uint32_t)(hash_u64(chance) % ((uint64_t)SPREAD_FIRST << doublings));
}

/* In the tier that has too few, if one has. */
static int64_t seats_left(const struct bestview *view, const struct best_part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t wanted = 0;
        int64_t left = bestview_free_count(view, &parts[i]);
        for (size_t j = 0; j < count; j++) {
            if (parts[j].first_row >= parts[i].first_row && parts[j].last_row <= parts[i].last_row)
                wanted += parts[j].quantity;
        }
        if (wanted > left)
            return left;
    }
    return 0;
}

static int64_t accepted_us(const struct lane_best *best, const struct lane_op *op)
{
    return op->deadline_us - best->settings->booking.deadline_ms * 1000;
}

/* Its booking may be there already. */
static bool may_be_booked(const struct lane_op *op)
{
    return op->asked || op->look_first || op->idempotency_key;
}

static enum lane_best_verdict refuse(enum sg_error error, struct book_result *ret_result)
{
    ret_result->error = error;
    return LANE_BEST_REFUSED;
}

/* The view has misled it too often, or is old and has done so several times. */
static bool is_worn(const struct lane_best *best, const struct attempt *attempt,
                    const struct bestview *view)
{
    return attempt->misses >= (unsigned)best->settings->booking.best_tries ||
           (attempt->misses >= STALE_MISSES &&
            bestview_is_stale(view, accepted_us(best, attempt->op), clock_mono_us()));
}

static enum lane_best_verdict tell_no(const struct attempt *attempt, struct book_result *ret_result)
{
    ret_result->left = attempt->left;
    return refuse(attempt->no, ret_result);
}

static enum sg_error read_view(struct lane_best *best, struct bestview *view, bool refreshes);

/* What the lane is to do with it; when it waits it is in a crowd. */
static enum lane_best_verdict decide(struct lane_best *best, struct attempt *attempt,
                                     struct bestview *view, struct book_result *ret_result)
{
    struct lane_op *op = attempt->op;
    struct best_part parts[ROUTER_BEST_MAX];
    size_t part_count = 0;
    struct bestview_finding finding;
    enum sg_error error = SG_OK;
    bool worn = is_worn(best, attempt, view);
    bool known = bestview_is_known(view);
    bool found = false;
    if (known) {
        part_count = op->wish_count;
        ret_result->tier = parts_of(view, op, parts);
        if (ret_result->tier)
            return refuse(SG_UNKNOWN_TIER, ret_result);
        found = !worn && bestview_choose(view, clock_mono_us(), parts, part_count, skip_of(attempt),
                                         op->seats, &op->seat_count);
    }
    if (found) {
        attempt->chosen = true;
        attempt->looked = false;
        say(best, op->event_id, op->seats, op->seat_count, BESTVIEW_TAKEN, 0);
        return LANE_BEST_CHOSEN;
    }
    if (attempt->looked)
        return tell_no(attempt, ret_result);
    finding = bestview_find_out(view, accepted_us(best, op), parts, part_count);
    finding.worn = worn;
    enum bestview_action action = bestview_decide(&finding);
    if (action == BESTVIEW_READ)
        error = read_view(best, view, false);
    if (action == BESTVIEW_READ || action == BESTVIEW_WAIT) {
        if (error == SG_OK)
            error = join(best, attempt, view);
        return error == SG_OK ? LANE_BEST_WAITS : refuse(error, ret_result);
    }
    attempt->no = action == BESTVIEW_NOT_TOGETHER ? SG_NOT_TOGETHER : SG_SOLD_OUT;
    attempt->left = action == BESTVIEW_SOLD_OUT ? seats_left(view, parts, part_count) : 0;
    return may_be_booked(op) ? LANE_BEST_LOOK : tell_no(attempt, ret_result);
}

/* Decides anew for all who wait. */
static void look_again(struct lane_best *best, struct crowd *crowd)
{
    struct attempt *next;
    for (struct attempt *attempt = TAILQ_FIRST(&crowd->waiting); attempt; attempt = next) {
        struct book_result result = {.error = SG_INTERNAL};
        next = TAILQ_NEXT(attempt, link);
        enum lane_best_verdict verdict = decide(best, attempt, crowd->view, &result);
        if (verdict == LANE_BEST_WAITS)
            continue;
        leave(best, attempt);
        attempt->to_look = verdict == LANE_BEST_LOOK;
        if (verdict == LANE_BEST_REFUSED)
            lane_best_finish(best->lane, attempt->op, &result);
        else
            lane_best_ready(best->lane, attempt->op);
    }
}

static void on_stirred(evutil_socket_t fd, short what, void *arg)
{
    struct lane_best *best = arg;
    struct crowd *next;
    (void)fd;
    (void)what;
    for (struct crowd *crowd = TAILQ_FIRST(&best->crowds); crowd; crowd = next) {
        next = TAILQ_NEXT(crowd, link);
        if (!crowd->stirred)
            continue;
        crowd->stirred = false;
        look_again(best, crowd);
        if (TAILQ_EMPTY(&crowd->waiting))
            crowd_free(best, crowd);
    }
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    stir_all(arg);
}

/* --- reads ------------------------------------------------------------------------------------ */

/* Whoever was accepted until then. */
static void refuse_all(struct lane_best *best, struct crowd *crowd, enum sg_error error,
                       int64_t until_us)
{
    struct attempt *next;
    for (struct attempt *attempt = TAILQ_FIRST(&crowd->waiting); attempt; attempt = next) {
        struct book_result result = {.error = error};
        next = TAILQ_NEXT(attempt, link);
        if (accepted_us(best, attempt->op) <= until_us)
            lane_best_finish(best->lane, attempt->op, &result);
    }
}

/* The view has come, or will not. */
static void on_read(struct lane_best *best, struct bestview *view, const struct call_reply *reply)
{
    struct crowd *crowd = bestview_user(view);
    struct attempt *attempt;
    int64_t asked_us = bestview_reading_us(view);
    enum sg_error error = reply->error;
    if (error == SG_OK)
        error = best_rows_load(view, reply->result, clock_mono_us());
    else
        bestview_unask(view);
    if (error == SG_OK) {
        if (crowd) {
            TAILQ_FOREACH (attempt, &crowd->waiting, link)
                attempt->misses = 0;
            look_again(best, crowd);
        }
        bestview_remember(view);
    } else if (!crowd) {
        return;
    } else if (error == SG_UNKNOWN_EVENT) { /* it may have been made since it was asked for */
        refuse_all(best, crowd, error, asked_us);
        stir(best, view);
    } else if (error == SG_INTERNAL || error == SG_OVERLOADED) {
        refuse_all(best, crowd, error, INT64_MAX);
    } else { /* no primary: they wait for one, as all in the lane */
        struct timeval tv = clock_timeval_us(READ_PAUSE_US);
        event_add(best->pause, &tv);
    }
}

static void on_view(void *arg, const struct call_reply *reply)
{
    struct reading *reading = arg;
    struct lane_best *best = reading->best;
    if (best) {
        struct bestview *view = bestviews_find(best->views, reading->event_id);
        LIST_REMOVE(reading, link);
        if (reading->refreshes) {
            int64_t now_us = clock_mono_us();
            best->refreshing = false;
            best->refresh_us = now_us + REFRESH_REST * (now_us - reading->asked_us);
        }
        if (view && bestview_reading_us(view) == reading->asked_us)
            on_read(best, view, reply);
    }
    free(reading);
}

static struct params *view_params(int64_t event_id)
{
    struct params *params = malloc(sizeof(*params));
    if (params) {
        params_init(params);
        params_i64(params, event_id);
    }
    return params;
}

static enum sg_error read_view(struct lane_best *best, struct bestview *view, bool refreshes)
{
    struct reading *reading = calloc(1, sizeof(*reading));
    struct params *params = view_params(bestview_event(view));
    if (!reading || !params) {
        free(reading);
        if (params)
            params_done(params);
        free(params);
        return SG_NO_MEMORY;
    }
    reading->best = best;
    reading->event_id = bestview_event(view);
    reading->asked_us = clock_mono_us();
    reading->refreshes = refreshes;
    struct call_request request = {.target = CALL_PRIMARY,
                                   .deadline_ms = best->settings->booking.deadline_ms,
                                   .statement = STATEMENT_BEST_VIEW,
                                   .params = params};
    snprintf(request.route.shard, sizeof(request.route.shard), "%s", lane_shard(best->lane));
    enum sg_error error = call_start(best->calls, &request, on_view, reading);
    if (error != SG_OK) {
        free(reading);
        return error;
    }
    LIST_INSERT_HEAD(&best->readings, reading, link);
    bestview_ask(view, reading->asked_us);
    return SG_OK;
}

static void refresh(struct lane_best *best, struct bestview *view)
{
    int64_t age_us = best->settings->booking.best_refresh_ms * 1000;
    int64_t now_us = clock_mono_us();
    if (age_us == 0 || best->refreshing || now_us < best->refresh_us || !bestview_is_known(view) ||
        bestview_reading_us(view) || now_us - bestview_asked_us(view) < age_us)
        return;
    best->refreshing = read_view(best, view, true) == SG_OK;
}

/* --- the lane's calls ------------------------------------------------------------------------- */

static struct attempt *attempt_of(struct lane_op *op)
{
    if (!op->best) {
        struct attempt *attempt = calloc(1, sizeof(*attempt));
        if (attempt)
            attempt->op = op;
        op->best = attempt;
    }
    return op->best;
}

/* The database chooses, in a call of its own. */
static enum lane_best_verdict hand_over(struct lane_best *best, struct attempt *attempt,
                                        struct book_result *ret_result)
{
    enum sg_error error = best_take_start(best->calls, best->lane, attempt->op, &attempt->take);
    return error == SG_OK ? LANE_BEST_WAITS : refuse(error, ret_result);
}

enum lane_best_verdict lane_best_choose(struct lane_best *best, struct lane_op *op,
                                        struct book_result *ret_result)
{
    struct attempt *attempt = attempt_of(op);
    if (!attempt)
        return refuse(SG_NO_MEMORY, ret_result);
    if (best->settings->booking.best_choose == BEST_CHOOSE_DATABASE)
        return hand_over(best, attempt, ret_result);
    if (attempt->to_look) {
        attempt->to_look = false;
        return LANE_BEST_LOOK;
    }
    hear_news(best);
    struct bestview *view = bestviews_get(best->views, op->event_id);
    if (!view)
        return refuse(SG_OVERLOADED, ret_result);
    refresh(best, view);
    return decide(best, attempt, view, ret_result);
}

void lane_best_missed(struct lane_best *best, struct lane_op *op, const struct seat *taken,
                      size_t taken_count)
{
    struct attempt *attempt = op->best;
    struct bestview *view = bestviews_find(best->views, op->event_id);
    if (!attempt->chosen) {
        attempt->looked = true;
        return;
    }
    attempt->chosen = false;
    attempt->misses++;
    if (!view) /* has been let go: of an event that is another now */
        return;
    attempt->contested = bestview_misled(view, attempt, clock_mono_us());
    bestview_settle(view, taken, taken_count, BESTVIEW_TAKEN, 0);
    bestview_settle(view, op->seats, op->seat_count, BESTVIEW_FREE, 0); /* the others */
    say(best, op->event_id, op->seats, op->seat_count, BESTVIEW_FREE, 0);
    say(best, op->event_id, taken, taken_count, BESTVIEW_TAKEN, 0);
    stir(best, view);
}

/* Seats that the op has now, or that stand in its way; `view` may be NULL. */
static void tell(const struct lane_best *best, struct bestview *view, const struct lane_op *op,
                 const struct book_result *result)
{
    if (result->error == SG_OK && !result->replayed) {
        const struct seat *seats = result->taken ? result->taken : op->seats;
        size_t count = result->taken ? result->taken_count : op->seat_count;
        enum bestview_end end = op->hold_ms ? BESTVIEW_HELD : BESTVIEW_BOOKED;
        int64_t until_us = clock_mono_us() + op->hold_ms * 1000;
        say(best, op->event_id, seats, count, end, until_us);
        if (view)
            bestview_tell(view, seats, count, end, until_us);
    } else if (view && result->error == SG_SEATS_TAKEN) {
        bestview_tell(view, result->seats, result->seat_count, BESTVIEW_TAKEN, 0);
    }
}

void lane_best_done(struct lane_best *best, struct lane_op *op, const struct book_result *result)
{
    struct attempt *attempt = op->best;
    struct bestview *view = bestviews_find(best->views, op->event_id);
    if (attempt && attempt->chosen && view) {
        bool unknown = result->error == SG_OUTCOME_UNKNOWN;
        bestview_settle(view, op->seats, op->seat_count, unknown ? BESTVIEW_TAKEN : BESTVIEW_FREE,
                        0);
        if (!unknown && (result->error != SG_OK || result->replayed))
            say(best, op->event_id, op->seats, op->seat_count, BESTVIEW_FREE, 0);
        stir(best, view);
    }
    tell(best, view, op, result);
    if (attempt) {
        best_take_forget(attempt->take);
        leave(best, attempt);
        free(attempt);
        op->best = NULL;
    }
}

void lane_best_moved(struct lane_best *best)
{
    bestviews_age(best->views);
    stir_all(best);
}

struct lane_best *lane_best_new(struct lane *lane, struct calls *calls)
{
    struct lane_best *best = calloc(1, sizeof(*best));
    if (!best)
        return NULL;
    const struct router_config *config = lane_config(lane);
    best->lane = lane;
    best->calls = calls;
    best->settings = config->settings;
    TAILQ_INIT(&best->crowds);
    LIST_INIT(&best->readings);
    best->views = bestviews_new((size_t)config->settings->booking.best_views_bytes);
    best->stir = event_new(config->base, -1, 0, on_stirred, best);
    best->pause = evtimer_new(config->base, on_pause_over, best);
    best->shard = best_news_shard(lane_shard(lane));
    if (config->best_news)
        best->ear = best_ear_new(config->best_news, config->worker);
    if (!best->views || !best->stir || !best->pause || (config->best_news && !best->ear)) {
        lane_best_free(best);
        return NULL;
    }
    return best;
}

void lane_best_free(struct lane_best *best)
{
    struct reading *reading;
    struct crowd *crowd;
    if (!best)
        return;
    LIST_FOREACH (reading, &best->readings, link)
        reading->best = NULL;
    while ((crowd = TAILQ_FIRST(&best->crowds)))
        crowd_free(best, crowd);
    bestviews_free(best->views);
    best_ear_free(best->ear);
    if (best->stir)
        event_free(best->stir);
    if (best->pause)
        event_free(best->pause);
    free(best);
}
