/*
 * Goal: no bytes make the request parser read past them, loop, or change its mind with the packets.
 * Method: the input is parsed whole and again cut at a place that the input itself names; verdict,
 * reason and every piece found must be the same. A complete head is then cut into path and query as
 * the edge does, and the rest is taken for its chunked body.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "api/http_decode.h"
#include "api/http_parse.h"
#include "base/dynbuf.h"

#define MAX_BYTES 2048
#define MAX_FIELDS 16
#define MAX_BODY 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

/* From a copy of exactly these bytes, so that the sanitizer sees any look past them. */
static enum http_verdict parse(struct http_head *head, const uint8_t *data, size_t len)
{
    char *copy = malloc(len ? len : 1);
    check(copy != NULL);
    memcpy(copy, data, len);
    enum http_verdict verdict = http_head_parse(head, copy, len);
    free(copy);
    return verdict;
}

static void check_span(struct http_span span, size_t head_len)
{
    check(span.at <= head_len && span.len <= head_len - span.at);
}

static void check_same(const struct http_head *a, const struct http_head *b)
{
    check(a->error == b->error && a->detail == b->detail && a->len == b->len);
    check(a->method == b->method && a->body == b->body && a->field_count == b->field_count);
    check(a->content_length == b->content_length && a->keep_alive == b->keep_alive);
    check(memcmp(&a->path, &b->path, sizeof a->path) == 0);
    check(memcmp(&a->query, &b->query, sizeof a->query) == 0);
    check(memcmp(a->fields, b->fields, a->field_count * sizeof *a->fields) == 0);
}

/* What a complete head promises. */
static void check_complete(const struct http_head *head, const uint8_t *data, size_t size)
{
    check(head->len <= size && head->len <= MAX_BYTES && head->field_count <= MAX_FIELDS);
    check(memcmp(data + head->len - 4, "\r\n\r\n", 4) == 0);
    check(!(head->has_length && head->has_transfer_encoding));
    check_span(head->path, head->len);
    check_span(head->query, head->len);
    for (size_t i = 0; i < head->field_count; i++) {
        check_span(head->fields[i].name, head->len);
        check_span(head->fields[i].value, head->len);
        check(head->fields[i].name.len > 0);
        check(!memchr(data + head->fields[i].value.at, '\n', head->fields[i].value.len));
    }
}

/* Path and query as the edge cuts them, in one copy of the head. */
static void decode_target(const struct http_head *head, const uint8_t *data)
{
    struct http_param params[HTTP_PARAMS_MAX];
    const char *detail = NULL;
    size_t count = 0;
    size_t len = head->path.len;
    char *copy = malloc(head->len);
    check(copy != NULL);
    memcpy(copy, data, head->len);
    enum sg_error error = SG_OK;
    if (len)
        error = http_path_decode(copy + head->path.at, len, &len, &detail);
    check(error == SG_OK ? len <= head->path.len : detail != NULL);
    if (error == SG_OK)
        check(!memchr(copy + head->path.at, '\0', len) &&
              !memmem(copy + head->path.at, len, "//", 2));
    if (error == SG_OK && head->query.len)
        error = http_query_decode(copy + head->query.at, head->query.len, params, &count, &detail);
    for (size_t i = 0; i < count; i++)
        check(strlen(params[i].name) + strlen(params[i].value) <= head->query.len);
    free(copy);
}

static void decode_body(const uint8_t *data, size_t size)
{
    struct http_chunked chunked;
    struct dynbuf body;
    size_t used = 0;
    http_chunked_init(&chunked);
    dynbuf_init(&body, MAX_BODY);
    enum http_verdict verdict =
        http_chunked_decode(&chunked, (const char *)data, size, &body, &used);
    check(used <= size && body.len <= MAX_BODY);
    check(verdict != HTTP_NEED_MORE || used == size);
    dynbuf_done(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_field whole_fields[MAX_FIELDS];
    struct http_field split_fields[MAX_FIELDS];
    struct http_head whole;
    struct http_head split;
    if (size == 0)
        return 0;
    size_t cut = data[0] * (size - 1) / 255;
    data++;
    size--;
    http_head_init(&whole, MAX_BYTES, whole_fields, MAX_FIELDS);
    enum http_verdict verdict = parse(&whole, data, size);
    http_head_init(&split, MAX_BYTES, split_fields, MAX_FIELDS);
    enum http_verdict second = parse(&split, data, cut);
    if (second == HTTP_NEED_MORE)
        second = parse(&split, data, size);
    check(verdict == second);
    check_same(&whole, &split);
    check((verdict == HTTP_REJECT) == (whole.error != SG_OK));
    if (verdict == HTTP_COMPLETE) {
        check_complete(&whole, data, size);
        decode_target(&whole, data);
        if (whole.body == HTTP_BODY_CHUNKED)
            decode_body(data + whole.len, size - whole.len);
    }
    return 0;
}
