/*
 * Goal: `seatgrid cdc` starts, answers its operators and stops although neither PostgreSQL nor
 * Redis is there; every endpoint says what is known in valid JSON and refuses what is wrong with
 * the right status. Method: the real server in a child process with a map of two shards on closed
 * ports, and a table of requests; then a signal, and its exit code.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/cdc_server.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/settings.h"
#include "cli/admin_client.h"
#include "shardmap/shardmap.h"

#define START_US 20000000

/* Port 1 is closed on any machine that a test may run on. */
static const char map_text[] =
    "map_version = 3;\n"
    "shards = ({ name = \"alpha\"; nodes = ({ name = \"alpha-1\"; "
    "dsn = \"host=127.0.0.1 port=1 dbname=a password=secret\"; }); },\n"
    "  { name = \"beta\"; nodes = ({ name = \"beta-1\"; dsn = \"host=127.0.0.1 port=1\"; }); });\n"
    "ranges = ({ first = 1; last = 100; shard = \"alpha\"; },"
    " { first = 101; last = 200; shard = \"beta\"; });\n";

struct exchange {
    const char *method;
    const char *path;
    int status;
    const char *parts[8]; /* of the body */
};

static const struct exchange exchanges[] = {
    {"GET", "/healthz", 200, {"\"alive\""}},
    {"GET",
     "/metrics",
     200,
     {"seatgrid_cdc_state{shard=\"alpha\",state=\"no_primary\"} 1",
      "seatgrid_cdc_state{shard=\"beta\",state=\"running\"} 0",
      "seatgrid_cdc_lag_bytes{shard=\"alpha\"} -1", "seatgrid_cdc_lag_ms{shard=\"alpha\"} -1"}},
    {"GET",
     "/admin/streams",
     200,
     {"{\"streams\":[{\"shard\":\"alpha\",\"state\":\"no_primary\"",
      "\"detail\":\"no primary is known", "\"receivedLsn\":null",
      "\"lagBytes\":null,\"lagMs\":null", "\"walKeptBytes\":null,\"walAlarm\":false",
      "\"countedStandby\":false", "{\"shard\":\"beta\""}},
    {"POST", "/admin/reseed", 503, {"\"code\":\"shard_unavailable\"", "does not keep the shard"}},
    {"POST", "/admin/reseed?shard=beta", 503, {"\"code\":\"shard_unavailable\""}},
    {"POST", "/admin/reseed?shard=gamma", 422, {"\"code\":\"unknown_shard\""}},
    {"POST", "/admin/reseed?shard=", 422, {"\"code\":\"unknown_shard\""}},
    {"POST", "/admin/reconcile", 503, {"\"code\":\"shard_unavailable\""}},
    {"POST", "/admin/reconcile?shard=alpha&fix=1", 503, {"\"code\":\"shard_unavailable\""}},
    {"POST", "/admin/reconcile?shard=gamma", 422, {"\"code\":\"unknown_shard\""}},
    {"POST", "/admin/reconcile?fix=yes", 400, {"fix is 0 or 1"}},
    {"POST",
     "/admin/drain?shard=alpha&lsn=0/16B3748&timeout_ms=100",
     503,
     {"\"code\":\"shard_unavailable\""}},
    {"POST",
     "/admin/drain?shard=alpha&lsn=0%2f16b3748&timeout_ms=600000&timeline=7",
     503,
     {"\"code\":\"shard_unavailable\""}},
    {"POST",
     "/admin/drain?shard=gamma&lsn=FFFFFFFF/FFFFFFFF&timeout_ms=1",
     422,
     {"\"code\":\"unknown_shard\""}},
    {"POST", "/admin/drain?lsn=0/16B3748&timeout_ms=100", 400, {"shard names"}},
    {"POST", "/admin/drain?shard=alpha&timeout_ms=100", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/0&timeout_ms=100", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=/1&timeout_ms=100", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1x&timeout_ms=100", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=-1/1&timeout_ms=100", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/123456789&timeout_ms=9", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=123456789/0&timeout_ms=9", 400, {"lsn is a position"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1", 400, {"timeout_ms is a number"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1&timeout_ms=0", 400, {"timeout_ms is a number"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1&timeout_ms=600001", 400, {"timeout_ms is a"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1&timeout_ms=%2b9", 400, {"timeout_ms is a number"}},
    {"POST", "/admin/drain?shard=alpha&lsn=0/1&timeout_ms=9&timeline=0", 400, {"timeline is the"}},
    {"GET", "/admin/drain?shard=alpha&lsn=0/1&timeout_ms=100", 405, {"method_not_allowed"}},
    {"GET", "/admin/reseed", 405, {"method_not_allowed"}},
    {"GET", "/admin/reconcile", 405, {"method_not_allowed"}},
    {"POST", "/admin/streams", 405, {"method_not_allowed"}},
    {"GET", "/admin/nodes", 404, {"\"code\":\"not_found\""}},
};

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    close(fd);
    return ntohs(address.sin_port);
}

/* Runs in the child; its exit code is the command's. */
static int serve(const char *listen)
{
    static struct settings settings;
    struct shardmap *map = NULL;
    struct dynbuf errors;
    settings_init(&settings);
    strcpy(settings.redis.address, "127.0.0.1:1");
    snprintf(settings.cdc.listen, sizeof(settings.cdc.listen), "%s", listen);
    log_setup(LOG_LEVEL_ERROR + 1, false);
    signal(SIGPIPE, SIG_IGN);
    dynbuf_init(&errors, 4096);
    if (shardmap_parse("base", map_text, &map, &errors) != SG_OK)
        return 3;
    dynbuf_done(&errors);
    return cdc_server_run(&settings, map) == SG_OK ? 0 : 1;
}

static pid_t start(const char *listen)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        exit(serve(listen));
    return pid;
}

static int exit_code(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int ask(const char *address, const char *method, const char *path, struct dynbuf *body)
{
    char error_text[256];
    int status = -1;
    dynbuf_reset(body);
    (void)admin_call(address, method, path, NULL, 0, 5000, &status, body, error_text,
                     sizeof(error_text));
    return status;
}

/* Until the shards' nodes were found dead: the answers are the same from then on. */
static void wait_started(const char *address, struct dynbuf *body)
{
    const int64_t until_us = clock_mono_us() + START_US;
    do {
        usleep(20000);
        if (clock_mono_us() > until_us)
            fail_msg("not started: %s", dynbuf_text(body));
    } while (ask(address, "GET", "/admin/streams", body) != 200 ||
             !strstr(dynbuf_text(body), "no primary is known: "));
}

static void check(const struct exchange *exchange, int status, const char *body)
{
    if (status != exchange->status)
        fail_msg("%s %s: %d, expected %d: %s", exchange->method, exchange->path, status,
                 exchange->status, body);
    for (size_t i = 0; i < 8 && exchange->parts[i]; i++) {
        if (!strstr(body, exchange->parts[i]))
            fail_msg("%s %s: no %s in %s", exchange->method, exchange->path, exchange->parts[i],
                     body);
    }
    if (strstr(body, "secret"))
        fail_msg("%s %s shows a password: %s", exchange->method, exchange->path, body);
    if (strcmp(exchange->path, "/metrics") != 0) {
        json_error_t error;
        json_t *json = json_loads(body, JSON_REJECT_DUPLICATES, &error);
        if (!json)
            fail_msg("%s %s: no JSON: %s: %s", exchange->method, exchange->path, error.text, body);
        json_decref(json);
    }
}

static void test_answers_without_servers(void **state)
{
    char address[32];
    struct dynbuf body;
    (void)state;
    dynbuf_init(&body, 1 << 20);
    snprintf(address, sizeof(address), "127.0.0.1:%d", free_port());
    pid_t pid = start(address);
    wait_started(address, &body);
    kill(pid, SIGHUP); /* another map wants a restart; the signal alone ends nothing */
    for (size_t i = 0; i < sizeof(exchanges) / sizeof(exchanges[0]); i++) {
        int status = ask(address, exchanges[i].method, exchanges[i].path, &body);
        check(&exchanges[i], status, dynbuf_text(&body));
    }
    kill(pid, SIGTERM);
    assert_int_equal(exit_code(pid), 0);
    dynbuf_done(&body);
}

static void test_a_taken_address_is_refused(void **state)
{
    char address[32];
    struct dynbuf body;
    (void)state;
    dynbuf_init(&body, 1 << 20);
    snprintf(address, sizeof(address), "127.0.0.1:%d", free_port());
    pid_t first = start(address);
    wait_started(address, &body);
    assert_int_equal(exit_code(start(address)), 1);
    kill(first, SIGINT);
    assert_int_equal(exit_code(first), 0);
    dynbuf_done(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_without_servers),
        cmocka_unit_test(test_a_taken_address_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
