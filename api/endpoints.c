/*
 * The table of endpoints. See endpoints.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/endpoints.h"

#include <stdbool.h>
#include <string.h>

#include "api/handlers.h"

#define GET(path, handle)                                                                          \
    {                                                                                              \
        HTTP_GET, path, "GET " path, handle                                                        \
    }
#define POST(path, handle)                                                                         \
    {                                                                                              \
        HTTP_POST, path, "POST " path, handle                                                      \
    }

const struct endpoint endpoints[] = {
    POST("/book", book_create),
    GET("/events/{id}/seats", seats_get),
    GET("/events/{id}/availability", availability_get),
    GET("/events/{id}/stream", live_get),
    GET("/events/{id}/bookings/{bookingId}", bookings_get),
    GET("/users/{userId}/tickets", tickets_get),
    GET("/events/{id}", events_get),
    GET("/events", events_list),
    POST("/events", events_create),
    GET("/healthz", ops_healthz),
    GET("/readyz", ops_readyz),
    GET("/metrics", ops_metrics),
    GET("/openapi.json", ops_openapi),
    GET("/docs", ops_docs),
};
const size_t endpoint_count = sizeof(endpoints) / sizeof(endpoints[0]);

/* Matches segment by segment; parameters are never empty. Writes to ret_match also on failure. */
static bool path_matches(const char *pattern, const char *path, struct endpoint_match *ret_match)
{
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t name_len = strcspn(pattern, "}") + 1;
        struct endpoint_param param = {path, strcspn(path, "/")};
        if (param.len == 0)
            return false;
        if (strncmp(pattern, "{id}", name_len) == 0)
            ret_match->id = param;
        else if (strncmp(pattern, "{userId}", name_len) == 0)
            ret_match->user_id = param;
        else
            ret_match->booking_id = param;
        pattern += name_len;
        path += param.len;
    }
    return *path == '\0';
}

void endpoints_match(enum http_method method, const char *path, struct endpoint_match *ret_match)
{
    struct endpoint_match match = {0};
    enum http_method served = method == HTTP_HEAD ? HTTP_GET : method;
    for (size_t i = 0; i < endpoint_count; i++) {
        struct endpoint_match found = {0};
        if (!path_matches(endpoints[i].path, path, &found))
            continue;
        match.methods |= 1u << endpoints[i].method;
        if (endpoints[i].method == served) {
            match.endpoint = &endpoints[i];
            match.id = found.id;
            match.booking_id = found.booking_id;
            match.user_id = found.user_id;
            break; /* callers need `methods` only when there is no endpoint */
        }
    }
    *ret_match = match;
}

const char *endpoints_allow(unsigned methods)
{
    bool get = methods & 1u << HTTP_GET;
    bool post = methods & 1u << HTTP_POST;
    if (get && post)
        return "GET, HEAD, POST, OPTIONS";
    return get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
}
