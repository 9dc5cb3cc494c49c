/*
 * The gate in front of libconfig. See cfgscan.h.
 *
 *   bytes ── next_token ──> name = : , ; { } ( ) [ ] string number boolean end
 *         ── step ────────> what may stand where, one state and a stack of open brackets
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/cfgscan.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/dynbuf.h"

enum token {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_EQUALS,
    TOKEN_COMMA,
    TOKEN_SEMICOLON,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_STRING,
    TOKEN_SCALAR,
    TOKEN_BAD
};

enum wanted {
    WANT_NAME,   /* in a group, behind its brace or a terminator */
    WANT_EQUALS, /* behind a name */
    WANT_VALUE,  /* behind = or, in a list, behind a comma */
    WANT_FIRST,  /* in a list, behind its bracket: a value or the end */
    WANT_NEXT    /* behind a value */
};

struct scan {
    const char *at;
    const char *end;
    struct dynbuf *out;
    const char *copied; /* up to here the text is in `out` */
    const char *token;  /* where the last token begins */
    size_t token_len;
    int line;
    enum wanted wanted;
    bool after_string; /* strings one behind another are one string */
    int depth;
    char open[CFGSCAN_DEPTH_MAX + 1]; /* '{' for the file itself */
    int open_line[CFGSCAN_DEPTH_MAX + 1];
    int keys[CFGSCAN_DEPTH_MAX + 1];
    struct cfgscan_problem problem;
};

__attribute__((format(printf, 2, 3))) static enum token bad(struct scan *scan, const char *format,
                                                            ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(scan->problem.text, sizeof(scan->problem.text), format, args);
    va_end(args);
    scan->problem.line = scan->line;
    return TOKEN_BAD;
}

/* ASCII whatever the locale says. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static char peek(const struct scan *scan, size_t ahead)
{
    return (size_t)(scan->end - scan->at) > ahead ? scan->at[ahead] : '\0';
}

/* --- bytes ------------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 sequence at p, 0 if it is none. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] >= 0xa0;
    bool beyond = p[0] == 0xf4 && p[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : len;
}

static bool check_bytes(struct scan *scan)
{
    const unsigned char *p = (const unsigned char *)scan->at;
    const unsigned char *end = (const unsigned char *)scan->end;
    for (size_t len; p < end; p += len) {
        len = *p - 1u < 0x7f ? 1 : utf8_len(p, (size_t)(end - p));
        if (len == 0 || *p == '\0') {
            bad(scan, "syntax: byte 0x%02x is not text; save the file as UTF-8", *p);
            return false;
        }
        scan->line += *p == '\n';
    }
    scan->line = 1;
    return true;
}

/* --- tokens ----------------------------------------------------------------------------------- */

static bool skip_block_comment(struct scan *scan)
{
    int opened = scan->line;
    for (scan->at += 2; scan->at < scan->end; scan->at++) {
        if (scan->at[0] == '*' && peek(scan, 1) == '/') {
            scan->at += 2;
            return true;
        }
        if (scan->at[0] == '\n')
            scan->line++;
    }
    scan->line = opened;
    bad(scan, "syntax: the comment that starts here has no end; close it with */");
    return false;
}

/* Blanks and comments. False if a comment has no end. */
static bool skip_blank(struct scan *scan)
{
    while (scan->at < scan->end) {
        char c = *scan->at;
        if (c == '#' || (c == '/' && peek(scan, 1) == '/')) {
            while (scan->at < scan->end && *scan->at != '\n')
                scan->at++;
        } else if (c == '/' && peek(scan, 1) == '*') {
            if (!skip_block_comment(scan))
                return false;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\n') {
            scan->line += c == '\n';
            scan->at++;
        } else {
            break;
        }
    }
    return true;
}

/* `\xHH` must stand for one ASCII character: more would not be UTF-8, zero would cut the string. */
static bool escape_is_text(const struct scan *scan)
{
    if ((peek(scan, 1) | 0x20) != 'x' || !is_hex(peek(scan, 2)) || !is_hex(peek(scan, 3)))
        return true;
    char digits[3] = {scan->at[2], scan->at[3], '\0'};
    long value = strtol(digits, NULL, 16);
    return value > 0 && value < 0x80;
}

static enum token next_string(struct scan *scan)
{
    for (scan->at++; scan->at < scan->end; scan->at++) {
        char c = *scan->at;
        if (c == '"') {
            scan->at++;
            return TOKEN_STRING;
        }
        if (c == '\n')
            break;
        if (c != '\\')
            continue;
        if (!escape_is_text(scan))
            return bad(scan, "syntax: %.4s is no character; write the character itself", scan->at);
        if (peek(scan, 1) == '"' || peek(scan, 1) == '\\')
            scan->at++;
    }
    return bad(scan, "syntax: a string has no end; close it with \" on the same line");
}

/* Takes the text up to here over into the output. */
static void copy_text(struct scan *scan)
{
    dynbuf_add(scan->out, scan->copied, (size_t)(scan->at - scan->copied));
    scan->copied = scan->at;
}

/* Value of a digit in base 10 or 16, or -1. */
static int digit_value(char c, int base)
{
    if (is_digit(c))
        return c - '0';
    return base == 16 && is_hex(c) ? (c | 0x20) - 'a' + 10 : -1;
}

/* Behind what began like a number, to show all of it in a message. */
static enum token bad_number(struct scan *scan, const char *reason)
{
    while (is_digit(peek(scan, 0)) || is_letter(peek(scan, 0)) || peek(scan, 0) == '.')
        scan->at++;
    size_t len = (size_t)(scan->at - scan->token);
    return bad(scan, "syntax: %.*s%s %s", (int)(len < 60 ? len : 60), scan->token,
               len > 60 ? "..." : "", reason);
}

/* Whole numbers only, and of 64 bits. libconfig needs to be told of those beyond 32. */
static enum token next_number(struct scan *scan)
{
    bool negative = *scan->at == '-';
    int base = *scan->at == '0' && (peek(scan, 1) | 0x20) == 'x' ? 16 : 10;
    if (base == 16)
        scan->at += 2;
    else if (negative || *scan->at == '+')
        scan->at++;

    const char *digits = scan->at;
    int64_t value = 0; /* below zero, where there is room for one more */
    bool overflow = false;
    for (int digit; (digit = digit_value(peek(scan, 0), base)) >= 0; scan->at++)
        overflow |= __builtin_mul_overflow(value, base, &value) ||
                    __builtin_sub_overflow(value, digit, &value);
    size_t digit_count = (size_t)(scan->at - digits);
    bool wide = peek(scan, 0) == 'L';
    const char *end = scan->at;
    if (wide)
        scan->at += peek(scan, 1) == 'L' ? 2 : 1;

    if (digit_count == 0 || is_letter(peek(scan, 0)) || is_digit(peek(scan, 0)) ||
        peek(scan, 0) == '.')
        return bad_number(scan, "is not a whole number; write digits only");
    if (base == 10 && digits[0] == '0' && end - digits > 1)
        return bad_number(scan, "starts with a zero; write it without");
    if (overflow || (!negative && value == INT64_MIN))
        return bad_number(scan, "does not fit into 64 bits; the largest is 9223372036854775807");
    if (!wide && (value < -INT32_MAX || value > INT32_MAX)) {
        copy_text(scan);
        dynbuf_addc(scan->out, 'L');
    }
    return TOKEN_SCALAR;
}

static enum token next_word(struct scan *scan)
{
    while (scan->at < scan->end &&
           (is_letter(*scan->at) || is_digit(*scan->at) || *scan->at == '-' || *scan->at == '_'))
        scan->at++;
    scan->token_len = (size_t)(scan->at - scan->token);
    bool is_true = scan->token_len == 4 && strncasecmp(scan->token, "true", 4) == 0;
    bool is_false = scan->token_len == 5 && strncasecmp(scan->token, "false", 5) == 0;
    return is_true || is_false ? TOKEN_SCALAR : TOKEN_NAME;
}

static enum token next_token(struct scan *scan)
{
    if (!skip_blank(scan))
        return TOKEN_BAD;
    scan->token = scan->at;
    scan->token_len = 1;
    if (scan->at == scan->end)
        return TOKEN_END;
    char c = *scan->at;
    if (c == '"')
        return next_string(scan);
    if (is_digit(c) || c == '+' || c == '-' || c == '.')
        return next_number(scan);
    if (is_letter(c))
        return next_word(scan);
    if (c == '@')
        return bad(scan, "syntax: @include is not supported; put everything into one file");
    scan->at++;
    switch (c) {
    case '=':
    case ':':
        return TOKEN_EQUALS;
    case ',':
        return TOKEN_COMMA;
    case ';':
        return TOKEN_SEMICOLON;
    case '{':
    case '(':
    case '[':
        return TOKEN_OPEN;
    case '}':
    case ')':
    case ']':
        return TOKEN_CLOSE;
    default:
        scan->at--;
        size_t len = utf8_len((const unsigned char *)scan->at, (size_t)(scan->end - scan->at));
        if ((unsigned char)c < 0x20 || c == 0x7f)
            return bad(scan, "syntax: control character 0x%02x; remove it", (unsigned char)c);
        return bad(scan, "syntax: unexpected %.*s; strings stand in double quotes", (int)len,
                   scan->at);
    }
}

/* --- grammar ---------------------------------------------------------------------------------- */

static char closing(char open)
{
    return open == '{' ? '}' : open == '(' ? ')' : ']';
}

static bool unexpected(struct scan *scan, enum token token, const char *wanted)
{
    int len = scan->token_len < 40 ? (int)scan->token_len : 40;
    if (token == TOKEN_END)
        bad(scan, "syntax: the file ends where %s is missing", wanted);
    else if (token == TOKEN_STRING)
        bad(scan, "syntax: a string stands where %s is missing", wanted);
    else if (token == TOKEN_SCALAR)
        bad(scan, "syntax: a value stands where %s is missing", wanted);
    else
        bad(scan, "syntax: %.*s stands where %s is missing", len, scan->token, wanted);
    return false;
}

static bool open_bracket(struct scan *scan)
{
    if (scan->depth == CFGSCAN_DEPTH_MAX) {
        bad(scan, "syntax: brackets are nested deeper than %d", CFGSCAN_DEPTH_MAX);
        return false;
    }
    scan->depth++;
    scan->open[scan->depth] = *scan->token;
    scan->open_line[scan->depth] = scan->line;
    scan->keys[scan->depth] = 0;
    scan->wanted = *scan->token == '{' ? WANT_NAME : WANT_FIRST;
    return true;
}

static bool close_bracket(struct scan *scan)
{
    char open = scan->open[scan->depth];
    if (scan->depth == 0 || closing(open) != *scan->token) {
        if (scan->depth == 0)
            bad(scan, "syntax: %c closes nothing; remove it", *scan->token);
        else
            bad(scan, "syntax: %c stands where the %c of line %d must be closed with %c",
                *scan->token, open, scan->open_line[scan->depth], closing(open));
        return false;
    }
    scan->depth--;
    scan->after_string = false;
    scan->wanted = WANT_NEXT;
    return true;
}

static bool take_value(struct scan *scan, enum token token)
{
    bool in_array = scan->open[scan->depth] == '[';
    scan->after_string = token == TOKEN_STRING;
    if (token == TOKEN_OPEN && !in_array)
        return open_bracket(scan);
    if (token == TOKEN_STRING || token == TOKEN_SCALAR) {
        scan->wanted = WANT_NEXT;
        return true;
    }
    return unexpected(scan, token, in_array ? "a plain value" : "a value");
}

static bool take_name(struct scan *scan, enum token token)
{
    if (token == TOKEN_CLOSE)
        return close_bracket(scan);
    if (token != TOKEN_NAME)
        return unexpected(scan, token, "the name of a setting");
    if (++scan->keys[scan->depth] > CFGSCAN_KEYS_MAX) {
        bad(scan, "syntax: more than %d settings in one group", CFGSCAN_KEYS_MAX);
        return false;
    }
    scan->wanted = WANT_EQUALS;
    return true;
}

static bool take_next(struct scan *scan, enum token token)
{
    bool in_group = scan->open[scan->depth] == '{';
    if (token == TOKEN_CLOSE)
        return close_bracket(scan);
    if (token == TOKEN_STRING && scan->after_string)
        return true;
    if (token == TOKEN_COMMA || (token == TOKEN_SEMICOLON && in_group)) {
        scan->wanted = in_group ? WANT_NAME : WANT_VALUE;
        return true;
    }
    if (in_group && token == TOKEN_NAME)
        return take_name(scan, token);
    return unexpected(scan, token, in_group ? "a ;" : "a comma or the closing bracket");
}

static bool step(struct scan *scan, enum token token)
{
    switch (scan->wanted) {
    case WANT_NAME:
        return take_name(scan, token);
    case WANT_EQUALS:
        scan->wanted = WANT_VALUE;
        return token == TOKEN_EQUALS || unexpected(scan, token, "a =");
    case WANT_FIRST:
        if (token == TOKEN_CLOSE)
            return close_bracket(scan);
        return take_value(scan, token);
    case WANT_VALUE:
        if (token == TOKEN_CLOSE && scan->open[scan->depth] != '{') {
            bad(scan, "syntax: a comma stands before %c; remove the comma", *scan->token);
            return false;
        }
        return take_value(scan, token);
    case WANT_NEXT:
        return take_next(scan, token);
    }
    return false;
}

static bool at_rest(struct scan *scan)
{
    if (scan->depth > 0) {
        scan->line = scan->open_line[scan->depth];
        char open = scan->open[scan->depth];
        bad(scan, "syntax: the %c of this line is never closed; add %c", open, closing(open));
        return false;
    }
    if (scan->wanted == WANT_EQUALS || scan->wanted == WANT_VALUE)
        return unexpected(scan, TOKEN_END, scan->wanted == WANT_VALUE ? "a value" : "a =");
    return true;
}

bool cfgscan_clean(const char *text, size_t len, struct dynbuf *out,
                   struct cfgscan_problem *ret_problem)
{
    struct scan scan = {
        .at = text, .end = text + len, .out = out, .copied = text, .line = 1, .open = "{"};
    bool good = check_bytes(&scan);
    while (good) {
        enum token token = next_token(&scan);
        if (token == TOKEN_END)
            break;
        good = token != TOKEN_BAD && step(&scan, token);
    }
    if (good && at_rest(&scan)) {
        copy_text(&scan);
        dynbuf_addc(out, '\n'); /* version 1.5 knows no comment that ends with the file */
        return true;
    }
    *ret_problem = scan.problem;
    return false;
}
