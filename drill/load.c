/*
 * The load of a drill. See load.h.
 *
 *   on_tick ─> arrivals that are due, requests to be asked again ─> wire ─> on_end ─> history
 *
 * What crosses threads: the counts of struct tally, written by the load's thread and read by the
 * caller; stopping and drain_until_us, the other way. All are atomic and stand for themselves. The
 * history changes hands by starting and joining the thread.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/load.h"

#include <inttypes.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/reap.h"
#include "base/tcpdial.h"
#include "cli/admin_client.h"
#include "cli/cli.h"
#include "drill/answer.h"
#include "drill/dialect.h"
#include "drill/history.h"
#include "drill/traffic.h"
#include "drill/wire.h"

#define TICK_MIN_US 1000
#define TICK_MAX_US 5000
#define POLL_US 5000
#define STEADY_WINDOW_US 500000
#define CREATE_TIMEOUT_MS 10000
#define CREATE_PAUSE_US 100000
#define ANSWER_EXCERPT 200

/* What a shard's load has come to; see struct load_progress. */
struct tally {
    _Atomic uint64_t acknowledged, refused, failed, not_sent, reads;
    _Atomic int64_t acknowledged_sent_us, acknowledged_us;
};

/* A booking that is asked again when its pause is over. All pauses are equally long. */
struct again {
    int64_t due_us;
    uint32_t booking;
};

struct load {
    struct load_options options;
    char address[300];
    char shards[LOAD_SHARDS_MAX][SHARDMAP_NAME_MAX + 1];
    const char *shard_texts[LOAD_SHARDS_MAX];
    uint8_t shard_names[LOAD_SHARDS_MAX];     /* in the history */
    uint8_t shard_indexes[HISTORY_NAMES_MAX]; /* and back */
    struct sockaddr_storage server;
    socklen_t server_len;
    struct history *history;
    struct traffic *traffic;

    struct tally tallies[LOAD_SHARDS_MAX];
    _Atomic bool stopping;
    _Atomic int64_t drain_until_us;

    /* The thread's own. */
    struct event_base *base;
    struct reap_list *reap;
    struct wire *wire;
    struct event *tick;
    int64_t start_us;
    uint64_t bookings_arrived, reads_arrived;
    struct again *again; /* a ring of max_in_flight */
    size_t again_first, again_count;
    char request[DIALECT_REQUEST_MAX];

    pthread_t thread;
    bool runs; /* the thread has been started and not joined */
};

/* A request's tag on the wire: what it is, and its index in the history. */
enum { TAG_ATTEMPT, TAG_READ, TAG_KINDS };

static struct tally *tally_of(struct load *load, uint32_t event)
{
    return &load->tallies[load->shard_indexes[load->history->events[event].shard]];
}

static size_t under_way(const struct load *load)
{
    return wire_busy(load->wire) + load->again_count;
}

static bool is_full(const struct load *load)
{
    return under_way(load) >= (size_t)load->options.max_in_flight;
}

/* --- bookings: asking ------------------------------------------------------------------------- */

static void end_attempt(struct load *load, uint32_t index, enum history_end end,
                        const struct answer *answer);

static void ask(struct load *load, uint32_t booking)
{
    uint32_t attempt = history_add_attempt(load->history, booking, clock_mono_us(), 0);
    if (attempt == HISTORY_NONE) {
        tally_of(load, load->history->bookings[booking].event)->not_sent++;
        return;
    }
    size_t len = dialect_booking(load->history, booking, load->request);
    uint32_t connection =
        wire_send(load->wire, load->request, len, (uint64_t)attempt * TAG_KINDS + TAG_ATTEMPT);
    load->history->attempts[attempt].connection = connection;
    if (!connection)
        end_attempt(load, attempt, HISTORY_UNREACHED, NULL);
}

static void arrive_booking(struct load *load, size_t shard, int64_t due_us)
{
    struct traffic_booking wish;
    traffic_next_booking(load->traffic, shard, &wish);
    uint32_t booking = history_add_booking(load->history, due_us, wish.event, wish.user, wish.seats,
                                           wish.seat_count);
    if (booking == HISTORY_NONE || is_full(load))
        load->tallies[shard].not_sent++;
    else
        ask(load, booking);
}

/* --- bookings: answers ------------------------------------------------------------------------ */

static void count_attempt(struct load *load, const struct history_attempt *attempt)
{
    uint32_t event = load->history->bookings[attempt->booking].event;
    struct tally *tally = tally_of(load, event);
    if (history_is_booked(attempt)) {
        tally->acknowledged++;
        tally->acknowledged_us = attempt->answered_us;
        if (attempt->sent_us > tally->acknowledged_sent_us)
            tally->acknowledged_sent_us = attempt->sent_us;
        traffic_told(load->traffic, event, &attempt->token);
    } else if (history_is_refusal(attempt)) {
        tally->refused++;
    } else {
        tally->failed++;
    }
}

/* It may have been done, or it reached nobody, and there is time to ask again. */
static bool wants_again(const struct load *load, const struct history_attempt *attempt)
{
    const struct history_booking *booking = &load->history->bookings[attempt->booking];
    enum history_outcome outcome = history_outcome(load->history, attempt->booking);
    int64_t since_us = load->history->attempts[booking->first_attempt].sent_us;
    bool open = outcome == HISTORY_AMBIGUOUS ||
                (outcome == HISTORY_FAILED && attempt->end == HISTORY_UNREACHED);
    return open && load->again_count < (size_t)load->options.max_in_flight &&
           attempt->answered_us - since_us < (int64_t)load->options.retry_for_ms * 1000;
}

static void end_attempt(struct load *load, uint32_t index, enum history_end end,
                        const struct answer *answer)
{
    struct history_attempt *attempt = &load->history->attempts[index];
    attempt->end = (uint8_t)end;
    attempt->answered_us = clock_mono_us();
    if (answer)
        dialect_note_booking(load->history, index, answer);
    count_attempt(load, attempt);
    if (!wants_again(load, attempt))
        return;
    size_t slot = (load->again_first + load->again_count++) % (size_t)load->options.max_in_flight;
    load->again[slot] = (struct again){
        .due_us = attempt->answered_us + (int64_t)load->options.retry_pause_ms * 1000,
        .booking = attempt->booking,
    };
}

static void ask_again(struct load *load, int64_t now_us)
{
    while (load->again_count && load->again[load->again_first].due_us <= now_us) {
        uint32_t booking = load->again[load->again_first].booking;
        load->again_first = (load->again_first + 1) % (size_t)load->options.max_in_flight;
        load->again_count--;
        ask(load, booking);
    }
}

/* --- reads ------------------------------------------------------------------------------------ */

static void end_read(struct load *load, uint32_t index, enum history_end end,
                     const struct answer *answer)
{
    struct history *history = load->history;
    struct history_read *read = &history->reads[index];
    struct tally *tally = tally_of(load, read->event);
    read->end = (uint8_t)end;
    read->answered_us = clock_mono_us();
    if (answer)
        dialect_note_read(history, index, answer);
    if (read->seen_at == HISTORY_NONE) {
        tally->failed++;
        return;
    }
    tally->reads++;
    if (read->session)
        traffic_told(load->traffic, read->event, &read->got);
}

static void arrive_read(struct load *load, size_t shard, int64_t due_us)
{
    struct traffic_read wish;
    bool full = is_full(load);
    traffic_next_read(load->traffic, shard, &wish);
    struct history_read read = {
        .due_us = due_us,
        .sent_us = full ? 0 : clock_mono_us(),
        .carried = wish.token,
        .event = wish.event,
        .reader = wish.reader,
        .bound_ms = wish.bound_ms,
        .staleness_ms = -1,
        .session = wish.session,
    };
    uint32_t index = history_add_read(load->history, &read);
    if (index == HISTORY_NONE || full) {
        load->tallies[shard].not_sent++;
        return;
    }
    size_t len = dialect_read(load->history, &read, load->request);
    uint32_t connection =
        wire_send(load->wire, load->request, len, (uint64_t)index * TAG_KINDS + TAG_READ);
    load->history->reads[index].connection = connection;
    if (!connection)
        end_read(load, index, HISTORY_UNREACHED, NULL);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void on_end(void *arg, uint64_t tag, enum history_end end, const struct answer *answer)
{
    struct load *load = arg;
    uint32_t index = (uint32_t)(tag / TAG_KINDS);
    if (tag % TAG_KINDS == TAG_READ)
        end_read(load, index, end, answer);
    else
        end_attempt(load, index, end, answer);
}

/* When the n-th arrival of so many a second is due. */
static int64_t due_us(const struct load *load, uint64_t n, int per_s)
{
    return per_s ? load->start_us + (int64_t)(n * UINT64_C(1000000) / (uint64_t)per_s) : INT64_MAX;
}

/* Requests that are due; the time of the next one. */
static int64_t arrive(struct load *load, int64_t now_us)
{
    const struct load_options *options = &load->options;
    int64_t booking_us, read_us;
    while ((booking_us = due_us(load, load->bookings_arrived, options->bookings_per_s)) <= now_us)
        arrive_booking(load, load->bookings_arrived++ % options->shard_count, booking_us);
    while ((read_us = due_us(load, load->reads_arrived, options->reads_per_s)) <= now_us)
        arrive_read(load, load->reads_arrived++ % options->shard_count, read_us);
    return booking_us < read_us ? booking_us : read_us;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct load *load = arg;
    int64_t now_us = clock_mono_us(), next_us = INT64_MAX;
    (void)fd;
    (void)what;
    wire_tick(load->wire, now_us);
    ask_again(load, now_us);
    if (!load->stopping)
        next_us = arrive(load, now_us);
    if (load->stopping && (under_way(load) == 0 || now_us >= load->drain_until_us)) {
        event_base_loopbreak(load->base);
        return;
    }
    int64_t pause_us = next_us - clock_mono_us();
    pause_us = pause_us < TICK_MIN_US ? TICK_MIN_US : pause_us;
    struct timeval pause = clock_timeval_us(pause_us > TICK_MAX_US ? TICK_MAX_US : pause_us);
    event_add(load->tick, &pause);
}

static void *run(void *arg)
{
    struct load *load = arg;
    event_base_dispatch(load->base);
    return NULL;
}

/* Signals are the caller's; a write to a closed connection is an error here, not the end. */
static bool start_thread(struct load *load)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    load->runs = pthread_create(&load->thread, NULL, run, load) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return load->runs;
}

static bool make_loop(struct load *load)
{
    struct timeval now = {0};
    load->base = event_base_new();
    load->reap = load->base ? reap_list_new(load->base) : NULL;
    load->tick = load->base ? evtimer_new(load->base, on_tick, load) : NULL;
    load->again = calloc((size_t)load->options.max_in_flight, sizeof(*load->again));
    if (!load->reap || !load->tick || !load->again)
        return false;
    load->wire = wire_new(&(struct wire_config){
        .base = load->base,
        .reap = load->reap,
        .address = (const struct sockaddr *)&load->server,
        .address_len = load->server_len,
        .timeout_us = (int64_t)load->options.answer_timeout_ms * 1000,
        .on_end = on_end,
        .arg = load,
    });
    return load->wire && event_add(load->tick, &now) == 0;
}

/* --- before it starts ------------------------------------------------------------------------- */

static enum sg_error find_server(struct load *load, char *error_text, size_t error_size)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    struct tcpdial_address address;
    if (!tcpdial_parse(load->address, &address) ||
        getaddrinfo(address.host, address.port, &hints, &found) != 0) {
        snprintf(error_text, error_size, "%s: is no address of an HTTP API", load->address);
        return SG_INVALID_VALUE;
    }
    memcpy(&load->server, found->ai_addr, found->ai_addrlen);
    load->server_len = found->ai_addrlen;
    freeaddrinfo(found);
    return SG_OK;
}

/* One try. SG_OK and the id; SG_SHARD_UNAVAILABLE: may go better; else it will not. */
static enum sg_error try_event(const struct load *load, const char *body, int64_t *ret_id,
                               char *error_text, size_t error_size)
{
    struct dynbuf text;
    int status;
    enum sg_error result = SG_IO;
    dynbuf_init(&text, 65536);
    enum sg_error error = admin_call(load->address, "POST", "/events", body, strlen(body),
                                     CREATE_TIMEOUT_MS, &status, &text, error_text, error_size);
    struct answer answer = {.body = {.at = dynbuf_text(&text), .len = text.len}};
    if (error != SG_OK)
        result = error == SG_IO || error == SG_DEADLINE ? SG_SHARD_UNAVAILABLE : error;
    else if (status == 201 && answer_number(&answer, "id", ret_id))
        result = SG_OK;
    else
        snprintf(error_text, error_size, "POST /events: %d %.*s", status, ANSWER_EXCERPT,
                 dynbuf_text(&text));
    if (error == SG_OK && status == 503)
        result = SG_SHARD_UNAVAILABLE;
    dynbuf_done(&text);
    return result;
}

static void rest_us(int64_t us)
{
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

static enum sg_error create_event(struct load *load, size_t shard, bool watched, char *error_text,
                                  size_t error_size)
{
    int32_t side = traffic_large_side(&load->options);
    struct history_event event = {.rows = watched ? TRAFFIC_WATCHED_ROWS : side,
                                  .cols = watched ? TRAFFIC_WATCHED_COLS : side,
                                  .shard = load->shard_names[shard],
                                  .watched = watched};
    int64_t until_us = clock_mono_us() + (int64_t)CREATE_TIMEOUT_MS * 1000;
    char body[256];
    enum sg_error error;
    snprintf(body, sizeof(body),
             "{\"name\":\"drill\",\"startsAt\":\"2038-01-01T19:00:00Z\",\"rows\":%" PRId32
             ",\"cols\":%" PRId32 ",\"shard\":\"%s\"}",
             event.rows, event.cols, load->shards[shard]);
    while ((error = try_event(load, body, &event.id, error_text, error_size)) ==
               SG_SHARD_UNAVAILABLE &&
           clock_mono_us() < until_us)
        rest_us(CREATE_PAUSE_US);
    if (error == SG_OK && history_add_event(load->history, &event) == HISTORY_NONE) {
        snprintf(error_text, error_size, "the history is too small for the events");
        return SG_NO_MEMORY;
    }
    return error;
}

static enum sg_error create_events(struct load *load, char *error_text, size_t error_size)
{
    const struct load_options *options = &load->options;
    enum sg_error error = SG_OK;
    for (size_t shard = 0; shard < options->shard_count; shard++) {
        load->shard_names[shard] =
            history_name(load->history, load->shards[shard], strlen(load->shards[shard]));
        load->shard_indexes[load->shard_names[shard]] = (uint8_t)shard;
        for (int i = 0; i < options->events_per_shard && error == SG_OK; i++)
            error = create_event(load, shard, false, error_text, error_size);
        for (int i = 0; i < options->watched_per_shard && error == SG_OK; i++)
            error = create_event(load, shard, true, error_text, error_size);
    }
    return error;
}

/* --- for the caller --------------------------------------------------------------------------- */

void load_options_init(struct load_options *options)
{
    *options = (struct load_options){
        .bookings_per_s = 1000,
        .reads_per_s = 300,
        .expected_s = 60,
        .events_per_shard = 4,
        .watched_per_shard = 4,
        .fight_percent = 5,
        .bounds_ms = {250, 1000},
        .max_in_flight = 4000,
        .answer_timeout_ms = 15000,
        .retry_pause_ms = 100,
        .retry_for_ms = 20000,
        .seed = 1,
    };
}

static bool are_possible(const struct load_options *options)
{
    return options->shard_count > 0 && options->shard_count <= LOAD_SHARDS_MAX &&
           options->bookings_per_s > 0 && options->reads_per_s >= 0 && options->expected_s > 0 &&
           options->events_per_shard > 0 &&
           (options->watched_per_shard > 0 ||
            (options->watched_per_shard == 0 && options->reads_per_s == 0)) &&
           options->max_in_flight > 0 && options->answer_timeout_ms > 0 &&
           options->retry_pause_ms >= 0 && options->retry_for_ms >= 0;
}

static struct load *copy_options(const struct load_options *options, struct history *history)
{
    struct load *load = calloc(1, sizeof(*load));
    if (!load)
        return NULL;
    load->options = *options;
    load->history = history;
    snprintf(load->address, sizeof(load->address), "%s", options->address);
    for (size_t i = 0; i < options->shard_count; i++) {
        snprintf(load->shards[i], sizeof(load->shards[i]), "%s", options->shards[i]);
        load->shard_texts[i] = load->shards[i];
    }
    load->options.address = load->address;
    load->options.shards = load->shard_texts;
    return load;
}

enum sg_error load_start(const struct load_options *options, struct history *history,
                         struct load **ret_load, char *error_text, size_t error_size)
{
    if (!are_possible(options) || history->event_count) {
        snprintf(error_text, error_size, "impossible options of the load");
        return SG_INVALID_VALUE;
    }
    struct load *load = copy_options(options, history);
    enum sg_error error = load ? find_server(load, error_text, error_size) : SG_NO_MEMORY;
    if (error == SG_OK)
        error = create_events(load, error_text, error_size);
    if (error == SG_OK) {
        cli_raise_descriptor_limit();
        load->traffic = traffic_new(&load->options, history, load->shard_names);
        load->start_us = clock_mono_us();
        error = load->traffic && make_loop(load) && start_thread(load) ? SG_OK : SG_NO_MEMORY;
    }
    if (error == SG_NO_MEMORY)
        snprintf(error_text, error_size, "no memory for the load");
    if (error == SG_OK)
        *ret_load = load;
    else
        load_free(load);
    return error;
}

void load_progress(const struct load *load, size_t shard, struct load_progress *ret_progress)
{
    const struct tally *tally = &load->tallies[shard];
    *ret_progress = (struct load_progress){
        .acknowledged = tally->acknowledged,
        .refused = tally->refused,
        .failed = tally->failed,
        .not_sent = tally->not_sent,
        .reads = tally->reads,
        .acknowledged_sent_us = tally->acknowledged_sent_us,
        .acknowledged_us = tally->acknowledged_us,
    };
}

/* At least half of what arrives at that rate within a window, and something at all. */
static uint64_t half_of(const struct load *load, int per_s)
{
    uint64_t arrive =
        (uint64_t)per_s * STEADY_WINDOW_US / 1000000 / (uint64_t)load->options.shard_count;
    return arrive / 2 ? arrive / 2 : per_s > 0;
}

static bool is_steady(const struct load *load, const struct load_progress *before,
                      const struct load_progress *now)
{
    return now->failed == before->failed && now->not_sent == before->not_sent &&
           now->acknowledged > before->acknowledged &&
           now->acknowledged + now->refused - before->acknowledged - before->refused >=
               half_of(load, load->options.bookings_per_s) &&
           now->reads - before->reads >= half_of(load, load->options.reads_per_s);
}

bool load_wait_steady(const struct load *load, int64_t timeout_ms)
{
    struct load_progress before[LOAD_SHARDS_MAX], now;
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    bool steady = false;
    while (!steady && clock_mono_us() < until_us) {
        for (size_t i = 0; i < load->options.shard_count; i++)
            load_progress(load, i, &before[i]);
        rest_us(STEADY_WINDOW_US);
        steady = true;
        for (size_t i = 0; i < load->options.shard_count; i++) {
            load_progress(load, i, &now);
            steady = steady && is_steady(load, &before[i], &now);
        }
    }
    return steady;
}

bool load_wait_writes(const struct load *load, size_t shard, int64_t since_us, int64_t timeout_ms)
{
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    while (load->tallies[shard].acknowledged_sent_us < since_us) {
        if (clock_mono_us() >= until_us)
            return false;
        rest_us(POLL_US);
    }
    return true;
}

void load_stop(struct load *load, int64_t drain_ms)
{
    if (!load->runs)
        return;
    load->drain_until_us = clock_mono_us() + drain_ms * 1000;
    load->stopping = true;
    pthread_join(load->thread, NULL);
    load->runs = false;
}

void load_free(struct load *load)
{
    if (!load)
        return;
    load_stop(load, 0);
    wire_free(load->wire);
    if (load->tick)
        event_free(load->tick);
    if (load->reap)
        reap_list_free(load->reap);
    if (load->base)
        event_base_free(load->base);
    traffic_free(load->traffic);
    free(load->again);
    free(load);
}
