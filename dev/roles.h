/*
 * Who is the primary of a shard: asked of the servers that run, read from the files of the others.
 *
 * Files alone are not enough: a node that was the primary when it died still looks like one after
 * another was promoted. A promotion begins a timeline, so of several nodes that are no standby the
 * one on the highest timeline is the primary, whether it runs or not: it has what was confirmed
 * last. The others are old primaries.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_ROLES_H
#define SG_DEV_ROLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dev/layout.h"

/* Fills role and timeline of every node; which of them run is known (servers_inspect). */
void roles_learn(struct cluster *cluster);
/* As of the last roles_learn; NULL if the shard has none. */
struct server *roles_primary(struct cluster *cluster, const char *shard);
/* For people and for `dev status --json`. */
const char *roles_name(enum server_role role);

/* Where the timeline that the node is on began: the end of the one before. False on the first. */
bool roles_fork(const struct cluster *cluster, const struct server *node, uint64_t *ret_lsn);

/* --- pure ------------------------------------------------------------------------------------- */

/* Of each shard, one node of role ROLE_PRIMARY keeps it; the others become ROLE_OLD_PRIMARY. */
void roles_decide(struct server *nodes, size_t count);
/* The last switch in the text of a timeline's history file. */
bool roles_parse_history(const char *text, uint64_t *ret_lsn);

#endif
