/*
 * The commands of the one binary, in the manner of git. cli/main.c has the table.
 *
 * Each takes its own argc/argv (argv[0] is the command's name), prints for people on a terminal and
 * JSON with --json, and returns the exit code: 0 done, 1 the answer is no or it failed, 2 wrong
 * usage or a configuration that cannot be read.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_CLI_H
#define SG_CLI_CLI_H

#include <stdbool.h>

int cli_serve(int argc, char **argv);
int cli_migrate(int argc, char **argv);
int cli_check_config(int argc, char **argv);
int cli_map(int argc, char **argv);
int cli_nodes(int argc, char **argv);
int cli_reload(int argc, char **argv);
int cli_cdc(int argc, char **argv);
int cli_worker(int argc, char **argv);
int cli_reseed(int argc, char **argv);
int cli_reconcile(int argc, char **argv);
int cli_switchover(int argc, char **argv);
int cli_dev(int argc, char **argv);
int cli_drill(int argc, char **argv);
int cli_mockpay(int argc, char **argv);

/* Every connection is a descriptor; the soft limit of many systems is 1024. */
void cli_raise_descriptor_limit(void);

struct settings;
struct shardmap;

/* The settings file to use: `given` (from -c), else $SEATGRID_CONFIG, else var/seatgrid.cfg if it
 * exists, else /etc/seatgrid/seatgrid.cfg. Never NULL. */
const char *cli_config_path(const char *given);
/* Reads the settings of -c `given`; false, and every problem on standard error, if that fails. */
bool cli_load_settings(const char *given, struct settings *ret_settings);
/* Reads a shard map; NULL, and every problem on standard error, if that fails. */
struct shardmap *cli_load_map(const char *path);
/* What every server begins with: settings and map read, the log and the process set up for it.
 * NULL, and why on standard error, if it is not to start. */
struct shardmap *cli_begin_server(const char *given, struct settings *ret_settings);

#endif
