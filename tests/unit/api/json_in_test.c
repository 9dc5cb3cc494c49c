/*
 * Goal: a body is taken exactly when it is right, and the refusal of any other names the place.
 * Method: tables of bodies with the error and the detail that each must give.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_in.h"
#include "base/dynbuf.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_SEATS 4

struct refusal {
    const char *body;
    enum sg_error error;
    const char *detail; /* a part of it */
};

static void check(const struct refusal *refusal, enum sg_error error, const char *detail)
{
    if (error != refusal->error)
        fail_msg("%s\ngives %s: %s", refusal->body, sg_error_code(error), detail);
    if (!strstr(detail, refusal->detail))
        fail_msg("%s\nsays: %s", refusal->body, detail);
}

static void a_booking(void **state)
{
    static const char body[] = "{ \"seats\":[{\"col\":7,\"row\":3},{\"row\":1000000,\"col\":1}],\n"
                               "\"userId\":\"Zoë 1\", \"eventId\":9223372036854775807 }";
    struct json_in_book in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_book(body, strlen(body), MAX_SEATS, &in, detail), SG_OK);
    assert_int_equal(in.event_id, INT64_MAX);
    assert_string_equal(in.user_id, "Zoë 1");
    assert_int_equal(in.seat_count, 2);
    assert_int_equal(in.seats[0].row, 3);
    assert_int_equal(in.seats[0].col, 7);
    assert_int_equal(in.seats[1].row, 1000000);
    static const char anonymous[] = "{\"eventId\":1,\"seats\":[{\"row\":1,\"col\":1}]}";
    assert_int_equal(json_in_book(anonymous, strlen(anonymous), MAX_SEATS, &in, detail), SG_OK);
    assert_string_equal(in.user_id, "");
}

#define SEAT "{\"row\":1,\"col\":1}"
#define BOOK(seats) "{\"eventId\":1,\"userId\":\"u\",\"seats\":" seats "}"
#define BOOK_ID(id) "{\"eventId\":" id ",\"userId\":\"u\",\"seats\":[" SEAT "]}"
#define BOOK_USER(user) "{\"eventId\":1,\"userId\":" user ",\"seats\":[" SEAT "]}"

static void refused_bookings(void **state)
{
    static const struct refusal cases[] = {
        {"", SG_MALFORMED_JSON, "the body is empty"},
        {"{", SG_MALFORMED_JSON, "line 1, column 1"},
        {"{\n\n  \"eventId\": 1,,}", SG_MALFORMED_JSON, "line 3, column 16"},
        {"{}x", SG_MALFORMED_JSON, "end of file expected"},
        {"nul", SG_MALFORMED_JSON, "line 1"},
        {"1", SG_MALFORMED_JSON, "line 1"},
        {"\"text\"", SG_MALFORMED_JSON, "line 1"},
        {"{'eventId':1}", SG_MALFORMED_JSON, "line 1"},
        {"{\"eventId\":01}", SG_MALFORMED_JSON, "line 1"},
        {"{\"eventId\":+1}", SG_MALFORMED_JSON, "line 1"},
        {"{\"eventId\":NaN}", SG_MALFORMED_JSON, "line 1"},
        {"{\"eventId\":1} // note", SG_MALFORMED_JSON, "line 1"},
        {"\xef\xbb\xbf{}", SG_MALFORMED_JSON, "line 1"}, /* a byte order mark */
        {"{\"userId\":\"\xff\"}", SG_MALFORMED_JSON, "0xff"},
        {"{\"userId\":\"\xc0\xaf\"}", SG_MALFORMED_JSON, "0xc0"},     /* overlong */
        {"{\"userId\":\"\xed\xa0\x80\"}", SG_MALFORMED_JSON, "0xed"}, /* a surrogate */
        {"{\"userId\":\"\\ud800\"}", SG_MALFORMED_JSON, "line 1"},
        {"{\"userId\":\"a\\u0000b\"}", SG_MALFORMED_JSON, "u0000"},
        {"{\"userId\":\"a\tb\"}", SG_MALFORMED_JSON, "line 1"},
        {"{\"eventId\":1,\"eventId\":2}", SG_MALFORMED_JSON, "duplicate"},
        {BOOK_ID("9223372036854775808"), SG_MALFORMED_JSON, "too big integer"},
        {BOOK_ID("-99999999999999999999999"), SG_MALFORMED_JSON, "too big negative integer"},
        {BOOK_ID("1e999"), SG_MALFORMED_JSON, "real number overflow"},
        {"[[[[[[[[[]]]]]]]]]", SG_MALFORMED_JSON, "nests deeper than 8"},
        {"[]", SG_WRONG_TYPE, "body: must be a JSON object"},
        {"{}", SG_WRONG_TYPE, "eventId: is missing; give an integer from 1 to 9223372036854775807"},
        {BOOK_ID("\"1\""), SG_WRONG_TYPE, "eventId: must be an integer"},
        {BOOK_ID("1.0"), SG_WRONG_TYPE, "eventId: must be an integer"},
        {BOOK_ID("1e3"), SG_WRONG_TYPE, "eventId: must be an integer"},
        {BOOK_ID("true"), SG_WRONG_TYPE, "eventId: must be an integer"},
        {BOOK_ID("null"), SG_WRONG_TYPE, "eventId: must be an integer"},
        {BOOK_ID("0"), SG_INVALID_VALUE, "eventId: must be an integer from 1 to "},
        {BOOK_ID("-1"), SG_INVALID_VALUE, "is -1"},
        {BOOK_ID("-9223372036854775808"), SG_INVALID_VALUE, "is -9223372036854775808"},
        {BOOK_USER("7"), SG_WRONG_TYPE, "userId: must be a string of 1 to 64 bytes"},
        {BOOK_USER("null"), SG_WRONG_TYPE, "userId: must be a string"},
        {BOOK_USER("\"\""), SG_INVALID_VALUE, "userId: must be 1 to 64 bytes of printable text"},
        {BOOK_USER("\"  \""), SG_INVALID_VALUE, "userId"},
        {BOOK_USER("\"a\\nb\""), SG_INVALID_VALUE, "userId"},
        {BOOK_USER("\"a\\u007f\""), SG_INVALID_VALUE, "userId"},
        {BOOK_USER("\"a\\u0085\""), SG_INVALID_VALUE, "userId"},
        {BOOK_USER("\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""),
         SG_INVALID_VALUE, "has 65"},
        {"{\"eventId\":1,\"userId\":\"u\"}", SG_WRONG_TYPE, "seats: is missing; give an array"},
        {BOOK("{}"), SG_WRONG_TYPE, "seats: must be an array"},
        {BOOK("[]"), SG_INVALID_VALUE, "seats: must name at least one seat"},
        {BOOK("[1]"), SG_WRONG_TYPE, "seats[0]: must be an object"},
        {BOOK("[{}]"), SG_WRONG_TYPE, "seats[0].row: is missing"},
        {BOOK("[{\"row\":1}]"), SG_WRONG_TYPE, "seats[0].col: is missing"},
        {BOOK("[" SEAT ",{\"row\":1,\"col\":2},{\"row\":\"3\",\"col\":1}]"), SG_WRONG_TYPE,
         "seats[2].row: must be an integer from 1 to 1000000"},
        {BOOK("[{\"row\":0,\"col\":1}]"), SG_INVALID_VALUE, "seats[0].row: must be"},
        {BOOK("[{\"row\":1,\"col\":-3}]"), SG_INVALID_VALUE, "seats[0].col: must be"},
        {BOOK("[{\"row\":1000001,\"col\":1}]"), SG_INVALID_VALUE, "is 1000001"},
        {BOOK("[{\"row\":4294967297,\"col\":1}]"), SG_INVALID_VALUE, "is 4294967297"},
        {BOOK("[{\"row\":1,\"col\":1,\"Row\":2}]"), SG_WRONG_TYPE,
         "seats[0]: unknown field 'Row'; did you mean 'row'?"},
        {BOOK("[{\"row\":1,\"col\":1,\"price\":2}]"), SG_WRONG_TYPE,
         "seats[0]: unknown field 'price'; there are row, col"},
        {BOOK("[" SEAT "," SEAT "]"), SG_DUPLICATE_SEAT,
         "seats[1]: is seats[0] again (row 1, col 1)"},
        {BOOK("[" SEAT "," SEAT "," SEAT "," SEAT "," SEAT "]"), SG_TOO_MANY_SEATS,
         "seats: must name at most 4 seats, names 5"},
        {"{\"eventid\":1}", SG_WRONG_TYPE, "unknown field 'eventid'; did you mean 'eventId'?"},
        {"{\"usrId\":1}", SG_WRONG_TYPE, "did you mean 'userId'?"},
        {"{\"\":1}", SG_WRONG_TYPE, "unknown field ''; there are eventId, userId, seats"},
        {"{\"caf\xc3\xa9\":1}", SG_WRONG_TYPE, "unknown field 'caf\?\?'"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_in_book in;
        char detail[JSON_IN_DETAIL_SIZE] = "";
        enum sg_error error =
            json_in_book(cases[i].body, strlen(cases[i].body), MAX_SEATS, &in, detail);
        check(&cases[i], error, detail);
    }
}

static void nul_bytes_are_part_of_the_body(void **state)
{
    static const char body[] = "{\"eventId\":1,\"seats\":[{\"row\":1,\"col\":1}]}\0\"x\"";
    struct json_in_book in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_book(body, sizeof(body) - 1, MAX_SEATS, &in, detail),
                     SG_MALFORMED_JSON);
}

static void the_hard_bound_of_seats_holds(void **state)
{
    struct dynbuf body;
    struct json_in_book in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    for (int count = ROUTER_SEATS_MAX; count <= ROUTER_SEATS_MAX + 1; count++) {
        dynbuf_init(&body, 65536);
        dynbuf_adds(&body, "{\"eventId\":1,\"userId\":\"u\",\"seats\":[");
        for (int i = 0; i < count; i++)
            dynbuf_addf(&body, "%s{\"row\":%d,\"col\":1}", i ? "," : "", i + 1);
        dynbuf_adds(&body, "]}");
        assert_int_equal(json_in_book(body.data, body.len, 1000000, &in, detail),
                         count > ROUTER_SEATS_MAX ? SG_TOO_MANY_SEATS : SG_OK);
        dynbuf_done(&body);
    }
    assert_string_equal(detail, "seats: must name at most 100 seats, names 101");
}

static void deep_nesting_is_cheap(void **state)
{
    size_t len = 10 * 1024 * 1024;
    char *body = malloc(len);
    struct json_in_book in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    memset(body, '[', len);
    assert_int_equal(json_in_book(body, len, MAX_SEATS, &in, detail), SG_MALFORMED_JSON);
    static const char brackets_in_text[] = "{\"a\":\"[[[[[[[[[[[[\\\"[[\"}";
    assert_int_equal(
        json_in_book(brackets_in_text, strlen(brackets_in_text), MAX_SEATS, &in, detail),
        SG_WRONG_TYPE);
    free(body);
}

static void an_event(void **state)
{
    static const char body[] = "{\"name\":\"Größe – 1\",\"startsAt\":\"2027-06-01T21:00:00+02:00\","
                               "\"rows\":1000,\"cols\":1000,\"shard\":\"beta\"}";
    struct json_in_event in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_event(body, strlen(body), 1000000, &in, detail), SG_OK);
    assert_string_equal(in.name, "Größe – 1");
    assert_int_equal(in.starts_at_us, INT64_C(1811876400000000));
    assert_int_equal(in.rows, 1000);
    assert_int_equal(in.cols, 1000);
    assert_string_equal(in.shard, "beta");
    assert_int_equal(json_in_event(body, strlen(body), 999999, &in, detail), SG_INVALID_VALUE);
    assert_string_equal(detail, "rows, cols: an event has at most 999999 seats, this 1000000");
}

#define EVENT(rest) "{\"name\":\"n\",\"startsAt\":\"2027-06-01T19:00:00Z\"," rest "}"

static void refused_events(void **state)
{
    static const struct refusal cases[] = {
        {"{}", SG_WRONG_TYPE, "name: is missing; give a string of 1 to 200 bytes"},
        {"{\"name\":\"\\u0001\"}", SG_INVALID_VALUE, "name: must be 1 to 200 bytes"},
        {"{\"name\":\"n\"}", SG_WRONG_TYPE, "startsAt: is missing"},
        {"{\"name\":\"n\",\"startsAt\":1}", SG_WRONG_TYPE, "startsAt: must be a string"},
        {"{\"name\":\"n\",\"startsAt\":\"tomorrow\"}", SG_INVALID_VALUE,
         "startsAt: must be an RFC 3339 time"},
        {EVENT("\"cols\":1"), SG_WRONG_TYPE, "rows: is missing"},
        {EVENT("\"rows\":0,\"cols\":1"), SG_INVALID_VALUE, "rows: must be"},
        {EVENT("\"rows\":1,\"cols\":1000001"), SG_INVALID_VALUE, "cols: must be"},
        {EVENT("\"rows\":1000000,\"cols\":1000000"), SG_INVALID_VALUE, "this 1000000000000"},
        {EVENT("\"rows\":1,\"cols\":1,\"shard\":7"), SG_WRONG_TYPE, "shard: must be a string"},
        {EVENT("\"rows\":1,\"cols\":1,\"shard\":\"\""), SG_UNKNOWN_SHARD, "shard: must be"},
        {EVENT("\"rows\":1,\"colls\":1"), SG_WRONG_TYPE, "did you mean 'cols'?"},
        {EVENT("\"rows\":1,\"columns\":1"), SG_WRONG_TYPE,
         "there are name, startsAt, rows, cols, shard"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_in_event in;
        char detail[JSON_IN_DETAIL_SIZE] = "";
        enum sg_error error =
            json_in_event(cases[i].body, strlen(cases[i].body), 1000000, &in, detail);
        check(&cases[i], error, detail);
    }
}

static void user_ids_in_headers(void **state)
{
    (void)state;
    assert_true(json_in_is_user_id("u-1"));
    assert_false(json_in_is_user_id(""));
    assert_false(json_in_is_user_id("   "));
    assert_false(json_in_is_user_id("Zo\xc3\xab"));
    assert_false(
        json_in_is_user_id("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void user_ids_in_paths(void **state)
{
    (void)state;
    assert_true(json_in_is_user_text("u-1"));
    assert_true(json_in_is_user_text("Zo\xc3\xab"));
    assert_false(json_in_is_user_text(""));
    assert_false(json_in_is_user_text("   "));
    assert_false(json_in_is_user_text("\xc2\x85"));
    assert_false(
        json_in_is_user_text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_booking),
        cmocka_unit_test(refused_bookings),
        cmocka_unit_test(nul_bytes_are_part_of_the_body),
        cmocka_unit_test(the_hard_bound_of_seats_holds),
        cmocka_unit_test(deep_nesting_is_cheap),
        cmocka_unit_test(an_event),
        cmocka_unit_test(refused_events),
        cmocka_unit_test(user_ids_in_headers),
        cmocka_unit_test(user_ids_in_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
