/*
 * What loadgen has found, as one JSON object on stdout.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_LOADGEN_REPORT_H
#define SG_TESTS_BENCH_LOADGEN_REPORT_H

#include <stdio.h>
#include <sys/resource.h>

#include "tests/bench/loadgen_run.h"

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_rate(const char *name, uint64_t count, int64_t from_ns, int64_t to_ns)
{
    double seconds = to_ns > from_ns ? (double)(to_ns - from_ns) / (double)SECOND_NS : 0;
    printf(
        "\"%s\": {\"answers\": %ju, \"seconds\": %.3f, \"answers_per_s\": %.1f, \"latency_ms\": ",
        name, (uintmax_t)count, seconds, seconds > 0 ? (double)count / seconds : 0.0);
}

static void print_counters(const struct run *run)
{
    const struct tally *tally = &run->tally;
    const struct {
        const char *name;
        uint64_t value;
    } counters[] = {
        {"asked", tally->asked},
        {"answers", tally->answers},
        {"dropped", tally->dropped},
        {"timeouts", tally->timeouts},
        {"garbage", tally->garbage},
        {"unanswered", run->waiting},
        {"unsent", run->options.rate ? loadgen_arrivals(&run->options) - tally->asked : 0},
        {"connects", tally->connects},
        {"connect_errors", tally->connect_errors},
        {"misrouted", tally->misrouted},
        {"unrouted", tally->unrouted},
        {"map_version_backwards", tally->version_backwards},
        {"map_version_min", (uint64_t)tally->version_min},
        {"map_version_max", (uint64_t)tally->version_max},
        {"walk_wrapped", tally->walk_wrapped},
        {"walked", run->walked},
        {"pairs", tally->pairs},
        {"bytes", tally->bytes}};
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        printf("\"%s\": %ju,\n ", counters[i].name, (uintmax_t)counters[i].value);
}

static void loadgen_report(const struct run *run)
{
    const struct tally *tally = &run->tally;
    printf("{");
    print_counters(run);
    printf("\"cpu_seconds\": %.3f,\n \"statuses\": {", cpu_seconds());
    const char *comma = "";
    for (int i = 0; i < 600; i++) {
        if (!tally->statuses[i])
            continue;
        printf("%s\"%d\": %ju", comma, i, (uintmax_t)tally->statuses[i]);
        comma = ", ";
    }
    printf("},\n ");
    print_rate("run", tally->answers, run->start_ns, run->last_answer_ns);
    histogram_print(&tally->all);
    printf("},\n ");
    print_rate("hold", tally->hold.count, run->hold_ns, run->hold_answer_ns);
    histogram_print(&tally->hold);
    printf("},\n \"ok_latency_ms\": ");
    histogram_print(&tally->ok);
    printf(",\n \"refused_latency_ms\": ");
    histogram_print(&tally->refused);
    printf("}\n");
}

#endif
