/*
 * The message of a booking that is to be made later. See message.h.
 *
 * protobuf-c writes and reads the bytes; what the bounds of the fields are is checked here, so that
 * a worker may hand a decoded message to the router as it is.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/message.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/sha1.h"
#include "proto/queue.pb-c.h"

/* --- the booking's id ------------------------------------------------------------------------- */

static int hex_digit(char digit)
{
    return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

/* Version 8 of RFC 9562: bits of our own making, here those of a hash. */
static struct uuid uuid_of_request(int64_t event_id, const char *user_id, const char *key)
{
    char text[32 + ROUTER_USER_MAX + 1 + ROUTER_KEY_MAX + 1];
    char hex[SHA1_HEX_LEN + 1];
    struct uuid uuid;
    /* The length of the user's name tells where it ends, whatever it holds. */
    int len = snprintf(text, sizeof(text), "%lld %zu %s %s", (long long)event_id, strlen(user_id),
                       user_id, key);
    assert(len > 0 && (size_t)len < sizeof(text));
    sha1_hex(text, (size_t)len, hex);
    for (size_t i = 0; i < sizeof(uuid.bytes); i++)
        uuid.bytes[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | 0x80);
    uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80);
    return uuid;
}

void queue_message_booking_id(int64_t event_id, const char *user_id, const char *idempotency_key,
                              int64_t wall_us, char ret_id[UUID_TEXT_LEN + 1])
{
    struct uuid uuid = idempotency_key && *idempotency_key
                           ? uuid_of_request(event_id, user_id, idempotency_key)
                           : uuid_v7(wall_us);
    uuid_format(&uuid, ret_id);
}

/* --- encoding --------------------------------------------------------------------------------- */

static void pack(const Seatgrid__QueuedBooking *packed, struct dynbuf *out)
{
    size_t len = seatgrid__queued_booking__get_packed_size(packed);
    if (dynbuf_reserve(out, len))
        out->len += seatgrid__queued_booking__pack(packed, (uint8_t *)out->data + out->len);
}

static void pack_seats(const struct book_request *request, Seatgrid__QueuedBooking packed,
                       struct dynbuf *out)
{
    uint32_t places[2 * ROUTER_SEATS_MAX];
    Seatgrid__QueuedSeats seats = SEATGRID__QUEUED_SEATS__INIT;
    for (size_t i = 0; i < request->seat_count; i++) {
        places[2 * i] = (uint32_t)request->seats[i].row;
        places[2 * i + 1] = (uint32_t)request->seats[i].col;
    }
    seats.places = places;
    seats.n_places = 2 * request->seat_count;
    packed.what_case = SEATGRID__QUEUED_BOOKING__WHAT_SEATS;
    packed.seats = &seats;
    pack(&packed, out);
}

static void pack_wishes(const struct book_request *request, Seatgrid__QueuedBooking packed,
                        struct dynbuf *out)
{
    Seatgrid__QueuedWish wishes[ROUTER_BEST_MAX];
    Seatgrid__QueuedWish *list[ROUTER_BEST_MAX];
    Seatgrid__QueuedBest best = SEATGRID__QUEUED_BEST__INIT;
    for (size_t i = 0; i < request->best_count; i++) {
        const struct best_wish *wish = &request->best[i];
        seatgrid__queued_wish__init(&wishes[i]);
        wishes[i].tier = (char *)(wish->tier ? wish->tier : "");
        wishes[i].quantity = (uint32_t)wish->quantity;
        wishes[i].together = wish->together;
        list[i] = &wishes[i];
    }
    best.wishes = list;
    best.n_wishes = request->best_count;
    packed.what_case = SEATGRID__QUEUED_BOOKING__WHAT_BEST;
    packed.best = &best;
    pack(&packed, out);
}

void queue_message_encode(const struct book_request *request, int64_t accepted_at_us,
                          struct dynbuf *out)
{
    struct uuid uuid;
    Seatgrid__QueuedBooking packed = SEATGRID__QUEUED_BOOKING__INIT;
    assert(request->seat_count <= ROUTER_SEATS_MAX && request->best_count <= ROUTER_BEST_MAX);
    bool has_id = uuid_parse(request->booking_id, &uuid);
    assert(has_id);
    (void)has_id;
    packed.version = QUEUE_MESSAGE_VERSION;
    packed.booking_id.data = uuid.bytes;
    packed.booking_id.len = sizeof(uuid.bytes);
    packed.event_id = request->event_id;
    packed.user_id = (char *)request->user_id;
    packed.idempotency_key = (char *)(request->idempotency_key ? request->idempotency_key : "");
    packed.accepted_at_us = accepted_at_us;
    if (request->seat_count)
        pack_seats(request, packed, out);
    else
        pack_wishes(request, packed, out);
}

/* --- decoding --------------------------------------------------------------------------------- */

/* UTF-8 without control characters: PostgreSQL, which has the last word on what is UTF-8, is not to
 * be asked for what cannot be. */
static bool is_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char lead = (unsigned char)text[i++];
        int more = lead < 0x80 ? 0 : lead >= 0xc2 && lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        if (lead < 0x20 || lead == 0x7f || (lead >= 0x80 && lead < 0xc2) || lead > 0xf4)
            return false;
        unsigned char next = (unsigned char)text[i];
        if ((lead == 0xe0 && next < 0xa0) || (lead == 0xed && next > 0x9f) ||
            (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next > 0x8f))
            return false;
        for (; more > 0; more--) {
            if (((unsigned char)text[i++] & 0xc0) != 0x80)
                return false;
        }
    }
    return true;
}

/* Such text of at least min_len bytes that fits into ret_text. */
static bool take_text(const char *text, size_t min_len, char *ret_text, size_t size)
{
    size_t len = strlen(text);
    if (len < min_len || len >= size || !is_text(text, len))
        return false;
    memcpy(ret_text, text, len + 1);
    return true;
}

static bool is_named_before(const struct queue_message *message, size_t count, uint32_t row,
                            uint32_t col)
{
    for (size_t i = 0; i < count; i++) {
        if ((uint32_t)message->seats[i].row == row && (uint32_t)message->seats[i].col == col)
            return true;
    }
    return false;
}

static const char *take_seats(const Seatgrid__QueuedSeats *seats, struct queue_message *message)
{
    size_t count = seats->n_places / 2;
    if (count < 1 || count > ROUTER_SEATS_MAX || seats->n_places % 2)
        return "an impossible number of seats";
    for (size_t i = 0; i < count; i++) {
        uint32_t row = seats->places[2 * i];
        uint32_t col = seats->places[2 * i + 1];
        if (row < 1 || row > INT32_MAX || col < 1 || col > INT32_MAX)
            return "a seat that cannot be";
        if (is_named_before(message, i, row, col))
            return "the same seat twice";
        message->seats[i] = (struct seat){(int32_t)row, (int32_t)col};
    }
    message->seat_count = count;
    return NULL;
}

static const char *take_wishes(const Seatgrid__QueuedBest *best, struct queue_message *message)
{
    uint32_t seats = 0;
    if (best->n_wishes < 1 || best->n_wishes > ROUTER_BEST_MAX)
        return "an impossible number of wishes";
    for (size_t i = 0; i < best->n_wishes; i++) {
        const Seatgrid__QueuedWish *wish = best->wishes[i];
        if (!take_text(wish->tier, 0, message->tiers[i], sizeof(message->tiers[i])))
            return "an impossible name of a tier";
        if (wish->quantity < 1 || wish->quantity > ROUTER_SEATS_MAX - seats)
            return "an impossible number of seats";
        seats += wish->quantity;
        message->best[i].quantity = (int32_t)wish->quantity;
        message->best[i].together = wish->together;
    }
    message->best_count = best->n_wishes;
    return NULL;
}

/* NULL, or what is wrong. */
static const char *take(const Seatgrid__QueuedBooking *packed, struct queue_message *message)
{
    struct uuid uuid;
    memset(message, 0, sizeof(*message));
    if (packed->version != QUEUE_MESSAGE_VERSION)
        return "a version that this program does not know";
    if (packed->booking_id.len != sizeof(uuid.bytes))
        return "no booking id";
    memcpy(uuid.bytes, packed->booking_id.data, sizeof(uuid.bytes));
    uuid_format(&uuid, message->booking_id);
    if (packed->event_id < 1)
        return "no event id";
    message->event_id = packed->event_id;
    message->accepted_at_us = packed->accepted_at_us;
    if (!take_text(packed->user_id, 1, message->user_id, sizeof(message->user_id)))
        return "no user id";
    if (!take_text(packed->idempotency_key, 0, message->idempotency_key,
                   sizeof(message->idempotency_key)))
        return "an impossible idempotency key";
    if (packed->what_case == SEATGRID__QUEUED_BOOKING__WHAT_SEATS)
        return take_seats(packed->seats, message);
    if (packed->what_case == SEATGRID__QUEUED_BOOKING__WHAT_BEST)
        return take_wishes(packed->best, message);
    return "neither seats nor wishes";
}

enum sg_error queue_message_decode(const void *bytes, size_t len, struct queue_message *ret_message,
                                   const char **ret_reason)
{
    struct queue_message message;
    if (len > QUEUE_MESSAGE_BYTES_MAX) {
        *ret_reason = "too long";
        return SG_MALFORMED;
    }
    Seatgrid__QueuedBooking *packed = seatgrid__queued_booking__unpack(NULL, len, bytes);
    if (!packed) {
        *ret_reason = "no protobuf of this kind";
        return SG_MALFORMED;
    }
    const char *reason = take(packed, &message);
    seatgrid__queued_booking__free_unpacked(packed, NULL);
    if (reason) {
        *ret_reason = reason;
        return SG_MALFORMED;
    }
    *ret_message = message;
    return SG_OK;
}

void queue_message_request(struct queue_message *message, struct book_request *ret_request)
{
    for (size_t i = 0; i < message->best_count; i++)
        message->best[i].tier = message->tiers[i][0] ? message->tiers[i] : NULL;
    *ret_request = (struct book_request){
        .event_id = message->event_id,
        .user_id = message->user_id,
        .seats = message->seat_count ? message->seats : NULL,
        .seat_count = message->seat_count,
        .best = message->best_count ? message->best : NULL,
        .best_count = message->best_count,
        .booking_id = message->booking_id,
        .idempotency_key = message->idempotency_key[0] ? message->idempotency_key : NULL,
        .request_id = message->booking_id,
    };
}
