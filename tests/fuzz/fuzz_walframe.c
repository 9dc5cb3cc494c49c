/*
 * Goal: no bytes make the parser of replication frames read past them.
 * Method: the input is one frame in memory of exactly its size; the payload that is shown must be
 * its end, and a refused frame must leave the result alone.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "replication/walframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct walframe frame = {.kind = '?'};
    char *copy = malloc(size + 1);
    check(copy != NULL);
    char *start = copy + 1; /* not aligned */
    if (size)
        memcpy(start, data, size);
    enum sg_error error = walframe_parse(start, size, &frame);
    if (error != SG_OK)
        check(error == SG_MALFORMED && frame.kind == '?');
    else if (frame.kind == 'w')
        check(frame.payload == start + 25 && frame.payload + frame.len == start + size);
    else
        check(frame.kind == 'k' && size == 18 && !frame.payload && frame.start_lsn == 0);
    free(copy);
    return 0;
}
