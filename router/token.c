/*
 * Tokens. See token.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/token.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void token_format(const struct read_token *token, char ret_text[TOKEN_TEXT_SIZE])
{
    snprintf(ret_text, TOKEN_TEXT_SIZE, "%s.%" PRId32 ".%" PRIX64, token->shard, token->timeline,
             token->lsn);
}

static bool is_shard_name(const char *text, size_t len)
{
    if (len == 0 || len > SHARDMAP_NAME_MAX || strchr("_.-", text[0]))
        return false;
    for (size_t i = 0; i < len; i++) {
        bool ok = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') ||
                  strchr("_.-", text[i]);
        if (!ok)
            return false;
    }
    return true;
}

/* The last dot of text[0 .. len), or NULL. A shard's name may have some, too. */
static const char *last_dot(const char *text, size_t len)
{
    return memrchr(text, '.', len);
}

bool token_parse(const char *text, size_t len, struct read_token *ret_token)
{
    char copy[TOKEN_TEXT_SIZE] = "";
    char expected[TOKEN_TEXT_SIZE];
    if (len >= sizeof(copy) || memchr(text, '\0', len))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    const char *lsn = last_dot(copy, len);
    const char *timeline = lsn ? last_dot(copy, (size_t)(lsn - copy)) : NULL;
    if (!timeline || !is_shard_name(copy, (size_t)(timeline - copy)))
        return false;
    struct read_token token = {.lsn = strtoull(lsn + 1, NULL, 16)};
    long long number = strtoll(timeline + 1, NULL, 10);
    if (token.lsn == 0 || number < 1 || number > INT32_MAX)
        return false;
    token.timeline = (int32_t)number;
    memcpy(token.shard, copy, (size_t)(timeline - copy));
    token_format(&token, expected); /* one spelling only: no signs, blanks, leading zeros */
    if (strcmp(copy, expected) != 0)
        return false;
    *ret_token = token;
    return true;
}

/* What covers both covers the higher timeline and the higher LSN: a replica that is to follow a new
 * timeline tells of it while it still replays the old one, perhaps below what the other asks for.
 * False if there is no room for a further shard. */
static bool keep(struct read_token *tokens, size_t max, size_t *count,
                 const struct read_token *token)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(tokens[i].shard, token->shard) != 0)
            continue;
        if (token->timeline > tokens[i].timeline)
            tokens[i].timeline = token->timeline;
        if (token->lsn > tokens[i].lsn)
            tokens[i].lsn = token->lsn;
        return true;
    }
    if (*count == max)
        return false;
    tokens[(*count)++] = *token;
    return true;
}

bool tokens_parse(const char *text, struct read_token *ret_tokens, size_t max, size_t *ret_count)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    size_t count = 0;
    if (max > ROUTER_TOKENS_MAX)
        max = ROUTER_TOKENS_MAX;
    for (const char *at = text;; at++) {
        struct read_token token;
        at += strspn(at, " \t");
        const char *end = at + strcspn(at, ",");
        size_t len = (size_t)(end - at);
        while (len > 0 && isblank((unsigned char)at[len - 1]))
            len--;
        if (!token_parse(at, len, &token) || !keep(tokens, max, &count, &token))
            return false;
        at = end;
        if (!*at)
            break;
    }
    memcpy(ret_tokens, tokens, count * sizeof(tokens[0]));
    *ret_count = count;
    return true;
}

const struct read_token *tokens_find(const struct read_token *tokens, size_t count,
                                     const char *shard)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(tokens[i].shard, shard) == 0)
            return &tokens[i];
    }
    return NULL;
}

/* Hexadecimal digits up to `end`, at most eight. */
static bool read_hex(const char *text, const char *end, uint32_t *ret_value)
{
    uint32_t value = 0;
    if (end == text || end - text > 8)
        return false;
    for (; text < end; text++) {
        if (!isxdigit((unsigned char)*text))
            return false;
        int digit = isdigit((unsigned char)*text) ? *text - '0' : (*text | 0x20) - 'a' + 10;
        value = value << 4 | (uint32_t)digit;
    }
    *ret_value = value;
    return true;
}

bool token_read_lsn(const char *text, uint64_t *ret_lsn)
{
    uint32_t high;
    uint32_t low;
    const char *slash = strchr(text, '/');
    if (!slash || !read_hex(text, slash, &high) ||
        !read_hex(slash + 1, slash + strlen(slash), &low))
        return false;
    *ret_lsn = (uint64_t)high << 32 | low;
    return true;
}

bool token_from_wal(const char *shard, const char *lsn, const char *file,
                    struct read_token *ret_token)
{
    uint32_t timeline;
    struct read_token token = {.lsn = 0};
    if (!token_read_lsn(lsn, &token.lsn) || token.lsn == 0 || strlen(file) != 24 ||
        !read_hex(file, file + 8, &timeline) || timeline == 0 || timeline > INT32_MAX)
        return false;
    token.timeline = (int32_t)timeline;
    snprintf(token.shard, sizeof(token.shard), "%s", shard);
    *ret_token = token;
    return true;
}
