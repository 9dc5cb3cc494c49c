/*
 * Goal: whatever a server does or fails to do, a question gets exactly one answer, within its
 * deadline, and the connection is used again or closed as promised.
 * Method: a scripted server in a thread that speaks just enough of the PostgreSQL protocol; one
 * letter of the script a step.
 *
 *   h  read the startup packet, let the client in     q  read a question, answer with one row "42"
 *   e  read a question, answer with error 42P01       s  read, then be silent until the client goes
 *   f  say FATAL 57P01 unasked, then close            c  close at once
 *   r  read and say nothing
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/pgask.h"
#include "base/reap.h"

/* --- the scripted server ---------------------------------------------------------------------- */

struct server {
    const char *script;
    int listen_fd;
    int port;
    pthread_t thread;
};

static void say(int fd, char type, const void *body, uint32_t len)
{
    char message[128] = {type};
    uint32_t wire_len = htonl(len + 4);
    memcpy(message + 1, &wire_len, 4);
    if (len)
        memcpy(message + 5, body, len);
    ssize_t sent = send(fd, message, len + 5, MSG_NOSIGNAL);
    (void)sent;
}

static void say_error(int fd, const char *severity, const char *sqlstate, const char *text)
{
    char body[100];
    int len = snprintf(body, sizeof(body), "S%s%cV%s%cC%s%cM%s%c", severity, 0, severity, 0,
                       sqlstate, 0, text, 0);
    body[len++] = '\0';
    say(fd, 'E', body, (uint32_t)len);
}

static void say_row(int fd)
{
    static const char columns[] = "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    static const char row[] = "\0\1\0\0\0\00242";
    say(fd, '1', NULL, 0);
    say(fd, '2', NULL, 0);
    say(fd, 'T', columns, sizeof(columns) - 1);
    say(fd, 'D', row, sizeof(row) - 1);
    say(fd, 'C', "SELECT 1", 9);
    say(fd, 'Z', "I", 1);
}

/* False at the end of the connection. */
static bool hear(int fd)
{
    char bytes[4096];
    return recv(fd, bytes, sizeof(bytes), 0) > 0;
}

static void play(int fd, char step)
{
    switch (step) {
    case 'h':
        hear(fd);
        say(fd, 'R', "\0\0\0", 4);
        say(fd, 'Z', "I", 1);
        break;
    case 'q':
        if (hear(fd))
            say_row(fd);
        break;
    case 'e':
        if (hear(fd)) {
            say_error(fd, "ERROR", "42P01", "relation \"x\" does not exist");
            say(fd, 'Z', "I", 1);
        }
        break;
    case 'r':
        hear(fd);
        break;
    case 's':
        while (hear(fd))
            continue;
        break;
    case 'f':
        say_error(fd, "FATAL", "57P01", "terminating connection on command");
        shutdown(fd, SHUT_WR);
        while (hear(fd)) /* closing with unread bytes would reset, and the last word be lost */
            continue;
        break;
    default:
        break;
    }
}

static void *serve(void *arg)
{
    struct server *server = arg;
    int fd = accept(server->listen_fd, NULL, NULL);
    for (const char *step = server->script; *step && *step != 'c'; step++)
        play(fd, *step);
    close(fd);
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

/* --- the client ------------------------------------------------------------------------------- */

struct client {
    struct event_base *base;
    struct reap_list *reap;
    struct pgask *ask;
    int answers;
    int wanted; /* further questions to ask from inside the callback */
    enum sg_error error;
    char sqlstate[6];
    char reason[128];
    char value[16];
    bool first;
    int losses;
    char loss[128];
    bool free_inside;
};

static const struct pgask_question question = {.sql = "SELECT $1::bigint",
                                               .params = {"42"},
                                               .param_count = 1,
                                               .connect_timeout_us = 200000,
                                               .answer_timeout_us = 200000};

static void on_answer(void *arg, const struct pgask_answer *answer)
{
    struct client *client = arg;
    client->answers++;
    client->error = answer->error;
    client->first = answer->first;
    snprintf(client->sqlstate, sizeof(client->sqlstate), "%s", answer->sqlstate);
    snprintf(client->reason, sizeof(client->reason), "%s", answer->reason ? answer->reason : "");
    if (answer->error == SG_OK)
        snprintf(client->value, sizeof(client->value), "%s", PQgetvalue(answer->result, 0, 0));
    assert_true(answer->answered_us >= answer->asked_us);
    if (client->free_inside) {
        pgask_free(client->ask);
        client->ask = NULL;
    } else if (client->wanted-- > 0) {
        pgask_ask(client->ask, &question, on_answer, client);
        return;
    }
    event_base_loopbreak(client->base);
}

static void on_lost(void *arg, const char *reason)
{
    struct client *client = arg;
    client->losses++;
    snprintf(client->loss, sizeof(client->loss), "%s", reason);
    event_base_loopbreak(client->base);
}

static void client_init(struct client *client, int port)
{
    char dsn[128];
    snprintf(dsn, sizeof(dsn),
             "host=127.0.0.1 port=%d user=u dbname=d sslmode=disable gssencmode=disable", port);
    *client = (struct client){.base = event_base_new()};
    client->reap = reap_list_new(client->base);
    client->ask = pgask_new(&(struct pgask_config){.base = client->base,
                                                   .reap = client->reap,
                                                   .dsn = dsn,
                                                   .application_name = "test",
                                                   .on_lost = on_lost,
                                                   .arg = client});
    assert_non_null(client->ask);
}

static void client_ask(struct client *client)
{
    const int before = client->answers;
    pgask_ask(client->ask, &question, on_answer, client);
    assert_int_equal(client->answers, before); /* never from inside the call */
    event_base_dispatch(client->base);
}

static void client_done(struct client *client)
{
    pgask_free(client->ask);
    reap_list_free(client->reap);
    event_base_free(client->base);
}

/* --- the stories ------------------------------------------------------------------------------ */

struct story {
    const char *script;
    enum sg_error error;
    const char *reason; /* part of it */
};

static const struct story stories[] = {
    {"hqs", SG_OK, ""},
    {"hes", SG_INTERNAL, "does not exist"},
    {"c", SG_SHARD_UNAVAILABLE, "closed the connection"},
    {"hc", SG_SHARD_UNAVAILABLE, "closed the connection"},
    {"hrf", SG_SHARD_UNAVAILABLE, "terminating connection on command"},
    {"s", SG_DEADLINE, "while connecting"},
    {"hs", SG_DEADLINE, "waiting for the answer"},
};

static void every_end_is_one_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        struct server server;
        struct client client;
        server_start(&server, stories[i].script);
        client_init(&client, server.port);
        const int64_t from_us = clock_mono_us();
        client_ask(&client);
        if (client.error != stories[i].error || !strstr(client.reason, stories[i].reason))
            fail_msg("script \"%s\": %s, \"%s\"", stories[i].script, sg_error_code(client.error),
                     client.reason);
        assert_int_equal(client.answers, 1);
        assert_true(clock_mono_us() - from_us < 1500000);
        assert_true(client.first);
        if (client.error == SG_OK)
            assert_string_equal(client.value, "42");
        if (client.error == SG_INTERNAL)
            assert_string_equal(client.sqlstate, "42P01");
        /* the connection outlives what the server merely refused */
        assert_int_equal(pgask_connected(client.ask),
                         client.error == SG_OK || client.error == SG_INTERNAL);
        assert_false(pgask_busy(client.ask));
        client_done(&client);
        server_join(&server);
    }
}

static void a_connection_is_used_again(void **state)
{
    (void)state;
    struct server server;
    struct client client;
    server_start(&server, "hqeqqs");
    client_init(&client, server.port);
    client.wanted = 3;
    client_ask(&client);
    assert_int_equal(client.answers, 4);
    assert_int_equal(client.error, SG_OK);
    assert_false(client.first);
    assert_true(pgask_connected(client.ask));
    pgask_close(client.ask);
    assert_false(pgask_connected(client.ask));
    client_done(&client);
    server_join(&server);
    assert_int_equal(client.losses, 0);
}

static void an_idle_loss_is_told_with_the_servers_last_word(void **state)
{
    (void)state;
    struct server server;
    struct client client;
    server_start(&server, "hqf");
    client_init(&client, server.port);
    client_ask(&client);
    assert_int_equal(client.error, SG_OK);
    if (!client.losses)
        event_base_dispatch(client.base);
    assert_int_equal(client.losses, 1);
    assert_non_null(strstr(client.loss, "terminating connection on command"));
    assert_false(pgask_connected(client.ask));
    server_join(&server);
    /* nobody listens any more: asking again is answered too */
    client_ask(&client);
    assert_int_equal(client.answers, 2);
    assert_int_equal(client.error, SG_SHARD_UNAVAILABLE);
    assert_non_null(strstr(client.reason, "refused"));
    client_done(&client);
}

static void a_nonsense_dsn_is_answered_from_the_loop(void **state)
{
    (void)state;
    struct client client = {.base = event_base_new()};
    client.reap = reap_list_new(client.base);
    client.ask = pgask_new(&(struct pgask_config){
        .base = client.base, .reap = client.reap, .dsn = "nonsense=1", .application_name = "test"});
    client_ask(&client);
    assert_int_equal(client.error, SG_SHARD_UNAVAILABLE);
    assert_non_null(strstr(client.reason, "nonsense"));
    client_done(&client);
}

static void it_may_be_freed_in_its_callback_and_while_busy(void **state)
{
    (void)state;
    struct server server;
    struct client client;
    server_start(&server, "hqs");
    client_init(&client, server.port);
    client.free_inside = true;
    client_ask(&client);
    assert_int_equal(client.answers, 1);
    client_done(&client);
    server_join(&server);

    server_start(&server, "s");
    client_init(&client, server.port);
    pgask_ask(client.ask, &question, on_answer, &client);
    event_base_loop(client.base, EVLOOP_NONBLOCK);
    client_done(&client);
    server_join(&server);
    assert_int_equal(client.answers, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_end_is_one_answer),
        cmocka_unit_test(a_connection_is_used_again),
        cmocka_unit_test(an_idle_loss_is_told_with_the_servers_last_word),
        cmocka_unit_test(a_nonsense_dsn_is_answered_from_the_loop),
        cmocka_unit_test(it_may_be_freed_in_its_callback_and_while_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
