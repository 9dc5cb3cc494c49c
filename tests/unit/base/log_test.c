/*
 * Goal: one event is one line, in text and in JSON, whatever a server's message holds; fields stand
 * where they belong, levels are obeyed, lines of many threads never mix.
 * Method: standard error goes to a file for the length of a test.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static char text[1 << 20];
static int saved_fd;
static FILE *file;

static void begin(void)
{
    fflush(stderr);
    saved_fd = dup(STDERR_FILENO);
    file = tmpfile();
    fcntl(fileno(file), F_SETFL, O_APPEND);
    dup2(fileno(file), STDERR_FILENO);
}

/* What was written since begin(), in `text`. */
static void end(void)
{
    dup2(saved_fd, STDERR_FILENO);
    close(saved_fd);
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    log_setup(LOG_LEVEL_INFO, false);
}

static int lines_of(const char *from)
{
    int count = 0;
    for (; *from; from++)
        count += *from == '\n';
    return count;
}

static const struct log_fields all_fields = {
    .request_id = "r-1", .event_id = 42, .shard = "alpha", .node = "alpha-1"};

static void test_text(void **state)
{
    (void)state;
    begin();
    log_setup(LOG_LEVEL_DEBUG, false);
    log_warn(&all_fields, "lost: %s %d", "EOF", 7);
    end();
    assert_int_equal(lines_of(text), 1);
    assert_true(text[4] == '-' && text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
    assert_string_equal(text + 24,
                        " warn  [request=r-1 event=42 shard=alpha node=alpha-1] lost: EOF 7\n");
}

static void test_absent_fields_are_left_out(void **state)
{
    struct log_fields none = {0};
    struct log_fields shard_only = {.shard = "beta"};
    (void)state;
    begin();
    log_info(NULL, "a");
    log_info(&none, "b");
    log_info(&shard_only, "c");
    end();
    assert_int_equal(lines_of(text), 3);
    assert_non_null(strstr(text, "info  a\n"));
    assert_non_null(strstr(text, "info  b\n"));
    assert_non_null(strstr(text, "info  [shard=beta] c\n"));
}

static void test_json(void **state)
{
    (void)state;
    begin();
    log_setup(LOG_LEVEL_DEBUG, true);
    log_error(&all_fields, "it said \"no\\way\"\n\tand left\r\n");
    end();
    assert_int_equal(lines_of(text), 1);
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
    assert_string_equal(json_string_value(json_object_get(line, "msg")),
                        "it said \"no\\way\"  and left");
    assert_string_equal(json_string_value(json_object_get(line, "request")), "r-1");
    assert_string_equal(json_string_value(json_object_get(line, "event")), "42");
    assert_string_equal(json_string_value(json_object_get(line, "shard")), "alpha");
    assert_string_equal(json_string_value(json_object_get(line, "node")), "alpha-1");
    assert_int_equal(strlen(json_string_value(json_object_get(line, "ts"))), 24);
    json_decref(line);
}

static void test_one_line_whatever_comes(void **state)
{
    (void)state;
    for (int json = 0; json <= 1; json++) {
        begin();
        log_setup(LOG_LEVEL_DEBUG, json != 0);
        log_info(NULL, "%s", "FATAL:  a\nDETAIL:  b\n\n\x01\x1f\x1b[31m\n");
        end();
        assert_int_equal(lines_of(text), 1);
        for (const char *p = text; p[1]; p++)
            assert_true((unsigned char)*p >= 0x20);
    }
}

static void test_long_lines_are_cut(void **state)
{
    char *message = malloc(100001);
    (void)state;
    memset(message, '"', 100000); /* each becomes two in JSON */
    message[100000] = '\0';
    for (int json = 0; json <= 1; json++) {
        begin();
        log_setup(LOG_LEVEL_DEBUG, json != 0);
        log_info(&all_fields, "%s", message);
        end();
        assert_int_equal(lines_of(text), 1);
        assert_true(strlen(text) > 1000 && strlen(text) < 8192);
        if (json) {
            json_t *line = json_loads(text, 0, NULL);
            assert_non_null(line); /* cut inside the message, not inside the JSON */
            json_decref(line);
        }
    }
    free(message);
}

/* A server may speak another encoding, and a cut may go through a character. */
static void test_json_is_utf8_whatever_comes(void **state)
{
    static const char *const messages[] = {"gr\xfc\xdf",
                                           "\xc3",
                                           "\xe2\x82",
                                           "\xf0\x9f\x8e",
                                           "\xc0\x80",
                                           "\xed\xa0\x80",
                                           "\xf4\x90\x80\x80",
                                           "\xf5\x80\x80\x80",
                                           "\xe0\x80\xaf",
                                           "\xf0\x80\x80\xaf",
                                           "\x80",
                                           "\xff\xfe"};
    char *message = malloc(6001);
    (void)state;
    begin();
    log_setup(LOG_LEVEL_DEBUG, true);
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
        log_info(NULL, "%s.", messages[i]);
    for (int shift = 0; shift < 3; shift++) {
        memset(message, 'x', 3);
        for (int i = shift; i < 6000 - 3; i += 3)
            memcpy(message + i, "\xe5\xba\xa7", 4);
        log_info(NULL, "%s", message);
    }
    log_info(NULL, "grüß 座 🎟");
    end();
    free(message);
    assert_int_equal(lines_of(text), sizeof(messages) / sizeof(messages[0]) + 4);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *parsed = json_loads(line, 0, NULL);
        assert_non_null(parsed);
        const char *said = json_string_value(json_object_get(parsed, "msg"));
        assert_true(said[0] == '?' || said[0] == 'g' || said[0] == 'x' || said[0] == '\xe5');
        json_decref(parsed);
    }
}

static void test_levels(void **state)
{
    enum log_level level = LOG_LEVEL_ERROR;
    (void)state;
    begin();
    log_setup(LOG_LEVEL_WARN, false);
    log_debug(NULL, "one");
    log_info(NULL, "two");
    log_warn(NULL, "three");
    log_error(NULL, "four");
    end();
    assert_int_equal(lines_of(text), 2);
    assert_null(strstr(text, "two"));
    assert_non_null(strstr(text, "three"));
    assert_false(log_level_parse("WARN", &level));
    assert_false(log_level_parse("", &level));
    assert_false(log_level_parse("warning", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_LEVEL_WARN);
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 500; i++)
        log_info(&all_fields, "thread %d says %d over and over again", *(int *)arg, i);
    return NULL;
}

static void test_lines_of_threads_do_not_mix(void **state)
{
    pthread_t threads[4];
    int numbers[4];
    (void)state;
    begin();
    for (int i = 0; i < 4; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, write_many, &numbers[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    end();
    assert_int_equal(lines_of(text), 2000);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(line[4] == '-' && line[23] == 'Z');
        assert_string_equal(line + strlen(line) - 19, "over and over again");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_absent_fields_are_left_out),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_one_line_whatever_comes),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_json_is_utf8_whatever_comes),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
