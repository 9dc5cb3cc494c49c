/*
 * JSON shapes. See json_out.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/json_out.h"

#include <string.h>

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

static void add_missing(struct dynbuf *out, const char *const *shards, size_t count)
{
    dynbuf_adds(out, count ? ",\"partial\":true" : ",\"partial\":false");
    dynbuf_adds(out, ",\"missing\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        dynbuf_add_json(out, shards[i]);
    }
    dynbuf_addc(out, ']');
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
    add_missing(out, page->missing_shards, page->missing_count);
    dynbuf_addc(out, '}');
}

/* A booking, with its last brace left open. */
static void add_booking(struct dynbuf *out, const struct booking *booking)
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
}

void json_out_booking(struct dynbuf *out, const struct booking *booking)
{
    add_booking(out, booking);
    dynbuf_addc(out, '}');
}

void json_out_availability(struct dynbuf *out, const struct availability *availability)
{
    dynbuf_adds(out, "{\"eventId\":");
    dynbuf_add_i64(out, availability->event_id);
    dynbuf_adds(out, ",\"total\":");
    dynbuf_add_i64(out, availability->total);
    dynbuf_adds(out, ",\"available\":");
    dynbuf_add_i64(out, availability->available);
    dynbuf_adds(out, ",\"held\":");
    dynbuf_add_i64(out, availability->held);
    dynbuf_adds(out, ",\"booked\":");
    dynbuf_add_i64(out, availability->booked);
    dynbuf_adds(out, ",\"source\":");
    dynbuf_add_json(out, availability->source);
    dynbuf_addc(out, '}');
}

static void add_ticket(struct dynbuf *out, const struct ticket *ticket)
{
    add_booking(out, &ticket->booking);
    dynbuf_adds(out, ",\"eventName\":");
    dynbuf_add_json(out, ticket->event_name);
    dynbuf_adds(out, ",\"startsAt\":");
    json_out_time(out, ticket->starts_at_us);
    dynbuf_adds(out, ",\"shard\":");
    dynbuf_add_json(out, ticket->shard);
    dynbuf_addc(out, '}');
}

static void add_place(struct dynbuf *out, const struct ticket *last)
{
    char cursor[CURSOR_PLACE_LEN + 1];
    struct ticket_place place = {.starts_at_us = last->starts_at_us,
                                 .event_id = last->booking.event_id};
    memcpy(place.booking_id, last->booking.booking_id, sizeof(place.booking_id));
    cursor_write_place(&place, cursor);
    dynbuf_add_json(out, cursor);
}

void json_out_ticket_page(struct dynbuf *out, const char *user_id, const struct ticket_page *page)
{
    dynbuf_adds(out, "{\"userId\":");
    dynbuf_add_json(out, user_id);
    dynbuf_adds(out, ",\"tickets\":[");
    for (size_t i = 0; i < page->ticket_count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        add_ticket(out, &page->tickets[i]);
    }
    dynbuf_adds(out, "],\"nextCursor\":");
    if (page->more && page->ticket_count)
        add_place(out, &page->tickets[page->ticket_count - 1]);
    else
        dynbuf_adds(out, "null");
    add_missing(out, page->missing_shards, page->missing_count);
    dynbuf_adds(out, ",\"source\":");
    dynbuf_add_json(out, page->source);
    dynbuf_addc(out, '}');
}
