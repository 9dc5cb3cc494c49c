/*
 * The commands to shard.lua, which keeps a shard's hash. See sink.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "replication/outbox.h"
#include "replication/sink.h"

/* Up to and with the epoch; `more` arguments follow. */
static void begin(struct dynbuf *out, const char *shard, const char *what, int64_t epoch,
                  size_t more)
{
    char key[REDISKEY_MAX];
    size_t len = rediskey_shard(key, shard);
    redisresp_begin(out, 6 + more);
    redisresp_args(out, "EVALSHA");
    redisresp_args(out, script_sha(SCRIPT_SHARD));
    redisresp_args(out, "1");
    redisresp_arg(out, key, len);
    redisresp_args(out, what);
    redisresp_arg_i64(out, epoch);
}

/* LSNs and system identifiers are unsigned. */
static void arg_u64(struct dynbuf *out, uint64_t value)
{
    char digits[20];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    redisresp_arg(out, digits + i, sizeof(digits) - i);
}

void sink_claim(struct dynbuf *out, const char *shard, int64_t epoch)
{
    begin(out, shard, "claim", epoch, 0);
}

void sink_mark(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
               uint64_t lsn, bool live)
{
    begin(out, shard, "mark", epoch, 3);
    redisresp_arg_i64(out, generation);
    arg_u64(out, lsn);
    redisresp_args(out, live ? "live" : "stale");
}

void sink_switch(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
                 uint64_t lsn, int32_t timeline, uint64_t system_identifier)
{
    begin(out, shard, "switch", epoch, 4);
    redisresp_arg_i64(out, generation);
    arg_u64(out, lsn);
    redisresp_arg_i64(out, timeline);
    arg_u64(out, system_identifier);
}

void sink_follow(struct dynbuf *out, const char *shard, int64_t epoch, int64_t generation,
                 uint64_t lsn, int32_t timeline)
{
    begin(out, shard, "follow", epoch, 3);
    redisresp_arg_i64(out, generation);
    arg_u64(out, lsn);
    redisresp_arg_i64(out, timeline);
}

void sink_tell(struct dynbuf *out, const char *shard, int64_t epoch, const char *status_json)
{
    begin(out, shard, "tell", epoch, 1);
    redisresp_args(out, status_json);
}
