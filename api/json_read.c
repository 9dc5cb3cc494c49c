/*
 * Reading JSON. See json_read.h.
 *
 * jansson checks syntax, UTF-8 and duplicate names and refuses NUL; what it gives is walked once,
 * name by name.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_read.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/ids.h"

#define NAME_SHOWN_MAX 40 /* bytes of an unknown field's name that an error repeats */

void json_read_start(struct json_reader *reader, char detail[JSON_IN_DETAIL_SIZE])
{
    reader->error = SG_OK;
    reader->detail = detail;
}

void json_read_refuse(struct json_reader *reader, enum sg_error error, const char *format, ...)
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
void json_read_shown(const char *text, char *ret_shown, size_t size)
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
json_t *json_read_object(struct json_reader *reader, const char *body, size_t len)
{
    json_error_t error;
    if (!is_shallow(body, len)) {
        json_read_refuse(reader, SG_MALFORMED_JSON, "body: nests deeper than %d levels",
                         JSON_IN_DEPTH_MAX);
        return NULL;
    }
    json_t *root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        char shown[JSON_ERROR_TEXT_LENGTH];
        json_read_shown(error.text, shown, sizeof(shown));
        json_read_refuse(reader, SG_MALFORMED_JSON, "line %d, column %d: %s", error.line,
                         error.column, len ? shown : "the body is empty; send a JSON object");
        return NULL;
    }
    if (!json_is_object(root)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "body: must be a JSON object");
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
static void refuse_unknown(struct json_reader *reader, const char *where, const char *name,
                           const char *const *names)
{
    char shown[NAME_SHOWN_MAX + 1], all[128];
    int best = 3;
    const char *near = NULL;
    size_t used = 0;
    json_read_shown(name, shown, sizeof(shown));
    for (size_t i = 0; names[i]; i++) {
        int d = distance(name, names[i]);
        if (d < best) {
            best = d;
            near = names[i];
        }
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", names[i]);
    }
    if (near)
        json_read_refuse(reader, SG_WRONG_TYPE, "%sunknown field '%s'; did you mean '%s'?", where,
                         shown, near);
    else
        json_read_refuse(reader, SG_WRONG_TYPE, "%sunknown field '%s'; there are %s", where, shown,
                         all);
}

/* --- values ----------------------------------------------------------------------------------- */

/* An integer in bounds. NULL value: the field is missing. */
int64_t json_read_integer(struct json_reader *reader, const char *field, const json_t *value,
                          int64_t min, int64_t max)
{
    if (!json_is_integer(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "%s: %s an integer from %lld to %lld", field,
                         value ? "must be" : "is missing; give", (long long)min, (long long)max);
        return min;
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max) {
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "%s: must be an integer from %lld to %lld, is %lld", field, (long long)min,
                         (long long)max, (long long)number);
        return min;
    }
    return number;
}

/* True if valid UTF-8 holds no control character (C0, DEL, C1) and something besides spaces. */
bool json_read_is_printable(const char *text)
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
void json_read_text(struct json_reader *reader, const char *field, const json_t *value, size_t max,
                    char *ret_text)
{
    if (!json_is_string(value)) {
        json_read_refuse(reader, SG_WRONG_TYPE, "%s: %s a string of 1 to %zu bytes", field,
                         value ? "must be" : "is missing; give", max);
        return;
    }
    size_t len = json_string_length(value);
    const char *text = json_string_value(value);
    if (len < 1 || len > max || !json_read_is_printable(text)) {
        json_read_refuse(reader, SG_INVALID_VALUE,
                         "%s: must be 1 to %zu bytes of printable text, has %zu", field, max, len);
        return;
    }
    memcpy(ret_text, text, len + 1);
}

void json_read_members(struct json_reader *reader, const char *where, json_t *object,
                       const char *const *names, const json_t **ret_values)
{
    const char *name;
    json_t *member;
    json_object_foreach(object, name, member)
    {
        size_t i = 0;
        while (names[i] && strcmp(name, names[i]) != 0)
            i++;
        if (names[i])
            ret_values[i] = member;
        else
            refuse_unknown(reader, where, name, names);
    }
}

bool json_read_bool(struct json_reader *reader, const char *field, const json_t *value,
                    bool if_missing)
{
    if (!value)
        return if_missing;
    if (!json_is_boolean(value))
        json_read_refuse(reader, SG_WRONG_TYPE, "%s: must be true or false", field);
    return json_is_true(value);
}
