/*
 * Files that are part of the binary. See embedded.h.
 *
 * The assembler reads them with paths relative to the project root, where the compiler is started.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/embedded.h"

#include <stdint.h>
#include <stdio.h>

/* clang-format off */
#define EMBED(symbol, path)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".global " #symbol "_start\n"                                                          \
            ".global " #symbol "_end\n"                                                            \
            #symbol "_start:\n"                                                                    \
            ".incbin \"" path "\"\n"                                                               \
            #symbol "_end:\n"                                                                      \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const char symbol##_start[], symbol##_end[]
/* clang-format on */

EMBED(embedded_openapi, "api/openapi.json");
EMBED(embedded_docs, "api/docs.html");

const struct embedded embedded_openapi = {embedded_openapi_start, embedded_openapi_end};
const struct embedded embedded_docs = {embedded_docs_start, embedded_docs_end};

void embedded_etag(const struct embedded *file, char ret_etag[EMBEDDED_ETAG_SIZE])
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *p = file->start; p < file->end; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
    snprintf(ret_etag, EMBEDDED_ETAG_SIZE, "\"%016llx\"", (unsigned long long)hash);
}
