/*
 * Representations of a seat map. See seatmap_body.h.
 *
 *   JSON      {"eventId":1,"rows":2,"cols":5,"seats":["..hx.","....."]}
 *   full      {"eventId":1,"seats":[{"row":1,"col":1,"status":"available"},…]}
 *   protobuf  message SeatMap of proto/seatgrid.proto
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/seatmap_body.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/dynbuf.h"
#include "proto/seatgrid.pb-c.h"

#define FULL_SEAT_MAX_BYTES 56 /* {"row":1000000,"col":1000000,"status":"available"}, */
#define HEAD_MAX_BYTES 128     /* what stands around the seats in any representation */
#define GZIP_WINDOW_BITS (15 + 16)
#define GZIP_LEVEL 1
#define GZIP_MEM_LEVEL 8

const char *const seatmap_media_types[SEATMAP_MEDIA_COUNT] = {
    "application/json",
    "application/vnd.seatgrid.full+json",
    "application/x-protobuf",
};

static size_t seat_count(const struct seatmap *seatmap)
{
    return (size_t)seatmap->rows * (size_t)seatmap->cols;
}

/* About how long the body is without compression. */
static size_t size_guess(const struct seatmap *seatmap, enum seatmap_media media)
{
    switch (media) {
    case SEATMAP_MEDIA_FULL:
        return seat_count(seatmap) * 42;
    case SEATMAP_MEDIA_PROTOBUF:
        return seat_count(seatmap) / 4;
    default:
        return seat_count(seatmap) + 3 * (size_t)seatmap->rows;
    }
}

enum seatmap_form seatmap_body_form(const struct seatmap *seatmap, enum seatmap_media media,
                                    enum accept_coding coding, size_t gzip_min_bytes)
{
    bool gzip = coding == ACCEPT_CODING_GZIP_ONLY ||
                (coding == ACCEPT_CODING_EITHER && size_guess(seatmap, media) >= gzip_min_bytes);
    return (enum seatmap_form)(2 * (int)media + gzip);
}

bool seatmap_body_is_gzip(enum seatmap_form form)
{
    return form % 2 == 1;
}

void seatmap_body_etag(const struct seatmap *seatmap, enum seatmap_form form,
                       char ret_etag[SEATMAP_ETAG_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    static const char suffix[SEATMAP_FORMS][4] = {"j", "jg", "f", "fg", "p", "pg"};
    char *p = ret_etag;
    *p++ = '"';
    for (int shift = 60; shift >= 0; shift -= 4)
        *p++ = hex[seatmap->hash >> shift & 15];
    *p++ = '-';
    for (const char *from = suffix[form]; *from; from++)
        *p++ = *from;
    *p++ = '"';
    *p = '\0';
}

/* --- writers ---------------------------------------------------------------------------------- */

static void write_json(struct dynbuf *out, const struct seatmap *seatmap)
{
    const char *states = seatmap->states;
    dynbuf_adds(out, "{\"eventId\":");
    dynbuf_add_i64(out, seatmap->event_id);
    dynbuf_adds(out, ",\"rows\":");
    dynbuf_add_i64(out, seatmap->rows);
    dynbuf_adds(out, ",\"cols\":");
    dynbuf_add_i64(out, seatmap->cols);
    dynbuf_adds(out, ",\"seats\":[");
    for (int32_t row = 0; row < seatmap->rows; row++, states += seatmap->cols) {
        dynbuf_adds(out, row ? ",\"" : "\"");
        dynbuf_add(out, states, (size_t)seatmap->cols);
        dynbuf_addc(out, '"');
    }
    dynbuf_adds(out, "]}");
}

static char *put_text(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

static char *put_number(char *at, int32_t value)
{
    char digits[10];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return put_text(at, digits + i, sizeof(digits) - i);
}

static char *put_status(char *at, char state)
{
#define PUT(at, text) put_text(at, text, sizeof(text) - 1)
    if (state == 'h')
        return PUT(at, ",\"status\":\"held\"},");
    if (state == 'x')
        return PUT(at, ",\"status\":\"booked\"},");
    return PUT(at, ",\"status\":\"available\"},");
}

/* {"row":1,"col":1,"status":"held"}, for each seat of the row, into room for all of them. */
static char *put_full_row(char *at, int32_t row, int32_t cols, const char *states)
{
    char start[32];
    size_t start_len = (size_t)(PUT(put_number(PUT(start, "{\"row\":"), row), ",\"col\":") - start);
    for (int32_t col = 1; col <= cols; col++) {
        at = put_text(at, start, start_len);
        at = put_number(at, col);
        at = put_status(at, states[col - 1]);
    }
    return at;
#undef PUT
}

static void write_full(struct dynbuf *out, const struct seatmap *seatmap)
{
    const char *states = seatmap->states;
    size_t row_max_bytes = (size_t)seatmap->cols * FULL_SEAT_MAX_BYTES;
    dynbuf_adds(out, "{\"eventId\":");
    dynbuf_add_i64(out, seatmap->event_id);
    dynbuf_adds(out, ",\"seats\":[");
    for (int32_t row = 1; row <= seatmap->rows; row++, states += seatmap->cols) {
        if (!dynbuf_reserve(out, row_max_bytes))
            return;
        char *end = put_full_row(out->data + out->len, row, seatmap->cols, states);
        out->len = (size_t)(end - out->data);
    }
    out->len--; /* the last comma */
    dynbuf_adds(out, "]}");
}

static void write_protobuf(struct dynbuf *out, const struct seatmap *seatmap)
{
    size_t count = seat_count(seatmap);
    uint8_t *packed = calloc(1, count / 4 + 1);
    if (!packed) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        unsigned state = seatmap->states[i] == 'x' ? 2 : seatmap->states[i] == 'h';
        packed[i / 4] |= (uint8_t)(state << (2 * (i % 4)));
    }
    Seatgrid__SeatMap message = SEATGRID__SEAT_MAP__INIT;
    message.event_id = seatmap->event_id;
    message.rows = (uint32_t)seatmap->rows;
    message.cols = (uint32_t)seatmap->cols;
    message.seats.data = packed;
    message.seats.len = (count + 3) / 4;
    size_t len = seatgrid__seat_map__get_packed_size(&message);
    if (dynbuf_reserve(out, len))
        out->len += seatgrid__seat_map__pack(&message, (uint8_t *)out->data + out->len);
    free(packed);
}

static void write_identity(struct dynbuf *out, const struct seatmap *seatmap,
                           enum seatmap_media media)
{
    if (media == SEATMAP_MEDIA_JSON)
        write_json(out, seatmap);
    else if (media == SEATMAP_MEDIA_FULL)
        write_full(out, seatmap);
    else
        write_protobuf(out, seatmap);
}

static bool write_gzip(struct dynbuf *out, const struct seatmap_body *plain)
{
    z_stream stream = {0};
    if (deflateInit2(&stream, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS, GZIP_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    uLong bound = deflateBound(&stream, (uLong)plain->len);
    bool done = false;
    if (dynbuf_reserve(out, bound)) {
        stream.next_in = (Bytef *)plain->data;
        stream.avail_in = (uInt)plain->len;
        stream.next_out = (Bytef *)out->data + out->len;
        stream.avail_out = (uInt)bound;
        done = deflate(&stream, Z_FINISH) == Z_STREAM_END;
        out->len += stream.total_out;
    }
    deflateEnd(&stream);
    return done;
}

/* --- the cache -------------------------------------------------------------------------------- */

/* Moves the buffer's memory into the body, cut to its length. */
static bool body_take(struct seatmap_body *ret_body, struct dynbuf *from)
{
    if (from->failed || !from->data) {
        dynbuf_done(from);
        return false;
    }
    char *cut = realloc(from->data, from->len + 1);
    ret_body->data = cut ? cut : from->data;
    ret_body->len = from->len;
    return true;
}

static bool make_identity(const struct seatmap *seatmap, enum seatmap_media media,
                          struct seatmap_body *ret_body)
{
    struct dynbuf out;
    dynbuf_init(&out, seat_count(seatmap) * FULL_SEAT_MAX_BYTES + HEAD_MAX_BYTES);
    dynbuf_reserve(&out, size_guess(seatmap, media) + HEAD_MAX_BYTES);
    write_identity(&out, seatmap, media);
    return body_take(ret_body, &out);
}

/* An identity body that is made only to be compressed is not kept. */
static bool make_gzip(const struct seatmap *seatmap, enum seatmap_media media,
                      struct seatmap_body *ret_body)
{
    struct seatmap_body plain = seatmap->bodies[2 * (int)media];
    struct dynbuf out;
    bool made = !plain.data;
    if (made && !make_identity(seatmap, media, &plain))
        return false;
    dynbuf_init(&out, plain.len + plain.len / 8 + 1024);
    bool done = write_gzip(&out, &plain) && body_take(ret_body, &out);
    if (!done)
        dynbuf_done(&out);
    if (made)
        free(plain.data);
    return done;
}

const struct seatmap_body *seatmap_body_get(struct seatmap *seatmap, enum seatmap_form form)
{
    struct seatmap_body *body = &seatmap->bodies[form];
    enum seatmap_media media = (enum seatmap_media)(form / 2);
    if (body->data)
        return body;
    bool done = seatmap_body_is_gzip(form) ? make_gzip(seatmap, media, body)
                                           : make_identity(seatmap, media, body);
    return done ? body : NULL;
}
