/*
 * Goal: the connection to Redis comes up, notices every kind of loss and comes back by itself;
 * every command it accepted is answered exactly once and in order, whatever happens in between;
 * subscriptions survive.
 * Method: a scripted Redis on the same loop (fake_redis.h), one handler a risk. What the client
 * hears is written down as letters: u up, d down, a digit for an answer, ! for a lost command.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/redisconn.h"
#include "base/settings.h"
#include "tests/unit/base/fake_redis.h"

#define SET "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
#define SET_LEN (sizeof(SET) - 1)

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct fake_redis redis;
    struct redisconn *conn;
    char heard[4096];
    size_t heard_len;
    unsigned messages;
    unsigned confirmed;
    char reason[256];
    char last_message[64];
    bool free_in_callback;
    bool reset_in_callback;
    unsigned sends_in_callback;
};

static struct rig *rig_of_callbacks; /* for answers, whose argument is their number */

static void hear(struct rig *rig, char letter)
{
    assert_true(rig->heard_len < sizeof(rig->heard) - 1);
    rig->heard[rig->heard_len++] = letter;
    rig->heard[rig->heard_len] = '\0';
}

static void on_up(void *arg)
{
    hear(arg, 'u');
}

static void on_lost(void *arg, const char *reason)
{
    struct rig *rig = arg;
    snprintf(rig->reason, sizeof(rig->reason), "%s", reason);
    hear(rig, 'd');
}

static void on_message(void *arg, const char *channel, const char *payload, size_t len)
{
    struct rig *rig = arg;
    rig->messages++;
    assert_int_equal(len, strlen(payload));
    snprintf(rig->last_message, sizeof(rig->last_message), "%s=%s", channel, payload);
}

static void on_subscribed(void *arg, const char *channel)
{
    struct rig *rig = arg;
    (void)channel;
    rig->confirmed++;
}

static void setup(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    settings_init(&rig->settings);
    rig->settings.redis.backoff_min_ms = 2;
    rig->settings.redis.backoff_max_ms = 20;
    rig->settings.redis.reply_timeout_ms = 200;
    rig->settings.redis.connect_timeout_ms = 500;
    fake_start(&rig->redis, rig->base);
    snprintf(rig->settings.redis.address, sizeof(rig->settings.redis.address), "127.0.0.1:%d",
             rig->redis.port);
    rig_of_callbacks = rig;
}

static void open_conn(struct rig *rig, bool subscriptions, size_t in_flight_max)
{
    rig->conn =
        redisconn_new(&(struct redisconn_config){.base = rig->base,
                                                 .reap = rig->reap,
                                                 .metrics = rig->metrics,
                                                 .settings = &rig->settings,
                                                 .name = "test",
                                                 .in_flight_max = in_flight_max,
                                                 .on_up = on_up,
                                                 .on_lost = on_lost,
                                                 .on_message = subscriptions ? on_message : NULL,
                                                 .on_subscribed = on_subscribed,
                                                 .arg = rig});
    assert_non_null(rig->conn);
}

static void teardown(struct rig *rig)
{
    redisconn_free(rig->conn);
    fake_stop(&rig->redis);
    reap_list_free(rig->reap);
    event_base_free(rig->base);
}

static bool heard(const struct rig *rig, const char *expect)
{
    return strcmp(rig->heard, expect) == 0;
}

#define expect_heard(rig, expect)                                                                  \
    do {                                                                                           \
        if (!fake_run_until((rig)->base, heard(rig, expect)))                                      \
            fail_msg("heard \"%s\", expected \"%s\"", (rig)->heard, expect);                       \
    } while (0)

/* The argument is the command's number, 0 to 9. */
static void on_answer(void *arg, const redisReply *reply)
{
    struct rig *rig = rig_of_callbacks;
    hear(rig, reply ? (char)('0' + (intptr_t)arg) : '!');
    if (rig->sends_in_callback && redisconn_send(rig->conn, SET, SET_LEN, on_answer, (void *)9))
        rig->sends_in_callback--;
    if (rig->reset_in_callback) {
        rig->reset_in_callback = false;
        redisconn_reset(rig->conn, "as the test wants it");
        assert_false(redisconn_is_up(rig->conn));
        assert_false(redisconn_send(rig->conn, SET, SET_LEN, on_answer, NULL));
    }
    if (rig->free_in_callback) {
        rig->free_in_callback = false;
        struct redisconn *conn = rig->conn;
        rig->conn = NULL;
        redisconn_free(conn);
    }
}

static bool send_set(struct rig *rig, intptr_t number)
{
    return redisconn_send(rig->conn, SET, SET_LEN, on_answer, (void *)number);
}

/* --- up and down ------------------------------------------------------------------------------ */

/* By the number of the connection, a letter of the script: p as Redis does, e an error to PING,
 * g garbage, l a length that no memory holds, c closes, 1 answers one PING and closes, x an answer
 * nobody asked for, s is silent. The last letter goes on. */
static const char *script;

static bool by_script(struct fake_client *client, const redisReply *command)
{
    const size_t last = strlen(script) - 1;
    const size_t at = client->redis->accepted - 1;
    (void)command;
    switch (script[at < last ? at : last]) {
    case 'e':
        fake_say(client, "-LOADING Redis is loading the dataset in memory\r\n");
        return true;
    case 'g':
        fake_say(client, "HTTP/1.1 400 Bad Request\r\n\r\n");
        return true;
    case 'l':
        fake_say(client, "*2000000000\r\n");
        return true;
    case 'x':
        fake_say(client, "+PONG\r\n+PONG\r\n");
        return true;
    case 'c':
        fake_close(client);
        return true;
    case '1':
        fake_say(client, "+PONG\r\n");
        fake_close(client);
        return true;
    case 's':
        return true;
    default:
        return false;
    }
}

static void expect_script(const char *text, const char *expect)
{
    struct rig rig;
    setup(&rig);
    script = text;
    rig.redis.handler = by_script;
    open_conn(&rig, false, 16);
    assert_false(redisconn_is_up(rig.conn));
    expect_heard(&rig, expect);
    assert_true(redisconn_is_up(rig.conn) == (expect[strlen(expect) - 1] == 'u'));
    teardown(&rig);
}

static void it_comes_up_and_comes_back(void **state)
{
    (void)state;
    expect_script("p", "u");
    expect_script("1p", "udu"); /* killed and restarted */
    expect_script("cccp", "u");
    expect_script("ep", "u"); /* an error is no answer */
    expect_script("gp", "u");
    expect_script("lp", "u");
    expect_script("xp", "udu");
}

static void silence_ends_by_the_deadline(void **state)
{
    (void)state;
    const int64_t from_us = clock_mono_us();
    expect_script("sp", "u");
    assert_in_range(clock_mono_us() - from_us, 200000, 2000000);
}

static bool deaf_after_first_ping(struct fake_client *client, const redisReply *command)
{
    static unsigned pings_of_connection[3];
    assert_true(client->redis->accepted < 3);
    return fake_is(command, "PING") && client->redis->accepted == 1 &&
           pings_of_connection[client->redis->accepted]++ > 0;
}

static void a_quiet_connection_is_asked_and_its_silence_noticed(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = deaf_after_first_ping;
    open_conn(&rig, false, 16);
    const int64_t from_us = clock_mono_us();
    expect_heard(&rig, "udu");
    assert_in_range(clock_mono_us() - from_us, 200000, 2000000);
    assert_non_null(strstr(rig.reason, "reply_timeout_ms"));
    teardown(&rig);
}

static bool mute_to_set(struct fake_client *client, const redisReply *command)
{
    (void)client;
    return fake_is(command, "SET");
}

static void an_unanswered_command_costs_the_connection(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = mute_to_set;
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    const int64_t from_us = clock_mono_us();
    assert_true(send_set(&rig, 0));
    expect_heard(&rig, "u!d");
    assert_in_range(clock_mono_us() - from_us, 199000, 1500000);
    expect_heard(&rig, "u!du");
    teardown(&rig);
}

static void nobody_listens_and_it_may_be_freed_at_any_time(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    snprintf(rig.settings.redis.address, sizeof(rig.settings.redis.address), "127.0.0.1:1");
    open_conn(&rig, false, 16);
    const int64_t until_us = clock_mono_us() + 100000;
    fake_run_until(rig.base, clock_mono_us() > until_us);
    assert_string_equal(rig.heard, "");
    assert_false(redisconn_send(rig.conn, SET, SET_LEN, on_answer, NULL));
    redisconn_free(rig.conn);
    open_conn(&rig, false, 16);
    teardown(&rig); /* before its first turn */
}

static void a_name_is_tried_at_all_its_addresses(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig); /* listens on 127.0.0.1; localhost may be ::1 first */
    snprintf(rig.settings.redis.address, sizeof(rig.settings.redis.address), "localhost:%d",
             rig.redis.port);
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    teardown(&rig);
}

static void addresses_are_checked(void **state)
{
    static const char *const wrong[] = {"",           "host",     "host:", ":6379",  "host:0",
                                        "host:65536", "host:63x", "[]:1",  "host:-1"};
    (void)state;
    struct rig rig;
    setup(&rig);
    struct redisconn_config config = {
        .base = rig.base, .reap = rig.reap, .settings = &rig.settings, .in_flight_max = 1};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(rig.settings.redis.address, sizeof(rig.settings.redis.address), "%s", wrong[i]);
        assert_null(redisconn_new(&config));
    }
    snprintf(rig.settings.redis.address, sizeof(rig.settings.redis.address), "[::1]:1");
    rig.conn = redisconn_new(&config);
    assert_non_null(rig.conn);
    teardown(&rig);
}

/* --- commands --------------------------------------------------------------------------------- */

static bool close_at_third(struct fake_client *client, const redisReply *command)
{
    if (fake_is(command, "PING") || client->redis->commands < 3)
        return false;
    fake_close(client);
    return true;
}

static void what_was_in_flight_is_lost_once_and_in_order(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = close_at_third;
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    for (intptr_t i = 0; i < 5; i++)
        assert_true(send_set(&rig, i));
    assert_int_equal(redisconn_in_flight(rig.conn), 5);
    rig.sends_in_callback = 1; /* in the first answer; accepted, so it is lost, too */
    expect_heard(&rig, "u01!!!!d");
    assert_int_equal(redisconn_in_flight(rig.conn), 0);
    expect_heard(&rig, "u01!!!!du");
    teardown(&rig);
}

static void sending_in_a_callback_works_and_is_answered_later(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, false, 2);
    expect_heard(&rig, "u");
    rig.sends_in_callback = 3;
    assert_true(send_set(&rig, 1));
    expect_heard(&rig, "u1999");
    teardown(&rig);
}

static void too_many_in_flight_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    struct dynbuf many;
    setup(&rig);
    open_conn(&rig, false, 4);
    assert_false(send_set(&rig, 0)); /* not up yet */
    expect_heard(&rig, "u");
    dynbuf_init(&many, 4096);
    for (int i = 0; i < 3; i++)
        dynbuf_adds(&many, SET);
    assert_true(redisconn_send_many(rig.conn, many.data, many.len, 3, on_answer, (void *)3));
    assert_false(redisconn_send_many(rig.conn, many.data, many.len, 3, on_answer, (void *)3));
    assert_true(send_set(&rig, 4));
    assert_false(send_set(&rig, 5));
    expect_heard(&rig, "u3334");
    assert_true(redisconn_send(rig.conn, SET, SET_LEN, NULL, NULL)); /* the answer is dropped */
    assert_true(send_set(&rig, 6));
    expect_heard(&rig, "u33346");
    dynbuf_done(&many);
    teardown(&rig);
}

static void a_large_batch_is_cut_by_a_loss_and_every_answer_counts(void **state)
{
    enum { COUNT = 3000 };
    (void)state;
    struct rig rig;
    struct dynbuf many;
    setup(&rig);
    rig.redis.handler = close_at_third;
    open_conn(&rig, false, COUNT);
    expect_heard(&rig, "u");
    dynbuf_init(&many, SET_LEN * COUNT);
    for (int i = 0; i < COUNT; i++)
        dynbuf_adds(&many, SET);
    assert_true(redisconn_send_many(rig.conn, many.data, many.len, COUNT, on_answer, (void *)1));
    assert_true(fake_run_until(rig.base, strchr(rig.heard, 'd')));
    assert_int_equal(strspn(rig.heard + 1, "1"), 2);
    assert_int_equal(strspn(rig.heard + 3, "!"), COUNT - 2);
    dynbuf_done(&many);
    teardown(&rig);
}

static void freeing_in_a_callback_loses_the_rest_and_is_the_end(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    for (intptr_t i = 0; i < 3; i++)
        assert_true(send_set(&rig, i));
    rig.free_in_callback = true;
    expect_heard(&rig, "u0!!");
    const int64_t until_us = clock_mono_us() + 20000;
    fake_run_until(rig.base, clock_mono_us() > until_us);
    assert_string_equal(rig.heard, "u0!!"); /* no on_lost */
    teardown(&rig);
}

static void freeing_while_the_lost_are_told_is_the_end_too(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = mute_to_set;
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    for (intptr_t i = 0; i < 3; i++)
        assert_true(send_set(&rig, i));
    rig.free_in_callback = true;
    expect_heard(&rig, "u!!!");
    const int64_t until_us = clock_mono_us() + 20000;
    fake_run_until(rig.base, clock_mono_us() > until_us);
    assert_string_equal(rig.heard, "u!!!");
    teardown(&rig);
}

static void a_reset_gives_it_up_later_and_begins_again(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, false, 16);
    redisconn_reset(rig.conn, "nothing to reset yet");
    event_base_loop(rig.base, EVLOOP_ONCE); /* connecting now */
    redisconn_reset(rig.conn, "before it is up");
    expect_heard(&rig, "u");
    assert_true(send_set(&rig, 0));
    redisconn_reset(rig.conn, "as the test wants it");
    assert_string_equal(rig.heard, "u"); /* nothing from inside the call */
    expect_heard(&rig, "u!du");
    assert_string_equal(rig.reason, "as the test wants it");
    rig.reset_in_callback = true;
    assert_true(send_set(&rig, 1));
    assert_true(send_set(&rig, 2));
    expect_heard(&rig, "u!du1!du");
    teardown(&rig);
}

static bool error_to_later_pings(struct fake_client *client, const redisReply *command)
{
    static unsigned pings;
    if (!fake_is(command, "PING") || client->redis->accepted > 1 || pings++ == 0)
        return false;
    fake_say(client, "-MASTERDOWN Link with MASTER is down\r\n");
    return true;
}

static void an_error_to_a_later_ping_gives_it_up(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = error_to_later_pings;
    open_conn(&rig, false, 16);
    expect_heard(&rig, "udu");
    assert_non_null(strstr(rig.reason, "MASTERDOWN"));
    teardown(&rig);
}

static bool large_reply(struct fake_client *client, const redisReply *command)
{
    if (!fake_is(command, "SET"))
        return fake_is(command, "GET"); /* its answer comes with that of SET */
    evbuffer_add_printf(bufferevent_get_output(client->bev), "$1000000\r\n%01000000d\r\n:7\r\n", 1);
    return true;
}

static void on_large(void *arg, const redisReply *reply)
{
    assert_int_equal(reply->len, 1000000);
    hear(arg, 'L');
}

static void on_seven(void *arg, const redisReply *reply)
{
    assert_int_equal(reply->integer, 7);
    hear(arg, '7');
}

static void replies_that_come_in_pieces_are_put_together(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = large_reply;
    open_conn(&rig, false, 16);
    expect_heard(&rig, "u");
    assert_true(redisconn_send(rig.conn, SET, SET_LEN, on_large, &rig));
    assert_true(redisconn_send(rig.conn, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 20, on_seven, &rig));
    expect_heard(&rig, "uL7");
    teardown(&rig);
}

/* --- subscriptions ---------------------------------------------------------------------------- */

static void subscriptions_come_back_before_it_is_up(void **state)
{
    enum { CHANNELS = 1000 };
    char name[32];
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, true, 0);
    for (int i = 0; i < CHANNELS; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        assert_true(redisconn_subscribe(rig.conn, name));
    }
    assert_true(redisconn_subscribe(rig.conn, "c0")); /* no second time */
    expect_heard(&rig, "u");
    assert_int_equal(rig.confirmed, CHANNELS);
    assert_int_equal(rig.redis.client->channels, CHANNELS);
    assert_false(redisconn_send(rig.conn, SET, SET_LEN, on_answer, NULL));
    fake_free_client(rig.redis.client);
    expect_heard(&rig, "ud");
    assert_true(redisconn_subscribe(rig.conn, "while-down"));
    redisconn_unsubscribe(rig.conn, "c1");
    expect_heard(&rig, "udu");
    assert_int_equal(rig.redis.client->channels, CHANNELS);
    assert_int_equal(rig.confirmed, 2 * CHANNELS);
    fake_publish(rig.redis.client, "while-down", "hello");
    assert_true(fake_run_until(rig.base, rig.messages == 1));
    assert_string_equal(rig.last_message, "while-down=hello");
    teardown(&rig);
}

static void channels_come_and_go_while_it_is_up(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, true, 0);
    expect_heard(&rig, "u");
    assert_true(redisconn_subscribe(rig.conn, "a"));
    assert_true(redisconn_subscribe(rig.conn, "b"));
    assert_true(fake_run_until(rig.base, rig.confirmed == 2));
    fake_publish(rig.redis.client, "a", "1");
    fake_publish(rig.redis.client, "b", "2");
    redisconn_unsubscribe(rig.conn, "a"); /* its message is on the way and is not heard */
    redisconn_unsubscribe(rig.conn, "nobody");
    assert_true(fake_run_until(rig.base, rig.messages == 1 && rig.redis.client->channels == 1));
    assert_string_equal(rig.last_message, "b=2");
    redisconn_unsubscribe(rig.conn, "b");
    /* Past several PINGs, in and out of the subscribed state, it is still the same connection. */
    const int64_t until_us = clock_mono_us() + 500000;
    fake_run_until(rig.base, clock_mono_us() > until_us);
    assert_string_equal(rig.heard, "u");
    assert_int_equal(rig.redis.accepted, 1);
    teardown(&rig);
}

static void a_flood_of_messages_all_arrives(void **state)
{
    enum { MESSAGES = 100000 };
    (void)state;
    struct rig rig;
    setup(&rig);
    open_conn(&rig, true, 0);
    assert_true(redisconn_subscribe(rig.conn, "flood"));
    expect_heard(&rig, "u");
    for (int i = 0; i < MESSAGES; i++)
        fake_publish(rig.redis.client, "flood", "0123456789");
    assert_true(fake_run_until(rig.base, rig.messages == MESSAGES));
    assert_string_equal(rig.heard, "u");
    teardown(&rig);
}

static bool refuse_subscribe(struct fake_client *client, const redisReply *command)
{
    if (!fake_is(command, "SUBSCRIBE") || client->redis->accepted > 1)
        return false;
    fake_say(client, "-NOPERM this user has no permissions to access one of the channels\r\n");
    return true;
}

static void a_refused_subscription_costs_the_connection(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    rig.redis.handler = refuse_subscribe;
    open_conn(&rig, true, 0);
    expect_heard(&rig, "u");
    assert_true(redisconn_subscribe(rig.conn, "a"));
    expect_heard(&rig, "udu");
    assert_non_null(strstr(rig.reason, "NOPERM"));
    assert_int_equal(rig.confirmed, 1);
    teardown(&rig);
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
        cmocka_unit_test(it_comes_up_and_comes_back),
        cmocka_unit_test(silence_ends_by_the_deadline),
        cmocka_unit_test(a_quiet_connection_is_asked_and_its_silence_noticed),
        cmocka_unit_test(an_unanswered_command_costs_the_connection),
        cmocka_unit_test(nobody_listens_and_it_may_be_freed_at_any_time),
        cmocka_unit_test(a_name_is_tried_at_all_its_addresses),
        cmocka_unit_test(addresses_are_checked),
        cmocka_unit_test(what_was_in_flight_is_lost_once_and_in_order),
        cmocka_unit_test(sending_in_a_callback_works_and_is_answered_later),
        cmocka_unit_test(too_many_in_flight_are_refused),
        cmocka_unit_test(a_large_batch_is_cut_by_a_loss_and_every_answer_counts),
        cmocka_unit_test(freeing_in_a_callback_loses_the_rest_and_is_the_end),
        cmocka_unit_test(freeing_while_the_lost_are_told_is_the_end_too),
        cmocka_unit_test(a_reset_gives_it_up_later_and_begins_again),
        cmocka_unit_test(an_error_to_a_later_ping_gives_it_up),
        cmocka_unit_test(replies_that_come_in_pieces_are_put_together),
        cmocka_unit_test(subscriptions_come_back_before_it_is_up),
        cmocka_unit_test(channels_come_and_go_while_it_is_up),
        cmocka_unit_test(a_flood_of_messages_all_arrives),
        cmocka_unit_test(a_refused_subscription_costs_the_connection),
    };
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, last);
}
