/*
 * Connection strings, read by libpq's own parser. See dsn.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/dsn.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

static const char *option(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword; options++) {
        if (strcmp(options->keyword, keyword) == 0)
            return options->val && options->val[0] ? options->val : NULL;
    }
    return NULL;
}

/* libpq quotes a whole URI in some of its messages, password and all: cut there. */
static void copy_message(const char *message, char *problem, size_t problem_size)
{
    snprintf(problem, problem_size, "%s", message ? message : "out of memory");
    problem[strcspn(problem, "\n")] = '\0';
    char *uri = strstr(problem, "URI: \"");
    if (uri)
        uri[3] = '\0';
    size_t len = strlen(problem);
    if (len + 1 < problem_size)
        return;
    while (len > 0 && (unsigned char)problem[len - 1] >= 0x80)
        problem[--len] = '\0'; /* it was cut, maybe inside a UTF-8 sequence */
}

static bool fill_target(const PQconninfoOption *options, struct dsn_target *ret_target)
{
    const char *host = option(options, "host");
    const char *port = option(options, "port");
    const char *dbname = option(options, "dbname");
    const char *service = option(options, "service");
    if (!host)
        host = option(options, "hostaddr");
    if (!dbname)
        dbname = option(options, "user");
    struct dsn_target target;
    int host_len = host      ? snprintf(target.host, sizeof(target.host), "%s", host)
                   : service ? snprintf(target.host, sizeof(target.host), "service:%s", service)
                             : snprintf(target.host, sizeof(target.host), "%s", "");
    int port_len = snprintf(target.port, sizeof(target.port), "%s", port ? port : "5432");
    int db_len = snprintf(target.dbname, sizeof(target.dbname), "%s", dbname ? dbname : "");
    if (host_len >= (int)sizeof(target.host) || port_len >= (int)sizeof(target.port) ||
        db_len >= (int)sizeof(target.dbname))
        return false;
    *ret_target = target;
    return true;
}

/* libpq looks at the port only when it connects. */
static bool port_valid(const char *port)
{
    unsigned value = 0;
    for (const char *p = port; *p; p++) {
        if (*p < '0' || *p > '9' || (value = value * 10 + (unsigned)(*p - '0')) > 65535)
            return false;
    }
    return value > 0;
}

bool dsn_check(const char *dsn, struct dsn_target *ret_target, char *problem, size_t problem_size)
{
    char *message = NULL;
    struct dsn_target target;
    PQconninfoOption *options = PQconninfoParse(dsn, &message);
    if (!options) {
        copy_message(message, problem, problem_size);
        PQfreemem(message);
        return false;
    }
    bool good = false;
    if (!fill_target(options, &target))
        snprintf(problem, problem_size, "host, port or dbname is too long");
    else if (strchr(target.host, ',') || strchr(target.port, ','))
        snprintf(problem, problem_size, "names several servers, a node is one");
    else if (!port_valid(target.port))
        snprintf(problem, problem_size, "port %s is not in 1..65535", target.port);
    else
        good = true;
    PQconninfoFree(options);
    if (good)
        *ret_target = target;
    return good;
}
