/*
 * Live seats as Server-Sent Events (WHATWG HTML, "Server-sent events"): from a change to text.
 * Pure.
 *
 *   event: seats
 *   id: alpha.7-91300-2
 *   data: {"eventId":1,"seats":[{"row":1,"col":5,"status":"booked"}],"bookingId":"0197...",
 *          "status":"confirmed","total":100, ...}                     (in one line)
 *
 *   event: counters
 *   data: {"eventId":1,"total":100,"available":97,"held":1,"booked":2}
 *
 * An id stands on the first event of a change; the others of it keep it, as the standard has it. So
 * a client that has read only a part is told the whole again.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_SSE_H
#define SG_API_SSE_H

struct dynbuf;
struct live_change;

#define SSE_CONTENT_TYPE "text/event-stream"
#define SSE_RETRY "retry: 1000\n\n" /* how long a client waits before it comes back, ms */
#define SSE_HEARTBEAT ":\n\n"

/* `seats` if the change has any or says what became of a booking, `resync` if it is one; always
 * `counters`. */
void sse_write_change(struct dynbuf *out, const struct live_change *change);

#endif
