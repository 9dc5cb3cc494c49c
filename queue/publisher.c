/*
 * The publisher's thread. See publisher.h.
 *
 *   rings ── collect ──> waiting ── publish ──> the shard's window ── basic.ack ──> answer
 *                           ^                  (unconfirmed, by tag)
 *                           └───────── connection lost ─────┘
 *
 * A channel a shard: RabbitMQ stops reading a channel that has more than a few messages (32, its
 * quorum_commands_soft_limit) with one quorum queue, so that shards would wait for each other.
 *
 *   CONNECTING ──> UP ──lost──> CONNECTING: messages wait for it, to their deadline; there is a
 *        │                      pause before it if the connection did not last
 *        └──failed──> AWAY ──pause──> tried again: meanwhile messages are refused at once
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/publisher.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/broker.h"
#include "queue/handover.h"
#include "queue/publisher_internal.h"
#include "queue/window.h"

#define FIRST_CHANNEL 2
#define SHARDS_MAX 1024
#define TICK_MS 20       /* deadlines are looked at so often while something is under way */
#define IDLE_TICK_MS 500 /* heartbeats */
#define FRAMES_A_TURN 4096
#define CHUNK_BYTES 16384 /* written at most between two looks whether the socket takes it */
#define SOCKET_BUFFER_BYTES                                                                        \
    262144 /* a chunk always fits when the socket says that it is writable */

enum publisher_state { PUBLISHER_CONNECTING, PUBLISHER_UP, PUBLISHER_AWAY };

enum { OUTCOME_CONFIRMED, OUTCOME_REFUSED, OUTCOME_UNKNOWN, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {"confirmed", "refused", "unknown"};

struct publish_shard {
    struct publish_shard *next;
    char name[SHARDMAP_NAME_MAX + 1];
    char queue[BROKER_QUEUE_MAX];
    amqp_channel_t channel;
    bool open;     /* the channel, on this connection */
    bool declared; /* on this connection */
    struct window
        window; /* room for all that may be pending, from when the channel is first open */
    struct metrics_series *published[OUTCOMES];
    struct metrics_series *duration;
};

struct queue_publisher {
    const struct settings *settings;
    struct metrics_set *metrics;
    int wake_fd;
    struct queue_sender *senders[SENDERS_MAX];
    size_t sender_count;
    bool stopping; /* atomic */
    pthread_t thread;
    bool started;
    /* the thread's */
    enum publisher_state state;
    amqp_connection_state_t connection;
    bool blocked;  /* the broker has said that it takes nothing now */
    int64_t up_us; /* when the connection was made */
    int64_t backoff_ms;
    int64_t again_us; /* when the next attempt comes */
    struct publish_shard *shards;
    amqp_channel_t shard_count;
    struct publish_item *waiting, **waiting_end;
    char why[BROKER_WHY_MAX]; /* the connection is of no use any more */
};

/* --- shards ----------------------------------------------------------------------------------- */

static struct publish_shard *find_shard(struct queue_publisher *publisher, const char *name)
{
    struct publish_shard *shard = publisher->shards;
    while (shard && strcmp(shard->name, name) != 0)
        shard = shard->next;
    if (shard || publisher->shard_count == SHARDS_MAX)
        return shard;
    shard = calloc(1, sizeof(*shard));
    if (!shard)
        return NULL;
    shard->channel = (amqp_channel_t)(FIRST_CHANNEL + publisher->shard_count++);
    snprintf(shard->name, sizeof(shard->name), "%s", name);
    broker_queue_name(name, shard->queue);
    for (int i = 0; i < OUTCOMES; i++)
        shard->published[i] = metrics_series(publisher->metrics, METRIC_QUEUE_PUBLISHED,
                                             (const char *const[]){shard->name, outcome_names[i]});
    shard->duration = metrics_series(publisher->metrics, METRIC_QUEUE_CONFIRM_DURATION,
                                     (const char *const[]){shard->name});
    shard->next = publisher->shards;
    publisher->shards = shard;
    return shard;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void answer(struct publish_item *item, enum sg_error error)
{
    struct queue_sender *sender = item->sender;
    int outcome = error == SG_OK                ? OUTCOME_CONFIRMED
                  : error == SG_OUTCOME_UNKNOWN ? OUTCOME_UNKNOWN
                                                : OUTCOME_REFUSED;
    if (item->shard) {
        metrics_add(item->shard->published[outcome], 1);
        if (error == SG_OK)
            metrics_observe_us(item->shard->duration, clock_mono_us() - item->accepted_us);
    }
    item->answer = error;
    sender->answered = true;
    bool fitted = handover_put(sender->to_worker, item);
    assert(fitted); /* it holds as many as may be pending */
    (void)fitted;
}

/* Without the broker's word. */
static void give_up(struct publish_item *item)
{
    answer(item, item->was_sent ? SG_OUTCOME_UNKNOWN : SG_QUEUE_UNAVAILABLE);
}

static void wake_answered(struct queue_publisher *publisher)
{
    for (size_t i = 0; i < publisher->sender_count; i++) {
        struct queue_sender *sender = publisher->senders[i];
        if (sender->answered)
            handover_wake(sender->to_worker);
        sender->answered = false;
    }
}

/* --- what waits ------------------------------------------------------------------------------- */

static void push_waiting(struct queue_publisher *publisher, struct publish_item *item)
{
    item->behind = NULL;
    *publisher->waiting_end = item;
    publisher->waiting_end = &item->behind;
}

static struct publish_item *pop_waiting(struct queue_publisher *publisher)
{
    struct publish_item *item = publisher->waiting;
    publisher->waiting = item->behind;
    if (!publisher->waiting)
        publisher->waiting_end = &publisher->waiting;
    return item;
}

static void collect(struct queue_publisher *publisher)
{
    for (size_t i = 0; i < publisher->sender_count; i++) {
        struct publish_item *item;
        while ((item = handover_take(publisher->senders[i]->to_publisher))) {
            item->shard = find_shard(publisher, item->shard_name);
            if (item->shard)
                push_waiting(publisher, item);
            else
                give_up(item);
        }
    }
}

static bool is_overdue(const struct queue_publisher *publisher, const struct publish_item *item,
                       int64_t now_us)
{
    return now_us - item->accepted_us >= publisher->settings->queue.confirm_ms * 1000;
}

/* Both are in the order in which they were accepted, or nearly. */
static void expire(struct queue_publisher *publisher)
{
    const int64_t now_us = clock_mono_us();
    struct publish_item *item;
    for (struct publish_shard *shard = publisher->shards; shard; shard = shard->next) {
        while ((item = window_oldest(&shard->window)) && is_overdue(publisher, item, now_us)) {
            window_take_upto(&shard->window, UINT64_MAX);
            give_up(item);
        }
    }
    while (publisher->waiting && is_overdue(publisher, publisher->waiting, now_us))
        give_up(pop_waiting(publisher));
}

static void refuse_waiting(struct queue_publisher *publisher)
{
    while (publisher->waiting)
        give_up(pop_waiting(publisher));
}

/* --- the connection --------------------------------------------------------------------------- */

static void set_state(struct queue_publisher *publisher, enum publisher_state state)
{
    publisher->state = state;
    if (state == PUBLISHER_UP)
        publisher->up_us = clock_mono_us();
}

static void pause_connecting(struct queue_publisher *publisher)
{
    publisher->again_us = clock_mono_us() + publisher->backoff_ms * 1000;
    publisher->backoff_ms *= 2;
    if (publisher->backoff_ms > publisher->settings->queue.backoff_max_ms)
        publisher->backoff_ms = publisher->settings->queue.backoff_max_ms;
}

/* What it has not confirmed goes before what waits, in order: a second copy does no harm. */
static void take_back(struct queue_publisher *publisher)
{
    struct publish_item *later = publisher->waiting;
    struct publish_item **later_end = publisher->waiting_end;
    struct publish_item *item;
    publisher->waiting = NULL;
    publisher->waiting_end = &publisher->waiting;
    for (struct publish_shard *shard = publisher->shards; shard; shard = shard->next) {
        while ((item = window_take_upto(&shard->window, UINT64_MAX))) {
            item->in_doubt = true;
            push_waiting(publisher, item);
        }
        window_reset(&shard->window);
    }
    if (later) {
        *publisher->waiting_end = later;
        publisher->waiting_end = later_end;
    }
}

static void lose(struct queue_publisher *publisher, const char *why)
{
    log_warn(NULL, "queue: lost the connection to RabbitMQ: %s", why);
    broker_close(publisher->connection, false);
    publisher->connection = NULL;
    publisher->blocked = false;
    take_back(publisher);
    set_state(publisher, PUBLISHER_CONNECTING);
    if (clock_mono_us() - publisher->up_us < publisher->settings->queue.backoff_max_ms * 1000)
        pause_connecting(publisher);
    else
        publisher->backoff_ms = publisher->settings->queue.backoff_min_ms;
}

static enum sg_error open_channel(struct queue_publisher *publisher,
                                  amqp_connection_state_t connection, struct publish_shard *shard,
                                  char *ret_why)
{
    const size_t pending_max =
        (size_t)publisher->settings->queue.max_pending * publisher->sender_count;
    snprintf(ret_why, BROKER_WHY_MAX, "out of memory");
    if (!shard->window.slots && !window_init(&shard->window, pending_max))
        return SG_NO_MEMORY;
    enum sg_error error = broker_open_channel(connection, shard->channel, ret_why);
    if (error)
        return error;
    amqp_confirm_select(connection, shard->channel);
    error = broker_verdict(amqp_get_rpc_reply(connection), ret_why);
    shard->open = error == SG_OK;
    return error;
}

/* The shard's channel and queues, if they are not there. */
static enum sg_error prepare_shard(struct queue_publisher *publisher,
                                   amqp_connection_state_t connection, struct publish_shard *shard,
                                   char *ret_why)
{
    enum sg_error error = SG_OK;
    if (!shard->open)
        error = open_channel(publisher, connection, shard, ret_why);
    if (!error && !shard->declared) {
        error = broker_declare(connection, publisher->settings, shard->name, ret_why);
        shard->declared = error == SG_OK;
    }
    return error;
}

static enum sg_error prepare(struct queue_publisher *publisher, amqp_connection_state_t connection,
                             char *ret_why)
{
    const int size = SOCKET_BUFFER_BYTES;
    enum sg_error error = SG_OK;
    (void)setsockopt(amqp_get_sockfd(connection), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    for (struct publish_shard *shard = publisher->shards; shard && !error; shard = shard->next) {
        shard->open = false;
        shard->declared = false;
        error = prepare_shard(publisher, connection, shard, ret_why);
        /* With many shards this takes its time, which is not to be that of who waits. */
        collect(publisher);
        expire(publisher);
        wake_answered(publisher);
    }
    return error;
}

static void connect_now(struct queue_publisher *publisher)
{
    char why[BROKER_WHY_MAX];
    amqp_connection_state_t connection = NULL;
    enum sg_error error = broker_open(publisher->settings, &connection, why);
    if (!error)
        error = prepare(publisher, connection, why);
    if (!error) {
        log_info(NULL, "queue: connected to RabbitMQ");
        publisher->connection = connection;
        set_state(publisher, PUBLISHER_UP);
        return;
    }
    broker_close(connection, false);
    if (publisher->state == PUBLISHER_CONNECTING)
        log_warn(NULL, "queue: RabbitMQ is away: %s", why);
    set_state(publisher, PUBLISHER_AWAY);
    pause_connecting(publisher);
}

static void keep_connected(struct queue_publisher *publisher)
{
    if (publisher->state != PUBLISHER_UP && clock_mono_us() >= publisher->again_us)
        connect_now(publisher);
}

/* --- publishing ------------------------------------------------------------------------------- */

static bool is_writable(amqp_connection_state_t connection)
{
    struct pollfd fd = {.fd = amqp_get_sockfd(connection), .events = POLLOUT};
    return poll(&fd, 1, 0) == 1 && (fd.revents & POLLOUT);
}

/* NULL, or what went wrong. */
static const char *publish(struct queue_publisher *publisher, struct publish_item *item)
{
    char tag_text[24];
    uint64_t tag = window_push(&item->shard->window, item);
    item->was_sent = true;
    item->returned = false;
    snprintf(tag_text, sizeof(tag_text), "%" PRIu64, tag);
    const amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_CORRELATION_ID_FLAG,
        .content_type = amqp_cstring_bytes("application/x-protobuf"),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
        .correlation_id = amqp_cstring_bytes(tag_text)};
    int status = amqp_basic_publish(publisher->connection, item->shard->channel, amqp_empty_bytes,
                                    amqp_cstring_bytes(item->shard->queue), 1, 0, &properties,
                                    (amqp_bytes_t){.len = item->len, .bytes = item->body});
    return status == AMQP_STATUS_OK ? NULL : amqp_error_string2(status);
}

static const char *publish_next(struct queue_publisher *publisher, size_t *ret_len)
{
    char *why = publisher->why;
    struct publish_shard *shard = publisher->waiting->shard;
    if (prepare_shard(publisher, publisher->connection, shard, why) != SG_OK)
        return why;
    struct publish_item *item = pop_waiting(publisher);
    *ret_len = item->len;
    return publish(publisher, item);
}

static bool can_publish(const struct queue_publisher *publisher)
{
    const struct publish_item *item = publisher->waiting;
    return item && !publisher->blocked &&
           !(item->shard->open && window_is_full(&item->shard->window));
}

/* The library blocks when the socket is full, and a broker out of memory stops reading: so no more
 * is written than fits. */
static void write_waiting(struct queue_publisher *publisher)
{
    size_t room = 0;
    while (can_publish(publisher)) {
        size_t len = 0;
        if (room == 0 && !is_writable(publisher->connection))
            return;
        room = room ? room : CHUNK_BYTES;
        const char *problem = publish_next(publisher, &len);
        if (problem) {
            lose(publisher, problem);
            return;
        }
        room = len + 256 < room ? room - len - 256 : 0; /* and its three frames */
    }
}

/* What waits goes in as few packets as it fits in: each wakes the broker. */
static void publish_waiting(struct queue_publisher *publisher)
{
    const int cork = 1;
    const int uncork = 0;
    if (!can_publish(publisher))
        return;
    const int fd = amqp_get_sockfd(publisher->connection);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork));
    write_waiting(publisher);
    if (publisher->connection)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &uncork, sizeof(uncork));
}

/* --- what the broker says --------------------------------------------------------------------- */

static void settle(struct publish_item *item, enum sg_error error)
{
    if (item->returned)
        error = SG_QUEUE_UNAVAILABLE;
    answer(item, error && item->in_doubt ? SG_OUTCOME_UNKNOWN : error);
}

static void on_confirmed(struct publish_shard *shard, uint64_t tag, bool multiple,
                         enum sg_error error)
{
    struct publish_item *item;
    if (multiple) {
        while ((item = window_take_upto(&shard->window, tag)))
            settle(item, error);
    } else if ((item = window_take(&shard->window, tag))) {
        settle(item, error);
    }
}

/* Its queue is not there any more: somebody has deleted it. The acknowledgement follows. */
static const char *on_returned(struct queue_publisher *publisher, struct publish_shard *shard)
{
    char *why = publisher->why;
    char tag_text[24];
    amqp_message_t message;
    if (broker_verdict(amqp_read_message(publisher->connection, shard->channel, &message, 0),
                       why) != SG_OK)
        return why;
    amqp_bytes_t tag = message.properties.correlation_id;
    snprintf(tag_text, sizeof(tag_text), "%.*s", (int)tag.len, (const char *)tag.bytes);
    struct publish_item *item = window_find(&shard->window, strtoull(tag_text, NULL, 10));
    if (item)
        item->returned = true;
    shard->declared = false;
    amqp_destroy_message(&message);
    return NULL;
}

/* What concerns one shard. NULL, or why the connection is of no use any more. */
static const char *on_shard_method(struct queue_publisher *publisher, struct publish_shard *shard,
                                   const amqp_method_t *method)
{
    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        on_confirmed(shard, ack->delivery_tag, ack->multiple, SG_OK);
    } else if (method->id == AMQP_BASIC_NACK_METHOD) {
        const amqp_basic_nack_t *nack = method->decoded;
        on_confirmed(shard, nack->delivery_tag, nack->multiple, SG_QUEUE_UNAVAILABLE);
    } else if (method->id == AMQP_BASIC_RETURN_METHOD) {
        return on_returned(publisher, shard);
    }
    return NULL;
}

/* The same for all of them. */
static const char *on_method(struct queue_publisher *publisher, amqp_channel_t channel,
                             const amqp_method_t *method)
{
    char *why = publisher->why;
    const amqp_rpc_reply_t said = {.reply_type = AMQP_RESPONSE_SERVER_EXCEPTION, .reply = *method};
    struct publish_shard *shard = publisher->shards;
    switch (method->id) {
    case AMQP_CONNECTION_BLOCKED_METHOD:
        log_warn(NULL, "queue: RabbitMQ takes nothing now: it is short of memory or disk");
        publisher->blocked = true;
        return NULL;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        log_info(NULL, "queue: RabbitMQ takes messages again");
        publisher->blocked = false;
        return NULL;
    case AMQP_CONNECTION_CLOSE_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
        (void)broker_verdict(said, why);
        return why;
    default:
        while (shard && shard->channel != channel)
            shard = shard->next;
        return shard ? on_shard_method(publisher, shard, method) : NULL;
    }
}

static void read_frames(struct queue_publisher *publisher)
{
    const struct timeval at_once = {0};
    const char *problem = NULL;
    for (int i = 0; i < FRAMES_A_TURN && !problem; i++) {
        amqp_frame_t frame;
        int status = amqp_simple_wait_frame_noblock(publisher->connection, &frame, &at_once);
        if (status == AMQP_STATUS_TIMEOUT)
            break;
        if (status != AMQP_STATUS_OK)
            problem = amqp_error_string2(status);
        else if (frame.frame_type == AMQP_FRAME_METHOD)
            problem = on_method(publisher, frame.channel, &frame.payload.method);
    }
    amqp_maybe_release_buffers(publisher->connection);
    if (problem)
        lose(publisher, problem);
}

/* --- the thread ------------------------------------------------------------------------------- */

static bool has_unconfirmed(const struct queue_publisher *publisher)
{
    const struct publish_shard *shard = publisher->shards;
    while (shard && window_is_empty(&shard->window))
        shard = shard->next;
    return shard != NULL;
}

static int wait_ms(const struct queue_publisher *publisher)
{
    bool busy = publisher->waiting || has_unconfirmed(publisher);
    if (publisher->state == PUBLISHER_UP ? amqp_frames_enqueued(publisher->connection) ||
                                               amqp_data_in_buffer(publisher->connection)
                                         : clock_mono_us() >= publisher->again_us)
        return 0;
    return busy || publisher->state != PUBLISHER_UP ? TICK_MS : IDLE_TICK_MS;
}

static void wait_for_something(struct queue_publisher *publisher)
{
    struct pollfd fds[2] = {{.fd = publisher->wake_fd, .events = POLLIN}, {.fd = -1}};
    if (publisher->connection) {
        fds[1].fd = amqp_get_sockfd(publisher->connection);
        fds[1].events = (short)(POLLIN | (can_publish(publisher) ? POLLOUT : 0));
    }
    if (poll(fds, 2, wait_ms(publisher)) > 0 && fds[0].revents)
        handover_fd_clear(publisher->wake_fd);
}

static void *run(void *arg)
{
    struct queue_publisher *publisher = arg;
    while (!__atomic_load_n(&publisher->stopping, __ATOMIC_ACQUIRE)) {
        keep_connected(publisher);
        collect(publisher);
        if (publisher->state == PUBLISHER_UP)
            publish_waiting(publisher);
        if (publisher->state == PUBLISHER_UP)
            read_frames(publisher);
        expire(publisher);
        if (publisher->state == PUBLISHER_AWAY || publisher->blocked)
            refuse_waiting(publisher);
        wake_answered(publisher);
        wait_for_something(publisher);
    }
    broker_close(publisher->connection, true);
    publisher->connection = NULL;
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

static bool build(struct queue_publisher *publisher, const struct queue_publisher_config *config)
{
    publisher->metrics = metrics_set_new();
    publisher->wake_fd = handover_fd_new();
    if (!publisher->metrics || publisher->wake_fd < 0)
        return false;
    for (size_t i = 0; i < config->shard_count; i++) {
        if (!find_shard(publisher, config->shards[i]))
            return false;
    }
    return true;
}

struct queue_publisher *queue_publisher_new(const struct queue_publisher_config *config)
{
    char why[BROKER_WHY_MAX];
    if (broker_check_url(config->settings->queue.url, why) != SG_OK) {
        log_error(NULL, "queue.url: %s", why);
        return NULL;
    }
    struct queue_publisher *publisher = calloc(1, sizeof(*publisher));
    if (!publisher)
        return NULL;
    publisher->settings = config->settings;
    publisher->wake_fd = -1;
    publisher->waiting_end = &publisher->waiting;
    publisher->backoff_ms = config->settings->queue.backoff_min_ms;
    if (!build(publisher, config)) {
        queue_publisher_free(publisher);
        return NULL;
    }
    return publisher;
}

bool queue_publisher_enter(struct queue_publisher *publisher, struct queue_sender *sender)
{
    if (publisher->sender_count == SENDERS_MAX)
        return false;
    publisher->senders[publisher->sender_count++] = sender;
    return true;
}

int queue_publisher_wake_fd(const struct queue_publisher *publisher)
{
    return publisher->wake_fd;
}

int64_t queue_publisher_max_pending(const struct queue_publisher *publisher)
{
    return publisher->settings->queue.max_pending;
}

enum sg_error queue_publisher_start(struct queue_publisher *publisher)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the control thread's */
    publisher->started = pthread_create(&publisher->thread, NULL, run, publisher) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return publisher->started ? SG_OK : SG_NO_MEMORY;
}

void queue_publisher_stop(struct queue_publisher *publisher)
{
    const uint64_t one = 1;
    if (!publisher || !publisher->started)
        return;
    __atomic_store_n(&publisher->stopping, true, __ATOMIC_RELEASE);
    ssize_t written = write(publisher->wake_fd, &one, sizeof(one));
    (void)written;
    pthread_join(publisher->thread, NULL);
    publisher->started = false;
}

void queue_publisher_free(struct queue_publisher *publisher)
{
    if (!publisher)
        return;
    while (publisher->shards) {
        struct publish_shard *shard = publisher->shards;
        publisher->shards = shard->next;
        window_done(&shard->window);
        free(shard);
    }
    if (publisher->wake_fd >= 0)
        close(publisher->wake_fd);
    free(publisher);
}
