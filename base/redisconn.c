/*
 * The connection to Redis. See redisconn.h for the states.
 *
 *   redisconn_send ─> out ──end of this turn──> socket ─> Redis
 *                └──> queue: who waits for what          │
 *   fn(arg, reply) <── oldest of the queue <── reader <──┘
 *
 * One entry of the queue stands for one call of send, however many commands it had. The timer is
 * never set by a command: in UP it fires at least twice within reply_timeout_ms and looks.
 *
 * A connection is given up in lose() alone, and only from the loop. A callback may send, subscribe,
 * reset and free: a reset waits for the timer's event, and what was freed lives until the reap
 * list's turn, so every loop here looks at the state again after a callback.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/redisconn.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/nameset.h"
#include "base/reap.h"
#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "base/tcpdial.h"

#define PING "*1\r\n$4\r\nPING\r\n"
#define PING_INTERVAL_US 1000000
#define READ_BYTES 16384 /* the reader moves its rest at each reply: larger portions cost more */
#define READS_PER_TURN 8
#define WRITES_PER_TURN 16
#define REPLY_BYTES_MAX ((size_t)256 << 20)
#define REPLY_ELEMENTS_MAX ((size_t)16 << 20)
#define SUBSCRIBE_AT_ONCE 128
#define SUBSCRIBE_BYTES_MAX (SUBSCRIBE_AT_ONCE * (REDISKEY_MAX + 32))
#define REASON_SIZE 256

#if HIREDIS_MAJOR >= 1
#define ELEMENT_COUNT size_t
#else
#define ELEMENT_COUNT int
#endif

enum redisconn_state {
    REDISCONN_WAITING,
    REDISCONN_CONNECTING,
    REDISCONN_CHECKING,
    REDISCONN_SUBSCRIBING,
    REDISCONN_UP
};

struct expectation {
    redisconn_fn *fn;
    void *arg;
    size_t count; /* answers that are still to come */
    int64_t sent_us;
    bool own; /* a PING */
};

struct redisconn {
    struct redisconn_config config;
    char name[64];
    struct tcpdial_address address;
    enum redisconn_state state;
    bool freed;
    bool told_up; /* what was last said in log and metric */
    bool told_down;
    char reset_reason[REASON_SIZE]; /* not "": to be given up at the next turn */
    int64_t backoff_us;             /* the next pause, before jitter */
    int64_t up_us;                  /* since when */
    int64_t heard_us;               /* the last answer or message */
    struct event *timer;
    struct event *flush; /* active while `out` waits for the end of the turn */

    /* of one connection */
    struct tcpdial *dial; /* while connecting */
    int fd;               /* -1: none */
    struct event *readable;
    struct event *writable; /* while the socket is full */
    redisReader *reader;
    redisReplyObjectFunctions functions; /* of the reader: its own, with a bound on arrays */
    void *(*create_array)(const redisReadTask *task, ELEMENT_COUNT elements);
    size_t elements;         /* of the reply that is being read */
    size_t unfinished_bytes; /* likewise */
    struct evbuffer *out;

    struct expectation *queue; /* a ring; its size is a power of two */
    size_t head;
    size_t count;
    size_t size;
    size_t in_flight;

    struct nameset channels;
    struct metrics_series *series;
};

static void lose(struct redisconn *conn, const char *reason);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

/* --- states ----------------------------------------------------------------------------------- */

static int64_t reply_timeout_us(const struct redisconn *conn)
{
    return conn->config.settings->redis.reply_timeout_ms * 1000;
}

static int64_t ping_interval_us(const struct redisconn *conn)
{
    const int64_t half_us = reply_timeout_us(conn) / 2;
    return half_us < PING_INTERVAL_US ? half_us : PING_INTERVAL_US;
}

static void set_timer_us(struct redisconn *conn, int64_t us)
{
    const struct timeval delay = clock_timeval_us(us);
    event_add(conn->timer, &delay);
}

/* Half of the pause is chance, so that a restarted Redis is not met by everybody at once. It
 * doubles until a connection has held for a while. */
static void set_backoff_timer(struct redisconn *conn)
{
    const int64_t max_us = conn->config.settings->redis.backoff_max_ms * 1000;
    const int64_t us = conn->backoff_us < max_us ? conn->backoff_us : max_us;
    set_timer_us(conn, us / 2 + (int64_t)arc4random_uniform((uint32_t)(us / 2 + 1)));
    conn->backoff_us = us * 2;
}

static void reset_backoff(struct redisconn *conn)
{
    conn->backoff_us = conn->config.settings->redis.backoff_min_ms * 1000;
}

/* The one place where the state changes; each state has its timer. */
static void set_state(struct redisconn *conn, enum redisconn_state state)
{
    const int64_t now_us = clock_mono_us();
    if (conn->state == REDISCONN_UP &&
        now_us - conn->up_us >= conn->config.settings->redis.backoff_max_ms * 1000)
        reset_backoff(conn);
    conn->state = state;
    switch (state) {
    case REDISCONN_WAITING:
        set_backoff_timer(conn);
        return;
    case REDISCONN_CONNECTING:
        set_timer_us(conn, conn->config.settings->redis.connect_timeout_ms * 1000);
        return;
    case REDISCONN_CHECKING:
        conn->heard_us = now_us;
        set_timer_us(conn, reply_timeout_us(conn));
        return;
    case REDISCONN_SUBSCRIBING:
        set_timer_us(conn, reply_timeout_us(conn));
        return;
    case REDISCONN_UP:
        conn->up_us = now_us;
        set_timer_us(conn, ping_interval_us(conn));
        return;
    }
}

/* Says it once, whatever was tried in between. */
static void tell(struct redisconn *conn, bool up, const char *reason)
{
    const char *address = conn->config.settings->redis.address;
    if (conn->name[0] && up && !conn->told_up)
        log_info(NULL, "redis %s is up (%s)", address, conn->name);
    if (conn->name[0] && !up && !conn->told_down)
        log_warn(NULL, "redis %s is down (%s): %s", address, conn->name, reason);
    conn->told_up = up;
    conn->told_down = !up;
    if (conn->series)
        metrics_set_value(conn->series, up);
}

/* --- the queue -------------------------------------------------------------------------------- */

static struct expectation *oldest_of(struct redisconn *conn)
{
    return &conn->queue[conn->head];
}

/* One answer of the oldest is in. */
static struct expectation take_answer(struct redisconn *conn)
{
    struct expectation *oldest = oldest_of(conn);
    const struct expectation taken = *oldest;
    if (!oldest->own)
        conn->in_flight--;
    if (--oldest->count == 0) {
        conn->head = (conn->head + 1) & (conn->size - 1);
        conn->count--;
    }
    return taken;
}

static bool grow_queue(struct redisconn *conn)
{
    const size_t size = conn->size ? conn->size * 2 : 16;
    struct expectation *queue = calloc(size, sizeof *queue);
    if (!queue)
        return false;
    for (size_t i = 0; i < conn->count; i++)
        queue[i] = conn->queue[(conn->head + i) & (conn->size - 1)];
    free(conn->queue);
    conn->queue = queue;
    conn->size = size;
    conn->head = 0;
    return true;
}

/* Bytes leave at the end of this turn of the loop, together with what else gathers until then. */
static bool add_bytes(struct redisconn *conn, const char *bytes, size_t len)
{
    if (evbuffer_get_length(conn->out) == 0)
        event_active(conn->flush, 0, 0);
    return evbuffer_add(conn->out, bytes, len) == 0;
}

static bool enqueue(struct redisconn *conn, const char *resp, size_t len,
                    struct expectation expected)
{
    if ((conn->count == conn->size && !grow_queue(conn)) || !add_bytes(conn, resp, len))
        return false;
    expected.sent_us = clock_mono_us();
    if (!expected.own)
        conn->in_flight += expected.count;
    conn->queue[(conn->head + conn->count++) & (conn->size - 1)] = expected;
    return true;
}

static void deliver_lost(struct redisconn *conn)
{
    while (conn->count) {
        const struct expectation lost = take_answer(conn);
        if (lost.fn)
            lost.fn(lost.arg, NULL);
    }
}

/* --- replies ---------------------------------------------------------------------------------- */

/* hiredis 0.14 has no bound of its own on the elements of a reply. */
static void *create_array(const redisReadTask *task, ELEMENT_COUNT elements)
{
    struct redisconn *conn = task->privdata;
    conn->elements += (size_t)elements;
    return conn->elements > REPLY_ELEMENTS_MAX ? NULL : conn->create_array(task, elements);
}

static bool make_reader(struct redisconn *conn)
{
    redisReader *reader = redisReaderCreate();
    if (!reader)
        return false;
    conn->functions = *reader->fn;
    conn->create_array = reader->fn->createArray;
    conn->functions.createArray = create_array;
    reader->fn = &conn->functions;
    reader->privdata = conn;
    conn->reader = reader;
    conn->elements = 0;
    conn->unfinished_bytes = 0;
    return true;
}

static bool is_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS;
}

static void on_pong(void *arg, const redisReply *reply);

static bool ping(struct redisconn *conn)
{
    return enqueue(conn, PING, sizeof(PING) - 1,
                   (struct expectation){.fn = on_pong, .arg = conn, .count = 1, .own = true});
}

static bool add_subscribe(struct redisconn *conn, const char *command, char *const *channels,
                          size_t count)
{
    struct dynbuf resp;
    dynbuf_init(&resp, SUBSCRIBE_BYTES_MAX);
    redisresp_begin(&resp, 1 + count);
    redisresp_args(&resp, command);
    for (size_t i = 0; i < count; i++)
        redisresp_args(&resp, channels[i]);
    const bool added = !resp.failed && add_bytes(conn, resp.data, resp.len);
    dynbuf_done(&resp);
    return added;
}

/* All channels, and a PING behind them: its answer comes after all confirmations. */
static bool add_subscribe_all(struct redisconn *conn)
{
    const struct nameset *channels = &conn->channels;
    for (size_t i = 0; i < channels->count; i += SUBSCRIBE_AT_ONCE) {
        const size_t left = channels->count - i;
        if (!add_subscribe(conn, "SUBSCRIBE", channels->names + i,
                           left < SUBSCRIBE_AT_ONCE ? left : SUBSCRIBE_AT_ONCE))
            return false;
    }
    return ping(conn);
}

static void come_up(struct redisconn *conn)
{
    set_state(conn, REDISCONN_UP);
    tell(conn, true, "");
    if (conn->config.on_up)
        conn->config.on_up(conn->config.arg);
}

/* +PONG, or while subscribed the array pong, "". */
static bool is_pong(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
        reply = reply->element[0];
    return is_text(reply) && strcasecmp(reply->str, "PONG") == 0;
}

static void on_pong(void *arg, const redisReply *reply)
{
    struct redisconn *conn = arg;
    if (!reply)
        return;
    if (!is_pong(reply)) {
        lose(conn,
             reply->type == REDIS_REPLY_ERROR ? reply->str : "PING was not answered with PONG");
    } else if (conn->state == REDISCONN_CHECKING && conn->channels.count) {
        set_state(conn, REDISCONN_SUBSCRIBING);
        if (!add_subscribe_all(conn))
            lose(conn, "out of memory");
    } else if (conn->state != REDISCONN_UP) {
        come_up(conn);
    }
}

/* What comes on a connection for subscriptions without having been asked for: three elements, the
 * first one says what it is. */
static bool is_push(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && is_text(reply->element[0]) &&
           is_text(reply->element[1]);
}

static void on_push(struct redisconn *conn, const redisReply *reply)
{
    const char *what = reply->element[0]->str;
    const char *channel = reply->element[1]->str;
    const redisReply *payload = reply->element[2];
    if (!nameset_has(&conn->channels, channel))
        return; /* unsubscribed while it was on its way */
    if (strcmp(what, "message") == 0 && is_text(payload))
        conn->config.on_message(conn->config.arg, channel, payload->str, payload->len);
    else if (strcmp(what, "subscribe") == 0 && conn->config.on_subscribed)
        conn->config.on_subscribed(conn->config.arg, channel);
}

static void on_reply(struct redisconn *conn, const redisReply *reply)
{
    if (conn->config.on_message && is_push(reply)) {
        on_push(conn, reply);
    } else if (conn->config.on_message && reply->type == REDIS_REPLY_ERROR) {
        lose(conn, reply->str); /* to a SUBSCRIBE, or to the PING */
    } else if (conn->count == 0) {
        lose(conn, reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer nobody asked for");
    } else {
        const struct expectation oldest = take_answer(conn);
        if (oldest.fn)
            oldest.fn(oldest.arg, reply);
    }
}

/* True while this connection goes on. */
static bool goes_on(const struct redisconn *conn)
{
    return conn->fd >= 0 && !conn->reset_reason[0];
}

/* Every reply that is complete. */
static void take_replies(struct redisconn *conn, int64_t now_us)
{
    while (goes_on(conn)) {
        void *reply;
        if (redisReaderGetReply(conn->reader, &reply) != REDIS_OK) {
            lose(conn, conn->reader->errstr);
            return;
        }
        if (!reply)
            break;
        conn->heard_us = now_us;
        conn->elements = 0;
        conn->unfinished_bytes = conn->reader->len - conn->reader->pos;
        on_reply(conn, reply);
        freeReplyObject(reply);
    }
    if (goes_on(conn) && conn->unfinished_bytes > REPLY_BYTES_MAX)
        lose(conn, "a reply is too long");
}

static void receive(struct redisconn *conn)
{
    char bytes[READ_BYTES];
    for (int i = 0; i < READS_PER_TURN && goes_on(conn); i++) {
        const ssize_t len = recv(conn->fd, bytes, sizeof(bytes), 0);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (len <= 0) {
            lose(conn, len == 0 ? "connection closed by Redis" : strerror(errno));
            return;
        }
        conn->unfinished_bytes += (size_t)len;
        if (redisReaderFeed(conn->reader, bytes, (size_t)len) != REDIS_OK) {
            lose(conn, conn->reader->errstr);
            return;
        }
        take_replies(conn, clock_mono_us());
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    receive(arg);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* What Redis said before the end, such as why, is heard first. */
static void on_write_failed(struct redisconn *conn, int error)
{
    receive(conn);
    if (goes_on(conn))
        lose(conn, strerror(error));
}

static void write_out(struct redisconn *conn)
{
    for (int i = 0; i < WRITES_PER_TURN && evbuffer_get_length(conn->out) > 0; i++) {
        if (evbuffer_write(conn->out, conn->fd) >= 0)
            continue;
        if (errno != EAGAIN && errno != EINTR) {
            on_write_failed(conn, errno);
            return;
        }
        break;
    }
    if (evbuffer_get_length(conn->out) > 0)
        event_add(conn->writable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    write_out(arg);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    struct redisconn *conn = arg;
    (void)fd;
    (void)what;
    if (goes_on(conn) && !event_pending(conn->writable, EV_WRITE, NULL))
        write_out(conn);
}

/* --- connecting ------------------------------------------------------------------------------- */

static void close_all(struct redisconn *conn)
{
    tcpdial_free(conn->dial);
    conn->dial = NULL;
    if (conn->readable)
        event_free(conn->readable);
    if (conn->writable)
        event_free(conn->writable);
    conn->readable = NULL;
    conn->writable = NULL;
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    redisReaderFree(conn->reader);
    conn->reader = NULL;
    evbuffer_drain(conn->out, evbuffer_get_length(conn->out));
}

/* The one way out of every state but WAITING. */
static void lose(struct redisconn *conn, const char *reason)
{
    char text[REASON_SIZE];
    const bool was_up = conn->state == REDISCONN_UP;
    snprintf(text, sizeof(text), "%s", reason[0] ? reason : "broken protocol");
    close_all(conn); /* the reason may have lived there */
    conn->reset_reason[0] = '\0';
    set_state(conn, REDISCONN_WAITING);
    tell(conn, false, text);
    deliver_lost(conn);
    if (was_up && !conn->freed && conn->config.on_lost)
        conn->config.on_lost(conn->config.arg, text);
}

static void on_connected(void *arg, int fd, const char *reason)
{
    struct redisconn *conn = arg;
    if (fd < 0) {
        lose(conn, reason);
        return;
    }
    tcpdial_free(conn->dial);
    conn->dial = NULL;
    conn->fd = fd;
    conn->readable = event_new(conn->config.base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    conn->writable = event_new(conn->config.base, fd, EV_WRITE, on_writable, conn);
    set_state(conn, REDISCONN_CHECKING);
    if (!conn->readable || !conn->writable || event_add(conn->readable, NULL) != 0 ||
        !make_reader(conn) || !ping(conn))
        lose(conn, "out of memory");
}

static void start_connect(struct redisconn *conn)
{
    set_state(conn, REDISCONN_CONNECTING);
    conn->dial = tcpdial_new(conn->config.base, &conn->address, on_connected, conn);
    if (!conn->dial)
        lose(conn, "out of memory");
}

/* --- the timer -------------------------------------------------------------------------------- */

/* When something is awaited its deadline is looked at, else whether a PING is due. As the timer
 * fires at least twice within the deadline, none is overlooked. */
static void look(struct redisconn *conn)
{
    const int64_t now_us = clock_mono_us();
    const int64_t interval_us = ping_interval_us(conn);
    int64_t next_us = interval_us;
    if (conn->count) {
        const int64_t sent_us = oldest_of(conn)->sent_us;
        const int64_t since_us = sent_us > conn->heard_us ? sent_us : conn->heard_us;
        const int64_t left_us = since_us + reply_timeout_us(conn) - now_us;
        if (left_us <= 0) {
            lose(conn, "no answer within redis.reply_timeout_ms");
            return;
        }
        next_us = left_us < interval_us ? left_us : interval_us;
    } else if (now_us - conn->heard_us < interval_us) {
        next_us = conn->heard_us + interval_us - now_us;
    } else if (!ping(conn)) {
        lose(conn, "out of memory");
        return;
    }
    set_timer_us(conn, next_us);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct redisconn *conn = arg;
    (void)fd;
    (void)what;
    if (conn->reset_reason[0]) {
        char reason[REASON_SIZE];
        memcpy(reason, conn->reset_reason, sizeof(reason));
        lose(conn, reason);
        return;
    }
    switch (conn->state) {
    case REDISCONN_WAITING:
        start_connect(conn);
        return;
    case REDISCONN_CONNECTING:
        lose(conn, "no connection within redis.connect_timeout_ms");
        return;
    case REDISCONN_CHECKING:
    case REDISCONN_SUBSCRIBING:
    case REDISCONN_UP:
        look(conn);
        return;
    }
}

/* --- making and ending ------------------------------------------------------------------------ */

static void release(void *object)
{
    struct redisconn *conn = object;
    if (conn->timer)
        event_free(conn->timer);
    if (conn->flush)
        event_free(conn->flush);
    if (conn->out)
        evbuffer_free(conn->out);
    nameset_done(&conn->channels);
    free(conn->queue);
    free(conn);
}

struct redisconn *redisconn_new(const struct redisconn_config *config)
{
    const char *address = config->settings->redis.address;
    struct redisconn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    conn->config = *config;
    conn->fd = -1;
    snprintf(conn->name, sizeof(conn->name), "%s", config->name ? config->name : "");
    conn->timer = evtimer_new(config->base, on_timer, conn);
    conn->flush = event_new(config->base, -1, 0, on_flush, conn);
    conn->out = evbuffer_new();
    if (!conn->timer || !conn->flush || !conn->out || !tcpdial_parse(address, &conn->address)) {
        release(conn);
        return NULL;
    }
    if (config->metrics) {
        conn->series = metrics_series(config->metrics, METRIC_REDIS_UP, &address);
        metrics_set_value(conn->series, 0);
    }
    reset_backoff(conn);
    conn->state = REDISCONN_WAITING;
    set_timer_us(conn, 0);
    return conn;
}

void redisconn_free(struct redisconn *conn)
{
    if (!conn)
        return;
    assert(!conn->freed);
    conn->freed = true;
    close_all(conn);
    conn->state = REDISCONN_WAITING;
    deliver_lost(conn);
    event_del(conn->timer);
    event_del(conn->flush);
    reap(conn->config.reap, conn, release);
}

/* --- what callers do -------------------------------------------------------------------------- */

bool redisconn_is_up(const struct redisconn *conn)
{
    return conn->state == REDISCONN_UP && !conn->reset_reason[0];
}

size_t redisconn_in_flight(const struct redisconn *conn)
{
    return conn->in_flight;
}

bool redisconn_send_many(struct redisconn *conn, const char *resp, size_t len, size_t count,
                         redisconn_fn *fn, void *arg)
{
    assert(count > 0);
    if (!redisconn_is_up(conn) || conn->config.on_message ||
        count > conn->config.in_flight_max - conn->in_flight)
        return false;
    return enqueue(conn, resp, len, (struct expectation){.fn = fn, .arg = arg, .count = count});
}

bool redisconn_send(struct redisconn *conn, const char *resp, size_t len, redisconn_fn *fn,
                    void *arg)
{
    return redisconn_send_many(conn, resp, len, 1, fn, arg);
}

/* Before SUBSCRIBING the channels need not be named one by one: all of them will be. */
static bool takes_channels(const struct redisconn *conn)
{
    return (conn->state == REDISCONN_SUBSCRIBING || conn->state == REDISCONN_UP) &&
           !conn->reset_reason[0];
}

bool redisconn_subscribe(struct redisconn *conn, const char *channel)
{
    bool added;
    char *name = (char *)channel; /* only read */
    assert(conn->config.on_message && strlen(channel) < REDISKEY_MAX);
    if (!nameset_add(&conn->channels, channel, &added))
        return false;
    if (!added || !takes_channels(conn) || add_subscribe(conn, "SUBSCRIBE", &name, 1))
        return true;
    nameset_remove(&conn->channels, channel);
    return false;
}

void redisconn_unsubscribe(struct redisconn *conn, const char *channel)
{
    char *name = (char *)channel;
    if (nameset_remove(&conn->channels, channel) && takes_channels(conn) &&
        !add_subscribe(conn, "UNSUBSCRIBE", &name, 1))
        redisconn_reset(conn, "out of memory"); /* what it should not hear ends with it */
}

void redisconn_reset(struct redisconn *conn, const char *reason)
{
    if (conn->state == REDISCONN_WAITING || conn->reset_reason[0])
        return;
    snprintf(conn->reset_reason, sizeof(conn->reset_reason), "%s", reason[0] ? reason : "given up");
    tcpdial_free(conn->dial); /* so that nothing sets the timer before it is at it */
    conn->dial = NULL;
    event_active(conn->timer, EV_TIMEOUT, 0);
}
