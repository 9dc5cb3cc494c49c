/*
 * `seatgrid serve` of the local cluster: its configuration, start, readiness, stop.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_SERVE_H
#define SG_DEV_SERVE_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* Writes VAR/seatgrid.cfg and VAR/shardmap.cfg. A file that was written for the same options stays
 * as it is, with whatever was changed in it since; otherwise the old one is kept as *.old.
 * *ret_changed: the settings are others than before. */
enum sg_error serve_write_configs(struct cluster *cluster, bool *ret_changed);
void serve_inspect(struct cluster *cluster);
/* Starts it and waits until /readyz says 200. */
enum sg_error serve_start(struct cluster *cluster);
/* Graceful, then hard. False if it lives on. */
bool serve_stop(struct cluster *cluster);

#endif
