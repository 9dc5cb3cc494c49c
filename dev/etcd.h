/*
 * The etcd of a local cluster under Patroni: one member, on 127.0.0.1.
 *
 * It holds who is the leader of each shard and how Patroni is to run it. One member is enough to
 * try things out; production wants three, on three machines.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_ETCD_H
#define SG_DEV_ETCD_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

void etcd_inspect(struct cluster *cluster);
/* Starts it and waits until it says it is healthy. */
enum sg_error etcd_start(struct cluster *cluster);
bool etcd_stop(struct cluster *cluster);

#endif
