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

static void add_tiers(struct dynbuf *out, const struct event_info *event)
{
    dynbuf_adds(out, ",\"tiers\":[");
    for (size_t i = 0; i < event->tier_count; i++) {
        const struct event_tier *tier = &event->tiers[i];
        bool is_last = i + 1 == event->tier_count;
        dynbuf_adds(out, i ? ",{\"name\":" : "{\"name\":");
        dynbuf_add_json(out, tier->name);
        dynbuf_adds(out, ",\"price\":");
        dynbuf_add_i64(out, tier->price);
        dynbuf_adds(out, ",\"rows\":{\"first\":");
        dynbuf_add_i64(out, tier->first_row);
        dynbuf_adds(out, ",\"last\":");
        dynbuf_add_i64(out, is_last ? event->rows : tier[1].first_row - 1);
        dynbuf_adds(out, "}}");
    }
    dynbuf_addc(out, ']');
    if (event->currency) {
        dynbuf_adds(out, ",\"currency\":");
        dynbuf_add_json(out, event->currency);
    }
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
    if (event->tier_count)
        add_tiers(out, event);
    if (event->max_per_user) {
        dynbuf_adds(out, ",\"maxPerUser\":");
        dynbuf_add_i64(out, event->max_per_user);
    }
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
    if (booking->expires_at_us) {
        dynbuf_adds(out, ",\"expiresAt\":");
        json_out_time(out, booking->expires_at_us);
    }
    if (booking->currency) {
        dynbuf_adds(out, ",\"amount\":");
        dynbuf_add_i64(out, booking->amount);
        dynbuf_adds(out, ",\"currency\":");
        dynbuf_add_json(out, booking->currency);
    }
}

void json_out_booking(struct dynbuf *out, const struct booking *booking)
{
    add_booking(out, booking);
    dynbuf_addc(out, '}');
}

static void add_text_or_null(struct dynbuf *out, const char *text)
{
    if (text)
        dynbuf_add_json(out, text);
    else
        dynbuf_adds(out, "null");
}

/* {"bookingId":…,"eventId":…,"status":…, with its last brace left open. */
static void add_queue(struct dynbuf *out, const char *booking_id, int64_t event_id,
                      const char *status)
{
    dynbuf_addf(out, "{\"bookingId\":\"%s\",\"eventId\":%lld,\"status\":\"%s\"", booking_id,
                (long long)event_id, status);
}

void json_out_queued(struct dynbuf *out, const char *booking_id, int64_t event_id)
{
    add_queue(out, booking_id, event_id, "queued");
    dynbuf_addc(out, '}');
}

void json_out_queue_confirmed(struct dynbuf *out, const struct booking *booking)
{
    add_queue(out, booking->booking_id, booking->event_id, "confirmed");
    dynbuf_adds(out, ",\"booking\":");
    json_out_booking(out, booking);
    dynbuf_addc(out, '}');
}

void json_out_queue_failed(struct dynbuf *out, const char *booking_id, int64_t event_id,
                           const struct refusal *refusal)
{
    add_queue(out, booking_id, event_id, "failed");
    dynbuf_adds(out, ",\"code\":");
    dynbuf_add_json(out, refusal->code);
    if (refusal->seat_count) {
        dynbuf_adds(out, ",\"conflicts\":");
        json_out_seats(out, refusal->seats, refusal->seat_count);
    }
    dynbuf_addc(out, '}');
}

void json_out_order(struct dynbuf *out, const struct order *order)
{
    dynbuf_addf(out, "{\"orderId\":\"%s\",\"eventId\":%lld,\"userId\":", order->order_id,
                (long long)order->event_id);
    dynbuf_add_json(out, order->booking->user_id);
    dynbuf_addf(out, ",\"state\":\"%s\",\"amount\":%lld,\"currency\":", order->state,
                (long long)order->amount);
    add_text_or_null(out, order->currency);
    dynbuf_adds(out, ",\"problem\":");
    add_text_or_null(out, order->problem);
    dynbuf_adds(out, ",\"payment\":{\"method\":");
    dynbuf_add_json(out, order->method);
    dynbuf_adds(out, "},\"booking\":");
    json_out_booking(out, order->booking);
    dynbuf_addc(out, '}');
}

void json_out_waitlist_entry(struct dynbuf *out, const struct waitlist_entry *entry)
{
    dynbuf_addf(out, "{\"entryId\":\"%s\",\"eventId\":%lld,\"userId\":", entry->entry_id,
                (long long)entry->event_id);
    dynbuf_add_json(out, entry->user_id);
    dynbuf_addf(out, ",\"quantity\":%d,\"tier\":", (int)entry->wish.quantity);
    add_text_or_null(out, entry->wish.tier);
    dynbuf_addf(out, ",\"together\":%s,\"state\":\"%s\"", entry->wish.together ? "true" : "false",
                entry->state);
    if (entry->position)
        dynbuf_addf(out, ",\"position\":%lld", (long long)entry->position);
    if (entry->booking_id)
        dynbuf_addf(out, ",\"bookingId\":\"%s\"", entry->booking_id);
    if (entry->expires_at_us) {
        dynbuf_adds(out, ",\"expiresAt\":");
        json_out_time(out, entry->expires_at_us);
    }
    dynbuf_adds(out, ",\"createdAt\":");
    json_out_time(out, entry->created_at_us);
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
