/*
 * Seat maps: many readers of one event at one moment share one query (single flight), and for
 * reads.seatmap_recent_ms after it what it brought. See router.h for struct seatmap.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SEATMAPS_H
#define SG_ROUTER_SEATMAPS_H

#include "router/calls.h"
#include "router/router.h"

struct seatmaps;

/* What is borrowed outlives it. NULL when memory runs out. */
struct seatmaps *seatmaps_new(const struct router_config *config, struct calls *calls);
/* After calls_free: nothing is in flight any more. */
void seatmaps_free(struct seatmaps *seatmaps);
/* As router_seatmap; `route` has shard and map_version. */
enum sg_error seatmaps_get(struct seatmaps *seatmaps, const struct route *route, int64_t event_id,
                           const struct read_wish *wish, router_seatmap_fn *fn, void *arg);

/* Builds a seat map from what is taken: ascending or not, seat numbers from 0; numbers outside the
 * grid are ignored. One reference. NULL when memory runs out. Pure. */
struct seatmap *seatmap_new(int64_t event_id, int32_t rows, int32_t cols, const int32_t *booked,
                            size_t booked_count, const int32_t *held, size_t held_count);
/* Decodes PostgreSQL's binary int4[] into a malloc'ed array (NULL for an empty one). False if the
 * bytes are none. Pure; fuzzed. */
bool seatmap_decode_ints(const char *bytes, size_t len, int32_t **ret_values, size_t *ret_count);

#endif
