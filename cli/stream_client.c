/*
 * Questions to a running `seatgrid cdc`. See stream_client.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/stream_client.h"

#include <stdio.h>
#include <string.h>

#include "base/settings.h"
#include "cli/cli.h"
#include "shardmap/shardmap.h"

int stream_ask(const char *config, const char *method, const char *path, const char *shard,
               const char *query, int64_t timeout_ms, struct admin_answer *ret_answer)
{
    static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
    static struct settings settings;
    char target[SHARDMAP_NAME_MAX + 128];
    char error_text[512];
    if (shard &&
        (strspn(shard, name_bytes) != strlen(shard) || strlen(shard) > SHARDMAP_NAME_MAX)) {
        fprintf(stderr, "seatgrid: '%s' is not the name of a shard\n", shard);
        return 2;
    }
    if (!cli_load_settings(config, &settings))
        return 2;
    snprintf(target, sizeof(target), "%s?%s%s%s", path, query, shard ? "&shard=" : "",
             shard ? shard : "");
    enum sg_error error = admin_ask(settings.cdc.listen, method, target, timeout_ms, ret_answer,
                                    error_text, sizeof(error_text));
    if (error == SG_OK)
        return 0;
    fprintf(stderr, "seatgrid: %s%s\n", error_text,
            error == SG_IO ? "; no consumer answers: is `seatgrid cdc` running?" : "");
    return 1;
}

void stream_print_problem(const struct admin_answer *answer)
{
    const char *detail = admin_text(answer->json, "detail");
    fprintf(stderr, "seatgrid: the consumer answered %d: %s\n", answer->status,
            detail[0] ? detail : admin_text(answer->json, "title"));
}

long long stream_number(const json_t *object, const char *name)
{
    return (long long)json_integer_value(json_object_get(object, name));
}

const json_t *stream_of(const json_t *streams, const char *shard)
{
    const json_t *stream;
    size_t i;
    json_array_foreach(json_object_get(streams, "streams"), i, stream)
    {
        if (strcmp(admin_text(stream, "shard"), shard) == 0)
            return stream;
    }
    return NULL;
}

void stream_bytes(const json_t *bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)json_integer_value(bytes);
    size_t unit = 0;
    if (!json_is_integer(bytes) || value < 0) {
        snprintf(text, size, "?");
        return;
    }
    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(text, size, "%.*f %s", unit && value < 10 ? 1 : 0, value, units[unit]);
}
