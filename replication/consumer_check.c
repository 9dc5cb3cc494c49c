/*
 * Which reconcile runs when: one at a time, because a feed has one tap.
 *
 *   events that Redis has lost  >  a pass that somebody asked for  >  the slow pass, which never
 * ends
 *
 * The slow one heals what it finds; a slice every cdc.reconcile_ms. Events that are missing are
 * healed alone, at once; they wait in a bounded list without doubles, and what does not fit is
 * found by the slow pass.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "replication/consumer_internal.h"

#define HEAL_PAUSE_MIN_US 500000   /* between two healings */
#define HEAL_PAUSE_MAX_US 60000000 /* while there is nothing that can be healed */

static void on_done(void *arg, const struct reconcile_report *report,
                    const struct reconcile_cursor *next, const char *reason);

/* --- starting --------------------------------------------------------------------------------- */

static bool start(struct consumer *consumer, enum check_kind kind,
                  const struct reconcile_cursor *cursor, bool heal)
{
    struct check *check = &consumer->check;
    check->kind = kind;
    check->run = reconcile_new(
        &(struct reconcile_config){.base = consumer->config.base,
                                   .reap = consumer->config.reap,
                                   .settings = consumer->config.settings,
                                   .shard = consumer->shard,
                                   .dsn = consumer->control.dsn,
                                   .generation = consumer->now->number,
                                   .epoch = consumer->epoch,
                                   .sink = consumer->sink,
                                   .feed = consumer->now->feed,
                                   .cursor = *cursor,
                                   .only_events = kind == CHECK_HEAL ? check->healing : NULL,
                                   .only_count = kind == CHECK_HEAL ? check->healing_count : 0,
                                   .heal = heal,
                                   .on_done = on_done,
                                   .arg = consumer});
    return check->run != NULL;
}

static void start_healing(struct consumer *consumer, int64_t now_us)
{
    static const struct reconcile_cursor none = {0};
    struct check *check = &consumer->check;
    const struct log_fields fields = consumer_fields(consumer);
    size_t count =
        check->missing_count < CONSUMER_HEAL_MAX ? check->missing_count : CONSUMER_HEAL_MAX;
    memcpy(check->healing, check->missing, count * sizeof(check->missing[0]));
    check->missing_count -= count;
    memmove(check->missing, check->missing + count,
            check->missing_count * sizeof(check->missing[0]));
    check->healing_count = count;
    if (check->heal_pause_us < HEAL_PAUSE_MIN_US)
        check->heal_pause_us = HEAL_PAUSE_MIN_US;
    check->next_heal_us = now_us + check->heal_pause_us;
    log_info(&fields, "consumer: Redis has lost %zu events, %lld the first: healing them", count,
             (long long)check->healing[0]);
    metrics_add(metrics_series(consumer->config.metrics, METRIC_CDC_REPAIRS,
                               (const char *const[]){consumer->shard, "heal", "missing"}),
                (int64_t)count);
    (void)start(consumer, CHECK_HEAL, &none, true);
}

void check_tick(struct consumer *consumer, int64_t now_us)
{
    struct check *check = &consumer->check;
    const int64_t every_us = consumer->config.settings->cdc.reconcile_ms * 1000;
    if (check->run || !consumer->now || !consumer->now->started || consumer->pulse.vitals.switching)
        return; /* behind a switchover's fence it would fail (reconcile.c) and write WAL in vain */
    if (check->missing_count && now_us >= check->next_heal_us &&
        consumer->build.step == BUILD_NONE) {
        start_healing(consumer, now_us);
    } else if (check->asked) {
        if (!start(consumer, CHECK_ASKED, &check->cursor, check->heal))
            check_stop(consumer, "out of memory", false);
    } else if (every_us && now_us >= check->next_us) {
        check->next_us = now_us + every_us;
        (void)start(consumer, CHECK_SLOW, &check->slow, true);
    }
}

/* --- what came of it -------------------------------------------------------------------------- */

static void on_slow(struct consumer *consumer, const struct reconcile_report *report,
                    const struct reconcile_cursor *next)
{
    struct check *check = &consumer->check;
    const struct log_fields fields = consumer_fields(consumer);
    check->event_drift += report->event_drift;
    check->ticket_drift += report->ticket_drift;
    const int64_t drift = check->event_drift + check->ticket_drift;
    const bool last = next->events_done && next->tickets_done;
    if (report->drift_count)
        log_warn(&fields, "consumer: drift: %lld events, %lld tickets; %s%lld%s%s: %s; %lld healed",
                 (long long)report->event_drift, (long long)report->ticket_drift,
                 report->drifts[0].user[0] ? "ticket of event " : "event ",
                 (long long)report->drifts[0].event_id, report->drifts[0].user[0] ? ", user " : "",
                 report->drifts[0].user, report->drifts[0].what, (long long)report->healed);
    if (last || drift > check->drift)
        status_set_drift(consumer, check->event_drift, check->ticket_drift);
    check->slow = *next;
    if (!last)
        return;
    check->drift = drift;
    check->done_us = clock_wall_us();
    check->event_drift = 0;
    check->ticket_drift = 0;
    check->slow = (struct reconcile_cursor){0};
}

/* What PostgreSQL does not know either cannot be healed: it is asked for less and less often. */
static void on_healed(struct consumer *consumer, const struct reconcile_report *report)
{
    struct check *check = &consumer->check;
    check->heal_pause_us = report->healed ? HEAL_PAUSE_MIN_US : 2 * check->heal_pause_us;
    if (check->heal_pause_us > HEAL_PAUSE_MAX_US)
        check->heal_pause_us = HEAL_PAUSE_MAX_US;
}

/* Tells the one who asked; the last word frees the place first, so that it may ask again. */
static void tell_asker(struct consumer *consumer, const struct reconcile_report *report, bool last,
                       const char *reason)
{
    struct check *check = &consumer->check;
    consumer_reconcile_fn *fn = check->fn;
    void *arg = check->arg;
    if (last) {
        check->asked = false;
        check->fn = NULL;
    }
    if (fn)
        fn(arg, report, last, reason);
}

static void on_failed(struct consumer *consumer, enum check_kind kind, const char *reason)
{
    static const struct reconcile_report nothing = {0};
    struct check *check = &consumer->check;
    const struct log_fields fields = consumer_fields(consumer);
    log_warn(&fields, "consumer: reconcile: %s", reason);
    if (kind == CHECK_ASKED)
        tell_asker(consumer, &nothing, true, reason);
    for (size_t i = 0; kind == CHECK_HEAL && i < check->healing_count; i++)
        check_missing(consumer, check->healing[i]);
}

static void on_done(void *arg, const struct reconcile_report *report,
                    const struct reconcile_cursor *next, const char *reason)
{
    struct consumer *consumer = arg;
    struct check *check = &consumer->check;
    const enum check_kind kind = check->kind;
    struct reconcile *run = check->run;
    check->run = NULL;
    if (reason) {
        on_failed(consumer, kind, reason);
    } else {
        status_add_checked(consumer, report);
        if (kind == CHECK_SLOW)
            on_slow(consumer, report, next);
        if (kind == CHECK_HEAL)
            on_healed(consumer, report);
        if (kind == CHECK_ASKED) {
            check->cursor = *next;
            tell_asker(consumer, report, next->events_done && next->tickets_done, NULL);
        }
    }
    reconcile_free(run);
    if (check->asked || check->missing_count)
        consumer_kick(consumer);
}

/* --- asking ----------------------------------------------------------------------------------- */

void check_missing(struct consumer *consumer, int64_t event_id)
{
    struct check *check = &consumer->check;
    for (size_t i = 0; i < check->missing_count; i++) {
        if (check->missing[i] == event_id)
            return;
    }
    for (size_t i = 0; check->run && check->kind == CHECK_HEAL && i < check->healing_count; i++) {
        if (check->healing[i] == event_id)
            return;
    }
    if (check->missing_count < CONSUMER_MISSING_MAX)
        check->missing[check->missing_count++] = event_id;
}

void check_stop(struct consumer *consumer, const char *reason, bool forget)
{
    static const struct reconcile_report nothing = {0};
    struct check *check = &consumer->check;
    struct reconcile *run = check->run;
    check->run = NULL;
    reconcile_free(run);
    if (run && check->kind == CHECK_HEAL && !forget) {
        for (size_t i = 0; i < check->healing_count; i++)
            check_missing(consumer, check->healing[i]);
    }
    if (forget) {
        check->slow = (struct reconcile_cursor){0};
        check->event_drift = 0;
        check->ticket_drift = 0;
    }
    if (check->asked)
        tell_asker(consumer, &nothing, true, reason);
}

enum sg_error consumer_reconcile(struct consumer *consumer, bool heal, consumer_reconcile_fn *fn,
                                 void *arg)
{
    struct check *check = &consumer->check;
    if (check->asked)
        return SG_RELOAD_BUSY;
    if (consumer->state != CONSUMER_RUNNING || !consumer->now)
        return SG_SHARD_UNAVAILABLE;
    check->asked = true;
    check->heal = heal;
    check->cursor = (struct reconcile_cursor){0};
    check->fn = fn;
    check->arg = arg;
    consumer_kick(consumer);
    return SG_OK;
}
