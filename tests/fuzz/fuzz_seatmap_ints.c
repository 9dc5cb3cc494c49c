/*
 * Fuzzes the decoder of PostgreSQL's binary int4[] (router/seatmaps.h), and builds a seat map of
 * what it gave.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>

#include "router/seatmaps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t *values = NULL;
    size_t count = 0;
    if (!seatmap_decode_ints((const char *)data, size, &values, &count))
        return 0;
    if (size < count * 8)
        abort(); /* more values than bytes for them */
    struct seatmap *map = seatmap_new(1, 10, 10, values, count, values, count / 2);
    for (int i = 0; map && i < 100; i++) {
        if (map->states[i] != '.' && map->states[i] != 'x')
            abort(); /* booked wins over held */
    }
    seatmap_unref(map);
    free(values);
    return 0;
}
