/*
 * Goal: the admin endpoints say what is known, in valid JSON, refuse what is wrong with the right
 * status, and answer a reload when it is done.
 * Method: the real edge and the real reload on a port of its own, a topology made by hand, and a
 * client thread that goes through a table of requests.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/admin.h"
#include "api/http.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "cli/admin_client.h"
#include "router/reload.h"
#include "router/topology.h"
#include "shardmap/shardmap.h"

#define MAP(version, last)                                                                         \
    "map_version = " #version ";\n"                                                                \
    "shards = ({ name = \"alpha\"; nodes = ({ name = \"alpha-1\"; dsn = \"host=127.0.0.1 port=1 "  \
    "dbname=a password=secret\"; }, { name = \"alpha-2\"; dsn = \"host=127.0.0.1 port=2\"; }); "   \
    "},\n"                                                                                         \
    "  { name = \"beta\"; nodes = ({ name = \"beta-1\"; dsn = \"host=127.0.0.1 port=3\"; }); "     \
    "});\n"                                                                                        \
    "ranges = ({ first = 1; last = 100; shard = \"alpha\"; }, { first = 101; last = " #last        \
    "; shard = \"beta\"; });\n"                                                                    \
    "pins = ({ event = 7; shard = \"beta\"; });\n"

struct exchange {
    const char *method;
    const char *path;
    const char *map; /* written to the map file before; NULL: left as it is */
    int status;
    const char *parts[5]; /* of the body */
};

static const struct exchange exchanges[] = {
    {"GET", "/healthz", NULL, 200, {"\"alive\""}},
    {"GET", "/metrics", NULL, 200, {"seatgrid_map_version{scope=\"published\"} 3"}},
    {"GET",
     "/admin/nodes",
     NULL,
     200,
     {"{\"mapVersion\":3,\"nodes\":[{\"shard\":\"alpha\",\"node\":\"alpha-1\",\"role\":\"primary\","
      "\"up\":true,\"timeline\":2,\"lsn\":\"1/A000010\",\"stalenessMs\":0,\"epoch\":4,"
      "\"fenced\":true,\"events\":12,\"attested\":true,\"refused\":\"older_timeline\","
      "\"systemIdentifier\":\"18446744073709551615\","
      "\"lastError\":null}",
      "\"node\":\"alpha-2\",\"role\":\"unknown\",\"up\":false", "\"stalenessMs\":null",
      "\"systemIdentifier\":null", "\"lastError\":\"not UTF-8: ? \\\"x\\\"\""}},
    {"GET",
     "/admin/map",
     NULL,
     200,
     {"{\"version\":3,\"ranges\":2,\"pins\":1,\"shards\":[{\"shard\":\"alpha\",\"ranges\":1,"
      "\"pins\":0,\"nodes\":[\"alpha-1\",\"alpha-2\"]},{\"shard\":\"beta\",\"ranges\":1,\"pins\":"
      "1"}},
    {"GET", "/admin/map?event=7", NULL, 200, {"{\"version\":3,\"eventId\":7,\"shard\":\"beta\"}"}},
    {"GET", "/admin/map?event=8", NULL, 200, {"\"shard\":\"alpha\""}},
    {"GET", "/admin/map?event=201", NULL, 404, {"\"code\":\"unknown_event\""}},
    {"GET", "/admin/map?event=9223372036854775807", NULL, 404, {"unknown_event"}},
    {"GET", "/admin/map?event=9223372036854775808", NULL, 400, {"malformed_request"}},
    {"GET", "/admin/map?event=0", NULL, 400, {"malformed_request"}},
    {"GET", "/admin/map?event=-7", NULL, 400, {"malformed_request"}},
    {"GET", "/admin/map?event=7x", NULL, 400, {"malformed_request"}},
    {"GET", "/admin/map?event=", NULL, 400, {"malformed_request"}},
    {"POST", "/admin/map", NULL, 405, {"method_not_allowed"}},
    {"GET", "/admin/reload", NULL, 405, {"method_not_allowed"}},
    {"GET", "/admin", NULL, 404, {"\"code\":\"not_found\""}},
    {"GET", "/events", NULL, 404, {"not_found"}},
    {"POST", "/admin/reload?dry_run=yes", NULL, 400, {"dry_run and force are 0 or 1"}},
    {"POST", "/admin/reload?force=", NULL, 400, {"malformed_request"}},
    {"POST", "/admin/reload", MAP(3, 200), 200, {"\"outcome\":\"unchanged\"", "\"mapVersion\":3"}},
    {"POST",
     "/admin/reload",
     MAP(3, 300),
     409,
     {"\"code\":\"map_refused\"", "map_version 3 is not newer than the published 3",
      "\"outcome\":\"refused\""}},
    {"POST",
     "/admin/reload?force=1",
     "map_version = 4; shards = ?;",
     409,
     {"map_refused", ":1:", "\"newVersion\":null", "\"diff\":null"}},
    {"POST", "/admin/reload?force=1", "map_version = 4; \xff\xfe", 409, {"map_refused"}},
    {"POST",
     "/admin/reload?dry_run=1",
     MAP(4, 300),
     200,
     {"\"outcome\":\"dry_run\"", "\"dryRun\":true", "\"mapVersion\":3", "\"newVersion\":4",
      "\"moves\":[{\"first\":201,\"last\":300,\"from\":null,\"to\":\"beta\"}]"}},
    {"GET", "/admin/map?event=201", NULL, 404, {"unknown_event"}}, /* it was dry */
    {"POST",
     "/admin/reload",
     MAP(4, 150),
     409,
     {"shard \\\"beta\\\" loses ids between 151 and 200 and none of its nodes answers",
      "\"stranded\":[]"}},
    {"POST",
     "/admin/reload?dry_run=0&force=1",
     MAP(4, 150),
     200,
     {"\"outcome\":\"published\"", "\"forced\":true", "\"warnings\":[\"shard"}},
    {"GET", "/admin/map?event=151", NULL, 404, {"unknown_event"}},
    {"POST", "/admin/reload", MAP(5, 300), 200, {"\"outcome\":\"published\"", "\"mapVersion\":5"}},
    {"GET", "/admin/map?event=201", NULL, 200, {"{\"version\":5,\"eventId\":201"}},
    {"GET",
     "/metrics",
     NULL,
     200,
     {"seatgrid_reloads_total{outcome=\"published\"} 2",
      "seatgrid_map_version{scope=\"published\"} 5"}},
};

#define EXCHANGES (sizeof(exchanges) / sizeof(exchanges[0]))

struct fixture {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_domain *domain;
    struct snapshot_reader *publisher;
    struct snapshot_slot maps;
    struct snapshot_slot topologies;
    struct settings settings;
    struct reload *reload;
    struct admin *admin;
    struct http_server *http;
    struct mailbox *mailbox;
    char address[32];
    int status[EXCHANGES];
    struct dynbuf body[EXCHANGES];
};

static void publish_map(struct fixture *f)
{
    struct dynbuf errors;
    struct shardmap *map = NULL;
    dynbuf_init(&errors, 4096);
    if (shardmap_parse("base", MAP(3, 200), &map, &errors) != SG_OK)
        fail_msg("%s", dynbuf_text(&errors));
    dynbuf_done(&errors);
    snapshot_publish(f->publisher, &f->maps, map, shardmap_free);
}

static void publish_topology(struct fixture *f)
{
    struct topology *topology = calloc(1, sizeof(*topology) + 2 * sizeof(topology->nodes[0]));
    assert_non_null(topology);
    topology->node_count = 2;
    topology->nodes[0] = (struct topology_node){.name = "alpha-1",
                                                .shard = "alpha",
                                                .up = true,
                                                .role = NODE_PRIMARY,
                                                .timeline = 2,
                                                .lsn = 0x10a000010,
                                                .epoch = 4,
                                                .fenced = true,
                                                .attested = true,
                                                .refused = NODE_OLDER_TIMELINE,
                                                .system_identifier = UINT64_MAX,
                                                .event_count = 12};
    topology->nodes[1] = (struct topology_node){.name = "alpha-2",
                                                .shard = "alpha",
                                                .staleness_us = STALENESS_UNKNOWN,
                                                .last_error = "not UTF-8: \xc3 \"x\""};
    snapshot_publish(f->publisher, &f->topologies, topology, free);
}

static void open_listener(struct fixture *f)
{
    char error_text[128];
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    int fd;
    assert_int_equal(http_listen("127.0.0.1:0", false, 8, &fd, error_text, sizeof(error_text)),
                     SG_OK);
    getsockname(fd, (struct sockaddr *)&address, &len);
    snprintf(f->address, sizeof(f->address), "127.0.0.1:%d", ntohs(address.sin_port));
    const struct http_server_config config = {.base = f->base,
                                              .metrics = f->metrics,
                                              .reap = f->reap,
                                              .limits = {.max_connections = 16,
                                                         .max_header_bytes = 8192,
                                                         .max_headers = 50,
                                                         .max_body_bytes = 8192,
                                                         .request_timeout_ms = 5000,
                                                         .idle_timeout_ms = 5000,
                                                         .write_timeout_ms = 5000},
                                              .listener = "admin",
                                              .on_request = admin_handle,
                                              .arg = f->admin};
    f->http = http_server_new(&config, fd);
    assert_non_null(f->http);
}

static void on_client_done(void *arg, const struct mailbox_message *message)
{
    struct fixture *f = arg;
    (void)message;
    event_base_loopbreak(f->base);
}

static void set_up(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    log_setup(LOG_LEVEL_ERROR, false);
    settings_init(&f->settings);
    f->settings.reload.ask_timeout_ms = 500;
    strcpy(f->settings.shard_map, "/tmp/seatgrid-admin-test-XXXXXX");
    close(mkstemp(f->settings.shard_map));
    f->base = event_base_new();
    f->reap = reap_list_new(f->base);
    f->metrics = metrics_set_new();
    f->domain = snapshot_domain_new();
    f->publisher = snapshot_reader_new(f->domain);
    publish_map(f);
    publish_topology(f);
    f->reload = reload_new(&(struct reload_config){.settings = &f->settings,
                                                   .base = f->base,
                                                   .reap = f->reap,
                                                   .metrics = f->metrics,
                                                   .publisher = f->publisher,
                                                   .maps = &f->maps,
                                                   .topologies = &f->topologies});
    f->admin = admin_new(&(struct admin_config){.settings = &f->settings,
                                                .reader = f->publisher,
                                                .maps = &f->maps,
                                                .topologies = &f->topologies,
                                                .reload = f->reload});
    f->mailbox = mailbox_new(f->base, 4, on_client_done, f);
    assert_true(f->reload && f->admin && f->mailbox);
    open_listener(f);
    for (size_t i = 0; i < EXCHANGES; i++)
        dynbuf_init(&f->body[i], 1 << 20);
}

static void tear_down(struct fixture *f)
{
    reload_free(f->reload);
    http_server_free(f->http);
    admin_free(f->admin);
    mailbox_free(f->mailbox);
    reap_list_free(f->reap);
    snapshot_slot_done(&f->maps, shardmap_free);
    snapshot_slot_done(&f->topologies, free);
    snapshot_reader_free(f->publisher);
    snapshot_domain_free(f->domain);
    event_base_free(f->base);
    metrics_shutdown();
    unlink(f->settings.shard_map);
    for (size_t i = 0; i < EXCHANGES; i++)
        dynbuf_done(&f->body[i]);
}

static void *ask_all(void *arg)
{
    struct fixture *f = arg;
    for (size_t i = 0; i < EXCHANGES; i++) {
        char error_text[128];
        if (exchanges[i].map) {
            FILE *file = fopen(f->settings.shard_map, "w");
            fputs(exchanges[i].map, file);
            fclose(file);
        }
        if (admin_call(f->address, exchanges[i].method, exchanges[i].path, NULL, 0, 5000,
                       &f->status[i], &f->body[i], error_text, sizeof(error_text)) != SG_OK)
            f->status[i] = -1;
    }
    mailbox_send(f->mailbox, 0, NULL);
    return NULL;
}

static void check(const struct exchange *exchange, int status, const char *body)
{
    if (status != exchange->status)
        fail_msg("%s %s: %d, expected %d: %s", exchange->method, exchange->path, status,
                 exchange->status, body);
    for (size_t i = 0; i < 5 && exchange->parts[i]; i++) {
        if (!strstr(body, exchange->parts[i]))
            fail_msg("%s %s: no %s in %s", exchange->method, exchange->path, exchange->parts[i],
                     body);
    }
    if (strstr(body, "secret"))
        fail_msg("%s %s shows a password: %s", exchange->method, exchange->path, body);
    if (strcmp(exchange->path, "/metrics") != 0) {
        json_error_t error;
        json_t *json = json_loads(body, JSON_REJECT_DUPLICATES, &error);
        if (!json)
            fail_msg("%s %s: no JSON: %s: %s", exchange->method, exchange->path, error.text, body);
        json_decref(json);
    }
}

static void every_exchange_is_as_expected(void **state)
{
    static struct fixture f;
    pthread_t client;
    (void)state;
    set_up(&f);
    pthread_create(&client, NULL, ask_all, &f);
    event_base_dispatch(f.base);
    pthread_join(client, NULL);
    for (size_t i = 0; i < EXCHANGES; i++)
        check(&exchanges[i], f.status[i], dynbuf_text(&f.body[i]));
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_exchange_is_as_expected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
