/*
 * The cluster's folders: made, locked, removed; and the user that the servers run as.
 *
 * PostgreSQL refuses to run as root. Started by root, the servers run as the owner of their data,
 * else as postgres, else as nobody; if that user cannot reach VAR (a clone under /root), the data
 * goes to /var/tmp/seatgrid-<hash of VAR> and VAR/servers is a link to it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_FOLDERS_H
#define SG_DEV_FOLDERS_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* Makes VAR if asked to and fills cluster->var; without `make`, SG_NOT_FOUND if nothing is there.
 */
enum sg_error folders_open(struct cluster *cluster, bool make);
/* One command at a time works on a VAR. SG_RELOAD_BUSY at once if another does. */
enum sg_error folders_lock(struct cluster *cluster);
void folders_unlock(struct cluster *cluster);
/* Fills cluster->servers and cluster->user; makes the folder if asked to. */
enum sg_error folders_servers(struct cluster *cluster, bool make);
/* Removes what `up` made, data included. Nothing runs any more, and the lock is held. */
enum sg_error folders_destroy(struct cluster *cluster);
/* Removes a folder and all in it; links are removed, not followed. */
enum sg_error folders_remove_tree(struct cluster *cluster, const char *path);

#endif
