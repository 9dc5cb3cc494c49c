/*
 * seatgrid serve: reads the settings and the shard map, then becomes the server.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stddef.h>

#include "api/server.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"

static const char usage[] =
    "Usage: seatgrid serve [-c FILE]\n"
    "\n"
    "Runs the HTTP API and the router until SIGTERM or SIGINT. SIGHUP reads the\n"
    "shard map again.\n"
    "\n"
    "  -c, --config FILE  settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --help         this text\n";

int cli_serve(int argc, char **argv)
{
    static struct settings settings;
    const char *config = NULL;
    const struct cli_option options[] = {{.name = "config", .letter = 'c', .text = &config}, {0}};
    int code = cli_options(argc, argv, usage, options, 0);
    if (code >= 0)
        return code;
    struct shardmap *map = cli_begin_server(config, &settings);
    if (!map)
        return 2;
    return server_run(&settings, map) == SG_OK ? 0 : 1;
}
