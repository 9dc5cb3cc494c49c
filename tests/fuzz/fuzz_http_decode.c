/*
 * Goal: no bytes make the decoders of chunked bodies, paths, queries and addresses read past them,
 * write past them, or break their word.
 * Method: the first byte picks the decoder and the split. A chunked body gives the same verdict,
 * data and end whole and split; what a path or query decodes to keeps the promises of the header.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "api/http_decode.h"
#include "base/dynbuf.h"

#define MAX_BODY 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void fuzz_chunked(const char *bytes, size_t size, size_t cut)
{
    struct http_chunked whole;
    struct http_chunked split;
    struct dynbuf whole_body;
    struct dynbuf split_body;
    size_t whole_used = 0;
    size_t split_used = 0;
    size_t more = 0;
    http_chunked_init(&whole);
    http_chunked_init(&split);
    dynbuf_init(&whole_body, MAX_BODY);
    dynbuf_init(&split_body, MAX_BODY);
    enum http_verdict verdict = http_chunked_decode(&whole, bytes, size, &whole_body, &whole_used);
    enum http_verdict second = http_chunked_decode(&split, bytes, cut, &split_body, &split_used);
    if (second == HTTP_NEED_MORE) {
        check(split_used == cut);
        second = http_chunked_decode(&split, bytes + cut, size - cut, &split_body, &more);
    }
    check(verdict == second && whole.error == split.error && whole.detail == split.detail);
    check(whole_used == split_used + more && whole_used <= size);
    check(whole_body.len <= MAX_BODY && whole_body.len == split_body.len);
    check(strcmp(dynbuf_text(&whole_body), dynbuf_text(&split_body)) == 0);
    dynbuf_done(&whole_body);
    dynbuf_done(&split_body);
}

static void fuzz_path(const char *bytes, size_t size)
{
    const char *detail = NULL;
    size_t len = size;
    char *path = malloc(size + 1);
    check(path != NULL);
    path[0] = '/';
    memcpy(path + 1, bytes, size);
    enum sg_error error = http_path_decode(path, size + 1, &len, &detail);
    if (error == SG_OK) {
        check(len <= size + 1 && path[0] == '/');
        check(!memmem(path, len, "//", 2) && !memmem(path, len, "/../", 4));
        check(!memmem(path, len, "/./", 3));
    } else {
        check(error == SG_MALFORMED && detail != NULL);
    }
    free(path);
}

static void fuzz_query(const char *bytes, size_t size)
{
    struct http_param params[HTTP_PARAMS_MAX];
    const char *detail = NULL;
    size_t count = 0;
    char *query = malloc(size + 1);
    check(query != NULL);
    memcpy(query, bytes, size);
    query[size] = 'x';
    enum sg_error error = http_query_decode(query, size, params, &count, &detail);
    check(error == SG_OK ? count <= HTTP_PARAMS_MAX : count == 0 && detail != NULL);
    for (size_t i = 0; i < count; i++) {
        check(params[i].name >= query && params[i].name + strlen(params[i].name) <= query + size);
        check(params[i].value + strlen(params[i].value) <= query + size);
        for (size_t j = 0; j < i; j++)
            check(strcmp(params[i].name, params[j].name) != 0);
    }
    free(query);
}

static void fuzz_address(const char *bytes, size_t size)
{
    char host[HTTP_HOST_MAX];
    char port[HTTP_PORT_MAX];
    char *address = strndup(bytes, size);
    check(address != NULL);
    if (http_address_split(address, host, port) == SG_OK)
        check(strlen(host) < HTTP_HOST_MAX && atoi(port) >= 0 && atoi(port) <= 65535);
    free(address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *bytes = (const char *)data + 1;
    size_t cut = (data[0] >> 2) * (size - 1) / 63;
    switch (data[0] & 3) {
    case 0:
        fuzz_chunked(bytes, size - 1, cut);
        break;
    case 1:
        fuzz_path(bytes, size - 1);
        break;
    case 2:
        fuzz_query(bytes, size - 1);
        break;
    default:
        fuzz_address(bytes, size - 1);
        break;
    }
    return 0;
}
