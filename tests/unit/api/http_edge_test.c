/*
 * Goal: the HTTP edge keeps its contract on real sockets, whatever the client does: answers in
 * order, deadlines, bounds, refusals a client can read, and no request lost or leaked.
 * Method: a server on a port of its own in a second thread, with a scripted handler; the test is a
 * plain blocking client. Limits are short, so that each deadline is met within a second.
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
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <event2/event.h>

#include "api/http.h"
#include "api/http_internal.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/error.h"
#include "base/metrics.h"
#include "base/reap.h"

#define BIG_BYTES (48 << 20)
#define MAX_BODY 65536
#define MAX_HEADER 4096
#define MAX_HEADERS 16

/* --- the server under test, in its own thread ------------------------------------------------- */

static struct {
    pthread_t thread;
    int command_fd; /* d: drain, f: free the server but let the loop go on, q: quit */
    int thread_fd;
    int listen_fd;
    int port;
    struct http_limits limits;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct http_server *server;
    struct http_request *held; /* by /hold, answered by /release */
    char *big;
    _Atomic int requests;
    _Atomic int refused;
    _Atomic int last_refusal;
    _Atomic int bodies_freed;
    _Atomic int data_freed;
    _Atomic int depth;
    _Atomic int depth_max;
    _Atomic size_t connections;
    _Atomic bool ended;
} edge;

static const struct http_limits short_limits = {.max_connections = 8,
                                                .max_header_bytes = MAX_HEADER,
                                                .max_headers = MAX_HEADERS,
                                                .max_body_bytes = MAX_BODY,
                                                .request_timeout_ms = 500,
                                                .idle_timeout_ms = 1000,
                                                .write_timeout_ms = 500};

static void on_body_free(void *arg)
{
    (void)arg;
    edge.bodies_freed++;
}

static void on_data_free(void *data)
{
    free(data);
    edge.data_freed++;
}

/* Tells everything the handler can see of a request. */
static void answer_echo(struct http_request *request)
{
    struct dynbuf out;
    size_t len;
    const char *body = http_request_body(request, &len);
    const char *query = http_request_query(request, "q");
    const char *header = http_request_header(request, "x-list");
    dynbuf_init(&out, 1 << 20);
    dynbuf_addf(&out, "%s %s q=%s list=%s body=%zu:", http_request_method_name(request),
                http_request_path(request), query ? query : "-", header ? header : "-", len);
    dynbuf_add(&out, body, len);
    http_reply(request, 200, "text/plain", out.data, out.len);
    dynbuf_done(&out);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    answer_echo(arg);
}

static void on_deferred_big(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    http_reply_ref(arg, 200, "application/octet-stream", edge.big, BIG_BYTES, on_body_free, NULL);
}

static void answer_headers(struct http_request *request)
{
    char text[600];
    memset(text, 'v', sizeof text);
    text[sizeof text - 1] = '\0';
    http_reply_header(request, "X-Good", "yes");
    http_reply_header(request, "X-Long", text);
    http_reply_header(request, "X-Split", "a\r\nX-Injected: b");
    http_reply_header(request, "X Bad", "name");
    http_reply_header(request, "", "no name");
    for (int i = 0; i < 40; i++) {
        snprintf(text, sizeof text, "X-Number-%d", i);
        http_reply_header(request, text, "n");
    }
    http_reply(request, 204, NULL, NULL, 0);
}

static void on_request(void *arg, struct http_request *request)
{
    const char *path = http_request_path(request);
    const char *ms = http_request_query(request, "ms");
    struct timeval delay = clock_timeval_us((ms ? atoi(ms) : 0) * 1000);
    (void)arg;
    edge.requests++;
    if (++edge.depth > edge.depth_max)
        edge.depth_max = edge.depth;
    http_request_set_data(request, malloc(16), on_data_free);
    if (strcmp(path, "/later") == 0)
        event_base_once(edge.base, -1, EV_TIMEOUT, on_later, request, &delay);
    else if (strcmp(path, "/big") == 0)
        http_reply_ref(request, 200, "application/octet-stream", edge.big, BIG_BYTES, on_body_free,
                       NULL);
    else if (strcmp(path, "/later-big") == 0)
        event_base_once(edge.base, -1, EV_TIMEOUT, on_deferred_big, request, &delay);
    else if (strcmp(path, "/headers") == 0)
        answer_headers(request);
    else if (strcmp(path, "/304") == 0)
        http_reply(request, 304, NULL, NULL, 0);
    else if (strcmp(path, "/hold") == 0)
        edge.held = request;
    else
        answer_echo(request);
    if (strcmp(path, "/release") == 0 && edge.held) {
        answer_echo(edge.held);
        edge.held = NULL;
    }
    edge.depth--;
}

static void on_refused(void *arg, enum sg_error error, int64_t duration_us)
{
    (void)arg;
    assert_true(duration_us >= 0);
    edge.refused++;
    edge.last_refusal = (int)error;
}

static void on_command(evutil_socket_t fd, short what, void *arg)
{
    char command;
    (void)what;
    (void)arg;
    if (read(fd, &command, 1) != 1)
        return;
    if (command == 'd')
        http_server_drain(edge.server);
    if (command == 'f') {
        http_server_free(edge.server);
        edge.server = NULL;
    }
    if (command == 'q')
        event_base_loopbreak(edge.base);
}

static void on_count(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    edge.connections = edge.server ? http_server_connections(edge.server) : 0;
}

static void *run_edge(void *arg)
{
    struct timeval often = {.tv_usec = 5000};
    (void)arg;
    edge.base = event_base_new();
    edge.reap = reap_list_new(edge.base);
    edge.metrics = metrics_set_new();
    struct http_server_config config = {.base = edge.base,
                                        .metrics = edge.metrics,
                                        .reap = edge.reap,
                                        .limits = edge.limits,
                                        .listener = "http",
                                        .on_request = on_request,
                                        .on_refused = on_refused};
    edge.server = http_server_new(&config, edge.listen_fd);
    struct event *command =
        event_new(edge.base, edge.thread_fd, EV_READ | EV_PERSIST, on_command, NULL);
    struct event *count = event_new(edge.base, -1, EV_PERSIST, on_count, NULL);
    event_add(command, NULL);
    event_add(count, &often);
    event_base_dispatch(edge.base);
    http_server_free(edge.server);
    if (edge.held)
        answer_echo(edge.held);
    reap_list_free(edge.reap);
    event_free(command);
    event_free(count);
    event_base_free(edge.base);
    edge.ended = true;
    return NULL;
}

static void start_edge(const struct http_limits *limits)
{
    char error_text[200];
    int pair[2];
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    char *big = edge.big;
    memset(&edge, 0, sizeof edge);
    edge.big = big;
    edge.limits = *limits;
    if (http_listen("127.0.0.1:0", true, 64, &edge.listen_fd, error_text, sizeof error_text) !=
        SG_OK)
        fail_msg("%s", error_text);
    assert_int_equal(getsockname(edge.listen_fd, (struct sockaddr *)&address, &len), 0);
    edge.port = ntohs(address.sin_port);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    edge.command_fd = pair[0];
    edge.thread_fd = pair[1];
    assert_int_equal(pthread_create(&edge.thread, NULL, run_edge, NULL), 0);
}

static void command_edge(char command)
{
    assert_int_equal(write(edge.command_fd, &command, 1), 1);
}

static void stop_edge(void)
{
    command_edge('q');
    pthread_join(edge.thread, NULL);
    close(edge.command_fd);
    close(edge.thread_fd);
    metrics_shutdown();
    assert_int_equal(edge.data_freed, edge.requests);
}

static bool wait_for_connections(size_t count)
{
    for (int i = 0; i < 600 && edge.connections != count; i++)
        usleep(5000);
    return edge.connections == count;
}

static bool wait_for_int(_Atomic int *value, int wanted)
{
    for (int i = 0; i < 600 && *value != wanted; i++)
        usleep(5000);
    return *value == wanted;
}

/* --- the client ------------------------------------------------------------------------------- */

struct client {
    int fd;
    struct dynbuf in;
    size_t used; /* of `in`, by answers that were looked at */
};

struct answer {
    int status;
    char head[4096];
    char *body; /* inside the client's buffer, valid until the next read */
    size_t len;
};

static struct client open_client(void)
{
    struct client client = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)edge.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 10};
    assert_true(client.fd >= 0);
    setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(client.fd, (struct sockaddr *)&address, sizeof address), 0);
    dynbuf_init(&client.in, 128 << 20);
    return client;
}

static void close_client(struct client *client)
{
    close(client->fd);
    dynbuf_done(&client->in);
}

static void send_bytes(struct client *client, const void *bytes, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(client->fd, (const char *)bytes + sent, len - sent, MSG_NOSIGNAL);
        assert_true(n > 0);
        sent += (size_t)n;
    }
}

static void send_text(struct client *client, const char *text)
{
    send_bytes(client, text, strlen(text));
}

/* Reads once; 0 at the end, also when the server reset the connection. */
static size_t read_some(struct client *client)
{
    assert_true(dynbuf_reserve(&client->in, 65536));
    ssize_t n = recv(client->fd, client->in.data + client->in.len, 65536, 0);
    if (n < 0 && errno == ECONNRESET)
        return 0;
    if (n < 0)
        fail_msg("recv: %s", strerror(errno));
    client->in.len += (size_t)n;
    client->in.data[client->in.len] = '\0';
    return (size_t)n;
}

/* Reads one answer; `bodiless` for HEAD. Fails the test if the connection ends before. */
static struct answer read_answer_of(struct client *client, bool bodiless)
{
    struct answer answer = {.status = 0};
    char *end;
    while (!client->in.data || !(end = strstr(client->in.data + client->used, "\r\n\r\n")))
        assert_true(read_some(client) > 0);
    char *start = client->in.data + client->used;
    size_t head_len = (size_t)(end + 4 - start);
    assert_true(head_len < sizeof answer.head);
    memcpy(answer.head, start, head_len);
    assert_memory_equal(start, "HTTP/1.1 ", 9);
    answer.status = atoi(start + 9);
    const char *length = strstr(answer.head, "\r\nContent-Length: ");
    if (length && !bodiless)
        answer.len = (size_t)atoll(length + 18);
    while (client->in.len < client->used + head_len + answer.len)
        assert_true(read_some(client) > 0);
    answer.body = client->in.data + client->used + head_len;
    client->used += head_len + answer.len;
    return answer;
}

static struct answer read_answer(struct client *client)
{
    return read_answer_of(client, false);
}

/* True if the server closes with nothing more to say. */
static bool ends(struct client *client)
{
    return client->in.len == client->used && read_some(client) == 0;
}

static void expect_body(const struct answer *answer, const char *text)
{
    assert_int_equal(answer->len, strlen(text));
    assert_memory_equal(answer->body, text, answer->len);
}

static void expect_refusal(struct client *client, int status, const char *code, const char *detail)
{
    struct answer answer = read_answer(client);
    char body[1024];
    char wanted[64];
    snprintf(body, sizeof body, "%.*s", (int)answer.len, answer.body);
    snprintf(wanted, sizeof wanted, "\"code\":\"%s\"", code);
    if (answer.status != status || !strstr(body, wanted) || !strstr(body, detail))
        fail_msg("wanted %d %s \"%s\", got %s%s", status, code, detail, answer.head, body);
    assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(answer.head, "\r\nContent-Type: application/problem+json\r\n"));
    assert_non_null(strstr(answer.head, "\r\nX-Request-Id: "));
    assert_true(ends(client));
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: t\r\n\r\n"

/* --- requests and answers --------------------------------------------------------------------- */

static void a_request_is_told_whole_and_answered_whole(void **state)
{
    (void)state;
    static const char request[] =
        "POST /a%20b?q=x%26y+z HTTP/1.1\r\nHost: t\r\nX-List: a\r\nX-Request-Id: my-id.1\r\n"
        "x-list:  b \r\nContent-Length: 3\r\n\r\n{\0}";
    static const char told[] = "POST /a b q=x&y z list=a, b body=3:{\0}";
    start_edge(&short_limits);
    struct client client = open_client();
    send_bytes(&client, request, sizeof request - 1);
    struct answer answer = read_answer(&client);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.len, sizeof told - 1);
    assert_memory_equal(answer.body, told, sizeof told - 1);
    assert_non_null(strstr(answer.head, "\r\nDate: "));
    assert_non_null(strstr(answer.head, " GMT\r\n"));
    assert_non_null(strstr(answer.head, "\r\nX-Request-Id: my-id.1\r\n"));
    assert_non_null(strstr(answer.head, "\r\nContent-Type: text/plain\r\n"));
    assert_null(strstr(answer.head, "\r\nConnection:"));
    close_client(&client);
    stop_edge();
}

static void request_ids_are_made_when_none_or_a_bad_one_is_given(void **state)
{
    (void)state;
    static const char *const lines[] = {"", "X-Request-Id:\r\n", "X-Request-Id: a b\r\n",
                                        "X-Request-Id: \xc3\xa9\r\n",
                                        "X-Request-Id: a\r\nX-Request-Id: b\r\n"};
    char seen[5][17];
    start_edge(&short_limits);
    struct client client = open_client();
    for (int i = 0; i < 5; i++) {
        char request[300];
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: t\r\n%s\r\n", lines[i]);
        send_text(&client, request);
        struct answer answer = read_answer(&client);
        const char *id = strstr(answer.head, "\r\nX-Request-Id: ") + 16;
        assert_int_equal(strspn(id, "0123456789abcdef"), 16);
        snprintf(seen[i], sizeof seen[i], "%.16s", id);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(seen[i], seen[j]);
    }
    close_client(&client);
    stop_edge();
}

static void answer_headers_are_clean_and_bounded(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, GET("/headers") GET("/304"));
    struct answer answer = read_answer(&client);
    assert_int_equal(answer.status, 204);
    assert_non_null(strstr(answer.head, "\r\nX-Good: yes\r\n"));
    assert_null(strstr(answer.head, "X-Long"));
    assert_null(strstr(answer.head, "X-Injected"));
    assert_null(strstr(answer.head, "X Bad"));
    assert_null(strstr(answer.head, "Content-"));
    assert_non_null(strstr(answer.head, "\r\nX-Number-22: n\r\n"));
    assert_null(strstr(answer.head, "X-Number-23"));
    answer = read_answer(&client);
    assert_int_equal(answer.status, 304);
    assert_null(strstr(answer.head, "Content-"));
    close_client(&client);
    stop_edge();
}

static void head_is_counted_and_not_sent(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, "HEAD /x HTTP/1.1\r\nHost: t\r\n\r\nHEAD /big HTTP/1.1\r\nHost: t\r\n\r\n");
    send_text(&client, GET("/x"));
    struct answer answer = read_answer_of(&client, true);
    assert_non_null(strstr(answer.head, "\r\nContent-Length: 26\r\n"));
    answer = read_answer_of(&client, true);
    assert_non_null(strstr(answer.head, "\r\nContent-Length: 50331648\r\n"));
    answer = read_answer(&client);
    expect_body(&answer, "GET /x q=- list=- body=0:");
    close_client(&client);
    assert_true(wait_for_int(&edge.bodies_freed, 1));
    stop_edge();
}

static void versions_and_connection_decide_what_stays_open(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *line; /* in the answer; NULL for no Connection header */
        bool stays;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: t\r\n\r\n", NULL, true},
        {"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "Connection: close", false},
        {"GET / HTTP/1.0\r\n\r\n", "Connection: close", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive", true},
        {"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n",
         "Connection: close", false},
        {"GET /later?ms=20 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "Connection: close",
         false},
    };
    start_edge(&short_limits);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client client = open_client();
        send_text(&client, cases[i].request);
        struct answer answer = read_answer(&client);
        assert_int_equal(answer.status, 200);
        if (cases[i].line)
            assert_non_null(strstr(answer.head, cases[i].line));
        else
            assert_null(strstr(answer.head, "Connection:"));
        if (cases[i].stays) {
            send_text(&client, cases[i].request);
            assert_int_equal(read_answer(&client).status, 200);
        } else {
            assert_true(ends(&client));
        }
        close_client(&client);
    }
    stop_edge();
}

static void ten_thousand_requests_use_one_connection(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    for (int i = 0; i < 10000; i++) {
        char request[100];
        char told[100];
        snprintf(request, sizeof request, "GET /r/%d HTTP/1.1\r\nHost: t\r\n\r\n", i);
        snprintf(told, sizeof told, "GET /r/%d q=- list=- body=0:", i);
        send_text(&client, request);
        struct answer answer = read_answer(&client);
        expect_body(&answer, told);
        dynbuf_reset(&client.in);
        client.used = 0;
    }
    assert_true(wait_for_connections(1));
    close_client(&client);
    assert_true(wait_for_connections(0));
    stop_edge();
}

/* --- pipelining ------------------------------------------------------------------------------- */

static void *send_burst(void *arg)
{
    struct client *client = arg;
    for (int i = 0; i < 20000; i++) {
        char request[120];
        const char *path = i % 1000 == 7 ? "/later" : "/now";
        snprintf(request, sizeof request,
                 "POST %s?q=%d HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%.*s", path, i,
                 i % 4, i % 4, "abc");
        send_text(client, request);
    }
    return NULL;
}

static void a_pipelined_burst_is_answered_in_order_without_recursion(void **state)
{
    (void)state;
    pthread_t sender;
    start_edge(&short_limits);
    struct client client = open_client();
    assert_int_equal(pthread_create(&sender, NULL, send_burst, &client), 0);
    for (int i = 0; i < 20000; i++) {
        struct answer answer = read_answer(&client);
        char told[100];
        snprintf(told, sizeof told, "POST %s q=%d list=- body=%d:%.*s",
                 i % 1000 == 7 ? "/later" : "/now", i, i % 4, i % 4, "abc");
        expect_body(&answer, told);
    }
    pthread_join(sender, NULL);
    assert_int_equal(edge.requests, 20000);
    assert_int_equal(edge.depth_max, 1);
    close_client(&client);
    stop_edge();
}

static void a_pipelined_request_waits_for_the_answer_before_it(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, GET("/later?ms=150") GET("/second"));
    usleep(70000);
    assert_int_equal(edge.requests, 1);
    struct answer answer = read_answer(&client);
    expect_body(&answer, "GET /later q=- list=- body=0:");
    answer = read_answer(&client);
    expect_body(&answer, "GET /second q=- list=- body=0:");
    close_client(&client);
    stop_edge();
}

/* One connection's handler answers another connection that has more requests waiting: the second
 * connection goes on from the loop, not from inside the first one's handler. */
static void an_answer_from_another_handler_does_not_nest(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client first = open_client();
    struct client second = open_client();
    send_text(&first, GET("/hold") GET("/behind"));
    usleep(50000);
    send_text(&second, GET("/release"));
    struct answer answer = read_answer(&first);
    expect_body(&answer, "GET /hold q=- list=- body=0:");
    answer = read_answer(&first);
    expect_body(&answer, "GET /behind q=- list=- body=0:");
    assert_int_equal(read_answer(&second).status, 200);
    assert_int_equal(edge.depth_max, 1);
    close_client(&first);
    close_client(&second);
    stop_edge();
}

/* Time the server's thread was on a processor. */
static int64_t edge_cpu_us(void)
{
    clockid_t clock;
    struct timespec ts;
    assert_int_equal(pthread_getcpuclockid(edge.thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &ts), 0);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void input_behind_a_waiting_request_is_bounded(void **state)
{
    (void)state;
    char chunk[4096];
    size_t sent = 0;
    start_edge(&short_limits);
    struct client client = open_client();
    int small = 65536;
    setsockopt(client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    memset(chunk, 'x', sizeof chunk);
    send_text(&client, GET("/hold") GET("/next") "GET / HTTP/1.1\r\nX: ");
    assert_true(wait_for_int(&edge.requests, 1));
    for (int idle = 0; idle < 20 && sent < 256 << 20;) {
        ssize_t n = send(client.fd, chunk, sizeof chunk, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            idle = 0;
        } else {
            idle++;
            usleep(5000);
        }
    }
    assert_true(sent < 256 << 20); /* the kernel's buffers are full: nobody reads on */
    int64_t before_us = edge_cpu_us();
    usleep(300000);
    assert_true(edge_cpu_us() - before_us < 100000); /* and nobody spins */
    struct client other = open_client();
    send_text(&other, GET("/release"));
    assert_int_equal(read_answer(&other).status, 200);
    assert_int_equal(read_answer(&client).status, 200);
    assert_int_equal(read_answer(&client).status, 200);
    expect_refusal(&client, 431, "headers_too_large", "larger");
    close_client(&other);
    close_client(&client);
    stop_edge();
}

/* --- bodies ----------------------------------------------------------------------------------- */

static void chunked_bodies_arrive_whole(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client,
              "POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
              "3;ext\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n" GET("/n"));
    struct answer answer = read_answer(&client);
    expect_body(&answer, "POST /c q=- list=- body=19:abc0123456789abcdef");
    answer = read_answer(&client);
    expect_body(&answer, "GET /n q=- list=- body=0:");

    char *large = malloc(MAX_BODY);
    assert_non_null(large);
    memset(large, 'y', MAX_BODY);
    send_text(&client, "POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 16; i++) {
        send_text(&client, "1000\r\n");
        send_bytes(&client, large, 4096);
        send_text(&client, "\r\n");
    }
    send_text(&client, "0\r\n\r\n");
    answer = read_answer(&client);
    assert_memory_equal(answer.body, "POST /c q=- list=- body=65536:yyyy", 34);
    assert_memory_equal(answer.body + 30, large, MAX_BODY);
    send_text(&client, "POST /l HTTP/1.1\r\nHost: t\r\nContent-Length: 65536\r\n\r\n");
    send_bytes(&client, large, MAX_BODY);
    answer = read_answer(&client);
    assert_memory_equal(answer.body + 30, large, MAX_BODY);
    free(large);
    close_client(&client);
    stop_edge();
}

static void a_client_that_waits_for_100_gets_it(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    for (int chunked = 0; chunked < 2; chunked++) {
        send_text(&client, chunked ? "POST /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                                     "Transfer-Encoding: chunked\r\n\r\n"
                                   : "POST /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                                     "Content-Length: 2\r\n\r\n");
        struct answer answer = read_answer(&client);
        assert_string_equal(answer.head, "HTTP/1.1 100 Continue\r\n\r\n");
        send_text(&client, chunked ? "2\r\nhi\r\n0\r\n\r\n" : "hi");
        answer = read_answer(&client);
        expect_body(&answer, "POST /e q=- list=- body=2:hi");
    }
    /* No 100 where none is awaited: the body is there, there is none, or the client is HTTP/1.0. */
    send_text(&client, "POST /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                       "Content-Length: 2\r\n\r\nhi");
    assert_int_equal(read_answer(&client).status, 200);
    send_text(&client, "GET /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(read_answer(&client).status, 200);
    send_text(&client, "POST /e HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    usleep(30000);
    send_text(&client, "hi");
    assert_int_equal(read_answer(&client).status, 200);
    close_client(&client);
    /* And none before a refusal. */
    client = open_client();
    send_text(&client, "POST /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                       "Content-Length: 65537\r\n\r\n");
    expect_refusal(&client, 413, "body_too_large", "Content-Length");
    close_client(&client);
    stop_edge();
}

/* --- refusals --------------------------------------------------------------------------------- */

static void what_is_not_http_is_refused_and_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int status;
        const char *code;
        const char *detail;
    } cases[] = {
#define R(bytes) bytes, sizeof bytes - 1
        {R("\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03"), 400, "malformed_request", "TLS"},
        {R("\0\0\0\0"), 400, "malformed_request", "method"},
        {R("\xff\xfe garbage"), 400, "malformed_request", "method"},
        {R("GET / HTTP/1.1\r\n\r\n"), 400, "malformed_request", "no Host"},
        {R("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400, "malformed_request", "two Host"},
        {R("GET / HTTP/2.0\r\n\r\n"), 505, "http_version_not_supported", "HTTP/1.1"},
        {R("GET /a//b HTTP/1.1\r\nHost: t\r\n\r\n"), 400, "malformed_request", "two slashes"},
        {R("GET /%2e%2e/etc HTTP/1.1\r\nHost: t\r\n\r\n"), 400, "malformed_request", "segment"},
        {R("GET /a%2fb HTTP/1.1\r\nHost: t\r\n\r\n"), 400, "malformed_request", "slash"},
        {R("GET /%ff HTTP/1.1\r\nHost: t\r\n\r\n"), 400, "malformed_request", "UTF-8"},
        {R("GET /a?x=%00 HTTP/1.1\r\nHost: t\r\n\r\n"), 400, "malformed_request", "control"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n"), 501, "not_implemented",
         "chunked"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
           "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"),
         400, "malformed_request", "both"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n"), 400,
         "malformed_request", "hexadecimal"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n"), 413,
         "body_too_large", "chunked body"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 65537\r\n\r\n"), 413, "body_too_large",
         "Content-Length"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551617\r\n\r\n"), 413,
         "body_too_large", "Content-Length"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), 400,
         "malformed_request", "two Content-Length"},
        {R("POST / HTTP/1.1\r\nHost: t\r\nExpect: magic\r\n\r\n"), 400, "malformed_request",
         "Expect"},
    };
    size_t count = sizeof cases / sizeof *cases;
    start_edge(&short_limits);
    for (size_t i = 0; i < count; i++) {
        struct client client = open_client();
        send_bytes(&client, cases[i].bytes, cases[i].len);
        expect_refusal(&client, cases[i].status, cases[i].code, cases[i].detail);
        close_client(&client);
    }
    assert_int_equal(edge.requests, 0);
    assert_true(wait_for_int(&edge.refused, (int)count));
    assert_true(wait_for_connections(0));
    stop_edge();
}

static void lines_and_heads_over_the_limit_are_refused(void **state)
{
    (void)state;
    char *text = malloc(3 * MAX_HEADER);
    assert_non_null(text);
    start_edge(&short_limits);
    for (int with_end = 0; with_end < 2; with_end++) {
        struct client client = open_client();
        memset(text, 'a', 3 * MAX_HEADER);
        memcpy(text, "GET /", 5);
        send_bytes(&client, text, with_end ? MAX_HEADER : MAX_HEADER + 1);
        if (with_end)
            send_text(&client, " HTTP/1.1\r\nHost: t\r\n\r\n");
        expect_refusal(&client, 414, "uri_too_long", "request line");
        close_client(&client);

        client = open_client();
        int len = snprintf(text, MAX_HEADER, "GET / HTTP/1.1\r\nHost: t\r\nX: ");
        memset(text + len, 'a', 2 * MAX_HEADER);
        send_bytes(&client, text, MAX_HEADER + 1);
        if (with_end)
            send_text(&client, "\r\n\r\n");
        expect_refusal(&client, 431, "headers_too_large", "larger");
        close_client(&client);
    }
    /* Exactly the limit is fine, in whatever pieces the head is copied. */
    struct client client = open_client();
    int len = snprintf(text, MAX_HEADER, "GET / HTTP/1.1\r\nHost: t\r\nX: ");
    memset(text + len, 'a', MAX_HEADER);
    memcpy(text + MAX_HEADER - 4, "\r\n\r\n", 4);
    send_bytes(&client, text, MAX_HEADER);
    assert_int_equal(read_answer(&client).status, 200);
    close_client(&client);

    client = open_client();
    send_text(&client, "GET / HTTP/1.1\r\nHost: t\r\n");
    for (int i = 0; i < MAX_HEADERS; i++)
        send_text(&client, "A: b\r\n");
    expect_refusal(&client, 431, "headers_too_large", "too many");
    close_client(&client);
    free(text);
    stop_edge();
}

/* The client has sent much more than the server wants to read; the answer must survive that. */
static void a_refused_client_that_goes_on_sending_can_read_why(void **state)
{
    (void)state;
    char *body = calloc(1, 900000);
    assert_non_null(body);
    start_edge(&short_limits);
    for (int i = 0; i < 5; i++) {
        struct client client = open_client();
        send_text(&client, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\n\r\n");
        if (i % 2) { /* also when the answer is out before the body begins */
            char byte;
            assert_int_equal(recv(client.fd, &byte, 1, MSG_PEEK), 1);
        }
        for (int chunk = 0; chunk < 900; chunk++)
            send_bytes(&client, body, 1000);
        expect_refusal(&client, 413, "body_too_large", "Content-Length");
        close_client(&client);
    }
    free(body);
    assert_true(wait_for_connections(0));
    stop_edge();
}

/* A pipelined request before the bad one is answered; nothing behind it is. */
static void a_refusal_comes_behind_earlier_answers(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, GET("/one") "GET /two HTTP/1.1\r\n\r\n" GET("/three"));
    struct answer answer = read_answer(&client);
    expect_body(&answer, "GET /one q=- list=- body=0:");
    expect_refusal(&client, 400, "malformed_request", "no Host");
    assert_int_equal(edge.requests, 1);
    close_client(&client);
    stop_edge();
}

/* --- deadlines -------------------------------------------------------------------------------- */

static void a_trickled_request_in_time_is_served(void **state)
{
    (void)state;
    static const char request[] = "POST /t HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n"
                                  "\r\n3\r\nabc\r\n0\r\n\r\n";
    struct http_limits limits = short_limits;
    limits.request_timeout_ms = 5000;
    start_edge(&limits);
    struct client client = open_client();
    int on = 1;
    setsockopt(client.fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        send_bytes(&client, request + i, 1);
        usleep(2000);
    }
    struct answer answer = read_answer(&client);
    expect_body(&answer, "POST /t q=- list=- body=3:abc");
    close_client(&client);
    stop_edge();
}

/* The deadline counts from the first byte: trickling doesn't move it, in the head or the body. */
static void a_slow_loris_gets_408(void **state)
{
    (void)state;
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\nHost: t\r\nX: ",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 999\r\n\r\n"};
    start_edge(&short_limits);
    for (int i = 0; i < 2; i++) {
        struct client client = open_client();
        int64_t began_us = clock_mono_us();
        char byte;
        send_text(&client, starts[i]);
        while (recv(client.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
               clock_mono_us() - began_us < 5000000) {
            (void)!send(client.fd, "a", 1, MSG_NOSIGNAL);
            usleep(20000);
        }
        int64_t took_ms = (clock_mono_us() - began_us) / 1000;
        assert_in_range(took_ms, 450, 2500);
        struct answer answer = read_answer(&client);
        assert_int_equal(answer.status, 408);
        assert_non_null(strstr(answer.head, "\r\nRetry-After: 1\r\n"));
        assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
        close_client(&client);
    }
    assert_true(wait_for_int(&edge.refused, 2));
    assert_int_equal(edge.last_refusal, SG_REQUEST_TIMEOUT);
    stop_edge();
}

static void an_idle_connection_is_closed(void **state)
{
    (void)state;
    struct http_limits limits = short_limits;
    limits.idle_timeout_ms = 300;
    start_edge(&limits);
    struct client fresh = open_client();
    struct client used = open_client();
    send_text(&used, GET("/"));
    assert_int_equal(read_answer(&used).status, 200);
    int64_t began_us = clock_mono_us();
    assert_true(ends(&used));
    assert_in_range((clock_mono_us() - began_us) / 1000, 250, 2000);
    assert_true(ends(&fresh));
    assert_true(wait_for_connections(0));
    assert_int_equal(edge.refused, 0);
    close_client(&fresh);
    close_client(&used);
    stop_edge();
}

static void waiting_for_the_handler_is_not_idling(void **state)
{
    (void)state;
    struct http_limits limits = {.max_connections = 8,
                                 .max_header_bytes = MAX_HEADER,
                                 .max_headers = MAX_HEADERS,
                                 .max_body_bytes = MAX_BODY,
                                 .request_timeout_ms = 100,
                                 .idle_timeout_ms = 100,
                                 .write_timeout_ms = 100};
    start_edge(&limits);
    struct client client = open_client();
    send_text(&client, GET("/later?ms=700"));
    assert_int_equal(read_answer(&client).status, 200);
    close_client(&client);
    stop_edge();
}

static void a_client_that_does_not_read_is_closed(void **state)
{
    (void)state;
    start_edge(&short_limits);
    static const char *const requests[] = {GET("/big"), GET("/later-big"), GET("/big") GET("/big")};
    for (int i = 0; i < 3; i++) {
        struct client client = open_client();
        send_text(&client, requests[i]);
        assert_true(wait_for_connections(1));
        assert_true(wait_for_connections(0));
        assert_true(wait_for_int(&edge.bodies_freed, i + 1));
        close_client(&client);
    }
    stop_edge();
}

static void a_slow_reader_gets_all_of_a_large_answer(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, GET("/big") GET("/behind"));
    for (int i = 0; i < 30; i++) {
        usleep(30000); /* longer in all than the write timeout, but it takes bytes all the while */
        assert_true(read_some(&client) > 0);
    }
    struct answer answer = read_answer(&client);
    assert_int_equal(answer.len, BIG_BYTES);
    assert_memory_equal(answer.body, edge.big, BIG_BYTES);
    answer = read_answer(&client);
    expect_body(&answer, "GET /behind q=- list=- body=0:");
    assert_int_equal(edge.bodies_freed, 1);
    close_client(&client);
    stop_edge();
}

/* --- clients that go, servers that go --------------------------------------------------------- */

static void half_a_request_and_the_end_is_told(void **state)
{
    (void)state;
    static const char *const halves[] = {
        "G", "GET / HTTP/1.1\r\nHost: t\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc",
        ("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
         "3\r\nabc\r\n")};
    start_edge(&short_limits);
    for (int i = 0; i < 4; i++) {
        struct client client = open_client();
        send_text(&client, halves[i]);
        shutdown(client.fd, SHUT_WR);
        expect_refusal(&client, 400, "malformed_request", "ended inside");
        close_client(&client);
    }
    assert_int_equal(edge.requests, 0);
    assert_true(wait_for_connections(0));
    stop_edge();
}

static void a_client_that_only_stops_sending_is_answered(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client client = open_client();
    send_text(&client, GET("/later?ms=100") GET("/two"));
    shutdown(client.fd, SHUT_WR);
    assert_int_equal(read_answer(&client).status, 200);
    struct answer answer = read_answer(&client);
    expect_body(&answer, "GET /two q=- list=- body=0:");
    assert_true(ends(&client));
    close_client(&client);
    assert_true(wait_for_connections(0));
    stop_edge();
}

static void an_answer_for_a_client_that_is_gone_is_dropped(void **state)
{
    (void)state;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    start_edge(&short_limits);
    for (int with_reset = 0; with_reset < 2; with_reset++) {
        for (int i = 0; i < 4; i++) {
            struct client client = open_client();
            send_text(&client, i % 2 ? GET("/later?ms=200") : GET("/later-big?ms=200"));
            assert_true(wait_for_int(&edge.requests, with_reset * 4 + i + 1));
            if (with_reset)
                setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close_client(&client);
        }
        /* A reset is noticed at once, while the handler is at work. */
        if (with_reset)
            assert_true(wait_for_connections(0));
        assert_true(wait_for_int(&edge.data_freed, with_reset * 4 + 4));
        assert_true(wait_for_int(&edge.bodies_freed, with_reset * 2 + 2));
        assert_true(wait_for_connections(0));
    }
    stop_edge();
}

static void one_connection_too_many_is_closed_at_once(void **state)
{
    (void)state;
    struct client clients[8];
    start_edge(&short_limits);
    for (int i = 0; i < 8; i++) {
        clients[i] = open_client();
        send_text(&clients[i], GET("/"));
        assert_int_equal(read_answer(&clients[i]).status, 200);
    }
    struct client extra = open_client();
    assert_true(ends(&extra));
    close_client(&extra);
    struct dynbuf text;
    dynbuf_init(&text, 1 << 20);
    metrics_render(&text);
    assert_non_null(strstr(text.data, "seatgrid_http_connections{listener=\"http\"} 8\n"));
    assert_non_null(
        strstr(text.data, "seatgrid_http_connections_refused_total{listener=\"http\"} 1\n"));
    dynbuf_done(&text);
    close_client(&clients[0]);
    assert_true(wait_for_connections(7));
    clients[0] = open_client();
    send_text(&clients[0], GET("/"));
    assert_int_equal(read_answer(&clients[0]).status, 200);
    for (int i = 0; i < 8; i++)
        close_client(&clients[i]);
    stop_edge();
}

static void draining_lets_requests_finish_and_nothing_begin(void **state)
{
    (void)state;
    struct http_limits limits = short_limits;
    limits.idle_timeout_ms = 10000;
    start_edge(&limits);
    struct client idle = open_client();
    struct client working = open_client();
    struct client reading = open_client();
    send_text(&idle, GET("/"));
    assert_int_equal(read_answer(&idle).status, 200);
    send_text(&working, GET("/later?ms=200") GET("/not-any-more"));
    send_text(&reading, "GET /half");
    assert_true(wait_for_int(&edge.requests, 2));
    usleep(20000);
    command_edge('d');
    assert_true(ends(&idle));
    send_text(&reading, " HTTP/1.1\r\nHost: t\r\n\r\n");
    struct answer answer = read_answer(&reading);
    expect_body(&answer, "GET /half q=- list=- body=0:");
    assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
    assert_true(ends(&reading));
    answer = read_answer(&working);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
    assert_true(ends(&working));
    close_client(&idle);
    close_client(&working);
    close_client(&reading);
    assert_true(wait_for_connections(0));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)edge.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    stop_edge();
}

static void a_server_may_go_while_requests_are_at_work(void **state)
{
    (void)state;
    start_edge(&short_limits);
    struct client held = open_client();
    struct client later = open_client();
    struct client half = open_client();
    struct client big = open_client();
    send_text(&held, GET("/hold"));
    send_text(&later, GET("/later?ms=100"));
    send_text(&half, "GET / HT");
    send_text(&big, GET("/big"));
    assert_true(wait_for_int(&edge.requests, 3));
    command_edge('f');
    assert_true(ends(&held));
    assert_true(ends(&later));
    assert_true(ends(&half));
    assert_true(wait_for_int(&edge.bodies_freed, 1));
    assert_true(wait_for_int(&edge.data_freed, 2)); /* /big and, answered to nobody, /later */
    close_client(&held);
    close_client(&later);
    close_client(&half);
    close_client(&big);
    stop_edge();
}

static void a_taken_port_is_told(void **state)
{
    (void)state;
    char error_text[200] = "";
    char address[40];
    int fd = -7;
    start_edge(&short_limits);
    snprintf(address, sizeof address, "127.0.0.1:%d", edge.port);
    assert_int_equal(http_listen(address, false, 8, &fd, error_text, sizeof error_text), SG_IO);
    assert_int_equal(errno, EADDRINUSE);
    assert_non_null(strstr(error_text, "already in use"));
    assert_int_equal(http_listen("nonsense", false, 8, &fd, error_text, sizeof error_text), SG_IO);
    assert_non_null(strstr(error_text, "not host:port"));
    assert_int_equal(fd, -7);
    stop_edge();
}

static void every_status_that_is_answered_has_a_reason(void **state)
{
    static const int others[] = {201, 202, 204, 304};
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++)
        assert_string_not_equal(http_reason(sg_error_http_status((enum sg_error)i)), "");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_string_not_equal(http_reason(others[i]), "");
    assert_string_equal(http_reason(299), "");
}

static int make_big(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    edge.big = malloc(BIG_BYTES);
    if (!edge.big)
        return -1;
    for (size_t i = 0; i < BIG_BYTES; i++)
        edge.big[i] = (char)(i * 2654435761u >> 24);
    return 0;
}

static int free_big(void **state)
{
    (void)state;
    free(edge.big);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_told_whole_and_answered_whole),
        cmocka_unit_test(request_ids_are_made_when_none_or_a_bad_one_is_given),
        cmocka_unit_test(answer_headers_are_clean_and_bounded),
        cmocka_unit_test(head_is_counted_and_not_sent),
        cmocka_unit_test(versions_and_connection_decide_what_stays_open),
        cmocka_unit_test(ten_thousand_requests_use_one_connection),
        cmocka_unit_test(a_pipelined_burst_is_answered_in_order_without_recursion),
        cmocka_unit_test(a_pipelined_request_waits_for_the_answer_before_it),
        cmocka_unit_test(an_answer_from_another_handler_does_not_nest),
        cmocka_unit_test(input_behind_a_waiting_request_is_bounded),
        cmocka_unit_test(chunked_bodies_arrive_whole),
        cmocka_unit_test(a_client_that_waits_for_100_gets_it),
        cmocka_unit_test(what_is_not_http_is_refused_and_says_why),
        cmocka_unit_test(lines_and_heads_over_the_limit_are_refused),
        cmocka_unit_test(a_refused_client_that_goes_on_sending_can_read_why),
        cmocka_unit_test(a_refusal_comes_behind_earlier_answers),
        cmocka_unit_test(a_trickled_request_in_time_is_served),
        cmocka_unit_test(a_slow_loris_gets_408),
        cmocka_unit_test(an_idle_connection_is_closed),
        cmocka_unit_test(waiting_for_the_handler_is_not_idling),
        cmocka_unit_test(a_client_that_does_not_read_is_closed),
        cmocka_unit_test(a_slow_reader_gets_all_of_a_large_answer),
        cmocka_unit_test(half_a_request_and_the_end_is_told),
        cmocka_unit_test(a_client_that_only_stops_sending_is_answered),
        cmocka_unit_test(an_answer_for_a_client_that_is_gone_is_dropped),
        cmocka_unit_test(one_connection_too_many_is_closed_at_once),
        cmocka_unit_test(draining_lets_requests_finish_and_nothing_begin),
        cmocka_unit_test(a_server_may_go_while_requests_are_at_work),
        cmocka_unit_test(a_taken_port_is_told),
        cmocka_unit_test(every_status_that_is_answered_has_a_reason),
    };
    return cmocka_run_group_tests(tests, make_big, free_big);
}
