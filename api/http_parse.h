/*
 * The head of one HTTP/1.x request: bytes to method, target and header fields, or a precise
 * refusal.
 *
 *   METHOD SP target SP HTTP/1.x CRLF
 *   name ":" OWS value OWS CRLF          any number of times, up to a bound
 *   CRLF
 *
 * Pure: no I/O, no clock, no allocation. What comes in is a contiguous range that only grows; what
 * goes out are offsets into it, so the range may move between two calls. It hides RFC 9112 and is
 * as strict as that allows: whatever two parsers could read differently (the stuff of request
 * smuggling) is refused, never repaired.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HTTP_PARSE_H
#define SG_API_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/http.h"
#include "base/error.h"

enum http_verdict { HTTP_NEED_MORE, HTTP_COMPLETE, HTTP_REJECT };

enum http_body_kind { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED };

/* A piece of the range: bytes[at] .. bytes[at + len - 1]. */
struct http_span {
    uint32_t at;
    uint32_t len;
};

struct http_field {
    struct http_span name;
    struct http_span value; /* without the white space around it */
};

struct http_head {
    /* Found so far; all of it stands once the verdict is HTTP_COMPLETE. */
    enum http_method method;
    struct http_span method_name;
    struct http_span path;  /* as sent; "*", or empty for an absolute target without a path */
    struct http_span query; /* as sent, behind the '?' */
    int version_minor;      /* HTTP/1.x */
    enum http_body_kind body;
    uint64_t content_length; /* for HTTP_BODY_LENGTH; UINT64_MAX for anything larger */
    bool keep_alive;
    bool expect_continue;
    struct http_field *fields; /* borrowed room for max_fields */
    size_t field_count;
    size_t len; /* bytes of the head, its empty line included */

    /* Why, when the verdict is HTTP_REJECT: the error and a static sentence. */
    enum sg_error error;
    const char *detail;

    /* The cursor, not for callers. */
    size_t max_bytes;
    size_t max_fields;
    size_t line;    /* where the line that is not yet complete begins */
    size_t scanned; /* no line end before this offset */
    enum { HTTP_AT_START, HTTP_AT_REQUEST_LINE, HTTP_AT_FIELDS } at;
    bool has_host;
    bool has_length;
    bool has_transfer_encoding;
    bool wants_close;
    bool wants_keep_alive;
};

/* Before the first byte. `fields` is borrowed and has room for max_fields. */
void http_head_init(struct http_head *head, size_t max_bytes, struct http_field *fields,
                    size_t max_fields);
/* Reads on in bytes[0 .. len), which begins with all that earlier calls saw. HTTP_NEED_MORE: call
 * again with more. HTTP_COMPLETE: head->len bytes are the head, the body begins behind them.
 * HTTP_REJECT: head->error and head->detail. However the bytes are split, the verdict is the same.
 */
enum http_verdict http_head_parse(struct http_head *head, const char *bytes, size_t len);

/* Equal but for the case of ASCII letters; `lower` is NUL-terminated and in lower case. */
bool http_equals_nocase(const char *bytes, size_t len, const char *lower);
/* RFC 9110: a character of a method or field name. */
bool http_is_token_char(char c);
/* RFC 9110: a character of a field value: visible, space, tab or obs-text. */
bool http_is_value_char(char c);

#endif
