/*
 * What a consumer asks the primary for again and again: how far a synchronous standby is, how much
 * WAL the slots keep, and a message into the WAL of a shard that is idle.
 *
 *   every ms, if something waits at the gate ─> LSN of the standby ─> feed_set_gate
 *   every second                             ─> vitals: WAL written, WAL kept, alarm
 *   cdc.heartbeat_ms without a commit        ─> heartbeat: the slot and the beat move on
 *
 * Behind the fence of a switchover there are no heartbeats: what a standby has of them that the new
 * primary has not, it would have to lose again before it can follow.
 *
 * SPDX-License-Identifier: MIT
 */
#include <event2/event.h>

#include "base/clock.h"
#include "base/settings.h"
#include "replication/consumer_internal.h"

#define GATE_US 1000      /* while something is held */
#define GATE_IDLE_US 2000 /* until something is noticed to be */
#define GATE_MAX_US 50000 /* while the standby does not move */
#define VITALS_US 1000000

/* --- the gate --------------------------------------------------------------------------------- */

uint64_t gate_now(const struct consumer *consumer)
{
    const struct gate *gate = &consumer->gate;
    return gate->synchronous && !gate->blind ? gate->lsn : FEED_GATE_OPEN;
}

static void set_gates(struct consumer *consumer)
{
    if (consumer->now)
        feed_set_gate(consumer->now->feed, gate_now(consumer));
    if (consumer->next)
        feed_set_gate(consumer->next->feed, gate_now(consumer));
}

void gate_set_synchronous(struct consumer *consumer, bool synchronous)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct gate *gate = &consumer->gate;
    if (gate->synchronous == synchronous)
        return;
    log_debug(&fields, "consumer: %s",
              synchronous ? "a transaction is applied once the synchronous standby has it"
                          : "no synchronous standby: transactions are applied as they come");
    gate->synchronous = synchronous;
    gate->lsn = 0;
    gate->pause_us = GATE_US;
    gate->next_us = 0;
    set_gates(consumer);
    gate_tick(consumer);
}

static void on_standby(struct consumer *consumer, const struct pgask_answer *answer)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct gate *gate = &consumer->gate;
    gate->asked = false;
    if (answer->error != SG_OK || PQntuples(answer->result) != 1) {
        log_warn(&fields, "consumer: synchronous standby: %s",
                 answer->error != SG_OK ? answer->reason : "no answer");
        gate->next_us = clock_mono_us() + VITALS_US;
        return;
    }
    bool blind = PQgetvalue(answer->result, 0, 0)[0] != 't';
    uint64_t lsn = (uint64_t)ask_number(answer->result, 1);
    if (blind && !gate->blind)
        log_warn(&fields, "consumer: the role may not see how far the synchronous standby is, so "
                          "Redis may be ahead of it; GRANT pg_monitor");
    gate->blind = blind;
    gate->pause_us = lsn > gate->lsn ? GATE_US : 2 * gate->pause_us;
    if (gate->pause_us > GATE_MAX_US)
        gate->pause_us = GATE_MAX_US;
    if (lsn > gate->lsn)
        gate->lsn = lsn;
    gate->next_us = clock_mono_us() + gate->pause_us;
    set_gates(consumer);
}

/* True if something may wait for the gate to move. */
static bool is_held(const struct generation *generation, uint64_t gate)
{
    struct feed_status status;
    if (!generation)
        return false;
    feed_get_status(generation->feed, &status);
    return status.oldest_unapplied_us != 0 || status.received >= gate || status.server_end > gate;
}

void gate_tick(struct consumer *consumer)
{
    struct gate *gate = &consumer->gate;
    if (!gate->synchronous || consumer->over)
        return;
    bool held = is_held(consumer->now, gate->lsn) || is_held(consumer->next, gate->lsn);
    const struct timeval wait = clock_timeval_us(held ? GATE_US : GATE_IDLE_US);
    event_add(gate->timer, &wait);
    if (!held || gate->asked || clock_mono_us() < gate->next_us || !control_idle(consumer))
        return;
    gate->asked = true;
    control_ask(consumer, ask_standby_sql, NULL, NULL, on_standby);
}

static void on_gate_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    gate_tick(arg);
}

bool gate_init(struct consumer *consumer)
{
    consumer->gate.timer = evtimer_new(consumer->config.base, on_gate_timer, consumer);
    return consumer->gate.timer != NULL;
}

void gate_stop(struct consumer *consumer)
{
    struct gate *gate = &consumer->gate;
    event_del(gate->timer);
    *gate = (struct gate){.timer = gate->timer, .blind = gate->blind};
}

/* --- vitals ----------------------------------------------------------------------------------- */

static void watch_budget(struct consumer *consumer)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct pulse *pulse = &consumer->pulse;
    const int64_t budget_bytes = consumer->config.settings->cdc.wal_budget_bytes;
    bool over = pulse->vitals.kept_bytes > budget_bytes && consumer->state != CONSUMER_WAITING;
    if (over == pulse->alarm)
        return;
    pulse->alarm = over;
    if (over)
        log_error(&fields,
                  "consumer: PostgreSQL keeps %lld bytes of WAL for the slot, more than "
                  "cdc.wal_budget_bytes, %lld",
                  (long long)pulse->vitals.kept_bytes, (long long)budget_bytes);
    else
        log_info(&fields, "consumer: WAL kept for the slot is back within its budget: %lld bytes",
                 (long long)pulse->vitals.kept_bytes);
}

/* A name that a walsender may have cannot be one that '*' leaves out: only the setting helps. */
static void watch_standbys(struct consumer *consumer)
{
    const struct log_fields fields = consumer_fields(consumer);
    struct pulse *pulse = &consumer->pulse;
    const bool counted = pulse->vitals.counted_standby;
    if (counted == pulse->counted)
        return;
    pulse->counted = counted;
    if (counted)
        log_error(&fields,
                  "consumer: synchronous_standby_names matches the readers of replication "
                  "slots: a commit may wait for this consumer, which reports late, as if it "
                  "were a standby; name the standbys there instead of '*'");
    else
        log_info(&fields, "consumer: is not counted as a synchronous standby any more");
}

static void on_vitals(struct consumer *consumer, const struct pgask_answer *answer)
{
    struct pulse *pulse = &consumer->pulse;
    pulse->vitals_asked = false;
    if (answer->error != SG_OK || !ask_read_vitals(answer->result, &pulse->vitals)) {
        pulse->vitals_at_us = 0; /* a standby by now, for instance: its end shows soon */
        return;
    }
    pulse->vitals_at_us = clock_mono_us();
    watch_budget(consumer);
    watch_standbys(consumer);
    if (consumer->now || consumer->next)
        gate_set_synchronous(consumer, pulse->vitals.synchronous);
}

/* --- heartbeats ------------------------------------------------------------------------------- */

static void on_heartbeat(struct consumer *consumer, const struct pgask_answer *answer)
{
    const struct log_fields fields = consumer_fields(consumer);
    consumer->pulse.heartbeat_asked = false;
    if (answer->error != SG_OK)
        log_warn(&fields, "consumer: heartbeat: %s", answer->reason);
}

void pulse_beat(struct consumer *consumer)
{
    consumer->pulse.heartbeat_us = clock_mono_us();
    consumer->pulse.heartbeat_asked = true;
    control_ask(consumer, ask_heartbeat_sql, NULL, NULL, on_heartbeat);
}

static void beat(struct consumer *consumer, int64_t now_us)
{
    struct pulse *pulse = &consumer->pulse;
    const int64_t every_us = consumer->config.settings->cdc.heartbeat_ms * 1000;
    struct feed_status status;
    if (!consumer->now || !consumer->now->started || pulse->heartbeat_asked ||
        pulse->vitals.switching)
        return;
    feed_get_status(consumer->now->feed, &status);
    if (status.applied != pulse->applied) {
        pulse->applied = status.applied;
        pulse->applied_us = now_us;
    }
    if (now_us - pulse->applied_us < every_us || now_us - pulse->heartbeat_us < every_us)
        return;
    pulse_beat(consumer);
}

void pulse_tick(struct consumer *consumer, int64_t now_us)
{
    struct pulse *pulse = &consumer->pulse;
    if (!consumer->control.ask || consumer->state == CONSUMER_NO_PRIMARY)
        return;
    beat(consumer, now_us);
    if (pulse->vitals_asked || now_us < pulse->next_vitals_us || !control_idle(consumer))
        return;
    pulse->next_vitals_us = now_us + VITALS_US;
    pulse->vitals_asked = true;
    control_ask(consumer, ask_vitals_sql, consumer->slot_prefix, NULL, on_vitals);
}
