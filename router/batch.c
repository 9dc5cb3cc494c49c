/*
 * The batch planner. See batch.h.
 *
 * Rivals are found with a hash set of what the batch touches, on the stack of the call: 64-bit
 * fingerprints of (event, seat) and (event, key). Two different things with one fingerprint make a
 * rival that is none, which costs that booking a round trip and nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/batch.h"

#include <string.h>

#include "base/hash.h"

#define SET_SLOTS 16384 /* a power of two, over twice of what a batch can touch */

struct touched_set {
    uint64_t slots[SET_SLOTS]; /* 0: free */
};

static uint64_t seat_fingerprint(int64_t event_id, const struct seat *seat)
{
    uint64_t place = (uint64_t)(uint32_t)seat->row << 32 | (uint32_t)seat->col;
    return hash_u64(hash_u64((uint64_t)event_id) ^ place) | 1;
}

static uint64_t key_fingerprint(int64_t event_id, const char *key)
{
    return hash_u64(hash_bytes(HASH_START ^ (uint64_t)event_id, key, strlen(key))) | 1;
}

/* True if it was there already. */
static bool touch(struct touched_set *set, uint64_t fingerprint)
{
    size_t i = fingerprint >> 1 & (SET_SLOTS - 1);
    while (set->slots[i]) {
        if (set->slots[i] == fingerprint)
            return true;
        i = (i + 1) & (SET_SLOTS - 1);
    }
    set->slots[i] = fingerprint;
    return false;
}

static bool touch_item(struct touched_set *set, const struct batch_item *item)
{
    bool rival = false;
    for (size_t i = 0; i < item->seat_count; i++)
        rival |= touch(set, seat_fingerprint(item->event_id, &item->seats[i]));
    if (item->idempotency_key)
        rival |= touch(set, key_fingerprint(item->event_id, item->idempotency_key));
    return rival;
}

size_t batch_plan(const struct batch_item *items, size_t count, size_t max, bool *ret_rival)
{
    struct touched_set set;
    size_t taken = 0;
    size_t seats = 0;
    if (count > max)
        count = max;
    if (count > BATCH_MAX)
        count = BATCH_MAX;
    if (count == 1) {
        ret_rival[0] = false;
        return 1;
    }
    memset(&set, 0, sizeof(set));
    while (taken < count) {
        seats += items[taken].seat_count;
        if (taken && seats > BATCH_SEATS_MAX)
            break;
        ret_rival[taken] = touch_item(&set, &items[taken]);
        taken++;
    }
    return taken;
}

int64_t batch_gather_us(size_t waiting, size_t population, size_t max, int64_t idle_us,
                        int64_t gather_us)
{
    if (population < BATCH_BUSY || 4 * waiting >= 3 * population || waiting >= max)
        return 0;
    return idle_us < gather_us ? gather_us - idle_us : 0;
}

size_t batch_halve(size_t count)
{
    return count / 2;
}
