/*
 * Fuzzes the rows of a seed's COPY: no byte may lead out of the row, and what is written is whole.
 * The first byte chooses: a row of counters, or of tickets.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "replication/seed_rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seed_rows rows;
    struct dynbuf out;
    if (size < 1)
        return 0;
    char *row = malloc(size > 1 ? size - 1 : 1); /* exactly so long: one byte more is noticed */
    memcpy(row, data + 1, size - 1);
    seed_rows_init(&rows, "alpha", 1, 1, 4096);
    dynbuf_init(&out, 1 << 16);
    enum sg_error error = data[0] & 1 ? seed_rows_ticket(&rows, row, size - 1, &out)
                                      : seed_rows_event(&rows, row, size - 1, &out);
    if (out.failed || (error == SG_OK) != (out.len > 0))
        abort();
    if (out.len && memcmp(out.data + out.len - 2, "\r\n", 2) != 0)
        abort();
    dynbuf_done(&out);
    free(row);
    return 0;
}
