/*
 * Ids and numbers as they stand in paths, queries and headers: text to value, strictly. Pure.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_IDS_H
#define SG_API_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDS_UUID_LEN 36

/* Decimal digits alone, no sign, no leading zero (but "0"), at most INT64_MAX. False and *ret_value
 * untouched otherwise. */
bool ids_parse_number(const char *text, size_t len, int64_t *ret_value);
/* A number from 1 to INT64_MAX. */
bool ids_parse_event(const char *text, size_t len, int64_t *ret_event_id);
/* 8-4-4-4-12 hexadecimal digits; written in lower case. */
bool ids_parse_uuid(const char *text, size_t len, char ret_uuid[IDS_UUID_LEN + 1]);
/* Of what ids_parse_uuid gave: the version of RFC 9562, and what time version 7 has in it,
 * milliseconds since 1970 UTC. */
int ids_uuid_version(const char *uuid);
int64_t ids_uuid_v7_ms(const char *uuid);
/* 1 to max bytes of printable ASCII (0x20 to 0x7e). */
bool ids_is_printable_ascii(const char *text, size_t max);

#endif
