/*
 * Goal: what Redis says is shown only while somebody keeps it in step: never a stale number, never
 * "no tickets" out of keys that are gone, never a request that waits for a Redis that hangs; and
 * each accepted call is answered once.
 * Method: counters on a scripted Redis whose hashes, silences and losses the test decides.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "router/counters.h"
#include "tests/unit/base/fake_redis.h"
#include "tests/unit/router/published.h"

#define MAP                                                                                        \
    "map_version = %d; shards = ( { name = \"alpha\"; nodes = ( { name = \"a1\"; dsn = "           \
    "\"host=a port=1\"; } ); }, { name = \"%s\"; nodes = ( { name = \"b1\"; dsn = "                \
    "\"host=b port=2\"; } ); } ); ranges = ( { first = 1; last = 9; shard = \"alpha\"; }, "        \
    "{ first = 10; last = 19; shard = \"%s\"; } );"

/* What the scripted Redis holds of a shard. */
struct shard_hash {
    const char *gen; /* NULL: no hash at all */
    const char *state;
    int beat; /* -1: none */
};

struct rig {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct settings settings;
    struct published published;
    struct router_config config;
    struct fake_redis redis;
    struct counters *counters;

    struct shard_hash alpha;
    struct shard_hash beta;
    bool beats;        /* the beat goes up by itself, as a consumer would do it */
    const char *event; /* RESP answer to the HMGET of an event; NULL: not there */
    int alpha_tickets; /* fields of the ticket keys; 0: no key */
    int beta_tickets;
    bool hangs;            /* answers nothing */
    bool hangs_at_hlen;    /* answers nothing from the first HLEN on */
    bool errors;           /* answers every HLEN and HMGET of an event with an error */
    const char *switch_to; /* the generation changes between HLEN and HGET */
    unsigned polls;
    char asked[4096]; /* keys of events and tickets, with blanks */

    unsigned answers;
    bool nothing_known;
    size_t count;
    struct event_counts counts[8];
    bool holds[8];
    void (*then)(struct rig *rig);
};

static struct rig *the_rig;

/* --- the scripted Redis ----------------------------------------------------------------------- */

static void say_text(struct fake_client *client, const char *text)
{
    evbuffer_add_printf(bufferevent_get_output(client->bev), "$%zu\r\n%s\r\n", strlen(text), text);
}

static struct shard_hash *hash_of(const char *key)
{
    if (strcmp(key, "sg1:{s:alpha}") == 0)
        return &the_rig->alpha;
    return strcmp(key, "sg1:{s:beta}") == 0 ? &the_rig->beta : NULL;
}

static void say_hash(struct fake_client *client, struct shard_hash *hash)
{
    char beat[16];
    the_rig->polls++;
    if (!hash || !hash->gen) {
        fake_say(client, "*3\r\n$-1\r\n$-1\r\n$-1\r\n");
        return;
    }
    if (the_rig->beats)
        hash->beat++;
    fake_say(client, "*3\r\n");
    say_text(client, hash->gen);
    say_text(client, hash->state);
    snprintf(beat, sizeof(beat), "%d", hash->beat);
    if (hash->beat >= 0)
        say_text(client, beat);
    else
        fake_say(client, "$-1\r\n");
}

static void note(const char *key)
{
    size_t len = strlen(the_rig->asked);
    snprintf(the_rig->asked + len, sizeof(the_rig->asked) - len, "%s ", key);
}

static bool on_command(struct fake_client *client, const redisReply *command)
{
    struct rig *rig = the_rig;
    const char *name = command->element[0]->str;
    const char *key = command->elements > 1 ? command->element[1]->str : "";
    struct shard_hash *hash = hash_of(key);
    if (strcmp(name, "HLEN") == 0 && rig->hangs_at_hlen)
        rig->hangs = true;
    if (rig->hangs)
        return true;
    if (strcmp(name, "PING") == 0)
        return false;
    if (strcmp(name, "HMGET") == 0 && hash) {
        say_hash(client, hash);
    } else if (strcmp(name, "HGET") == 0 && hash) {
        if (rig->switch_to)
            hash->gen = rig->switch_to;
        if (hash->gen)
            say_text(client, hash->gen);
        else
            fake_say(client, "$-1\r\n");
    } else if (rig->errors) {
        fake_say(client, "-LOADING Redis is loading the dataset in memory\r\n");
    } else if (strcmp(name, "HLEN") == 0) {
        note(key);
        evbuffer_add_printf(bufferevent_get_output(client->bev), ":%d\r\n",
                            strstr(key, "alpha") ? rig->alpha_tickets : rig->beta_tickets);
    } else {
        assert_string_equal(name, "HMGET");
        note(key);
        fake_say(client, rig->event ? rig->event
                                    : "*7\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n");
    }
    return true;
}

/* --- the rig ---------------------------------------------------------------------------------- */

static void publish_map(struct rig *rig, int version, const char *second)
{
    char text[1024];
    snprintf(text, sizeof(text), MAP, version, second, second);
    published_map(&rig->published, text);
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    the_rig = rig;
    alarm(60);
    rig->base = event_base_new();
    rig->reap = reap_list_new(rig->base);
    rig->metrics = metrics_set_new();
    published_init(&rig->published);
    settings_init(&rig->settings);
    rig->settings.redis.poll_ms = 10;
    rig->settings.redis.read_timeout_ms = 60;
    rig->settings.redis.backoff_min_ms = 5;
    rig->settings.redis.backoff_max_ms = 10;
    rig->alpha = (struct shard_hash){"7", "live", 0};
    rig->beta = (struct shard_hash){"3", "live", 0};
    rig->beats = true;
    publish_map(rig, 1, "beta");
    fake_start(&rig->redis, rig->base);
    rig->redis.handler = on_command;
    snprintf(rig->settings.redis.address, sizeof(rig->settings.redis.address), "127.0.0.1:%d",
             rig->redis.port);
    rig->config = (struct router_config){.settings = &rig->settings,
                                         .base = rig->base,
                                         .metrics = rig->metrics,
                                         .reap = rig->reap,
                                         .reader = rig->published.reader,
                                         .maps = &rig->published.maps,
                                         .topologies = &rig->published.topologies};
    rig->counters = counters_new(&rig->config);
    assert_non_null(rig->counters);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    counters_free(rig->counters);
    fake_stop(&rig->redis);
    reap_list_free(rig->reap);
    published_done(&rig->published);
    metrics_shutdown();
    event_base_free(rig->base);
    free(rig);
    libevent_global_shutdown();
    return 0;
}

static bool is_live(const struct rig *rig, const char *shard)
{
    int64_t generation;
    return counters_live(rig->counters, shard, &generation);
}

#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        if (!fake_run_until(rig->base, condition))                                                 \
            fail_msg("never came true: %s", #condition);                                           \
    } while (0)

static void run_for(struct rig *rig, int64_t ms)
{
    int64_t until_us = clock_mono_us() + ms * 1000;
    (void)fake_run_until(rig->base, clock_mono_us() >= until_us);
}

static void wait_live(struct rig *rig)
{
    RUN_UNTIL(is_live(rig, "alpha") && is_live(rig, "beta"));
}

static void on_counts(void *arg, const struct event_counts *counts, size_t count)
{
    struct rig *rig = arg;
    rig->answers++;
    rig->count = count;
    memcpy(rig->counts, counts, count * sizeof(*counts));
    if (rig->then)
        rig->then(rig);
}

static void on_owners(void *arg, const bool *holds, size_t count)
{
    struct rig *rig = arg;
    rig->answers++;
    rig->count = count;
    rig->nothing_known = holds == NULL;
    if (holds)
        memcpy(rig->holds, holds, count * sizeof(*holds));
}

static enum sg_error ask_counts(struct rig *rig)
{
    static const int64_t ids[] = {5, 6};
    rig->asked[0] = '\0';
    unsigned before = rig->answers;
    enum sg_error error = counters_events(rig->counters, "alpha", ids, 2, on_counts, rig);
    assert_int_equal(rig->answers, before); /* never from inside the call */
    return error;
}

static enum sg_error ask_owners(struct rig *rig)
{
    static const char *const shards[] = {"alpha", "beta"};
    rig->asked[0] = '\0';
    unsigned before = rig->answers;
    enum sg_error error = counters_owners(rig->counters, "u-1", shards, 2, on_owners, rig);
    assert_int_equal(rig->answers, before);
    return error;
}

/* The value of a series of seatgrid_redis_reads_total. */
static long reads(const char *what, const char *source)
{
    struct dynbuf text;
    char wanted[128];
    dynbuf_init(&text, 1 << 20);
    metrics_render(&text);
    snprintf(wanted, sizeof(wanted), "seatgrid_redis_reads_total{what=\"%s\",source=\"%s\"} ", what,
             source);
    const char *at = strstr(dynbuf_text(&text), wanted);
    long value = at ? strtol(at + strlen(wanted), NULL, 10) : -1;
    dynbuf_done(&text);
    return value;
}

static const char event_of_100[] = "*7\r\n$3\r\n100\r\n$2\r\n97\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10"
                                   "\r\n$2\r\n10\r\n$-1\r\n";

/* --- when Redis is believed ------------------------------------------------------------------- */

static void counts_are_read(void **state)
{
    struct rig *rig = *state;
    rig->event = event_of_100;
    wait_live(rig);
    assert_int_equal(ask_counts(rig), SG_OK);
    assert_int_equal(counters_in_flight(rig->counters), 1);
    RUN_UNTIL(rig->answers == 1);
    assert_int_equal(counters_in_flight(rig->counters), 0);
    assert_string_equal(rig->asked, "sg1:{e:5}:alpha.7 sg1:{e:6}:alpha.7 ");
    assert_int_equal(rig->count, 2);
    for (int i = 0; i < 2; i++) {
        const struct event_counts *counts = &rig->counts[i];
        assert_true(counts->known);
        assert_int_equal(counts->event_id, 5 + i);
        assert_int_equal(counts->total, 100);
        assert_int_equal(counts->available, 97);
        assert_int_equal(counts->held, 1);
        assert_int_equal(counts->booked, 2);
        assert_int_equal(counts->rows, 10);
        assert_int_equal(counts->cols, 10);
    }
    assert_int_equal(reads("counts", "redis"), 2);
}

/* Tombstones, half a hash, numbers that cannot be: PostgreSQL is to say. */
static void nonsense_is_not_shown(void **state)
{
    static const char *const bad[] = {
        NULL,
        "*7\r\n$3\r\n100\r\n$2\r\n97\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n10\r\n$1\r\n1\r\n",
        "*7\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$1\r\n1\r\n",
        "*7\r\n$3\r\n100\r\n$2\r\n-1\r\n$1\r\n0\r\n$3\r\n101\r\n$2\r\n10\r\n$2\r\n10\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$2\r\n98\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n10\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$2\r\n97\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n11\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$2\r\n97\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$-1\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$2\r\n9x\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n10\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$0\r\n\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n10\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$19\r\n9223372036854775807\r\n$19\r\n9223372036854775807\r\n$1\r\n2\r\n"
        "$2\r\n10\r\n$2\r\n10\r\n$-1\r\n",
        "*7\r\n$3\r\n100\r\n$20\r\n99223372036854775807\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n"
        "$2\r\n10\r\n$-1\r\n",
        "*2\r\n$3\r\n100\r\n$2\r\n97\r\n",
        "$3\r\n100\r\n",
        "*-1\r\n",
        "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    };
    struct rig *rig = *state;
    wait_live(rig);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rig->event = bad[i];
        rig->answers = 0;
        assert_int_equal(ask_counts(rig), SG_OK);
        RUN_UNTIL(rig->answers == 1);
        if (rig->counts[0].known || rig->counts[1].known)
            fail_msg("%s was shown", bad[i]);
        assert_int_equal(rig->counts[1].event_id, 6);
    }
    assert_int_equal(reads("counts", "redis"), 0);
    assert_true(reads("counts", "postgres_unknown") > 0);
}

static void who_is_stale_is_not_asked(void **state)
{
    static const struct shard_hash bad[] = {
        {NULL, "live", 0}, {"7", "stale", 0}, {"7", "", 0},    {"0", "live", 0},
        {"x", "live", 0},  {"-7", "live", 0}, {"", "live", 0},
    };
    struct rig *rig = *state;
    wait_live(rig);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int beat = rig->alpha.beat;
        rig->alpha = bad[i];
        rig->alpha.beat = beat;
        RUN_UNTIL(!is_live(rig, "alpha"));
        assert_true(is_live(rig, "beta"));
        assert_int_equal(ask_counts(rig), SG_SHARD_UNAVAILABLE);
        rig->alpha = (struct shard_hash){"7", "live", beat};
        RUN_UNTIL(is_live(rig, "alpha"));
    }
    assert_true(reads("counts", "postgres_stale") > 0);
    assert_int_equal(rig->answers, 0);
    assert_string_equal(rig->asked, "");
}

/* The consumer died: state says "live" for ever, the beat stands still. */
static void a_beat_that_stands_still_is_not_believed(void **state)
{
    struct rig *rig = *state;
    rig->settings.redis.max_staleness_ms = 150;
    wait_live(rig);
    rig->beats = false;
    int64_t from_us = clock_mono_us();
    RUN_UNTIL(!is_live(rig, "alpha"));
    assert_true(clock_mono_us() - from_us < 1000000);
    assert_int_equal(ask_counts(rig), SG_SHARD_UNAVAILABLE);
    run_for(rig, 50);
    assert_false(is_live(rig, "alpha"));
    rig->beats = true;
    RUN_UNTIL(is_live(rig, "alpha"));
}

/* One look cannot tell whether anybody keeps the keys in step. */
static void the_first_look_is_not_enough(void **state)
{
    struct rig *rig = *state;
    rig->beats = false;
    rig->alpha.beat = 41;
    rig->beta.beat = -1;
    RUN_UNTIL(rig->polls >= 10);
    assert_false(is_live(rig, "alpha"));
    assert_false(is_live(rig, "beta"));
    rig->alpha.beat++;
    RUN_UNTIL(is_live(rig, "alpha"));
    assert_false(is_live(rig, "beta"));
}

static void a_new_generation_is_followed(void **state)
{
    struct rig *rig = *state;
    int64_t generation;
    wait_live(rig);
    rig->alpha.gen = "8";
    RUN_UNTIL(counters_live(rig->counters, "alpha", &generation) && generation == 8);
    rig->event = event_of_100;
    assert_int_equal(ask_counts(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    assert_string_equal(rig->asked, "sg1:{e:5}:alpha.8 sg1:{e:6}:alpha.8 ");
}

static void a_new_map_is_followed(void **state)
{
    struct rig *rig = *state;
    wait_live(rig);
    publish_map(rig, 2, "gamma");
    RUN_UNTIL(!is_live(rig, "beta"));
    assert_true(is_live(rig, "alpha"));
    assert_false(is_live(rig, "gamma"));
    publish_map(rig, 3, "beta");
    RUN_UNTIL(is_live(rig, "beta"));
}

/* --- Redis misbehaves ------------------------------------------------------------------------- */

static void a_redis_that_hangs_costs_little(void **state)
{
    struct rig *rig = *state;
    rig->event = event_of_100;
    wait_live(rig);
    rig->hangs = true;
    int64_t from_us = clock_mono_us();
    assert_int_equal(ask_counts(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    int64_t took_us = clock_mono_us() - from_us;
    assert_in_range(took_us, 55000, 1000000);
    assert_false(rig->counts[0].known);
    assert_int_equal(ask_counts(rig), SG_SHARD_UNAVAILABLE); /* the next ones don't wait */
    assert_int_equal(ask_owners(rig), SG_SHARD_UNAVAILABLE);
    assert_int_equal(reads("counts", "postgres_late"), 2);
    assert_true(rig->redis.client != NULL);
    run_for(rig, 100);
    assert_int_equal(ask_counts(rig), SG_SHARD_UNAVAILABLE);
    assert_int_equal(rig->answers, 1);
}

/* Hung in the middle of the answers: what came counts, the rest is not known; the answers that come
 * later go nowhere, and a poll that is answered in time opens the way again. */
static void late_answers_go_nowhere(void **state)
{
    struct rig *rig = *state;
    rig->alpha_tickets = 3;
    wait_live(rig);
    rig->hangs_at_hlen = true;
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    assert_true(rig->nothing_known);
    assert_false(is_live(rig, "alpha"));
    /* it wakes: HLEN, HGET, HLEN, HGET and whatever polls came behind them */
    rig->hangs = rig->hangs_at_hlen = false;
    fake_say(rig->redis.client, ":3\r\n$1\r\n7\r\n:0\r\n$1\r\n3\r\n");
    fake_say(rig->redis.client, "*3\r\n$1\r\n7\r\n$4\r\nlive\r\n$4\r\n9999\r\n");
    fake_say(rig->redis.client, "*3\r\n$1\r\n3\r\n$4\r\nlive\r\n$4\r\n9999\r\n");
    RUN_UNTIL(is_live(rig, "alpha"));
    assert_int_equal(rig->answers, 1);
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 2);
    assert_true(rig->holds[0] && !rig->holds[1]);
}

static void a_lost_connection_answers_and_forgets(void **state)
{
    struct rig *rig = *state;
    wait_live(rig);
    rig->hangs = true;
    assert_int_equal(ask_counts(rig), SG_OK);
    run_for(rig, 20);
    rig->beats = false;
    fake_free_client(rig->redis.client);
    RUN_UNTIL(rig->answers == 1);
    assert_false(rig->counts[0].known);
    assert_int_equal(ask_counts(rig), SG_SHARD_UNAVAILABLE);
    rig->hangs = false;
    unsigned polls = rig->polls;
    RUN_UNTIL(rig->polls >= polls + 8); /* it is back, and nobody has moved the beat since */
    assert_false(is_live(rig, "alpha"));
    rig->beats = true;
    RUN_UNTIL(is_live(rig, "alpha"));
    assert_int_equal(rig->answers, 1);
}

static void errors_are_not_answers(void **state)
{
    struct rig *rig = *state;
    wait_live(rig);
    rig->errors = true;
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    assert_true(rig->holds[0] && rig->holds[1]); /* not known: asked rather than left out */
}

static void nothing_is_left_when_it_is_freed(void **state)
{
    struct rig *rig = *state;
    wait_live(rig);
    rig->hangs = true;
    assert_int_equal(ask_counts(rig), SG_OK);
    assert_int_equal(ask_owners(rig), SG_OK);
    run_for(rig, 5);
    counters_free(rig->counters);
    rig->counters = NULL;
    assert_int_equal(rig->answers, 2);
    assert_true(rig->nothing_known);
}

static void ask_again(struct rig *rig)
{
    rig->then = NULL;
    (void)ask_counts(rig);
}

static void a_callback_may_ask_again(void **state)
{
    struct rig *rig = *state;
    rig->event = event_of_100;
    wait_live(rig);
    rig->then = ask_again;
    assert_int_equal(ask_counts(rig), SG_OK);
    RUN_UNTIL(rig->answers == 2);
    rig->hangs = true;
    rig->then = ask_again; /* at its deadline: refused by then */
    assert_int_equal(ask_counts(rig), SG_OK);
    RUN_UNTIL(rig->answers == 3);
}

static void too_much_is_refused(void **state)
{
    static int64_t ids[1001];
    struct rig *rig = *state;
    wait_live(rig);
    assert_int_equal(counters_events(rig->counters, "alpha", ids, 0, on_counts, rig),
                     SG_SHARD_UNAVAILABLE);
    assert_int_equal(counters_events(rig->counters, "alpha", ids, 1001, on_counts, rig),
                     SG_SHARD_UNAVAILABLE);
    assert_int_equal(counters_events(rig->counters, "nobody", ids, 1, on_counts, rig),
                     SG_SHARD_UNAVAILABLE);
}

/* --- owners ----------------------------------------------------------------------------------- */

static void owners_are_found(void **state)
{
    static const struct {
        int alpha, beta;
        bool holds_alpha, holds_beta;
    } cases[] = {
        {0, 0, false, false}, {3, 0, true, false}, {0, 3, false, true},
        {9, 4, true, true},   {2, 3, false, true}, /* a tombstone: only at and epoch are left */
    };
    struct rig *rig = *state;
    wait_live(rig);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig->alpha_tickets = cases[i].alpha;
        rig->beta_tickets = cases[i].beta;
        rig->answers = 0;
        assert_int_equal(ask_owners(rig), SG_OK);
        RUN_UNTIL(rig->answers == 1);
        assert_string_equal(rig->asked, "sg1:{u:u-1}:alpha.7 sg1:{u:u-1}:beta.3 ");
        assert_int_equal(rig->count, 2);
        assert_false(rig->nothing_known);
        assert_int_equal(rig->holds[0], cases[i].holds_alpha);
        assert_int_equal(rig->holds[1], cases[i].holds_beta);
    }
}

/* A shard that is not live may hold anything. */
static void a_stale_shard_is_an_owner(void **state)
{
    struct rig *rig = *state;
    wait_live(rig);
    rig->alpha.state = "stale";
    RUN_UNTIL(!is_live(rig, "alpha"));
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    assert_true(rig->holds[0]);
    assert_false(rig->holds[1]);
    assert_string_equal(rig->asked, "sg1:{u:u-1}:beta.3 ");
    rig->beta.state = "stale";
    RUN_UNTIL(!is_live(rig, "beta"));
    assert_int_equal(ask_owners(rig), SG_SHARD_UNAVAILABLE);
}

/* No ticket key may mean that the generation was replaced, or that all keys are gone. */
static void gone_keys_are_not_no_tickets(void **state)
{
    struct rig *rig = *state;
    rig->beta_tickets = 5;
    wait_live(rig);
    rig->settings.redis.poll_ms = 60000; /* no poll sees it */
    run_for(rig, 30);
    rig->switch_to = "9";
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 1);
    assert_true(rig->nothing_known);

    rig->switch_to = NULL; /* FLUSHALL */
    rig->alpha.gen = NULL;
    rig->beta.gen = "3";
    assert_int_equal(ask_owners(rig), SG_OK);
    RUN_UNTIL(rig->answers == 2);
    assert_false(rig->nothing_known);
    assert_true(rig->holds[0] && rig->holds[1]);
}

static void without_an_address_there_are_none(void **state)
{
    struct rig *rig = *state;
    struct settings settings = rig->settings;
    struct router_config config = rig->config;
    settings.redis.address[0] = '\0';
    config.settings = &settings;
    assert_null(counters_new(&config));
    counters_free(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(counts_are_read),
        TEST(nonsense_is_not_shown),
        TEST(who_is_stale_is_not_asked),
        TEST(a_beat_that_stands_still_is_not_believed),
        TEST(the_first_look_is_not_enough),
        TEST(a_new_generation_is_followed),
        TEST(a_new_map_is_followed),
        TEST(a_redis_that_hangs_costs_little),
        TEST(late_answers_go_nowhere),
        TEST(a_lost_connection_answers_and_forgets),
        TEST(errors_are_not_answers),
        TEST(nothing_is_left_when_it_is_freed),
        TEST(a_callback_may_ask_again),
        TEST(too_much_is_refused),
        TEST(owners_are_found),
        TEST(a_stale_shard_is_an_owner),
        TEST(gone_keys_are_not_no_tickets),
        TEST(without_an_address_there_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
