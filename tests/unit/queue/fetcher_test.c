/*
 * Goal: a broker whose connections do not last is asked less and less often; each attempt costs
 * every message in hand one of its deliveries.
 * Method: a real fetcher and event loop against a scripted broker that closes each connection as
 * soon as it is consumed from.
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

#include "base/clock.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/fetcher.h"
#include "tests/unit/queue/fake_broker.h"

static void on_delivery(void *arg, struct delivery *delivery)
{
    (void)arg;
    (void)delivery;
    fail_msg("nothing was sent");
}

static void on_connection(void *arg, uint64_t generation)
{
    (void)arg;
    (void)generation;
}

static void a_connection_that_does_not_last_is_made_less_and_less_often(void **state)
{
    static const char *const shards[] = {"alpha", "beta"};
    static struct settings settings;
    struct fake_broker broker;
    struct timeval second = {.tv_sec = 1};
    struct event_base *base = event_base_new();
    (void)state;
    settings_init(&settings);
    settings.queue.backoff_min_ms = 1;
    fake_broker_start(&broker, FAKE_ACKS);
    __atomic_store_n(&broker.consumes_max, 2, __ATOMIC_SEQ_CST);
    snprintf(settings.queue.url, sizeof(settings.queue.url), "amqp://guest:guest@127.0.0.1:%d/",
             broker.port);
    struct fetcher *fetcher = fetcher_new(&(struct fetcher_config){.settings = &settings,
                                                                   .base = base,
                                                                   .shards = shards,
                                                                   .shard_count = 2,
                                                                   .on_delivery = on_delivery,
                                                                   .on_connection = on_connection});
    assert_non_null(fetcher);
    assert_int_equal(fetcher_start(fetcher), SG_OK);
    int64_t deadline_us = clock_mono_us() + 60000000;
    do {
        event_base_loopexit(base, &second);
        event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    } while (__atomic_load_n(&broker.connections, __ATOMIC_SEQ_CST) < 2 &&
             clock_mono_us() < deadline_us);
    assert_in_range(__atomic_load_n(&broker.connections, __ATOMIC_SEQ_CST), 2, 30);
    fetcher_stop(fetcher);
    fetcher_free(fetcher);
    event_base_free(base);
    metrics_shutdown();
    fake_broker_end(&broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_that_does_not_last_is_made_less_and_less_often),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
