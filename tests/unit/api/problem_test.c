/*
 * Goal: every error is valid problem JSON that says what the table says.
 * Method: write each one, parse it with jansson, compare field by field; hostile details.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include "api/problem.h"
#include "base/dynbuf.h"
#include "router/router.h"

static void every_error(void **state)
{
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        enum sg_error error = (enum sg_error)i;
        struct dynbuf out;
        char type[64];
        dynbuf_init(&out, 4096);
        problem_write(&out, &(struct problem){.error = error});
        json_t *root = json_loads(dynbuf_text(&out), JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(root);
        assert_int_equal(json_object_size(root), 4);
        snprintf(type, sizeof(type), "/docs#%s", sg_error_code(error));
        assert_string_equal(json_string_value(json_object_get(root, "type")), type);
        assert_string_equal(json_string_value(json_object_get(root, "title")),
                            sg_error_title(error));
        assert_string_equal(json_string_value(json_object_get(root, "code")), sg_error_code(error));
        assert_int_equal(json_integer_value(json_object_get(root, "status")),
                         sg_error_http_status(error));
        json_decref(root);
        dynbuf_done(&out);
    }
}

static void conflicts_and_detail(void **state)
{
    static const struct seat seats[] = {{1, 4}, {2, 1000000}};
    struct dynbuf out;
    (void)state;
    dynbuf_init(&out, 4096);
    problem_write(&out, &(struct problem){.error = SG_SEATS_TAKEN,
                                          .detail = "a \"b\"\n\x01 é",
                                          .conflicts = seats,
                                          .conflict_count = 2});
    assert_string_equal(dynbuf_text(&out),
                        "{\"type\":\"/docs#seats_taken\",\"title\":\"Some of the seats are "
                        "taken\",\"status\":409,\"code\":\"seats_taken\",\"detail\":\"a \\\"b\\\""
                        "\\u000a\\u0001 é\",\"conflicts\":[{\"row\":1,\"col\":4},{\"row\":2,"
                        "\"col\":1000000}]}");
    dynbuf_done(&out);
}

static void what_else_a_problem_names(void **state)
{
    struct dynbuf out;
    (void)state;
    dynbuf_init(&out, 4096);
    problem_write(&out, &(struct problem){.error = SG_SOLD_OUT, .has_left = true});
    assert_non_null(strstr(dynbuf_text(&out), "\"code\":\"sold_out\",\"left\":0}"));
    dynbuf_reset(&out);
    problem_write(&out, &(struct problem){.error = SG_ALREADY_WAITING, .entry_id = "e-1"});
    assert_non_null(strstr(dynbuf_text(&out), "\"already_waiting\",\"entryId\":\"e-1\"}"));
    dynbuf_reset(&out);
    problem_write(&out, &(struct problem){.error = SG_PAYMENT_DECLINED, .order_id = "o-1"});
    assert_non_null(strstr(dynbuf_text(&out), "\"payment_declined\",\"orderId\":\"o-1\"}"));
    dynbuf_reset(&out);
    problem_write(&out, &(struct problem){.error = SG_OFFERED, .booking_id = "b-1"});
    assert_non_null(strstr(dynbuf_text(&out), "\"seats_offered\",\"bookingId\":\"b-1\"}"));
    dynbuf_done(&out);
}

static void a_bounded_buffer_says_so(void **state)
{
    struct dynbuf out;
    (void)state;
    dynbuf_init(&out, 20);
    problem_write(&out, &(struct problem){.error = SG_INTERNAL});
    assert_true(out.failed);
    dynbuf_done(&out);
}

static void retry_after_is_in_seconds_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(problem_retry_after_s(0), 1);
    assert_int_equal(problem_retry_after_s(1), 1);
    assert_int_equal(problem_retry_after_s(1000), 1);
    assert_int_equal(problem_retry_after_s(1001), 2);
    assert_int_equal(problem_retry_after_s(60000), 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error),
        cmocka_unit_test(conflicts_and_detail),
        cmocka_unit_test(what_else_a_problem_names),
        cmocka_unit_test(a_bounded_buffer_says_so),
        cmocka_unit_test(retry_after_is_in_seconds_rounded_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
