/*
 * Where a test publishes a map and a topology, and where what it tests reads them.
 *
 *   published_init ─> published_map, snapshot_publish ... ─> published_done
 *
 * One thread has both readers: one publishes, one looks.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_ROUTER_PUBLISHED_H
#define SG_TESTS_ROUTER_PUBLISHED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "base/snapshot.h"
#include "shardmap/shardmap.h"

struct published {
    struct snapshot_domain *domain;
    struct snapshot_reader *reader;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct snapshot_slot topologies;
};

static inline void published_init(struct published *published)
{
    published->domain = snapshot_domain_new();
    published->reader = snapshot_reader_new(published->domain);
    published->publisher = snapshot_reader_new(published->domain);
}

/* The map of a text that has to be right; the caller's. */
static inline struct shardmap *map_of(const char *text)
{
    struct dynbuf errors;
    struct shardmap *map = NULL;
    dynbuf_init(&errors, 1 << 16);
    if (shardmap_parse("map", text, &map, &errors) != SG_OK)
        fail_msg("%s", dynbuf_text(&errors));
    dynbuf_done(&errors);
    return map;
}

static inline void published_map(struct published *published, const char *text)
{
    snapshot_publish(published->publisher, &published->maps, map_of(text), shardmap_free);
}

/* After all that reads it has gone. */
static inline void published_done(struct published *published)
{
    snapshot_slot_done(&published->maps, shardmap_free);
    snapshot_slot_done(&published->topologies, free);
    snapshot_reader_free(published->reader);
    snapshot_poll(published->publisher);
    snapshot_reader_free(published->publisher);
    snapshot_domain_free(published->domain);
}

#endif
