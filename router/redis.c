/*
 * One connection to Redis over hiredis. See redis.h.
 *
 * hiredis before 1.0 has no timeouts, so all deadlines are the one timer here. A context that has
 * failed belongs to hiredis, which frees it after the callback; one given up by a deadline is freed
 * here, from the timer, with no callback of it on the stack.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/redis.h"

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#define CONNECT_TIMEOUT_US 1000000
#define REPLY_TIMEOUT_US 1000000
#define CHECK_INTERVAL_US 1000000
#define BACKOFF_MIN_US 50000
#define BACKOFF_MAX_US 1000000

enum redis_state { REDIS_WAITING, REDIS_CONNECTING, REDIS_CHECKING, REDIS_UP };

struct redis {
    struct event_base *base;
    char host[256];
    int port;
    char address[256]; /* as configured, for log and metric */
    enum redis_state state;
    bool up;            /* what was last said in log and metric */
    bool told_down;     /* the loss was logged; retries are silent */
    int64_t backoff_us; /* the next pause, before jitter */
    struct event *timer;
    redisAsyncContext *context; /* NULL: none, or it is hiredis' to free */
    struct metrics_series *series;
};

static void check(struct redis *redis);

static void set_timer(struct redis *redis, int64_t delay_us)
{
    struct timeval delay = clock_timeval_us(delay_us);
    event_add(redis->timer, &delay);
}

/* The one place where the state changes; each state has one timer. */
static void set_state(struct redis *redis, enum redis_state state)
{
    const int64_t half_us = redis->backoff_us / 2;
    redis->state = state;
    switch (state) {
    case REDIS_WAITING:
        set_timer(redis, half_us + (int64_t)arc4random_uniform((uint32_t)half_us));
        redis->backoff_us = half_us * 4 < BACKOFF_MAX_US ? half_us * 4 : BACKOFF_MAX_US;
        return;
    case REDIS_CONNECTING:
        set_timer(redis, CONNECT_TIMEOUT_US);
        return;
    case REDIS_CHECKING:
        set_timer(redis, REPLY_TIMEOUT_US);
        return;
    case REDIS_UP:
        redis->backoff_us = BACKOFF_MIN_US;
        set_timer(redis, CHECK_INTERVAL_US);
        return;
    }
}

/* Says it once, whatever was tried in between. */
static void tell(struct redis *redis, bool up, const char *reason)
{
    if (up && !redis->up)
        log_info(NULL, "redis %s is up", redis->address);
    if (!up && !redis->told_down)
        log_warn(NULL, "redis %s is down: %s", redis->address, reason);
    redis->up = up;
    redis->told_down = !up;
    metrics_set_value(redis->series, up);
}

/* The connection is over and hiredis frees its context, or has none. */
static void lost(struct redis *redis, const char *reason)
{
    if (redis->context)
        redis->context->data = NULL; /* its last callbacks no longer reach us */
    redis->context = NULL;
    tell(redis, false, reason[0] ? reason : "connection closed");
    set_state(redis, REDIS_WAITING);
}

/* The connection is given up by us. */
static void give_up(struct redis *redis, const char *reason)
{
    redisAsyncContext *context = redis->context;
    lost(redis, reason);
    if (context)
        redisAsyncFree(context);
}

static void on_connected(const redisAsyncContext *context, int status)
{
    struct redis *redis = context->data;
    if (!redis)
        return;
    if (status == REDIS_OK)
        check(redis);
    else
        lost(redis, context->errstr);
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    struct redis *redis = context->data;
    (void)status;
    if (redis)
        lost(redis, context->errstr);
}

static void on_pong(redisAsyncContext *context, void *reply_object, void *arg)
{
    struct redis *redis = context->data;
    const redisReply *reply = reply_object;
    (void)arg;
    if (!redis || !reply)
        return; /* the connection is going: on_disconnected says so */
    if (reply->type == REDIS_REPLY_STATUS) {
        tell(redis, true, "");
        set_state(redis, REDIS_UP);
        return;
    }
    /* Loading its data, or not letting us in: ask again on a new connection. */
    lost(redis, reply->type == REDIS_REPLY_ERROR ? reply->str : "PING was not answered with PONG");
    redisAsyncFree(context); /* hiredis defers it to the end of this callback */
}

static void check(struct redis *redis)
{
    set_state(redis, REDIS_CHECKING);
    if (redisAsyncCommand(redis->context, on_pong, NULL, "PING") != REDIS_OK)
        set_timer(redis, 0); /* the deadline passes at once */
}

static void connect_now(struct redis *redis)
{
    set_state(redis, REDIS_CONNECTING);
    redisAsyncContext *context = redisAsyncConnect(redis->host, redis->port);
    redis->context = context;
    if (!context || context->err) {
        give_up(redis, context ? context->errstr : "out of memory");
        return;
    }
    context->data = redis;
    if (redisLibeventAttach(context, redis->base) != REDIS_OK) {
        give_up(redis, "cannot attach to the event loop");
        return;
    }
    /* Setting this one may already call it in some versions, so it comes last. */
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    redisAsyncSetConnectCallback(context, on_connected);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct redis *redis = arg;
    (void)fd;
    (void)what;
    switch (redis->state) {
    case REDIS_WAITING:
        connect_now(redis);
        return;
    case REDIS_CONNECTING:
        give_up(redis, "timeout while connecting");
        return;
    case REDIS_CHECKING:
        give_up(redis, "timeout while waiting for PONG");
        return;
    case REDIS_UP:
        check(redis);
        return;
    }
}

/* "host:port" or "[v6]:port" */
static bool parse_address(const char *address, char *host, size_t host_size, int *ret_port)
{
    const char *colon = strrchr(address, ':');
    char *end;
    if (!colon || colon == address)
        return false;
    long port = strtol(colon + 1, &end, 10);
    if (*end || port < 1 || port > 65535)
        return false;
    bool bracketed = address[0] == '[' && colon[-1] == ']';
    const char *from = bracketed ? address + 1 : address;
    size_t len = (size_t)(colon - from) - (bracketed ? 1 : 0);
    if (len == 0 || len >= host_size)
        return false;
    memcpy(host, from, len);
    host[len] = '\0';
    *ret_port = (int)port;
    return true;
}

struct redis *redis_new(const struct redis_config *config)
{
    struct redis *redis = calloc(1, sizeof(*redis));
    if (!redis)
        return NULL;
    redis->base = config->base;
    redis->backoff_us = BACKOFF_MIN_US;
    snprintf(redis->address, sizeof(redis->address), "%s", config->address);
    redis->timer = evtimer_new(config->base, on_timer, redis);
    if (!redis->timer ||
        !parse_address(config->address, redis->host, sizeof(redis->host), &redis->port)) {
        redis_free(redis);
        return NULL;
    }
    redis->series =
        metrics_series(config->metrics, METRIC_REDIS_UP, (const char *[]){redis->address});
    metrics_set_value(redis->series, 0);
    redis->state = REDIS_WAITING;
    set_timer(redis, 0);
    return redis;
}

void redis_free(struct redis *redis)
{
    if (!redis)
        return;
    if (redis->context) {
        redis->context->data = NULL;
        redisAsyncFree(redis->context);
    }
    if (redis->timer)
        event_free(redis->timer);
    free(redis);
}

bool redis_is_up(const struct redis *redis)
{
    return redis->up;
}
