/*
 * Files that are part of the binary: the OpenAPI document and the page that shows it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_EMBEDDED_H
#define SG_API_EMBEDDED_H

#include <stddef.h>

#define EMBEDDED_ETAG_SIZE 24

/* Of the text between <script> and </script> in api/docs.html, base64; app_fake_router_test says
 * what it must be after a change of the page. */
#define DOCS_SCRIPT_SHA256 "oK6o0/mG4LfnCpjf8VD71kD1CgjTJPbMvBK5Ffk+uXM="

struct embedded {
    const char *start;
    const char *end;
};

extern const struct embedded embedded_openapi; /* api/openapi.json */
extern const struct embedded embedded_docs;    /* api/docs.html */

static inline size_t embedded_len(const struct embedded *file)
{
    return (size_t)(file->end - file->start);
}

/* A strong entity tag of the content, with quotes. */
void embedded_etag(const struct embedded *file, char ret_etag[EMBEDDED_ETAG_SIZE]);

#endif
