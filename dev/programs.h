/*
 * The programs of ours in a local cluster, serve, cdc, worker and mockpay: start, readiness, stop.
 * The server's name is the command.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PROGRAMS_H
#define SG_DEV_PROGRAMS_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

void program_inspect(struct cluster *cluster, struct server *program);
/* Starts it and waits until it answers: serve with /readyz 200, the others with /healthz 200. */
enum sg_error program_start(struct cluster *cluster, struct server *program);
/* Graceful, then hard. False if it lives on. */
bool program_stop(struct cluster *cluster, struct server *program);

#endif
