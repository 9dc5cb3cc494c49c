/*
 * The configuration of the local cluster: what serve and cdc read.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_CONFIGS_H
#define SG_DEV_CONFIGS_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* Writes VAR/seatgrid.cfg and VAR/shardmap.cfg, and once VAR/payment.secret. A file that was
 * written for the same options stays as it is, with whatever was changed in it since; otherwise the
 * old one is kept as *.old. *ret_changed: the settings are others than before. */
enum sg_error configs_write(struct cluster *cluster, bool *ret_changed);
/* Writes a file anew, as this user. */
enum sg_error configs_write_file(struct cluster *cluster, const char *path, const char *text);

#endif
