/*
 * seatgrid serve: reads the settings and the shard map, then becomes the server.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "api/server.h"
#include "base/log.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "shardmap/shardmap.h"

static void usage(FILE *out)
{
    fputs("Usage: seatgrid serve [-c FILE]\n"
          "\n"
          "Runs the HTTP API and the router until SIGTERM or SIGINT. SIGHUP reads the\n"
          "shard map again.\n"
          "\n"
          "  -c FILE   settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
          "            /etc/seatgrid/seatgrid.cfg)\n",
          out);
}

int cli_serve(int argc, char **argv)
{
    const char *path = NULL;
    struct shardmap *map = NULL;
    static struct settings settings;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 0;
        }
        if (strcmp(argv[i], "-c") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else {
            fprintf(stderr, "seatgrid serve: unknown argument '%s'\n", argv[i]);
            usage(stderr);
            return 2;
        }
    }
    if (cli_load_settings(path, &settings))
        map = cli_load_map(settings.shard_map);
    if (!map) {
        fputs("seatgrid: not started: the configuration was refused\n", stderr);
        return 2;
    }
    enum log_level level = LOG_LEVEL_INFO;
    (void)log_level_parse(settings.log.level, &level);
    log_setup(level, strcmp(settings.log.format, "json") == 0);
    cli_raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    return server_run(&settings, map) == SG_OK ? 0 : 1;
}
