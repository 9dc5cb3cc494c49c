/*
 * Goal: every request finds its endpoint or a clear 4xx, and every answer carries its headers and
 * is counted.
 * Method: the real edge on 127.0.0.1 with the real app in front of a fake router; the embedded
 * page's script against the hash in the Content-Security-Policy.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/api/edge_client.h"

#include <jansson.h>

#include "api/embedded.h"
#include "api/endpoints.h"
#include "api/outcomes.h"

static void unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {
        "/",           "/event",         "/events/",          "/events/1/",
        "/events/1/x", "/events/1/seat", "/events/1/seats/2", "/events/1/bookings",
        "/Events",     "/book/",         "/healthz/x",        "/events/1/bookings/2/3",
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (edge_ask(edge, "GET", paths[i], "", NULL) != 404)
            fail_msg("%s gives %d", paths[i], edge->status);
        edge_assert_header(edge, "Content-Type", "application/problem+json");
        edge_assert_header(edge, "SeatGrid-Map-Version", "7");
        edge_assert_body_has(edge, "\"code\":\"not_found\"");
    }
    assert_int_equal(edge_count("unmatched", "", "", "not_found"), 12);
    assert_int_equal(edge->router->calls, 0);
}

static void wrong_methods_are_405_and_say_which_are_right(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "DELETE", "/events", "", NULL), 405);
    edge_assert_header(edge, "Allow", "GET, HEAD, POST, OPTIONS");
    assert_int_equal(edge_ask(edge, "GET", "/book", "", NULL), 405);
    edge_assert_header(edge, "Allow", "POST, OPTIONS");
    assert_int_equal(edge_ask(edge, "POST", "/events/1/seats", "", "{}"), 405);
    edge_assert_header(edge, "Allow", "GET, HEAD, OPTIONS");
    edge_assert_body_has(edge, "\"code\":\"method_not_allowed\"");
    assert_int_equal(edge_ask(edge, "PUT", "/events/nonsense", "", "{}"), 405);
}

static void options_tell_the_methods(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "OPTIONS", "/events", "", NULL), 204);
    edge_assert_header(edge, "Allow", "GET, HEAD, POST, OPTIONS");
    assert_int_equal(edge_ask(edge, "OPTIONS", "/events/1", "", NULL), 204);
    edge_assert_header(edge, "Allow", "GET, HEAD, OPTIONS");
    assert_int_equal(edge_ask(edge, "OPTIONS", "/nothing", "", NULL), 404);
    assert_int_equal(edge->router->calls, 0);
}

static void malformed_ids_are_400(void **state)
{
    static const char *const paths[] = {
        "/events/abc",
        "/events/-1",
        "/events/0",
        "/events/01",
        "/events/1e3",
        "/events/+1",
        "/events/1%20",
        "/events/9223372036854775808",
        "/events/99999999999999999999999999/seats",
        "/events/x/bookings/0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a",
        "/events/1/bookings/7",
        "/events/1/bookings/0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7g",
    };
    struct edge *edge = *state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (edge_ask(edge, "GET", paths[i], "", NULL) != 400)
            fail_msg("%s gives %d", paths[i], edge->status);
        edge_assert_body_has(edge, "id in the path: must be");
    }
    assert_int_equal(edge->router->calls, 0);
}

static void head_is_get_without_the_body(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "GET", "/healthz", "", NULL), 200);
    assert_string_equal(edge->body, "{\"status\":\"alive\"}");
    assert_int_equal(edge_ask(edge, "HEAD", "/healthz", "", NULL), 200);
    edge_assert_header(edge, "Content-Length", "18");
    assert_int_equal(edge->body_len, 0);
    assert_int_equal(edge_count("GET /healthz", "", "", "ok"), 2);
}

static void ready_means_every_shard(void **state)
{
    struct edge *edge = *state;
    struct router *router = edge->router;
    assert_int_equal(edge_ask(edge, "GET", "/readyz", "", NULL), 503); /* no shard at all */
    edge_assert_body_has(edge, "\"shards\":[]");
    router->status_count = 2;
    router->status[0] = (struct shard_status){"alpha", true, true};
    router->status[1] = (struct shard_status){"beta", true, true};
    assert_int_equal(edge_ask(edge, "GET", "/readyz", "", NULL), 200);
    assert_string_equal(
        edge->body,
        "{\"ready\":true,\"shards\":[{\"shard\":\"alpha\",\"readable\":true,\"writable\":true},"
        "{\"shard\":\"beta\",\"readable\":true,\"writable\":true}]}");
    edge_assert_header(edge, "Content-Type", "application/json");
    router->status[1].writable = false;
    assert_int_equal(edge_ask(edge, "GET", "/readyz", "", NULL), 503);
    edge_assert_header(edge, "Content-Type", "application/problem+json");
    edge_assert_header(edge, "Retry-After", "2");
    edge_assert_body_has(edge, "\"code\":\"shard_unavailable\"");
    edge_assert_body_has(edge, "{\"shard\":\"beta\",\"readable\":true,\"writable\":false}");
    json_t *root = json_loads(edge->body, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    json_decref(root);
}

static void metrics_are_served(void **state)
{
    struct edge *edge = *state;
    edge_ask(edge, "GET", "/healthz", "", NULL);
    assert_int_equal(edge_ask(edge, "GET", "/metrics", "", NULL), 200);
    edge_assert_header(edge, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    edge_assert_body_has(edge, "seatgrid_http_requests_total{route=\"GET /healthz\",shard=\"\","
                               "node=\"\",outcome=\"ok\"} 1\n");
    edge_assert_body_has(edge, "seatgrid_http_request_duration_seconds_count{route=\"GET "
                               "/healthz\",shard=\"\",node=\"\",outcome=\"ok\"} 1\n");
}

static void what_the_edge_refuses_is_counted(void **state)
{
    struct edge *edge = *state;
    assert_int_equal(edge_ask(edge, "GET", "/healthz", "Host: twice\r\n", NULL), 400);
    assert_int_equal(edge_count("refused", "", "", "malformed_request"), 1);
}

static void documents_are_cached_by_their_tag(void **state)
{
    static const char *const paths[] = {"/openapi.json", "/docs"};
    static const char *const types[] = {"application/json", "text/html; charset=utf-8"};
    struct edge *edge = *state;
    for (int i = 0; i < 2; i++) {
        char header[128];
        assert_int_equal(edge_ask(edge, "GET", paths[i], "", NULL), 200);
        edge_assert_header(edge, "Content-Type", types[i]);
        edge_assert_header(edge, "Cache-Control", "public, max-age=60");
        assert_int_equal(edge->body_len, embedded_len(i ? &embedded_docs : &embedded_openapi));
        assert_int_equal(edge_header(edge, "ETag")[0], '"');
        snprintf(header, sizeof(header), "If-None-Match: W/%.60s\r\n", edge_header(edge, "ETag"));
        assert_int_equal(edge_ask(edge, "GET", paths[i], header, NULL), 304);
        assert_int_equal(edge->body_len, 0);
        assert_non_null(edge_header(edge, "ETag"));
    }
    assert_int_equal(edge_count("GET /docs", "", "", "not_modified"), 1);
    assert_int_equal(edge_ask(edge, "GET", "/docs", "", NULL), 200);
    assert_non_null(strstr(edge_header(edge, "Content-Security-Policy"), DOCS_SCRIPT_SHA256));
}

/* base64 of 64 hexadecimal digits, as a Content-Security-Policy writes a SHA-256. */
static void base64_of_hex(const char *hex, char *ret_text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char bytes[33] = {0};
    for (int i = 0; i < 32; i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &bytes[i]), 1);
    for (int i = 0; i < 11; i++) {
        unsigned three = (unsigned)(bytes[3 * i] << 16 | bytes[3 * i + 1] << 8 | bytes[3 * i + 2]);
        for (int k = 0; k < 4; k++)
            *ret_text++ = alphabet[three >> (18 - 6 * k) & 63];
    }
    ret_text[-1] = '=';
    *ret_text = '\0';
}

static void the_page_allows_its_own_script(void **state)
{
    char path[] = "/tmp/seatgrid-script-XXXXXX", command[96], hex[80] = "", hash[48];
    const char *start = strstr(embedded_docs.start, "<script>");
    const char *end = start ? strstr(start, "</script>") : NULL;
    int fd = mkstemp(path);
    (void)state;
    assert_non_null(end);
    start += strlen("<script>");
    assert_int_equal(write(fd, start, (size_t)(end - start)), end - start);
    close(fd);
    snprintf(command, sizeof(command), "sha256sum < %s", path);
    FILE *sum = popen(command, "r");
    assert_non_null(fgets(hex, sizeof(hex), sum));
    pclose(sum);
    unlink(path);
    base64_of_hex(hex, hash);
    if (strcmp(hash, DOCS_SCRIPT_SHA256) != 0)
        fail_msg("the script of api/docs.html changed: set DOCS_SCRIPT_SHA256 to %s", hash);
    assert_null(strstr(embedded_docs.start, "http://cdn"));
    assert_null(strstr(embedded_docs.start, "src=\"http"));
}

static void endpoints_are_found_by_method_and_path(void **state)
{
    struct endpoint_match match;
    (void)state;
    endpoints_match(HTTP_HEAD, "/events/77/bookings/abc", &match);
    assert_string_equal(match.endpoint->route, "GET /events/{id}/bookings/{bookingId}");
    assert_int_equal(match.id.len, 2);
    assert_memory_equal(match.id.start, "77", 2);
    assert_int_equal(match.target.len, 3);
    assert_string_equal(match.target_kind, "booking");
    endpoints_match(HTTP_DELETE, "/events/7/bookings/abc", &match);
    assert_string_equal(match.endpoint->route, "DELETE /events/{id}/bookings/{bookingId}");
    endpoints_match(HTTP_GET, "/events/7/orders/abc", &match);
    assert_string_equal(match.target_kind, "order");
    endpoints_match(HTTP_GET, "/events/7/waitlist/abcd", &match);
    assert_string_equal(match.target_kind, "entry");
    assert_int_equal(match.target.len, 4);
    endpoints_match(HTTP_POST, "/events/7/waitlist/abcd", &match);
    assert_null(match.endpoint);
    assert_string_equal(endpoints_allow(match.methods), "GET, HEAD, DELETE, OPTIONS");
    endpoints_match(HTTP_GET, "/events//seats", &match);
    assert_null(match.endpoint);
    assert_int_equal(match.methods, 0);
    endpoints_match(HTTP_METHOD_OTHER, "/events", &match);
    assert_null(match.endpoint);
    assert_int_equal(match.methods, 1u << HTTP_GET | 1u << HTTP_POST);
}

/* More combinations than the table holds are counted all the same. */
static void outcomes_are_counted_past_the_table(void **state)
{
    struct metrics_set *set = metrics_set_new();
    struct outcomes *outcomes = outcomes_new(set);
    char node[16];
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 900; i++) {
            snprintf(node, sizeof(node), "n%d", i);
            outcomes_count(outcomes, "r", "alpha", node, OUTCOME_REPLAYED, 10);
        }
    }
    assert_int_equal(edge_count("r", "alpha", "n0", "replayed"), 2);
    assert_int_equal(edge_count("r", "alpha", "n700", "replayed"), 2);
    assert_int_equal(edge_count("r", "alpha", "n899", "replayed"), 2);
    outcomes_free(outcomes);
    metrics_shutdown();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, edge_setup, edge_teardown)
    const struct CMUnitTest tests[] = {
        TEST(unknown_paths_are_404),
        TEST(wrong_methods_are_405_and_say_which_are_right),
        TEST(options_tell_the_methods),
        TEST(malformed_ids_are_400),
        TEST(head_is_get_without_the_body),
        TEST(ready_means_every_shard),
        TEST(metrics_are_served),
        TEST(what_the_edge_refuses_is_counted),
        TEST(documents_are_cached_by_their_tag),
        cmocka_unit_test(the_page_allows_its_own_script),
        cmocka_unit_test(endpoints_are_found_by_method_and_path),
        cmocka_unit_test(outcomes_are_counted_past_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
