/*
 * seatgrid cdc: reads the settings and the shard map, then becomes the consumer of all shards.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "api/cdc_server.h"
#include "api/http_decode.h"
#include "base/log.h"
#include "base/settings.h"
#include "cli/cli.h"
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
    struct shardmap *map = NULL;
    if (cli_load_settings(config, &settings))
        map = cli_load_map(settings.shard_map);
    if (!map) {
        fputs("seatgrid: not started: the configuration was refused\n", stderr);
        return 2;
    }
    if (!settings.redis.address[0]) {
        fprintf(stderr, "seatgrid: not started: %s names no Redis; set redis.address\n",
                cli_config_path(config));
        shardmap_free(map);
        return 2;
    }
    if (listen)
        snprintf(settings.cdc.listen, sizeof(settings.cdc.listen), "%s", listen);
    enum log_level level = LOG_LEVEL_INFO;
    (void)log_level_parse(settings.log.level, &level);
    log_setup(level, strcmp(settings.log.format, "json") == 0);
    cli_raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    return cdc_server_run(&settings, map) == SG_OK ? 0 : 1;
}

int cli_cdc(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"listen", required_argument, NULL, 'l'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *config = NULL;
    const char *listen = NULL;
    char host[HTTP_HOST_MAX];
    char port[HTTP_PORT_MAX];
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            config = optarg;
            break;
        case 'l':
            listen = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "seatgrid: '%s' is one argument too many\n%s", argv[optind], usage);
        return 2;
    }
    if (listen && http_address_split(listen, host, port) != SG_OK) {
        fprintf(stderr, "seatgrid: --listen: '%s' is not host:port\n", listen);
        return 2;
    }
    return run(config, listen);
}
