/*
 * The options of a command: a table of what there is, and where each is to be put.
 *
 * In: argc/argv of the command. Out: the values; argv's words that are no options, from
 * argv[1] on, NULL behind them. --help prints the usage; what is wrong is said on standard error.
 * Hides getopt.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_OPTIONS_H
#define SG_CLI_OPTIONS_H

#include <stdbool.h>

/* One option. Exactly one of flag, text, number and take is set, and says what it needs; the table
 * ends with one without a name. */
struct cli_option {
    const char *name; /* without its dashes */
    char letter;      /* its short form; 0: it has none */
    bool *flag;       /* takes nothing */
    const char **text;
    int *number; /* from least to most */
    int least;
    int most;
    bool (*take)(void *arg, const char *name, const char *text); /* false: it said what is wrong */
    void *arg;
    bool *seen; /* set if it was given; may be NULL */
};

/* Puts the options where they belong. -1: go on, with at most `word_max` words from argv[1] on;
 * else the exit code: 0 after --help, 2 after wrong usage, which it has named. */
int cli_options(int argc, char **argv, const char *usage, const struct cli_option *options,
                int word_max);

/* A `take` for host:port; arg: the const char * that becomes the text. */
bool cli_take_address(void *arg, const char *name, const char *text);

#endif
