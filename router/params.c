/*
 * Statement parameters. See params.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/params.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <string.h>

#define PARAMS_MAX_BYTES ((size_t)16 << 20)

void params_init(struct params *params)
{
    params->count = 0;
    dynbuf_init(&params->data, PARAMS_MAX_BYTES);
}

void params_done(struct params *params)
{
    dynbuf_done(&params->data);
}

static void put_i32(struct params *params, int32_t value)
{
    uint32_t wire = htonl((uint32_t)value);
    dynbuf_add(&params->data, &wire, sizeof(wire));
}

static void put_i64(struct params *params, int64_t value)
{
    uint64_t wire = htobe64((uint64_t)value);
    dynbuf_add(&params->data, &wire, sizeof(wire));
}

static void open_item(struct params *params)
{
    assert(params->count < PARAMS_MAX);
    params->item[params->count].offset = params->data.len;
}

static void close_item(struct params *params)
{
    params->item[params->count].len = (int)(params->data.len - params->item[params->count].offset);
    params->count++;
    dynbuf_addc(&params->data, '\0'); /* so that an item at the very end is addressable */
}

void params_i64(struct params *params, int64_t value)
{
    open_item(params);
    put_i64(params, value);
    close_item(params);
}

void params_replace_i64(struct params *params, int index, int64_t value)
{
    uint64_t wire = htobe64((uint64_t)value);
    assert(index < params->count && params->item[index].len == (int)sizeof(wire));
    if (!params->data.failed)
        memcpy(params->data.data + params->item[index].offset, &wire, sizeof(wire));
}

void params_i32(struct params *params, int32_t value)
{
    open_item(params);
    put_i32(params, value);
    close_item(params);
}

void params_bool(struct params *params, bool value)
{
    open_item(params);
    dynbuf_addc(&params->data, value);
    close_item(params);
}

void params_text(struct params *params, const char *text)
{
    open_item(params);
    if (text)
        dynbuf_adds(&params->data, text);
    close_item(params);
    if (!text)
        params->item[params->count - 1].len = -1;
}

void params_uuid(struct params *params, const struct uuid *uuid)
{
    open_item(params);
    dynbuf_add(&params->data, uuid->bytes, sizeof(uuid->bytes));
    close_item(params);
}

void params_array_begin(struct params *params, enum params_oid oid, int32_t count)
{
    open_item(params);
    put_i32(params, count ? 1 : 0);
    put_i32(params, 1); /* nulls may occur */
    put_i32(params, (int32_t)oid);
    if (count) {
        put_i32(params, count);
        put_i32(params, 1);
    }
}

void params_array_i64(struct params *params, int64_t value)
{
    put_i32(params, 8);
    put_i64(params, value);
}

void params_array_i32(struct params *params, int32_t value)
{
    put_i32(params, 4);
    put_i32(params, value);
}

void params_array_bool(struct params *params, bool value)
{
    put_i32(params, 1);
    dynbuf_addc(&params->data, value);
}

void params_array_text(struct params *params, const char *text)
{
    if (!text) {
        put_i32(params, -1);
        return;
    }
    size_t len = strlen(text);
    put_i32(params, (int32_t)len);
    dynbuf_add(&params->data, text, len);
}

void params_array_uuid(struct params *params, const struct uuid *uuid)
{
    put_i32(params, sizeof(uuid->bytes));
    dynbuf_add(&params->data, uuid->bytes, sizeof(uuid->bytes));
}

void params_array_null(struct params *params)
{
    put_i32(params, -1);
}

void params_array_end(struct params *params)
{
    close_item(params);
}

bool params_ok(const struct params *params)
{
    return !params->data.failed;
}

void params_export(const struct params *params, const char *ret_values[PARAMS_MAX],
                   int ret_lengths[PARAMS_MAX], int ret_formats[PARAMS_MAX])
{
    for (int i = 0; i < params->count; i++) {
        bool null = params->item[i].len < 0;
        ret_values[i] = null ? NULL : params->data.data + params->item[i].offset;
        ret_lengths[i] = null ? 0 : params->item[i].len;
        ret_formats[i] = 1;
    }
}
