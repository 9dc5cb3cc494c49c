/*
 * What stands behind the head's syntax: chunked bodies, percent-encoding, addresses.
 *
 * Pure, like http_parse.h: bytes in, bytes or a precise refusal out. Path and query are decoded in
 * place, in the range that the caller owns, because decoding never makes anything longer.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HTTP_DECODE_H
#define SG_API_HTTP_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/http_parse.h"
#include "base/error.h"

struct dynbuf;

/* Chunk extensions and trailers are dropped; together they may take so many bytes a body. */
#define HTTP_CHUNKED_EXTRA_MAX 8192
#define HTTP_PARAMS_MAX 32

/*
 * A chunked body, as it arrives:
 *
 *   1*8HEXDIG [";" extension] CRLF data CRLF ... 1*8"0" [";" extension] CRLF *(trailer CRLF) CRLF
 */
struct http_chunked {
    enum {
        HTTP_CHUNK_SIZE,
        HTTP_CHUNK_EXTENSION,
        HTTP_CHUNK_SIZE_LF,
        HTTP_CHUNK_DATA,
        HTTP_CHUNK_DATA_CR,
        HTTP_CHUNK_DATA_LF,
        HTTP_TRAILER_START,
        HTTP_TRAILER_NAME,
        HTTP_TRAILER_VALUE,
        HTTP_TRAILER_LF,
        HTTP_CHUNKED_END_LF,
        HTTP_CHUNKED_DONE
    } at;
    uint64_t left;   /* bytes of this chunk still to come */
    unsigned digits; /* of this chunk's size, so far */
    size_t extra_bytes;
    enum sg_error error; /* for HTTP_REJECT */
    const char *detail;  /* static */
};

void http_chunked_init(struct http_chunked *chunked);
/* Takes bytes[0 .. *ret_used) and appends their data to `body`, whose max_len is the body limit.
 * HTTP_COMPLETE: the body has ended; what follows *ret_used belongs to the next request. */
enum http_verdict http_chunked_decode(struct http_chunked *chunked, const char *bytes, size_t len,
                                      struct dynbuf *body, size_t *ret_used);

/* Percent-decodes an absolute path in place. Refuses with SG_MALFORMED and a static *ret_detail:
 * bad escapes, encoded slashes, backslashes and control characters, "//", "." and ".." segments,
 * invalid UTF-8. *ret_len never exceeds len. */
enum sg_error http_path_decode(char *path, size_t len, size_t *ret_len, const char **ret_detail);

struct http_param {
    const char *name; /* decoded, NUL-terminated, inside the query's range */
    const char *value;
};

/* Splits and decodes name=value&name=value in place ('+' is a space). query[len] must be writable:
 * it takes the last NUL. Refuses with SG_MALFORMED: bad escapes, control characters, invalid UTF-8,
 * a name that comes twice, more than HTTP_PARAMS_MAX parameters. */
enum sg_error http_query_decode(char *query, size_t len, struct http_param *params,
                                size_t *ret_count, const char **ret_detail);

#define HTTP_HOST_MAX 256
#define HTTP_PORT_MAX 8

/* "host:port" or "[v6]:port" to its two halves, brackets removed; an empty host is allowed.
 * SG_INVALID_VALUE if it is neither. */
enum sg_error http_address_split(const char *address, char ret_host[HTTP_HOST_MAX],
                                 char ret_port[HTTP_PORT_MAX]);

#endif
