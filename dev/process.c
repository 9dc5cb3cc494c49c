/*
 * Processes of the local cluster. See process.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define POLL_MS 10
#define STDIN_MAX 4096 /* fits a pipe, so that writing never waits */
#define BOOT_ID_MAX 64
#define IN_FOLDER_MAX 1024 /* processes of one server */
#define SIGNAL_ROUNDS 5    /* until no new one is found */

static volatile sig_atomic_t interrupted;

/* --- signals ---------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void process_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool process_interrupted(void)
{
    return interrupted != 0;
}

void process_interrupt_reset(void)
{
    interrupted = 0;
}

void process_sleep_ms(int64_t duration_ms)
{
    struct timespec duration = {.tv_sec = duration_ms / 1000,
                                .tv_nsec = duration_ms % 1000 * 1000000};
    nanosleep(&duration, NULL);
}

/* --- starting --------------------------------------------------------------------------------- */

static void default_signals(void)
{
    sigset_t none;
    for (int number = 1; number < 32; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void unset_family(const char *prefix)
{
    size_t len = strlen(prefix);
    for (char **entry = environ; *entry;) {
        char name[256];
        size_t name_len = strcspn(*entry, "=");
        if (strncmp(*entry, prefix, len) != 0 || name_len >= sizeof(name)) {
            entry++;
            continue;
        }
        memcpy(name, *entry, name_len);
        name[name_len] = '\0';
        unsetenv(name);
        entry = environ; /* it has moved */
    }
}

/* What a developer has exported for psql must not steer the cluster's servers. */
static void clean_environment(void)
{
    static const char *const names[] = {
        "PGHOST",    "PGHOSTADDR", "PGPORT",        "PGDATABASE",      "PGUSER",    "PGPASSWORD",
        "PGOPTIONS", "PGSERVICE",  "PGSERVICEFILE", "PGDATA",          "PGSSLMODE", "PGAPPNAME",
        "PGTZ",      "PGPASSFILE", "PGREQUIREAUTH", "PGCLIENTENCODING"};
    static const char *const families[] = {"ETCD_", "PATRONI_"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        unset_family(families[i]);
}

static bool drop_privileges(const struct process_user *user)
{
    if (!user->change)
        return true;
    return setgroups(0, NULL) == 0 && setgid(user->gid) == 0 && setuid(user->uid) == 0;
}

/* The child's side of a start: never returns. */
static void become(const struct process_spec *spec, int in, int log, pid_t parent)
{
    default_signals();
    setsid();
    dup2(in, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    clean_environment();
    if (!drop_privileges(&spec->user)) {
        dprintf(STDERR_FILENO, "cannot change to user %d: %s\n", (int)spec->user.uid,
                strerror(errno));
        _exit(127);
    }
    if (spec->user.change && chdir("/") != 0)
        _exit(127);
    /* After the change of user, which clears it. */
    if (spec->signal_on_parent_death) {
        prctl(PR_SET_PDEATHSIG, spec->signal_on_parent_death);
        if (getppid() != parent)
            _exit(127);
    }
    execv(spec->argv[0], (char *const *)spec->argv);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", spec->argv[0], strerror(errno));
    _exit(127);
}

/* A descriptor that reads as the text; -1 on failure. */
static int open_stdin(const char *text)
{
    if (!text)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    int ends[2];
    size_t len = strlen(text);
    if (len > STDIN_MAX || pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    ssize_t written = write(ends[1], text, len);
    close(ends[1]);
    if (written == (ssize_t)len)
        return ends[0];
    close(ends[0]);
    return -1;
}

enum sg_error process_start(const struct process_spec *spec, struct process_id *ret_id)
{
    pid_t parent = getpid();
    pid_t pid = -1;
    int in = open_stdin(spec->stdin_text);
    int log = open(spec->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (in >= 0 && log >= 0) {
        fflush(NULL);
        pid = fork();
        if (pid == 0)
            become(spec, in, log, parent);
    }
    if (in >= 0)
        close(in);
    if (log >= 0)
        close(log);
    if (pid < 0)
        return SG_IO;
    /* A child that is gone already has no start time; whoever waits for it finds it dead. */
    struct process_id id = {.pid = pid};
    process_identify(pid, &id);
    *ret_id = id;
    return SG_OK;
}

static void kill_group(pid_t pid)
{
    kill(pid, SIGKILL);
    kill(-pid, SIGKILL); /* it leads a session, and so a group, of its own */
}

enum sg_error process_wait(const struct process_id *id, int64_t timeout_ms)
{
    int status = 0;
    int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    for (;;) {
        pid_t ended = waitpid(id->pid, &status, WNOHANG);
        if (ended == id->pid)
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? SG_OK : SG_IO;
        if (ended < 0 && errno != EINTR)
            return SG_IO;
        bool late = clock_mono_us() > deadline_us;
        if (late || process_interrupted()) {
            kill_group(id->pid);
            waitpid(id->pid, &status, 0);
            return late ? SG_DEADLINE : SG_IO;
        }
        process_sleep_ms(POLL_MS);
    }
}

enum sg_error process_run(const struct process_spec *spec, int64_t timeout_ms)
{
    struct process_id id;
    enum sg_error error = process_start(spec, &id);
    return error ? error : process_wait(&id, timeout_ms);
}

/* --- telling apart ---------------------------------------------------------------------------- */

static bool read_small(const char *path, char *ret_text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, ret_text, size - 1);
    close(fd);
    if (len < 0)
        return false;
    ret_text[len] = '\0';
    return true;
}

/* False if there is no such process. */
static bool read_stat(pid_t pid, char *ret_state, unsigned long long *ret_start_ticks)
{
    char path[64];
    char text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (pid <= 0 || !read_small(path, text, sizeof(text)))
        return false;
    /* pid (name) state ...: the name may hold anything, so start behind its last parenthesis;
     * the start time is field 22. */
    const char *rest = strrchr(text, ')');
    return rest && sscanf(rest + 1,
                          " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                          "%*s %*s %llu",
                          ret_state, ret_start_ticks) == 2;
}

bool process_identify(pid_t pid, struct process_id *ret_id)
{
    char state;
    unsigned long long start_ticks;
    if (!read_stat(pid, &state, &start_ticks) || state == 'Z' || state == 'X')
        return false;
    *ret_id = (struct process_id){.pid = pid, .start_ticks = start_ticks};
    return true;
}

bool process_stopped(const struct process_id *id)
{
    char state;
    unsigned long long start_ticks;
    return read_stat(id->pid, &state, &start_ticks) && start_ticks == id->start_ticks &&
           state == 'T';
}

bool process_alive(const struct process_id *id)
{
    struct process_id now;
    return process_identify(id->pid, &now) && now.start_ticks == id->start_ticks;
}

void process_reap(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

void process_name(pid_t pid, char *ret_name, size_t size)
{
    char path[64];
    char text[256];
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    ret_name[0] = '\0';
    if (!read_small(path, text, sizeof(text)))
        return;
    text[strcspn(text, "\n")] = '\0';
    snprintf(ret_name, size, "%s", text);
}

/* Pids of processes that work in the folder, at most `size`; a zombie works nowhere. */
static size_t find_in(const char *folder, pid_t *ret_pids, size_t size)
{
    struct stat wanted;
    struct dirent *entry;
    size_t count = 0;
    DIR *proc = stat(folder, &wanted) == 0 ? opendir("/proc") : NULL;
    while (proc && count < size && (entry = readdir(proc))) {
        char path[300];
        struct stat cwd;
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%s/cwd", entry->d_name);
        if (stat(path, &cwd) == 0 && cwd.st_dev == wanted.st_dev && cwd.st_ino == wanted.st_ino)
            ret_pids[count++] = atoi(entry->d_name);
    }
    if (proc)
        closedir(proc);
    return count;
}

bool process_lives_in(const char *folder)
{
    pid_t pid;
    return find_in(folder, &pid, 1) > 0;
}

static bool contains(const pid_t *pids, size_t count, pid_t pid)
{
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == pid)
            return true;
    }
    return false;
}

int process_signal_in(const char *folder, int signal)
{
    pid_t reached[IN_FOLDER_MAX];
    pid_t found[IN_FOLDER_MAX];
    size_t reached_count = 0;
    for (int round = 0; round < SIGNAL_ROUNDS; round++) {
        size_t before = reached_count;
        size_t count = find_in(folder, found, IN_FOLDER_MAX);
        for (size_t i = 0; i < count && reached_count < IN_FOLDER_MAX; i++) {
            if (contains(reached, before, found[i]))
                continue;
            kill(found[i], signal);
            reached[reached_count++] = found[i];
        }
        if (reached_count == before)
            break;
    }
    return (int)reached_count;
}

/* --- stopping --------------------------------------------------------------------------------- */

bool process_stop(const struct process_id *id, int signal, int64_t timeout_ms)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    if (!process_alive(id))
        return true;
    kill(id->pid, signal);
    kill(id->pid, SIGCONT);
    while (clock_mono_us() < deadline_us) {
        process_reap();
        if (!process_alive(id))
            return true;
        process_sleep_ms(POLL_MS);
    }
    return false;
}

/* --- pid files -------------------------------------------------------------------------------- */

/* The start time counts from boot, so it means something only together with the boot. */
static void boot_id(char *ret_text)
{
    if (!read_small("/proc/sys/kernel/random/boot_id", ret_text, BOOT_ID_MAX))
        ret_text[0] = '\0';
    ret_text[strcspn(ret_text, "\n")] = '\0';
    if (!ret_text[0])
        snprintf(ret_text, BOOT_ID_MAX, "unknown");
}

enum sg_error process_file_write(const char *path, const struct process_id *id)
{
    char boot[BOOT_ID_MAX];
    FILE *file = fopen(path, "we");
    if (!file)
        return SG_IO;
    boot_id(boot);
    fprintf(file, "%d %llu %s\n", (int)id->pid, (unsigned long long)id->start_ticks, boot);
    return fclose(file) == 0 ? SG_OK : SG_IO;
}

bool process_file_read(const char *path, struct process_id *ret_id)
{
    char text[256];
    char boot[BOOT_ID_MAX];
    char boot_then[BOOT_ID_MAX];
    int pid;
    unsigned long long start_ticks;
    if (!read_small(path, text, sizeof(text)) ||
        sscanf(text, "%d %llu %63s", &pid, &start_ticks, boot_then) != 3)
        return false;
    boot_id(boot);
    struct process_id id = {.pid = pid, .start_ticks = start_ticks};
    if (strcmp(boot, boot_then) != 0 || !process_alive(&id))
        return false;
    *ret_id = id;
    return true;
}
