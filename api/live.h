/*
 * Live seats: the streams of GET /events/{id}/stream that one worker has open.
 *
 *   request ─> ASKING ──the event is there──> WATCHING ──first change──> OPEN ──> closed
 *                 └── 404, 503                    └── 503 at its deadline
 *   router_live_fn ─> text, written once a change ─> shared by all streams of the event
 *   one timer ─> heartbeats of the streams that were quiet longest, deadlines of those not open yet
 *
 * Bounded: live.max_streams over all workers, live.buffer_bytes a stream; a client that does not
 * keep up is dropped. Its Last-Event-ID brings it back without a gap.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_LIVE_H
#define SG_API_LIVE_H

struct event_base;
struct live_streams;
struct metrics_set;
struct router;
struct settings;

/* Borrowed; they outlive the streams. */
struct live_streams_config {
    const struct settings *settings;
    struct event_base *base;
    struct router *router;
    struct metrics_set *metrics;
    unsigned workers; /* that share live.max_streams; 0 counts as 1 */
};

/* NULL when memory runs out. */
struct live_streams *live_streams_new(const struct live_streams_config *config);
/* Ends all streams and answers who still waits for one; none begins from now on. The router must
 * still be there: it is asked to end their watches. */
void live_streams_end(struct live_streams *streams);
/* After live_streams_end, or when the edge has closed all connections. */
void live_streams_free(struct live_streams *streams);

#endif
