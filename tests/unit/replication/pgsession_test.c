/*
 * Goal: each command ends exactly once, with its results, its error or the session's loss; COPY
 * data comes whole, in order, never faster than it is taken, and never without the loop's turn in
 * between; nothing is called back after a free, wherever that happens.
 * Method: sessions with a scripted server on the same loop (fake_postgres.h) that answers a query
 * by its text. What is heard is noted as text.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/fake_postgres.h"

#include <signal.h>

#include "base/reap.h"
#include "replication/pgsession.h"

#define SECOND 1000000

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct fake_postgres *server;
    struct pgsession *session;
    struct pgsession_command command;
    char dsn[256];
    struct dynbuf heard; /* what the session told */
    struct dynbuf said;  /* what the server was told */
    struct dynbuf copied;
    unsigned pieces;
    unsigned refuse_every; /* on_copy says "not now" to each so-many-th piece, once */
    bool refused;
    bool resume_inside;
    bool refuse_all;
    bool free_in_copy;
    bool free_in_result;
    bool free_when_done;
    const char *next; /* run when done */
    unsigned big;     /* pieces of the big copy */
};

/* --- the server ------------------------------------------------------------------------------- */

static void copy_start(struct fake_session *session, char type)
{
    fake_put(session, type, "\0\0\0", 3);
}

static void ready(struct fake_session *session)
{
    fake_put(session, 'Z', "I", 1);
}

static void big_copy(struct rig *rig, struct fake_session *session)
{
    static char row[1000];
    copy_start(session, 'H');
    for (unsigned i = 0; i < rig->big; i++) {
        memset(row, 'a' + (int)(i % 26), sizeof(row));
        fake_put(session, 'd', row, sizeof(row));
    }
    fake_put(session, 'c', NULL, 0);
    fake_complete(session, "COPY");
    ready(session);
}

static void on_query(struct rig *rig, struct fake_session *session, const char *sql)
{
    if (strcmp(sql, "two") == 0) {
        fake_value(session, "a");
        fake_value(session, "b");
        ready(session);
    } else if (strcmp(sql, "bad") == 0) {
        fake_value(session, "a");
        fake_put_report(session, 'E', "ERROR", "42704");
        ready(session);
    } else if (strcmp(sql, "copy") == 0) {
        copy_start(session, 'H');
        fake_put(session, 'd', "one\n", 4);
        fake_put_report(session, 'N', "NOTICE", "00000");
        fake_put(session, 'd', "two\n", 4);
        fake_put(session, 'c', NULL, 0);
        fake_complete(session, "COPY 2");
        ready(session);
    } else if (strcmp(sql, "copy, bad") == 0) {
        copy_start(session, 'H');
        fake_put(session, 'd', "one\n", 4);
        fake_put_report(session, 'E', "ERROR", "22012");
        ready(session);
    } else if (strcmp(sql, "copy, dies") == 0) {
        copy_start(session, 'H');
        fake_put(session, 'd', "one\n", 4);
        fake_fatal(session, "57P01");
    } else if (strcmp(sql, "copy in") == 0) {
        copy_start(session, 'G');
    } else if (strcmp(sql, "big") == 0) {
        big_copy(rig, session);
    } else if (strcmp(sql, "both") == 0) {
        copy_start(session, 'W');
    } else if (strcmp(sql, "silence") != 0) {
        fake_complete(session, "DO");
        ready(session);
    }
}

static void on_simple(void *arg, struct fake_session *session, char type, const char *body,
                      size_t len)
{
    struct rig *rig = arg;
    if (type == 'Q') {
        on_query(rig, session, body);
        return;
    }
    dynbuf_addc(&rig->said, type);
    dynbuf_add(&rig->said, body, len);
    if (type == 'd') {
        fake_put(session, 'd', body, len); /* an echo */
    } else if (type == 'c') {
        fake_complete(session, "COPY 0");
        ready(session);
    } else {
        fake_put_report(session, 'E', "ERROR", "57014");
        ready(session);
    }
}

/* --- the client ------------------------------------------------------------------------------- */

static void run(struct rig *rig, const char *sql)
{
    rig->command.sql = sql;
    pgsession_run(rig->session, &rig->command);
}

static void drop(struct rig *rig)
{
    pgsession_free(rig->session);
    rig->session = NULL;
}

static void on_connected(void *arg)
{
    struct rig *rig = arg;
    dynbuf_adds(&rig->heard, "connected ");
    assert_true(pgsession_is_idle(rig->session));
    if (rig->next) {
        const char *sql = rig->next;
        rig->next = NULL;
        run(rig, sql);
    }
}

static void on_lost(void *arg, const char *sqlstate, const char *reason)
{
    struct rig *rig = arg;
    dynbuf_addf(&rig->heard, "lost[%s] ", sqlstate);
    assert_true(reason[0]);
    assert_null(strchr(reason, '\n'));
}

static void on_result(void *arg, const PGresult *result)
{
    struct rig *rig = arg;
    dynbuf_addf(&rig->heard, "%s ", PQntuples(result) ? PQgetvalue(result, 0, 0) : "-");
    if (rig->free_in_result)
        drop(rig);
}

static bool on_copy(void *arg, const char *bytes, size_t len)
{
    struct rig *rig = arg;
    if (rig->refuse_all)
        return false;
    if (rig->refuse_every && rig->pieces % rig->refuse_every == 0 && !rig->refused) {
        rig->refused = true;
        if (rig->resume_inside)
            pgsession_resume(rig->session);
        return false;
    }
    rig->refused = false;
    rig->pieces++;
    dynbuf_add(&rig->copied, bytes, len);
    if (rig->free_in_copy) {
        drop(rig);
        assert_memory_equal(bytes, "one\n", 4); /* still there */
    }
    return true;
}

static void on_copy_both(void *arg)
{
    struct rig *rig = arg;
    dynbuf_adds(&rig->heard, "both ");
}

static void on_done(void *arg, const char *sqlstate, const char *error)
{
    struct rig *rig = arg;
    dynbuf_addf(&rig->heard, "done[%s]%s", sqlstate, error ? "! " : " ");
    if (rig->free_when_done) {
        drop(rig);
    } else if (rig->next) {
        const char *sql = rig->next;
        rig->next = NULL;
        run(rig, sql);
    }
}

static void start(struct rig *rig, int64_t connect_timeout_us)
{
    const struct pgsession_config config = {.base = rig->base,
                                            .reap = rig->reap,
                                            .dsn = rig->dsn,
                                            .application_name = "test",
                                            .connect_timeout_us = connect_timeout_us,
                                            .on_connected = on_connected,
                                            .on_lost = on_lost,
                                            .arg = rig};
    rig->session = pgsession_new(&config);
    assert_non_null(rig->session);
}

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->server = fake_new(rig->base);
    rig->server->on_simple = on_simple;
    rig->server->arg = rig;
    fake_dsn(rig->server, rig->dsn, sizeof(rig->dsn));
    dynbuf_init(&rig->heard, 1 << 20);
    dynbuf_init(&rig->said, 1 << 20);
    dynbuf_init(&rig->copied, 1 << 26);
    rig->command = (struct pgsession_command){.on_result = on_result,
                                              .on_copy = on_copy,
                                              .on_copy_both = on_copy_both,
                                              .on_done = on_done,
                                              .arg = rig,
                                              .timeout_us = 20 * SECOND};
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    pgsession_free(rig->session);
    turn(rig->base);
    fake_free(rig->server);
    reap_list_free(rig->reap);
    event_base_free(rig->base);
    dynbuf_done(&rig->heard);
    dynbuf_done(&rig->said);
    dynbuf_done(&rig->copied);
    free(rig);
    return 0;
}

#define heard_until(rig, text) turn_until((rig)->base, strstr(dynbuf_text(&(rig)->heard), text))
#define assert_heard(rig, text) assert_string_equal(dynbuf_text(&(rig)->heard), text)

/* --- connecting ------------------------------------------------------------------------------- */

static void test_moods(void **state)
{
    static const enum fake_mood moods[] = {FAKE_CLOSES, FAKE_HALF_A_START, FAKE_STARTING_UP,
                                           FAKE_BABBLES};
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(moods) / sizeof(moods[0]); i++) {
        rig->server->mood = moods[i];
        dynbuf_reset(&rig->heard);
        start(rig, 20 * SECOND);
        heard_until(rig, "lost");
        assert_heard(rig, "lost[] ");
        drop(rig);
    }
}

static void test_refused(void **state)
{
    struct rig *rig = *state;
    fake_stop_listening(rig->server);
    start(rig, 20 * SECOND);
    assert_heard(rig, ""); /* from the loop */
    heard_until(rig, "lost");
    turn_for(rig->base, 20);
    assert_heard(rig, "lost[] ");
}

static void test_a_dsn_that_is_none(void **state)
{
    struct rig *rig = *state;
    snprintf(rig->dsn, sizeof(rig->dsn), "nonsense=1");
    start(rig, 20 * SECOND);
    assert_heard(rig, "");
    heard_until(rig, "lost");
}

static void test_silent_server(void **state)
{
    struct rig *rig = *state;
    rig->server->mood = FAKE_SILENT;
    start(rig, SECOND / 20);
    heard_until(rig, "lost");
    assert_heard(rig, "lost[] ");
}

static void test_freed_while_connecting(void **state)
{
    struct rig *rig = *state;
    start(rig, SECOND / 100);
    drop(rig);
    turn_for(rig->base, 50);
    assert_heard(rig, "");
}

/* --- commands --------------------------------------------------------------------------------- */

static void test_commands_in_a_row(void **state)
{
    struct rig *rig = *state;
    rig->next = "two";
    start(rig, 20 * SECOND);
    heard_until(rig, "done");
    assert_heard(rig, "connected a b done[] ");
    assert_true(pgsession_is_idle(rig->session));
    dynbuf_reset(&rig->heard);
    rig->next = "do"; /* from inside on_done */
    run(rig, "bad");
    assert_false(pgsession_is_idle(rig->session));
    heard_until(rig, "done[] ");
    assert_heard(rig, "a done[42704]! - done[] ");
}

static void test_byte_for_byte(void **state)
{
    struct rig *rig = *state;
    rig->server->byte_for_byte = true;
    rig->next = "copy";
    start(rig, 20 * SECOND);
    heard_until(rig, "done");
    assert_heard(rig, "connected - done[] ");
    assert_string_equal(dynbuf_text(&rig->copied), "one\ntwo\n");
}

static void test_silence_in_a_command(void **state)
{
    struct rig *rig = *state;
    rig->command.timeout_us = SECOND / 20;
    rig->next = "silence";
    start(rig, 20 * SECOND);
    heard_until(rig, "lost");
    assert_heard(rig, "connected lost[] ");
}

static void test_cut_while_idle_and_while_running(void **state)
{
    struct rig *rig = *state;
    start(rig, 20 * SECOND);
    heard_until(rig, "connected");
    fake_shut_down(rig->server, "57P01");
    heard_until(rig, "lost");
    assert_heard(rig, "connected lost[57P01] ");
    drop(rig);
    dynbuf_reset(&rig->heard);
    rig->next = "silence";
    start(rig, 20 * SECOND);
    heard_until(rig, "connected");
    turn_for(rig->base, 20);
    fake_cut(rig->server);
    heard_until(rig, "lost");
    assert_heard(rig, "connected lost[] ");
    assert_false(pgsession_is_idle(rig->session));
}

static void test_freed_inside_callbacks(void **state)
{
    struct rig *rig = *state;
    rig->free_in_result = true;
    rig->next = "two";
    start(rig, 20 * SECOND);
    turn_until(rig->base, !rig->session);
    rig->free_in_result = false;
    rig->free_in_copy = true;
    rig->next = "copy";
    start(rig, 20 * SECOND);
    turn_until(rig->base, !rig->session);
    rig->free_in_copy = false;
    rig->free_when_done = true;
    rig->next = "do";
    start(rig, 20 * SECOND);
    turn_until(rig->base, !rig->session);
    turn_for(rig->base, 20);
    assert_heard(rig, "connected a connected connected - done[] ");
    assert_int_equal(rig->pieces, 1);
}

/* --- COPY ------------------------------------------------------------------------------------- */

static void test_copy_that_fails(void **state)
{
    struct rig *rig = *state;
    rig->next = "copy, bad";
    start(rig, 20 * SECOND);
    heard_until(rig, "done");
    assert_heard(rig, "connected done[22012]! ");
    assert_string_equal(dynbuf_text(&rig->copied), "one\n");
    run(rig, "copy, dies");
    heard_until(rig, "lost");
    assert_heard(rig, "connected done[22012]! lost[57P01] ");
    assert_string_equal(dynbuf_text(&rig->copied), "one\none\n");
}

static void test_copy_in_is_refused(void **state)
{
    struct rig *rig = *state;
    rig->next = "copy in";
    start(rig, 20 * SECOND);
    heard_until(rig, "done");
    assert_heard(rig, "connected done[57014]! ");
    assert_int_equal(rig->said.data[0], 'f');
}

static void check_big(struct rig *rig)
{
    assert_int_equal(rig->copied.len, 1000 * (size_t)rig->big);
    for (size_t i = 0; i < rig->big; i++) {
        assert_int_equal(rig->copied.data[i * 1000], 'a' + (int)(i % 26));
        assert_int_equal(rig->copied.data[i * 1000 + 999], 'a' + (int)(i % 26));
    }
}

static void test_not_now_holds_one_piece_and_brings_it_again(void **state)
{
    struct rig *rig = *state;
    rig->big = 300;
    rig->refuse_every = 7;
    rig->next = "big";
    start(rig, 20 * SECOND);
    for (unsigned held = 0; held < 43; held++) {
        turn_until(rig->base, rig->refused && rig->pieces == held * 7);
        for (int i = 0; i < 5; i++)
            turn(rig->base);
        assert_int_equal(rig->pieces, held * 7);
        pgsession_resume(rig->session);
        assert_int_equal(rig->pieces, held * 7); /* from the loop */
    }
    heard_until(rig, "done");
    check_big(rig);
}

static void test_resumed_inside(void **state)
{
    struct rig *rig = *state;
    rig->big = 300;
    rig->refuse_every = 3;
    rig->resume_inside = true;
    rig->next = "big";
    start(rig, 20 * SECOND);
    heard_until(rig, "done");
    check_big(rig);
}

/* A piece that is held back is nobody's silence, and nothing more is read meanwhile. */
static void test_held_for_long(void **state)
{
    struct rig *rig = *state;
    rig->big = 20000;
    rig->refuse_all = true;
    rig->command.timeout_us = SECOND / 20;
    rig->next = "big";
    start(rig, 20 * SECOND);
    turn_for(rig->base, 200);
    assert_heard(rig, "connected ");
    struct fake_session *session = LIST_FIRST(&rig->server->sessions);
    assert_true(session->out_at < session->out.len); /* TCP holds the server */
    rig->refuse_all = false;
    rig->command.timeout_us = 20 * SECOND;
    pgsession_resume(rig->session);
    turn_until(rig->base, rig->pieces == rig->big);
    check_big(rig);
}

static void on_other_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ++*(unsigned *)arg;
}

/* Megabytes that are there at once: others have their turn in between. */
static void test_others_have_their_turn(void **state)
{
    struct rig *rig = *state;
    unsigned ticks = 0;
    struct event *other = evtimer_new(rig->base, on_other_timer, &ticks);
    rig->big = 30000;
    rig->next = "big";
    start(rig, 20 * SECOND);
    heard_until(rig, "connected");
    unsigned most = 0;
    while (rig->pieces < rig->big) {
        const struct timeval now = {0, 0};
        unsigned before = rig->pieces;
        event_add(other, &now);
        turn(rig->base);
        most = rig->pieces - before > most ? rig->pieces - before : most;
    }
    assert_true(most <= 300); /* 256 KiB */
    assert_true(ticks >= rig->big / 600);
    event_free(other);
    check_big(rig);
}

static void test_both_ways(void **state)
{
    struct rig *rig = *state;
    rig->next = "both";
    start(rig, 20 * SECOND);
    heard_until(rig, "both");
    pgsession_put(rig->session, "hello", 5);
    pgsession_put(rig->session, "again", 5);
    turn_until(rig->base, rig->copied.len == 10);
    assert_string_equal(dynbuf_text(&rig->copied), "helloagain");
    struct fake_session *session = LIST_FIRST(&rig->server->sessions);
    fake_put(session, 'c', NULL, 0); /* the server ends its half: we end ours */
    fake_flush(session);
    heard_until(rig, "done");
    assert_heard(rig, "connected both - done[] ");
    assert_string_equal(dynbuf_text(&rig->said), "dhellodagainc");
    assert_true(pgsession_is_idle(rig->session));
}

static void test_a_server_that_takes_nothing(void **state)
{
    struct rig *rig = *state;
    static char bytes[50000];
    rig->next = "both";
    start(rig, 20 * SECOND);
    heard_until(rig, "both");
    fake_set_deaf(rig->server, true);
    for (int i = 0; i < 2000 && !strstr(dynbuf_text(&rig->heard), "lost"); i++) {
        pgsession_put(rig->session, bytes, sizeof(bytes));
        turn(rig->base);
    }
    assert_heard(rig, "connected both lost[] ");
}

static void test_put_after_the_end(void **state)
{
    struct rig *rig = *state;
    rig->next = "both";
    start(rig, 20 * SECOND);
    heard_until(rig, "both");
    fake_cut(rig->server);
    for (int i = 0; i < 100; i++) {
        pgsession_put(rig->session, "x", 1);
        turn(rig->base);
        usleep(100);
    }
    assert_heard(rig, "connected both lost[] ");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_moods),
        CASE(test_refused),
        CASE(test_a_dsn_that_is_none),
        CASE(test_silent_server),
        CASE(test_freed_while_connecting),
        CASE(test_commands_in_a_row),
        CASE(test_byte_for_byte),
        CASE(test_silence_in_a_command),
        CASE(test_cut_while_idle_and_while_running),
        CASE(test_freed_inside_callbacks),
        CASE(test_copy_that_fails),
        CASE(test_copy_in_is_refused),
        CASE(test_not_now_holds_one_piece_and_brings_it_again),
        CASE(test_resumed_inside),
        CASE(test_held_for_long),
        CASE(test_others_have_their_turn),
        CASE(test_both_ways),
        CASE(test_a_server_that_takes_nothing),
        CASE(test_put_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
