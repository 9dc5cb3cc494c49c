/*
 * Goal: pointers reach the other thread in order, none lost, none twice; a full ring says so and
 * recovers; a wake is never missed.
 * Method: a real sender and a receiver that sleeps in poll() (run it under TSan too); a small ring,
 * so that it is full most of the time, and a single wake for several puts.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <unistd.h>

#include "queue/handover.h"

enum { POINTERS = 50000, ROOM = 6 };

static int numbers[POINTERS];

static void *send_all(void *arg)
{
    struct handover *handover = arg;
    for (int i = 0; i < POINTERS; i++) {
        while (!handover_put(handover, &numbers[i])) {
            handover_wake(handover);
            sched_yield();
        }
        if (i % 3 == 2)
            handover_wake(handover);
    }
    handover_wake(handover);
    return NULL;
}

static void all_arrive_in_order(void **state)
{
    int fd = handover_fd_new();
    struct handover *handover = handover_new(ROOM, fd);
    pthread_t sender;
    int got = 0;
    (void)state;
    assert_non_null(handover);
    assert_int_equal(pthread_create(&sender, NULL, send_all, handover), 0);
    while (got < POINTERS) {
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};
        if (poll(&pollfd, 1, 60000) != 1)
            fail_msg("nobody woke the receiver; %d came", got);
        handover_fd_clear(fd);
        const int *number;
        while ((number = handover_take(handover))) {
            assert_ptr_equal(number, &numbers[got]);
            got++;
        }
    }
    pthread_join(sender, NULL);
    assert_null(handover_take(handover));
    handover_free(handover);
    close(fd);
}

static void it_holds_what_it_says(void **state)
{
    (void)state;
    for (size_t count = 1; count < 40; count++) {
        struct handover *handover = handover_new(count, -1);
        assert_non_null(handover);
        for (size_t i = 0; i < count; i++)
            assert_true(handover_put(handover, &numbers[i]));
        size_t more = 0;
        while (more < 100 && handover_put(handover, &numbers[0]))
            more++;
        assert_true(more < 100); /* bounded */
        assert_ptr_equal(handover_take(handover), &numbers[0]);
        assert_true(handover_put(handover, &numbers[1]));
        handover_free(handover);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_arrive_in_order),
        cmocka_unit_test(it_holds_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
