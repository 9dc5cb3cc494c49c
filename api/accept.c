/*
 * Content negotiation. See accept.h.
 *
 * All of the headers are lists: elements between commas, parameters between semicolons, optional
 * blanks around each. A cursor walks them; nothing is copied.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/accept.h"

#include <string.h>
#include <strings.h>

#include "api/ids.h"

#define Q_FULL 1000 /* q=1; weights are kept in thousandths */
#define STALENESS_MAX_US INT64_C(3600000000)

struct slice {
    const char *start;
    size_t len;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice trimmed(const char *start, const char *end)
{
    while (start < end && is_blank(*start))
        start++;
    while (end > start && is_blank(end[-1]))
        end--;
    return (struct slice){start, (size_t)(end - start)};
}

/* The next piece up to `separator` or the end, blanks cut; separators inside quotes don't count.
 * False at the end of *rest. */
static bool next_piece(struct slice *rest, char separator, struct slice *ret_piece)
{
    if (!rest->start)
        return false;
    const char *end = rest->start + rest->len;
    const char *p = rest->start;
    bool quoted = false;
    for (; p < end && (quoted || *p != separator); p++) {
        if (*p == '"')
            quoted = !quoted;
        else if (quoted && *p == '\\' && p + 1 < end)
            p++;
    }
    *ret_piece = trimmed(rest->start, p);
    if (p < end)
        *rest = (struct slice){p + 1, (size_t)(end - p - 1)};
    else
        *rest = (struct slice){NULL, 0};
    return true;
}

static bool slice_is(struct slice slice, const char *text)
{
    return slice.len == strlen(text) && strncasecmp(slice.start, text, slice.len) == 0;
}

/* "0", "0.5", "1.000" in thousandths; -1 if it is none. */
static int parse_q(struct slice text)
{
    int q, scale = 100;
    if (text.len < 1 || text.len > 5 || (text.start[0] != '0' && text.start[0] != '1'))
        return -1;
    q = (text.start[0] - '0') * Q_FULL;
    if (text.len > 1 && text.start[1] != '.')
        return -1;
    for (size_t i = 2; i < text.len; i++, scale /= 10) {
        if (text.start[i] < '0' || text.start[i] > '9')
            return -1;
        q += (text.start[i] - '0') * scale;
    }
    return q <= Q_FULL ? q : -1;
}

/* Splits "name;a=b;q=0.5" into its name and weight; -1 as weight if q is malformed. */
static struct slice split_weight(struct slice element, int *ret_q)
{
    struct slice rest = element, name = {element.start, 0}, parameter;
    int q = Q_FULL;
    next_piece(&rest, ';', &name);
    while (next_piece(&rest, ';', &parameter)) {
        if (parameter.len >= 2 && strncasecmp(parameter.start, "q=", 2) == 0)
            q = parse_q((struct slice){parameter.start + 2, parameter.len - 2});
    }
    *ret_q = q;
    return name;
}

static struct slice slice_of(const char *text)
{
    return (struct slice){text, strlen(text)};
}

/* How precisely the range names the offer: 3 itself, 2 "type/" and star, 1 star/star, 0 not. */
static int range_precision(struct slice range, const char *offer)
{
    size_t type_len = strcspn(offer, "/") + 1;
    if (slice_is(range, offer))
        return 3;
    if (range.len == type_len + 1 && range.start[type_len] == '*' &&
        strncasecmp(range.start, offer, type_len) == 0)
        return 2;
    return slice_is(range, "*/*") ? 1 : 0;
}

/* Weight and precision of the most precise range that names the offer; both 0 if none does. */
static void weigh_offer(const char *accept, const char *offer, int *ret_q, int *ret_precision)
{
    struct slice rest = slice_of(accept), element;
    *ret_q = *ret_precision = 0;
    while (next_piece(&rest, ',', &element)) {
        int q;
        struct slice range = split_weight(element, &q);
        int precision = range_precision(range, offer);
        if (q < 0 || precision <= *ret_precision)
            continue;
        *ret_precision = precision;
        *ret_q = q;
    }
}

int accept_media(const char *accept, const char *const *offers, size_t offer_count)
{
    int best = -1, best_q = 0, best_precision = 0;
    if (!accept || accept[strspn(accept, " \t")] == '\0')
        return 0;
    for (size_t i = 0; i < offer_count; i++) {
        int q, precision;
        weigh_offer(accept, offers[i], &q, &precision);
        if (q > best_q || (q == best_q && q > 0 && precision > best_precision)) {
            best = (int)i;
            best_q = q;
            best_precision = precision;
        }
    }
    return best;
}

enum accept_coding accept_coding(const char *accept_encoding)
{
    int gzip = -1, identity = -1, others = -1; /* weights; -1: not named */
    if (!accept_encoding)
        return ACCEPT_CODING_IDENTITY;
    struct slice rest = slice_of(accept_encoding), element;
    while (next_piece(&rest, ',', &element)) {
        int q;
        struct slice name = split_weight(element, &q);
        if (q < 0)
            continue;
        if (slice_is(name, "gzip") || slice_is(name, "x-gzip"))
            gzip = q;
        else if (slice_is(name, "identity"))
            identity = q;
        else if (slice_is(name, "*"))
            others = q;
    }
    if (gzip < 0)
        gzip = others;
    if (identity < 0 && others == 0)
        identity = 0;
    if (gzip <= 0 || gzip < identity)
        return ACCEPT_CODING_IDENTITY;
    return identity == 0 ? ACCEPT_CODING_GZIP_ONLY : ACCEPT_CODING_EITHER;
}

bool accept_etag_matches(const char *if_none_match, const char *etag)
{
    if (!if_none_match)
        return false;
    struct slice rest = slice_of(if_none_match), element;
    size_t etag_len = strlen(etag);
    while (next_piece(&rest, ',', &element)) {
        if (element.len == 1 && element.start[0] == '*')
            return true;
        if (element.len > 2 && element.start[0] == 'W' && element.start[1] == '/')
            element = (struct slice){element.start + 2, element.len - 2};
        if (element.len == etag_len && memcmp(element.start, etag, etag_len) == 0)
            return true;
    }
    return false;
}

bool accept_is_json(const char *content_type)
{
    struct slice rest = slice_of(content_type), piece;
    if (!next_piece(&rest, ';', &piece) || !slice_is(piece, "application/json"))
        return false;
    while (next_piece(&rest, ';', &piece)) {
        if (piece.len == 0)
            continue;
        if (!slice_is(piece, "charset=utf-8") && !slice_is(piece, "charset=\"utf-8\""))
            return false;
    }
    return true;
}

bool accept_staleness(const char *text, int64_t *ret_us)
{
    size_t digits = strspn(text, "0123456789");
    int64_t value, unit_us;
    if (strcmp(text + digits, "ms") == 0)
        unit_us = 1000;
    else if (strcmp(text + digits, "s") == 0)
        unit_us = 1000000;
    else
        return false;
    if (!ids_parse_number(text, digits, &value) || value > STALENESS_MAX_US / unit_us)
        return false;
    *ret_us = value * unit_us;
    return true;
}

bool accept_prefers(const char *prefer, const char *name)
{
    struct slice rest, element, preference;
    if (!prefer)
        return false;
    rest = slice_of(prefer);
    while (next_piece(&rest, ',', &element)) {
        struct slice parts = element, value = {"", 0};
        if (!next_piece(&parts, ';', &preference))
            continue;
        struct slice sides = preference;
        next_piece(&sides, '=', &preference);
        if (sides.start)
            value = trimmed(sides.start, sides.start + sides.len);
        bool empty = value.len == 0 || slice_is(value, "\"\"");
        if (slice_is(preference, name) && empty)
            return true;
    }
    return false;
}
