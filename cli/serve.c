/*
 * seatgrid serve: reads the settings and the shard map, then becomes the server.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "api/server.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "shardmap/shardmap.h"

#define ERRORS_MAX_BYTES (1 << 20)

static void usage(FILE *out)
{
    fputs("usage: seatgrid serve [-c FILE]\n"
          "\n"
          "Runs the HTTP API and the router until SIGTERM or SIGINT. SIGHUP reads the\n"
          "shard map again.\n"
          "\n"
          "  -c FILE   settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
          "            /etc/seatgrid/seatgrid.cfg)\n",
          out);
}

/* Every connection is a descriptor; the soft limit of many systems is 1024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool read_configuration(const char *path, struct settings *settings, struct shardmap **map)
{
    struct dynbuf errors;
    dynbuf_init(&errors, ERRORS_MAX_BYTES);
    enum sg_error error = settings_load(path, settings, &errors);
    if (error == SG_OK)
        error = shardmap_load(settings->shard_map, map, &errors);
    if (error != SG_OK)
        fprintf(stderr, "%sseatgrid: not started: the configuration was refused\n",
                dynbuf_text(&errors));
    dynbuf_done(&errors);
    return error == SG_OK;
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
    if (!read_configuration(cli_config_path(path), &settings, &map))
        return 2;
    enum log_level level = LOG_LEVEL_INFO;
    (void)log_level_parse(settings.log.level, &level);
    log_setup(level, strcmp(settings.log.format, "json") == 0);
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    return server_run(&settings, map) == SG_OK ? 0 : 1;
}
