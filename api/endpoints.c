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

#define DELETE(path, handle)                                                                       \
    {                                                                                              \
        HTTP_DELETE, path, "DELETE " path, handle                                                  \
    }
#define BOOKING "/events/{id}/bookings/{bookingId}"

const struct endpoint endpoints[] = {
    POST("/book", book_create),
    GET("/events/{id}/seats", seats_get),
    GET("/events/{id}/availability", availability_get),
    GET("/events/{id}/stream", live_get),
    POST("/events/{id}/holds", holds_create),
    POST(BOOKING "/confirm", bookings_confirm),
    POST(BOOKING "/extend", bookings_extend),
    POST(BOOKING "/transfer", bookings_transfer),
    GET(BOOKING, bookings_get),
    DELETE(BOOKING, bookings_cancel),
    GET("/events/{id}/queue/{bookingId}", queue_get),
    POST("/events/{id}/orders", orders_create),
    GET("/events/{id}/orders/{orderId}", orders_get),
    POST("/payments/callback", payments_callback),
    POST("/events/{id}/waitlist", waitlist_join),
    GET("/events/{id}/waitlist/{entryId}", waitlist_get),
    DELETE("/events/{id}/waitlist/{entryId}", waitlist_leave),
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

static void set_target(struct endpoint_match *match, const char *name, struct endpoint_param param)
{
    match->target = param;
    match->target_kind = strncmp(name, "{orderId}", 9) == 0   ? "order"
                         : strncmp(name, "{entryId}", 9) == 0 ? "entry"
                                                              : "booking";
}

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
            set_target(ret_match, pattern, param);
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
            match.target = found.target;
            match.target_kind = found.target_kind;
            match.user_id = found.user_id;
            break; /* callers need `methods` only when there is no endpoint */
        }
    }
    *ret_match = match;
}

const char *endpoints_allow(unsigned methods)
{
    static const char *const allow[] = {
        "OPTIONS",
        "GET, HEAD, OPTIONS",
        "POST, OPTIONS",
        "GET, HEAD, POST, OPTIONS",
        "DELETE, OPTIONS",
        "GET, HEAD, DELETE, OPTIONS",
        "POST, DELETE, OPTIONS",
        "GET, HEAD, POST, DELETE, OPTIONS",
    };
    bool get = methods & 1u << HTTP_GET;
    bool post = methods & 1u << HTTP_POST;
    bool delete = methods & 1u << HTTP_DELETE;
    return allow[(get ? 1 : 0) + (post ? 2 : 0) + (delete ? 4 : 0)];
}
