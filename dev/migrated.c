/*
 * The schema of the local cluster. See migrated.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/migrated.h"

#include "base/dynbuf.h"
#include "router/migrate.h"
#include "shardmap/shardmap.h"

static enum sg_error migrate_one(struct cluster *cluster, const struct shardmap_shard *shard)
{
    struct migrate_report report;
    enum sg_error error = migrate_shard(shard, migrations, false, &report);
    if (error)
        return cluster_fail(cluster, "shard %s: %s", shard->name, report.error_text);
    if (report.before < report.after)
        cluster_say(shard->name, "schema version %d, was %d", report.after, report.before);
    return SG_OK;
}

enum sg_error migrated_all(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    struct shardmap *map = NULL;
    struct dynbuf errors;
    dynbuf_init(&errors, 1 << 16);
    cluster_path(path, "%s/shardmap.cfg", cluster->var);
    enum sg_error error = shardmap_load(path, &map, &errors);
    if (error)
        cluster_fail(cluster, "%s: %s\n%s", path, sg_error_title(error), dynbuf_text(&errors));
    for (size_t i = 0; !error && i < shardmap_shard_count(map); i++)
        error = migrate_one(cluster, shardmap_shard(map, (int)i));
    shardmap_free(map);
    dynbuf_done(&errors);
    return error;
}
