/*
 * A load generator: many HTTP clients on one thread, cheap enough to share two cores with the
 * server that it measures.
 *
 *   clock ─> due client ─> loadgen_traffic.h: what to ask ─> socket ─> loadgen_answer.h ─> tally
 *               ^                                                            │             │
 *               └─────────── pause, or at once, or the next arrival ─────────┘   loadgen_report.h
 *
 * In come options (--help), out goes one JSON object. Closed loop: every client waits for its
 * answer, then pauses. Open loop (--rate): requests have intended times on a fixed grid and a
 * latency runs from the intended time, so a stall is charged to every request it delayed.
 * The clients come up over --ramp-ms; figures are kept for the whole run and for the hold alone.
 * It ends by waiting for all answers, so its 201s can be compared with rows in a database.
 * It owns its sockets; it hides HTTP: fixed request buffers, status and few headers read, bodies
 * counted and thrown away. It knows Content-Length only, no chunked answers.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/loadgen_answer.h"
#include "tests/bench/loadgen_report.h"
#include "tests/bench/loadgen_run.h"
#include "tests/bench/loadgen_traffic.h"

#define EVENTS_PER_WAIT 256
#define RECONNECT_PAUSE_NS (10 * MS_NS)

/* --- clients: connect, send, wait, pause ------------------------------------------------------ */

static void rest(struct run *run, struct client *client, int64_t due_ns)
{
    size_t slot = (run->pause_head + run->pause_count++) % (size_t)run->options.connections;
    run->pauses[slot] = (struct pause){due_ns, (size_t)(client - run->clients)};
}

static void hang_up(struct client *client)
{
    if (client->state != CLIENT_CLOSED)
        close(client->fd);
    client->state = CLIENT_CLOSED;
}

/* The connection is gone. What was under way counts as dropped; the client comes again. */
static void lose(struct run *run, struct client *client, uint64_t *counter)
{
    ++*counter;
    if (client->state == CLIENT_WAITING || client->wants)
        run->waiting--;
    client->wants = false;
    hang_up(client);
    rest(run, client, now_ns() + RECONNECT_PAUSE_NS);
}

static void open_connection(struct run *run, struct client *client)
{
    int one = 1;
    client->head_len = 0;
    client->in_body = false;
    client->closes = false;
    client->map_version = 0;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        perror("loadgen: socket");
        exit(1);
    }
    run->tally.connects++;
    client->state = CLIENT_CONNECTING;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = client};
    epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, client->fd, &event);
    if (connect(client->fd, (const struct sockaddr *)&run->options.address,
                sizeof(run->options.address)) < 0 &&
        errno != EINPROGRESS)
        lose(run, client, &run->tally.connect_errors);
}

static void send_rest(struct run *run, struct client *client)
{
    while (client->out_done < client->out_len) {
        ssize_t n = send(client->fd, client->out + client->out_done,
                         client->out_len - client->out_done, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            lose(run, client, &run->tally.dropped);
            return;
        }
        client->out_done += (size_t)n;
    }
}

static void send_request(struct run *run, struct client *client)
{
    client->wants = false;
    client->state = CLIENT_WAITING;
    loadgen_write_request(run, client);
    send_rest(run, client);
}

/* Gives a client its next request, whose latency runs from intended_ns. */
static void ask(struct run *run, struct client *client, int64_t intended_ns)
{
    client->intended_ns = intended_ns;
    client->asked_ns = now_ns();
    client->wants = true;
    run->waiting++;
    run->tally.asked++;
    if (client->state == CLIENT_CLOSED)
        open_connection(run, client);
    else if (client->state == CLIENT_IDLE)
        send_request(run, client);
}

static bool may_send(const struct run *run, int64_t now)
{
    const struct options *options = &run->options;
    return now < run->end_ns &&
           (!options->requests || run->tally.asked < (uint64_t)options->requests);
}

/* The client has nothing to do: its next request is now, after the pause, or the next arrival. */
static void client_ready(struct run *run, struct client *client, int64_t now)
{
    if (client->closes)
        hang_up(client);
    if (run->options.rate || run->options.pause_ms)
        rest(run, client, now + run->options.pause_ms * MS_NS);
    else if (may_send(run, now))
        ask(run, client, now);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_answer(struct run *run, struct client *client)
{
    int64_t now = now_ns();
    loadgen_count_answer(run, client, now);
    run->waiting--;
    client->state = CLIENT_IDLE;
    client->in_body = false;
    client->head_len = 0;
    client_ready(run, client, now);
}

/* Takes bytes of one answer; false if they make no sense. */
static bool take(struct run *run, struct client *client, const char *data, size_t len)
{
    run->tally.bytes += len;
    if (!client->in_body) {
        size_t before = client->head_len;
        size_t fit = len < HEAD_MAX - before ? len : HEAD_MAX - before;
        memcpy(client->head + before, data, fit);
        client->head_len += fit;
        size_t from = before > 3 ? before - 3 : 0;
        char *blank = memmem(client->head + from, client->head_len - from, "\r\n\r\n", 4);
        if (!blank)
            return client->head_len < HEAD_MAX;
        size_t head_len = (size_t)(blank - client->head) + 4;
        client->head[client->head_len] = '\0';
        if (client->state != CLIENT_WAITING || !loadgen_read_head(run, client, head_len))
            return false;
        client->in_body = true;
        data += head_len - before;
        len -= head_len - before;
    }
    if (len > client->body_left)
        return false;
    client->body_left -= len;
    if (client->body_left == 0)
        on_answer(run, client);
    return true;
}

/* Reads until the socket is empty; an answer usually comes in one piece, so a short read ends it.
 */
static void on_readable(struct run *run, struct client *client)
{
    while (client->state == CLIENT_IDLE || client->state == CLIENT_WAITING) {
        ssize_t n = recv(client->fd, run->scratch, sizeof(run->scratch), 0);
        if (n < 0 && errno == EAGAIN)
            return;
        bool asked = client->state == CLIENT_WAITING;
        if (n > 0 && take(run, client, run->scratch, (size_t)n)) {
            if ((size_t)n < sizeof(run->scratch))
                return;
        } else if (asked) {
            lose(run, client, n > 0 ? &run->tally.garbage : &run->tally.dropped);
            return;
        } else {
            hang_up(client); /* it rests, and connects anew for its next request */
            return;
        }
    }
}

static void on_connected(struct run *run, struct client *client)
{
    client->state = CLIENT_IDLE;
    if (client->wants)
        send_request(run, client);
    else
        rest(run, client, now_ns());
}

static void on_event(struct run *run, struct client *client, uint32_t events)
{
    if (client->state == CLIENT_CONNECTING) {
        int error = 0;
        socklen_t len = sizeof(error);
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error)
            lose(run, client, &run->tally.connect_errors);
        else if (events & EPOLLOUT)
            on_connected(run, client);
    } else if (client->state == CLIENT_WAITING && (events & EPOLLOUT) &&
               client->out_done < client->out_len) {
        send_rest(run, client);
    }
    bool open = client->state == CLIENT_IDLE || client->state == CLIENT_WAITING;
    if (open && (events & EPOLLIN))
        on_readable(run, client);
    /* The end of the stream may come with the last bytes and gives no event of its own. */
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        if (client->state == CLIENT_IDLE || client->state == CLIENT_WAITING)
            on_readable(run, client);
}

/* --- the run ---------------------------------------------------------------------------------- */

static bool rested(const struct run *run, int64_t now)
{
    return run->pause_count > 0 && run->pauses[run->pause_head].due_ns <= now;
}

static struct client *wake(struct run *run)
{
    struct client *client = &run->clients[run->pauses[run->pause_head].client];
    run->pause_head = (run->pause_head + 1) % (size_t)run->options.connections;
    run->pause_count--;
    return client;
}

/* Feeds whoever is due. Returns when the next one is, run->end_ns if none is known. */
static int64_t feed_closed_loop(struct run *run, int64_t now)
{
    const struct options *options = &run->options;
    int64_t next_ns = run->end_ns;

    while (run->started < (size_t)options->connections && may_send(run, now)) {
        int64_t due_ns =
            run->start_ns + options->ramp_ms * MS_NS / options->connections * (int64_t)run->started;
        if (due_ns > now) {
            next_ns = due_ns;
            break;
        }
        ask(run, &run->clients[run->started++], now);
    }
    while (rested(run, now) && may_send(run, now))
        ask(run, wake(run), now);
    if (run->pause_count && run->pauses[run->pause_head].due_ns < next_ns)
        next_ns = run->pauses[run->pause_head].due_ns;
    return next_ns;
}

/* Arrival k is due at start + k / rate, whether or not a client is free to carry it. */
static int64_t feed_open_loop(struct run *run, int64_t now)
{
    uint64_t total = loadgen_arrivals(&run->options);
    while (run->tally.asked < total) {
        int64_t due_ns = run->start_ns + (int64_t)((double)run->tally.asked * (double)SECOND_NS /
                                                   (double)run->options.rate);
        if (due_ns > now)
            return due_ns;
        if (!rested(run, now))
            return now + MS_NS;
        ask(run, wake(run), due_ns);
    }
    return run->end_ns;
}

static bool finished(const struct run *run, int64_t now)
{
    const struct options *options = &run->options;
    if (now > run->end_ns + options->timeout_ms * MS_NS)
        return true;
    if (options->rate)
        return run->tally.asked >= loadgen_arrivals(options) && run->waiting == 0;
    return !may_send(run, now) && run->waiting == 0;
}

static void expire(struct run *run, int64_t now)
{
    for (size_t i = 0; i < (size_t)run->options.connections; i++) {
        struct client *client = &run->clients[i];
        bool asked = client->state == CLIENT_WAITING || client->wants;
        if (asked && now - client->asked_ns > run->options.timeout_ms * MS_NS)
            lose(run, client, &run->tally.timeouts);
    }
}

static void every_second(struct run *run, int64_t now)
{
    expire(run, now);
    if (run->options.progress)
        fprintf(stderr, "loadgen: %3.0f s, %ju answers, %zu waiting\n",
                (double)(now - run->start_ns) / (double)SECOND_NS, (uintmax_t)run->tally.answers,
                run->waiting);
}

static void wait_for_events(struct run *run, int64_t until_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int64_t wait_ns = until_ns - now_ns();
    if (wait_ns < 0)
        wait_ns = 0;
    if (wait_ns > SECOND_NS / 10)
        wait_ns = SECOND_NS / 10;
    struct timespec timeout = {.tv_nsec = wait_ns};
    int n = epoll_pwait2(run->epoll_fd, events, EVENTS_PER_WAIT, &timeout, NULL);
    for (int i = 0; i < n; i++)
        on_event(run, events[i].data.ptr, events[i].events);
}

static void run_load(struct run *run)
{
    const struct options *options = &run->options;
    run->start_ns = now_ns();
    if (options->rate) { /* connections first, then the clock */
        run->start_ns += SECOND_NS / 2;
        for (int64_t i = 0; i < options->connections; i++)
            open_connection(run, &run->clients[i]);
    }
    run->hold_ns = run->start_ns + options->ramp_ms * MS_NS;
    run->end_ns = run->hold_ns + options->hold_ms * MS_NS;

    int64_t second_ns = run->start_ns + SECOND_NS;
    for (int64_t now = now_ns(); !finished(run, now); now = now_ns()) {
        int64_t until_ns = options->rate ? feed_open_loop(run, now) : feed_closed_loop(run, now);
        if (now >= second_ns) {
            every_second(run, now);
            second_ns += SECOND_NS;
        }
        wait_for_events(run, now < run->end_ns ? until_ns : now + MS_NS);
    }
}

int main(int argc, char **argv)
{
    static struct run run = {.options = {.path = "/healthz",
                                         .rows = 10,
                                         .cols = 10,
                                         .first_seat = 1,
                                         .seats_min = 1,
                                         .seats_max = 1,
                                         .read_percent = 50,
                                         .connections = 64,
                                         .hold_ms = 5000,
                                         .timeout_ms = 10000,
                                         .seed = 1}};
    loadgen_options_parse(&run.options, argc, argv);
    run.random_state = (uint64_t)run.options.seed * UINT64_C(0x2545f4914f6cdd1d);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run.clients = calloc((size_t)run.options.connections, sizeof(*run.clients));
    run.pauses = calloc((size_t)run.options.connections, sizeof(*run.pauses));
    if (run.epoll_fd < 0 || !run.clients || !run.pauses) {
        perror("loadgen");
        return 1;
    }
    run_load(&run);
    loadgen_report(&run);
    if (run.options.log)
        fclose(run.options.log);
    for (size_t i = 0; i < (size_t)run.options.connections; i++)
        hang_up(&run.clients[i]);
    free(run.clients);
    free(run.pauses);
    free(run.options.events);
    return run.tally.answers ? 0 : 1;
}
