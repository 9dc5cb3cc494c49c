/*
 * What a reload must know from the servers before a new shard map may be published.
 *
 *   two maps, their diff ─> whom to ask what ─┬─ new or changed node: which PostgreSQL are you?
 *                                             └─ shard that loses ids: which events lie in them?
 *   all in parallel, over temporary connections, within one deadline ─> on_done ─> judgement
 *
 * Nothing is asked when no node is new and nothing is lost. A server that is dead and whose word is
 * not needed delays nothing: a shard's primary speaks for it, nodes that health knows to be down
 * are not waited for as long as another one answers.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_RELOAD_ASK_H
#define SG_ROUTER_RELOAD_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "shardmap/shardmap.h"

struct dynbuf;
struct event_base;
struct reap_list;
struct reload_asks;
struct shardmap_diff;
struct topology;

#define RELOAD_SHOWN_MAX 20      /* stranded events that are named, a shard */
#define RELOAD_COUNTED_MAX 10000 /* beyond, the count says "more than" */

/* Events that exist on a shard which the new map takes from it. */
struct reload_stranded {
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t count; /* RELOAD_COUNTED_MAX + 1: more than that */
    size_t shown;
    int64_t event_ids[RELOAD_SHOWN_MAX]; /* the lowest ones, ascending */
};

struct reload_asks_config {
    struct event_base *base;
    struct reap_list *reap;
    int64_t timeout_us;
    /* All that is needed is known, or the time is over. Once, from the loop; may free. */
    void (*on_done)(void *arg);
    void *arg;
};

/* Works out whom to ask; asks nobody yet. Maps, diff and topology (may be NULL) are borrowed for
 * the call. SG_OK or SG_NO_MEMORY. */
enum sg_error reload_asks_new(const struct reload_asks_config *config,
                              const struct shardmap *old_map, const struct shardmap *new_map,
                              const struct shardmap_diff *diff, const struct topology *topology,
                              struct reload_asks **ret_asks);
/* How many questions there are; with 0 nothing needs to be started. */
size_t reload_asks_count(const struct reload_asks *asks);
/* Sends them; on_done follows. Only with a count above 0. */
void reload_asks_start(struct reload_asks *asks);
/* Also while under way; on_done does not follow. */
void reload_asks_free(struct reload_asks *asks);

/* What the answers mean for the new map, one line each: errors that `force` cannot overrule go to
 * *errors, those it can to *objections, what was left unchecked to *warnings. `topology` as it is
 * now, or NULL. */
void reload_asks_judge(const struct reload_asks *asks, const struct shardmap *new_map,
                       const struct topology *topology, struct dynbuf *errors,
                       struct dynbuf *objections, struct dynbuf *warnings);
/* Shards with stranded events; borrowed from asks. */
const struct reload_stranded *reload_asks_stranded(const struct reload_asks *asks, size_t i);

#endif
