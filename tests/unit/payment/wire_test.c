/*
 * The JSON between SeatGrid and a payment service, and how the stand-in behaves.
 *
 * Goal: what one side writes the other reads; anything odd is refused and changes nothing; a
 * behaviour means the shares it says, the same for the same order each time.
 * Method: there and back; a table of bodies; ten thousand orders counted.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "payment/behaviour.h"
#include "payment/wire.h"

#define ID "01890000-0000-7000-8000-00000000000a"

/* --- there and back --------------------------------------------------------------------------- */

static void a_charge_is_read_as_written(void **state)
{
    struct wire_charge charge = {.amount = WIRE_AMOUNT_MAX,
                                 .currency = "EUR",
                                 .method = "card\"\\/x",
                                 .callback_url = "http://h:1/x?a=%22&event=7"};
    struct wire_charge read;
    struct dynbuf out;
    (void)state;
    dynbuf_init(&out, WIRE_BODY_MAX);
    wire_write_charge(&out, &charge);
    assert_int_equal(wire_read_charge(out.data, out.len, &read), SG_OK);
    assert_memory_equal(&read, &charge, sizeof(read));
    dynbuf_done(&out);
}

static void a_state_is_read_as_written(void **state)
{
    struct payment_notice read;
    (void)state;
    for (int i = 0; i < PAY_OUTCOME_COUNT; i++) {
        struct dynbuf out;
        dynbuf_init(&out, WIRE_BODY_MAX);
        wire_write_state(&out, ID, (enum pay_outcome)i, 4500, "EUR");
        enum sg_error error = wire_read_state(out.data, out.len, &read);
        if (i == PAY_UNKNOWN || i == PAY_NONE) { /* nobody says so */
            assert_int_equal(error, SG_INVALID_VALUE);
        } else {
            assert_int_equal(error, SG_OK);
            assert_int_equal(read.word.outcome, i);
            assert_int_equal(read.word.amount, i == PAY_SUCCEEDED || i == PAY_REFUNDED ? 4500 : 0);
            assert_string_equal(read.order_id, ID);
        }
        dynbuf_done(&out);
    }
}

/* --- bodies ----------------------------------------------------------------------------------- */

static void odd_charges(void **state)
{
    static const struct {
        enum sg_error error;
        const char *body;
    } cases[] = {
        {SG_OK, "{\"amount\":0,\"currency\":\"EUR\",\"method\":\"x\",\"more\":[{}]}"},
        {SG_MALFORMED_JSON, ""},
        {SG_MALFORMED_JSON, "{"},
        {SG_MALFORMED_JSON, "{\"amount\":1,\"amount\":2,\"currency\":\"EUR\",\"method\":\"x\"}"},
        {SG_WRONG_TYPE, "[]"},
        {SG_WRONG_TYPE, "{}"},
        {SG_WRONG_TYPE, "{\"amount\":1.5,\"currency\":\"EUR\",\"method\":\"x\"}"},
        {SG_WRONG_TYPE, "{\"amount\":\"1\",\"currency\":\"EUR\",\"method\":\"x\"}"},
        {SG_WRONG_TYPE, "{\"amount\":1,\"method\":\"x\"}"},
        {SG_WRONG_TYPE, "{\"amount\":1,\"currency\":\"EUR\"}"},
        {SG_WRONG_TYPE, "{\"amount\":1,\"currency\":\"EUR\",\"method\":\"x\",\"callbackUrl\":1}"},
        {SG_INVALID_VALUE, "{\"amount\":-1,\"currency\":\"EUR\",\"method\":\"x\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1000000000000001,\"currency\":\"EUR\",\"method\":\"x\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1,\"currency\":\"eur\",\"method\":\"x\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1,\"currency\":\"EURO\",\"method\":\"x\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1,\"currency\":\"EUR\",\"method\":\"\"}"},
        {SG_OK, "{\"amount\":1,\"currency\":\"EUR\",\"method\":\"a card\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1,\"currency\":\"EUR\",\"method\":\"a\\nb\"}"},
        {SG_INVALID_VALUE, "{\"amount\":1,\"currency\":\"EUR\",\"method\":\"x\",\"callbackUrl\":"
                           "\"http://h/\\u0020\"}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct wire_charge charge = {.amount = 77};
        enum sg_error error = wire_read_charge(cases[i].body, strlen(cases[i].body), &charge);
        if (error != cases[i].error)
            fail_msg("%s: %s", cases[i].body, sg_error_code(error));
        if (error != SG_OK)
            assert_int_equal(charge.amount, 77);
    }
}

#define MONEY(amount) "\"amount\":" amount ",\"currency\":\"EUR\""

static void odd_states(void **state)
{
    static const struct {
        enum sg_error error;
        const char *body;
    } cases[] = {
        {SG_OK, "{\"orderId\":\"" ID "\",\"status\":\"declined\"}"},
        {SG_OK, "{\"orderId\":\"" ID "\",\"status\":\"cancelled\",\"amount\":0,\"currency\":\"\"}"},
        {SG_OK, "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"," MONEY("1") "}"},
        {SG_WRONG_TYPE, "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"}"},
        {SG_WRONG_TYPE, "{\"orderId\":\"" ID "\",\"status\":\"succeeded\",\"amount\":1}"},
        {SG_WRONG_TYPE, "{\"orderId\":\"" ID "\",\"status\":\"refunded\"," MONEY("1.0") "}"},
        {SG_WRONG_TYPE, "{\"orderId\":\"" ID "\",\"status\":\"refunded\"," MONEY("\"1\"") "}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"," MONEY("-1") "}"},
        {SG_INVALID_VALUE,
         "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"," MONEY("1000000000000001") "}"},
        {SG_MALFORMED_JSON,
         "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"," MONEY("99999999999999999999") "}"},
        {SG_MALFORMED_JSON, "{\"orderId\":\"" ID "\",\"status\":\"declined\"}x"},
        {SG_MALFORMED_JSON, "\"declined\""},
        {SG_WRONG_TYPE, "{\"status\":\"declined\"}"},
        {SG_WRONG_TYPE, "{\"orderId\":\"" ID "\"}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "0\",\"status\":\"declined\"}"},
        {SG_INVALID_VALUE,
         "{\"orderId\":\"01890000-0000-7000-8000-00000000000A\",\"status\":\"declined\"}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "\",\"status\":\"unknown\"}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "\",\"status\":\"none\"}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "\",\"status\":\"paid\"}"},
        {SG_INVALID_VALUE, "{\"orderId\":\"" ID "\",\"status\":\"succeeded-or-not-who-knows\"}"},
    };
    static char long_body[WIRE_BODY_MAX + 2];
    struct payment_notice wire;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        enum sg_error error = wire_read_state(cases[i].body, strlen(cases[i].body), &wire);
        if (error != cases[i].error)
            fail_msg("%s: %s", cases[i].body, sg_error_code(error));
    }
    memset(long_body, ' ', sizeof(long_body) - 1);
    memcpy(long_body, cases[0].body, strlen(cases[0].body));
    assert_int_equal(wire_read_state(long_body, WIRE_BODY_MAX, &wire), SG_OK);
    assert_int_equal(wire_read_state(long_body, WIRE_BODY_MAX + 1, &wire), SG_MALFORMED_JSON);
}

static void behaviour_is_changed_field_by_field(void **state)
{
    static const char *const refused[] = {
        "{\"success\":50}",
        "{\"successPercent\":101}",
        "{\"successPercent\":-1}",
        "{\"successPercent\":1.0}",
        "{\"lateMs\":86400001}",
        "{\"delayMs\":9,\"delayMaxMs\":8}",
        "[]",
        "{\"successPercent\":50,\"x\":1}",
    };
    static const char change[] = "{\"successPercent\":50,\"delayMs\":3,\"delayMaxMs\":9}";
    struct behaviour behaviour;
    struct behaviour before;
    struct dynbuf out;
    (void)state;
    behaviour_init(&behaviour);
    assert_int_equal(wire_read_behaviour(change, strlen(change), &behaviour), SG_OK);
    assert_int_equal(behaviour.success, 50);
    assert_int_equal(behaviour.delay_max_ms, 9);
    assert_int_equal(behaviour.late_ms, 1000);
    before = behaviour;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        assert_int_not_equal(wire_read_behaviour(refused[i], strlen(refused[i]), &behaviour),
                             SG_OK);
        assert_memory_equal(&behaviour, &before, sizeof(before));
    }
    dynbuf_init(&out, WIRE_BODY_MAX);
    wire_write_behaviour(&out, &behaviour);
    behaviour_init(&behaviour);
    assert_int_equal(wire_read_behaviour(out.data, out.len, &behaviour), SG_OK);
    assert_memory_equal(&behaviour, &before, sizeof(before));
    dynbuf_done(&out);
}

/* --- behaviour -------------------------------------------------------------------------------- */

static void a_method_forces_what_it_says(void **state)
{
    static const struct {
        const char *method;
        bool success, silent, pending;
        int callbacks;
        int64_t callback_ms;
    } cases[] = {
        {"ok", true, false, false, 0, 0},    {"decline", false, false, false, 0, 0},
        {"silent", true, true, false, 0, 0}, {"pending", true, false, true, 1, 0},
        {"late", true, false, true, 1, 70},  {"duplicate", true, false, true, 2, 0},
    };
    /* the worst of rates, which must not matter */
    struct behaviour behaviour = {
        .silent = 100, .pending = 100, .late = 100, .lose = 100, .late_ms = 70, .delay_ms = 5};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct behaviour_plan plan = behaviour_plan(&behaviour, ID, cases[i].method);
        if (plan.success != cases[i].success || plan.silent != cases[i].silent ||
            plan.pending != cases[i].pending || plan.callbacks != cases[i].callbacks ||
            plan.callback_ms != cases[i].callback_ms || plan.decide_ms != 5)
            fail_msg("%s", cases[i].method);
    }
}

static void rates_are_the_shares_of_many(void **state)
{
    struct behaviour behaviour = {.success = 70,
                                  .silent = 10,
                                  .pending = 30,
                                  .duplicate = 20,
                                  .lose = 50,
                                  .delay_ms = 10,
                                  .delay_max_ms = 20,
                                  .seed = 5};
    int success = 0, silent = 0, both = 0, called = 0;
    (void)state;
    for (int i = 0; i < 10000; i++) {
        char id[PAY_ORDER_ID_MAX + 1];
        snprintf(id, sizeof(id), "01890000-0000-7000-8000-%012d", i);
        struct behaviour_plan plan = behaviour_plan(&behaviour, id, "card");
        struct behaviour_plan again = behaviour_plan(&behaviour, id, "card");
        assert_true(plan.success == again.success && plan.silent == again.silent &&
                    plan.pending == again.pending && plan.callbacks == again.callbacks &&
                    plan.decide_ms == again.decide_ms && plan.callback_ms == again.callback_ms);
        assert_in_range(plan.decide_ms, 10, 20);
        success += plan.success;
        silent += plan.silent;
        both += plan.silent && plan.pending;
        called += plan.callbacks > 0;
    }
    assert_in_range(success, 6800, 7200);
    assert_in_range(silent, 850, 1150);
    assert_int_equal(both, 0); /* what is answered 202 is not silent */
    /* silent, pending or doubled: 1 - 0.9 * 0.7 * 0.8, half of them lost */
    assert_in_range(called, 2330, 2630);
}

static void another_seed_fares_otherwise(void **state)
{
    struct behaviour one = {.success = 50, .seed = 1};
    struct behaviour two = {.success = 50, .seed = 2};
    int differ = 0;
    (void)state;
    for (int i = 0; i < 100; i++) {
        char id[PAY_ORDER_ID_MAX + 1];
        snprintf(id, sizeof(id), "01890000-0000-7000-8000-%012d", i);
        differ +=
            behaviour_plan(&one, id, "card").success != behaviour_plan(&two, id, "card").success;
    }
    assert_in_range(differ, 25, 75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_charge_is_read_as_written),
        cmocka_unit_test(a_state_is_read_as_written),
        cmocka_unit_test(odd_charges),
        cmocka_unit_test(odd_states),
        cmocka_unit_test(behaviour_is_changed_field_by_field),
        cmocka_unit_test(a_method_forces_what_it_says),
        cmocka_unit_test(rates_are_the_shares_of_many),
        cmocka_unit_test(another_seed_fares_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
