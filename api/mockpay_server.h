/*
 * The process of `seatgrid mockpay`: one thread, one loop, the HTTP edge around payment/mockpay.h.
 *
 *   PUT  /charges/{orderId}    as payment/wire.h says; GET, POST …/cancel, POST …/refund too
 *   GET  /charges?limit=N      the newest N, at most MOCKPAY_LIST_MAX
 *   GET  /totals               the money taken and given back, in minor units; charges; callbacks
 *   GET  /behaviour            how it behaves
 *   POST /behaviour            what it names changes, from the next charge on
 *   GET  /healthz
 *
 * A silent charge is done and its request kept unanswered for MOCKPAY_SILENCE_MS.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_MOCKPAY_SERVER_H
#define SG_API_MOCKPAY_SERVER_H

#include "base/error.h"
#include "payment/behaviour.h"
#include "payment/hmac.h"

#define MOCKPAY_LIST_MAX 10000
#define MOCKPAY_SILENCE_MS 60000

struct mockpay_options {
    const char *listen;  /* host:port */
    const char *journal; /* NULL: in memory */
    struct hmac_secret secret;
    struct behaviour behaviour;
};

/* Runs until SIGTERM or SIGINT. What went wrong at the start is in the log. */
enum sg_error mockpay_server_run(const struct mockpay_options *options);

#endif
