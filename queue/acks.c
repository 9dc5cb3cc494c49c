/*
 * Delivery tags to acknowledge. See acks.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/acks.h"

#include <assert.h>
#include <stdlib.h>

enum tag_state { TAG_OPEN, TAG_DONE, TAG_REJECTED };

bool acks_init(struct acks *acks, size_t count)
{
    size_t size = 4;
    while (size < count)
        size *= 2;
    *acks = (struct acks){.size = size, .first = 1, .next = 1};
    acks->states = calloc(size, 1);
    return acks->states != NULL;
}

void acks_done(struct acks *acks)
{
    free(acks->states);
    acks->states = NULL;
}

void acks_reset(struct acks *acks)
{
    acks->first = 1;
    acks->next = 1;
}

static uint8_t *state_of(struct acks *acks, uint64_t tag)
{
    return &acks->states[tag & (acks->size - 1)];
}

bool acks_open(struct acks *acks, uint64_t tag)
{
    if (tag != acks->next || acks->next - acks->first == acks->size)
        return false;
    *state_of(acks, tag) = TAG_OPEN;
    acks->next++;
    return true;
}

void acks_settle(struct acks *acks, uint64_t tag, bool rejected)
{
    assert(tag >= acks->first && tag < acks->next && *state_of(acks, tag) == TAG_OPEN);
    *state_of(acks, tag) = rejected ? TAG_REJECTED : TAG_DONE;
}

static bool is_next(struct acks *acks, enum tag_state state)
{
    return acks->first < acks->next && *state_of(acks, acks->first) == state;
}

bool acks_take(struct acks *acks, uint64_t *ret_tag, bool *ret_rejected)
{
    if (acks->first == acks->next || is_next(acks, TAG_OPEN))
        return false;
    *ret_rejected = is_next(acks, TAG_REJECTED);
    do {
        *ret_tag = acks->first++;
    } while (!*ret_rejected && is_next(acks, TAG_DONE));
    return true;
}
