/*
 * One connection to Redis on the event loop, kept alive: connects, proves itself with a PING, takes
 * commands, and after any loss begins again by itself. The only file that calls hiredis.
 *
 *   WAITING ──backoff──> CONNECTING ──connected──> CHECKING ──PONG──> UP
 *      ^                     │                        │               │ redisconn_send
 *      └── refused, deadline, EOF, broken protocol ───┴───────────────┘
 *
 * Commands are answered in the order they were sent. A quiet connection asks PING every second, or
 * every half reply_timeout_ms if that is less. If the oldest command, or the PING, is not answered
 * and reply_timeout_ms have passed since it was sent and since the last answer to any, the
 * connection is given up and everything in flight is lost. An error as the answer to a PING
 * (LOADING, NOAUTH, MASTERDOWN) gives it up, too.
 *
 * A connection made with on_message is for subscriptions alone. It has one more state, SUBSCRIBING,
 * between the PONG and UP: its channels are subscribed and confirmed.
 *
 * Of hiredis only the reader of replies is used, which is the same in 0.14 and 1.x; the socket and
 * the queue of callbacks are here. What Redis sends is trusted as far as its size: a reply of more
 * than 256 MB, or of more than 16 M elements, counts as broken protocol. Resolving a host name
 * blocks; an address needs no resolving. The process must ignore SIGPIPE.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_REDISCONN_H
#define SG_BASE_REDISCONN_H

#include <hiredis/hiredis.h> /* struct redisReply, for those who read answers */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct metrics_set;
struct reap_list;
struct redisconn;
struct settings;

/* The answer, valid during the callback; also an error reply is one. NULL: the connection was lost
 * first, and whether the command was done is not known. */
typedef void redisconn_fn(void *arg, const redisReply *reply);

/* What is borrowed outlives the connection. */
struct redisconn_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;     /* NULL: no gauge seatgrid_redis_up from this one */
    const struct settings *settings; /* redis.* */
    const char *name;                /* in the log: "router", "cdc alpha"; NULL: logs nothing */
    size_t in_flight_max;            /* commands; one more is refused */
    /* From the loop, never from inside a call; each may be NULL. on_lost comes once for each on_up,
     * after the callbacks of everything that was in flight. */
    void (*on_up)(void *arg);
    void (*on_lost)(void *arg, const char *reason);
    void (*on_message)(void *arg, const char *channel, const char *payload, size_t len);
    /* Redis has confirmed the channel: what is published from now on comes. After a loss again. */
    void (*on_subscribed)(void *arg, const char *channel);
    void *arg;
};

/* Starts connecting at the next turn of the loop, to settings->redis.address, which is not "".
 * NULL when memory runs out or it is no address ("host:port" or "[v6]:port"). */
struct redisconn *redisconn_new(const struct redisconn_config *config);
/* From anywhere on the loop; NULL is allowed. Calls back what is in flight with NULL first; then
 * nothing more. */
void redisconn_free(struct redisconn *conn);
bool redisconn_is_up(const struct redisconn *conn);
/* Commands not answered yet; its own PINGs do not count. */
size_t redisconn_in_flight(const struct redisconn *conn);

/* Sends one command that is already in RESP (redisresp.h). True: fn(arg, reply) exactly once, later
 * (fn NULL: the answer is dropped). False: not up, too many in flight, a connection for
 * subscriptions, or no memory; fn never runs. What is sent in one turn of the loop leaves in one
 * write. */
bool redisconn_send(struct redisconn *conn, const char *resp, size_t len, redisconn_fn *fn,
                    void *arg);
/* The same for `count` commands, at least one, in one piece: fn runs exactly `count` times. */
bool redisconn_send_many(struct redisconn *conn, const char *resp, size_t len, size_t count,
                         redisconn_fn *fn, void *arg);
/* Subscriptions, of a connection with on_message; kept over a loss: subscribed again by itself
 * before on_up. A second time is no other. A channel at most REDISKEY_MAX - 1 bytes. False when
 * memory runs out. */
bool redisconn_subscribe(struct redisconn *conn, const char *channel);
/* No message of the channel comes any more. */
void redisconn_unsubscribe(struct redisconn *conn, const char *channel);
/* Gives the connection up and begins again; from now on it is not up. */
void redisconn_reset(struct redisconn *conn, const char *reason);

#endif
