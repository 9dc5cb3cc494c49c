/*
 * Goal: the broker is told of every settled message, once, of none that is not, never a tag that it
 * does not know any more; and it never has more than the prefetch window outstanding, so whatever
 * it sends has room. Method: a model of the broker's side of a channel, which refuses what RabbitMQ
 * refuses; messages settled in random order, many rejected, one left open for long.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>

#include "queue/acks.h"

#define TAGS 3000

enum { UNSENT, OUT, SETTLED, SETTLED_DEAD, ACKED, REJECTED };

struct broker {
    uint8_t tags[TAGS + 1];
    uint64_t next;
    size_t outstanding;
    size_t prefetch;
};

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % bound;
}

static void send_some(struct broker *broker, struct acks *acks)
{
    while (broker->outstanding < broker->prefetch && broker->next <= TAGS) {
        broker->tags[broker->next] = OUT;
        broker->outstanding++;
        assert_true(acks_open(acks, broker->next++));
    }
}

/* "unknown delivery tag" closes the channel, so the tag itself has to be outstanding. */
static void hear(struct broker *broker, uint64_t tag, bool rejected)
{
    assert_true(tag >= 1 && tag < broker->next);
    assert_int_equal(broker->tags[tag], rejected ? SETTLED_DEAD : SETTLED);
    if (rejected) {
        broker->tags[tag] = REJECTED;
        broker->outstanding--;
        return;
    }
    for (uint64_t i = 1; i <= tag; i++) {
        if (broker->tags[i] == ACKED || broker->tags[i] == REJECTED)
            continue;
        assert_int_equal(broker->tags[i], SETTLED); /* none that is still worked at, or to reject */
        broker->tags[i] = ACKED;
        broker->outstanding--;
    }
}

static uint64_t pick_out(const struct broker *broker, uint32_t *seed, uint64_t stuck)
{
    uint64_t from = broker->next > 200 ? broker->next - 200 : 1;
    uint64_t start = from + below(seed, (uint32_t)(broker->next - from));
    for (uint64_t i = 0; i < broker->next - from; i++) {
        uint64_t tag = from + (start - from + i) % (broker->next - from);
        if (broker->tags[tag] == OUT && tag != stuck)
            return tag;
    }
    return 0;
}

static void play(uint32_t seed, size_t prefetch, uint32_t poison_percent)
{
    struct broker broker = {.next = 1, .prefetch = prefetch};
    struct acks acks;
    uint64_t stuck = 1 + below(&seed, 50);
    uint64_t tag;
    bool rejected;
    assert_true(acks_init(&acks, prefetch));
    assert_false(acks_take(&acks, &tag, &rejected));
    for (int step = 0; step < 100000; step++) {
        send_some(&broker, &acks);
        tag = pick_out(&broker, &seed, stuck);
        if (tag) {
            bool dead = below(&seed, 100) < poison_percent;
            broker.tags[tag] = dead ? SETTLED_DEAD : SETTLED;
            acks_settle(&acks, tag, dead);
        } else if (stuck < broker.next && broker.tags[stuck] == OUT) {
            broker.tags[stuck] = SETTLED; /* all others wait for it */
            acks_settle(&acks, stuck, false);
        }
        if (tag && below(&seed, 3))
            continue; /* several settled between two looks */
        while (acks_take(&acks, &tag, &rejected))
            hear(&broker, tag, rejected);
    }
    assert_int_equal(broker.next, TAGS + 1);
    assert_int_equal(broker.outstanding, 0);
    acks_reset(&acks);
    assert_true(acks_open(&acks, 1));
    acks_done(&acks);
}

static void the_broker_is_told_what_it_understands(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        play(seed, 1, 10);
        play(seed, 7, 50);
        play(seed, 64, 90);
        play(seed, 100, 0);
    }
}

static void impossible_tags_are_noticed(void **state)
{
    struct acks acks;
    (void)state;
    assert_true(acks_init(&acks, 4));
    assert_false(acks_open(&acks, 2));
    for (uint64_t tag = 1; tag <= 4; tag++)
        assert_true(acks_open(&acks, tag));
    assert_false(acks_open(&acks, 5)); /* more than there is room for */
    assert_false(acks_open(&acks, 4));
    acks_done(&acks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_broker_is_told_what_it_understands),
        cmocka_unit_test(impossible_tags_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
