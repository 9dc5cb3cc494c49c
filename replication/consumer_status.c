/*
 * What a consumer says of itself: to a caller as a struct, to people as JSON, to Prometheus as
 * gauges, and once a second as a word in the shard's hash. That word is also its sign of life
 * while it has nothing to write, and how it learns that somebody has replaced it or Redis was
 * emptied.
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/rfc3339.h"
#include "base/snapshot.h"
#include "replication/consumer_internal.h"
#include "router/topology.h"

#define SHOW_US 500000
#define TELL_US 1000000
#define VITALS_FRESH_US 5000000
#define JSON_MAX 8192

enum lsn_kind { LSN_RECEIVED, LSN_APPLIED, LSN_CONFIRMED, LSN_KINDS };

struct shard_series {
    struct metrics_series *states[CONSUMER_STATES];
    struct metrics_series *lsn[LSN_KINDS];
    struct metrics_series *lag_bytes;
    struct metrics_series *lag_ms;
    struct metrics_series *wal_kept;
    struct metrics_series *wal_alarm;
    struct metrics_series *counted_standby;
    struct metrics_series *event_drift;
    struct metrics_series *ticket_drift;
    struct metrics_series *events_checked;
    struct metrics_series *tickets_checked;
    struct metrics_series *events_healed;
    struct metrics_series *tickets_healed;
};

/* --- the struct ------------------------------------------------------------------------------- */

/* What the primary has written, by whoever has heard of it last; 0: nobody knows. */
static uint64_t server_lsn(const struct consumer *consumer, uint64_t heard)
{
    const struct pulse *pulse = &consumer->pulse;
    if (pulse->vitals_at_us && pulse->vitals.lsn > heard)
        heard = pulse->vitals.lsn;
    if (consumer->now)
        return heard;
    snapshot_begin(consumer->config.reader);
    const struct topology *topology = snapshot_get(consumer->config.topologies);
    const struct topology_node *primary =
        topology ? topology_primary(topology, consumer->shard) : NULL;
    if (primary && primary->lsn > heard)
        heard = primary->lsn;
    snapshot_end(consumer->config.reader);
    return heard;
}

static void fill_lag(const struct consumer *consumer, const struct feed_status *feed,
                     struct consumer_status *status)
{
    const int64_t now_us = clock_wall_us();
    const int64_t since_us =
        consumer->now && consumer->now->started ? feed->oldest_unapplied_us : consumer->in_step_us;
    status->lag_bytes = -1;
    status->lag_ms = -1;
    if (consumer->state == CONSUMER_WAITING)
        return; /* the other one's to tell */
    if (status->server_lsn && status->applied)
        status->lag_bytes = status->server_lsn > status->applied
                                ? (int64_t)(status->server_lsn - status->applied)
                                : 0;
    if (since_us)
        status->lag_ms = now_us > since_us ? (now_us - since_us) / 1000 : 0;
    else if (consumer->now && consumer->now->started)
        status->lag_ms = 0;
}

void consumer_get_status(const struct consumer *consumer, struct consumer_status *ret_status)
{
    struct feed_status feed = consumer->last;
    const struct pulse *pulse = &consumer->pulse;
    if (consumer->now)
        feed_get_status(consumer->now->feed, &feed);
    *ret_status = (struct consumer_status){
        .shard = consumer->shard,
        .state = consumer->state,
        .detail = consumer->detail,
        .node = consumer->control.node,
        .slot = consumer->now ? consumer->now->slot : consumer->build.slot,
        .generation = consumer->now ? consumer->now->number : consumer->facts.generation,
        .epoch = consumer->epoch,
        .received = feed.received,
        .applied = feed.applied ? feed.applied : consumer->marked_lsn,
        .confirmed = feed.confirmed,
        .server_lsn = server_lsn(consumer, feed.server_end),
        .wal_kept_bytes = pulse->vitals_at_us ? pulse->vitals.kept_bytes : -1,
        .wal_alarm = pulse->alarm,
        .counted_standby = pulse->counted,
        .last_repair = consumer->last_repair,
        .last_repair_us = consumer->last_repair_us,
        .repairs = consumer->repairs,
        .seeding = consumer->build.step != BUILD_NONE,
        .seed = consumer->build.progress,
        .drift = consumer->check.drift,
        .reconciled_us = consumer->check.done_us};
    fill_lag(consumer, &feed, ret_status);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void add_text(struct dynbuf *out, const char *name, const char *text)
{
    dynbuf_addf(out, ",\"%s\":", name);
    dynbuf_add_json(out, text);
}

static void add_number(struct dynbuf *out, const char *name, int64_t value)
{
    dynbuf_addf(out, ",\"%s\":%" PRId64, name, value);
}

/* -1 is null. */
static void add_known(struct dynbuf *out, const char *name, int64_t value)
{
    if (value < 0)
        dynbuf_addf(out, ",\"%s\":null", name);
    else
        add_number(out, name, value);
}

static void add_lsn(struct dynbuf *out, const char *name, uint64_t lsn)
{
    if (lsn)
        dynbuf_addf(out, ",\"%s\":\"%X/%X\"", name, (unsigned)(lsn >> 32), (unsigned)lsn);
    else
        dynbuf_addf(out, ",\"%s\":null", name);
}

static void add_time(struct dynbuf *out, const char *name, int64_t wall_us)
{
    char text[RFC3339_SIZE];
    if (wall_us == 0) {
        dynbuf_addf(out, ",\"%s\":null", name);
        return;
    }
    rfc3339_format(wall_us, text);
    add_text(out, name, text);
}

/* Of the one under way, or the last one. */
static void add_seed(struct dynbuf *out, const struct consumer_status *status)
{
    const struct seed_progress *seed = &status->seed;
    if (!status->seeding && !seed->started_us) {
        dynbuf_adds(out, ",\"seed\":null");
        return;
    }
    dynbuf_addf(out,
                ",\"seed\":{\"events\":%" PRId64 ",\"eventsTotal\":%" PRId64 ",\"tickets\":%" PRId64
                ",\"ticketsTotal\":%" PRId64 ",\"elapsedMs\":%" PRId64 "}",
                seed->events, seed->events_total, seed->tickets, seed->tickets_total,
                status->seeding && seed->started_us ? (clock_mono_us() - seed->started_us) / 1000
                                                    : 0);
}

void consumer_write_status(const struct consumer *consumer, struct dynbuf *out)
{
    struct consumer_status status;
    consumer_get_status(consumer, &status);
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, status.shard);
    add_text(out, "state", consumer_state_name(status.state));
    add_text(out, "detail", status.detail);
    add_text(out, "node", status.node);
    add_text(out, "slot", status.slot);
    add_number(out, "generation", status.generation);
    add_number(out, "epoch", status.epoch);
    add_lsn(out, "receivedLsn", status.received);
    add_lsn(out, "appliedLsn", status.applied);
    add_lsn(out, "confirmedLsn", status.confirmed);
    add_lsn(out, "serverLsn", status.server_lsn);
    add_known(out, "lagBytes", status.lag_bytes);
    add_known(out, "lagMs", status.lag_ms);
    add_known(out, "walKeptBytes", status.wal_kept_bytes);
    dynbuf_addf(out, ",\"walAlarm\":%s", status.wal_alarm ? "true" : "false");
    dynbuf_addf(out, ",\"countedStandby\":%s", status.counted_standby ? "true" : "false");
    add_text(out, "lastRepair", repair_reason_name(status.last_repair));
    add_text(out, "lastRepairText", repair_reason_text(status.last_repair));
    add_time(out, "lastRepairAt", status.last_repair_us);
    add_number(out, "repairs", status.repairs);
    dynbuf_addf(out, ",\"seeding\":%s", status.seeding ? "true" : "false");
    add_seed(out, &status);
    add_number(out, "drift", status.drift);
    add_time(out, "reconciledAt", status.reconciled_us);
    add_time(out, "at", clock_wall_us());
    dynbuf_addc(out, '}');
}

/* --- metrics ---------------------------------------------------------------------------------- */

static struct metrics_series *series_of(struct consumer *consumer, enum metric_family family,
                                        const char *label)
{
    return metrics_series(consumer->config.metrics, family,
                          (const char *const[]){consumer->shard, label});
}

bool status_init(struct consumer *consumer)
{
    static const char *const kinds[LSN_KINDS] = {"received", "applied", "confirmed"};
    struct shard_series *series = calloc(1, sizeof(*series));
    if (!series)
        return false;
    for (int i = 0; i < CONSUMER_STATES; i++)
        series->states[i] =
            series_of(consumer, METRIC_CDC_STATE, consumer_state_name((enum consumer_state)i));
    for (int i = 0; i < LSN_KINDS; i++)
        series->lsn[i] = series_of(consumer, METRIC_CDC_LSN, kinds[i]);
    series->lag_bytes = series_of(consumer, METRIC_CDC_LAG_BYTES, NULL);
    series->lag_ms = series_of(consumer, METRIC_CDC_LAG_MS, NULL);
    series->wal_kept = series_of(consumer, METRIC_CDC_WAL_KEPT, NULL);
    series->wal_alarm = series_of(consumer, METRIC_CDC_WAL_ALARM, NULL);
    series->counted_standby = series_of(consumer, METRIC_CDC_COUNTED_STANDBY, NULL);
    series->event_drift = series_of(consumer, METRIC_CDC_DRIFT, "events");
    series->ticket_drift = series_of(consumer, METRIC_CDC_DRIFT, "tickets");
    series->events_checked = series_of(consumer, METRIC_CDC_RECONCILED, "events");
    series->tickets_checked = series_of(consumer, METRIC_CDC_RECONCILED, "tickets");
    series->events_healed = series_of(consumer, METRIC_CDC_HEALED, "events");
    series->tickets_healed = series_of(consumer, METRIC_CDC_HEALED, "tickets");
    consumer->series = series;
    return true;
}

void status_done(struct consumer *consumer)
{
    free(consumer->series);
    consumer->series = NULL;
}

void status_show_state(struct consumer *consumer)
{
    for (int i = 0; i < CONSUMER_STATES; i++)
        metrics_set_value(consumer->series->states[i], (int)consumer->state == i);
}

void status_add_checked(struct consumer *consumer, const struct reconcile_report *report)
{
    const struct shard_series *series = consumer->series;
    const int64_t events =
        report->healed < report->event_drift ? report->healed : report->event_drift;
    metrics_add(series->events_checked, report->events);
    metrics_add(series->tickets_checked, report->tickets);
    metrics_add(series->events_healed, events);
    metrics_add(series->tickets_healed, report->healed - events);
}

void status_set_drift(struct consumer *consumer, int64_t events, int64_t tickets)
{
    metrics_set_value(consumer->series->event_drift, events);
    metrics_set_value(consumer->series->ticket_drift, tickets);
}

static void show(struct consumer *consumer)
{
    const struct shard_series *series = consumer->series;
    struct consumer_status status;
    consumer_get_status(consumer, &status);
    metrics_set_value(series->lsn[LSN_RECEIVED], (int64_t)status.received);
    metrics_set_value(series->lsn[LSN_APPLIED], (int64_t)status.applied);
    metrics_set_value(series->lsn[LSN_CONFIRMED], (int64_t)status.confirmed);
    metrics_set_value(series->lag_bytes, status.lag_bytes);
    metrics_set_value(series->lag_ms, status.lag_ms);
    metrics_set_value(series->wal_kept, status.wal_kept_bytes);
    metrics_set_value(series->wal_alarm, status.wal_alarm);
    metrics_set_value(series->counted_standby, status.counted_standby);
}

/* --- the word in Redis ------------------------------------------------------------------------ */

static void on_told(struct consumer *consumer, const struct sink_result *result)
{
    if (result->outcome == SINK_STALE)
        consumer_lose(consumer, CONSUMER_LOOKING, "another consumer has taken over");
    else if (result->outcome == SINK_GONE)
        consumer_lose(consumer, CONSUMER_LOOKING, "Redis was emptied");
}

static void tell(struct consumer *consumer)
{
    struct dynbuf status;
    struct dynbuf command;
    dynbuf_init(&status, JSON_MAX);
    dynbuf_init(&command, 2 * JSON_MAX);
    consumer_write_status(consumer, &status);
    if (!status.failed) {
        sink_tell(&command, consumer->shard, consumer->epoch, dynbuf_text(&status));
        (void)redis_send(consumer, &command, 1, on_told);
    }
    dynbuf_done(&command);
    dynbuf_done(&status);
}

void status_tick(struct consumer *consumer, int64_t now_us)
{
    struct pulse *pulse = &consumer->pulse;
    struct feed_status feed;
    if (pulse->vitals_at_us && now_us - pulse->vitals_at_us > VITALS_FRESH_US)
        pulse->vitals_at_us = 0;
    if (consumer->now && consumer->now->started) {
        feed_get_status(consumer->now->feed, &feed);
        consumer->in_step_us =
            feed.oldest_unapplied_us ? feed.oldest_unapplied_us : clock_wall_us();
    }
    if (now_us >= consumer->next_show_us) {
        consumer->next_show_us = now_us + SHOW_US;
        show(consumer);
    }
    if (now_us >= consumer->next_tell_us && consumer->locked && consumer->epoch &&
        (consumer->state >= CONSUMER_SEEDING) && sink_is_up(consumer->sink)) {
        consumer->next_tell_us = now_us + TELL_US;
        tell(consumer);
    }
}
