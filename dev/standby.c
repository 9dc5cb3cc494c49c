/*
 * Replication between the nodes of a shard. See standby.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/standby.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "dev/ask.h"
#include "dev/postgres.h"
#include "dev/roles.h"

#define SOCKET_PATH_MAX 80 /* the kernel takes 107, the socket's own name needs 20 */
#define SETTINGS_MAX 8192
#define ASK_MS 1000
#define SLOTS_MS 10000
#define POLL_MS 20
/* A standby on its way to another primary looks astray for a moment: its control file is behind.
 * Three times wal_retrieve_retry_interval. */
#define ASTRAY_MS 1500
/* A postmaster (up to PostgreSQL 15) whose walreceiver has just ended may go to sleep although the
 * next one has been asked for; what asked gives that up after 10 s (WALRCV_STARTUP_TIMEOUT). A new
 * connection wakes it, so that none is used for longer. */
#define WAKE_MS 250

void standby_slot(const struct server *node, char ret_name[STANDBY_SLOT_MAX])
{
    snprintf(ret_name, STANDBY_SLOT_MAX, "%s", node->name);
    for (char *p = ret_name; *p; p++) {
        if (*p == '-')
            *p = '_';
    }
}

/* Another node of the same shard. */
static bool is_sibling(const struct server *a, const struct server *b)
{
    return a != b && strcmp(a->shard, b->shard) == 0 && strcmp(a->name, b->name) != 0;
}

/* --- settings --------------------------------------------------------------------------------- */

static const char common_settings[] =
    "# Written by `seatgrid dev`. ALTER SYSTEM overrides it and stays.\n"
    "listen_addresses = '127.0.0.1'\n"
    "wal_level = logical\n"
    "wal_log_hints = on\n"
    "max_wal_senders = 20\n"
    "max_replication_slots = 20\n"
    "max_connections = 300\n"
    "shared_buffers = '256MB'\n"
    "max_wal_size = '4GB'\n"
    "checkpoint_timeout = '15min'\n"
    "fsync = on\n"
    "synchronous_commit = on\n"
    "hot_standby = on\n"
    "hot_standby_feedback = on\n"
    "wal_keep_size = '128MB'\n"
    "max_slot_wal_keep_size = '4GB'\n"
    "wal_retrieve_retry_interval = '500ms'\n"
    "recovery_init_sync_method = 'syncfs'\n"
    "log_line_prefix = '%m [%p] %q%u@%d %a '\n"
    "log_timezone = 'UTC'\n"
    "timezone = 'UTC'\n"
    "lc_messages = 'C'\n";

/* Any one of the other nodes, whoever is the primary. */
static void add_synchronous(const struct cluster *cluster, const struct server *node,
                            struct dynbuf *out)
{
    const char *separator = "";
    dynbuf_adds(out, "synchronous_standby_names = 'ANY 1 (");
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!is_sibling(&cluster->nodes[i], node))
            continue;
        dynbuf_addf(out, "%s\"%s\"", separator, cluster->nodes[i].name);
        separator = ", ";
    }
    dynbuf_adds(out, ")'\n");
}

static void add_settings(struct cluster *cluster, const struct server *node,
                         const struct server *upstream, struct dynbuf *out)
{
    char slot[STANDBY_SLOT_MAX];
    bool sockets = strlen(cluster->servers) <= SOCKET_PATH_MAX;
    dynbuf_addf(out, "%sport = %d\ncluster_name = '%s'\nunix_socket_directories = '%s'\n",
                common_settings, node->port, node->name, sockets ? cluster->servers : "");
    if (cluster->options.sync == 1)
        add_synchronous(cluster, node, out);
    if (upstream && is_sibling(upstream, node)) {
        standby_slot(node, slot);
        dynbuf_addf(out,
                    "primary_conninfo = 'host=127.0.0.1 port=%d user=postgres "
                    "application_name=%s'\n"
                    "primary_slot_name = '%s'\n",
                    upstream->port, node->name, slot);
    }
}

static enum sg_error write_settings(struct cluster *cluster, const struct server *node,
                                    const struct server *upstream)
{
    struct dynbuf text;
    dynbuf_init(&text, SETTINGS_MAX);
    add_settings(cluster, node, upstream, &text);
    enum sg_error error =
        text.failed ? cluster_fail(cluster, "%s: its settings do not fit", node->name)
                    : postgres_write_file(cluster, node, "seatgrid.conf", dynbuf_text(&text));
    dynbuf_done(&text);
    return error;
}

enum sg_error standby_write_settings(struct cluster *cluster, const struct server *node)
{
    return write_settings(cluster, node, roles_primary(cluster, node->shard));
}

/* ALTER SYSTEM wins over seatgrid.conf: what it says about the primary is about another one. */
static enum sg_error clean_auto_settings(struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    char line[2048];
    struct dynbuf text;
    bool stale = false;
    FILE *file =
        fopen(cluster_path(path, "%s/%s/postgresql.auto.conf", cluster->servers, node->name), "re");
    if (!file)
        return SG_OK;
    dynbuf_init(&text, 1 << 20);
    while (fgets(line, sizeof(line), file)) {
        bool drop = strncmp(line, "primary_conninfo", 16) == 0 ||
                    strncmp(line, "primary_slot_name", 17) == 0;
        stale |= drop;
        if (!drop)
            dynbuf_adds(&text, line);
    }
    fclose(file);
    enum sg_error error =
        stale ? postgres_write_file(cluster, node, "postgresql.auto.conf", dynbuf_text(&text))
              : SG_OK;
    dynbuf_done(&text);
    return error;
}

enum sg_error standby_mark(struct cluster *cluster, const struct server *node)
{
    enum sg_error error = clean_auto_settings(cluster, node);
    if (!error)
        error = postgres_write_file(cluster, node, "standby.signal", "");
    return error ? error : postgres_sync(cluster, node);
}

enum sg_error standby_point(struct cluster *cluster, const struct server *node,
                            const struct server *upstream)
{
    enum sg_error error = clean_auto_settings(cluster, node);
    if (!error)
        error = write_settings(cluster, node, upstream);
    if (!error && kill(node->id.pid, SIGHUP) != 0)
        error = cluster_fail(cluster, "%s: cannot have it read its settings: %m", node->name);
    return error;
}

struct server *standby_upstream(struct cluster *cluster, const struct server *node)
{
    struct ask_answer answer;
    if (!ask_once(node->port,
                  "SELECT substring(current_setting('primary_conninfo') from 'port=([0-9]+)')"
                  " WHERE pg_is_in_recovery()",
                  ASK_MS, &answer))
        return NULL;
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (cluster->nodes[i].port == atoi(answer.value[0]))
            return &cluster->nodes[i];
    }
    return NULL;
}

/* --- slots ------------------------------------------------------------------------------------ */

static void add_slot(const char *slot, struct dynbuf *out)
{
    dynbuf_addf(out,
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE slot_name = '%s' AND wal_status = 'lost' AND NOT active;\n"
                "SELECT FROM pg_create_physical_replication_slot('%s', true)"
                " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '%s');\n",
                slot, slot, slot);
}

enum sg_error standby_make_slots(struct cluster *cluster, const struct server *primary)
{
    char slot[STANDBY_SLOT_MAX];
    struct dynbuf sql;
    struct ask_answer answer;
    enum sg_error error = SG_OK;
    dynbuf_init(&sql, 1 << 16);
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!is_sibling(&cluster->nodes[i], primary))
            continue;
        standby_slot(&cluster->nodes[i], slot);
        add_slot(slot, &sql);
    }
    if (sql.len > 0 && !ask_once(primary->port, dynbuf_text(&sql), SLOTS_MS, &answer))
        error = cluster_fail(cluster, "%s: making slots for its replicas failed: %s", primary->name,
                             answer.problem);
    dynbuf_done(&sql);
    return error;
}

enum sg_error standby_make_slot(struct cluster *cluster, const struct server *node,
                                const struct server *upstream)
{
    char slot[STANDBY_SLOT_MAX];
    struct dynbuf sql;
    struct ask_answer answer;
    enum sg_error error = SG_OK;
    dynbuf_init(&sql, 1 << 16);
    standby_slot(node, slot);
    add_slot(slot, &sql);
    if (!ask_once(upstream->port, dynbuf_text(&sql), SLOTS_MS, &answer))
        error = cluster_fail(cluster, "%s: making a slot for %s failed: %s", upstream->name,
                             node->name, answer.problem);
    dynbuf_done(&sql);
    return error;
}

void standby_leave_others(struct cluster *cluster, const struct server *node,
                          const struct server *upstream)
{
    char slot[STANDBY_SLOT_MAX];
    char sql[512];
    struct ask_answer answer;
    standby_slot(node, slot);
    snprintf(sql, sizeof(sql),
             "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots"
             " WHERE slot_name = '%s' AND active;\n"
             "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
             " WHERE slot_name = '%s' AND NOT active",
             slot, slot);
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *other = &cluster->nodes[i];
        if (is_sibling(other, node) && other != upstream && other->id.pid &&
            !process_stopped(&other->id))
            ask_once(other->port, sql, ASK_MS, &answer);
    }
}

enum sg_error standby_drop_slots(struct cluster *cluster, const struct server *node)
{
    struct ask_answer answer;
    if (ask_once(node->port,
                 "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                 " WHERE NOT active",
                 SLOTS_MS, &answer))
        return SG_OK;
    return cluster_fail(cluster, "%s: its own slots cannot be dropped: %s", node->name,
                        answer.problem);
}

void standby_free_slot(const struct server *node, const struct server *primary)
{
    char slot[STANDBY_SLOT_MAX];
    char sql[256];
    struct ask_answer answer;
    standby_slot(node, slot);
    snprintf(sql, sizeof(sql),
             "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
             " WHERE slot_name = '%s' AND active",
             slot);
    ask_once(primary->port, sql, SLOTS_MS, &answer);
}

/* --- does it stream? -------------------------------------------------------------------------- */

/* One look. It has to stream the primary's own timeline: for a moment a primary also sends what it
 * has of the one before to a standby that has more of it. *ret_ahead: the standby has WAL past the
 * point where the primary's timeline began, and is not on that timeline. */
static bool streams(struct ask *ask, const struct server *primary, bool forked, uint64_t fork_lsn,
                    bool *ret_answered, bool *ret_ahead)
{
    struct ask_answer answer;
    *ret_ahead = false;
    *ret_answered = ask_again(
        ask,
        "SELECT coalesce((SELECT status || ' ' || sender_port || ' ' || received_tli"
        " FROM pg_stat_wal_receiver), ''),"
        " coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0', 0),"
        " (SELECT min_recovery_end_timeline FROM pg_control_recovery())",
        ASK_MS, &answer);
    if (!*ret_answered)
        return false;
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "streaming %d %u", primary->port, primary->timeline);
    if (strcmp(answer.value[0], wanted) == 0)
        return true;
    *ret_ahead = forked && strtoull(answer.value[1], NULL, 10) > fork_lsn &&
                 strtoul(answer.value[2], NULL, 10) < primary->timeline;
    return false;
}

enum standby_state standby_wait(struct cluster *cluster, const struct server *node,
                                const struct server *primary, int64_t timeout_ms)
{
    enum standby_state state = STANDBY_WAITS;
    struct ask *ask = NULL;
    struct ask_answer answer;
    uint64_t fork_lsn = 0;
    bool forked = roles_fork(cluster, primary, &fork_lsn);
    int64_t start_us = clock_mono_us();
    int64_t ahead_since_us = 0;
    int64_t asked_since_us = 0;
    while (state == STANDBY_WAITS && !process_interrupted()) {
        bool answered = false;
        bool ahead = false;
        int64_t now_us = clock_mono_us();
        process_reap();
        if (ask && now_us - asked_since_us >= WAKE_MS * 1000) {
            ask_close(ask);
            ask = NULL;
        }
        if (!ask) {
            ask = ask_open(node->port, ASK_MS, &answer);
            asked_since_us = now_us;
        }
        if (ask && streams(ask, primary, forked, fork_lsn, &answered, &ahead))
            state = STANDBY_STREAMS;
        else if (!process_alive(&node->id))
            state = STANDBY_DEAD;
        else if (ahead && ahead_since_us && now_us - ahead_since_us > ASTRAY_MS * 1000)
            state = STANDBY_ASTRAY;
        else if (now_us - start_us >= timeout_ms * 1000)
            break;
        if (answered && (!ahead || !ahead_since_us))
            ahead_since_us = ahead ? now_us : 0;
        if (!answered) {
            ask_close(ask);
            ask = NULL;
        }
        if (state == STANDBY_WAITS)
            process_sleep_ms(POLL_MS);
    }
    ask_close(ask);
    return state;
}
