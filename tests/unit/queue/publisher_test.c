/*
 * Goal: every message that was taken is answered once, and rightly: yes only when the broker has
 * said so, no only when it cannot have it, unknown for the rest; and never much later than
 * queue.confirm_ms.
 * Method: a real publisher, sender and event loop against a scripted broker that confirms one by
 * one or many at once, refuses, returns, is silent, hangs up, is short of memory, is not there (run
 * it under TSan too).
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/publisher.h"
#include "tests/unit/queue/fake_broker.h"

#define PATIENCE_US 60000000

struct rig {
    struct fake_broker broker;
    struct settings settings;
    struct event_base *base;
    struct queue_publisher *publisher;
    struct queue_sender *sender;
    int answers[SG_ERROR_COUNT];
    int answered;
};

static void on_answered(void *arg, enum sg_error error)
{
    struct rig *rig = arg;
    rig->answers[error]++;
    rig->answered++;
}

static void begin_with_url(struct rig *rig, int port)
{
    static const char *const shards[] = {"alpha", "beta"};
    snprintf(rig->settings.queue.url, sizeof(rig->settings.queue.url),
             "amqp://guest:guest@127.0.0.1:%d/", port);
    rig->base = event_base_new();
    rig->publisher = queue_publisher_new(&(struct queue_publisher_config){
        .settings = &rig->settings, .shards = shards, .shard_count = 2});
    assert_non_null(rig->publisher);
    rig->sender = queue_sender_new(rig->publisher, rig->base);
    assert_non_null(rig->sender);
    assert_int_equal(queue_publisher_start(rig->publisher), SG_OK);
}

static void begin(struct rig *rig, enum fake_answer answer, int64_t confirm_ms)
{
    memset(rig, 0, sizeof(*rig));
    settings_init(&rig->settings);
    rig->settings.queue.confirm_ms = confirm_ms;
    rig->settings.queue.max_pending = 200;
    fake_broker_start(&rig->broker, answer);
    begin_with_url(rig, rig->broker.port);
}

static void end(struct rig *rig)
{
    queue_publisher_stop(rig->publisher);
    queue_sender_free(rig->sender);
    queue_publisher_free(rig->publisher);
    event_base_free(rig->base);
    metrics_shutdown();
    if (rig->broker.port)
        fake_broker_end(&rig->broker);
}

static void publish(struct rig *rig, const char *shard, int count)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(queue_publish(rig->sender, shard, "body", 4, on_answered, rig), SG_OK);
}

static void turn(struct rig *rig)
{
    struct timeval tv = clock_timeval_us(2000);
    event_base_loopexit(rig->base, &tv);
    event_base_loop(rig->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

static void wait_answered(struct rig *rig, int count)
{
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    while (rig->answered < count) {
        turn(rig);
        if (clock_mono_us() > deadline_us)
            fail_msg("%d of %d answers", rig->answered, count);
    }
    assert_int_equal(rig->answered, count);
}

static int count_of(int *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void script(struct rig *rig, enum fake_answer answer)
{
    __atomic_store_n(&rig->broker.answer, (int)answer, __ATOMIC_SEQ_CST);
}

static void confirmed_one_by_one_and_many_at_once(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_ACKS, 60000);
    publish(&rig, "alpha", 80);
    publish(&rig, "beta", 80); /* on a channel of its own, whose tags begin at 1, too */
    wait_answered(&rig, 160);
    script(&rig, FAKE_ACKS_BY_EIGHT);
    publish(&rig, "alpha", 160);
    wait_answered(&rig, 320);
    assert_int_equal(rig.answers[SG_OK], 320);
    assert_int_equal(count_of(&rig.broker.published), 320);
    assert_int_equal(count_of(&rig.broker.declared), 4); /* two queues a shard, at the start */
    end(&rig);
}

static void a_new_shard_has_its_queue_made(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_ACKS, 60000);
    publish(&rig, "gamma", 3);
    wait_answered(&rig, 3);
    assert_int_equal(rig.answers[SG_OK], 3);
    assert_int_equal(count_of(&rig.broker.declared), 6);
    end(&rig);
}

static void refused_is_refused(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_NACKS, 60000);
    publish(&rig, "alpha", 10);
    wait_answered(&rig, 10);
    assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 10);
    end(&rig);
}

static void returned_is_refused_and_the_queue_made_again(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_RETURNS, 60000);
    publish(&rig, "alpha", 1);
    wait_answered(&rig, 1);
    assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 1);
    script(&rig, FAKE_ACKS);
    publish(&rig, "alpha", 5);
    publish(&rig, "beta", 5);
    wait_answered(&rig, 11);
    assert_int_equal(rig.answers[SG_OK], 10);
    assert_int_equal(count_of(&rig.broker.declared), 6); /* alpha's once more, and not beta's */
    assert_int_equal(count_of(&rig.broker.connections), 1);
    end(&rig);
}

static void silence_is_unknown_in_time(void **state)
{
    static struct rig rig;
    (void)state;
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    begin(&rig, FAKE_IS_SILENT, 300);
    do { /* until one is there: before that, no is a right answer, too */
        publish(&rig, "alpha", 1);
        wait_answered(&rig, rig.answered + 1);
        assert_true(clock_mono_us() < deadline_us);
    } while (count_of(&rig.broker.published) == 0);
    assert_true(rig.answers[SG_OUTCOME_UNKNOWN] >= 1);
    publish(&rig, "alpha", 20);
    wait_answered(&rig, rig.answered + 20);
    assert_int_equal(rig.answers[SG_OUTCOME_UNKNOWN] + rig.answers[SG_QUEUE_UNAVAILABLE],
                     rig.answered);
    /* A confirmation that comes too late is of nobody's concern, and of no later message's. */
    script(&rig, FAKE_ACKS_BY_EIGHT);
    while (rig.answers[SG_OK] < 8) {
        publish(&rig, "alpha", 16);
        wait_answered(&rig, rig.answered + 16);
        assert_true(clock_mono_us() < deadline_us);
    }
    end(&rig);
}

static void a_lost_connection_is_made_again_and_asked_again(void **state)
{
    static const enum fake_answer ends[] = {FAKE_HANGS_UP, FAKE_CLOSES};
    static struct rig rig;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin(&rig, ends[i], 60000);
        publish(&rig, "alpha", 50);
        while (count_of(&rig.broker.published) == 0)
            turn(&rig);
        script(&rig, FAKE_ACKS);
        publish(&rig, "beta", 50);
        wait_answered(&rig, 100);
        assert_int_equal(rig.answers[SG_OK], 100);
        assert_true(count_of(&rig.broker.published) > 100); /* some twice, none never */
        assert_true(count_of(&rig.broker.connections) >= 2);
        end(&rig);
    }
}

/* What a lost connection took with it may be in the queue, though the next one says no. */
static void no_is_not_said_of_what_may_be_kept(void **state)
{
    static const enum fake_answer answers[] = {FAKE_NACKS, FAKE_RETURNS};
    static struct rig rig;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin(&rig, FAKE_HANGS_UP, 60000);
        publish(&rig, "alpha", 1);
        while (count_of(&rig.broker.published) == 0)
            turn(&rig);
        script(&rig, answers[i]);
        wait_answered(&rig, 1);
        assert_int_equal(rig.answers[SG_OUTCOME_UNKNOWN], 1);
        publish(&rig, "alpha", 1);
        wait_answered(&rig, 2);
        assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 1);
        end(&rig);
    }
}

/* One that takes connections and drops them at the first message is not asked as fast as it can. */
static void a_broker_that_drops_every_connection_is_left_in_peace(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_CLOSES, 400);
    do { /* until it was there in time */
        publish(&rig, "alpha", 1);
        wait_answered(&rig, rig.answered + 1);
    } while (count_of(&rig.broker.published) == 0);
    assert_int_equal(rig.answers[SG_OK], 0);
    assert_true(count_of(&rig.broker.connections) < 30);
    script(&rig, FAKE_ACKS);
    while (rig.answers[SG_OK] == 0) {
        publish(&rig, "alpha", 1);
        wait_answered(&rig, rig.answered + 1);
    }
    end(&rig);
}

/* The queues of many shards are being made, and it takes longer than a message may wait. */
static void a_connection_being_made_is_waited_for_in_time(void **state)
{
    static struct rig rig;
    (void)state;
    memset(&rig, 0, sizeof(rig));
    settings_init(&rig.settings);
    rig.settings.queue.confirm_ms = 10;
    rig.settings.queue.connect_timeout_ms = 600000;
    rig.settings.queue.heartbeat_ms = 600000;
    fake_broker_start(&rig.broker, FAKE_ACKS);
    __atomic_store_n(&rig.broker.declares_max, 0, __ATOMIC_SEQ_CST);
    begin_with_url(&rig, rig.broker.port);
    publish(&rig, "alpha", 1);
    for (int i = 0; i < 20; i++)
        turn(&rig);
    assert_int_equal(rig.answered, 0);
    __atomic_store_n(&rig.broker.declares_max, 2, __ATOMIC_SEQ_CST); /* those of one shard */
    wait_answered(&rig, 1);
    assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 1);
    __atomic_store_n(&rig.broker.declares_max, 4, __ATOMIC_SEQ_CST);
    end(&rig);
}

static void a_broker_that_is_away_is_told_soon(void **state)
{
    static struct rig rig;
    struct fake_broker nobody;
    (void)state;
    memset(&rig, 0, sizeof(rig));
    settings_init(&rig.settings);
    rig.settings.queue.confirm_ms = 600000;
    fake_broker_start(&nobody, FAKE_ACKS);
    fake_broker_end(&nobody); /* a port that nobody listens at */
    begin_with_url(&rig, nobody.port);
    publish(&rig, "alpha", 10);
    wait_answered(&rig, 10);
    assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 10);
    end(&rig);
}

static void a_broker_short_of_memory_is_away(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_ACKS, 60000);
    publish(&rig, "alpha", 1);
    wait_answered(&rig, 1);
    __atomic_store_n(&rig.broker.block, true, __ATOMIC_SEQ_CST);
    publish(&rig, "alpha", 1); /* it says so before it confirms this one */
    wait_answered(&rig, 2);
    assert_int_equal(rig.answers[SG_OK], 2);
    publish(&rig, "alpha", 5);
    wait_answered(&rig, 7);
    assert_int_equal(rig.answers[SG_QUEUE_UNAVAILABLE], 5);
    assert_int_equal(count_of(&rig.broker.published), 2);
    fake_broker_unblock(&rig.broker);
    while (rig.answers[SG_OK] == 2) {
        publish(&rig, "alpha", 1);
        wait_answered(&rig, rig.answered + 1);
    }
    end(&rig);
}

static void what_is_pending_is_bounded(void **state)
{
    static struct rig rig;
    (void)state;
    begin(&rig, FAKE_IS_SILENT, 600000);
    publish(&rig, "alpha", 200);
    assert_int_equal(queue_publish(rig.sender, "alpha", "x", 1, on_answered, &rig),
                     SG_QUEUE_UNAVAILABLE);
    assert_int_equal(rig.answered, 0);
    end(&rig);
    /* Who goes, is told: the outcome is not known. */
    assert_int_equal(rig.answers[SG_OUTCOME_UNKNOWN], 200);
}

static void a_url_that_is_none_is_refused(void **state)
{
    static const char *const urls[] = {"", "127.0.0.1:5672", "http://127.0.0.1/",
                                       "amqps://guest:guest@127.0.0.1/"};
    struct settings settings;
    (void)state;
    settings_init(&settings);
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        snprintf(settings.queue.url, sizeof(settings.queue.url), "%s", urls[i]);
        assert_null(queue_publisher_new(&(struct queue_publisher_config){.settings = &settings}));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(confirmed_one_by_one_and_many_at_once),
        cmocka_unit_test(a_new_shard_has_its_queue_made),
        cmocka_unit_test(refused_is_refused),
        cmocka_unit_test(returned_is_refused_and_the_queue_made_again),
        cmocka_unit_test(silence_is_unknown_in_time),
        cmocka_unit_test(a_lost_connection_is_made_again_and_asked_again),
        cmocka_unit_test(no_is_not_said_of_what_may_be_kept),
        cmocka_unit_test(a_broker_that_drops_every_connection_is_left_in_peace),
        cmocka_unit_test(a_connection_being_made_is_waited_for_in_time),
        cmocka_unit_test(a_broker_that_is_away_is_told_soon),
        cmocka_unit_test(a_broker_short_of_memory_is_away),
        cmocka_unit_test(what_is_pending_is_bounded),
        cmocka_unit_test(a_url_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
