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
struct seat;
struct ticket_page;

/* [{"row":1,"col":4}] */
void json_out_seats(struct dynbuf *out, const struct seat *seats, size_t seat_count);
/* RFC 3339 in quotes. */
void json_out_time(struct dynbuf *out, int64_t us);
/* {"id":1,"name":…,"startsAt":…,"rows":…,"cols":…,"shard":…,"total":…,"available":…} */
void json_out_event(struct dynbuf *out, const struct event_info *event);
/* {"events":[…],"nextCursor":…,"partial":…,"missing":[…]} */
void json_out_event_page(struct dynbuf *out, const struct event_page *page);
/* {"bookingId":…,"eventId":…,"userId":…,"status":…,"seats":[…],"createdAt":…} */
void json_out_booking(struct dynbuf *out, const struct booking *booking);
/* {"eventId":1,"total":…,"available":…,"held":…,"booked":…,"source":…} */
void json_out_availability(struct dynbuf *out, const struct availability *availability);
/* {"userId":…,"tickets":[{a booking,"eventName":…,"startsAt":…,"shard":…}],"nextCursor":…,
 * "partial":…,"missing":[…],"source":…} */
void json_out_ticket_page(struct dynbuf *out, const char *user_id, const struct ticket_page *page);

#endif
