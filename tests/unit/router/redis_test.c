/*
 * Goal: the connection to Redis comes up, notices every kind of loss, and comes back by itself.
 * Method: a scripted Redis in a thread, one letter for each connection it accepts; the states that
 * the client goes through are written down as u (up) and d (down).
 *
 *   p  answers every PING until the test ends       1  answers one PING, then closes
 *   e  answers PING with an error                   c  closes at once
 *   s  is silent
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <event2/event.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "router/redis.h"

struct server {
    const char *script;
    int listen_fd;
    int port;
    pthread_t thread;
};

static bool hear(int fd)
{
    char bytes[256];
    return recv(fd, bytes, sizeof(bytes), 0) > 0;
}

static void say(int fd, const char *text)
{
    ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)sent;
}

static void play(int fd, char step)
{
    while (step != 'c' && hear(fd)) {
        if (step == 'e')
            say(fd, "-NOAUTH Authentication required.\r\n");
        else if (step != 's')
            say(fd, "+PONG\r\n");
        if (step == '1') {
            usleep(100000); /* long enough to be seen up */
            return;
        }
    }
}

static void *serve(void *arg)
{
    struct server *server = arg;
    for (const char *step = server->script; *step; step++) {
        int fd = accept(server->listen_fd, NULL, NULL);
        if (fd < 0)
            break;
        play(fd, *step);
        close(fd);
    }
    return NULL;
}

static void server_start(struct server *server, const char *script)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    server->script = script;
    server->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server->listen_fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server->listen_fd, 4), 0);
    getsockname(server->listen_fd, (struct sockaddr *)&address, &len);
    server->port = ntohs(address.sin_port);
    pthread_create(&server->thread, NULL, serve, server);
}

static void server_join(struct server *server)
{
    pthread_join(server->thread, NULL);
    close(server->listen_fd);
}

struct watch {
    struct event_base *base;
    struct redis *redis;
    char seen[16];
    size_t count;
    const char *until; /* stop when this was seen */
    int64_t deadline_us;
};

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct watch *watch = arg;
    const char now = redis_is_up(watch->redis) ? 'u' : 'd';
    (void)fd;
    (void)what;
    if ((!watch->count || watch->seen[watch->count - 1] != now) &&
        watch->count < sizeof(watch->seen) - 1)
        watch->seen[watch->count++] = now;
    if (strcmp(watch->seen, watch->until) == 0 || clock_mono_us() > watch->deadline_us)
        event_base_loopbreak(watch->base);
}

static void expect_states(const char *script, const char *expect)
{
    struct server server;
    char address[32];
    const struct timeval tick = {.tv_usec = 2000};
    struct watch watch = {.base = event_base_new(), .until = expect};
    server_start(&server, script);
    snprintf(address, sizeof(address), "127.0.0.1:%d", server.port);
    watch.deadline_us = clock_mono_us() + 10000000;
    watch.redis = redis_new(&(struct redis_config){
        .base = watch.base, .metrics = metrics_set_new(), .address = address});
    assert_non_null(watch.redis);
    struct event *ticker = event_new(watch.base, -1, EV_PERSIST, on_tick, &watch);
    event_add(ticker, &tick);
    on_tick(-1, 0, &watch);
    event_base_dispatch(watch.base);
    event_free(ticker);
    redis_free(watch.redis);
    server_join(&server);
    event_base_free(watch.base);
    if (strcmp(watch.seen, expect) != 0)
        fail_msg("script \"%s\": \"%s\", expected \"%s\"", script, watch.seen, expect);
}

static void it_comes_up_and_comes_back(void **state)
{
    (void)state;
    expect_states("p", "du");
    expect_states("1p", "dudu"); /* killed and restarted */
    expect_states("cccp", "du");
    expect_states("ep", "du"); /* an error is not an answer */
}

static void silence_ends_by_the_deadline(void **state)
{
    (void)state;
    const int64_t from_us = clock_mono_us();
    expect_states("sp", "du");
    assert_true(clock_mono_us() - from_us >= 900000);
}

static void nobody_listens_and_it_may_be_freed_at_any_time(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct redis *redis = redis_new(&(struct redis_config){
        .base = base, .metrics = metrics_set_new(), .address = "127.0.0.1:1"});
    const struct timeval soon = {.tv_usec = 300000};
    event_base_loopexit(base, &soon);
    event_base_dispatch(base);
    assert_false(redis_is_up(redis));
    redis_free(redis);
    redis = redis_new(&(struct redis_config){
        .base = base, .metrics = metrics_set_new(), .address = "127.0.0.1:1"});
    redis_free(redis); /* before its first turn */
    event_base_free(base);
}

static void addresses_are_checked(void **state)
{
    static const char *const wrong[] = {"",           "host",     "host:", ":6379",  "host:0",
                                        "host:65536", "host:63x", "[]:1",  "host:-1"};
    (void)state;
    struct event_base *base = event_base_new();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_null(redis_new(&(struct redis_config){
            .base = base, .metrics = metrics_set_new(), .address = wrong[i]}));
    struct redis *redis = redis_new(
        &(struct redis_config){.base = base, .metrics = metrics_set_new(), .address = "[::1]:1"});
    assert_non_null(redis);
    redis_free(redis);
    event_base_free(base);
    metrics_shutdown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_comes_up_and_comes_back),
        cmocka_unit_test(silence_ends_by_the_deadline),
        cmocka_unit_test(nobody_listens_and_it_may_be_freed_at_any_time),
        cmocka_unit_test(addresses_are_checked),
    };
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
