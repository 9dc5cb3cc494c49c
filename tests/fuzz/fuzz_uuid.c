/*
 * Fuzzes uuid_parse: what it takes must come back as the same text, in lower case.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char back[UUID_TEXT_LEN + 1];
    struct uuid uuid;
    memcpy(text, data, size);
    text[size] = '\0';
    if (uuid_parse(text, &uuid)) {
        uuid_format(&uuid, back);
        if (strcasecmp(text, back) != 0)
            abort();
    }
    free(text);
    return 0;
}
