/*
 * A connection to RabbitMQ: opened, its queues declared, closed. What publisher and consumer share.
 *
 * A shard has two durable quorum queues:
 *
 *   seatgrid.book.SHARD ── undecodable, failing for itself ──> seatgrid.book.SHARD.dead
 *
 * Everything here blocks, at most queue.connect_timeout_ms a step: it is for threads that have
 * nothing else to do.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_BROKER_H
#define SG_QUEUE_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __has_include(<rabbitmq-c/amqp.h>) /* librabbitmq from 0.12; Debian 12 has 0.11 */
#include <rabbitmq-c/amqp.h>
#else
#include <amqp.h>
#endif

#include "base/error.h"
#include "shardmap/shardmap.h"

struct settings;

#define BROKER_QUEUE_MAX (SHARDMAP_NAME_MAX + 32) /* bytes of a queue's name with its NUL */
#define BROKER_WHY_MAX 256
#define BROKER_ADMIN_CHANNEL 1 /* opened by broker_open: queues are declared on it */

/* SG_OK, or SG_CONFIG_INVALID and a readable reason. */
enum sg_error broker_check_url(const char *url, char ret_why[BROKER_WHY_MAX]);
/* Connects and logs in. SG_OK; SG_IO and the reason, SG_NO_MEMORY. */
enum sg_error broker_open(const struct settings *settings, amqp_connection_state_t *ret_connection,
                          char ret_why[BROKER_WHY_MAX]);
/* In order, when the broker still answers; NULL is fine. */
void broker_close(amqp_connection_state_t connection, bool in_order);
/* Opens a channel. */
enum sg_error broker_open_channel(amqp_connection_state_t connection, amqp_channel_t channel,
                                  char ret_why[BROKER_WHY_MAX]);
/* Makes a shard's queues if they are not there. Those that are there with other arguments (another
 * queue.deliveries) stay as they are. */
enum sg_error broker_declare(amqp_connection_state_t connection, const struct settings *settings,
                             const char *shard, char ret_why[BROKER_WHY_MAX]);
/* SG_OK, or SG_IO and why the last call failed, as the broker or the library says. */
enum sg_error broker_verdict(amqp_rpc_reply_t reply, char ret_why[BROKER_WHY_MAX]);
/* "seatgrid.book.SHARD" */
void broker_queue_name(const char *shard, char ret_name[BROKER_QUEUE_MAX]);

#endif
