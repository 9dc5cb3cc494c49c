/*
 * SHA-1 (RFC 3174): the name under which Redis knows a script. Not for secrets. Pure.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_SHA1_H
#define SG_BASE_SHA1_H

#include <stddef.h>

#define SHA1_HEX_LEN 40

/* In lower case, NUL-terminated. */
void sha1_hex(const void *bytes, size_t len, char ret_hex[SHA1_HEX_LEN + 1]);

#endif
