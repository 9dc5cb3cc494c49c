/*
 * What the headers of every write say: Content-Type, Idempotency-Key, Prefer, X-User-Id; and how
 * the answer tells what was done. For the files of api/ alone.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_WRITES_H
#define SG_API_WRITES_H

#include <stdbool.h>

#include "api/json_in.h"
#include "router/router.h"

struct app;
struct exchange;

#define WRITES_RESPOND_ASYNC "respond-async" /* the preference of RFC 7240 */

struct write_headers {
    const char *key; /* Idempotency-Key, valid until the answer; NULL for none */
    bool respond_async;
};

/* Answers itself and returns false if a header forbids to go on. */
bool writes_read_headers(struct exchange *exchange, struct write_headers *ret_headers);
/* Who asks: X-User-Id, or what the body says and stands in user_id ("" for nothing). The user is in
 * user_id then; answers itself and returns false if that is unclear. */
bool writes_read_user(struct exchange *exchange, char user_id[ROUTER_USER_MAX + 1]);
/* Of a DELETE, whose body has no meaning: ?userId= into user_id, "" for none. Answers itself and
 * returns false if it is malformed. */
bool writes_read_query_user(struct exchange *exchange, char user_id[ROUTER_USER_MAX + 1]);
/* What the settings allow in bodies. */
struct json_in_bounds writes_bounds(const struct app *app);

/* Idempotent-Replayed. */
void writes_tell_replayed(struct exchange *exchange);
/* Location: /events/{id}/KIND/TARGET_ID; `kind`: "bookings", "orders", ... */
void writes_tell_location(struct exchange *exchange, const char *kind, const char *target_id);
/* 202 with the scratch as its body, and Preference-Applied if that is why. */
void writes_answer_accepted(struct exchange *exchange, bool preferred);

#endif
