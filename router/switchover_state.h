/*
 * The steps of a planned switchover, and where each one leads: pure, no clock, no network.
 *
 *   look ─> lock ─> near ─> meet ┐    nothing is touched: a failure is a refusal
 *   ┌────────────────────────────┘
 *   └> lead ┐    without it all goes on, and writes may wait longer
 *   ┌───────┘
 *   └> fence ─> end ─> replay ─> drain ─> keep ─> kept ┐    writes wait: a failure is undone
 *   ┌──────────────────────────────────────────────────┘
 *   └> promote ─> watch ─> slot ─> attest ─> tidy ─> rejoin ─> DONE    no way back: forward
 *
 *   failure, deadline or stop before promote:  nothing fenced ─────────────────────> REFUSED
 *                                              fenced ─> unfence ─────────────────> UNDONE
 *                                                          └─ cannot, fence lasts ─> STUCK
 *   before one of these three, once it has led:  unlead
 *   no answer until the deadline after it:     watch, attest ─────────────────────> LEFT
 *   --abort:  look ─> lock ─> recheck ─> unfence ─> UNDONE
 *
 *   step     waits for                                            undone by
 *   look     every node: role, timeline, LSN, fence               -
 *   lock     the old primary: the operators' advisory lock        the end of its session
 *   recheck  every node again, now that nobody else may move      -
 *   near     the target: replayed what the primary had written    -
 *   meet     the consumer: has it all, too; tells its slot        -
 *   lead     the other standbys: follow the target, still one     unlead
 *   fence    the old primary: every write that was let in ended   unfence, and fenced_until
 *   end      the old primary: the end of its WAL behind the fence unfence
 *   replay   the target: replayed up to there, the fence seen     unfence
 *   drain    the consumer: Redis acknowledged up to there         unfence
 *   keep     the old primary: the fence lasts                     unfence
 *   kept     the target: that is replayed, too                    unfence
 *   promote  the target: took the order                           -
 *   watch    the target: is a primary                             -
 *   slot     the target: the consumer's slot stands               - (else it builds its keys anew)
 *   attest   the target: has the epoch, writes go on              - (else a router does it)
 *   tidy     the old primary: no slot, no lock left               - (else told)
 *   rejoin   each node that does not yet: follows the target      - (else told)
 *   unlead   those that were led: follow the old primary again    - (else told)
 *
 * With synchronous durability a new primary confirms nothing before a standby follows it. Those
 * that followed it before its promotion follow it through that by themselves. What they have, the
 * target has; the old primary meanwhile waits for the target alone.
 *
 * An answer that was lost after the promotion may have been asked for is asked for again: only the
 * target itself can tell. A lost consumer is no failure; a slow one is, unless it may be left out.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWITCHOVER_STATE_H
#define SG_ROUTER_SWITCHOVER_STATE_H

#include <stdbool.h>

enum switchover_step {
    SWITCHOVER_LOOK,
    SWITCHOVER_LOCK,
    SWITCHOVER_RECHECK,
    SWITCHOVER_NEAR,
    SWITCHOVER_MEET,
    SWITCHOVER_LEAD,
    SWITCHOVER_FENCE,
    SWITCHOVER_END,
    SWITCHOVER_REPLAY,
    SWITCHOVER_DRAIN,
    SWITCHOVER_KEEP,
    SWITCHOVER_KEPT,
    SWITCHOVER_PROMOTE,
    SWITCHOVER_WATCH,
    SWITCHOVER_SLOT,
    SWITCHOVER_ATTEST,
    SWITCHOVER_TIDY,
    SWITCHOVER_REJOIN,
    SWITCHOVER_UNFENCE,
    SWITCHOVER_UNLEAD,
    /* the ends */
    SWITCHOVER_DONE,    /* the target is the primary and attested */
    SWITCHOVER_REFUSED, /* nothing was fenced */
    SWITCHOVER_UNDONE,  /* the fence is gone, or ends by itself; the old primary goes on */
    SWITCHOVER_STUCK,   /* the fence lasts and could not be lifted; no promotion was asked for */
    SWITCHOVER_LEFT,    /* a promotion was asked for, and not seen to its end */
    SWITCHOVER_STEP_COUNT
};

enum switchover_event {
    SWITCHOVER_OK,
    SWITCHOVER_NO,       /* it answered, and the answer is no */
    SWITCHOVER_LOST,     /* no connection, or it ended without an answer */
    SWITCHOVER_DEADLINE, /* no time left */
    SWITCHOVER_STOPPED,  /* by the operator, or the lock's session is lost */
    SWITCHOVER_EVENT_COUNT
};

struct switchover_state {
    enum switchover_step step;
    bool abort;       /* lift a fence that somebody left, instead */
    bool without_cdc; /* a consumer that cannot follow in time is left behind */
    bool consumer;    /* one is there and has followed so far; true to begin with */
    bool led;         /* a standby may have been told to follow the target */
    bool kept;        /* the fence may be lasting */
    bool heard;       /* an order to promote may have been heard: no way back */
    bool doubtful;    /* the answer to the last order was lost: it may also not have been heard */
    enum switchover_step end; /* of UNLEAD */
};

void switchover_state_init(struct switchover_state *state, bool abort, bool without_cdc);
/* What happened in this step; moves on to the next one, which may be the same: again. Not at an
 * end. In WATCH, SWITCHOVER_NO means that the target is a standby although the order to promote is
 * doubtful: it is given again. */
void switchover_advance(struct switchover_state *state, enum switchover_event event);

bool switchover_ended(enum switchover_step step);
/* It takes back what was done. */
bool switchover_undoes(enum switchover_step step);
/* A stop is obeyed here: the promotion cannot have been asked for yet. */
bool switchover_may_stop(enum switchover_step step);
/* One word; what --pause-before takes. */
const char *switchover_step_name(enum switchover_step step);
/* The step of that name; SWITCHOVER_STEP_COUNT if there is none. Ends have no names here. */
enum switchover_step switchover_step_by_name(const char *name);
/* What is so when the step has succeeded, as a phrase for people: "the target has replayed it". */
const char *switchover_step_text(enum switchover_step step);

#endif
