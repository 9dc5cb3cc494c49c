/*
 * The opaque cursor of a paged list: where a page ended, as base64url text with a check. Pure.
 *
 *   list of events   id (8)                                         check (4)    16 characters
 *   my tickets       start in microseconds (8)  event (8)  UUID (16)  check (4)  48 characters
 *
 * Numbers are big-endian; the check is FNV-1a of the format's name and what stands before it; the
 * text is base64url, and the bytes are a multiple of three, so there is no padding.
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
#define CURSOR_PLACE_LEN 48

struct ticket_place;

void cursor_write(int64_t last_id, char ret_text[CURSOR_LEN + 1]);
/* False and *ret_last_id untouched if cursor_write did not make it. */
bool cursor_parse(const char *text, int64_t *ret_last_id);

void cursor_write_place(const struct ticket_place *place, char ret_text[CURSOR_PLACE_LEN + 1]);
/* False and *ret_place untouched if cursor_write_place did not make it. */
bool cursor_parse_place(const char *text, struct ticket_place *ret_place);

#endif
