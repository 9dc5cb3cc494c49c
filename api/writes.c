/*
 * Headers of writes. See writes.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/writes.h"

#include <stdio.h>
#include <string.h>

#include "api/accept.h"
#include "api/exchange.h"
#include "api/ids.h"
#include "api/outcomes.h"
#include "base/settings.h"

bool writes_read_headers(struct exchange *exchange, struct write_headers *ret_headers)
{
    const char *type = http_request_header(exchange->request, "content-type");
    const char *key = http_request_header(exchange->request, "idempotency-key");
    if (type && !accept_is_json(type)) {
        exchange_fail(exchange, SG_UNSUPPORTED_MEDIA, "Content-Type: must be application/json");
        return false;
    }
    if (key && !ids_is_printable_ascii(key, ROUTER_KEY_MAX)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "Idempotency-Key: must be 1 to %d bytes of printable ASCII", ROUTER_KEY_MAX);
        return false;
    }
    ret_headers->key = key;
    ret_headers->respond_async =
        accept_prefers(http_request_header(exchange->request, "prefer"), WRITES_RESPOND_ASYNC);
    return true;
}

bool writes_read_user(struct exchange *exchange, char user_id[ROUTER_USER_MAX + 1])
{
    const char *header = http_request_header(exchange->request, "x-user-id");
    if (header && !json_in_is_user_id(header)) {
        exchange_fail(exchange, SG_MALFORMED, "X-User-Id: must be 1 to %d bytes of printable ASCII",
                      ROUTER_USER_MAX);
        return false;
    }
    if (header && user_id[0] && strcmp(header, user_id) != 0) {
        exchange_fail(exchange, SG_INVALID_VALUE,
                      "userId: differs from the header X-User-Id; send one of them");
        return false;
    }
    if (header)
        memcpy(user_id, header, strlen(header) + 1);
    if (!user_id[0] && http_request_method(exchange->request) == HTTP_DELETE) {
        exchange_fail(exchange, SG_WRONG_TYPE,
                      "userId: is missing; give the header X-User-Id, or ?userId= in the query: "
                      "the body of a DELETE is not read");
        return false;
    }
    if (!user_id[0]) {
        exchange_fail(exchange, SG_WRONG_TYPE,
                      "userId: is missing; give a string of 1 to %d bytes, or the header X-User-Id",
                      ROUTER_USER_MAX);
        return false;
    }
    return true;
}

bool writes_read_query_user(struct exchange *exchange, char user_id[ROUTER_USER_MAX + 1])
{
    const char *query = http_request_query(exchange->request, "userId");
    if (query && !json_in_is_user_text(query)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "userId in the query: must be 1 to %d bytes of printable text",
                      ROUTER_USER_MAX);
        return false;
    }
    snprintf(user_id, ROUTER_USER_MAX + 1, "%s", query ? query : "");
    return true;
}

struct json_in_bounds writes_bounds(const struct app *app)
{
    const struct settings *settings = app->settings;
    struct json_in_bounds bounds = {
        .max_seats = (size_t)settings->booking.max_seats,
        .ttl_min_s = (settings->holds.min_ms + 999) / 1000,
        .ttl_max_s = settings->holds.max_ms / 1000,
    };
    if (bounds.ttl_max_s < bounds.ttl_min_s) /* no whole second is allowed: the next one is */
        bounds.ttl_max_s = bounds.ttl_min_s;
    return bounds;
}

void writes_tell_replayed(struct exchange *exchange)
{
    exchange->outcome = OUTCOME_REPLAYED;
    http_reply_header(exchange->request, "Idempotent-Replayed", "true");
}

void writes_tell_location(struct exchange *exchange, const char *kind, const char *target_id)
{
    char location[96];
    snprintf(location, sizeof(location), "/events/%lld/%s/%s", (long long)exchange->event_id, kind,
             target_id);
    http_reply_header(exchange->request, "Location", location);
}

void writes_answer_accepted(struct exchange *exchange, bool preferred)
{
    if (exchange->outcome == SG_OK)
        exchange->outcome = OUTCOME_ACCEPTED;
    if (preferred)
        http_reply_header(exchange->request, "Preference-Applied", WRITES_RESPOND_ASYNC);
    exchange_answer_scratch(exchange, 202, JSON_CONTENT_TYPE);
}
