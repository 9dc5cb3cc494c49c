/*
 * The JSON shapes that clients rely on, written straight into a buffer. Pure.
 *
 * Fields may be added here, never changed or taken away (docs: /openapi.json).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_JSON_OUT_H
#define SG_API_JSON_OUT_H

#include <stddef.h>
#include <stdint.h>

struct availability;
struct booking;
struct dynbuf;
struct event_info;
struct event_page;
struct order;
struct refusal;
struct seat;
struct ticket_page;
struct waitlist_entry;

/* [{"row":1,"col":4}] */
void json_out_seats(struct dynbuf *out, const struct seat *seats, size_t seat_count);
/* RFC 3339 in quotes. */
void json_out_time(struct dynbuf *out, int64_t us);
/* {"id":1,"name":…,"startsAt":…,"rows":…,"cols":…,"shard":…,"total":…,"available":…}, and
 * "tiers":[{"name":…,"price":…,"rows":{"first":…,"last":…}}],"currency":…,"maxPerUser":… if it has
 */
void json_out_event(struct dynbuf *out, const struct event_info *event);
/* {"events":[…],"nextCursor":…,"partial":…,"missing":[…]} */
void json_out_event_page(struct dynbuf *out, const struct event_page *page);
/* {"bookingId":…,"eventId":…,"userId":…,"status":…,"seats":[…],"createdAt":…}, and "expiresAt":…,
 * "amount":…,"currency":… if it has */
void json_out_booking(struct dynbuf *out, const struct booking *booking);
/* Of a booking that went through the queue: {"bookingId":…,"eventId":…,"status":"queued"}; with
 * "confirmed" its "booking", with "failed" "code" and "conflicts" */
void json_out_queued(struct dynbuf *out, const char *booking_id, int64_t event_id);
void json_out_queue_confirmed(struct dynbuf *out, const struct booking *booking);
void json_out_queue_failed(struct dynbuf *out, const char *booking_id, int64_t event_id,
                           const struct refusal *refusal);
/* {"orderId":…,"eventId":…,"userId":…,"state":…,"amount":…,"currency":…,"problem":…,
 * "payment":{"method":…},"booking":{…}} */
void json_out_order(struct dynbuf *out, const struct order *order);
/* {"entryId":…,"eventId":…,"userId":…,"quantity":…,"tier":…,"together":…,"state":…,"position":…,
 * "bookingId":…,"expiresAt":…,"createdAt":…} */
void json_out_waitlist_entry(struct dynbuf *out, const struct waitlist_entry *entry);
/* {"eventId":1,"total":…,"available":…,"held":…,"booked":…,"source":…} */
void json_out_availability(struct dynbuf *out, const struct availability *availability);
/* {"userId":…,"tickets":[{a booking,"eventName":…,"startsAt":…,"shard":…}],"nextCursor":…,
 * "partial":…,"missing":[…],"source":…} */
void json_out_ticket_page(struct dynbuf *out, const char *user_id, const struct ticket_page *page);

#endif
