/*
 * Structured log. See log.h.
 *
 *   text  2026-11-21T10:00:00.123Z warn  [shard=alpha node=alpha-1] connection lost: ...
 *   json  {"ts":"...","level":"warn","msg":"connection lost: ...","shard":"alpha",...}
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"

#define LINE_MAX_BYTES 2048

static enum log_level lowest_level = LOG_LEVEL_INFO;
static bool as_json;
static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level lowest, bool json)
{
    lowest_level = lowest;
    as_json = json;
}

bool log_level_parse(const char *name, enum log_level *ret_level)
{
    for (int i = 0; i <= LOG_LEVEL_ERROR; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static void add_timestamp(struct dynbuf *line)
{
    int64_t now_us = clock_wall_us();
    time_t now = (time_t)(now_us / 1000000);
    struct tm tm;
    char text[32];
    gmtime_r(&now, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    dynbuf_addf(line, "%s.%03dZ", text, (int)(now_us / 1000 % 1000));
}

static void add_field(struct dynbuf *line, const char *name, const char *value, bool *opened)
{
    if (!value)
        return;
    if (as_json) {
        dynbuf_addf(line, ",\"%s\":", name);
        dynbuf_add_json(line, value);
    } else {
        dynbuf_addf(line, "%s%s=%s", *opened ? " " : "[", name, value);
        *opened = true;
    }
}

static void add_fields(struct dynbuf *line, const struct log_fields *fields)
{
    char event_id[24];
    bool opened = false;
    if (!fields)
        return;
    snprintf(event_id, sizeof(event_id), "%lld", (long long)fields->event_id);
    add_field(line, "request", fields->request_id, &opened);
    add_field(line, "event", fields->event_id ? event_id : NULL, &opened);
    add_field(line, "shard", fields->shard, &opened);
    add_field(line, "node", fields->node, &opened);
    if (opened)
        dynbuf_adds(line, "] ");
}

/* Bytes of the UTF-8 character at p; 0 if there is none (or only the beginning of one). */
static size_t character_len(const unsigned char *p)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] > 0xf4 || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

/* One line stays one line of UTF-8, whatever a server's message holds. */
static void flatten(char *text)
{
    size_t len = strlen(text);
    while (len && (unsigned char)text[len - 1] <= ' ')
        text[--len] = '\0';
    for (char *p = text; *p;) {
        size_t step = character_len((unsigned char *)p);
        if (step == 0 || (unsigned char)*p < ' ')
            *p = step ? ' ' : '?';
        p += step ? step : 1;
    }
}

void log_write(enum log_level level, const struct log_fields *fields, const char *format, ...)
{
    if (level < lowest_level)
        return;
    char message[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    flatten(message);

    struct dynbuf line;
    dynbuf_init(&line, 4 * (size_t)LINE_MAX_BYTES);
    if (as_json) {
        dynbuf_adds(&line, "{\"ts\":\"");
        add_timestamp(&line);
        dynbuf_addf(&line, "\",\"level\":\"%s\",\"msg\":", level_names[level]);
        dynbuf_add_json(&line, message);
        add_fields(&line, fields);
        dynbuf_adds(&line, "}\n");
    } else {
        add_timestamp(&line);
        dynbuf_addf(&line, " %-5s ", level_names[level]);
        add_fields(&line, fields);
        dynbuf_addf(&line, "%s\n", message);
    }
    ssize_t written = write(STDERR_FILENO, line.data, line.len);
    (void)written; /* nowhere left to say so */
    dynbuf_done(&line);
}
