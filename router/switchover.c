/*
 * A planned switchover: the driver around the table of steps. See switchover.h.
 *
 *   run_step ─> one question ─> its answer ─> finish_step(event) ─> advance ─> run_step
 *                                  └ not yet, or lost: on_timer ─> run_step again
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/switchover.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/uuid.h"
#include "router/switchover_ask.h"
#include "router/switchover_internal.h"

#define AGAIN_US 20000    /* before a lost answer is asked for again */
#define UNLOCK_US 1000000 /* at the end; the session's own end gives it back, too */

/* --- small things ----------------------------------------------------------------------------- */

/* Why the step failed, which is why the switchover did if nothing goes on without it. While a
 * failure is undone, its reason stays. */
void switchover_say(struct switchover *s, const char *format, ...)
{
    va_list args;
    if (switchover_undoes(s->state.step) && !s->config.abort)
        return;
    va_start(args, format);
    vsnprintf(s->text, sizeof(s->text), format, args);
    va_end(args);
}

void switchover_note(struct switchover *s, const char *format, ...)
{
    char text[SWITCHOVER_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (s->config.on_note)
        s->config.on_note(s->config.arg, text);
}

void switchover_wait_us(struct switchover *s, int64_t us)
{
    struct timeval pause = clock_timeval_us(us);
    event_add(s->timer, &pause);
}

int64_t switchover_left_us(const struct switchover *s)
{
    int64_t left = s->step_deadline_us - clock_mono_us();
    return left > 1000 ? left : 1000;
}

bool switchover_time_is_up(const struct switchover *s)
{
    return clock_mono_us() >= s->step_deadline_us;
}

/* One question of this step. The parameters' texts stay where they are until the answer. */
void switchover_ask(struct switchover *s, struct pgask *pgask, const char *sql, pgask_fn *fn,
                    void *arg, int param_count, const char *const *params)
{
    const int64_t connect_us = s->settings->postgres.connect_timeout_ms * 1000;
    const int64_t left = switchover_left_us(s);
    struct pgask_question question = {.sql = sql,
                                      .param_count = param_count,
                                      .connect_timeout_us = left < connect_us ? left : connect_us,
                                      .answer_timeout_us = left};
    for (int i = 0; i < param_count; i++)
        question.params[i] = params[i];
    /* One hung connection must not eat the time of all, or that of a new try. */
    const bool looks = s->state.step == SWITCHOVER_LOOK || s->state.step == SWITCHOVER_RECHECK;
    if ((looks || !switchover_may_stop(s->state.step)) && left > connect_us)
        question.answer_timeout_us = connect_us;
    pgask_ask(pgask, &question, fn, arg);
}

enum switchover_event switchover_event_of(const struct switchover *s,
                                          const struct pgask_answer *answer)
{
    if (answer->error == SG_OK)
        return SWITCHOVER_OK;
    if (answer->error == SG_INTERNAL)
        return SWITCHOVER_NO;
    return switchover_time_is_up(s) ? SWITCHOVER_DEADLINE : SWITCHOVER_LOST;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void end(struct switchover *s)
{
    struct switchover_result *result = &s->result;
    result->end = s->state.step;
    result->text = s->text;
    result->primary = s->planned ? primary_name(s) : "";
    result->target = s->planned && !s->config.abort ? target_name(s) : "";
    s->config.on_done(s->config.arg, result);
}

static void on_unlocked(void *arg, const struct pgask_answer *answer)
{
    (void)answer;
    end(arg);
}

/* Gives the lock back and hears so: the next operator may come at once. */
static void give_back(struct switchover *s)
{
    if (!s->locked || !pgask_connected(s->lock)) {
        end(s);
        return;
    }
    s->locked = false;
    s->step_deadline_us = clock_mono_us() + UNLOCK_US;
    switchover_ask(s, s->lock, switchover_unlock_sql, on_unlocked, s, 0, NULL);
}

/* --- from step to step ------------------------------------------------------------------------ */

/* How long the step may take, beginning now. */
int64_t switchover_deadline_of(const struct switchover *s, int64_t now_us)
{
    const int64_t promote_us = s->settings->switchover.promote_ms * 1000;
    const int64_t slot_us = s->settings->switchover.slot_ms * 1000;
    switch (s->state.step) {
    case SWITCHOVER_PROMOTE:
    case SWITCHOVER_WATCH:
        return s->promote_asked_us + promote_us;
    case SWITCHOVER_ATTEST:
        return now_us + promote_us;
    case SWITCHOVER_SLOT:
    case SWITCHOVER_TIDY:
        return now_us + slot_us;
    case SWITCHOVER_LEAD: {
        const int64_t lead_us = now_us + s->settings->switchover.lead_ms * 1000;
        return lead_us < s->deadline_us ? lead_us : s->deadline_us;
    }
    case SWITCHOVER_UNLEAD:
        return now_us + promote_us;
    case SWITCHOVER_REJOIN:
        return now_us + (int64_t)s->count * s->settings->switchover.rejoin_ms * 1000;
    case SWITCHOVER_UNFENCE:
        /* a fence that ends by itself needs no longer than that */
        return now_us + (s->state.kept ? promote_us : s->fence_us);
    default:
        break;
    }
    return s->fence_asked_us ? s->fence_asked_us + s->fence_us : s->deadline_us;
}

/* Words for a failure that has none of its own. */
static void say_why(struct switchover *s, enum switchover_event event)
{
    const char *what = switchover_step_name(s->state.step);
    char why[SWITCHOVER_TEXT_MAX];
    memcpy(why, s->text, sizeof(why));
    if (event == SWITCHOVER_STOPPED)
        switchover_say(s, "%s", s->stop_reason);
    else if (event == SWITCHOVER_DEADLINE)
        switchover_say(s, "%s: not in time, after %" PRId64 " ms%s%.200s", what,
                       (clock_mono_us() - s->began_us) / 1000, why[0] ? ": " : "", why);
    else if (event != SWITCHOVER_OK && !s->text[0])
        switchover_say(s, "%s failed", what);
}

/* The step is over, or is to be tried again. */
void switchover_finish_step(struct switchover *s, enum switchover_event event)
{
    const enum switchover_step step = s->state.step;
    if (event == SWITCHOVER_OK && s->stop && switchover_may_stop(step))
        event = SWITCHOVER_STOPPED;
    if (event == SWITCHOVER_LOST && switchover_time_is_up(s))
        event = SWITCHOVER_DEADLINE;
    say_why(s, event);
    switchover_advance(&s->state, event);
    const enum switchover_step next = s->state.step;
    s->fresh = next != step;
    if (next == step) {
        switchover_wait_us(s, AGAIN_US);
        return;
    }
    if (s->config.on_step)
        s->config.on_step(s->config.arg, step, clock_mono_us() - s->began_us,
                          event == SWITCHOVER_OK, s->text);
    const bool goes_on =
        next == SWITCHOVER_DONE ||
        (!switchover_ended(next) && !switchover_undoes(step) && !switchover_undoes(next));
    if (goes_on && event != SWITCHOVER_OK && s->text[0])
        switchover_note(s, "%s", s->text);
    if (goes_on)
        s->text[0] = '\0';
    if (switchover_ended(next))
        give_back(s);
    else
        switchover_wait_us(s, 0);
}

/* Nearly there: once more, or it is too late. */
void switchover_look_again(struct switchover *s)
{
    if (s->stop && switchover_may_stop(s->state.step))
        switchover_finish_step(s, SWITCHOVER_STOPPED);
    else if (switchover_time_is_up(s))
        switchover_finish_step(s, SWITCHOVER_DEADLINE);
    else
        switchover_wait_us(s, SWITCHOVER_POLL_US);
}

/* Takes an answer that is not SG_OK: true, and the step is over. */
bool switchover_failed(struct switchover *s, const struct pgask_answer *answer, const char *node)
{
    if (answer->error == SG_OK)
        return false;
    switchover_say(s, "%s: %.250s", node, answer->reason);
    switchover_finish_step(s, switchover_event_of(s, answer));
    return true;
}

/* --- the driver ---------------------------------------------------------------------------------
 */

static void begin(struct switchover *s)
{
    if (s->config.on_begin)
        s->config.on_begin(s->config.arg, s->state.step);
    s->fresh = false;
    s->foreign = 0;
    s->errand_count = s->errand = 0;
    s->errands_planned = false;
    s->began_us = clock_mono_us();
    if (s->state.step == SWITCHOVER_PROMOTE && !s->promote_asked_us)
        s->promote_asked_us = s->began_us;
    s->step_deadline_us = switchover_deadline_of(s, s->began_us);
    switchover_run_step(s);
}

/* Between two steps, between two looks, or before a lost answer is asked for again. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct switchover *s = arg;
    (void)fd;
    (void)what;
    if (s->fresh)
        begin(s);
    else if (switchover_time_is_up(s))
        switchover_finish_step(s, SWITCHOVER_DEADLINE);
    else
        switchover_run_step(s);
}

/* --- life ---------------------------------------------------------------------------------------
 */

static void free_memory(void *object)
{
    struct switchover *s = object;
    free(s->nodes);
    free(s->asks);
    free(s->looks);
    free(s->errands);
    free(s->led);
    free(s->follows);
    free(s);
}

void switchover_free(struct switchover *s)
{
    if (!s)
        return;
    for (size_t i = 0; s->asks && i < s->count; i++)
        pgask_free(s->asks[i]);
    pgask_free(s->lock);
    if (s->timer)
        event_free(s->timer);
    reap(s->config.reap, s, free_memory);
}

static bool make_nodes(struct switchover *s)
{
    s->nodes = calloc(s->count, sizeof(*s->nodes));
    s->asks = calloc(s->count, sizeof(struct pgask *));
    s->looks = calloc(s->count, sizeof(*s->looks));
    s->errands = calloc(s->count, sizeof(*s->errands));
    s->led = calloc(s->count, sizeof(*s->led));
    s->follows = calloc(s->count, sizeof(*s->follows));
    if (!s->nodes || !s->asks || !s->looks || !s->errands || !s->led || !s->follows)
        return false;
    for (size_t i = 0; i < s->count; i++) {
        const struct pgask_config config = {.base = s->config.base,
                                            .reap = s->config.reap,
                                            .dsn = s->config.shard->nodes[i].dsn,
                                            .application_name = s->config.operator_name};
        s->looks[i] = (struct look){s, i};
        s->asks[i] = pgask_new(&config);
        if (!s->asks[i])
            return false;
    }
    return true;
}

struct switchover *switchover_new(const struct switchover_config *config)
{
    struct switchover *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    const int64_t timeout_us = config->timeout_ms * 1000;
    const int64_t fence_us = config->settings->switchover.fence_ms * 1000;
    s->config = *config;
    s->settings = config->settings;
    s->count = config->shard->node_count;
    s->fence_us = fence_us < timeout_us / 2 ? fence_us : timeout_us / 2;
    s->deadline_us = clock_mono_us() + timeout_us - s->fence_us;
    s->fresh = true;
    const struct uuid id = uuid_v7(clock_wall_us());
    uuid_format(&id, s->fence_id);
    switchover_state_init(&s->state, config->abort, config->without_cdc);
    s->timer = evtimer_new(config->base, on_timer, s);
    if (!s->timer || !make_nodes(s)) {
        switchover_free(s);
        return NULL;
    }
    switchover_wait_us(s, 0);
    return s;
}

void switchover_stop(struct switchover *s)
{
    s->stop = true;
    if (!s->stop_reason[0])
        snprintf(s->stop_reason, sizeof(s->stop_reason), "stopped by its operator");
}
