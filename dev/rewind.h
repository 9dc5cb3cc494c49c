/*
 * An old primary becomes a standby: its data taken back to where its shard's primary left it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_REWIND_H
#define SG_DEV_REWIND_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* pg_rewind of a node that does not run, from a primary that does; afterwards it starts as a
 * standby. A crashed one is brought to a clean end first. On failure the data is half rewound, of
 * no use but for a new copy to take its place. */
enum sg_error rewind_node(struct cluster *cluster, struct server *node,
                          const struct server *primary);
/* True if a rewind of that data was begun and did not end. */
bool rewind_cut_short(const struct cluster *cluster, const struct server *node);
/* Its data has been replaced. */
void rewind_forget(const struct cluster *cluster, const struct server *node);

#endif
