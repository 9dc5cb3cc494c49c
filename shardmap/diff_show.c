/*
 * A diff of two maps as lines for people and as JSON for programs. See diff.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/dynbuf.h"
#include "shardmap/diff.h"

static const char *const change_names[] = {
    [SHARDMAP_SHARD_ADDED] = "shard_added", [SHARDMAP_SHARD_REMOVED] = "shard_removed",
    [SHARDMAP_NODE_ADDED] = "node_added",   [SHARDMAP_NODE_REMOVED] = "node_removed",
    [SHARDMAP_NODE_MOVED] = "node_moved",   [SHARDMAP_NODE_DSN] = "node_dsn",
    [SHARDMAP_DURABILITY] = "durability",
};

const char *shardmap_change_name(enum shardmap_change_kind kind)
{
    return change_names[kind];
}

static void add_change(struct dynbuf *out, const struct shardmap_change *change)
{
    switch (change->kind) {
    case SHARDMAP_SHARD_ADDED:
        dynbuf_addf(out, "  + shard %s\n", change->shard);
        break;
    case SHARDMAP_SHARD_REMOVED:
        dynbuf_addf(out, "  - shard %s\n", change->shard);
        break;
    case SHARDMAP_NODE_ADDED:
        dynbuf_addf(out, "  + node %s of %s\n", change->node, change->shard);
        break;
    case SHARDMAP_NODE_REMOVED:
        dynbuf_addf(out, "  - node %s of %s\n", change->node, change->shard);
        break;
    case SHARDMAP_NODE_MOVED:
        dynbuf_addf(out, "  ~ node %s: %s -> %s\n", change->node, change->old_shard, change->shard);
        break;
    case SHARDMAP_NODE_DSN:
        dynbuf_addf(out, "  ~ node %s of %s: another dsn\n", change->node, change->shard);
        break;
    case SHARDMAP_DURABILITY:
        dynbuf_addf(out, "  ~ shard %s: durability is now %s\n", change->shard, change->durability);
        break;
    }
}

static void add_move(struct dynbuf *out, const struct shardmap_move *move)
{
    const char *from = move->from ? move->from : "(none)";
    const char *to = move->to ? move->to : "(none)";
    dynbuf_adds(out, "  ");
    dynbuf_add_i64(out, move->first);
    if (move->last != move->first) {
        dynbuf_adds(out, "..");
        dynbuf_add_i64(out, move->last);
    }
    dynbuf_addf(out, "  %s -> %s\n", from, to);
}

void shardmap_diff_text(const struct shardmap_diff *diff, struct dynbuf *out)
{
    dynbuf_addf(out, "map version %lld -> %lld\n", (long long)diff->old_version,
                (long long)diff->new_version);
    if (shardmap_diff_empty(diff))
        dynbuf_adds(out, "no difference in events, shards and nodes\n");
    if (diff->change_count > 0)
        dynbuf_adds(out, "servers\n");
    for (size_t i = 0; i < diff->change_count; i++)
        add_change(out, &diff->changes[i]);
    if (diff->move_count > 0)
        dynbuf_adds(out, "events that change hands\n");
    for (size_t i = 0; i < diff->move_count; i++)
        add_move(out, &diff->moves[i]);
}

/* ,"name":"value" or ,"name":null */
static void add_member(struct dynbuf *out, const char *name, const char *value)
{
    dynbuf_addf(out, ",\"%s\":", name);
    if (value)
        dynbuf_add_json(out, value);
    else
        dynbuf_adds(out, "null");
}

void shardmap_diff_json(const struct shardmap_diff *diff, struct dynbuf *out)
{
    dynbuf_adds(out, "{\"oldVersion\":");
    dynbuf_add_i64(out, diff->old_version);
    dynbuf_adds(out, ",\"newVersion\":");
    dynbuf_add_i64(out, diff->new_version);
    dynbuf_adds(out, ",\"moves\":[");
    for (size_t i = 0; i < diff->move_count; i++) {
        const struct shardmap_move *move = &diff->moves[i];
        dynbuf_adds(out, i ? ",{\"first\":" : "{\"first\":");
        dynbuf_add_i64(out, move->first);
        dynbuf_adds(out, ",\"last\":");
        dynbuf_add_i64(out, move->last);
        add_member(out, "from", move->from);
        add_member(out, "to", move->to);
        dynbuf_addc(out, '}');
    }
    dynbuf_adds(out, "],\"changes\":[");
    for (size_t i = 0; i < diff->change_count; i++) {
        const struct shardmap_change *change = &diff->changes[i];
        dynbuf_addf(out, "%s{\"kind\":\"%s\"", i ? "," : "", shardmap_change_name(change->kind));
        add_member(out, "shard", change->shard);
        if (change->node)
            add_member(out, "node", change->node);
        if (change->old_shard)
            add_member(out, "oldShard", change->old_shard);
        if (change->durability)
            add_member(out, "durability", change->durability);
        dynbuf_addc(out, '}');
    }
    dynbuf_adds(out, "]}");
}
