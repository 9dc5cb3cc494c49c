/*
 * Goal: the load asks again exactly what may have been done, with the same key and body, resolves
 * what can be resolved, and its history agrees with what the server did, also when the server hangs
 * up, answers rubbish, or goes away.
 * Method: a scripted server with a thread a connection, which sells seats in memory and spoils some
 * answers; then the verdict over the load's history and what the server sold.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/uuid.h"
#include "drill/load.h"

#define EVENTS_MAX 32
#define DOUBTED_MAX 1000
#define SOLD_MAX 20000
#define SEATS_MAX 4
#define CONNECTIONS_MAX 512

struct fake_event {
    int rows, cols;
    uint32_t *owner; /* by seat_no; index of a sale + 1 */
};

struct sale {
    char key[HISTORY_KEY_SIZE];
    char body[512];
    uint32_t event;
    bool done; /* else: refused for good, must not come again */
    int32_t seats[SEATS_MAX];
    size_t count;
};

struct fake {
    pthread_mutex_t lock;
    int listener, port;
    pthread_t acceptor;
    pthread_t threads[CONNECTIONS_MAX];
    int fds[CONNECTIONS_MAX];
    size_t connection_count;
    bool spoils;
    uint32_t turn;
    char doubted[DOUBTED_MAX][HISTORY_KEY_SIZE]; /* keys whose answer was lost or unclear */
    size_t doubted_count;
    struct fake_event events[EVENTS_MAX + 1]; /* by id, from 1 */
    uint32_t event_count;
    struct sale *sales;
    size_t sale_count;
    int wrong_repeats; /* asked again although it was told that nothing happened, or another body */
    int repeats;
};

struct connection_arg {
    struct fake *fake;
    int fd;
};

/* --- the server ------------------------------------------------------------------------------- */

static int64_t number_behind(const char *text, const char *name)
{
    const char *found = strstr(text, name);
    return found ? strtoll(found + strlen(name), NULL, 10) : -1;
}

static void reply(int fd, const char *status, const char *headers, const char *body)
{
    size_t size = strlen(body) + 512;
    char *text = malloc(size);
    int len = snprintf(text, size, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                       strlen(body), headers, body);
    /* in two pieces, so that the client sees a half answer now and then */
    (void)!send(fd, text, 20, MSG_NOSIGNAL);
    (void)!send(fd, text + 20, (size_t)len - 20, MSG_NOSIGNAL);
    free(text);
}

static void make_event(struct fake *fake, int fd, const char *body)
{
    char answer[128];
    struct fake_event *event = &fake->events[++fake->event_count];
    event->rows = (int)number_behind(body, "\"rows\":");
    event->cols = (int)number_behind(body, "\"cols\":");
    event->owner = calloc((size_t)event->rows * event->cols, sizeof(*event->owner));
    snprintf(answer, sizeof(answer), "{\"id\":%" PRIu32 ",\"name\":\"drill\"}", fake->event_count);
    reply(fd, "201 Created", "", answer);
}

static struct sale *find_sale(struct fake *fake, const char *key)
{
    for (size_t i = 0; i < fake->sale_count; i++) {
        if (strcmp(fake->sales[i].key, key) == 0)
            return &fake->sales[i];
    }
    return NULL;
}

/* Takes the seats of the body, or answers 409 and forgets it. NULL: refused. */
static struct sale *sell(struct fake *fake, const char *key, const char *body, char *conflicts,
                         size_t size)
{
    uint32_t event_id = (uint32_t)number_behind(body, "\"eventId\":");
    struct fake_event *event = &fake->events[event_id];
    struct sale *sale = &fake->sales[fake->sale_count];
    size_t len = 0;
    memset(sale, 0, sizeof(*sale));
    sale->event = event_id - 1;
    for (const char *at = body; (at = strstr(at, "{\"row\":")) && sale->count < SEATS_MAX; at++) {
        int64_t row = number_behind(at, "\"row\":"), col = number_behind(at, "\"col\":");
        int32_t seat_no = (int32_t)((row - 1) * event->cols + col - 1);
        sale->seats[sale->count++] = seat_no;
        if (event->owner[seat_no])
            len += (size_t)snprintf(conflicts + len, size - len,
                                    "%s{\"row\":%" PRId64 ",\"col\":%" PRId64 "}", len ? "," : "",
                                    row, col);
    }
    if (len)
        return NULL;
    snprintf(sale->key, sizeof(sale->key), "%s", key);
    snprintf(sale->body, sizeof(sale->body), "%s", body);
    sale->done = true;
    fake->sale_count++;
    for (size_t i = 0; i < sale->count; i++)
        event->owner[sale->seats[i]] = (uint32_t)fake->sale_count;
    return sale;
}

static void reply_booked(struct fake *fake, int fd, const struct sale *sale, bool replayed)
{
    char answer[1024], headers[256], id[UUID_TEXT_LEN + 1];
    struct uuid uuid = story_id((uint32_t)(sale - fake->sales));
    uuid_format(&uuid, id);
    snprintf(answer, sizeof(answer), "{\"bookingId\":\"%s\",%s", id, sale->body + 1);
    snprintf(
        headers, sizeof(headers),
        "SeatGrid-Shard: alpha\r\nSeatGrid-Durability: sync\r\nSeatGrid-Token: alpha.1.%zX\r\n%s",
        fake->sale_count + 100, replayed ? "Idempotent-Replayed: true\r\n" : "");
    reply(fd, "201 Created", headers, answer);
}

static void reply_problem(int fd, const char *status, const char *code)
{
    char body[128];
    snprintf(body, sizeof(body), "{\"status\":503,\"code\":\"%s\"}", code);
    reply(fd, status, "SeatGrid-Shard: alpha\r\n", body);
}

static bool is_doubted(const struct fake *fake, const char *key)
{
    for (size_t i = 0; i < fake->doubted_count; i++) {
        if (strcmp(fake->doubted[i], key) == 0)
            return true;
    }
    return false;
}

/* False: hang up. */
static bool book(struct fake *fake, int fd, const char *key, const char *body)
{
    char conflicts[256], answer[512];
    struct sale *sale = find_sale(fake, key);
    uint32_t spoil = fake->spoils && !sale ? fake->turn++ % 20 : 0;
    if (sale) {
        fake->repeats++;
        fake->wrong_repeats += !sale->done || strcmp(sale->body, body) != 0;
        reply_booked(fake, fd, sale, true);
        return true;
    }
    if (spoil && spoil % 3 == 0 && spoil != 6) {
        assert_true(fake->doubted_count < DOUBTED_MAX);
        snprintf(fake->doubted[fake->doubted_count++], HISTORY_KEY_SIZE, "%s", key);
    }
    if (spoil == 3) /* not done, nobody hears of it */
        return false;
    /* It stands, and must not come again: unless what was asked before is still in doubt. */
    if (spoil == 6 && !is_doubted(fake, key)) {
        sale = &fake->sales[fake->sale_count++];
        memset(sale, 0, sizeof(*sale));
        snprintf(sale->key, sizeof(sale->key), "%s", key);
        reply_problem(fd, "503 Service Unavailable", "shard_unavailable");
        return true;
    }
    sale = sell(fake, key, body, conflicts, sizeof(conflicts));
    if (spoil == 9) /* done, nobody hears of it */
        return false;
    if (spoil == 12) {
        reply_problem(fd, "503 Service Unavailable", "outcome_unknown");
    } else if (spoil == 15) {
        (void)!send(fd, "rubbish\r\n\r\n", 11, MSG_NOSIGNAL);
    } else if (sale) {
        reply_booked(fake, fd, sale, false);
    } else {
        snprintf(answer, sizeof(answer),
                 "{\"status\":409,\"code\":\"seats_taken\",\"conflicts\":[%s]}", conflicts);
        reply(fd, "409 Conflict", "SeatGrid-Shard: alpha\r\n", answer);
    }
    return true;
}

static void show(struct fake *fake, int fd, uint32_t id)
{
    const struct fake_event *event = &fake->events[id];
    char body[4096], headers[128];
    size_t len = (size_t)snprintf(body, sizeof(body), "{\"seats\":[");
    for (int row = 0; row < event->rows; row++) {
        len += (size_t)snprintf(body + len, sizeof(body) - len, "%s\"", row ? "," : "");
        for (int col = 0; col < event->cols; col++)
            body[len++] = event->owner[row * event->cols + col] ? 'x' : '.';
        body[len++] = '"';
    }
    snprintf(body + len, sizeof(body) - len, "]}");
    snprintf(headers, sizeof(headers),
             "SeatGrid-Node: alpha-2\r\nSeatGrid-Staleness: 0ms\r\nSeatGrid-Token: alpha.1.%zX\r\n",
             fake->sale_count + 100);
    reply(fd, "200 OK", headers, body);
}

/* One request; false: hang up. */
static bool serve(struct fake *fake, int fd, const char *request, const char *body)
{
    const char *key_at = strstr(request, "Idempotency-Key: ");
    char key[HISTORY_KEY_SIZE] = "";
    bool stays = true;
    if (key_at)
        sscanf(key_at, "Idempotency-Key: %39s", key);
    pthread_mutex_lock(&fake->lock);
    if (strncmp(request, "POST /events ", 13) == 0)
        make_event(fake, fd, body);
    else if (strncmp(request, "POST /book ", 11) == 0)
        stays = book(fake, fd, key, body);
    else
        show(fake, fd, (uint32_t)number_behind(request, "GET /events/"));
    pthread_mutex_unlock(&fake->lock);
    return stays;
}

static void *run_connection(void *arg)
{
    struct connection_arg *own = arg;
    char text[8192];
    size_t len = 0;
    bool stays = true;
    while (stays) {
        ssize_t n = recv(own->fd, text + len, sizeof(text) - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        text[len] = '\0';
        char *blank = strstr(text, "\r\n\r\n");
        const char *length = strstr(text, "Content-Length: ");
        size_t body_len = length ? strtoul(length + 16, NULL, 10) : 0;
        if (!blank || len < (size_t)(blank + 4 - text) + body_len)
            continue;
        stays = serve(own->fake, own->fd, text, blank + 4);
        len = 0;
    }
    shutdown(own->fd, SHUT_RDWR);
    free(own);
    return NULL;
}

static void *run_acceptor(void *arg)
{
    struct fake *fake = arg;
    int fd;
    while ((fd = accept(fake->listener, NULL, NULL)) >= 0) {
        struct connection_arg *own = malloc(sizeof(*own));
        *own = (struct connection_arg){.fake = fake, .fd = fd};
        assert_true(fake->connection_count < CONNECTIONS_MAX);
        fake->fds[fake->connection_count] = fd;
        pthread_create(&fake->threads[fake->connection_count++], NULL, run_connection, own);
    }
    return NULL;
}

static void fake_start(struct fake *fake)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    memset(fake, 0, sizeof(*fake));
    pthread_mutex_init(&fake->lock, NULL);
    fake->sales = calloc(SOLD_MAX, sizeof(*fake->sales));
    fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fake->listener, 128), 0);
    assert_int_equal(getsockname(fake->listener, (struct sockaddr *)&address, &len), 0);
    fake->port = ntohs(address.sin_port);
    pthread_create(&fake->acceptor, NULL, run_acceptor, fake);
}

/* Nobody listens any more, every connection ends. Twice is fine. */
static void fake_stop(struct fake *fake)
{
    if (fake->listener < 0)
        return;
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->acceptor, NULL);
    close(fake->listener);
    fake->listener = -1;
    for (size_t i = 0; i < fake->connection_count; i++) {
        shutdown(fake->fds[i], SHUT_RDWR);
        pthread_join(fake->threads[i], NULL);
        close(fake->fds[i]);
    }
}

static void fake_done(struct fake *fake)
{
    fake_stop(fake);
    for (uint32_t i = 1; i <= fake->event_count; i++)
        free(fake->events[i].owner);
    free(fake->sales);
    pthread_mutex_destroy(&fake->lock);
}

/* --- tests ------------------------------------------------------------------------------------ */

struct rig {
    struct fake fake;
    struct history *history;
    struct truth *truth;
    struct load *load;
    struct verdict verdict;
};

static void rig_start(struct rig *rig, bool spoils, size_t max_bytes)
{
    static const char *const shards[] = {"alpha"};
    struct load_options options;
    char address[32], error_text[256] = "";
    fake_start(&rig->fake);
    rig->fake.spoils = spoils;
    rig->history = history_new(max_bytes, 7);
    rig->truth = truth_new();
    load_options_init(&options);
    snprintf(address, sizeof(address), "127.0.0.1:%d", rig->fake.port);
    options.address = address;
    options.shards = shards;
    options.shard_count = 1;
    options.bookings_per_s = 400;
    options.reads_per_s = 100;
    options.expected_s = 2;
    options.max_in_flight = 100;
    options.retry_pause_ms = 20;
    options.retry_for_ms = 400;
    enum sg_error error =
        load_start(&options, rig->history, &rig->load, error_text, sizeof(error_text));
    if (error != SG_OK)
        fail_msg("%s", error_text);
    assert_int_equal(rig->history->event_count, 8);
}

/* Waits until so many bookings have been acknowledged. */
static struct load_progress wait_for(const struct rig *rig, uint64_t acknowledged)
{
    struct load_progress progress;
    struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; i < 6000; i++) {
        load_progress(rig->load, 0, &progress);
        if (progress.acknowledged >= acknowledged)
            return progress;
        nanosleep(&pause, NULL);
    }
    fail_msg("only %llu bookings in 30 s", (unsigned long long)progress.acknowledged);
    return progress;
}

/* What the server sold becomes the truth; the verdict over it. */
static void judge(struct rig *rig)
{
    struct fake *fake = &rig->fake;
    for (size_t i = 0; i < fake->sale_count; i++) {
        const struct sale *sale = &fake->sales[i];
        struct truth_booking row = {.event = sale->event, .booking_id = story_id((uint32_t)i)};
        if (!sale->done)
            continue;
        snprintf(row.status, sizeof(row.status), "confirmed");
        snprintf(row.key, sizeof(row.key), "%s", sale->key);
        assert_true(truth_add_booking(rig->truth, &row, sale->seats, sale->count));
        for (size_t k = 0; k < sale->count; k++) {
            struct truth_claim claim = {.event = sale->event,
                                        .seat_no = sale->seats[k],
                                        .booking_id = row.booking_id,
                                        .booked = true};
            assert_true(truth_add_claim(rig->truth, &claim));
        }
    }
    assert_int_equal(verdict_judge(rig->history, rig->truth, &rig->verdict), SG_OK);
    assert_int_equal(rig->verdict.refused, 0);
    if (rig->verdict.example_count)
        fail_msg("%s: %s", verdict_name(rig->verdict.examples[0].kind),
                 rig->verdict.examples[0].text);
    assert_int_equal(fake->wrong_repeats, 0);
}

static void rig_done(struct rig *rig)
{
    load_free(rig->load);
    fake_done(&rig->fake);
    truth_free(rig->truth);
    history_free(rig->history);
    free(rig);
}

static void test_a_load_is_recorded_as_it_was(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    (void)state;
    rig_start(rig, false, 64 << 20);
    wait_for(rig, 200);
    assert_true(load_wait_writes(rig->load, 0, 0, 1));
    assert_false(load_wait_writes(rig->load, 0, INT64_MAX, 1));
    load_stop(rig->load, 30000);
    struct load_progress progress;
    load_progress(rig->load, 0, &progress);
    fake_stop(&rig->fake);
    judge(rig);
    assert_int_equal(progress.failed, 0);
    assert_int_equal(rig->verdict.outcomes[HISTORY_BOOKED], progress.acknowledged);
    assert_int_equal(rig->verdict.outcomes[HISTORY_REFUSED], progress.refused);
    assert_int_equal(rig->verdict.outcomes[HISTORY_AMBIGUOUS], 0);
    assert_int_equal(rig->verdict.outcomes[HISTORY_FAILED], 0);
    assert_int_equal(rig->verdict.reads, progress.reads);
    assert_int_equal(rig->fake.repeats, 0);
    assert_true(rig->verdict.session_pairs > 0);
    const struct history_attempt *booked = NULL;
    for (size_t i = 0; i < rig->history->booking_count && !booked; i++)
        booked = history_acknowledged(rig->history, (uint32_t)i);
    assert_non_null(booked);
    assert_int_equal(booked->durability, HISTORY_SYNC);
    assert_string_equal(rig->history->names[booked->shard], "alpha");
    assert_true(booked->token.lsn > 100);
    assert_int_equal(rig->history->reads[0].staleness_ms, 0);
    assert_string_equal(rig->history->names[rig->history->reads[0].node], "alpha-2");
    rig_done(rig);
}

static void test_what_may_have_been_done_is_asked_again(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    struct measure measure;
    (void)state;
    rig_start(rig, true, 64 << 20);
    wait_for(rig, 300);
    load_stop(rig->load, 30000);
    fake_stop(&rig->fake);
    judge(rig);
    assert_int_equal(verdict_measure(rig->history, NULL, NULL, INT64_MIN, INT64_MAX, &measure),
                     SG_OK);
    assert_true(rig->fake.repeats > 0);
    assert_true(rig->verdict.resolved > 0);
    assert_true(rig->verdict.outcomes[HISTORY_FAILED] > 0);
    assert_true(measure.failed_kinds[SG_OUTCOME_UNKNOWN] > 0);
    assert_true(measure.failed_kinds[SG_SHARD_UNAVAILABLE] > 0);
    assert_true(measure.failed_kinds[SG_ERROR_COUNT + 1 + HISTORY_CLOSED] > 0);
    assert_true(measure.failed_kinds[SG_ERROR_COUNT + 1 + HISTORY_GARBLED] > 0);
    rig_done(rig);
}

static void test_a_server_that_goes_away_leaves_no_lie(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    (void)state;
    rig_start(rig, false, 64 << 20);
    uint64_t failed = wait_for(rig, 100).failed;
    fake_stop(&rig->fake);
    struct load_progress progress;
    for (int i = 0; i < 3000; i++) {
        load_progress(rig->load, 0, &progress);
        if (progress.failed > failed + 200)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_true(progress.failed > failed + 200);
    assert_false(load_wait_steady(rig->load, 600));
    load_stop(rig->load, 30000);
    judge(rig);
    assert_true(rig->verdict.outcomes[HISTORY_FAILED] > 0);
    rig_done(rig);
}

static void test_a_full_history_is_told_of(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    struct load_progress progress = {0};
    (void)state;
    rig_start(rig, false, 130000); /* room for events and bookings, for no attempt */
    for (int i = 0; i < 3000 && !progress.not_sent; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        load_progress(rig->load, 0, &progress);
    }
    load_stop(rig->load, 30000);
    fake_stop(&rig->fake);
    assert_true(progress.not_sent > 0);
    assert_true(rig->history->refused > 0);
    assert_int_equal(verdict_judge(rig->history, rig->truth, &rig->verdict), SG_OK);
    assert_int_equal(rig->verdict.refused, rig->history->refused);
    rig_done(rig);
}

static void test_impossible_options_are_refused(void **state)
{
    static const char *const shards[] = {"alpha"};
    struct history *history = history_new(1 << 20, 1);
    struct load_options options;
    struct load *load = NULL;
    char text[128] = "";
    (void)state;
    load_options_init(&options);
    options.address = "127.0.0.1:1";
    options.shards = shards;
    assert_int_equal(load_start(&options, history, &load, text, sizeof(text)), SG_INVALID_VALUE);
    options.shard_count = 1;
    options.bookings_per_s = 0;
    assert_int_equal(load_start(&options, history, &load, text, sizeof(text)), SG_INVALID_VALUE);
    options.bookings_per_s = 10;
    options.address = "no address";
    assert_int_equal(load_start(&options, history, &load, text, sizeof(text)), SG_INVALID_VALUE);
    assert_non_null(strstr(text, "no address"));
    assert_null(load);
    load_free(NULL);
    history_free(history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_load_is_recorded_as_it_was),
        cmocka_unit_test(test_what_may_have_been_done_is_asked_again),
        cmocka_unit_test(test_a_server_that_goes_away_leaves_no_lie),
        cmocka_unit_test(test_a_full_history_is_told_of),
        cmocka_unit_test(test_impossible_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
