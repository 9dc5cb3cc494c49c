/*
 * Goal: what threads count comes out of a scrape summed, well-formed and complete, at any time.
 * Method: render and look for exact lines; break labels; pass the bound of series; render while
 * threads count and create series (the thread sanitizer watches).
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/metrics.h"

static struct dynbuf text;

static int setup(void **state)
{
    (void)state;
    dynbuf_init(&text, 64 * 1024 * 1024);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dynbuf_done(&text);
    metrics_shutdown();
    return 0;
}

static void render(void)
{
    dynbuf_reset(&text);
    dynbuf_addc(&text, '\n'); /* so that every line has one before it */
    metrics_render(&text);
    assert_false(text.failed);
}

static void assert_line(const char *line)
{
    char whole[512];
    snprintf(whole, sizeof(whole), "\n%s\n", line);
    if (!strstr(dynbuf_text(&text), whole))
        fail_msg("no line '%s' in:\n%s", line, dynbuf_text(&text));
}

static int count_of(const char *needle)
{
    int count = 0;
    for (const char *p = dynbuf_text(&text); (p = strstr(p, needle)); p++)
        count++;
    return count;
}

static void sets_are_summed_by_labels(void **state)
{
    const char *const ok[] = {"alpha", "ok"}, *const failed[] = {"alpha", "shard_unavailable"};
    struct metrics_set *one = metrics_set_new(), *two = metrics_set_new();
    (void)state;
    metrics_add(metrics_series(one, METRIC_BATCHES, ok), 3);
    metrics_add(metrics_series(two, METRIC_BATCHES, ok), 4);
    metrics_add(metrics_series(two, METRIC_BATCHES, failed), 1);
    metrics_set_value(metrics_series(one, METRIC_NODE_STALENESS, ok), -1);
    render();
    assert_line("# HELP seatgrid_batches_total Booking batches sent, by outcome.");
    assert_line("# TYPE seatgrid_batches_total counter");
    assert_line("seatgrid_batches_total{shard=\"alpha\",outcome=\"ok\"} 7");
    assert_line("seatgrid_batches_total{shard=\"alpha\",outcome=\"shard_unavailable\"} 1");
    assert_line("# TYPE seatgrid_node_staleness_ms gauge");
    assert_line("seatgrid_node_staleness_ms{shard=\"alpha\",node=\"ok\"} -1");
    assert_int_equal(count_of("# TYPE seatgrid_batches_total"), 1);
    assert_int_equal(count_of("seatgrid_reloads_total"), 0); /* a family without series */
}

static void a_series_is_found_again(void **state)
{
    const char *const a[] = {"x", "yz"}, *const b[] = {"xy", "z"};
    struct metrics_set *set = metrics_set_new();
    struct metrics_series *series = metrics_series(set, METRIC_BATCHES, a);
    char label[] = "x";
    const char *const copy[] = {label, "yz"};
    (void)state;
    assert_ptr_equal(metrics_series(set, METRIC_BATCHES, copy), series);
    assert_ptr_not_equal(metrics_series(set, METRIC_BATCHES, b), series);
    assert_ptr_not_equal(metrics_series(set, METRIC_DB_CONNECTS, a), series);
}

static void histograms_cumulate(void **state)
{
    const char *const node[] = {"alpha-1"};
    struct metrics_set *set = metrics_set_new();
    struct metrics_series *series = metrics_series(set, METRIC_PROBE_DURATION, node);
    (void)state;
    metrics_observe_us(series, 50); /* a bound belongs to its bucket */
    metrics_observe_us(series, 51);
    metrics_observe_us(series, 1500);
    metrics_observe_us(series, 11000000);
    metrics_observe_us(series, -5); /* a clock that misbehaves counts as 0 */
    render();
    assert_line("# TYPE seatgrid_probe_duration_seconds histogram");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"0.00005\"} 2");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"0.0001\"} 3");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"0.001\"} 3");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"0.002\"} 4");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"10\"} 4");
    assert_line("seatgrid_probe_duration_seconds_bucket{node=\"alpha-1\",le=\"+Inf\"} 5");
    assert_line("seatgrid_probe_duration_seconds_sum{node=\"alpha-1\"} 11.001601");
    assert_line("seatgrid_probe_duration_seconds_count{node=\"alpha-1\"} 5");
}

static void labels_are_escaped_and_cut(void **state)
{
    char longest[200];
    const char *const odd[] = {"a\"b\\c\nd"}, *const cut[] = {longest};
    struct metrics_set *set = metrics_set_new();
    (void)state;
    memset(longest, 'n', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    metrics_add(metrics_series(set, METRIC_REDIS_UP, odd), 1);
    struct metrics_series *series = metrics_series(set, METRIC_REDIS_UP, cut);
    longest[63] = '\0';
    assert_ptr_equal(metrics_series(set, METRIC_REDIS_UP, cut), series);
    render();
    assert_line("seatgrid_redis_up{node=\"a\\\"b\\\\c\\nd\"} 1");
    char line[256];
    snprintf(line, sizeof(line), "seatgrid_redis_up{node=\"%s\"} 0", longest);
    assert_line(line);
}

static void too_many_series_overflow_into_one(void **state)
{
    struct metrics_set *set = metrics_set_new();
    char name[16];
    const char *const labels[] = {name}, *const other[] = {"late", "ok"};
    (void)state;
    for (int i = 0; i < 2500; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        metrics_add(metrics_series(set, METRIC_REDIS_UP, labels), 1);
    }
    metrics_observe_us(metrics_series(set, METRIC_BATCH_DURATION, other), 100);
    snprintf(name, sizeof(name), "n7"); /* known ones are still found */
    metrics_add(metrics_series(set, METRIC_REDIS_UP, labels), 1);
    render();
    assert_line("seatgrid_redis_up{node=\"n7\"} 2");
    assert_line("seatgrid_redis_up{node=\"n1999\"} 1");
    assert_line("seatgrid_redis_up{node=\"overflow\"} 500");
    assert_line("seatgrid_batch_duration_seconds_count{shard=\"overflow\",node=\"overflow\"} 1");
    assert_int_equal(count_of("n2000\""), 0);
}

static void the_process_shows_itself(void **state)
{
    (void)state;
    render();
    assert_int_equal(count_of("\nprocess_resident_memory_bytes "), 1);
    assert_int_equal(count_of("\nprocess_start_time_seconds "), 1);
    assert_int_equal(count_of("\nprocess_open_fds "), 1);
    assert_int_equal(count_of("\nprocess_cpu_seconds_total "), 1);
    double start = atof(strstr(dynbuf_text(&text), "\nprocess_start_time_seconds ") + 28);
    assert_true(start > 1.6e9 && start <= (double)time(NULL) + 2);
    assert_true(atof(strstr(dynbuf_text(&text), "\nprocess_open_fds ") + 18) >= 3);
#ifndef SG_NO_JEMALLOC
    assert_int_equal(count_of("\njemalloc_allocated_bytes "), 1);
    assert_int_equal(count_of("\njemalloc_resident_bytes "), 1);
#endif
}

static void *count_a_lot(void *arg)
{
    struct metrics_set *set = metrics_set_new();
    char name[16];
    const char *const labels[] = {name};
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "t%d", i % 200);
        metrics_observe_us(metrics_series(set, METRIC_PROBE_DURATION, labels), i);
    }
    return NULL;
}

static void rendering_disturbs_nobody(void **state)
{
    pthread_t threads[3];
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_a_lot, NULL), 0);
    for (int i = 0; i < 20; i++)
        render();
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    render();
    assert_line("seatgrid_probe_duration_seconds_count{node=\"t0\"} 300");
    assert_line("seatgrid_probe_duration_seconds_count{node=\"t199\"} 300");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sets_are_summed_by_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(a_series_is_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(histograms_cumulate, setup, teardown),
        cmocka_unit_test_setup_teardown(labels_are_escaped_and_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_series_overflow_into_one, setup, teardown),
        cmocka_unit_test_setup_teardown(the_process_shows_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(rendering_disturbs_nobody, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
