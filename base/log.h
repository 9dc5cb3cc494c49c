/*
 * Structured log, one line an event, to standard error: text for people, JSON for programs.
 *
 * Leaves return errors; the place that decides writes the line, with the fields of the object it
 * decided for. Safe to call from any thread (one write(2) a line).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_LOG_H
#define SG_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* Borrowed for the call. NULL and 0 fields are left out. */
struct log_fields {
    const char *request_id;
    int64_t event_id;
    const char *shard;
    const char *node;
};

/* Process-wide: the lowest level that is written, and JSON or text. Call before threads start. */
void log_setup(enum log_level lowest, bool json);
/* False and *ret_level untouched if the name is none of debug, info, warn, error. */
bool log_level_parse(const char *name, enum log_level *ret_level);
/* `fields` may be NULL. A line longer than 2 KiB is cut. */
void log_write(enum log_level level, const struct log_fields *fields, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(fields, ...) log_write(LOG_LEVEL_DEBUG, fields, __VA_ARGS__)
#define log_info(fields, ...) log_write(LOG_LEVEL_INFO, fields, __VA_ARGS__)
#define log_warn(fields, ...) log_write(LOG_LEVEL_WARN, fields, __VA_ARGS__)
#define log_error(fields, ...) log_write(LOG_LEVEL_ERROR, fields, __VA_ARGS__)

#endif
