/*
 * What the clients of loadgen ask: the next request of each.
 *
 *   options (what), walked, random ─> loadgen_write_request ─> client->out
 *
 * A walk takes the next seats of the next event, so each of its requests is a sale; `best` leaves
 * the choice to the server. Each may book at once, hold, or hold and then confirm.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_LOADGEN_TRAFFIC_H
#define SG_TESTS_BENCH_LOADGEN_TRAFFIC_H

#include "tests/bench/loadgen_run.h"

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

static void write_get(struct run *run, struct client *client, const char *path)
{
    client->out_len =
        (size_t)snprintf(client->out, OUT_MAX, "GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n", path,
                         run->options.headers);
}

static void write_post(struct run *run, struct client *client, const char *path, const char *body,
                       size_t len)
{
    client->out_len = (size_t)snprintf(client->out, OUT_MAX,
                                       "POST %s HTTP/1.1\r\nHost: bench\r\n"
                                       "Content-Type: application/json\r\n"
                                       "Content-Length: %zu\r\n%s\r\n%s",
                                       path, len, run->options.headers, body);
}

/* `what` is the rest of the body: which seats, and the closing brace. */
static void write_take(struct run *run, struct client *client, const char *what)
{
    char path[64] = "/book";
    char body[OUT_MAX / 2];
    int64_t event = run->options.events[client->event].id;
    ptrdiff_t user = client - run->clients;
    int len;
    if (run->options.take == TAKE_BOOK) {
        len = snprintf(body, sizeof(body), "{\"eventId\":%" PRId64 ",\"userId\":\"u-%td\",%s",
                       event, user, what);
    } else {
        snprintf(path, sizeof(path), "/events/%" PRId64 "/holds", event);
        len = snprintf(body, sizeof(body), "{\"userId\":\"u-%td\",%s", user, what);
    }
    write_post(run, client, path, body, (size_t)len);
}

static void write_seats(struct run *run, struct client *client, const int64_t *seats, int64_t count)
{
    char text[OUT_MAX / 2 - 128];
    const struct options *options = &run->options;
    size_t len = (size_t)snprintf(text, sizeof(text), "\"seats\":[");
    for (int64_t i = 0; i < count; i++)
        len += (size_t)snprintf(
            text + len, sizeof(text) - len, "%s{\"row\":%" PRId64 ",\"col\":%" PRId64 "}",
            i ? "," : "", (seats[i] - 1) / options->cols + 1, (seats[i] - 1) % options->cols + 1);
    snprintf(text + len, sizeof(text) - len, "]}");
    write_take(run, client, text);
}

/* The second half of a pair. */
static void write_confirm(struct run *run, struct client *client)
{
    char path[LOCATION_MAX + 16];
    char body[64];
    snprintf(path, sizeof(path), "%s/confirm", client->location);
    int len = snprintf(body, sizeof(body), "{\"userId\":\"u-%td\"}", client - run->clients);
    write_post(run, client, path, body, (size_t)len);
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
    write_seats(run, client, seats, count);
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
    write_seats(run, client, seats, count);
}

/* The server chooses, in one event after the other. */
static void write_best(struct run *run, struct client *client)
{
    char text[128];
    client->event = run->walked++ % run->options.event_count;
    snprintf(text, sizeof(text), "\"best\":[{\"quantity\":%" PRId64 ",\"together\":true}]}",
             seats_wanted(run));
    write_take(run, client, text);
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

static void loadgen_write_request(struct run *run, struct client *client)
{
    client->out_done = 0;
    client->confirms = client->location[0] != '\0';
    if (client->confirms) {
        write_confirm(run, client);
        return;
    }
    client->event = run->options.event_count;
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
    case TRAFFIC_BEST:
        write_best(run, client);
        break;
    case TRAFFIC_MIXED:
        write_mixed(run, client);
        break;
    }
}

#endif
