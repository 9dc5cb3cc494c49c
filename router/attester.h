/*
 * Attests one node as its shard's primary: the question to its database, with deadline and pause.
 *
 *   attester_start ─> shard_attest(timeline) ─> on_done, later    (who is to be asked: attest.h)
 *   attester_fence ─> shard_fence(), if it is still on the timeline ─> on_done, later
 *
 * The database decides: of two that ask, one raises the epoch and the other learns that it is done.
 * So asking once more is never wrong. A connection of its own, closed after the answer. Each
 * outcome is counted, and logged once.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_ATTESTER_H
#define SG_ROUTER_ATTESTER_H

#include <stdint.h>

struct attester;
struct event_base;
struct metrics_set;
struct reap_list;

/* Texts are borrowed, outliving the attester. */
struct attester_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    const char *shard;
    const char *node;
    const char *dsn;
    int64_t timeout_us; /* to connect, and to answer */
    /* The node has answered that it is attested or fenced, now or already, or that it is no former
     * primary any more. From the loop. */
    void (*on_done)(void *arg);
    void *arg;
};

/* NULL when memory runs out. */
struct attester *attester_new(const struct attester_config *config);
/* Asks the node to attest itself on that timeline; nothing happens while a question is under way,
 * or shortly after an answer. */
void attester_start(struct attester *attester, int32_t timeline);
/* Has the node, a primary of the past, fence itself, for good, if it is still one on that timeline;
 * likewise. */
void attester_fence(struct attester *attester, int32_t timeline);
/* From anywhere on the loop; no callback follows. */
void attester_free(struct attester *attester);

#endif
