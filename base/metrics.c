/*
 * The metrics registry. See metrics.h.
 *
 * A set is an append-only array of series plus a hash index. The array and its length are what
 * crosses threads: the owner fills an entry, then publishes the new length with release order; a
 * renderer reads the length with acquire order and sees whole entries. Values are relaxed atomics.
 * The index is the owner's alone.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/metrics.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef SG_NO_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "base/dynbuf.h"

#define LABELS_MAX 4
#define LABEL_SIZE 64
#define SERIES_MAX 2000
#define INDEX_SIZE 4096 /* power of two, over twice SERIES_MAX */
#define CACHE_LINE 64

enum metric_type { COUNTER, GAUGE, HISTOGRAM };

static const struct {
    enum metric_type type;
    const char *name;
    const char *help;
    const char *labels[LABELS_MAX + 1]; /* ends with NULL */
} families[METRIC_FAMILY_COUNT] = {
#define X(id, metric_type, metric_name, metric_help, ...)                                          \
    [id] = {metric_type, metric_name, metric_help, {__VA_ARGS__}},
    METRICS_FAMILIES(X)
#undef X
};

static const char *const type_names[] = {"counter", "gauge", "histogram"};

/* Upper bounds of the buckets; the last bucket, +Inf, has none. */
static const struct {
    int64_t us;
    const char *seconds;
} bounds[] = {
    {50, "0.00005"}, {100, "0.0001"}, {200, "0.0002"}, {500, "0.0005"},  {1000, "0.001"},
    {2000, "0.002"}, {5000, "0.005"}, {10000, "0.01"}, {20000, "0.02"},  {30000, "0.03"},
    {60000, "0.06"}, {100000, "0.1"}, {200000, "0.2"}, {300000, "0.3"},  {500000, "0.5"},
    {1000000, "1"},  {2000000, "2"},  {5000000, "5"},  {10000000, "10"},
};
#define BOUND_COUNT (sizeof(bounds) / sizeof(bounds[0]))

struct metrics_series {
    enum metric_family family;
    char labels[LABELS_MAX][LABEL_SIZE]; /* zero-padded */
    bool used;                           /* overflow series only: somebody has it */
    int64_t value;                       /* counter, gauge; histogram: sum in microseconds */
    int64_t buckets[];                   /* histogram: BOUND_COUNT + 1 counts, not cumulated */
};

struct metrics_set {
    struct metrics_set *next;
    struct metrics_series *overflow[METRIC_FAMILY_COUNT];
    struct metrics_series *series[SERIES_MAX];
    size_t count;               /* published */
    uint16_t index[INDEX_SIZE]; /* 1 + position in series; 0: free */
};

static struct metrics_set *all_sets; /* pushed by any thread, never popped before shutdown */

static size_t label_count(enum metric_family family)
{
    size_t n = 0;
    while (families[family].labels[n])
        n++;
    return n;
}

/* NULL label_values: every label reads "overflow". */
static struct metrics_series *series_new(enum metric_family family, const char *const *label_values)
{
    size_t size = sizeof(struct metrics_series);
    if (families[family].type == HISTOGRAM)
        size += (BOUND_COUNT + 1) * sizeof(int64_t);
    size = (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct metrics_series *series = aligned_alloc(CACHE_LINE, size);
    if (!series)
        return NULL;
    memset(series, 0, size);
    series->family = family;
    for (size_t i = 0; i < label_count(family); i++)
        snprintf(series->labels[i], LABEL_SIZE, "%s", label_values ? label_values[i] : "overflow");
    return series;
}

static void set_free(struct metrics_set *set)
{
    for (size_t i = 0; i < METRIC_FAMILY_COUNT; i++)
        free(set->overflow[i]);
    for (size_t i = 0; i < set->count; i++)
        free(set->series[i]);
    free(set);
}

struct metrics_set *metrics_set_new(void)
{
    struct metrics_set *set = calloc(1, sizeof(*set));
    if (!set)
        return NULL;
    for (size_t i = 0; i < METRIC_FAMILY_COUNT; i++) {
        set->overflow[i] = series_new((enum metric_family)i, NULL);
        if (!set->overflow[i]) {
            set_free(set);
            return NULL;
        }
    }
    set->next = __atomic_load_n(&all_sets, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&all_sets, &set->next, set, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
    return set;
}

void metrics_shutdown(void)
{
    struct metrics_set *set = __atomic_exchange_n(&all_sets, NULL, __ATOMIC_ACQUIRE);
    while (set) {
        struct metrics_set *next = set->next;
        set_free(set);
        set = next;
    }
}

/* FNV-1a over what identifies a series, as far as it is stored. */
static uint32_t series_hash(enum metric_family family, const char *const *label_values)
{
    uint32_t hash = 2166136261u ^ (uint32_t)family;
    for (size_t i = 0; i < label_count(family); i++) {
        for (size_t k = 0; k < LABEL_SIZE - 1 && label_values[i][k]; k++)
            hash = (hash ^ (unsigned char)label_values[i][k]) * 16777619u;
        hash = (hash ^ 0xff) * 16777619u;
    }
    return hash;
}

static bool series_is(const struct metrics_series *series, enum metric_family family,
                      const char *const *label_values)
{
    if (series->family != family)
        return false;
    for (size_t i = 0; i < label_count(family); i++) {
        if (strncmp(series->labels[i], label_values[i], LABEL_SIZE - 1) != 0)
            return false;
    }
    return true;
}

static struct metrics_series *overflow_series(struct metrics_set *set, enum metric_family family)
{
    __atomic_store_n(&set->overflow[family]->used, true, __ATOMIC_RELAXED);
    return set->overflow[family];
}

struct metrics_series *metrics_series(struct metrics_set *set, enum metric_family family,
                                      const char *const *label_values)
{
    uint32_t slot = series_hash(family, label_values) % INDEX_SIZE;
    for (; set->index[slot]; slot = (slot + 1) % INDEX_SIZE) {
        struct metrics_series *series = set->series[set->index[slot] - 1];
        if (series_is(series, family, label_values))
            return series;
    }
    if (set->count == SERIES_MAX)
        return overflow_series(set, family);
    struct metrics_series *series = series_new(family, label_values);
    if (!series)
        return overflow_series(set, family);
    set->series[set->count] = series;
    set->index[slot] = (uint16_t)(set->count + 1);
    __atomic_store_n(&set->count, set->count + 1, __ATOMIC_RELEASE);
    return series;
}

void metrics_add(struct metrics_series *series, int64_t n)
{
    __atomic_fetch_add(&series->value, n, __ATOMIC_RELAXED);
}

void metrics_set_value(struct metrics_series *series, int64_t value)
{
    __atomic_store_n(&series->value, value, __ATOMIC_RELAXED);
}

void metrics_observe_us(struct metrics_series *series, int64_t duration_us)
{
    size_t bucket = 0;
    if (duration_us < 0)
        duration_us = 0;
    while (bucket < BOUND_COUNT && duration_us > bounds[bucket].us)
        bucket++;
    __atomic_fetch_add(&series->value, duration_us, __ATOMIC_RELAXED);
    __atomic_fetch_add(&series->buckets[bucket], 1, __ATOMIC_RELAXED);
}

/* --- rendering -------------------------------------------------------------------------------- */

/* Series of all sets, sorted so that those with the same labels are neighbours. */
struct series_list {
    struct series_item {
        const struct metrics_series *series;
    } * items;
    size_t count;
};

/* One merged series: what the sets hold for the same labels, summed. */
struct series_sum {
    const struct metrics_series *series; /* whose family and labels */
    int64_t value;
    int64_t buckets[BOUND_COUNT + 1];
};

static int compare_series(const void *left, const void *right)
{
    const struct metrics_series *a = ((const struct series_item *)left)->series;
    const struct metrics_series *b = ((const struct series_item *)right)->series;
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    return memcmp(a->labels, b->labels, sizeof(a->labels));
}

/* Bytes of `items` hold SERIES_MAX + METRIC_FAMILY_COUNT entries a set. */
static void collect_set(struct metrics_set *set, struct series_list *list)
{
    size_t count = __atomic_load_n(&set->count, __ATOMIC_ACQUIRE);
    for (size_t i = 0; i < count; i++)
        list->items[list->count++].series = set->series[i];
    for (size_t i = 0; i < METRIC_FAMILY_COUNT; i++) {
        if (__atomic_load_n(&set->overflow[i]->used, __ATOMIC_RELAXED))
            list->items[list->count++].series = set->overflow[i];
    }
}

static bool collect(struct series_list *ret_list)
{
    struct metrics_set *first = __atomic_load_n(&all_sets, __ATOMIC_ACQUIRE);
    struct series_list list = {0};
    size_t sets = 0;
    for (struct metrics_set *set = first; set; set = set->next)
        sets++;
    size_t room = sets * (SERIES_MAX + METRIC_FAMILY_COUNT);
    list.items = malloc((room ? room : 1) * sizeof(*list.items));
    if (!list.items)
        return false;
    for (struct metrics_set *set = first; set; set = set->next)
        collect_set(set, &list);
    qsort(list.items, list.count, sizeof(*list.items), compare_series);
    *ret_list = list;
    return true;
}

static void add_escaped(struct dynbuf *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\n') {
            dynbuf_adds(out, "\\n");
            continue;
        }
        if (*p == '\\' || *p == '"')
            dynbuf_addc(out, '\\');
        dynbuf_addc(out, *p);
    }
}

/* {shard="alpha",le="0.1"}; `le` may be NULL. */
static void add_labels(struct dynbuf *out, const struct metrics_series *series, const char *le)
{
    const char *const *names = families[series->family].labels;
    char before = '{';
    for (size_t i = 0; names[i]; i++, before = ',') {
        dynbuf_addc(out, before);
        dynbuf_adds(out, names[i]);
        dynbuf_adds(out, "=\"");
        add_escaped(out, series->labels[i]);
        dynbuf_addc(out, '"');
    }
    if (le) {
        dynbuf_addc(out, before);
        dynbuf_adds(out, "le=\"");
        dynbuf_adds(out, le);
        dynbuf_addc(out, '"');
        before = ',';
    }
    if (before == ',')
        dynbuf_addc(out, '}');
}

static void add_sample(struct dynbuf *out, const struct metrics_series *series, const char *suffix,
                       const char *le, int64_t value)
{
    dynbuf_adds(out, families[series->family].name);
    dynbuf_adds(out, suffix);
    add_labels(out, series, le);
    dynbuf_addc(out, ' ');
    dynbuf_add_i64(out, value);
    dynbuf_addc(out, '\n');
}

static void render_histogram(struct dynbuf *out, const struct series_sum *sum)
{
    int64_t count = 0;
    for (size_t i = 0; i <= BOUND_COUNT; i++) {
        count += sum->buckets[i];
        add_sample(out, sum->series, "_bucket", i < BOUND_COUNT ? bounds[i].seconds : "+Inf",
                   count);
    }
    dynbuf_adds(out, families[sum->series->family].name);
    dynbuf_adds(out, "_sum");
    add_labels(out, sum->series, NULL);
    dynbuf_addf(out, " %lld.%06lld\n", (long long)(sum->value / 1000000),
                (long long)(sum->value % 1000000));
    add_sample(out, sum->series, "_count", NULL, count);
}

static void sum_add(struct series_sum *sum, const struct metrics_series *series)
{
    sum->series = series;
    sum->value += __atomic_load_n(&series->value, __ATOMIC_RELAXED);
    if (families[series->family].type != HISTOGRAM)
        return;
    for (size_t i = 0; i <= BOUND_COUNT; i++)
        sum->buckets[i] += __atomic_load_n(&series->buckets[i], __ATOMIC_RELAXED);
}

static void render_list(struct dynbuf *out, const struct series_list *list)
{
    int family = -1;
    for (size_t i = 0; i < list->count;) {
        struct series_sum sum = {0};
        size_t first = i;
        for (; i < list->count && compare_series(&list->items[first], &list->items[i]) == 0; i++)
            sum_add(&sum, list->items[i].series);
        if (family != (int)sum.series->family) {
            family = (int)sum.series->family;
            dynbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", families[family].name,
                        families[family].help, families[family].name,
                        type_names[families[family].type]);
        }
        if (families[family].type == HISTOGRAM)
            render_histogram(out, &sum);
        else
            add_sample(out, sum.series, "", NULL, sum.value);
    }
}

/* --- the process itself ----------------------------------------------------------------------- */

static void add_gauge(struct dynbuf *out, const char *name, const char *help, double value)
{
    dynbuf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.15g\n", name, help, name, name, value);
}

static void render_memory(struct dynbuf *out)
{
    long pages_total, pages_resident;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return;
    if (fscanf(file, "%ld %ld", &pages_total, &pages_resident) == 2) {
        long page_bytes = sysconf(_SC_PAGESIZE);
        add_gauge(out, "process_resident_memory_bytes", "Resident memory.",
                  (double)pages_resident * (double)page_bytes);
        add_gauge(out, "process_virtual_memory_bytes", "Virtual memory.",
                  (double)pages_total * (double)page_bytes);
    }
    fclose(file);
}

/* Seconds since 1970 at which the machine started; 0 if unknown. */
static long long boot_time_s(void)
{
    char line[256];
    long long boot_s = 0;
    FILE *file = fopen("/proc/stat", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "btime %lld", &boot_s) == 1)
            break;
    }
    fclose(file);
    return boot_s;
}

static void render_start_time(struct dynbuf *out)
{
    char line[1024];
    unsigned long long ticks;
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return;
    /* Field 22; the command name, field 2, may hold spaces and ends with the last ')'. */
    char *after_name = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
    fclose(file);
    if (!after_name || sscanf(after_name + 1,
                              " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
                              "%*d %*d %*d %llu",
                              &ticks) != 1)
        return;
    long long boot_s = boot_time_s();
    if (boot_s)
        add_gauge(out, "process_start_time_seconds", "Start of the process, since 1970 UTC.",
                  (double)boot_s + (double)ticks / (double)sysconf(_SC_CLK_TCK));
}

static void render_open_fds(struct dynbuf *out)
{
    DIR *dir = opendir("/proc/self/fd");
    long count = -1; /* without the directory's own */
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += entry->d_name[0] != '.';
    closedir(dir);
    add_gauge(out, "process_open_fds", "Open file descriptors.", (double)count);
}

static void render_cpu(struct dynbuf *out)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    long long us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL +
                   usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    dynbuf_addf(out,
                "# HELP process_cpu_seconds_total User and system time.\n"
                "# TYPE process_cpu_seconds_total counter\n"
                "process_cpu_seconds_total %lld.%06lld\n",
                us / 1000000, us % 1000000);
}

#ifndef SG_NO_JEMALLOC
static void render_jemalloc(struct dynbuf *out)
{
    static const struct {
        const char *stat;
        const char *name;
        const char *help;
    } figures[] = {
        {"stats.allocated", "jemalloc_allocated_bytes", "Bytes the program has allocated."},
        {"stats.active", "jemalloc_active_bytes", "Bytes in pages that hold allocations."},
        {"stats.resident", "jemalloc_resident_bytes", "Bytes the allocator keeps resident."},
    };
    uint64_t epoch = 1;
    mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)); /* else the figures are old */
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        size_t value, size = sizeof(value);
        if (mallctl(figures[i].stat, &value, &size, NULL, 0) == 0)
            add_gauge(out, figures[i].name, figures[i].help, (double)value);
    }
}
#else
static void render_jemalloc(struct dynbuf *out)
{
    (void)out;
}
#endif

void metrics_render(struct dynbuf *out)
{
    struct series_list list;
    if (!collect(&list)) {
        out->failed = true;
        return;
    }
    render_list(out, &list);
    free(list.items);
    render_memory(out);
    render_start_time(out);
    render_open_fds(out);
    render_cpu(out);
    render_jemalloc(out);
}
