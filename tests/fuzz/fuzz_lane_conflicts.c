/*
 * Fuzzes lane_conflicts, which reads PostgreSQL's text of an int array: never more seats than asked
 * about, and none that was not.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router/lane_batch.h"
#include "router/router.h"

#define SEATS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seat seats[SEATS];
    struct seat found[SEATS];
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    for (int i = 0; i < SEATS; i++)
        seats[i] = (struct seat){.row = i + 1, .col = 100 + i};
    size_t count = lane_conflicts(text, seats, SEATS, found);
    if (count > SEATS)
        abort();
    for (size_t i = 0; i < count; i++) {
        if (found[i].row < 1 || found[i].row > SEATS || found[i].col != 99 + found[i].row)
            abort();
    }
    free(text);
    return 0;
}
