/*
 * Processes of the local cluster: a process is known by pid and start time, and nobody else is hit.
 *
 * Goal: a zombie, a process of the past and a stranger with a recycled pid count as gone; stopping
 * wakes a frozen process and gives up in time on one that does not listen; a child gets a session
 * of its own and none of the caller's signals or PG* variables. Method: real children, small shell
 * scripts, pid files written by hand.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/process.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

static char folder[] = "/tmp/seatgrid-process-XXXXXX";
static char log_path[64];
static char pid_path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(log_path, sizeof(log_path), "%s/log", folder);
    snprintf(pid_path, sizeof(pid_path), "%s/pid", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(log_path);
    unlink(pid_path);
    return rmdir(folder);
}

static struct process_id start(const char *script)
{
    struct process_id id;
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    struct process_spec spec = {.argv = argv, .log_path = log_path};
    assert_int_equal(process_start(&spec, &id), SG_OK);
    assert_true(process_alive(&id));
    return id;
}

static enum sg_error run(const char *script, const char *input, int64_t timeout_ms)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    struct process_spec spec = {.argv = argv, .log_path = log_path, .stdin_text = input};
    unlink(log_path);
    return process_run(&spec, timeout_ms);
}

static const char *read_log(void)
{
    static char text[4096];
    FILE *file = fopen(log_path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void test_run_reports_the_end(void **state)
{
    (void)state;
    assert_int_equal(run("exit 0", NULL, 10000), SG_OK);
    assert_int_equal(run("exit 3", NULL, 10000), SG_IO);
    assert_int_equal(run("kill -9 $$", NULL, 10000), SG_IO);
    int64_t before_us = clock_mono_us();
    assert_int_equal(run("sleep 60", NULL, 200), SG_DEADLINE);
    assert_true(clock_mono_us() - before_us < 10000000);
}

static void test_missing_program_says_so_in_the_log(void **state)
{
    (void)state;
    const char *const argv[] = {"/nonexistent/program", NULL};
    struct process_spec spec = {.argv = argv, .log_path = log_path};
    unlink(log_path);
    assert_int_equal(process_run(&spec, 10000), SG_IO);
    assert_non_null(strstr(read_log(), "cannot run /nonexistent/program"));
}

static void test_child_reads_its_text_and_nothing_of_psql(void **state)
{
    (void)state;
    setenv("PGHOST", "elsewhere", 1);
    setenv("PGOPTIONS", "-c work_mem=1", 1);
    setenv("ETCD_NAME", "mine", 1);
    setenv("PATRONI_SCOPE", "mine", 1);
    setenv("ETCD", "stays", 1);
    assert_int_equal(
        run("cat; echo \"[$PGHOST$PGOPTIONS$ETCD_NAME$PATRONI_SCOPE$ETCD]\"", "hello\n", 10000),
        SG_OK);
    static const char *const names[] = {"PGHOST", "PGOPTIONS", "ETCD_NAME", "PATRONI_SCOPE",
                                        "ETCD"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    assert_string_equal(read_log(), "hello\n[stays]\n");
}

static void test_child_leads_a_session_and_takes_no_descriptors(void **state)
{
    (void)state;
    int leak = dup(STDERR_FILENO);
    struct process_id id = start("sleep 60");
    for (int i = 0; i < 100 && getsid(id.pid) != id.pid; i++)
        process_sleep_ms(20);
    assert_int_equal(getsid(id.pid), id.pid);
    assert_int_equal(run("ls /proc/$$/fd | sort -n | tail -1", NULL, 10000), SG_OK);
    assert_true(atoi(read_log()) <= 10); /* dash keeps its script, if at all, on 10 */
    assert_true(process_stop(&id, SIGTERM, 5000));
    close(leak);
}

static void test_zombie_counts_as_dead(void **state)
{
    (void)state;
    struct process_id found;
    struct process_id id = start("sleep 60");
    kill(id.pid, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)id.pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(kill(id.pid, 0), 0); /* the trap: it still answers */
    assert_false(process_alive(&id));
    assert_false(process_identify(id.pid, &found));
    process_reap();
    assert_int_equal(kill(id.pid, 0), -1);
}

static void test_a_recycled_pid_is_a_stranger(void **state)
{
    (void)state;
    struct process_id id = start("sleep 60");
    struct process_id past = {.pid = id.pid, .start_ticks = id.start_ticks - 1};
    assert_false(process_alive(&past));
    assert_true(process_stop(&past, SIGKILL, 1000)); /* gone already, as far as it is concerned */
    assert_true(process_alive(&id));
    assert_true(process_stop(&id, SIGTERM, 5000));
}

static void test_stop_wakes_the_frozen_and_gives_up_on_the_deaf(void **state)
{
    (void)state;
    struct process_id frozen = start("sleep 60");
    kill(frozen.pid, SIGSTOP);
    assert_true(process_stop(&frozen, SIGTERM, 5000));

    struct process_id deaf = start("trap '' TERM; while :; do sleep 0.05; done");
    process_sleep_ms(200); /* until the trap stands */
    assert_false(process_stop(&deaf, SIGTERM, 300));
    assert_true(process_stop(&deaf, SIGKILL, 5000));
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_pid_file_is_believed_only_for_the_living(void **state)
{
    (void)state;
    char text[128];
    struct process_id id = start("sleep 60");
    struct process_id found = {0};
    assert_int_equal(process_file_write(pid_path, &id), SG_OK);
    assert_true(process_file_read(pid_path, &found));
    assert_int_equal(found.pid, id.pid);

    static const char *const bad[] = {"", "x", "12", "-1 5 boot", "1 1 no-such-boot", "\xff\xfe"};
    found = (struct process_id){.pid = 77};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(pid_path, bad[i]);
        assert_false(process_file_read(pid_path, &found));
    }
    snprintf(text, sizeof(text), "%d %llu another-boot\n", (int)id.pid,
             (unsigned long long)id.start_ticks);
    write_text(pid_path, text);
    assert_false(process_file_read(pid_path, &found));
    assert_int_equal(found.pid, 77);

    assert_int_equal(process_file_write(pid_path, &id), SG_OK);
    assert_true(process_stop(&id, SIGTERM, 5000));
    assert_false(process_file_read(pid_path, &found));
    assert_false(process_file_read("/nonexistent/pid", &found));
}

static void test_lives_in_finds_a_working_folder(void **state)
{
    (void)state;
    char script[128];
    assert_false(process_lives_in(folder));
    assert_false(process_lives_in("/nonexistent"));
    snprintf(script, sizeof(script), "cd %s && exec sleep 60", folder);
    struct process_id id = start(script);
    for (int i = 0; i < 100 && !process_lives_in(folder); i++)
        process_sleep_ms(20);
    assert_true(process_lives_in(folder));
    assert_true(process_stop(&id, SIGTERM, 5000));
    assert_false(process_lives_in(folder));
}

static bool becomes_stopped(const struct process_id *id, bool wanted)
{
    for (int i = 0; i < 250 && process_stopped(id) != wanted; i++)
        process_sleep_ms(20);
    return process_stopped(id) == wanted;
}

static void test_signals_reach_all_in_a_folder_and_nobody_else(void **state)
{
    (void)state;
    char script[128];
    assert_int_equal(process_signal_in(folder, SIGCONT), 0);
    assert_int_equal(process_signal_in("/nonexistent", SIGCONT), 0);
    struct process_id stranger = start("sleep 60");
    snprintf(script, sizeof(script), "cd %s && sleep 60 & cd %s && exec sleep 60", folder, folder);
    struct process_id id = start(script);
    for (int i = 0; i < 250 && process_signal_in(folder, SIGCONT) < 2; i++)
        process_sleep_ms(20);

    assert_int_equal(process_signal_in(folder, SIGSTOP), 2);
    assert_true(becomes_stopped(&id, true));
    assert_false(process_stopped(&stranger));
    assert_int_equal(process_signal_in(folder, SIGCONT), 2);
    assert_true(becomes_stopped(&id, false));
    assert_int_equal(process_signal_in(folder, SIGKILL), 2);
    for (int i = 0; i < 250 && process_lives_in(folder); i++)
        process_sleep_ms(20);
    assert_false(process_lives_in(folder));
    assert_false(process_alive(&id));
    assert_false(process_stopped(&id));
    assert_true(process_alive(&stranger));
    assert_true(process_stop(&stranger, SIGTERM, 5000));
}

static void test_a_signal_ends_a_wait(void **state)
{
    (void)state;
    process_catch_signals();
    assert_false(process_interrupted());
    raise(SIGTERM);
    assert_true(process_interrupted());
    int64_t before_us = clock_mono_us();
    assert_int_equal(run("sleep 60", NULL, 60000), SG_IO);
    assert_true(clock_mono_us() - before_us < 10000000);
    process_interrupt_reset();
    assert_false(process_interrupted());
    assert_int_equal(run("exit 0", NULL, 10000), SG_OK);
}

static void test_children_get_default_signals(void **state)
{
    (void)state;
    process_catch_signals(); /* ignores SIGPIPE, which a child would inherit */
    assert_int_equal(run("kill -PIPE $$; exit 0", NULL, 10000), SG_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_reports_the_end),
        cmocka_unit_test(test_missing_program_says_so_in_the_log),
        cmocka_unit_test(test_child_reads_its_text_and_nothing_of_psql),
        cmocka_unit_test(test_child_leads_a_session_and_takes_no_descriptors),
        cmocka_unit_test(test_zombie_counts_as_dead),
        cmocka_unit_test(test_a_recycled_pid_is_a_stranger),
        cmocka_unit_test(test_stop_wakes_the_frozen_and_gives_up_on_the_deaf),
        cmocka_unit_test(test_pid_file_is_believed_only_for_the_living),
        cmocka_unit_test(test_lives_in_finds_a_working_folder),
        cmocka_unit_test(test_signals_reach_all_in_a_folder_and_nobody_else),
        cmocka_unit_test(test_a_signal_ends_a_wait),
        cmocka_unit_test(test_children_get_default_signals),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
