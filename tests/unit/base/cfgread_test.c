/*
 * Goal: what is read from a configuration is what was written, or a problem that says where; no
 * text and no file can end the program.
 * Method: tables of texts; numbers at the borders of 32 and 64 bits in every spelling; files that
 * are none; texts cut off at every byte.
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cfgread.h"
#include "base/dynbuf.h"

static char folder[] = "/tmp/cfgread_test.XXXXXX";

static void in_folder(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", folder, name);
}

/* Parses a text that must be accepted. */
static struct cfgread *open_text(const char *text, struct dynbuf *errors)
{
    struct cfgread *read = NULL;
    dynbuf_init(errors, 1 << 20);
    assert_int_equal(cfgread_text("x.cfg", text, errors, &read), SG_OK);
    return read;
}

static void close_text(struct cfgread *read, struct dynbuf *errors)
{
    cfgread_free(read);
    dynbuf_done(errors);
}

static void numbers_are_what_is_written(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } table[] = {
        {"0", 0},
        {"-0", 0},
        {"+5", 5},
        {"2147483647", 2147483647},
        {"2147483648", 2147483648},
        {"-2147483648", -2147483648},
        {"-2147483649", -2147483649},
        {"4294967296", 4294967296},
        {"4294967297L", 4294967297},
        {"9007199254740993", 9007199254740993},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775807L", INT64_MAX},
        {"9223372036854775807LL", INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
        {"0x7fffffff", 2147483647},
        {"0x80000000", 2147483648},
        {"0xFFFFFFFF", 4294967295},
        {"0X100000001", 4294967297},
        {"0x7fffffffffffffffL", INT64_MAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct dynbuf errors;
        char text[80];
        int64_t value = 42;
        snprintf(text, sizeof(text), "n = %s; # and a comment without an end", table[i].text);
        struct cfgread *read = open_text(text, &errors);
        assert_true(cfgread_int(read, cfgread_root(read), "n", CFGREAD_REQUIRED, INT64_MIN,
                                INT64_MAX, &value));
        assert_int_equal(value, table[i].value);
        assert_int_equal(cfgread_verdict(read), SG_OK);
        close_text(read, &errors);
    }
}

static void texts_are_refused_with_their_line(void **state)
{
    static const struct {
        const char *text;
        const char *problem;
    } table[] = {
        {"n = 9223372036854775808;", "x.cfg:1: syntax: 9223372036854775808 does not fit"},
        {"n = -9223372036854775809;", "x.cfg:1: syntax: -9223372036854775809 does not fit"},
        {"n = 0x8000000000000000;", "x.cfg:1: syntax: 0x8000000000000000 does not fit"},
        {"n = 18446744073709551617L;", "does not fit"},
        {"\nn = 010;", "x.cfg:2: syntax: 010 starts with a zero"},
        {"n = 1.5;", "1.5 is not a whole number"},
        {"n = .5;", ".5 is not a whole number"},
        {"n = 1e3;", "1e3 is not a whole number"},
        {"n = -;", "- is not a whole number"},
        {"n = 0x;", "0x is not a whole number"},
        {"n = 0b1;", "0b1 is not a whole number"},
        {"n = 5Q;", "5Q is not a whole number"},
        {"n = 5l;", "5l is not a whole number"},
        {"n = 1-2;", "a value stands where a ; is missing"},
        {"n 5;", "a value stands where a = is missing"},
        {"n = = 5;", "= stands where a value is missing"},
        {"n = 5; 6;", "a value stands where the name of a setting is missing"},
        {"n = \"a\nb\";", "x.cfg:1: syntax: a string has no end"},
        {"n = \"a", "a string has no end"},
        {"n = \"a\\\"", "a string has no end"},
        {"n = \"\\xff\";", "\\xff is no character"},
        {"n = ( 1 2 );", "a value stands where a comma or the closing bracket is missing"},
        {"n = ( 1; );", "; stands where a comma or the closing bracket is missing"},
        {"n = ( , );", ", stands where a value is missing"},
        {"n = { a = 1, };\n\nm = (1,);", "x.cfg:3: syntax: a comma stands before )"},
        {"n = { a = \"x\" } \"y\";", "a string stands where a ; is missing"},
        {"true = 1;", "a value stands where the name of a setting is missing"},
        {"\n  @include \"y\"\n", "x.cfg:2: syntax: @include is not supported"},
        {"n = {\n a = 1;\n", "x.cfg:1: syntax: the { of this line is never closed"},
        {"n = 1; n = 2;", "duplicate setting name"},
        {"/* \n */ /* *", "x.cfg:2: syntax: the comment that starts here has no end"},
        {"n = \xc3\x28;", "byte 0xc3 is not text"},
        {"n = \xed\xa0\x80;", "byte 0xed is not text"},
        {"n = \xc0\x80;", "byte 0xc0 is not text"},
        {"n = \xf4\x90\x80\x80;", "byte 0xf4 is not text"},
        {"# ok \xc3", "byte 0xc3 is not text"},
        {"n = \xc3\xa4;", "unexpected \xc3\xa4;"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct dynbuf errors;
        struct cfgread *read = NULL;
        dynbuf_init(&errors, 4096);
        assert_int_equal(cfgread_text("x.cfg", table[i].text, &errors, &read), SG_CONFIG_INVALID);
        assert_null(read);
        if (!strstr(dynbuf_text(&errors), table[i].problem))
            fail_msg("%s: %s", table[i].text, dynbuf_text(&errors));
        dynbuf_done(&errors);
    }
}

static void strings_and_lines(void **state)
{
    const char *text = "a = \"one \" /* and */ \"two\";\n"
                       "b = \"\\\"\\\\\\x41\xc3\xa4\";\n"
                       "c : {\n"
                       "  d = ( { e = \"\\n\" }, { e = \"\" } )\n"
                       "}\n";
    struct dynbuf errors;
    const char *value = NULL;
    (void)state;
    struct cfgread *read = open_text(text, &errors);
    const struct config_setting_t *root = cfgread_root(read);
    assert_true(cfgread_string(read, root, "a", CFGREAD_REQUIRED, 100, &value));
    assert_string_equal(value, "one two");
    assert_true(cfgread_string(read, root, "b", CFGREAD_REQUIRED, 100, &value));
    assert_string_equal(value, "\"\\A\xc3\xa4");
    const struct config_setting_t *group = cfgread_group(read, root, "c");
    assert_int_equal(cfgread_line(group), 3);
    const struct config_setting_t *list = cfgread_groups(read, group, "d", CFGREAD_REQUIRED);
    assert_int_equal(cfgread_length(list), 2);
    assert_true(cfgread_string(read, cfgread_element(list, 1), "e", CFGREAD_REQUIRED, 0, &value));
    assert_string_equal(value, "");
    assert_false(cfgread_string(read, cfgread_element(list, 0), "e", CFGREAD_REQUIRED, 9, &value));
    assert_false(cfgread_string(read, root, "a", CFGREAD_REQUIRED, 6, &value));
    assert_string_equal(value, "");
    assert_int_equal(cfgread_verdict(read), SG_CONFIG_INVALID);
    assert_string_equal(dynbuf_text(&errors),
                        "x.cfg:4: c.d[0].e: holds a control character; remove it\n"
                        "x.cfg:1: a: is 7 bytes long; at most 6 are allowed\n");
    close_text(read, &errors);
}

static void types_are_not_converted(void **state)
{
    struct dynbuf errors;
    int64_t number = 7;
    const char *value = "untouched";
    (void)state;
    struct cfgread *read = open_text("s = \"1\";\nb = true;\nn = 1;\ng = { };\nl = ( 1 );\n"
                                     "a = [ 1 ];\n",
                                     &errors);
    const struct config_setting_t *root = cfgread_root(read);
    assert_false(cfgread_int(read, root, "s", CFGREAD_REQUIRED, 0, 9, &number));
    assert_false(cfgread_int(read, root, "b", CFGREAD_REQUIRED, 0, 9, &number));
    assert_false(cfgread_int(read, root, "g", CFGREAD_REQUIRED, 0, 9, &number));
    assert_false(cfgread_int(read, root, "n", CFGREAD_REQUIRED, 2, 9, &number));
    assert_false(cfgread_int(read, root, "none", CFGREAD_OPTIONAL, 2, 9, &number));
    assert_false(cfgread_string(read, root, "n", CFGREAD_REQUIRED, 9, &value));
    assert_null(cfgread_group(read, root, "n"));
    assert_null(cfgread_groups(read, root, "g", CFGREAD_REQUIRED));
    assert_null(cfgread_groups(read, root, "l", CFGREAD_REQUIRED));
    assert_null(cfgread_groups(read, root, "a", CFGREAD_REQUIRED));
    assert_int_equal(number, 7);
    assert_string_equal(value, "untouched");
    assert_int_equal(cfgread_problem_count(read), 9);
    assert_non_null(strstr(dynbuf_text(&errors), "x.cfg:5: l[0]: is a number; write { ... }\n"));
    close_text(read, &errors);
}

static void unknown_keys_get_a_suggestion(void **state)
{
    static const char *const keys[] = {"listen", "backlog", "max_seats", NULL};
    struct dynbuf errors;
    (void)state;
    struct cfgread *read = open_text("lisetn = 1;\nblacklog = 2;\nbacklog = 3;\nx = 4;\n", &errors);
    cfgread_known_keys(read, cfgread_root(read), keys);
    assert_string_equal(dynbuf_text(&errors),
                        "x.cfg:1: lisetn: unknown key; did you mean \"listen\"?\n"
                        "x.cfg:2: blacklog: unknown key; did you mean \"backlog\"?\n"
                        "x.cfg:4: x: unknown key; remove it\n");
    close_text(read, &errors);
}

static void many_problems_are_bounded(void **state)
{
    struct dynbuf errors;
    char last[64];
    size_t lines = 0;
    (void)state;
    struct cfgread *read = open_text("n = 1;", &errors);
    for (int i = 0; i < CFGREAD_PROBLEMS_MAX + 7; i++)
        cfgread_problem(read, cfgread_root(read), "n", "problem %d", i);
    assert_int_equal(cfgread_verdict(read), SG_CONFIG_INVALID);
    for (const char *p = dynbuf_text(&errors); (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, CFGREAD_PROBLEMS_MAX + 1);
    snprintf(last, sizeof(last), "\nx.cfg: 7 more problems\n");
    assert_non_null(strstr(dynbuf_text(&errors), last));
    close_text(read, &errors);
}

static void lines_beyond_65535_are_counted(void **state)
{
    struct dynbuf text;
    struct dynbuf errors;
    (void)state;
    dynbuf_init(&text, 1 << 20);
    for (int i = 0; i < 70000; i++)
        dynbuf_addc(&text, '\n');
    dynbuf_adds(&text, "n = 1;");
    struct cfgread *read = open_text(dynbuf_text(&text), &errors);
    cfgread_problem(read, cfgread_root(read), "n", "here");
    assert_string_equal(dynbuf_text(&errors), "x.cfg:70001: n: here\n");
    close_text(read, &errors);
    dynbuf_done(&text);
}

/* A text cut off anywhere is accepted or refused, and never more than that. */
static void cut_off_anywhere(void **state)
{
    static const char text[] = "map = { list = ( { a = 5000000000; b = \"x\\\"\"; }, [ 1, 2 ] );\n"
                               "/* c */ d = true, e : \"f\" \"g\" // h\n }; i = 0x1F # j";
    (void)state;
    for (size_t len = 0; len < sizeof(text); len++) {
        char cut[sizeof(text)];
        struct dynbuf errors;
        struct cfgread *read = NULL;
        memcpy(cut, text, len);
        cut[len] = '\0';
        dynbuf_init(&errors, 4096);
        enum sg_error error = cfgread_text("x.cfg", cut, &errors, &read);
        assert_true(error == SG_OK || error == SG_CONFIG_INVALID);
        assert_int_equal(error == SG_OK, errors.len == 0);
        cfgread_free(read);
        dynbuf_done(&errors);
    }
}

static void expect_unreadable(const char *path, enum sg_error expected, const char *reason)
{
    struct dynbuf errors;
    struct cfgread *read = NULL;
    dynbuf_init(&errors, 4096);
    assert_int_equal(cfgread_file(path, &errors, &read), expected);
    assert_null(read);
    assert_int_equal(strncmp(dynbuf_text(&errors), path, strlen(path)), 0);
    assert_non_null(strstr(dynbuf_text(&errors), reason));
    dynbuf_done(&errors);
}

static void files_that_are_none(void **state)
{
    char path[100];
    (void)state;
    in_folder(path, sizeof(path), "missing.cfg");
    expect_unreadable(path, SG_IO, "No such file");
    expect_unreadable(folder, SG_IO, "is a directory");
    in_folder(path, sizeof(path), "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_unreadable(path, SG_IO, "not a regular file");
    unlink(path);
    in_folder(path, sizeof(path), "huge.cfg");
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(ftruncate(fd, (off_t)CFGREAD_FILE_MAX_BYTES + 1), 0);
    expect_unreadable(path, SG_CONFIG_INVALID, "is larger than 64 MiB");
    assert_int_equal(ftruncate(fd, 100), 0);
    expect_unreadable(path, SG_CONFIG_INVALID, ":1: syntax: byte 0x00 is not text");
    close(fd);
    unlink(path);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_what_is_written),
        cmocka_unit_test(texts_are_refused_with_their_line),
        cmocka_unit_test(strings_and_lines),
        cmocka_unit_test(types_are_not_converted),
        cmocka_unit_test(unknown_keys_get_a_suggestion),
        cmocka_unit_test(many_problems_are_bounded),
        cmocka_unit_test(lines_beyond_65535_are_counted),
        cmocka_unit_test(cut_off_anywhere),
        cmocka_unit_test(files_that_are_none),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
