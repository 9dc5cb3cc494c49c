/*
 * Goal: content negotiation does what RFC 9110 asks, also for sloppy and hostile headers.
 * Method: tables of header values and what must come of them.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/accept.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const offers[] = {"application/json", "application/vnd.seatgrid.full+json",
                                     "application/x-protobuf"};

static void media_types(void **state)
{
    static const struct {
        const char *accept;
        int best;
    } cases[] = {
        {NULL, 0},
        {"", 0},
        {"  ", 0},
        {"*/*", 0},
        {"application/*", 0},
        {"application/json", 0},
        {"APPLICATION/JSON", 0},
        {"application/json; charset=utf-8", 0},
        {"application/x-protobuf", 2},
        {"application/vnd.seatgrid.full+json", 1},
        {"application/x-protobuf;q=0.5, application/json;q=0.4", 2},
        {"application/x-protobuf;q=0.4, application/json;q=0.5", 0},
        {"application/x-protobuf ; q=1.000 , */* ; q=0.001", 2},
        {"application/x-protobuf, */*", 2}, /* same weight: the more precise range */
        {"*/*, application/json;q=0", 1},
        {"application/*;q=0.9, application/json;q=0, application/x-protobuf", 2},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 0},
        {"text/html", -1},
        {"text/*;q=1", -1},
        {"application/json;q=0", -1},
        {"*/*;q=0", -1},
        {"*/*;q=0.0, application/x-protobuf;q=0.001", 2},
        {"application/jsonx", -1},
        {"application/jso", -1},
        {"application", -1},
        {"*", -1},
        {"*/json", -1},
        {"application/json;q=2", -1}, /* malformed: as if it were not there */
        {"application/json;q=0.5x, application/x-protobuf;q=0.1", 2},
        {"application/json;q=", -1},
        {"application/json;q=-1", -1},
        {"application/json;q=1.001", -1},
        {"application/json;q=0.12345", -1},
        {",,, ,application/x-protobuf,,", 2},
        {";;;,;q=1,application/x-protobuf", 2},
        {"application/x-protobuf;a=\"x,y;q=0\";q=0.7", 2},
        {"text/plain;a=\"application/json, */*", -1}, /* the quote is never closed */
        {"application/json;Q=0.1, application/x-protobuf;q=0.2", 2},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int best = accept_media(cases[i].accept, offers, COUNT(offers));
        if (best != cases[i].best)
            fail_msg("Accept: %s gives %d, not %d", cases[i].accept, best, cases[i].best);
    }
}

static void codings(void **state)
{
    static const struct {
        const char *header;
        enum accept_coding coding;
    } cases[] = {
        {NULL, ACCEPT_CODING_IDENTITY},
        {"", ACCEPT_CODING_IDENTITY},
        {"gzip", ACCEPT_CODING_EITHER},
        {"GZIP", ACCEPT_CODING_EITHER},
        {"x-gzip", ACCEPT_CODING_EITHER},
        {"gzip, deflate, br", ACCEPT_CODING_EITHER},
        {"br, deflate", ACCEPT_CODING_IDENTITY},
        {"*", ACCEPT_CODING_EITHER},
        {"*;q=0", ACCEPT_CODING_IDENTITY},
        {"gzip;q=0", ACCEPT_CODING_IDENTITY},
        {"gzip;q=0, *", ACCEPT_CODING_IDENTITY},
        {"identity;q=0.5, gzip;q=0.4", ACCEPT_CODING_IDENTITY},
        {"identity;q=0.5, gzip;q=0.5", ACCEPT_CODING_EITHER},
        {"identity;q=0, gzip", ACCEPT_CODING_GZIP_ONLY},
        {"gzip;q=0.1, *;q=0", ACCEPT_CODING_GZIP_ONLY},
        {"gzip;q=0.1, identity;q=0.1, *;q=0", ACCEPT_CODING_EITHER},
        {"identity;q=0", ACCEPT_CODING_IDENTITY}, /* nothing we have: better than no answer */
        {"gzip;q=9", ACCEPT_CODING_IDENTITY},
        {"gzipx", ACCEPT_CODING_IDENTITY},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (accept_coding(cases[i].header) != cases[i].coding)
            fail_msg("Accept-Encoding: %s gives %d", cases[i].header,
                     (int)accept_coding(cases[i].header));
    }
}

static void entity_tags(void **state)
{
    static const struct {
        const char *header;
        bool matches;
    } cases[] = {
        {NULL, false},
        {"", false},
        {"*", true},
        {"\"abc-j\"", true},
        {"W/\"abc-j\"", true},
        {"w/\"abc-j\"", false},
        {"\"x\", \"abc-j\"", true},
        {"\"x\",W/\"y\" , W/\"abc-j\" ", true},
        {"\"abc-jg\"", false},
        {"\"abc\"", false},
        {"abc-j", false},
        {"\"ABC-J\"", false},
        {"\"a, \"abc-j\"", false}, /* a quote that swallows the rest */
        {"\"a,b\", \"abc-j\"", true},
        {"W/", false},
        {",,,", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (accept_etag_matches(cases[i].header, "\"abc-j\"") != cases[i].matches)
            fail_msg("If-None-Match: %s", cases[i].header);
    }
}

static void content_types(void **state)
{
    static const char *const good[] = {
        "application/json",
        "Application/JSON",
        " application/json ;",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        "application/json; charset=\"utf-8\"",
    };
    static const char *const bad[] = {
        "",
        ";",
        "text/plain",
        "application/json5",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/json, text/plain",
        "application/vnd.api+json",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        if (!accept_is_json(good[i]))
            fail_msg("%s is refused", good[i]);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (accept_is_json(bad[i]))
            fail_msg("%s passes", bad[i]);
    }
}

static void staleness_bounds(void **state)
{
    static const struct {
        const char *text;
        int64_t us; /* -1: refused */
    } cases[] = {
        {"250ms", 250000},
        {"2s", 2000000},
        {"0ms", 0},
        {"0s", 0},
        {"3600s", 3600000000},
        {"3600000ms", 3600000000},
        {"3601s", -1},
        {"3600001ms", -1},
        {"", -1},
        {"ms", -1},
        {"s", -1},
        {"250", -1},
        {"250 ms", -1},
        {"-1ms", -1},
        {"+1s", -1},
        {"1.5s", -1},
        {"01s", -1},
        {"1S", -1},
        {"1m", -1},
        {"1s ", -1},
        {"1e3ms", -1},
        {"99999999999999999999s", -1},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = -1;
        bool fine = accept_staleness(cases[i].text, &us);
        if (fine != (cases[i].us >= 0) || us != cases[i].us)
            fail_msg("%s gives %lld", cases[i].text, (long long)us);
    }
}

static void preferences(void **state)
{
    static const struct {
        const char *prefer;
        bool async;
    } cases[] = {
        {NULL, false},
        {"", false},
        {"respond-async", true},
        {" Respond-ASYNC ", true},
        {"respond-async=\"\"", true},
        {"respond-async = ", true},
        {"respond-async=1", false},
        {"respond-async; foo=bar; \"x\"", true},
        {"return=minimal, respond-async, wait=10", true},
        {"wait=10 , ,respond-async", true},
        {"respond-asynchronously", false},
        {"respond", false},
        {"x-respond-async", false},
        {"foo=\"a, respond-async\"", false},
        {"foo=\"a\\\", respond-async\"", false},
        {"foo; respond-async", false},
        {"foo=respond-async", false},
        {";respond-async", false},
        {"foo=\"open, respond-async", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (accept_prefers(cases[i].prefer, "respond-async") != cases[i].async)
            fail_msg("'%s'", cases[i].prefer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(media_types),      cmocka_unit_test(codings),
        cmocka_unit_test(entity_tags),      cmocka_unit_test(content_types),
        cmocka_unit_test(staleness_bounds), cmocka_unit_test(preferences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
