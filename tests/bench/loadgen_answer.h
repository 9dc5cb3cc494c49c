/*
 * What loadgen makes of an answer: status and few headers read, all of it counted.
 *
 *   client->head ─> loadgen_read_head ─> status, length, shard and map checked
 *   the whole answer ─> loadgen_count_answer ─> tally
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_LOADGEN_ANSWER_H
#define SG_TESTS_BENCH_LOADGEN_ANSWER_H

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tests/bench/loadgen_run.h"

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

/* A pair goes on with what its hold was called; a confirmation ends it. */
static void keep_hold(struct run *run, struct client *client, const char *location, size_t len)
{
    if (run->options.take != TAKE_PAIR)
        return;
    if (client->confirms && client->status == 200)
        run->tally.pairs++;
    if (client->confirms || client->status != 201 || !location || len >= LOCATION_MAX)
        len = 0;
    memcpy(client->location, len ? location : "", len);
    client->location[len] = '\0';
}

static bool header_is(const char *line, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    return len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0;
}

/* Reads status and headers of client->head; false if this is no answer we understand. */
static bool loadgen_read_head(struct run *run, struct client *client, size_t head_len)
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
    keep_hold(run, client, location, location_len);
    if (run->options.log)
        log_answer(run, client, location, location_len);
    if (client->status == 304 || client->status == 204)
        client->body_left = 0;
    return length_known || client->status == 304 || client->status == 204;
}

/* The answer is whole. */
static void loadgen_count_answer(struct run *run, const struct client *client, int64_t now)
{
    struct tally *tally = &run->tally;
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
}

#endif
