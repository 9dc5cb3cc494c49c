/*
 * Goal: `seatgrid check-config` and `seatgrid map` say what is so, with the exit code that means
 * it, in 80 columns, and never show a password. Method: the commands called in this process, their
 * output caught in files.
 *
 * SPDX-License-Identifier: MIT
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/cli.h"

static char folder[] = "/tmp/cli_map_test.XXXXXX";
static char out[8192]; /* what the last command printed */
static char err[8192];

static const char map_text[] =
    "map_version = 7;\n"
    "shards = (\n"
    "  { name = \"alpha\"; nodes = ( { name = \"alpha-1\"; dsn = \"host=10.0.0.1 port=5433 \"\n"
    "      \"dbname=seatgrid user=u password=hunter2\"; } ); },\n"
    "  { name = \"beta\"; nodes = ( { name = \"beta-1\"; dsn = \"postgresql://u:hunter2@h/d\"; } "
    "); }\n"
    ");\n"
    "ranges = ( { first = 1; last = 1000; shard = \"alpha\"; },\n"
    "           { first = 1001; last = 9223372036854775807; shard = \"beta\"; } );\n"
    "pins = ( { event = 777; shard = \"beta\"; } );\n";

static const char *in_folder(const char *name)
{
    static char paths[4][100];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int catch (int fd, const char *name)
{
    int saved = dup(fd);
    int file = open(in_folder(name), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(saved >= 0 && file >= 0);
    dup2(file, fd);
    close(file);
    return saved;
}

static void release(int saved, int fd, const char *name, char *text, size_t size)
{
    dup2(saved, fd);
    close(saved);
    FILE *file = fopen(in_folder(name), "r");
    assert_non_null(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Runs a command line ended by NULL; its exit code. */
static int run(int (*command)(int argc, char **argv), char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    fflush(stdout);
    int saved_out = catch (STDOUT_FILENO, "out");
    int saved_err = catch (STDERR_FILENO, "err");
    int code = command(argc, argv);
    fflush(stdout);
    release(saved_out, STDOUT_FILENO, "out", out, sizeof(out));
    release(saved_err, STDERR_FILENO, "err", err, sizeof(err));
    return code;
}

#define RUN(command, ...) run(command, (char *[]){__VA_ARGS__, NULL})
#define PATH(name) ((char *)in_folder(name))

static void fits_a_terminal(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        assert_true(len <= 80);
        text += len + (text[len] == '\n');
    }
}

static json_t *parse_out(void)
{
    json_t *json = json_loads(out, 0, NULL);
    assert_non_null(json);
    return json;
}

static void a_good_configuration(void **state)
{
    (void)state;
    write_file("good.cfg", "shard_map = \"map.cfg\";");
    assert_int_equal(RUN(cli_check_config, "check-config", "-c", PATH("good.cfg")), 0);
    assert_string_equal(out, "");
    assert_non_null(strstr(err, "seatgrid: configuration file /tmp/"));
    assert_non_null(strstr(err, "good.cfg test is successful\n"));
    assert_int_equal(RUN(cli_check_config, "check-config", "--json", "-c", PATH("good.cfg")), 0);
    assert_string_equal(err, "");
    json_t *json = parse_out();
    assert_true(json_is_true(json_object_get(json, "ok")));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "map"), "ranges")),
                     2);
    assert_int_equal(json_array_size(json_object_get(json, "problems")), 0);
    json_decref(json);
}

static void bad_configurations(void **state)
{
    (void)state;
    write_file("bad.cfg", "workers = -1;\nwrokers = 2;\n");
    assert_int_equal(RUN(cli_check_config, "check-config", "-c", PATH("bad.cfg")), 1);
    assert_non_null(strstr(err, "bad.cfg:1: workers: -1 is out of bounds"));
    assert_non_null(strstr(err, "bad.cfg:2: wrokers: unknown key"));
    assert_non_null(strstr(err, "bad.cfg test failed\n"));
    assert_int_equal(RUN(cli_check_config, "check-config", "--json", "-c", PATH("bad.cfg")), 1);
    json_t *json = parse_out();
    assert_true(json_is_false(json_object_get(json, "ok")));
    assert_string_equal(json_string_value(json_object_get(json, "code")), "config_invalid");
    assert_int_equal(json_array_size(json_object_get(json, "problems")), 2);
    json_decref(json);

    write_file("nomap.cfg", "shard_map = \"none.cfg\";");
    assert_int_equal(RUN(cli_check_config, "check-config", "-c", PATH("nomap.cfg")), 2);
    assert_non_null(strstr(err, "none.cfg: cannot be read"));
    write_file("badmap.cfg", "shard_map = \"bad.cfg\";");
    assert_int_equal(RUN(cli_check_config, "check-config", "-c", PATH("badmap.cfg")), 1);
    assert_non_null(strstr(err, "bad.cfg:1: map_version: is missing"));
    assert_int_equal(RUN(cli_check_config, "check-config", "-c", PATH("none.cfg")), 2);
}

static void show(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_map, "map", "show", "--map", PATH("map.cfg")), 0);
    fits_a_terminal(out);
    assert_null(strstr(out, "hunter2"));
    assert_non_null(strstr(out, "map version 7: shards 2, nodes 2, ranges 2, pins 1\n"));
    assert_non_null(strstr(out, "alpha  alpha-1  10.0.0.1:5433/seatgrid\n"));
    assert_non_null(strstr(out, "beta   beta-1   h:5432/d\n"));
    assert_non_null(strstr(out, "9223372036854775807  beta\n"));
    assert_int_equal(RUN(cli_map, "map", "show", "--json", "-c", PATH("good.cfg")), 0);
    assert_null(strstr(out, "hunter2"));
    json_t *json = parse_out();
    assert_int_equal(json_integer_value(json_object_get(json, "version")), 7);
    assert_int_equal(json_array_size(json_object_get(json, "shards")), 2);
    assert_int_equal(json_array_size(json_object_get(json, "pins")), 1);
    json_decref(json);
}

static void find(void **state)
{
    (void)state;
    assert_int_equal(
        RUN(cli_map, "map", "find", "--map", PATH("map.cfg"), "777", "1000", "9223372036854775807"),
        0);
    assert_string_equal(out, "777  beta  pinned\n1000  alpha  1..1000\n"
                             "9223372036854775807  beta  1001..9223372036854775807\n");
    write_file("small.cfg", "map_version = 8; shards = ( { name = \"alpha\"; nodes = ( { name = "
                            "\"alpha-1\"; dsn = \"host=x password=hunter2\"; } ); } );"
                            "ranges = ( { first = 1; last = 5; shard = \"alpha\"; } );");
    assert_int_equal(RUN(cli_map, "map", "find", "--map", PATH("small.cfg"), "5", "6"), 1);
    assert_string_equal(out, "5  alpha  1..5\n6  no shard\n");
    assert_int_equal(RUN(cli_map, "map", "find", "--json", "-m", PATH("small.cfg"), "6", "5"), 1);
    assert_string_equal(out, "{\"version\":8,\"events\":[{\"event\":6,\"shard\":null,\"pinned\":"
                             "false},{\"event\":5,\"shard\":\"alpha\",\"pinned\":false}]}\n");
}

static void diff(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_map, "map", "diff", PATH("map.cfg"), PATH("small.cfg")), 0);
    fits_a_terminal(out);
    assert_null(strstr(out, "hunter2"));
    assert_non_null(strstr(out, "map version 7 -> 8\n"));
    assert_non_null(strstr(out, "  - shard beta\n"));
    assert_non_null(strstr(out, "  6..776  alpha -> (none)\n  777  beta -> (none)\n"));
    assert_int_equal(RUN(cli_map, "map", "diff", "--json", PATH("map.cfg"), PATH("map.cfg")), 0);
    json_t *json = parse_out();
    assert_int_equal(json_array_size(json_object_get(json, "moves")), 0);
    json_decref(json);
}

static void wrong_usage(void **state)
{
    char *wrong[][6] = {
        {"map"},
        {"map", "shwo"},
        {"map", "--nonsense"},
        {"map", "show", "--map", "/nonexistent"},
        {"map", "show", "extra"},
        {"map", "find"},
        {"map", "find", "0"},
        {"map", "find", "x1"},
        {"map", "find", "1x"},
        {"map", "find", "9223372036854775808"},
        {"map", "diff", "one"},
        {"map", "show", "-c", "a", "-m"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(run(cli_map, wrong[i]), 2);
        assert_string_equal(out, "");
        assert_string_not_equal(err, "");
    }
    assert_int_equal(RUN(cli_check_config, "check-config", "extra"), 2);
    assert_int_equal(RUN(cli_check_config, "check-config", "--help"), 0);
    fits_a_terminal(out);
    assert_int_equal(RUN(cli_map, "map", "--help"), 0);
    fits_a_terminal(out);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    write_file("map.cfg", map_text);
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"map.cfg",   "small.cfg",  "good.cfg", "bad.cfg",
                                        "nomap.cfg", "badmap.cfg", "out",      "err"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_configuration),
        cmocka_unit_test(bad_configurations),
        cmocka_unit_test(show),
        cmocka_unit_test(find),
        cmocka_unit_test(diff),
        cmocka_unit_test(wrong_usage),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
