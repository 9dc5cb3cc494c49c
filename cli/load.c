/*
 * What nearly every command begins with: find the settings, read them, read the shard map. See
 * cli.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/dynbuf.h"
#include "base/log.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "shardmap/shardmap.h"

#define PROBLEMS_MAX_BYTES (2 << 20)

const char *cli_config_path(const char *given)
{
    const char *from_env = getenv("SEATGRID_CONFIG");
    if (given)
        return given;
    if (from_env && *from_env)
        return from_env;
    if (access("var/seatgrid.cfg", R_OK) == 0)
        return "var/seatgrid.cfg";
    return "/etc/seatgrid/seatgrid.cfg";
}

/* Prints what went wrong, a line each, and lets go of the buffer. True if nothing did. */
static bool report(enum sg_error error, struct dynbuf *problems)
{
    char *rest = problems->data;
    char *line;
    if (error != SG_OK && problems->len == 0)
        fprintf(stderr, "seatgrid: %s\n", sg_error_title(error));
    while (error != SG_OK && (line = strsep(&rest, "\n"))) {
        if (*line)
            fprintf(stderr, "seatgrid: %s\n", line);
    }
    dynbuf_done(problems);
    return error == SG_OK;
}

bool cli_load_settings(const char *given, struct settings *ret_settings)
{
    struct dynbuf problems;
    dynbuf_init(&problems, PROBLEMS_MAX_BYTES);
    return report(settings_load(cli_config_path(given), ret_settings, &problems), &problems);
}

struct shardmap *cli_load_map(const char *path)
{
    struct shardmap *map = NULL;
    struct dynbuf problems;
    dynbuf_init(&problems, PROBLEMS_MAX_BYTES);
    return report(shardmap_load(path, &map, &problems), &problems) ? map : NULL;
}

void cli_raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

struct shardmap *cli_begin_server(const char *given, struct settings *ret_settings)
{
    struct shardmap *map = NULL;
    if (cli_load_settings(given, ret_settings))
        map = cli_load_map(ret_settings->shard_map);
    if (!map) {
        fputs("seatgrid: not started: the configuration was refused\n", stderr);
        return NULL;
    }
    enum log_level level = LOG_LEVEL_INFO;
    (void)log_level_parse(ret_settings->log.level, &level);
    log_setup(level, strcmp(ret_settings->log.format, "json") == 0);
    cli_raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    return map;
}
