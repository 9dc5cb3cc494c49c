/*
 * The options of a command. See options.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http_decode.h"

#define OPTIONS_MAX 31
#define FIRST 256 /* getopt's value of the first option: behind all letters */

static bool take_number(const struct cli_option *option, const char *text)
{
    char *rest;
    errno = 0;
    long long number = strtoll(text, &rest, 10);
    if (errno || rest == text || *rest || number < option->least || number > option->most) {
        fprintf(stderr, "seatgrid: --%s %s: not a number between %d and %d\n", option->name, text,
                option->least, option->most);
        return false;
    }
    *option->number = (int)number;
    return true;
}

static bool take(const struct cli_option *option, const char *text)
{
    if (option->seen)
        *option->seen = true;
    if (option->number)
        return take_number(option, text);
    if (option->take)
        return option->take(option->arg, option->name, text);
    if (option->text)
        *option->text = text;
    else
        *option->flag = true;
    return true;
}

/* The table and its letters as getopt wants them. */
static int prepare(const struct cli_option *options, struct option *ret_known, char *ret_letters)
{
    int count = 0;
    for (; options[count].name; count++) {
        assert(count < OPTIONS_MAX);
        ret_known[count].name = options[count].name;
        ret_known[count].has_arg = options[count].flag ? no_argument : required_argument;
        ret_known[count].val = FIRST + count;
        if (options[count].letter)
            *ret_letters++ = options[count].letter;
        if (options[count].letter && !options[count].flag)
            *ret_letters++ = ':';
    }
    ret_known[count] = (struct option){"help", no_argument, NULL, FIRST + count};
    *ret_letters = '\0';
    return count;
}

static int by_letter(const struct cli_option *options, int value)
{
    int i = 0;
    while (value < FIRST && options[i].name && options[i].letter != (char)value)
        i++;
    return value < FIRST ? i : value - FIRST;
}

int cli_options(int argc, char **argv, const char *usage, const struct cli_option *options,
                int word_max)
{
    struct option known[OPTIONS_MAX + 2] = {{0}};
    char letters[2 * OPTIONS_MAX + 1];
    int count = prepare(options, known, letters);
    int value;
    optind = 1;
    while ((value = getopt_long(argc, argv, letters, known, NULL)) != -1) {
        if (value == FIRST + count) {
            fputs(usage, stdout);
            return 0;
        }
        if (value == '?') {
            fputs(usage, stderr);
            return 2;
        }
        if (!take(&options[by_letter(options, value)], optarg))
            return 2;
    }
    if (optind + word_max < argc) {
        fprintf(stderr, "seatgrid: '%s' is one argument too many\n%s", argv[optind + word_max],
                usage);
        return 2;
    }
    memmove(argv + 1, argv + optind, (size_t)(argc - optind + 1) * sizeof(*argv));
    return -1;
}

bool cli_take_address(void *arg, const char *name, const char *text)
{
    char host[HTTP_HOST_MAX];
    char port[HTTP_PORT_MAX];
    if (http_address_split(text, host, port) != SG_OK) {
        fprintf(stderr, "seatgrid: --%s: '%s' is not host:port\n", name, text);
        return false;
    }
    *(const char **)arg = text;
    return true;
}
