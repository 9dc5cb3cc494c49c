/*
 * The endpoints of `seatgrid cdc`: for operators, `seatgrid reseed`, `reconcile` and `nodes`, and
 * scrapers.
 *
 *   GET  /healthz                               the loop turns
 *   GET  /metrics                               Prometheus text
 *   GET  /admin/streams                         {"streams":[what consumer_write_status says, ...]}
 *   POST /admin/reseed[?shard=NAME]             202 {"began":[...],"refused":[...]}
 *   POST /admin/reconcile[?shard=NAME][&fix=1]  200 when the pass over all of it is complete
 *   POST /admin/drain?shard=NAME&lsn=LSN&timeout_ms=N[&timeline=N]
 *                                               200 {"shard","generation","slot","lsn","timeline",
 *                                               "system"} once Redis has everything up to there
 *
 * Without `shard` all of them are meant. 409: the shard is at it already, or (drain) is being built
 * anew; 503: this consumer does not have the shard now, or (drain, "deadline_exceeded") the time is
 * over; 422: no such shard, or (drain) an LSN or timeline that the primary has not. With several
 * shards only the refusal of all of them is an error; a refusal of some is told in the answer. On
 * the loop of the consumers, behind the HTTP edge (api/http.h); a client that goes away does not
 * end what it began.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_CDC_ADMIN_H
#define SG_API_CDC_ADMIN_H

#include <stddef.h>

struct cdc_admin;
struct consumer;
struct http_request;

/* The consumers are borrowed, and freed first. NULL when memory runs out. */
struct cdc_admin *cdc_admin_new(struct consumer *const *consumers, size_t count);
void cdc_admin_free(struct cdc_admin *admin);
/* For http_server_config.on_request; `admin` is a struct cdc_admin. */
void cdc_admin_handle(void *admin, struct http_request *request);

#endif
