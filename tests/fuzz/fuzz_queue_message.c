/*
 * Fuzzes queue_message_decode: what it takes must keep the bounds that the router relies on, and
 * come back as the same booking when it is encoded again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "queue/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds)
        abort();
}

static void check_bounds(const struct book_request *request)
{
    int32_t seats = 0;
    must(request->event_id >= 1);
    must(strlen(request->user_id) >= 1 && strlen(request->user_id) <= ROUTER_USER_MAX);
    must(!request->idempotency_key || strlen(request->idempotency_key) <= ROUTER_KEY_MAX);
    must((request->seat_count == 0) != (request->best_count == 0));
    must(request->seat_count <= ROUTER_SEATS_MAX && request->best_count <= ROUTER_BEST_MAX);
    for (size_t i = 0; i < request->seat_count; i++) {
        const struct seat *seat = &request->seats[i];
        must(seat->row >= 1 && seat->col >= 1);
        for (size_t j = 0; j < i; j++)
            must(request->seats[j].row != seat->row || request->seats[j].col != seat->col);
    }
    for (size_t i = 0; i < request->best_count; i++) {
        must(request->best[i].quantity >= 1);
        must(!request->best[i].tier || strlen(request->best[i].tier) <= ROUTER_TIER_MAX);
        seats += request->best[i].quantity;
    }
    must(seats <= ROUTER_SEATS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct queue_message message;
    struct queue_message again;
    struct book_request request;
    struct book_request second;
    struct dynbuf bytes;
    const char *reason = NULL;
    if (queue_message_decode(data, size, &message, &reason) != SG_OK) {
        must(reason != NULL);
        return 0;
    }
    queue_message_request(&message, &request);
    check_bounds(&request);
    dynbuf_init(&bytes, QUEUE_MESSAGE_BYTES_MAX);
    queue_message_encode(&request, message.accepted_at_us, &bytes);
    must(!bytes.failed);
    must(queue_message_decode(bytes.data, bytes.len, &again, &reason) == SG_OK);
    queue_message_request(&again, &second);
    must(strcmp(again.booking_id, message.booking_id) == 0);
    must(again.event_id == message.event_id && again.seat_count == message.seat_count);
    must(strcmp(again.user_id, message.user_id) == 0 &&
         strcmp(again.idempotency_key, message.idempotency_key) == 0);
    must(memcmp(again.seats, message.seats, sizeof(again.seats)) == 0);
    must(memcmp(again.tiers, message.tiers, sizeof(again.tiers)) == 0);
    dynbuf_done(&bytes);
    return 0;
}
