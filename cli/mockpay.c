/*
 * seatgrid mockpay: takes the options, then becomes a payment service that behaves as they say.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "api/ids.h"
#include "api/mockpay_server.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/options.h"

static const char usage[] =
    "Usage: seatgrid mockpay --listen HOST:PORT --secret-file F [OPTION...]\n"
    "\n"
    "A payment service to develop and test against: takes imaginary money, once an\n"
    "order, and behaves as badly as it is told to. Until SIGTERM or SIGINT.\n"
    "\n"
    "      --listen HOST:PORT      where it answers\n"
    "      --secret-file F         what signs its callbacks, 8 to 256 bytes\n"
    "      --state F               journal: what was told survives a kill\n"
    "      --delay-ms N[-M]        before a charge is decided (0), a random time to M\n"
    "      --success P             percent of charges that take the money (100)\n"
    "      --silent P              percent that are decided and never answered (0)\n"
    "      --pending P             percent answered 202; a callback tells (0)\n"
    "      --duplicate-callbacks P percent whose callback comes twice (0)\n"
    "      --late-callbacks P      percent answered 202 whose callback is late (0)\n"
    "      --late-ms N             how late (1000)\n"
    "      --lose-callbacks P      percent whose callback never comes (0)\n"
    "      --seed N                of chance: the same order fares the same (1)\n"
    "      --help                  this text\n"
    "\n"
    "A charge's method forces one: ok, decline, silent, pending, late, duplicate.\n"
    "GET /totals tells the money; POST /behaviour changes the rates.\n";

/* "N", or for the delay also "N-M". */
static bool set_field(struct behaviour *behaviour, const char *option, const char *text)
{
    const struct behaviour_field *field = behaviour_field_by_option(option);
    size_t len = strlen(text);
    int64_t value;
    if (strcmp(option, "delay-ms") == 0 && strchr(text, '-')) {
        len = strcspn(text, "-");
        if (!set_field(behaviour, "delay-max-ms", text + len + 1))
            return false;
    }
    return ids_parse_number(text, len, &value) && behaviour_set(behaviour, field, value);
}

static int run(struct mockpay_options *options, const char *secret_file)
{
    char error_text[256];
    if (!options->listen || !secret_file) {
        fprintf(stderr, "seatgrid: --listen and --secret-file are needed\n%s", usage);
        return 2;
    }
    if (!behaviour_is_whole(&options->behaviour)) {
        fputs("seatgrid: --delay-ms: ends before it begins\n", stderr);
        return 2;
    }
    if (hmac_load(secret_file, &options->secret, error_text, sizeof(error_text)) != SG_OK) {
        fprintf(stderr, "seatgrid: --secret-file: %s\n", error_text);
        return 2;
    }
    log_setup(LOG_LEVEL_INFO, false);
    cli_raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    return mockpay_server_run(options) == SG_OK ? 0 : 1;
}

static bool take_behaviour(void *arg, const char *name, const char *text)
{
    if (set_field(arg, name, text))
        return true;
    fprintf(stderr, "seatgrid: --%s: '%s' is no such number\n", name, text);
    return false;
}

#define BEHAVIOUR(name_)                                                                           \
    {                                                                                              \
        .name = (name_), .take = take_behaviour, .arg = &mockpay.behaviour                         \
    }

int cli_mockpay(int argc, char **argv)
{
    static struct mockpay_options mockpay;
    const char *secret_file = NULL;
    const struct cli_option options[] = {
        {.name = "listen", .take = cli_take_address, .arg = &mockpay.listen},
        {.name = "secret-file", .text = &secret_file},
        {.name = "state", .text = &mockpay.journal},
        BEHAVIOUR("delay-ms"),
        BEHAVIOUR("success"),
        BEHAVIOUR("silent"),
        BEHAVIOUR("pending"),
        BEHAVIOUR("duplicate-callbacks"),
        BEHAVIOUR("late-callbacks"),
        BEHAVIOUR("late-ms"),
        BEHAVIOUR("lose-callbacks"),
        BEHAVIOUR("seed"),
        {0}};
    behaviour_init(&mockpay.behaviour);
    int code = cli_options(argc, argv, usage, options, 0);
    return code >= 0 ? code : run(&mockpay, secret_file);
}
