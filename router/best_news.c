/*
 * What the lanes of one process tell each other of seats. See best_news.h.
 *
 * A note is five words. The writer raises `begun`, writes the words, raises `said`. A reader that
 * has the words looks at `begun` again: is the note so far behind that its place may have been
 * begun anew, then what it has is perhaps of two notes, and is dropped with all that is as old. The
 * words are stored with release and loaded with acquire, so who sees a word of the newer note also
 * sees its `begun`.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/best_news.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

#define WORDS 5

struct log {
    _Alignas(64) uint64_t begun;            /* atomic: notes that were begun to be written, ever */
    uint64_t said;                          /* atomic: that are there to be read */
    uint64_t notes[BEST_NEWS_NOTES][WORDS]; /* atomic, each word */
};

struct best_news {
    unsigned workers;
    struct log *logs;
};

/* Where an ear is in one log. */
struct place {
    uint64_t heard;
    struct best_note next; /* read ahead */
    bool has_next;
};

struct best_ear {
    struct best_news *news;
    unsigned worker;
    struct place places[];
};

/* --- a note ----------------------------------------------------------------------------------- */

static uint64_t pair_of(uint32_t high, uint32_t low)
{
    return (uint64_t)high << 32 | low;
}

static void encode(const struct best_note *note, uint64_t words[WORDS])
{
    words[0] = (uint64_t)note->event_id;
    words[1] = (uint64_t)note->until_us;
    words[2] = pair_of((uint32_t)note->first.row, (uint32_t)note->first.col);
    words[3] = pair_of(note->shard, (uint32_t)note->count << 8 | (uint32_t)note->of_change << 4 |
                                        (uint32_t)note->end);
    words[4] = (uint64_t)note->said_us;
}

static struct best_note decode(const uint64_t words[WORDS])
{
    uint32_t low = (uint32_t)words[3];
    return (struct best_note){.event_id = (int64_t)words[0],
                              .until_us = (int64_t)words[1],
                              .said_us = (int64_t)words[4],
                              .first = {(int32_t)(words[2] >> 32), (int32_t)(uint32_t)words[2]},
                              .shard = (uint32_t)(words[3] >> 32),
                              .count = (uint16_t)(low >> 8),
                              .of_change = low >> 4 & 1,
                              .end = (enum bestview_end)(low & 15)};
}

uint32_t best_news_shard(const char *name)
{
    return (uint32_t)hash_u64(hash_bytes(HASH_START, name, strlen(name)));
}

/* --- speaking --------------------------------------------------------------------------------- */

static void say(struct log *log, const struct best_note *note)
{
    uint64_t words[WORDS];
    uint64_t number = log->said; /* nobody else writes it */
    uint64_t *place = log->notes[number & (BEST_NEWS_NOTES - 1)];
    encode(note, words);
    __atomic_store_n(&log->begun, number + 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < WORDS; i++)
        __atomic_store_n(&place[i], words[i], __ATOMIC_RELEASE);
    __atomic_store_n(&log->said, number + 1, __ATOMIC_RELEASE);
}

void best_news_say(struct best_news *news, unsigned worker, const struct best_note *about,
                   const struct seat *seats, size_t count)
{
    struct best_note note = *about;
    note.said_us = clock_mono_us();
    for (size_t i = 0; i < count; i += note.count) {
        note.first = seats[i];
        note.count = 1;
        while (i + note.count < count && seats[i + note.count].row == note.first.row &&
               seats[i + note.count].col == note.first.col + note.count)
            note.count++;
        say(&news->logs[worker], &note);
    }
}

/* --- hearing ---------------------------------------------------------------------------------- */

/* The next note of a log from *heard on. */
static bool hear(const struct log *log, uint64_t *heard, struct best_note *ret_note)
{
    uint64_t words[WORDS];
    while (__atomic_load_n(&log->said, __ATOMIC_ACQUIRE) != *heard) {
        const uint64_t *place = log->notes[*heard & (BEST_NEWS_NOTES - 1)];
        for (size_t i = 0; i < WORDS; i++)
            words[i] = __atomic_load_n(&place[i], __ATOMIC_ACQUIRE);
        uint64_t begun = __atomic_load_n(&log->begun, __ATOMIC_RELAXED);
        if (begun - *heard <= BEST_NEWS_NOTES) {
            (*heard)++;
            *ret_note = decode(words);
            return true;
        }
        *heard = begun - BEST_NEWS_NOTES / 2; /* the rest is lost, and a head start */
    }
    return false;
}

/* The next note of a log that is for this ear, if there is one. */
static struct best_note *look_ahead(struct best_ear *ear, unsigned worker)
{
    struct place *place = &ear->places[worker];
    while (!place->has_next && hear(&ear->news->logs[worker], &place->heard, &place->next))
        place->has_next = worker != ear->worker || place->next.of_change;
    return place->has_next ? &place->next : NULL;
}

/* What comes in while it looks from log to log is left for the next time: its cause may be in a log
 * that was looked at before it was there. */
bool best_news_hear(struct best_ear *ear, struct best_note *ret_note)
{
    int64_t now_us = clock_mono_us();
    const struct best_note *first = NULL;
    unsigned at = 0;
    for (unsigned i = 0; i < ear->news->workers; i++) {
        const struct best_note *note = look_ahead(ear, i);
        if (note && note->said_us <= now_us && (!first || note->said_us < first->said_us)) {
            first = note;
            at = i;
        }
    }
    if (!first)
        return false;
    *ret_note = *first;
    ear->places[at].has_next = false;
    return true;
}

/* --- life ------------------------------------------------------------------------------------- */

struct best_news *best_news_new(unsigned workers)
{
    struct best_news *news = calloc(1, sizeof(*news));
    void *logs = NULL;
    if (!news || posix_memalign(&logs, _Alignof(struct log), workers * sizeof(struct log)) != 0) {
        free(news);
        return NULL;
    }
    news->workers = workers;
    news->logs = logs;
    for (unsigned i = 0; i < workers; i++)
        news->logs[i].begun = news->logs[i].said = 0;
    return news;
}

void best_news_free(struct best_news *news)
{
    if (!news)
        return;
    free(news->logs);
    free(news);
}

struct best_ear *best_ear_new(struct best_news *news, unsigned worker)
{
    struct best_ear *ear = calloc(1, sizeof(*ear) + news->workers * sizeof(ear->places[0]));
    if (!ear)
        return NULL;
    ear->news = news;
    ear->worker = worker;
    for (unsigned i = 0; i < news->workers; i++)
        ear->places[i].heard = __atomic_load_n(&news->logs[i].said, __ATOMIC_ACQUIRE);
    return ear;
}

void best_ear_free(struct best_ear *ear)
{
    free(ear);
}
