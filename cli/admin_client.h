/*
 * One HTTP request from a command to a running server, waited for.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_ADMIN_CLIENT_H
#define SG_CLI_ADMIN_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;

/* Sends one request to `address` ("host:port" or "[v6]:port") and waits for the answer, at most
 * timeout_ms. `method` is GET, POST, PUT or DELETE; `path` has its query with it; a body is sent as
 * application/json. SG_OK whatever the status; otherwise SG_IO (no answer), SG_DEADLINE or
 * SG_NO_MEMORY, with one readable line in error_text. The body is appended to *ret_body. */
enum sg_error admin_call(const char *address, const char *method, const char *path,
                         const void *body, size_t len, int64_t timeout_ms, int *ret_status,
                         struct dynbuf *ret_body, char *error_text, size_t error_size);

#endif
