/*
 * The configuration of the local cluster. See configs.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/configs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/dynbuf.h"
#include "base/settings.h"

#define CONFIG_MAX (1 << 20)
#define EVENTS_A_SHARD 1000000
#define KEY_MAX 64
#define SECRET_BYTES 32

/* --- seatgrid.cfg ----------------------------------------------------------------------------- */

struct entry {
    char group[KEY_MAX]; /* "" for a key of the top level */
    char key[KEY_MAX];
    char value[SETTINGS_TEXT_MAX]; /* as libconfig writes it */
};

struct entries {
    struct entry list[CLUSTER_SETS_MAX + 16];
    size_t count;
};

/* Numbers, truth values and what is quoted already go as they are; anything else is a string. */
static void write_value(char *ret_value, size_t size, const char *value)
{
    char *end;
    strtoll(value, &end, 10);
    bool plain = (*value && !*end) || value[0] == '"' || strcmp(value, "true") == 0 ||
                 strcmp(value, "false") == 0;
    snprintf(ret_value, size, plain ? "%s" : "\"%s\"", value);
}

/* Later entries win over earlier ones. */
static void set_entry(struct entries *entries, const char *group, const char *key,
                      const char *value)
{
    size_t i = 0;
    while (i < entries->count &&
           (strcmp(entries->list[i].group, group) != 0 || strcmp(entries->list[i].key, key) != 0))
        i++;
    if (i == sizeof(entries->list) / sizeof(entries->list[0]))
        return; /* the command line takes no more than fit */
    struct entry *entry = &entries->list[i];
    snprintf(entry->group, sizeof(entry->group), "%s", group);
    snprintf(entry->key, sizeof(entry->key), "%s", key);
    write_value(entry->value, sizeof(entry->value), value);
    if (i == entries->count)
        entries->count++;
}

/* "group.key=value" or "key=value" */
static void set_option(struct entries *entries, const char *set)
{
    char group[KEY_MAX] = "";
    char key[KEY_MAX];
    size_t name_len = strcspn(set, "=");
    size_t group_len = strcspn(set, ".=");
    if (group_len < name_len) {
        snprintf(group, sizeof(group), "%.*s", (int)group_len, set);
        snprintf(key, sizeof(key), "%.*s", (int)(name_len - group_len - 1), set + group_len + 1);
    } else {
        snprintf(key, sizeof(key), "%.*s", (int)name_len, set);
    }
    set_entry(entries, group, key, set + name_len + (set[name_len] == '='));
}

/* What a switchover runs for the other nodes of its shard. Its words are parted by blanks, so paths
 * with blanks in them cannot be had: then nobody does it. */
static void set_rejoin_command(const struct cluster *cluster, struct entries *entries)
{
    char binary[CLUSTER_PATH_MAX];
    char command[sizeof(entries->list[0].value) - 2]; /* its quotes */
    ssize_t len = readlink("/proc/self/exe", binary, sizeof(binary) - 1);
    if (len < 0)
        return;
    binary[len] = '\0';
    int needed = snprintf(command, sizeof(command), "%s dev rejoin --var %s", binary, cluster->var);
    if (needed < (int)sizeof(command) && !strpbrk(binary, " \"\\\t\n") &&
        !strpbrk(cluster->var, " \t"))
        set_entry(entries, "switchover", "rejoin_command", command);
}

static void collect(const struct cluster *cluster, struct entries *ret_entries)
{
    const struct cluster_options *options = &cluster->options;
    char address[64];
    ret_entries->count = 0;
    set_entry(ret_entries, "", "shard_map", "shardmap.cfg");
    snprintf(address, sizeof(address), "127.0.0.1:%d", options->http_port);
    set_entry(ret_entries, "http", "listen", address);
    snprintf(address, sizeof(address), "127.0.0.1:%d", options->admin_port);
    set_entry(ret_entries, "admin", "listen", address);
    snprintf(address, sizeof(address), "127.0.0.1:%d", cluster->redis.port);
    set_entry(ret_entries, "redis", "address", address);
    snprintf(address, sizeof(address), "127.0.0.1:%d", cluster->cdc.port);
    set_entry(ret_entries, "cdc", "listen", address);
    snprintf(address, sizeof(address), "http://127.0.0.1:%d", cluster->mockpay.port);
    set_entry(ret_entries, "payment", "provider_url", address);
    set_entry(ret_entries, "payment", "secret_file", CLUSTER_SECRET_FILE);
    snprintf(address, sizeof(address), "http://127.0.0.1:%d/payments/callback", options->http_port);
    set_entry(ret_entries, "payment", "callback_url", address);
    if (options->queue == 1) {
        snprintf(address, sizeof(address), "amqp://guest:guest@127.0.0.1:%d/",
                 cluster->rabbitmq.port);
        set_entry(ret_entries, "queue", "url", address);
        snprintf(address, sizeof(address), "127.0.0.1:%d", cluster->worker.port);
        set_entry(ret_entries, "queue", "worker_listen", address);
    }
    if (options->ha != 1) /* Patroni does it by itself */
        set_rejoin_command(cluster, ret_entries);
    if (options->strategy)
        set_entry(ret_entries, "booking", "strategy", options->strategy);
    for (size_t i = 0; i < options->set_count; i++)
        set_option(ret_entries, options->sets[i]);
}

static void add_group(struct dynbuf *out, const struct entries *entries, size_t first)
{
    const char *group = entries->list[first].group;
    for (size_t i = 0; i < first; i++) {
        if (strcmp(entries->list[i].group, group) == 0)
            return; /* written with its first entry */
    }
    if (group[0])
        dynbuf_addf(out, "%s = {\n", group);
    for (size_t i = first; i < entries->count; i++) {
        const struct entry *entry = &entries->list[i];
        if (strcmp(entry->group, group) == 0)
            dynbuf_addf(out, "%s%s = %s;\n", group[0] ? "    " : "", entry->key, entry->value);
    }
    if (group[0])
        dynbuf_adds(out, "};\n");
}

static void render_settings(const struct cluster *cluster, struct dynbuf *out)
{
    static struct entries entries;
    collect(cluster, &entries);
    dynbuf_adds(out, "# Settings of the local cluster; every key is explained in\n"
                     "# configs/seatgrid.example.cfg.\n");
    for (size_t i = 0; i < entries.count; i++)
        add_group(out, &entries, i);
}

/* --- shardmap.cfg ----------------------------------------------------------------------------- */

static void add_shard(const struct cluster *cluster, const char *shard, struct dynbuf *out)
{
    dynbuf_addf(out, "  { name = \"%s\"; %snodes = (\n", shard,
                cluster->options.sync == 1 ? "durability = \"sync\"; " : "");
    bool first = true;
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (strcmp(node->shard, shard) != 0)
            continue;
        dynbuf_addf(out,
                    "%s      { name = \"%s\";\n"
                    "        dsn = \"host=127.0.0.1 port=%d user=seatgrid dbname=seatgrid\"; }",
                    first ? "" : ",\n", node->name, node->port);
        first = false;
    }
    dynbuf_adds(out, " ); }");
}

static bool is_first_of_shard(const struct cluster *cluster, size_t i)
{
    return i == 0 || strcmp(cluster->nodes[i - 1].shard, cluster->nodes[i].shard) != 0;
}

static void render_map(const struct cluster *cluster, struct dynbuf *out)
{
    int64_t first = 1;
    dynbuf_adds(out, "# Shard map of the local cluster. Change it and say `seatgrid reload`.\n"
                     "map_version = 1;\nshards = (\n");
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!is_first_of_shard(cluster, i))
            continue;
        dynbuf_adds(out, i ? ",\n" : "");
        add_shard(cluster, cluster->nodes[i].shard, out);
    }
    dynbuf_adds(out, " );\nranges = (\n");
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!is_first_of_shard(cluster, i))
            continue;
        dynbuf_addf(out, "%s  { first = %lld; last = %lld; shard = \"%s\"; }", i ? ",\n" : "",
                    (long long)first, (long long)first + EVENTS_A_SHARD - 1,
                    cluster->nodes[i].shard);
        first += EVENTS_A_SHARD;
    }
    dynbuf_adds(out, " );\npins = ();\n");
}

/* --- the payment service's secret ------------------------------------------------------------- */

/* Once, and for our eyes only. */
static enum sg_error write_secret(struct cluster *cluster)
{
    unsigned char secret[SECRET_BYTES];
    char path[CLUSTER_PATH_MAX];
    cluster_path(path, "%s/" CLUSTER_SECRET_FILE, cluster->var);
    if (access(path, F_OK) == 0)
        return SG_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file || getrandom(secret, sizeof(secret), 0) != sizeof(secret)) {
        if (file)
            fclose(file);
        else if (fd >= 0)
            close(fd);
        return cluster_fail(cluster, "cannot write %s: %m", path);
    }
    for (size_t i = 0; i < sizeof(secret); i++)
        fprintf(file, "%02x", secret[i]);
    fputc('\n', file);
    if (fclose(file) != 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    return SG_OK;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* What was generated stands a second time in VAR/run: so a later `up` sees whether it would
 * generate the same, however the file itself has been edited since. */
static bool same_as_last_time(const char *path, const char *text)
{
    static char last[CONFIG_MAX];
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    last[fread(last, 1, sizeof(last) - 1, file)] = '\0';
    fclose(file);
    return strcmp(last, text) == 0;
}

enum sg_error configs_write_file(struct cluster *cluster, const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    if (!file)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    fputs(text, file);
    if (fclose(file) != 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    return SG_OK;
}

static enum sg_error write_config(struct cluster *cluster, const char *name, const char *text,
                                  bool *ret_changed)
{
    char path[CLUSTER_PATH_MAX];
    char last[CLUSTER_PATH_MAX];
    char old[CLUSTER_PATH_MAX];
    cluster_path(path, "%s/%s", cluster->var, name);
    cluster_path(last, "%s/run/%s", cluster->var, name);
    bool exists = access(path, F_OK) == 0;
    if (exists && same_as_last_time(last, text))
        return SG_OK;
    if (exists) {
        if (rename(path, cluster_path(old, "%s.old", path)) != 0)
            return cluster_fail(cluster, "cannot rename %s: %m", path);
        cluster_say(name, "written anew for other options; the old one is %s.old", name);
    }
    *ret_changed = true;
    enum sg_error error = configs_write_file(cluster, path, text);
    return error ? error : configs_write_file(cluster, last, text);
}

enum sg_error configs_write(struct cluster *cluster, bool *ret_changed)
{
    struct dynbuf text;
    bool changed = false;
    dynbuf_init(&text, CONFIG_MAX);
    render_map(cluster, &text);
    enum sg_error error = write_config(cluster, "shardmap.cfg", dynbuf_text(&text), &changed);
    if (!error) {
        dynbuf_reset(&text);
        render_settings(cluster, &text);
        error = write_config(cluster, "seatgrid.cfg", dynbuf_text(&text), &changed);
    }
    dynbuf_done(&text);
    if (!error)
        error = write_secret(cluster);
    if (!error)
        *ret_changed = changed;
    return error;
}
