/*
 * Where PostgreSQL's programs are: initdb, postgres, psql, pg_basebackup, pg_rewind.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PGBIN_H
#define SG_DEV_PGBIN_H

#include "base/error.h"
#include "dev/layout.h"

/* The folder they are in, of the version that made the node's data, else the newest. */
enum sg_error pgbin_folder(struct cluster *cluster, const struct server *node, char *ret_path);
/* The path of one of them; a buffer of CLUSTER_PATH_MAX, as above. */
enum sg_error pgbin_find(struct cluster *cluster, const struct server *node, const char *name,
                         char *ret_path);

#endif
