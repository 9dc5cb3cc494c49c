/*
 * Opens many event streams at once and listens: what 10,000 watchers of one event cost a server.
 *
 *   streams HOST:PORT EVENT COUNT SECONDS [PID]
 *     opens COUNT streams of GET /events/EVENT/stream, a few hundred at a time
 *     listens for SECONDS, counts events (heartbeats are none) and streams that ended
 *     PID: of the server; its resident memory is read before, with all open, and at the end
 *
 * Prints one JSON object. Ends by itself: opening is given OPEN_SECONDS. One thread, epoll.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define OPEN_SECONDS 60
#define OPENING_MAX 200 /* connections on their way at once */
#define EVENTS_MAX 256

enum stream_state { STREAM_CONNECTING, STREAM_WAITING, STREAM_OPEN, STREAM_OVER };

struct stream {
    int fd;
    enum stream_state state;
    char tail[8]; /* the end of what was read: an event's name may be cut in two */
    size_t tail_len;
};

static struct {
    struct sockaddr_in address;
    char request[256];
    int epoll_fd;
    struct stream *streams;
    size_t count, begun, opening, open, refused, ended;
    uint64_t events, bytes;
} bench;

static long rss_kb(long pid)
{
    char path[64], line[256];
    long kb = -1;
    snprintf(path, sizeof(path), "/proc/%ld/status", pid);
    FILE *file = pid > 0 ? fopen(path, "r") : NULL;
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "VmRSS:", 6) == 0)
            kb = strtol(line + 6, NULL, 10);
    }
    if (file)
        fclose(file);
    return kb;
}

static void end_stream(struct stream *stream)
{
    if (stream->state == STREAM_OPEN) {
        bench.open--;
        bench.ended++;
    } else {
        bench.opening--;
        bench.refused++;
    }
    stream->state = STREAM_OVER;
    close(stream->fd);
}

static bool begin_stream(struct stream *stream)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = stream};
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream->fd < 0) {
        perror("socket");
        return false;
    }
    bench.opening++;
    if ((connect(stream->fd, (struct sockaddr *)&bench.address, sizeof(bench.address)) < 0 &&
         errno != EINPROGRESS) ||
        epoll_ctl(bench.epoll_fd, EPOLL_CTL_ADD, stream->fd, &event) < 0)
        end_stream(stream);
    return true;
}

static void send_request(struct stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    size_t len = strlen(bench.request);
    if (send(stream->fd, bench.request, len, MSG_NOSIGNAL) != (ssize_t)len ||
        epoll_ctl(bench.epoll_fd, EPOLL_CTL_MOD, stream->fd, &event) < 0) {
        end_stream(stream);
        return;
    }
    stream->state = STREAM_WAITING;
}

/* Counts "\nevent: " in the tail of the last piece and this one. */
static void count_events(struct stream *stream, const char *piece, size_t len)
{
    static char text[sizeof(stream->tail) + 65536];
    static const char mark[] = "\nevent: ";
    memcpy(text, stream->tail, stream->tail_len);
    memcpy(text + stream->tail_len, piece, len);
    size_t whole = stream->tail_len + len;
    const char *at = text;
    const char *found;
    while ((found = memmem(at, whole - (size_t)(at - text), mark, sizeof(mark) - 1))) {
        bench.events++;
        at = found + sizeof(mark) - 1;
    }
    size_t left = whole - (size_t)(at - text);
    stream->tail_len = left < sizeof(mark) - 2 ? left : sizeof(mark) - 2;
    memcpy(stream->tail, text + whole - stream->tail_len, stream->tail_len);
}

static void read_stream(struct stream *stream)
{
    static char piece[65536];
    ssize_t n = recv(stream->fd, piece, sizeof(piece), 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || (stream->state == STREAM_WAITING && strncmp(piece, "HTTP/1.1 200 ", 13) != 0)) {
        end_stream(stream);
        return;
    }
    if (stream->state == STREAM_WAITING) {
        stream->state = STREAM_OPEN;
        bench.opening--;
        bench.open++;
    }
    bench.bytes += (uint64_t)n;
    count_events(stream, piece, (size_t)n);
}

static void turn(void)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(bench.epoll_fd, events, EVENTS_MAX, 50);
    for (int i = 0; i < count; i++) {
        struct stream *stream = events[i].data.ptr;
        if (stream->state == STREAM_CONNECTING)
            send_request(stream);
        else if (stream->state != STREAM_OVER)
            read_stream(stream);
    }
}

static bool open_all(void)
{
    int64_t until_us = clock_mono_us() + OPEN_SECONDS * (int64_t)1000000;
    while ((bench.begun < bench.count || bench.opening > 0) && clock_mono_us() < until_us) {
        while (bench.begun < bench.count && bench.opening < OPENING_MAX) {
            if (!begin_stream(&bench.streams[bench.begun++]))
                return false;
        }
        turn();
    }
    return true;
}

static bool read_arguments(int argc, char **argv)
{
    char *colon = argc >= 5 ? strrchr(argv[1], ':') : NULL;
    if (!colon)
        return false;
    *colon = '\0';
    bench.address = (struct sockaddr_in){.sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10))};
    bench.count = (size_t)strtoul(argv[3], NULL, 10);
    snprintf(bench.request, sizeof(bench.request),
             "GET /events/%s/stream HTTP/1.1\r\nHost: bench\r\n\r\n", argv[2]);
    return inet_pton(AF_INET, argv[1], &bench.address.sin_addr) == 1 && bench.count > 0 &&
           bench.count <= 1000000;
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    if (!read_arguments(argc, argv)) {
        fprintf(stderr, "usage: streams HOST:PORT EVENT COUNT SECONDS [PID]\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    long pid = argc > 5 ? strtol(argv[5], NULL, 10) : 0;
    bench.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bench.streams = calloc(bench.count, sizeof(*bench.streams));
    if (bench.epoll_fd < 0 || !bench.streams)
        return 1;
    long before_kb = rss_kb(pid);
    int64_t started_us = clock_mono_us();
    if (!open_all())
        return 1;
    double open_s = (double)(clock_mono_us() - started_us) / 1e6;
    long open_kb = rss_kb(pid);
    size_t opened = bench.open;
    uint64_t events_before = bench.events;
    int64_t until_us = clock_mono_us() + (int64_t)(strtod(argv[4], NULL) * 1e6);
    while (clock_mono_us() < until_us)
        turn();
    printf(
        "{\"asked\":%zu,\"opened\":%zu,\"refused\":%zu,\"ended\":%zu,\"openSeconds\":%.2f,"
        "\"events\":%llu,\"bytes\":%llu,\"rssBeforeKb\":%ld,\"rssOpenKb\":%ld,\"rssEndKb\":%ld}\n",
        bench.count, opened, bench.refused, bench.ended, open_s,
        (unsigned long long)(bench.events - events_before), (unsigned long long)bench.bytes,
        before_kb, open_kb, rss_kb(pid));
    free(bench.streams);
    return 0;
}
