/*
 * The payment service over HTTP. See provider_http.h.
 *
 *   charge, ask, cancel, refund ──> path, body ──> httpclient ──> on_answered ── word_of ──> fn
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/provider_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/settings.h"
#include "payment/hmac.h"
#include "payment/httpclient.h"
#include "payment/wire.h"

struct provider_http {
    struct payment_provider provider; /* first: what the saga has */
    struct httpclient *client;
    struct hmac_secret secret;
    const char *callback_url;
    int64_t tolerance_s;
    char prefix[HTTPCLIENT_PATH_MAX + 1]; /* of every path */
};

enum question { ASK_CHARGE, ASK_STATE, ASK_CANCEL, ASK_REFUND };

struct asked {
    enum question question;
    char order_id[PAY_ORDER_ID_MAX + 1];
    payment_fn *fn;
    void *arg;
};

/* --- answers ---------------------------------------------------------------------------------- */

/* 404 tells something only where the service was asked for what it has. */
static struct payment_word word_of(const struct asked *asked, int status, const char *body,
                                   size_t len)
{
    static const struct payment_word unknown = {.outcome = PAY_UNKNOWN};
    static const struct payment_word none = {.outcome = PAY_NONE};
    struct payment_notice state;
    if (status == 404 && (asked->question == ASK_STATE || asked->question == ASK_REFUND))
        return none;
    if ((status != 200 && status != 201 && status != 202) ||
        wire_read_state(body, len, &state) != SG_OK || strcmp(state.order_id, asked->order_id) != 0)
        return unknown;
    return state.word;
}

static void on_answered(void *arg, int status, const char *body, size_t len, const char *reason)
{
    struct asked *asked = arg;
    struct payment_word word = word_of(asked, status, body, len);
    char detail[96];
    if (status == 0)
        snprintf(detail, sizeof(detail), "%s", reason);
    else
        snprintf(detail, sizeof(detail), "status %d", status);
    payment_fn *fn = asked->fn;
    void *fn_arg = asked->arg;
    free(asked);
    fn(fn_arg, &word, detail);
}

/* --- questions -------------------------------------------------------------------------------- */

static enum sg_error send(struct payment_provider *provider, enum question question,
                          const char *order_id, const struct dynbuf *body, payment_fn *fn,
                          void *arg)
{
    static const char *const actions[] = {
        [ASK_CHARGE] = "", [ASK_STATE] = "", [ASK_CANCEL] = "/cancel", [ASK_REFUND] = "/refund"};
    static const enum httpclient_method methods[] = {[ASK_CHARGE] = HTTPCLIENT_PUT,
                                                     [ASK_STATE] = HTTPCLIENT_GET,
                                                     [ASK_CANCEL] = HTTPCLIENT_POST,
                                                     [ASK_REFUND] = HTTPCLIENT_POST};
    struct provider_http *http = (struct provider_http *)provider;
    char path[HTTPCLIENT_PATH_MAX + PAY_ORDER_ID_MAX + 24];
    snprintf(path, sizeof(path), "%s/charges/%s%s", http->prefix, order_id, actions[question]);
    struct asked *asked = malloc(sizeof(*asked));
    if (!asked)
        return SG_NO_MEMORY;
    *asked = (struct asked){.question = question, .fn = fn, .arg = arg};
    snprintf(asked->order_id, sizeof(asked->order_id), "%s", order_id);
    struct httpclient_request request = {.method = methods[question],
                                         .path = path,
                                         .body = body ? body->data : NULL,
                                         .len = body ? body->len : 0};
    enum sg_error error = httpclient_send(http->client, &request, on_answered, asked);
    if (error != SG_OK)
        free(asked);
    return error;
}

static enum sg_error charge(struct payment_provider *provider, const struct payment_charge *wanted,
                            payment_fn *fn, void *arg)
{
    const struct provider_http *http = (const struct provider_http *)provider;
    struct wire_charge wire = {.amount = wanted->amount};
    struct dynbuf body;
    snprintf(wire.currency, sizeof(wire.currency), "%s", wanted->currency);
    snprintf(wire.method, sizeof(wire.method), "%s", wanted->method);
    if (http->callback_url[0])
        snprintf(wire.callback_url, sizeof(wire.callback_url), "%s%cevent=%lld", http->callback_url,
                 strchr(http->callback_url, '?') ? '&' : '?', (long long)wanted->event_id);
    dynbuf_init(&body, WIRE_BODY_MAX);
    wire_write_charge(&body, &wire);
    enum sg_error error =
        body.failed ? SG_NO_MEMORY : send(provider, ASK_CHARGE, wanted->order_id, &body, fn, arg);
    dynbuf_done(&body);
    return error;
}

static enum sg_error ask(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                         void *arg)
{
    return send(provider, ASK_STATE, order_id, NULL, fn, arg);
}

static enum sg_error cancel(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                            void *arg)
{
    return send(provider, ASK_CANCEL, order_id, NULL, fn, arg);
}

static enum sg_error refund(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                            void *arg)
{
    return send(provider, ASK_REFUND, order_id, NULL, fn, arg);
}

static enum sg_error verify(struct payment_provider *provider, const char *signature,
                            const void *body, size_t len, int64_t now_s,
                            struct payment_notice *ret_notice)
{
    const struct provider_http *http = (const struct provider_http *)provider;
    if (!hmac_verify(&http->secret, signature, body, len, now_s, http->tolerance_s))
        return SG_BAD_SIGNATURE;
    return wire_read_state(body, len, ret_notice);
}

/* --- life ------------------------------------------------------------------------------------- */

static void provider_free(struct payment_provider *provider)
{
    struct provider_http *http = (struct provider_http *)provider;
    httpclient_free(http->client);
    free(http);
}

static const struct payment_provider_calls calls = {.charge = charge,
                                                    .ask = ask,
                                                    .cancel = cancel,
                                                    .refund = refund,
                                                    .verify = verify,
                                                    .free = provider_free,
                                                    .signature_header = HMAC_HEADER_LOWER};

/* The longest event id behind it has to fit into what the service keeps. */
static bool callback_url_fits(const char *url)
{
    struct httpclient_url parts;
    return !*url || (httpclient_parse_url(url, &parts) &&
                     strlen(url) + strlen("?event=9223372036854775807") <= WIRE_URL_MAX);
}

static enum sg_error fill(struct provider_http *http, const struct settings *settings,
                          struct event_base *base, char *error_text, size_t error_size)
{
    struct httpclient_url url;
    if (!httpclient_parse_url(settings->payment.provider_url, &url) || strchr(url.path, '?')) {
        snprintf(error_text, error_size, "payment.provider_url: not http://host:port");
        return SG_CONFIG_INVALID;
    }
    if (!callback_url_fits(settings->payment.callback_url)) {
        snprintf(error_text, error_size, "payment.callback_url: not http://host:port/path");
        return SG_CONFIG_INVALID;
    }
    enum sg_error error =
        hmac_load(settings->payment.secret_file, &http->secret, error_text, error_size);
    if (error != SG_OK)
        return error;
    size_t len = strlen(url.path);
    while (len && url.path[len - 1] == '/')
        len--;
    snprintf(http->prefix, sizeof(http->prefix), "%.*s", (int)len, url.path);
    http->client = httpclient_new(&(struct httpclient_config){
        .base = base,
        .address = url.address,
        .connections = (size_t)settings->payment.connections,
        .queue_max = (size_t)settings->payment.max_open, /* an order asks one thing at a time */
        .body_max = WIRE_BODY_MAX,
        .timeout_us = settings->payment.timeout_ms * 1000});
    snprintf(error_text, error_size, "out of memory");
    return http->client ? SG_OK : SG_NO_MEMORY;
}

enum sg_error provider_http_new(const struct settings *settings, struct event_base *base,
                                struct payment_provider **ret_provider, char *error_text,
                                size_t error_size)
{
    struct provider_http *http = calloc(1, sizeof(*http));
    snprintf(error_text, error_size, "out of memory");
    if (!http)
        return SG_NO_MEMORY;
    http->provider.calls = &calls;
    http->callback_url = settings->payment.callback_url;
    http->tolerance_s = settings->payment.signature_tolerance_ms / 1000;
    enum sg_error error = fill(http, settings, base, error_text, error_size);
    if (error == SG_OK)
        *ret_provider = &http->provider;
    else
        free(http);
    return error;
}
