/*
 * Goal: a drill understands the answers of our API, whole or in pieces, and takes nothing else for
 * one.
 * Method: tables of answers and bodies; every prefix of a good answer asks for more; bodies come
 * from the API's own writers.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/json_out.h"
#include "api/problem.h"
#include "base/dynbuf.h"
#include "drill/answer.h"
#include "router/router.h"

static const char good[] = "HTTP/1.1 201 Created\r\n"
                           "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                           "Content-Type: application/json\r\n"
                           "content-length: 10\r\n"
                           "X-Request-Id: abc\r\n"
                           "SeatGrid-Shard: alpha\r\n"
                           "SeatGrid-Node:alpha-2\r\n"
                           "SeatGrid-Token: alpha.1.16B3748\r\n"
                           "SeatGrid-Durability: sync\r\n"
                           "SeatGrid-Staleness: 12ms\r\n"
                           "Idempotent-Replayed: true\r\n"
                           "\r\n"
                           "{\"a\":12345}";

static void assert_text(const struct answer_text *text, const char *expected)
{
    assert_int_equal(text->len, strlen(expected));
    assert_memory_equal(text->at, expected, text->len);
}

static void test_an_answer_is_read_when_it_is_whole(void **state)
{
    struct answer answer;
    size_t len = sizeof(good) - 1;
    (void)state;
    for (size_t i = 0; i < len - 1; i++)
        assert_int_equal(answer_parse(good, i, &answer), ANSWER_NEED_MORE);
    assert_int_equal(answer_parse(good, len, &answer), ANSWER_COMPLETE);
    assert_int_equal(answer.len, len - 1);
    assert_int_equal(answer.status, 201);
    assert_false(answer.closes);
    assert_true(answer.replayed);
    assert_text(&answer.shard, "alpha");
    assert_text(&answer.node, "alpha-2");
    assert_text(&answer.token, "alpha.1.16B3748");
    assert_text(&answer.durability, "sync");
    assert_text(&answer.body, "{\"a\":12345");
    assert_int_equal(answer_staleness_ms(&answer.staleness), 12);
}

static void test_heads(void **state)
{
    static const struct {
        const char *text;
        enum answer_verdict verdict;
        int status;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ANSWER_COMPLETE, 200},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ANSWER_COMPLETE, 200},
        {"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", ANSWER_COMPLETE, 304},
        {"HTTP/1.1 204 \r\n\r\n", ANSWER_COMPLETE, 204},
        {"HTTP/1.1 200 OK\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 100 Continue\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ANSWER_GARBAGE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", ANSWER_GARBAGE,
         0},
        {"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n", ANSWER_GARBAGE, 0},
        {"rubbish\r\n\r\n", ANSWER_GARBAGE, 0},
        {"\r\n\r\n", ANSWER_GARBAGE, 0},
        {"", ANSWER_NEED_MORE, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer answer = {0};
        enum answer_verdict verdict = answer_parse(rows[i].text, strlen(rows[i].text), &answer);
        if (verdict != rows[i].verdict || answer.status != rows[i].status)
            fail_msg("%s: %d, %d", rows[i].text, verdict, answer.status);
    }
}

static void test_a_head_without_end_is_given_up(void **state)
{
    struct answer answer;
    char *bytes = malloc(ANSWER_HEAD_MAX + 10);
    (void)state;
    memset(bytes, 'x', ANSWER_HEAD_MAX + 10);
    assert_int_equal(answer_parse(bytes, ANSWER_HEAD_MAX, &answer), ANSWER_NEED_MORE);
    assert_int_equal(answer_parse(bytes, ANSWER_HEAD_MAX + 1, &answer), ANSWER_GARBAGE);
    free(bytes);
}

static void test_connection_close_and_what_follows(void **state)
{
    static const char two[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"
                              "HTTP/1.1 200 OK";
    struct answer answer;
    (void)state;
    assert_int_equal(answer_parse(two, sizeof(two) - 1, &answer), ANSWER_COMPLETE);
    assert_true(answer.closes);
    assert_int_equal(answer.len, sizeof(two) - 1 - 15);
}

static void test_ages(void **state)
{
    static const struct {
        const char *text;
        int32_t ms;
    } rows[] = {{"0ms", 0},   {"250ms", 250}, {"ms", -1},
                {"", -1},     {"12", -1},     {"1.5ms", -1},
                {"-1ms", -1}, {"12s", -1},    {"99999999999ms", -1}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer_text text = {.at = rows[i].text, .len = strlen(rows[i].text)};
        assert_int_equal(answer_staleness_ms(&text), rows[i].ms);
    }
}

static struct answer with_body(const char *body)
{
    return (struct answer){.body = {.at = body, .len = strlen(body)}};
}

static void test_a_booking_as_the_api_writes_it(void **state)
{
    struct dynbuf out;
    const struct seat seats[] = {{3, 7}, {1, 8}};
    struct booking booking = {.booking_id = "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a",
                              .event_id = 77,
                              .user_id = "\"eventId\":5,\"seats\":[]",
                              .status = "confirmed",
                              .seats = seats,
                              .seat_count = 2};
    struct uuid id, expected;
    int32_t seat_nos[2];
    int64_t event_id;
    size_t count;
    (void)state;
    dynbuf_init(&out, 4096);
    json_out_booking(&out, &booking);
    struct answer answer = with_body(dynbuf_text(&out));
    assert_true(answer_booking_id(&answer, &id));
    assert_true(uuid_parse(booking.booking_id, &expected));
    assert_memory_equal(&id, &expected, sizeof(id));
    assert_true(answer_number(&answer, "eventId", &event_id));
    assert_int_equal(event_id, 77);
    assert_true(answer_seats(&answer, "seats", 10, seat_nos, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(seat_nos[0], 26);
    assert_int_equal(seat_nos[1], 7);
    assert_false(answer_seats(&answer, "seats", 10, seat_nos, 1, &count));
    assert_false(answer_seats(&answer, "seats", 7, seat_nos, 2, &count)); /* no such column */
    assert_false(answer_seats(&answer, "conflicts", 10, seat_nos, 2, &count));
    dynbuf_done(&out);
}

static void test_a_conflict_as_the_api_writes_it(void **state)
{
    struct dynbuf out;
    const struct seat seats[] = {{2, 2}};
    int32_t seat_nos[4];
    size_t count;
    (void)state;
    dynbuf_init(&out, 4096);
    problem_write(&out, &(struct problem){.error = SG_SEATS_TAKEN,
                                          .detail = "\"conflicts\":[]",
                                          .conflicts = seats,
                                          .conflict_count = 1});
    struct answer answer = with_body(dynbuf_text(&out));
    struct answer_text code = answer_string(&answer, "code");
    assert_text(&code, "seats_taken");
    assert_true(answer_seats(&answer, "conflicts", 5, seat_nos, 4, &count));
    assert_int_equal(count, 1);
    assert_int_equal(seat_nos[0], 6);
    dynbuf_done(&out);
}

static void test_bodies_that_are_none(void **state)
{
    static const char *const bodies[] = {
        "",
        "{}",
        "{\"seats\":",
        "{\"seats\":[{\"row\":1}]}",
        "{\"seats\":[{\"row\":0,\"col\":1}]}",
        "{\"seats\":[{\"row\":1,\"col\":1}",
        "{\"seats\":[{\"row\":1,\"col\":1}{\"row\":1,\"col\":1}]}",
        "{\"seats\":[{\"row\":-1,\"col\":1}]}",
        "{\"seats\":[{\"row\":9999999999,\"col\":1}]}",
        "{\"bookingId\":\"",
        "{\"bookingId\":\"0190f3c2\"}",
        "{\"id\":\"7\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct answer answer = with_body(bodies[i]);
        struct uuid id;
        int32_t seats[4];
        int64_t number;
        size_t count;
        assert_false(answer_seats(&answer, "seats", 5, seats, 4, &count));
        assert_false(answer_booking_id(&answer, &id));
        assert_false(answer_number(&answer, "id", &number));
    }
}

static void test_seat_maps(void **state)
{
    static const struct {
        const char *body;
        bool good;
        uint64_t seen;
        uint32_t booked;
    } rows[] = {
        {"{\"eventId\":1,\"rows\":2,\"cols\":3,\"seats\":[\".hx\",\"x..\"]}", true, 0xC, 2},
        {"{\"seats\":[\"...\",\"...\"]}", true, 0, 0},
        {"{\"seats\":[\"xxx\",\"xxx\"]}", true, 0x3F, 6},
        {"{\"seats\":[\"...\"]}", false, 0, 0},
        {"{\"seats\":[\"...\",\"...\",\"...\"]}", false, 0, 0},
        {"{\"seats\":[\"....\",\"...\"]}", false, 0, 0},
        {"{\"seats\":[\"..\",\"...\"]}", false, 0, 0},
        {"{\"seats\":[\"..?\",\"...\"]}", false, 0, 0},
        {"{\"seats\":[\"...\",\"..", false, 0, 0},
        {"{\"seats\":[{\"row\":1,\"col\":1,\"status\":\"booked\"}]}", false, 0, 0},
        {"", false, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct answer answer = with_body(rows[i].body);
        uint64_t seen = 0;
        uint32_t booked = 0;
        if (answer_seat_map(&answer, 2, 3, &seen, &booked) != rows[i].good ||
            (rows[i].good && (seen != rows[i].seen || booked != rows[i].booked)))
            fail_msg("%s", rows[i].body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_is_read_when_it_is_whole),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_a_head_without_end_is_given_up),
        cmocka_unit_test(test_connection_close_and_what_follows),
        cmocka_unit_test(test_ages),
        cmocka_unit_test(test_a_booking_as_the_api_writes_it),
        cmocka_unit_test(test_a_conflict_as_the_api_writes_it),
        cmocka_unit_test(test_bodies_that_are_none),
        cmocka_unit_test(test_seat_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
