/*
 * For those who operate or explore: /healthz, /readyz, /metrics, /openapi.json, /docs.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>

#include "api/accept.h"
#include "api/embedded.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/outcomes.h"
#include "api/problem.h"
#include "base/metrics.h"

#define METRICS_MAX_BYTES (64 * 1024 * 1024)

/* The page's script is inline; its hash is checked by app_fake_router_test. */
static const char docs_policy[] =
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'sha256-" DOCS_SCRIPT_SHA256 "'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

void ops_healthz(struct exchange *exchange)
{
    static const char body[] = "{\"status\":\"alive\"}";
    http_reply_header(exchange->request, "Cache-Control", "no-store");
    exchange_answer(exchange, 200, JSON_CONTENT_TYPE, body, sizeof(body) - 1);
}

/* --- /readyz ---------------------------------------------------------------------------------- */

static bool is_ready(const struct shard_status *shards, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!shards[i].readable || !shards[i].writable)
            return false;
    }
    return count > 0;
}

/* "ready":false,"shards":[{"shard":"alpha","readable":true,"writable":false}] */
static void write_shards(struct dynbuf *out, bool ready, const struct shard_status *shards,
                         size_t count)
{
    dynbuf_adds(out, ready ? "\"ready\":true,\"shards\":[" : "\"ready\":false,\"shards\":[");
    for (size_t i = 0; i < count; i++) {
        dynbuf_adds(out, i ? ",{\"shard\":" : "{\"shard\":");
        dynbuf_add_json(out, shards[i].shard);
        dynbuf_adds(out, shards[i].readable ? ",\"readable\":true" : ",\"readable\":false");
        dynbuf_adds(out, shards[i].writable ? ",\"writable\":true}" : ",\"writable\":false}");
    }
    dynbuf_addc(out, ']');
}

static void answer_readiness(struct exchange *exchange, const struct shard_status *shards,
                             size_t count)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    bool ready = is_ready(shards, count);
    struct problem problem = {.error = SG_SHARD_UNAVAILABLE};
    problem.detail = count ? "a shard cannot be read or written" : "no shard map is loaded";
    dynbuf_reset(scratch);
    if (ready) {
        dynbuf_addc(scratch, '{');
    } else {
        exchange_prepare_problem(exchange, problem.error, problem.detail);
        problem_write_open(scratch, &problem);
        dynbuf_addc(scratch, ',');
    }
    write_shards(scratch, ready, shards, count);
    dynbuf_addc(scratch, '}');
    http_reply_header(exchange->request, "Cache-Control", "no-store");
    exchange_answer_scratch(exchange, ready ? 200 : 503,
                            ready ? JSON_CONTENT_TYPE : PROBLEM_CONTENT_TYPE);
}

void ops_readyz(struct exchange *exchange)
{
    size_t count = router_status(exchange->app->router, NULL, 0);
    struct shard_status *shards = calloc(count ? count : 1, sizeof(*shards));
    exchange->data = shards;
    if (!shards) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for the shards");
        return;
    }
    size_t known = router_status(exchange->app->router, shards, count);
    answer_readiness(exchange, shards, known < count ? known : count);
}

/* --- /metrics --------------------------------------------------------------------------------- */

void ops_metrics(struct exchange *exchange)
{
    struct dynbuf out;
    dynbuf_init(&out, METRICS_MAX_BYTES);
    metrics_render(&out);
    if (out.failed)
        exchange_fail(exchange, SG_NO_MEMORY, "the metrics did not fit into memory");
    else
        exchange_answer_ref(exchange, 200, "text/plain; version=0.0.4; charset=utf-8",
                            dynbuf_text(&out), out.len, free, out.data);
    if (out.failed)
        dynbuf_done(&out);
}

/* --- embedded files --------------------------------------------------------------------------- */

static void on_embedded_sent(void *arg)
{
    (void)arg; /* part of the binary */
}

static void answer_embedded(struct exchange *exchange, const struct embedded *file,
                            const char *etag, const char *content_type)
{
    http_reply_header(exchange->request, "ETag", etag);
    http_reply_header(exchange->request, "Cache-Control", "public, max-age=60");
    if (accept_etag_matches(http_request_header(exchange->request, "if-none-match"), etag)) {
        exchange->outcome = OUTCOME_NOT_MODIFIED;
        exchange_answer(exchange, 304, NULL, NULL, 0);
        return;
    }
    exchange_answer_ref(exchange, 200, content_type, file->start, embedded_len(file),
                        on_embedded_sent, NULL);
}

void ops_openapi(struct exchange *exchange)
{
    answer_embedded(exchange, &embedded_openapi, exchange->app->openapi_etag, JSON_CONTENT_TYPE);
}

void ops_docs(struct exchange *exchange)
{
    http_reply_header(exchange->request, "Content-Security-Policy", docs_policy);
    http_reply_header(exchange->request, "X-Content-Type-Options", "nosniff");
    http_reply_header(exchange->request, "Referrer-Policy", "no-referrer");
    answer_embedded(exchange, &embedded_docs, exchange->app->docs_etag, "text/html; charset=utf-8");
}
