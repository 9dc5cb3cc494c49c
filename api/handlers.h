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

void events_create(struct exchange *exchange);    /* POST /events */
void events_list(struct exchange *exchange);      /* GET /events */
void events_get(struct exchange *exchange);       /* GET /events/{id} */
void seats_get(struct exchange *exchange);        /* GET /events/{id}/seats */
void book_create(struct exchange *exchange);      /* POST /book */
void bookings_get(struct exchange *exchange);     /* GET /events/{id}/bookings/{bookingId} */
void availability_get(struct exchange *exchange); /* GET /events/{id}/availability */
void live_get(struct exchange *exchange);         /* GET /events/{id}/stream */
void tickets_get(struct exchange *exchange);      /* GET /users/{userId}/tickets */
void ops_healthz(struct exchange *exchange);
void ops_readyz(struct exchange *exchange);
void ops_metrics(struct exchange *exchange);
void ops_openapi(struct exchange *exchange);
void ops_docs(struct exchange *exchange);

#endif
