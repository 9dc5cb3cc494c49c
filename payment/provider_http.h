/*
 * A payment service that speaks JSON over HTTP as wire.h says, `seatgrid mockpay` for one.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_PROVIDER_HTTP_H
#define SG_PAYMENT_PROVIDER_HTTP_H

#include <stddef.h>

#include "base/error.h"
#include "payment/provider.h"

struct event_base;
struct settings;

/* Reads payment.* of the settings, the secret's file too; they are borrowed and outlive it.
 * SG_CONFIG_INVALID, SG_IO, SG_NO_MEMORY, with a readable line in error_text. */
enum sg_error provider_http_new(const struct settings *settings, struct event_base *base,
                                struct payment_provider **ret_provider, char *error_text,
                                size_t error_size);

#endif
