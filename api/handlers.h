/*
 * What answers each endpoint: one file a resource. Called by app.c through the table of endpoints.
 *
 * Each takes over the exchange, whose path parameters are parsed, and answers it once, now or in a
 * callback of the router.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HANDLERS_H
#define SG_API_HANDLERS_H

struct exchange;

void events_create(struct exchange *exchange);     /* POST /events */
void events_list(struct exchange *exchange);       /* GET /events */
void events_get(struct exchange *exchange);        /* GET /events/{id} */
void seats_get(struct exchange *exchange);         /* GET /events/{id}/seats */
void book_create(struct exchange *exchange);       /* POST /book */
void queue_get(struct exchange *exchange);         /* GET /events/{id}/queue/{bookingId} */
void holds_create(struct exchange *exchange);      /* POST /events/{id}/holds */
void bookings_get(struct exchange *exchange);      /* GET /events/{id}/bookings/{bookingId} */
void bookings_cancel(struct exchange *exchange);   /* DELETE there; and POST to one below it: */
void bookings_confirm(struct exchange *exchange);  /* confirm */
void bookings_extend(struct exchange *exchange);   /* extend */
void bookings_transfer(struct exchange *exchange); /* transfer */
void orders_create(struct exchange *exchange);     /* POST /events/{id}/orders */
void orders_get(struct exchange *exchange);        /* GET /events/{id}/orders/{orderId} */
void payments_callback(struct exchange *exchange); /* POST /payments/callback */
void waitlist_join(struct exchange *exchange);     /* POST /events/{id}/waitlist */
void waitlist_get(struct exchange *exchange);      /* GET /events/{id}/waitlist/{entryId} */
void waitlist_leave(struct exchange *exchange);    /* DELETE there */
void availability_get(struct exchange *exchange);  /* GET /events/{id}/availability */
void live_get(struct exchange *exchange);          /* GET /events/{id}/stream */
void tickets_get(struct exchange *exchange);       /* GET /users/{userId}/tickets */
void ops_healthz(struct exchange *exchange);
void ops_readyz(struct exchange *exchange);
void ops_metrics(struct exchange *exchange);
void ops_openapi(struct exchange *exchange);
void ops_docs(struct exchange *exchange);

#endif
