/*
 * The head of one HTTP/1.x request. See http_parse.h.
 *
 *   bytes ─> complete lines ─> request line ─> field lines ─> empty line ─> what they mean together
 *
 * Each line is looked at once, when its CRLF is there; a partial line is only searched for its end.
 * The one early look is at the very first byte, so that what is not HTTP (a TLS hello) is refused
 * without waiting for a line end that never comes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/http_parse.h"

#include <string.h>

/* Where a byte may stand. */
enum {
    T = 1,  /* token: method, field name */
    V = 2,  /* field value */
    P = 4,  /* path of a target */
    Q = 8,  /* query of a target */
    H = 16, /* Host */
    ALL = T | V | P | Q | H
};

static const uint8_t char_class[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = ALL,
    ['"'] = V,
    ['#'] = T | V,
    ['$' ... '\''] = ALL,
    ['(' ... ')'] = V | P | Q | H,
    ['*' ... '+'] = ALL,
    [','] = V | P | Q | H,
    ['-' ... '.'] = ALL,
    ['/'] = V | P | Q,
    ['0' ... '9'] = ALL,
    [':' ... ';'] = V | P | Q | H,
    ['<'] = V,
    ['='] = V | P | Q | H,
    ['>'] = V,
    ['?'] = V | Q,
    ['@'] = V | P | Q,
    ['A' ... 'Z'] = ALL,
    ['['] = V | Q | H,
    ['\\'] = V,
    [']'] = V | Q | H,
    ['^'] = T | V,
    ['_'] = ALL,
    ['`'] = T | V,
    ['a' ... 'z'] = ALL,
    ['{'] = V,
    ['|'] = T | V,
    ['}'] = V,
    ['~'] = ALL,
    [0x80 ... 0xff] = V,
};

static bool is(char c, unsigned classes)
{
    return (char_class[(unsigned char)c] & classes) != 0;
}

/* Length of the leading part of bytes[0 .. len) that is of the class. */
static size_t span_of(const char *bytes, size_t len, unsigned classes)
{
    size_t i = 0;
    while (i < len && is(bytes[i], classes))
        i++;
    return i;
}

bool http_is_token_char(char c)
{
    return is(c, T);
}

bool http_is_value_char(char c)
{
    return is(c, V);
}

bool http_equals_nocase(const char *bytes, size_t len, const char *lower)
{
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != lower[i] || c == '\0')
            return false;
    }
    return lower[len] == '\0';
}

void http_head_init(struct http_head *head, size_t max_bytes, struct http_field *fields,
                    size_t max_fields)
{
    *head = (struct http_head){.method = HTTP_METHOD_OTHER,
                               .version_minor = 1,
                               .fields = fields,
                               .max_bytes = max_bytes,
                               .max_fields = max_fields};
}

static enum http_verdict reject(struct http_head *head, enum sg_error error, const char *detail)
{
    head->error = error;
    head->detail = detail;
    return HTTP_REJECT;
}

static enum http_verdict malformed(struct http_head *head, const char *detail)
{
    return reject(head, SG_MALFORMED, detail);
}

static struct http_span span_between(const char *bytes, const char *from, const char *to)
{
    return (struct http_span){.at = (uint32_t)(from - bytes), .len = (uint32_t)(to - from)};
}

static enum http_method method_of(const char *name, size_t len)
{
    static const struct {
        const char *name;
        enum http_method method;
    } known[] = {{"GET", HTTP_GET},        {"HEAD", HTTP_HEAD},     {"POST", HTTP_POST},
                 {"PUT", HTTP_PUT},        {"DELETE", HTTP_DELETE}, {"PATCH", HTTP_PATCH},
                 {"OPTIONS", HTTP_OPTIONS}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            return known[i].method;
    }
    return HTTP_METHOD_OTHER;
}

/* "HTTP/1.x" and nothing else. */
static enum http_verdict parse_version(struct http_head *head, const char *text, size_t len)
{
    if (len != 8 || memcmp(text, "HTTP/", 5) != 0 || text[5] < '0' || text[5] > '9' ||
        text[6] != '.' || text[7] < '0' || text[7] > '9')
        return malformed(head, "the request line is not METHOD SP target SP HTTP/1.x");
    if (text[5] != '1')
        return reject(head, SG_HTTP_VERSION, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    head->version_minor = text[7] - '0';
    return HTTP_COMPLETE;
}

/* [ path ] [ "?" query ] */
static enum http_verdict parse_path(struct http_head *head, const char *bytes, const char *from,
                                    const char *end)
{
    const char *path_end = from + span_of(from, (size_t)(end - from), P);
    head->path = span_between(bytes, from, path_end);
    const char *stop = path_end;
    if (path_end < end && *path_end == '?') {
        stop = path_end + 1 + span_of(path_end + 1, (size_t)(end - path_end - 1), Q);
        head->query = span_between(bytes, path_end + 1, stop);
    }
    if (stop == end)
        return HTTP_COMPLETE;
    if (*stop == '#')
        return malformed(head, "the request target carries a fragment");
    return malformed(head, "the request target holds a character that must be percent-encoded");
}

/* http://authority[/path][?query], as a proxy would send it; the authority is not used. */
static enum http_verdict parse_absolute(struct http_head *head, const char *bytes, const char *from,
                                        const char *end)
{
    size_t authority = span_of(from, (size_t)(end - from), H);
    const char *behind = from + authority;
    if (authority == 0)
        return malformed(head, "the absolute request target names no host");
    if (behind < end && *behind != '/' && *behind != '?')
        return malformed(head, "the absolute request target has a bad authority");
    return parse_path(head, bytes, behind, end);
}

static enum http_verdict parse_target(struct http_head *head, const char *bytes, const char *from,
                                      const char *end)
{
    size_t len = (size_t)(end - from);
    if (len == 0)
        return malformed(head, "the request line is not METHOD SP target SP HTTP/1.x");
    if (from[0] == '/')
        return parse_path(head, bytes, from, end);
    if (len == 1 && from[0] == '*') {
        if (head->method != HTTP_OPTIONS)
            return malformed(head, "the target * is for OPTIONS only");
        head->path = span_between(bytes, from, end);
        return HTTP_COMPLETE;
    }
    if (head->method_name.len == 7 && memcmp(bytes + head->method_name.at, "CONNECT", 7) == 0)
        return reject(head, SG_NOT_IMPLEMENTED, "CONNECT is not implemented");
    if (len > 7 && http_equals_nocase(from, 7, "http://"))
        return parse_absolute(head, bytes, from + 7, end);
    if (len > 8 && http_equals_nocase(from, 8, "https://"))
        return parse_absolute(head, bytes, from + 8, end);
    return malformed(head, "the request target does not begin with a slash");
}

static enum http_verdict parse_request_line(struct http_head *head, const char *bytes,
                                            const char *line, const char *end)
{
    const char *method_end = line + span_of(line, (size_t)(end - line), T);
    if (method_end == end || *method_end != ' ' || method_end == line)
        return malformed(head, "the request line is not METHOD SP target SP HTTP/1.x");
    head->method_name = span_between(bytes, line, method_end);
    head->method = method_of(line, (size_t)(method_end - line));
    const char *target = method_end + 1;
    const char *target_end = memchr(target, ' ', (size_t)(end - target));
    if (!target_end)
        return malformed(head, "the request line names no HTTP version");
    enum http_verdict verdict = parse_version(head, target_end + 1, (size_t)(end - target_end - 1));
    if (verdict != HTTP_COMPLETE)
        return verdict;
    return parse_target(head, bytes, target, target_end);
}

static enum http_verdict meet_host(struct http_head *head, const char *value, size_t len)
{
    if (head->has_host)
        return malformed(head, "two Host headers");
    head->has_host = true;
    if (span_of(value, len, H) != len)
        return malformed(head, "the Host header is not a host and port");
    return HTTP_COMPLETE;
}

static enum http_verdict meet_content_length(struct http_head *head, const char *value, size_t len)
{
    if (head->has_length)
        return malformed(head, "two Content-Length headers");
    head->has_length = true;
    if (len == 0)
        return malformed(head, "Content-Length is empty");
    uint64_t length = 0;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return malformed(head, "Content-Length is not a plain decimal number");
        uint64_t digit = (uint64_t)(value[i] - '0');
        bool fits = length <= (UINT64_MAX - digit) / 10;
        length = fits ? length * 10 + digit : UINT64_MAX;
    }
    head->content_length = length;
    return HTTP_COMPLETE;
}

static enum http_verdict meet_transfer_encoding(struct http_head *head, const char *value,
                                                size_t len)
{
    if (head->has_transfer_encoding)
        return malformed(head, "two Transfer-Encoding headers");
    head->has_transfer_encoding = true;
    if (!http_equals_nocase(value, len, "chunked"))
        return reject(head, SG_NOT_IMPLEMENTED, "the only Transfer-Encoding here is chunked");
    return HTTP_COMPLETE;
}

static void meet_connection(struct http_head *head, const char *value, size_t len)
{
    const char *end = value + len;
    while (value < end) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *stop = comma ? comma : end;
        const char *next = comma ? comma + 1 : end;
        while (value < stop && (*value == ' ' || *value == '\t'))
            value++;
        while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        if (http_equals_nocase(value, (size_t)(stop - value), "close"))
            head->wants_close = true;
        else if (http_equals_nocase(value, (size_t)(stop - value), "keep-alive"))
            head->wants_keep_alive = true;
        value = next;
    }
}

static enum http_verdict meet_expect(struct http_head *head, const char *value, size_t len)
{
    if (!http_equals_nocase(value, len, "100-continue"))
        return malformed(head, "the only Expect here is 100-continue");
    head->expect_continue = true;
    return HTTP_COMPLETE;
}

/* The few fields that mean something to the edge itself. */
static enum http_verdict meet_field(struct http_head *head, const char *name, size_t name_len,
                                    const char *value, size_t len)
{
    switch (name_len) {
    case 4:
        if (http_equals_nocase(name, name_len, "host"))
            return meet_host(head, value, len);
        break;
    case 6:
        if (http_equals_nocase(name, name_len, "expect"))
            return meet_expect(head, value, len);
        break;
    case 10:
        if (http_equals_nocase(name, name_len, "connection"))
            meet_connection(head, value, len);
        break;
    case 14:
        if (http_equals_nocase(name, name_len, "content-length"))
            return meet_content_length(head, value, len);
        break;
    case 17:
        if (http_equals_nocase(name, name_len, "transfer-encoding"))
            return meet_transfer_encoding(head, value, len);
        break;
    default:
        break;
    }
    return HTTP_COMPLETE;
}

static enum http_verdict bad_name(struct http_head *head, char c)
{
    if (c == ' ' || c == '\t')
        return malformed(head, "header name followed by a space");
    return malformed(head, "a header name holds a character that is no token");
}

static enum http_verdict bad_value(struct http_head *head, char c)
{
    if (c == '\0')
        return malformed(head, "a NUL in a header value");
    if (c == '\r')
        return malformed(head, "a bare CR in a header value");
    return malformed(head, "a control character in a header value");
}

static enum http_verdict parse_field(struct http_head *head, const char *bytes, const char *line,
                                     const char *end)
{
    if (*line == ' ' || *line == '\t')
        return malformed(head, "a header line is folded or begins with white space");
    const char *name_end = line + span_of(line, (size_t)(end - line), T);
    if (name_end == end)
        return malformed(head, "a header line without a colon");
    if (*name_end != ':')
        return bad_name(head, *name_end);
    if (name_end == line)
        return malformed(head, "a header line without a name");
    const char *value = name_end + 1;
    size_t fine = span_of(value, (size_t)(end - value), V);
    if (value + fine != end)
        return bad_value(head, value[fine]);
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (head->field_count == head->max_fields)
        return reject(head, SG_HEADERS_TOO_LARGE, "too many header lines");
    head->fields[head->field_count++] = (struct http_field){
        .name = span_between(bytes, line, name_end), .value = span_between(bytes, value, end)};
    return meet_field(head, line, (size_t)(name_end - line), value, (size_t)(end - value));
}

/* The empty line is there: what do the lines mean together? */
static enum http_verdict conclude(struct http_head *head)
{
    if (head->version_minor >= 1 && !head->has_host)
        return malformed(head, "no Host header");
    if (head->has_transfer_encoding) {
        if (head->version_minor == 0)
            return malformed(head, "Transfer-Encoding in an HTTP/1.0 request");
        if (head->has_length)
            return malformed(head, "both Content-Length and Transfer-Encoding");
        head->body = HTTP_BODY_CHUNKED;
    } else if (head->has_length) {
        head->body = HTTP_BODY_LENGTH;
    }
    if (head->version_minor == 0)
        head->expect_continue = false;
    head->keep_alive = !head->wants_close && (head->version_minor >= 1 || head->wants_keep_alive);
    return HTTP_COMPLETE;
}

/* Skips the one empty line that RFC 9112 2.2 tolerates and looks at the first byte that counts. */
static enum http_verdict start(struct http_head *head, const char *bytes, size_t len)
{
    if (len == 0)
        return HTTP_NEED_MORE;
    if (bytes[0] == '\r') {
        if (len < 2)
            return HTTP_NEED_MORE;
        if (bytes[1] == '\n')
            head->line = head->scanned = 2;
        if (len == head->line)
            return HTTP_NEED_MORE;
    }
    if (!is(bytes[head->line], T)) {
        if (bytes[head->line] == 0x16)
            return malformed(head, "this is a TLS handshake; plain HTTP is spoken here");
        return malformed(head, "the request does not begin with a method");
    }
    head->at = HTTP_AT_REQUEST_LINE;
    return HTTP_COMPLETE;
}

static enum http_verdict too_long(struct http_head *head)
{
    if (head->at == HTTP_AT_REQUEST_LINE)
        return reject(head, SG_URI_TOO_LONG, "the request line is longer than the header may be");
    return reject(head, SG_HEADERS_TOO_LARGE, "the header is larger than allowed");
}

/* One complete line, its CRLF excluded. Sets *ret_done at the empty line. */
static enum http_verdict parse_line(struct http_head *head, const char *bytes, const char *line,
                                    const char *end, bool *ret_done)
{
    if (head->at == HTTP_AT_REQUEST_LINE) {
        head->at = HTTP_AT_FIELDS;
        return parse_request_line(head, bytes, line, end);
    }
    if (line < end)
        return parse_field(head, bytes, line, end);
    *ret_done = true;
    return conclude(head);
}

enum http_verdict http_head_parse(struct http_head *head, const char *bytes, size_t len)
{
    if (head->error != SG_OK)
        return HTTP_REJECT;
    if (head->at == HTTP_AT_START) {
        enum http_verdict verdict = start(head, bytes, len);
        if (verdict != HTTP_COMPLETE)
            return verdict;
    }
    for (bool done = false; !done;) {
        const char *feed = memchr(bytes + head->scanned, '\n', len - head->scanned);
        size_t end = feed ? (size_t)(feed - bytes) + 1 : len;
        if (end > head->max_bytes)
            return too_long(head);
        if (!feed) {
            head->scanned = len;
            return HTTP_NEED_MORE;
        }
        if (end - head->line < 2 || feed[-1] != '\r')
            return malformed(head, "a line ends with a bare LF");
        enum http_verdict verdict = parse_line(head, bytes, bytes + head->line, feed - 1, &done);
        if (verdict != HTTP_COMPLETE)
            return verdict;
        head->line = head->scanned = end;
    }
    head->len = head->line;
    return HTTP_COMPLETE;
}
