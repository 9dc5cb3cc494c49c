/*
 * Questions to servers of the local cluster. See ask.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/ask.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct ask {
    PGconn *conn;
};

static void note_problem(struct ask_answer *answer, const char *text)
{
    snprintf(answer->problem, sizeof(answer->problem), "%s", text);
    answer->problem[strcspn(answer->problem, "\n")] = '\0';
}

/* False when the time is up. */
static bool wait_for(const struct ask *ask, short events, int64_t deadline_us)
{
    struct pollfd socket = {.fd = PQsocket(ask->conn), .events = events};
    int64_t left_us = deadline_us - clock_mono_us();
    /* A signal ends the wait early: the caller looks again. */
    return left_us > 0 && poll(&socket, 1, (int)(left_us / 1000) + 1) != 0;
}

static bool connect_until(struct ask *ask, int64_t deadline_us)
{
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    if (PQstatus(ask->conn) == CONNECTION_BAD)
        return false;
    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        if (!wait_for(ask, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us))
            return false;
        state = PQconnectPoll(ask->conn);
    }
    return state == PGRES_POLLING_OK;
}

struct ask *ask_open(int port, int64_t timeout_ms, struct ask_answer *ret_answer)
{
    char dsn[256];
    struct ask *ask = calloc(1, sizeof(*ask));
    memset(ret_answer, 0, sizeof(*ret_answer));
    if (!ask) {
        note_problem(ret_answer, "out of memory");
        return NULL;
    }
    snprintf(dsn, sizeof(dsn),
             "host=127.0.0.1 port=%d user=postgres dbname=postgres options='' sslmode=disable "
             "gssencmode=disable application_name=seatgrid-dev",
             port);
    ask->conn = PQconnectStart(dsn);
    if (!ask->conn || !connect_until(ask, clock_mono_us() + timeout_ms * 1000)) {
        const char *reason = ask->conn ? PQerrorMessage(ask->conn) : "out of memory";
        note_problem(ret_answer, reason[0] ? reason : "no answer");
        ask_close(ask);
        return NULL;
    }
    return ask;
}

static void keep_row(const PGresult *result, struct ask_answer *ret_answer)
{
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) == 0)
        return;
    ret_answer->columns = PQnfields(result);
    for (int i = 0; i < ret_answer->columns && i < ASK_COLUMNS_MAX; i++)
        snprintf(ret_answer->value[i], sizeof(ret_answer->value[i]), "%s",
                 PQgetvalue(result, 0, i));
}

bool ask_again(struct ask *ask, const char *sql, int64_t timeout_ms, struct ask_answer *ret_answer)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    bool good = true;
    memset(ret_answer, 0, sizeof(*ret_answer));
    if (!PQsendQuery(ask->conn, sql)) {
        note_problem(ret_answer, PQerrorMessage(ask->conn));
        return false;
    }
    for (;;) {
        while (PQisBusy(ask->conn)) {
            if (!wait_for(ask, POLLIN, deadline_us)) {
                note_problem(ret_answer, "no answer");
                return false;
            }
            if (!PQconsumeInput(ask->conn)) {
                note_problem(ret_answer, PQerrorMessage(ask->conn));
                return false;
            }
        }
        PGresult *result = PQgetResult(ask->conn);
        if (!result)
            return good;
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
            keep_row(result, ret_answer);
        } else if (good) {
            good = false;
            note_problem(ret_answer, PQresultErrorMessage(result));
        }
        PQclear(result);
    }
}

void ask_close(struct ask *ask)
{
    if (!ask)
        return;
    PQfinish(ask->conn);
    free(ask);
}

bool ask_once(int port, const char *sql, int64_t timeout_ms, struct ask_answer *ret_answer)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * 1000;
    struct ask *ask = ask_open(port, timeout_ms, ret_answer);
    if (!ask)
        return false;
    bool good = ask_again(ask, sql, (deadline_us - clock_mono_us()) / 1000, ret_answer);
    ask_close(ask);
    return good;
}
