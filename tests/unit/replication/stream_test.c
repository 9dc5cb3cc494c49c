/*
 * Goal: what the server streams comes out as whole transactions, once and in order, whether they
 * were streamed before their commit or not and however often the taker says "not now"; status goes
 * on all the while; each end of the stream is told once, with the server's word.
 * Method: a stream with a scripted server on the same loop (fake_postgres.h) that speaks COPY both
 * ways; the test writes pgoutput messages byte by byte. What is taken is noted as letters: B begin,
 * C commit, R relation, I insert, M message, each with a number.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/fake_postgres.h"

#include <signal.h>

#include "base/log.h"
#include "base/reap.h"
#include "base/settings.h"
#include "replication/stream.h"

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct fake_postgres *server;
    struct settings settings;
    struct stream *stream;
    char dsn[256];
    const char *refuses; /* SQLSTATE that START_REPLICATION is answered with; NULL: it begins */
    char sql[512];
    unsigned starts;
    struct dynbuf heard;
    struct dynbuf message; /* being written */
    unsigned statuses;
    unsigned questions; /* statuses that want an answer */
    uint64_t flushed;   /* of the last status */
    unsigned not_now;   /* refuse each message so often before it is taken */
    unsigned refused;
    bool deaf; /* refuses all */
    bool free_in_message;
    char sqlstate[6];
};

/* --- the server ------------------------------------------------------------------------------- */

static uint64_t get_u64(const char *bytes)
{
    return (uint64_t)fake_u32(bytes) << 32 | fake_u32(bytes + 4);
}

static void on_simple(void *arg, struct fake_session *session, char type, const char *body,
                      size_t len)
{
    struct rig *rig = arg;
    if (type == 'Q') {
        snprintf(rig->sql, sizeof(rig->sql), "%s", body);
        rig->starts++;
        if (rig->refuses) {
            fake_put_report(session, 'E', "ERROR", rig->refuses);
            fake_put(session, 'Z', "I", 1);
        } else {
            fake_put(session, 'W', "\0\0\0", 3);
        }
    } else if (type == 'd' && len == 34 && body[0] == 'r') {
        rig->statuses++;
        rig->questions += body[33];
        rig->flushed = get_u64(body + 9);
        assert_true(get_u64(body + 1) >= rig->flushed);
    }
}

static void put_u8(struct rig *rig, char byte)
{
    dynbuf_addc(&rig->message, byte);
}

static void put_u16(struct rig *rig, uint16_t value)
{
    uint16_t wire = htons(value);
    dynbuf_add(&rig->message, &wire, 2);
}

static void put_u32(struct rig *rig, uint32_t value)
{
    uint32_t wire = htonl(value);
    dynbuf_add(&rig->message, &wire, 4);
}

static void put_u64(struct rig *rig, uint64_t value)
{
    put_u32(rig, (uint32_t)(value >> 32));
    put_u32(rig, (uint32_t)value);
}

static void put_text(struct rig *rig, const char *text)
{
    dynbuf_add(&rig->message, text, strlen(text) + 1);
}

/* Sends what was written as one WAL frame. */
static void send_message(struct rig *rig, uint64_t lsn)
{
    struct dynbuf message = rig->message;
    dynbuf_init(&rig->message, 1 << 20);
    put_u8(rig, 'w');
    put_u64(rig, lsn);
    put_u64(rig, lsn);
    put_u64(rig, 0);
    dynbuf_add(&rig->message, message.data, message.len);
    struct fake_session *session = LIST_FIRST(&rig->server->sessions);
    assert_non_null(session);
    fake_put(session, 'd', rig->message.data, rig->message.len);
    fake_flush(session);
    dynbuf_done(&rig->message);
    dynbuf_reset(&message);
    rig->message = message;
}

static void send_keepalive(struct rig *rig, uint64_t lsn, bool reply)
{
    put_u8(rig, 'k');
    put_u64(rig, lsn);
    put_u64(rig, 0);
    put_u8(rig, reply ? 1 : 0);
    struct fake_session *session = LIST_FIRST(&rig->server->sessions);
    fake_put(session, 'd', rig->message.data, rig->message.len);
    fake_flush(session);
    dynbuf_reset(&rig->message);
}

static void send_begin(struct rig *rig, uint64_t lsn)
{
    put_u8(rig, 'B');
    put_u64(rig, lsn);
    put_u64(rig, 5);
    put_u32(rig, 700);
    send_message(rig, lsn - 100);
}

static void put_commit_body(struct rig *rig, uint64_t lsn)
{
    put_u8(rig, 0);
    put_u64(rig, lsn);
    put_u64(rig, lsn + 8);
    put_u64(rig, 5);
}

static void send_commit(struct rig *rig, uint64_t lsn)
{
    put_u8(rig, 'C');
    put_commit_body(rig, lsn);
    send_message(rig, lsn);
}

/* xid 0: outside a stream block. */
static void send_relation(struct rig *rig, uint32_t xid, uint32_t oid)
{
    put_u8(rig, 'R');
    if (xid)
        put_u32(rig, xid);
    put_u32(rig, oid);
    put_text(rig, "public");
    put_text(rig, "t");
    put_u8(rig, 'f');
    put_u16(rig, 1);
    put_u8(rig, 1);
    put_text(rig, "a");
    put_u32(rig, 23);
    put_u32(rig, UINT32_MAX);
    send_message(rig, 1);
}

static void send_insert(struct rig *rig, uint32_t xid, uint32_t oid)
{
    put_u8(rig, 'I');
    if (xid)
        put_u32(rig, xid);
    put_u32(rig, oid);
    put_u8(rig, 'N');
    put_u16(rig, 1);
    put_u8(rig, 't');
    put_u32(rig, 1);
    put_u8(rig, '7');
    send_message(rig, 1);
}

static void send_stream_start(struct rig *rig, uint32_t xid, bool first)
{
    put_u8(rig, 'S');
    put_u32(rig, xid);
    put_u8(rig, first ? 1 : 0);
    send_message(rig, 1);
}

static void send_stream_stop(struct rig *rig)
{
    put_u8(rig, 'E');
    send_message(rig, 1);
}

static void send_stream_commit(struct rig *rig, uint32_t xid, uint64_t lsn)
{
    put_u8(rig, 'c');
    put_u32(rig, xid);
    put_commit_body(rig, lsn);
    send_message(rig, lsn);
}

static void send_stream_abort(struct rig *rig, uint32_t xid, uint32_t subxid)
{
    put_u8(rig, 'A');
    put_u32(rig, xid);
    put_u32(rig, subxid);
    send_message(rig, 1);
}

/* --- the taker -------------------------------------------------------------------------------- */

static void on_started(void *arg)
{
    struct rig *rig = arg;
    dynbuf_adds(&rig->heard, "started ");
}

static bool on_message(void *arg, const struct pgoutput_message *message, uint64_t lsn)
{
    static const char letters[] = {[PGOUTPUT_BEGIN] = 'B',
                                   [PGOUTPUT_COMMIT] = 'C',
                                   [PGOUTPUT_RELATION] = 'R',
                                   [PGOUTPUT_INSERT] = 'I',
                                   [PGOUTPUT_MESSAGE] = 'M'};
    struct rig *rig = arg;
    (void)lsn;
    if (rig->deaf)
        return false;
    if (rig->refused < rig->not_now) {
        rig->refused++;
        return false;
    }
    rig->refused = 0;
    assert_true(message->type < sizeof(letters) && letters[message->type]);
    bool border = message->type == PGOUTPUT_BEGIN || message->type == PGOUTPUT_COMMIT;
    dynbuf_addf(&rig->heard, "%c%d ", letters[message->type],
                border ? (int)message->lsn : (int)message->oid);
    if (message->type == PGOUTPUT_COMMIT)
        assert_int_equal(message->end_lsn, message->lsn + 8);
    if (rig->free_in_message) {
        stream_free(rig->stream);
        rig->stream = NULL;
    }
    return true;
}

static void on_server_end(void *arg, uint64_t end_lsn)
{
    (void)arg;
    assert_true(end_lsn > 0);
}

static void on_lost(void *arg, const char *sqlstate, const char *reason)
{
    struct rig *rig = arg;
    dynbuf_addf(&rig->heard, "lost[%s] ", sqlstate);
    assert_true(reason[0]);
}

static void start(struct rig *rig, bool streaming)
{
    const struct stream_config config = {.base = rig->base,
                                         .reap = rig->reap,
                                         .settings = &rig->settings,
                                         .dsn = rig->dsn,
                                         .shard = "alpha",
                                         .slot = "seatgrid_\"x",
                                         .start_lsn = 0xA00000010,
                                         .streaming = streaming,
                                         .on_started = on_started,
                                         .on_message = on_message,
                                         .on_server_end = on_server_end,
                                         .on_lost = on_lost,
                                         .arg = rig};
    rig->stream = stream_new(&config);
    assert_non_null(rig->stream);
    if (!rig->refuses)
        turn_until(rig->base, rig->statuses > 0);
    dynbuf_reset(&rig->heard);
}

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    log_setup(LOG_LEVEL_ERROR, false);
    settings_init(&rig->settings);
    rig->settings.cdc.feedback_ms = 20;
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->server = fake_new(rig->base);
    rig->server->on_simple = on_simple;
    rig->server->arg = rig;
    fake_dsn(rig->server, rig->dsn, sizeof(rig->dsn));
    dynbuf_init(&rig->heard, 1 << 20);
    dynbuf_init(&rig->message, 1 << 20);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    stream_free(rig->stream);
    turn(rig->base);
    fake_free(rig->server);
    reap_list_free(rig->reap);
    event_base_free(rig->base);
    dynbuf_done(&rig->heard);
    dynbuf_done(&rig->message);
    free(rig);
    return 0;
}

/* Turns until so much was heard; a taker who said "not now" is ready again each time. */
static void hear(struct rig *rig, const char *text)
{
    int64_t end_us = clock_mono_us() + 10000000;
    while (strcmp(dynbuf_text(&rig->heard), text) != 0) {
        if (clock_mono_us() > end_us)
            fail_msg("heard \"%s\", not \"%s\"", dynbuf_text(&rig->heard), text);
        turn(rig->base);
        if (rig->refused)
            stream_resume(rig->stream);
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_start(void **state)
{
    struct rig *rig = *state;
    start(rig, true);
    assert_string_equal(rig->sql,
                        "START_REPLICATION SLOT \"seatgrid_\"\"x\" LOGICAL A/10 (proto_version "
                        "'2', publication_names 'seatgrid', binary 'true', messages 'true', "
                        "streaming 'on')");
    assert_int_equal(rig->flushed, 0xA00000010);
}

static void check_plain(struct rig *rig)
{
    start(rig, false);
    assert_non_null(strstr(rig->sql, "proto_version '1'"));
    assert_null(strstr(rig->sql, "streaming"));
    send_begin(rig, 1000);
    send_relation(rig, 0, 5);
    send_insert(rig, 0, 5);
    send_insert(rig, 0, 5);
    send_commit(rig, 1000);
    hear(rig, "B1000 R5 I5 I5 C1000 ");
}

static void test_plain(void **state)
{
    check_plain(*state);
}

static void test_plain_not_now(void **state)
{
    struct rig *rig = *state;
    rig->not_now = 2;
    check_plain(rig);
}

/* Two streamed transactions interleaved, one with an aborted part that brought a relation; a plain
 * one between their blocks; one aborted as a whole. */
static void check_streamed(struct rig *rig)
{
    start(rig, true);
    send_stream_start(rig, 70, true);
    send_relation(rig, 71, 5);
    send_insert(rig, 71, 5);
    send_insert(rig, 70, 6);
    send_stream_stop(rig);
    send_stream_start(rig, 80, true);
    send_insert(rig, 80, 8);
    send_stream_stop(rig);
    send_begin(rig, 1000);
    send_insert(rig, 0, 1);
    send_commit(rig, 1000);
    send_stream_abort(rig, 70, 71);
    send_stream_start(rig, 90, true);
    send_insert(rig, 90, 9);
    send_stream_stop(rig);
    send_stream_start(rig, 70, false);
    send_insert(rig, 70, 7);
    send_stream_stop(rig);
    send_stream_abort(rig, 90, 90);
    send_stream_commit(rig, 80, 2000);
    send_stream_commit(rig, 70, 3000);
    send_stream_commit(rig, 99, 4000); /* of which nothing was streamed */
    send_begin(rig, 5000);
    send_insert(rig, 0, 5);
    send_commit(rig, 5000);
    hear(rig, "B1000 I1 C1000 B2000 I8 C2000 B3000 R5 I6 I7 C3000 B4000 C4000 B5000 I5 C5000 ");
}

static void test_streamed(void **state)
{
    check_streamed(*state);
}

static void test_streamed_not_now(void **state)
{
    struct rig *rig = *state;
    rig->not_now = 1;
    check_streamed(rig);
}

static void test_status_goes_on_while_nothing_is_taken(void **state)
{
    struct rig *rig = *state;
    start(rig, false);
    rig->deaf = true;
    send_begin(rig, 1000);
    stream_confirm(rig->stream, 0xA00000099, 0xA00000050);
    unsigned before = rig->statuses;
    turn_until(rig->base, rig->statuses >= before + 5);
    assert_int_equal(rig->flushed, 0xA00000050);
    assert_int_equal(rig->questions, 0); /* it is we who are silent */
    rig->deaf = false;
    stream_resume(rig->stream);
    hear(rig, "B1000 ");
}

static void test_a_question_is_answered_at_once(void **state)
{
    struct rig *rig = *state;
    rig->settings.cdc.feedback_ms = 600000;
    start(rig, false);
    send_keepalive(rig, 0xA00000020, false);
    turn_for(rig->base, 30);
    assert_int_equal(rig->statuses, 1);
    send_keepalive(rig, 0xA00000020, true);
    turn_until(rig->base, rig->statuses == 2);
}

static void test_a_silent_server_is_asked_then_given_up(void **state)
{
    struct rig *rig = *state;
    rig->settings.cdc.silence_timeout_ms = 200;
    start(rig, false);
    turn_until(rig->base, rig->questions > 0);
    assert_string_equal(dynbuf_text(&rig->heard), "");
    send_keepalive(rig, 0xA00000020, false);
    hear(rig, "lost[] ");
    turn_for(rig->base, 50);
    hear(rig, "lost[] ");
}

static void test_refusals(void **state)
{
    static const char *const sqlstates[] = {"42704", "55006", "55000"};
    struct rig *rig = *state;
    for (size_t i = 0; i < 3; i++) {
        char expected[32];
        rig->refuses = sqlstates[i];
        start(rig, false);
        snprintf(expected, sizeof(expected), "lost[%s] ", sqlstates[i]);
        hear(rig, expected);
        stream_free(rig->stream);
        rig->stream = NULL;
    }
}

static void test_ends(void **state)
{
    struct rig *rig = *state;
    start(rig, false);
    fake_shut_down(rig->server, "57P01");
    hear(rig, "lost[57P01] ");
    stream_free(rig->stream);
    rig->stream = NULL;
    rig->statuses = 0;
    start(rig, false);
    put_u8(rig, '?');
    send_message(rig, 1);
    hear(rig, "lost[08P01] ");
}

static void test_freed_inside(void **state)
{
    struct rig *rig = *state;
    rig->free_in_message = true;
    start(rig, true);
    send_stream_start(rig, 70, true);
    send_insert(rig, 70, 6);
    send_stream_stop(rig);
    send_stream_commit(rig, 70, 3000);
    turn_until(rig->base, !rig->stream);
    turn_for(rig->base, 20);
    assert_string_equal(dynbuf_text(&rig->heard), "B3000 ");
}

/* Too much for the spool: the same again without streaming, from the last commit that was taken. */
static void test_a_full_spool(void **state)
{
    struct rig *rig = *state;
    rig->settings.cdc.spool_bytes = 1000;
    start(rig, true);
    send_begin(rig, 1000);
    send_commit(rig, 1000);
    hear(rig, "B1000 C1000 ");
    send_stream_start(rig, 70, true);
    rig->refuses = "55006"; /* the old walsender is still there */
    for (int i = 0; i < 100 && rig->starts == 1 && !LIST_EMPTY(&rig->server->sessions); i++) {
        send_insert(rig, 70, 6);
        turn(rig->base);
    }
    turn_until(rig->base, rig->starts == 2);
    rig->refuses = NULL;
    turn_until(rig->base, rig->starts == 3);
    assert_non_null(strstr(rig->sql, "LOGICAL 0/3F0 (proto_version '1'"));
    unsigned before = rig->statuses;
    turn_until(rig->base, rig->statuses > before);
    send_begin(rig, 2000);
    send_insert(rig, 0, 6);
    send_commit(rig, 2000);
    hear(rig, "B1000 C1000 B2000 I6 C2000 ");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_start),
        CASE(test_plain),
        CASE(test_plain_not_now),
        CASE(test_streamed),
        CASE(test_streamed_not_now),
        CASE(test_status_goes_on_while_nothing_is_taken),
        CASE(test_a_question_is_answered_at_once),
        CASE(test_a_silent_server_is_asked_then_given_up),
        CASE(test_refusals),
        CASE(test_ends),
        CASE(test_freed_inside),
        CASE(test_a_full_spool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
