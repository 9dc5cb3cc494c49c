/*
 * Goal: whatever a payment service, its stand-in's clients or a signature's header bring is taken
 * only inside its bounds, and what is taken comes out again as it was.
 * Method: the first byte chooses the reader, the rest is read; what is taken is written, read again
 * and compared.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "payment/behaviour.h"
#include "payment/hmac.h"
#include "payment/httpclient.h"
#include "payment/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void read_charge(const char *body, size_t len)
{
    struct wire_charge charge;
    struct wire_charge again;
    struct dynbuf out;
    if (wire_read_charge(body, len, &charge) != SG_OK)
        return;
    check(charge.amount >= 0 && charge.amount <= WIRE_AMOUNT_MAX);
    check(strlen(charge.currency) == PAY_CURRENCY_LEN && charge.method[0]);
    dynbuf_init(&out, WIRE_BODY_MAX);
    wire_write_charge(&out, &charge);
    check(!out.failed && wire_read_charge(out.data, out.len, &again) == SG_OK);
    check(memcmp(&charge, &again, sizeof(charge)) == 0);
    dynbuf_done(&out);
}

static void read_state(const char *body, size_t len)
{
    struct payment_notice state;
    struct payment_notice again;
    struct dynbuf out;
    if (wire_read_state(body, len, &state) != SG_OK)
        return;
    check(wire_is_order_id(state.order_id));
    dynbuf_init(&out, WIRE_BODY_MAX);
    wire_write_state(&out, state.order_id, state.word.outcome, state.word.amount,
                     state.word.currency);
    check(!out.failed && wire_read_state(out.data, out.len, &again) == SG_OK);
    check(memcmp(&state, &again, sizeof(state)) == 0);
    dynbuf_done(&out);
}

static void read_behaviour(const char *body, size_t len)
{
    struct behaviour behaviour;
    behaviour_init(&behaviour);
    if (wire_read_behaviour(body, len, &behaviour) != SG_OK)
        return;
    for (size_t i = 0; i < BEHAVIOUR_FIELDS; i++) {
        int64_t value = behaviour_get(&behaviour, &behaviour_fields[i]);
        check(value >= 0 && value <= behaviour_fields[i].max);
    }
    struct behaviour_plan plan = behaviour_plan(&behaviour, "order", "card");
    check(plan.decide_ms >= 0 && plan.callbacks >= 0 && plan.callbacks <= 2);
}

/* Nobody here knows the secret: nothing may fit. */
static void read_header(const char *text)
{
    static const struct hmac_secret secret = {.bytes = "not to be guessed", .len = 17};
    check(!hmac_verify(&secret, text, "body", 4, 1764000000, INT64_MAX));
}

static void read_url(const char *text)
{
    struct httpclient_url url;
    if (!httpclient_parse_url(text, &url))
        return;
    check(url.address.host[0] && url.address.port[0]);
    check(url.path[0] == '\0' || url.path[0] == '/');
    check(strlen(url.path) <= HTTPCLIENT_PATH_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t len = size - 1;
    char *text = malloc(len + 1);
    memcpy(text, data + 1, len);
    text[len] = '\0';
    switch (data[0] % 5) {
    case 0:
        read_charge(text, len);
        break;
    case 1:
        read_state(text, len);
        break;
    case 2:
        read_behaviour(text, len);
        break;
    case 3:
        read_header(text);
        break;
    default:
        read_url(text);
    }
    free(text);
    return 0;
}
