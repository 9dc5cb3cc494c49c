/*
 * What the commands that talk to a running `seatgrid serve` or `seatgrid cdc` have in common: one
 * question to an admin listener, its answer as JSON.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_ADMIN_JSON_H
#define SG_CLI_ADMIN_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct admin_answer {
    int status;
    json_t *json; /* an object */
};

/* Asks the listener at `address`. SG_OK and *ret_answer, to be ended by admin_answer_done; else a
 * line for people in error_text. */
enum sg_error admin_ask(const char *address, const char *method, const char *path,
                        int64_t timeout_ms, struct admin_answer *ret_answer, char *error_text,
                        size_t error_size);
/* Asks `seatgrid serve`, with settings from `config` (as in cli_config_path). extra_ms is the time
 * the server itself may need, beyond reload.ask_timeout_ms. 0 and *ret_answer, to be ended by
 * admin_answer_done; else the exit code, after a message on stderr. */
int admin_json(const char *config, const char *method, const char *path, int64_t extra_ms,
               struct admin_answer *ret_answer);
void admin_answer_done(struct admin_answer *answer);
/* Prints the answer as it came, for programs. False if that failed. */
bool admin_answer_print(const struct admin_answer *answer);
/* A string member, "" if there is none. */
const char *admin_text(const json_t *object, const char *name);

#endif
