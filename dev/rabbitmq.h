/*
 * The RabbitMQ of the local cluster: one broker of its own, on 127.0.0.1, with an epmd of its own.
 *
 *   port      AMQP
 *   port + 1  Erlang's distribution, which nothing here uses but RabbitMQ will not start without
 *   port + 2  epmd, where Erlang nodes find each other
 *
 * Nothing is shared with another broker on the machine: folders, cookie, name and ports are its
 * own.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_RABBITMQ_H
#define SG_DEV_RABBITMQ_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

#define RABBITMQ_PORTS 3

void rabbitmq_inspect(struct cluster *cluster);
/* True for the port `port + index` if it is our epmd's, which outlives a broker that was killed. */
bool rabbitmq_has_port(const struct cluster *cluster, int index);
/* Starts it; it takes some seconds. */
enum sg_error rabbitmq_begin(struct cluster *cluster);
/* Waits until it greets those who connect. */
enum sg_error rabbitmq_wait(struct cluster *cluster);
bool rabbitmq_stop(struct cluster *cluster);

#endif
