/*
 * The runner of orders, between a shard and a payment service.
 *
 * Goal: whatever the shard, the map and the service say, and when, an order is driven on, told as
 * it stands, or left to whoever finds it due; it is given up as lost by its own shard's word alone.
 * Method: the real runner in front of a fake router, over a payment service that answers when the
 * test says so.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "payment/provider_http.h"
#include "payment/saga.h"
#include "tests/unit/api/fake_router.h"

#define ID "01890000-0000-7000-8000-00000000000a"
#define OTHER_ID "01890000-0000-7000-8000-00000000000b"
#define PATIENCE_US 60000000

/* --- the payment service ---------------------------------------------------------------------- */

static struct {
    struct payment_provider provider;
    int asked;
    const char *what; /* of the last question */
    payment_fn *fn;   /* NULL: is answered */
    void *arg;
    struct payment_notice notice; /* what a callback says */
} service;

static void answer(enum pay_outcome outcome)
{
    const struct payment_word word = {.outcome = outcome, .amount = 4500, .currency = "EUR"};
    payment_fn *fn = service.fn;
    assert_non_null(fn);
    service.fn = NULL;
    fn(service.arg, &word, "");
}

static enum sg_error ask(const char *what, payment_fn *fn, void *arg)
{
    assert_null(service.fn); /* one order, one question at a time */
    service.asked++;
    service.what = what;
    service.fn = fn;
    service.arg = arg;
    return SG_OK;
}

static enum sg_error on_charge(struct payment_provider *provider,
                               const struct payment_charge *charge, payment_fn *fn, void *arg)
{
    (void)provider;
    assert_string_equal(charge->order_id, ID);
    return ask("charge", fn, arg);
}

static enum sg_error on_ask(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                            void *arg)
{
    (void)provider;
    assert_string_equal(order_id, ID);
    return ask("ask", fn, arg);
}

static enum sg_error on_cancel(struct payment_provider *provider, const char *order_id,
                               payment_fn *fn, void *arg)
{
    (void)provider;
    assert_string_equal(order_id, ID);
    return ask("cancel", fn, arg);
}

static enum sg_error on_refund(struct payment_provider *provider, const char *order_id,
                               payment_fn *fn, void *arg)
{
    (void)provider;
    assert_string_equal(order_id, ID);
    return ask("refund", fn, arg);
}

static enum sg_error on_verify(struct payment_provider *provider, const char *signature,
                               const void *body, size_t len, int64_t now_s,
                               struct payment_notice *ret_notice)
{
    (void)provider;
    (void)signature;
    (void)body;
    (void)len;
    (void)now_s;
    *ret_notice = service.notice;
    return SG_OK;
}

static void on_free(struct payment_provider *provider)
{
    (void)provider;
    if (service.fn)
        answer(PAY_UNKNOWN);
}

static const struct payment_provider_calls calls = {.charge = on_charge,
                                                    .ask = on_ask,
                                                    .cancel = on_cancel,
                                                    .refund = on_refund,
                                                    .verify = on_verify,
                                                    .free = on_free,
                                                    .signature_header = "signature"};

/* In the place of the real one. */
enum sg_error provider_http_new(const struct settings *settings, struct event_base *base,
                                struct payment_provider **ret_provider, char *error_text,
                                size_t error_size)
{
    (void)settings;
    (void)base;
    (void)error_text;
    (void)error_size;
    memset(&service, 0, sizeof(service));
    service.provider.calls = &calls;
    *ret_provider = &service.provider;
    return SG_OK;
}

/* --- the rig ---------------------------------------------------------------------------------- */

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct router *router;
    struct settings settings;
    struct saga *saga;
    /* What who ordered was told. */
    int told;
    enum sg_error error;
    char state[16];
    char problem[40];
    uint64_t lsn;
    /* What who called back was told. */
    int noted;
    enum sg_error note;
};

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    char error_text[256];
    assert_non_null(rig);
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->router = fake_router_new(rig->base);
    settings_init(&rig->settings);
    rig->settings.payment.due_ms = 10;
    rig->settings.payment.wait_ms = 600000;
    memcpy(rig->router->booked.booking_id, ID, sizeof(ID));
    memcpy(rig->router->booked.currency, "EUR", 4);
    rig->router->booked.amount = 4500;
    rig->router->order = (struct order){.order_id = ID,
                                        .event_id = 1,
                                        .state = "charging",
                                        .method = "card",
                                        .currency = "EUR",
                                        .amount = 4500};
    assert_int_equal(saga_new(&(struct saga_config){.settings = &rig->settings,
                                                    .base = rig->base,
                                                    .reap = rig->reap,
                                                    .metrics = metrics_set_new(),
                                                    .router = rig->router},
                              &rig->saga, error_text, sizeof(error_text)),
                     SG_OK);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    saga_drain(rig->saga);
    saga_stop(rig->saga);
    if (rig->router->hold)
        fake_router_release(rig->router);
    while (rig->router->pending)
        event_base_loop(rig->base, EVLOOP_ONCE);
    saga_free(rig->saga);
    fake_router_free(rig->router);
    reap_list_free(rig->reap);
    event_base_free(rig->base);
    metrics_shutdown();
    free(rig);
    return 0;
}

static void turn_until(struct rig *rig, const int *count, int wanted)
{
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    while (*count < wanted && clock_mono_us() < deadline_us)
        event_base_loop(rig->base, EVLOOP_ONCE);
    assert_int_equal(*count, wanted);
}

static void on_told(void *arg, const struct saga_result *result)
{
    struct rig *rig = arg;
    rig->told++;
    rig->error = result->book->error;
    rig->lsn = result->token.lsn;
    snprintf(rig->state, sizeof(rig->state), "%s", result->state ? result->state : "");
    snprintf(rig->problem, sizeof(rig->problem), "%s", result->problem ? result->problem : "");
}

/* What the shard says to the steps from now on. */
static void say(struct rig *rig, bool moved, const char *state)
{
    rig->router->moved = (struct order_moved){.moved = moved, .state = state};
}

/* An order whose buyer waits; the service has the question for its charge. */
static void order(struct rig *rig)
{
    static const struct seat seat = {3, 7};
    const struct book_request book = {
        .event_id = 1, .user_id = "u-1", .seats = &seat, .seat_count = 1, .method = "card"};
    say(rig, false, "charging");
    assert_int_equal(
        saga_start(rig->saga, &(struct saga_request){.book = &book, .wait = true}, on_told, rig),
        SG_OK);
    turn_until(rig, &service.asked, 1);
    assert_string_equal(service.what, "charge");
    assert_int_equal(rig->told, 0);
}

/* --- the word of a shard ---------------------------------------------------------------------- */

static void what_its_shard_has_lost_is_taken_back(void **state)
{
    struct rig *rig = *state;
    order(rig);
    rig->router->moved = (struct order_moved){.error = SG_UNKNOWN_ORDER};
    answer(PAY_SUCCEEDED);
    turn_until(rig, &service.asked, 2);
    assert_string_equal(service.what, "cancel");
    assert_int_equal(rig->told, 1);
    assert_int_equal(rig->error, SG_SHARD_UNAVAILABLE);
    answer(PAY_SUCCEEDED);
    assert_string_equal(service.what, "refund");
    answer(PAY_REFUNDED);
    assert_int_equal(service.asked, 3);
}

/* A map that is forced may send an event to a shard that knows nothing of its orders. */
static void another_shard_has_no_say(void **state)
{
    struct rig *rig = *state;
    struct router *router = rig->router;
    order(rig);
    memcpy(router->route.shard, "beta", 5);
    router->moved = (struct order_moved){.error = SG_UNKNOWN_ORDER};
    answer(PAY_SUCCEEDED);
    turn_until(rig, &rig->told, 1);
    assert_int_equal(rig->error, SG_OK);
    assert_string_equal(rig->state, "charging");
    assert_int_equal(service.asked, 1); /* nobody takes back what has been paid */
    /* the map is right again */
    memcpy(router->route.shard, "alpha", 6);
    memcpy(router->status[0].shard, "alpha", 6);
    router->status[0].writable = true;
    router->status_count = 1;
    router->due = &router->order;
    router->due_count = 1;
    turn_until(rig, &service.asked, 2);
    assert_string_equal(service.what, "ask");
    int steps = router->steps;
    say(rig, true, "confirmed");
    answer(PAY_SUCCEEDED);
    turn_until(rig, &router->steps, steps + 1);
    assert_string_equal(router->asked_action, "charged");
}
/* --- orders that are due ---------------------------------------------------------------------- */

static void every_shard_is_looked_at(void **state)
{
    struct rig *rig = *state;
    struct router *router = rig->router;
    for (int i = 0; i < FAKE_SHARDS_MAX; i++) {
        snprintf(router->status[i].shard, sizeof(router->status[i].shard), "shard-%d", i);
        router->status[i].writable = true;
    }
    router->hold = true; /* none has answered, so none is asked twice */
    router->status_count = FAKE_SHARDS_MAX;
    turn_until(rig, &router->due_looks, FAKE_SHARDS_MAX);
}

/* Whoever has it told the shard why it failed; the buyer who waits here is told so, too. */
static void what_another_made_of_it_is_told_whole(void **state)
{
    struct rig *rig = *state;
    struct router *router = rig->router;
    rig->settings.payment.ask_ms = 50;
    rig->settings.payment.timeout_ms = 90;
    rig->settings.payment.lease_ms = 100; /* less than a pause and a question take */
    order(rig);
    say(rig, true, "failed");
    router->moved.problem = "payment_declined";
    router->moved.token = (struct read_token){.shard = "alpha", .timeline = 1, .lsn = 77};
    answer(PAY_PENDING);
    turn_until(rig, &rig->told, 1);
    assert_string_equal(router->asked_action, "later");
    assert_string_equal(rig->state, "failed");
    assert_string_equal(rig->problem, "payment_declined");
    assert_int_equal(rig->lsn, 77);
}
/* --- callbacks -------------------------------------------------------------------------------- */

static void on_noted(void *arg, enum sg_error error)
{
    struct rig *rig = arg;
    rig->noted++;
    rig->note = error;
}

static void call_back(struct rig *rig, const char *order_id)
{
    int noted = rig->noted;
    service.notice = (struct payment_notice){
        .word = {.outcome = PAY_SUCCEEDED, .amount = 4500, .currency = "EUR"}};
    memcpy(service.notice.order_id, order_id, sizeof(service.notice.order_id));
    assert_int_equal(saga_on_callback(rig->saga, 1, "", "{}", 2, on_noted, rig), SG_OK);
    turn_until(rig, &rig->noted, noted + 1);
}

/* Or the orders that fill it could end by asking alone. */
static void callbacks_of_open_orders_are_heard_at_the_bound(void **state)
{
    struct rig *rig = *state;
    rig->settings.payment.max_open = 1;
    order(rig);
    answer(PAY_PENDING);
    call_back(rig, OTHER_ID);
    assert_int_equal(rig->note, SG_OVERLOADED);
    assert_int_equal(rig->told, 0);
    say(rig, true, "confirmed");
    call_back(rig, ID);
    assert_int_equal(rig->note, SG_OK);
    assert_int_equal(rig->told, 1);
    assert_string_equal(rig->state, "confirmed");
    call_back(rig, OTHER_ID); /* there is room again */
    assert_int_equal(rig->note, SG_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_its_shard_has_lost_is_taken_back),
        TEST(another_shard_has_no_say),
        TEST(every_shard_is_looked_at),
        TEST(what_another_made_of_it_is_told_whole),
        TEST(callbacks_of_open_orders_are_heard_at_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
