/*
 * The schema of the local cluster: every shard of VAR/shardmap.cfg brought up to date.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_MIGRATED_H
#define SG_DEV_MIGRATED_H

#include "base/error.h"
#include "dev/layout.h"

enum sg_error migrated_all(struct cluster *cluster);

#endif
