/*
 * Demo event, first booking, curl lines. See demo.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/demo.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/dynbuf.h"
#include "cli/admin_client.h"

#define ASK_TIMEOUT_MS 10000
#define DAYS_AHEAD 30
#define ANSWER_MAX (1 << 16)

/* POSTs and checks the status; the answer's body is left in `ret_body`. */
static enum sg_error post(struct cluster *cluster, const char *path, const char *body,
                          struct dynbuf *ret_body)
{
    char address[64];
    char why[256] = "";
    int status = 0;
    snprintf(address, sizeof(address), "127.0.0.1:%d", cluster->options.http_port);
    enum sg_error error = admin_call(address, "POST", path, body, strlen(body), ASK_TIMEOUT_MS,
                                     &status, ret_body, why, sizeof(why));
    if (error)
        return cluster_fail(cluster, "POST %s: %s", path, why);
    if (status != 201)
        return cluster_fail(cluster, "POST %s: %d: %s", path, status, dynbuf_text(ret_body));
    return SG_OK;
}

static enum sg_error make_event(struct cluster *cluster, json_int_t *ret_id, char ret_shard[64])
{
    char body[256];
    char starts[32];
    struct tm tm;
    struct dynbuf answer;
    time_t start = time(NULL) + DAYS_AHEAD * 86400;
    gmtime_r(&start, &tm);
    strftime(starts, sizeof(starts), "%Y-%m-%dT19:00:00Z", &tm);
    snprintf(body, sizeof(body), "{\"name\":\"Demo\",\"startsAt\":\"%s\",\"rows\":10,\"cols\":20}",
             starts);
    dynbuf_init(&answer, ANSWER_MAX);
    enum sg_error error = post(cluster, "/events", body, &answer);
    json_t *event = error ? NULL : json_loadb(answer.data, answer.len, 0, NULL);
    json_t *id = json_object_get(event, "id");
    const char *shard = json_string_value(json_object_get(event, "shard"));
    if (!error && (!json_is_integer(id) || !shard))
        error = cluster_fail(cluster, "POST /events: no id or shard in %s", dynbuf_text(&answer));
    if (!error) {
        *ret_id = json_integer_value(id);
        snprintf(ret_shard, 64, "%s", shard);
    }
    json_decref(event);
    dynbuf_done(&answer);
    return error;
}

static enum sg_error make_booking(struct cluster *cluster, json_int_t event)
{
    char body[256];
    struct dynbuf answer;
    snprintf(body, sizeof(body),
             "{\"eventId\":%lld,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7},"
             "{\"row\":3,\"col\":8}]}",
             (long long)event);
    dynbuf_init(&answer, ANSWER_MAX);
    enum sg_error error = post(cluster, "/book", body, &answer);
    dynbuf_done(&answer);
    return error;
}

static void print_curl_lines(const struct cluster *cluster, long long event)
{
    int http = cluster->options.http_port;
    int admin = cluster->options.admin_port;
    printf("Try, in another terminal:\n\n"
           "  # book two seats: 201\n"
           "  curl -i 127.0.0.1:%d/book --json '{\"eventId\":%lld,\n"
           "    \"userId\":\"u-2\",\"seats\":[{\"row\":4,\"col\":1},{\"row\":4,\"col\":2}]}'\n",
           http, event);
    printf("  # one of the seats that u-1 has: 409, with the seat named\n"
           "  curl -i 127.0.0.1:%d/book --json '{\"eventId\":%lld,\n"
           "    \"userId\":\"u-2\",\"seats\":[{\"row\":3,\"col\":7}]}'\n",
           http, event);
    printf("  # the seat map: . available, x booked\n"
           "  curl 127.0.0.1:%d/events/%lld/seats\n"
           "  # an event of your own, a million seats\n"
           "  curl 127.0.0.1:%d/events --json '{\"name\":\"Mine\",\n"
           "    \"startsAt\":\"2030-06-01T19:00:00Z\",\"rows\":1000,\"cols\":1000}'\n",
           http, event, http);
    printf("  # how many are left, what u-1 holds, seat changes as they come\n"
           "  curl 127.0.0.1:%d/events/%lld/availability\n"
           "  curl 127.0.0.1:%d/users/u-1/tickets\n"
           "  curl -N 127.0.0.1:%d/events/%lld/stream\n",
           http, event, http, http, event);
    printf("  # figures, and the documentation\n"
           "  curl 127.0.0.1:%d/metrics\n"
           "  http://127.0.0.1:%d/docs\n"
           "  # which server is what\n"
           "  build/seatgrid dev status --var %s\n"
           "  build/seatgrid nodes -c %s/seatgrid.cfg\n\n",
           admin, http, cluster->options.var, cluster->options.var);
}

enum sg_error demo_play(struct cluster *cluster)
{
    json_int_t event = 0;
    char shard[64] = "";
    enum sg_error error = make_event(cluster, &event, shard);
    if (!error)
        error = make_booking(cluster, event);
    if (error)
        return error;
    printf("\nSeatGrid runs on http://127.0.0.1:%d. Ctrl-C stops it.\n"
           "Made event %lld on shard %s, 10 rows of 20 seats, and booked 3:7 and 3:8\n"
           "for u-1.\n\n",
           cluster->options.http_port, (long long)event, shard);
    print_curl_lines(cluster, (long long)event);
    fflush(stdout);
    return SG_OK;
}
