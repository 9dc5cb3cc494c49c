/*
 * Is a TCP port of 127.0.0.1 free, and if not, whose is it?
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PORTS_H
#define SG_DEV_PORTS_H

#include <stdbool.h>
#include <stddef.h>

/* False if something listens there. A port that only lingers after a close is free. */
bool port_is_free(int port);
/* "postgres (pid 1234)" of who listens, as far as this user may see; else "another process". */
void port_owner(int port, char *ret_text, size_t size);

#endif
