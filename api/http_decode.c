/*
 * Chunked bodies, percent-encoding, addresses. See http_decode.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/http_decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"

#define CHUNK_DIGITS_MAX 8

/* Value of a hexadecimal digit, -1 for any other character. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* --- chunked bodies --------------------------------------------------------------------------- */

void http_chunked_init(struct http_chunked *chunked)
{
    *chunked = (struct http_chunked){.at = HTTP_CHUNK_SIZE};
}

static enum http_verdict refuse(struct http_chunked *chunked, enum sg_error error,
                                const char *detail)
{
    chunked->error = error;
    chunked->detail = detail;
    return HTTP_REJECT;
}

static enum http_verdict on_size_char(struct http_chunked *chunked, char c, struct dynbuf *body)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        if (chunked->digits++ == CHUNK_DIGITS_MAX)
            return refuse(chunked, SG_MALFORMED, "a chunk size has too many digits");
        chunked->left = chunked->left * 16 + (uint64_t)digit;
        return HTTP_NEED_MORE;
    }
    if (chunked->digits == 0)
        return refuse(chunked, SG_MALFORMED, "a chunk size is not a hexadecimal number");
    if (c != '\r' && c != ';')
        return refuse(chunked, SG_MALFORMED, "a chunk size is followed by something else");
    if (chunked->left > body->max_len - body->len)
        return refuse(chunked, SG_BODY_TOO_LARGE, "the chunked body is larger than allowed");
    chunked->at = c == ';' ? HTTP_CHUNK_EXTENSION : HTTP_CHUNK_SIZE_LF;
    return HTTP_NEED_MORE;
}

/* A character of an extension or of a trailer's value; both end with CRLF. */
static enum http_verdict on_dropped_char(struct http_chunked *chunked, char c, int next)
{
    if (c == '\r') {
        chunked->at = next;
        return HTTP_NEED_MORE;
    }
    if (!http_is_value_char(c))
        return refuse(chunked, SG_MALFORMED,
                      "a chunk extension or trailer holds a control character");
    return HTTP_NEED_MORE;
}

static enum http_verdict on_trailer_start(struct http_chunked *chunked, char c)
{
    if (c == '\r') {
        chunked->at = HTTP_CHUNKED_END_LF;
        return HTTP_NEED_MORE;
    }
    if (!http_is_token_char(c))
        return refuse(chunked, SG_MALFORMED, "a trailer begins with no name");
    chunked->at = HTTP_TRAILER_NAME;
    return HTTP_NEED_MORE;
}

static enum http_verdict on_trailer_name(struct http_chunked *chunked, char c)
{
    if (c == ':')
        chunked->at = HTTP_TRAILER_VALUE;
    else if (!http_is_token_char(c))
        return refuse(chunked, SG_MALFORMED, "a trailer name holds a character that is no token");
    return HTTP_NEED_MORE;
}

/* Behind the size line: data, or the trailers when the size was zero. */
static void begin_chunk(struct http_chunked *chunked)
{
    chunked->digits = 0;
    chunked->at = chunked->left ? HTTP_CHUNK_DATA : HTTP_TRAILER_START;
}

static enum http_verdict expect(struct http_chunked *chunked, char c, char wanted, int next)
{
    if (c != wanted)
        return refuse(chunked, SG_MALFORMED,
                      "chunked framing is broken where a line should end with CRLF");
    chunked->at = next;
    return HTTP_NEED_MORE;
}

/* Every byte that is not chunk data. */
static enum http_verdict on_framing_char(struct http_chunked *chunked, char c, struct dynbuf *body)
{
    enum http_verdict verdict = HTTP_NEED_MORE;
    if ((chunked->at == HTTP_CHUNK_EXTENSION || chunked->at >= HTTP_TRAILER_START) &&
        ++chunked->extra_bytes > HTTP_CHUNKED_EXTRA_MAX)
        return refuse(chunked, SG_HEADERS_TOO_LARGE, "chunk extensions and trailers are too long");
    switch (chunked->at) {
    case HTTP_CHUNK_SIZE:
        return on_size_char(chunked, c, body);
    case HTTP_CHUNK_EXTENSION:
        return on_dropped_char(chunked, c, HTTP_CHUNK_SIZE_LF);
    case HTTP_CHUNK_SIZE_LF:
        verdict = expect(chunked, c, '\n', HTTP_CHUNK_SIZE);
        if (verdict == HTTP_NEED_MORE)
            begin_chunk(chunked);
        return verdict;
    case HTTP_CHUNK_DATA_CR:
        return expect(chunked, c, '\r', HTTP_CHUNK_DATA_LF);
    case HTTP_CHUNK_DATA_LF:
        return expect(chunked, c, '\n', HTTP_CHUNK_SIZE);
    case HTTP_TRAILER_START:
        return on_trailer_start(chunked, c);
    case HTTP_TRAILER_NAME:
        return on_trailer_name(chunked, c);
    case HTTP_TRAILER_VALUE:
        return on_dropped_char(chunked, c, HTTP_TRAILER_LF);
    case HTTP_TRAILER_LF:
        return expect(chunked, c, '\n', HTTP_TRAILER_START);
    case HTTP_CHUNKED_END_LF:
        return expect(chunked, c, '\n', HTTP_CHUNKED_DONE);
    case HTTP_CHUNK_DATA:
    case HTTP_CHUNKED_DONE:
        break;
    }
    return verdict;
}

enum http_verdict http_chunked_decode(struct http_chunked *chunked, const char *bytes, size_t len,
                                      struct dynbuf *body, size_t *ret_used)
{
    size_t used = 0;
    enum http_verdict verdict = chunked->error ? HTTP_REJECT : HTTP_NEED_MORE;
    while (used < len && verdict == HTTP_NEED_MORE && chunked->at != HTTP_CHUNKED_DONE) {
        if (chunked->at != HTTP_CHUNK_DATA) {
            verdict = on_framing_char(chunked, bytes[used++], body);
            continue;
        }
        size_t take = len - used < chunked->left ? len - used : (size_t)chunked->left;
        dynbuf_add(body, bytes + used, take);
        if (body->failed)
            verdict = refuse(chunked, SG_NO_MEMORY, "no memory for the body");
        used += take;
        chunked->left -= take;
        if (chunked->left == 0)
            chunked->at = HTTP_CHUNK_DATA_CR;
    }
    *ret_used = used;
    return verdict == HTTP_NEED_MORE && chunked->at == HTTP_CHUNKED_DONE ? HTTP_COMPLETE : verdict;
}

/* --- percent-encoding ------------------------------------------------------------------------- */

/* Length of the valid UTF-8 sequence at bytes[0 .. len), 0 if there is none. */
static size_t utf8_sequence(const unsigned char *bytes, size_t len)
{
    unsigned char first = bytes[0];
    if (first < 0x80)
        return 1;
    size_t want = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || want > len)
        return 0;
    /* The second byte excludes overlong forms, surrogates and what lies past U+10FFFF. */
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < want; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    return want;
}

static bool utf8_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_sequence((const unsigned char *)text + i, len - i);
        if (step == 0)
            return false;
        i += step;
    }
    return true;
}

/* Decodes the escapes of text[0 .. len) in place. NULL, or a static sentence that says what is
 * wrong. */
static const char *unescape(char *text, size_t len, bool plus_is_space, size_t *ret_len)
{
    size_t out = 0;
    bool plain = true;
    for (size_t in = 0; in < len; in++) {
        char c = text[in];
        if (c == '+' && plus_is_space)
            c = ' ';
        if (c == '%') {
            int high = len - in > 2 ? hex_digit(text[in + 1]) : -1;
            int low = len - in > 2 ? hex_digit(text[in + 2]) : -1;
            if (high < 0 || low < 0)
                return "a percent sign is not followed by two hexadecimal digits";
            c = (char)(high * 16 + low);
            if ((unsigned char)c < 0x20 || c == 0x7f)
                return "the request target encodes a control character";
            in += 2;
        }
        plain = plain && (unsigned char)c < 0x80;
        text[out++] = c;
    }
    if (!plain && !utf8_valid(text, out))
        return "the request target is not UTF-8";
    *ret_len = out;
    return NULL;
}

/* True if %2f or %5c stands in the still encoded path. */
static bool hides_a_slash(const char *path, size_t len)
{
    for (size_t i = 0; i + 2 < len; i++) {
        if (path[i] != '%')
            continue;
        int byte = hex_digit(path[i + 1]) * 16 + hex_digit(path[i + 2]);
        if (byte == '/' || byte == '\\')
            return true;
    }
    return false;
}

static const char *check_segments(const char *path, size_t len)
{
    for (size_t at = 1; at < len;) {
        const char *slash = memchr(path + at, '/', len - at);
        size_t end = slash ? (size_t)(slash - path) : len;
        if (end == at)
            return "the path holds two slashes in a row";
        if (path[at] == '.' && (end - at == 1 || (end - at == 2 && path[at + 1] == '.')))
            return "the path holds a . or .. segment";
        at = end + 1;
    }
    return NULL;
}

enum sg_error http_path_decode(char *path, size_t len, size_t *ret_len, const char **ret_detail)
{
    const char *wrong = NULL;
    size_t out = len;
    if (memchr(path, '%', len)) {
        if (hides_a_slash(path, len))
            wrong = "the path encodes a slash or backslash";
        else
            wrong = unescape(path, len, false, &out);
    }
    if (!wrong)
        wrong = check_segments(path, out);
    if (wrong) {
        *ret_detail = wrong;
        return SG_MALFORMED;
    }
    *ret_len = out;
    return SG_OK;
}

/* One name or value, decoded and NUL-terminated in place; text[len] is writable. */
static const char *decode_part(char *text, size_t len)
{
    size_t out = 0;
    const char *wrong = unescape(text, len, true, &out);
    if (!wrong)
        text[out] = '\0';
    return wrong;
}

static const char *decode_param(char *pair, size_t len, struct http_param *param)
{
    char *equals = memchr(pair, '=', len);
    size_t name_len = equals ? (size_t)(equals - pair) : len;
    char *value = equals ? equals + 1 : pair + len;
    const char *wrong = decode_part(value, (size_t)(pair + len - value));
    if (!wrong)
        wrong = decode_part(pair, name_len);
    *param = (struct http_param){.name = pair, .value = value};
    return wrong;
}

static bool is_named(const struct http_param *params, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(params[i].name, name) == 0)
            return true;
    }
    return false;
}

enum sg_error http_query_decode(char *query, size_t len, struct http_param *params,
                                size_t *ret_count, const char **ret_detail)
{
    size_t count = 0;
    const char *wrong = NULL;
    for (size_t at = 0; at < len && !wrong;) {
        char *mark = memchr(query + at, '&', len - at);
        size_t end = mark ? (size_t)(mark - query) : len;
        if (end > at && count == HTTP_PARAMS_MAX) {
            wrong = "too many query parameters";
        } else if (end > at) {
            wrong = decode_param(query + at, end - at, &params[count]);
            if (!wrong && is_named(params, count, params[count].name))
                wrong = "a query parameter comes twice";
            count++;
        }
        at = end + 1;
    }
    if (wrong) {
        *ret_detail = wrong;
        return SG_MALFORMED;
    }
    *ret_count = count;
    return SG_OK;
}

/* --- addresses -------------------------------------------------------------------------------- */

enum sg_error http_address_split(const char *address, char ret_host[HTTP_HOST_MAX],
                                 char ret_port[HTTP_PORT_MAX])
{
    const char *colon = strrchr(address, ':');
    if (!colon)
        return SG_INVALID_VALUE;
    const char *host = address;
    size_t host_len = (size_t)(colon - address);
    if (host_len >= 2 && host[0] == '[' && host[host_len - 1] == ']') {
        host++;
        host_len -= 2;
    } else if (memchr(host, ':', host_len)) {
        return SG_INVALID_VALUE;
    }
    size_t port_len = strlen(colon + 1);
    if (host_len >= HTTP_HOST_MAX || port_len == 0 || port_len > 5 ||
        strspn(colon + 1, "0123456789") != port_len || strtol(colon + 1, NULL, 10) > 65535)
        return SG_INVALID_VALUE;
    memcpy(ret_host, host, host_len);
    ret_host[host_len] = '\0';
    memcpy(ret_port, colon + 1, port_len + 1);
    return SG_OK;
}
