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

#define MAX_GRID 1000000

static const struct json_in_bounds bounds = {.max_seats = 5, .ttl_min_s = 1, .ttl_max_s = 900};

/* What was refused says why; true: it was not refused. */
static bool is_taken(enum sg_error error, const char *detail)
{
    if (error == SG_OK)
        return true;
    size_t len = strnlen(detail, JSON_IN_DETAIL_SIZE);
    assert(len > 0 && len < JSON_IN_DETAIL_SIZE);
    for (size_t i = 0; i < len; i++)
        assert(detail[i] >= 0x20 && detail[i] <= 0x7e);
    return false;
}

static void check_text(const char *text, size_t room)
{
    assert(strnlen(text, room) < room);
}

static void check_wish(const struct best_wish *wish, const char *tier)
{
    assert(wish->quantity >= 1 && wish->quantity <= (int32_t)bounds.max_seats);
    assert(!wish->tier || (wish->tier == tier && tier[0]));
    if (wish->tier)
        check_text(tier, ROUTER_TIER_MAX + 1);
}

static void check_ttl(int64_t ttl_ms)
{
    assert(ttl_ms == 0 || (ttl_ms >= bounds.ttl_min_s * 1000 && ttl_ms <= bounds.ttl_max_s * 1000));
}

static void fuzz_take(enum json_in_kind kind, const char *body, size_t len)
{
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (!is_taken(json_in_take(kind, body, len, &bounds, &in, detail), detail))
        return;
    assert(kind == JSON_IN_BOOK ? in.event_id >= 1 : in.event_id == 0);
    assert((in.seat_count > 0) != (in.best_count > 0));
    assert(in.seat_count <= bounds.max_seats && in.best_count <= ROUTER_BEST_MAX);
    check_text(in.user_id, sizeof(in.user_id));
    check_text(in.method, sizeof(in.method));
    check_ttl(in.ttl_ms);
    assert(kind != JSON_IN_ORDER || in.method[0]);
    size_t wished = 0;
    for (size_t i = 0; i < in.best_count; i++) {
        check_wish(&in.best[i], in.tiers[i]);
        wished += (size_t)in.best[i].quantity;
    }
    assert(wished <= bounds.max_seats);
    for (size_t i = 0; i < in.seat_count; i++) {
        assert(in.seats[i].row >= 1 && in.seats[i].row <= JSON_IN_GRID_MAX);
        assert(in.seats[i].col >= 1 && in.seats[i].col <= JSON_IN_GRID_MAX);
        for (size_t k = 0; k < i; k++)
            assert(in.seats[i].row != in.seats[k].row || in.seats[i].col != in.seats[k].col);
    }
}

static void fuzz_change(enum change_kind kind, const char *body, size_t len)
{
    struct json_in_change in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (!is_taken(json_in_change(kind, body, len, &bounds, &in, detail), detail))
        return;
    check_text(in.user_id, sizeof(in.user_id));
    check_text(in.to_user, sizeof(in.to_user));
    check_ttl(in.ttl_ms);
    assert((kind == CHANGE_TRANSFER) == (in.to_user[0] != '\0'));
    assert(kind == CHANGE_EXTEND || in.ttl_ms == 0);
}

static void fuzz_waitlist(const char *body, size_t len)
{
    struct json_in_waitlist in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (!is_taken(json_in_waitlist(body, len, &bounds, &in, detail), detail))
        return;
    check_text(in.user_id, sizeof(in.user_id));
    check_wish(&in.wish, in.tier);
}

static void fuzz_event(const char *body, size_t len)
{
    struct json_in_event in;
    char detail[JSON_IN_DETAIL_SIZE] = "";
    if (!is_taken(json_in_event(body, len, MAX_GRID, &in, detail), detail))
        return;
    assert(in.name[0]);
    check_text(in.name, sizeof(in.name));
    check_text(in.shard, sizeof(in.shard));
    assert(in.rows >= 1 && in.cols >= 1 && (int64_t)in.rows * in.cols <= MAX_GRID);
    assert(in.max_per_user >= 0 && in.tier_count <= ROUTER_TIERS_MAX);
    assert((in.tier_count > 0) == (strnlen(in.currency, sizeof(in.currency)) == 3));
    for (size_t i = 0; i < in.tier_count; i++) {
        const struct event_tier *tier = &in.tiers[i];
        assert(tier->name == in.tier_names[i] && tier->name[0]);
        check_text(tier->name, ROUTER_TIER_MAX + 1);
        assert(tier->price >= 0 && tier->price <= JSON_IN_PRICE_MAX);
        assert(tier->first_row <= in.rows);
        assert(tier->first_row == 1 || (i > 0 && tier->first_row > in.tiers[i - 1].first_row));
        for (size_t k = 0; k < i; k++)
            assert(strcmp(tier->name, in.tier_names[k]) != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *body = (const char *)data + 1;
    switch (data[0]) {
    case 'e':
        fuzz_event(body, size - 1);
        break;
    case 'h':
        fuzz_take(JSON_IN_HOLD, body, size - 1);
        break;
    case 'o':
        fuzz_take(JSON_IN_ORDER, body, size - 1);
        break;
    case 'w':
        fuzz_waitlist(body, size - 1);
        break;
    case 'c':
        fuzz_change(CHANGE_CONFIRM, body, size - 1);
        break;
    case 'x':
        fuzz_change(CHANGE_EXTEND, body, size - 1);
        break;
    case 't':
        fuzz_change(CHANGE_TRANSFER, body, size - 1);
        break;
    default:
        fuzz_take(JSON_IN_BOOK, body, size - 1);
    }
    return 0;
}
