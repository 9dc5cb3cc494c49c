/*
 * One question to the admin listener of a running `seatgrid serve` or `cdc`, for the commands.
 *
 * Blocking for the caller: it runs an event loop of its own until the answer is there or the time
 * is over. No connection is kept.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_ADMIN_CLIENT_H
#define SG_CLI_ADMIN_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;

/* Sends METHOD path to `address` ("host:port", as in admin.listen; a wildcard host means this
 * machine), with a JSON body unless len is 0. SG_OK for any HTTP answer, whatever its status:
 * *ret_status and the body, which is appended to *ret_body and may fill it to its max_len.
 * Otherwise a line for people in error_text, the ret_ arguments untouched, and SG_INVALID_VALUE
 * (method or address), SG_IO (nobody there, or no HTTP), SG_DEADLINE (timeout_ms is over),
 * SG_BODY_TOO_LARGE or SG_NO_MEMORY. */
enum sg_error admin_call(const char *address, const char *method, const char *path,
                         const void *body, size_t len, int64_t timeout_ms, int *ret_status,
                         struct dynbuf *ret_body, char *error_text, size_t error_size);

#endif
