/*
 * The one table of everything that can go wrong, shared by API, router, shard map and CLI.
 *
 * An error is a value: a function returns an enum sg_error and hands results through ret_
 * arguments that it leaves untouched on failure. The table adds what an error means to a client:
 * the stable code of RFC 9457 problem details, the HTTP status and whether trying again may help.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_ERROR_H
#define SG_BASE_ERROR_H

#include <stdbool.h>

/* X(enumerator, stable code, HTTP status, may a retry help, title) */
#define SG_ERROR_TABLE(X)                                                                          \
    X(SG_OK, "ok", 200, false, "OK")                                                               \
    X(SG_MALFORMED, "malformed_request", 400, false, "The request is malformed")                   \
    X(SG_MALFORMED_JSON, "malformed_json", 400, false, "The body is not valid JSON")               \
    X(SG_WRONG_TYPE, "wrong_type", 400, false, "A field is missing or has the wrong type")         \
    X(SG_BAD_SIGNATURE, "bad_signature", 401, false, "The signature does not fit")                 \
    X(SG_PAYMENT_DECLINED, "payment_declined", 402, false, "The payment was declined")             \
    X(SG_NOT_OWNER, "not_owner", 403, false, "It belongs to another user")                         \
    X(SG_NOT_FOUND, "not_found", 404, false, "No such resource")                                   \
    X(SG_UNKNOWN_EVENT, "unknown_event", 404, false, "No such event")                              \
    X(SG_UNKNOWN_BOOKING, "unknown_booking", 404, false, "No such booking")                        \
    X(SG_UNKNOWN_ENTRY, "unknown_entry", 404, false, "No such place on the waiting list")          \
    X(SG_UNKNOWN_ORDER, "unknown_order", 404, false, "No such order")                              \
    X(SG_METHOD_NOT_ALLOWED, "method_not_allowed", 405, false, "Method not allowed here")          \
    X(SG_NOT_ACCEPTABLE, "not_acceptable", 406, false, "No representation matches Accept")         \
    X(SG_REQUEST_TIMEOUT, "request_timeout", 408, true, "The request did not arrive in time")      \
    X(SG_SEATS_TAKEN, "seats_taken", 409, false, "Some of the seats are taken")                    \
    X(SG_SOLD_OUT, "sold_out", 409, false, "Not enough seats are free")                            \
    X(SG_NOT_TOGETHER, "not_together", 409, false, "No free seats side by side")                   \
    X(SG_OVER_LIMIT, "over_limit", 409, false, "More seats than the event lets a user have")       \
    X(SG_BOOKING_ENDED, "booking_ended", 409, false, "The booking has been cancelled or failed")   \
    X(SG_NOT_HELD, "not_held", 409, false, "Only a hold can be extended")                          \
    X(SG_NOT_CONFIRMED, "not_confirmed", 409, false,                                               \
      "Only a confirmed booking can be transferred")                                               \
    X(SG_EXTENSIONS_USED, "extensions_used", 409, false, "The hold cannot be extended any more")   \
    X(SG_ORDER_OPEN, "order_open", 409, true, "The booking is being paid for")                     \
    X(SG_ORDER_REFUNDED, "order_refunded", 409, false,                                             \
      "The seats were gone; the payment is given back")                                            \
    X(SG_ALREADY_WAITING, "already_waiting", 409, false, "The user is on the waiting list")        \
    X(SG_OFFERED, "seats_offered", 409, false, "Seats are offered; release their hold")            \
    X(SG_MAP_REFUSED, "map_refused", 409, false, "The shard map was refused")                      \
    X(SG_RELOAD_BUSY, "reload_in_progress", 409, true, "A reload is already under way")            \
    X(SG_HOLD_EXPIRED, "hold_expired", 410, false, "The hold is over")                             \
    X(SG_LENGTH_REQUIRED, "length_required", 411, false, "Content-Length is required")             \
    X(SG_BODY_TOO_LARGE, "body_too_large", 413, false, "The body is too large")                    \
    X(SG_URI_TOO_LONG, "uri_too_long", 414, false, "The request target is too long")               \
    X(SG_UNSUPPORTED_MEDIA, "unsupported_media_type", 415, false, "Send application/json")         \
    X(SG_INVALID_VALUE, "invalid_value", 422, false, "A field has an impossible value")            \
    X(SG_UNKNOWN_SEAT, "unknown_seat", 422, false, "A seat lies outside the event's grid")         \
    X(SG_UNKNOWN_TIER, "unknown_tier", 422, false, "The event has no such tier")                   \
    X(SG_DUPLICATE_SEAT, "duplicate_seat", 422, false, "The same seat is named twice")             \
    X(SG_TOO_MANY_SEATS, "too_many_seats", 422, false, "Too many seats in one booking")            \
    X(SG_UNKNOWN_SHARD, "unknown_shard", 422, false, "No shard of that name in the map")           \
    X(SG_KEY_REUSED, "idempotency_key_reused", 422, false, "Idempotency-Key with another body")    \
    X(SG_HEADERS_TOO_LARGE, "headers_too_large", 431, false, "The request header is too large")    \
    X(SG_INTERNAL, "internal_error", 500, false, "Something went wrong inside")                    \
    X(SG_NOT_IMPLEMENTED, "not_implemented", 501, false, "Not implemented")                        \
    X(SG_OVERLOADED, "overloaded", 503, true, "Too many requests are waiting")                     \
    X(SG_PAYMENT_OFF, "payment_off", 503, true, "No payment service is set up")                    \
    X(SG_SHARD_UNAVAILABLE, "shard_unavailable", 503, true, "The event's shard is unreachable")    \
    X(SG_DEADLINE, "deadline_exceeded", 503, true, "No answer within the deadline")                \
    X(SG_OUTCOME_UNKNOWN, "outcome_unknown", 503, true, "The outcome is not known yet")            \
    X(SG_FENCED, "shard_fenced", 503, true, "The shard is changing its primary")                   \
    X(SG_STALE_EPOCH, "stale_epoch", 503, true, "This router's view of the shard is old")          \
    X(SG_NOT_SYNCHRONOUS, "not_synchronous", 503, true, "No standby confirms the shard's writes")  \
    X(SG_QUEUE_UNAVAILABLE, "queue_unavailable", 503, true, "The queue does not take it now")      \
    X(SG_HTTP_VERSION, "http_version_not_supported", 505, false, "Send HTTP/1.1 or HTTP/1.0")      \
    X(SG_MAP_FULL, "map_full", 507, false, "No free event id left in the shard map")               \
    X(SG_CONFIG_INVALID, "config_invalid", 500, false, "The configuration is invalid")             \
    X(SG_NO_MEMORY, "no_memory", 500, false, "Out of memory")                                      \
    X(SG_IO, "io_error", 500, false, "Input or output failed")

enum sg_error {
#define X(name, code, status, retry, title) name,
    SG_ERROR_TABLE(X)
#undef X
        SG_ERROR_COUNT
};

/* Stable snake_case name, e.g. "seats_taken"; the `code` of a problem and the label of a metric. */
const char *sg_error_code(enum sg_error error);
/* HTTP status that carries this error to a client. */
int sg_error_http_status(enum sg_error error);
/* True if the same request may succeed later (the answer then carries Retry-After). */
bool sg_error_may_retry(enum sg_error error);
/* Short human title, the `title` of a problem. */
const char *sg_error_title(enum sg_error error);

#endif
