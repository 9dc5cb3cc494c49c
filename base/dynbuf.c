/*
 * Growing bounded buffer. See dynbuf.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/dynbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dynbuf_init(struct dynbuf *buf, size_t max_len)
{
    *buf = (struct dynbuf){.max_len = max_len};
}

void dynbuf_done(struct dynbuf *buf)
{
    free(buf->data);
    *buf = (struct dynbuf){.max_len = buf->max_len};
}

void dynbuf_reset(struct dynbuf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

bool dynbuf_reserve(struct dynbuf *buf, size_t more)
{
    if (buf->failed)
        return false;
    if (more > buf->max_len - buf->len) {
        buf->failed = true;
        return false;
    }
    size_t need = buf->len + more + 1;
    if (need <= buf->size)
        return true;
    size_t size = buf->size ? buf->size : 128;
    while (size < need)
        size *= 2;
    char *data = realloc(buf->data, size);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->size = size;
    return true;
}

void dynbuf_add(struct dynbuf *buf, const void *bytes, size_t len)
{
    if (!dynbuf_reserve(buf, len))
        return;
    if (len)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void dynbuf_adds(struct dynbuf *buf, const char *text)
{
    dynbuf_add(buf, text, strlen(text));
}

void dynbuf_addc(struct dynbuf *buf, char c)
{
    dynbuf_add(buf, &c, 1);
}

void dynbuf_addf(struct dynbuf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) {
        buf->failed = true;
        return;
    }
    if (!dynbuf_reserve(buf, (size_t)len))
        return;
    va_start(args, format);
    vsnprintf(buf->data + buf->len, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
}

void dynbuf_add_i64(struct dynbuf *buf, int64_t value)
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
    dynbuf_add(buf, digits + i, sizeof(digits) - i);
}

void dynbuf_add_json(struct dynbuf *buf, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    dynbuf_addc(buf, '"');
    const char *from = text;
    for (const char *p = text;; p++) {
        unsigned char c = (unsigned char)*p;
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        dynbuf_add(buf, from, (size_t)(p - from));
        if (c == '\0')
            break;
        from = p + 1;
        if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            dynbuf_add(buf, escaped, 2);
        } else {
            char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            dynbuf_add(buf, escaped, 6);
        }
    }
    dynbuf_addc(buf, '"');
}

const char *dynbuf_text(const struct dynbuf *buf)
{
    return buf->data ? buf->data : "";
}
