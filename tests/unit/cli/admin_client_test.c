/*
 * Goal: a command that asks the admin listener gets the answer, or a clear line about why not, in
 * bounded time.
 * Method: a one-shot server thread says (or doesn't say) what the case wants; the real edge of api/
 * is not needed for that.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "cli/admin_client.h"

#define SILENCE_MS 10000 /* at most; it ends when the client has gone */

struct server {
    pthread_t thread;
    int listen_fd;
    char address[40];
    const char *answer; /* NULL: silence */
    char request[4096];
};

/* The client sends a small request in one piece, so what has come by the end of the head and the
 * body is all of it. */
static bool is_whole(const char *request)
{
    const char *end = strstr(request, "\r\n\r\n");
    const char *length = strstr(request, "Content-Length: ");
    return end && (!length || strlen(end + 4) >= (size_t)atoi(length + 16));
}

static void *serve_once(void *arg)
{
    struct server *server = arg;
    size_t len = 0;
    int fd = accept(server->listen_fd, NULL, NULL);
    while (fd >= 0 && !is_whole(server->request)) {
        ssize_t n = recv(fd, server->request + len, sizeof server->request - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        server->request[len] = '\0';
    }
    if (server->answer)
        (void)!send(fd, server->answer, strlen(server->answer), MSG_NOSIGNAL);
    else
        (void)poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, SILENCE_MS);
    close(fd);
    return NULL;
}

static void start(struct server *server, const char *answer)
{
    char error_text[200];
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    *server = (struct server){.answer = answer};
    assert_int_equal(
        http_listen("127.0.0.1:0", false, 4, &server->listen_fd, error_text, sizeof error_text),
        SG_OK);
    assert_int_equal(fcntl(server->listen_fd, F_SETFL, 0), 0); /* accept waits */
    assert_int_equal(getsockname(server->listen_fd, (struct sockaddr *)&address, &len), 0);
    snprintf(server->address, sizeof server->address, "127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&server->thread, NULL, serve_once, server), 0);
}

static void stop(struct server *server)
{
    pthread_join(server->thread, NULL);
    close(server->listen_fd);
}

static void an_answer_of_any_status_is_an_answer(void **state)
{
    (void)state;
    struct server server;
    struct dynbuf body;
    char error_text[200] = "";
    int status = 0;
    dynbuf_init(&body, 100);
    start(&server, "HTTP/1.1 409 Conflict\r\nContent-Length: 14\r\n\r\n{\"refused\":1}\n");
    assert_int_equal(admin_call(server.address, "POST", "/admin/reload?dry_run=1", "{\"a\":1}", 7,
                                3000, &status, &body, error_text, sizeof error_text),
                     SG_OK);
    stop(&server);
    assert_int_equal(status, 409);
    assert_string_equal(dynbuf_text(&body), "{\"refused\":1}\n");
    assert_memory_equal(server.request, "POST /admin/reload?dry_run=1 HTTP/1.1\r\n", 39);
    char host[60];
    snprintf(host, sizeof host, "\r\nHost: %s\r\n", server.address);
    assert_non_null(strstr(server.request, host));
    assert_non_null(strstr(server.request, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(server.request, "\r\n\r\n{\"a\":1}"));
    dynbuf_done(&body);
}

static void failures_are_told_and_touch_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        enum sg_error error;
        const char *text;
    } cases[] = {
        {NULL, SG_DEADLINE, "no answer within 200 ms"},
        {"", SG_IO, "no HTTP answer"},
        {"garbage\r\n\r\n", SG_IO, "no HTTP answer"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", SG_BODY_TOO_LARGE, "larger than 4"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12", SG_BODY_TOO_LARGE, "larger than 4"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12", SG_IO, "no HTTP answer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct server server;
        struct dynbuf body;
        char error_text[200] = "";
        int status = -7;
        dynbuf_init(&body, 4);
        start(&server, cases[i].answer);
        int64_t began_us = clock_mono_us();
        enum sg_error error =
            admin_call(server.address, "GET", "/x", NULL, 0, cases[i].answer ? 5000 : 200, &status,
                       &body, error_text, sizeof error_text);
        int64_t took_us = clock_mono_us() - began_us;
        if (error != cases[i].error || !strstr(error_text, cases[i].text))
            fail_msg("case %zu: %s, %s", i, sg_error_code(error), error_text);
        assert_true(took_us < SILENCE_MS * INT64_C(1000));
        assert_int_equal(status, -7);
        assert_int_equal(body.len, 0);
        stop(&server);
        dynbuf_done(&body);
    }
}

static void nobody_there_and_bad_addresses_are_told(void **state)
{
    (void)state;
    struct server server;
    struct dynbuf body;
    char error_text[200] = "";
    int status = -7;
    dynbuf_init(&body, 100);
    start(&server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    char wildcard[40];
    snprintf(wildcard, sizeof wildcard, "0.0.0.0%s", strchr(server.address, ':'));
    assert_int_equal(admin_call(wildcard, "GET", "/", NULL, 0, 3000, &status, &body, error_text,
                                sizeof error_text),
                     SG_OK);
    assert_int_equal(status, 200);
    stop(&server); /* from here on nobody listens on that port */
    assert_int_equal(admin_call(server.address, "GET", "/", NULL, 0, 3000, &status, &body,
                                error_text, sizeof error_text),
                     SG_IO);
    assert_non_null(strstr(error_text, "no connection or no HTTP answer"));
    assert_int_equal(admin_call("nowhere", "GET", "/", NULL, 0, 3000, &status, &body, error_text,
                                sizeof error_text),
                     SG_INVALID_VALUE);
    assert_int_equal(admin_call(server.address, "BREW", "/", NULL, 0, 3000, &status, &body,
                                error_text, sizeof error_text),
                     SG_INVALID_VALUE);
    dynbuf_done(&body);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_of_any_status_is_an_answer),
        cmocka_unit_test(failures_are_told_and_touch_nothing),
        cmocka_unit_test(nobody_there_and_bad_addresses_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
