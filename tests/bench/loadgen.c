/*
 * A load generator: many HTTP clients on one thread, cheap enough to share two cores with the
 * server that it measures.
 *
 *   clock ─> due client ─> traffic: what to ask ─> socket ─> answer ─> tally ─> JSON on stdout
 *               ^                                               │
 *               └── pause, or at once, or the next arrival ─────┘
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
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/histogram.h"
#include "tests/bench/loadgen_options.h"

#define SECOND_NS INT64_C(1000000000)
#define MS_NS INT64_C(1000000)
#define HEAD_MAX 4096
#define OUT_MAX 8192
#define EVENTS_PER_WAIT 256
#define RECONNECT_PAUSE_NS (10 * MS_NS)

/* --- what is asked for and what is running ---------------------------------------------------- */

enum client_state { CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_IDLE, CLIENT_WAITING };

struct client {
    enum client_state state;
    int fd;
    bool wants;          /* has a request to send once it is connected */
    bool closes;         /* the server said Connection: close */
    int64_t intended_ns; /* latencies run from here */
    int64_t asked_ns;
    int64_t map_version;
    size_t event; /* index of the event asked about, event_count for none */
    size_t out_len, out_done;
    size_t head_len;
    size_t body_left;
    bool in_body;
    int status;
    char out[OUT_MAX];
    char head[HEAD_MAX + 1];
};

/* A client that rests. All rests are equally long, so a ring keeps them in the order of time. */
struct pause {
    int64_t due_ns;
    size_t client;
};

struct tally {
    uint64_t asked, answers, dropped, timeouts, connect_errors, garbage, connects;
    uint64_t misrouted, unrouted, version_backwards;
    int64_t version_min, version_max;
    uint64_t walk_wrapped;
    uint64_t statuses[600];
    uint64_t bytes;
    struct histogram all, hold, ok, refused;
};

struct run {
    struct options options;
    int epoll_fd;
    struct client *clients;
    struct pause *pauses;
    size_t pause_head, pause_count;
    size_t started; /* clients that came up */
    size_t waiting; /* clients with a request under way */
    uint64_t walked;
    uint64_t random_state;
    int64_t start_ns, hold_ns, end_ns, last_answer_ns, hold_answer_ns;
    struct tally tally;
    char scratch[1 << 18];
};

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

static uint64_t random_next(struct run *run)
{
    uint64_t x = run->random_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static int64_t random_below(struct run *run, int64_t bound)
{
    return (int64_t)(random_next(run) % (uint64_t)bound);
}

/* --- traffic: the next request of a client ---------------------------------------------------- */

static void write_get(struct run *run, struct client *client, const char *path)
{
    client->out_len =
        (size_t)snprintf(client->out, OUT_MAX, "GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n", path,
                         run->options.headers);
}

static void write_booking(struct run *run, struct client *client, const int64_t *seats,
                          int64_t count)
{
    char body[OUT_MAX / 2];
    const struct options *options = &run->options;
    size_t len = (size_t)snprintf(body, sizeof(body),
                                  "{\"eventId\":%" PRId64 ",\"userId\":\"u-%td\",\"seats\":[",
                                  options->events[client->event].id, client - run->clients);
    for (int64_t i = 0; i < count; i++)
        len += (size_t)snprintf(
            body + len, sizeof(body) - len, "%s{\"row\":%" PRId64 ",\"col\":%" PRId64 "}",
            i ? "," : "", (seats[i] - 1) / options->cols + 1, (seats[i] - 1) % options->cols + 1);
    len += (size_t)snprintf(body + len, sizeof(body) - len, "]}");
    client->out_len = (size_t)snprintf(client->out, OUT_MAX,
                                       "POST /book HTTP/1.1\r\nHost: bench\r\n"
                                       "Content-Type: application/json\r\n"
                                       "Content-Length: %zu\r\n%s\r\n%s",
                                       len, options->headers, body);
}

static int64_t seats_wanted(struct run *run)
{
    const struct options *options = &run->options;
    return options->seats_min + random_below(run, options->seats_max - options->seats_min + 1);
}

/* The n-th booking takes the next free seats of the n-th event: every one is a sale. */
static void write_walk(struct run *run, struct client *client)
{
    const struct options *options = &run->options;
    int64_t seats[SEATS_MAX];
    uint64_t turn = run->walked++;
    int64_t total = options->rows * options->cols;
    int64_t seat =
        options->first_seat + (int64_t)(turn / options->event_count) * options->seats_max;
    int64_t count = seats_wanted(run);
    client->event = turn % options->event_count;
    for (int64_t i = 0; i < count; i++, seat++) {
        if (seat == total + 1)
            run->tally.walk_wrapped++;
        seats[i] = (seat - 1) % total + 1;
    }
    write_booking(run, client, seats, count);
}

/* Any seats of any event of the list; none twice within a request. */
static void write_random(struct run *run, struct client *client)
{
    const struct options *options = &run->options;
    int64_t seats[SEATS_MAX];
    int64_t count = seats_wanted(run);
    client->event = (size_t)random_below(run, (int64_t)options->event_count);
    for (int64_t i = 0; i < count;) {
        int64_t seat = 1 + random_below(run, options->rows * options->cols);
        int64_t k = 0;
        while (k < i && seats[k] != seat)
            k++;
        if (k == i)
            seats[i++] = seat;
    }
    write_booking(run, client, seats, count);
}

static void write_mixed(struct run *run, struct client *client)
{
    const struct options *options = &run->options;
    if (random_below(run, 100) >= options->read_percent) {
        write_walk(run, client);
        return;
    }
    char path[64];
    client->event = (size_t)random_below(run, (int64_t)options->event_count);
    snprintf(path, sizeof(path), "/events/%" PRId64 "/seats", options->events[client->event].id);
    write_get(run, client, path);
}

static void write_request(struct run *run, struct client *client)
{
    client->event = run->options.event_count;
    client->out_done = 0;
    switch (run->options.traffic) {
    case TRAFFIC_GET:
        write_get(run, client, run->options.path);
        break;
    case TRAFFIC_WALK:
        write_walk(run, client);
        break;
    case TRAFFIC_RANDOM:
        write_random(run, client);
        break;
    case TRAFFIC_MIXED:
        write_mixed(run, client);
        break;
    }
}

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
    write_request(run, client);
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

static void check_route(struct run *run, struct client *client, const char *shard, size_t len)
{
    const struct event_row *event = &run->options.events[client->event];
    if (!event->shard[0])
        return;
    if (!shard)
        run->tally.unrouted++;
    else if (strlen(event->shard) != len || memcmp(event->shard, shard, len) != 0)
        run->tally.misrouted++;
}

/* On one connection, which one worker serves, the map never goes back in time. */
static void check_version(struct run *run, struct client *client, int64_t version)
{
    struct tally *tally = &run->tally;
    if (version < client->map_version)
        tally->version_backwards++;
    client->map_version = version;
    if (!tally->version_min || version < tally->version_min)
        tally->version_min = version;
    if (version > tally->version_max)
        tally->version_max = version;
}

/* status, Location or -, and what was asked: the body, or - */
static void log_answer(const struct run *run, const struct client *client, const char *location,
                       size_t len)
{
    const char *body = strstr(client->out, "\r\n\r\n") + 4;
    fprintf(run->options.log, "%d\t%.*s\t%s\n", client->status, location ? (int)len : 1,
            location ? location : "-", *body ? body : "-");
}

static bool header_is(const char *line, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    return len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0;
}

/* Reads status and headers of client->head; false if this is no answer we understand. */
static bool read_head(struct run *run, struct client *client, size_t head_len)
{
    const char *shard = NULL, *location = NULL;
    size_t shard_len = 0, location_len = 0;
    bool length_known = false;
    char *line = client->head;
    char *end = client->head + head_len;

    if (head_len < 15 || memcmp(line, "HTTP/1.", 7) != 0)
        return false;
    client->status = atoi(line + 9);
    if (client->status < 100 || client->status > 599)
        return false;
    client->body_left = 0;
    while ((line = memchr(line, '\n', (size_t)(end - line))) && *++line != '\r') {
        char *line_end = memchr(line, '\r', (size_t)(end - line));
        size_t len = line_end ? (size_t)(line_end - line) : 0;
        char *colon = memchr(line, ':', len);
        if (!colon)
            return false;
        char *value = colon + 1 + strspn(colon + 1, " ");
        size_t value_len = (size_t)(line_end - value);
        if (header_is(line, len, "Content-Length")) {
            client->body_left = strtoull(value, NULL, 10);
            length_known = true;
        } else if (header_is(line, len, "Connection")) {
            client->closes = strncasecmp(value, "close", 5) == 0;
        } else if (header_is(line, len, "SeatGrid-Shard")) {
            shard = value;
            shard_len = value_len;
        } else if (header_is(line, len, "SeatGrid-Map-Version")) {
            check_version(run, client, strtoll(value, NULL, 10));
        } else if (header_is(line, len, "Location")) {
            location = value;
            location_len = value_len;
        }
    }
    if (client->event < run->options.event_count)
        check_route(run, client, shard, shard_len);
    if (run->options.log)
        log_answer(run, client, location, location_len);
    if (client->status == 304 || client->status == 204)
        client->body_left = 0;
    return length_known || client->status == 304 || client->status == 204;
}

static void on_answer(struct run *run, struct client *client)
{
    struct tally *tally = &run->tally;
    int64_t now = now_ns();
    int64_t latency = now - client->intended_ns;
    tally->answers++;
    tally->statuses[client->status]++;
    histogram_add(&tally->all, latency);
    histogram_add(client->status < 400 ? &tally->ok : &tally->refused, latency);
    if (client->intended_ns >= run->hold_ns && client->intended_ns < run->end_ns) {
        histogram_add(&tally->hold, latency);
        run->hold_answer_ns = now;
    }
    run->last_answer_ns = now;
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
        if (client->state != CLIENT_WAITING || !read_head(run, client, head_len))
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

static uint64_t arrivals(const struct options *options)
{
    uint64_t fit = (uint64_t)(options->rate * options->hold_ms / 1000);
    return options->requests && (uint64_t)options->requests < fit ? (uint64_t)options->requests
                                                                  : fit;
}

/* Arrival k is due at start + k / rate, whether or not a client is free to carry it. */
static int64_t feed_open_loop(struct run *run, int64_t now)
{
    uint64_t total = arrivals(&run->options);
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
        return run->tally.asked >= arrivals(options) && run->waiting == 0;
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

/* --- report ----------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_rate(const char *name, uint64_t count, int64_t from_ns, int64_t to_ns)
{
    double seconds = to_ns > from_ns ? (double)(to_ns - from_ns) / (double)SECOND_NS : 0;
    printf(
        "\"%s\": {\"answers\": %ju, \"seconds\": %.3f, \"answers_per_s\": %.1f, \"latency_ms\": ",
        name, (uintmax_t)count, seconds, seconds > 0 ? (double)count / seconds : 0.0);
}

static void print_counters(const struct run *run)
{
    const struct tally *tally = &run->tally;
    const struct {
        const char *name;
        uint64_t value;
    } counters[] = {{"asked", tally->asked},
                    {"answers", tally->answers},
                    {"dropped", tally->dropped},
                    {"timeouts", tally->timeouts},
                    {"garbage", tally->garbage},
                    {"unanswered", run->waiting},
                    {"unsent", run->options.rate ? arrivals(&run->options) - tally->asked : 0},
                    {"connects", tally->connects},
                    {"connect_errors", tally->connect_errors},
                    {"misrouted", tally->misrouted},
                    {"unrouted", tally->unrouted},
                    {"map_version_backwards", tally->version_backwards},
                    {"map_version_min", (uint64_t)tally->version_min},
                    {"map_version_max", (uint64_t)tally->version_max},
                    {"walk_wrapped", tally->walk_wrapped},
                    {"walked", run->walked},
                    {"bytes", tally->bytes}};
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        printf("\"%s\": %ju,\n ", counters[i].name, (uintmax_t)counters[i].value);
}

static void print_report(const struct run *run)
{
    const struct tally *tally = &run->tally;
    printf("{");
    print_counters(run);
    printf("\"cpu_seconds\": %.3f,\n \"statuses\": {", cpu_seconds());
    const char *comma = "";
    for (int i = 0; i < 600; i++) {
        if (!tally->statuses[i])
            continue;
        printf("%s\"%d\": %ju", comma, i, (uintmax_t)tally->statuses[i]);
        comma = ", ";
    }
    printf("},\n ");
    print_rate("run", tally->answers, run->start_ns, run->last_answer_ns);
    histogram_print(&tally->all);
    printf("},\n ");
    print_rate("hold", tally->hold.count, run->hold_ns, run->hold_answer_ns);
    histogram_print(&tally->hold);
    printf("},\n \"ok_latency_ms\": ");
    histogram_print(&tally->ok);
    printf(",\n \"refused_latency_ms\": ");
    histogram_print(&tally->refused);
    printf("}\n");
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
    print_report(&run);
    if (run.options.log)
        fclose(run.options.log);
    for (size_t i = 0; i < (size_t)run.options.connections; i++)
        hang_up(&run.clients[i]);
    free(run.clients);
    free(run.pauses);
    free(run.options.events);
    return run.tally.answers ? 0 : 1;
}
