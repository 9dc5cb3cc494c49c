/*
 * Faults of a local cluster. See fault.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/fault.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/cluster.h"
#include "drill/net.h"

#define ANSWER_TIMEOUT_MS 10000

/* The server is a node, and its shard may have another primary afterwards. */
static bool rejoins(enum fault_kind kind)
{
    return kind == FAULT_KILL || kind == FAULT_HANG || kind == FAULT_CUT ||
           kind == FAULT_CUT_STANDBYS;
}

bool fault_possible(const struct rig *rig, enum fault_kind kind)
{
    if (kind == FAULT_CUT_PROGRAMS)
        return rig->network;
    /* Patroni leaves a primary alone that it hears of. */
    return kind != FAULT_CUT_STANDBYS || !rig->options.ha;
}

/* --- single processes ------------------------------------------------------------------------- */

/* Stops those whose pids the query gives, in one text with spaces between them. */
static enum sg_error stop_processes(struct rig *rig, struct fault *fault, const char *query)
{
    char pids[RIG_ANSWER_MAX];
    char *end;
    enum sg_error error = rig_ask(rig, fault->server, query, pids);
    if (error)
        return error;
    for (const char *p = pids; fault->stopped_count < FAULT_PROCESSES_MAX; p = end) {
        long pid = strtol(p, &end, 10);
        if (end == p)
            break;
        if (process_identify((pid_t)pid, &fault->stopped[fault->stopped_count]) &&
            kill((pid_t)pid, SIGSTOP) == 0)
            fault->stopped_count++;
    }
    return fault->stopped_count ? SG_OK : rig_fail(rig, "%s: no such process", fault->server);
}

static void continue_processes(const struct fault *fault)
{
    for (size_t i = 0; i < fault->stopped_count; i++) {
        if (process_alive(&fault->stopped[i]))
            kill(fault->stopped[i].pid, SIGCONT);
    }
}

/* --- Redis ------------------------------------------------------------------------------------ */

/* An inline command; Redis answers a line that begins with + when it obeys. */
static enum sg_error tell_redis(struct rig *rig, int port, const char *command)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = clock_timeval_us((int64_t)ANSWER_TIMEOUT_MS * 1000);
    char answer[64] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return rig_fail(rig, "no socket: %m");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    bool obeyed = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                  send(fd, command, strlen(command), MSG_NOSIGNAL) == (ssize_t)strlen(command) &&
                  recv(fd, answer, sizeof(answer) - 1, 0) > 0 && answer[0] == '+';
    close(fd);
    return obeyed ? SG_OK : rig_fail(rig, "redis does not obey: \"%.40s\"", answer);
}

/* --- making ----------------------------------------------------------------------------------- */

/* The error of a call to the cluster, with its reason. */
static enum sg_error said(struct rig *rig, enum sg_error error)
{
    return error ? rig_fail(rig, "%.500s", rig->cluster->problem) : SG_OK;
}

/* Under Patroni a machine is a node and its Patroni: what befalls one befalls both. */
static enum sg_error both(struct rig *rig, const char *node,
                          enum sg_error (*call)(struct cluster *cluster, const char *name))
{
    char patroni[80];
    enum sg_error error = SG_OK;
    snprintf(patroni, sizeof(patroni), "%s-patroni", node);
    if (rig->options.ha && strchr(node, '-'))
        error = call(rig->cluster, patroni);
    return said(rig, error ? error : call(rig->cluster, node));
}

static enum sg_error cut(struct rig *rig, struct fault *fault, int port)
{
    const struct process_user *user = &rig->cluster->user;
    char patroni[80];
    snprintf(patroni, sizeof(patroni), "%s-patroni", fault->server);
    if (fault->kind == FAULT_CUT && rig->options.ha &&
        cluster_pause_one(rig->cluster, patroni) != SG_OK)
        return SG_IO;
    if (fault->kind == FAULT_CUT)
        return rig->network ? net_cut(port) : cluster_pause_one(rig->cluster, fault->server);
    if (fault->kind == FAULT_CUT_PROGRAMS)
        return rig->network ? net_cut_user(port, geteuid()) : SG_NOT_IMPLEMENTED;
    if (rig->network)
        return net_cut_user(port, user->change ? user->uid : geteuid());
    return stop_processes(rig, fault,
                          "SELECT string_agg(pid::text, ' ') FROM pg_stat_replication"
                          " WHERE application_name = ANY(SELECT replace(slot_name, '_', '-')"
                          " FROM pg_replication_slots WHERE slot_type = 'physical')");
}

static enum sg_error make(struct rig *rig, struct fault *fault, int port)
{
    switch (fault->kind) {
    case FAULT_KILL:
    case FAULT_PROGRAM_KILL:
        return both(rig, fault->server, cluster_kill_one);
    case FAULT_HANG:
        return both(rig, fault->server, cluster_pause_one);
    case FAULT_CUT:
    case FAULT_CUT_STANDBYS:
    case FAULT_CUT_PROGRAMS:
        return cut(rig, fault, port) ? rig_fail(rig, "%s: cannot be cut off", fault->server)
                                     : SG_OK;
    case FAULT_REPLAY_PAUSE:
        return rig_ask(rig, fault->server, "SELECT pg_wal_replay_pause()", NULL);
    case FAULT_RECEIVER_STOP:
        return stop_processes(rig, fault, "SELECT pid FROM pg_stat_wal_receiver");
    case FAULT_REDIS_FLUSH:
        return tell_redis(rig, port, "FLUSHALL\r\n");
    case FAULT_KINDS:
        break;
    }
    return SG_INTERNAL;
}

enum sg_error fault_make(struct rig *rig, enum fault_kind kind, const char *server,
                         struct fault *ret_fault)
{
    const int port = rig_port(rig, server);
    if (!port)
        return rig_fail(rig, "%s: no such server", server);
    *ret_fault = (struct fault){.kind = kind};
    snprintf(ret_fault->server, sizeof(ret_fault->server), "%s", server);
    ret_fault->made_us = clock_mono_us();
    return make(rig, ret_fault, port);
}

/* --- undoing ---------------------------------------------------------------------------------- */

enum sg_error fault_release(struct rig *rig, struct fault *fault)
{
    fault->undone_us = clock_mono_us();
    continue_processes(fault);
    if (fault->kind == FAULT_REPLAY_PAUSE)
        return rig_ask(rig, fault->server, "SELECT pg_wal_replay_resume()", NULL);
    if (net_heal())
        return rig_fail(rig, "a cut cannot be undone");
    /* What was never paused does not mind. */
    if (fault->kind == FAULT_HANG || fault->kind == FAULT_CUT)
        return both(rig, fault->server, cluster_resume_one);
    return SG_OK;
}

enum sg_error fault_undo(struct rig *rig, struct fault *fault)
{
    struct cluster_rejoin rejoin;
    enum sg_error error = fault->undone_us ? SG_OK : fault_release(rig, fault);
    if (!error && fault->kind == FAULT_KILL && rig->options.ha)
        error = said(rig, cluster_start_one(rig->cluster, fault->server, false));
    if (!error && rejoins(fault->kind))
        error = said(rig, cluster_rejoin(rig->cluster, fault->server, NULL, &rejoin));
    else if (!error && fault->kind == FAULT_PROGRAM_KILL)
        error = said(rig, cluster_start_one(rig->cluster, fault->server, false));
    return error;
}
