/*
 * Drills, from the start of the cluster to the report. See drill.h.
 *
 *   guard ─fork─> rig up ─> for each scenario: rounds ─> report ─> rig down
 *                                                 │
 *     load, calm, episodes, drain, whole, reconcile, truth, verdict
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/drill.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "cli/cli.h"
#include "dev/process.h"
#include "drill/history.h"
#include "drill/load.h"
#include "drill/outcome.h"
#include "drill/report.h"
#include "drill/scenario.h"
#include "drill/truth.h"
#include "drill/verdict.h"

#define HISTORY_BYTES ((size_t)2 << 30)
#define STEADY_TIMEOUT_MS 60000
#define POLL_MS 20
#define CALM_MS 2000   /* before the first fault: how the load fares when nothing is wrong */
#define DRAIN_MS 40000 /* longer than a client asks again */
#define WHOLE_TIMEOUT_MS 30000 /* it was whole a moment ago */
#define RECONCILE_TIMEOUT_MS 120000
#define REPORT_BYTES_MAX ((size_t)64 << 20)
#define ROUND_FAULTS 20  /* of random: then the databases are asked, and the history begins anew */
#define FAULT_SECONDS 20 /* with its healing, generously: sizes the load's events */
#define DEFAULT_SECONDS 10
#define DEFAULT_RATE 300
#define RANDOM_FAULTS 50
#define RANDOM_SECONDS 3600

struct drill {
    struct drill_options options;
    struct rig rig;
    uint64_t random;  /* state of the drill's own dice: one seed, one sequence of faults */
    int64_t until_us; /* random: no new fault after it */
};

static const char *const shards[] = {"alpha", "beta"};
#define SHARD_COUNT (sizeof(shards) / sizeof(shards[0]))

/* xorshift64*; n > 0. */
static size_t throw_dice(struct drill *drill, size_t n)
{
    drill->random ^= drill->random >> 12;
    drill->random ^= drill->random << 25;
    drill->random ^= drill->random >> 27;
    return (size_t)((drill->random * 2685821657736338717ULL) >> 33) % n;
}

/* Progress, for whoever waits; never among the report. */
static void say(const struct drill *drill, const struct episode *episode, enum sg_error error)
{
    if (drill->options.json && !isatty(STDERR_FILENO))
        return;
    char servers[160];
    snprintf(servers, sizeof(servers), "%s%s%s", episode->victim,
             episode->promoted[0] ? " -> " : "", episode->promoted);
    fprintf(stderr, "  %-12s  %-22s  %-18s %6.1f s%s\n", episode->drill, episode->what, servers,
            (double)(episode->ended_us - episode->made_us) / 1e6, error ? "  FAILED" : "");
}

/* --- a round ---------------------------------------------------------------------------------- */

static void sleep_until(int64_t until_us)
{
    while (!process_interrupted() && clock_mono_us() < until_us)
        process_sleep_ms(20);
}

/* What the next episode is. */
static const struct scenario *choose(struct drill *drill, const struct scenario *scenario,
                                     size_t number, size_t *ret_variant, size_t *ret_shard)
{
    if (scenario) {
        const size_t variants = scenario_variants(scenario, &drill->rig);
        *ret_variant = variants ? number % variants : 0;
        *ret_shard = variants ? number / variants % SHARD_COUNT : 0;
        return scenario;
    }
    do
        scenario = &scenarios[throw_dice(drill, scenario_count)];
    while (!scenario_variants(scenario, &drill->rig));
    *ret_variant = throw_dice(drill, scenario_variants(scenario, &drill->rig));
    *ret_shard = throw_dice(drill, SHARD_COUNT);
    return scenario;
}

static enum sg_error start_load(struct drill *drill, struct history *history, int faults,
                                struct load **ret_load)
{
    struct load_options options;
    struct rig *rig = &drill->rig;
    load_options_init(&options);
    options.address = rig->http;
    options.shards = shards;
    options.shard_count = SHARD_COUNT;
    options.bookings_per_s = drill->options.rate;
    options.reads_per_s = drill->options.rate / 3 + 1;
    options.expected_s = faults * FAULT_SECONDS + drill->options.seconds + CALM_MS / 1000;
    options.seed = drill->options.seed;
    char why[256];
    if (load_start(&options, history, ret_load, why, sizeof(why)))
        return rig_fail(rig, "the load cannot start: %s", why);
    if (!load_wait_steady(*ret_load, STEADY_TIMEOUT_MS))
        return rig_fail(rig,
                        "the load of %d bookings a second is not answered at its rate; a lower"
                        " --rate may do",
                        drill->options.rate);
    return SG_OK;
}

/* Redis against PostgreSQL, and the history against PostgreSQL, once all is still. */
static enum sg_error judge(struct drill *drill, const struct history *history,
                           struct outcome *outcome, struct verdict *ret_verdict)
{
    struct rig *rig = &drill->rig;
    struct truth *truth = NULL;
    char why[256];
    int64_t drift;
    enum sg_error error = rig_await_whole(rig, WHOLE_TIMEOUT_MS);
    if (!error)
        error = rig_reconcile(rig, RECONCILE_TIMEOUT_MS, &drift);
    if (!error)
        outcome->drift = (outcome->drift == OUTCOME_UNKNOWN ? 0 : outcome->drift) + drift;
    /* Even if Redis could not be compared: what was sold can still be judged. */
    enum sg_error read = truth_read(rig->map, history, &truth, why, sizeof(why));
    if (read)
        return rig_fail(rig, "the databases cannot be asked: %s", why);
    if (verdict_judge(history, truth, ret_verdict))
        error = rig_fail(rig, "no memory for the verdict");
    truth_free(truth);
    return error;
}

/* Plays episodes until there are `faults` of them, or one fails. The number played. */
static size_t play(struct drill *drill, const struct scenario *scenario, struct load *load,
                   size_t faults, struct episode *ret_episodes, enum sg_error *ret_error)
{
    struct stage stage = {
        .rig = &drill->rig, .load = load, .shards = shards, .shard_count = SHARD_COUNT};
    size_t count = 0;
    while (count < faults && !*ret_error && !process_interrupted() &&
           (!drill->until_us || clock_mono_us() < drill->until_us)) {
        size_t variant;
        size_t shard;
        const struct scenario *next = choose(drill, scenario, count, &variant, &shard);
        *ret_error = scenario_play(next, variant, shard, &stage, &ret_episodes[count]);
        say(drill, &ret_episodes[count], *ret_error);
        count++;
    }
    if (!*ret_error && process_interrupted())
        *ret_error = rig_fail(&drill->rig, "interrupted");
    return count;
}

/* Every request and answer, for whoever looks into it: with --keep into its folder. */
static void keep_history(const struct drill *drill, const struct outcome *outcome,
                         const struct history *history)
{
    char path[CLUSTER_PATH_MAX];
    if (!drill->options.rig.keep)
        return;
    cluster_path(path, "%s/history-%s-%d.jsonl", drill->options.rig.keep, outcome->drill,
                 outcome->rounds);
    FILE *file = fopen(path, "we");
    if (!file || !history_write(history, file))
        fprintf(stderr, "seatgrid: %s: %s\n", path, strerror(errno));
    if (file)
        fclose(file);
}

/* One load with `faults` episodes in it, judged and added to the outcome; what went wrong stands
 * there. scenario NULL: any. */
static void play_round(struct drill *drill, const struct scenario *scenario, size_t faults,
                       struct outcome *outcome)
{
    struct rig *rig = &drill->rig;
    struct history *history =
        history_new(HISTORY_BYTES, (uint64_t)getpid() << 32 | (uint64_t)clock_mono_us() >> 10);
    struct episode *episodes = calloc(faults, sizeof(*episodes));
    struct outcome_round round = {.history = history, .episodes = episodes};
    struct verdict verdict = {0};
    struct load *load = NULL;
    enum sg_error error = SG_NO_MEMORY;
    const int64_t began_us = clock_mono_us();
    if (history && episodes)
        error = start_load(drill, history, (int)faults, &load);
    if (!error) {
        round.calm_from_us = clock_mono_us();
        sleep_until(round.calm_from_us + CALM_MS * 1000);
        round.calm_to_us = clock_mono_us();
        round.episode_count = play(drill, scenario, load, faults, episodes, &error);
        if (!error && scenario)
            sleep_until(began_us + drill->options.seconds * 1000000LL);
    }
    if (error)
        snprintf(outcome->problem, sizeof(outcome->problem), "%s", rig->problem);
    if (load) {
        load_stop(load, process_interrupted() ? 0 : DRAIN_MS);
        error = judge(drill, history, outcome, &verdict);
        if (error && !outcome->problem[0])
            snprintf(outcome->problem, sizeof(outcome->problem), "%s", rig->problem);
        if (!error && !verdict.outcomes[HISTORY_BOOKED])
            snprintf(outcome->problem, sizeof(outcome->problem), "nothing was booked");
        round.verdict = &verdict;
        if (outcome_add(outcome, &round) && !outcome->problem[0])
            snprintf(outcome->problem, sizeof(outcome->problem), "out of memory");
        keep_history(drill, outcome, history);
    }
    load_free(load);
    history_free(history);
    free(episodes);
}

/* --- drills ----------------------------------------------------------------------------------- */

static void play_scenario(struct drill *drill, const struct scenario *scenario,
                          struct outcome *outcome)
{
    const size_t variants = scenario_variants(scenario, &drill->rig);
    const size_t faults =
        drill->options.times == DRILL_UNSET ? variants : (size_t)drill->options.times;
    outcome_init(outcome, scenario->name, drill->rig.deadline_ms);
    if (variants)
        play_round(drill, scenario, faults, outcome);
    else
        snprintf(outcome->problem, sizeof(outcome->problem),
                 "wants more replicas than %d a shard%s", drill->rig.options.replicas,
                 drill->rig.options.sync ? " with durability sync" : "");
}

static void play_random(struct drill *drill, struct outcome *outcome)
{
    const size_t faults =
        drill->options.times == DRILL_UNSET ? RANDOM_FAULTS : (size_t)drill->options.times;
    outcome_init(outcome, DRILL_RANDOM, drill->rig.deadline_ms);
    drill->until_us = clock_mono_us() + drill->options.seconds * 1000000LL;
    while (outcome->count < faults && !outcome->problem[0] && clock_mono_us() < drill->until_us) {
        const size_t left = faults - outcome->count;
        play_round(drill, NULL, left < ROUND_FAULTS ? left : ROUND_FAULTS, outcome);
    }
}

static int play_all(struct drill *drill)
{
    struct outcome outcomes[16];
    size_t count = 0;
    const char *name = drill->options.name;
    if (strcmp(name, DRILL_RANDOM) == 0) {
        play_random(drill, &outcomes[count++]);
    } else {
        /* A cluster that could not be healed is no place for the next drill. */
        bool healed = true;
        for (size_t i = 0; i < scenario_count && healed; i++) {
            const bool all = strcmp(name, DRILL_ALL) == 0;
            if ((!all && strcmp(name, scenarios[i].name) != 0) ||
                (all && !scenario_variants(&scenarios[i], &drill->rig)))
                continue;
            play_scenario(drill, &scenarios[i], &outcomes[count]);
            healed = !outcomes[count++].problem[0];
        }
    }
    const struct report_options how = {.rig = &drill->rig,
                                       .rate = drill->options.rate,
                                       .seed = drill->options.seed,
                                       .strict = drill->options.strict};
    struct dynbuf text;
    dynbuf_init(&text, REPORT_BYTES_MAX);
    bool kept = report_write(&how, outcomes, count, drill->options.json, &text);
    fputs(dynbuf_text(&text), stdout);
    dynbuf_done(&text);
    for (size_t i = 0; i < count; i++)
        outcome_done(&outcomes[i]);
    return kept && count ? 0 : 1;
}

/* --- the process that does it ----------------------------------------------------------------- */

static int work(struct drill *drill)
{
    int code = 1;
    process_catch_signals();
    if (rig_up(&drill->rig))
        fprintf(stderr, "seatgrid: %s\n", drill->rig.problem);
    else
        code = play_all(drill);
    rig_down(&drill->rig);
    return code;
}

/* Waits for the worker; hands a signal on, once. Its exit code, or 1 if it was killed. */
static int guard(pid_t worker)
{
    int status = 0;
    bool told = false;
    while (waitpid(worker, &status, WNOHANG) == 0) {
        if (process_interrupted() && !told)
            kill(worker, SIGTERM);
        told = process_interrupted();
        process_sleep_ms(POLL_MS);
    }
    if (WIFSIGNALED(status))
        fprintf(stderr, "seatgrid: the drill died of signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int drill_run(const struct drill_options *options)
{
    struct drill *drill = calloc(1, sizeof(*drill));
    int code = 1;
    if (!drill)
        return 1;
    drill->options = *options;
    drill->random = options->seed * 2 + 1;
    if (drill->options.seconds == DRILL_UNSET)
        drill->options.seconds =
            strcmp(options->name, DRILL_RANDOM) == 0 ? RANDOM_SECONDS : DEFAULT_SECONDS;
    if (drill->options.rate == DRILL_UNSET)
        drill->options.rate = DEFAULT_RATE;
    process_catch_signals();
    cli_raise_descriptor_limit();
    if (rig_init(&drill->rig, &options->rig)) {
        fprintf(stderr, "seatgrid: %s\n", drill->rig.problem);
        free(drill);
        return 1;
    }
    fflush(NULL);
    const pid_t parent = getpid();
    const pid_t worker = fork();
    if (worker == 0) {
        /* A Ctrl-C on the terminal comes once, by way of the parent. */
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        code = getppid() == parent ? work(drill) : 1;
    } else if (worker > 0) {
        code = guard(worker);
        rig_down(&drill->rig);
    }
    free(drill);
    if (worker == 0)
        exit(code);
    return code;
}
