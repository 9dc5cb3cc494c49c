/*
 * Commands for Redis in RESP, written into a buffer. Pure.
 *
 *   *3\r\n $3\r\nSET\r\n $1\r\nk\r\n $1\r\nv\r\n      (without the blanks)
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_REDISRESP_H
#define SG_BASE_REDISRESP_H

#include <stddef.h>
#include <stdint.h>

#include "base/dynbuf.h"

/* Begins a command of `count` arguments, its name included; exactly so many redisresp_arg follow.
 */
void redisresp_begin(struct dynbuf *out, size_t count);
void redisresp_arg(struct dynbuf *out, const void *bytes, size_t len);
/* One argument of two parts, one behind the other. */
void redisresp_arg_pair(struct dynbuf *out, const void *bytes, size_t len, const void *more,
                        size_t more_len);
void redisresp_args(struct dynbuf *out, const char *text);
void redisresp_arg_i64(struct dynbuf *out, int64_t value);
/* A whole command of texts, the last one followed by NULL. */
void redisresp_command(struct dynbuf *out, const char *name, ...) __attribute__((sentinel));

#endif
