/*
 * What a lane knows of an event's seats. See bestview.h.
 *
 * Four bits a seat beside the grid that is chosen from (where a seat is free if it is neither
 * taken nor tentative): taken, held (taken, until an end that stands in the heap `ends`),
 * tentative, and taken since the read under way was asked. An end counts only if its seat is still
 * held when it comes; a hold that was given back and made anew may so end too early here, which
 * costs one attempt and nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/bestview.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/hash.h"

#define BUCKETS 4096 /* a power of two */
#define WORD_BITS 64
#define STALE_READS 8 /* an old view: so many times as old as reading it took */

struct hold_end {
    int64_t us;
    int32_t row;
    int32_t col;
};

struct tier {
    int32_t first_row;
    int32_t last_row;
    char name[ROUTER_TIER_MAX + 1];
};

LIST_HEAD(bestview_bucket, bestview);
TAILQ_HEAD(bestview_list, bestview);

struct bestview {
    LIST_ENTRY(bestview) bucket;
    TAILQ_ENTRY(bestview) used; /* the longest unused first */
    struct bestviews *views;
    int64_t event_id;
    void *user;
    bool known;
    bool changed;       /* seats were taken since the read */
    int64_t asked_us;   /* the read it comes from; 0: none, or of an older primary */
    int64_t reading_us; /* the read under way; 0: none */
    int64_t took_us;    /* the last read */
    int64_t misled_us;  /* the last attempt that it misled, and whose that was */
    const void *misled;
    struct best_grid grid;
    uint64_t *taken; /* these four laid out as the grid's rows, one block */
    uint64_t *held;
    uint64_t *tentative;
    uint64_t *since; /* seats that the read under way may not know of */
    size_t tentative_count;
    struct hold_end *ends; /* a heap, the next one first */
    size_t end_count;
    size_t end_size;
    struct tier *tiers;
    size_t tier_count;
    size_t bytes; /* of all of it */
};

struct bestviews {
    size_t bytes_max;
    size_t bytes;
    size_t count;
    struct bestview_list used;
    struct bestview_bucket buckets[BUCKETS];
};

/* --- bits ------------------------------------------------------------------------------------- */

static uint64_t *word_of(const struct bestview *view, uint64_t *bits, const struct seat *seat)
{
    return &bits[(size_t)(seat->row - 1) * view->grid.row_words +
                 (size_t)(seat->col - 1) / WORD_BITS];
}

static uint64_t mask_of(const struct seat *seat)
{
    return UINT64_C(1) << (seat->col - 1) % WORD_BITS;
}

static bool is_set(const struct bestview *view, uint64_t *bits, const struct seat *seat)
{
    return *word_of(view, bits, seat) & mask_of(seat);
}

static void put(const struct bestview *view, uint64_t *bits, const struct seat *seat, bool value)
{
    if (value)
        *word_of(view, bits, seat) |= mask_of(seat);
    else
        *word_of(view, bits, seat) &= ~mask_of(seat);
}

static size_t words_in(const struct bestview *view)
{
    return (size_t)view->grid.rows * view->grid.row_words;
}

/* Free in the grid is what is neither taken nor tentative. */
static void show(struct bestview *view, const struct seat *seat)
{
    bool is_free = !is_set(view, view->taken, seat) && !is_set(view, view->tentative, seat);
    if (is_free == best_grid_is_free(&view->grid, seat))
        return;
    if (is_free)
        best_grid_give(&view->grid, seat);
    else
        best_grid_take(&view->grid, seat);
}

/* --- the ends of holds ------------------------------------------------------------------------ */

static bool make_room(struct bestviews *views, size_t bytes, const struct bestview *keep);

static void heap_up(struct hold_end *ends, size_t at)
{
    struct hold_end end = ends[at];
    for (; at && ends[(at - 1) / 2].us > end.us; at = (at - 1) / 2)
        ends[at] = ends[(at - 1) / 2];
    ends[at] = end;
}

static void heap_down(struct hold_end *ends, size_t count)
{
    struct hold_end end = ends[0];
    size_t at = 0;
    size_t child;
    while ((child = 2 * at + 1) < count) {
        if (child + 1 < count && ends[child + 1].us < ends[child].us)
            child++;
        if (ends[child].us >= end.us)
            break;
        ends[at] = ends[child];
        at = child;
    }
    ends[at] = end;
}

static void add_end(struct bestview *view, const struct seat *seat, int64_t us)
{
    if (view->end_count == view->end_size) {
        size_t size = view->end_size ? 2 * view->end_size : 16;
        size_t more = (size - view->end_size) * sizeof(struct hold_end);
        if (size > BESTVIEW_ENDS_MAX || !make_room(view->views, more, view))
            return; /* the next read tells */
        struct hold_end *ends = realloc(view->ends, size * sizeof(*ends));
        if (!ends)
            return;
        view->views->bytes += more;
        view->bytes += more;
        view->ends = ends;
        view->end_size = size;
    }
    view->ends[view->end_count] = (struct hold_end){us, seat->row, seat->col};
    heap_up(view->ends, view->end_count++);
}

/* Holds that have ended are free. */
static void end_holds(struct bestview *view, int64_t now_us)
{
    while (view->end_count && view->ends[0].us <= now_us) {
        struct seat seat = {view->ends[0].row, view->ends[0].col};
        view->ends[0] = view->ends[--view->end_count];
        if (view->end_count)
            heap_down(view->ends, view->end_count);
        if (is_set(view, view->held, &seat)) {
            put(view, view->held, &seat, false);
            put(view, view->taken, &seat, false);
            show(view, &seat);
        }
    }
}

/* --- the views of a lane ---------------------------------------------------------------------- */

static struct bestview_bucket *bucket_of(const struct bestviews *views, int64_t event_id)
{
    size_t at = hash_u64((uint64_t)event_id) & (BUCKETS - 1);
    return (struct bestview_bucket *)&views->buckets[at];
}

static void forget_house(struct bestview *view)
{
    best_grid_done(&view->grid);
    free(view->taken);
    free(view->ends);
    free(view->tiers);
    view->tiers = NULL;
    view->tier_count = 0;
    view->taken = NULL;
    view->held = NULL;
    view->tentative = NULL;
    view->since = NULL;
    view->tentative_count = 0;
    view->ends = NULL;
    view->end_count = 0;
    view->end_size = 0;
    view->known = false;
    view->views->bytes -= view->bytes - sizeof(*view);
    view->bytes = sizeof(*view);
}

static void view_free(struct bestview *view)
{
    struct bestviews *views = view->views;
    forget_house(view);
    LIST_REMOVE(view, bucket);
    TAILQ_REMOVE(&views->used, view, used);
    views->bytes -= view->bytes;
    views->count--;
    free(view);
}

/* Lets views go, the longest unused first, until `bytes` more fit in beside the rest. */
static bool make_room(struct bestviews *views, size_t bytes, const struct bestview *keep)
{
    struct bestview *view = TAILQ_FIRST(&views->used);
    while (view && views->bytes + bytes > views->bytes_max) {
        struct bestview *next = TAILQ_NEXT(view, used);
        if (view != keep && !view->tentative_count && !view->reading_us && !view->user)
            view_free(view);
        view = next;
    }
    return views->bytes + bytes <= views->bytes_max || views->count <= (keep != NULL);
}

struct bestviews *bestviews_new(size_t bytes_max)
{
    struct bestviews *views = calloc(1, sizeof(*views));
    if (!views)
        return NULL;
    views->bytes_max = bytes_max;
    TAILQ_INIT(&views->used);
    for (size_t i = 0; i < BUCKETS; i++)
        LIST_INIT(&views->buckets[i]);
    return views;
}

void bestviews_free(struct bestviews *views)
{
    struct bestview *view;
    if (!views)
        return;
    while ((view = TAILQ_FIRST(&views->used)))
        view_free(view);
    free(views);
}

struct bestview *bestviews_find(struct bestviews *views, int64_t event_id)
{
    struct bestview *view;
    LIST_FOREACH (view, bucket_of(views, event_id), bucket) {
        if (view->event_id == event_id)
            return view;
    }
    return NULL;
}

struct bestview *bestviews_get(struct bestviews *views, int64_t event_id)
{
    struct bestview *view = bestviews_find(views, event_id);
    if (view) {
        TAILQ_REMOVE(&views->used, view, used);
        TAILQ_INSERT_TAIL(&views->used, view, used);
        return view;
    }
    if (!make_room(views, sizeof(*view), NULL))
        return NULL;
    view = calloc(1, sizeof(*view));
    if (!view)
        return NULL;
    view->views = views;
    view->event_id = event_id;
    view->bytes = sizeof(*view);
    views->bytes += view->bytes;
    views->count++;
    TAILQ_INSERT_TAIL(&views->used, view, used);
    LIST_INSERT_HEAD(bucket_of(views, event_id), view, bucket);
    return view;
}

void bestviews_age(struct bestviews *views)
{
    struct bestview *view;
    TAILQ_FOREACH (view, &views->used, used) {
        view->asked_us = 0;
        view->reading_us = 0;
    }
}

void bestview_set_user(struct bestview *view, void *user)
{
    view->user = user;
}

void *bestview_user(const struct bestview *view)
{
    return view->user;
}

int64_t bestview_event(const struct bestview *view)
{
    return view->event_id;
}

size_t bestviews_count(const struct bestviews *views)
{
    return views->count;
}

size_t bestviews_bytes(const struct bestviews *views)
{
    return views->bytes;
}

/* --- reads ------------------------------------------------------------------------------------ */

void bestview_ask(struct bestview *view, int64_t now_us)
{
    view->reading_us = now_us;
    if (view->known)
        memset(view->since, 0, words_in(view) * sizeof(uint64_t));
}

void bestview_unask(struct bestview *view)
{
    view->reading_us = 0;
}

int64_t bestview_reading_us(const struct bestview *view)
{
    return view->reading_us;
}

bool bestview_is_known(const struct bestview *view)
{
    return view->known;
}

static void copy_tiers(struct tier *tiers, const struct bestview_read *read)
{
    for (size_t i = 0; i < read->tier_count; i++) {
        bool last = i + 1 == read->tier_count;
        tiers[i].first_row = read->tier_first_rows[i];
        tiers[i].last_row = last ? read->rows : read->tier_first_rows[i + 1] - 1;
        snprintf(tiers[i].name, sizeof(tiers[i].name), "%s", read->tier_names[i]);
    }
}

/* A house of that size and with these tiers, all free, with nothing tentative. */
static bool make_house(struct bestview *view, const struct bestview_read *read)
{
    struct best_grid grid;
    size_t words = (size_t)read->rows * (((size_t)read->cols + WORD_BITS - 1) / WORD_BITS);
    size_t bytes = best_grid_bytes(read->rows, read->cols) + 4 * words * sizeof(uint64_t) +
                   read->tier_count * sizeof(struct tier);
    if (!make_room(view->views, bytes, view))
        return false;
    uint64_t *bits = calloc(4 * words, sizeof(uint64_t));
    struct tier *tiers = calloc(read->tier_count + 1, sizeof(*tiers));
    if (!bits || !tiers || !best_grid_init(&grid, read->rows, read->cols)) {
        free(bits);
        free(tiers);
        return false;
    }
    forget_house(view); /* of another size */
    copy_tiers(tiers, read);
    view->grid = grid;
    view->taken = bits;
    view->held = bits + words;
    view->tentative = bits + 2 * words;
    view->since = bits + 3 * words;
    view->tiers = tiers;
    view->tier_count = read->tier_count;
    view->bytes += bytes;
    view->views->bytes += bytes;
    return true;
}

/* An event's size and tiers never change; whatever says so is another event. */
static bool is_house(const struct bestview *view, const struct bestview_read *read)
{
    return view->known && view->grid.rows == read->rows && view->grid.cols == read->cols &&
           view->tier_count == read->tier_count;
}

bool bestview_tier(const struct bestview *view, const char *name, struct best_part *ret_part)
{
    if (!name) {
        ret_part->first_row = 1;
        ret_part->last_row = view->grid.rows;
        return true;
    }
    for (size_t i = 0; i < view->tier_count; i++) {
        if (strcmp(view->tiers[i].name, name) == 0) {
            ret_part->first_row = view->tiers[i].first_row;
            ret_part->last_row = view->tiers[i].last_row;
            return true;
        }
    }
    return false;
}

/* Seat `number` of the read; false if the grid does not have it. */
static bool seat_of(const struct bestview *view, int32_t number, struct seat *ret_seat)
{
    *ret_seat = (struct seat){number / view->grid.cols + 1, number % view->grid.cols + 1};
    return number >= 0 && ret_seat->row <= view->grid.rows;
}

bool bestview_load(struct bestview *view, const struct bestview_read *read, int64_t now_us)
{
    struct best_grid *grid = &view->grid;
    struct seat seat;
    if (view->reading_us) {
        view->asked_us = view->reading_us;
        view->took_us = now_us - view->reading_us;
    }
    view->reading_us = 0;
    if (!is_house(view, read) && !make_house(view, read)) {
        view->asked_us = 0;
        return false;
    }
    memset(view->taken, 0, words_in(view) * sizeof(uint64_t));
    memset(view->held, 0, words_in(view) * sizeof(uint64_t));
    view->end_count = 0;
    for (size_t i = 0; i < read->booked_count; i++) {
        if (seat_of(view, read->booked[i], &seat))
            put(view, view->taken, &seat, true);
    }
    for (size_t i = 0; i < read->held_count; i++) {
        if (!seat_of(view, read->held[i], &seat))
            continue;
        put(view, view->taken, &seat, true);
        put(view, view->held, &seat, true);
        add_end(view, &seat, now_us + (int64_t)read->held_left_ms[i] * 1000 + BESTVIEW_MARGIN_US);
    }
    best_grid_give_all(grid);
    for (size_t w = 0; w < words_in(view); w++)
        grid->not_free[w] |= view->taken[w] | view->tentative[w];
    view->known = true;
    view->changed = false;
    return true;
}

void bestview_remember(struct bestview *view)
{
    for (size_t w = 0; view->known && w < words_in(view); w++) {
        if (!(view->since[w] & ~view->taken[w]))
            continue;
        view->taken[w] |= view->since[w];
        view->grid.not_free[w] |= view->since[w];
        view->changed = true;
    }
}

/* --- attempts --------------------------------------------------------------------------------- */

bool bestview_choose(struct bestview *view, int64_t now_us, const struct best_part *parts,
                     size_t part_count, uint32_t skip, struct seat *ret_seats, size_t *ret_count)
{
    assert(view->known);
    end_holds(view, now_us);
    if (!best_choose(&view->grid, parts, part_count, skip, ret_seats, ret_count))
        return false;
    for (size_t i = 0; i < *ret_count; i++) {
        put(view, view->tentative, &ret_seats[i], true);
        best_grid_take(&view->grid, &ret_seats[i]);
    }
    view->tentative_count += *ret_count;
    return true;
}

static void mark(struct bestview *view, const struct seat *seat, enum bestview_end end,
                 int64_t until_us)
{
    if (end != BESTVIEW_FREE) {
        put(view, view->taken, seat, true);
        put(view, view->held, seat, end == BESTVIEW_HELD);
        put(view, view->since, seat, true);
        view->changed = true;
    }
    if (end == BESTVIEW_HELD)
        add_end(view, seat, until_us + BESTVIEW_MARGIN_US);
    show(view, seat);
}

void bestview_settle(struct bestview *view, const struct seat *seats, size_t count,
                     enum bestview_end end, int64_t until_us)
{
    for (size_t i = 0; view->known && i < count; i++) {
        if (!best_grid_holds(&view->grid, &seats[i]) || !is_set(view, view->tentative, &seats[i]))
            continue; /* of a grid that was another */
        put(view, view->tentative, &seats[i], false);
        view->tentative_count--;
        mark(view, &seats[i], end, until_us);
    }
}

void bestview_tell(struct bestview *view, const struct seat *seats, size_t count,
                   enum bestview_end end, int64_t until_us)
{
    for (size_t i = 0; view->known && i < count; i++) {
        if (!best_grid_holds(&view->grid, &seats[i]))
            continue;
        if (end == BESTVIEW_FREE) {
            put(view, view->taken, &seats[i], false);
            put(view, view->held, &seats[i], false);
            put(view, view->since, &seats[i], false);
        }
        mark(view, &seats[i], end, until_us);
    }
}

bool bestview_is_stale(const struct bestview *view, int64_t accepted_us, int64_t now_us)
{
    int64_t age_us = now_us - view->asked_us;
    return view->asked_us < accepted_us && age_us > BESTVIEW_STALE_US &&
           age_us > STALE_READS * view->took_us;
}

int64_t bestview_asked_us(const struct bestview *view)
{
    return view->asked_us;
}

bool bestview_misled(struct bestview *view, const void *who, int64_t now_us)
{
    bool contested =
        view->misled && view->misled != who && now_us - view->misled_us < BESTVIEW_CONTEST_US;
    view->misled = who;
    view->misled_us = now_us;
    return contested;
}

bool bestview_is_tentative(const struct bestview *view, const struct best_part *parts,
                           size_t part_count)
{
    size_t words = view->grid.row_words;
    for (size_t i = 0; view->tentative_count && i < part_count; i++) {
        int32_t first = parts[i].first_row > 1 ? parts[i].first_row - 1 : 0;
        int32_t end = parts[i].last_row < view->grid.rows ? parts[i].last_row : view->grid.rows;
        for (size_t w = (size_t)first * words; first < end && w < (size_t)end * words; w++) {
            if (view->tentative[w])
                return true;
        }
    }
    return false;
}

size_t bestview_tentative_count(const struct bestview *view)
{
    return view->tentative_count;
}

int64_t bestview_free_count(const struct bestview *view, const struct best_part *part)
{
    return view->known ? best_count(&view->grid, part->first_row, part->last_row) : 0;
}

/* --- the decision ----------------------------------------------------------------------------- */

enum bestview_action bestview_decide(const struct bestview_finding *finding)
{
    if (finding->known && !finding->worn) {
        if (finding->found)
            return BESTVIEW_TRY;
        if (finding->tentative)
            return BESTVIEW_WAIT;
        if (finding->asked_us && finding->asked_us >= finding->accepted_us && !finding->changed)
            return finding->enough ? BESTVIEW_NOT_TOGETHER : BESTVIEW_SOLD_OUT;
    }
    return finding->reading ? BESTVIEW_WAIT : BESTVIEW_READ;
}

/* Shows the seats of attempts under way as free, or as not free again. */
static void show_tentative(struct bestview *view, bool as_free)
{
    size_t row_words = view->grid.row_words;
    for (size_t w = 0; w < words_in(view); w++) {
        for (uint64_t bits = view->tentative[w] & ~view->taken[w]; bits; bits &= bits - 1) {
            struct seat seat = {(int32_t)(w / row_words) + 1,
                                (int32_t)(w % row_words * WORD_BITS) + __builtin_ctzll(bits) + 1};
            (as_free ? best_grid_give : best_grid_take)(&view->grid, &seat);
        }
    }
}

/* There would be seats if no attempt under way came to anything. */
static bool seats_may_come(struct bestview *view, const struct best_part *parts, size_t part_count)
{
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    if (!bestview_is_tentative(view, parts, part_count))
        return false;
    show_tentative(view, true);
    bool would = best_choose(&view->grid, parts, part_count, 0, seats, &count);
    show_tentative(view, false);
    return would;
}

struct bestview_finding bestview_find_out(struct bestview *view, int64_t accepted_us,
                                          const struct best_part *parts, size_t part_count)
{
    return (struct bestview_finding){
        .accepted_us = accepted_us,
        .asked_us = view->asked_us,
        .known = view->known,
        .reading = view->reading_us != 0,
        .changed = view->changed,
        .tentative = view->known && seats_may_come(view, parts, part_count),
        .enough = view->known && best_enough(&view->grid, parts, part_count),
    };
}
