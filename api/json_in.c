/*
 * Request bodies. See json_in.h.
 *
 * jansson checks syntax, UTF-8 and duplicate names and refuses NUL; what it gives is walked once,
 * name by name. A struct reader carries the first error and where it was found.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_in.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/ids.h"
#include "base/rfc3339.h"

#define NAME_SHOWN_MAX 40 /* bytes of an unknown field's name that an error repeats */

struct reader {
    enum sg_error error; /* the first one; SG_OK so far */
    char *detail;        /* JSON_IN_DETAIL_SIZE bytes */
};

static void refuse(struct reader *reader, enum sg_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct reader *reader, enum sg_error error, const char *format, ...)
{
    if (reader->error != SG_OK)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(reader->detail, JSON_IN_DETAIL_SIZE, format, args);
    va_end(args);
    reader->error = error;
}

/* Copies what can stand in a one-line message: other bytes become '?'. */
static void make_shown(const char *text, char *ret_shown, size_t size)
{
    size_t i = 0;
    for (; text[i] && i < size - 1; i++)
        ret_shown[i] = text[i] < 0x20 || text[i] > 0x7e ? '?' : text[i];
    ret_shown[i] = '\0';
}

/* --- syntax ----------------------------------------------------------------------------------- */

/* True if arrays and objects nest at most JSON_IN_DEPTH_MAX deep; strings are skipped. */
static bool is_shallow(const char *body, size_t len)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_IN_DEPTH_MAX)
                return false;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

/* The body as an object, or NULL with the error in the reader. */
static json_t *parse_object(struct reader *reader, const char *body, size_t len)
{
    json_error_t error;
    if (!is_shallow(body, len)) {
        refuse(reader, SG_MALFORMED_JSON, "body: nests deeper than %d levels", JSON_IN_DEPTH_MAX);
        return NULL;
    }
    json_t *root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        char shown[JSON_ERROR_TEXT_LENGTH];
        make_shown(error.text, shown, sizeof(shown));
        refuse(reader, SG_MALFORMED_JSON, "line %d, column %d: %s", error.line, error.column,
               len ? shown : "the body is empty; send a JSON object");
        return NULL;
    }
    if (!json_is_object(root)) {
        refuse(reader, SG_WRONG_TYPE, "body: must be a JSON object");
        json_decref(root);
        return NULL;
    }
    return root;
}

/* --- unknown names ---------------------------------------------------------------------------- */

/* Levenshtein distance without regard to case; 99 for names too long to be a typing error. */
static int distance(const char *a, const char *b)
{
    int row[NAME_SHOWN_MAX + 1];
    int a_len = (int)strlen(a), b_len = (int)strlen(b);
    if (a_len > NAME_SHOWN_MAX || b_len > NAME_SHOWN_MAX)
        return 99;
    for (int k = 0; k <= b_len; k++)
        row[k] = k;
    for (int i = 1; i <= a_len; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int k = 1; k <= b_len; k++) {
            int best = diagonal + (strncasecmp(&a[i - 1], &b[k - 1], 1) != 0);
            diagonal = row[k];
            if (row[k] + 1 < best)
                best = row[k] + 1;
            if (row[k - 1] + 1 < best)
                best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[b_len];
}

/* `names` are the fields that may stand there; the last is NULL. */
static void refuse_unknown(struct reader *reader, const char *where, const char *name,
                           const char *const *names)
{
    char shown[NAME_SHOWN_MAX + 1], all[96];
    int best = 3;
    const char *near = NULL;
    size_t used = 0;
    make_shown(name, shown, sizeof(shown));
    for (size_t i = 0; names[i]; i++) {
        int d = distance(name, names[i]);
        if (d < best) {
            best = d;
            near = names[i];
        }
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", names[i]);
    }
    if (near)
        refuse(reader, SG_WRONG_TYPE, "%sunknown field '%s'; did you mean '%s'?", where, shown,
               near);
    else
        refuse(reader, SG_WRONG_TYPE, "%sunknown field '%s'; there are %s", where, shown, all);
}

/* --- values ----------------------------------------------------------------------------------- */

/* An integer in bounds. NULL value: the field is missing. */
static int64_t read_integer(struct reader *reader, const char *field, const json_t *value,
                            int64_t min, int64_t max)
{
    if (!json_is_integer(value)) {
        refuse(reader, SG_WRONG_TYPE, "%s: %s an integer from %lld to %lld", field,
               value ? "must be" : "is missing; give", (long long)min, (long long)max);
        return min;
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max) {
        refuse(reader, SG_INVALID_VALUE, "%s: must be an integer from %lld to %lld, is %lld", field,
               (long long)min, (long long)max, (long long)number);
        return min;
    }
    return number;
}

/* True if valid UTF-8 holds no control character (C0, DEL, C1) and something besides spaces. */
static bool is_printable(const char *text)
{
    bool ink = false;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0))
            return false;
        ink = ink || *p != ' ';
    }
    return ink;
}

/* Printable text of 1 to max bytes into ret_text, which holds max + 1. */
static void read_text(struct reader *reader, const char *field, const json_t *value, size_t max,
                      char *ret_text)
{
    if (!json_is_string(value)) {
        refuse(reader, SG_WRONG_TYPE, "%s: %s a string of 1 to %zu bytes", field,
               value ? "must be" : "is missing; give", max);
        return;
    }
    size_t len = json_string_length(value);
    const char *text = json_string_value(value);
    if (len < 1 || len > max || !is_printable(text)) {
        refuse(reader, SG_INVALID_VALUE, "%s: must be 1 to %zu bytes of printable text, has %zu",
               field, max, len);
        return;
    }
    memcpy(ret_text, text, len + 1);
}

bool json_in_is_user_id(const char *text)
{
    return ids_is_printable_ascii(text, ROUTER_USER_MAX) && text[strspn(text, " ")];
}

bool json_in_is_user_text(const char *text)
{
    return strlen(text) <= ROUTER_USER_MAX && is_printable(text);
}

/* --- POST /book ------------------------------------------------------------------------------- */

static void read_seat(struct reader *reader, size_t index, json_t *value, struct seat *ret_seat)
{
    static const char *const names[] = {"row", "col", NULL};
    char field[32];
    const json_t *row = NULL, *col = NULL;
    const char *name;
    json_t *member;
    if (!json_is_object(value)) {
        refuse(reader, SG_WRONG_TYPE, "seats[%zu]: must be an object like {\"row\":1,\"col\":1}",
               index);
        return;
    }
    json_object_foreach(value, name, member)
    {
        if (strcmp(name, "row") == 0) {
            row = member;
        } else if (strcmp(name, "col") == 0) {
            col = member;
        } else {
            snprintf(field, sizeof(field), "seats[%zu]: ", index);
            refuse_unknown(reader, field, name, names);
            return;
        }
    }
    snprintf(field, sizeof(field), "seats[%zu].row", index);
    ret_seat->row = (int32_t)read_integer(reader, field, row, 1, JSON_IN_GRID_MAX);
    memcpy(strchr(field, '.'), ".col", 5);
    ret_seat->col = (int32_t)read_integer(reader, field, col, 1, JSON_IN_GRID_MAX);
}

/* The last seat must not be among those before it. */
static void check_duplicate(struct reader *reader, const struct seat *seats, size_t count)
{
    const struct seat *last = &seats[count - 1];
    for (size_t i = 0; i < count - 1; i++) {
        if (seats[i].row == last->row && seats[i].col == last->col) {
            refuse(reader, SG_DUPLICATE_SEAT, "seats[%zu]: is seats[%zu] again (row %d, col %d)",
                   count - 1, i, (int)last->row, (int)last->col);
            return;
        }
    }
}

static void read_seats(struct reader *reader, const json_t *value, size_t max_seats,
                       struct json_in_book *ret_book)
{
    if (!json_is_array(value)) {
        refuse(reader, SG_WRONG_TYPE, "seats: %s an array like [{\"row\":1,\"col\":1}]",
               value ? "must be" : "is missing; give");
        return;
    }
    size_t count = json_array_size(value);
    if (count == 0) {
        refuse(reader, SG_INVALID_VALUE, "seats: must name at least one seat");
        return;
    }
    if (count > max_seats) {
        refuse(reader, SG_TOO_MANY_SEATS, "seats: must name at most %zu seats, names %zu",
               max_seats, count);
        return;
    }
    for (size_t i = 0; i < count && reader->error == SG_OK; i++) {
        read_seat(reader, i, json_array_get(value, i), &ret_book->seats[i]);
        if (reader->error == SG_OK)
            check_duplicate(reader, ret_book->seats, i + 1);
    }
    ret_book->seat_count = count;
}

static void read_book(struct reader *reader, json_t *root, size_t max_seats,
                      struct json_in_book *ret_book)
{
    static const char *const names[] = {"eventId", "userId", "seats", NULL};
    const json_t *event_id = NULL, *user_id = NULL, *seats = NULL;
    const char *name;
    json_t *member;
    json_object_foreach(root, name, member)
    {
        if (strcmp(name, "eventId") == 0)
            event_id = member;
        else if (strcmp(name, "userId") == 0)
            user_id = member;
        else if (strcmp(name, "seats") == 0)
            seats = member;
        else
            refuse_unknown(reader, "", name, names);
    }
    ret_book->event_id = read_integer(reader, "eventId", event_id, 1, INT64_MAX);
    ret_book->user_id[0] = '\0';
    if (user_id)
        read_text(reader, "userId", user_id, ROUTER_USER_MAX, ret_book->user_id);
    read_seats(reader, seats, max_seats, ret_book);
}

enum sg_error json_in_book(const char *body, size_t len, size_t max_seats,
                           struct json_in_book *ret_book, char ret_detail[JSON_IN_DETAIL_SIZE])
{
    struct reader reader = {0};
    reader.detail = ret_detail;
    if (max_seats > ROUTER_SEATS_MAX)
        max_seats = ROUTER_SEATS_MAX;
    json_t *root = parse_object(&reader, body, len);
    if (root)
        read_book(&reader, root, max_seats, ret_book);
    json_decref(root);
    return reader.error;
}

/* --- POST /events ----------------------------------------------------------------------------- */

static void read_starts_at(struct reader *reader, const json_t *value, int64_t *ret_us)
{
    if (!json_is_string(value)) {
        refuse(reader, SG_WRONG_TYPE,
               "startsAt: %s a string with an RFC 3339 time like 2027-06-01T19:00:00Z",
               value ? "must be" : "is missing; give");
        return;
    }
    if (!rfc3339_parse(json_string_value(value), ret_us))
        refuse(reader, SG_INVALID_VALUE,
               "startsAt: must be an RFC 3339 time like 2027-06-01T19:00:00Z");
}

/* Whether a shard of that name exists is the router's to say. */
static void read_shard(struct reader *reader, const json_t *value, char *ret_shard)
{
    if (!json_is_string(value)) {
        refuse(reader, SG_WRONG_TYPE, "shard: must be a string; leave it out for any shard");
        return;
    }
    if (!ids_is_printable_ascii(json_string_value(value), SHARDMAP_NAME_MAX)) {
        refuse(reader, SG_UNKNOWN_SHARD, "shard: must be the name of a shard of the map");
        return;
    }
    memcpy(ret_shard, json_string_value(value), json_string_length(value) + 1);
}

static void read_event(struct reader *reader, json_t *root, int64_t max_seats,
                       struct json_in_event *ret_event)
{
    static const char *const names[] = {"name", "startsAt", "rows", "cols", "shard", NULL};
    const json_t *values[5] = {0};
    const char *name;
    json_t *member;
    json_object_foreach(root, name, member)
    {
        size_t i = 0;
        while (names[i] && strcmp(name, names[i]) != 0)
            i++;
        if (names[i])
            values[i] = member;
        else
            refuse_unknown(reader, "", name, names);
    }
    read_text(reader, "name", values[0], ROUTER_NAME_MAX, ret_event->name);
    read_starts_at(reader, values[1], &ret_event->starts_at_us);
    ret_event->rows = (int32_t)read_integer(reader, "rows", values[2], 1, JSON_IN_GRID_MAX);
    ret_event->cols = (int32_t)read_integer(reader, "cols", values[3], 1, JSON_IN_GRID_MAX);
    int64_t total = (int64_t)ret_event->rows * ret_event->cols;
    if (total > max_seats)
        refuse(reader, SG_INVALID_VALUE, "rows, cols: an event has at most %lld seats, this %lld",
               (long long)max_seats, (long long)total);
    ret_event->shard[0] = '\0';
    if (values[4])
        read_shard(reader, values[4], ret_event->shard);
}

enum sg_error json_in_event(const char *body, size_t len, int64_t max_seats,
                            struct json_in_event *ret_event, char ret_detail[JSON_IN_DETAIL_SIZE])
{
    struct reader reader = {0};
    reader.detail = ret_detail;
    json_t *root = parse_object(&reader, body, len);
    if (root)
        read_event(&reader, root, max_seats, ret_event);
    json_decref(root);
    return reader.error;
}
