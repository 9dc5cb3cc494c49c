/*
 * The cluster that a drill torments. See rig.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/rig.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/admin_client.h"
#include "cli/admin_json.h"
#include "cli/cli.h"
#include "dev/ask.h"
#include "dev/layout.h"
#include "dev/ports.h"
#include "dev/process.h"
#include "dev/servers.h"
#include "drill/net.h"
#include "shardmap/shardmap.h"

#define METRICS_MAX ((size_t)16 << 20)
#define UP_TIMEOUT_MS 300000
#define DOWN_TIMEOUT_MS 120000
#define ASK_TIMEOUT_MS 2000
#define SQL_TIMEOUT_MS 5000
#define POLL_MS 20
#define COMMAND_POLL_MS 2
#define STOP_TIMEOUT_MS 60000 /* for a command that was asked to stop */
#define DOWN_TRIES 20
#define PORT_FIRST 20000 /* below those that the kernel gives to clients */
#define PORT_LAST 32000
#define STALE_MS 1000  /* a replica that is older is not well */
#define BEHIND_MS 2000 /* likewise a consumer */

enum sg_error rig_fail(struct rig *rig, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(rig->problem, sizeof(rig->problem), format, args);
    va_end(args);
    return SG_IO;
}

/* --- commands --------------------------------------------------------------------------------- */

/* Waits for the command. Asked to stop it lets it end in order: `dev up` stops what it started. */
static enum sg_error wait_command(const struct process_id *id, int64_t timeout_ms)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    bool told = false;
    int status;
    for (;;) {
        pid_t ended = waitpid(id->pid, &status, WNOHANG);
        if (ended == id->pid)
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? SG_OK : SG_IO;
        if (ended < 0 && errno != EINTR)
            return SG_IO;
        if (process_interrupted() && !told) {
            told = true;
            kill(id->pid, SIGTERM);
            deadline_us = clock_mono_us() + STOP_TIMEOUT_MS * 1000LL;
        }
        if (clock_mono_us() > deadline_us) {
            kill(id->pid, SIGKILL);
            waitpid(id->pid, &status, 0);
            return SG_DEADLINE;
        }
        process_sleep_ms(COMMAND_POLL_MS);
    }
}

enum sg_error rig_command(struct rig *rig, int64_t timeout_ms, const char *argument, ...)
{
    const char *argv[RIG_ARGUMENTS_MAX] = {rig->binary};
    size_t count = 1;
    va_list args;
    va_start(args, argument);
    for (const char *next = argument; next && count + 1 < RIG_ARGUMENTS_MAX;
         next = va_arg(args, const char *))
        argv[count++] = next;
    va_end(args);
    struct process_spec spec = {
        .argv = argv, .log_path = rig->log, .signal_on_parent_death = SIGTERM};
    struct process_id id;
    enum sg_error error = process_start(&spec, &id);
    if (!error)
        error = wait_command(&id, timeout_ms);
    if (error)
        rig_fail(rig, "`seatgrid %s %s %s` %s; see %s", argv[1], count > 2 ? argv[2] : "",
                 count > 3 ? argv[3] : "",
                 error == SG_DEADLINE    ? "takes too long"
                 : process_interrupted() ? "was interrupted"
                                         : "failed",
                 rig->log);
    return error;
}

/* --- up and down ------------------------------------------------------------------------------ */

/* The servers', and serve's two. */
static int ports_wanted(const struct rig_options *options)
{
    return 2 + layout_port_count(
                   &(struct cluster_options){.replicas = options->replicas, .ha = options->ha});
}

static bool block_is_free(int base, int count)
{
    for (int port = base; port < base + count; port++) {
        if (!port_is_free(port))
            return false;
    }
    return true;
}

/* In a network of its own any ports are free; elsewhere it looks, from a place that others who look
 * at the same time hardly begin at. */
static bool choose_ports(struct rig *rig)
{
    const int count = ports_wanted(&rig->options);
    const int blocks = (PORT_LAST - PORT_FIRST) / count;
    rig->port_base = rig->options.port_base ? rig->options.port_base : PORT_FIRST;
    if (rig->options.port_base || rig->network)
        return true;
    for (int i = 0; i < blocks; i++) {
        rig->port_base = PORT_FIRST + (getpid() + i) % blocks * count;
        if (block_is_free(rig->port_base, count))
            return true;
    }
    return false;
}

static enum sg_error choose_folder(struct rig *rig)
{
    if (rig->options.keep) {
        snprintf(rig->var, sizeof(rig->var), "%s", rig->options.keep);
        if (mkdir(rig->var, 0755) != 0)
            return rig_fail(rig, "--keep %s: %s", rig->var, strerror(errno));
    } else {
        const char *tmp = getenv("TMPDIR");
        snprintf(rig->var, sizeof(rig->var), "%s/seatgrid-drill-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(rig->var)) {
            rig->var[0] = '\0';
            return rig_fail(rig, "cannot make a folder in %s: %s", tmp ? tmp : "/tmp",
                            strerror(errno));
        }
    }
    chmod(rig->var, 0755); /* the servers' user has to reach it */
    snprintf(rig->log, sizeof(rig->log), "%s/commands.log", rig->var);
    return SG_OK;
}

static enum sg_error read_configs(struct rig *rig)
{
    static struct settings settings;
    char path[CLUSTER_PATH_MAX];
    cluster_path(path, "%s/seatgrid.cfg", rig->var);
    if (!cli_load_settings(path, &settings))
        return rig_fail(rig, "%s cannot be read", path);
    rig->deadline_ms = settings.booking.deadline_ms;
    rig->max_staleness_ms = settings.reads.max_staleness_ms;
    rig->map = cli_load_map(cluster_path(path, "%s/shardmap.cfg", rig->var));
    return rig->map ? SG_OK : rig_fail(rig, "%s cannot be read", path);
}

/* Takes the cluster in the folder to hand, with its ports. */
static enum sg_error open_cluster(struct rig *rig, const char *var)
{
    rig->cluster = servers_of(var);
    enum sg_error error = servers_open(rig->cluster, false);
    const struct cluster *cluster = rig->cluster;
    if (error)
        return rig_fail(rig, "%.500s", cluster->problem);
    if (!cluster->serve.id.pid || !cluster->cdc.id.pid)
        return rig_fail(rig, "%s: `seatgrid serve` and `seatgrid cdc` have to run in it", var);
    snprintf(rig->http, sizeof(rig->http), "127.0.0.1:%d", cluster->serve.port);
    snprintf(rig->admin, sizeof(rig->admin), "127.0.0.1:%d", cluster->options.admin_port);
    snprintf(rig->cdc, sizeof(rig->cdc), "127.0.0.1:%d", cluster->cdc.port);
    rig->options.replicas = cluster->options.replicas;
    rig->options.sync = cluster->options.sync == 1;
    rig->options.ha = cluster->options.ha == 1;
    return read_configs(rig);
}

static enum sg_error start_own(struct rig *rig)
{
    char base[16];
    char http[16];
    char admin[16];
    char replicas[16];
    rig->network = net_enter(&rig->network_why);
    if (!choose_ports(rig))
        return rig_fail(rig, "no %d free ports in a row between %d and %d",
                        ports_wanted(&rig->options), PORT_FIRST, PORT_LAST);
    const int http_port = rig->port_base + ports_wanted(&rig->options) - 2;
    snprintf(base, sizeof(base), "%d", rig->port_base);
    snprintf(http, sizeof(http), "%d", http_port);
    snprintf(admin, sizeof(admin), "%d", http_port + 1);
    snprintf(replicas, sizeof(replicas), "%d", rig->options.replicas);
    enum sg_error error = rig_command(
        rig, UP_TIMEOUT_MS, "dev", "up", "--var", rig->var, "--port-base", base, "--http-port",
        http, "--admin-port", admin, "--replicas", replicas, "--durability",
        rig->options.sync ? "sync" : "async", rig->options.ha ? "--ha" : NULL, NULL);
    return error ? error : open_cluster(rig, rig->var);
}

static enum sg_error take_given(struct rig *rig)
{
    rig->network_why = "the cluster was there before the drill";
    snprintf(rig->var, sizeof(rig->var), "%.500s", rig->options.var);
    snprintf(rig->log, sizeof(rig->log), "%.500s/log/drill.log", rig->options.var);
    return open_cluster(rig, rig->options.var);
}

enum sg_error rig_init(struct rig *rig, const struct rig_options *options)
{
    *rig = (struct rig){.options = *options};
    ssize_t len = readlink("/proc/self/exe", rig->binary, sizeof(rig->binary) - 1);
    if (len < 0)
        return rig_fail(rig, "cannot find this program's own file: %s", strerror(errno));
    return options->var ? SG_OK : choose_folder(rig);
}

enum sg_error rig_up(struct rig *rig)
{
    enum sg_error error = rig->options.var ? take_given(rig) : start_own(rig);
    return error ? error : rig_await_whole(rig, UP_TIMEOUT_MS);
}

void rig_down(struct rig *rig)
{
    if (rig->cluster)
        servers_free(rig->cluster);
    rig->cluster = NULL;
    if (rig->map)
        shardmap_free(rig->map);
    rig->map = NULL;
    if (rig->options.var || !rig->var[0] || access(rig->log, F_OK) != 0)
        return;
    process_interrupt_reset();
    net_heal();
    const char *verb = rig->options.keep ? "down" : "destroy";
    enum sg_error error = SG_IO;
    /* A command that lost its parent may still be at work in the folder. */
    for (int i = 0; error && i < DOWN_TRIES; i++) {
        process_sleep_ms(i * 500);
        error = rig_command(rig, DOWN_TIMEOUT_MS, "dev", verb, "--var", rig->var, NULL);
    }
    if (error)
        fprintf(stderr, "seatgrid: %s\n", rig->problem);
    if (error || rig->options.keep)
        return;
    unlink(rig->log);
    rmdir(rig->var);
}

/* --- asking a server -------------------------------------------------------------------------- */

int rig_port(const struct rig *rig, const char *server)
{
    for (size_t i = 0; i < rig->cluster->node_count; i++) {
        if (strcmp(rig->cluster->nodes[i].name, server) == 0)
            return rig->cluster->nodes[i].port;
    }
    if (strcmp(server, "redis") == 0)
        return rig->cluster->redis.port;
    return strcmp(server, "cdc") == 0 ? rig->cluster->cdc.port : 0;
}

enum sg_error rig_ask(struct rig *rig, const char *node, const char *sql, char *ret_text)
{
    struct ask_answer answer;
    if (!ask_once(rig_port(rig, node), sql, SQL_TIMEOUT_MS, &answer))
        return rig_fail(rig, "%s: %.400s", node, answer.problem);
    if (ret_text)
        snprintf(ret_text, RIG_ANSWER_MAX, "%s", answer.value[0]);
    return SG_OK;
}

/* --- looking ---------------------------------------------------------------------------------- */

static void read_node(const json_t *json, struct rig_node *ret_node)
{
    const json_t *staleness = json_object_get(json, "stalenessMs");
    struct rig_node node = {
        .up = json_is_true(json_object_get(json, "up")),
        .primary = strcmp(admin_text(json, "role"), "primary") == 0,
        .in_rotation = json_is_true(json_object_get(json, "inRotation")),
        .timeline = (int)json_integer_value(json_object_get(json, "timeline")),
        .staleness_ms = json_is_integer(staleness) ? json_integer_value(staleness) : RIG_UNKNOWN_MS,
    };
    node.writable = node.up && node.primary && json_is_true(json_object_get(json, "attested")) &&
                    !json_is_true(json_object_get(json, "fenced"));
    snprintf(node.name, sizeof(node.name), "%s", admin_text(json, "node"));
    snprintf(node.shard, sizeof(node.shard), "%s", admin_text(json, "shard"));
    *ret_node = node;
}

bool rig_look(const struct rig *rig, struct rig_view *ret_view)
{
    struct admin_answer answer;
    char why[256];
    const json_t *node;
    size_t i;
    if (admin_ask(rig->admin, "GET", "/admin/nodes", ASK_TIMEOUT_MS, &answer, why, sizeof(why)))
        return false;
    ret_view->count = 0;
    json_array_foreach(json_object_get(answer.json, "nodes"), i, node)
    {
        if (ret_view->count < CLUSTER_NODES_MAX)
            read_node(node, &ret_view->nodes[ret_view->count++]);
    }
    admin_answer_done(&answer);
    return ret_view->count > 0;
}

double rig_metric(const struct rig *rig, const char *name)
{
    char why[256];
    int status = 0;
    double sum = 0;
    struct dynbuf text;
    const size_t len = strlen(name);
    dynbuf_init(&text, METRICS_MAX);
    bool answered = !admin_call(rig->admin, "GET", "/metrics", NULL, 0, ASK_TIMEOUT_MS, &status,
                                &text, why, sizeof(why)) &&
                    status == 200;
    for (const char *line = dynbuf_text(&text); answered && line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) != 0 || (line[len] != ' ' && line[len] != '{'))
            continue;
        const char *end = line + strcspn(line, "\n");
        while (end > line && end[-1] != ' ')
            end--;
        sum += strtod(end, NULL);
    }
    dynbuf_done(&text);
    return answered ? sum : -1;
}

const struct rig_node *rig_find(const struct rig_view *view, const char *name)
{
    for (size_t i = 0; i < view->count; i++) {
        if (strcmp(view->nodes[i].name, name) == 0)
            return &view->nodes[i];
    }
    return NULL;
}

const struct rig_node *rig_primary(const struct rig_view *view, const char *shard)
{
    const struct rig_node *best = NULL;
    for (size_t i = 0; i < view->count; i++) {
        const struct rig_node *node = &view->nodes[i];
        if (strcmp(node->shard, shard) == 0 && node->writable &&
            (!best || node->timeline > best->timeline))
            best = node;
    }
    return best;
}

/* NULL, or what the node lacks. */
static const char *lacks(const struct rig_view *view, const struct rig_node *node)
{
    const struct rig_node *primary = rig_primary(view, node->shard);
    if (!node->up)
        return "is down";
    if (!primary)
        return "has no primary that takes writes";
    if (node == primary)
        return NULL;
    if (node->primary)
        return "is a second primary";
    if (node->timeline != primary->timeline)
        return "is on another timeline";
    if (node->staleness_ms == RIG_UNKNOWN_MS || node->staleness_ms > STALE_MS)
        return "is behind";
    return node->in_rotation ? NULL : "is out of rotation";
}

static bool streams_run(const struct rig *rig, char *ret_why, size_t size)
{
    struct admin_answer answer;
    const json_t *stream;
    size_t i;
    bool run = true;
    if (admin_ask(rig->cdc, "GET", "/admin/streams", ASK_TIMEOUT_MS, &answer, ret_why, size))
        return false;
    json_array_foreach(json_object_get(answer.json, "streams"), i, stream)
    {
        const json_t *lag = json_object_get(stream, "lagMs");
        bool follows = strcmp(admin_text(stream, "state"), "running") == 0 &&
                       (!json_is_integer(lag) || json_integer_value(lag) < BEHIND_MS);
        if (!follows)
            snprintf(ret_why, size, "the consumer of %s is %s: %s", admin_text(stream, "shard"),
                     admin_text(stream, "state"), admin_text(stream, "detail"));
        run = run && follows;
    }
    admin_answer_done(&answer);
    return run;
}

bool rig_whole(const struct rig *rig, char *ret_why, size_t size)
{
    struct rig_view view;
    if (!rig_look(rig, &view)) {
        snprintf(ret_why, size, "the router does not answer at %s", rig->admin);
        return false;
    }
    for (size_t i = 0; i < view.count; i++) {
        const char *what = lacks(&view, &view.nodes[i]);
        if (what) {
            snprintf(ret_why, size, "%s %s", view.nodes[i].name, what);
            return false;
        }
    }
    return streams_run(rig, ret_why, size);
}

enum sg_error rig_await_whole(struct rig *rig, int64_t timeout_ms)
{
    char why[256] = "";
    const int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    while (!rig_whole(rig, why, sizeof(why))) {
        if (process_interrupted())
            return rig_fail(rig, "interrupted");
        if (clock_mono_us() > deadline_us)
            return rig_fail(rig, "not whole after %lld s: %s", (long long)timeout_ms / 1000, why);
        process_reap();
        process_sleep_ms(POLL_MS);
    }
    return SG_OK;
}

/* --- reconcile -------------------------------------------------------------------------------- */

/* One comparison of all shards; false if it did not come to its end. */
static bool compare(const struct rig *rig, int64_t *ret_drift, char *ret_why, size_t size)
{
    struct admin_answer answer;
    const json_t *pass;
    size_t i;
    int64_t drift = 0;
    bool complete = true;
    if (admin_ask(rig->cdc, "POST", "/admin/reconcile?fix=0", UP_TIMEOUT_MS, &answer, ret_why,
                  size))
        return false;
    json_array_foreach(json_object_get(answer.json, "shards"), i, pass)
    {
        drift += json_integer_value(json_object_get(pass, "drift"));
        if (!json_is_true(json_object_get(pass, "complete"))) {
            snprintf(ret_why, size, "%s: %s", admin_text(pass, "shard"),
                     admin_text(pass, "detail"));
            complete = false;
        }
    }
    if (!json_is_array(json_object_get(answer.json, "shards"))) {
        snprintf(ret_why, size, "the consumer answered %d: %s", answer.status,
                 admin_text(answer.json, "detail"));
        complete = false;
    }
    admin_answer_done(&answer);
    if (complete)
        *ret_drift = drift;
    return complete;
}

enum sg_error rig_reconcile(struct rig *rig, int64_t timeout_ms, int64_t *ret_drift)
{
    char why[256] = "";
    const int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    while (!compare(rig, ret_drift, why, sizeof(why))) {
        if (process_interrupted())
            return rig_fail(rig, "interrupted");
        if (clock_mono_us() > deadline_us)
            return rig_fail(rig, "Redis could not be compared with PostgreSQL: %s", why);
        process_sleep_ms(POLL_MS * 10);
    }
    return SG_OK;
}
