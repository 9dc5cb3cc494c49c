/*
 * What the two halves of the switchover share: its state, and how a step asks and ends.
 *
 *   switchover.c        the driver: deadlines, from step to step, the end, life
 *   switchover_steps.c  what each step asks and how it reads the answer
 *
 * Nobody else includes this.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWITCHOVER_INTERNAL_H
#define SG_ROUTER_SWITCHOVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/pgask.h"
#include "router/switchover.h"

#define SWITCHOVER_POLL_US 1000 /* between two looks at somebody who is nearly there */
#define SWITCHOVER_LSN_TEXT_MAX 24

struct look {
    struct switchover *s;
    size_t node;
};

struct errand {
    size_t node;
    size_t upstream;
};

struct switchover {
    struct switchover_config config;
    struct switchover_result result;
    const struct settings *settings;
    struct event *timer;

    /* the nodes */
    size_t count;
    struct switchover_node *nodes;
    struct pgask **asks;
    struct look *looks; /* a node, for its answer */
    size_t waiting;     /* answers to a look */
    struct switchover_plan plan;
    struct pgask *lock;     /* on the old primary; NULL until LOCK */
    struct errand *errands; /* of LEAD, UNLEAD, REJOIN: who is told to follow whom, in order */
    size_t errand_count;
    size_t errand;        /* whose turn it is */
    bool errands_planned; /* for this step */
    bool *led;            /* a node: told to follow the target while that was a standby */
    bool *follows;        /* a node: and did so */

    /* time */
    int64_t began_us;         /* the step */
    int64_t deadline_us;      /* of what comes before the fence */
    int64_t step_deadline_us; /* of this step */
    int64_t fence_us;         /* how long the fence may be up before the promotion */
    int64_t fence_asked_us;   /* 0: not yet */
    int64_t promote_asked_us; /* 0: not yet; the first time */

    /* where it stands */
    uint64_t near_lsn;
    uint64_t end_lsn;
    struct switchover_state state;
    unsigned foreign; /* looks in a row that found the end replayed and no fence of ours */
    bool fresh;       /* the step has not begun yet */
    bool planned;
    bool locked;
    bool stop;
    bool slot_made;
    bool attest_asked; /* and no answer came */
    char stop_reason[SWITCHOVER_TEXT_MAX];
    char text[SWITCHOVER_TEXT_MAX]; /* why a step failed */

    /* parameters of questions */
    char fence_id[40]; /* a uuid as text */
    char fence_ms[24];
    char timeline_text[16];
    char end_text[SWITCHOVER_LSN_TEXT_MAX];
    char slot[SWITCHOVER_SLOT_MAX];
};

static inline struct pgask *of_primary(const struct switchover *s)
{
    return s->asks[s->plan.primary];
}

static inline struct pgask *of_target(const struct switchover *s)
{
    return s->asks[s->plan.target];
}

static inline const char *primary_name(const struct switchover *s)
{
    return s->nodes[s->plan.primary].name;
}

static inline const char *target_name(const struct switchover *s)
{
    return s->nodes[s->plan.target].name;
}

static inline const char *field(const struct pgask_answer *answer, int column)
{
    return PQntuples(answer->result) ? PQgetvalue(answer->result, 0, column) : "";
}

static inline bool says(const struct pgask_answer *answer, int column, const char *word)
{
    return strcmp(field(answer, column), word) == 0;
}

/* Runs the question, or the look, of the step that it is at. */
void switchover_run_step(struct switchover *s);

/* The step is over, or is to be tried again. */
void switchover_finish_step(struct switchover *s, enum switchover_event event);
/* Nearly there: once more, or it is too late. */
void switchover_look_again(struct switchover *s);
/* Takes an answer that is not SG_OK: true, and the step is over. */
bool switchover_failed(struct switchover *s, const struct pgask_answer *answer, const char *node);
enum switchover_event switchover_event_of(const struct switchover *s,
                                          const struct pgask_answer *answer);

/* One question of this step. The parameters' texts stay where they are until the answer. */
void switchover_ask(struct switchover *s, struct pgask *pgask, const char *sql, pgask_fn *fn,
                    void *arg, int param_count, const char *const *params);
/* Runs the step again after a pause. */
void switchover_wait_us(struct switchover *s, int64_t us);
/* Of the step; at least a millisecond. */
int64_t switchover_left_us(const struct switchover *s);
bool switchover_time_is_up(const struct switchover *s);
/* When the step has to be over if it begins now. */
int64_t switchover_deadline_of(const struct switchover *s, int64_t now_us);

/* Why the step failed, which is why the switchover did if nothing goes on without it. While a
 * failure is undone, its reason stays. */
void switchover_say(struct switchover *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Something that people should know. */
void switchover_note(struct switchover *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
