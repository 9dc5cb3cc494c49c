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

static const struct json_in_bounds bounds = {.max_seats = 4, .ttl_min_s = 1, .ttl_max_s = 900};

struct wrong {
    const char *body;
    enum sg_error error;
    const char *detail; /* a part of it */
};

static void check(const struct wrong *refusal, enum sg_error error, const char *detail)
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
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_take(JSON_IN_BOOK, body, strlen(body), &bounds, &in, detail), SG_OK);
    assert_int_equal(in.event_id, INT64_MAX);
    assert_string_equal(in.user_id, "Zoë 1");
    assert_int_equal(in.seat_count, 2);
    assert_int_equal(in.seats[0].row, 3);
    assert_int_equal(in.seats[0].col, 7);
    assert_int_equal(in.seats[1].row, 1000000);
    static const char anonymous[] = "{\"eventId\":1,\"seats\":[{\"row\":1,\"col\":1}]}";
    assert_int_equal(json_in_take(JSON_IN_BOOK, anonymous, strlen(anonymous), &bounds, &in, detail),
                     SG_OK);
    assert_string_equal(in.user_id, "");
}

#define SEAT "{\"row\":1,\"col\":1}"
#define BOOK(seats) "{\"eventId\":1,\"userId\":\"u\",\"seats\":" seats "}"
#define BOOK_ID(id) "{\"eventId\":" id ",\"userId\":\"u\",\"seats\":[" SEAT "]}"
#define BOOK_USER(user) "{\"eventId\":1,\"userId\":" user ",\"seats\":[" SEAT "]}"

static void refused_bookings(void **state)
{
    static const struct wrong cases[] = {
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
        {"{\"\":1}", SG_WRONG_TYPE, "unknown field ''; there are userId, seats, best, eventId"},
        {"{\"caf\xc3\xa9\":1}", SG_WRONG_TYPE, "unknown field 'caf\?\?'"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_in_take in;
        char detail[JSON_IN_DETAIL_SIZE] = "";
        enum sg_error error =
            json_in_take(JSON_IN_BOOK, cases[i].body, strlen(cases[i].body), &bounds, &in, detail);
        check(&cases[i], error, detail);
    }
}

static void nul_bytes_are_part_of_the_body(void **state)
{
    static const char body[] = "{\"eventId\":1,\"seats\":[{\"row\":1,\"col\":1}]}\0\"x\"";
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_take(JSON_IN_BOOK, body, sizeof(body) - 1, &bounds, &in, detail),
                     SG_MALFORMED_JSON);
}

static void the_hard_bound_of_seats_holds(void **state)
{
    static const struct json_in_bounds many = {.max_seats = 1000000};
    struct dynbuf body;
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    for (int count = ROUTER_SEATS_MAX; count <= ROUTER_SEATS_MAX + 1; count++) {
        dynbuf_init(&body, 65536);
        dynbuf_adds(&body, "{\"eventId\":1,\"userId\":\"u\",\"seats\":[");
        for (int i = 0; i < count; i++)
            dynbuf_addf(&body, "%s{\"row\":%d,\"col\":1}", i ? "," : "", i + 1);
        dynbuf_adds(&body, "]}");
        assert_int_equal(json_in_take(JSON_IN_BOOK, body.data, body.len, &many, &in, detail),
                         count > ROUTER_SEATS_MAX ? SG_TOO_MANY_SEATS : SG_OK);
        dynbuf_done(&body);
    }
    assert_string_equal(detail, "seats: must name at most 100 seats, names 101");
}

static void deep_nesting_is_cheap(void **state)
{
    size_t len = 10 * 1024 * 1024;
    char *body = malloc(len);
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    memset(body, '[', len);
    assert_int_equal(json_in_take(JSON_IN_BOOK, body, len, &bounds, &in, detail),
                     SG_MALFORMED_JSON);
    static const char brackets_in_text[] = "{\"a\":\"[[[[[[[[[[[[\\\"[[\"}";
    assert_int_equal(json_in_take(JSON_IN_BOOK, brackets_in_text, strlen(brackets_in_text), &bounds,
                                  &in, detail),
                     SG_WRONG_TYPE);
    free(body);
}

/* --- best seats, holds, orders ---------------------------------------------------------------- */

static enum sg_error take(enum json_in_kind kind, const char *body, struct json_in_take *ret_take,
                          char *ret_detail)
{
    return json_in_take(kind, body, strlen(body), &bounds, ret_take, ret_detail);
}

static void best_seats(void **state)
{
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(take(JSON_IN_BOOK,
                          "{\"eventId\":7,\"userId\":\"u\",\"best\":[{\"tier\":\"Balkön\","
                          "\"quantity\":2,\"together\":false},{\"quantity\":2}]}",
                          &in, detail),
                     SG_OK);
    assert_int_equal(in.seat_count, 0);
    assert_int_equal(in.best_count, 2);
    assert_string_equal(in.best[0].tier, "Balkön");
    assert_int_equal(in.best[0].quantity, 2);
    assert_false(in.best[0].together);
    assert_null(in.best[1].tier);
    assert_true(in.best[1].together);
    assert_int_equal(in.ttl_ms, 0);
    assert_string_equal(in.method, "");
}

static void a_hold_and_an_order(void **state)
{
    struct json_in_take in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(take(JSON_IN_HOLD, "{\"seats\":[" SEAT "],\"ttlSeconds\":900}", &in, detail),
                     SG_OK);
    assert_int_equal(in.ttl_ms, 900000);
    assert_int_equal(in.event_id, 0);
    assert_string_equal(in.user_id, "");
    assert_int_equal(take(JSON_IN_ORDER,
                          "{\"userId\":\"u\",\"best\":[{\"quantity\":4}],"
                          "\"payment\":{\"method\":\"card\"}}",
                          &in, detail),
                     SG_OK);
    assert_string_equal(in.method, "card");
    assert_int_equal(in.best[0].quantity, 4);
}

#define BEST(best) "{\"userId\":\"u\",\"best\":" best "}"
#define HOLD(rest) "{\"seats\":[" SEAT "]," rest "}"

static void refused_takes(void **state)
{
    static const struct {
        enum json_in_kind kind;
        struct wrong wrong;
    } cases[] = {
        {JSON_IN_HOLD, {"{}", SG_WRONG_TYPE, "seats: is missing; give an array like"}},
        {JSON_IN_HOLD, {"{}", SG_WRONG_TYPE, "or best like [{\"quantity\":2}]"}},
        {JSON_IN_HOLD, {BEST("{}"), SG_WRONG_TYPE, "best: must be an array"}},
        {JSON_IN_HOLD, {BEST("[]"), SG_INVALID_VALUE, "best: must have 1 to 8 members, has 0"}},
        {JSON_IN_HOLD,
         {BEST("[1,1,1,1,1,1,1,1,1]"), SG_INVALID_VALUE, "best: must have 1 to 8 members, has 9"}},
        {JSON_IN_HOLD, {BEST("[2]"), SG_WRONG_TYPE, "best[0]: must be an object"}},
        {JSON_IN_HOLD, {BEST("[{}]"), SG_WRONG_TYPE, "best[0].quantity: is missing"}},
        {JSON_IN_HOLD, {BEST("[{\"quantity\":0}]"), SG_INVALID_VALUE, "best[0].quantity"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":5}]"), SG_INVALID_VALUE, "must be an integer from 1 to 4, is 5"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":2},{\"quantity\":3}]"), SG_TOO_MANY_SEATS,
          "best: must want at most 4 seats, wants 5 in all"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":1,\"tier\":\"\"}]"), SG_INVALID_VALUE, "best[0].tier: must be 1"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":1,\"tier\":null}]"), SG_WRONG_TYPE, "best[0].tier: must be a"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":1,\"together\":1}]"), SG_WRONG_TYPE,
          "best[0].together: must be true or false"}},
        {JSON_IN_HOLD,
         {BEST("[{\"quantity\":1,\"quality\":1}]"), SG_WRONG_TYPE,
          "best[0]: unknown field 'quality'; did you mean 'quantity'?"}},
        {JSON_IN_HOLD,
         {HOLD("\"best\":[{\"quantity\":1}]"), SG_INVALID_VALUE, "seats, best: send one of them"}},
        {JSON_IN_HOLD,
         {HOLD("\"ttlSeconds\":0"), SG_INVALID_VALUE,
          "ttlSeconds: must be an integer from 1 to 900, is 0"}},
        {JSON_IN_HOLD, {HOLD("\"ttlSeconds\":901"), SG_INVALID_VALUE, "is 901"}},
        {JSON_IN_HOLD, {HOLD("\"ttlSeconds\":1.5"), SG_WRONG_TYPE, "ttlSeconds: must be an"}},
        {JSON_IN_HOLD, {HOLD("\"eventId\":1"), SG_WRONG_TYPE, "unknown field 'eventId'"}},
        {JSON_IN_BOOK, {HOLD("\"ttlSeconds\":5"), SG_WRONG_TYPE, "unknown field 'ttlSeconds'"}},
        {JSON_IN_ORDER, {HOLD("\"payment\":1"), SG_WRONG_TYPE, "payment: must be an object"}},
        {JSON_IN_ORDER, {"{\"seats\":[" SEAT "]}", SG_WRONG_TYPE, "payment: is missing; give"}},
        {JSON_IN_ORDER, {HOLD("\"payment\":{}"), SG_WRONG_TYPE, "payment.method: is missing"}},
        {JSON_IN_ORDER,
         {HOLD("\"payment\":{\"method\":\"é\"}"), SG_INVALID_VALUE,
          "payment.method: must be 1 to 64 bytes of printable ASCII"}},
        {JSON_IN_ORDER,
         {HOLD("\"payment\":{\"method\":\"card\",\"amount\":1}"), SG_WRONG_TYPE,
          "payment: unknown field 'amount'"}},
        {JSON_IN_ORDER, {HOLD("\"amount\":1"), SG_WRONG_TYPE, "unknown field 'amount'"}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_in_take in;
        char detail[JSON_IN_DETAIL_SIZE] = "";
        enum sg_error error = take(cases[i].kind, cases[i].wrong.body, &in, detail);
        check(&cases[i].wrong, error, detail);
    }
}

/* --- changes, the waiting list ---------------------------------------------------------------- */

static enum sg_error change(enum change_kind kind, const char *body,
                            struct json_in_change *ret_change, char *ret_detail)
{
    return json_in_change(kind, body, strlen(body), &bounds, ret_change, ret_detail);
}

static void changes(void **state)
{
    struct json_in_change in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    memset(&in, 'x', sizeof(in));
    assert_int_equal(change(CHANGE_CONFIRM, "", &in, detail), SG_OK);
    assert_string_equal(in.user_id, "");
    assert_string_equal(in.to_user, "");
    assert_int_equal(in.ttl_ms, 0);
    assert_int_equal(change(CHANGE_EXTEND, "{\"userId\":\"u\",\"ttlSeconds\":2}", &in, detail),
                     SG_OK);
    assert_int_equal(in.ttl_ms, 2000);
    assert_string_equal(in.user_id, "u");
    assert_int_equal(change(CHANGE_TRANSFER, "{\"toUserId\":\"Zoë\"}", &in, detail), SG_OK);
    assert_string_equal(in.to_user, "Zoë");
}

static void refused_changes(void **state)
{
    static const struct {
        enum change_kind kind;
        struct wrong wrong;
    } cases[] = {
        {CHANGE_CONFIRM, {" ", SG_MALFORMED_JSON, "line 1"}},
        {CHANGE_CONFIRM, {"{\"ttlSeconds\":1}", SG_WRONG_TYPE, "unknown field 'ttlSeconds'"}},
        {CHANGE_EXTEND, {"{\"ttlSeconds\":1000}", SG_INVALID_VALUE, "ttlSeconds: must be"}},
        {CHANGE_EXTEND, {"{\"toUserId\":\"u\"}", SG_WRONG_TYPE, "did you mean 'userId'?"}},
        {CHANGE_TRANSFER, {"", SG_WRONG_TYPE, "toUserId: is missing; give a string"}},
        {CHANGE_TRANSFER, {"{\"toUserId\":7}", SG_WRONG_TYPE, "toUserId: must be a string"}},
        {CHANGE_TRANSFER, {"{\"toUserId\":\"\\u0007\"}", SG_INVALID_VALUE, "toUserId: must be 1"}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_in_change in;
        char detail[JSON_IN_DETAIL_SIZE] = "";
        enum sg_error error = change(cases[i].kind, cases[i].wrong.body, &in, detail);
        check(&cases[i].wrong, error, detail);
    }
}

static void the_waiting_list(void **state)
{
    static const struct wrong cases[] = {
        {"{}", SG_WRONG_TYPE, "quantity: is missing"},
        {"{\"quantity\":5}", SG_INVALID_VALUE, "quantity: must be an integer from 1 to 4"},
        {"{\"quantity\":1,\"tier\":1}", SG_WRONG_TYPE, "tier: must be a string"},
        {"{\"quantity\":1,\"seats\":[]}", SG_WRONG_TYPE, "unknown field 'seats'"},
        {"{\"quantity\":1,\"together\":\"no\"}", SG_WRONG_TYPE, "together: must be true or"},
    };
    static const char body[] = "{\"userId\":\"u\",\"quantity\":3,\"tier\":\"stalls\"}";
    struct json_in_waitlist in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_waitlist(body, strlen(body), &bounds, &in, detail), SG_OK);
    assert_string_equal(in.wish.tier, "stalls");
    assert_int_equal(in.wish.quantity, 3);
    assert_true(in.wish.together);
    for (size_t i = 0; i < COUNT(cases); i++)
        check(&cases[i],
              json_in_waitlist(cases[i].body, strlen(cases[i].body), &bounds, &in, detail), detail);
}

/* --- events ----------------------------------------------------------------------------------- */

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

#define TIER(name, first, last)                                                                    \
    "{\"name\":\"" name "\",\"price\":4500,\"rows\":{\"first\":" first ",\"last\":" last "}}"
#define TIERED(tiers) EVENT("\"rows\":10,\"cols\":2,\"currency\":\"EUR\",\"tiers\":[" tiers "]")

static void tiers_in_any_order(void **state)
{
    static const char body[] =
        TIERED(TIER("circle", "7", "10") "," TIER("stalls", "1", "1") "," TIER("pit", "2", "6"));
    struct json_in_event in;
    char detail[JSON_IN_DETAIL_SIZE];
    (void)state;
    assert_int_equal(json_in_event(body, strlen(body), 1000000, &in, detail), SG_OK);
    assert_int_equal(in.tier_count, 3);
    assert_string_equal(in.tiers[0].name, "stalls");
    assert_int_equal(in.tiers[0].first_row, 1);
    assert_string_equal(in.tiers[1].name, "pit");
    assert_int_equal(in.tiers[1].first_row, 2);
    assert_string_equal(in.tiers[2].name, "circle");
    assert_int_equal(in.tiers[2].first_row, 7);
    assert_int_equal(in.tiers[2].price, 4500);
    assert_string_equal(in.currency, "EUR");
    assert_int_equal(in.max_per_user, 0);
    static const char limited[] = EVENT("\"rows\":1,\"cols\":1,\"maxPerUser\":4");
    assert_int_equal(json_in_event(limited, strlen(limited), 1000000, &in, detail), SG_OK);
    assert_int_equal(in.max_per_user, 4);
    assert_int_equal(in.tier_count, 0);
    assert_string_equal(in.currency, "");
}

static void refused_tiers(void **state)
{
    static const struct wrong cases[] = {
        {TIERED(""), SG_INVALID_VALUE, "tiers: must have 1 to 32 members, has 0"},
        {TIERED("1"), SG_WRONG_TYPE, "tiers[0]: must be an object like"},
        {TIERED("{\"name\":\"a\"}"), SG_WRONG_TYPE, "tiers[0].price: is missing"},
        {TIERED("{\"name\":\"a\",\"price\":1}"), SG_WRONG_TYPE, "tiers[0].rows: is missing; give"},
        {TIERED("{\"name\":\"a\",\"price\":-1}"), SG_INVALID_VALUE, "tiers[0].price: must be"},
        {TIERED("{\"name\":\"a\",\"price\":4.5}"), SG_WRONG_TYPE, "tiers[0].price: must be an int"},
        {TIERED("{\"name\":\"a\",\"price\":1,\"cost\":2}"), SG_WRONG_TYPE,
         "tiers[0]: unknown field 'cost'"},
        {TIERED("{\"name\":\"a\",\"price\":1,\"rows\":{\"from\":1}}"), SG_WRONG_TYPE,
         "tiers[0].rows: unknown field 'from'; there are first, last"},
        {TIERED(TIER("a", "0", "10")), SG_INVALID_VALUE, "tiers[0].rows.first: must be an integer"},
        {TIERED(TIER("a", "1", "11")), SG_INVALID_VALUE,
         "tiers[0].rows.last: must be an integer from 1 to 10, is 11"},
        {TIERED(TIER("a", "5", "4")), SG_INVALID_VALUE,
         "tiers[0].rows.last: must be an integer from 5 to 10, is 4"},
        {TIERED(TIER("a", "1", "9")), SG_INVALID_VALUE,
         "tiers: row 10 is in none; they must cover"},
        {TIERED(TIER("a", "3", "10")), SG_INVALID_VALUE, "tiers: rows 1 to 2 are in none"},
        {TIERED(TIER("b", "7", "10") "," TIER("a", "1", "3")), SG_INVALID_VALUE,
         "tiers: rows 4 to 6 are in none"},
        {TIERED(TIER("b\xc3\xa9", "5", "10") "," TIER("a", "1", "5")), SG_INVALID_VALUE,
         "tiers[0].rows: row 5 is in 'a' and in 'b\?\?'; a row is in one tier"},
        {TIERED(TIER("b", "1", "10") "," TIER("a", "1", "10")), SG_INVALID_VALUE,
         "row 1 is in 'b' and in 'a'"},
        {TIERED(TIER("a", "1", "5") "," TIER("a", "6", "10")), SG_INVALID_VALUE,
         "tiers[1].name: is that of tiers[0], too"},
        {EVENT("\"rows\":1,\"cols\":1,\"tiers\":{}"), SG_WRONG_TYPE, "tiers: must be an array"},
        {EVENT("\"rows\":1,\"cols\":1,\"currency\":\"EUR\""), SG_INVALID_VALUE,
         "currency: goes with tiers"},
        {EVENT("\"rows\":1,\"cols\":1,\"tiers\":[" TIER("a", "1", "1") "]"), SG_WRONG_TYPE,
         "currency: is missing; tiers need it"},
        {EVENT("\"rows\":1,\"cols\":1,\"currency\":\"eur\",\"tiers\":[" TIER("a", "1", "1") "]"),
         SG_INVALID_VALUE, "currency: must be three capital letters"},
        {EVENT("\"rows\":1,\"cols\":1,\"currency\":\"EURO\",\"tiers\":[" TIER("a", "1", "1") "]"),
         SG_INVALID_VALUE, "currency: must be three capital letters"},
        {EVENT("\"rows\":1,\"cols\":1,\"currency\":978,\"tiers\":[" TIER("a", "1", "1") "]"),
         SG_WRONG_TYPE, "currency: must be"},
        {EVENT("\"rows\":1,\"cols\":1,\"maxPerUser\":0"), SG_INVALID_VALUE, "maxPerUser: must be"},
        {EVENT("\"rows\":1,\"cols\":1,\"maxPerUser\":4294967297"), SG_INVALID_VALUE,
         "is 4294967297"},
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

static void refused_events(void **state)
{
    static const struct wrong cases[] = {
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
        cmocka_unit_test(best_seats),
        cmocka_unit_test(a_hold_and_an_order),
        cmocka_unit_test(refused_takes),
        cmocka_unit_test(changes),
        cmocka_unit_test(refused_changes),
        cmocka_unit_test(the_waiting_list),
        cmocka_unit_test(tiers_in_any_order),
        cmocka_unit_test(refused_tiers),
        cmocka_unit_test(an_event),
        cmocka_unit_test(refused_events),
        cmocka_unit_test(user_ids_in_headers),
        cmocka_unit_test(user_ids_in_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
