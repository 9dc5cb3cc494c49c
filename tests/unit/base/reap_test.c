/*
 * Goal: an object on the reap list outlives the callbacks that are already due, and not the next
 * wait of its loop.
 * Method: callbacks of one loop put objects on the list and look at what was freed when.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <event2/event.h>

#include "base/reap.h"

static struct {
    struct event_base *base;
    struct reap_list *list;
    int freed;
    int freed_at_second_callback;
    int chain;
} loop;

static void count_free(void *object)
{
    free(object);
    loop.freed++;
}

static void on_first(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    for (int i = 0; i < 1000; i++)
        reap(loop.list, malloc(8), count_free);
    assert_int_equal(loop.freed, 0);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    loop.freed_at_second_callback = loop.freed;
}

/* Freeing one object may put the next one on the list. */
static void free_chain(void *object)
{
    count_free(object);
    if (--loop.chain > 0)
        reap(loop.list, malloc(8), free_chain);
}

static int make_loop(void **state)
{
    (void)state;
    loop.base = event_base_new();
    loop.list = reap_list_new(loop.base);
    loop.freed = 0;
    return loop.base && loop.list ? 0 : -1;
}

static int free_loop(void **state)
{
    (void)state;
    reap_list_free(loop.list);
    event_base_free(loop.base);
    return 0;
}

static void objects_are_freed_behind_all_due_callbacks(void **state)
{
    (void)state;
    struct event *first = event_new(loop.base, -1, 0, on_first, NULL);
    struct event *second = event_new(loop.base, -1, 0, on_second, NULL);
    event_active(first, 0, 0);
    event_active(second, 0, 0);
    event_base_loop(loop.base, EVLOOP_ONCE);
    assert_int_equal(loop.freed_at_second_callback, 0);
    assert_int_equal(loop.freed, 1000);
    event_free(first);
    event_free(second);
}

static void the_list_works_again_after_it_ran(void **state)
{
    (void)state;
    for (int round = 1; round <= 3; round++) {
        loop.chain = 5;
        reap(loop.list, malloc(8), free_chain);
        event_base_loop(loop.base, EVLOOP_ONCE);
        assert_int_equal(loop.freed, 5 * round);
    }
}

static void freeing_the_list_frees_what_is_on_it(void **state)
{
    (void)state;
    loop.chain = 3;
    reap(loop.list, malloc(8), free_chain);
    reap(loop.list, malloc(8), count_free);
    reap_list_free(loop.list);
    loop.list = NULL;
    assert_int_equal(loop.freed, 4);
    reap_list_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(objects_are_freed_behind_all_due_callbacks, make_loop,
                                        free_loop),
        cmocka_unit_test_setup_teardown(the_list_works_again_after_it_ran, make_loop, free_loop),
        cmocka_unit_test_setup_teardown(freeing_the_list_frees_what_is_on_it, make_loop, free_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
