/*
 * Fuzzes the decoding of request bodies: the first byte chooses which, the rest is the body.
 *
 * Besides memory errors: what is accepted must keep the bounds, what is refused must say why, in
 * printable text that fits.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <string.h>

#include "api/json_in.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_SEATS 5
#define MAX_GRID 1000000

static void check_refusal(const char *detail)
{
    size_t len = strnlen(detail, JSON_IN_DETAIL_SIZE);
    assert(len > 0 && len < JSON_IN_DETAIL_SIZE);
    for (size_t i = 0; i < len; i++)
        assert(detail[i] >= 0x20 && detail[i] <= 0x7e);
}

static void fuzz_book(const char *body, size_t len)
{
    struct json_in_book in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (json_in_book(body, len, MAX_SEATS, &in, detail) != SG_OK) {
        check_refusal(detail);
        return;
    }
    assert(in.event_id >= 1 && in.seat_count >= 1 && in.seat_count <= MAX_SEATS);
    assert(strnlen(in.user_id, sizeof(in.user_id)) < sizeof(in.user_id));
    for (size_t i = 0; i < in.seat_count; i++) {
        assert(in.seats[i].row >= 1 && in.seats[i].row <= JSON_IN_GRID_MAX);
        assert(in.seats[i].col >= 1 && in.seats[i].col <= JSON_IN_GRID_MAX);
        for (size_t k = 0; k < i; k++)
            assert(in.seats[i].row != in.seats[k].row || in.seats[i].col != in.seats[k].col);
    }
}

static void fuzz_event(const char *body, size_t len)
{
    struct json_in_event in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (json_in_event(body, len, MAX_GRID, &in, detail) != SG_OK) {
        check_refusal(detail);
        return;
    }
    assert(in.name[0] && strnlen(in.name, sizeof(in.name)) < sizeof(in.name));
    assert(strnlen(in.shard, sizeof(in.shard)) < sizeof(in.shard));
    assert(in.rows >= 1 && in.cols >= 1 && (int64_t)in.rows * in.cols <= MAX_GRID);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'e')
        fuzz_event((const char *)data + 1, size - 1);
    else
        fuzz_book((const char *)data + 1, size - 1);
    return 0;
}
