/*
 * Which delivery tags of a channel may be acknowledged: messages are settled in any order, and told
 * to the broker in the order in which they came, up to the first that is not settled. Pure.
 *
 *   tags   first ..................... next
 *          done done rejected done open       told: ack up to the 2nd, reject the 3rd, ack the 4th
 *
 * Rejections keep the order, too: so no more than the prefetch window is ever untold.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_ACKS_H
#define SG_QUEUE_ACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct acks {
    uint8_t *states; /* by tag, a ring */
    size_t size;     /* a power of two */
    uint64_t first;  /* the oldest tag that was not told */
    uint64_t next;
};

/* Room for `count` untold tags. False without memory. */
bool acks_init(struct acks *acks, size_t count);
void acks_done(struct acks *acks);
/* A new channel: tag 1 comes next. */
void acks_reset(struct acks *acks);
/* A message came with this tag. False if it cannot be: not the next, or past the room. */
bool acks_open(struct acks *acks, uint64_t tag);
/* The tag is open, and is not from now on. */
void acks_settle(struct acks *acks, uint64_t tag, bool rejected);
/* What to tell next: to reject the tag, or to acknowledge it and all before it. False: nothing. */
bool acks_take(struct acks *acks, uint64_t *ret_tag, bool *ret_rejected);

#endif
