/*
 * Goal: messages reach another thread's loop in order, none lost, none twice; a full mailbox says
 * so and recovers.
 * Method: a real sender thread against a real event loop (run it under TSan too); a small ring, so
 * that it is full most of the time.
 *
 * SPDX-License-Identifier: MIT
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/mailbox.h"

enum { MESSAGES = 50000 };

struct receiver {
    struct event_base *base;
    int expected;
    int last; /* stop after this kind */
    bool in_order;
    bool text_ok;
};

static void on_message(void *arg, const struct mailbox_message *message)
{
    struct receiver *receiver = arg;
    char text[32];
    snprintf(text, sizeof(text), "node-%d", message->kind);
    if (message->kind != receiver->expected)
        receiver->in_order = false;
    if (strcmp(message->text, text) != 0)
        receiver->text_ok = false;
    receiver->expected++;
    if (message->kind == receiver->last)
        event_base_loopbreak(receiver->base);
}

static void *send_all(void *arg)
{
    struct mailbox *mailbox = arg;
    for (int i = 0; i < MESSAGES; i++) {
        char text[32];
        snprintf(text, sizeof(text), "node-%d", i);
        while (!mailbox_send(mailbox, i, text))
            sched_yield();
    }
    return NULL;
}

static void a_thread_sends_and_the_loop_receives_in_order(void **state)
{
    (void)state;
    pthread_t sender;
    struct receiver receiver = {.last = MESSAGES - 1, .in_order = true, .text_ok = true};
    receiver.base = event_base_new();
    struct mailbox *mailbox = mailbox_new(receiver.base, 16, on_message, &receiver);
    assert_non_null(mailbox);
    assert_int_equal(pthread_create(&sender, NULL, send_all, mailbox), 0);
    event_base_dispatch(receiver.base);
    pthread_join(sender, NULL);
    assert_int_equal(receiver.expected, MESSAGES);
    assert_true(receiver.in_order);
    assert_true(receiver.text_ok);
    mailbox_free(mailbox);
    event_base_free(receiver.base);
}

static void full_refuses_and_then_takes_again(void **state)
{
    (void)state;
    struct receiver receiver = {.last = -1, .in_order = true, .text_ok = true};
    receiver.base = event_base_new();
    struct mailbox *mailbox = mailbox_new(receiver.base, 8, on_message, &receiver);
    int sent = 0;
    for (int round = 0; round < 3; round++) {
        char text[32];
        int first = sent;
        for (snprintf(text, sizeof(text), "node-%d", sent); mailbox_send(mailbox, sent, text);
             snprintf(text, sizeof(text), "node-%d", sent))
            sent++;
        assert_int_equal(sent - first, 7);
        event_base_loop(receiver.base, EVLOOP_NONBLOCK);
        assert_int_equal(receiver.expected, sent);
    }
    assert_true(receiver.in_order && receiver.text_ok);
    mailbox_free(mailbox);
    event_base_free(receiver.base);
}

static void check_cut(void *arg, const struct mailbox_message *message)
{
    size_t *len = arg;
    *len = strlen(message->text);
}

static void long_and_missing_texts_are_safe(void **state)
{
    (void)state;
    size_t len = 1;
    char text[200];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct event_base *base = event_base_new();
    struct mailbox *mailbox = mailbox_new(base, 4, check_cut, &len);
    assert_true(mailbox_send(mailbox, 1, NULL));
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(len, 0);
    assert_true(mailbox_send(mailbox, 1, text));
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert_int_equal(len, MAILBOX_TEXT_MAX - 1);
    assert_true(mailbox_send(mailbox, 1, "dropped with the mailbox"));
    mailbox_free(mailbox);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_sends_and_the_loop_receives_in_order),
        cmocka_unit_test(full_refuses_and_then_takes_again),
        cmocka_unit_test(long_and_missing_texts_are_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
