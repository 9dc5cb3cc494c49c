/*
 * Goal: a seat map comes in the representation and coding that was asked for, costs no body when
 * the client has it, and its references are all given back.
 * Method: the real edge and app in front of a fake router; bodies are unpacked again with zlib,
 * protobuf and jansson. The fixture fails if a seat map stays alive.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include <jansson.h>
#include <zlib.h>

#include "proto/seatgrid.pb-c.h"

#define STATES "..hx......" /* 2 rows of 5 */
#define COMPACT "{\"eventId\":1,\"rows\":2,\"cols\":5,\"seats\":[\"..hx.\",\".....\"]}"
#define PROTOBUF "Accept: application/x-protobuf\r\n"
#define FULL "Accept: application/vnd.seatgrid.full+json\r\n"
#define GZIP "Accept-Encoding: gzip\r\n"

static void give(struct edge *edge, int32_t rows, int32_t cols, const char *states)
{
    if (edge->router->seatmap)
        seatmap_unref(edge->router->seatmap);
    edge->router->seatmap = fake_seatmap_new(1, rows, cols, states);
}

static void gunzip(struct edge *edge, char *ret_text, size_t size)
{
    z_stream stream = {.next_in = (Bytef *)edge->body,
                       .avail_in = (uInt)edge->body_len,
                       .next_out = (Bytef *)ret_text,
                       .avail_out = (uInt)size - 1};
    assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK);
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    ret_text[stream.total_out] = '\0';
    inflateEnd(&stream);
}

static void compact_json_is_the_default(void **state)
{
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 200);
    assert_string_equal(edge->body, COMPACT);
    edge_assert_header(edge, "Content-Type", "application/json");
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-j\"");
    edge_assert_header(edge, "Vary", "Accept, Accept-Encoding");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    edge_assert_header(edge, "SeatGrid-Node", "alpha-2");
    edge_assert_header(edge, "SeatGrid-Staleness", "12ms");
    assert_int_equal(edge->router->asked_staleness_us, -1);
    assert_int_equal(edge_ask(edge, "HEAD", "/events/1/seats", "", NULL), 200);
    assert_int_equal(edge->body_len, 0);
    assert_int_equal(edge_count("GET /events/{id}/seats", "alpha", "alpha-2", "ok"), 2);
}

static void full_json_names_every_seat(void **state)
{
    static const char *const words[] = {"available", "held", "booked"};
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", FULL, NULL), 200);
    edge_assert_header(edge, "Content-Type", "application/vnd.seatgrid.full+json");
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-f\"");
    json_t *root = json_loads(edge->body, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    json_t *seats = json_object_get(root, "seats");
    assert_int_equal(json_array_size(seats), 10);
    for (int i = 0; i < 10; i++) {
        json_t *seat = json_array_get(seats, (size_t)i);
        assert_int_equal(json_integer_value(json_object_get(seat, "row")), i / 5 + 1);
        assert_int_equal(json_integer_value(json_object_get(seat, "col")), i % 5 + 1);
        const char *word = words[STATES[i] == 'h' ? 1 : STATES[i] == 'x' ? 2 : 0];
        assert_string_equal(json_string_value(json_object_get(seat, "status")), word);
    }
    json_decref(root);
}

static void protobuf_packs_two_bits_a_seat(void **state)
{
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", PROTOBUF, NULL), 200);
    edge_assert_header(edge, "Content-Type", "application/x-protobuf");
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-p\"");
    Seatgrid__SeatMap *message =
        seatgrid__seat_map__unpack(NULL, edge->body_len, (const uint8_t *)edge->body);
    assert_non_null(message);
    assert_int_equal(message->event_id, 1);
    assert_int_equal(message->rows, 2);
    assert_int_equal(message->cols, 5);
    assert_int_equal(message->seats.len, 3);
    for (int i = 0; i < 10; i++) {
        int bits = message->seats.data[i / 4] >> 2 * (i % 4) & 3;
        assert_int_equal(bits, STATES[i] == 'h' ? 1 : STATES[i] == 'x' ? 2 : 0);
    }
    seatgrid__seat_map__free_unpacked(message, NULL);
}

static void gzip_where_it_pays(void **state)
{
    struct edge *edge = *state;
    char states[5001], text[8192], plain[8192];
    memset(states, '.', 5000);
    states[5000] = '\0';
    states[17] = 'x';
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", GZIP, NULL), 200);
    assert_null(edge_header(edge, "Content-Encoding")); /* too small */
    give(edge, 50, 100, states);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 200);
    assert_null(edge_header(edge, "Content-Encoding"));
    memcpy(plain, edge->body, edge->body_len + 1);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", GZIP, NULL), 200);
    edge_assert_header(edge, "Content-Encoding", "gzip");
    edge_assert_header(edge, "Content-Type", "application/json");
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-jg\"");
    assert_true(edge->body_len < 1000);
    gunzip(edge, text, sizeof(text));
    assert_string_equal(text, plain);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", GZIP FULL, NULL), 200);
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-fg\"");
    assert_null(edge->router->seatmap->bodies[SEATMAP_FULL].data); /* made for gzip, not kept */
    assert_int_equal(
        edge_ask(edge, "GET", "/events/1/seats", "Accept-Encoding: gzip;q=0.5, identity\r\n", NULL),
        200);
    assert_null(edge_header(edge, "Content-Encoding"));
}

static void what_the_client_has_costs_no_body(void **state)
{
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats",
                              "If-None-Match: \"a\", W/\"00c0ffee12345678-j\"\r\n", NULL),
                     304);
    assert_int_equal(edge->body_len, 0);
    edge_assert_header(edge, "ETag", "\"00c0ffee12345678-j\"");
    edge_assert_header(edge, "Vary", "Accept, Accept-Encoding");
    edge_assert_header(edge, "SeatGrid-Staleness", "12ms");
    assert_null(edge_header(edge, "Content-Type"));
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "If-None-Match: *\r\n", NULL), 304);
    for (int form = 0; form < SEATMAP_FORMS; form++)
        assert_null(edge->router->seatmap->bodies[form].data);
    /* the tag of another representation is another tag */
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats",
                              PROTOBUF "If-None-Match: \"00c0ffee12345678-j\"\r\n", NULL),
                     200);
    assert_int_equal(edge_count("GET /events/{id}/seats", "alpha", "alpha-2", "not_modified"), 2);
}

static void bodies_are_made_once_and_shared(void **state)
{
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    edge_ask(edge, "GET", "/events/1/seats", "", NULL);
    const char *data = edge->router->seatmap->bodies[SEATMAP_JSON].data;
    assert_non_null(data);
    edge_ask(edge, "GET", "/events/1/seats", "", NULL);
    assert_ptr_equal(edge->router->seatmap->bodies[SEATMAP_JSON].data, data);
    for (int i = 0; i < 5; i++)
        event_base_loop(edge->base, EVLOOP_NONBLOCK);
    assert_int_equal(edge->router->seatmap->refs, 1);
}

/* The router drops its seat map while the body is still on its way to a slow reader. */
static void a_large_map_outlives_the_router_s_interest(void **state)
{
    static const char request[] =
        "GET /events/1/seats HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    struct edge *edge = *state;
    char *states = malloc(1000001);
    memset(states, '.', 1000000);
    states[1000000] = '\0';
    states[999999] = 'x';
    give(edge, 1000, 1000, states);
    free(states);
    int fd = edge_connect(edge);
    assert_int_equal(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
    for (int64_t until = clock_mono_us() + 100000; clock_mono_us() < until;)
        event_base_loop(edge->base, EVLOOP_NONBLOCK);
    assert_int_equal(edge->router->calls, 1);
    seatmap_unref(edge->router->seatmap);
    edge->router->seatmap = NULL;
    edge_read(edge, fd);
    close(fd);
    assert_int_equal(edge->status, 200);
    assert_int_equal(edge->body_len, strlen("{\"eventId\":1,\"rows\":1000,\"cols\":1000,\"seats\":"
                                            "[]}") +
                                         1000 * 1003 - 1);
    assert_string_equal(edge->body + edge->body_len - 5, ".x\"]}");
}

static void wishes_that_cannot_be_met(void **state)
{
    struct edge *edge = *state;
    give(edge, 2, 5, STATES);
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "Accept: text/html\r\n", NULL), 406);
    edge_assert_body_has(edge, "application/x-protobuf");
    edge_assert_header(edge, "Vary", "Accept, Accept-Encoding");
    edge_assert_header(edge, "SeatGrid-Shard", "alpha");
    assert_int_equal(
        edge_ask(edge, "GET", "/events/1/seats", "SeatGrid-Max-Staleness: soon\r\n", NULL), 400);
    edge_assert_body_has(edge, "SeatGrid-Max-Staleness: must be like 250ms");
    assert_int_equal(edge->router->calls, 0);
    assert_int_equal(
        edge_ask(edge, "GET", "/events/1/seats", "SeatGrid-Max-Staleness: 2s\r\n", NULL), 200);
    assert_int_equal(edge->router->asked_staleness_us, 2000000);
    edge->router->error = SG_UNKNOWN_EVENT;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 404);
    edge->router->error = SG_SHARD_UNAVAILABLE;
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", PROTOBUF, NULL), 503);
    edge_assert_header(edge, "Content-Type", "application/problem+json");
    edge_assert_header(edge, "Retry-After", "2");
}

/* Also with a 304: what the reader has now is what the token stands for. */
static void a_seat_map_tells_its_token(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    router->seatmap = fake_seatmap_new(1, 1, 2, "..");
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 200);
    assert_null(edge_header(edge, "SeatGrid-Token")); /* not known: not told */
    router->route.seen = (struct read_token){.shard = "alpha", .timeline = 3, .lsn = 0x1A};
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "", NULL), 200);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.3.1A");
    assert_int_equal(edge_ask(edge, "GET", "/events/1/seats", "If-None-Match: *\r\n", NULL), 304);
    edge_assert_header(edge, "SeatGrid-Token", "alpha.3.1A");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_seat_map_tells_its_token),
        TEST(compact_json_is_the_default),
        TEST(full_json_names_every_seat),
        TEST(protobuf_packs_two_bits_a_seat),
        TEST(gzip_where_it_pays),
        TEST(what_the_client_has_costs_no_body),
        TEST(bodies_are_made_once_and_shared),
        TEST(a_large_map_outlives_the_router_s_interest),
        TEST(wishes_that_cannot_be_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
