/*
 * What `seatgrid reseed`, `reconcile` and `nodes` have in common: questions about streams to the
 * `seatgrid cdc` that the settings name, one of them or all.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_CLI_STREAM_CLIENT_H
#define SG_CLI_STREAM_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/admin_json.h"

/* Asks at cdc.listen of the settings in `config` (as in cli_config_path). `shard` NULL for all;
 * `query` is more of the query string, or "". 0 and *ret_answer, whatever its status; else the exit
 * code, after a message on stderr. */
int stream_ask(const char *config, const char *method, const char *path, const char *shard,
               const char *query, int64_t timeout_ms, struct admin_answer *ret_answer);
/* An answer that is a problem, as a line on stderr. */
void stream_print_problem(const struct admin_answer *answer);

long long stream_number(const json_t *object, const char *name);
/* The stream of that shard in an answer of /admin/streams, or NULL. */
const json_t *stream_of(const json_t *streams, const char *shard);
/* Bytes as "812 B", "3.1 MB"; a negative or absent number is "?". */
void stream_bytes(const json_t *bytes, char *text, size_t size);

#endif
