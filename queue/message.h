/*
 * The message of a booking that is to be made later: its fields, and the bytes they travel as
 * (proto/queue.proto). Pure.
 *
 *   api: fields ── queue_message_encode ──> bytes ── RabbitMQ ──> queue_message_decode ──> worker
 *
 * The booking id is fixed when the request is accepted: it is where the caller asks for the
 * outcome, and what makes a message that comes twice one booking.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_MESSAGE_H
#define SG_QUEUE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "router/router.h"

struct dynbuf;

#define QUEUE_MESSAGE_VERSION 1
#define QUEUE_MESSAGE_BYTES_MAX 8192 /* of the encoded message */

/* What a worker reads. queue_message_request makes a request of it. */
struct queue_message {
    char booking_id[UUID_TEXT_LEN + 1];
    int64_t event_id;
    char user_id[ROUTER_USER_MAX + 1];
    char idempotency_key[ROUTER_KEY_MAX + 1]; /* "" for none */
    int64_t accepted_at_us;                   /* wall clock of the server that accepted it */
    struct seat seats[ROUTER_SEATS_MAX];      /* or, with a seat_count of 0: */
    size_t seat_count;
    struct best_wish best[ROUTER_BEST_MAX]; /* its tiers: see queue_message_request */
    size_t best_count;
    char tiers[ROUTER_BEST_MAX][ROUTER_TIER_MAX + 1]; /* "" for the whole house */
};

/* The id of a booking that is accepted now. With a key it is made of event, user and key, so that
 * the same request sent again is told the same place to ask; without one it is new. */
void queue_message_booking_id(int64_t event_id, const char *user_id, const char *idempotency_key,
                              int64_t wall_us, char ret_id[UUID_TEXT_LEN + 1]);

/* Appends the bytes of a booking (no hold, no order) with its booking_id; out->failed tells whether
 * they fitted. */
void queue_message_encode(const struct book_request *request, int64_t accepted_at_us,
                          struct dynbuf *out);

/* SG_OK; SG_MALFORMED with a reason (static text) for bytes that are no message of a version we
 * know, or that break a bound of router.h. */
enum sg_error queue_message_decode(const void *bytes, size_t len, struct queue_message *ret_message,
                                   const char **ret_reason);

/* What to ask the router for; points into the message. */
void queue_message_request(struct queue_message *message, struct book_request *ret_request);

#endif
