/*
 * The Redis server of the local cluster: own folder, append-only file, 127.0.0.1.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_REDIS_H
#define SG_DEV_REDIS_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

void redis_inspect(struct cluster *cluster);
/* Starts it and waits until it has loaded its data and answers. */
enum sg_error redis_start(struct cluster *cluster);
bool redis_stop(struct cluster *cluster);

#endif
