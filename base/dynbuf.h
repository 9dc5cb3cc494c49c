/*
 * A growing byte buffer with a hard bound and a sticky error: write as much as you like, then ask
 * once whether all of it fitted. Always NUL-terminated, so that text can be read as a string.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_DYNBUF_H
#define SG_BASE_DYNBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dynbuf {
    char *data; /* owned; NULL until the first write */
    size_t len;
    size_t size;
    size_t max_len;
    bool failed; /* a write did not fit or memory ran out; later writes do nothing */
};

/* Empty buffer that never holds more than max_len bytes. No allocation happens here. */
void dynbuf_init(struct dynbuf *buf, size_t max_len);
void dynbuf_done(struct dynbuf *buf);
/* Forgets the content and the error, keeps the memory. */
void dynbuf_reset(struct dynbuf *buf);
/* Makes room for `more` bytes behind the content: for writers that fill data + len themselves. */
bool dynbuf_reserve(struct dynbuf *buf, size_t more);
void dynbuf_add(struct dynbuf *buf, const void *bytes, size_t len);
void dynbuf_adds(struct dynbuf *buf, const char *text);
void dynbuf_addc(struct dynbuf *buf, char c);
void dynbuf_addf(struct dynbuf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Decimal; many times faster than dynbuf_addf("%lld"). */
void dynbuf_add_i64(struct dynbuf *buf, int64_t value);
/* JSON string with quotes; escapes what RFC 8259 asks for. `text` must be valid UTF-8. */
void dynbuf_add_json(struct dynbuf *buf, const char *text);
/* The content as a C string ("" when empty); valid until the next write. */
const char *dynbuf_text(const struct dynbuf *buf);

#endif
