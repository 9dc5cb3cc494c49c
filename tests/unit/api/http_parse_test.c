/*
 * Goal: the parser takes what RFC 9112 allows, refuses what two parsers could read differently, and
 * comes to the same verdict however the bytes are split.
 * Method: tables of request heads and chunked bodies with the verdict and a piece of its reason.
 * Each sample is parsed whole, byte by byte, and at every split point, from a fresh copy of exactly
 * the bytes that have arrived, so that the address sanitizer sees any look past them.
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

#include "api/http_decode.h"
#include "api/http_parse.h"
#include "base/dynbuf.h"

#define MAX_BYTES 256
#define MAX_FIELDS 6

struct sample {
    const char *bytes;
    size_t len;
    enum sg_error error; /* SG_OK: complete */
    const char *detail;  /* a piece of the reason; for SG_OK the path, a space and the query */
};

#define S(text) text, sizeof text - 1
#define HOST "Host: a\r\n"
#define GET_LINE "GET / HTTP/1.1\r\n"

static const struct sample heads[] = {
    /* What is taken. */
    {S("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), SG_OK, "/ "},
    {S("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), SG_OK, "/ "},
    {S("GET /events/7/seats?full=1&x=%20 HTTP/1.1\r\nhOST:a:8080\r\n\r\n"), SG_OK,
     "/events/7/seats full=1&x=%20"},
    {S("GET /a?b?c/d HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), SG_OK, "/a b?c/d"},
    {S("GET /? HTTP/1.1\r\n" HOST "\r\n"), SG_OK, "/ "},
    {S("GET / HTTP/1.1\r\nHost:\r\n\r\n"), SG_OK, "/ "},
    {S("GET / HTTP/1.0\r\n\r\n"), SG_OK, "/ "},
    {S("GET / HTTP/1.9\r\n" HOST "\r\n"), SG_OK, "/ "},
    {S("GET http://a.example:80/x?y HTTP/1.1\r\n" HOST "\r\n"), SG_OK, "/x y"},
    {S("GET HTTPS://a HTTP/1.1\r\n" HOST "\r\n"), SG_OK, " "},
    {S("GET http://a?q HTTP/1.1\r\n" HOST "\r\n"), SG_OK, " q"},
    {S("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), SG_OK, "* "},
    {S("BREW /pot HTTP/1.1\r\n" HOST "\r\n"), SG_OK, "/pot "},
    {S(GET_LINE HOST "X: \t a\tb\xc3\xa9 \t\r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "X:\r\nY: \r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "Content-Length: 0\r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "Content-Length: 99999999999999999999999\r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "Transfer-Encoding: Chunked\r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "Expect: 100-Continue\r\n\r\n"), SG_OK, "/ "},
    {S(GET_LINE HOST "\r\nGET / nonsense behind it is not ours"), SG_OK, "/ "},
    {S(GET_LINE HOST "1:a\r\n2:a\r\n3:a\r\n4:a\r\n5:a\r\n\r\n"), SG_OK, "/ "},

    /* The request line. */
    {S("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), SG_MALFORMED, "TLS"},
    {S("\x00GET"), SG_MALFORMED, "begin with a method"},
    {S("\xff\xfe\xfd"), SG_MALFORMED, "begin with a method"},
    {S(" GET / HTTP/1.1\r\n"), SG_MALFORMED, "begin with a method"},
    {S("\nGET / HTTP/1.1\r\n"), SG_MALFORMED, "begin with a method"},
    {S("\r\n\r\nGET / HTTP/1.1\r\n"), SG_MALFORMED, "begin with a method"},
    {S("\rGET / HTTP/1.1\r\n"), SG_MALFORMED, "begin with a method"},
    {S("GET\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET /\r\n"), SG_MALFORMED, "no HTTP version"},
    {S("GET  / HTTP/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET\t/ HTTP/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET /  HTTP/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/1.1 \r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / a HTTP/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("G(T / HTTP/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/1.1\n"), SG_MALFORMED, "bare LF"},
    {S("GET / HTTP/1.1\r\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / http/1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/1.10\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/+1.1\r\n"), SG_MALFORMED, "METHOD SP"},
    {S("GET / HTTP/2.0\r\n"), SG_HTTP_VERSION, "HTTP/1.1"},
    {S("GET / HTTP/0.9\r\n"), SG_HTTP_VERSION, "HTTP/1.1"},
    {S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), SG_HTTP_VERSION, "HTTP/1.1"},
    {S("GET * HTTP/1.1\r\n"), SG_MALFORMED, "OPTIONS only"},
    {S("GET a/b HTTP/1.1\r\n"), SG_MALFORMED, "begin with a slash"},
    {S("GET http:///x HTTP/1.1\r\n"), SG_MALFORMED, "names no host"},
    {S("GET http:// HTTP/1.1\r\n"), SG_MALFORMED, "begin with a slash"},
    {S("GET http://u@h/ HTTP/1.1\r\n"), SG_MALFORMED, "bad authority"},
    {S("GET ftp://h/ HTTP/1.1\r\n"), SG_MALFORMED, "begin with a slash"},
    {S("CONNECT a:443 HTTP/1.1\r\n"), SG_NOT_IMPLEMENTED, "CONNECT"},
    {S("GET /a#b HTTP/1.1\r\n"), SG_MALFORMED, "fragment"},
    {S("GET /a?b#c HTTP/1.1\r\n"), SG_MALFORMED, "fragment"},
    {S("GET /a\\b HTTP/1.1\r\n"), SG_MALFORMED, "percent-encoded"},
    {S("GET /\xc3\xa9 HTTP/1.1\r\n"), SG_MALFORMED, "percent-encoded"},
    {S("GET /a\x00"
       "b HTTP/1.1\r\n"),
     SG_MALFORMED, "percent-encoded"},
    {S("GET /a\rb HTTP/1.1\r\n"), SG_MALFORMED, "percent-encoded"},
    {S("GET /?a\x7f HTTP/1.1\r\n"), SG_MALFORMED, "percent-encoded"},

    /* Field lines. */
    {S(GET_LINE " Host: a\r\n"), SG_MALFORMED, "folded"},
    {S(GET_LINE HOST "X: a\r\n b\r\n"), SG_MALFORMED, "folded"},
    {S(GET_LINE HOST "X: a\r\n\tb\r\n"), SG_MALFORMED, "folded"},
    {S(GET_LINE HOST "X : a\r\n"), SG_MALFORMED, "followed by a space"},
    {S(GET_LINE HOST "X\t: a\r\n"), SG_MALFORMED, "followed by a space"},
    {S(GET_LINE HOST "Content-Length : 3\r\n\r\nabc"), SG_MALFORMED, "followed by a space"},
    {S(GET_LINE HOST ": a\r\n"), SG_MALFORMED, "without a name"},
    {S(GET_LINE HOST "X\r\n"), SG_MALFORMED, "without a colon"},
    {S(GET_LINE HOST "X(: a\r\n"), SG_MALFORMED, "no token"},
    {S(GET_LINE HOST "X\x00Y: a\r\n"), SG_MALFORMED, "no token"},
    {S(GET_LINE HOST "X\xc3\xa9: a\r\n"), SG_MALFORMED, "no token"},
    {S(GET_LINE HOST "X: a\x00"
                     "b\r\n"),
     SG_MALFORMED, "NUL"},
    {S(GET_LINE HOST "X: a\rb\r\n"), SG_MALFORMED, "bare CR"},
    {S(GET_LINE HOST "X: a\r\r\n"), SG_MALFORMED, "bare CR"},
    {S(GET_LINE HOST "X: a\x0b\r\n"), SG_MALFORMED, "control character"},
    {S(GET_LINE HOST "X: a\x7f\r\n"), SG_MALFORMED, "control character"},
    {S(GET_LINE HOST "X: a\nY: b\r\n"), SG_MALFORMED, "bare LF"},
    {S(GET_LINE HOST "\n"), SG_MALFORMED, "bare LF"},
    {S(GET_LINE HOST "1:a\r\n2:a\r\n3:a\r\n4:a\r\n5:a\r\n6:a\r\n\r\n"), SG_HEADERS_TOO_LARGE,
     "too many"},

    /* Host. */
    {S(GET_LINE "\r\n"), SG_MALFORMED, "no Host"},
    {S(GET_LINE HOST HOST "\r\n"), SG_MALFORMED, "two Host"},
    {S("GET / HTTP/1.0\r\n" HOST "host: b\r\n\r\n"), SG_MALFORMED, "two Host"},
    {S(GET_LINE "Host: a, b\r\n"), SG_MALFORMED, "not a host"},
    {S(GET_LINE "Host: a/b\r\n"), SG_MALFORMED, "not a host"},
    {S(GET_LINE "Host: u@a\r\n"), SG_MALFORMED, "not a host"},

    /* How long is the body? */
    {S(GET_LINE HOST "Content-Length: 3\r\nContent-Length: 4\r\n"), SG_MALFORMED,
     "two Content-Length"},
    {S(GET_LINE HOST "Content-Length: 3\r\ncontent-length: 3\r\n"), SG_MALFORMED,
     "two Content-Length"},
    {S(GET_LINE HOST "Content-Length: 3, 3\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length: +3\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length: -3\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length: 0x3\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length: 3 3\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length: 3.0\r\n"), SG_MALFORMED, "plain decimal"},
    {S(GET_LINE HOST "Content-Length:\r\n"), SG_MALFORMED, "empty"},
    {S(GET_LINE HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), SG_MALFORMED,
     "both Content-Length and"},
    {S(GET_LINE HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"), SG_MALFORMED,
     "both Content-Length and"},
    {S(GET_LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
     SG_MALFORMED, "two Transfer-Encoding"},
    {S("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), SG_MALFORMED, "HTTP/1.0"},
    {S(GET_LINE HOST "Transfer-Encoding: gzip, chunked\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding: identity\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding: xchunked\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding: chunked, identity\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding: \"chunked\"\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding:\r\n"), SG_NOT_IMPLEMENTED, "chunked"},
    {S(GET_LINE HOST "Transfer-Encoding: \x0b"
                     "chunked\r\n"),
     SG_MALFORMED, "control character"},
    {S(GET_LINE HOST "Transfer-Encoding : chunked\r\n"), SG_MALFORMED, "followed by a space"},
    {S(GET_LINE HOST "Expect: 200-ok\r\n"), SG_MALFORMED, "Expect"},
};

/* The state of a parser, moved to a fresh copy of the bytes for each call. */
static enum http_verdict feed(struct http_head *head, const struct sample *sample, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, sample->bytes, len);
    enum http_verdict verdict = http_head_parse(head, copy, len);
    free(copy);
    return verdict;
}

static void check_head(const struct sample *sample, const struct http_head *head,
                       enum http_verdict verdict)
{
    if (sample->error != SG_OK) {
        if (verdict != HTTP_REJECT || head->error != sample->error ||
            !strstr(head->detail, sample->detail))
            fail_msg("\"%s\": verdict %d, error %s, detail %s", sample->bytes, (int)verdict,
                     sg_error_code(head->error), head->detail ? head->detail : "-");
        return;
    }
    if (verdict != HTTP_COMPLETE)
        fail_msg("\"%s\": verdict %d: %s", sample->bytes, (int)verdict,
                 head->detail ? head->detail : "-");
    char text[MAX_BYTES];
    snprintf(text, sizeof text, "%.*s %.*s", (int)head->path.len, sample->bytes + head->path.at,
             (int)head->query.len, sample->bytes + head->query.at);
    assert_string_equal(text, sample->detail);
    assert_memory_equal(sample->bytes + head->len - 4, "\r\n\r\n", 4);
}

static void every_split_of_a_head_has_the_same_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        const struct sample *sample = &heads[i];
        struct http_field fields[MAX_FIELDS];
        struct http_head head;
        for (size_t split = 0; split <= sample->len; split++) {
            http_head_init(&head, MAX_BYTES, fields, MAX_FIELDS);
            enum http_verdict verdict = feed(&head, sample, split);
            if (verdict == HTTP_NEED_MORE)
                verdict = feed(&head, sample, sample->len);
            check_head(sample, &head, verdict);
        }
        http_head_init(&head, MAX_BYTES, fields, MAX_FIELDS);
        enum http_verdict verdict = HTTP_NEED_MORE;
        for (size_t len = 0; len <= sample->len && verdict == HTTP_NEED_MORE; len++)
            verdict = feed(&head, sample, len);
        check_head(sample, &head, verdict);
    }
}

static enum http_verdict parse(struct http_head *head, struct http_field *fields, const char *text)
{
    http_head_init(head, MAX_BYTES, fields, MAX_FIELDS);
    return http_head_parse(head, text, strlen(text));
}

static void a_complete_head_says_what_it_means(void **state)
{
    (void)state;
    struct http_field fields[MAX_FIELDS];
    struct http_head head;
    const char *text = "PATCH /a HTTP/1.1\r\nHost: h\r\nContent-LENGTH: 0042\r\n"
                       "Expect: 100-continue\r\nX-Y:  v w \t\r\n\r\n{";
    assert_int_equal(parse(&head, fields, text), HTTP_COMPLETE);
    assert_int_equal(head.method, HTTP_PATCH);
    assert_int_equal(head.version_minor, 1);
    assert_int_equal(head.body, HTTP_BODY_LENGTH);
    assert_int_equal(head.content_length, 42);
    assert_true(head.keep_alive);
    assert_true(head.expect_continue);
    assert_int_equal(head.len, strlen(text) - 1);
    assert_int_equal(head.field_count, 4);
    assert_int_equal(head.fields[3].value.len, 3);
    assert_memory_equal(text + head.fields[3].value.at, "v w", 3);

    assert_int_equal(parse(&head, fields, "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"), HTTP_COMPLETE);
    assert_int_equal(head.method, HTTP_METHOD_OTHER);
    assert_int_equal(head.body, HTTP_BODY_NONE);
    assert_int_equal(parse(&head, fields, "get / HTTP/1.1\r\nHost: h\r\n\r\n"), HTTP_COMPLETE);
    assert_int_equal(head.method, HTTP_METHOD_OTHER);
}

static void a_length_past_64_bits_is_never_a_small_one(void **state)
{
    (void)state;
    struct http_field fields[MAX_FIELDS];
    struct http_head head;
    static const struct {
        const char *digits;
        uint64_t length;
    } cases[] = {{"18446744073709551615", UINT64_MAX},
                 {"18446744073709551616", UINT64_MAX},
                 {"18446744073709551620", UINT64_MAX},
                 {"184467440737095516150", UINT64_MAX},
                 {"100000000000000000000000000000000000000", UINT64_MAX},
                 {"18446744073709551614", UINT64_MAX - 1},
                 {"00000000000000000000000000000000000007", 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[MAX_BYTES];
        snprintf(text, sizeof text, GET_LINE HOST "Content-Length: %s\r\n\r\n", cases[i].digits);
        assert_int_equal(parse(&head, fields, text), HTTP_COMPLETE);
        assert_true(head.content_length == cases[i].length);
    }
}

static void keep_alive_follows_version_and_connection(void **state)
{
    (void)state;
    static const struct {
        const char *lines;
        bool keep_alive;
    } cases[] = {{"GET / HTTP/1.1\r\nHost: h\r\n", true},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", false},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: CLOSE\r\n", false},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo ,\t close , bar\r\n", false},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: closed\r\n", true},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: ,,\r\n", true},
                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: close\r\n", false},
                 {"GET / HTTP/1.0\r\n", false},
                 {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", true},
                 {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_field fields[MAX_FIELDS];
        struct http_head head;
        char text[MAX_BYTES];
        snprintf(text, sizeof text, "%s\r\n", cases[i].lines);
        assert_int_equal(parse(&head, fields, text), HTTP_COMPLETE);
        if (head.keep_alive != cases[i].keep_alive)
            fail_msg("%s: keep_alive %d", cases[i].lines, head.keep_alive);
    }
}

/* The limit is on the bytes that a line takes with its CRLF, whether its end has come or not. */
static void bounds_hold_to_the_byte(void **state)
{
    (void)state;
    struct http_field fields[MAX_FIELDS];
    struct http_head head;
    for (size_t pad = 200; pad < 300; pad++) {
        char path[400];
        char text[800];
        memset(path, 'a', pad);
        path[pad] = '\0';
        snprintf(text, sizeof text, "GET /%s HTTP/1.1\r\n", path);
        bool over = strlen(text) > MAX_BYTES;
        assert_int_equal(parse(&head, fields, text), over ? HTTP_REJECT : HTTP_NEED_MORE);
        assert_int_equal(head.error, over ? SG_URI_TOO_LONG : SG_OK);
        snprintf(text, sizeof text, "GET /%s", path);
        over = strlen(text) > MAX_BYTES;
        assert_int_equal(parse(&head, fields, text), over ? HTTP_REJECT : HTTP_NEED_MORE);
        assert_int_equal(head.error, over ? SG_URI_TOO_LONG : SG_OK);
        snprintf(text, sizeof text, GET_LINE HOST "X: %s\r\n\r\n", path);
        over = strlen(text) > MAX_BYTES;
        assert_int_equal(parse(&head, fields, text), over ? HTTP_REJECT : HTTP_COMPLETE);
        assert_int_equal(head.error, over ? SG_HEADERS_TOO_LARGE : SG_OK);
    }
}

/* --- chunked bodies */

#define MAX_BODY 20

static const struct sample bodies[] = {
    {S("0\r\n\r\n"), SG_OK, ""},
    {S("3\r\nabc\r\n0\r\n\r\n"), SG_OK, "abc"},
    {S("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET / HTTP/1.1"), SG_OK, "abcde"},
    {S("00000003;x=\"y\"\r\nabc\r\n0;z\r\nT: v\r\nU:\r\n\r\n"), SG_OK, "abc"},
    {S("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), SG_OK, "01234567890123456789"},
    {S("3\r\n\r\n0\r\n0\r\n\r\n"), SG_OK, "\r\n0"},
    {S("+3\r\nabc\r\n"), SG_MALFORMED, "not a hexadecimal"},
    {S("-1\r\n"), SG_MALFORMED, "not a hexadecimal"},
    {S("0x3\r\nabc\r\n"), SG_MALFORMED, "followed by"},
    {S(" 3\r\nabc\r\n"), SG_MALFORMED, "not a hexadecimal"},
    {S("3 \r\nabc\r\n"), SG_MALFORMED, "followed by"},
    {S("\r\n"), SG_MALFORMED, "not a hexadecimal"},
    {S(";x\r\n"), SG_MALFORMED, "not a hexadecimal"},
    {S("3\nabc\r\n"), SG_MALFORMED, "followed by"},
    {S("3\r\rabc"), SG_MALFORMED, "framing"},
    {S("3\r\nabcd\r\n"), SG_MALFORMED, "framing"},
    {S("3\r\nabc\n0\r\n\r\n"), SG_MALFORMED, "framing"},
    {S("3\r\nabc\r0\r\n"), SG_MALFORMED, "framing"},
    {S("3;a\nb\r\nabc"), SG_MALFORMED, "control"},
    {S("3;a\x00\r\nabc"), SG_MALFORMED, "control"},
    {S("3;a\rb\r\nabc"), SG_MALFORMED, "framing"},
    {S("000000003\r\n"), SG_MALFORMED, "too many digits"},
    {S("10000000000000003\r\nabc"), SG_MALFORMED, "too many digits"},
    {S("ffffffff\r\n"), SG_BODY_TOO_LARGE, "larger"},
    {S("15\r\n"), SG_BODY_TOO_LARGE, "larger"},
    {S("14\r\n01234567890123456789\r\n1\r\n"), SG_BODY_TOO_LARGE, "larger"},
    {S("0\r\n\n"), SG_MALFORMED, "no name"},
    {S("0\r\n X: y\r\n"), SG_MALFORMED, "no name"},
    {S("0\r\nX : y\r\n"), SG_MALFORMED, "no token"},
    {S("0\r\nX\r\n"), SG_MALFORMED, "no token"},
    {S("0\r\nX: y\nZ: w\r\n"), SG_MALFORMED, "control"},
    {S("0\r\n\rX"), SG_MALFORMED, "framing"},
};

static void check_body(const struct sample *sample, size_t split)
{
    struct http_chunked chunked;
    struct dynbuf body;
    size_t used;
    size_t more = 0;
    http_chunked_init(&chunked);
    dynbuf_init(&body, MAX_BODY);
    enum http_verdict verdict = http_chunked_decode(&chunked, sample->bytes, split, &body, &used);
    if (verdict == HTTP_NEED_MORE) {
        assert_int_equal(used, split);
        verdict =
            http_chunked_decode(&chunked, sample->bytes + split, sample->len - split, &body, &more);
    }
    if (sample->error == SG_OK) {
        if (verdict != HTTP_COMPLETE)
            fail_msg("\"%s\": verdict %d: %s", sample->bytes, (int)verdict,
                     chunked.detail ? chunked.detail : "-");
        assert_string_equal(dynbuf_text(&body), sample->detail);
        assert_memory_equal(sample->bytes + used + more - 4, "\r\n\r\n", 4);
    } else if (verdict != HTTP_REJECT || chunked.error != sample->error ||
               !strstr(chunked.detail, sample->detail)) {
        fail_msg("\"%s\" at %zu: verdict %d, detail %s", sample->bytes, split, (int)verdict,
                 chunked.detail ? chunked.detail : "-");
    }
    dynbuf_done(&body);
}

static void every_split_of_a_chunked_body_has_the_same_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        for (size_t split = 0; split <= bodies[i].len; split++)
            check_body(&bodies[i], split);
    }
}

static void chunk_extensions_and_trailers_are_bounded_over_the_body(void **state)
{
    (void)state;
    static const char *const pieces[] = {"1;xxxxxxxxxxxxxxxx\r\na\r\n", "Trailer: vvvvvvvv\r\n"};
    for (int which = 0; which < 2; which++) {
        struct http_chunked chunked;
        struct dynbuf body;
        size_t used;
        enum http_verdict verdict = HTTP_NEED_MORE;
        http_chunked_init(&chunked);
        dynbuf_init(&body, 1 << 20);
        if (which == 1)
            assert_int_equal(http_chunked_decode(&chunked, "0\r\n", 3, &body, &used),
                             HTTP_NEED_MORE);
        size_t fed = 0;
        for (; verdict == HTTP_NEED_MORE && fed < 2000; fed++)
            verdict =
                http_chunked_decode(&chunked, pieces[which], strlen(pieces[which]), &body, &used);
        assert_int_equal(verdict, HTTP_REJECT);
        assert_int_equal(chunked.error, SG_HEADERS_TOO_LARGE);
        assert_true(fed > 300 && fed < 600);
        dynbuf_done(&body);
    }
}

/* --- percent-encoding and addresses */

static void paths_decode_or_say_why_not(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *decoded; /* NULL: refused */
        const char *detail;
    } cases[] = {
        {"/", "/", NULL},
        {"/a/b/", "/a/b/", NULL},
        {"/a%20b%C3%A9", "/a b\xc3\xa9", NULL},
        {"/%65vents/7", "/events/7", NULL},
        {"/.../..a/.b", "/.../..a/.b", NULL},
        {"/%F0%9F%8E%AB", "/\xf0\x9f\x8e\xab", NULL},
        {"/a%", NULL, "percent sign"},
        {"/a%2", NULL, "percent sign"},
        {"/a%2g", NULL, "percent sign"},
        {"/a%%20", NULL, "percent sign"},
        {"/a%u0041", NULL, "percent sign"},
        {"/a%00b", NULL, "control"},
        {"/a%0d%0ab", NULL, "control"},
        {"/a%7f", NULL, "control"},
        {"/a%2fb", NULL, "slash"},
        {"/a%2Fb", NULL, "slash"},
        {"/a%5c..%5cb", NULL, "slash"},
        {"/a%5", NULL, "percent sign"},
        {"//", NULL, "two slashes"},
        {"/a//b", NULL, "two slashes"},
        {"/.", NULL, "segment"},
        {"/..", NULL, "segment"},
        {"/a/./b", NULL, "segment"},
        {"/a/../b", NULL, "segment"},
        {"/a/..", NULL, "segment"},
        {"/a/%2e%2E/b", NULL, "segment"},
        {"/a/.%2e", NULL, "segment"},
        {"/%80", NULL, "UTF-8"},
        {"/%C3", NULL, "UTF-8"},
        {"/%C3x", NULL, "UTF-8"},
        {"/%C0%AF", NULL, "UTF-8"},
        {"/%E0%80%AF", NULL, "UTF-8"},
        {"/%ED%A0%80", NULL, "UTF-8"},
        {"/%F4%90%80%80", NULL, "UTF-8"},
        {"/%F8%88%80%80%80", NULL, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *detail = NULL;
        size_t len = strlen(cases[i].path);
        char *path = malloc(len);
        assert_non_null(path);
        memcpy(path, cases[i].path, len);
        enum sg_error error = http_path_decode(path, len, &len, &detail);
        if (cases[i].decoded) {
            assert_int_equal(error, SG_OK);
            assert_int_equal(len, strlen(cases[i].decoded));
            assert_memory_equal(path, cases[i].decoded, len);
        } else if (error != SG_MALFORMED || !strstr(detail, cases[i].detail)) {
            fail_msg("%s: %s, %s", cases[i].path, sg_error_code(error), detail ? detail : "-");
        }
        free(path);
    }
}

static void queries_decode_or_say_why_not(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        const char *decoded; /* name=value pairs, each with a semicolon; NULL: refused */
        const char *detail;
    } cases[] = {
        {"a=1", "a=1;", NULL},
        {"a=1&b=x+y&c=%2B%26%3d", "a=1;b=x y;c=+&=;", NULL},
        {"a&b=", "a=;b=;", NULL},
        {"&&a=1&", "a=1;", NULL},
        {"a=b=c", "a=b=c;", NULL},
        {"%61=1", "a=1;", NULL},
        {"=1", "=1;", NULL},
        {"a=1&a=2", NULL, "twice"},
        {"a=1&%61=2", NULL, "twice"},
        {"a=%", NULL, "percent sign"},
        {"a=%zz", NULL, "percent sign"},
        {"%=1", NULL, "percent sign"},
        {"a=%00", NULL, "control"},
        {"a=%ff", NULL, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_param params[HTTP_PARAMS_MAX];
        const char *detail = NULL;
        char text[200] = "";
        size_t count = 0;
        char *query = strdup(cases[i].query);
        assert_non_null(query);
        enum sg_error error = http_query_decode(query, strlen(query), params, &count, &detail);
        if (cases[i].decoded) {
            assert_int_equal(error, SG_OK);
            for (size_t p = 0; p < count; p++) {
                size_t at = strlen(text);
                snprintf(text + at, sizeof text - at, "%s=%s;", params[p].name, params[p].value);
            }
            assert_string_equal(text, cases[i].decoded);
        } else if (error != SG_MALFORMED || !strstr(detail, cases[i].detail)) {
            fail_msg("%s: %s, %s", cases[i].query, sg_error_code(error), detail ? detail : "-");
        }
        free(query);
    }
}

static void query_parameters_are_bounded(void **state)
{
    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        struct http_param params[HTTP_PARAMS_MAX];
        const char *detail = NULL;
        char query[400] = "";
        size_t count = 0;
        for (int i = 0; i < HTTP_PARAMS_MAX + extra; i++) {
            size_t at = strlen(query);
            snprintf(query + at, sizeof query - at, "p%d=%d&", i, i);
        }
        enum sg_error error = http_query_decode(query, strlen(query), params, &count, &detail);
        assert_int_equal(error, extra ? SG_MALFORMED : SG_OK);
        assert_int_equal(count, extra ? 0 : HTTP_PARAMS_MAX);
    }
}

static void addresses_split(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        const char *host; /* NULL: refused */
        const char *port;
    } cases[] = {{"127.0.0.1:8080", "127.0.0.1", "8080"},
                 {"localhost:0", "localhost", "0"},
                 {"[::1]:65535", "::1", "65535"},
                 {":80", "", "80"},
                 {"127.0.0.1", NULL, NULL},
                 {"::1:80", NULL, NULL},
                 {"a:", NULL, NULL},
                 {"a:65536", NULL, NULL},
                 {"a:-1", NULL, NULL},
                 {"a: 1", NULL, NULL},
                 {"a:http", NULL, NULL},
                 {"", NULL, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[HTTP_HOST_MAX];
        char port[HTTP_PORT_MAX];
        enum sg_error error = http_address_split(cases[i].address, host, port);
        assert_int_equal(error, cases[i].host ? SG_OK : SG_INVALID_VALUE);
        if (cases[i].host) {
            assert_string_equal(host, cases[i].host);
            assert_string_equal(port, cases[i].port);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_a_head_has_the_same_verdict),
        cmocka_unit_test(a_complete_head_says_what_it_means),
        cmocka_unit_test(a_length_past_64_bits_is_never_a_small_one),
        cmocka_unit_test(keep_alive_follows_version_and_connection),
        cmocka_unit_test(bounds_hold_to_the_byte),
        cmocka_unit_test(every_split_of_a_chunked_body_has_the_same_verdict),
        cmocka_unit_test(chunk_extensions_and_trailers_are_bounded_over_the_body),
        cmocka_unit_test(paths_decode_or_say_why_not),
        cmocka_unit_test(queries_decode_or_say_why_not),
        cmocka_unit_test(query_parameters_are_bounded),
        cmocka_unit_test(addresses_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
