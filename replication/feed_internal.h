/*
 * What the files of a feed share: its state. See feed.h; nobody else includes this.
 *
 *   feed_take.c   messages of the stream ─> effects in the outbox
 *   feed_send.c   outbox ─> batches ─> what Redis answered
 *   feed.c        states, time, the owner's calls
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_FEED_INTERNAL_H
#define SG_REPLICATION_FEED_INTERNAL_H

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "replication/feed.h"
#include "replication/outbox.h"
#include "replication/progress.h"
#include "replication/stream.h"

#define FEED_REASON_SIZE 320
#define FEED_RELATIONS_MAX 64 /* whose names are known, for the log */

enum feed_state { FEED_STARTING, FEED_RUNNING, FEED_OVER };

struct feed_batch {
    struct dynbuf commands;
    size_t count;
    size_t keys;     /* of the commands; a mark may stand behind them */
    int64_t *events; /* event of the i-th key, 0 none */
    size_t events_size;
    int64_t oldest_us; /* of the oldest commit that has anything in it; 0 none */
    uint64_t changes;
    bool refused; /* Redis had no room, or not the scripts: to be sent again */
};

/* What is put together for the next batch, beside the outbox. */
struct feed_gathering {
    uint64_t end_lsn; /* of the last commit; 0: none complete */
    int64_t commit_us;
    int64_t oldest_us;
    uint64_t commits;
    uint64_t changes;
    int64_t since_us; /* monotonic; 0: nothing yet */
};

struct feed_relation {
    uint32_t oid;
    bool logged;
    char name[128];
};

enum feed_table { FEED_TABLE_EVENTS, FEED_TABLE_BOOKINGS, FEED_TABLE_UNKNOWN, FEED_TABLES };
extern const char *const feed_table_names[FEED_TABLES];

struct feed {
    struct feed_config config; /* strings: copies */
    enum feed_state state;
    bool freed;
    bool told; /* on_over was called */
    enum feed_end end;
    char reason[FEED_REASON_SIZE];

    void (*tap)(void *arg, const struct effect *effect, const struct position *position);
    void *tap_arg;
    struct stream *stream;
    struct projection *projection;
    struct outbox *outbox;
    struct progress progress;
    struct event *turn;   /* at the end of this turn of the loop: send, or tell that it is over */
    struct event *gather; /* a busy feed's batch has gathered long enough */
    struct event *again;  /* refused batches are sent again */
    struct event *tick;   /* confirms, marks */
    uint64_t server_end;

    uint64_t begin_lsn; /* of the transaction that comes in; 0: outside */
    int64_t begin_us;
    bool skip; /* it is in the keys already */
    uint32_t place;
    bool stalled;    /* the stream holds a message that was not taken */
    int64_t gate_us; /* commit time of what waits at the gate; 0: nothing */

    struct feed_gathering gathering;
    struct feed_batch *batches; /* ring of cdc.batches_in_flight, as in progress */
    size_t first;
    size_t in_flight;
    size_t unanswered; /* of them, at the sink */
    unsigned refusals; /* in a row */

    int64_t applied_us; /* commit time of the newest applied commit; 0: none yet */
    int64_t marked_us;  /* monotonic */
    int64_t last_latency_us;
    uint64_t commits, changes;
    struct feed_relation relations[FEED_RELATIONS_MAX];
    size_t relation_count;
    struct metrics_series *changes_series[FEED_TABLES];
    struct metrics_series *commits_series;
    struct metrics_series *latency_series;
};

static inline struct log_fields feed_fields(const struct feed *feed)
{
    return (struct log_fields){.shard = feed->config.shard};
}

static inline void feed_after(struct event *timer, int64_t us)
{
    struct timeval tv = clock_timeval_us(us);
    event_add(timer, &tv);
}

/* The i-th oldest batch in flight, or the one behind the last. */
static inline struct feed_batch *feed_batch_at(struct feed *feed, size_t i)
{
    size_t size = (size_t)feed->config.settings->cdc.batches_in_flight;
    return &feed->batches[(feed->first + i) % size];
}

/* feed.c: it is over; the owner is told from the loop. */
void feed_over(struct feed *feed, enum feed_end how, const char *reason);
void feed_free_memory(void *feed);
/* feed_take.c: one message of the stream; false: not now. */
bool feed_take(void *arg, const struct pgoutput_message *message, uint64_t lsn);
/* feed_send.c */
/* Something was put together: it goes at the end of the turn, or when it has gathered. */
void feed_gathered(struct feed *feed);
/* A batch of what has gathered, if it may go. */
void feed_send_gathered(struct feed *feed);
/* What Redis refused, after its pause. */
void feed_send_again(struct feed *feed);
/* The stream brings again what was not taken. */
void feed_go_on(struct feed *feed);
void feed_confirm(struct feed *feed);
/* The beat of a shard where nothing happens. */
void feed_mark_idle(struct feed *feed);
/* Between two beats. */
int64_t feed_mark_us(const struct feed *feed);

#endif
