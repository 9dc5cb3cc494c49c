/*
 * Goal: whatever a server does, each statement that was sent gets exactly one reply, in order, that
 * says no more than what is known; the connection comes back by itself, with pauses; and it can be
 * given up at any moment, inside any of its callbacks, without a leak or a late callback.
 * Method: a scripted server on the loop of the test (fake_postgres.h), good for every bad turn that
 * a real one takes too rarely: cut at every byte, dead between the rows and the commit, silent.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/fake_postgres.h"

#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "router/pgconn.h"

#define LETTERS_MAX 4096
#define VALUE_MAX 32

/* One statement sent, and what became of it. */
struct letter {
    struct rig *rig;
    unsigned replies;
    unsigned order; /* of its reply among all */
    enum pgreply_kind kind;
    char sqlstate[6];
    char value[VALUE_MAX]; /* of the first row */
    bool has_behind;
    char behind[VALUE_MAX]; /* likewise */
    char message[64];
};

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct fake_postgres *server;
    struct pgconn *conn;
    unsigned ready;
    unsigned lost;
    char reason[256];
    unsigned replied;
    unsigned sent;
    struct letter letters[LETTERS_MAX];
    /* what a callback is to do */
    unsigned free_at_reply; /* its number, from 1 */
    unsigned reset_at_reply;
    unsigned chain; /* sends one more at each reply, so often */
    bool free_at_ready;
    bool free_at_lost;
    bool reset_at_ready;
    unsigned send_at_ready;
};

static void give_up(struct rig *rig)
{
    pgconn_free(rig->conn);
    rig->conn = NULL;
}

static void on_reply(void *arg, const struct pgreply *reply);

static bool send_one(struct rig *rig)
{
    struct params params;
    struct letter *letter = &rig->letters[rig->sent];
    assert_true(rig->sent < LETTERS_MAX);
    *letter = (struct letter){.rig = rig};
    params_init(&params);
    params_i64(&params, 1);
    bool sent = pgconn_send(rig->conn, STATEMENT_EVENT, &params, on_reply, letter);
    params_done(&params);
    rig->sent += sent;
    return sent;
}

static void send_many(struct rig *rig, unsigned count)
{
    while (count--)
        assert_true(send_one(rig));
}

static void on_reply(void *arg, const struct pgreply *reply)
{
    struct letter *letter = arg;
    struct rig *rig = letter->rig;
    letter->replies++;
    letter->order = ++rig->replied;
    letter->kind = reply->kind;
    memcpy(letter->sqlstate, reply->sqlstate, sizeof(letter->sqlstate));
    if (reply->kind == PGREPLY_ROWS && PQntuples(reply->result))
        snprintf(letter->value, sizeof(letter->value), "%s", PQgetvalue(reply->result, 0, 0));
    letter->has_behind = reply->behind != NULL;
    if (reply->behind && PQntuples(reply->behind))
        snprintf(letter->behind, sizeof(letter->behind), "%s", PQgetvalue(reply->behind, 0, 0));
    if (reply->kind != PGREPLY_ROWS) {
        assert_non_null(reply->message);
        snprintf(letter->message, sizeof(letter->message), "%s", reply->message);
    }
    if (rig->free_at_reply == rig->replied)
        give_up(rig);
    if (rig->reset_at_reply == rig->replied)
        pgconn_reset(rig->conn, "the test wants it");
    if (rig->chain && rig->conn && send_one(rig))
        rig->chain--;
}

static void on_ready(void *arg)
{
    struct rig *rig = arg;
    rig->ready++;
    if (rig->send_at_ready)
        send_many(rig, rig->send_at_ready);
    if (rig->free_at_ready)
        give_up(rig);
    else if (rig->reset_at_ready)
        pgconn_reset(rig->conn, "not this one");
}

static void on_lost(void *arg, const char *reason)
{
    struct rig *rig = arg;
    rig->lost++;
    snprintf(rig->reason, sizeof(rig->reason), "%s", reason);
    if (rig->free_at_lost)
        give_up(rig);
}

/* --- set-up ----------------------------------------------------------------------------------- */

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    alarm(60); /* a call that blocks never comes back: both sides are this thread */
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    settings_init(&rig->settings);
    rig->settings.postgres.backoff_min_ms = 4;
    rig->settings.postgres.backoff_max_ms = 20;
    rig->settings.postgres.connect_timeout_ms = 8000;
    rig->settings.postgres.statement_timeout_ms = 8000;
    rig->server = fake_new(rig->base);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    pgconn_free(rig->conn);
    reap_list_free(rig->reap);
    fake_free(rig->server);
    metrics_shutdown();
    event_base_free(rig->base);
    free(rig);
    libevent_global_shutdown();
    return 0;
}

static void connect_as(struct rig *rig, enum pgconn_use use)
{
    char dsn[256];
    fake_dsn(rig->server, dsn, sizeof(dsn));
    rig->conn = pgconn_new(&(struct pgconn_config){.base = rig->base,
                                                   .reap = rig->reap,
                                                   .metrics = rig->metrics,
                                                   .settings = &rig->settings,
                                                   .shard = "alpha",
                                                   .node = "alpha-1",
                                                   .dsn = dsn,
                                                   .use = use,
                                                   .on_ready = on_ready,
                                                   .on_lost = on_lost,
                                                   .arg = rig});
    assert_non_null(rig->conn);
    assert_false(pgconn_is_ready(rig->conn));
}

static void connect_ready(struct rig *rig)
{
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->ready == 1);
    assert_true(pgconn_is_ready(rig->conn));
    assert_int_equal(rig->lost, 0);
}

/* Each letter got one reply, and in the order of sending. */
static void check_replies(const struct rig *rig)
{
    for (unsigned i = 0; i < rig->sent; i++) {
        assert_int_equal(rig->letters[i].replies, 1);
        assert_int_equal(rig->letters[i].order, i + 1);
    }
    assert_int_equal(rig->replied, rig->sent);
}

static void check_kinds(const struct rig *rig, unsigned from, unsigned to, enum pgreply_kind kind)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(rig->letters[i].kind, kind);
}

/* The server is well again: the connection is, too, without help. */
static void check_comes_back(struct rig *rig)
{
    unsigned sent = rig->sent;
    rig->server->mood = FAKE_WELL;
    rig->server->on_execute = NULL;
    turn_until(rig->base, pgconn_is_ready(rig->conn));
    send_many(rig, 3);
    turn_until(rig->base, rig->replied == rig->sent);
    check_kinds(rig, sent, rig->sent, PGREPLY_ROWS);
    check_replies(rig);
}

/* --- a good server ---------------------------------------------------------------------------- */

static void test_replies_come_once_and_in_order(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    send_many(rig, 500);
    assert_int_equal(pgconn_in_flight(rig->conn), 500);
    assert_int_equal(rig->replied, 0); /* never from inside the call */
    turn_until(rig->base, rig->replied == 500);
    check_replies(rig);
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(rig->letters[i].kind, PGREPLY_ROWS);
        assert_int_equal(atoi(rig->letters[i].value), (int)i + 1);
    }
    assert_int_equal(pgconn_in_flight(rig->conn), 0);
    assert_int_equal(rig->server->accepted, 1);
}

static void test_each_use_prepares_what_it_needs(void **state)
{
    struct rig *rig = *state;
    unsigned reads = 0;
    for (int i = 0; i < STATEMENT_COUNT; i++)
        reads += !statement_info((enum statement)i)->write;
    connect_ready(rig);
    assert_int_equal(rig->server->parsed, reads);
    give_up(rig);
    rig->ready = 0;
    connect_as(rig, PGCONN_WRITE);
    turn_until(rig->base, rig->ready == 1);
    assert_int_equal(rig->server->parsed, reads + STATEMENT_COUNT);
}

static void test_refuses_while_not_ready(void **state)
{
    struct rig *rig = *state;
    connect_as(rig, PGCONN_READ);
    assert_false(send_one(rig));
    turn_until(rig->base, rig->ready == 1);
    assert_true(send_one(rig));
    turn_until(rig->base, rig->replied == 1);
    fake_cut(rig->server);
    turn_until(rig->base, rig->lost == 1);
    assert_false(send_one(rig));
    check_replies(rig);
}

static void test_refuses_past_its_bound(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    send_many(rig, PGCONN_IN_FLIGHT_MAX);
    assert_false(send_one(rig));
    assert_true(pgconn_is_ready(rig->conn)); /* full is not broken */
    turn_until(rig->base, rig->replied == PGCONN_IN_FLIGHT_MAX);
    check_kinds(rig, 0, rig->sent, PGREPLY_ROWS);
    check_replies(rig);
}

static void test_callbacks_may_send(void **state)
{
    struct rig *rig = *state;
    rig->send_at_ready = 2;
    rig->chain = 1000;
    connect_ready(rig);
    turn_until(rig->base, rig->replied == 1002);
    check_kinds(rig, 0, rig->sent, PGREPLY_ROWS);
    check_replies(rig);
}

static void test_replies_split_at_every_byte(void **state)
{
    struct rig *rig = *state;
    rig->server->byte_for_byte = true;
    connect_ready(rig);
    send_many(rig, 8);
    turn_until(rig->base, rig->replied == 8);
    check_replies(rig);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(atoi(rig->letters[i].value), (int)i + 1);
}

/* A server that reads nothing for a while makes the send partial: the rest goes when it can. */
static void test_large_statements_leave_in_parts(void **state)
{
    struct rig *rig = *state;
    static char text[6 << 20];
    struct params params;
    connect_ready(rig);
    fake_set_deaf(rig->server, true);
    memset(text, 'x', sizeof(text) - 1);
    for (int i = 0; i < 3; i++) {
        struct letter *letter = &rig->letters[rig->sent++];
        *letter = (struct letter){.rig = rig};
        params_init(&params);
        params_text(&params, text);
        assert_true(pgconn_send(rig->conn, STATEMENT_EVENT, &params, on_reply, letter));
        params_done(&params);
    }
    turn_for(rig->base, 50);
    assert_int_equal(rig->replied, 0);
    fake_set_deaf(rig->server, false);
    turn_until(rig->base, rig->replied == 3);
    check_kinds(rig, 0, 3, PGREPLY_ROWS);
    check_replies(rig);
}

static void answer_with_chatter(void *arg, struct fake_session *session)
{
    (void)arg;
    fake_put(session, 'S', "TimeZone\0UTC", 13);
    fake_put_report(session, 'N', "NOTICE", "00000");
    fake_value(session, "said");
    fake_put(session, 'A', "\0\0\0\1channel\0\0", 13);
}

static void test_notices_and_settings_in_between_do_no_harm(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_with_chatter;
    send_many(rig, 4);
    turn_until(rig->base, rig->replied == 4);
    check_replies(rig);
    for (unsigned i = 0; i < 4; i++)
        assert_string_equal(rig->letters[i].value, "said");
}

/* --- errors ----------------------------------------------------------------------------------- */

static void answer_every_second_with_error(void *arg, struct fake_session *session)
{
    struct fake_postgres *server = arg;
    if (server->executed % 2)
        fake_error(session, "23505");
    else
        fake_value(session, "fine");
}

static void test_an_error_stops_at_its_sync(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_every_second_with_error;
    rig->server->arg = rig->server;
    send_many(rig, 10);
    turn_until(rig->base, rig->replied == 10);
    check_replies(rig);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(rig->letters[i].kind, i % 2 ? PGREPLY_ROWS : PGREPLY_ERROR);
        assert_string_equal(rig->letters[i].sqlstate, i % 2 ? "" : "23505");
    }
    assert_int_equal(rig->lost, 0);
    assert_true(pgconn_is_ready(rig->conn));
}

static void answer_rows_but_no_commit(void *arg, struct fake_session *session)
{
    (void)arg;
    fake_value(session, "not true");
    fake_error_at_sync(session, "40001");
}

/* Rows came, and then the transaction could not commit: the rows are no answer. */
static void test_an_error_behind_the_rows_takes_their_place(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_rows_but_no_commit;
    send_many(rig, 2);
    turn_until(rig->base, rig->replied == 2);
    check_replies(rig);
    check_kinds(rig, 0, 2, PGREPLY_ERROR);
    assert_string_equal(rig->letters[0].sqlstate, "40001");
    assert_true(pgconn_is_ready(rig->conn));
}

static void answer_rows_then_fatal(void *arg, struct fake_session *session)
{
    (void)arg;
    fake_value(session, "rolled back");
    fake_fatal(session, "57P01");
}

/* The same by a fast shutdown: it rolls back what it has answered but not yet committed. */
static void test_rows_without_their_sync_are_lost(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_rows_then_fatal;
    send_many(rig, 3);
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 3, PGREPLY_LOST);
    check_comes_back(rig);
}

static void answer_rows_then_die(void *arg, struct fake_session *session)
{
    struct fake_postgres *server = arg;
    fake_value(session, "maybe");
    if (server->executed == 3)
        fake_end(session);
}

static void test_a_death_behind_the_rows_is_a_loss(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_rows_then_die;
    rig->server->arg = rig->server;
    send_many(rig, 5);
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 2, PGREPLY_ROWS);
    check_kinds(rig, 2, 5, PGREPLY_LOST);
    check_comes_back(rig);
}

/* --- losses ----------------------------------------------------------------------------------- */

static void answer_nothing_and_die(void *arg, struct fake_session *session)
{
    (void)arg;
    fake_end(session);
}

/* libpq makes up an error for the oldest; nobody knows what became of it. */
static void test_a_cut_connection_is_no_answer(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_nothing_and_die;
    send_many(rig, 4);
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 4, PGREPLY_LOST);
    check_comes_back(rig);
}

static void answer_half_a_row_and_die(void *arg, struct fake_session *session)
{
    size_t *cut_at = arg;
    size_t before = session->out.len;
    fake_value(session, "0123456789");
    if (*cut_at < session->out.len - before) {
        session->out.len = before + *cut_at;
        fake_end(session);
    }
}

/* Cut behind every byte of an answer, one connection a byte. */
static void test_death_at_every_byte_of_a_result(void **state)
{
    struct rig *rig = *state;
    size_t cut_at = 0;
    rig->settings.postgres.backoff_min_ms = 1;
    rig->settings.postgres.backoff_max_ms = 1;
    connect_ready(rig);
    rig->server->on_execute = answer_half_a_row_and_die;
    rig->server->arg = &cut_at;
    for (;; cut_at++) {
        unsigned first = rig->sent;
        turn_until(rig->base, pgconn_is_ready(rig->conn));
        send_many(rig, 2);
        turn_until(rig->base, rig->replied == rig->sent);
        check_replies(rig);
        if (rig->letters[first].kind == PGREPLY_ROWS)
            break;
        check_kinds(rig, first, rig->sent, PGREPLY_LOST);
    }
    assert_true(cut_at > 50); /* the whole of an answer went by */
    assert_int_equal(rig->lost, cut_at);
    assert_int_equal(rig->server->accepted, cut_at + 1);
}

static void test_reset_by_the_peer_with_much_unsent(void **state)
{
    struct rig *rig = *state;
    static char text[6 << 20];
    struct params params;
    connect_ready(rig);
    fake_set_deaf(rig->server, true);
    memset(text, 'x', sizeof(text) - 1);
    struct letter *letter = &rig->letters[rig->sent++];
    *letter = (struct letter){.rig = rig};
    params_init(&params);
    params_text(&params, text);
    assert_true(pgconn_send(rig->conn, STATEMENT_EVENT, &params, on_reply, letter));
    params_done(&params);
    send_many(rig, 3);
    turn_for(rig->base, 20);
    fake_cut(rig->server); /* with bytes unread: a reset */
    rig->server->deaf = false;
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 4, PGREPLY_LOST);
    check_comes_back(rig);
}

static void test_fatal_while_idle(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    fake_shut_down(rig->server, "57P01");
    turn_until(rig->base, rig->lost == 1);
    assert_int_equal(rig->replied, 0);
    check_comes_back(rig);
}

/* The FATAL is there, but not yet seen: what is sent now crosses it on the way. */
static void test_fatal_crosses_a_statement(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    fake_shut_down(rig->server, "57P01");
    send_many(rig, 3);
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 3, PGREPLY_LOST);
    check_comes_back(rig);
}

static void test_fatal_in_flight(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    fake_set_deaf(rig->server, true);
    send_many(rig, 3);
    turn_for(rig->base, 5);
    fake_shut_down(rig->server, "57P01");
    rig->server->deaf = false;
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 3, PGREPLY_LOST);
    check_comes_back(rig);
}

static void answer_two_then_hang(void *arg, struct fake_session *session)
{
    struct fake_postgres *server = arg;
    if (server->executed <= 2)
        fake_value(session, "ok");
    else
        fake_hang(session);
}

static void test_a_statement_without_answer_costs_the_connection(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.statement_timeout_ms = 300;
    connect_ready(rig);
    rig->server->on_execute = answer_two_then_hang;
    rig->server->arg = rig->server;
    int64_t start_us = clock_mono_us();
    send_many(rig, 5);
    turn_until(rig->base, rig->lost == 1);
    int64_t took_ms = (clock_mono_us() - start_us) / 1000;
    assert_true(took_ms >= 295 && took_ms < 2000);
    assert_non_null(strstr(rig->reason, "statement_timeout_ms"));
    check_kinds(rig, 0, 2, PGREPLY_ROWS);
    check_kinds(rig, 2, 5, PGREPLY_LOST);
    check_comes_back(rig);
}

/* Each has the whole time for itself: a busy connection is not a hung one. */
static void test_the_deadline_is_the_oldest_statement_s(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.statement_timeout_ms = 500;
    connect_ready(rig);
    int64_t end_us = clock_mono_us() + 1100000; /* over twice the timeout */
    while (clock_mono_us() < end_us) {
        send_many(rig, 1);
        turn_for(rig->base, 10);
    }
    turn_until(rig->base, rig->replied == rig->sent);
    assert_int_equal(rig->lost, 0);
    check_replies(rig);
    turn_for(rig->base, 600); /* nor is an idle one */
    assert_int_equal(rig->lost, 0);
}

/* --- connecting ------------------------------------------------------------------------------- */

static void test_refused_until_the_server_is_there(void **state)
{
    struct rig *rig = *state;
    fake_stop_listening(rig->server);
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->lost >= 4);
    assert_int_equal(rig->ready, 0);
    fake_listen(rig->server);
    check_comes_back(rig);
}

/* Pauses double and end at their maximum: between 5 and 10 ms, 10 and 20, 20 and 40, 40 and 80 ...
 */
static void test_pauses_grow(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.backoff_min_ms = 10;
    rig->settings.postgres.backoff_max_ms = 80;
    fake_stop_listening(rig->server);
    connect_as(rig, PGCONN_READ);
    int64_t last_us = 0;
    for (unsigned i = 1; i <= 8; i++) {
        turn_until(rig->base, rig->lost == i);
        int64_t now_us = clock_mono_us();
        int64_t pause_ms = i < 2 ? 0 : i < 5 ? 10 << (i - 2) : 80;
        if (i > 1)
            assert_true(now_us - last_us >= pause_ms * 1000 / 2 - 2000);
        if (i > 1)
            assert_true(now_us - last_us <= pause_ms * 1000 + 300000);
        last_us = now_us;
    }
}

static void check_unwell(struct rig *rig, enum fake_mood mood, enum pgconn_use use)
{
    rig->server->mood = mood;
    connect_as(rig, use);
    turn_until(rig->base, rig->lost == 3);
    assert_int_equal(rig->ready, 0);
    assert_true(rig->reason[0] != '\0');
    assert_true(rig->server->accepted >= 3);
    check_comes_back(rig);
    turn_until(rig->base, fake_session_count(rig->server) == 1); /* nothing was left open */
}

static void test_silent_at_the_door(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.connect_timeout_ms = 30;
    check_unwell(rig, FAKE_SILENT, PGCONN_READ);
}

static void test_closes_at_the_door(void **state)
{
    check_unwell(*state, FAKE_CLOSES, PGCONN_READ);
}

static void test_dies_in_its_greeting(void **state)
{
    check_unwell(*state, FAKE_HALF_A_START, PGCONN_READ);
}

static void test_is_starting_up(void **state)
{
    check_unwell(*state, FAKE_STARTING_UP, PGCONN_READ);
}

static void test_babbles(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.connect_timeout_ms = 50;
    check_unwell(rig, FAKE_BABBLES, PGCONN_READ);
}

static void test_a_standby_is_not_written_to(void **state)
{
    check_unwell(*state, FAKE_STANDBY, PGCONN_WRITE);
}

static void test_a_standby_is_read_from(void **state)
{
    struct rig *rig = *state;
    rig->server->mood = FAKE_STANDBY;
    connect_ready(rig);
}

static void test_refuses_to_prepare(void **state)
{
    check_unwell(*state, FAKE_REFUSES_PREPARE, PGCONN_WRITE);
}

static void test_dies_preparing(void **state)
{
    check_unwell(*state, FAKE_DIES_PREPARING, PGCONN_WRITE);
}

static void test_hangs_while_preparing(void **state)
{
    struct rig *rig = *state;
    rig->settings.postgres.statement_timeout_ms = 40;
    check_unwell(rig, FAKE_HANGS_PREPARING, PGCONN_WRITE);
}

/* --- giving up -------------------------------------------------------------------------------- */

static void test_reset_begins_again(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    send_many(rig, 3);
    pgconn_reset(rig->conn, "its node is a replica now");
    assert_false(pgconn_is_ready(rig->conn));
    assert_false(send_one(rig));
    assert_int_equal(rig->replied, 0); /* not from inside the call */
    turn_until(rig->base, rig->lost == 1);
    assert_string_equal(rig->reason, "its node is a replica now");
    check_replies(rig);
    check_comes_back(rig);
}

static void test_reset_from_a_reply(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->reset_at_reply = 2;
    send_many(rig, 5);
    turn_until(rig->base, rig->lost == 1);
    check_replies(rig);
    check_kinds(rig, 0, 2, PGREPLY_ROWS);
    check_kinds(rig, 2, 5, PGREPLY_LOST);
    check_comes_back(rig);
}

static void test_reset_from_ready(void **state)
{
    struct rig *rig = *state;
    rig->reset_at_ready = true;
    rig->send_at_ready = 2;
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->lost == 1);
    assert_int_equal(rig->ready, 1);
    check_replies(rig);
    check_kinds(rig, 0, 2, PGREPLY_LOST);
    rig->reset_at_ready = false;
    rig->send_at_ready = 0;
    check_comes_back(rig);
}

/* While it connects there is a socket, but not yet one to be read from. */
static void test_reset_while_connecting(void **state)
{
    struct rig *rig = *state;
    rig->server->mood = FAKE_SILENT;
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->server->accepted == 1);
    pgconn_reset(rig->conn, "never mind");
    turn_until(rig->base, rig->lost == 1);
    assert_string_equal(rig->reason, "never mind");
    check_comes_back(rig);
}

static void test_reset_while_waiting_changes_nothing(void **state)
{
    struct rig *rig = *state;
    connect_as(rig, PGCONN_READ);
    pgconn_reset(rig->conn, "there is nothing to reset");
    check_comes_back(rig);
    assert_int_equal(rig->lost, 0);
}

/* No callback of the configuration comes any more, and the server's side is closed. */
static void check_gone(struct rig *rig)
{
    unsigned ready = rig->ready;
    unsigned lost = rig->lost;
    unsigned accepted = rig->server->accepted;
    turn_until(rig->base, fake_session_count(rig->server) == 0);
    turn_for(rig->base, 60);
    assert_int_equal(rig->ready, ready);
    assert_int_equal(rig->lost, lost);
    assert_int_equal(rig->server->accepted, accepted);
    check_replies(rig);
}

static void test_free_with_statements_in_flight(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    send_many(rig, 7);
    give_up(rig);
    assert_int_equal(rig->replied, 7);
    check_kinds(rig, 0, 7, PGREPLY_LOST);
    check_gone(rig);
}

static void test_free_from_a_reply(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->free_at_reply = 3;
    send_many(rig, 7);
    turn_until(rig->base, rig->replied == 7);
    check_kinds(rig, 0, 3, PGREPLY_ROWS);
    check_kinds(rig, 3, 7, PGREPLY_LOST);
    check_gone(rig);
}

static void test_free_from_the_last_reply(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->free_at_reply = 3;
    send_many(rig, 3);
    turn_until(rig->base, rig->replied == 3);
    check_gone(rig);
}

static void test_free_from_a_lost_reply(void **state)
{
    struct rig *rig = *state;
    connect_ready(rig);
    rig->server->on_execute = answer_nothing_and_die;
    rig->free_at_reply = 2;
    send_many(rig, 4);
    turn_until(rig->base, rig->replied == 4);
    assert_int_equal(rig->lost, 0);
    check_gone(rig);
}

static void test_free_from_ready(void **state)
{
    struct rig *rig = *state;
    rig->send_at_ready = 2;
    rig->free_at_ready = true;
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->replied == 2);
    assert_int_equal(rig->ready, 1);
    check_gone(rig);
}

static void test_free_from_lost(void **state)
{
    struct rig *rig = *state;
    rig->free_at_lost = true;
    connect_ready(rig);
    fake_cut(rig->server);
    turn_until(rig->base, rig->lost == 1);
    check_gone(rig);
}

static void test_free_from_a_failed_connect(void **state)
{
    struct rig *rig = *state;
    rig->free_at_lost = true;
    rig->server->mood = FAKE_CLOSES;
    connect_as(rig, PGCONN_READ);
    turn_until(rig->base, rig->lost == 1);
    check_gone(rig);
}

static void test_free_at_any_moment_of_a_connect(void **state)
{
    struct rig *rig = *state;
    rig->server->byte_for_byte = true;
    for (int turns = 0; rig->ready == 0; turns++) {
        connect_as(rig, PGCONN_WRITE);
        for (int i = 0; i < turns && rig->ready == 0; i++)
            turn(rig->base);
        give_up(rig);
    }
    check_gone(rig);
    assert_int_equal(rig->lost, 0);
}

/* --- all of it together ----------------------------------------------------------------------- */

static void answer_at_random(void *arg, struct fake_session *session)
{
    (void)arg;
    switch (arc4random_uniform(24)) {
    case 0:
        fake_error(session, "40P01");
        break;
    case 1:
        answer_rows_but_no_commit(NULL, session);
        break;
    case 2:
        answer_rows_then_fatal(NULL, session);
        break;
    case 3:
        fake_end(session);
        break;
    case 4:
        fake_value(session, "x");
        session->out.len -= arc4random_uniform(20);
        fake_end(session);
        break;
    case 5:
        fake_hang(session);
        break;
    default:
        fake_value(session, "x");
    }
}

static void test_a_stormy_day(void **state)
{
    struct rig *rig = *state;
    int64_t end_us = clock_mono_us() + 3000000;
    rig->settings.postgres.backoff_min_ms = 1;
    rig->settings.postgres.backoff_max_ms = 3;
    rig->settings.postgres.connect_timeout_ms = 20;
    rig->settings.postgres.statement_timeout_ms = 20;
    rig->server->on_execute = answer_at_random;
    connect_as(rig, PGCONN_WRITE);
    while (clock_mono_us() < end_us && rig->sent < LETTERS_MAX - 8) {
        rig->server->byte_for_byte = arc4random_uniform(4) == 0;
        rig->server->mood =
            arc4random_uniform(3) ? FAKE_WELL : arc4random_uniform(FAKE_BABBLES + 1);
        unsigned burst = arc4random_uniform(6);
        for (unsigned i = 0; i < burst && pgconn_is_ready(rig->conn); i++)
            (void)send_one(rig);
        if (arc4random_uniform(200) == 0)
            pgconn_reset(rig->conn, "a whim");
        if (arc4random_uniform(200) == 0)
            fake_shut_down(rig->server, "57P01");
        turn(rig->base);
    }
    assert_true(rig->sent > 100);
    assert_true(rig->lost > 10);
    rig->server->byte_for_byte = false;
    rig->server->mood = FAKE_WELL;
    turn_until(rig->base, rig->replied == rig->sent);
    pgconn_reset(rig->conn, "a new day");
    check_comes_back(rig);
}

/* --- a transaction and what is behind it ------------------------------------------------------ */

static char heard[256];      /* what the server was asked, with blanks */
static const char *fails_at; /* the statement that is refused; NULL: none */
static const char *dies_at;  /* the statement at which the server ends, unanswered */
static const char *commit_tag;
static bool fails_at_the_sync;

static void answer_transaction(void *arg, struct fake_session *session)
{
    const char *statement = session->statement;
    size_t len = strlen(heard);
    (void)arg;
    snprintf(heard + len, sizeof(heard) - len, "%s ", statement);
    if (fails_at && strcmp(statement, fails_at) == 0)
        fake_error(session, "40001");
    else if (dies_at && strcmp(statement, dies_at) == 0)
        fake_end(session);
    else if (strcmp(statement, "wal") == 0)
        fake_value(session, "0/16B3748");
    else if (strcmp(statement, "event") == 0)
        fake_value(session, "x");
    else
        fake_command(session, strcmp(statement, "commit") == 0 ? commit_tag : "DONE");
    if (fails_at_the_sync && strcmp(statement, "wal") == 0)
        fake_error_at_sync(session, "57P01");
}

static bool send_committed(struct rig *rig)
{
    struct params params;
    struct letter *letter = &rig->letters[rig->sent];
    *letter = (struct letter){.rig = rig};
    params_init(&params);
    params_i64(&params, 1);
    bool sent =
        pgconn_send_committed(rig->conn, STATEMENT_EVENT, &params, STATEMENT_WAL, on_reply, letter);
    params_done(&params);
    rig->sent += sent;
    return sent;
}

/* Connected for writing, the server as told. */
static void prepare_transaction(struct rig *rig, const char *failing, const char *deadly)
{
    heard[0] = '\0';
    fails_at = failing;
    dies_at = deadly;
    commit_tag = "COMMIT";
    fails_at_the_sync = false;
    rig->server->on_execute = answer_transaction;
    connect_as(rig, PGCONN_WRITE);
    turn_until(rig->base, pgconn_is_ready(rig->conn));
}

static void test_a_transaction_and_what_is_behind_it(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, NULL, NULL);
    rig->server->byte_for_byte = true;
    assert_true(send_one(rig));
    assert_true(send_committed(rig));
    assert_false(send_one(rig)); /* stays the last until it is answered */
    assert_false(send_committed(rig));
    turn_until(rig->base, rig->replied == 2);
    assert_string_equal(heard, "event begin event commit wal ");
    assert_false(rig->letters[0].has_behind);
    assert_int_equal(rig->letters[1].kind, PGREPLY_ROWS);
    assert_string_equal(rig->letters[1].value, "x");
    assert_string_equal(rig->letters[1].behind, "0/16B3748");
    assert_true(send_one(rig));
    turn_until(rig->base, rig->replied == 3);
}

/* What comes after a statement that failed must not land in its transaction. */
static void test_a_failed_transaction_is_rolled_back(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, "event", NULL);
    rig->chain = 1; /* the next statement is sent from the reply */
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_ERROR);
    assert_string_equal(rig->letters[0].sqlstate, "40001");
    assert_false(rig->letters[0].has_behind);
    fails_at = NULL;
    turn_until(rig->base, rig->replied == 2);
    assert_string_equal(heard, "begin event rollback event ");
    assert_int_equal(rig->letters[1].kind, PGREPLY_ROWS);
    assert_int_equal(rig->lost, 0);
}

/* It may have been cancelled before it ran: the transaction is open then, and takes no BEGIN. */
static void test_a_failed_commit_is_rolled_back(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, "commit", NULL);
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_ERROR); /* not the rows that came before */
    assert_string_equal(rig->letters[0].sqlstate, "40001");
    fails_at = NULL;
    assert_true(send_one(rig));
    turn_until(rig->base, rig->replied == 2);
    assert_string_equal(heard, "begin event commit rollback event ");
}

/* A connection in a transaction that cannot be left is of no use to anybody. */
static void test_a_failed_rollback_costs_the_connection(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, "event", NULL);
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    fails_at = "rollback";
    turn_until(rig->base, rig->lost == 1);
    fails_at = NULL;
    check_comes_back(rig);
}

/* As of a transaction that had failed before: an answer without an error, and nothing is kept. */
static void test_a_commit_that_rolls_back_is_no_answer(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, NULL, NULL);
    commit_tag = "ROLLBACK";
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_LOST);
    assert_false(rig->letters[0].has_behind);
    turn_until(rig->base, rig->lost == 1);
    check_comes_back(rig);
}

static void test_what_fails_behind_changes_nothing(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, "wal", NULL);
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_ROWS);
    assert_string_equal(rig->letters[0].value, "x");
    assert_false(rig->letters[0].has_behind);
    fails_at = NULL;
    assert_true(send_one(rig));
    turn_until(rig->base, rig->replied == 2);
    assert_string_equal(heard, "begin event commit wal event ");
}

static void test_a_transaction_that_cannot_begin(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, "begin", NULL);
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_ERROR);
    fails_at = NULL;
    assert_true(send_one(rig));
    turn_until(rig->base, rig->replied == 2);
    assert_string_equal(heard, "begin rollback event "); /* perhaps one was open already */
}

/* Whatever was said before: without the Sync it is a loss, and asked again by the owner. */
static void test_a_transaction_cut_anywhere_is_lost(void **state)
{
    static const char *const places[] = {"begin", "event", "commit", "wal"};
    struct rig *rig = *state;
    prepare_transaction(rig, NULL, NULL);
    for (unsigned i = 0; i < 4; i++) {
        turn_until(rig->base, pgconn_is_ready(rig->conn));
        dies_at = places[i];
        assert_true(send_committed(rig));
        turn_until(rig->base, rig->replied == i + 1);
        assert_int_equal(rig->letters[i].kind, PGREPLY_LOST);
        assert_false(rig->letters[i].has_behind);
    }
    dies_at = NULL;
    turn_until(rig->base, pgconn_is_ready(rig->conn));
}

/* The Sync ends what is behind the COMMIT; that is done. */
static void test_an_error_at_the_sync_of_a_transaction(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, NULL, NULL);
    fails_at_the_sync = true;
    assert_true(send_committed(rig));
    turn_until(rig->base, rig->replied == 1);
    assert_int_equal(rig->letters[0].kind, PGREPLY_ROWS);
    assert_string_equal(rig->letters[0].value, "x");
}

static void test_free_with_a_transaction_answered_in_part(void **state)
{
    struct rig *rig = *state;
    prepare_transaction(rig, NULL, NULL);
    rig->server->byte_for_byte = true;
    assert_true(send_committed(rig));
    turn_for(rig->base, 3);
    give_up(rig);
    assert_int_equal(rig->replied, 1);
    turn_for(rig->base, 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_replies_come_once_and_in_order),
        TEST(test_each_use_prepares_what_it_needs),
        TEST(test_refuses_while_not_ready),
        TEST(test_refuses_past_its_bound),
        TEST(test_callbacks_may_send),
        TEST(test_replies_split_at_every_byte),
        TEST(test_large_statements_leave_in_parts),
        TEST(test_notices_and_settings_in_between_do_no_harm),
        TEST(test_an_error_stops_at_its_sync),
        TEST(test_an_error_behind_the_rows_takes_their_place),
        TEST(test_rows_without_their_sync_are_lost),
        TEST(test_a_death_behind_the_rows_is_a_loss),
        TEST(test_a_cut_connection_is_no_answer),
        TEST(test_death_at_every_byte_of_a_result),
        TEST(test_reset_by_the_peer_with_much_unsent),
        TEST(test_fatal_while_idle),
        TEST(test_fatal_crosses_a_statement),
        TEST(test_fatal_in_flight),
        TEST(test_a_statement_without_answer_costs_the_connection),
        TEST(test_the_deadline_is_the_oldest_statement_s),
        TEST(test_refused_until_the_server_is_there),
        TEST(test_pauses_grow),
        TEST(test_silent_at_the_door),
        TEST(test_closes_at_the_door),
        TEST(test_dies_in_its_greeting),
        TEST(test_is_starting_up),
        TEST(test_babbles),
        TEST(test_a_standby_is_not_written_to),
        TEST(test_a_standby_is_read_from),
        TEST(test_refuses_to_prepare),
        TEST(test_dies_preparing),
        TEST(test_hangs_while_preparing),
        TEST(test_reset_begins_again),
        TEST(test_reset_from_a_reply),
        TEST(test_reset_from_ready),
        TEST(test_reset_while_connecting),
        TEST(test_reset_while_waiting_changes_nothing),
        TEST(test_free_with_statements_in_flight),
        TEST(test_free_from_a_reply),
        TEST(test_free_from_the_last_reply),
        TEST(test_free_from_a_lost_reply),
        TEST(test_free_from_ready),
        TEST(test_free_from_lost),
        TEST(test_free_from_a_failed_connect),
        TEST(test_free_at_any_moment_of_a_connect),
        TEST(test_a_transaction_and_what_is_behind_it),
        TEST(test_a_failed_transaction_is_rolled_back),
        TEST(test_a_failed_commit_is_rolled_back),
        TEST(test_a_failed_rollback_costs_the_connection),
        TEST(test_a_commit_that_rolls_back_is_no_answer),
        TEST(test_what_fails_behind_changes_nothing),
        TEST(test_a_transaction_that_cannot_begin),
        TEST(test_a_transaction_cut_anywhere_is_lost),
        TEST(test_an_error_at_the_sync_of_a_transaction),
        TEST(test_free_with_a_transaction_answered_in_part),
        TEST(test_a_stormy_day),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
