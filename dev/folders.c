/*
 * Folders of the local cluster and their owner. See folders.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev/process.h"

#define MARKER ".seatgrid-servers" /* only a folder with this file in it is ever removed */
#define TREE_FDS 16

/* --- VAR -------------------------------------------------------------------------------------- */

static enum sg_error make_folder(struct cluster *cluster, const char *path)
{
    if (mkdir(path, 0755) == 0)
        return chmod(path, 0755) == 0 ? SG_OK : cluster_fail(cluster, "%s: %m", path);
    struct stat about;
    if (errno == EEXIST && stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        return SG_OK;
    return cluster_fail(cluster, "cannot make the folder %s: %m", path);
}

/* The folder with its parents, as mkdir -p. */
static enum sg_error make_path(struct cluster *cluster, const char *path)
{
    char part[CLUSTER_PATH_MAX];
    for (const char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        enum sg_error error =
            make_folder(cluster, cluster_path(part, "%.*s", (int)(p - path), path));
        if (error)
            return error;
    }
    return make_folder(cluster, path);
}

enum sg_error folders_open(struct cluster *cluster, bool make)
{
    char path[CLUSTER_PATH_MAX];
    char real[PATH_MAX];
    const char *var = cluster->options.var;
    enum sg_error error = SG_OK;
    if (!var[0])
        return cluster_fail(cluster, "--var: the folder's name is empty");
    if (make)
        error = make_path(cluster, var);
    if (error)
        return error;
    if (!realpath(var, real)) {
        cluster_fail(cluster, "%s: %m", var);
        return errno == ENOENT ? SG_NOT_FOUND : SG_IO;
    }
    if (strlen(real) > CLUSTER_VAR_MAX || strpbrk(real, "'\"\\\n"))
        return cluster_fail(cluster, "%s: the path is too long or has quotes in it", var);
    cluster_path(cluster->var, "%s", real);
    if (make)
        error = make_folder(cluster, cluster_path(path, "%s/log", cluster->var));
    if (make && !error)
        error = make_folder(cluster, cluster_path(path, "%s/run", cluster->var));
    return error;
}

enum sg_error folders_lock(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    char holder[32] = "";
    int fd =
        open(cluster_path(path, "%s/run/lock", cluster->var), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return cluster_fail(cluster, "cannot open %s: %m", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = read(fd, holder, sizeof(holder) - 1);
        close(fd);
        cluster_fail(cluster, "another `seatgrid dev` is at work in %s (pid %d)", cluster->var,
                     len > 0 ? atoi(holder) : 0);
        return SG_RELOAD_BUSY;
    }
    if (ftruncate(fd, 0) != 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
        close(fd);
        return cluster_fail(cluster, "cannot write %s: %m", path);
    }
    cluster->lock_fd = fd;
    return SG_OK;
}

void folders_unlock(struct cluster *cluster)
{
    if (cluster->lock_fd >= 0)
        close(cluster->lock_fd);
    cluster->lock_fd = -1;
}

/* --- whom the servers run as ------------------------------------------------------------------ */

static enum sg_error choose_user(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    struct stat about;
    bool exists = stat(cluster_path(path, "%s/servers", cluster->var), &about) == 0;
    cluster->user = (struct process_user){0};
    if (geteuid() != 0) {
        if (exists && about.st_uid != geteuid())
            return cluster_fail(cluster,
                                "%s belongs to another user (uid %d); work as that user or as "
                                "root, or choose another folder with --var (make: VAR=)",
                                path, (int)about.st_uid);
        return SG_OK;
    }
    if (exists && about.st_uid != 0) {
        cluster->user =
            (struct process_user){.change = true, .uid = about.st_uid, .gid = about.st_gid};
        return SG_OK;
    }
    const struct passwd *user = getpwnam("postgres");
    if (!user)
        user = getpwnam("nobody");
    if (!user)
        return cluster_fail(cluster, "PostgreSQL refuses to run as root, and there is neither a "
                                     "user postgres nor a user nobody");
    cluster->user = (struct process_user){.change = true, .uid = user->pw_uid, .gid = user->pw_gid};
    return SG_OK;
}

/* May that user walk into the folder? Asked by a child that becomes the user. */
static bool user_reaches(const struct process_user *user, const char *path)
{
    int status;
    if (!user->change)
        return true;
    pid_t pid = fork();
    if (pid == 0) {
        bool may = setgroups(0, NULL) == 0 && setgid(user->gid) == 0 && setuid(user->uid) == 0 &&
                   access(path, X_OK) == 0;
        _exit(may ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/* --- VAR/servers ------------------------------------------------------------------------------ */

/* FNV-1a: names a folder, guards nothing. */
static uint64_t hash_text(const char *text)
{
    uint64_t hash = 14695981039346656037ULL;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
    return hash;
}

static enum sg_error make_servers(struct cluster *cluster, const char *path)
{
    char marker[CLUSTER_PATH_MAX];
    const struct process_user *user = &cluster->user;
    uid_t owner = user->change ? user->uid : geteuid();
    struct stat about;
    if (mkdir(path, 0700) == 0) {
        if (user->change && lchown(path, user->uid, user->gid) != 0)
            return cluster_fail(cluster, "%s: cannot give it to the servers' user: %m", path);
    } else if (errno != EEXIST) {
        return cluster_fail(cluster, "cannot make the folder %s: %m", path);
    }
    /* It may lie where everyone writes: take nobody else's folder, and follow no link. */
    if (lstat(path, &about) != 0 || !S_ISDIR(about.st_mode) || about.st_uid != owner)
        return cluster_fail(cluster, "%s is in the way: not a folder of uid %d", path, (int)owner);
    int fd = open(cluster_path(marker, "%s/" MARKER, path), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return cluster_fail(cluster, "cannot write %s: %m", marker);
    close(fd);
    return SG_OK;
}

static enum sg_error make_servers_elsewhere(struct cluster *cluster, const char *link)
{
    char path[CLUSTER_PATH_MAX];
    cluster_path(path, "/var/tmp/seatgrid-%016llx", (unsigned long long)hash_text(cluster->var));
    enum sg_error error = make_servers(cluster, path);
    if (error)
        return error;
    unlink(link); /* one that points nowhere */
    if (symlink(path, link) != 0)
        return cluster_fail(cluster, "cannot make the link %s: %m", link);
    cluster_say("servers", "run as uid %d, which cannot reach %s:", (int)cluster->user.uid,
                cluster->var);
    cluster_say("", "their data is in %s", path);
    return SG_OK;
}

enum sg_error folders_servers(struct cluster *cluster, bool make)
{
    char path[CLUSTER_PATH_MAX];
    char real[PATH_MAX];
    enum sg_error error = choose_user(cluster);
    cluster_path(path, "%s/servers", cluster->var);
    if (!error && make && access(path, F_OK) != 0) {
        error = user_reaches(&cluster->user, cluster->var) ? make_servers(cluster, path)
                                                           : make_servers_elsewhere(cluster, path);
    }
    if (error)
        return error;
    if (!realpath(path, real)) {
        cluster_fail(cluster, "%s: %m", path);
        return errno == ENOENT ? SG_NOT_FOUND : SG_IO;
    }
    cluster_path(cluster->servers, "%s", real);
    if (make && !user_reaches(&cluster->user, cluster->servers))
        return cluster_fail(cluster,
                            "%s: the servers' user (uid %d) cannot reach it; remove it "
                            "with `seatgrid dev destroy` or mend its permissions",
                            cluster->servers, (int)cluster->user.uid);
    return SG_OK;
}

/* --- removing --------------------------------------------------------------------------------- */

static int on_entry(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about;
    (void)kind;
    (void)place;
    return remove(path);
}

enum sg_error folders_remove_tree(struct cluster *cluster, const char *path)
{
    struct stat about;
    if (lstat(path, &about) != 0 && errno == ENOENT)
        return SG_OK;
    if (nftw(path, on_entry, TREE_FDS, FTW_DEPTH | FTW_PHYS) != 0)
        return cluster_fail(cluster, "cannot remove %s: %m", path);
    return SG_OK;
}

enum sg_error folders_destroy(struct cluster *cluster)
{
    static const char *const own[] = {"servers",
                                      "log",
                                      "seatgrid.cfg",
                                      "shardmap.cfg",
                                      "run",
                                      "seatgrid.cfg.old",
                                      "shardmap.cfg.old",
                                      CLUSTER_SECRET_FILE,
                                      "mockpay.journal"};
    char path[CLUSTER_PATH_MAX];
    enum sg_error error = SG_OK;
    if (cluster->servers[0]) {
        if (access(cluster_path(path, "%s/" MARKER, cluster->servers), F_OK) != 0)
            return cluster_fail(cluster, "%s was not made by `seatgrid dev`: left alone",
                                cluster->servers);
        error = folders_remove_tree(cluster, cluster->servers);
    }
    for (size_t i = 0; !error && i < sizeof(own) / sizeof(own[0]); i++)
        error = folders_remove_tree(cluster, cluster_path(path, "%s/%s", cluster->var, own[i]));
    if (!error)
        rmdir(cluster->var); /* stays if there is something else in it */
    return error;
}
