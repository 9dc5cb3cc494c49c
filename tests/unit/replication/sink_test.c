/*
 * Goal: a batch is answered exactly once and with the worst that happened to it; nothing of a later
 * batch reaches Redis behind one that failed; the scripts are there before anything else and come
 * back when they were lost.
 * Method: a scripted Redis on the same loop. A batch's commands are GETs of what is to be answered:
 * "GET :1" is answered with ":1", so each test writes down its own answers. What comes of the
 * batches is noted as letters: D done, F full, X failed, L lost, G gone, S stale, small letters are
 * the batch's name before it; a raw answer is its type's digit, ! if lost.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "replication/outbox.h"
#include "replication/sink.h"
#include "tests/unit/base/fake_redis.h"

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct fake_redis redis;
    struct sink *sink;
    unsigned ups;
    unsigned losses;
    char heard[256];
    char reason[256];
    size_t missing[8];
    size_t missing_count;
    bool free_in_callback;
    const char *send_in_callback; /* as batch z */
};

static struct rig *current;

/* What the scripted Redis does. */
static struct {
    bool scripts_lost; /* GETs are answered with NOSCRIPT until they are loaded */
    bool wrong_sha;
    unsigned loads;
    unsigned gets;
    bool mute;
} server;

static bool script_load(struct fake_client *client, const redisReply *command)
{
    for (int i = 0; i < SCRIPT_COUNT; i++) {
        size_t len;
        const char *text = script_text((enum script)i, &len);
        if (command->element[2]->len != len || memcmp(command->element[2]->str, text, len) != 0)
            continue;
        server.loads++;
        server.scripts_lost = server.scripts_lost && server.loads % SCRIPT_COUNT != 0;
        evbuffer_add_printf(bufferevent_get_output(client->bev), "$40\r\n%s\r\n",
                            server.wrong_sha ? "0000000000000000000000000000000000000000"
                                             : script_sha((enum script)i));
        return true;
    }
    return false;
}

static bool handle(struct fake_client *client, const redisReply *command)
{
    if (fake_is(command, "SCRIPT"))
        return script_load(client, command);
    if (fake_is(command, "CONFIG")) {
        fake_say(client, "-NOPERM this user has no permissions to run the 'config' command\r\n");
        return true;
    }
    if (!fake_is(command, "GET"))
        return false;
    const char *wanted = command->element[1]->str;
    server.gets++;
    if (strcmp(wanted, "close") == 0) {
        fake_close(client);
        return true;
    }
    if (server.mute)
        return true;
    fake_say(client,
             server.scripts_lost ? "-NOSCRIPT No matching script. Please use EVAL." : wanted);
    fake_say(client, "\r\n");
    return true;
}

static void on_up(void *arg)
{
    struct rig *rig = arg;
    rig->ups++;
}

static void on_lost(void *arg, const char *reason)
{
    struct rig *rig = arg;
    assert_string_not_equal(reason, "");
    assert_false(sink_is_up(rig->sink));
    rig->losses++;
}

static void setup(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    memset(&server, 0, sizeof(server));
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    settings_init(&rig->settings);
    rig->settings.redis.backoff_min_ms = 2;
    rig->settings.redis.backoff_max_ms = 20;
    rig->settings.redis.reply_timeout_ms = 300;
    fake_start(&rig->redis, rig->base);
    rig->redis.handler = handle;
    snprintf(rig->settings.redis.address, sizeof(rig->settings.redis.address), "127.0.0.1:%d",
             rig->redis.port);
    rig->sink = sink_new(&(struct sink_config){.base = rig->base,
                                               .reap = rig->reap,
                                               .metrics = rig->metrics,
                                               .settings = &rig->settings,
                                               .shard = "alpha",
                                               .on_up = on_up,
                                               .on_lost = on_lost,
                                               .arg = rig});
    assert_non_null(rig->sink);
    current = rig;
}

static void setup_up(struct rig *rig)
{
    setup(rig);
    assert_true(fake_run_until(rig->base, sink_is_up(rig->sink)));
    assert_int_equal(rig->ups, 1);
}

static void teardown(struct rig *rig)
{
    sink_free(rig->sink);
    fake_stop(&rig->redis);
    reap_list_free(rig->reap);
    event_base_free(rig->base);
}

static void hear(char letter)
{
    const size_t len = strlen(current->heard);
    assert_true(len < sizeof(current->heard) - 1);
    current->heard[len] = letter;
}

static bool send_batch(struct rig *rig, char name, const char *answers);

static void on_batch(void *arg, const struct sink_result *result)
{
    static const char letters[] = {[SINK_DONE] = 'D', [SINK_FULL] = 'F', [SINK_FAILED] = 'X',
                                   [SINK_LOST] = 'L', [SINK_GONE] = 'G', [SINK_STALE] = 'S'};
    struct rig *rig = current;
    hear((char)(intptr_t)arg);
    hear(letters[result->outcome]);
    assert_true((result->outcome == SINK_DONE) == (result->reason[0] == '\0'));
    snprintf(rig->reason, sizeof(rig->reason), "%s", result->reason);
    rig->missing_count = result->missing_count;
    for (size_t i = 0; i < result->missing_count && i < 8; i++)
        rig->missing[i] = result->missing[i];
    if (rig->send_in_callback) {
        const char *answers = rig->send_in_callback;
        rig->send_in_callback = NULL;
        assert_true(send_batch(rig, 'z', answers));
    }
    if (rig->free_in_callback) {
        struct sink *sink = rig->sink;
        rig->free_in_callback = false;
        rig->sink = NULL;
        sink_free(sink);
    }
}

static void on_raw(void *arg, const redisReply *reply)
{
    hear((char)(intptr_t)arg);
    hear(reply ? (char)('0' + reply->type) : '!');
}

static void write_get(struct dynbuf *out, const char *answer, size_t len)
{
    redisresp_begin(out, 2);
    redisresp_args(out, "GET");
    redisresp_arg(out, answer, len);
}

/* `answers` are separated by |. */
static bool send_batch(struct rig *rig, char name, const char *answers)
{
    struct dynbuf commands;
    size_t count = 0;
    dynbuf_init(&commands, 65536);
    for (const char *from = answers; from; count++) {
        const char *to = strchrnul(from, '|');
        write_get(&commands, from, (size_t)(to - from));
        from = *to ? to + 1 : NULL;
    }
    const bool sent = sink_send(rig->sink, &commands, count, on_batch, (void *)(intptr_t)name);
    dynbuf_done(&commands);
    return sent;
}

static bool ask(struct rig *rig, char name, const char *answer)
{
    struct dynbuf command;
    dynbuf_init(&command, 256);
    write_get(&command, answer, strlen(answer));
    const bool sent = sink_ask(rig->sink, &command, on_raw, (void *)(intptr_t)name);
    dynbuf_done(&command);
    return sent;
}

#define expect_heard(rig, expect)                                                                  \
    do {                                                                                           \
        if (!fake_run_until((rig)->base, strcmp((rig)->heard, expect) == 0))                       \
            fail_msg("heard \"%s\", expected \"%s\"", (rig)->heard, expect);                       \
    } while (0)

#define rest(rig, milliseconds)                                                                    \
    do {                                                                                           \
        const int64_t until_us = clock_mono_us() + (milliseconds)*1000;                            \
        fake_run_until((rig)->base, clock_mono_us() > until_us);                                   \
    } while (0)

/* --- outcomes --------------------------------------------------------------------------------- */

static void the_worst_answer_is_the_batchs(void **state)
{
    static const struct {
        const char *answers, *heard, *reason;
    } cases[] = {
        {":1", "aD", ""},
        {":0|:17|+OK", "aD", ""},
        {":1|-OOM command not allowed when used memory > 'maxmemory'.", "aF", "OOM"},
        {"-ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", "aF",
         "OOM"},
        {"-OOM no|-MISCONF Redis is configured to save RDB snapshots|-OOM no", "aX", "MISCONF"},
        {"-READONLY You can't write against a read only replica.|:1", "aX", "READONLY"},
        {":-3|-CLUSTERDOWN The cluster is down|:1", "aG", "hash"},
        {":-3|:-2|-OOM no", "aS", "epoch"},
        {":-2|:-3", "aS", "epoch"},
        {":-4", "aX", "script"},
        {"$1\r\n1", "aX", "script"},
        {"*0", "aX", "script"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig rig;
        setup_up(&rig);
        assert_true(send_batch(&rig, 'a', cases[i].answers));
        expect_heard(&rig, cases[i].heard);
        if (!strstr(rig.reason, cases[i].reason))
            fail_msg("%s: reason \"%s\"", cases[i].answers, rig.reason);
        teardown(&rig);
    }
}

static void missing_events_are_named_and_no_failure(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    assert_true(send_batch(&rig, 'a', ":1|:-1|:1|:-1|:-1"));
    expect_heard(&rig, "aD");
    assert_int_equal(rig.missing_count, 3);
    assert_int_equal(rig.missing[0], 1);
    assert_int_equal(rig.missing[1], 3);
    assert_int_equal(rig.missing[2], 4);
    assert_true(send_batch(&rig, 'b', ":-1|-OOM no"));
    expect_heard(&rig, "aDbF");
    assert_int_equal(rig.missing_count, 1);
    teardown(&rig);
}

/* --- order ------------------------------------------------------------------------------------ */

static void batches_and_asks_are_answered_in_order(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    assert_true(ask(&rig, 'p', "$1\r\nx"));
    assert_true(send_batch(&rig, 'a', ":1|:1"));
    assert_true(ask(&rig, 'q', ":5"));
    assert_true(send_batch(&rig, 'b', ":1"));
    assert_true(ask(&rig, 'r', "-ERR raw"));
    assert_true(send_batch(&rig, 'c', ":1"));
    assert_true(ask(&rig, 's', "*0"));
    expect_heard(&rig, "p1aDq3bDr6cDs2");
    teardown(&rig);
}

static void one_batch_is_at_redis_at_a_time(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    server.mute = true;
    assert_true(send_batch(&rig, 'a', ":1|:1"));
    assert_true(ask(&rig, 'p', ":1"));
    assert_true(send_batch(&rig, 'b', ":1"));
    assert_true(ask(&rig, 'q', ":1"));
    rest(&rig, 50);
    assert_int_equal(server.gets, 3); /* not b, and not what stands behind it */
    fake_say(rig.redis.client, ":1\r\n:1\r\n");
    expect_heard(&rig, "aD");
    rest(&rig, 20);
    assert_int_equal(server.gets, 5);
    fake_say(rig.redis.client, ":1\r\n:1\r\n:1\r\n");
    expect_heard(&rig, "aDp3bDq3");
    teardown(&rig);
}

static void nothing_is_applied_behind_a_batch_that_failed(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    rig.send_in_callback = ":1"; /* from a's callback: goes, and comes after b and c are told */
    assert_true(send_batch(&rig, 'a', ":1|-OOM no"));
    assert_true(send_batch(&rig, 'b', ":1"));
    assert_true(ask(&rig, 'p', ":1"));
    assert_true(send_batch(&rig, 'c', ":-2"));
    expect_heard(&rig, "aFbFcFp3zD");
    assert_int_equal(server.gets, 4);
    assert_true(sink_is_up(rig.sink));
    assert_int_equal(rig.losses, 0);
    teardown(&rig);
}

/* --- scripts ---------------------------------------------------------------------------------- */

static void scripts_are_loaded_before_it_is_up(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    assert_false(sink_is_up(rig.sink));
    assert_false(send_batch(&rig, 'a', ":1"));
    assert_false(ask(&rig, 'p', ":1"));
    assert_true(fake_run_until(rig.base, rig.ups == 1));
    assert_int_equal(server.loads, SCRIPT_COUNT);
    teardown(&rig);
}

static void lost_scripts_fail_the_batch_and_are_loaded_again(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    server.scripts_lost = true;
    rig.send_in_callback = ":1|:1";
    assert_true(send_batch(&rig, 'a', ":1|:1"));
    expect_heard(&rig, "aXzD");
    assert_int_equal(server.loads, 2 * SCRIPT_COUNT);
    assert_int_equal(rig.losses, 0);
    assert_int_equal(rig.ups, 1);
    teardown(&rig);
}

static void a_server_that_takes_no_scripts_is_not_up(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    server.wrong_sha = true;
    rest(&rig, 100);
    assert_int_equal(rig.ups, 0);
    assert_int_equal(rig.losses, 0);
    assert_true(rig.redis.accepted > 1); /* tried again, with pauses */
    assert_true(rig.redis.accepted < 50);
    server.wrong_sha = false;
    assert_true(fake_run_until(rig.base, sink_is_up(rig.sink)));
    teardown(&rig);
}

/* --- loss ------------------------------------------------------------------------------------- */

static void a_lost_connection_loses_the_batch_and_the_line(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    assert_true(send_batch(&rig, 'a', ":1|:-2|close|:1"));
    assert_true(send_batch(&rig, 'b', ":1"));
    assert_true(ask(&rig, 'p', ":1"));
    assert_true(send_batch(&rig, 'c', ":1"));
    expect_heard(&rig, "aSbLp!cL"); /* STALE is known, and worse than LOST */
    assert_true(fake_run_until(rig.base, rig.losses == 1 && rig.ups == 2));
    assert_true(send_batch(&rig, 'd', ":1|close"));
    assert_true(send_batch(&rig, 'e', ":1"));
    expect_heard(&rig, "aSbLp!cLdLeL");
    assert_true(fake_run_until(rig.base, rig.losses == 2 && rig.ups == 3));
    assert_true(send_batch(&rig, 'f', ":1"));
    expect_heard(&rig, "aSbLp!cLdLeLfD");
    teardown(&rig);
}

static void a_silent_redis_is_given_up(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    server.mute = true;
    assert_true(send_batch(&rig, 'a', ":1"));
    expect_heard(&rig, "aL");
    server.mute = false;
    assert_true(fake_run_until(rig.base, rig.ups == 2));
    teardown(&rig);
}

static void it_may_be_freed_with_all_in_flight(void **state)
{
    (void)state;
    struct rig rig;
    setup_up(&rig);
    assert_true(send_batch(&rig, 'a', ":1"));
    assert_true(ask(&rig, 'p', ":1"));
    assert_true(send_batch(&rig, 'b', ":1"));
    assert_true(ask(&rig, 'q', ":1"));
    sink_free(rig.sink);
    assert_string_equal(rig.heard, "aLp!bLq!");
    assert_int_equal(rig.losses, 0);
    rig.sink = NULL;
    teardown(&rig);
}

static void it_may_be_freed_in_a_callback(void **state)
{
    static const char *const first[] = {":1", "-OOM no", "close"};
    static const char *const expect[] = {"aDbLcL", "aFbFcF", "aLbLcL"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct rig rig;
        setup_up(&rig);
        rig.free_in_callback = true;
        assert_true(send_batch(&rig, 'a', first[i]));
        assert_true(send_batch(&rig, 'b', ":1"));
        assert_true(send_batch(&rig, 'c', ":1"));
        expect_heard(&rig, expect[i]);
        rest(&rig, 20);
        assert_string_equal(rig.heard, expect[i]);
        assert_int_equal(rig.losses, 0);
        teardown(&rig);
    }
}

static int last(void **state)
{
    (void)state;
    metrics_shutdown();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worst_answer_is_the_batchs),
        cmocka_unit_test(missing_events_are_named_and_no_failure),
        cmocka_unit_test(batches_and_asks_are_answered_in_order),
        cmocka_unit_test(one_batch_is_at_redis_at_a_time),
        cmocka_unit_test(nothing_is_applied_behind_a_batch_that_failed),
        cmocka_unit_test(scripts_are_loaded_before_it_is_up),
        cmocka_unit_test(lost_scripts_fail_the_batch_and_are_loaded_again),
        cmocka_unit_test(a_server_that_takes_no_scripts_is_not_up),
        cmocka_unit_test(a_lost_connection_loses_the_batch_and_the_line),
        cmocka_unit_test(a_silent_redis_is_given_up),
        cmocka_unit_test(it_may_be_freed_with_all_in_flight),
        cmocka_unit_test(it_may_be_freed_in_a_callback),
    };
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, last);
}
