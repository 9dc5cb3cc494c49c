/*
 * What a load generator run is asked to do: the options of loadgen.c, and how they are read.
 *
 *   argv ─> loadgen_options_parse ─> struct options
 *
 * Wrong usage ends the program with exit code 2 and a line that names it. Header only, because
 * each bench tool is one file.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_LOADGEN_OPTIONS_H
#define SG_TESTS_BENCH_LOADGEN_OPTIONS_H

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEATS_MAX 100
#define HEADERS_MAX 2048

enum traffic { TRAFFIC_GET, TRAFFIC_WALK, TRAFFIC_RANDOM, TRAFFIC_MIXED, TRAFFIC_BEST };
enum take { TAKE_BOOK, TAKE_HOLD, TAKE_PAIR };

struct event_row {
    int64_t id;
    char shard[64]; /* "" when any is right */
};

struct options {
    struct sockaddr_in address;
    enum traffic traffic;
    enum take take;
    const char *path;
    char headers[HEADERS_MAX];
    struct event_row *events;
    size_t event_count;
    int64_t rows, cols;
    int64_t first_seat;
    int64_t seats_min, seats_max;
    int64_t read_percent;
    int64_t connections;
    int64_t ramp_ms, hold_ms, pause_ms, timeout_ms;
    int64_t rate;
    int64_t requests; /* 0: as many as fit */
    int64_t seed;
    FILE *log;
    bool progress;
};

static const char usage_text[] =
    "usage: loadgen [options] HOST:PORT\n"
    "Sends HTTP requests from many clients on one thread, prints one JSON object.\n"
    "\n"
    "what to ask (--traffic)\n"
    "  get      GET --path (the default)\n"
    "  walk     POST /book: the n-th request takes the next seats of the n-th event\n"
    "  random   POST /book: any seats of any event\n"
    "  mixed    --read-percent of GET /events/ID/seats, the rest as walk\n"
    "  best     POST /book: the best seats side by side, of one event after the other\n"
    "and how (--take)\n"
    "  book     POST /book (the default)\n"
    "  hold     POST /events/ID/holds\n"
    "  pair     POST /events/ID/holds, then POST .../confirm\n"
    "\n"
    "  --path PATH          for get (/healthz)\n"
    "  --header 'N: V'      added to every request; may be repeated\n"
    "  --events FILE        lines \"ID [SHARD]\"; answers must come from that shard\n"
    "  --event ID           one event instead\n"
    "  --rows N --cols N    grid of all the events (10 x 10)\n"
    "  --first-seat N       where walk begins in every event, from 1\n"
    "  --seats N[-M]        seats a booking (1)\n"
    "  --read-percent N     for mixed (50)\n"
    "  --seed N\n"
    "how hard\n"
    "  --connections N      clients (64)\n"
    "  --ramp-ms N          they come up over this time (0)\n"
    "  --hold-ms N          then go on for this time (5000)\n"
    "  --requests N         end earlier, after so many requests\n"
    "  --pause-ms N         each rests so long after an answer (0)\n"
    "  --rate N             open loop: N arrivals a second, whatever the answers do\n"
    "  --timeout-ms N       for one answer (10000)\n"
    "what comes out\n"
    "  --log FILE           a line an answer: status, Location, body of the request\n"
    "  --progress           a line a second on stderr\n"
    "\n"
    "Exit: 0 the run took place, 1 no connection succeeded, 2 wrong usage.\n";

static void fail_usage(const char *what, const char *value)
{
    fprintf(stderr, "loadgen: %s: %s; see --help\n", what, value);
    exit(2);
}

static int64_t parse_number(const char *name, const char *text, int64_t min, int64_t max)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max)
        fail_usage(name, text);
    return value;
}

static void parse_address(struct options *options, const char *text)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(host))
        fail_usage("not HOST:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    options->address.sin_family = AF_INET;
    options->address.sin_port = htons((uint16_t)parse_number("port", colon + 1, 1, 65535));
    if (inet_pton(AF_INET, host, &options->address.sin_addr) != 1)
        fail_usage("not an IPv4 address", host);
}

static void add_event(struct options *options, int64_t id, const char *shard)
{
    options->events =
        realloc(options->events, (options->event_count + 1) * sizeof(*options->events));
    if (!options->events)
        abort();
    struct event_row *event = &options->events[options->event_count++];
    event->id = id;
    snprintf(event->shard, sizeof(event->shard), "%s", shard);
}

static void read_events(struct options *options, const char *path)
{
    char line[256];
    FILE *file = fopen(path, "r");
    if (!file)
        fail_usage("cannot read the events", path);
    while (fgets(line, sizeof(line), file)) {
        char shard[64] = "";
        int64_t id;
        if (sscanf(line, "%" SCNd64 " %63s", &id, shard) < 1)
            fail_usage("not \"ID [SHARD]\"", line);
        add_event(options, id, shard);
    }
    fclose(file);
}

static void parse_seats(struct options *options, char *text)
{
    char *dash = strchr(text, '-');
    if (dash)
        *dash++ = '\0';
    options->seats_min = parse_number("--seats", text, 1, SEATS_MAX);
    options->seats_max =
        dash ? parse_number("--seats", dash, options->seats_min, SEATS_MAX) : options->seats_min;
}

/* Which of the names the text is. */
static size_t parse_name(const char *option, const char *text, const char *const *names,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    fail_usage(option, text);
    return 0;
}

static enum traffic parse_traffic(const char *text)
{
    static const char *const names[] = {"get", "walk", "random", "mixed", "best"};
    return (enum traffic)parse_name("--traffic", text, names, sizeof(names) / sizeof(names[0]));
}

static enum take parse_take(const char *text)
{
    static const char *const names[] = {"book", "hold", "pair"};
    return (enum take)parse_name("--take", text, names, sizeof(names) / sizeof(names[0]));
}

static void add_header(struct options *options, const char *text)
{
    size_t used = strlen(options->headers);
    if (used + strlen(text) + 3 > HEADERS_MAX)
        fail_usage("headers too long", text);
    snprintf(options->headers + used, HEADERS_MAX - used, "%s\r\n", text);
}

static void open_log(struct options *options, const char *path)
{
    options->log = fopen(path, "w");
    if (!options->log)
        fail_usage("cannot write the log", path);
}

enum option_id {
    OPT_TRAFFIC = 256,
    OPT_TAKE,
    OPT_PATH,
    OPT_HEADER,
    OPT_EVENTS,
    OPT_EVENT,
    OPT_SEATS,
    OPT_LOG,
    OPT_PROGRESS,
    OPT_HELP,
    OPT_NUMBER /* and above: number_options[id - OPT_NUMBER] */
};

/* Options that are one number: where it goes and its bounds. */
static const struct {
    const char *name;
    size_t offset;
    int64_t min, max;
} number_options[] = {
    {"rows", offsetof(struct options, rows), 1, 1000000},
    {"cols", offsetof(struct options, cols), 1, 1000000},
    {"first-seat", offsetof(struct options, first_seat), 1, 1000000},
    {"read-percent", offsetof(struct options, read_percent), 0, 100},
    {"seed", offsetof(struct options, seed), 0, INT64_MAX},
    {"connections", offsetof(struct options, connections), 1, 100000},
    {"ramp-ms", offsetof(struct options, ramp_ms), 0, 3600000},
    {"hold-ms", offsetof(struct options, hold_ms), 0, 360000000},
    {"requests", offsetof(struct options, requests), 0, INT64_MAX},
    {"pause-ms", offsetof(struct options, pause_ms), 0, 3600000},
    {"rate", offsetof(struct options, rate), 0, 10000000},
    {"timeout-ms", offsetof(struct options, timeout_ms), 1, 3600000},
};
#define NUMBER_OPTIONS (sizeof(number_options) / sizeof(number_options[0]))

static void take_option(struct options *options, int id, char *value)
{
    switch (id) {
    case OPT_TRAFFIC:
        options->traffic = parse_traffic(value);
        break;
    case OPT_TAKE:
        options->take = parse_take(value);
        break;
    case OPT_PATH:
        options->path = value;
        break;
    case OPT_HEADER:
        add_header(options, value);
        break;
    case OPT_EVENTS:
        read_events(options, value);
        break;
    case OPT_EVENT:
        add_event(options, parse_number("--event", value, 1, INT64_MAX), "");
        break;
    case OPT_SEATS:
        parse_seats(options, value);
        break;
    case OPT_LOG:
        open_log(options, value);
        break;
    case OPT_PROGRESS:
        options->progress = true;
        break;
    case OPT_HELP:
        fputs(usage_text, stdout);
        exit(0);
    default:
        if (id < OPT_NUMBER)
            exit(2); /* getopt has named it */
        size_t i = (size_t)(id - OPT_NUMBER);
        int64_t *field = (int64_t *)(void *)((char *)options + number_options[i].offset);
        *field = parse_number(number_options[i].name, value, number_options[i].min,
                              number_options[i].max);
    }
}

static void loadgen_options_parse(struct options *options, int argc, char **argv)
{
    struct option table[NUMBER_OPTIONS + 11] = {
        {"traffic", required_argument, NULL, OPT_TRAFFIC},
        {"take", required_argument, NULL, OPT_TAKE},
        {"path", required_argument, NULL, OPT_PATH},
        {"header", required_argument, NULL, OPT_HEADER},
        {"events", required_argument, NULL, OPT_EVENTS},
        {"event", required_argument, NULL, OPT_EVENT},
        {"seats", required_argument, NULL, OPT_SEATS},
        {"log", required_argument, NULL, OPT_LOG},
        {"progress", no_argument, NULL, OPT_PROGRESS},
        {"help", no_argument, NULL, OPT_HELP},
    };
    for (size_t i = 0; i < NUMBER_OPTIONS; i++)
        table[10 + i] =
            (struct option){number_options[i].name, required_argument, NULL, OPT_NUMBER + (int)i};
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;)
        take_option(options, id, optarg);
    if (optind != argc - 1)
        fail_usage("wanted", "HOST:PORT");
    parse_address(options, argv[optind]);
    if (options->traffic != TRAFFIC_GET && !options->event_count)
        fail_usage("wanted", "--events or --event");
    if (options->seats_max > options->rows * options->cols)
        fail_usage("--seats", "more than the grid has");
    if (options->rate && options->ramp_ms)
        fail_usage("--rate", "has no ramp");
}

#endif
