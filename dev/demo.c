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

struct demo {
    char event[24]; /* its id */
    char hold[40];  /* a booking's id */
};

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

/* POSTs, and gives the text of a field of the answer, here in decimal if it is a number. */
static enum sg_error post_for(struct cluster *cluster, const char *path, const char *body,
                              const char *field, char *ret_text, size_t size)
{
    struct dynbuf answer;
    dynbuf_init(&answer, ANSWER_MAX);
    enum sg_error error = post(cluster, path, body, &answer);
    json_t *root = error ? NULL : json_loadb(answer.data, answer.len, 0, NULL);
    const json_t *value = json_object_get(root, field);
    if (json_is_string(value))
        snprintf(ret_text, size, "%s", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(ret_text, size, "%lld", (long long)json_integer_value(value));
    else if (!error)
        error = cluster_fail(cluster, "POST %s: no %s in %s", path, field, dynbuf_text(&answer));
    json_decref(root);
    dynbuf_done(&answer);
    return error;
}

static enum sg_error make_event(struct cluster *cluster, struct demo *demo)
{
    char body[512];
    char starts[32];
    struct tm tm;
    time_t start = time(NULL) + DAYS_AHEAD * 86400;
    gmtime_r(&start, &tm);
    strftime(starts, sizeof(starts), "%Y-%m-%dT19:00:00Z", &tm);
    snprintf(body, sizeof(body),
             "{\"name\":\"Demo\",\"startsAt\":\"%s\",\"rows\":10,\"cols\":20,\"currency\":\"EUR\","
             "\"tiers\":[{\"name\":\"stalls\",\"price\":4500,\"rows\":{\"first\":1,\"last\":6}},"
             "{\"name\":\"circle\",\"price\":3000,\"rows\":{\"first\":7,\"last\":10}}]}",
             starts);
    return post_for(cluster, "/events", body, "id", demo->event, sizeof(demo->event));
}

static enum sg_error make_booking(struct cluster *cluster, struct demo *demo)
{
    char body[256];
    char status[32];
    snprintf(body, sizeof(body),
             "{\"eventId\":%s,\"userId\":\"u-1\",\"seats\":[{\"row\":3,\"col\":7},"
             "{\"row\":3,\"col\":8}]}",
             demo->event);
    return post_for(cluster, "/book", body, "status", status, sizeof(status));
}

static enum sg_error make_hold(struct cluster *cluster, struct demo *demo)
{
    char path[64];
    snprintf(path, sizeof(path), "/events/%s/holds", demo->event);
    return post_for(cluster, path,
                    "{\"userId\":\"u-1\",\"seats\":[{\"row\":5,\"col\":1}],\"ttlSeconds\":900}",
                    "bookingId", demo->hold, sizeof(demo->hold));
}

static void print_bookings(int http, const char *event)
{
    printf("Try, in another terminal:\n\n"
           "  # book two seats: 201; the same again, by its key, is the same booking\n"
           "  curl -i 127.0.0.1:%d/book -H 'Idempotency-Key: k-1' --json '{\n"
           "    \"eventId\":%s,\"userId\":\"u-2\",\"seats\":[{\"row\":4,\"col\":1},\n"
           "    {\"row\":4,\"col\":2}]}'\n",
           http, event);
    printf("  # one of the seats that u-1 has: 409, with the seat named\n"
           "  curl -i 127.0.0.1:%d/book --json '{\"eventId\":%s,\n"
           "    \"userId\":\"u-2\",\"seats\":[{\"row\":3,\"col\":7}]}'\n",
           http, event);
    printf("  # the best two seats side by side of a tier: 201\n"
           "  curl -i 127.0.0.1:%d/book --json '{\"eventId\":%s,\n"
           "    \"userId\":\"u-2\",\"best\":[{\"tier\":\"circle\",\"quantity\":2}]}'\n",
           http, event);
}

/* Its path is a variable: with the address before it, a line would not fit a terminal. */
static void print_hold(int http, const char *event, const char *hold)
{
    printf("  # hold two seats for five minutes: 201\n"
           "  curl -i 127.0.0.1:%d/events/%s/holds --json '{\"userId\":\"u-3\",\n"
           "    \"best\":[{\"quantity\":2}],\"ttlSeconds\":300}'\n",
           http, event);
    printf("  # u-1's hold of 5:1: extended, confirmed, given to u-6, cancelled: 200 each\n"
           "  HOLD=events/%s/bookings/%s\n"
           "  curl -i 127.0.0.1:%d/$HOLD/extend --json '{\"userId\":\"u-1\",\n"
           "    \"ttlSeconds\":900}'\n"
           "  curl -i -X POST 127.0.0.1:%d/$HOLD/confirm -H 'X-User-Id: u-1'\n"
           "  curl -i 127.0.0.1:%d/$HOLD/transfer --json '{\"userId\":\"u-1\",\n"
           "    \"toUserId\":\"u-6\"}'\n"
           "  curl -i -X DELETE 127.0.0.1:%d/$HOLD -H 'X-User-Id: u-6'\n",
           event, hold, http, http, http, http);
}

static void print_orders(int http, const char *event)
{
    printf("  # order two seats and pay for them: 201; `seatgrid mockpay` takes the money\n"
           "  curl -i 127.0.0.1:%d/events/%s/orders --json '{\"userId\":\"u-4\",\n"
           "    \"best\":[{\"quantity\":2}],\"payment\":{\"method\":\"card\"}}'\n",
           http, event);
    printf("  # the payment is declined, and the seats are free again: 402\n"
           "  curl -i 127.0.0.1:%d/events/%s/orders --json '{\"userId\":\"u-4\",\n"
           "    \"best\":[{\"quantity\":2}],\"payment\":{\"method\":\"decline\"}}'\n",
           http, event);
    printf("  # not waited for: 202; ask at its Location, or watch the stream below\n"
           "  curl -i 127.0.0.1:%d/events/%s/orders -H 'Prefer: respond-async' \\\n"
           "    --json '{\"userId\":\"u-4\",\"best\":[{\"quantity\":2}],\n"
           "    \"payment\":{\"method\":\"late\"}}'\n",
           http, event);
}

static void print_waiting(const struct cluster *cluster, int http, const char *event)
{
    printf("  # wait for seats that come back: 201, offered at once while there are some\n"
           "  curl -i 127.0.0.1:%d/events/%s/waitlist --json '{\"userId\":\"u-5\",\n"
           "    \"quantity\":2}'\n",
           http, event);
    if (cluster->options.queue == 1)
        printf("  # through RabbitMQ and `seatgrid worker`: 202; ask at its Location\n"
               "  curl -i 127.0.0.1:%d/book -H 'Prefer: respond-async' --json '{\n"
               "    \"eventId\":%s,\"userId\":\"u-7\",\"best\":[{\"quantity\":2}]}'\n",
               http, event);
}

static void print_looks(const struct cluster *cluster, const char *event)
{
    int http = cluster->options.http_port;
    int admin = cluster->options.admin_port;
    printf("  # the seat map: . available, h held, x booked\n"
           "  curl 127.0.0.1:%d/events/%s/seats\n"
           "  # an event of your own, a million seats\n"
           "  curl 127.0.0.1:%d/events --json '{\"name\":\"Mine\",\n"
           "    \"startsAt\":\"2030-06-01T19:00:00Z\",\"rows\":1000,\"cols\":1000}'\n",
           http, event, http);
    printf("  # how many are left, what u-2 has, seat changes as they come\n"
           "  curl 127.0.0.1:%d/events/%s/availability\n"
           "  curl 127.0.0.1:%d/users/u-2/tickets\n"
           "  curl -N 127.0.0.1:%d/events/%s/stream\n",
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
    struct demo demo = {.event = ""};
    int http = cluster->options.http_port;
    enum sg_error error = make_event(cluster, &demo);
    if (!error)
        error = make_booking(cluster, &demo);
    if (!error)
        error = make_hold(cluster, &demo);
    if (error)
        return error;
    printf("\nSeatGrid runs on http://127.0.0.1:%d. Ctrl-C stops it.\n"
           "Made event %s, 10 rows of 20 seats in two tiers, booked 3:7 and 3:8 for u-1\n"
           "and held 5:1 for a quarter of an hour.\n\n",
           http, demo.event);
    print_bookings(http, demo.event);
    print_hold(http, demo.event, demo.hold);
    print_orders(http, demo.event);
    print_waiting(cluster, http, demo.event);
    print_looks(cluster, demo.event);
    fflush(stdout);
    return SG_OK;
}
