/*
 * The application: takes requests from the HTTP edge, has them answered by the router's word.
 *
 *   http edge ── app_handle ──> endpoint ──> router ── callback ──> http_reply
 *
 * One app a worker thread, used on that thread alone. What comes in is a well-formed HTTP request;
 * what goes out is one answer for each, JSON or problem+json, counted by route, shard, node and
 * outcome. Hides endpoints, representations and their headers.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_APP_H
#define SG_API_APP_H

#include <stdint.h>

#include "base/error.h"

struct app;
struct event_base;
struct http_request;
struct metrics_set;
struct queue_sender;
struct router;
struct saga;
struct settings;

/* All borrowed; they outlive the app. */
struct app_config {
    const struct settings *settings;
    struct router *router;
    struct metrics_set *metrics;
    struct event_base *base;
    struct saga *saga;          /* NULL: no orders */
    struct queue_sender *queue; /* NULL: no RabbitMQ */
    unsigned workers;           /* that share the bounds of a process; 0 counts as 1 */
};

/* NULL when memory runs out. */
struct app *app_new(const struct app_config *config);
/* Ends what has no end by itself, event streams. Before the router is freed. */
void app_end_streams(struct app *app);
/* Requests that the app still owns must have been answered: free the router first. */
void app_free(struct app *app);

/* For http_server_config, whose `arg`, here `object`, is the struct app. */
void app_handle(void *object, struct http_request *request);              /* on_request */
void app_refused(void *object, enum sg_error error, int64_t duration_us); /* on_refused */

#endif
