/*
 * Goal: an answer without an end keeps the edge's contract: a head without a length, bytes in order
 * however slowly they are read, bounds kept, blocks shared and freed, on_closed exactly once or
 * never, and nothing else of the connection (pipelined input, idle timeout, drain) in its way.
 * Method: the edge with a scripted handler and a client in the same thread, turn by turn.
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

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "api/http.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/reap.h"

#define WAITING_MAX 16384
#define PATIENCE_US 5000000

static struct {
    struct event_base *base;
    struct reap_list *reap;
    struct http_server *server;
    int port;
    int client;
    struct http_request *held; /* by /later */
    struct http_stream *stream;
    int begun;   /* streams that http_stream_begin gave */
    int refused; /* NULLs */
    int closed;
    bool end_in_handler;
    size_t text_len;
    char text[1 << 20]; /* what the client has read */
    bool over;          /* the client has seen the end */
} edge;

static void on_closed(void *arg)
{
    assert_ptr_equal(arg, &edge);
    assert_non_null(edge.stream);
    edge.stream = NULL;
    edge.closed++;
}

static void begin(struct http_request *request)
{
    http_reply_header(request, "X-Mine", "yes");
    edge.stream = http_stream_begin(request, "text/event-stream", WAITING_MAX, on_closed, &edge);
    edge.begun += edge.stream != NULL;
    edge.refused += edge.stream == NULL;
    if (edge.stream && edge.end_in_handler) {
        assert_true(http_stream_send(edge.stream, "bye", 3));
        http_stream_end(edge.stream);
        edge.stream = NULL;
    }
}

static void on_request(void *arg, struct http_request *request)
{
    (void)arg;
    if (strcmp(http_request_path(request), "/later") == 0)
        edge.held = request;
    else if (strcmp(http_request_path(request), "/plain") == 0)
        http_reply(request, 200, "text/plain", "plain", 5);
    else
        begin(request);
}

static int setup(void **state)
{
    char error[128];
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    int fd;
    (void)state;
    memset(&edge, 0, sizeof(edge));
    edge.base = event_base_new();
    edge.reap = reap_list_new(edge.base);
    assert_int_equal(http_listen("127.0.0.1:0", false, 16, &fd, error, sizeof(error)), SG_OK);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    edge.port = ntohs(address.sin_port);
    edge.server = http_server_new(&(struct http_server_config){.base = edge.base,
                                                               .metrics = metrics_set_new(),
                                                               .reap = edge.reap,
                                                               .limits = {.max_connections = 4,
                                                                          .max_header_bytes = 4096,
                                                                          .max_headers = 16,
                                                                          .max_body_bytes = 4096,
                                                                          .request_timeout_ms = 300,
                                                                          .idle_timeout_ms = 100,
                                                                          .write_timeout_ms = 300},
                                                               .listener = "http",
                                                               .on_request = on_request},
                                  fd);
    assert_non_null(edge.server);
    edge.client = socket(AF_INET, SOCK_STREAM, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (edge.client >= 0)
        close(edge.client);
    http_server_free(edge.server);
    event_base_loop(edge.base, EVLOOP_NONBLOCK);
    reap_list_free(edge.reap);
    event_base_free(edge.base);
    metrics_shutdown();
    return edge.stream ? -1 : 0;
}

/* --- the client ------------------------------------------------------------------------------- */

static void connect_and_send(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)edge.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(edge.client, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(edge.client, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void turn(void)
{
    event_base_loop(edge.base, EVLOOP_NONBLOCK);
    usleep(200);
}

static void turn_ms(int ms)
{
    int64_t until_us = clock_mono_us() + (int64_t)ms * 1000;
    while (clock_mono_us() < until_us)
        turn();
}

static void take(void)
{
    ssize_t n = recv(edge.client, edge.text + edge.text_len, sizeof(edge.text) - 1 - edge.text_len,
                     MSG_DONTWAIT);
    edge.over |= n == 0 || (n < 0 && errno == ECONNRESET);
    if (n > 0)
        edge.text_len += (size_t)n;
    edge.text[edge.text_len] = '\0';
}

#define await(condition)                                                                           \
    do {                                                                                           \
        int64_t until_us = clock_mono_us() + PATIENCE_US;                                          \
        while (!(condition)) {                                                                     \
            turn();                                                                                \
            take();                                                                                \
            if (clock_mono_us() > until_us)                                                        \
                fail_msg("%s: never; read: %s", #condition, edge.text);                            \
        }                                                                                          \
    } while (0)

static const char *body(void)
{
    const char *head_end = strstr(edge.text, "\r\n\r\n");
    return head_end ? head_end + 4 : "";
}

static void open_stream(const char *request)
{
    connect_and_send(request);
    await(edge.stream);
}

#define GET "GET /s HTTP/1.1\r\nHost: t\r\n\r\n"

/* --- tests ------------------------------------------------------------------------------------ */

static void a_head_without_a_length(void **state)
{
    (void)state;
    open_stream(GET);
    assert_true(http_stream_send(edge.stream, "one", 3));
    await(strcmp(body(), "one") == 0);
    assert_memory_equal(edge.text, "HTTP/1.1 200 OK\r\n", 17);
    assert_non_null(strstr(edge.text, "\r\nContent-Type: text/event-stream\r\n"));
    assert_non_null(strstr(edge.text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(edge.text, "\r\nX-Mine: yes\r\n"));
    assert_non_null(strstr(edge.text, "\r\nX-Request-Id: "));
    assert_null(strstr(edge.text, "Content-Length"));
    assert_null(strstr(edge.text, "Transfer-Encoding"));
    turn_ms(250); /* longer than idle and request timeouts */
    assert_int_equal(edge.closed, 0);
    assert_true(http_stream_send(edge.stream, "two", 3));
    http_stream_end(edge.stream);
    edge.stream = NULL;
    await(edge.over);
    assert_string_equal(body(), "onetwo");
    assert_int_equal(edge.closed, 0);
    await(http_server_connections(edge.server) == 0);
}

static void http_1_0_and_what_is_pipelined(void **state)
{
    (void)state;
    open_stream("GET /s HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /plain HTTP/1.0\r\n\r\n");
    assert_true(http_stream_send(edge.stream, "one", 3));
    await(strcmp(body(), "one") == 0);
    assert_non_null(strstr(edge.text, "\r\nConnection: close\r\n"));
    static char flood[300000];
    memset(flood, 'x', sizeof(flood));
    for (size_t sent = 0; sent < sizeof(flood); turn()) {
        ssize_t n =
            send(edge.client, flood + sent, sizeof(flood) - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += n > 0 ? (size_t)n : 0;
    }
    assert_true(http_stream_send(edge.stream, "two", 3));
    await(strcmp(body(), "onetwo") == 0);
    close(edge.client);
    edge.client = -1;
    for (int i = 0; i < 1000 && edge.closed == 0; i++)
        turn();
    assert_int_equal(edge.closed, 1);
}

static void behind_a_plain_answer(void **state)
{
    (void)state;
    open_stream("GET /plain HTTP/1.1\r\nHost: t\r\n\r\n" GET);
    assert_true(http_stream_send(edge.stream, "one", 3));
    await(strstr(edge.text, "plainHTTP/1.1 200 OK"));
    await(edge.text_len > 3 && strcmp(edge.text + edge.text_len - 3, "one") == 0);
    http_stream_drop(edge.stream, "enough");
    edge.stream = NULL;
    await(edge.over);
    assert_int_equal(edge.closed, 0);
}

static void ended_where_it_began(void **state)
{
    (void)state;
    edge.end_in_handler = true;
    connect_and_send(GET);
    await(edge.over);
    assert_string_equal(body(), "bye");
    assert_int_equal(edge.closed, 0);
}

static void no_stream_for_head_and_those_who_left(void **state)
{
    (void)state;
    connect_and_send("HEAD /s HTTP/1.1\r\nHost: t\r\n\r\n");
    await(edge.over);
    assert_memory_equal(edge.text, "HTTP/1.1 200 OK\r\n", 17);
    assert_string_equal(body(), "");
    assert_int_equal(edge.refused, 1);
    close(edge.client);
    edge.client = socket(AF_INET, SOCK_STREAM, 0);
    connect_and_send("GET /later HTTP/1.1\r\nHost: t\r\n\r\n");
    await(edge.held);
    close(edge.client);
    edge.client = -1;
    turn_ms(20);
    begin(edge.held);
    assert_int_equal(edge.refused, 2);
    assert_int_equal(edge.closed, 0);
    turn_ms(20);
    assert_int_equal(http_server_connections(edge.server), 0);
}

static void a_client_that_goes_is_told_once(void **state)
{
    struct linger abrupt = {.l_onoff = 1};
    (void)state;
    open_stream(GET);
    setsockopt(edge.client, SOL_SOCKET, SO_LINGER, &abrupt, sizeof(abrupt));
    close(edge.client);
    edge.client = -1;
    /* the news of it may come while something is being sent, but never from inside */
    int sent = 0;
    for (int i = 0; i < 100; i++) {
        if (edge.stream && http_stream_send(edge.stream, "more", 4))
            sent++;
        assert_true(sent == 0 || edge.stream || edge.closed == 1);
        turn();
    }
    assert_int_equal(edge.closed, 1);
}

/* Sends numbered lines until the client is too slow; gives how many. */
static int fill(struct http_block *block)
{
    char line[512];
    int count = 0;
    memset(line, '.', sizeof(line));
    line[511] = '\n';
    for (; count < 100000; count++) {
        int len = snprintf(line, sizeof(line), "%06d", count);
        line[len] = '.';
        if (block ? !http_stream_send_block(edge.stream, block)
                  : !http_stream_send(edge.stream, line, sizeof(line)))
            break;
        if (count % 16 == 0)
            turn();
    }
    assert_true(count < 100000);
    return count;
}

static void who_does_not_read_is_too_slow(void **state)
{
    int size = 4096;
    (void)state;
    setsockopt(edge.client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    open_stream(GET);
    int count = fill(NULL);
    assert_true(count * 512 > WAITING_MAX);
    assert_true(count * 512 < 40 * WAITING_MAX); /* the kernel's share is bounded, too */
    assert_int_equal(edge.closed, 0);
    /* it may still read all that was taken, in order, and then the end */
    http_stream_end(edge.stream);
    edge.stream = NULL;
    await(edge.over);
    assert_int_equal(strlen(body()), count * 512);
    for (int i = 0; i < count; i++) {
        char number[16];
        snprintf(number, sizeof(number), "%06d", i);
        assert_memory_equal(body() + (size_t)i * 512, number, 6);
    }
}

static void blocks_are_shared_and_outlive_their_maker(void **state)
{
    int size = 4096;
    static char bytes[2000];
    (void)state;
    memset(bytes, 'b', sizeof(bytes));
    setsockopt(edge.client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    open_stream(GET);
    struct http_block *block = http_block_new(bytes, sizeof(bytes));
    int count = fill(block);
    http_block_unref(block); /* those that wait still have it */
    http_stream_end(edge.stream);
    edge.stream = NULL;
    await(edge.over);
    assert_int_equal(strlen(body()), (size_t)count * sizeof(bytes));
    assert_int_equal(strspn(body(), "b"), (size_t)count * sizeof(bytes));
}

static void an_end_that_is_not_read_has_a_deadline(void **state)
{
    int size = 4096;
    (void)state;
    setsockopt(edge.client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    open_stream(GET);
    fill(NULL);
    http_stream_end(edge.stream);
    edge.stream = NULL;
    turn_ms(900); /* http.write_timeout_ms is 300 */
    assert_int_equal(http_server_connections(edge.server), 0);
}

static void drain_and_free_close_streams(void **state)
{
    (void)state;
    open_stream(GET);
    http_server_drain(edge.server);
    assert_int_equal(edge.closed, 1);
    assert_int_equal(http_server_connections(edge.server), 0);
    await(edge.over);
}

static void no_stream_begins_while_draining(void **state)
{
    (void)state;
    connect_and_send("GET /later HTTP/1.1\r\nHost: t\r\n\r\n");
    await(edge.held);
    http_server_drain(edge.server);
    begin(edge.held);
    assert_int_equal(edge.refused, 1);
    await(edge.over);
    assert_memory_equal(edge.text, "HTTP/1.1 200 OK\r\n", 17);
}

static void freeing_the_server_closes_streams(void **state)
{
    (void)state;
    open_stream(GET);
    struct http_server *server = edge.server;
    edge.server = NULL;
    http_server_free(server);
    assert_int_equal(edge.closed, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_head_without_a_length, setup, teardown),
        cmocka_unit_test_setup_teardown(http_1_0_and_what_is_pipelined, setup, teardown),
        cmocka_unit_test_setup_teardown(behind_a_plain_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(ended_where_it_began, setup, teardown),
        cmocka_unit_test_setup_teardown(no_stream_for_head_and_those_who_left, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_goes_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_read_is_too_slow, setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_are_shared_and_outlive_their_maker, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_that_is_not_read_has_a_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_and_free_close_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(no_stream_begins_while_draining, setup, teardown),
        cmocka_unit_test_setup_teardown(freeing_the_server_closes_streams, setup, teardown),
    };
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
