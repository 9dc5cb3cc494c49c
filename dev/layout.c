/*
 * The servers of a local cluster, planned or found. See layout.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/layout.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev/rabbitmq.h"

#define DEFAULT_PORT_BASE 8100
#define DEFAULT_HTTP_PORT 8080
#define DEFAULT_ADMIN_PORT 8081
#define DEFAULT_REPLICAS 1
#define LOG_TAIL_BYTES 3000
#define LOG_TAIL_LINES 20

static const char *const shard_names[CLUSTER_SHARDS] = {"alpha", "beta"};

char *cluster_path(char *ret_path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(ret_path, CLUSTER_PATH_MAX, format, args);
    va_end(args);
    return ret_path;
}

enum sg_error cluster_fail(struct cluster *cluster, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(cluster->problem, sizeof(cluster->problem), format, args);
    va_end(args);
    return SG_IO;
}

void cluster_say(const char *who, const char *format, ...)
{
    va_list args;
    printf("  %-10s ", who);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void cluster_show_log(const struct cluster *cluster, const char *name)
{
    char path[CLUSTER_PATH_MAX];
    char text[LOG_TAIL_BYTES + 1];
    FILE *file = fopen(cluster_path(path, "%s/log/%s.log", cluster->var, name), "re");
    if (!file)
        return;
    fseek(file, 0, SEEK_END);
    long len = ftell(file);
    fseek(file, len > LOG_TAIL_BYTES ? len - LOG_TAIL_BYTES : 0, SEEK_SET);
    text[fread(text, 1, LOG_TAIL_BYTES, file)] = '\0';
    fclose(file);

    char *from = text + strlen(text);
    for (int lines = 0; from > text && lines <= LOG_TAIL_LINES; from--)
        lines += from[-1] == '\n';
    from += *from == '\n';
    fprintf(stderr, "--- the end of %s\n%s---\n", path, from);
}

/* --- planning --------------------------------------------------------------------------------- */

static int node_port(const struct cluster_options *options, int shard, int number)
{
    return options->port_base + shard * (1 + options->replicas) + number - 1;
}

static int redis_port(const struct cluster_options *options)
{
    return node_port(options, CLUSTER_SHARDS, 1);
}

static int cdc_port(const struct cluster_options *options)
{
    return redis_port(options) + 1;
}

/* Its own kind talks to it one port further on. */
static int etcd_port(const struct cluster_options *options)
{
    return cdc_port(options) + 1;
}

static int patroni_port(const struct cluster_options *options, size_t index)
{
    return etcd_port(options) + 2 + (int)index;
}

static int rabbitmq_port(const struct cluster_options *options)
{
    int nodes = CLUSTER_SHARDS * (1 + options->replicas);
    return 1 + (options->ha == 1 ? patroni_port(options, (size_t)nodes - 1) : cdc_port(options));
}

static int worker_port(const struct cluster_options *options)
{
    return rabbitmq_port(options) + RABBITMQ_PORTS;
}

static int mockpay_port(const struct cluster_options *options)
{
    return options->queue == 1 ? worker_port(options) + 1 : rabbitmq_port(options);
}

static int last_port(const struct cluster_options *options)
{
    return mockpay_port(options);
}

int layout_port_count(const struct cluster_options *options)
{
    return last_port(options) - options->port_base + 1;
}

/* 0 for a node that the options do not ask for. */
static int port_by_name(const struct cluster_options *options, const char *shard, int number)
{
    for (int i = 0; i < CLUSTER_SHARDS; i++) {
        if (strcmp(shard_names[i], shard) == 0 && number >= 1 && number <= 1 + options->replicas)
            return node_port(options, i, number);
    }
    return 0;
}

static void plan_node(struct cluster *cluster, int shard, int number)
{
    struct server *node = &cluster->nodes[cluster->node_count++];
    snprintf(node->name, sizeof(node->name), "%s-%d", shard_names[shard], number);
    snprintf(node->shard, sizeof(node->shard), "%s", shard_names[shard]);
    node->port = node_port(&cluster->options, shard, number);
}

static void plan_others(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    cluster->redis = (struct server){.name = "redis", .port = redis_port(options)};
    cluster->serve = (struct server){.name = "serve", .port = options->http_port};
    cluster->cdc = (struct server){.name = "cdc", .port = cdc_port(options)};
    cluster->etcd = (struct server){.name = "etcd", .port = etcd_port(options)};
    cluster->rabbitmq = (struct server){.name = "rabbitmq", .port = rabbitmq_port(options)};
    cluster->mockpay = (struct server){.name = "mockpay", .port = mockpay_port(options)};
    cluster->worker = (struct server){.name = "worker", .port = worker_port(options)};
}

static void plan_nodes(struct cluster *cluster)
{
    cluster->node_count = 0;
    for (int shard = 0; shard < CLUSTER_SHARDS; shard++) {
        for (int number = 1; number <= 1 + cluster->options.replicas; number++)
            plan_node(cluster, shard, number);
    }
    for (size_t i = 0; i < cluster->node_count; i++) {
        struct server *patroni = &cluster->patroni[i];
        *patroni = (struct server){.port = patroni_port(&cluster->options, i)};
        snprintf(patroni->name, sizeof(patroni->name), "%.50s-patroni", cluster->nodes[i].name);
    }
}

static enum sg_error check_ports(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    int last = last_port(options);
    int own[] = {options->http_port, options->admin_port};
    const char *const names[] = {"--http-port", "--admin-port"};
    if (options->port_base < 1 || last > 65535)
        return cluster_fail(cluster,
                            "--port-base %d: the servers need ports %d to %d; choose one "
                            "between 1 and %d",
                            options->port_base, options->port_base, last,
                            65535 - (last - options->port_base));
    for (size_t i = 0; i < 2; i++) {
        if (own[i] < 1 || own[i] > 65535)
            return cluster_fail(cluster, "%s %d: a port is 1 to 65535", names[i], own[i]);
        if (own[i] >= options->port_base && own[i] <= last)
            return cluster_fail(cluster,
                                "%s %d lies among the servers' ports %d to %d; move one of them",
                                names[i], own[i], options->port_base, last);
    }
    if (own[0] == own[1])
        return cluster_fail(cluster, "--http-port and --admin-port are both %d", own[0]);
    return SG_OK;
}

enum sg_error layout_plan(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    if (options->replicas < 0 || options->replicas > CLUSTER_REPLICAS_MAX) {
        cluster_fail(cluster, "--replicas %d: 0 to %d are possible", options->replicas,
                     CLUSTER_REPLICAS_MAX);
        return SG_CONFIG_INVALID;
    }
    if (options->sync == 1 && options->replicas == 0) {
        cluster_fail(cluster, "--durability sync: a write waits for a replica, and --replicas 0 "
                              "makes none");
        return SG_CONFIG_INVALID;
    }
    plan_nodes(cluster);
    plan_others(cluster);
    return check_ports(cluster) ? SG_CONFIG_INVALID : SG_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct server *)a)->name, ((const struct server *)b)->name);
}

void layout_scan(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    struct dirent *entry;
    plan_others(cluster);
    if (cluster->options.ha == 1) {
        plan_nodes(cluster); /* Patroni may be at work where there is no data yet */
        return;
    }
    cluster->node_count = 0;
    DIR *folder = opendir(cluster->servers);
    while (folder && (entry = readdir(folder)) && cluster->node_count < CLUSTER_NODES_MAX) {
        struct server *node = &cluster->nodes[cluster->node_count];
        const char *dash = strrchr(entry->d_name, '-');
        if (!dash || strlen(entry->d_name) >= sizeof(node->name) || strchr(entry->d_name, '.') ||
            access(cluster_path(path, "%s/%s/PG_VERSION", cluster->servers, entry->d_name), F_OK))
            continue;
        *node = (struct server){0};
        snprintf(node->name, sizeof(node->name), "%.63s", entry->d_name);
        snprintf(node->shard, sizeof(node->shard), "%.*s", (int)(dash - entry->d_name),
                 entry->d_name);
        node->port = port_by_name(&cluster->options, node->shard, atoi(dash + 1));
        cluster->node_count++;
    }
    if (folder)
        closedir(folder);
    qsort(cluster->nodes, cluster->node_count, sizeof(cluster->nodes[0]), by_name);
}

/* --- options of last time --------------------------------------------------------------------- */

static void choose(int *option, int last_time, int fallback)
{
    if (*option == CLUSTER_UNSET)
        *option = last_time != CLUSTER_UNSET ? last_time : fallback;
}

void layout_complete_options(struct cluster *cluster)
{
    struct cluster_options *options = &cluster->options;
    char path[CLUSTER_PATH_MAX];
    int base = CLUSTER_UNSET;
    int http = CLUSTER_UNSET;
    int admin = CLUSTER_UNSET;
    int replicas = CLUSTER_UNSET;
    int sync = CLUSTER_UNSET;
    int ha = CLUSTER_UNSET;
    int queue = CLUSTER_UNSET;
    FILE *file = fopen(cluster_path(path, "%s/run/ports", cluster->var), "re");
    if (file) {
        if (fscanf(file, "port_base %d http %d admin %d replicas %d sync %d ha %d queue %d", &base,
                   &http, &admin, &replicas, &sync, &ha, &queue) < 4)
            base = http = admin = replicas = CLUSTER_UNSET;
        fclose(file);
    }
    choose(&options->port_base, base, DEFAULT_PORT_BASE);
    choose(&options->http_port, http, DEFAULT_HTTP_PORT);
    choose(&options->admin_port, admin, DEFAULT_ADMIN_PORT);
    choose(&options->replicas, replicas, DEFAULT_REPLICAS);
    choose(&options->sync, sync, 0);
    choose(&options->ha, ha, 0);
    choose(&options->queue, queue, 0);
}

enum sg_error layout_remember_options(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    char path[CLUSTER_PATH_MAX];
    FILE *file = fopen(cluster_path(path, "%s/run/ports", cluster->var), "we");
    if (!file)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    fprintf(file, "port_base %d\nhttp %d\nadmin %d\nreplicas %d\nsync %d\nha %d\nqueue %d\n",
            options->port_base, options->http_port, options->admin_port, options->replicas,
            options->sync, options->ha, options->queue);
    if (fclose(file) != 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    return SG_OK;
}
