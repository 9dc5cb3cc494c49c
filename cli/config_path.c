/*
 * Which settings file a command reads. See cli.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"

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
