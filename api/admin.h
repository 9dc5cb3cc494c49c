/*
 * The admin listener's endpoints: for operators, `seatgrid nodes`, `seatgrid reload` and scrapers.
 *
 *   GET  /healthz                                   the control thread is alive
 *   GET  /metrics                                   Prometheus text
 *   GET  /admin/nodes                               what health knows of every node
 *   GET  /admin/map[?event=ID]                      the published shard map; who owns an event
 *   POST /admin/reload[?dry_run=1][&force=1]        read the shard map file again
 *
 * On the control thread, behind an HTTP edge of its own (api/http.h) that listens on loopback
 * unless configured otherwise. JSON out, errors as problem+json; connection strings are never
 * shown.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_ADMIN_H
#define SG_API_ADMIN_H

struct admin;
struct http_request;
struct reload;
struct settings;
struct snapshot_reader;
struct snapshot_slot;

/* All borrowed. They outlive the object, and the object outlives the reload it may have started. */
struct admin_config {
    const struct settings *settings;
    struct snapshot_reader *reader;         /* of the control thread */
    const struct snapshot_slot *maps;       /* struct shardmap */
    const struct snapshot_slot *topologies; /* struct topology */
    struct reload *reload;
};

/* NULL when memory runs out. */
struct admin *admin_new(const struct admin_config *config);
void admin_free(struct admin *admin);
/* For http_server_config.on_request; `admin` is a struct admin. */
void admin_handle(void *admin, struct http_request *request);

#endif
