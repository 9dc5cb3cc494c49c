/*
 * One request and its answer, as the endpoints see it.
 *
 *   app_handle ── exchange_new ──> endpoint ──> router ── callback ──> exchange_answer / _fail
 *
 * Owns what an endpoint keeps between the request and the router's callback. The answering
 * functions add the headers that every answer carries, count the answer, hand it to the edge and
 * end the exchange: nothing of it may be touched afterwards. For the files of api/ alone.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_EXCHANGE_H
#define SG_API_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/http.h"
#include "base/dynbuf.h"
#include "base/error.h"
#include "router/router.h"

struct live_streams;
struct outcomes;
struct problem;
struct queue_sender;
struct saga;
struct settings;

#define JSON_CONTENT_TYPE "application/json"
#define ETAG_SIZE 24

struct app {
    const struct settings *settings; /* borrowed */
    struct router *router;           /* borrowed */
    struct saga *saga;               /* borrowed; NULL: no orders */
    struct queue_sender *queue;      /* borrowed; NULL: every booking is made at once */
    struct outcomes *outcomes;
    struct live_streams *live;
    struct dynbuf scratch; /* the body being written; free between any two answers */
    char openapi_etag[ETAG_SIZE];
    char docs_etag[ETAG_SIZE];
};

struct exchange {
    struct app *app;
    struct http_request *request;
    const char *route;                   /* of the endpoint; lives for ever */
    int64_t event_id;                    /* of the path or the body; 0: none */
    char target_id[ROUTER_UUID_LEN + 1]; /* booking, order or entry of the path; "": none */
    char user_id[ROUTER_USER_MAX + 1];   /* of the path; "": none */
    struct route origin;                 /* who answered; map_version -1: not known yet */
    bool is_read;                        /* tell SeatGrid-Node and SeatGrid-Staleness */
    bool of_primary;                     /* read there, whatever the client allows */
    int outcome;                         /* see outcomes.h; SG_OK unless set */
    void *data;                          /* the endpoint's own, freed with free() */
};

/* Attached to the request, which frees it. NULL when memory runs out. `route` lives for ever. */
struct exchange *exchange_new(struct app *app, struct http_request *request, const char *route);

/* Notes where the answer comes from. */
void exchange_set_origin(struct exchange *exchange, const struct route *origin);

/* Of a write that was done: SeatGrid-Token (none with lsn 0) and SeatGrid-Durability. */
void exchange_tell_commit(struct exchange *exchange, const struct read_token *token,
                          enum shardmap_durability durability);

/* How fresh the answer is to be: the headers SeatGrid-Max-Staleness and SeatGrid-Token, whose
 * tokens go to ret_tokens (room for ROUTER_TOKENS_MAX), which ret_wish borrows. Answers itself and
 * returns false if one of them is malformed. */
bool exchange_read_wish(struct exchange *exchange, struct read_token *ret_tokens,
                        struct read_wish *ret_wish);
/* Notes where an answer over several shards comes from: all their nodes, and the oldest's age. */
void exchange_set_sources(struct exchange *exchange, const struct route *sources, size_t count);

/* Of a read: false if the header X-User-Id says that another asks than whose it is. Ids are no
 * secrets: event streams tell them. Then it answers itself, or, as a replica may not know yet to
 * whom it was given, has `handle` ask the primary. */
bool exchange_may_see(struct exchange *exchange, const char *owner_id,
                      void (*handle)(struct exchange *exchange));

/* Answers with a body that is copied; content_type NULL for none. */
void exchange_answer(struct exchange *exchange, int status, const char *content_type,
                     const void *body, size_t len);
/* Answers with app->scratch, or with SG_NO_MEMORY if not all of it fitted. */
void exchange_answer_scratch(struct exchange *exchange, int status, const char *content_type);
/* Answers without a copy; free_fn(arg) runs once when the body is no longer needed. */
void exchange_answer_ref(struct exchange *exchange, int status, const char *content_type,
                         const void *body, size_t len, void (*free_fn)(void *arg), void *arg);

/* Begins an answer without an end; what http_stream_begin says holds. */
struct http_stream *exchange_begin_stream(struct exchange *exchange, const char *content_type,
                                          size_t max_waiting_bytes, void (*on_closed)(void *arg),
                                          void *arg);

/* Answers with problem details. */
void exchange_fail(struct exchange *exchange, enum sg_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, with more to it. */
void exchange_fail_problem(struct exchange *exchange, const struct problem *problem);
/* The same for what the router says, with the detail that fits. */
void exchange_fail_router(struct exchange *exchange, enum sg_error error);
/* Adds what every problem needs: outcome, shard if the event is known, Retry-After, the log line.
 * For an endpoint that writes the body of its problem itself. */
void exchange_prepare_problem(struct exchange *exchange, enum sg_error error, const char *detail);

#endif
