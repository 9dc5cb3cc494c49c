/*
 * The question that attests a primary. See attester.h.
 *
 *   IDLE ── attester_start ──> ASKING ── answer, failure, deadline ──> PAUSING ── timer ──> IDLE
 *
 * The commit does not wait for a standby: an attestation promises nothing to a client, and were it
 * lost with this server, the next one is on a newer timeline. It does not wait for the fence longer
 * than for the answer either, so that a question which was given up leaves no session behind.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/attester.h"

#include <event2/event.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/pgask.h"

#define PAUSE_US 100000
#define OUTCOME_MAX 128

/* The settings are made before the function runs, since its argument needs them. */
static const char attest_sql[] =
    "SELECT a.outcome, a.epoch"
    "  FROM (SELECT set_config('synchronous_commit', 'local', true)"
    "            || set_config('lock_timeout', $2, true) AS made OFFSET 0) s"
    " CROSS JOIN LATERAL shard_attest(CASE WHEN s.made <> '' THEN $1::integer "
    "END, NULL) a";

/* By hand, so to speak: nobody but an operator takes it away again. So only if it is still on the
 * timeline that was left behind: it may have rejoined, and been promoted anew, before this arrives.
 */
static const char fence_sql[] =
    "SELECT f.outcome, f.epoch"
    "  FROM (SELECT set_config('lock_timeout', $2, true) AS made"
    "         WHERE own_timeline() = $1::integer OFFSET 0) s"
    " CROSS JOIN LATERAL shard_fence(NULL, CASE WHEN s.made <> '' THEN NULL::bigint END) f";

enum attester_state { ATTESTER_IDLE, ATTESTER_ASKING, ATTESTER_PAUSING };

struct attester {
    struct attester_config config;
    enum attester_state state;
    int32_t timeline; /* asked for */
    bool fencing;     /* asked to fence itself */
    char timeline_text[16];
    char timeout_text[32];
    struct pgask *ask;
    struct event *pause;
    char logged[OUTCOME_MAX]; /* the last outcome on that timeline; "" */
};

static void set_state(struct attester *attester, enum attester_state state)
{
    const struct timeval pause = clock_timeval_us(PAUSE_US);
    attester->state = state;
    if (state == ATTESTER_PAUSING)
        event_add(attester->pause, &pause);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    set_state(arg, ATTESTER_IDLE);
}

/* --- outcomes --------------------------------------------------------------------------------- */

static void count(const struct attester *attester, const char *outcome)
{
    const char *const labels[] = {attester->config.shard, attester->config.node, outcome};
    metrics_add(metrics_series(attester->config.metrics, METRIC_ATTESTATIONS, labels), 1);
}

/* True if it is another outcome than the last one. */
static bool is_news(struct attester *attester, const char *outcome)
{
    if (strncmp(attester->logged, outcome, sizeof(attester->logged) - 1) == 0)
        return false;
    snprintf(attester->logged, sizeof(attester->logged), "%s", outcome);
    return true;
}

static void note_failure(struct attester *attester, const char *reason)
{
    const struct log_fields fields = {.shard = attester->config.shard,
                                      .node = attester->config.node};
    count(attester, "failed");
    if (is_news(attester, reason))
        log_warn(&fields, "the %s could not be %s, trying on: %s",
                 attester->fencing ? "former primary" : "new primary",
                 attester->fencing ? "fenced" : "attested", reason);
}

/* True if the node is attested. */
static bool note_outcome(struct attester *attester, const char *outcome, const char *epoch)
{
    const struct log_fields fields = {.shard = attester->config.shard,
                                      .node = attester->config.node};
    const bool done = strcmp(outcome, "ok") == 0;
    const bool already = strcmp(outcome, "already") == 0;
    count(attester, outcome);
    if (!is_news(attester, outcome))
        return done || already;
    if (done)
        log_info(&fields, "attested as the primary: timeline %d, epoch %s", attester->timeline,
                 epoch);
    else if (already)
        log_info(&fields, "the primary is attested already: timeline %d, epoch %s",
                 attester->timeline, epoch);
    else
        log_warn(&fields, "the new primary is not attested on timeline %d: %s", attester->timeline,
                 outcome);
    return done || already;
}

static bool note_fence(struct attester *attester, const char *outcome)
{
    const struct log_fields fields = {.shard = attester->config.shard,
                                      .node = attester->config.node};
    const bool done = strcmp(outcome, "ok") == 0;
    count(attester, done ? "former_fenced" : outcome);
    if (done)
        log_warn(&fields, "former primary fenced: it was back and took writes");
    return done;
}

static void on_answer(void *arg, const struct pgask_answer *said)
{
    struct attester *attester = arg;
    const PGresult *result = said->result;
    bool done = false;
    set_state(attester, ATTESTER_PAUSING);
    if (said->error != SG_OK)
        note_failure(attester, said->reason);
    else if (attester->fencing && PQntuples(result) == 0)
        done = true; /* no former primary any more: look anew */
    else if (PQntuples(result) != 1 || PQnfields(result) != 2)
        note_failure(attester, "the answer makes no sense");
    else if (attester->fencing)
        done = note_fence(attester, PQgetvalue(result, 0, 0));
    else
        done = note_outcome(attester, PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1));
    pgask_close(attester->ask);
    if (done)
        attester->config.on_done(attester->config.arg);
}

/* --- life ------------------------------------------------------------------------------------- */

static void ask(struct attester *attester, bool fencing, int32_t timeline)
{
    const int64_t timeout_us = attester->config.timeout_us;
    if (attester->state != ATTESTER_IDLE)
        return;
    if (fencing != attester->fencing || timeline != attester->timeline)
        attester->logged[0] = '\0';
    attester->fencing = fencing;
    attester->timeline = timeline;
    snprintf(attester->timeline_text, sizeof(attester->timeline_text), "%d", timeline);
    const struct pgask_question question = {
        .sql = fencing ? fence_sql : attest_sql,
        .param_count = 2,
        .params = {attester->timeline_text, attester->timeout_text},
        .connect_timeout_us = timeout_us,
        .answer_timeout_us = timeout_us};
    set_state(attester, ATTESTER_ASKING);
    pgask_ask(attester->ask, &question, on_answer, attester);
}

void attester_start(struct attester *attester, int32_t timeline)
{
    ask(attester, false, timeline);
}

void attester_fence(struct attester *attester, int32_t timeline)
{
    ask(attester, true, timeline);
}

struct attester *attester_new(const struct attester_config *config)
{
    struct attester *attester = calloc(1, sizeof(*attester));
    if (!attester)
        return NULL;
    attester->config = *config;
    snprintf(attester->timeout_text, sizeof(attester->timeout_text), "%lldms",
             (long long)(config->timeout_us / 1000));
    attester->ask = pgask_new(&(struct pgask_config){.base = config->base,
                                                     .reap = config->reap,
                                                     .dsn = config->dsn,
                                                     .application_name = "seatgrid-attest",
                                                     .arg = attester});
    attester->pause = evtimer_new(config->base, on_pause_over, attester);
    if (!attester->ask || !attester->pause) {
        attester_free(attester);
        return NULL;
    }
    return attester;
}

void attester_free(struct attester *attester)
{
    if (!attester)
        return;
    if (attester->ask)
        pgask_free(attester->ask);
    if (attester->pause)
        event_free(attester->pause);
    free(attester);
}
