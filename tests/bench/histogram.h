/*
 * A latency histogram for the bench tools: buckets of constant relative width (1/64, so 1.6 %).
 *
 * In come durations in nanoseconds, out come quantiles in milliseconds and one JSON object.
 * Fixed size, no allocation, one thread. Header only, because each tool is one file.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_BENCH_HISTOGRAM_H
#define SG_TESTS_BENCH_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUB (1 << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS ((48 - HISTOGRAM_SUB_BITS) * HISTOGRAM_SUB)

struct histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline size_t histogram_bucket(uint64_t ns)
{
    if (ns < 2 * HISTOGRAM_SUB)
        return ns;
    int shift = 63 - __builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
    size_t bucket = (size_t)(shift + 1) * HISTOGRAM_SUB + ((ns >> shift) - HISTOGRAM_SUB);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* Middle of the bucket, in nanoseconds. */
static inline double histogram_value_ns(size_t bucket)
{
    if (bucket < 2 * HISTOGRAM_SUB)
        return (double)bucket;
    int shift = (int)(bucket / HISTOGRAM_SUB) - 1;
    uint64_t low = (uint64_t)(HISTOGRAM_SUB + bucket % HISTOGRAM_SUB) << shift;
    return (double)low + (double)(UINT64_C(1) << shift) / 2;
}

static inline void histogram_add(struct histogram *histogram, int64_t duration_ns)
{
    uint64_t ns = duration_ns > 0 ? (uint64_t)duration_ns : 0;
    histogram->count++;
    histogram->sum_ns += ns;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
    histogram->buckets[histogram_bucket(ns)]++;
}

/* Smallest value that `quantile` (0..1) of all samples do not exceed; 0 without samples. */
static inline double histogram_quantile_ms(const struct histogram *histogram, double quantile)
{
    double wanted = quantile * (double)histogram->count;
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > 0 && (double)seen >= wanted)
            return histogram_value_ns(i) / 1e6;
    }
    return 0;
}

/* {"count": …, "mean": …, "p50": …, …, "max": …}, durations in milliseconds */
static inline void histogram_print(const struct histogram *histogram)
{
    static const struct {
        const char *name;
        double quantile;
    } columns[] = {{"p50", 0.5},  {"p75", 0.75},    {"p90", 0.9},      {"p95", 0.95},
                   {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
    uint64_t count = histogram->count ? histogram->count : 1;
    printf("{\"count\": %ju, \"mean\": %.4f", (uintmax_t)histogram->count,
           (double)histogram->sum_ns / (double)count / 1e6);
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        printf(", \"%s\": %.4f", columns[i].name,
               histogram_quantile_ms(histogram, columns[i].quantile));
    printf(", \"max\": %.4f}", (double)histogram->max_ns / 1e6);
}

#endif
