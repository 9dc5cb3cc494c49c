/*
 * The payment service over HTTP, and the HTTP client under it.
 *
 * Goal: every question is put as wire.h says; a clear answer is that outcome and everything else is
 * unknown: no server, a lost connection, half an answer, silence, 5xx, nonsense, another order's
 * answer. Each question is answered exactly once, in time, within the bounds.
 * Method: a server in the same loop that says, byte for byte, what a table tells it to.
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
#include <strings.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <arpa/inet.h>

#include "base/clock.h"
#include "base/settings.h"
#include "payment/hmac.h"
#include "payment/httpclient.h"
#include "payment/provider_http.h"

#define ID "01890000-0000-7000-8000-00000000000a"
#define OTHER_ID "01890000-0000-7000-8000-00000000000b"
#define TIMEOUT_MS 30000 /* of tests that are not about it */
#define SOON_MS 1500     /* of those that are */
#define BOUNDS_MS 5000   /* longer than what is done before it is over */
#define PATIENCE_US 60000000

/* --- the server ------------------------------------------------------------------------------- */

struct server {
    struct event_base *base;
    struct evconnlistener *listener;
    int port;
    const char *answer; /* NULL: none, and the connection stays */
    bool close;         /* after the answer */
    int accepted;
    int requests;
    char seen[2048]; /* of the last request, as it came */
    struct bufferevent *open[32];
    int open_count;
};

static void on_readable(struct bufferevent *bev, void *arg)
{
    struct server *server = arg;
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(input);
    char *text = calloc(1, len + 1);
    evbuffer_copyout(input, text, len);
    char *end = strstr(text, "\r\n\r\n");
    const char *length = strstr(text, "Content-Length: ");
    size_t body = length ? strtoul(length + 16, NULL, 10) : 0;
    if (end && len >= (size_t)(end + 4 - text) + body) {
        snprintf(server->seen, sizeof(server->seen), "%s", text);
        evbuffer_drain(input, len);
        server->requests++;
        if (server->answer)
            evbuffer_add(bufferevent_get_output(bev), server->answer, strlen(server->answer));
        if (server->close)
            shutdown(bufferevent_getfd(bev), SHUT_RD); /* the rest when it is written */
    }
    free(text);
}

static void drop(struct server *server, struct bufferevent *bev)
{
    for (int i = 0; i < server->open_count; i++) {
        if (server->open[i] == bev)
            server->open[i] = server->open[--server->open_count];
    }
    bufferevent_free(bev);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct server *server = arg;
    if (server->close)
        drop(server, bev);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        drop(arg, bev);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int len, void *arg)
{
    struct server *server = arg;
    (void)listener;
    (void)address;
    (void)len;
    struct bufferevent *bev = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    server->accepted++;
    server->open[server->open_count++] = bev;
    bufferevent_setcb(bev, on_readable, on_written, on_event, server);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void server_start(struct server *server, struct event_base *base)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    memset(server, 0, sizeof(*server));
    server->base = base;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->listener =
        evconnlistener_new_bind(base, on_accept, server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE,
                                16, (struct sockaddr *)&address, sizeof(address));
    assert_non_null(server->listener);
    getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&address, &len);
    server->port = ntohs(address.sin_port);
}

static void server_stop(struct server *server)
{
    while (server->open_count)
        drop(server, server->open[0]);
    if (server->listener)
        evconnlistener_free(server->listener);
    server->listener = NULL;
}

/* --- the rig ---------------------------------------------------------------------------------- */

struct rig {
    struct event_base *base;
    struct server server;
    struct settings settings;
    struct payment_provider *provider;
    char secret_path[64];
    int answers;
    struct payment_word word; /* the last answer */
};

static void on_outcome(void *arg, const struct payment_word *word, const char *detail)
{
    struct rig *rig = arg;
    assert_non_null(detail);
    rig->answers++;
    rig->word = *word;
}

static int setup_with(void **state, int64_t timeout_ms)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    char error_text[256];
    rig->base = event_base_new();
    server_start(&rig->server, rig->base);
    settings_init(&rig->settings);
    strcpy(rig->secret_path, "/tmp/provider_test.XXXXXX");
    int fd = mkstemp(rig->secret_path);
    assert_int_equal(write(fd, "swordfish-1\n", 12), 12);
    close(fd);
    snprintf(rig->settings.payment.provider_url, sizeof(rig->settings.payment.provider_url),
             "http://127.0.0.1:%d/pay/", rig->server.port);
    strcpy(rig->settings.payment.callback_url, "http://127.0.0.1:1/payments/callback");
    snprintf(rig->settings.payment.secret_file, sizeof(rig->settings.payment.secret_file), "%s",
             rig->secret_path);
    rig->settings.payment.timeout_ms = timeout_ms;
    rig->settings.payment.connections = 2;
    rig->settings.payment.max_open = 3;
    if (provider_http_new(&rig->settings, rig->base, &rig->provider, error_text,
                          sizeof(error_text)) != SG_OK)
        fail_msg("%s", error_text);
    *state = rig;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, TIMEOUT_MS);
}

static int setup_soon(void **state)
{
    return setup_with(state, SOON_MS);
}

static int setup_bounds(void **state)
{
    return setup_with(state, BOUNDS_MS);
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    if (rig->provider)
        rig->provider->calls->free(rig->provider);
    server_stop(&rig->server);
    event_base_free(rig->base);
    unlink(rig->secret_path);
    free(rig);
    return 0;
}

static void turn_until(struct rig *rig, int answers)
{
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    while (rig->answers < answers && clock_mono_us() < deadline_us)
        event_base_loop(rig->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    assert_int_equal(rig->answers, answers);
}

static const struct payment_charge charge = {
    .order_id = ID, .event_id = 77, .amount = 4500, .currency = "EUR", .method = "ok"};

static enum sg_error put(struct rig *rig, const char *question)
{
    const struct payment_provider_calls *calls = rig->provider->calls;
    if (strcmp(question, "charge") == 0)
        return calls->charge(rig->provider, &charge, on_outcome, rig);
    if (strcmp(question, "ask") == 0)
        return calls->ask(rig->provider, ID, on_outcome, rig);
    if (strcmp(question, "cancel") == 0)
        return calls->cancel(rig->provider, ID, on_outcome, rig);
    return calls->refund(rig->provider, ID, on_outcome, rig);
}

static enum pay_outcome outcome_of(struct rig *rig, const char *question)
{
    int before = rig->answers;
    assert_int_equal(put(rig, question), SG_OK);
    assert_int_equal(rig->answers, before); /* never from inside the call */
    turn_until(rig, before + 1);
    return rig->word.outcome;
}

/* An answer with its length. */
static const char *http_answer(const char *status, const char *body)
{
    static char text[1024];
    snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status,
             strlen(body), body);
    return text;
}

#define STATE(status)                                                                              \
    "{\"orderId\":\"" ID "\",\"status\":\"" status "\",\"amount\":4500,\"currency\":\"EUR\"}"

/* --- tests ------------------------------------------------------------------------------------ */

static void questions_are_put_as_agreed(void **state)
{
    static const struct {
        const char *question, *line, *end;
    } cases[] = {
        {"charge", "PUT /pay/charges/" ID " HTTP/1.1\r\n",
         "\r\n\r\n{\"amount\":4500,\"currency\":\"EUR\",\"method\":\"ok\",\"callbackUrl\":"
         "\"http://127.0.0.1:1/payments/callback?event=77\"}"},
        {"ask", "GET /pay/charges/" ID " HTTP/1.1\r\n", "\r\n\r\n"},
        {"cancel", "POST /pay/charges/" ID "/cancel HTTP/1.1\r\n", "\r\n\r\n"},
        {"refund", "POST /pay/charges/" ID "/refund HTTP/1.1\r\n", "\r\n\r\n"},
    };
    struct rig *rig = *state;
    char host[64];
    snprintf(host, sizeof(host), "Host: 127.0.0.1:%d\r\n", rig->server.port);
    rig->server.answer = http_answer("200 OK", STATE("succeeded"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *seen = rig->server.seen;
        assert_int_equal(outcome_of(rig, cases[i].question), PAY_SUCCEEDED);
        assert_int_equal(rig->word.amount, 4500);
        assert_string_equal(rig->word.currency, "EUR");
        assert_memory_equal(seen, cases[i].line, strlen(cases[i].line));
        assert_string_equal(seen + strlen(seen) - strlen(cases[i].end), cases[i].end);
        assert_non_null(strstr(seen, host));
    }
    assert_int_equal(rig->server.accepted, 1); /* the connection was kept */
}

static void answers_and_what_they_mean(void **state)
{
    static const struct {
        const char *question, *status, *body;
        enum pay_outcome outcome;
    } cases[] = {
        {"charge", "200 OK", STATE("declined"), PAY_DECLINED},
        {"charge", "201 Created", STATE("succeeded"), PAY_SUCCEEDED},
        {"charge", "202 Accepted", STATE("pending"), PAY_PENDING},
        {"ask", "200 OK", STATE("refunded"), PAY_REFUNDED},
        {"ask", "404 Not Found", "{}", PAY_NONE},
        {"refund", "404 Not Found", "", PAY_NONE},
        {"cancel", "200 OK", STATE("cancelled"), PAY_CANCELLED},
        /* never heard of, where it was asked to do something: nothing is known */
        {"charge", "404 Not Found", "{}", PAY_UNKNOWN},
        {"cancel", "404 Not Found", "{}", PAY_UNKNOWN},
        {"charge", "500 Internal Server Error", STATE("declined"), PAY_UNKNOWN},
        {"charge", "503 Service Unavailable", "", PAY_UNKNOWN},
        {"charge", "422 Unprocessable", STATE("declined"), PAY_UNKNOWN},
        {"charge", "302 Found", STATE("succeeded"), PAY_UNKNOWN},
        {"charge", "200 OK", "", PAY_UNKNOWN},
        {"charge", "200 OK", "<html>succeeded</html>", PAY_UNKNOWN},
        {"charge", "200 OK", STATE("paid"), PAY_UNKNOWN},
        {"charge", "200 OK", STATE("none"), PAY_UNKNOWN},
        {"charge", "200 OK", "{\"orderId\":\"" ID "\",\"status\":\"succeeded\"}", PAY_UNKNOWN},
        {"refund", "200 OK", "{\"orderId\":\"" ID "\",\"status\":\"refunded\"}", PAY_UNKNOWN},
        {"charge", "200 OK", "{\"orderId\":\"" OTHER_ID "\",\"status\":\"declined\"}", PAY_UNKNOWN},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig->server.answer = http_answer(cases[i].status, cases[i].body);
        if (outcome_of(rig, cases[i].question) != cases[i].outcome)
            fail_msg("%s, %s, %s: %s", cases[i].question, cases[i].status, cases[i].body,
                     pay_outcome_name(rig->word.outcome));
    }
}

static void what_is_not_a_whole_answer_is_unknown(void **state)
{
    static const char *const answers[] = {
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" STATE("declined"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"or",
        "SSH-2.0-OpenSSH_9.2\r\n",
    };
    struct rig *rig = *state;
    rig->server.close = true;
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        rig->server.answer = *answers[i] ? answers[i] : "\r";
        if (outcome_of(rig, "charge") != PAY_UNKNOWN)
            fail_msg("%s", answers[i]);
    }
    /* and the next one is well again, on a new connection */
    rig->server.close = false;
    rig->server.answer = http_answer("200 OK", STATE("succeeded"));
    assert_int_equal(outcome_of(rig, "charge"), PAY_SUCCEEDED);
}

static void silence_is_unknown_in_time(void **state)
{
    struct rig *rig = *state;
    int64_t began_us = clock_mono_us();
    rig->server.answer = NULL;
    assert_int_equal(outcome_of(rig, "charge"), PAY_UNKNOWN);
    assert_true(clock_mono_us() - began_us >= (int64_t)SOON_MS * 1000 * 9 / 10);
    assert_int_equal(rig->server.requests, 1); /* it was not sent again */
    /* an answer that begins and does not end is no longer waited for either */
    rig->server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{";
    assert_int_equal(outcome_of(rig, "charge"), PAY_UNKNOWN);
    rig->server.answer = http_answer("200 OK", STATE("succeeded"));
    int64_t until_us = clock_mono_us() + PATIENCE_US; /* this machine, too, may be slow */
    while (outcome_of(rig, "ask") != PAY_SUCCEEDED)
        assert_true(clock_mono_us() < until_us);
}

static void no_server_is_unknown(void **state)
{
    struct rig *rig = *state;
    server_stop(&rig->server);
    assert_int_equal(outcome_of(rig, "charge"), PAY_UNKNOWN);
    assert_int_equal(outcome_of(rig, "refund"), PAY_UNKNOWN);
}

/* The service restarts: its old connections are gone, the kept one too. */
static void a_kept_connection_that_was_closed_is_made_anew(void **state)
{
    struct rig *rig = *state;
    rig->server.answer = http_answer("200 OK", STATE("succeeded"));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(outcome_of(rig, "ask"), PAY_SUCCEEDED);
        while (rig->server.open_count)
            drop(&rig->server, rig->server.open[0]);
        for (int k = 0; k < 20; k++) { /* the client hears of it */
            event_base_loop(rig->base, EVLOOP_NONBLOCK);
            usleep(1000);
        }
    }
    assert_int_equal(rig->server.accepted, 5);
}

/* Two answers to one question, and an interim one: the next question gets its own. */
static void what_is_said_unasked_is_nobodys_answer(void **state)
{
    struct rig *rig = *state;
    char text[2048];
    snprintf(text, sizeof(text), "%s%s", http_answer("200 OK", STATE("pending")),
             "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    rig->server.answer = text;
    assert_int_equal(outcome_of(rig, "ask"), PAY_PENDING);
    rig->server.answer = http_answer("200 OK", STATE("succeeded"));
    assert_int_equal(outcome_of(rig, "ask"), PAY_SUCCEEDED);
    rig->server.answer = "HTTP/1.1 103 Early Hints\r\n\r\n";
    assert_int_equal(outcome_of(rig, "ask"), PAY_UNKNOWN);
    rig->server.answer = http_answer("200 OK", STATE("declined"));
    assert_int_equal(outcome_of(rig, "ask"), PAY_DECLINED);
    assert_int_equal(rig->server.accepted, 3);
}

static void bounds_hold(void **state)
{
    struct rig *rig = *state;
    rig->server.answer = NULL;
    /* the loop has not turned: all of them wait, at most max_open */
    for (int i = 0; i < 3; i++)
        assert_int_equal(put(rig, "ask"), SG_OK);
    assert_int_equal(put(rig, "ask"), SG_OVERLOADED);
    while (rig->server.requests < 2)
        event_base_loop(rig->base, EVLOOP_ONCE);
    assert_int_equal(rig->server.accepted, 2); /* connections */
    assert_int_equal(put(rig, "ask"), SG_OK);  /* two are under way, so two may wait more */
    assert_int_equal(put(rig, "ask"), SG_OK);
    assert_int_equal(put(rig, "ask"), SG_OVERLOADED);
    turn_until(rig, 5); /* each had its deadline from when it was put, also those that waited */
    assert_int_equal(rig->word.outcome, PAY_UNKNOWN);
}

static void what_is_under_way_at_the_end_is_unknown(void **state)
{
    struct rig *rig = *state;
    rig->server.answer = NULL;
    for (int i = 0; i < 3; i++)
        assert_int_equal(put(rig, "charge"), SG_OK);
    while (rig->server.requests < 2)
        event_base_loop(rig->base, EVLOOP_ONCE);
    rig->provider->calls->free(rig->provider);
    rig->provider = NULL;
    assert_int_equal(rig->answers, 3);
    assert_int_equal(rig->word.outcome, PAY_UNKNOWN);
}

static void callbacks_are_verified(void **state)
{
    static const struct hmac_secret secret = {.bytes = "swordfish-1", .len = 11};
    static const char body[] = STATE("declined");
    struct rig *rig = *state;
    struct payment_notice notice = {.word.outcome = PAY_UNKNOWN};
    char signature[HMAC_SIGNATURE_SIZE];
    const struct payment_provider_calls *calls = rig->provider->calls;
    assert_int_equal(strcasecmp(calls->signature_header, HMAC_HEADER), 0);
    assert_true(hmac_sign(&secret, 1000000, body, strlen(body), signature));
    assert_int_equal(calls->verify(rig->provider, signature, body, strlen(body), 1000300, &notice),
                     SG_OK);
    assert_int_equal(notice.word.outcome, PAY_DECLINED);
    assert_string_equal(notice.order_id, ID);
    assert_int_equal(calls->verify(rig->provider, signature, body, strlen(body), 1000301, &notice),
                     SG_BAD_SIGNATURE);
    assert_int_equal(calls->verify(rig->provider, NULL, body, strlen(body), 1000000, &notice),
                     SG_BAD_SIGNATURE);
    assert_true(hmac_sign(&secret, 1000000, "{}", 2, signature));
    assert_int_equal(calls->verify(rig->provider, signature, "{}", 2, 1000000, &notice),
                     SG_WRONG_TYPE);
}

static void settings_that_cannot_be(void **state)
{
    static const struct {
        const char *provider_url, *callback_url, *secret_file;
        enum sg_error error;
    } cases[] = {
        {"https://127.0.0.1:1", "", NULL, SG_CONFIG_INVALID},
        {"http://127.0.0.1", "", NULL, SG_CONFIG_INVALID},
        {"http://127.0.0.1:1/?x=1", "", NULL, SG_CONFIG_INVALID},
        {"http://127.0.0.1:1", "127.0.0.1:1", NULL, SG_CONFIG_INVALID},
        {"http://127.0.0.1:1", "http://127.0.0.1:1/a b", NULL, SG_CONFIG_INVALID},
        {"http://127.0.0.1:1", "", "/nonexistent/secret", SG_IO},
        {"http://[::1]:1", "http://127.0.0.1:1/x?y=1", NULL, SG_OK},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct payment_provider *provider = NULL;
        struct settings settings = rig->settings;
        char error_text[256];
        strcpy(settings.payment.provider_url, cases[i].provider_url);
        strcpy(settings.payment.callback_url, cases[i].callback_url);
        if (cases[i].secret_file)
            strcpy(settings.payment.secret_file, cases[i].secret_file);
        if (provider_http_new(&settings, rig->base, &provider, error_text, sizeof(error_text)) !=
            cases[i].error)
            fail_msg("%s %s", cases[i].provider_url, cases[i].callback_url);
        if (provider)
            provider->calls->free(provider);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(questions_are_put_as_agreed, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_and_what_they_mean, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_a_whole_answer_is_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_is_unknown_in_time, setup_soon, teardown),
        cmocka_unit_test_setup_teardown(no_server_is_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kept_connection_that_was_closed_is_made_anew, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_said_unasked_is_nobodys_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(bounds_hold, setup_bounds, teardown),
        cmocka_unit_test_setup_teardown(what_is_under_way_at_the_end_is_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_are_verified, setup, teardown),
        cmocka_unit_test_setup_teardown(settings_that_cannot_be, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
