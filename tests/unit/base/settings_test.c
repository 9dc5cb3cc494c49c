/*
 * Goal: a settings file means what it says: defaults, bounds, types, unknown keys; the example in
 * configs/ is the table.
 * Method: files in a folder of their own, read back; the committed files loaded and compared.
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
#include "base/settings.h"
#include "router/router.h"

static char folder[] = "/tmp/settings_test.XXXXXX";
static char path[100];

static enum sg_error load(const char *text, struct settings *settings, struct dynbuf *errors)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    dynbuf_init(errors, 1 << 16);
    return settings_load(path, settings, errors);
}

static void defaults(void **state)
{
    struct settings settings;
    (void)state;
    settings_init(&settings);
    assert_int_equal(settings.workers, 0);
    assert_string_equal(settings.log.level, "info");
    assert_string_equal(settings.log.format, "text");
    assert_string_equal(settings.http.listen, "127.0.0.1:8080");
    assert_int_equal(settings.http.max_body_bytes, 65536);
    assert_int_equal(settings.http.idle_timeout_ms, 75000);
    assert_string_equal(settings.admin.listen, "127.0.0.1:8081");
    assert_int_equal(settings.booking.strategy, STRATEGY_BATCHED);
    assert_int_equal(settings.booking.batch_max, 256);
    assert_int_equal(settings.events.max_seats, 1000000);
    assert_int_equal(settings.reads.seatmap_recent_bytes, 33554432);
    assert_int_equal(settings.postgres.backoff_max_ms, 2000);
    assert_int_equal(settings.health.down_after, 2);
    assert_int_equal(settings.reload.ask_timeout_ms, 1000);
    assert_string_equal(settings.redis.address, "");
}

static void an_empty_file_is_the_defaults(void **state)
{
    struct settings expected;
    struct settings settings;
    struct dynbuf errors;
    char map[200];
    (void)state;
    settings_init(&expected);
    snprintf(map, sizeof(map), "%s/shardmap.cfg", folder);
    assert_int_equal(load("# nothing\n", &settings, &errors), SG_OK);
    assert_string_equal(settings.shard_map, map);
    memcpy(settings.shard_map, expected.shard_map, sizeof(settings.shard_map));
    assert_memory_equal(&settings, &expected, sizeof(settings));
    dynbuf_done(&errors);
}

static void values_are_read(void **state)
{
    struct settings settings;
    struct dynbuf errors;
    (void)state;
    assert_int_equal(load("workers = 3; shard_map = \"/etc/x.cfg\";\n"
                          "http = { listen = \"[::1]:80\"; backlog = 7; };\n"
                          "log = { level = \"debug\"; format = \"json\"; };\n"
                          "booking = { strategy = \"naive\"; };\n"
                          "reads = { seatmap_recent_bytes = 5000000000; };\n"
                          "redis = { address = \"cache.internal:6379\"; };\n",
                          &settings, &errors),
                     SG_OK);
    assert_int_equal(settings.workers, 3);
    assert_string_equal(settings.shard_map, "/etc/x.cfg");
    assert_string_equal(settings.http.listen, "[::1]:80");
    assert_int_equal(settings.http.backlog, 7);
    assert_int_equal(settings.http.max_headers, 100);
    assert_string_equal(settings.log.level, "debug");
    assert_string_equal(settings.log.format, "json");
    assert_int_equal(settings.booking.strategy, STRATEGY_NAIVE);
    assert_int_equal(settings.reads.seatmap_recent_bytes, 5000000000);
    assert_string_equal(settings.redis.address, "cache.internal:6379");
    dynbuf_done(&errors);
}

static void every_strategy_has_its_name(void **state)
{
    static const char *const names[] = {"batched", "pessimistic", "optimistic", "naive"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct settings settings;
        struct dynbuf errors;
        char text[80];
        snprintf(text, sizeof(text), "booking = { strategy = \"%s\"; };", names[i]);
        assert_int_equal(load(text, &settings, &errors), SG_OK);
        assert_string_equal(booking_strategy_name(settings.booking.strategy), names[i]);
        dynbuf_done(&errors);
    }
}

static void problems_are_named(void **state)
{
    static const struct {
        const char *text;
        const char *problem; /* behind the file's name */
    } table[] = {
        {"wrokers = 1;", ":1: wrokers: unknown key; did you mean \"workers\"?"},
        {"htpp = { };", ":1: htpp: unknown key; did you mean \"http\"?"},
        {"http = {\n  listne = \"x\"; };",
         ":2: http.listne: unknown key; did you mean \"listen\"?"},
        {"listen = \"127.0.0.1:1\";", ":1: listen: unknown key"},
        {"http = 5;", ":1: http: is a number; write http = { ... };"},
        {"workers = \"2\";", ":1: workers: is a string; write a whole number"},
        {"workers = -1;", ":1: workers: -1 is out of bounds; choose from 0 to 256"},
        {"workers = 4294967297;", ":1: workers: 4294967297 is out of bounds"},
        {"workers = true;", ":1: workers: is a boolean"},
        {"booking = { strategy = \"fast\"; };",
         ":1: booking.strategy: \"fast\" is none of batched, pessimistic, optimistic, naive"},
        {"booking = { max_seats = 101; };", ":1: booking.max_seats: 101 is out of bounds"},
        {"log = { level = \"loud\"; };",
         ":1: log.level: \"loud\" is none of debug, info, warn, error; choose one"},
        {"log = { level = \"an unusually long level\"; };", ":1: log.level: is 23 bytes long"},
        {"http = { listen = \"8080\"; };", ":1: http.listen: \"8080\" is no address"},
        {"http = { listen = \":8080\"; };", "is no address"},
        {"http = { listen = \"h:\"; };", "is no address"},
        {"http = { listen = \"h:0\"; };", "is no address"},
        {"http = { listen = \"h:65536\"; };", "is no address"},
        {"http = { listen = \"h:123456\"; };", "is no address"},
        {"http = { listen = \"h:80x\"; };", "is no address"},
        {"http = { listen = \"::1:80\"; };", "is no address"},
        {"http = { listen = \"[]:80\"; };", "is no address"},
        {"http = { listen = \"\"; };", "is no address"},
        {"redis = { address = \"redis\"; };", ":1: redis.address: \"redis\" is no address"},
        {"shard_map = \"\";", ":1: shard_map: is empty; name a file"},
        {"http = { listen = \"h:1\"; };\nadmin = {\n listen = \"h:1\"; };",
         ":3: admin.listen: is also http.listen, h:1; take another port"},
        {"http = { listen = \"127.0.0.1:8081\"; };", ":1: is also http.listen, 127.0.0.1:8081"},
        {"health = { lag_out = 4; };",
         ":1: health.lag_samples: 3 is less than health.lag_out, 4; raise it"},
        {"postgres = { backoff_min_ms = 3000; };",
         ":1: postgres.backoff_max_ms: 2000 is less than postgres.backoff_min_ms, 3000; raise it"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct settings settings = {.workers = 42};
        struct dynbuf errors;
        assert_int_equal(load(table[i].text, &settings, &errors), SG_CONFIG_INVALID);
        assert_int_equal(settings.workers, 42);
        if (strncmp(dynbuf_text(&errors), path, strlen(path)) != 0 ||
            !strstr(dynbuf_text(&errors), table[i].problem))
            fail_msg("%s: %s", table[i].text, dynbuf_text(&errors));
        dynbuf_done(&errors);
    }
}

static void all_problems_are_listed(void **state)
{
    struct settings settings;
    struct dynbuf errors;
    size_t lines = 0;
    (void)state;
    assert_int_equal(
        load("workers = -1;\nhttp = { backlog = 0; max = 1; };\nx = 1;\n", &settings, &errors),
        SG_CONFIG_INVALID);
    for (const char *p = dynbuf_text(&errors); (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 4);
    dynbuf_done(&errors);
}

static void a_missing_file_is_no_configuration(void **state)
{
    struct settings settings;
    struct dynbuf errors;
    (void)state;
    dynbuf_init(&errors, 4096);
    assert_int_equal(settings_load("/nonexistent/seatgrid.cfg", &settings, &errors), SG_IO);
    assert_non_null(strstr(dynbuf_text(&errors), "/nonexistent/seatgrid.cfg: cannot be read"));
    dynbuf_done(&errors);
}

/* A change of the table needs: seatgrid check-config --example > configs/seatgrid.example.cfg */
static void the_example_is_the_table(void **state)
{
    struct dynbuf example;
    static char committed[1 << 16];
    (void)state;
    dynbuf_init(&example, sizeof(committed));
    settings_write_example(&example);
    FILE *file = fopen("configs/seatgrid.example.cfg", "r");
    assert_non_null(file);
    size_t len = fread(committed, 1, sizeof(committed) - 1, file);
    fclose(file);
    committed[len] = '\0';
    assert_string_equal(committed, dynbuf_text(&example));
    dynbuf_done(&example);
}

static void the_example_changes_nothing(void **state)
{
    struct settings settings;
    struct settings expected;
    struct dynbuf errors;
    (void)state;
    settings_init(&expected);
    dynbuf_init(&errors, 4096);
    assert_int_equal(settings_load("configs/seatgrid.example.cfg", &settings, &errors), SG_OK);
    assert_string_equal(settings.shard_map, "configs/shardmap.cfg");
    memcpy(settings.shard_map, expected.shard_map, sizeof(settings.shard_map));
    assert_memory_equal(&settings, &expected, sizeof(settings));
    dynbuf_done(&errors);
}

static void the_local_cluster_loads(void **state)
{
    struct settings settings;
    struct dynbuf errors;
    struct shardmap *map = NULL;
    (void)state;
    dynbuf_init(&errors, 4096);
    assert_int_equal(settings_load("configs/seatgrid.cfg", &settings, &errors), SG_OK);
    assert_int_equal(shardmap_load(settings.shard_map, &map, &errors), SG_OK);
    assert_int_equal(shardmap_find(map, 1000000), shardmap_shard_by_name(map, "alpha"));
    assert_int_equal(shardmap_find(map, 1000001), shardmap_shard_by_name(map, "beta"));
    assert_int_equal(shardmap_find(map, 2000001), -1);
    shardmap_free(map);
    dynbuf_done(&errors);
}

static void the_bound_of_seats_is_the_routers(void **state)
{
    struct settings settings;
    struct dynbuf errors;
    char text[80];
    (void)state;
    snprintf(text, sizeof(text), "booking = { max_seats = %d; };", ROUTER_SEATS_MAX);
    assert_int_equal(load(text, &settings, &errors), SG_OK);
    dynbuf_done(&errors);
    snprintf(text, sizeof(text), "booking = { max_seats = %d; };", ROUTER_SEATS_MAX + 1);
    assert_int_equal(load(text, &settings, &errors), SG_CONFIG_INVALID);
    dynbuf_done(&errors);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/seatgrid.cfg", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(an_empty_file_is_the_defaults),
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(every_strategy_has_its_name),
        cmocka_unit_test(problems_are_named),
        cmocka_unit_test(all_problems_are_listed),
        cmocka_unit_test(a_missing_file_is_no_configuration),
        cmocka_unit_test(the_example_is_the_table),
        cmocka_unit_test(the_example_changes_nothing),
        cmocka_unit_test(the_local_cluster_loads),
        cmocka_unit_test(the_bound_of_seats_is_the_routers),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
