/*
 * The router's own cost: one request at a time through SeatGrid beside the same SQL statement sent
 * straight to PostgreSQL, in alternating blocks of one run, so that a noisy machine is fair to
 * both.
 *
 *   block: router  keep-alive connection ── POST /book ──> seatgrid ── take_batch ──> primary
 *   block: direct  libpq, prepared, binary parameters ──── take_batch ──────────────> primary
 *   block: hop     the same connection ──── GET /healthz ──> seatgrid
 *
 * The direct arm prepares what the router prepares (router/statements.h) with the arguments that a
 * lone request has. The hop says how much of the difference is HTTP over a socket at all.
 * Out goes one JSON object with exact quantiles of every arm. Everything blocks, one thread.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/uuid.h"
#include "router/params.h"
#include "router/statements.h"

#define ARMS 3
#define ANSWER_MAX (1 << 20)

enum arm { ARM_ROUTER, ARM_DIRECT, ARM_HOP };
static const char *const arm_names[ARMS] = {"router", "direct", "hop"};

struct compare {
    const char *dsn;
    const char *address;
    bool reads; /* seat maps instead of bookings */
    int64_t event_id, cols, seat, epoch;
    int64_t blocks, block;
    int fd;
    PGconn *connection;
    struct params params;
    int64_t *samples_ns[ARMS];
    int64_t count[ARMS];
    double *block_p50_us[ARMS];
    double *block_p99_us[ARMS];
    int64_t block_count[ARMS];
    char answer[ANSWER_MAX];
};

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("direct_libpq: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* --- over HTTP -------------------------------------------------------------------------------- */

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[64];
    int port, one = 1;
    if (sscanf(address, "%63[^:]:%d", host, &port) != 2 || !inet_aton(host, &to.sin_addr))
        die("not an IPv4 HOST:PORT: %s", address);
    to.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("cannot connect to %s: %m", address);
    return fd;
}

/* Sends one request, reads the whole answer, returns its status. */
static int exchange(struct compare *compare, const char *request, size_t len)
{
    if (send(compare->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("cannot send: %m");
    size_t got = 0, wanted = 0;
    do {
        ssize_t n = recv(compare->fd, compare->answer + got, ANSWER_MAX - 1 - got, 0);
        if (n <= 0)
            die("the server hung up or sent more than %d bytes", ANSWER_MAX);
        got += (size_t)n;
        compare->answer[got] = '\0';
        char *blank = wanted ? NULL : strstr(compare->answer, "\r\n\r\n");
        if (!blank)
            continue;
        const char *length = strcasestr(compare->answer, "\r\nContent-Length:");
        if (!length)
            die("an answer without Content-Length");
        wanted = (size_t)(blank + 4 - compare->answer) + strtoull(length + 17, NULL, 10);
    } while (!wanted || got < wanted);
    return atoi(compare->answer + 9);
}

static void request_router(struct compare *compare)
{
    char body[256], request[512];
    int len, wanted;
    if (compare->reads) {
        wanted = 200;
        len = snprintf(request, sizeof(request),
                       "GET /events/%" PRId64 "/seats HTTP/1.1\r\nHost: bench\r\n\r\n",
                       compare->event_id);
    } else {
        int64_t seat = compare->seat++;
        wanted = 201;
        int body_len = snprintf(
            body, sizeof(body),
            "{\"eventId\":%" PRId64 ",\"userId\":\"u-1\",\"seats\":[{\"row\":%" PRId64
            ",\"col\":%" PRId64 "}]}",
            compare->event_id, (seat - 1) / compare->cols + 1, (seat - 1) % compare->cols + 1);
        len = snprintf(request, sizeof(request),
                       "POST /book HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                       "Content-Length: %d\r\n\r\n%s",
                       body_len, body);
    }
    int status = exchange(compare, request, (size_t)len);
    if (status != wanted)
        die("status %d instead of %d: %s", status, wanted, compare->answer);
}

static void request_hop(struct compare *compare)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n";
    if (exchange(compare, request, sizeof(request) - 1) != 200)
        die("/healthz: %s", compare->answer);
}

/* --- straight to PostgreSQL ------------------------------------------------------------------- */

static enum statement direct_statement(const struct compare *compare)
{
    return compare->reads ? STATEMENT_SEATMAP : STATEMENT_TAKE_BATCH;
}

static void open_direct(struct compare *compare)
{
    const struct statement_info *info = statement_info(direct_statement(compare));
    /* the session as the router has it, so that only the router is between the two */
    const char *keys[] = {"dbname", "options", NULL};
    const char *values[] = {compare->dsn, STATEMENT_SESSION_OPTIONS, NULL};
    compare->connection = PQconnectdbParams(keys, values, 1);
    if (PQstatus(compare->connection) != CONNECTION_OK)
        die("%s", PQerrorMessage(compare->connection));
    PGresult *result = PQexec(compare->connection, "SELECT epoch FROM shard_meta");
    if (PQntuples(result) != 1)
        die("no shard_meta: %s", PQerrorMessage(compare->connection));
    compare->epoch = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    result = PQprepare(compare->connection, info->name, info->sql, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die("%s", PQerrorMessage(compare->connection));
    PQclear(result);
}

static void array_of_one_i32(struct params *params, int32_t value)
{
    params_array_begin(params, PARAMS_INT4, 1);
    params_array_i32(params, value);
    params_array_end(params);
}

static void array_of_one_i64(struct params *params, int64_t value)
{
    params_array_begin(params, PARAMS_INT8, 1);
    params_array_i64(params, value);
    params_array_end(params);
}

static void array_of_one_text(struct params *params, const char *value)
{
    params_array_begin(params, PARAMS_TEXT, 1);
    params_array_text(params, value);
    params_array_end(params);
}

static void array_of_one_bool(struct params *params, bool value)
{
    params_array_begin(params, PARAMS_BOOL, 1);
    params_array_bool(params, value);
    params_array_end(params);
}

/* The arguments of take_batch for one request of one seat. */
static void fill_booking(struct compare *compare)
{
    struct params *params = &compare->params;
    struct uuid booking_id = uuid_v7(clock_wall_us());
    int64_t seat = compare->seat++;
    params_i64(params, compare->epoch);
    array_of_one_i64(params, compare->event_id);
    params_array_begin(params, PARAMS_UUID, 1);
    params_array_uuid(params, &booking_id);
    params_array_end(params);
    array_of_one_text(params, "u-1");
    array_of_one_text(params, NULL);
    array_of_one_i64(params, 1);
    array_of_one_bool(params, false);
    array_of_one_bool(params, false);
    params_array_begin(params, PARAMS_INT8, 1);
    params_array_null(params);
    params_array_end(params);
    array_of_one_text(params, NULL);
    array_of_one_i32(params, 1);
    array_of_one_i32(params, (int32_t)((seat - 1) / compare->cols + 1));
    array_of_one_i32(params, (int32_t)((seat - 1) % compare->cols + 1));
    params_i64(params, 0);
}

static void request_direct(struct compare *compare)
{
    const struct statement_info *info = statement_info(direct_statement(compare));
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX], formats[PARAMS_MAX];
    params_init(&compare->params);
    if (compare->reads)
        params_i64(&compare->params, compare->event_id);
    else
        fill_booking(compare);
    params_export(&compare->params, values, lengths, formats);
    PGresult *result = PQexecPrepared(compare->connection, info->name, compare->params.count,
                                      values, lengths, formats, info->result_format);
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
        die("%s: %s", info->name, PQerrorMessage(compare->connection));
    if (!compare->reads && strcmp(PQgetvalue(result, 0, 1), "booked") != 0)
        die("%s: %s", info->name, PQgetvalue(result, 0, 1));
    PQclear(result);
    params_done(&compare->params);
}

/* --- the run ---------------------------------------------------------------------------------- */

static int compare_samples(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(const int64_t *sorted_ns, int64_t count, double quantile)
{
    int64_t index = (int64_t)(quantile * (double)count);
    return (double)sorted_ns[index < count ? index : count - 1] / 1000;
}

static void request_one(struct compare *compare, enum arm arm)
{
    if (arm == ARM_ROUTER)
        request_router(compare);
    else if (arm == ARM_DIRECT)
        request_direct(compare);
    else
        request_hop(compare);
}

static void run_block(struct compare *compare, enum arm arm)
{
    int64_t *samples = compare->samples_ns[arm] + compare->count[arm];
    for (int64_t i = 0; i < compare->block; i++) {
        int64_t start = now_ns();
        request_one(compare, arm);
        samples[i] = now_ns() - start;
    }
    qsort(samples, (size_t)compare->block, sizeof(*samples), compare_samples);
    int64_t turn = compare->block_count[arm]++;
    compare->block_p50_us[arm][turn] = quantile_us(samples, compare->block, 0.5);
    compare->block_p99_us[arm][turn] = quantile_us(samples, compare->block, 0.99);
    compare->count[arm] += compare->block;
}

static void run_blocks(struct compare *compare)
{
    for (int arm = 0; arm < ARMS; arm++) {
        size_t samples = (size_t)(compare->blocks * compare->block);
        compare->samples_ns[arm] = calloc(samples, sizeof(int64_t));
        compare->block_p50_us[arm] = calloc((size_t)compare->blocks, sizeof(double));
        compare->block_p99_us[arm] = calloc((size_t)compare->blocks, sizeof(double));
        if (!compare->samples_ns[arm] || !compare->block_p50_us[arm] || !compare->block_p99_us[arm])
            die("out of memory");
        for (int64_t i = 0; i < compare->block; i++) /* warm-up, not counted */
            request_one(compare, (enum arm)arm);
    }
    for (int64_t block = 0; block < compare->blocks; block++)
        for (int turn = 0; turn < ARMS; turn++) /* there and back, so that none is always first */
            run_block(compare, (enum arm)(block % 2 ? ARMS - 1 - turn : turn));
}

static void print_blocks(const char *name, const double *values_us, int64_t count)
{
    printf(", \"%s\": [", name);
    for (int64_t i = 0; i < count; i++)
        printf("%s%.2f", i ? ", " : "", values_us[i]);
    printf("]");
}

static void print_arm(struct compare *compare, int arm)
{
    int64_t *samples = compare->samples_ns[arm];
    int64_t count = compare->count[arm];
    qsort(samples, (size_t)count, sizeof(*samples), compare_samples);
    printf("\"%s\": {\"count\": %" PRId64, arm_names[arm], count);
    printf(", \"p50_us\": %.2f", quantile_us(samples, count, 0.5));
    printf(", \"p90_us\": %.2f", quantile_us(samples, count, 0.9));
    printf(", \"p99_us\": %.2f", quantile_us(samples, count, 0.99));
    printf(", \"p99.9_us\": %.2f", quantile_us(samples, count, 0.999));
    print_blocks("block_p50_us", compare->block_p50_us[arm], compare->block_count[arm]);
    print_blocks("block_p99_us", compare->block_p99_us[arm], compare->block_count[arm]);
    printf("}%s\n", arm < ARMS - 1 ? "," : "");
}

static const char usage[] =
    "usage: direct_libpq --http HOST:PORT --dsn DSN --event ID [options]\n"
    "Compares requests through SeatGrid with the same statement through libpq.\n"
    "\n"
    "  --http HOST:PORT  the API\n"
    "  --dsn DSN         the primary of the event's shard (with --reads: the node read from)\n"
    "  --event ID        an event with free seats\n"
    "  --cols N          columns of its grid (1000)\n"
    "  --first-seat N    where to begin, from 1; takes (2 * blocks + 2) * block seats (1)\n"
    "  --blocks N        blocks an arm (40)\n"
    "  --block N         requests a block (500)\n"
    "  --reads           seat maps instead of bookings\n"
    "\n"
    "Exit: 0 done, 1 failed, 2 wrong usage.\n";

static void fail_usage(void)
{
    fputs(usage, stderr);
    exit(2);
}

static int64_t number(const char *text)
{
    char *end;
    int64_t value = strtoll(text, &end, 10);
    if (*end || value < 1)
        fail_usage();
    return value;
}

static void parse(struct compare *compare, int argc, char **argv)
{
    static const struct option table[] = {{"http", required_argument, NULL, 'a'},
                                          {"dsn", required_argument, NULL, 'd'},
                                          {"event", required_argument, NULL, 'e'},
                                          {"cols", required_argument, NULL, 'c'},
                                          {"first-seat", required_argument, NULL, 's'},
                                          {"blocks", required_argument, NULL, 'n'},
                                          {"block", required_argument, NULL, 'b'},
                                          {"reads", no_argument, NULL, 'r'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (id == 'a')
            compare->address = optarg;
        else if (id == 'd')
            compare->dsn = optarg;
        else if (id == 'e')
            compare->event_id = number(optarg);
        else if (id == 'c')
            compare->cols = number(optarg);
        else if (id == 's')
            compare->seat = number(optarg);
        else if (id == 'n')
            compare->blocks = number(optarg);
        else if (id == 'b')
            compare->block = number(optarg);
        else if (id == 'r')
            compare->reads = true;
        else if (id == 'h') {
            fputs(usage, stdout);
            exit(0);
        } else
            fail_usage();
    }
    if (optind != argc || !compare->address || !compare->dsn || !compare->event_id)
        fail_usage();
}

int main(int argc, char **argv)
{
    static struct compare compare = {.cols = 1000, .seat = 1, .blocks = 40, .block = 500};
    parse(&compare, argc, argv);
    compare.fd = dial(compare.address);
    open_direct(&compare);
    run_blocks(&compare);
    printf("{");
    for (int arm = 0; arm < ARMS; arm++) {
        print_arm(&compare, arm);
        free(compare.samples_ns[arm]);
        free(compare.block_p50_us[arm]);
        free(compare.block_p99_us[arm]);
    }
    printf("}\n");
    PQfinish(compare.connection);
    close(compare.fd);
    return 0;
}
