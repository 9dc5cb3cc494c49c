/*
 * PostgreSQL's programs. See pgbin.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/pgbin.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The newest installed major version, as a folder; "" if there is none. */
static void newest_bindir(char *ret_path)
{
    glob_t found;
    int newest = -1;
    ret_path[0] = '\0';
    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int major = atoi(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"));
        if (major > newest) {
            newest = major;
            cluster_path(ret_path, "/usr/lib/postgresql/%d/bin", major);
        }
    }
    globfree(&found);
}

/* Where another distribution keeps them: asks pg_config. */
static void configured_bindir(char *ret_path)
{
    FILE *answer = popen("pg_config --bindir 2>/dev/null", "r");
    ret_path[0] = '\0';
    if (!answer)
        return;
    if (!fgets(ret_path, CLUSTER_PATH_MAX, answer))
        ret_path[0] = '\0';
    ret_path[strcspn(ret_path, "\n")] = '\0';
    pclose(answer);
}

/* Major version of existing data; 0 if there is none. */
static int data_major(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    int major = 0;
    FILE *file = fopen(cluster_path(path, "%s/%s/PG_VERSION", cluster->servers, node->name), "re");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &major) != 1)
        major = 0;
    fclose(file);
    return major;
}

enum sg_error pgbin_find(struct cluster *cluster, const struct server *node, const char *name,
                         char *ret_path)
{
    char folder[CLUSTER_PATH_MAX];
    int major = data_major(cluster, node);
    if (major)
        cluster_path(folder, "/usr/lib/postgresql/%d/bin", major);
    else
        newest_bindir(folder);
    if (!folder[0] || access(folder, X_OK) != 0)
        configured_bindir(folder);
    cluster_path(ret_path, "%s/%s", folder, name);
    if (folder[0] && access(ret_path, X_OK) == 0)
        return SG_OK;
    if (major)
        return cluster_fail(cluster,
                            "%s was made by PostgreSQL %d, which is not installed; install it or "
                            "remove the data with `seatgrid dev destroy`",
                            node->name, major);
    return cluster_fail(cluster,
                        "PostgreSQL's program %s is not installed; tools/install-deps run "
                        "does it",
                        name);
}

enum sg_error pgbin_folder(struct cluster *cluster, const struct server *node, char *ret_path)
{
    enum sg_error error = pgbin_find(cluster, node, "postgres", ret_path);
    if (!error)
        *strrchr(ret_path, '/') = '\0';
    return error;
}
