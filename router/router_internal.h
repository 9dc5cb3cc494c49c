/*
 * What the files that carry out the router's calls share with router.c: orders.c, waitlist.c,
 * refusals.c. Of nobody else's business.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ROUTER_INTERNAL_H
#define SG_ROUTER_ROUTER_INTERNAL_H

#include "router/router.h"

struct calls;

const struct router_config *router_config(const struct router *router);
struct calls *router_calls(struct router *router);
/* Fills shard and map_version; SG_UNKNOWN_SHARD if the map has no such shard. */
enum sg_error router_find_shard(struct router *router, const char *shard, struct route *ret_route);

#endif
