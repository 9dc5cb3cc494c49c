/*
 * What each step of a switchover asks, and how it reads the answer. See switchover_internal.h.
 *
 * In the order of the drawing in switchover_state.h; each on_... ends its step, or looks again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/switchover_ask.h"
#include "router/switchover_internal.h"

/* --- looking, and who hands over to whom --------------------------------------------------------
 */

static void plan(struct switchover *s)
{
    const char *shard = s->config.shard->name;
    bool ok;
    if (s->config.abort)
        ok = switchover_may_abort(s->nodes, s->count, shard, &s->plan.primary, s->text,
                                  sizeof(s->text));
    else
        ok = switchover_plan(s->nodes, s->count, shard, s->config.to,
                             (uint64_t)s->settings->switchover.max_lag_bytes, &s->plan, s->text,
                             sizeof(s->text));
    s->planned = s->planned || ok;
    if (ok && s->config.abort)
        snprintf(s->fence_id, sizeof(s->fence_id), "%s", s->nodes[s->plan.primary].fence_id);
    switchover_finish_step(s, ok ? SWITCHOVER_OK : SWITCHOVER_NO);
}

/* Those that a primary waits for count first as its heirs. */
static void note_sync(struct switchover *s, const char *names)
{
    for (size_t i = 0; i < s->count; i++)
        s->nodes[i].sync = s->nodes[i].sync || switchover_names_hold(names, s->nodes[i].name);
}

static void on_looked(void *arg, const struct pgask_answer *answer)
{
    struct look *look = arg;
    struct switchover *s = look->s;
    struct switchover_node *node = &s->nodes[look->node];
    if (answer->error != SG_OK)
        snprintf(node->problem, sizeof(node->problem), "%s%s", answer->reason,
                 strcmp(answer->sqlstate, "42P01") == 0 ? " (run `seatgrid migrate`)" : "");
    else if (!switchover_read_look(answer->result, node))
        snprintf(node->problem, sizeof(node->problem), "an answer that is none");
    else
        note_sync(s, field(answer, SWITCHOVER_SYNC_COLUMN));
    if (--s->waiting == 0)
        plan(s);
}

static void run_look(struct switchover *s)
{
    s->waiting = s->count;
    for (size_t i = 0; i < s->count; i++) {
        s->nodes[i] = (struct switchover_node){0};
        snprintf(s->nodes[i].name, sizeof(s->nodes[i].name), "%s", s->config.shard->nodes[i].name);
    }
    for (size_t i = 0; i < s->count; i++)
        switchover_ask(s, s->asks[i], switchover_look_sql, on_looked, &s->looks[i], 0, NULL);
}

/* --- before the fence ---------------------------------------------------------------------------
 */

static void on_lock_lost(void *arg, const char *reason)
{
    struct switchover *s = arg;
    s->locked = false;
    s->stop = true;
    if (!s->stop_reason[0])
        snprintf(s->stop_reason, sizeof(s->stop_reason), "the session of the lock was lost: %.200s",
                 reason);
}

static void on_rival(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, primary_name(s)))
        return;
    if (PQntuples(answer->result))
        switchover_say(s, "another operator is at it: %s, from %s, since %s (pid %s on %s)",
                       field(answer, 0), field(answer, 1), field(answer, 2), field(answer, 3),
                       primary_name(s));
    else
        switchover_say(s, "another operator was at it just now; try again");
    switchover_finish_step(s, SWITCHOVER_NO);
}

static void on_lock(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, primary_name(s)))
        return;
    s->locked = says(answer, 0, "t");
    if (s->locked)
        switchover_finish_step(s, SWITCHOVER_OK);
    else
        switchover_ask(s, s->lock, switchover_rival_sql, on_rival, s, 0, NULL);
}

static void run_lock(struct switchover *s)
{
    const struct pgask_config config = {.base = s->config.base,
                                        .reap = s->config.reap,
                                        .dsn = s->config.shard->nodes[s->plan.primary].dsn,
                                        .application_name = s->config.operator_name,
                                        .on_lost = on_lock_lost,
                                        .arg = s};
    s->lock = pgask_new(&config);
    if (s->lock) {
        switchover_ask(s, s->lock, switchover_lock_sql, on_lock, s, 0, NULL);
        return;
    }
    switchover_say(s, "out of memory");
    switchover_finish_step(s, SWITCHOVER_NO);
}

static void on_target_near(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, target_name(s)))
        return;
    if (strtoull(field(answer, 0), NULL, 10) >= s->near_lsn)
        switchover_finish_step(s, SWITCHOVER_OK);
    else
        switchover_look_again(s);
}

static void ask_replay(struct switchover *s, pgask_fn *fn)
{
    const char *const params[] = {s->fence_id};
    switchover_ask(s, of_target(s), switchover_replay_sql, fn, s, 1, params);
}

static void on_near_lsn(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, primary_name(s)))
        return;
    s->near_lsn = strtoull(field(answer, 0), NULL, 10);
    ask_replay(s, on_target_near);
}

static void run_near(struct switchover *s)
{
    if (s->near_lsn)
        ask_replay(s, on_target_near);
    else
        switchover_ask(s, of_primary(s), switchover_end_sql, on_near_lsn, s, 0, NULL);
}

/* --- the consumer of the WAL ------------------------------------------------------------------ */

static void on_drained(void *arg, const struct switchover_drained *drained)
{
    struct switchover *s = arg;
    const uint64_t wanted = s->state.step == SWITCHOVER_MEET ? s->near_lsn : s->end_lsn;
    const int32_t timeline = s->nodes[s->plan.primary].timeline;
    enum switchover_event event = drained->event;
    if (event == SWITCHOVER_OK && (drained->lsn < wanted || !drained->slot[0] ||
                                   (drained->timeline && drained->timeline != timeline))) {
        switchover_say(s, "the consumer follows something else: slot '%s', timeline %d",
                       drained->slot, (int)drained->timeline);
        event = SWITCHOVER_NO;
    } else if (event == SWITCHOVER_OK) {
        snprintf(s->slot, sizeof(s->slot), "%s", drained->slot);
    } else {
        switchover_say(s, "%s%s", drained->text,
                       event == SWITCHOVER_LOST
                           ? "; it will build its keys anew on the new primary"
                           : "; --without-cdc goes on, and it builds its keys anew");
    }
    switchover_finish_step(s, event);
}

static void run_drain(struct switchover *s)
{
    const struct switchover_world *world = &s->config.world;
    const uint64_t lsn = s->state.step == SWITCHOVER_MEET ? s->near_lsn : s->end_lsn;
    world->drain(world->world, s->config.shard->name, lsn, switchover_left_us(s) / 1000, on_drained,
                 s);
}

/* --- behind the fence ---------------------------------------------------------------------------
 */

static void on_fence(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (answer->error == SG_INTERNAL && strcmp(answer->sqlstate, "55P03") == 0) {
        switchover_say(s, "%s: a write has not ended within switchover.fence_ms", primary_name(s));
        switchover_finish_step(s, SWITCHOVER_NO);
    } else if (switchover_failed(s, answer, primary_name(s))) {
        return;
    } else if (says(answer, 0, "ok")) {
        switchover_finish_step(s, SWITCHOVER_OK);
    } else {
        switchover_say(s, "%s has been fenced by somebody else just now", primary_name(s));
        switchover_finish_step(s, SWITCHOVER_NO);
    }
}

static void run_fence(struct switchover *s)
{
    snprintf(s->fence_ms, sizeof(s->fence_ms), "%" PRId64, s->fence_us / 1000);
    const char *const params[] = {s->fence_id, s->fence_ms, s->fence_ms};
    s->fence_asked_us = s->began_us;
    s->step_deadline_us = switchover_deadline_of(s, s->began_us);
    switchover_ask(s, of_primary(s), switchover_fence_sql, on_fence, s, 3, params);
}

static void format_lsn(uint64_t lsn, char text[SWITCHOVER_LSN_TEXT_MAX])
{
    snprintf(text, SWITCHOVER_LSN_TEXT_MAX, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
}

static void on_end(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, primary_name(s)))
        return;
    s->end_lsn = strtoull(field(answer, 0), NULL, 10);
    format_lsn(s->end_lsn, s->end_text);
    switchover_finish_step(s, SWITCHOVER_OK);
}

/* The LSN may be newer than the rows beside it, which are of the question's beginning: only the
 * next answer tells what was in the WAL before it. */
static void on_replayed(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    const bool kept = s->state.step == SWITCHOVER_KEPT;
    if (switchover_failed(s, answer, target_name(s)))
        return;
    const bool reached = strtoull(field(answer, 0), NULL, 10) >= s->end_lsn;
    s->foreign = reached && !says(answer, 1, "t") ? s->foreign + 1 : 0;
    if (reached && says(answer, kept ? 2 : 1, "t")) {
        switchover_finish_step(s, SWITCHOVER_OK);
    } else if (s->foreign > 1) {
        switchover_say(s,
                       "%s is past the fence of %s and has not seen it: it follows something else",
                       target_name(s), primary_name(s));
        switchover_finish_step(s, SWITCHOVER_NO);
    } else {
        switchover_look_again(s);
    }
}

static void on_keep(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, primary_name(s)))
        return;
    if (!says(answer, 0, "ok"))
        switchover_say(s, "the fence ended before all was ready");
    switchover_finish_step(s, says(answer, 0, "ok") ? SWITCHOVER_OK : SWITCHOVER_NO);
}

static void run_keep(struct switchover *s)
{
    const char *const params[] = {s->fence_id};
    switchover_ask(s, of_primary(s), switchover_keep_sql, on_keep, s, 1, params);
}

/* "lost": it is not up any more, which is what was wanted. */
static void on_unfenced(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    enum switchover_event event = switchover_event_of(s, answer);
    if (event == SWITCHOVER_OK)
        event = says(answer, 0, "ok") ? SWITCHOVER_OK : SWITCHOVER_NO;
    else if (event == SWITCHOVER_NO)
        event = SWITCHOVER_LOST; /* an error is no word on the fence: again, until the deadline */
    if ((event == SWITCHOVER_OK || event == SWITCHOVER_NO) && s->fence_asked_us)
        s->result.pause_us = clock_mono_us() - s->fence_asked_us;
    switchover_finish_step(s, event);
}

static void run_unfence(struct switchover *s)
{
    const char *const params[] = {s->fence_id};
    switchover_ask(s, of_primary(s), switchover_unfence_sql, on_unfenced, s, 1, params);
}

/* --- forward ------------------------------------------------------------------------------------
 */

/* That it is no standby any more is an error of pg_promote, and good news. */
static void on_promote(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (answer->error == SG_INTERNAL && strcmp(answer->sqlstate, "55000") == 0) {
        switchover_finish_step(s, SWITCHOVER_OK);
    } else if (!switchover_failed(s, answer, target_name(s))) {
        if (!says(answer, 0, "t"))
            switchover_say(s, "%s did not take the order to promote", target_name(s));
        switchover_finish_step(s, says(answer, 0, "t") ? SWITCHOVER_OK : SWITCHOVER_NO);
    }
}

/* The last look before there is no way back: a process that stood still has lost its time. The
 * target itself looks whether the fence is still up, in case somebody lifted it meanwhile. */
static void run_promote(struct switchover *s)
{
    const char *const params[] = {s->fence_id};
    if (!s->result.asked && (s->stop || s->began_us > s->fence_asked_us + s->fence_us)) {
        switchover_say(s, "%s", s->stop ? s->stop_reason : "too late to ask for the promotion");
        switchover_finish_step(s, SWITCHOVER_NO);
        return;
    }
    s->result.asked = true;
    switchover_ask(s, of_target(s), switchover_promote_sql, on_promote, s, 1, params);
}

static void on_watched(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (answer->error == SG_INTERNAL) {
        switchover_say(s, "%s: %.250s", target_name(s), answer->reason);
        switchover_look_again(s);
    } else if (switchover_failed(s, answer, target_name(s))) {
        return;
    } else if (says(answer, 0, "f")) {
        snprintf(s->timeline_text, sizeof(s->timeline_text), "%s", field(answer, 1));
        s->result.timeline = (int32_t)strtol(s->timeline_text, NULL, 10);
        switchover_finish_step(s, SWITCHOVER_OK);
    } else if (s->state.doubtful && !switchover_time_is_up(s)) {
        switchover_finish_step(s, SWITCHOVER_NO);
    } else {
        switchover_look_again(s);
    }
}

static void on_slot(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    if (switchover_failed(s, answer, target_name(s)))
        return;
    s->slot_made = true;
    switchover_finish_step(s, SWITCHOVER_OK);
}

static void run_slot(struct switchover *s)
{
    const char *const params[] = {s->slot};
    switchover_ask(s, of_target(s), switchover_slot_sql, on_slot, s, 1, params);
}

/* "already": a router was faster, or the answer to an earlier try of ours was lost. */
static void on_attest(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    s->attest_asked = s->attest_asked || answer->error != SG_OK;
    if (answer->error == SG_INTERNAL) {
        switchover_say(s, "%s: %.250s", target_name(s), answer->reason);
        switchover_finish_step(s, switchover_time_is_up(s) ? SWITCHOVER_DEADLINE : SWITCHOVER_LOST);
        return;
    }
    if (switchover_failed(s, answer, target_name(s)))
        return;
    const bool ok = says(answer, 0, "ok");
    const bool already = says(answer, 0, "already");
    if (!ok && !already) {
        switchover_say(s, "%s could not be attested on timeline %s: %s", target_name(s),
                       s->timeline_text, field(answer, 0));
        switchover_finish_step(s, SWITCHOVER_NO);
        return;
    }
    s->result.pause_us = clock_mono_us() - s->fence_asked_us;
    s->result.epoch = strtoll(field(answer, 1), NULL, 10);
    s->result.handover = s->slot_made && (ok || s->attest_asked);
    if (s->slot_made && !s->result.handover)
        switchover_note(s, "a router was faster; the consumer builds its keys anew");
    switchover_finish_step(s, SWITCHOVER_OK);
}

static void run_attest(struct switchover *s)
{
    const char *const params[] = {s->timeline_text, s->slot_made ? s->end_text : NULL};
    switchover_ask(s, of_target(s), switchover_attest_sql, on_attest, s, 2, params);
}

/* --- afterwards ---------------------------------------------------------------------------------
 */

static void on_tidied(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    (void)answer;
    s->locked = false;
    switchover_finish_step(s, SWITCHOVER_OK);
}

static void tidy_lock(struct switchover *s)
{
    if (s->locked)
        switchover_ask(s, s->lock, switchover_unlock_sql, on_tidied, s, 0, NULL);
    else
        switchover_finish_step(s, SWITCHOVER_OK);
}

/* An error is a reader that came back in between. */
static void on_slot_dropped(void *arg, const struct pgask_answer *answer)
{
    struct switchover *s = arg;
    const bool over = answer->error != SG_OK && answer->error != SG_INTERNAL;
    if (answer->error == SG_OK && PQntuples(answer->result) == 0) {
        tidy_lock(s);
    } else if (over || switchover_time_is_up(s)) {
        switchover_note(s, "%s keeps WAL for the slot %s, which could not be dropped",
                        primary_name(s), s->slot);
        tidy_lock(s);
    } else {
        switchover_wait_us(s, SWITCHOVER_POLL_US);
    }
}

static void run_tidy(struct switchover *s)
{
    const char *const params[] = {s->slot};
    if (s->slot[0])
        switchover_ask(s, of_primary(s), switchover_tidy_sql, on_slot_dropped, s, 1, params);
    else
        tidy_lock(s);
}

/* --- who follows whom --------------------------------------------------------------------------
 */

static void add_errand(struct switchover *s, size_t node, size_t upstream)
{
    s->errands[s->errand_count++] = (struct errand){node, upstream};
}

/* The target itself first: it may follow one of those since a switchover that did not end. */
static void plan_lead(struct switchover *s)
{
    for (size_t i = 0; i < s->count && s->config.world.rejoin; i++) {
        if (i == s->plan.primary || i == s->plan.target || !s->nodes[i].in_recovery)
            continue;
        if (s->errand_count == 0)
            add_errand(s, s->plan.target, s->plan.primary);
        add_errand(s, i, s->plan.target);
    }
}

/* Not without the lock: they may be led by another operator by now. */
static void plan_unlead(struct switchover *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->led[i] && s->locked)
            add_errand(s, i, s->plan.primary);
        else if (s->led[i])
            switchover_note(s, "%s may follow %s still", s->nodes[i].name, target_name(s));
    }
}

/* Standbys first: with synchronous durability the new primary waits for one of them. */
static void plan_rejoin(struct switchover *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (i != s->plan.primary && i != s->plan.target && !s->follows[i])
            add_errand(s, i, s->plan.target);
    }
    add_errand(s, s->plan.primary, s->plan.target);
}

static void note_errand(struct switchover *s, const struct errand *errand, bool ok,
                        const char *text)
{
    const char *upstream = s->nodes[errand->upstream].name;
    const char *node = s->nodes[errand->node].name;
    if (s->state.step == SWITCHOVER_LEAD && ok)
        return;
    if (s->state.step == SWITCHOVER_REJOIN)
        switchover_note(s, "%s: %s%s%s", node, ok ? "rejoined" : "did not rejoin",
                        text[0] ? ": " : "", text);
    else
        switchover_note(s, "%s %s %s%s%s", node, ok ? "follows again:" : "does not follow",
                        upstream, text[0] ? ": " : "", text);
}

static void on_errand(void *arg, bool ok, const char *text)
{
    struct switchover *s = arg;
    const struct errand *errand = &s->errands[s->errand++];
    s->follows[errand->node] = ok && s->state.step == SWITCHOVER_LEAD;
    note_errand(s, errand, ok, text);
    if (!ok && errand->node == s->plan.target) /* nobody is led in a circle */
        s->errand_count = s->errand;
    switchover_run_step(s);
}

static void note_command_missing(struct switchover *s, const struct errand *errand)
{
    switchover_note(s, "%s has to follow %s now%s", s->nodes[errand->node].name, target_name(s),
                    errand->node == s->plan.primary
                        ? "; it was the primary: pg_rewind, then start it as a standby"
                        : "");
}

/* One node after the other. */
static void run_errands(struct switchover *s, void (*plan_errands)(struct switchover *s))
{
    const struct switchover_world *world = &s->config.world;
    const bool rejoins = s->state.step == SWITCHOVER_REJOIN;
    if (!s->errands_planned)
        plan_errands(s);
    s->errands_planned = true;
    const struct errand *errand = &s->errands[s->errand];
    if (s->errand == s->errand_count || (s->state.step == SWITCHOVER_LEAD && s->stop)) {
        switchover_finish_step(s, SWITCHOVER_OK);
    } else if (switchover_time_is_up(s)) {
        switchover_finish_step(s, SWITCHOVER_DEADLINE);
    } else if (world->rejoin) {
        if (s->state.step == SWITCHOVER_LEAD && errand->node != s->plan.target)
            s->led[errand->node] = true;
        world->rejoin(world->world, s->nodes[errand->node].name,
                      rejoins ? NULL : s->nodes[errand->upstream].name,
                      rejoins ? s->settings->switchover.rejoin_ms : switchover_left_us(s) / 1000,
                      on_errand, s);
    } else {
        note_command_missing(s, errand);
        s->errand++;
        switchover_wait_us(s, 0);
    }
}

/* --- which one -------------------------------------------------------------------------------- */

void switchover_run_step(struct switchover *s)
{
    switch (s->state.step) {
    case SWITCHOVER_LOOK:
    case SWITCHOVER_RECHECK:
        run_look(s);
        return;
    case SWITCHOVER_LOCK:
        run_lock(s);
        return;
    case SWITCHOVER_NEAR:
        run_near(s);
        return;
    case SWITCHOVER_MEET:
    case SWITCHOVER_DRAIN:
        run_drain(s);
        return;
    case SWITCHOVER_FENCE:
        run_fence(s);
        return;
    case SWITCHOVER_END:
        switchover_ask(s, of_primary(s), switchover_end_sql, on_end, s, 0, NULL);
        return;
    case SWITCHOVER_REPLAY:
    case SWITCHOVER_KEPT:
        ask_replay(s, on_replayed);
        return;
    case SWITCHOVER_KEEP:
        run_keep(s);
        return;
    case SWITCHOVER_PROMOTE:
        run_promote(s);
        return;
    case SWITCHOVER_WATCH:
        switchover_ask(s, of_target(s), switchover_watch_sql, on_watched, s, 0, NULL);
        return;
    case SWITCHOVER_SLOT:
        run_slot(s);
        return;
    case SWITCHOVER_ATTEST:
        run_attest(s);
        return;
    case SWITCHOVER_TIDY:
        run_tidy(s);
        return;
    case SWITCHOVER_REJOIN:
        run_errands(s, plan_rejoin);
        return;
    case SWITCHOVER_LEAD:
        run_errands(s, plan_lead);
        return;
    case SWITCHOVER_UNLEAD:
        run_errands(s, plan_unlead);
        return;
    case SWITCHOVER_UNFENCE:
        run_unfence(s);
        return;
    default:
        assert(!"an end is no step to run");
    }
}
