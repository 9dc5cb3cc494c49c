/*
 * Best available. See best.h for the rule.
 *
 * A row is words of bits. The starts of all runs of n free seats of it come from "and"s of the row
 * with itself, shifted: in log2(n) steps, 64 seats at a time. Which one is nearest to the middle is
 * then one look downwards and one upwards from the start that stands in the middle itself.
 *
 * While it chooses for several parts, what the earlier ones got is taken in the grid, and given
 * back at the end. `room` keeps a row that was searched in vain from being searched again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/best.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64
#define PACK_STEPS 2000 /* of the search for a close packing */

/* --- the grid --------------------------------------------------------------------------------- */

static size_t words_of(int32_t cols)
{
    return ((size_t)cols + WORD_BITS - 1) / WORD_BITS;
}

static uint64_t *row_of(const struct best_grid *grid, int32_t row)
{
    return grid->not_free + (size_t)row * grid->row_words;
}

/* Bits that are set below `count` of 0 to 64. */
static uint64_t low_bits(int32_t count)
{
    return count == WORD_BITS ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
}

void best_grid_give_all(struct best_grid *grid)
{
    int32_t last = grid->cols % WORD_BITS;
    memset(grid->not_free, 0, (size_t)grid->rows * grid->row_words * sizeof(uint64_t));
    for (int32_t row = 0; row < grid->rows; row++) {
        if (last)
            row_of(grid, row)[grid->row_words - 1] = ~low_bits(last);
        grid->room[row] = grid->cols;
    }
    grid->first_row = 0;
}

size_t best_grid_bytes(int32_t rows, int32_t cols)
{
    return ((size_t)rows + 1) * words_of(cols) * sizeof(uint64_t) + (size_t)rows * sizeof(int32_t);
}

bool best_grid_init(struct best_grid *ret_grid, int32_t rows, int32_t cols)
{
    struct best_grid grid = {.rows = rows, .cols = cols, .row_words = words_of(cols)};
    assert(rows > 0 && cols > 0);
    /* One block: the rows, the scratch row, the room of each. */
    grid.not_free = malloc(best_grid_bytes(rows, cols));
    if (!grid.not_free)
        return false;
    grid.scratch = grid.not_free + (size_t)rows * grid.row_words;
    grid.room = (int32_t *)(grid.scratch + grid.row_words);
    best_grid_give_all(&grid);
    *ret_grid = grid;
    return true;
}

void best_grid_done(struct best_grid *grid)
{
    free(grid->not_free);
    *grid = (struct best_grid){.not_free = NULL};
}

bool best_grid_holds(const struct best_grid *grid, const struct seat *seat)
{
    return seat->row >= 1 && seat->row <= grid->rows && seat->col >= 1 && seat->col <= grid->cols;
}

bool best_grid_is_free(const struct best_grid *grid, const struct seat *seat)
{
    int32_t col = seat->col - 1;
    return !(row_of(grid, seat->row - 1)[col / WORD_BITS] >> col % WORD_BITS & 1);
}

void best_grid_take(struct best_grid *grid, const struct seat *seat)
{
    int32_t col = seat->col - 1;
    row_of(grid, seat->row - 1)[col / WORD_BITS] |= UINT64_C(1) << col % WORD_BITS;
}

void best_grid_give(struct best_grid *grid, const struct seat *seat)
{
    int32_t row = seat->row - 1;
    int32_t col = seat->col - 1;
    row_of(grid, row)[col / WORD_BITS] &= ~(UINT64_C(1) << col % WORD_BITS);
    grid->room[row] = grid->cols;
    if (row < grid->first_row)
        grid->first_row = row;
}

static int64_t count_row(const struct best_grid *grid, int32_t row)
{
    const uint64_t *words = row_of(grid, row);
    int64_t count = 0;
    for (size_t w = 0; w < grid->row_words; w++)
        count += __builtin_popcountll(~words[w]);
    return count;
}

/* The rows of a part that the grid has and that may have a free seat, from 0. */
static int32_t first_of(const struct best_grid *grid, int32_t first_row)
{
    int32_t first = first_row - 1;
    return first > grid->first_row ? first : grid->first_row;
}

static int32_t last_of(const struct best_grid *grid, int32_t last_row)
{
    return last_row < grid->rows ? last_row - 1 : grid->rows - 1;
}

int64_t best_count(const struct best_grid *grid, int32_t first_row, int32_t last_row)
{
    int64_t count = 0;
    for (int32_t row = first_of(grid, first_row); row <= last_of(grid, last_row); row++) {
        if (grid->room[row])
            count += count_row(grid, row);
    }
    return count;
}

/* --- the runs of a row ------------------------------------------------------------------------ */

/* words &= words >> shift, over all of them. */
static void and_shifted(uint64_t *words, size_t count, int32_t shift)
{
    size_t far = (size_t)shift / WORD_BITS;
    int32_t bits = shift % WORD_BITS;
    for (size_t w = 0; w < count; w++) {
        uint64_t low = w + far < count ? words[w + far] : 0;
        uint64_t high = w + far + 1 < count ? words[w + far + 1] : 0;
        words[w] &= bits ? low >> bits | high << (WORD_BITS - bits) : low;
    }
}

/* Leaves the starts of the row's runs of `quantity` free seats in the scratch row. False if it has
 * none; that is remembered. */
static bool find_starts(struct best_grid *grid, int32_t row, int32_t quantity)
{
    const uint64_t *not_free = row_of(grid, row);
    uint64_t *starts = grid->scratch;
    uint64_t any = 0;
    for (size_t w = 0; w < grid->row_words; w++) {
        starts[w] = ~not_free[w];
        any |= starts[w];
    }
    if (!any) {
        grid->room[row] = 0;
        return false;
    }
    for (int32_t reached = 1; reached < quantity;) {
        int32_t shift = reached < quantity - reached ? reached : quantity - reached;
        and_shifted(starts, grid->row_words, shift);
        reached += shift;
    }
    any = 0;
    for (size_t w = 0; w < grid->row_words; w++)
        any |= starts[w];
    if (!any)
        grid->room[row] = quantity - 1;
    return any != 0;
}

/* The first bit set at or after `at`, the last one at or before it; -1: none. */
static int32_t next_bit(const uint64_t *words, size_t count, int32_t at)
{
    size_t w = (size_t)at / WORD_BITS;
    if (w >= count)
        return -1;
    uint64_t word = words[w] & ~low_bits(at % WORD_BITS);
    while (!word) {
        if (++w == count)
            return -1;
        word = words[w];
    }
    return (int32_t)(w * WORD_BITS) + __builtin_ctzll(word);
}

static int32_t previous_bit(const uint64_t *words, int32_t at)
{
    size_t w = (size_t)at / WORD_BITS;
    uint64_t word = words[w] & low_bits(at % WORD_BITS + 1);
    while (!word) {
        if (w == 0)
            return -1;
        word = words[--w];
    }
    return (int32_t)(w * WORD_BITS) + WORD_BITS - 1 - __builtin_clzll(word);
}

/* Of the starts in the scratch row, which must have one, the one whose run is nearest to the
 * middle. A run that began at half of cols - quantity would be right in it. */
static int32_t middlemost(const struct best_grid *grid, int32_t quantity)
{
    int32_t twice = grid->cols - quantity;
    int32_t left = previous_bit(grid->scratch, twice / 2);
    int32_t right = next_bit(grid->scratch, grid->row_words, twice / 2 + 1);
    assert(left >= 0 || right >= 0);
    if (left < 0)
        return right;
    return right < 0 || twice - 2 * left <= 2 * right - twice ? left : right;
}

/* Strikes the starts out whose runs would share a seat with the run at `start`. */
static void strike_out(struct best_grid *grid, int32_t start, int32_t quantity)
{
    int32_t from = start - quantity + 1 > 0 ? start - quantity + 1 : 0;
    for (int32_t at = from; at < start + quantity && at < grid->cols; at++)
        grid->scratch[at / WORD_BITS] &= ~(UINT64_C(1) << at % WORD_BITS);
}

/* Passes over *skip choices of the scratch row, counting down, and gives the next; -1: there are
 * not that many. */
static int32_t middlemost_after(struct best_grid *grid, int32_t quantity, uint32_t *skip)
{
    while (next_bit(grid->scratch, grid->row_words, 0) >= 0) {
        int32_t start = middlemost(grid, quantity);
        if (*skip == 0)
            return start;
        (*skip)--;
        strike_out(grid, start, quantity);
    }
    return -1;
}

/* --- one part --------------------------------------------------------------------------------- */

/* Seats side by side that a part has got; rows and columns from 0. */
struct got {
    size_t part;
    int32_t row;
    int32_t col;
    int32_t quantity;
    int32_t room; /* of the row, before */
};

/* What all parts have got so far, taken in the grid. */
struct plan {
    struct best_grid *grid;
    const struct best_part *parts;
    size_t part_count;
    size_t order[BEST_PARTS_MAX]; /* in which they are served; those of no seats are left out */
    size_t order_count;
    int32_t first_row; /* of the grid, before */
    struct got got[ROUTER_SEATS_MAX];
    size_t count;
};

static void plan_take(struct plan *plan, size_t part, int32_t row, int32_t col, int32_t quantity)
{
    struct best_grid *grid = plan->grid;
    plan->got[plan->count++] = (struct got){
        .part = part, .row = row, .col = col, .quantity = quantity, .room = grid->room[row]};
    for (int32_t i = 0; i < quantity; i++)
        best_grid_take(grid, &(struct seat){row + 1, col + i + 1});
}

static void plan_undo(struct plan *plan)
{
    while (plan->count) {
        const struct got *got = &plan->got[--plan->count];
        for (int32_t i = 0; i < got->quantity; i++)
            best_grid_give(plan->grid, &(struct seat){got->row + 1, got->col + i + 1});
        plan->grid->room[got->row] = got->room;
    }
    plan->grid->first_row = plan->first_row;
}

/* Side by side. */
static bool place_run(struct plan *plan, size_t part, uint32_t skip)
{
    struct best_grid *grid = plan->grid;
    const struct best_part *wish = &plan->parts[part];
    int32_t first = first_of(grid, wish->first_row);
    int32_t last = last_of(grid, wish->last_row);
    for (;;) {
        uint32_t left = skip;
        for (int32_t row = first; row <= last; row++) {
            if (grid->room[row] < wish->quantity || !find_starts(grid, row, wish->quantity))
                continue;
            int32_t col = middlemost_after(grid, wish->quantity, &left);
            if (col >= 0) {
                plan_take(plan, part, row, col, wish->quantity);
                return true;
            }
        }
        if (left == skip)
            return false;
        skip %= skip - left; /* so many there are: from the first again */
    }
}

/* Anywhere. */
static bool place_single(struct plan *plan, size_t part, uint32_t skip)
{
    struct best_grid *grid = plan->grid;
    const struct best_part *wish = &plan->parts[part];
    int32_t left = wish->quantity;
    int64_t pass = 0;
    if (skip) {
        int64_t spare = best_count(grid, wish->first_row, wish->last_row) - left;
        if (spare < 0)
            return false;
        pass = (int64_t)skip * left % (spare + 1);
    }
    int32_t last = last_of(grid, wish->last_row);
    for (int32_t row = first_of(grid, wish->first_row); left && row <= last; row++) {
        if (grid->room[row] == 0 || !find_starts(grid, row, 1))
            continue;
        int64_t here = pass ? count_row(grid, row) : 1;
        if (pass >= here) {
            pass -= here;
            continue;
        }
        while (left && next_bit(grid->scratch, grid->row_words, 0) >= 0) {
            int32_t col = middlemost(grid, 1);
            strike_out(grid, col, 1);
            if (pass) {
                pass--;
            } else {
                plan_take(plan, part, row, col, 1);
                left--;
            }
        }
    }
    return left == 0;
}

/* Fewer rows first, then together first. */
static bool goes_before(const struct best_part *a, const struct best_part *b)
{
    int64_t rows_a = (int64_t)a->last_row - a->first_row;
    int64_t rows_b = (int64_t)b->last_row - b->first_row;
    return rows_a != rows_b ? rows_a < rows_b : a->together && !b->together;
}

static void plan_order(struct plan *plan)
{
    const struct best_part *parts = plan->parts;
    plan->order_count = 0;
    for (size_t i = 0; i < plan->part_count; i++) {
        if (!parts[i].quantity)
            continue;
        size_t at = plan->order_count++;
        for (; at && goes_before(&parts[i], &parts[plan->order[at - 1]]); at--)
            plan->order[at] = plan->order[at - 1];
        plan->order[at] = i;
    }
}

/* By the rule, one after the other. */
static bool place_in_order(struct plan *plan, uint32_t skip)
{
    bool ok = true;
    for (size_t i = 0; ok && i < plan->order_count; i++) {
        size_t part = plan->order[i];
        ok = plan->parts[part].together ? place_run(plan, part, skip)
                                        : place_single(plan, part, skip);
    }
    if (!ok)
        plan_undo(plan);
    return ok;
}

/* --- close packing ---------------------------------------------------------------------------- */

/* The free seats left of a run, from its left. */
struct bin {
    int32_t row;
    int32_t col;
    int32_t left;
};

/* Of runs with the same length, more than there are parts are never needed; and none counts as
 * longer than all the parts take. */
#define BINS_MAX (ROUTER_SEATS_MAX * BEST_PARTS_MAX)

/* The parts that are to sit together in the same rows. */
struct packing {
    size_t parts[BEST_PARTS_MAX]; /* larger ones first */
    size_t bin_of[BEST_PARTS_MAX];
    size_t count;
    int32_t quantity; /* of all of them */
    struct bin bins[BINS_MAX];
    size_t bin_count;
    unsigned steps; /* left of PACK_STEPS */
};

static bool same_rows(const struct best_part *a, const struct best_part *b)
{
    return a->first_row == b->first_row && a->last_row == b->last_row;
}

/* The parts together in the rows of the part `first`, if it is the first of them. */
static void packing_init(struct packing *packing, const struct plan *plan, size_t first)
{
    const struct best_part *parts = plan->parts;
    packing->count = 0;
    packing->quantity = 0;
    packing->bin_count = 0;
    packing->steps = PACK_STEPS;
    for (size_t i = 0; i < plan->part_count; i++) {
        if (!parts[i].together || !parts[i].quantity || !same_rows(&parts[i], &parts[first]))
            continue;
        if (i < first) {
            packing->count = 0;
            return;
        }
        size_t at = packing->count++;
        for (; at && parts[packing->parts[at - 1]].quantity < parts[i].quantity; at--)
            packing->parts[at] = packing->parts[at - 1];
        packing->parts[at] = i;
        packing->quantity += parts[i].quantity;
    }
}

static void collect_row(struct packing *packing, const struct best_grid *grid, int32_t row,
                        int32_t smallest, uint8_t *seen)
{
    const uint64_t *not_free = row_of(grid, row);
    for (int32_t col = 0; col < grid->cols;) {
        int32_t end = next_bit(not_free, grid->row_words, col);
        if (end < 0 || end > grid->cols)
            end = grid->cols;
        int32_t left = end - col < packing->quantity ? end - col : packing->quantity;
        if (left >= smallest && seen[left] < packing->count) {
            seen[left]++;
            packing->bins[packing->bin_count++] = (struct bin){row, col, left};
        }
        col = end + 1;
    }
}

static void collect_bins(struct packing *packing, const struct plan *plan)
{
    const struct best_grid *grid = plan->grid;
    const struct best_part *rows = &plan->parts[packing->parts[0]];
    int32_t smallest = plan->parts[packing->parts[packing->count - 1]].quantity;
    uint8_t seen[ROUTER_SEATS_MAX + 1] = {0};
    int32_t last = last_of(grid, rows->last_row);
    for (int32_t row = first_of(grid, rows->first_row); row <= last; row++) {
        if (grid->room[row] >= smallest)
            collect_row(packing, grid, row, smallest, seen);
    }
}

/* Finds a bin for the parts from the one numbered `i` on. */
static bool pack(struct packing *packing, const struct best_part *parts, size_t i)
{
    bool tried[ROUTER_SEATS_MAX + 1] = {false};
    if (i == packing->count)
        return true;
    int32_t quantity = parts[packing->parts[i]].quantity;
    for (size_t b = 0; b < packing->bin_count && packing->steps; b++) {
        struct bin *bin = &packing->bins[b];
        if (bin->left < quantity || tried[bin->left])
            continue;
        tried[bin->left] = true;
        packing->steps--;
        bin->left -= quantity;
        packing->bin_of[i] = b;
        if (pack(packing, parts, i + 1))
            return true;
        bin->left += quantity;
    }
    return false;
}

static bool place_packed(struct plan *plan, size_t first)
{
    struct packing packing;
    packing_init(&packing, plan, first);
    if (packing.count == 0)
        return true; /* these rows have had their turn */
    collect_bins(&packing, plan);
    if (!pack(&packing, plan->parts, 0))
        return false;
    for (size_t i = 0; i < packing.count; i++) {
        struct bin *bin = &packing.bins[packing.bin_of[i]];
        int32_t quantity = plan->parts[packing.parts[i]].quantity;
        plan_take(plan, packing.parts[i], bin->row, bin->col, quantity);
        bin->col += quantity;
    }
    return true;
}

static bool place_closely(struct plan *plan)
{
    bool ok = best_enough(plan->grid, plan->parts, plan->part_count);
    for (size_t i = 0; ok && i < plan->order_count; i++) {
        size_t part = plan->order[i];
        ok = plan->parts[part].together ? place_packed(plan, part) : place_single(plan, part, 0);
    }
    if (!ok)
        plan_undo(plan);
    return ok;
}

/* --- public ----------------------------------------------------------------------------------- */

static bool total_of(const struct best_part *parts, size_t part_count, int32_t *ret_total)
{
    int32_t total = 0;
    if (part_count > BEST_PARTS_MAX)
        return false;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].quantity < 0 || parts[i].quantity > ROUTER_SEATS_MAX - total)
            return false;
        total += parts[i].quantity;
    }
    *ret_total = total;
    return true;
}

/* In the order of the parts; what one part got stands in the order it got it. */
static size_t seats_of(const struct plan *plan, struct seat *ret_seats)
{
    size_t count = 0;
    for (size_t part = 0; part < plan->part_count; part++) {
        for (size_t g = 0; g < plan->count; g++) {
            const struct got *got = &plan->got[g];
            for (int32_t i = 0; got->part == part && i < got->quantity; i++)
                ret_seats[count++] = (struct seat){got->row + 1, got->col + i + 1};
        }
    }
    return count;
}

bool best_choose(struct best_grid *grid, const struct best_part *parts, size_t part_count,
                 uint32_t skip, struct seat *ret_seats, size_t *ret_count)
{
    struct plan plan;
    int32_t total;
    if (!total_of(parts, part_count, &total))
        return false;
    while (grid->first_row < grid->rows && grid->room[grid->first_row] == 0)
        grid->first_row++;
    plan.grid = grid;
    plan.parts = parts;
    plan.part_count = part_count;
    plan.first_row = grid->first_row;
    plan.count = 0;
    plan_order(&plan);
    if (!place_in_order(&plan, skip) && !(skip && place_in_order(&plan, 0)) &&
        !(part_count > 1 && place_closely(&plan)))
        return false;
    *ret_count = seats_of(&plan, ret_seats);
    assert(*ret_count == (size_t)total);
    plan_undo(&plan);
    return true;
}

bool best_enough(const struct best_grid *grid, const struct best_part *parts, size_t part_count)
{
    for (size_t i = 0; i < part_count; i++) {
        int64_t wanted = 0;
        for (size_t j = 0; j < part_count; j++) {
            if (parts[j].first_row >= parts[i].first_row && parts[j].last_row <= parts[i].last_row)
                wanted += parts[j].quantity;
        }
        if (wanted > best_count(grid, parts[i].first_row, parts[i].last_row))
            return false;
    }
    return true;
}
