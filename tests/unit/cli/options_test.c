/*
 * Goal: a command gets the options it was given and the words beside them, and whoever gives it
 * something else is told what is wrong. Method: tables of command lines.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/options.h"

#define ARGS_MAX 8

struct given {
    const char *config;
    bool json;
    int number;
    const char *taken;
    const char *address;
    bool seen;
};

static bool take_even(void *arg, const char *name, const char *text)
{
    const char **ret_text = arg;
    assert_string_equal(name, "even");
    if (strlen(text) % 2)
        return false;
    *ret_text = text;
    return true;
}

/* Standard output and error of the call go nowhere. */
static int parse(const char *const *args, int word_max, struct given *ret, char **ret_argv)
{
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &ret->config},
        {.name = "json", .letter = 'j', .flag = &ret->json},
        {.name = "number", .number = &ret->number, .least = -3, .most = 10, .seen = &ret->seen},
        {.name = "even", .take = take_even, .arg = &ret->taken},
        {.name = "listen", .take = cli_take_address, .arg = &ret->address},
        {0}};
    int argc = 1;
    ret_argv[0] = (char *)(uintptr_t) "command";
    for (; args[argc - 1]; argc++)
        ret_argv[argc] = (char *)(uintptr_t)args[argc - 1];
    ret_argv[argc] = NULL;
    fflush(NULL);
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    assert_non_null(freopen("/dev/null", "w", stdout));
    assert_non_null(freopen("/dev/null", "w", stderr));
    int code = cli_options(argc, ret_argv, "Usage: command\n", options, word_max);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    return code;
}

static void test_options_and_words_in_any_order(void **state)
{
    (void)state;
    static const char *const args[] = {"one", "-c",     "file", "--number=-3", "two",
                                       "-j",  "--even", "abcd", NULL};
    char *argv[ARGS_MAX + 2];
    struct given given = {0};
    assert_int_equal(parse(args, 2, &given, argv), -1);
    assert_string_equal(given.config, "file");
    assert_true(given.json);
    assert_int_equal(given.number, -3);
    assert_true(given.seen);
    assert_string_equal(given.taken, "abcd");
    assert_string_equal(argv[1], "one");
    assert_string_equal(argv[2], "two");
    assert_null(argv[3]);
}

static void test_nothing_given(void **state)
{
    (void)state;
    static const char *const args[] = {NULL};
    char *argv[ARGS_MAX + 2];
    struct given given = {.number = 7};
    assert_int_equal(parse(args, 0, &given, argv), -1);
    assert_null(given.config);
    assert_int_equal(given.number, 7);
    assert_false(given.seen || given.json);
    assert_null(argv[1]);
}

static void test_what_ends_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *args[ARGS_MAX];
        int code;
    } rows[] = {
        {{"--help"}, 0},           {{"--json", "--help", "word"}, 0},
        {{"--unknown"}, 2},        {{"-x"}, 2},
        {{"--config"}, 2},         {{"-c"}, 2},
        {{"--json=1"}, 2},         {{"--number", "11"}, 2},
        {{"--number", "-4"}, 2},   {{"--number", ""}, 2},
        {{"--number", "1x"}, 2},   {{"--number", "99999999999999999999"}, 2},
        {{"--even", "odd"}, 2},    {{"one", "too many"}, 2},
        {{"--listen", "8080"}, 2},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *argv[ARGS_MAX + 2];
        struct given given = {0};
        if (parse(rows[i].args, 1, &given, argv) != rows[i].code)
            fail_msg("row %zu, %s: not %d", i, rows[i].args[0], rows[i].code);
    }
}

static void test_an_address(void **state)
{
    (void)state;
    static const char *const args[ARGS_MAX] = {"--listen", "127.0.0.1:8080"};
    char *argv[ARGS_MAX + 2];
    struct given given = {0};
    assert_int_equal(parse(args, 0, &given, argv), -1);
    assert_string_equal(given.address, "127.0.0.1:8080");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_and_words_in_any_order),
        cmocka_unit_test(test_nothing_given),
        cmocka_unit_test(test_what_ends_at_once),
        cmocka_unit_test(test_an_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
