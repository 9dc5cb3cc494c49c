/*
 * How the stand-in for a payment service behaves, and what that means for one charge. Pure: chance
 * is a hash of the seed and the order's id, so a run can be had again, whatever the order in which
 * requests come.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_BEHAVIOUR_H
#define SG_PAYMENT_BEHAVIOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct behaviour {
    int64_t delay_ms;     /* before a charge is decided; a random time from this */
    int64_t delay_max_ms; /* to that */
    int64_t success;      /* percent of charges that take the money; the others are declined */
    int64_t silent;       /* percent that are decided and never answered */
    int64_t pending;      /* percent that are answered 202 and decided afterwards */
    int64_t duplicate;    /* percent whose callback comes twice */
    int64_t late;         /* percent answered 202 whose callback comes late_ms after the decision */
    int64_t late_ms;
    int64_t lose; /* percent whose callback never comes */
    int64_t seed;
};

/* The same fields by their names: options of the command, JSON of POST /behaviour. */
struct behaviour_field {
    const char *option; /* "success" */
    const char *json;   /* "successPercent" */
    size_t offset;
    int64_t max; /* the least is 0 */
};

#define BEHAVIOUR_FIELDS 10
extern const struct behaviour_field behaviour_fields[BEHAVIOUR_FIELDS];

/* Every charge succeeds at once. */
void behaviour_init(struct behaviour *behaviour);
const struct behaviour_field *behaviour_field_by_json(const char *name);
const struct behaviour_field *behaviour_field_by_option(const char *name);
/* False and nothing set if the value is out of bounds. */
bool behaviour_set(struct behaviour *behaviour, const struct behaviour_field *field, int64_t value);
int64_t behaviour_get(const struct behaviour *behaviour, const struct behaviour_field *field);
/* False: the longest delay is shorter than the shortest. */
bool behaviour_is_whole(const struct behaviour *behaviour);

struct behaviour_plan {
    bool success;
    bool silent;
    bool pending;
    int64_t decide_ms;   /* from the request */
    int callbacks;       /* 0, 1 or 2 */
    int64_t callback_ms; /* from the decision */
};

/* What happens to the charge of this order. The method may force it: "ok", "decline", "silent",
 * "pending", "late", "duplicate" each do what they say and nothing else, always after the delay;
 * all but "decline" succeed. Any other: by the rates. */
struct behaviour_plan behaviour_plan(const struct behaviour *behaviour, const char *order_id,
                                     const char *method);
/* Whether the first refund of this order is done without an answer: by the rate of silence. */
bool behaviour_refund_is_silent(const struct behaviour *behaviour, const char *order_id);

#endif
