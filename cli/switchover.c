/*
 * `seatgrid switchover`: another node of a shard becomes its primary, on purpose.
 *
 *   settings, shard map ─> router/switchover.h on an event loop of its own ─> a line a step
 *                            ├ drain:  POST /admin/drain of the consumer (seatgrid cdc)
 *                            └ rejoin: switchover.rejoin_command, a process a node and call
 *
 * The two calls into the world outside block the loop: while one is under way there is nothing
 * else to wait for, and each has a deadline.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/reap.h"
#include "base/settings.h"
#include "cli/admin_json.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "router/switchover.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid switchover SHARD [--to NODE] [--timeout-ms N] [-c FILE] [--json]\n"
    "       seatgrid switchover SHARD --abort [-c FILE] [--json]\n"
    "\n"
    "Makes another node of the shard its primary: has the other standbys follow it,\n"
    "fences the old one, waits until the new one has replayed everything and the\n"
    "consumer (seatgrid cdc) has followed, promotes, attests. From the fence on\n"
    "writes wait; none fails and none is lost. Until the promotion is asked for, a\n"
    "failure, the deadline or Ctrl-C undoes all of it; afterwards it only goes\n"
    "forward. At its end the old primary is told to follow. Who tells is\n"
    "switchover.rejoin_command.\n"
    "\n"
    "  --to NODE        the new primary (default: a synchronous standby first, then\n"
    "                   the one that has replayed most)\n"
    "  --timeout-ms N   instead of switchover.timeout_ms\n"
    "  --without-cdc    go on when the consumer cannot follow in time; it builds its\n"
    "                   keys in Redis anew\n"
    "  --abort          lift the fence that a switchover left whose operator died,\n"
    "                   unless a node was promoted\n"
    "  -c, --config FILE  settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --json       output for programs\n"
    "      --help       this text\n"
    "\n"
    "Exit code 0: done; 1: refused, undone or not seen to its end, and the last line\n"
    "says which; 2: wrong usage.\n";

/* For drills also: --pause-before STEP. The process stops itself (SIGSTOP) when that step is about
 * to begin, to be killed there or woken by SIGCONT. */

#define WORDS_MAX 32
#define REPORT_MAX (1 << 20)
#define CHILD_POLL_MS 20

struct options {
    const char *config;
    const char *shard;
    const char *to;
    int timeout_ms; /* 0: the setting's */
    bool abort;
    bool without_cdc;
    bool json;
    enum switchover_step pause_before; /* SWITCHOVER_STEP_COUNT: nowhere */
};

struct command {
    const struct options *options;
    const struct settings *settings;
    struct event_base *base;
    struct switchover *switchover;
    struct dynbuf steps; /* JSON */
    struct dynbuf notes; /* JSON */
    bool promoting;
    int code;
};

/* --- the consumer ----------------------------------------------------------------------------- */

/* An answer of the world waits here until the loop has its turn. */
struct drain_call {
    struct switchover_drained drained;
    switchover_drained_fn *fn;
    void *arg;
};

static void on_drain_due(evutil_socket_t fd, short what, void *arg)
{
    struct drain_call *call = arg;
    (void)fd;
    (void)what;
    call->fn(call->arg, &call->drained);
    free(call);
}

/* "16/B374D848" */
static uint64_t lsn_of(const char *text)
{
    unsigned high;
    unsigned low;
    return sscanf(text, "%X/%X", &high, &low) == 2 ? (uint64_t)high << 32 | low : 0;
}

static void read_drained(const struct admin_answer *answer, struct switchover_drained *drained)
{
    const json_t *json = answer->json;
    if (answer->status != 200) {
        const char *detail = admin_text(json, "detail");
        drained->event = SWITCHOVER_NO;
        snprintf(drained->text, sizeof(drained->text), "the consumer answered %d: %.200s",
                 answer->status, detail[0] ? detail : admin_text(json, "title"));
        return;
    }
    drained->event = SWITCHOVER_OK;
    drained->lsn = lsn_of(admin_text(json, "lsn"));
    drained->timeline = (int32_t)json_integer_value(json_object_get(json, "timeline"));
    drained->generation = json_integer_value(json_object_get(json, "generation"));
    snprintf(drained->slot, sizeof(drained->slot), "%s", admin_text(json, "slot"));
}

static void ask_consumer(const char *address, const char *shard, uint64_t lsn, int64_t timeout_ms,
                         struct switchover_drained *drained)
{
    struct admin_answer answer;
    char path[256];
    char problem[SWITCHOVER_TEXT_MAX] = "";
    snprintf(path, sizeof(path), "/admin/drain?shard=%s&lsn=%X/%X&timeout_ms=%" PRId64, shard,
             (unsigned)(lsn >> 32), (unsigned)lsn, timeout_ms - timeout_ms / 10);
    const enum sg_error error =
        admin_ask(address, "POST", path, timeout_ms, &answer, problem, sizeof(problem));
    if (error == SG_OK) {
        read_drained(&answer, drained);
        admin_answer_done(&answer);
        return;
    }
    drained->event = error == SG_IO         ? SWITCHOVER_LOST
                     : error == SG_DEADLINE ? SWITCHOVER_DEADLINE
                                            : SWITCHOVER_NO;
    snprintf(drained->text, sizeof(drained->text),
             "no consumer (seatgrid cdc) has followed: %.200s", problem);
}

static void drain(void *world, const char *shard, uint64_t lsn, int64_t timeout_ms,
                  switchover_drained_fn *fn, void *arg)
{
    struct command *command = world;
    struct timeval now = {0};
    struct drain_call *call = calloc(1, sizeof(*call));
    if (!call)
        abort();
    *call = (struct drain_call){.fn = fn, .arg = arg};
    ask_consumer(command->settings->cdc.listen, shard, lsn, timeout_ms > 0 ? timeout_ms : 1,
                 &call->drained);
    event_base_once(command->base, -1, EV_TIMEOUT, on_drain_due, call, &now);
}

/* --- the other nodes -------------------------------------------------------------------------- */

struct rejoin_call {
    bool ok;
    char text[SWITCHOVER_TEXT_MAX];
    switchover_rejoined_fn *fn;
    void *arg;
};

static void on_rejoin_due(evutil_socket_t fd, short what, void *arg)
{
    struct rejoin_call *call = arg;
    (void)fd;
    (void)what;
    call->fn(call->arg, call->ok, call->text);
    free(call);
}

/* The words of the setting, then the node, then its upstream if there is one. `text` is cut up.
 * False if there are too many. */
static bool split_command(char *text, const char *node, const char *upstream,
                          char *ret_argv[WORDS_MAX + 3])
{
    int count = 0;
    char *rest = text;
    char *word;
    while ((word = strsep(&rest, " \t"))) {
        if (!*word)
            continue;
        if (count == WORDS_MAX)
            return false;
        ret_argv[count++] = word;
    }
    if (count == 0)
        return false;
    ret_argv[count++] = (char *)node;
    ret_argv[count++] = (char *)upstream;
    ret_argv[count] = NULL;
    return true;
}

/* A group of its own: Ctrl-C is for the switchover, and a late one is ended with its children. */
static pid_t start_child(char *const argv[], int output)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    dup2(nothing, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* What the child said so far, shown as it comes. */
static void show_output(int fd, FILE *out)
{
    char bytes[4096];
    ssize_t len;
    while ((len = read(fd, bytes, sizeof(bytes))) > 0)
        fwrite(bytes, 1, (size_t)len, out);
    fflush(out);
}

/* Waits for the child, not for the end of its output: a server that it started may hold that. */
static bool await_child(pid_t pid, int fd, FILE *out, int64_t timeout_ms, int *ret_status)
{
    const int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    while (waitpid(pid, ret_status, WNOHANG) == 0) {
        if (clock_mono_us() > deadline_us) {
            kill(-pid, SIGKILL);
            waitpid(pid, ret_status, 0);
            return false;
        }
        poll(&readable, 1, CHILD_POLL_MS);
        if (readable.revents & POLLIN)
            show_output(fd, out);
        else if (readable.revents)
            readable.fd = -1; /* all ends closed; poll still sleeps */
    }
    show_output(fd, out);
    return true;
}

static void run_child(const struct command *command, char *const argv[], int64_t timeout_ms,
                      struct rejoin_call *call)
{
    int pipes[2];
    int status = 0;
    if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) != 0) {
        snprintf(call->text, sizeof(call->text), "%s", strerror(errno));
        return;
    }
    /* the writing end blocks: the child must not see its output refused */
    fcntl(pipes[1], F_SETFL, 0);
    pid_t pid = start_child(argv, pipes[1]);
    close(pipes[1]);
    if (pid < 0)
        snprintf(call->text, sizeof(call->text), "%s", strerror(errno));
    else if (!await_child(pid, pipes[0], command->options->json ? stderr : stdout, timeout_ms,
                          &status))
        snprintf(call->text, sizeof(call->text), "not within %" PRId64 " ms", timeout_ms);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        call->ok = true;
    else if (WIFEXITED(status))
        snprintf(call->text, sizeof(call->text), "%s: exit code %d", argv[0], WEXITSTATUS(status));
    else
        snprintf(call->text, sizeof(call->text), "%s: ended by signal %d", argv[0],
                 WTERMSIG(status));
    close(pipes[0]);
}

static void rejoin(void *world, const char *node, const char *upstream, int64_t timeout_ms,
                   switchover_rejoined_fn *fn, void *arg)
{
    struct command *command = world;
    struct timeval now = {0};
    char text[SETTINGS_TEXT_MAX];
    char *argv[WORDS_MAX + 3];
    struct rejoin_call *call = calloc(1, sizeof(*call));
    if (!call)
        abort();
    *call = (struct rejoin_call){.fn = fn, .arg = arg};
    snprintf(text, sizeof(text), "%s", command->settings->switchover.rejoin_command);
    if (split_command(text, node, upstream, argv))
        run_child(command, argv, timeout_ms, call);
    else
        snprintf(call->text, sizeof(call->text), "switchover.rejoin_command is no command");
    event_base_once(command->base, -1, EV_TIMEOUT, on_rejoin_due, call, &now);
}

/* --- what is told ----------------------------------------------------------------------------- */

static void on_begin(void *arg, enum switchover_step step)
{
    struct command *command = arg;
    command->promoting = command->promoting || step == SWITCHOVER_PROMOTE;
    if (step != command->options->pause_before)
        return;
    fprintf(stderr, "seatgrid: paused before '%s'\n", switchover_step_name(step));
    raise(SIGSTOP);
}

static void on_step(void *arg, enum switchover_step step, int64_t took_us, bool ok,
                    const char *text)
{
    struct command *command = arg;
    const double ms = (double)took_us / 1000;
    struct dynbuf *steps = &command->steps;
    if (!command->options->json) {
        printf("  %-8s %9.1f ms  %s\n", switchover_step_name(step), ms,
               ok ? switchover_step_text(step) : "failed");
        fflush(stdout);
    }
    dynbuf_addf(steps, "%s{\"step\":\"%s\",\"ms\":%.3f,\"ok\":%s,\"text\":", steps->len ? "," : "",
                switchover_step_name(step), ms, ok ? "true" : "false");
    dynbuf_add_json(steps, ok ? "" : text);
    dynbuf_addc(steps, '}');
}

static void on_note(void *arg, const char *text)
{
    struct command *command = arg;
    if (!command->options->json) {
        printf("  note: %s\n", text);
        fflush(stdout);
    }
    if (command->notes.len)
        dynbuf_addc(&command->notes, ',');
    dynbuf_add_json(&command->notes, text);
}

/* One word for the end. */
static const char *outcome_of(const struct command *command, const struct switchover_result *result)
{
    return command->options->abort && result->end == SWITCHOVER_UNDONE
               ? "lifted"
               : switchover_step_name(result->end);
}

static void print_json(struct command *command, const struct switchover_result *result)
{
    struct dynbuf out;
    dynbuf_init(&out, (size_t)3 * REPORT_MAX);
    dynbuf_addf(&out, "{\"shard\":\"%s\",\"outcome\":\"%s\",\"from\":\"%s\",\"to\":\"%s\",",
                command->options->shard, outcome_of(command, result), result->primary,
                result->target);
    dynbuf_addf(&out, "\"timeline\":%d,\"epoch\":%" PRId64 ",\"pauseMs\":%.3f,\"handover\":%s,",
                (int)result->timeline, result->epoch, (double)result->pause_us / 1000,
                result->handover ? "true" : "false");
    dynbuf_adds(&out, "\"text\":");
    dynbuf_add_json(&out, result->text);
    dynbuf_addf(&out, ",\"steps\":[%s],\"notes\":[%s]}", dynbuf_text(&command->steps),
                dynbuf_text(&command->notes));
    puts(dynbuf_text(&out));
    dynbuf_done(&out);
}

static void print_text(const struct command *command, const struct switchover_result *result)
{
    const char *shard = command->options->shard;
    const double pause_ms = (double)result->pause_us / 1000;
    switch (result->end) {
    case SWITCHOVER_DONE:
        printf("done: %s is the primary of %s, timeline %d, epoch %" PRId64
               "; writes waited %.1f ms\n",
               result->target, shard, (int)result->timeline, result->epoch, pause_ms);
        return;
    case SWITCHOVER_UNDONE:
        if (command->options->abort)
            printf("lifted: %s is written to again\n", result->primary);
        else
            printf("undone: %s; %s goes on as the primary of %s\n", result->text, result->primary,
                   shard);
        return;
    case SWITCHOVER_STUCK:
        printf("stuck: %s; the fence of %s lasts and could not be lifted: "
               "`seatgrid switchover %s --abort` once it answers\n",
               result->text, result->primary, shard);
        return;
    case SWITCHOVER_LEFT:
        printf("left: %s; the promotion of %s was asked for: if it comes, a router attests it; "
               "if it never does, `seatgrid switchover %s --abort`\n",
               result->text, result->target, shard);
        return;
    default:
        printf("refused: %s\n", result->text);
    }
}

static void on_done(void *arg, const struct switchover_result *result)
{
    struct command *command = arg;
    const bool lifted = command->options->abort && result->end == SWITCHOVER_UNDONE;
    command->code = result->end == SWITCHOVER_DONE || lifted ? 0 : 1;
    if (command->options->json)
        print_json(command, result);
    else
        print_text(command, result);
    fflush(stdout);
    event_base_loopbreak(command->base);
}

/* --- running ---------------------------------------------------------------------------------- */

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct command *command = arg;
    (void)number;
    (void)what;
    fputs(command->promoting ? "seatgrid: the promotion was asked for: it goes on\n"
                             : "seatgrid: stopping\n",
          stderr);
    switchover_stop(command->switchover);
}

/* Shown to a rival who is refused. */
static void write_operator_name(char *text, size_t size)
{
    char host[HOST_NAME_MAX + 1] = "";
    const struct passwd *user = getpwuid(getuid());
    gethostname(host, sizeof(host) - 1);
    snprintf(text, size, "switchover by %s@%s, pid %d", user ? user->pw_name : "?", host,
             (int)getpid());
}

static void run_loop(struct command *command, const struct shardmap_shard *shard)
{
    const struct options *options = command->options;
    const struct settings *settings = command->settings;
    struct reap_list *reaped = reap_list_new(command->base);
    struct event *on_int = evsignal_new(command->base, SIGINT, on_signal, command);
    struct event *on_term = evsignal_new(command->base, SIGTERM, on_signal, command);
    char name[128];
    write_operator_name(name, sizeof(name));
    const struct switchover_config config = {
        .settings = settings,
        .base = command->base,
        .reap = reaped,
        .shard = shard,
        .to = options->to,
        .operator_name = name,
        .timeout_ms = options->timeout_ms ? options->timeout_ms : settings->switchover.timeout_ms,
        .abort = options->abort,
        .without_cdc = options->without_cdc,
        .world = {drain, settings->switchover.rejoin_command[0] ? rejoin : NULL, command},
        .on_begin = on_begin,
        .on_step = on_step,
        .on_note = on_note,
        .on_done = on_done,
        .arg = command};
    command->switchover = reaped && on_int && on_term ? switchover_new(&config) : NULL;
    if (command->switchover) {
        event_add(on_int, NULL);
        event_add(on_term, NULL);
        event_base_dispatch(command->base);
    } else {
        fputs("seatgrid: out of memory\n", stderr);
    }
    switchover_free(command->switchover);
    if (on_int)
        event_free(on_int);
    if (on_term)
        event_free(on_term);
    if (reaped)
        reap_list_free(reaped);
}

/* Polls are a millisecond apart: the loop's timers have to be as fine. */
static struct event_base *new_base(void)
{
    struct event_base *base = NULL;
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
        base = event_base_new_with_config(config);
        event_config_free(config);
    }
    return base;
}

static int run(const struct options *options)
{
    static struct settings settings;
    struct command command = {.options = options, .settings = &settings, .code = 1};
    struct shardmap *map = NULL;
    if (cli_load_settings(options->config, &settings))
        map = cli_load_map(settings.shard_map);
    if (!map)
        return 2;
    const int index = shardmap_shard_by_name(map, options->shard);
    if (index < 0) {
        fprintf(stderr, "seatgrid: refused: the shard map has no shard '%s'\n", options->shard);
        shardmap_free(map);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    dynbuf_init(&command.steps, REPORT_MAX);
    dynbuf_init(&command.notes, REPORT_MAX);
    command.base = new_base();
    if (command.base) {
        run_loop(&command, shardmap_shard(map, index));
        event_base_free(command.base);
    }
    dynbuf_done(&command.steps);
    dynbuf_done(&command.notes);
    shardmap_free(map);
    return command.code;
}

/* --- arguments -------------------------------------------------------------------------------- */

static bool take_step(void *arg, const char *name, const char *text)
{
    enum switchover_step *ret_step = arg;
    *ret_step = switchover_step_by_name(text);
    if (*ret_step != SWITCHOVER_STEP_COUNT)
        return true;
    fprintf(stderr, "seatgrid: --%s: no step '%s'\n", name, text);
    return false;
}

int cli_switchover(int argc, char **argv)
{
    struct options given = {.pause_before = SWITCHOVER_STEP_COUNT};
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &given.config},
        {.name = "to", .text = &given.to},
        {.name = "timeout-ms", .number = &given.timeout_ms, .least = 100, .most = 600000},
        {.name = "abort", .flag = &given.abort},
        {.name = "without-cdc", .flag = &given.without_cdc},
        {.name = "json", .flag = &given.json},
        {.name = "pause-before", .take = take_step, .arg = &given.pause_before},
        {0}};
    int code = cli_options(argc, argv, usage, options, 1);
    if (code >= 0)
        return code;
    if (!argv[1]) {
        fprintf(stderr, "seatgrid: name one shard\n%s", usage);
        return 2;
    }
    given.shard = argv[1];
    if (given.abort && given.to) {
        fputs("seatgrid: --abort lifts a fence; it takes no --to\n", stderr);
        return 2;
    }
    return run(&given);
}
