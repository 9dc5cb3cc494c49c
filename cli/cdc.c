/*
 * seatgrid cdc: reads the settings and the shard map, then becomes the consumer of all shards.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>

#include "api/cdc_server.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid cdc [-c FILE] [--listen HOST:PORT]\n"
    "\n"
    "Follows the WAL of every shard and keeps counters and tickets in Redis in step,\n"
    "until SIGTERM or SIGINT. Any number may run: one works for a shard, the others\n"
    "wait to take over. The shard map is read at the start; restart it for another.\n"
    "\n"
    "  -c, --config FILE       settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                          /etc/seatgrid/seatgrid.cfg)\n"
    "      --listen HOST:PORT  admin listener, instead of cdc.listen: a second one on\n"
    "                          the same machine needs its own\n"
    "      --help              this text\n";

static int run(const char *config, const char *listen)
{
    static struct settings settings;
    struct shardmap *map = cli_begin_server(config, &settings);
    if (!map)
        return 2;
    if (!settings.redis.address[0]) {
        fprintf(stderr, "seatgrid: not started: %s names no Redis; set redis.address\n",
                cli_config_path(config));
        shardmap_free(map);
        return 2;
    }
    if (listen)
        snprintf(settings.cdc.listen, sizeof(settings.cdc.listen), "%s", listen);
    return cdc_server_run(&settings, map) == SG_OK ? 0 : 1;
}

int cli_cdc(int argc, char **argv)
{
    const char *config = NULL;
    const char *listen = NULL;
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &config},
        {.name = "listen", .take = cli_take_address, .arg = &listen},
        {0}};
    int code = cli_options(argc, argv, usage, options, 0);
    if (code >= 0)
        return code;
    return run(config, listen);
}
