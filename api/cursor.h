/*
 * The opaque cursor of a paged list: the last id of a page, as base64url text with a check. Pure.
 *
 *   bytes  id (8, big-endian)  check (4, big-endian: FNV-1a of a format name and the id)
 *   text   16 characters of base64url, no padding
 *
 * The check catches a mistyped or foreign cursor; it is no secret.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_CURSOR_H
#define SG_API_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#define CURSOR_LEN 16

void cursor_write(int64_t last_id, char ret_text[CURSOR_LEN + 1]);
/* False and *ret_last_id untouched if cursor_write did not make it. */
bool cursor_parse(const char *text, int64_t *ret_last_id);

#endif
