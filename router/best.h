/*
 * Best available: which free seats of a grid a wish gets. Pure.
 *
 *   grid of what is not free, parts (rows, quantity, together?) ── best_choose ──> seats, or none
 *
 * The rule. A part that is to sit together gets the lowest row (nearest to the stage) that has
 * `quantity` free seats side by side; there the run whose middle is nearest to the row's middle,
 * the left one of two equally near. Another part gets the free seats in the order of row, distance
 * from the row's middle, left first. Parts are served one after the other, each from what the
 * earlier ones left: those with fewer rows to choose from first (a tier before the whole house), of
 * these the ones together first. All get theirs or none does. If one is left without, they are
 * packed closely: the runs of free seats are filled from their left ends, larger parts first. Then
 * none comes of it only if there is no way to seat them all.
 *
 * Two parts of one wish name the same rows, or different ones, or one names all rows of the house;
 * in the last case a "none" may be given though some way could have been found.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BEST_H
#define SG_ROUTER_BEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/router.h"

#define BEST_PARTS_MAX ROUTER_BEST_MAX

/* The seats of one event, a bit each. Rows and columns of seats count from 1. */
struct best_grid {
    int32_t rows;
    int32_t cols;
    size_t row_words;   /* words of a row */
    uint64_t *not_free; /* row by row, column 1 the lowest bit; bits past the last column are set */
    int32_t *room;      /* of each row: it has no longer run of free seats */
    uint64_t *scratch;  /* one row */
    int32_t first_row;  /* from 0: no row before it has a free seat */
};

struct best_part {
    int32_t first_row; /* of its tier, both included; what is outside of the grid has no seats */
    int32_t last_row;
    int32_t quantity;
    bool together;
};

/* All free. False when memory runs out, *ret_grid is then untouched. */
bool best_grid_init(struct best_grid *ret_grid, int32_t rows, int32_t cols);
void best_grid_done(struct best_grid *grid);
/* What a grid takes of memory. */
size_t best_grid_bytes(int32_t rows, int32_t cols);
bool best_grid_holds(const struct best_grid *grid, const struct seat *seat);
/* The seat has to be one of the grid's. */
bool best_grid_is_free(const struct best_grid *grid, const struct seat *seat);
void best_grid_take(struct best_grid *grid, const struct seat *seat);
void best_grid_give(struct best_grid *grid, const struct seat *seat);
void best_grid_give_all(struct best_grid *grid);
/* Free seats of these rows, both included. */
int64_t best_count(const struct best_grid *grid, int32_t first_row, int32_t last_row);

/* Chooses for all of at most BEST_PARTS_MAX parts, or for none. *ret_seats has room for
 * ROUTER_SEATS_MAX, more is never given; the seats stand there in the order of the parts. What is
 * chosen stays free: taking it is the caller's. `skip`: passes over so many choices of the same
 * kind that stand before, so that rivals who met once do not meet again; when there are fewer it
 * begins at the first again, so none comes of it only if there is none. A part of no seats gets
 * none. False: not all of them can have theirs (or they want too many); the results are untouched.
 * The grid learns from a search what has no room; what it says does not change. */
bool best_choose(struct best_grid *grid, const struct best_part *parts, size_t part_count,
                 uint32_t skip, struct seat *ret_seats, size_t *ret_count);
/* As many free seats as the parts want are there, side by side or not. */
bool best_enough(const struct best_grid *grid, const struct best_part *parts, size_t part_count);

#endif
