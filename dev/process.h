/*
 * Processes of the local cluster: started, told apart from strangers, waited for, stopped.
 *
 * A process is known by pid and start time, so that a pid which now belongs to somebody else is
 * never signalled. A zombie counts as dead. Started processes leave the caller's session, so a
 * Ctrl-C on the terminal reaches only the command, which then stops them in its order.
 * Blocking waits end early once a signal asked the command to stop (process_interrupted).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PROCESS_H
#define SG_DEV_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct process_id {
    pid_t pid;            /* 0: none */
    uint64_t start_ticks; /* since boot, /proc/<pid>/stat */
};

struct process_user {
    bool change; /* false: run as the caller */
    uid_t uid;
    gid_t gid;
};

struct process_spec {
    const char *const *argv; /* argv[0] is the path */
    struct process_user user;
    const char *log_path;       /* standard output and error are appended to it */
    const char *stdin_text;     /* NULL for none; at most 4 KiB */
    int signal_on_parent_death; /* 0: it outlives the caller */
};

/* SIGINT, SIGTERM and SIGHUP set the flag from now on; SIGPIPE is ignored. */
void process_catch_signals(void);
bool process_interrupted(void);
/* Forgets a signal that came, so that stopping can wait in peace; the next one sets it again. */
void process_interrupt_reset(void);
/* Sleeps, or less when a signal comes. */
void process_sleep_ms(int64_t duration_ms);

enum sg_error process_start(const struct process_spec *spec, struct process_id *ret_id);
/* Waits for a child to exit with code 0. SG_OK; SG_DEADLINE (killed); SG_IO (another exit code, or
 * interrupted: killed too). */
enum sg_error process_wait(const struct process_id *id, int64_t timeout_ms);
/* Starts and waits. */
enum sg_error process_run(const struct process_spec *spec, int64_t timeout_ms);

/* The process that has this pid now; false if there is none or it is a zombie. */
bool process_identify(pid_t pid, struct process_id *ret_id);
bool process_alive(const struct process_id *id);
/* Frozen by SIGSTOP. */
bool process_stopped(const struct process_id *id);
/* Collects children that ended. */
void process_reap(void);

/* Sends `signal`, wakes a stopped process so that it can obey, waits. True once it is gone. */
bool process_stop(const struct process_id *id, int signal, int64_t timeout_ms);

/* The file holds pid, start time and boot id. Reading gives false for a process that is gone. */
enum sg_error process_file_write(const char *path, const struct process_id *id);
bool process_file_read(const char *path, struct process_id *ret_id);

/* True if some process has this folder as its working directory (a server's data folder). */
bool process_lives_in(const char *folder);
/* Sends `signal` to every such process, those that they start meanwhile, too. The number of them.
 */
int process_signal_in(const char *folder, int signal);
/* The first word of the command line, for messages; "" if unknown. */
void process_name(pid_t pid, char *ret_name, size_t size);

#endif
