/*
 * The steps of a planned switchover as a table. See switchover_state.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/switchover_state.h"

#include <assert.h>
#include <string.h>

#define S(step) SWITCHOVER_##step
#define ENDS_HERE                                                                                  \
    {                                                                                              \
        SWITCHOVER_STEP_COUNT, SWITCHOVER_STEP_COUNT, SWITCHOVER_STEP_COUNT,                       \
            SWITCHOVER_STEP_COUNT, SWITCHOVER_STEP_COUNT                                           \
    }

/* clang-format off */
static const struct step {
    const char *name;
    const char *text;
    enum switchover_step next[SWITCHOVER_EVENT_COUNT];
} table[SWITCHOVER_STEP_COUNT] = {
    /* next: ok, no, lost, deadline, stopped */
    [S(LOOK)]    = {"look", "asked every node",
                    {S(LOCK),    S(REFUSED), S(REFUSED), S(REFUSED), S(REFUSED)}},
    [S(LOCK)]    = {"lock", "kept other operators out",
                    {S(NEAR),    S(REFUSED), S(REFUSED), S(REFUSED), S(REFUSED)}},
    [S(RECHECK)] = {"recheck", "asked every node again",
                    {S(UNFENCE), S(REFUSED), S(REFUSED), S(REFUSED), S(REFUSED)}},
    [S(NEAR)]    = {"near", "the target is close behind",
                    {S(MEET),    S(REFUSED), S(REFUSED), S(REFUSED), S(REFUSED)}},
    [S(MEET)]    = {"meet", "the consumer is close behind",
                    {S(LEAD),    S(REFUSED), S(LEAD),    S(REFUSED), S(REFUSED)}},
    [S(LEAD)]    = {"lead", "the other standbys follow the target",
                    {S(FENCE),   S(FENCE),   S(FENCE),   S(FENCE),   S(REFUSED)}},
    [S(FENCE)]   = {"fence", "writes wait from here",
                    {S(END),     S(REFUSED), S(UNFENCE), S(UNFENCE), S(UNFENCE)}},
    [S(END)]     = {"end", "the end of the old timeline",
                    {S(REPLAY),  S(UNFENCE), S(UNFENCE), S(UNFENCE), S(UNFENCE)}},
    [S(REPLAY)]  = {"replay", "the target has replayed it",
                    {S(DRAIN),   S(UNFENCE), S(UNFENCE), S(UNFENCE), S(UNFENCE)}},
    [S(DRAIN)]   = {"drain", "the consumer has followed",
                    {S(KEEP),    S(UNFENCE), S(KEEP),    S(UNFENCE), S(UNFENCE)}},
    [S(KEEP)]    = {"keep", "the fence lasts",
                    {S(KEPT),    S(UNFENCE), S(UNFENCE), S(UNFENCE), S(UNFENCE)}},
    [S(KEPT)]    = {"kept", "the target has replayed that",
                    {S(PROMOTE), S(UNFENCE), S(UNFENCE), S(UNFENCE), S(UNFENCE)}},
    [S(PROMOTE)] = {"promote", "asked for the promotion",
                    {S(WATCH),   S(UNFENCE), S(WATCH),   S(WATCH),   S(PROMOTE)}},
    [S(WATCH)]   = {"watch", "the target is a primary",
                    {S(SLOT),    S(PROMOTE), S(WATCH),   S(LEFT),    S(WATCH)}},
    [S(SLOT)]    = {"slot", "the consumer's slot",
                    {S(ATTEST),  S(ATTEST),  S(ATTEST),  S(ATTEST),  S(SLOT)}},
    [S(ATTEST)]  = {"attest", "writes go on from here",
                    {S(TIDY),    S(LEFT),    S(ATTEST),  S(LEFT),    S(ATTEST)}},
    [S(TIDY)]    = {"tidy", "the old primary is tidied",
                    {S(REJOIN),  S(REJOIN),  S(REJOIN),  S(REJOIN),  S(TIDY)}},
    [S(REJOIN)]  = {"rejoin", "the other nodes",
                    {S(DONE),    S(DONE),    S(DONE),    S(DONE),    S(REJOIN)}},
    [S(UNFENCE)] = {"unfence", "the fence is lifted",
                    {S(UNDONE),  S(UNDONE),  S(UNFENCE), S(UNDONE),  S(UNFENCE)}},
    [S(UNLEAD)]  = {"unlead", "the other standbys follow the old primary again",
                    {S(UNDONE),  S(UNDONE),  S(UNDONE),  S(UNDONE),  S(UNDONE)}},
    [S(DONE)]    = {"done", "done", ENDS_HERE},
    [S(REFUSED)] = {"refused", "refused", ENDS_HERE},
    [S(UNDONE)]  = {"undone", "undone", ENDS_HERE},
    [S(STUCK)]   = {"stuck", "stuck", ENDS_HERE},
    [S(LEFT)]    = {"left", "left", ENDS_HERE},
};
/* clang-format on */

void switchover_state_init(struct switchover_state *state, bool abort, bool without_cdc)
{
    *state = (struct switchover_state){.step = SWITCHOVER_LOOK,
                                       .abort = abort,
                                       .without_cdc = without_cdc,
                                       .consumer = true,
                                       .end = SWITCHOVER_UNDONE};
}

bool switchover_ended(enum switchover_step step)
{
    return step >= SWITCHOVER_DONE;
}

bool switchover_undoes(enum switchover_step step)
{
    return step == SWITCHOVER_UNFENCE || step == SWITCHOVER_UNLEAD;
}

bool switchover_may_stop(enum switchover_step step)
{
    return step < SWITCHOVER_PROMOTE;
}

const char *switchover_step_name(enum switchover_step step)
{
    return table[step].name;
}

const char *switchover_step_text(enum switchover_step step)
{
    return table[step].text;
}

enum switchover_step switchover_step_by_name(const char *name)
{
    for (int step = 0; step < SWITCHOVER_DONE; step++) {
        if (strcmp(table[step].name, name) == 0)
            return (enum switchover_step)step;
    }
    return SWITCHOVER_STEP_COUNT;
}

/* What the consumer's two steps say of it. May turn the event into SWITCHOVER_OK. */
static enum switchover_event note_consumer(struct switchover_state *state,
                                           enum switchover_event event)
{
    const bool slow = event == SWITCHOVER_NO || event == SWITCHOVER_DEADLINE;
    if (event == SWITCHOVER_LOST || (slow && state->without_cdc)) {
        state->consumer = false;
        return SWITCHOVER_OK;
    }
    return event;
}

static enum switchover_step leave_out(const struct switchover_state *state,
                                      enum switchover_step next)
{
    if (state->consumer)
        return next;
    if (next == SWITCHOVER_DRAIN)
        return SWITCHOVER_KEEP;
    return next == SWITCHOVER_SLOT ? SWITCHOVER_ATTEST : next;
}

/* An end after which the old primary goes on is put off until its standbys follow it again. */
static enum switchover_step put_off(struct switchover_state *state, enum switchover_step next)
{
    if (state->step == SWITCHOVER_UNLEAD)
        return state->end;
    if (!state->led ||
        (next != SWITCHOVER_REFUSED && next != SWITCHOVER_UNDONE && next != SWITCHOVER_STUCK))
        return next;
    state->end = next;
    return SWITCHOVER_UNLEAD;
}

void switchover_advance(struct switchover_state *state, enum switchover_event event)
{
    const enum switchover_step step = state->step;
    assert(!switchover_ended(step));
    if (step == SWITCHOVER_MEET || step == SWITCHOVER_DRAIN)
        event = note_consumer(state, event);
    enum switchover_step next = table[step].next[event];
    if (step == SWITCHOVER_LOCK && event == SWITCHOVER_OK && state->abort)
        next = SWITCHOVER_RECHECK;
    if (step == SWITCHOVER_PROMOTE && event != SWITCHOVER_NO && event != SWITCHOVER_STOPPED) {
        state->heard = true;
        state->doubtful = event != SWITCHOVER_OK;
    }
    /* An order that is refused says nothing about an earlier one. */
    if (step == SWITCHOVER_PROMOTE && event == SWITCHOVER_NO && state->heard)
        next = SWITCHOVER_WATCH;
    if (step == SWITCHOVER_UNFENCE && event == SWITCHOVER_DEADLINE && state->kept)
        next = SWITCHOVER_STUCK;
    next = put_off(state, leave_out(state, next));
    if (next == SWITCHOVER_LEAD)
        state->led = true;
    if (next == SWITCHOVER_KEEP || (next == SWITCHOVER_UNFENCE && state->abort))
        state->kept = true;
    state->step = next;
}
