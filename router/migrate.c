/*
 * Migrations, one shard at a time. See migrate.h.
 *
 *   find_primary ─> lock ─> read_applied ─> check ─┬─> apply 1 ─> apply 2 ... ─> adopt ─> done
 *                                                  └─> (only_look) done
 *
 * The lock is an advisory lock of the session, so it goes with the connection whatever happens.
 * Checksums are computed by the server, from the text it is sent, so that no client library and no
 * encoding stands between what is compared.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/migrate.h"

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_S "5"
#define LOCK_TIMEOUT "60s"

struct session {
    PGconn *conn; /* to the primary; NULL before find_primary */
    const struct shardmap_shard *shard;
    const struct migration *list;
    struct migrate_report *report;
};

int migrate_latest(const struct migration *list)
{
    int latest = 0;
    for (; list->version; list++)
        latest = list->version;
    return latest;
}

/* Server messages may span lines and hold any byte; a report is one line of printable ASCII. */
static void flatten(char *text)
{
    size_t len = strlen(text);
    while (len && (unsigned char)text[len - 1] <= ' ')
        text[--len] = '\0';
    for (char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < ' ')
            *p = ' ';
        else if (c > '~')
            *p = '?';
    }
}

__attribute__((format(printf, 3, 4))) static enum sg_error
fail(struct session *session, enum sg_error error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(session->report->error_text, MIGRATE_TEXT_MAX, format, args);
    va_end(args);
    flatten(session->report->error_text);
    return error;
}

static PGconn *connect_node(const struct shardmap_node *node)
{
    const char *const keywords[] = {"dbname",          "connect_timeout",  "application_name",
                                    "client_encoding", "tcp_user_timeout", NULL};
    const char *const values[] = {node->dsn, CONNECT_TIMEOUT_S, "seatgrid migrate",
                                  "UTF8",    "30000",           NULL};
    return PQconnectdbParams(keywords, values, 1);
}

/* Runs one statement with text parameters that has to give `want`. NULL and *report on failure. */
static PGresult *query(struct session *session, ExecStatusType want, const char *what,
                       const char *sql, int count, const char *const *params)
{
    PGresult *result = PQexecParams(session->conn, sql, count, NULL, params, NULL, NULL, 0);
    if (PQresultStatus(result) == want)
        return result;
    fail(session, SG_IO, "%s: %s", what, PQerrorMessage(session->conn));
    PQclear(result);
    return NULL;
}

static enum sg_error run(struct session *session, const char *what, const char *sql)
{
    PGresult *result = PQexec(session->conn, sql);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return SG_OK;
    return fail(session, SG_IO, "%s: %s", what, PQerrorMessage(session->conn));
}

/* --- who is primary --------------------------------------------------------------------------- */

/* True if the node answers and is no replica; otherwise says why in `reason`. */
static bool is_primary(PGconn *conn, char *reason, size_t size)
{
    if (PQstatus(conn) != CONNECTION_OK) {
        snprintf(reason, size, "%s", PQerrorMessage(conn));
        return false;
    }
    PGresult *result = PQexec(conn, "SELECT pg_is_in_recovery()");
    bool answered = PQresultStatus(result) == PGRES_TUPLES_OK;
    bool replica = answered && PQgetvalue(result, 0, 0)[0] == 't';
    if (!answered)
        snprintf(reason, size, "%s", PQerrorMessage(conn));
    else if (replica)
        snprintf(reason, size, "is a replica");
    PQclear(result);
    return answered && !replica;
}

static enum sg_error find_primary(struct session *session)
{
    char reasons[MIGRATE_TEXT_MAX] = "";
    for (size_t i = 0; i < session->shard->node_count; i++) {
        const struct shardmap_node *node = &session->shard->nodes[i];
        char reason[256];
        PGconn *conn = connect_node(node);
        bool primary = is_primary(conn, reason, sizeof(reason));
        if (primary && session->conn) {
            PQfinish(conn);
            return fail(session, SG_CONFIG_INVALID,
                        "both %s and %s say that they are the primary; stop the old one first",
                        session->report->node, node->name);
        }
        if (primary) {
            session->conn = conn;
            snprintf(session->report->node, sizeof(session->report->node), "%s", node->name);
            continue;
        }
        PQfinish(conn);
        flatten(reason);
        size_t used = strlen(reasons);
        snprintf(reasons + used, sizeof(reasons) - used, "%s%s: %s", used ? "; " : "", node->name,
                 reason);
    }
    if (!session->conn)
        return fail(session, SG_SHARD_UNAVAILABLE, "no primary answers (%s)", reasons);
    return SG_OK;
}

/* --- what is there ---------------------------------------------------------------------------- */

static enum sg_error lock(struct session *session)
{
    return run(session, "waiting for another migration",
               "SET lock_timeout = '" LOCK_TIMEOUT "';"
               "SELECT pg_advisory_lock(1397900372, 2);" /* 'SEAT', 2: migrations */
               "SET lock_timeout = 0;"
               "SET client_min_messages = warning");
}

static enum sg_error has_table(struct session *session, const char *table, bool *ret_has)
{
    const char *const params[] = {table};
    PGresult *result = query(session, PGRES_TUPLES_OK, "looking for tables",
                             "SELECT to_regclass($1) IS NOT NULL", 1, params);
    if (!result)
        return SG_IO;
    *ret_has = PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    return SG_OK;
}

/* The text that was applied as `m` has to be the text that is embedded as `m`. */
static enum sg_error check_text(struct session *session, const struct migration *m)
{
    char version[16];
    snprintf(version, sizeof(version), "%d", m->version);
    const char *const params[] = {version, m->text};
    PGresult *result = query(session, PGRES_TUPLES_OK, "comparing migrations",
                             "SELECT sha256 = encode(sha256(convert_to($2, 'UTF8')), 'hex'), name"
                             "  FROM schema_migrations WHERE version = $1::int",
                             2, params);
    if (!result)
        return SG_IO;
    enum sg_error error = SG_OK;
    if (PQntuples(result) == 0)
        error = fail(session, SG_CONFIG_INVALID, "migration %d is missing among those applied",
                     m->version);
    else if (PQgetvalue(result, 0, 0)[0] != 't')
        error = fail(session, SG_CONFIG_INVALID,
                     "migration %s was applied with another text (as %s); write a new migration "
                     "instead of changing an applied one",
                     m->name, PQgetvalue(result, 0, 1));
    PQclear(result);
    return error;
}

static enum sg_error read_version(struct session *session, int *ret_version)
{
    PGresult *result = query(session, PGRES_TUPLES_OK, "reading schema_migrations",
                             "SELECT coalesce(max(version), 0) FROM schema_migrations", 0, NULL);
    if (!result)
        return SG_IO;
    *ret_version = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return SG_OK;
}

static enum sg_error read_applied(struct session *session)
{
    struct migrate_report *report = session->report;
    int version = 0;
    bool has;
    enum sg_error error = has_table(session, "schema_migrations", &has);
    if (!error && has)
        error = read_version(session, &version);
    if (error)
        return error;
    report->before = report->after = version;
    int latest = migrate_latest(session->list);
    if (version > latest)
        return fail(session, SG_CONFIG_INVALID,
                    "the database is at version %d and this binary knows %d; use a newer seatgrid",
                    version, latest);
    for (const struct migration *m = session->list; !error && m->version && m->version <= version;
         m++)
        error = check_text(session, m);
    return error;
}

/* SG_OK if the database has no shard's name yet (*ret_named false) or has this shard's. */
static enum sg_error check_name(struct session *session, bool *ret_named)
{
    bool has;
    enum sg_error error = has_table(session, "shard_meta", &has);
    if (error)
        return error;
    *ret_named = false;
    if (!has)
        return SG_OK;
    PGresult *result = query(session, PGRES_TUPLES_OK, "reading shard_meta",
                             "SELECT shard FROM shard_meta", 0, NULL);
    if (!result)
        return SG_IO;
    *ret_named = PQntuples(result) > 0;
    if (*ret_named && strcmp(PQgetvalue(result, 0, 0), session->shard->name) != 0)
        error = fail(session, SG_CONFIG_INVALID,
                     "this database belongs to shard %s, not to %s; the map names the wrong server",
                     PQgetvalue(result, 0, 0), session->shard->name);
    PQclear(result);
    return error;
}

/* --- changing it ------------------------------------------------------------------------------ */

/* The line of the migration's text that a server's error points at; 0 if it points nowhere. */
static int error_line(const PGresult *result, const char *text)
{
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    int line = position ? 1 : 0;
    int left = position ? atoi(position) - 1 : 0; /* in characters */
    for (const char *p = text; left > 0 && *p; p++) {
        if (*p == '\n')
            line++;
        if (((unsigned char)*p & 0xc0) != 0x80)
            left--;
    }
    return line;
}

static enum sg_error run_text(struct session *session, const struct migration *m)
{
    PGresult *result = PQexec(session->conn, m->text);
    ExecStatusType status = PQresultStatus(result);
    enum sg_error error = SG_OK;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        int line = error_line(result, m->text);
        char at[24] = "";
        if (line)
            snprintf(at, sizeof(at), " line %d", line);
        error = fail(session, SG_IO, "%s.sql%s: %s", m->name, at,
                     primary ? primary : PQerrorMessage(session->conn));
    } else if (PQtransactionStatus(session->conn) != PQTRANS_INTRANS) {
        error =
            fail(session, SG_IO, "%s.sql: ends its own transaction; a migration must not", m->name);
    }
    PQclear(result);
    return error;
}

static enum sg_error remember(struct session *session, const struct migration *m)
{
    char version[16];
    snprintf(version, sizeof(version), "%d", m->version);
    const char *const params[] = {version, m->name, m->text};
    PGresult *result = query(session, PGRES_COMMAND_OK, "writing schema_migrations",
                             "INSERT INTO schema_migrations (version, name, sha256)"
                             " VALUES ($1::int, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))",
                             3, params);
    PQclear(result);
    return result ? SG_OK : SG_IO;
}

static enum sg_error apply(struct session *session, const struct migration *m)
{
    enum sg_error error = run(session, "BEGIN", "BEGIN");
    if (!error)
        error = run_text(session, m);
    if (!error)
        error = remember(session, m);
    if (!error)
        error = run(session, "COMMIT", "COMMIT");
    if (!error)
        session->report->after = m->version;
    return error; /* an open transaction ends with the connection */
}

static enum sg_error apply_missing(struct session *session)
{
    enum sg_error error = run(session, "creating schema_migrations",
                              "CREATE TABLE IF NOT EXISTS schema_migrations ("
                              " version integer PRIMARY KEY,"
                              " name text NOT NULL,"
                              " sha256 text NOT NULL,"
                              " applied_at timestamptz NOT NULL DEFAULT now())");
    for (const struct migration *m = session->list; !error && m->version; m++) {
        if (m->version > session->report->before)
            error = apply(session, m);
    }
    return error;
}

/* Writes the shard's name into a database that has none, which attests the primary that it is. */
static enum sg_error adopt(struct session *session)
{
    bool has;
    bool named = false;
    enum sg_error error = has_table(session, "shard_meta", &has);
    if (error || !has)
        return error;
    error = check_name(session, &named);
    if (error || named)
        return error;
    const char *const params[] = {session->shard->name};
    PGresult *result = query(session, PGRES_COMMAND_OK, "writing shard_meta",
                             "INSERT INTO shard_meta (shard, epoch, fenced, timeline)"
                             " VALUES ($1, 1, false, own_timeline())",
                             1, params);
    PQclear(result);
    return result ? SG_OK : SG_IO;
}

enum sg_error migrate_shard(const struct shardmap_shard *shard, const struct migration *list,
                            bool only_look, struct migrate_report *ret_report)
{
    struct session session = {.shard = shard, .list = list, .report = ret_report};
    bool named;
    *ret_report = (struct migrate_report){.before = -1, .after = -1};

    enum sg_error error = find_primary(&session);
    if (!error && !only_look)
        error = lock(&session);
    if (!error)
        error = read_applied(&session);
    if (!error)
        error = check_name(&session, &named);
    if (!error && !only_look)
        error = apply_missing(&session);
    if (!error && !only_look)
        error = adopt(&session);
    PQfinish(session.conn);
    return error;
}
