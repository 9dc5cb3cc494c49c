/*
 * seatgrid worker: reads the settings and the shard map, then becomes the consumer of the queue.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>

#include "api/queue_server.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid worker [-c FILE] [--listen HOST:PORT]\n"
    "\n"
    "Makes the bookings that were accepted for later (Prefer: respond-async): takes\n"
    "them from RabbitMQ, queue.url, and acknowledges what is booked or finally\n"
    "refused, until SIGTERM or SIGINT. Any number may run. A shard map that changes\n"
    "is read anew within seconds, on SIGHUP at once.\n"
    "\n"
    "  -c, --config FILE       settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                          /etc/seatgrid/seatgrid.cfg)\n"
    "      --listen HOST:PORT  admin listener, instead of queue.worker_listen: a\n"
    "                          second worker on the same machine needs its own\n"
    "      --help              this text\n";

static int run(const char *config, const char *listen)
{
    static struct settings settings;
    struct shardmap *map = cli_begin_server(config, &settings);
    if (!map)
        return 2;
    if (!settings.queue.url[0]) {
        fprintf(stderr, "seatgrid: not started: %s names no RabbitMQ; set queue.url\n",
                cli_config_path(config));
        shardmap_free(map);
        return 2;
    }
    if (listen)
        snprintf(settings.queue.worker_listen, sizeof(settings.queue.worker_listen), "%s", listen);
    return queue_server_run(&settings, map) == SG_OK ? 0 : 1;
}

int cli_worker(int argc, char **argv)
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
