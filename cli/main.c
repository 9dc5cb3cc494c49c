/*
 * seatgrid: the table of commands, and nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

#ifndef SG_VERSION
#define SG_VERSION "0.1.0"
#endif

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cli_serve, "the HTTP API and the router"},
    {"cdc", cli_cdc, "the consumer of the WAL: counters and tickets in Redis"},
    {"worker", cli_worker, "makes the bookings that wait in RabbitMQ"},
    {"migrate", cli_migrate, "bring every shard's schema up to date"},
    {"check-config", cli_check_config, "test the settings and the shard map"},
    {"map", cli_map, "show | find EVENT... | diff OLD NEW"},
    {"nodes", cli_nodes, "what the running server knows of its nodes and streams"},
    {"switchover", cli_switchover, "another node of a shard becomes its primary, on purpose"},
    {"reload", cli_reload, "have the running server read its shard map again"},
    {"reseed", cli_reseed, "build a shard's keys in Redis anew"},
    {"reconcile", cli_reconcile, "compare Redis with PostgreSQL, and heal"},
    {"dev", cli_dev, "up | down | status | run: a local cluster"},
    {"mockpay", cli_mockpay, "a payment service to develop and test against"},
    {"drill", cli_drill, "faults under load, and what they cost"},
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
    fprintf(out, "Usage: seatgrid COMMAND [OPTION...]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-14s %s\n", commands[i].name, commands[i].help);
    fprintf(out,
            "\n`seatgrid COMMAND --help` tells more. `seatgrid --version` is " SG_VERSION ".\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("seatgrid " SG_VERSION);
        return 0;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "seatgrid: no command '%s'; `seatgrid --help` lists them\n", argv[1]);
    return 2;
}
