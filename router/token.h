/*
 * Tokens: what a booking tells its client, so that a later read of theirs sees it. Pure.
 *
 *   SHARD.TIMELINE.LSN    alpha.1.16B3748    (timeline decimal, LSN hexadecimal, capitals)
 *
 * Opaque to clients. A read that brings one is answered by a node that has replayed the WAL of that
 * timeline up to the LSN, or by the primary (topology.h). A token is no secret and decides nothing.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_TOKEN_H
#define SG_ROUTER_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/router.h"

#define TOKEN_TEXT_SIZE (SHARDMAP_NAME_MAX + 30) /* of one token, with its NUL */

void token_format(const struct read_token *token, char ret_text[TOKEN_TEXT_SIZE]);
/* False and *ret_token untouched unless the text is exactly what token_format writes. */
bool token_parse(const char *text, size_t len, struct read_token *ret_token);

/* A header: one or several tokens between commas, blanks around them. Of several for one shard the
 * highest timeline and the highest LSN count, so there are at most `max` shards; *ret_count and
 * ret_tokens are untouched on failure. */
bool tokens_parse(const char *text, struct read_token *ret_tokens, size_t max, size_t *ret_count);
/* The one for the shard, or NULL. */
const struct read_token *tokens_find(const struct read_token *tokens, size_t count,
                                     const char *shard);

/* PostgreSQL's text of an LSN, "0/16B3748". False and *ret_lsn untouched if it is none. */
bool token_read_lsn(const char *text, uint64_t *ret_lsn);

/* From what a primary says of its WAL: an LSN ("0/16B3748") and the name of the file that it is in
 * ("000000010000000000000001", whose first eight digits are the timeline). `shard` is copied. */
bool token_from_wal(const char *shard, const char *lsn, const char *file,
                    struct read_token *ret_token);

#endif
