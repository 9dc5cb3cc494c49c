/*
 * The plan of a local cluster: names, ports, and which options are refused.
 *
 * Goal: the ports are those the documents promise, for every number of replicas, without overlap;
 * ports that meet or are none are refused by name; options not given are those of last time.
 * Method: a table of options, and a folder with the file that `up` leaves behind.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct cluster *plan(int base, int http, int admin, int replicas, enum sg_error wanted)
{
    static struct cluster cluster;
    cluster = (struct cluster){
        .options = {
            .port_base = base, .http_port = http, .admin_port = admin, .replicas = replicas}};
    assert_int_equal(layout_plan(&cluster), wanted);
    return &cluster;
}

static void expect_node(const struct cluster *cluster, size_t i, const char *name, int port)
{
    assert_string_equal(cluster->nodes[i].name, name);
    assert_int_equal(cluster->nodes[i].port, port);
}

static void test_the_promised_ports(void **state)
{
    (void)state;
    const struct cluster *cluster = plan(8100, 8080, 8081, 1, SG_OK);
    assert_int_equal(cluster->node_count, 4);
    expect_node(cluster, 0, "alpha-1", 8100);
    expect_node(cluster, 1, "alpha-2", 8101);
    expect_node(cluster, 2, "beta-1", 8102);
    expect_node(cluster, 3, "beta-2", 8103);
    assert_string_equal(cluster->nodes[3].shard, "beta");
    assert_int_equal(cluster->redis.port, 8104);
    assert_int_equal(cluster->cdc.port, 8105);
    assert_int_equal(cluster->serve.port, 8080);
}

static void test_no_port_twice_with_any_number_of_replicas(void **state)
{
    (void)state;
    for (int replicas = 0; replicas <= CLUSTER_REPLICAS_MAX; replicas++) {
        const struct cluster *cluster = plan(100, 1, 2, replicas, SG_OK);
        assert_int_equal(cluster->node_count, CLUSTER_SHARDS * (1 + replicas));
        for (size_t i = 0; i < cluster->node_count; i++)
            assert_int_equal(cluster->nodes[i].port, 100 + (int)i);
        assert_int_equal(cluster->redis.port, 100 + (int)cluster->node_count);
        assert_int_equal(cluster->cdc.port, 101 + (int)cluster->node_count);
    }
}

static void test_ports_of_patroni_come_after_the_others(void **state)
{
    (void)state;
    struct cluster cluster = {
        .options = {.port_base = 100, .http_port = 1, .admin_port = 2, .replicas = 2, .ha = 1}};
    assert_int_equal(layout_plan(&cluster), SG_OK);
    assert_int_equal(cluster.node_count, 6);
    assert_int_equal(cluster.cdc.port, 107);
    assert_int_equal(cluster.etcd.port, 108); /* and 109 */
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(cluster.patroni[i].port, 110 + (int)i);
    assert_string_equal(cluster.patroni[0].name, "alpha-1-patroni");
    assert_string_equal(cluster.patroni[5].name, "beta-3-patroni");
    assert_int_equal(cluster.mockpay.port, 116);

    cluster.options.http_port = 115;
    assert_int_equal(layout_plan(&cluster), SG_CONFIG_INVALID);
    assert_non_null(strstr(cluster.problem, "--http-port 115 lies among"));
    cluster.options = (struct cluster_options){
        .port_base = 65520, .http_port = 1, .admin_port = 2, .replicas = 2, .ha = 1};
    assert_int_equal(layout_plan(&cluster), SG_CONFIG_INVALID);
    assert_non_null(strstr(cluster.problem, "between 1 and 65519"));
    cluster.options.port_base = 65519;
    assert_int_equal(layout_plan(&cluster), SG_OK);
}

static void test_ports_of_the_queue_come_after_the_others(void **state)
{
    (void)state;
    struct cluster cluster = {
        .options = {.port_base = 100, .http_port = 1, .admin_port = 2, .replicas = 0, .queue = 1}};
    assert_int_equal(layout_plan(&cluster), SG_OK);
    assert_int_equal(cluster.cdc.port, 103);
    assert_int_equal(cluster.rabbitmq.port, 104); /* and 105, 106 */
    assert_int_equal(cluster.worker.port, 107);
    assert_int_equal(cluster.mockpay.port, 108);
    assert_int_equal(layout_port_count(&cluster.options), 9);
    cluster.options.admin_port = 106;
    assert_int_equal(layout_plan(&cluster), SG_CONFIG_INVALID);
    cluster.options.admin_port = 120;
    assert_int_equal(layout_plan(&cluster), SG_OK);
    cluster.options.ha = 1;
    cluster.options.admin_port = 2;
    assert_int_equal(layout_plan(&cluster), SG_OK);
    assert_int_equal(cluster.patroni[1].port, 107);
    assert_int_equal(cluster.rabbitmq.port, 108);
    assert_int_equal(cluster.worker.port, 111);
    cluster.options.queue = 0;
    cluster.options.admin_port = 120;
    assert_int_equal(layout_plan(&cluster), SG_OK); /* none of them is wanted */
}

/* Nothing is there yet, and Patroni may be at work. */
static void test_scan_under_patroni_is_the_plan(void **state)
{
    (void)state;
    struct cluster cluster = {
        .options = {.port_base = 100, .http_port = 1, .admin_port = 2, .replicas = 1, .ha = 1},
        .servers = "/nonexistent"};
    layout_scan(&cluster);
    assert_int_equal(cluster.node_count, 4);
    expect_node(&cluster, 3, "beta-2", 103);
    assert_int_equal(cluster.patroni[3].port, 111);
}

static void test_impossible_options_are_named(void **state)
{
    (void)state;
    static const struct {
        int base, http, admin, replicas;
        const char *text;
    } cases[] = {
        {0, 8080, 8081, 1, "--port-base 0"},
        {65532, 8080, 8081, 1, "between 1 and 65529"},
        {8100, 0, 8081, 1, "--http-port 0"},
        {8100, 8080, 70000, 1, "--admin-port 70000"},
        {8100, 8104, 8081, 1, "--http-port 8104 lies among"},
        {8100, 8080, 8100, 1, "--admin-port 8100 lies among"},
        {8100, 8080, 8080, 1, "both 8080"},
        {8100, 8080, 8081, 9, "--replicas 9"},
        {8100, 8080, 8081, -2, "--replicas -2"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct cluster *cluster = plan(cases[i].base, cases[i].http, cases[i].admin,
                                             cases[i].replicas, SG_CONFIG_INVALID);
        assert_non_null(strstr(cluster->problem, cases[i].text));
    }
    plan(65529, 8080, 8081, 1, SG_OK);

    struct cluster alone = {
        .options = {.port_base = 100, .http_port = 1, .admin_port = 2, .replicas = 0, .sync = 1}};
    assert_int_equal(layout_plan(&alone), SG_CONFIG_INVALID);
    assert_non_null(strstr(alone.problem, "--durability sync"));
}

static void expect_options(struct cluster *cluster, int base, int http, int admin, int replicas)
{
    assert_int_equal(cluster->options.port_base, base);
    assert_int_equal(cluster->options.http_port, http);
    assert_int_equal(cluster->options.admin_port, admin);
    assert_int_equal(cluster->options.replicas, replicas);
}

static struct cluster unset_in(const char *var)
{
    struct cluster cluster = {.options = {.port_base = CLUSTER_UNSET,
                                          .http_port = CLUSTER_UNSET,
                                          .admin_port = CLUSTER_UNSET,
                                          .replicas = CLUSTER_UNSET,
                                          .sync = CLUSTER_UNSET,
                                          .ha = CLUSTER_UNSET,
                                          .queue = CLUSTER_UNSET}};
    snprintf(cluster.var, sizeof(cluster.var), "%s", var);
    return cluster;
}

static void test_options_of_last_time(void **state)
{
    (void)state;
    char var[] = "/tmp/seatgrid-layout-XXXXXX";
    char path[128];
    assert_non_null(mkdtemp(var));
    struct cluster fresh = unset_in(var);
    layout_complete_options(&fresh);
    expect_options(&fresh, 8100, 8080, 8081, 1);
    assert_int_equal(fresh.options.sync, 0);

    snprintf(path, sizeof(path), "%s/run", var);
    assert_int_equal(mkdir(path, 0755), 0);
    fresh.options = (struct cluster_options){.port_base = 100,
                                             .http_port = 1,
                                             .admin_port = 2,
                                             .replicas = 3,
                                             .sync = 1,
                                             .ha = 1,
                                             .queue = 1};
    assert_int_equal(layout_remember_options(&fresh), SG_OK);

    struct cluster second = unset_in(var);
    second.options.http_port = 9;
    layout_complete_options(&second);
    expect_options(&second, 100, 9, 2, 3);
    assert_int_equal(second.options.sync, 1);
    assert_int_equal(second.options.ha, 1);
    assert_int_equal(second.options.queue, 1);

    snprintf(path, sizeof(path), "%s/run/ports", var);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("port_base 7\nhttp", file); /* torn */
    fclose(file);
    struct cluster third = unset_in(var);
    layout_complete_options(&third);
    expect_options(&third, 8100, 8080, 8081, 1);

    file = fopen(path, "w");
    assert_non_null(file);
    fputs("port_base 100\nhttp 1\nadmin 2\nreplicas 2\n", file); /* without what came later */
    fclose(file);
    struct cluster fourth = unset_in(var);
    layout_complete_options(&fourth);
    expect_options(&fourth, 100, 1, 2, 2);
    assert_int_equal(fourth.options.sync, 0);
    assert_int_equal(fourth.options.ha, 0);

    unlink(path);
    snprintf(path, sizeof(path), "%s/run", var);
    rmdir(path);
    rmdir(var);
}

static void test_scan_takes_only_data_folders(void **state)
{
    (void)state;
    static const char *const folders[] = {"alpha-1", "beta-3", "alpha-2.new", "redis", "alpha-9"};
    char servers[] = "/tmp/seatgrid-scan-XXXXXX";
    char path[128];
    assert_non_null(mkdtemp(servers));
    struct cluster cluster = {
        .options = {.port_base = 100, .http_port = 1, .admin_port = 2, .replicas = 2}};
    snprintf(cluster.servers, sizeof(cluster.servers), "%s", servers);
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s/%s", servers, folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
        strcat(path, "/PG_VERSION");
        FILE *file = i == 4 ? NULL : fopen(path, "w"); /* alpha-9: not even made */
        if (file)
            fclose(file);
    }
    layout_scan(&cluster);
    assert_int_equal(cluster.node_count, 2);
    expect_node(&cluster, 0, "alpha-1", 100);
    expect_node(&cluster, 1, "beta-3", 105);
    assert_string_equal(cluster.nodes[1].shard, "beta");
    assert_int_equal(cluster.redis.port, 106);
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s/%s/PG_VERSION", servers, folders[i]);
        unlink(path);
        *strrchr(path, '/') = '\0';
        rmdir(path);
    }
    rmdir(servers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_promised_ports),
        cmocka_unit_test(test_no_port_twice_with_any_number_of_replicas),
        cmocka_unit_test(test_ports_of_patroni_come_after_the_others),
        cmocka_unit_test(test_ports_of_the_queue_come_after_the_others),
        cmocka_unit_test(test_scan_under_patroni_is_the_plan),
        cmocka_unit_test(test_impossible_options_are_named),
        cmocka_unit_test(test_options_of_last_time),
        cmocka_unit_test(test_scan_takes_only_data_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
