/*
 * Goal: what clients send back to us, tokens and cursors, is taken only if we could have made it.
 * Method: the input is read as a header of tokens, as the server's words about its WAL, and as each
 * kind of cursor; what is taken has to come out again letter for letter.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "api/cursor.h"
#include "router/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void check_token(const char *text)
{
    struct read_token token;
    char again[TOKEN_TEXT_SIZE];
    if (!token_parse(text, strlen(text), &token))
        return;
    token_format(&token, again);
    check(strcmp(text, again) == 0 && token.lsn > 0 && token.timeline > 0);
}

static void check_tokens(const char *text)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    size_t count = 0;
    if (!tokens_parse(text, tokens, 3, &count))
        return;
    check(count >= 1 && count <= 3);
    for (size_t i = 0; i < count; i++)
        check(tokens_find(tokens, count, tokens[i].shard) == &tokens[i]);
}

/* LSN and file between a blank. */
static void check_wal(char *text)
{
    struct read_token token;
    char *blank = strchr(text, ' ');
    if (!blank)
        return;
    *blank = '\0';
    if (token_from_wal("alpha", text, blank + 1, &token))
        check(token.lsn > 0 && token.timeline > 0);
    *blank = ' ';
}

static void check_cursors(const char *text)
{
    char again[CURSOR_PLACE_LEN + 1];
    struct ticket_place place;
    int64_t id;
    if (cursor_parse(text, &id)) {
        cursor_write(id, again);
        check(strcmp(text, again) == 0);
    }
    if (cursor_parse_place(text, &place)) {
        cursor_write_place(&place, again);
        check(strcmp(text, again) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    check_token(text);
    check_tokens(text);
    check_wal(text);
    check_cursors(text);
    free(text);
    return 0;
}
