/*
 * JSON shapes. See json_out.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_out.h"

#include "api/cursor.h"
#include "base/dynbuf.h"
#include "base/rfc3339.h"
#include "router/router.h"

void json_out_seats(struct dynbuf *out, const struct seat *seats, size_t seat_count)
{
    dynbuf_addc(out, '[');
    for (size_t i = 0; i < seat_count; i++) {
        dynbuf_adds(out, i ? ",{\"row\":" : "{\"row\":");
        dynbuf_add_i64(out, seats[i].row);
        dynbuf_adds(out, ",\"col\":");
        dynbuf_add_i64(out, seats[i].col);
        dynbuf_addc(out, '}');
    }
    dynbuf_addc(out, ']');
}

void json_out_time(struct dynbuf *out, int64_t us)
{
    char text[RFC3339_SIZE];
    int len = rfc3339_format(us, text);
    dynbuf_addc(out, '"');
    dynbuf_add(out, text, (size_t)len);
    dynbuf_addc(out, '"');
}

void json_out_event(struct dynbuf *out, const struct event_info *event)
{
    dynbuf_adds(out, "{\"id\":");
    dynbuf_add_i64(out, event->event_id);
    dynbuf_adds(out, ",\"name\":");
    dynbuf_add_json(out, event->name);
    dynbuf_adds(out, ",\"startsAt\":");
    json_out_time(out, event->starts_at_us);
    dynbuf_adds(out, ",\"rows\":");
    dynbuf_add_i64(out, event->rows);
    dynbuf_adds(out, ",\"cols\":");
    dynbuf_add_i64(out, event->cols);
    dynbuf_adds(out, ",\"shard\":");
    dynbuf_add_json(out, event->shard);
    dynbuf_adds(out, ",\"total\":");
    dynbuf_add_i64(out, (int64_t)event->rows * event->cols);
    dynbuf_adds(out, ",\"available\":");
    dynbuf_add_i64(out, event->available);
    dynbuf_addc(out, '}');
}

void json_out_event_page(struct dynbuf *out, const struct event_page *page)
{
    dynbuf_adds(out, "{\"events\":[");
    for (size_t i = 0; i < page->event_count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        json_out_event(out, &page->events[i]);
    }
    dynbuf_adds(out, "],\"nextCursor\":");
    if (page->more && page->event_count) {
        char cursor[CURSOR_LEN + 1];
        cursor_write(page->events[page->event_count - 1].event_id, cursor);
        dynbuf_add_json(out, cursor);
    } else {
        dynbuf_adds(out, "null");
    }
    dynbuf_adds(out, page->missing_count ? ",\"partial\":true" : ",\"partial\":false");
    dynbuf_adds(out, ",\"missing\":[");
    for (size_t i = 0; i < page->missing_count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        dynbuf_add_json(out, page->missing_shards[i]);
    }
    dynbuf_adds(out, "]}");
}

void json_out_booking(struct dynbuf *out, const struct booking *booking)
{
    dynbuf_adds(out, "{\"bookingId\":\"");
    dynbuf_adds(out, booking->booking_id);
    dynbuf_adds(out, "\",\"eventId\":");
    dynbuf_add_i64(out, booking->event_id);
    dynbuf_adds(out, ",\"userId\":");
    dynbuf_add_json(out, booking->user_id);
    dynbuf_adds(out, ",\"status\":\"");
    dynbuf_adds(out, booking->status);
    dynbuf_adds(out, "\",\"seats\":");
    json_out_seats(out, booking->seats, booking->seat_count);
    dynbuf_adds(out, ",\"createdAt\":");
    json_out_time(out, booking->created_at_us);
    dynbuf_addc(out, '}');
}
