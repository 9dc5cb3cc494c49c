/*
 * Which node answers a read. Pure: topology and wish in, node out; no clock, no chance of its own.
 *
 *   replicas of the shard ─ may they answer? (bound, token) ─> which of them (weight, load) ─> node
 *
 * May it answer: it is up and a replica, and its staleness is known and at most what is asked. With
 * the default bound it must be in rotation, too (health_state.h): a replica that is just catching
 * up, or that is lagging more often than not, gets no reads that nobody asked to be old. A reader
 * with a bound of their own takes any replica inside it, one in rotation before others.
 *
 * Which of them: each gets reads in proportion to weight / (reads in flight + 1). So equal replicas
 * share evenly, one that is slow holds more reads and gets fewer new ones, and one that has just
 * come back (weight 10) begins with a tenth of another's share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ROUTE_H
#define SG_ROUTER_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "router/router.h"
#include "router/topology.h"

/* Answers of route_load_fn: reads in flight on the node, at most ROUTE_LOAD_MAX; or ROUTE_FULL if
 * none can go there now. */
#define ROUTE_FULL UINT32_MAX
#define ROUTE_LOAD_MAX 1000000

typedef uint32_t route_load_fn(void *arg, const struct topology_node *node);

/* What one read asks of the node that answers it. */
struct freshness {
    int64_t max_staleness_us;
    bool own_bound;          /* the reader's, not the default one */
    struct read_token token; /* what must have been replayed; lsn 0: none */
};

/* From a reader's wish (NULL: none) and the default bound, for one shard. */
struct freshness freshness_of(const struct read_wish *wish, const char *shard, int64_t default_us);
/* True if a source of unknown age and position will not do. */
bool freshness_is_asked(const struct freshness *fresh);

struct route_wish {
    const char *shard;
    const struct freshness *fresh;
    bool known_only; /* with a token: only a replica that is known to have replayed it */
    uint64_t tried;  /* bits of route_bit: not these */
    int64_t now_us;
    uint32_t turn;       /* counts choices up; spreads them */
    route_load_fn *load; /* NULL: no load anywhere */
    void *load_arg;
};

/* A replica that may answer, or NULL. With a token one that is on the token's timeline or a later
 * one, and rather one that is known to have replayed the token's LSN; whether the one that is
 * chosen has replayed it is to be asked of itself: what the topology knows is a little old. */
const struct topology_node *route_replica(const struct topology *topology,
                                          const struct route_wish *wish);

/* The freshest replica there is, whatever its age, one of unknown age last and only if it is on the
 * highest timeline seen; or NULL. The bound is not looked at; the token as above. */
const struct topology_node *route_freshest(const struct topology *topology,
                                           const struct route_wish *wish);

/* The bit of a node among those of its shard; 0 past the 64th. */
uint64_t route_bit(const struct topology *topology, const struct topology_node *node);

/* True if the node, at `lsn`, has what the token asks for: an LSN at or past the token's, on its
 * timeline or on a later one of the lineage (which contains it, or it is lost for good). */
bool route_covers(int32_t timeline, uint64_t lsn, const struct read_token *token);

/* An upper bound of the age of what the shard's primary answers. 0, unless it is fenced: then
 * another may have taken over since the nodes were looked at. */
int64_t route_primary_staleness_us(const struct topology *topology,
                                   const struct topology_node *primary, int64_t now_us);

/* True if the map gives the shard more than one node: then its primary is not there for reads
 * alone. */
bool route_has_replicas(const struct topology *topology, const char *shard);

/* True if some node of the shard could answer a reader who takes what there is. */
bool route_is_readable(const struct topology *topology, const char *shard);

#endif
