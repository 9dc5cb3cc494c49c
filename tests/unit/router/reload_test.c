/*
 * Goal: a refused map changes nothing, an accepted one is published in one step, and nothing but
 * what must be known is waited for.
 * Method: real files and a real event loop; the nodes are at a port where nobody listens, so every
 * shard is dead. A table of maps, each loaded over the same published one.
 *
 * SPDX-License-Identifier: MIT
 */
#include <event2/event.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/reload.h"
#include "shardmap/diff.h"
#include "shardmap/shardmap.h"

#define DEAD(name) "{ name = \"" name "\"; dsn = \"host=127.0.0.1 port=1 dbname=" name "\"; }"
#define SHARD(name, nodes) "{ name = \"" name "\"; nodes = (" nodes "); }"
#define RANGE(first, last, shard) "{ first = " #first "; last = " #last "; shard = \"" shard "\"; }"
#define MAP(version, shards, ranges)                                                               \
    "map_version = " #version "; shards = (" shards "); ranges = (" ranges ");\n"

#define ALPHA SHARD("alpha", DEAD("alpha-1"))
#define BETA SHARD("beta", DEAD("beta-1"))
#define BASE_MAP MAP(5, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(101, 200, "beta"))

struct fixture {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct settings settings;
    struct reload *reload;
    int published; /* calls of on_published */
    int answers;
    enum reload_outcome outcome;
    bool forced;
    bool has_diff;
    int64_t new_version;
    char errors[1024];
    char warnings[1024];
};

static void on_published(void *arg)
{
    struct fixture *f = arg;
    f->published++;
}

static void on_done(void *arg, const struct reload_report *report)
{
    struct fixture *f = arg;
    f->answers++;
    f->outcome = report->outcome;
    f->forced = report->forced;
    f->has_diff = report->diff != NULL;
    f->new_version = report->new_version;
    assert_null(report->stranded[0]);
    snprintf(f->errors, sizeof(f->errors), "%s", report->errors);
    snprintf(f->warnings, sizeof(f->warnings), "%s", report->warnings);
    /* one at a time, also here */
    assert_int_equal(reload_start(f->reload, false, false, NULL, NULL), SG_RELOAD_BUSY);
    event_base_loopbreak(f->base);
}

static void write_map(struct fixture *f, const char *text)
{
    FILE *file = fopen(f->settings.shard_map, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void set_up(struct fixture *f)
{
    struct dynbuf errors;
    struct shardmap *map = NULL;
    int fd;
    memset(f, 0, sizeof(*f));
    log_setup(LOG_LEVEL_ERROR, false);
    settings_init(&f->settings);
    f->settings.reload.ask_timeout_ms = 300;
    strcpy(f->settings.shard_map, "/tmp/seatgrid-reload-test-XXXXXX");
    fd = mkstemp(f->settings.shard_map);
    assert_true(fd >= 0);
    close(fd);
    f->base = event_base_new();
    f->reap = reap_list_new(f->base);
    f->metrics = metrics_set_new();
    f->domain = snapshot_domain_new();
    f->publisher = snapshot_reader_new(f->domain);
    dynbuf_init(&errors, 4096);
    assert_int_equal(shardmap_parse("base", BASE_MAP, &map, &errors), SG_OK);
    dynbuf_done(&errors);
    snapshot_publish(f->publisher, &f->maps, map, shardmap_free);
    f->reload = reload_new(&(struct reload_config){.settings = &f->settings,
                                                   .base = f->base,
                                                   .reap = f->reap,
                                                   .metrics = f->metrics,
                                                   .publisher = f->publisher,
                                                   .maps = &f->maps,
                                                   .on_published = on_published,
                                                   .arg = f});
    assert_non_null(f->reload);
}

static void tear_down(struct fixture *f)
{
    reload_free(f->reload);
    unlink(f->settings.shard_map);
    reap_list_free(f->reap);
    snapshot_slot_done(&f->maps, shardmap_free);
    snapshot_reader_free(f->publisher);
    snapshot_domain_free(f->domain);
    event_base_free(f->base);
    metrics_shutdown();
}

static int64_t published_version(struct fixture *f)
{
    snapshot_begin(f->publisher);
    int64_t version = shardmap_version(snapshot_get(&f->maps));
    snapshot_end(f->publisher);
    return version;
}

static void run(struct fixture *f, bool dry_run, bool force)
{
    f->answers = 0;
    assert_int_equal(reload_start(f->reload, dry_run, force, on_done, f), SG_OK);
    assert_int_equal(f->answers, 0); /* never from inside the call */
    assert_int_equal(reload_start(f->reload, dry_run, force, on_done, f), SG_RELOAD_BUSY);
    event_base_dispatch(f->base);
    assert_int_equal(f->answers, 1);
}

struct story {
    const char *name;
    const char *map;
    bool dry_run;
    bool force;
    enum reload_outcome outcome;
    int64_t version;      /* published afterwards */
    const char *errors;   /* part of them; NULL: none */
    const char *warnings; /* likewise */
};

#define GROWN MAP(6, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(101, 300, "beta"))
#define SHRUNK MAP(6, ALPHA "," BETA, RANGE(1, 90, "alpha") "," RANGE(91, 200, "beta"))
#define WITH_GAMMA                                                                                 \
    MAP(6, ALPHA "," BETA "," SHARD("gamma", DEAD("gamma-1")),                                     \
        RANGE(1, 100, "alpha") "," RANGE(101, 200, "beta") "," RANGE(201, 300, "gamma"))

static const struct story stories[] = {
    {"the same file", BASE_MAP, false, false, RELOAD_UNCHANGED, 5, NULL, NULL},
    {"the same file, dry", BASE_MAP, true, false, RELOAD_UNCHANGED, 5, NULL, NULL},
    {"only the version", MAP(6, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(101, 200, "beta")),
     false, false, RELOAD_PUBLISHED, 6, NULL, NULL},
    {"nothing lost, dead servers are not asked", GROWN, false, false, RELOAD_PUBLISHED, 6, NULL,
     NULL},
    {"a dry run publishes nothing", GROWN, true, false, RELOAD_DRY_RUN, 5, NULL, NULL},
    {"other content, same version",
     MAP(5, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(101, 300, "beta")), false, true,
     RELOAD_REFUSED, 5, "map_version 5 is not newer than the published 5", NULL},
    {"an older version", MAP(4, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(101, 200, "beta")),
     false, true, RELOAD_REFUSED, 5, "map_version 4 is not newer than the published 5", NULL},
    {"a dead shard loses ids", SHRUNK, false, false, RELOAD_REFUSED, 5,
     "shard \"alpha\" loses ids between 91 and 100 and none of its nodes answers", NULL},
    {"a dead shard loses ids, dry and forced", SHRUNK, true, true, RELOAD_DRY_RUN, 5, NULL,
     "none of its nodes answers"},
    {"a dead shard loses ids, forced", SHRUNK, false, true, RELOAD_PUBLISHED, 6, NULL,
     "none of its nodes answers"},
    {"a new shard that is dead does not stop a reload", WITH_GAMMA, false, false, RELOAD_PUBLISHED,
     6, NULL, "node \"gamma-1\" of shard \"gamma\" does not answer, so it was not checked"},
    {"a map that is not valid",
     MAP(6, ALPHA "," BETA, RANGE(1, 100, "alpha") "," RANGE(50, 200, "beta")), false, true,
     RELOAD_REFUSED, 5, "overlap", NULL},
    {"a file that does not parse", "map_version = ", false, true, RELOAD_REFUSED, 5, ":1:", NULL},
};

static void expect_part(const char *story, const char *what, const char *text, const char *part)
{
    if (part ? !strstr(text, part) : text[0] != '\0')
        fail_msg("%s: %s are \"%s\", expected \"%s\"", story, what, text, part ? part : "");
}

static void stories_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct fixture f;
        set_up(&f);
        write_map(&f, story->map);
        run(&f, story->dry_run, story->force);
        if (f.outcome != story->outcome)
            fail_msg("%s: %s: %s", story->name, reload_outcome_name(f.outcome), f.errors);
        expect_part(story->name, "errors", f.errors, story->errors);
        expect_part(story->name, "warnings", f.warnings, story->warnings);
        assert_int_equal(published_version(&f), story->version);
        assert_int_equal(f.published, story->outcome == RELOAD_PUBLISHED);
        assert_int_equal(f.forced, story->force && story->warnings);
        tear_down(&f);
    }
}

static void a_missing_file_is_refused(void **state)
{
    struct fixture f;
    (void)state;
    set_up(&f);
    unlink(f.settings.shard_map);
    run(&f, false, true);
    assert_int_equal(f.outcome, RELOAD_REFUSED);
    assert_non_null(strstr(f.errors, f.settings.shard_map));
    assert_int_equal(f.new_version, 0);
    assert_false(f.has_diff);
    tear_down(&f);
}

/* A listener that never answers is the worst kind of dead: only the deadline ends it. */
static void a_silent_server_costs_the_deadline_and_no_more(void **state)
{
    struct fixture f;
    char map[1024];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    (void)state;
    int silent = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(silent, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(silent, 8), 0);
    getsockname(silent, (struct sockaddr *)&address, &len);
    set_up(&f);
    snprintf(map, sizeof(map),
             MAP(6,
                 ALPHA "," BETA ","
                       "{ name = \"gamma\"; nodes = ({ name = \"g\"; "
                       "dsn = \"host=127.0.0.1 port=%d dbname=g\"; }); }",
                 RANGE(1, 100, "alpha") "," RANGE(101, 200, "beta") "," RANGE(201, 300, "gamma")),
             ntohs(address.sin_port));
    write_map(&f, map);
    const int64_t from_us = clock_mono_us();
    run(&f, false, false);
    const int64_t took_us = clock_mono_us() - from_us;
    assert_int_equal(f.outcome, RELOAD_PUBLISHED);
    assert_true(took_us >= 290000 && took_us < 1500000);
    assert_non_null(strstr(f.warnings, "node \"g\""));
    tear_down(&f);
    close(silent);
}

static void many_reloads_one_after_the_other(void **state)
{
    struct fixture f;
    (void)state;
    set_up(&f);
    for (int version = 6; version < 206; version++) {
        char map[1024];
        snprintf(map, sizeof(map),
                 "map_version = %d; shards = (" ALPHA "," BETA "); ranges = (" RANGE(
                     1, 100, "alpha") ", { first = 101; last = %d; shard = \"beta\"; });\n",
                 version, 200 + version);
        write_map(&f, map);
        run(&f, false, false);
        assert_int_equal(f.outcome, RELOAD_PUBLISHED);
        assert_int_equal(published_version(&f), version);
    }
    assert_int_equal(f.published, 200);
    tear_down(&f);
}

static void shutting_down_answers_what_is_under_way(void **state)
{
    struct fixture f;
    (void)state;
    set_up(&f);
    write_map(&f, GROWN);
    assert_int_equal(reload_start(f.reload, false, false, on_done, &f), SG_OK);
    reload_free(f.reload);
    f.reload = NULL;
    assert_int_equal(f.answers, 1);
    assert_int_equal(f.outcome, RELOAD_REFUSED);
    assert_non_null(strstr(f.errors, "shutting down"));
    assert_int_equal(published_version(&f), 5);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_hold),
        cmocka_unit_test(a_missing_file_is_refused),
        cmocka_unit_test(a_silent_server_costs_the_deadline_and_no_more),
        cmocka_unit_test(many_reloads_one_after_the_other),
        cmocka_unit_test(shutting_down_answers_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
