/*
 * The metrics registry: counters, gauges and histograms for Prometheus.
 *
 *   thread ─> its own metrics_set ─> series (atomic adds, no lock) ─┐
 *   thread ─> its own metrics_set ─> series ────────────────────────┴─> metrics_render: summed
 *
 * A set belongs to one thread, which alone creates series and writes them; any thread may render.
 * Series live as long as the process, so an owner keeps the pointer and never looks up twice.
 * The families are declared in one table in metrics.c: name, type, help, label names.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_METRICS_H
#define SG_BASE_METRICS_H

#include <stdint.h>

struct dynbuf;
struct metrics_set;
struct metrics_series;

/* X(enumerator, type, name, help, label names ...); at most 4 labels. Durations are observed in
 * microseconds and rendered in seconds. */
#define METRICS_FAMILIES(X)                                                                        \
    X(METRIC_HTTP_REQUESTS, COUNTER, "seatgrid_http_requests_total", "HTTP requests answered.",    \
      "route", "shard", "node", "outcome")                                                         \
    X(METRIC_HTTP_DURATION, HISTOGRAM, "seatgrid_http_request_duration_seconds",                   \
      "From the first byte of a request to the answer handed to the socket.", "route", "shard",    \
      "node", "outcome")                                                                           \
    X(METRIC_HTTP_CONNECTIONS, GAUGE, "seatgrid_http_connections", "Open HTTP connections.",       \
      "listener")                                                                                  \
    X(METRIC_HTTP_REFUSED, COUNTER, "seatgrid_http_connections_refused_total",                     \
      "HTTP connections closed at once because http.max_connections are open.", "listener")        \
    X(METRIC_LANE_WAITING, GAUGE, "seatgrid_lane_waiting",                                         \
      "Bookings that wait in a lane or are in flight.", "shard")                                   \
    X(METRIC_LANE_BYTES, GAUGE, "seatgrid_lane_waiting_bytes", "Memory of these bookings.",        \
      "shard")                                                                                     \
    X(METRIC_AT_RISK, GAUGE, "seatgrid_bookings_at_risk",                                          \
      "Bookings acknowledged by a shard with durability async that no replica was seen to have.",  \
      "shard")                                                                                     \
    X(METRIC_MAYBE_LOST, COUNTER, "seatgrid_bookings_maybe_lost_total",                            \
      "Those that were still at risk when another primary took over.", "shard")                    \
    X(METRIC_BATCHES, COUNTER, "seatgrid_batches_total", "Booking batches sent, by outcome.",      \
      "shard", "outcome")                                                                          \
    X(METRIC_BATCH_BOOKINGS, COUNTER, "seatgrid_batch_bookings_total",                             \
      "Booking requests sent in batches (divide by seatgrid_batches_total for the mean size).",    \
      "shard")                                                                                     \
    X(METRIC_BATCH_DURATION, HISTOGRAM, "seatgrid_batch_duration_seconds",                         \
      "From sending a booking batch to its answer.", "shard", "node")                              \
    X(METRIC_CHANGE_BATCHES, COUNTER, "seatgrid_change_batches_total",                             \
      "Batches of changes of bookings sent, by outcome.", "shard", "outcome")                      \
    X(METRIC_CHANGE_BATCH_CHANGES, COUNTER, "seatgrid_change_batch_changes_total",                 \
      "Changes sent in these batches.", "shard")                                                   \
    X(METRIC_CHANGE_BATCH_DURATION, HISTOGRAM, "seatgrid_change_batch_duration_seconds",           \
      "From sending a batch of changes to its answer.", "shard", "node")                           \
    X(METRIC_QUERY_DURATION, HISTOGRAM, "seatgrid_query_duration_seconds",                         \
      "From sending a read to its answer.", "statement", "node", "outcome")                        \
    X(METRIC_READS, COUNTER, "seatgrid_reads_total",                                               \
      "Reads answered, by source: replica; primary (that it must answer, or there are no "         \
      "replicas); fallback (the primary, as no replica would do); stale (a replica past the "      \
      "default bound); and refused: no room at the primary.",                                      \
      "shard", "source")                                                                           \
    X(METRIC_DB_CONNECTIONS, GAUGE, "seatgrid_db_connections", "Open PostgreSQL connections.",     \
      "node", "use")                                                                               \
    X(METRIC_DB_CONNECTS, COUNTER, "seatgrid_db_connects_total",                                   \
      "PostgreSQL connection attempts, by outcome.", "node", "outcome")                            \
    X(METRIC_SEATMAP_SHARED, COUNTER, "seatgrid_seatmap_requests_total",                           \
      "Seat-map requests by how they were served: query, flight (shared), recent.", "how")         \
    X(METRIC_NODE_UP, GAUGE, "seatgrid_node_up", "1 if the node answers its health probe.",        \
      "shard", "node", "role")                                                                     \
    X(METRIC_NODE_STALENESS, GAUGE, "seatgrid_node_staleness_ms",                                  \
      "Age of the newest sampled primary LSN the replica has replayed; -1 when unknown.", "shard", \
      "node")                                                                                      \
    X(METRIC_NODE_REFUSED, GAUGE, "seatgrid_node_refused",                                         \
      "1 while the node calls itself primary and is not written to, by reason.", "shard", "node",  \
      "reason")                                                                                    \
    X(METRIC_NODE_IN_ROTATION, GAUGE, "seatgrid_node_in_rotation",                                 \
      "1 if the replica may serve reads that set no bound of their own.", "shard", "node")         \
    X(METRIC_ATTESTATIONS, COUNTER, "seatgrid_attestations_total",                                 \
      "Attempts to attest a new primary, by outcome: ok, already, stale, fenced, failed.",         \
      "shard", "node", "outcome")                                                                  \
    X(METRIC_PROBE_DURATION, HISTOGRAM, "seatgrid_probe_duration_seconds",                         \
      "Health probe round trip.", "node")                                                          \
    X(METRIC_REDIS_UP, GAUGE, "seatgrid_redis_up", "1 if Redis answers.", "node")                  \
    X(METRIC_REDIS_READS, COUNTER, "seatgrid_redis_reads_total",                                   \
      "Reads that could be served by Redis, by who served them: redis, postgres, and why not.",    \
      "what", "source")                                                                            \
    X(METRIC_LIVE_STREAMS, GAUGE, "seatgrid_live_streams", "Open event streams.", "listener")      \
    X(METRIC_LIVE_DROPPED, COUNTER, "seatgrid_live_dropped_total",                                 \
      "Event streams closed by the server, by reason.", "reason")                                  \
    X(METRIC_CDC_STATE, GAUGE, "seatgrid_cdc_state",                                               \
      "1 for the state that the shard's consumer is in.", "shard", "state")                        \
    X(METRIC_CDC_LSN, GAUGE, "seatgrid_cdc_lsn_bytes",                                             \
      "LSN of the stream: received, applied (in Redis), confirmed (to the slot).", "shard",        \
      "kind")                                                                                      \
    X(METRIC_CDC_LAG_BYTES, GAUGE, "seatgrid_cdc_lag_bytes",                                       \
      "WAL written by the primary and not yet applied.", "shard")                                  \
    X(METRIC_CDC_LAG_MS, GAUGE, "seatgrid_cdc_lag_ms",                                             \
      "Age of the oldest commit that is known and not applied; 0 when there is none.", "shard")    \
    X(METRIC_CDC_WAL_KEPT, GAUGE, "seatgrid_cdc_wal_kept_bytes",                                   \
      "WAL that PostgreSQL keeps for the slot.", "shard")                                          \
    X(METRIC_CDC_WAL_ALARM, GAUGE, "seatgrid_cdc_wal_over_budget",                                 \
      "1 while the slot keeps more than cdc.wal_budget_bytes.", "shard")                           \
    X(METRIC_CDC_COUNTED_STANDBY, GAUGE, "seatgrid_cdc_counted_standby",                           \
      "1 if synchronous_standby_names counts the consumer as a standby, too.", "shard")            \
    X(METRIC_CDC_CHANGES, COUNTER, "seatgrid_cdc_changes_total",                                   \
      "Row changes received, by table; unknown for tables that are not projected.", "shard",       \
      "table")                                                                                     \
    X(METRIC_CDC_COMMITS, COUNTER, "seatgrid_cdc_commits_total", "Transactions applied.", "shard") \
    X(METRIC_CDC_LATENCY, HISTOGRAM, "seatgrid_cdc_latency_seconds",                               \
      "From a commit (the server's clock) to its acknowledgement by Redis.", "shard")              \
    X(METRIC_CDC_BATCHES, COUNTER, "seatgrid_cdc_batches_total",                                   \
      "Batches written to Redis, by outcome.", "shard", "outcome")                                 \
    X(METRIC_CDC_REPAIRS, COUNTER, "seatgrid_cdc_repairs_total",                                   \
      "Repairs begun: resume, reseed, heal; by reason.", "shard", "how", "reason")                 \
    X(METRIC_CDC_REFUSED, COUNTER, "seatgrid_cdc_refused_total",                                   \
      "Writes that Redis refused because another consumer has taken over.", "shard")               \
    X(METRIC_CDC_DRIFT, GAUGE, "seatgrid_cdc_drift",                                               \
      "Keys that differed from PostgreSQL in the last comparison of each.", "shard", "what")       \
    X(METRIC_CDC_RECONCILED, COUNTER, "seatgrid_cdc_reconciled_total",                             \
      "Keys compared with PostgreSQL at one LSN.", "shard", "what")                                \
    X(METRIC_CDC_HEALED, COUNTER, "seatgrid_cdc_healed_total", "Keys put right by reconcile.",     \
      "shard", "what")                                                                             \
    X(METRIC_SWEEPS, COUNTER, "seatgrid_sweeps_total",                                             \
      "Looks for holds whose time is over, by outcome: ok, busy (another server is at it), the "   \
      "refusals of a primary, failed.",                                                            \
      "shard", "outcome")                                                                          \
    X(METRIC_HOLDS_EXPIRED, COUNTER, "seatgrid_holds_expired_total",                               \
      "Holds that were ended because their time was over.", "shard")                               \
    X(METRIC_WAITLIST_OFFERED, COUNTER, "seatgrid_waitlist_offered_total",                         \
      "Offers made to the waiting list by the sweeper.", "shard")                                  \
    X(METRIC_ORDERS, COUNTER, "seatgrid_orders_total",                                             \
      "Steps of orders made by this server, by the state that they led to.", "state")              \
    X(METRIC_ORDERS_OPEN, GAUGE, "seatgrid_orders_open",                                           \
      "Orders that this server is going on with.", "listener")                                     \
    X(METRIC_PAYMENT_QUESTIONS, COUNTER, "seatgrid_payment_questions_total",                       \
      "What the payment service was asked (charge, ask, cancel, refund) and answered.",            \
      "question", "outcome")                                                                       \
    X(METRIC_PAYMENT_CALLBACKS, COUNTER, "seatgrid_payment_callbacks_total",                       \
      "Callbacks of the payment service: taken, refused by signature or form, to be sent again.",  \
      "outcome")                                                                                   \
    X(METRIC_QUEUE_PUBLISHED, COUNTER, "seatgrid_queue_published_total",                           \
      "Bookings handed to RabbitMQ, by outcome: confirmed, refused, unknown.", "shard", "outcome") \
    X(METRIC_QUEUE_CONFIRM_DURATION, HISTOGRAM, "seatgrid_queue_confirm_duration_seconds",         \
      "From accepting such a booking to RabbitMQ's confirmation.", "shard")                        \
    X(METRIC_QUEUE_CONSUMED, COUNTER, "seatgrid_queue_consumed_total",                             \
      "Messages worked off, by outcome: booked, replayed, refused, dead.", "shard", "outcome")     \
    X(METRIC_QUEUE_RETRIES, COUNTER, "seatgrid_queue_retries_total",                               \
      "Messages that could not be booked then and are tried again.", "shard")                      \
    X(METRIC_QUEUE_DEPTH, GAUGE, "seatgrid_queue_depth",                                           \
      "Messages that wait in RabbitMQ: in the queue (ready) and among the dead letters (dead).",   \
      "shard", "kind")                                                                             \
    X(METRIC_QUEUE_UNDER_WAY, GAUGE, "seatgrid_queue_under_way",                                   \
      "Messages that a worker has and has not acknowledged.", "shard")                             \
    X(METRIC_RELOADS, COUNTER, "seatgrid_reloads_total", "Shard-map reloads, by outcome.",         \
      "outcome")                                                                                   \
    X(METRIC_RELOAD_DURATION, HISTOGRAM, "seatgrid_reload_duration_seconds",                       \
      "Reading, checking and publishing a shard map.", "outcome")                                  \
    X(METRIC_MAP_VERSION, GAUGE, "seatgrid_map_version", "Version of the published shard map.",    \
      "scope")

enum metric_family {
#define X(id, type, name, ...) id,
    METRICS_FAMILIES(X)
#undef X
        METRIC_FAMILY_COUNT
};

/* A new set for the calling thread, registered for rendering. NULL when memory runs out.
 * Lives until metrics_shutdown(). */
struct metrics_set *metrics_set_new(void);
/* The series of one family with these label values (as many as the family has labels, each copied
 * and cut at 63 bytes). Creates it at first use; owner thread only. Never NULL: past the bound of
 * 2,000 series a set answers with one shared overflow series of that family. */
struct metrics_series *metrics_series(struct metrics_set *set, enum metric_family family,
                                      const char *const *label_values);

void metrics_add(struct metrics_series *series, int64_t n);           /* counters and gauges */
void metrics_set_value(struct metrics_series *series, int64_t value); /* gauges */
void metrics_observe_us(struct metrics_series *series, int64_t duration_us); /* histograms */

/* All sets summed, in the Prometheus text format 0.0.4, with process and jemalloc figures. Any
 * thread. */
void metrics_render(struct dynbuf *out);
/* Frees all sets. No thread may use any of them any more. */
void metrics_shutdown(void);

#endif
