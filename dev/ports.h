/*
 * A TCP port of 127.0.0.1: is it free, and if not, whose is it, and what does it answer?
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PORTS_H
#define SG_DEV_PORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False if something listens there. A port that only lingers after a close is free. */
bool port_is_free(int port);
/* "postgres (pid 1234)" of who listens, as far as this user may see; else "another process". */
void port_owner(int port, char *ret_text, size_t size);
/* Connects, sends the request and reads once: the bytes that came within the time, 0 for none. */
size_t port_ask(int port, const char *request, size_t len, int64_t timeout_ms, char *ret_answer,
                size_t size);

#endif
