/*
 * Roles of the nodes of a local cluster. See roles.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/roles.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dev/ask.h"
#include "dev/postgres.h"
#include "dev/rewind.h"

/* Who says nothing may be cut off, and somebody may wait for another to be promoted; the files are
 * nearly always right, too. */
#define ASK_MS 250
#define HISTORY_MAX 65536

/* --- pure ------------------------------------------------------------------------------------- */

/* Two on one timeline were promoted behind each other's back; the one that runs is taken. */
static bool is_before(const struct server *a, const struct server *b)
{
    if (a->timeline != b->timeline)
        return a->timeline > b->timeline;
    return a->id.pid && !b->id.pid;
}

void roles_decide(struct server *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct server *first = &nodes[i];
        if (first->role != ROLE_PRIMARY)
            continue;
        for (size_t j = i + 1; j < count; j++) {
            struct server *other = &nodes[j];
            if (other->role != ROLE_PRIMARY || strcmp(first->shard, other->shard) != 0)
                continue;
            struct server *loser = is_before(other, first) ? first : other;
            loser->role = ROLE_OLD_PRIMARY;
            first = loser == first ? other : first;
        }
    }
}

bool roles_parse_history(const char *text, uint64_t *ret_lsn)
{
    bool found = false;
    while (*text) {
        unsigned parent;
        unsigned high;
        unsigned low;
        if (sscanf(text, "%u %X/%X", &parent, &high, &low) == 3) {
            *ret_lsn = (uint64_t)high << 32 | low;
            found = true;
        }
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return found;
}

const char *roles_name(enum server_role role)
{
    switch (role) {
    case ROLE_PRIMARY:
        return "primary";
    case ROLE_OLD_PRIMARY:
        return "old primary";
    case ROLE_REPLICA:
        return "replica";
    case ROLE_HALF_REWOUND:
        return "half rewound";
    case ROLE_NONE:
        break;
    }
    return "no data";
}

/* --- learning --------------------------------------------------------------------------------- */

/* A node that was promoted has the history file of its timeline; one that is a standby, those of
 * the timelines it has heard of. */
static uint32_t newest_timeline(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    struct dirent *entry;
    uint32_t newest = 1;
    DIR *folder = opendir(cluster_path(path, "%s/%s/pg_wal", cluster->servers, node->name));
    while (folder && (entry = readdir(folder))) {
        char *end;
        unsigned long timeline = strtoul(entry->d_name, &end, 16);
        if (end == entry->d_name + 8 && strcmp(end, ".history") == 0 && timeline > newest)
            newest = (uint32_t)timeline;
    }
    if (folder)
        closedir(folder);
    return newest;
}

static bool is_standby(const struct cluster *cluster, const struct server *node)
{
    struct ask_answer answer;
    if (node->id.pid && !process_stopped(&node->id) &&
        ask_once(node->port, "SELECT pg_is_in_recovery()", ASK_MS, &answer))
        return strcmp(answer.value[0], "t") == 0;
    return postgres_is_standby(cluster, node);
}

static void learn_one(const struct cluster *cluster, struct server *node)
{
    node->role = ROLE_NONE;
    node->timeline = 0;
    if (!postgres_exists(cluster, node))
        return;
    node->timeline = newest_timeline(cluster, node);
    if (rewind_cut_short(cluster, node))
        node->role = ROLE_HALF_REWOUND;
    else
        node->role = is_standby(cluster, node) ? ROLE_REPLICA : ROLE_PRIMARY;
}

void roles_learn(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->node_count; i++)
        learn_one(cluster, &cluster->nodes[i]);
    roles_decide(cluster->nodes, cluster->node_count);
}

struct server *roles_primary(struct cluster *cluster, const char *shard)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (node->role == ROLE_PRIMARY && strcmp(node->shard, shard) == 0)
            return node;
    }
    return NULL;
}

bool roles_fork(const struct cluster *cluster, const struct server *node, uint64_t *ret_lsn)
{
    static char text[HISTORY_MAX];
    char path[CLUSTER_PATH_MAX];
    FILE *file = fopen(cluster_path(path, "%s/%s/pg_wal/%08X.history", cluster->servers, node->name,
                                    node->timeline),
                       "re");
    if (!file)
        return false;
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return roles_parse_history(text, ret_lsn);
}
