/*
 * A RabbitMQ as far as a publisher can tell: a thread on a port of its own that speaks enough of
 * AMQP 0-9-1, counts what is published and answers as its script says.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_UNIT_QUEUE_FAKE_BROKER_H
#define SG_TESTS_UNIT_QUEUE_FAKE_BROKER_H

#include <arpa/inet.h>
#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKE_CHANNELS 16

enum fake_answer {
    FAKE_ACKS,          /* each by itself */
    FAKE_ACKS_BY_EIGHT, /* seven are let wait, the eighth is told with `multiple` */
    FAKE_NACKS,
    FAKE_RETURNS, /* no such queue: returned, then acknowledged, as RabbitMQ does */
    FAKE_IS_SILENT,
    FAKE_HANGS_UP, /* at the first message, without a word */
    FAKE_CLOSES,   /* at the first message, with connection.close */
};

struct fake_broker {
    int listener;
    int port;
    pthread_t thread;
    int fd; /* of the connection, -1 for none */
    /* atomic */
    int answer;
    int published;
    int declared;
    int declares_max; /* past these it holds its tongue */
    int consumes_max; /* after so many on a connection it hangs up */
    int connections;
    bool block; /* say so at the next frame */
    bool ending;
};

/* --- frames ----------------------------------------------------------------------------------- */

struct fake_writer {
    uint8_t bytes[512];
    size_t len;
};

static inline void fake_put(struct fake_writer *writer, uint64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--)
        writer->bytes[writer->len++] = (uint8_t)(value >> (8 * i));
}

static inline void fake_put_short_text(struct fake_writer *writer, const char *text)
{
    fake_put(writer, strlen(text), 1);
    memcpy(writer->bytes + writer->len, text, strlen(text));
    writer->len += strlen(text);
}

static inline void fake_put_long_text(struct fake_writer *writer, const char *text)
{
    fake_put(writer, strlen(text), 4);
    memcpy(writer->bytes + writer->len, text, strlen(text));
    writer->len += strlen(text);
}

static inline void fake_send(struct fake_broker *broker, int type, int channel,
                             const struct fake_writer *payload)
{
    struct fake_writer frame = {.len = 0};
    fake_put(&frame, (uint64_t)type, 1);
    fake_put(&frame, (uint64_t)channel, 2);
    fake_put(&frame, payload->len, 4);
    assert(frame.len + payload->len < sizeof(frame.bytes));
    memcpy(frame.bytes + frame.len, payload->bytes, payload->len);
    frame.len += payload->len;
    fake_put(&frame, 0xce, 1);
    (void)!send(broker->fd, frame.bytes, frame.len, MSG_NOSIGNAL);
}

static inline struct fake_writer fake_method(int class_id, int method_id)
{
    struct fake_writer writer = {.len = 0};
    fake_put(&writer, (uint64_t)class_id, 2);
    fake_put(&writer, (uint64_t)method_id, 2);
    return writer;
}

static inline bool fake_recv(int fd, void *ret_bytes, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = recv(fd, (char *)ret_bytes + got, len - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* False when the connection has ended. */
static inline bool fake_read_frame(struct fake_broker *broker, uint8_t ret_payload[65536],
                                   size_t *ret_len, int *ret_type, int *ret_channel)
{
    uint8_t head[7];
    uint8_t end;
    if (!fake_recv(broker->fd, head, sizeof(head)))
        return false;
    *ret_type = head[0];
    *ret_channel = head[1] << 8 | head[2];
    *ret_len = (size_t)head[3] << 24 | (size_t)head[4] << 16 | (size_t)head[5] << 8 | head[6];
    assert(*ret_len <= 65536);
    return fake_recv(broker->fd, ret_payload, *ret_len) && fake_recv(broker->fd, &end, 1);
}

/* --- what it says ----------------------------------------------------------------------------- */

static inline void fake_confirm(struct fake_broker *broker, int channel, bool ack, uint64_t tag,
                                bool multiple)
{
    struct fake_writer writer = fake_method(60, ack ? 80 : 120);
    fake_put(&writer, tag, 8);
    fake_put(&writer, multiple, 1);
    fake_send(broker, 1, channel, &writer);
}

/* With the properties that came, and an empty body. */
static inline void fake_return(struct fake_broker *broker, int channel, const uint8_t *header,
                               size_t header_len)
{
    struct fake_writer writer = fake_method(60, 50);
    struct fake_writer properties = {.len = header_len};
    fake_put(&writer, 312, 2);
    fake_put_short_text(&writer, "NO_ROUTE");
    fake_put_short_text(&writer, "");
    fake_put_short_text(&writer, "some.queue");
    fake_send(broker, 1, channel, &writer);
    memcpy(properties.bytes, header, header_len);
    memset(properties.bytes + 4, 0, 8); /* the body's length */
    fake_send(broker, 2, channel, &properties);
}

/* False: hang up. */
static inline bool fake_on_message(struct fake_broker *broker, int channel, uint64_t tag,
                                   const uint8_t *header, size_t header_len)
{
    struct fake_writer writer;
    __atomic_add_fetch(&broker->published, 1, __ATOMIC_SEQ_CST);
    switch ((enum fake_answer)__atomic_load_n(&broker->answer, __ATOMIC_SEQ_CST)) {
    case FAKE_ACKS:
        fake_confirm(broker, channel, true, tag, false);
        return true;
    case FAKE_ACKS_BY_EIGHT:
        if (tag % 8 == 0)
            fake_confirm(broker, channel, true, tag, true);
        return true;
    case FAKE_NACKS:
        fake_confirm(broker, channel, false, tag, false);
        return true;
    case FAKE_RETURNS:
        fake_return(broker, channel, header, header_len);
        fake_confirm(broker, channel, true, tag, false);
        return true;
    case FAKE_IS_SILENT:
        return true;
    case FAKE_HANGS_UP:
        return false;
    case FAKE_CLOSES:
        writer = fake_method(10, 50);
        fake_put(&writer, 320, 2);
        fake_put_short_text(&writer, "CONNECTION_FORCED");
        fake_put(&writer, 0, 4);
        fake_send(broker, 1, 0, &writer);
        return false;
    }
    return false;
}

/* What a method asks for; basic.publish is told apart before. */
static inline void fake_on_method(struct fake_broker *broker, int channel, int class_id,
                                  int method_id)
{
    struct fake_writer writer = fake_method(class_id, method_id + 1);
    if (class_id == 10 && method_id == 11) {
        writer = fake_method(10, 30);
        fake_put(&writer, 2047, 2);
        fake_put(&writer, 131072, 4);
        fake_put(&writer, 0, 2);
    } else if (class_id == 10 && method_id == 31) {
        return;
    } else if (class_id == 10 && method_id == 40) {
        fake_put_short_text(&writer, "");
    } else if (class_id == 20 && method_id == 10) {
        fake_put_long_text(&writer, "");
    } else if (class_id == 50 && method_id == 10) {
        int declared = __atomic_add_fetch(&broker->declared, 1, __ATOMIC_SEQ_CST);
        while (declared > __atomic_load_n(&broker->declares_max, __ATOMIC_SEQ_CST))
            usleep(1000);
        fake_put_short_text(&writer, "some.queue");
        fake_put(&writer, 0, 8);
    } else if (class_id == 60 && method_id == 20) {
        fake_put_short_text(&writer, "tag");
    }
    fake_send(broker, 1, channel, &writer);
}

static inline void fake_tell_blocked(struct fake_broker *broker)
{
    struct fake_writer writer = fake_method(10, 60);
    if (__atomic_exchange_n(&broker->block, false, __ATOMIC_SEQ_CST)) {
        fake_put_short_text(&writer, "low on memory");
        fake_send(broker, 1, 0, &writer);
    }
}

/* At once: nothing comes any more that it could be said at. From the test, while the broker waits.
 */
static inline void fake_broker_unblock(struct fake_broker *broker)
{
    const struct fake_writer writer = fake_method(10, 61);
    fake_send(broker, 1, 0, &writer);
}

/* --- a connection ----------------------------------------------------------------------------- */

static inline bool fake_greet(struct fake_broker *broker)
{
    uint8_t protocol[8];
    struct fake_writer writer = fake_method(10, 10);
    if (!fake_recv(broker->fd, protocol, sizeof(protocol)) || memcmp(protocol, "AMQP", 4) != 0)
        return false;
    fake_put(&writer, 9, 2);
    fake_put(&writer, 0, 4);
    fake_put_long_text(&writer, "PLAIN");
    fake_put_long_text(&writer, "en_US");
    fake_send(broker, 1, 0, &writer);
    return true;
}

static inline void fake_serve(struct fake_broker *broker)
{
    uint8_t payload[65536];
    uint8_t header[256];
    size_t header_len = 0;
    uint64_t tags[FAKE_CHANNELS] = {0};
    size_t len;
    int type;
    int channel;
    int consumes = 0;
    if (!fake_greet(broker))
        return;
    while (fake_read_frame(broker, payload, &len, &type, &channel)) {
        int class_id = payload[0] << 8 | payload[1];
        int method_id = payload[2] << 8 | payload[3];
        fake_tell_blocked(broker);
        if (type == 2) {
            header_len = len < sizeof(header) ? len : sizeof(header);
            memcpy(header, payload, header_len);
        } else if (type == 3) {
            if (!fake_on_message(broker, channel, ++tags[channel % FAKE_CHANNELS], header,
                                 header_len))
                return;
        } else if (type == 1 && !(class_id == 60 && method_id == 40)) {
            fake_on_method(broker, channel, class_id, method_id);
            consumes += class_id == 60 && method_id == 20;
            if (consumes > 0 &&
                consumes == __atomic_load_n(&broker->consumes_max, __ATOMIC_SEQ_CST))
                return;
        }
    }
}

static inline void *fake_run(void *arg)
{
    struct fake_broker *broker = arg;
    while (!__atomic_load_n(&broker->ending, __ATOMIC_SEQ_CST)) {
        broker->fd = accept(broker->listener, NULL, NULL);
        if (broker->fd < 0)
            break;
        __atomic_add_fetch(&broker->connections, 1, __ATOMIC_SEQ_CST);
        fake_serve(broker);
        close(broker->fd);
    }
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

static inline void fake_broker_start(struct fake_broker *broker, enum fake_answer answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    *broker = (struct fake_broker){.answer = (int)answer, .fd = -1, .declares_max = INT_MAX};
    broker->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(broker->listener, (struct sockaddr *)&address, len) != 0 ||
        listen(broker->listener, 16) != 0 ||
        getsockname(broker->listener, (struct sockaddr *)&address, &len) != 0)
        abort();
    broker->port = ntohs(address.sin_port);
    if (pthread_create(&broker->thread, NULL, fake_run, broker) != 0)
        abort();
}

/* The publisher has been stopped, so that its connection is gone. */
static inline void fake_broker_end(struct fake_broker *broker)
{
    __atomic_store_n(&broker->ending, true, __ATOMIC_SEQ_CST);
    shutdown(broker->listener, SHUT_RDWR);
    pthread_join(broker->thread, NULL);
    close(broker->listener);
}

#endif
