/*
 * Commands in RESP. See redisresp.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/redisresp.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#define HEAD_MAX 24 /* '*' or '$', 20 digits, \r\n, NUL */

/* "<mark><value>\r\n" behind what is there; there is room for it. */
static void write_head(struct dynbuf *out, char mark, uint64_t value)
{
    char digits[20];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    char *to = out->data + out->len;
    *to++ = mark;
    memcpy(to, digits + i, sizeof(digits) - i);
    to += sizeof(digits) - i;
    *to++ = '\r';
    *to++ = '\n';
    *to = '\0';
    out->len = (size_t)(to - out->data);
}

void redisresp_begin(struct dynbuf *out, size_t count)
{
    if (dynbuf_reserve(out, HEAD_MAX))
        write_head(out, '*', count);
}

void redisresp_arg(struct dynbuf *out, const void *bytes, size_t len)
{
    if (len > SIZE_MAX - HEAD_MAX - 2) {
        out->failed = true;
        return;
    }
    if (!dynbuf_reserve(out, len + HEAD_MAX + 2))
        return;
    write_head(out, '$', len);
    if (len)
        memcpy(out->data + out->len, bytes, len);
    out->len += len;
    memcpy(out->data + out->len, "\r\n", 3);
    out->len += 2;
}

void redisresp_arg_pair(struct dynbuf *out, const void *bytes, size_t len, const void *more,
                        size_t more_len)
{
    if (more_len > SIZE_MAX - HEAD_MAX - 2 || len > SIZE_MAX - HEAD_MAX - 2 - more_len) {
        out->failed = true;
        return;
    }
    if (!dynbuf_reserve(out, len + more_len + HEAD_MAX + 2))
        return;
    write_head(out, '$', len + more_len);
    dynbuf_add(out, bytes, len);
    dynbuf_add(out, more, more_len);
    dynbuf_add(out, "\r\n", 2);
}

void redisresp_args(struct dynbuf *out, const char *text)
{
    redisresp_arg(out, text, strlen(text));
}

void redisresp_arg_i64(struct dynbuf *out, int64_t value)
{
    char digits[20];
    size_t i = sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do {
        digits[--i] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        digits[--i] = '-';
    redisresp_arg(out, digits + i, sizeof(digits) - i);
}

void redisresp_command(struct dynbuf *out, const char *name, ...)
{
    va_list args;
    size_t count = 0;
    va_start(args, name);
    for (const char *arg = name; arg; arg = va_arg(args, const char *))
        count++;
    va_end(args);
    redisresp_begin(out, count);
    va_start(args, name);
    for (const char *arg = name; arg; arg = va_arg(args, const char *))
        redisresp_args(out, arg);
    va_end(args);
}
