/*
 * The worker's connection to RabbitMQ. See fetcher.h.
 *
 * Deliveries that the loop has are bounded: past twice what the prefetch windows hold (an old
 * connection's and a new one's) nothing more is read until it settles some. So neither ring is ever
 * full.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/fetcher.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/acks.h"
#include "queue/broker.h"
#include "queue/handover.h"
#include "queue/message.h"

#define FIRST_CHANNEL 2
#define TICK_MS 500 /* heartbeats */
#define DEPTH_MS 1000
#define FRAMES_A_TURN 4096
#define DELIVERIES_A_TURN 1024 /* of the loop */

struct stream {
    char queue[BROKER_QUEUE_MAX];
    char dead[BROKER_QUEUE_MAX + 8];
    struct acks acks;
    struct metrics_series *ready_count;
    struct metrics_series *dead_count;
};

struct fetcher {
    struct fetcher_config config;
    struct metrics_set *metrics;
    int wake_fd;      /* of the thread */
    int loop_wake_fd; /* of the loop */
    struct handover *to_loop;
    struct handover *to_thread;
    struct event *on_wake;
    struct event *flush; /* the loop's: wake the thread once a turn */
    bool stopping;       /* atomic */
    uint64_t connected;  /* atomic: the generation that is connected, 0 for none */
    uint64_t told;       /* the loop's: of `connected`, as on_connection was last told */
    pthread_t thread;
    bool started;
    /* the thread's */
    amqp_connection_state_t connection;
    uint64_t generation;
    struct stream *streams;
    size_t alive; /* deliveries that the loop has */
    size_t alive_max;
    bool delivered; /* wake the loop at the end of this turn */
    bool said_away;
    int64_t up_us; /* when the connection was made */
    int64_t backoff_ms;
    int64_t again_us;
    int64_t depth_us; /* when the depth of the queues is asked for again */
    char why[BROKER_WHY_MAX];
};

/* --- the loop's side -------------------------------------------------------------------------- */

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct fetcher *fetcher = arg;
    (void)what;
    handover_fd_clear(fd);
    uint64_t connected = __atomic_load_n(&fetcher->connected, __ATOMIC_ACQUIRE);
    if (connected != fetcher->told) {
        fetcher->told = connected;
        fetcher->config.on_connection(fetcher->config.arg, connected);
    }
    for (int i = 0; i < DELIVERIES_A_TURN; i++) {
        struct delivery *delivery = handover_take(fetcher->to_loop);
        if (!delivery)
            return;
        fetcher->config.on_delivery(fetcher->config.arg, delivery);
    }
    event_active(fetcher->on_wake, EV_READ, 0);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    struct fetcher *fetcher = arg;
    (void)fd;
    (void)what;
    handover_wake(fetcher->to_thread);
}

void fetcher_settle(struct fetcher *fetcher, struct delivery *delivery, enum delivery_end end)
{
    delivery->end = end;
    bool fitted = handover_put(fetcher->to_thread, delivery);
    assert(fitted);
    (void)fitted;
    event_active(fetcher->flush, EV_TIMEOUT, 0);
}

bool fetcher_is_connected(const struct fetcher *fetcher)
{
    return __atomic_load_n(&fetcher->connected, __ATOMIC_ACQUIRE) != 0;
}

/* --- the connection --------------------------------------------------------------------------- */

static void tell_connected(struct fetcher *fetcher, uint64_t generation)
{
    __atomic_store_n(&fetcher->connected, generation, __ATOMIC_RELEASE);
    handover_wake(fetcher->to_loop);
}

static void pause_connecting(struct fetcher *fetcher)
{
    const struct settings *settings = fetcher->config.settings;
    fetcher->again_us = clock_mono_us() + fetcher->backoff_ms * 1000;
    fetcher->backoff_ms *= 2;
    if (fetcher->backoff_ms > settings->queue.backoff_max_ms)
        fetcher->backoff_ms = settings->queue.backoff_max_ms;
}

/* What it had been given has been delivered once more: so those that do not last become rare. */
static void lose(struct fetcher *fetcher, const char *why)
{
    const struct settings *settings = fetcher->config.settings;
    log_warn(NULL, "queue: lost the connection to RabbitMQ: %s", why);
    if (clock_mono_us() - fetcher->up_us >= settings->queue.backoff_max_ms * 1000)
        fetcher->backoff_ms = settings->queue.backoff_min_ms;
    broker_close(fetcher->connection, false);
    fetcher->connection = NULL;
    tell_connected(fetcher, 0);
    pause_connecting(fetcher);
}

static enum sg_error consume(struct fetcher *fetcher, amqp_connection_state_t connection, size_t i)
{
    const struct settings *settings = fetcher->config.settings;
    const amqp_channel_t channel = (amqp_channel_t)(FIRST_CHANNEL + i);
    char *why = fetcher->why;
    acks_reset(&fetcher->streams[i].acks);
    enum sg_error error = broker_declare(connection, settings, fetcher->config.shards[i], why);
    if (!error)
        error = broker_open_channel(connection, channel, why);
    if (!error) {
        amqp_basic_qos(connection, channel, 0, (uint16_t)settings->queue.prefetch, 0);
        error = broker_verdict(amqp_get_rpc_reply(connection), why);
    }
    if (!error) {
        amqp_basic_consume(connection, channel, amqp_cstring_bytes(fetcher->streams[i].queue),
                           amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
        error = broker_verdict(amqp_get_rpc_reply(connection), why);
    }
    return error;
}

static void connect_now(struct fetcher *fetcher)
{
    amqp_connection_state_t connection = NULL;
    enum sg_error error = broker_open(fetcher->config.settings, &connection, fetcher->why);
    for (size_t i = 0; !error && i < fetcher->config.shard_count; i++)
        error = consume(fetcher, connection, i);
    if (error) {
        broker_close(connection, false);
        if (!fetcher->said_away)
            log_warn(NULL, "queue: RabbitMQ is away: %s", fetcher->why);
        fetcher->said_away = true;
        pause_connecting(fetcher);
        return;
    }
    log_info(NULL, "queue: connected to RabbitMQ, consuming %zu queues",
             fetcher->config.shard_count);
    fetcher->connection = connection;
    fetcher->generation++;
    fetcher->said_away = false;
    fetcher->up_us = clock_mono_us();
    tell_connected(fetcher, fetcher->generation);
}

/* --- messages in ------------------------------------------------------------------------------ */

/* Of a message that is too long as much as shows it: a window full of them takes little memory. */
static struct delivery *new_delivery(const struct fetcher *fetcher, size_t shard, uint64_t tag,
                                     amqp_bytes_t body)
{
    const size_t len = body.len > QUEUE_MESSAGE_BYTES_MAX ? QUEUE_MESSAGE_BYTES_MAX + 1 : body.len;
    struct delivery *delivery = calloc(1, sizeof(*delivery) + len);
    if (!delivery)
        return NULL;
    delivery->shard = shard;
    delivery->generation = fetcher->generation;
    delivery->tag = tag;
    delivery->len = len;
    if (len)
        memcpy(delivery->body, body.bytes, len);
    return delivery;
}

/* NULL, or why the connection is of no use any more. */
static const char *on_deliver(struct fetcher *fetcher, amqp_channel_t channel, uint64_t tag)
{
    amqp_message_t message;
    size_t shard = (size_t)channel - FIRST_CHANNEL;
    if (channel < FIRST_CHANNEL || shard >= fetcher->config.shard_count)
        return "a message on a channel that consumes nothing";
    if (broker_verdict(amqp_read_message(fetcher->connection, channel, &message, 0),
                       fetcher->why) != SG_OK)
        return fetcher->why;
    struct delivery *delivery = new_delivery(fetcher, shard, tag, message.body);
    amqp_destroy_message(&message);
    amqp_maybe_release_buffers_on_channel(fetcher->connection, channel);
    if (!delivery)
        return "out of memory";
    if (!acks_open(&fetcher->streams[shard].acks, tag)) {
        free(delivery);
        return "a delivery tag that cannot be";
    }
    fetcher->alive++;
    fetcher->delivered = true;
    bool fitted = handover_put(fetcher->to_loop, delivery);
    assert(fitted);
    (void)fitted;
    return NULL;
}

static const char *on_method(struct fetcher *fetcher, amqp_channel_t channel,
                             const amqp_method_t *method)
{
    const amqp_rpc_reply_t said = {.reply_type = AMQP_RESPONSE_SERVER_EXCEPTION, .reply = *method};
    switch (method->id) {
    case AMQP_BASIC_DELIVER_METHOD:
        return on_deliver(fetcher, channel,
                          ((const amqp_basic_deliver_t *)method->decoded)->delivery_tag);
    case AMQP_BASIC_CANCEL_METHOD:
        return "a queue has gone";
    case AMQP_CONNECTION_CLOSE_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
        (void)broker_verdict(said, fetcher->why);
        return fetcher->why;
    default:
        return NULL;
    }
}

static bool has_room(const struct fetcher *fetcher)
{
    return fetcher->alive < fetcher->alive_max;
}

static void read_frames(struct fetcher *fetcher)
{
    const struct timeval at_once = {0};
    const char *problem = NULL;
    for (int i = 0; i < FRAMES_A_TURN && has_room(fetcher) && !problem; i++) {
        amqp_frame_t frame;
        int status = amqp_simple_wait_frame_noblock(fetcher->connection, &frame, &at_once);
        if (status == AMQP_STATUS_TIMEOUT)
            break;
        if (status != AMQP_STATUS_OK)
            problem = amqp_error_string2(status);
        else if (frame.frame_type == AMQP_FRAME_METHOD)
            problem = on_method(fetcher, frame.channel, &frame.payload.method);
    }
    amqp_maybe_release_buffers(fetcher->connection);
    if (problem)
        lose(fetcher, problem);
}

/* --- acknowledgements out --------------------------------------------------------------------- */

static int tell(struct fetcher *fetcher, size_t shard)
{
    const amqp_channel_t channel = (amqp_channel_t)(FIRST_CHANNEL + shard);
    int status = AMQP_STATUS_OK;
    uint64_t tag;
    bool rejected;
    while (status == AMQP_STATUS_OK && acks_take(&fetcher->streams[shard].acks, &tag, &rejected))
        status = rejected ? amqp_basic_reject(fetcher->connection, channel, tag, 0)
                          : amqp_basic_ack(fetcher->connection, channel, tag, 1);
    return status;
}

static void take_settled(struct fetcher *fetcher)
{
    struct delivery *delivery;
    int status = AMQP_STATUS_OK;
    while ((delivery = handover_take(fetcher->to_thread))) {
        fetcher->alive--;
        if (fetcher->connection && delivery->generation == fetcher->generation)
            acks_settle(&fetcher->streams[delivery->shard].acks, delivery->tag,
                        delivery->end == DELIVERY_DEAD);
        free(delivery);
    }
    if (!fetcher->connection)
        return;
    for (size_t i = 0; status == AMQP_STATUS_OK && i < fetcher->config.shard_count; i++)
        status = tell(fetcher, i);
    if (status != AMQP_STATUS_OK)
        lose(fetcher, amqp_error_string2(status));
}

/* --- how much waits --------------------------------------------------------------------------- */

static bool ask_depth(struct fetcher *fetcher, const char *queue, struct metrics_series *series)
{
    const amqp_queue_declare_ok_t *found =
        amqp_queue_declare(fetcher->connection, BROKER_ADMIN_CHANNEL, amqp_cstring_bytes(queue), 1,
                           0, 0, 0, amqp_empty_table);
    if (!found) {
        (void)broker_verdict(amqp_get_rpc_reply(fetcher->connection), fetcher->why);
        return false;
    }
    metrics_set_value(series, found->message_count);
    return true;
}

static void ask_depths(struct fetcher *fetcher)
{
    if (clock_mono_us() < fetcher->depth_us)
        return;
    fetcher->depth_us = clock_mono_us() + DEPTH_MS * 1000;
    for (size_t i = 0; i < fetcher->config.shard_count; i++) {
        struct stream *stream = &fetcher->streams[i];
        if (!ask_depth(fetcher, stream->queue, stream->ready_count) ||
            !ask_depth(fetcher, stream->dead, stream->dead_count)) {
            lose(fetcher, fetcher->why);
            return;
        }
    }
}

/* --- the thread ------------------------------------------------------------------------------- */

static void wait_for_something(struct fetcher *fetcher)
{
    struct pollfd fds[2] = {{.fd = fetcher->wake_fd, .events = POLLIN}, {.fd = -1}};
    int64_t wait_ms = TICK_MS;
    if (!fetcher->connection) {
        wait_ms = (fetcher->again_us - clock_mono_us()) / 1000 + 1;
    } else if (has_room(fetcher)) {
        fds[1] = (struct pollfd){.fd = amqp_get_sockfd(fetcher->connection), .events = POLLIN};
        if (amqp_frames_enqueued(fetcher->connection) || amqp_data_in_buffer(fetcher->connection))
            wait_ms = 0;
    }
    wait_ms = wait_ms < 0 ? 0 : wait_ms > TICK_MS ? TICK_MS : wait_ms;
    if (poll(fds, 2, (int)wait_ms) > 0 && fds[0].revents)
        handover_fd_clear(fetcher->wake_fd);
}

static void *run(void *arg)
{
    struct fetcher *fetcher = arg;
    while (!__atomic_load_n(&fetcher->stopping, __ATOMIC_ACQUIRE)) {
        if (!fetcher->connection && clock_mono_us() >= fetcher->again_us)
            connect_now(fetcher);
        take_settled(fetcher);
        if (fetcher->connection)
            read_frames(fetcher);
        if (fetcher->connection)
            ask_depths(fetcher);
        if (fetcher->delivered)
            handover_wake(fetcher->to_loop);
        fetcher->delivered = false;
        wait_for_something(fetcher);
    }
    take_settled(fetcher);
    broker_close(fetcher->connection, true);
    fetcher->connection = NULL;
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

static bool build_streams(struct fetcher *fetcher)
{
    fetcher->streams = calloc(fetcher->config.shard_count, sizeof(*fetcher->streams));
    for (size_t i = 0; fetcher->streams && i < fetcher->config.shard_count; i++) {
        struct stream *stream = &fetcher->streams[i];
        const char *shard = fetcher->config.shards[i];
        broker_queue_name(shard, stream->queue);
        snprintf(stream->dead, sizeof(stream->dead), "%s.dead", stream->queue);
        stream->ready_count = metrics_series(fetcher->metrics, METRIC_QUEUE_DEPTH,
                                             (const char *const[]){shard, "ready"});
        stream->dead_count = metrics_series(fetcher->metrics, METRIC_QUEUE_DEPTH,
                                            (const char *const[]){shard, "dead"});
        if (!acks_init(&stream->acks, (size_t)fetcher->config.settings->queue.prefetch))
            return false;
    }
    return fetcher->streams != NULL;
}

static bool build(struct fetcher *fetcher)
{
    struct event_base *base = fetcher->config.base;
    fetcher->metrics = metrics_set_new();
    fetcher->wake_fd = handover_fd_new();
    fetcher->loop_wake_fd = handover_fd_new();
    if (!fetcher->metrics || fetcher->wake_fd < 0 || fetcher->loop_wake_fd < 0)
        return false;
    fetcher->to_loop = handover_new(fetcher->alive_max, fetcher->loop_wake_fd);
    fetcher->to_thread = handover_new(fetcher->alive_max, fetcher->wake_fd);
    fetcher->on_wake =
        event_new(base, fetcher->loop_wake_fd, EV_READ | EV_PERSIST, on_wake, fetcher);
    fetcher->flush = evtimer_new(base, on_flush, fetcher);
    return fetcher->to_loop && fetcher->to_thread && fetcher->on_wake && fetcher->flush &&
           event_add(fetcher->on_wake, NULL) == 0 && build_streams(fetcher);
}

struct fetcher *fetcher_new(const struct fetcher_config *config)
{
    char why[BROKER_WHY_MAX];
    if (broker_check_url(config->settings->queue.url, why) != SG_OK) {
        log_error(NULL, "queue.url: %s", why);
        return NULL;
    }
    struct fetcher *fetcher = calloc(1, sizeof(*fetcher));
    if (!fetcher)
        return NULL;
    assert(config->shard_count <= FETCHER_SHARDS_MAX);
    fetcher->config = *config;
    fetcher->wake_fd = -1;
    fetcher->loop_wake_fd = -1;
    fetcher->alive_max = 2 * config->shard_count * (size_t)config->settings->queue.prefetch;
    fetcher->backoff_ms = config->settings->queue.backoff_min_ms;
    if (!build(fetcher)) {
        fetcher_free(fetcher);
        return NULL;
    }
    return fetcher;
}

enum sg_error fetcher_start(struct fetcher *fetcher)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    fetcher->started = pthread_create(&fetcher->thread, NULL, run, fetcher) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return fetcher->started ? SG_OK : SG_NO_MEMORY;
}

void fetcher_stop(struct fetcher *fetcher)
{
    if (!fetcher || !fetcher->started)
        return;
    __atomic_store_n(&fetcher->stopping, true, __ATOMIC_RELEASE);
    handover_wake(fetcher->to_thread);
    pthread_join(fetcher->thread, NULL);
    fetcher->started = false;
    for (size_t i = 0; i < fetcher->config.shard_count; i++) { /* another may look from now on */
        metrics_set_value(fetcher->streams[i].ready_count, 0);
        metrics_set_value(fetcher->streams[i].dead_count, 0);
    }
}

void fetcher_free(struct fetcher *fetcher)
{
    struct delivery *delivery;
    if (!fetcher)
        return;
    while (fetcher->to_loop && (delivery = handover_take(fetcher->to_loop)))
        free(delivery);
    while (fetcher->to_thread && (delivery = handover_take(fetcher->to_thread)))
        free(delivery);
    for (size_t i = 0; fetcher->streams && i < fetcher->config.shard_count; i++)
        acks_done(&fetcher->streams[i].acks);
    free(fetcher->streams);
    if (fetcher->on_wake)
        event_free(fetcher->on_wake);
    if (fetcher->flush)
        event_free(fetcher->flush);
    handover_free(fetcher->to_loop);
    handover_free(fetcher->to_thread);
    if (fetcher->wake_fd >= 0)
        close(fetcher->wake_fd);
    if (fetcher->loop_wake_fd >= 0)
        close(fetcher->loop_wake_fd);
    free(fetcher);
}
