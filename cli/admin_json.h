/*
 * What `seatgrid nodes` and `seatgrid reload` have in common: one question to the admin listener
 * that the settings name, its answer as JSON.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_ADMIN_JSON_H
#define SG_CLI_ADMIN_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct admin_answer {
    int status;
    json_t *json; /* an object */
};

/* Asks, with settings from `config` (as in cli_config_path). extra_ms is the time the server itself
 * may need, beyond reload.ask_timeout_ms. 0 and *ret_answer, to be ended by admin_answer_done; else
 * the exit code, after a message on stderr. */
int admin_json(const char *config, const char *method, const char *path, int64_t extra_ms,
               struct admin_answer *ret_answer);
void admin_answer_done(struct admin_answer *answer);
/* Prints the answer as it came, for programs. False if that failed. */
bool admin_answer_print(const struct admin_answer *answer);
/* A string member, "" if there is none. */
const char *admin_text(const json_t *object, const char *name);

#endif
