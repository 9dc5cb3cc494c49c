/*
 * Seat maps: GET /events/{id}/seats.
 *
 *   Accept, Accept-Encoding, SeatGrid-Max-Staleness, SeatGrid-Token ─> router_seatmap ─> form and
 * entity tag ─> If-None-Match names it: 304, no body is made ─> else the seat map's own body in
 * that form, sent without a copy
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>

#include "api/accept.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/outcomes.h"
#include "api/seatmap_body.h"
#include "base/settings.h"

/* What the request asked for, kept until the router answers. */
struct seats_wish {
    enum seatmap_media media;
    enum accept_coding coding;
};

static void add_cache_headers(struct http_request *request, const char *etag)
{
    http_reply_header(request, "ETag", etag);
    http_reply_header(request, "Vary", "Accept, Accept-Encoding");
    http_reply_header(request, "Cache-Control", "no-cache");
}

static void answer_body(struct exchange *exchange, struct seatmap *seatmap, enum seatmap_form form)
{
    const char *type = seatmap_media_types[form / 2];
    const struct seatmap_body *body = seatmap_body_get(seatmap, form);
    if (!body) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for the seat map's body");
        return;
    }
    if (seatmap_body_is_gzip(form))
        http_reply_header(exchange->request, "Content-Encoding", "gzip");
    exchange_answer_ref(exchange, 200, type, body->data, body->len, seatmap_unref,
                        seatmap_ref(seatmap));
}

static void on_seatmap(void *arg, const struct route *route, enum sg_error error,
                       struct seatmap *seatmap)
{
    struct exchange *exchange = arg;
    const struct seats_wish *wish = exchange->data;
    char etag[SEATMAP_ETAG_SIZE];
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    size_t gzip_min_bytes = (size_t)exchange->app->settings->http.gzip_min_bytes;
    enum seatmap_form form = seatmap_body_form(seatmap, wish->media, wish->coding, gzip_min_bytes);
    seatmap_body_etag(seatmap, form, etag);
    add_cache_headers(exchange->request, etag);
    if (accept_etag_matches(http_request_header(exchange->request, "if-none-match"), etag)) {
        exchange->outcome = OUTCOME_NOT_MODIFIED;
        exchange_answer(exchange, 304, NULL, NULL, 0);
        return;
    }
    answer_body(exchange, seatmap, form);
}

void seats_get(struct exchange *exchange)
{
    struct http_request *request = exchange->request;
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish fresh;
    exchange->is_read = true;
    int media = accept_media(http_request_header(request, "accept"), seatmap_media_types,
                             SEATMAP_MEDIA_COUNT);
    if (media < 0) {
        http_reply_header(request, "Vary", "Accept, Accept-Encoding");
        exchange_fail(exchange, SG_NOT_ACCEPTABLE, "Accept: there are %s, %s and %s",
                      seatmap_media_types[0], seatmap_media_types[1], seatmap_media_types[2]);
        return;
    }
    if (!exchange_read_wish(exchange, tokens, &fresh))
        return;
    struct seats_wish *wish = malloc(sizeof(*wish));
    exchange->data = wish;
    if (!wish) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for the request");
        return;
    }
    wish->media = (enum seatmap_media)media;
    wish->coding = accept_coding(http_request_header(request, "accept-encoding"));
    enum sg_error error =
        router_seatmap(exchange->app->router, exchange->event_id, &fresh, on_seatmap, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
