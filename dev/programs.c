/*
 * The programs of ours in a local cluster. See programs.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/programs.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "cli/admin_client.h"
#include "dev/process.h"

#define READY_TIMEOUT_MS 60000
#define ASK_TIMEOUT_MS 2000
#define GRACEFUL_STOP_MS 20000
#define HARD_STOP_MS 5000

static char *pid_path(char *ret_path, const struct cluster *cluster, const struct server *program)
{
    return cluster_path(ret_path, "%s/run/%s.pid", cluster->var, program->name);
}

void program_inspect(struct cluster *cluster, struct server *program)
{
    char path[CLUSTER_PATH_MAX];
    program->id.pid = 0;
    process_file_read(pid_path(path, cluster, program), &program->id);
}

/* One look. Fills `ret_why` with what stood in the way. */
static bool is_ready(const struct server *program, char *ret_why, size_t size)
{
    const char *path = strcmp(program->name, "serve") == 0 ? "/readyz" : "/healthz";
    char address[64];
    int status = 0;
    struct dynbuf body;
    snprintf(address, sizeof(address), "127.0.0.1:%d", program->port);
    dynbuf_init(&body, 1 << 16);
    enum sg_error error =
        admin_call(address, "GET", path, NULL, 0, ASK_TIMEOUT_MS, &status, &body, ret_why, size);
    if (!error)
        snprintf(ret_why, size, "%s says %d: %s", path, status, dynbuf_text(&body));
    dynbuf_done(&body);
    return !error && status == 200;
}

static enum sg_error wait_ready(struct cluster *cluster, struct server *program)
{
    char why[512] = "";
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * 1000;
    while (!is_ready(program, why, sizeof(why))) {
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&program->id)) {
            cluster_show_log(cluster, program->name);
            return cluster_fail(cluster, "seatgrid %s has ended", program->name);
        }
        if (clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, program->name);
            return cluster_fail(cluster, "seatgrid %s is not ready after %d s; %s", program->name,
                                READY_TIMEOUT_MS / 1000, why);
        }
        process_sleep_ms(20);
    }
    return SG_OK;
}

enum sg_error program_start(struct cluster *cluster, struct server *program)
{
    char binary[CLUSTER_PATH_MAX];
    char config[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char pid[CLUSTER_PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", binary, sizeof(binary) - 1);
    if (len < 0)
        return cluster_fail(cluster, "cannot find this program's own file: %m");
    binary[len] = '\0';
    cluster_path(config, "%s/seatgrid.cfg", cluster->var);
    cluster_path(log, "%s/log/%s.log", cluster->var, program->name);
    const char *const argv[] = {binary, program->name, "-c", config, NULL};
    char listen[64], secret[CLUSTER_PATH_MAX], journal[CLUSTER_PATH_MAX];
    snprintf(listen, sizeof(listen), "127.0.0.1:%d", program->port);
    cluster_path(secret, "%s/" CLUSTER_SECRET_FILE, cluster->var);
    cluster_path(journal, "%s/mockpay.journal", cluster->var);
    const char *const mockpay[] = {binary, program->name, "--listen", listen, "--secret-file",
                                   secret, "--state",     journal,    NULL};
    struct process_spec spec = {.argv = program == &cluster->mockpay ? mockpay : argv,
                                .log_path = log,
                                .signal_on_parent_death =
                                    cluster->options.foreground ? SIGTERM : 0};
    if (process_start(&spec, &program->id) != SG_OK)
        return cluster_fail(cluster, "%s: cannot start: %m", program->name);
    program->started_here = true;
    if (process_file_write(pid_path(pid, cluster, program), &program->id) != SG_OK)
        return cluster_fail(cluster, "cannot write %s: %m", pid);
    return wait_ready(cluster, program);
}

bool program_stop(struct cluster *cluster, struct server *program)
{
    program_inspect(cluster, program);
    return process_stop(&program->id, SIGTERM, GRACEFUL_STOP_MS) ||
           process_stop(&program->id, SIGKILL, HARD_STOP_MS);
}
