/*
 * The JSON between SeatGrid and a payment service. See wire.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/wire.h"

#include <jansson.h>
#include <string.h>

#include "base/dynbuf.h"
#include "payment/behaviour.h"

/* --- writing ---------------------------------------------------------------------------------- */

void wire_write_charge(struct dynbuf *out, const struct wire_charge *charge)
{
    dynbuf_adds(out, "{\"amount\":");
    dynbuf_add_i64(out, charge->amount);
    dynbuf_adds(out, ",\"currency\":");
    dynbuf_add_json(out, charge->currency);
    dynbuf_adds(out, ",\"method\":");
    dynbuf_add_json(out, charge->method);
    if (charge->callback_url[0]) {
        dynbuf_adds(out, ",\"callbackUrl\":");
        dynbuf_add_json(out, charge->callback_url);
    }
    dynbuf_addc(out, '}');
}

void wire_write_state(struct dynbuf *out, const char *order_id, enum pay_outcome outcome,
                      int64_t amount, const char *currency)
{
    dynbuf_addf(out, "{\"orderId\":\"%s\",\"status\":\"%s\",\"amount\":%lld,\"currency\":\"%s\"}",
                order_id, pay_outcome_name(outcome), (long long)amount, currency);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* The body as an object, or NULL and why not. */
static json_t *parse_object(const char *body, size_t len, enum sg_error *ret_error)
{
    json_error_t error;
    json_t *root =
        len <= WIRE_BODY_MAX ? json_loadb(body, len, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!root) {
        *ret_error = SG_MALFORMED_JSON;
    } else if (!json_is_object(root)) {
        json_decref(root);
        root = NULL;
        *ret_error = SG_WRONG_TYPE;
    }
    return root;
}

/* min to max bytes of printable ASCII from `first` on, which is a blank or what comes behind it.
 * `ret_text` holds max + 1. */
static enum sg_error read_ascii(const json_t *value, char first, size_t min, size_t max,
                                char *ret_text)
{
    if (!json_is_string(value))
        return SG_WRONG_TYPE;
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    if (len < min || len > max)
        return SG_INVALID_VALUE;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < first || text[i] > '~')
            return SG_INVALID_VALUE;
    }
    memcpy(ret_text, text, len + 1);
    return SG_OK;
}

static enum sg_error read_word(const json_t *value, size_t min, size_t max, char *ret_text)
{
    return read_ascii(value, '!', min, max, ret_text);
}

/* `ret_currency` holds PAY_CURRENCY_LEN + 1. */
static enum sg_error read_money(const json_t *root, int64_t *ret_amount, char *ret_currency)
{
    const json_t *amount = json_object_get(root, "amount");
    if (!json_is_integer(amount))
        return SG_WRONG_TYPE;
    *ret_amount = json_integer_value(amount);
    if (*ret_amount < 0 || *ret_amount > WIRE_AMOUNT_MAX)
        return SG_INVALID_VALUE;
    enum sg_error error = read_word(json_object_get(root, "currency"), PAY_CURRENCY_LEN,
                                    PAY_CURRENCY_LEN, ret_currency);
    if (error == SG_OK && strspn(ret_currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != PAY_CURRENCY_LEN)
        error = SG_INVALID_VALUE;
    return error;
}

static enum sg_error read_charge(const json_t *root, struct wire_charge *ret_charge)
{
    const json_t *url = json_object_get(root, "callbackUrl");
    enum sg_error error = read_money(root, &ret_charge->amount, ret_charge->currency);
    if (error == SG_OK)
        error =
            read_ascii(json_object_get(root, "method"), ' ', 1, PAY_METHOD_MAX, ret_charge->method);
    if (error == SG_OK && url)
        error = read_word(url, 1, WIRE_URL_MAX, ret_charge->callback_url);
    return error;
}

enum sg_error wire_read_charge(const char *body, size_t len, struct wire_charge *ret_charge)
{
    struct wire_charge charge = {0};
    enum sg_error error = SG_OK;
    json_t *root = parse_object(body, len, &error);
    if (root)
        error = read_charge(root, &charge);
    json_decref(root);
    if (error == SG_OK)
        *ret_charge = charge;
    return error;
}

bool wire_is_order_id(const char *text)
{
    for (size_t i = 0; i < PAY_ORDER_ID_MAX; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (!text[i] || (hyphen ? text[i] != '-' : !strchr("0123456789abcdef", text[i])))
            return false;
    }
    return text[PAY_ORDER_ID_MAX] == '\0';
}

static enum sg_error read_state(const json_t *root, struct payment_notice *ret_state)
{
    char status[16];
    struct payment_word *word = &ret_state->word;
    enum sg_error error = read_word(json_object_get(root, "orderId"), PAY_ORDER_ID_MAX,
                                    PAY_ORDER_ID_MAX, ret_state->order_id);
    if (error == SG_OK)
        error = read_word(json_object_get(root, "status"), 1, sizeof(status) - 1, status);
    if (error != SG_OK)
        return error;
    word->outcome = pay_outcome_by_name(status);
    if (word->outcome == PAY_OUTCOME_COUNT || word->outcome == PAY_UNKNOWN ||
        word->outcome == PAY_NONE || !wire_is_order_id(ret_state->order_id))
        return SG_INVALID_VALUE;
    if (word->outcome != PAY_SUCCEEDED && word->outcome != PAY_REFUNDED)
        return SG_OK;
    return read_money(root, &word->amount, word->currency);
}

enum sg_error wire_read_state(const char *body, size_t len, struct payment_notice *ret_state)
{
    struct payment_notice state = {0};
    enum sg_error error = SG_OK;
    json_t *root = parse_object(body, len, &error);
    if (root)
        error = read_state(root, &state);
    json_decref(root);
    if (error == SG_OK)
        *ret_state = state;
    return error;
}

/* --- behaviour -------------------------------------------------------------------------------- */

static enum sg_error read_behaviour(json_t *root, struct behaviour *behaviour)
{
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        const struct behaviour_field *field = behaviour_field_by_json(name);
        if (!field || !json_is_integer(value))
            return SG_WRONG_TYPE; /* a rate with a typing error would test nothing */
        if (!behaviour_set(behaviour, field, json_integer_value(value)))
            return SG_INVALID_VALUE;
    }
    return behaviour_is_whole(behaviour) ? SG_OK : SG_INVALID_VALUE;
}

enum sg_error wire_read_behaviour(const char *body, size_t len, struct behaviour *behaviour)
{
    struct behaviour changed = *behaviour;
    enum sg_error error = SG_OK;
    json_t *root = parse_object(body, len, &error);
    if (root)
        error = read_behaviour(root, &changed);
    json_decref(root);
    if (error == SG_OK)
        *behaviour = changed;
    return error;
}

void wire_write_behaviour(struct dynbuf *out, const struct behaviour *behaviour)
{
    for (size_t i = 0; i < BEHAVIOUR_FIELDS; i++) {
        const struct behaviour_field *field = &behaviour_fields[i];
        dynbuf_addf(out, "%c\"%s\":%lld", i ? ',' : '{', field->json,
                    (long long)behaviour_get(behaviour, field));
    }
    dynbuf_addc(out, '}');
}
