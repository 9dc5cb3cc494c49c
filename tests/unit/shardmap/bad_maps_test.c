/*
 * Goal: every bad map is refused, with the problems it has, each at its line, and no others.
 * Method: tests/bad_maps/ holds a map a file; its first lines tell what is expected:
 *     # expect: LINE: part of the message
 * There must be as many problems as such lines. A `$` at the end ties the part to the message's
 * end.
 *
 * SPDX-License-Identifier: MIT
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "shardmap/shardmap.h"

#define FOLDER "tests/bad_maps"
#define MARK "# expect: "

/* "FILE:LINE: …part…" as one line of the problems. */
static bool problem_matches(const char *problem, const char *path, const char *expected)
{
    char prefix[800];
    const char *part = strchr(expected, ':') + 2;
    size_t part_len = strlen(part);
    bool at_end = part_len > 0 && part[part_len - 1] == '$';
    snprintf(prefix, sizeof(prefix), "%s:%.*s: ", path, (int)(part - 2 - expected), expected);
    size_t len = strlen(problem);
    if (strncmp(problem, prefix, strlen(prefix)) != 0)
        return false;
    if (!at_end)
        return strstr(problem, part) != NULL;
    return len >= part_len - 1 && strncmp(problem + len - (part_len - 1), part, part_len - 1) == 0;
}

static bool any_matches(const char *problems, const char *path, const char *expected)
{
    char *copy = strdup(problems);
    char *rest = copy;
    char *line;
    bool found = false;
    while ((line = strsep(&rest, "\n")))
        found |= problem_matches(line, path, expected);
    free(copy);
    return found;
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; (text = strchr(text, '\n')); text++)
        count++;
    return count;
}

/* How many expectations the file has; all are met, or the test fails. */
static size_t check_expectations(const char *path, const char *problems)
{
    char line[400];
    size_t count = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) && strncmp(line, MARK, strlen(MARK)) == 0) {
        line[strcspn(line, "\n")] = '\0';
        if (!any_matches(problems, path, line + strlen(MARK)))
            fail_msg("%s: expected %s, got:\n%s", path, line + strlen(MARK), problems);
        count++;
    }
    fclose(file);
    return count;
}

static void check_file(const char *path)
{
    struct dynbuf errors;
    struct shardmap *map = NULL;
    dynbuf_init(&errors, 1 << 20);
    if (shardmap_load(path, &map, &errors) != SG_CONFIG_INVALID)
        fail_msg("%s: not refused", path);
    assert_null(map);
    size_t expected = check_expectations(path, dynbuf_text(&errors));
    if (expected == 0 || expected != count_lines(dynbuf_text(&errors)))
        fail_msg("%s: %zu problems expected, got:\n%s", path, expected, dynbuf_text(&errors));
    dynbuf_done(&errors);
}

static int is_map(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".cfg") == 0;
}

static void every_bad_map_is_refused(void **state)
{
    struct dirent **entries;
    int count = scandir(FOLDER, &entries, is_map, alphasort);
    (void)state;
    assert_true(count >= 40);
    for (int i = 0; i < count; i++) {
        char path[300];
        snprintf(path, sizeof(path), FOLDER "/%s", entries[i]->d_name);
        check_file(path);
        free(entries[i]);
    }
    free(entries);
}

static void what_is_no_file_is_refused(void **state)
{
    static const char *const paths[] = {FOLDER, FOLDER "/none.cfg", "/dev/null", "/dev/zero", ""};
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct dynbuf errors;
        struct shardmap *map = NULL;
        dynbuf_init(&errors, 1 << 10);
        assert_int_equal(shardmap_load(paths[i], &map, &errors), SG_IO);
        assert_null(map);
        assert_true(errors.len > 0);
        dynbuf_done(&errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_map_is_refused),
        cmocka_unit_test(what_is_no_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
