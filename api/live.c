/*
 * GET /events/{id}/stream. See live.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/live.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "api/accept.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/sse.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/settings.h"

#define TICK_MIN_US 10000
#define TICK_MAX_US 1000000
#define TICKS_A_HEARTBEAT 8

/* Those with a list are sorted by `since_us`: each has one span for all. */
enum stream_state { STREAM_ASKING, STREAM_WATCHING, STREAM_OPEN, STREAM_STATES };

struct stream {
    TAILQ_ENTRY(stream) link;
    struct live_streams *owner;
    struct exchange *exchange; /* until it is open */
    struct http_stream *http;  /* OPEN */
    struct live_watch *watch;  /* from WATCHING on */
    int64_t since_us;          /* WATCHING: begun; OPEN: last sent to */
    enum stream_state state;
};

TAILQ_HEAD(stream_list, stream);

struct live_streams {
    struct live_streams_config config;
    struct stream_list lists[STREAM_STATES];
    size_t count;
    size_t max;
    bool ended;
    struct event *tick; /* pending while there are streams */
    int64_t heartbeat_us;
    /* The last change that was written, and what it became; NULL: none. */
    struct http_block *block;
    struct live_change written;
    struct dynbuf text; /* of the one being written */
    struct metrics_series *open_gauge;
};

/* --- streams ---------------------------------------------------------------------------------- */

static void set_state(struct stream *stream, enum stream_state state)
{
    struct live_streams *streams = stream->owner;
    TAILQ_REMOVE(&streams->lists[stream->state], stream, link);
    stream->state = state;
    stream->since_us = clock_mono_us();
    TAILQ_INSERT_TAIL(&streams->lists[state], stream, link);
}

static struct stream *stream_new(struct live_streams *streams, struct exchange *exchange)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->owner = streams;
    stream->exchange = exchange;
    stream->state = STREAM_ASKING;
    TAILQ_INSERT_TAIL(&streams->lists[STREAM_ASKING], stream, link);
    if (streams->count++ == 0) {
        int64_t interval_us = streams->heartbeat_us / TICKS_A_HEARTBEAT;
        if (interval_us > TICK_MAX_US)
            interval_us = TICK_MAX_US;
        struct timeval tv = clock_timeval_us(interval_us < TICK_MIN_US ? TICK_MIN_US : interval_us);
        event_add(streams->tick, &tv);
    }
    return stream;
}

static void stream_free(struct stream *stream)
{
    struct live_streams *streams = stream->owner;
    if (stream->watch)
        router_unwatch(streams->config.router, stream->watch);
    if (stream->state == STREAM_OPEN)
        metrics_add(streams->open_gauge, -1);
    TAILQ_REMOVE(&streams->lists[stream->state], stream, link);
    if (--streams->count == 0)
        event_del(streams->tick);
    free(stream);
}

static void count_dropped(const struct live_streams *streams, const char *reason)
{
    metrics_add(metrics_series(streams->config.metrics, METRIC_LIVE_DROPPED, &reason), 1);
}

/* Closed by us: at once, as nothing that waits would be read in time. */
static void drop(struct stream *stream, const char *reason)
{
    count_dropped(stream->owner, reason);
    http_stream_drop(stream->http, reason);
    stream_free(stream);
}

static void on_closed(void *arg)
{
    stream_free(arg);
}

/* The stream is over before it began. */
static void refuse(struct stream *stream, enum sg_error error, const char *detail)
{
    struct exchange *exchange = stream->exchange;
    stream_free(stream);
    if (detail)
        exchange_fail(exchange, error, "%s", detail);
    else
        exchange_fail_router(exchange, error);
}

static void refuse_without_redis(struct stream *stream)
{
    refuse(stream, SG_SHARD_UNAVAILABLE,
           "live seats come through Redis, which has nothing to say of this shard now; try again, "
           "or read GET /events/{id}/seats");
}

/* --- changes to streams ----------------------------------------------------------------------- */

static bool is_written(const struct live_streams *streams, const struct live_change *change)
{
    const struct live_change *written = &streams->written;
    return streams->block && written->event_id == change->event_id &&
           written->resync == change->resync && written->gone == change->gone &&
           written->seat_count == change->seat_count && written->total == change->total &&
           written->available == change->available && written->held == change->held &&
           written->booked == change->booked && written->status == change->status &&
           strcmp(written->id, change->id) == 0;
}

/* The change as text, made once for all who are told it. NULL when memory runs out. */
static struct http_block *block_of(struct live_streams *streams, const struct live_change *change)
{
    struct live_change resync = *change;
    struct dynbuf *text = &streams->text;
    if (is_written(streams, change))
        return streams->block;
    dynbuf_reset(text);
    sse_write_change(text, change);
    if (text->failed) {
        /* Too much to be told seat by seat: the whole map is smaller. */
        resync.resync = true;
        resync.seat_count = 0;
        dynbuf_reset(text);
        sse_write_change(text, &resync);
    }
    http_block_unref(streams->block);
    streams->block = http_block_new(dynbuf_text(text), text->len);
    streams->written = *change;
    return streams->block;
}

/* False: there is no stream any more. */
static bool open_stream(struct stream *stream)
{
    struct live_streams *streams = stream->owner;
    struct exchange *exchange = stream->exchange;
    struct http_request *request = exchange->request;
    http_reply_header(request, "Cache-Control", "no-store");
    http_reply_header(request, "X-Accel-Buffering", "no"); /* proxies pass it on at once */
    stream->exchange = NULL;
    stream->http = exchange_begin_stream(exchange, SSE_CONTENT_TYPE,
                                         (size_t)streams->config.settings->live.buffer_bytes,
                                         on_closed, stream);
    if (!stream->http) {
        stream_free(stream);
        return false;
    }
    set_state(stream, STREAM_OPEN);
    metrics_add(streams->open_gauge, 1);
    if (http_stream_send(stream->http, SSE_RETRY, sizeof(SSE_RETRY) - 1))
        return true;
    drop(stream, "slow");
    return false;
}

static void on_change(void *arg, const struct live_change *change)
{
    struct stream *stream = arg;
    struct live_streams *streams = stream->owner;
    if (stream->state == STREAM_WATCHING && !open_stream(stream))
        return;
    struct http_block *block = block_of(streams, change);
    if (!block) {
        drop(stream, "no_memory");
        return;
    }
    if (!http_stream_send_block(stream->http, block)) {
        drop(stream, "slow");
        return;
    }
    if (!change->gone) {
        set_state(stream, STREAM_OPEN); /* behind those that were quiet longer */
        return;
    }
    count_dropped(streams, "gone");
    http_stream_end(stream->http);
    stream_free(stream);
}

/* --- the request ------------------------------------------------------------------------------ */

static void on_known(void *arg, const struct route *route, enum sg_error error,
                     const struct availability *availability)
{
    struct stream *stream = arg;
    struct live_streams *streams = stream->owner;
    struct exchange *exchange = stream->exchange;
    (void)availability;
    if (error != SG_OK || streams->ended) {
        exchange_set_origin(exchange, route);
        refuse(stream, error == SG_OK ? SG_SHARD_UNAVAILABLE : error, NULL);
        return;
    }
    memcpy(exchange->origin.shard, route->shard, sizeof(exchange->origin.shard));
    exchange->origin.map_version = route->map_version;
    if (http_request_method(exchange->request) == HTTP_HEAD) {
        open_stream(stream); /* says what a GET would, and ends */
        return;
    }
    const char *last_id = http_request_header(exchange->request, "last-event-id");
    error = router_watch(streams->config.router, exchange->event_id, last_id ? last_id : "",
                         on_change, stream, &stream->watch);
    if (error == SG_OK)
        set_state(stream, STREAM_WATCHING);
    else if (error == SG_SHARD_UNAVAILABLE)
        refuse_without_redis(stream);
    else
        refuse(stream, error, NULL);
}

void live_get(struct exchange *exchange)
{
    static const char *const offer[] = {SSE_CONTENT_TYPE};
    struct live_streams *streams = exchange->app->live;
    struct http_request *request = exchange->request;
    if (accept_media(http_request_header(request, "accept"), offer, 1) < 0) {
        exchange_fail(exchange, SG_NOT_ACCEPTABLE, "Accept: there is " SSE_CONTENT_TYPE);
        return;
    }
    if (!exchange->app->settings->redis.address[0]) {
        exchange_fail(exchange, SG_SHARD_UNAVAILABLE,
                      "live seats come through Redis, and this server has none; read GET "
                      "/events/{id}/seats");
        return;
    }
    if (streams->count >= streams->max) {
        exchange_fail(exchange, SG_OVERLOADED,
                      "live.max_streams are open; try again, or read GET /events/{id}/seats");
        return;
    }
    /* A token counts for the look whether there is such an event. The stream itself comes in the
     * order of the commits, and so brings what the token's reader has seen, if it has not yet. */
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    struct stream *stream = stream_new(streams, exchange);
    if (!stream) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for a stream");
        return;
    }
    enum sg_error error =
        router_availability(streams->config.router, exchange->event_id, &wish, on_known, stream);
    if (error != SG_OK)
        refuse(stream, error, NULL);
}

/* --- the timer -------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct live_streams *streams = arg;
    struct stream *stream;
    int64_t now_us = clock_mono_us();
    int64_t deadline_us = streams->config.settings->reads.deadline_ms * 1000;
    (void)fd;
    (void)what;
    while ((stream = TAILQ_FIRST(&streams->lists[STREAM_WATCHING])) &&
           now_us - stream->since_us >= deadline_us)
        refuse_without_redis(stream);
    while ((stream = TAILQ_FIRST(&streams->lists[STREAM_OPEN])) &&
           now_us - stream->since_us >= streams->heartbeat_us) {
        if (http_stream_send(stream->http, SSE_HEARTBEAT, sizeof(SSE_HEARTBEAT) - 1))
            set_state(stream, STREAM_OPEN);
        else
            drop(stream, "slow");
    }
}

/* --- life ------------------------------------------------------------------------------------- */

struct live_streams *live_streams_new(const struct live_streams_config *config)
{
    static const char *const listener[] = {"http"};
    struct live_streams *streams = calloc(1, sizeof(*streams));
    if (!streams)
        return NULL;
    streams->config = *config;
    for (int i = 0; i < STREAM_STATES; i++)
        TAILQ_INIT(&streams->lists[i]);
    unsigned workers = config->workers ? config->workers : 1;
    streams->max = ((size_t)config->settings->live.max_streams + workers - 1) / workers;
    /* A change that would fill half of a reader's buffer is told as a resync. */
    dynbuf_init(&streams->text, (size_t)config->settings->live.buffer_bytes / 2);
    streams->heartbeat_us = config->settings->live.heartbeat_ms * 1000;
    streams->open_gauge = metrics_series(config->metrics, METRIC_LIVE_STREAMS, listener);
    streams->tick = event_new(config->base, -1, EV_PERSIST, on_tick, streams);
    if (!streams->tick) {
        free(streams);
        return NULL;
    }
    return streams;
}

void live_streams_end(struct live_streams *streams)
{
    struct stream *stream;
    streams->ended = true;
    while ((stream = TAILQ_FIRST(&streams->lists[STREAM_WATCHING])))
        refuse_without_redis(stream);
    while ((stream = TAILQ_FIRST(&streams->lists[STREAM_OPEN]))) {
        http_stream_end(stream->http);
        stream_free(stream);
    }
}

void live_streams_free(struct live_streams *streams)
{
    if (!streams)
        return;
    event_free(streams->tick);
    http_block_unref(streams->block);
    dynbuf_done(&streams->text);
    free(streams);
}
