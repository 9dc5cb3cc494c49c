/*
 * Goal: a stream of live seats is what EventSource expects: opened when there is something to tell,
 * each change once and whole, quiet ones kept alive, slow readers dropped, bounds kept, and no
 * watch left behind when a client goes.
 * Method: the real edge and app in front of a fake router, which tells changes by hand; clients are
 * plain sockets. The fixture's fake router fails if a watch stays.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include <signal.h>

#define PATH "/events/1/stream"
#define SMALL_BUFFER 4096

static void tune(struct settings *settings)
{
    snprintf(settings->redis.address, sizeof(settings->redis.address), "127.0.0.1:1");
    settings->live.max_streams = 4;
    settings->live.buffer_bytes = SMALL_BUFFER;
    settings->live.heartbeat_ms = 200;
    settings->reads.deadline_ms = 300;
    settings->http.idle_timeout_ms = 100; /* must not hit a stream */
}

static int setup(void **state)
{
    return edge_setup_tuned(state, tune);
}

/* --- a client --------------------------------------------------------------------------------- */

struct reader {
    int fd;
    size_t len;
    bool ended;
    char text[262144];
};

static struct reader *reader_open(struct edge *edge, const char *headers)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    char request[1024];
    assert_non_null(reader);
    reader->fd = edge_connect(edge);
    int len =
        snprintf(request, sizeof(request), "GET " PATH " HTTP/1.1\r\nHost: t\r\n%s\r\n", headers);
    assert_int_equal(send(reader->fd, request, (size_t)len, MSG_NOSIGNAL), len);
    return reader;
}

static void reader_close(struct reader *reader)
{
    close(reader->fd);
    free(reader);
}

static void turn(struct edge *edge)
{
    event_base_loop(edge->base, EVLOOP_NONBLOCK);
    usleep(500);
}

static void turn_ms(struct edge *edge, int ms)
{
    int64_t until_us = clock_mono_us() + (int64_t)ms * 1000;
    while (clock_mono_us() < until_us)
        turn(edge);
}

static void reader_take(struct reader *reader)
{
    ssize_t n = recv(reader->fd, reader->text + reader->len, sizeof(reader->text) - 1 - reader->len,
                     MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        reader->ended = true;
    else if (n > 0)
        reader->len += (size_t)n;
    reader->text[reader->len] = '\0';
}

/* Until the text has come, from `from` on. Gives where it stands. */
static const char *reader_await(struct edge *edge, struct reader *reader, const char *text)
{
    int64_t until_us = clock_mono_us() + EDGE_PATIENCE_US;
    const char *found;
    while (!(found = strstr(reader->text, text))) {
        turn(edge);
        reader_take(reader);
        if (clock_mono_us() > until_us || (reader->ended && !strstr(reader->text, text)))
            fail_msg("wanted \"%s\", got \"%s\"%s", text, reader->text,
                     reader->ended ? " and the end" : "");
    }
    return found;
}

static void reader_await_end(struct edge *edge, struct reader *reader)
{
    int64_t until_us = clock_mono_us() + EDGE_PATIENCE_US;
    while (!reader->ended) {
        turn(edge);
        reader_take(reader);
        assert_true(clock_mono_us() < until_us);
    }
}

static void await_watches(struct edge *edge, int count)
{
    int64_t until_us = clock_mono_us() + EDGE_PATIENCE_US;
    while (edge->router->watch_count != count) {
        turn(edge);
        if (clock_mono_us() > until_us)
            fail_msg("%d watches, wanted %d", edge->router->watch_count, count);
    }
}

static const struct live_change first = {
    .event_id = 1, .id = "alpha.7-10-1", .total = 10, .available = 8, .held = 1, .booked = 1};
#define FIRST                                                                                      \
    "event: counters\nid: alpha.7-10-1\ndata: "                                                    \
    "{\"eventId\":1,\"total\":10,\"available\":8,\"held\":1,\"booked\":1}\n\n"

static struct reader *reader_open_told(struct edge *edge, int watches)
{
    struct reader *reader = reader_open(edge, "");
    await_watches(edge, watches);
    assert_int_equal(fake_router_tell(edge->router, &first), watches);
    reader_await(edge, reader, FIRST);
    return reader;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void opens_with_the_first_change(void **state)
{
    struct edge *edge = *state;
    struct reader *reader = reader_open(edge, "Last-Event-ID: alpha.7-9-1\r\n");
    await_watches(edge, 1);
    assert_string_equal(edge->router->asked_last_id, "alpha.7-9-1");
    reader_take(reader);
    assert_int_equal(reader->len, 0);
    fake_router_tell(edge->router, &first);
    reader_await(edge, reader, "\r\n\r\nretry: 1000\n\n" FIRST);
    assert_memory_equal(reader->text, "HTTP/1.1 200 OK\r\n", 17);
    assert_non_null(strstr(reader->text, "\r\nContent-Type: text/event-stream\r\n"));
    assert_non_null(strstr(reader->text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(reader->text, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(reader->text, "\r\nSeatGrid-Shard: alpha\r\n"));
    assert_null(strstr(reader->text, "Content-Length"));
    assert_null(strstr(reader->text, "Transfer-Encoding"));
    assert_int_equal(edge_count("GET /events/{id}/stream", "alpha", "", "ok"), 1);
    reader_close(reader);
    await_watches(edge, 0); /* the client is gone, and that was noticed */
}

static void tells_seats_resync_and_end(void **state)
{
    struct edge *edge = *state;
    struct reader *reader = reader_open_told(edge, 1);
    const struct seat seats[] = {{1, 5}, {2, 1}, {2, 2}};
    struct live_change change = {.event_id = 1,
                                 .id = "alpha.7-11-2",
                                 .seats = seats,
                                 .seat_count = 3,
                                 .states = "xh.",
                                 .total = 10,
                                 .available = 7,
                                 .held = 2,
                                 .booked = 1};
    fake_router_tell(edge->router, &change);
    reader_await(edge, reader,
                 FIRST "event: seats\nid: alpha.7-11-2\ndata: {\"eventId\":1,\"seats\":["
                       "{\"row\":1,\"col\":5,\"status\":\"booked\"},"
                       "{\"row\":2,\"col\":1,\"status\":\"held\"},"
                       "{\"row\":2,\"col\":2,\"status\":\"available\"}],"
                       "\"total\":10,\"available\":7,\"held\":2,\"booked\":1}\n\n"
                       "event: counters\ndata: {\"eventId\":1,\"total\":10,\"available\":7,"
                       "\"held\":2,\"booked\":1}\n\n");
    struct live_change gone = {.event_id = 1, .id = "alpha.8-12-1", .resync = true, .gone = true};
    fake_router_tell(edge->router, &gone);
    reader_await(edge, reader, "event: resync\nid: alpha.8-12-1\ndata: {\"eventId\":1}\n\n");
    reader_await_end(edge, reader);
    assert_null(edge->router->watches);
    reader_close(reader);
}

#define BOOKING "01973c6e-25a1-7c7c-8f00-0123456789ab"

static void tells_what_became_of_a_booking(void **state)
{
    struct edge *edge = *state;
    struct reader *reader = reader_open_told(edge, 1);
    const struct seat seats[] = {{1, 5}};
    struct live_change change = {.event_id = 1,
                                 .id = "alpha.7-11-2",
                                 .seats = seats,
                                 .seat_count = 1,
                                 .states = "x",
                                 .status = "confirmed",
                                 .total = 10,
                                 .available = 8,
                                 .held = 0,
                                 .booked = 2};
    assert_true(uuid_parse(BOOKING, &change.booking_id));
    fake_router_tell(edge->router, &change);
    reader_await(edge, reader,
                 FIRST "event: seats\nid: alpha.7-11-2\ndata: {\"eventId\":1,\"seats\":["
                       "{\"row\":1,\"col\":5,\"status\":\"booked\"}],"
                       "\"bookingId\":\"" BOOKING "\",\"status\":\"confirmed\","
                       "\"total\":10,\"available\":8,\"held\":0,\"booked\":2}\n\n"
                       "event: counters\ndata: {\"eventId\":1,\"total\":10,\"available\":8,"
                       "\"held\":0,\"booked\":2}\n\n");
    /* no seat moved */
    snprintf(change.id, sizeof(change.id), "alpha.7-12-1");
    change.seat_count = 0;
    change.status = "failed";
    fake_router_tell(edge->router, &change);
    reader_await(edge, reader,
                 "event: seats\nid: alpha.7-12-1\ndata: {\"eventId\":1,\"seats\":[],"
                 "\"bookingId\":\"" BOOKING "\",\"status\":\"failed\",\"total\":10,");
    /* who comes at this position is told the counters alone */
    struct reader *late = reader_open(edge, "");
    await_watches(edge, 2);
    change.status = NULL;
    fake_router_tell(edge->router, &change);
    reader_await(edge, late, "event: counters\nid: alpha.7-12-1\n");
    assert_null(strstr(late->text, "bookingId"));
    reader_close(late);
    reader_close(reader);
    await_watches(edge, 0);
}

static void a_huge_change_is_a_resync(void **state)
{
    struct edge *edge = *state;
    struct reader *reader = reader_open_told(edge, 1);
    static struct seat seats[400];
    static char states[401];
    for (int i = 0; i < 400; i++)
        seats[i] = (struct seat){1, i + 1};
    memset(states, 'x', 400);
    struct live_change change = {.event_id = 1,
                                 .id = "alpha.7-11-2",
                                 .seats = seats,
                                 .seat_count = 400,
                                 .states = states,
                                 .total = 400};
    fake_router_tell(edge->router, &change);
    reader_await(edge, reader, "event: resync\nid: alpha.7-11-2\n");
    assert_null(strstr(reader->text, "event: seats"));
    reader_close(reader);
    await_watches(edge, 0);
}

static void quiet_streams_get_heartbeats_and_no_idle_timeout(void **state)
{
    struct edge *edge = *state;
    struct reader *reader = reader_open_told(edge, 1);
    reader_await(edge, reader, FIRST ":\n\n:\n\n:\n\n");
    assert_false(reader->ended);
    reader_close(reader);
    await_watches(edge, 0);
}

static void a_slow_reader_is_dropped_alone(void **state)
{
    struct edge *edge = *state;
    struct reader *slow = reader_open_told(edge, 1);
    struct reader *quick = reader_open_told(edge, 2);
    struct live_change change = first;
    char last[ROUTER_LIVE_ID_MAX + 16];
    int i = 0;
    for (; i < 200000 && edge->router->watch_count == 2; i++) {
        snprintf(change.id, sizeof(change.id), "alpha.7-%d-1", 1000 + i);
        fake_router_tell(edge->router, &change);
        turn(edge);
        quick->len = 0;
        reader_take(quick);
    }
    assert_true(i > 10 && i < 200000);
    snprintf(last, sizeof(last), "id: %s\n", change.id);
    reader_await(edge, quick, last); /* the other one has missed nothing */
    turn_ms(edge, 20);
    while (!slow->ended) {
        slow->len = 0; /* what the kernels had kept for it, then the end */
        turn(edge);
        reader_take(slow);
    }
    assert_int_equal(edge_metric("seatgrid_live_dropped_total{reason=\"slow\"}"), 1);
    assert_int_equal(edge_metric("seatgrid_live_streams{listener=\"http\"}"), 1);
    reader_close(slow);
    reader_close(quick);
    await_watches(edge, 0);
    assert_int_equal(edge_metric("seatgrid_live_streams{listener=\"http\"}"), 0);
}

static void the_bound_is_kept_and_given_back(void **state)
{
    struct edge *edge = *state;
    struct reader *readers[4];
    for (int i = 0; i < 4; i++) {
        readers[i] = reader_open(edge, "");
        await_watches(edge, i + 1); /* also those that are not open yet count */
    }
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 503);
    assert_non_null(strstr(edge->body, "\"code\":\"overloaded\""));
    edge_assert_header(edge, "Retry-After", "2");
    reader_close(readers[0]);
    fake_router_tell(edge->router, &first);
    await_watches(edge, 3);
    readers[0] = reader_open_told(edge, 4);
    for (int i = 0; i < 4; i++)
        reader_close(readers[i]);
    await_watches(edge, 0);
}

static void says_no_clearly(void **state)
{
    struct edge *edge = *state;
    edge->router->error = SG_UNKNOWN_EVENT;
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 404);
    assert_non_null(strstr(edge->body, "\"code\":\"unknown_event\""));
    assert_int_equal(edge_ask(edge, "GET", "/events/2000000/stream", "", NULL), 404);
    edge->router->error = SG_OK;
    edge->router->watch_refusal = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 503);
    assert_non_null(strstr(edge->body, "Redis"));
    edge_assert_header(edge, "Retry-After", "2");
    edge->router->watch_refusal = SG_OK;
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 503); /* at the deadline */
    assert_non_null(strstr(edge->body, "Redis"));
    await_watches(edge, 0);
    assert_int_equal(edge_ask(edge, "GET", PATH, "Accept: application/json\r\n", NULL), 406);
    assert_int_equal(edge_ask(edge, "POST", PATH, "", "{}"), 405);
    edge->settings.redis.address[0] = '\0';
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 503);
    assert_non_null(strstr(edge->body, "Redis"));
}

static void head_opens_nothing(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "HEAD", PATH, "", NULL), 200);
    edge_assert_header(edge, "Content-Type", "text/event-stream");
    assert_int_equal(edge->body_len, 0);
    assert_null(edge->router->watches);
}

static void draining_ends_streams_at_once(void **state)
{
    struct edge *edge = *state;
    struct reader *open = reader_open_told(edge, 1);
    struct reader *waiting = reader_open(edge, "");
    await_watches(edge, 2);
    http_server_drain(edge->server);
    await_watches(edge, 1);
    reader_await_end(edge, open);
    fake_router_tell(edge->router, &first);
    await_watches(edge, 0);
    reader_await(edge, waiting, "HTTP/1.1 200 OK\r\n");
    reader_await_end(edge, waiting);
    assert_int_equal(http_server_connections(edge->server), 0);
    reader_close(open);
    reader_close(waiting);
}

static void ending_the_app_lets_go_of_all(void **state)
{
    struct edge *edge = *state;
    struct reader *open = reader_open_told(edge, 1);
    struct reader *waiting = reader_open(edge, "");
    await_watches(edge, 2);
    app_end_streams(edge->app);
    assert_null(edge->router->watches);
    reader_await_end(edge, open);
    reader_await(edge, waiting, "HTTP/1.1 503 ");
    assert_int_equal(edge_ask(edge, "GET", PATH, "", NULL), 503);
    reader_close(open);
    reader_close(waiting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(opens_with_the_first_change, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(tells_seats_resync_and_end, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(tells_what_became_of_a_booking, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(a_huge_change_is_a_resync, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(quiet_streams_get_heartbeats_and_no_idle_timeout, setup,
                                        edge_teardown),
        cmocka_unit_test_setup_teardown(a_slow_reader_is_dropped_alone, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(the_bound_is_kept_and_given_back, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(says_no_clearly, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(head_opens_nothing, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(draining_ends_streams_at_once, setup, edge_teardown),
        cmocka_unit_test_setup_teardown(ending_the_app_lets_go_of_all, setup, edge_teardown),
    };
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
