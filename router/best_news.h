/*
 * What the lanes of one process tell each other of seats, so that two that choose the best ones of
 * an event do not choose the same, and know at once what was given back.
 *
 *   lanes of worker 0 ── best_news_say ──> its log ──┬──> best_news_hear ── lanes of takes of 0
 *   lanes of worker 1 ── best_news_say ──> its log ──┴──> best_news_hear ── lanes of takes of 1
 *
 * A log is a ring that the lanes of one worker write, on its thread, and the lanes of all workers
 * read, each from its own place. Nobody waits for anybody: what was overwritten before a reader
 * came is lost to it. That is allowed: news makes a choice better, the database decides it. Of two
 * notes of which the second was said because of the first, whoever said them, the first is heard
 * first: a reader merges the logs by time. See docs/ARCHITECTURE.md, "What crosses threads".
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BEST_NEWS_H
#define SG_ROUTER_BEST_NEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/bestview.h"
#include "router/router.h"

#define BEST_NEWS_NOTES 8192 /* of a log, a power of two */

struct best_ear;
struct best_news;

/* Seats side by side, of one event of one shard. */
struct best_note {
    uint32_t shard; /* best_news_shard of its name */
    int64_t event_id;
    struct seat first;
    uint16_t count;
    bool of_change; /* said by a lane of changes, not by one of takes */
    enum bestview_end end;
    int64_t until_us; /* BESTVIEW_HELD: on the clock of the process, as is */
    int64_t said_us;
};

/* Logs for so many workers. NULL when memory runs out. */
struct best_news *best_news_new(unsigned workers);
/* Nobody speaks or hears any more. */
void best_news_free(struct best_news *news);
uint32_t best_news_shard(const char *name);

/* On the thread of the worker, now. `about`: the rest but the seats, these are in `seats`. */
void best_news_say(struct best_news *news, unsigned worker, const struct best_note *about,
                   const struct seat *seats, size_t count);

/* An ear of one of the worker's lanes of takes: hears what is said from now on, but not what the
 * worker's own lanes of takes say. Freed before the news. NULL when memory runs out. */
struct best_ear *best_ear_new(struct best_news *news, unsigned worker);
void best_ear_free(struct best_ear *ear);
/* The next note; false: there is none now. */
bool best_news_hear(struct best_ear *ear, struct best_note *ret_note);

#endif
