/*
 * A scripted Redis on the test's own event loop: takes connections on a free port, reads commands,
 * and does what the test's handler says. Without one it answers PING and SUBSCRIBE as Redis does,
 * and +OK to everything else.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_FAKE_REDIS_H
#define SG_TESTS_FAKE_REDIS_H

#include <arpa/inet.h>
#include <assert.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"

struct fake_redis;

struct fake_client {
    struct fake_redis *redis;
    struct bufferevent *bev;
    redisReader *reader;
    int channels;
    bool closing;
};

struct fake_redis {
    struct event_base *base;
    struct evconnlistener *listener;
    int port;
    unsigned accepted;
    unsigned commands;          /* all but PING */
    struct fake_client *client; /* the latest; NULL: gone */
    /* Gets every command; true: it has been dealt with. */
    bool (*handler)(struct fake_client *client, const redisReply *command);
};

static void fake_say(struct fake_client *client, const char *text)
{
    evbuffer_add(bufferevent_get_output(client->bev), text, strlen(text));
}

static void fake_free_client(struct fake_client *client)
{
    if (client->redis->client == client)
        client->redis->client = NULL;
    bufferevent_free(client->bev);
    redisReaderFree(client->reader);
    free(client);
}

/* What was said goes out first, as far as the socket takes it. */
__attribute__((unused)) static void fake_close(struct fake_client *client)
{
    struct evbuffer *output = bufferevent_get_output(client->bev);
    evbuffer_unfreeze(output, 1);
    evbuffer_write(output, bufferevent_getfd(client->bev));
    evbuffer_freeze(output, 1);
    client->closing = true;
}

static bool fake_is(const redisReply *command, const char *name)
{
    return strcasecmp(command->element[0]->str, name) == 0;
}

static void fake_subscribe(struct fake_client *client, const redisReply *command)
{
    const bool on = fake_is(command, "SUBSCRIBE");
    for (size_t i = 1; i < command->elements; i++) {
        client->channels += on ? 1 : -1;
        evbuffer_add_printf(bufferevent_get_output(client->bev),
                            "*3\r\n$%d\r\n%s\r\n$%zu\r\n%s\r\n:%d\r\n", on ? 9 : 11,
                            on ? "subscribe" : "unsubscribe", command->element[i]->len,
                            command->element[i]->str, client->channels);
    }
}

__attribute__((unused)) static void fake_publish(struct fake_client *client, const char *channel,
                                                 const char *payload)
{
    evbuffer_add_printf(bufferevent_get_output(client->bev),
                        "*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(channel),
                        channel, strlen(payload), payload);
}

static void fake_command(struct fake_client *client, const redisReply *command)
{
    if (!fake_is(command, "PING"))
        client->redis->commands++;
    if (client->redis->handler && client->redis->handler(client, command))
        return;
    if (fake_is(command, "PING"))
        fake_say(client, client->channels ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
    else if (fake_is(command, "SUBSCRIBE") || fake_is(command, "UNSUBSCRIBE"))
        fake_subscribe(client, command);
    else
        fake_say(client, "+OK\r\n");
}

static void fake_on_read(struct bufferevent *bev, void *arg)
{
    struct fake_client *client = arg;
    char bytes[4096];
    size_t len;
    while (!client->closing && (len = bufferevent_read(bev, bytes, sizeof(bytes))) > 0) {
        void *command = NULL;
        redisReaderFeed(client->reader, bytes, len);
        while (!client->closing && redisReaderGetReply(client->reader, &command) == REDIS_OK &&
               command) {
            fake_command(client, command);
            freeReplyObject(command);
        }
    }
    if (client->closing)
        fake_free_client(client);
}

static void fake_on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    (void)what;
    fake_free_client(arg);
}

static void fake_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
                           struct sockaddr *from, int len, void *arg)
{
    struct fake_redis *redis = arg;
    struct fake_client *client = calloc(1, sizeof(*client));
    (void)listener;
    (void)from;
    (void)len;
    client->redis = redis;
    client->bev = bufferevent_socket_new(redis->base, fd, BEV_OPT_CLOSE_ON_FREE);
    client->reader = redisReaderCreate();
    redis->client = client;
    redis->accepted++;
    bufferevent_setcb(client->bev, fake_on_read, NULL, fake_on_event, client);
    bufferevent_enable(client->bev, EV_READ | EV_WRITE);
}

static void fake_start(struct fake_redis *redis, struct event_base *base)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    *redis = (struct fake_redis){.base = base};
    redis->listener = evconnlistener_new_bind(base, fake_on_accept, redis, LEV_OPT_CLOSE_ON_FREE,
                                              16, (struct sockaddr *)&address, (int)len);
    assert(redis->listener);
    getsockname(evconnlistener_get_fd(redis->listener), (struct sockaddr *)&address, &len);
    redis->port = ntohs(address.sin_port);
}

static void fake_stop(struct fake_redis *redis)
{
    if (redis->client)
        fake_free_client(redis->client);
    evconnlistener_free(redis->listener);
}

/* Runs the loop until the condition holds; false if it does not within ten seconds. */
#define fake_run_until(base, condition)                                                            \
    ({                                                                                             \
        const int64_t until_us_ = clock_mono_us() + 10000000;                                      \
        const struct timeval tick_ = {.tv_usec = 1000};                                            \
        bool holds_;                                                                               \
        while (!(holds_ = (condition)) && clock_mono_us() < until_us_) {                           \
            event_base_loopexit(base, &tick_);                                                     \
            event_base_loop(base, EVLOOP_ONCE);                                                    \
        }                                                                                          \
        holds_;                                                                                    \
    })

#endif
