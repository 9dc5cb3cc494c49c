/*
 * A question to a server of the local cluster, with an answer or none within a deadline.
 *
 * A server that is frozen takes connections and says nothing, so every wait here is bounded. Only
 * the first row of the last statement is kept, as text: enough to look after servers.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_ASK_H
#define SG_DEV_ASK_H

#include <stdbool.h>
#include <stdint.h>

#define ASK_COLUMNS_MAX 4

struct ask; /* a connection to the database postgres, as its superuser */

struct ask_answer {
    char value[ASK_COLUMNS_MAX][128]; /* "" for NULL and for what was not asked */
    int columns;                      /* 0: no row */
    char problem[512];                /* one line, when there was no answer */
};

/* NULL, with the reason in ret_answer->problem, if there is no connection within the time. */
struct ask *ask_open(int port, int64_t timeout_ms, struct ask_answer *ret_answer);
/* False: no answer, or an error; after it only ask_close helps. */
bool ask_again(struct ask *ask, const char *sql, int64_t timeout_ms, struct ask_answer *ret_answer);
void ask_close(struct ask *ask);

/* Opens, asks, closes, all of it within the time. */
bool ask_once(int port, const char *sql, int64_t timeout_ms, struct ask_answer *ret_answer);

#endif
