/*
 * The table of moves: state by event. See saga_state.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/saga_state.h"

#include <string.h>

static const char *const state_names[] = {
    [SAGA_RESERVED] = "reserved",   [SAGA_CHARGING] = "charging", [SAGA_CHARGED] = "charged",
    [SAGA_CONFIRMED] = "confirmed", [SAGA_FAILED] = "failed",     [SAGA_REFUNDING] = "refunding",
    [SAGA_REFUNDED] = "refunded",   [SAGA_LOST] = "lost",
};

static const char *const step_names[] = {
    [SAGA_RESERVED] = NULL,       [SAGA_CHARGING] = "charging", [SAGA_CHARGED] = "charged",
    [SAGA_CONFIRMED] = "confirm", [SAGA_FAILED] = "fail",       [SAGA_REFUNDING] = "refund",
    [SAGA_REFUNDED] = "refunded", [SAGA_LOST] = NULL,
};

static const char *const action_names[] = {
    [SAGA_KEEP] = "keep", [SAGA_STEP] = "step",     [SAGA_CHARGE] = "charge",
    [SAGA_ASK] = "ask",   [SAGA_CANCEL] = "cancel", [SAGA_REFUND] = "refund",
    [SAGA_WAIT] = "wait", [SAGA_END] = "end",
};

_Static_assert(sizeof(state_names) / sizeof(*state_names) == SAGA_STATE_COUNT, "a name each");
_Static_assert(sizeof(step_names) / sizeof(*step_names) == SAGA_STATE_COUNT, "a name each");
_Static_assert(sizeof(action_names) / sizeof(*action_names) == SAGA_ACTION_COUNT, "a name each");

#define TO(state)                                                                                  \
    {                                                                                              \
        SAGA_STEP, (state)                                                                         \
    }
#define DO(action)                                                                                 \
    {                                                                                              \
        (action), SAGA_STATE_COUNT                                                                 \
    }

/* What is not named here is SAGA_KEEP. */
static const struct saga_move moves[SAGA_STATE_COUNT][SAGA_EVENT_COUNT] =
    {
        [SAGA_RESERVED] =
            {
                [SAGA_READ] = TO(SAGA_CHARGING),
                [SAGA_ENTERED] = TO(SAGA_CHARGING),
                [SAGA_PAUSE_OVER] = TO(SAGA_CHARGING),
                /* Nobody has asked for money yet. Unless a primary was lost with the step that said
                 * so: the service has the word. */
                [SAGA_TOO_LATE] = DO(SAGA_CANCEL),
                [SAGA_FREE] = TO(SAGA_CONFIRMED),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
                [SAGA_PAY_SUCCEEDED] = TO(SAGA_CHARGING),
                [SAGA_PAY_DECLINED] = TO(SAGA_FAILED),
                [SAGA_PAY_UNKNOWN] = DO(SAGA_WAIT),
                [SAGA_PAY_CANCELLED] = TO(SAGA_FAILED),
                [SAGA_PAY_REFUNDED] = TO(SAGA_CHARGING),
            },
        [SAGA_CHARGING] =
            {
                [SAGA_READ] = DO(SAGA_ASK),
                [SAGA_ENTERED] = DO(SAGA_CHARGE),
                [SAGA_PAUSE_OVER] = DO(SAGA_ASK),
                [SAGA_TOO_LATE] = DO(SAGA_CANCEL),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
                [SAGA_PAY_SUCCEEDED] = TO(SAGA_CHARGED),
                [SAGA_PAY_DECLINED] = TO(SAGA_FAILED),
                [SAGA_PAY_PENDING] = DO(SAGA_WAIT),
                [SAGA_PAY_UNKNOWN] = DO(SAGA_WAIT),
                [SAGA_PAY_NONE] = DO(SAGA_CHARGE),
                [SAGA_PAY_CANCELLED] = TO(SAGA_FAILED),
                /* By somebody else, at the service: there is no money for these seats. */
                [SAGA_PAY_REFUNDED] = TO(SAGA_FAILED),
            },
        [SAGA_CHARGED] =
            {
                [SAGA_READ] = TO(SAGA_CONFIRMED),
                [SAGA_ENTERED] = TO(SAGA_CONFIRMED),
                [SAGA_PAUSE_OVER] = TO(SAGA_CONFIRMED),
                [SAGA_TOO_LATE] = TO(SAGA_CONFIRMED), /* the money is there, so it is tried */
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
            },
        [SAGA_CONFIRMED] =
            {
                [SAGA_READ] = DO(SAGA_END),
                [SAGA_ENTERED] = DO(SAGA_END),
                [SAGA_PAUSE_OVER] = DO(SAGA_END),
                [SAGA_TOO_LATE] = DO(SAGA_END),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
            },
        [SAGA_FAILED] =
            {
                [SAGA_READ] = DO(SAGA_END),
                [SAGA_ENTERED] = DO(SAGA_END),
                [SAGA_PAUSE_OVER] = DO(SAGA_END),
                [SAGA_TOO_LATE] = DO(SAGA_END),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
                /* A service that breaks its word. */
                [SAGA_PAY_SUCCEEDED] = TO(SAGA_REFUNDING),
            },
        [SAGA_REFUNDING] =
            {
                [SAGA_READ] = DO(SAGA_REFUND),
                [SAGA_ENTERED] = DO(SAGA_REFUND),
                [SAGA_PAUSE_OVER] = DO(SAGA_REFUND),
                [SAGA_TOO_LATE] = DO(SAGA_REFUND),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
                /* There is nothing to give back. */
                [SAGA_PAY_DECLINED] = TO(SAGA_REFUNDED),
                [SAGA_PAY_PENDING] = DO(SAGA_WAIT),
                [SAGA_PAY_UNKNOWN] = DO(SAGA_WAIT),
                /* It had the money: a service that forgets, or something else that says 404. */
                [SAGA_PAY_NONE] = DO(SAGA_WAIT),
                [SAGA_PAY_CANCELLED] = TO(SAGA_REFUNDED),
                [SAGA_PAY_REFUNDED] = TO(SAGA_REFUNDED),
            },
        [SAGA_REFUNDED] =
            {
                [SAGA_READ] = DO(SAGA_END),
                [SAGA_ENTERED] = DO(SAGA_END),
                [SAGA_PAUSE_OVER] = DO(SAGA_END),
                [SAGA_TOO_LATE] = DO(SAGA_END),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
            },
        [SAGA_LOST] =
            {
                [SAGA_READ] = DO(SAGA_CANCEL),
                [SAGA_ENTERED] = DO(SAGA_CANCEL),
                [SAGA_PAUSE_OVER] = DO(SAGA_CANCEL),
                [SAGA_TOO_LATE] = DO(SAGA_CANCEL),
                [SAGA_STEP_LOST] = DO(SAGA_WAIT),
                [SAGA_PAY_SUCCEEDED] = DO(SAGA_REFUND),
                [SAGA_PAY_DECLINED] = DO(SAGA_END),
                [SAGA_PAY_PENDING] = DO(SAGA_WAIT),
                [SAGA_PAY_UNKNOWN] = DO(SAGA_WAIT),
                [SAGA_PAY_NONE] = DO(SAGA_WAIT),
                [SAGA_PAY_CANCELLED] = DO(SAGA_END),
                [SAGA_PAY_REFUNDED] = DO(SAGA_END),
            },
};

struct saga_move saga_next(enum saga_state state, enum saga_event event)
{
    struct saga_move move = moves[state][event];
    if (move.action != SAGA_STEP)
        move.to = state;
    return move;
}

bool saga_word_fits(const struct payment_word *word, int64_t amount, const char *currency)
{
    if (word->outcome != PAY_SUCCEEDED && word->outcome != PAY_REFUNDED)
        return true;
    return word->amount == amount && strcmp(word->currency, currency ? currency : "") == 0;
}

enum saga_event saga_event_of(enum pay_outcome outcome)
{
    static const enum saga_event events[] = {
        [PAY_SUCCEEDED] = SAGA_PAY_SUCCEEDED, [PAY_DECLINED] = SAGA_PAY_DECLINED,
        [PAY_PENDING] = SAGA_PAY_PENDING,     [PAY_UNKNOWN] = SAGA_PAY_UNKNOWN,
        [PAY_NONE] = SAGA_PAY_NONE,           [PAY_CANCELLED] = SAGA_PAY_CANCELLED,
        [PAY_REFUNDED] = SAGA_PAY_REFUNDED,
    };
    return events[outcome];
}

const char *saga_state_name(enum saga_state state)
{
    return state_names[state];
}

enum saga_state saga_state_by_name(const char *name)
{
    int i = 0;
    while (i < SAGA_STATE_COUNT && strcmp(state_names[i], name) != 0)
        i++;
    return (enum saga_state)i;
}

const char *saga_step_name(enum saga_state to)
{
    return step_names[to];
}

const char *saga_action_name(enum saga_action action)
{
    return action_names[action];
}
