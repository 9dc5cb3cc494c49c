/*
 * Changes as Server-Sent Events. See sse.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/sse.h"

#include "base/dynbuf.h"
#include "router/router.h"

static const char *status_of(char state)
{
    switch (state) {
    case 'h':
        return "held";
    case 'x':
        return "booked";
    default:
        return "available";
    }
}

static void begin(struct dynbuf *out, const char *event, const char *id, int64_t event_id)
{
    dynbuf_adds(out, "event: ");
    dynbuf_adds(out, event);
    if (id) {
        dynbuf_adds(out, "\nid: ");
        dynbuf_adds(out, id);
    }
    dynbuf_adds(out, "\ndata: {\"eventId\":");
    dynbuf_add_i64(out, event_id);
}

static void add_counts(struct dynbuf *out, const struct live_change *change)
{
    dynbuf_adds(out, ",\"total\":");
    dynbuf_add_i64(out, change->total);
    dynbuf_adds(out, ",\"available\":");
    dynbuf_add_i64(out, change->available);
    dynbuf_adds(out, ",\"held\":");
    dynbuf_add_i64(out, change->held);
    dynbuf_adds(out, ",\"booked\":");
    dynbuf_add_i64(out, change->booked);
}

static void add_seats(struct dynbuf *out, const struct live_change *change)
{
    dynbuf_adds(out, ",\"seats\":[");
    for (size_t i = 0; i < change->seat_count; i++) {
        dynbuf_adds(out, i ? ",{\"row\":" : "{\"row\":");
        dynbuf_add_i64(out, change->seats[i].row);
        dynbuf_adds(out, ",\"col\":");
        dynbuf_add_i64(out, change->seats[i].col);
        dynbuf_adds(out, ",\"status\":\"");
        dynbuf_adds(out, status_of(change->states[i]));
        dynbuf_adds(out, "\"}");
    }
    dynbuf_addc(out, ']');
}

static void add_booking(struct dynbuf *out, const struct live_change *change)
{
    char booking[UUID_TEXT_LEN + 1];
    if (!change->status)
        return;
    uuid_format(&change->booking_id, booking);
    dynbuf_adds(out, ",\"bookingId\":\"");
    dynbuf_add(out, booking, UUID_TEXT_LEN);
    dynbuf_adds(out, "\",\"status\":\"");
    dynbuf_adds(out, change->status);
    dynbuf_addc(out, '"');
}

void sse_write_change(struct dynbuf *out, const struct live_change *change)
{
    const char *id = change->id;
    if (change->resync) {
        begin(out, "resync", id, change->event_id);
        dynbuf_adds(out, "}\n\n");
        id = NULL;
    } else if (change->seat_count || change->status) {
        begin(out, "seats", id, change->event_id);
        add_seats(out, change);
        add_booking(out, change);
        add_counts(out, change);
        dynbuf_adds(out, "}\n\n");
        id = NULL;
    }
    begin(out, "counters", id, change->event_id);
    add_counts(out, change);
    dynbuf_adds(out, "}\n\n");
}
