/*
 * How the stand-in behaves. See behaviour.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/behaviour.h"

#include <string.h>

#include "base/hash.h"

#define PERCENT 100
#define TIME_MAX_MS 86400000

#define FIELD(option, json, name, max)                                                             \
    {                                                                                              \
        option, json, offsetof(struct behaviour, name), max                                        \
    }

const struct behaviour_field behaviour_fields[BEHAVIOUR_FIELDS] = {
    FIELD("delay-ms", "delayMs", delay_ms, TIME_MAX_MS),
    FIELD("delay-max-ms", "delayMaxMs", delay_max_ms, TIME_MAX_MS),
    FIELD("success", "successPercent", success, PERCENT),
    FIELD("silent", "silentPercent", silent, PERCENT),
    FIELD("pending", "pendingPercent", pending, PERCENT),
    FIELD("duplicate-callbacks", "duplicateCallbacksPercent", duplicate, PERCENT),
    FIELD("late-callbacks", "lateCallbacksPercent", late, PERCENT),
    FIELD("late-ms", "lateMs", late_ms, TIME_MAX_MS),
    FIELD("lose-callbacks", "loseCallbacksPercent", lose, PERCENT),
    FIELD("seed", "seed", seed, INT64_MAX),
};

void behaviour_init(struct behaviour *behaviour)
{
    *behaviour = (struct behaviour){.success = PERCENT, .late_ms = 1000, .seed = 1};
}

const struct behaviour_field *behaviour_field_by_json(const char *name)
{
    for (size_t i = 0; i < BEHAVIOUR_FIELDS; i++) {
        if (strcmp(behaviour_fields[i].json, name) == 0)
            return &behaviour_fields[i];
    }
    return NULL;
}

const struct behaviour_field *behaviour_field_by_option(const char *name)
{
    for (size_t i = 0; i < BEHAVIOUR_FIELDS; i++) {
        if (strcmp(behaviour_fields[i].option, name) == 0)
            return &behaviour_fields[i];
    }
    return NULL;
}

int64_t behaviour_get(const struct behaviour *behaviour, const struct behaviour_field *field)
{
    int64_t value;
    memcpy(&value, (const char *)behaviour + field->offset, sizeof(value));
    return value;
}

bool behaviour_set(struct behaviour *behaviour, const struct behaviour_field *field, int64_t value)
{
    if (value < 0 || value > field->max)
        return false;
    memcpy((char *)behaviour + field->offset, &value, sizeof(value));
    return true;
}

bool behaviour_is_whole(const struct behaviour *behaviour)
{
    return behaviour->delay_max_ms == 0 || behaviour->delay_max_ms >= behaviour->delay_ms;
}

/* --- chance ----------------------------------------------------------------------------------- */

/* A number for this order and purpose, the same each time. */
static uint64_t draw(const struct behaviour *behaviour, const char *order_id, const char *purpose)
{
    uint64_t hash = hash_bytes(hash_u64((uint64_t)behaviour->seed), order_id, strlen(order_id));
    return hash_u64(hash_bytes(hash, purpose, strlen(purpose)));
}

static bool happens(const struct behaviour *behaviour, const char *order_id, const char *purpose,
                    int64_t percent)
{
    return (int64_t)(draw(behaviour, order_id, purpose) % PERCENT) < percent;
}

static int64_t draw_delay(const struct behaviour *behaviour, const char *order_id)
{
    int64_t span = behaviour->delay_max_ms - behaviour->delay_ms;
    if (span <= 0)
        return behaviour->delay_ms;
    return behaviour->delay_ms +
           (int64_t)(draw(behaviour, order_id, "delay") % (uint64_t)(span + 1));
}

bool behaviour_refund_is_silent(const struct behaviour *behaviour, const char *order_id)
{
    return happens(behaviour, order_id, "refund", behaviour->silent);
}

/* --- the plan --------------------------------------------------------------------------------- */

/* False if the method forces nothing. */
static bool plan_by_method(const struct behaviour *behaviour, const char *method,
                           struct behaviour_plan *plan)
{
    plan->success = true;
    if (strcmp(method, "ok") == 0)
        return true;
    plan->callbacks = 1;
    if (strcmp(method, "decline") == 0) {
        plan->success = false;
        plan->callbacks = 0;
    } else if (strcmp(method, "silent") == 0) {
        plan->silent = true;
        plan->callbacks = 0; /* the hard case: nobody tells */
    } else if (strcmp(method, "pending") == 0) {
        plan->pending = true;
    } else if (strcmp(method, "late") == 0) {
        plan->pending = true;
        plan->callback_ms = behaviour->late_ms;
    } else if (strcmp(method, "duplicate") == 0) {
        plan->pending = true;
        plan->callbacks = 2;
    } else {
        return false;
    }
    return true;
}

struct behaviour_plan behaviour_plan(const struct behaviour *behaviour, const char *order_id,
                                     const char *method)
{
    struct behaviour_plan plan = {.decide_ms = draw_delay(behaviour, order_id)};
    if (plan_by_method(behaviour, method, &plan))
        return plan;
    bool late = happens(behaviour, order_id, "late", behaviour->late);
    bool duplicate = happens(behaviour, order_id, "duplicate", behaviour->duplicate);
    plan.success = happens(behaviour, order_id, "success", behaviour->success);
    plan.silent = happens(behaviour, order_id, "silent", behaviour->silent);
    plan.pending =
        late || (!plan.silent && happens(behaviour, order_id, "pending", behaviour->pending));
    if (late) {
        plan.silent = false;
        plan.callback_ms = behaviour->late_ms;
    }
    /* an answer that was given needs no callback, but a service may send one all the same */
    plan.callbacks = plan.silent || plan.pending || duplicate ? 1 + duplicate : 0;
    if (happens(behaviour, order_id, "lose", behaviour->lose))
        plan.callbacks = 0;
    return plan;
}
