/*
 * The account of drills. See report.h.
 *
 * Two tables make it: figures that are times, with the promises of speed, and counts, each of which
 * has to be 0. Promises of speed are shown; they decide only if asked to, because a machine that
 * does other work breaks them for reasons of its own.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/dynbuf.h"
#include "drill/scenario.h"

#define NOT_PROMISED 0

/* --- times ------------------------------------------------------------------------------------ */

/* A promise of speed holds for the drills in its list, separated by blanks; "" for none. */
static const struct time_row {
    enum outcome_time time;
    const char *label;
    const char *name; /* in JSON */
    const char *drills;
    int p99_ms;
    int max_ms;
} time_rows[] = {
    {OUTCOME_DETECTION, "detection", "detectionMs", "", NOT_PROMISED, NOT_PROMISED},
    {OUTCOME_PAUSE, "write pause", "writePauseMs", "switchover", 250, 500},
    {OUTCOME_BACK, "writes back, after the promotion", "writesBackMs",
     "crash hang partition back-to-back", NOT_PROMISED, 200},
    {OUTCOME_APART, "second fault, after the first", "apartMs", "back-to-back", NOT_PROMISED, 5000},
    {OUTCOME_OUT, "out of rotation, past the bound", "outMs", "lag", NOT_PROMISED, 300},
    {OUTCOME_IN, "back in rotation, once fresh", "backMs", "lag", NOT_PROMISED, 1000},
    {OUTCOME_WHOLE, "all whole again", "wholeMs", "", NOT_PROMISED, NOT_PROMISED},
    {OUTCOME_OTHERS_P99, "other shards' p99 meanwhile", "othersP99Ms", "", NOT_PROMISED,
     NOT_PROMISED},
};
#define TIME_ROWS (sizeof(time_rows) / sizeof(time_rows[0]))

static bool is_promised(const struct time_row *row, const struct outcome *outcome)
{
    const char *found = strstr(row->drills, outcome->drill);
    const size_t len = strlen(outcome->drill);
    return found && (found == row->drills || found[-1] == ' ') &&
           (found[len] == ' ' || found[len] == '\0');
}

static bool is_fast(const struct time_row *row, const struct outcome_spread *spread)
{
    return (row->p99_ms == NOT_PROMISED || spread->p99_us <= row->p99_ms * 1000LL) &&
           (row->max_ms == NOT_PROMISED || spread->max_us <= row->max_ms * 1000LL);
}

/* --- counts ----------------------------------------------------------------------------------- */

static uint64_t breaches(const struct outcome *outcome, const enum verdict_kind *kinds,
                         size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += outcome->verdict.breaches[kinds[i]];
    return sum;
}

#define SUM_OF(outcome, ...)                                                                       \
    breaches(outcome, (const enum verdict_kind[]){__VA_ARGS__},                                    \
             sizeof((const enum verdict_kind[]){__VA_ARGS__}) / sizeof(enum verdict_kind))

static int64_t count_failed(const struct outcome *outcome)
{
    return (int64_t)outcome->failed_in_bound;
}

static int64_t count_lost(const struct outcome *outcome)
{
    return (int64_t)SUM_OF(outcome, VERDICT_LOST) +
           (outcome->lossy ? 0 : (int64_t)SUM_OF(outcome, VERDICT_LOST_ASYNC));
}

static int64_t count_sold_twice(const struct outcome *outcome)
{
    return (int64_t)SUM_OF(outcome, VERDICT_SOLD_TWICE);
}

static int64_t count_stale(const struct outcome *outcome)
{
    return (int64_t)SUM_OF(outcome, VERDICT_STALE_BOUND, VERDICT_STALE_TOLD, VERDICT_TOKEN_MISSED);
}

static int64_t count_backwards(const struct outcome *outcome)
{
    return (int64_t)SUM_OF(outcome, VERDICT_BACKWARDS);
}

static int64_t count_untrue(const struct outcome *outcome)
{
    return (int64_t)SUM_OF(outcome, VERDICT_TORN, VERDICT_DENIED, VERDICT_STRANGE,
                           VERDICT_CONTRADICTION, VERDICT_FALSE_NO) +
           (outcome->lossy ? 0 : (int64_t)SUM_OF(outcome, VERDICT_UNDONE));
}

static int64_t count_drift(const struct outcome *outcome)
{
    return outcome->drift;
}

static int64_t count_others(const struct outcome *outcome)
{
    return (int64_t)outcome->others_failed;
}

static int64_t count_unkept(const struct outcome *outcome)
{
    return (int64_t)outcome->verdict.refused;
}

static const struct count_row {
    const char *label;
    const char *name;
    int64_t (*count)(const struct outcome *outcome);
} count_rows[] = {
    {"failed requests", "failedRequests", count_failed},
    {"acknowledged bookings lost", "lost", count_lost},
    {"seats sold twice", "soldTwice", count_sold_twice},
    {"reads older than asked for or told", "staleReads", count_stale},
    {"sessions that went back in time", "timeBackwards", count_backwards},
    {"answers that are not true", "untrueAnswers", count_untrue},
    {"keys that drift in Redis", "cdcDrift", count_drift},
    {"other shards' failed requests", "othersFailed", count_others},
    {"requests that the drill lost track of", "untracked", count_unkept},
};
#define COUNT_ROWS (sizeof(count_rows) / sizeof(count_rows[0]))

/* --- judging ---------------------------------------------------------------------------------- */

static bool holds(const struct report_options *options, const struct outcome *outcome)
{
    bool kept = outcome->problem[0] == '\0';
    for (size_t i = 0; i < COUNT_ROWS; i++)
        kept = kept && count_rows[i].count(outcome) == 0;
    for (size_t i = 0; options->strict && i < TIME_ROWS; i++) {
        struct outcome_spread spread =
            outcome_spread(outcome, time_rows[i].time, options->rig->max_staleness_ms * 1000, NULL);
        kept = kept && (!spread.count || !is_promised(&time_rows[i], outcome) ||
                        is_fast(&time_rows[i], &spread));
    }
    return kept;
}

/* How partitions were made; NULL if there was none. */
static const char *cut_by(const struct report_options *options, const struct outcome *outcome)
{
    for (size_t i = 0; i < outcome->count; i++) {
        if (strcmp(outcome->episodes[i].episode.drill, "partition") == 0)
            return options->rig->network ? "a network of its own" : "stopping processes";
    }
    return NULL;
}

/* --- for people ------------------------------------------------------------------------------- */

static const char *ms_text(char text[32], int64_t us)
{
    if (us < 0)
        return "-";
    if (us < 10000)
        snprintf(text, 32, "%.1f ms", (double)us / 1000);
    else if (us < 10000000)
        snprintf(text, 32, "%.0f ms", (double)us / 1000);
    else
        snprintf(text, 32, "%.1f s", (double)us / 1e6);
    return text;
}

static void add_time_row(struct dynbuf *out, const struct time_row *row,
                         const struct outcome *outcome, int64_t bound_us)
{
    char p50[32];
    char p99[32];
    char max[32];
    char promise[48] = "";
    const struct outcome_spread spread = outcome_spread(outcome, row->time, bound_us, NULL);
    const bool promised = is_promised(row, outcome);
    if (!spread.count)
        return;
    if (promised && row->p99_ms)
        snprintf(promise, sizeof(promise), "<= %d/%d", row->p99_ms, row->max_ms);
    else if (promised)
        snprintf(promise, sizeof(promise), "<= %d", row->max_ms);
    dynbuf_addf(out, "  %-34s%9s%9s%9s", row->label, ms_text(p50, spread.p50_us),
                ms_text(p99, spread.p99_us), ms_text(max, spread.max_us));
    if (promised)
        dynbuf_addf(out, "  %-11s%s", promise, is_fast(row, &spread) ? "ok" : "SLOW");
    dynbuf_addc(out, '\n');
}

/* Of a mixture: the write pause of each drill in it. */
static void add_mixture(struct dynbuf *out, const struct outcome *outcome)
{
    for (size_t i = 0; i < scenario_count; i++) {
        char p50[32];
        char p99[32];
        char max[32];
        char label[48];
        const char *name = scenarios[i].name;
        const struct outcome_spread spread = outcome_spread(outcome, OUTCOME_PAUSE, 0, name);
        if (!spread.count || strcmp(outcome->drill, name) == 0)
            continue;
        snprintf(label, sizeof(label), "%zu x %s", spread.count, name);
        dynbuf_addf(out, "    %-32s%9s%9s%9s\n", label, ms_text(p50, spread.p50_us),
                    ms_text(p99, spread.p99_us), ms_text(max, spread.max_us));
    }
}

static void add_failures(struct dynbuf *out, const struct outcome *outcome)
{
    const struct measure *all = &outcome->all;
    for (size_t i = 0; i < MEASURE_KINDS; i++) {
        if (all->failed_kinds[i])
            dynbuf_addf(out, "    %-50s%9" PRIu64 "\n", measure_kind_name(i), all->failed_kinds[i]);
    }
    if (all->not_sent + all->reads_not_sent)
        dynbuf_addf(out, "    %-50s%9" PRIu64 "\n", "not sent, too many under way",
                    all->not_sent + all->reads_not_sent);
    const uint64_t failed = all->failed + all->reads_failed + all->not_sent + all->reads_not_sent;
    if (failed > outcome->failed_in_bound)
        dynbuf_addf(out, "    %-50s%9" PRIu64 "\n", "past the bound of the buffer",
                    failed - outcome->failed_in_bound);
}

static void add_breaches(struct dynbuf *out, const struct outcome *outcome)
{
    const struct verdict *verdict = &outcome->verdict;
    for (size_t i = 0; i < VERDICT_KINDS; i++) {
        if (verdict->breaches[i])
            dynbuf_addf(out, "  ! %" PRIu64 " %s\n", verdict->breaches[i],
                        verdict_text((enum verdict_kind)i));
    }
    for (size_t i = 0; i < verdict->example_count; i++)
        dynbuf_addf(out, "    %s: %s\n", verdict_name(verdict->examples[i].kind),
                    verdict->examples[i].text);
    if (outcome->lossy)
        dynbuf_addf(out,
                    "  durability async: %" PRIu64 " acknowledged bookings went with a primary;\n"
                    "  the router had told of at most %.0f at risk\n",
                    verdict->breaches[VERDICT_LOST_ASYNC], outcome->at_risk);
    if (outcome->problem[0])
        dynbuf_addf(out, "  ! %s\n", outcome->problem);
}

static void write_text(const struct report_options *options, const struct outcome *outcome,
                       struct dynbuf *out)
{
    char before[32];
    const struct verdict *verdict = &outcome->verdict;
    const char *cuts = cut_by(options, outcome);
    dynbuf_addf(out, "%s: %zu times, %s, %d replicas, %d bookings/s for %.0f s\n", outcome->drill,
                outcome->count, options->rig->options.sync ? "sync" : "async",
                options->rig->options.replicas, options->rate, (double)outcome->load_us / 1e6);
    if (cuts)
        dynbuf_addf(out, "  cut off by %s\n", cuts);
    dynbuf_addf(out, "  %-34s%9s%9s%9s  %s\n", "", "p50", "p99", "max", "promised");
    for (size_t i = 0; i < TIME_ROWS; i++) {
        add_time_row(out, &time_rows[i], outcome, options->rig->max_staleness_ms * 1000);
        if (time_rows[i].time == OUTCOME_PAUSE)
            add_mixture(out, outcome);
    }
    dynbuf_addf(out, "  %-52s%9s\n", "p99 of all shards before it",
                ms_text(before, outcome->before_p99_us));
    for (size_t i = 0; i < COUNT_ROWS; i++) {
        const int64_t count = count_rows[i].count(outcome);
        char text[32] = "unknown";
        if (count != OUTCOME_UNKNOWN)
            snprintf(text, sizeof(text), "%" PRId64, count);
        dynbuf_addf(out, "  %-52s%9s  %-11s%s\n", count_rows[i].label, text, "0",
                    count ? "FAIL" : "ok");
        if (i == 0)
            add_failures(out, outcome);
    }
    dynbuf_addf(out,
                "  %" PRIu64 " bookings: %" PRIu64 " acknowledged, %" PRIu64 " refused, %" PRIu64
                " unknown to the client\n  %" PRIu64 " reads, %" PRIu64 " with a bound, %" PRIu64
                " with a token; %" PRIu64 " answers asked for again\n",
                verdict->bookings, verdict->outcomes[HISTORY_BOOKED],
                verdict->outcomes[HISTORY_REFUSED], verdict->outcomes[HISTORY_AMBIGUOUS],
                verdict->reads, verdict->reads_bound, verdict->reads_token, verdict->resolved);
    add_breaches(out, outcome);
    dynbuf_addf(out, "  %s\n\n", holds(options, outcome) ? "PASS" : "FAIL");
}

/* --- for programs ----------------------------------------------------------------------------- */

static void add_ms(struct dynbuf *out, const char *name, int64_t us)
{
    if (us < 0)
        dynbuf_addf(out, "\"%s\":null", name);
    else
        dynbuf_addf(out, "\"%s\":%.1f", name, (double)us / 1000);
}

static void add_spread(struct dynbuf *out, const struct time_row *row,
                       const struct outcome *outcome, int64_t bound_us)
{
    const struct outcome_spread spread = outcome_spread(outcome, row->time, bound_us, NULL);
    dynbuf_addf(out, ",\"%s\":", row->name);
    if (!spread.count) {
        dynbuf_adds(out, "null");
        return;
    }
    dynbuf_addf(out, "{\"count\":%zu,", spread.count);
    add_ms(out, "p50", spread.p50_us);
    dynbuf_addc(out, ',');
    add_ms(out, "p99", spread.p99_us);
    dynbuf_addc(out, ',');
    add_ms(out, "max", spread.max_us);
    if (is_promised(row, outcome))
        dynbuf_addf(out, ",\"promisedP99Ms\":%d,\"promisedMaxMs\":%d,\"kept\":%s", row->p99_ms,
                    row->max_ms, is_fast(row, &spread) ? "true" : "false");
    dynbuf_addc(out, '}');
}

static void add_episode(struct dynbuf *out, const struct outcome_episode *felt)
{
    const struct episode *episode = &felt->episode;
    dynbuf_addf(out, "{\"drill\":\"%s\",\"what\":\"%s\",\"shard\":", episode->drill, episode->what);
    if (episode->shard)
        dynbuf_add_json(out, episode->shard);
    else
        dynbuf_adds(out, "null");
    dynbuf_addf(out, ",\"victim\":\"%s\",\"promoted\":\"%s\",\"failed\":%" PRIu64 ",",
                episode->victim, episode->promoted, felt->failed);
    add_ms(out, "detectionMs", episode->seen_us ? episode->seen_us - episode->made_us : -1);
    dynbuf_addc(out, ',');
    add_ms(out, "writePauseMs", felt->pause_us);
    dynbuf_addc(out, ',');
    add_ms(out, "writesBackMs", felt->back_us);
    dynbuf_addc(out, ',');
    add_ms(out, "wholeMs", episode->ended_us - episode->made_us);
    dynbuf_addc(out, '}');
}

static void add_kinds(struct dynbuf *out, const struct outcome *outcome)
{
    bool first = true;
    dynbuf_adds(out, ",\"failedKinds\":{");
    for (size_t i = 0; i < MEASURE_KINDS; i++) {
        if (!outcome->all.failed_kinds[i])
            continue;
        dynbuf_addf(out, "%s\"%s\":%" PRIu64, first ? "" : ",", measure_kind_name(i),
                    outcome->all.failed_kinds[i]);
        first = false;
    }
    dynbuf_adds(out, "},\"breaches\":{");
    for (size_t i = 0; i < VERDICT_KINDS; i++)
        dynbuf_addf(out, "%s\"%s\":%" PRIu64, i ? "," : "", verdict_name((enum verdict_kind)i),
                    outcome->verdict.breaches[i]);
    dynbuf_adds(out, "},\"examples\":[");
    for (size_t i = 0; i < outcome->verdict.example_count; i++) {
        dynbuf_adds(out, i ? "," : "");
        dynbuf_add_json(out, outcome->verdict.examples[i].text);
    }
    dynbuf_addc(out, ']');
}

static void write_json(const struct report_options *options, const struct outcome *outcome,
                       struct dynbuf *out)
{
    const struct measure *all = &outcome->all;
    const struct verdict *verdict = &outcome->verdict;
    const char *cuts = cut_by(options, outcome);
    dynbuf_addf(out, "{\"drill\":\"%s\",\"holds\":%s,\"problem\":", outcome->drill,
                holds(options, outcome) ? "true" : "false");
    if (outcome->problem[0])
        dynbuf_add_json(out, outcome->problem);
    else
        dynbuf_adds(out, "null");
    dynbuf_adds(out, ",\"cutsBy\":");
    if (cuts)
        dynbuf_add_json(out, cuts);
    else
        dynbuf_adds(out, "null");
    dynbuf_addf(out, ",\"times\":%zu,\"seconds\":%.1f", outcome->count,
                (double)outcome->load_us / 1e6);
    for (size_t i = 0; i < COUNT_ROWS; i++) {
        const int64_t count = count_rows[i].count(outcome);
        if (count == OUTCOME_UNKNOWN)
            dynbuf_addf(out, ",\"%s\":null", count_rows[i].name);
        else
            dynbuf_addf(out, ",\"%s\":%" PRId64, count_rows[i].name, count);
    }
    for (size_t i = 0; i < TIME_ROWS; i++)
        add_spread(out, &time_rows[i], outcome, options->rig->max_staleness_ms * 1000);
    dynbuf_addc(out, ',');
    add_ms(out, "beforeP99Ms", outcome->before_p99_us);
    dynbuf_addf(out,
                ",\"allFailed\":%" PRIu64 ",\"notSent\":%" PRIu64 ",\"bookings\":%" PRIu64
                ",\"acknowledged\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"ambiguous\":%" PRIu64
                ",\"resolved\":%" PRIu64 ",\"reads\":%" PRIu64 ",\"atRisk\":%.0f,\"lossy\":%s",
                all->failed + all->reads_failed, all->not_sent + all->reads_not_sent,
                verdict->bookings, verdict->outcomes[HISTORY_BOOKED],
                verdict->outcomes[HISTORY_REFUSED], verdict->outcomes[HISTORY_AMBIGUOUS],
                verdict->resolved, verdict->reads, outcome->at_risk,
                outcome->lossy ? "true" : "false");
    add_kinds(out, outcome);
    dynbuf_adds(out, ",\"episodes\":[");
    for (size_t i = 0; i < outcome->count; i++) {
        dynbuf_adds(out, i ? "," : "");
        add_episode(out, &outcome->episodes[i]);
    }
    dynbuf_adds(out, "]}");
}

bool report_write(const struct report_options *options, const struct outcome *outcomes,
                  size_t count, bool json, struct dynbuf *out)
{
    bool kept = true;
    if (json)
        dynbuf_addf(out,
                    "{\"durability\":\"%s\",\"replicas\":%d,\"rate\":%d,\"seed\":%" PRIu64
                    ",\"ha\":%s,\"network\":%s,\"drills\":[",
                    options->rig->options.sync ? "sync" : "async", options->rig->options.replicas,
                    options->rate, options->seed, options->rig->options.ha ? "true" : "false",
                    options->rig->network ? "true" : "false");
    for (size_t i = 0; i < count; i++) {
        kept = kept && holds(options, &outcomes[i]);
        if (json && i)
            dynbuf_addc(out, ',');
        (json ? write_json : write_text)(options, &outcomes[i], out);
    }
    if (json)
        dynbuf_addf(out, "],\"holds\":%s}\n", kept ? "true" : "false");
    return kept;
}
