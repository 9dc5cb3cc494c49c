/*
 * `seatgrid reseed`: has the consumer build a shard's keys in Redis anew, and shows how far it is.
 *
 *   POST /admin/reseed ─> which shards began ─> GET /admin/streams, twice a second, until none does
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/stream_client.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid reseed [SHARD] [-c FILE] [--json]\n"
    "\n"
    "Has the running consumer build the keys of a shard, or of all, anew from one\n"
    "snapshot, and switch the readers to them. Everything goes on meanwhile. Exit\n"
    "code 0: done; 1: a shard failed or refused, or no consumer runs. Ending this\n"
    "command does not end the reseed.\n"
    "\n"
    "  -c, --config FILE  settings that name the consumer's admin listener\n"
    "      --json         output for programs, at the end\n"
    "      --help         this text\n";

#define SHARDS_MAX 256
#define ASK_TIMEOUT_MS 5000
#define POLL_MS 500
#define POLL_FAILURES_MAX 20
#define BAR_WIDTH 24
#define LINE_WIDTH 79
#define PLAIN_EVERY_US 5000000

struct shard_view {
    char name[SHARDMAP_NAME_MAX + 1];
    long long generation; /* before it */
    bool over;
    bool failed;
    long long events, events_total, tickets, tickets_total;
    int64_t ended_us;
    char detail[256];
};

struct view {
    bool json;
    bool terminal;
    size_t count;
    size_t drawn; /* lines on the terminal */
    int64_t started_us;
    int64_t printed_us;
    struct shard_view shards[SHARDS_MAX];
};

/* --- what is seen ----------------------------------------------------------------------------- */

static void note(struct shard_view *shard, const json_t *stream)
{
    const json_t *seed = json_object_get(stream, "seed");
    const bool same = stream_number(stream, "generation") == shard->generation;
    if (json_is_object(seed)) {
        shard->events = stream_number(seed, "events");
        shard->events_total = stream_number(seed, "eventsTotal");
        shard->tickets = stream_number(seed, "tickets");
        shard->tickets_total = stream_number(seed, "ticketsTotal");
    }
    if (json_is_true(json_object_get(stream, "seeding")))
        return;
    shard->over = true;
    shard->failed = same;
    shard->ended_us = clock_mono_us();
    if (same)
        snprintf(shard->detail, sizeof(shard->detail), "%s: %s", admin_text(stream, "state"),
                 admin_text(stream, "detail"));
    else
        shard->generation = stream_number(stream, "generation");
}

static void look_at(struct view *view, const json_t *answer)
{
    for (size_t i = 0; i < view->count; i++) {
        const json_t *stream = stream_of(answer, view->shards[i].name);
        if (stream && !view->shards[i].over)
            note(&view->shards[i], stream);
    }
}

static bool all_over(const struct view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        if (!view->shards[i].over)
            return false;
    }
    return true;
}

/* --- what is shown ---------------------------------------------------------------------------- */

static int percent_of(const struct shard_view *shard)
{
    const long long total = shard->events_total + shard->tickets_total;
    const long long done = shard->events + shard->tickets;
    if (shard->over && !shard->failed)
        return 100;
    if (total <= 0)
        return 0;
    return done >= total ? 99 : (int)(100 * done / total);
}

static const char *phase_of(const struct shard_view *shard)
{
    if (shard->over)
        return shard->failed ? "failed" : "done";
    if (shard->events_total + shard->tickets_total == 0)
        return "starting";
    return shard->events + shard->tickets >= shard->events_total + shard->tickets_total
               ? "catching up"
               : "seeding";
}

static double seconds_of(const struct view *view, const struct shard_view *shard)
{
    const int64_t end_us = shard->over ? shard->ended_us : clock_mono_us();
    return (double)(end_us - view->started_us) / 1e6;
}

static void print_bar(const struct view *view, const struct shard_view *shard)
{
    char line[256];
    char bar[BAR_WIDTH + 1];
    const int percent = percent_of(shard);
    const int full = BAR_WIDTH * percent / 100;
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    snprintf(line, sizeof(line), "%-12.12s [%s] %3d %%  %lld tickets  %.1f s  %s", shard->name, bar,
             percent, shard->tickets, seconds_of(view, shard), phase_of(shard));
    printf("\r%-*.*s", LINE_WIDTH, LINE_WIDTH, line);
}

static void print_plain(const struct view *view, const struct shard_view *shard)
{
    printf("%s: %s, %d %%, %lld of %lld events, %lld of %lld tickets, %.1f s\n", shard->name,
           phase_of(shard), percent_of(shard), shard->events, shard->events_total, shard->tickets,
           shard->tickets_total, seconds_of(view, shard));
}

static void draw(struct view *view, bool last)
{
    const int64_t now_us = clock_mono_us();
    if (view->json)
        return;
    if (!view->terminal && !last && now_us - view->printed_us < PLAIN_EVERY_US)
        return;
    view->printed_us = now_us;
    if (view->terminal && view->drawn > 1)
        printf("\033[%zuA", view->drawn - 1);
    for (size_t i = 0; i < view->count; i++) {
        if (!view->terminal) {
            print_plain(view, &view->shards[i]);
            continue;
        }
        print_bar(view, &view->shards[i]);
        if (i + 1 < view->count || last)
            putchar('\n');
    }
    view->drawn = view->count;
    fflush(stdout);
}

static bool print_json(const struct view *view)
{
    json_t *shards = json_array();
    for (size_t i = 0; i < view->count; i++) {
        const struct shard_view *shard = &view->shards[i];
        json_array_append_new(
            shards,
            json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:s}", "shard", shard->name, "done", !shard->failed,
                      "generation", (json_int_t)shard->generation, "events",
                      (json_int_t)shard->events, "tickets", (json_int_t)shard->tickets, "elapsedMs",
                      (json_int_t)(seconds_of(view, shard) * 1000), "detail", shard->detail));
    }
    struct admin_answer answer = {.json = json_pack("{s:o}", "shards", shards)};
    bool printed = answer.json && admin_answer_print(&answer);
    admin_answer_done(&answer);
    return printed;
}

static int conclude(struct view *view, bool refused)
{
    bool good = !refused;
    for (size_t i = 0; i < view->count; i++) {
        good = good && !view->shards[i].failed;
        if (view->shards[i].failed)
            fprintf(stderr, "seatgrid: %s was not built anew: %s\n", view->shards[i].name,
                    view->shards[i].detail);
    }
    if (view->json)
        good = print_json(view) && good;
    return good ? 0 : 1;
}

/* --- the way ---------------------------------------------------------------------------------- */

/* Until all are over. 0, or the exit code after a message. */
static int follow(const char *config, struct view *view)
{
    static const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
    int failures = 0;
    while (!all_over(view)) {
        struct admin_answer answer;
        draw(view, false);
        nanosleep(&pause, NULL);
        int code = stream_ask(config, "GET", "/admin/streams", NULL, "", ASK_TIMEOUT_MS, &answer);
        if (code) {
            if (++failures == POLL_FAILURES_MAX)
                return code;
            continue;
        }
        failures = 0;
        look_at(view, answer.json);
        admin_answer_done(&answer);
    }
    draw(view, true);
    return 0;
}

/* The shards that began, each with the generation it had. */
static void note_began(struct view *view, const json_t *began, const json_t *streams)
{
    const json_t *name;
    size_t i;
    json_array_foreach(began, i, name)
    {
        if (view->count == SHARDS_MAX)
            break;
        struct shard_view *shard = &view->shards[view->count++];
        snprintf(shard->name, sizeof(shard->name), "%s", json_string_value(name));
        shard->generation = stream_number(stream_of(streams, shard->name), "generation");
    }
}

static bool print_refused(const json_t *refused)
{
    const json_t *one;
    size_t i;
    json_array_foreach(refused, i, one)
        fprintf(stderr, "seatgrid: %s: %s\n", admin_text(one, "shard"), admin_text(one, "detail"));
    return json_array_size(refused) > 0;
}

static int reseed(const char *config, const char *shard, bool json)
{
    static struct view view;
    struct admin_answer before;
    struct admin_answer began;
    view = (struct view){.json = json, .terminal = isatty(STDOUT_FILENO)};
    int code = stream_ask(config, "GET", "/admin/streams", NULL, "", ASK_TIMEOUT_MS, &before);
    if (code)
        return code;
    code = stream_ask(config, "POST", "/admin/reseed", shard, "", ASK_TIMEOUT_MS, &began);
    if (code == 0) {
        view.started_us = clock_mono_us();
        if (began.status == 202) {
            note_began(&view, json_object_get(began.json, "began"), before.json);
            bool refused = print_refused(json_object_get(began.json, "refused"));
            code = follow(config, &view);
            code = code ? code : conclude(&view, refused);
        } else {
            stream_print_problem(&began);
            code = 1;
        }
        admin_answer_done(&began);
    }
    admin_answer_done(&before);
    return code;
}

int cli_reseed(int argc, char **argv)
{
    const char *config = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &config}, {.name = "json", .flag = &json}, {0}};
    int code = cli_options(argc, argv, usage, options, 1);
    return code >= 0 ? code : reseed(config, argv[1], json);
}
