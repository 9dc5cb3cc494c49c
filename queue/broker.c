/*
 * A connection to RabbitMQ. See broker.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<rabbitmq-c/tcp_socket.h>)
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp_tcp_socket.h>
#endif

#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"

#define FRAME_MAX 131072
#define CHANNELS_MAX 2047 /* what RabbitMQ allows by default */

/* --- the URL ---------------------------------------------------------------------------------- */

/* `copy` is written to, and what *ret_info names stands in it. */
static enum sg_error parse_url(const char *url, char copy[SETTINGS_TEXT_MAX],
                               struct amqp_connection_info *ret_info, char *ret_why)
{
    snprintf(copy, SETTINGS_TEXT_MAX, "%s", url);
    if (amqp_parse_url(copy, ret_info) != AMQP_STATUS_OK || ret_info->ssl) {
        snprintf(ret_why, BROKER_WHY_MAX,
                 "is no amqp://user:password@host:port/vhost; write a slash in the vhost as %%2f");
        return SG_CONFIG_INVALID;
    }
    /* What ends with a slash means the one that everybody has, not one without a name. */
    if (!ret_info->vhost[0])
        ret_info->vhost = "/";
    return SG_OK;
}

enum sg_error broker_check_url(const char *url, char ret_why[BROKER_WHY_MAX])
{
    char copy[SETTINGS_TEXT_MAX];
    struct amqp_connection_info info;
    return parse_url(url, copy, &info, ret_why);
}

/* --- verdicts --------------------------------------------------------------------------------- */

static void explain_exception(const amqp_method_t *method, char *ret_why)
{
    int code = 0;
    amqp_bytes_t text = amqp_empty_bytes;
    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *closed = method->decoded;
        code = closed->reply_code;
        text = closed->reply_text;
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *closed = method->decoded;
        code = closed->reply_code;
        text = closed->reply_text;
    }
    snprintf(ret_why, BROKER_WHY_MAX, "%d %.*s", code, (int)text.len, (const char *)text.bytes);
}

enum sg_error broker_verdict(amqp_rpc_reply_t reply, char ret_why[BROKER_WHY_MAX])
{
    switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
        return SG_OK;
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        snprintf(ret_why, BROKER_WHY_MAX, "%s", amqp_error_string2(reply.library_error));
        return SG_IO;
    case AMQP_RESPONSE_SERVER_EXCEPTION:
        explain_exception(&reply.reply, ret_why);
        return SG_IO;
    default:
        snprintf(ret_why, BROKER_WHY_MAX, "no answer");
        return SG_IO;
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

static amqp_table_entry_t entry_bool(const char *key, bool value)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = value ? 1 : 0}};
}

static amqp_table_entry_t entry_text(const char *key, const char *value)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)}};
}

static amqp_table_entry_t entry_int(const char *key, int64_t value)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value}};
}

static enum sg_error log_in(amqp_connection_state_t connection, const struct settings *settings,
                            const struct amqp_connection_info *info, char *ret_why)
{
    /* The broker tells when it takes nothing for want of memory, and when a queue has gone. */
    amqp_table_entry_t can[] = {
        entry_bool("connection.blocked", true), entry_bool("consumer_cancel_notify", true),
        entry_bool("basic.nack", true), entry_bool("publisher_confirms", true),
        entry_bool("authentication_failure_close", true)};
    const amqp_table_t capabilities = {.num_entries = sizeof(can) / sizeof(can[0]), .entries = can};
    amqp_table_entry_t told[] = {
        entry_text("connection_name", "seatgrid"),
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE, .value.table = capabilities}}};
    const amqp_table_t properties = {.num_entries = 2, .entries = told};
    int heartbeat_s = (int)((settings->queue.heartbeat_ms + 999) / 1000);
    return broker_verdict(
        amqp_login_with_properties(connection, info->vhost, CHANNELS_MAX, FRAME_MAX, heartbeat_s,
                                   &properties, AMQP_SASL_METHOD_PLAIN, info->user, info->password),
        ret_why);
}

static enum sg_error dial(amqp_connection_state_t connection, const struct settings *settings,
                          char *ret_why)
{
    char copy[SETTINGS_TEXT_MAX];
    struct amqp_connection_info info;
    struct timeval patience = clock_timeval_us(settings->queue.connect_timeout_ms * 1000);
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket)
        return SG_NO_MEMORY;
    enum sg_error error = parse_url(settings->queue.url, copy, &info, ret_why);
    if (error)
        return error;
    int status = amqp_socket_open_noblock(socket, info.host, info.port, &patience);
    if (status != AMQP_STATUS_OK) {
        snprintf(ret_why, BROKER_WHY_MAX, "%.100s port %d: %s", info.host, info.port,
                 amqp_error_string2(status));
        return SG_IO;
    }
    amqp_set_handshake_timeout(connection, &patience);
    amqp_set_rpc_timeout(connection, &patience);
    return log_in(connection, settings, &info, ret_why);
}

enum sg_error broker_open(const struct settings *settings, amqp_connection_state_t *ret_connection,
                          char ret_why[BROKER_WHY_MAX])
{
    snprintf(ret_why, BROKER_WHY_MAX, "out of memory");
    amqp_connection_state_t connection = amqp_new_connection();
    if (!connection)
        return SG_NO_MEMORY;
    enum sg_error error = dial(connection, settings, ret_why);
    if (!error)
        error = broker_open_channel(connection, BROKER_ADMIN_CHANNEL, ret_why);
    if (error) {
        broker_close(connection, false);
        return error;
    }
    *ret_connection = connection;
    return SG_OK;
}

void broker_close(amqp_connection_state_t connection, bool in_order)
{
    if (!connection)
        return;
    if (in_order)
        (void)amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
}

enum sg_error broker_open_channel(amqp_connection_state_t connection, amqp_channel_t channel,
                                  char ret_why[BROKER_WHY_MAX])
{
    amqp_channel_open(connection, channel);
    return broker_verdict(amqp_get_rpc_reply(connection), ret_why);
}

/* --- queues ----------------------------------------------------------------------------------- */

void broker_queue_name(const char *shard, char ret_name[BROKER_QUEUE_MAX])
{
    snprintf(ret_name, BROKER_QUEUE_MAX, "seatgrid.book.%s", shard);
}

static bool has_other_arguments(amqp_rpc_reply_t reply)
{
    const amqp_channel_close_t *closed = reply.reply.decoded;
    return reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
           reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD &&
           closed->reply_code == AMQP_PRECONDITION_FAILED;
}

static enum sg_error declare_one(amqp_connection_state_t connection, const char *name,
                                 amqp_table_entry_t *entries, int count, char *ret_why)
{
    const amqp_table_t arguments = {.num_entries = count, .entries = entries};
    amqp_queue_declare(connection, BROKER_ADMIN_CHANNEL, amqp_cstring_bytes(name), 0, 1, 0, 0,
                       arguments);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    enum sg_error error = broker_verdict(reply, ret_why);
    if (!error || !has_other_arguments(reply))
        return error;
    log_warn(NULL, "queue: %s is left as it is: %s", name, ret_why);
    amqp_channel_close_ok_t closed = {0};
    int status =
        amqp_send_method(connection, BROKER_ADMIN_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &closed);
    if (status != AMQP_STATUS_OK) {
        snprintf(ret_why, BROKER_WHY_MAX, "%s", amqp_error_string2(status));
        return SG_IO;
    }
    return broker_open_channel(connection, BROKER_ADMIN_CHANNEL, ret_why);
}

enum sg_error broker_declare(amqp_connection_state_t connection, const struct settings *settings,
                             const char *shard, char ret_why[BROKER_WHY_MAX])
{
    char name[BROKER_QUEUE_MAX];
    char dead[BROKER_QUEUE_MAX + 8];
    broker_queue_name(shard, name);
    snprintf(dead, sizeof(dead), "%s.dead", name);
    amqp_table_entry_t of_dead[] = {entry_text("x-queue-type", "quorum")};
    /* at-least-once: the broker, too, lets go of a message only when the dead letters have it. */
    amqp_table_entry_t of_queue[] = {entry_text("x-queue-type", "quorum"),
                                     entry_text("x-dead-letter-exchange", ""),
                                     entry_text("x-dead-letter-routing-key", dead),
                                     entry_text("x-dead-letter-strategy", "at-least-once"),
                                     entry_text("x-overflow", "reject-publish"),
                                     entry_int("x-delivery-limit", settings->queue.deliveries)};
    enum sg_error error = declare_one(connection, dead, of_dead, 1, ret_why);
    if (!error)
        error = declare_one(connection, name, of_queue, 6, ret_why);
    amqp_maybe_release_buffers(connection);
    return error;
}
