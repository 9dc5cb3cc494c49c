/*
 * Goal: a booking comes out of a message as it went in; whatever else is in a queue is refused, and
 * never read as something that the router must not be asked for; the same request has the same id.
 * Method: requests of both kinds there and back; messages with one field out of its bounds; every
 * byte of a message changed, every length cut: what is still read keeps all bounds.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "proto/queue.pb-c.h"
#include "queue/message.h"

#define ID "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071"

static const struct seat three[] = {{1, 1}, {7, 12}, {2147483647, 3}};
static const struct best_wish wishes[] = {
    {.tier = "Parkett", .quantity = 2, .together = true},
    {.tier = NULL, .quantity = 98, .together = false},
};

static struct book_request with_seats(void)
{
    return (struct book_request){.event_id = 4711,
                                 .user_id = "Zo\xc3\xab ~",
                                 .seats = three,
                                 .seat_count = 3,
                                 .booking_id = ID,
                                 .idempotency_key = "key 1"};
}

static struct book_request with_wishes(void)
{
    return (struct book_request){
        .event_id = 1, .user_id = "u", .best = wishes, .best_count = 2, .booking_id = ID};
}

static void encode(const struct book_request *request, struct dynbuf *out)
{
    dynbuf_init(out, QUEUE_MESSAGE_BYTES_MAX);
    queue_message_encode(request, 1234567890123456, out);
    assert_false(out->failed);
}

static void there_and_back(const struct book_request *request, struct queue_message *ret_message,
                           struct book_request *ret_again)
{
    struct dynbuf bytes;
    const char *reason = NULL;
    encode(request, &bytes);
    assert_int_equal(queue_message_decode(bytes.data, bytes.len, ret_message, &reason), SG_OK);
    dynbuf_done(&bytes);
    queue_message_request(ret_message, ret_again);
    assert_int_equal(ret_message->accepted_at_us, 1234567890123456);
    assert_string_equal(ret_again->booking_id, ID);
    assert_int_equal(ret_again->event_id, request->event_id);
    assert_string_equal(ret_again->user_id, request->user_id);
    assert_int_equal(ret_again->hold_ms, 0);
    assert_null(ret_again->method);
}

static void seats_come_back(void **state)
{
    struct queue_message message;
    struct book_request again;
    const struct book_request request = with_seats();
    (void)state;
    there_and_back(&request, &message, &again);
    assert_string_equal(again.idempotency_key, "key 1");
    assert_int_equal(again.seat_count, 3);
    assert_memory_equal(again.seats, three, sizeof(three));
    assert_null(again.best);
    assert_int_equal(again.best_count, 0);
}

static void wishes_come_back(void **state)
{
    struct queue_message message;
    struct book_request again;
    const struct book_request request = with_wishes();
    (void)state;
    there_and_back(&request, &message, &again);
    assert_null(again.idempotency_key);
    assert_null(again.seats);
    assert_int_equal(again.best_count, 2);
    assert_string_equal(again.best[0].tier, "Parkett");
    assert_int_equal(again.best[0].quantity, 2);
    assert_true(again.best[0].together);
    assert_null(again.best[1].tier); /* the whole house */
    assert_int_equal(again.best[1].quantity, 98);
    assert_false(again.best[1].together);
}

static void the_largest_fits(void **state)
{
    static struct seat seats[ROUTER_SEATS_MAX];
    struct book_request request = with_seats();
    struct queue_message message;
    struct book_request again;
    char user[ROUTER_USER_MAX + 1];
    char key[ROUTER_KEY_MAX + 1];
    (void)state;
    memset(user, '~', sizeof(user));
    user[ROUTER_USER_MAX] = '\0';
    memset(key, '~', sizeof(key));
    key[ROUTER_KEY_MAX] = '\0';
    for (int i = 0; i < ROUTER_SEATS_MAX; i++)
        seats[i] = (struct seat){INT32_MAX - i, INT32_MAX};
    request.user_id = user;
    request.idempotency_key = key;
    request.event_id = INT64_MAX;
    request.seats = seats;
    request.seat_count = ROUTER_SEATS_MAX;
    there_and_back(&request, &message, &again);
    assert_memory_equal(again.seats, seats, sizeof(seats));
    assert_string_equal(again.idempotency_key, key);
}

/* --- what must not be read -------------------------------------------------------------------- */

static uint8_t id_bytes[16] = {1, 2, 3};
static uint32_t places[2 * (ROUTER_SEATS_MAX + 1)] = {1, 2, 3, 4};
static Seatgrid__QueuedSeats seats_of;
static Seatgrid__QueuedWish wish_of[ROUTER_BEST_MAX + 1];
static Seatgrid__QueuedWish *wish_list[ROUTER_BEST_MAX + 1];
static Seatgrid__QueuedBest best_of;

static Seatgrid__QueuedBooking good(void)
{
    Seatgrid__QueuedBooking packed = SEATGRID__QUEUED_BOOKING__INIT;
    seatgrid__queued_seats__init(&seats_of);
    seatgrid__queued_best__init(&best_of);
    for (int i = 0; i <= ROUTER_BEST_MAX; i++) {
        seatgrid__queued_wish__init(&wish_of[i]);
        wish_of[i].quantity = 1;
        wish_of[i].tier = "A";
        wish_list[i] = &wish_of[i];
    }
    for (uint32_t i = 0; i < 2 * (ROUTER_SEATS_MAX + 1); i++)
        places[i] = 1 + i;
    seats_of.places = places;
    seats_of.n_places = 4;
    best_of.wishes = wish_list;
    best_of.n_wishes = 1;
    packed.version = 1;
    packed.booking_id.data = id_bytes;
    packed.booking_id.len = 16;
    packed.event_id = 5;
    packed.user_id = "u";
    packed.idempotency_key = "";
    packed.what_case = SEATGRID__QUEUED_BOOKING__WHAT_SEATS;
    packed.seats = &seats_of;
    return packed;
}

static Seatgrid__QueuedBooking good_best(void)
{
    Seatgrid__QueuedBooking packed = good();
    packed.what_case = SEATGRID__QUEUED_BOOKING__WHAT_BEST;
    packed.best = &best_of;
    return packed;
}

static enum sg_error read_packed(const Seatgrid__QueuedBooking *packed)
{
    static uint8_t bytes[65536];
    struct queue_message message;
    const char *reason = NULL;
    size_t len = seatgrid__queued_booking__get_packed_size(packed);
    assert_true(len <= sizeof(bytes));
    seatgrid__queued_booking__pack(packed, bytes);
    enum sg_error error = queue_message_decode(bytes, len, &message, &reason);
    assert_true((error == SG_OK) == (reason == NULL));
    return error;
}

#define REFUSED(start, ...)                                                                        \
    do {                                                                                           \
        Seatgrid__QueuedBooking packed = start();                                                  \
        __VA_ARGS__;                                                                               \
        assert_int_equal(read_packed(&packed), SG_MALFORMED);                                      \
    } while (0)

static void bounds_are_kept(void **state)
{
    char long_text[QUEUE_MESSAGE_BYTES_MAX + 1];
    Seatgrid__QueuedBooking fine = good();
    Seatgrid__QueuedBooking fine_best = good_best();
    (void)state;
    assert_int_equal(read_packed(&fine), SG_OK);
    fine_best = good_best();
    assert_int_equal(read_packed(&fine_best), SG_OK);
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    REFUSED(good, packed.version = 2);
    REFUSED(good, packed.version = 0);
    REFUSED(good, packed.booking_id.len = 15);
    REFUSED(good, packed.event_id = 0);
    REFUSED(good, packed.event_id = -1);
    REFUSED(good, packed.user_id = "");
    REFUSED(good, packed.user_id = long_text + sizeof(long_text) - 1 - (ROUTER_USER_MAX + 1));
    REFUSED(good, packed.user_id = long_text);
    REFUSED(good, packed.user_id = "a\nb");
    REFUSED(good, packed.user_id = "\xe4"); /* Latin-1 */
    REFUSED(good,
            packed.idempotency_key = long_text + sizeof(long_text) - 1 - (ROUTER_KEY_MAX + 1));
    REFUSED(good, packed.what_case = SEATGRID__QUEUED_BOOKING__WHAT__NOT_SET);
    REFUSED(good, seats_of.n_places = 0);
    REFUSED(good, seats_of.n_places = 3);
    REFUSED(good, seats_of.n_places = 2 * (ROUTER_SEATS_MAX + 1));
    REFUSED(good, places[0] = 0);
    REFUSED(good, places[1] = UINT32_C(1) << 31);
    REFUSED(good, (places[2] = places[0], places[3] = places[1]));
    REFUSED(good_best, best_of.n_wishes = 0);
    REFUSED(good_best, best_of.n_wishes = ROUTER_BEST_MAX + 1);
    REFUSED(good_best, wish_of[0].quantity = 0);
    REFUSED(good_best, wish_of[0].quantity = ROUTER_SEATS_MAX + 1);
    REFUSED(good_best, (best_of.n_wishes = 2, wish_of[0].quantity = 1,
                        wish_of[1].quantity = ROUTER_SEATS_MAX));
    REFUSED(good_best, (best_of.n_wishes = 2, wish_of[1].quantity = UINT32_MAX));
    REFUSED(good_best, wish_of[0].tier = long_text + sizeof(long_text) - 1 - (ROUTER_TIER_MAX + 1));
}

static void tiers_and_users_are_utf8(void **state)
{
    static const struct {
        char *text;
        enum sg_error error;
    } cases[] = {
        {"", SG_OK},
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8e\xab", SG_OK},
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", SG_OK},
        {"\xc3", SG_MALFORMED},             /* cut */
        {"\xe2\x82", SG_MALFORMED},         /* cut */
        {"a\xa4", SG_MALFORMED},            /* no lead */
        {"\xc0\xaf", SG_MALFORMED},         /* too long for what it says */
        {"\xe0\x80\xaf", SG_MALFORMED},     /* likewise */
        {"\xf0\x80\x80\xaf", SG_MALFORMED}, /* likewise */
        {"\xed\xa0\x80", SG_MALFORMED},     /* half of a pair */
        {"\xf4\x90\x80\x80", SG_MALFORMED}, /* past the last */
        {"\xff", SG_MALFORMED},
        {"a\tb", SG_MALFORMED},
        {"\x7f", SG_MALFORMED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Seatgrid__QueuedBooking packed = good_best();
        wish_of[0].tier = cases[i].text;
        if (read_packed(&packed) != cases[i].error)
            fail_msg("tier %zu", i);
        packed = good();
        packed.user_id = cases[i].text;
        if (cases[i].text[0] && read_packed(&packed) != cases[i].error)
            fail_msg("user %zu", i);
    }
}

static void check_bounds(struct queue_message *message)
{
    struct book_request request;
    queue_message_request(message, &request);
    assert_true(request.event_id >= 1);
    assert_true(strlen(request.user_id) >= 1 && strlen(request.user_id) <= ROUTER_USER_MAX);
    assert_true((request.seat_count == 0) != (request.best_count == 0));
    assert_true(request.seat_count <= ROUTER_SEATS_MAX && request.best_count <= ROUTER_BEST_MAX);
    for (size_t i = 0; i < request.seat_count; i++)
        assert_true(request.seats[i].row >= 1 && request.seats[i].col >= 1);
    for (size_t i = 0; i < request.best_count; i++)
        assert_true(request.best[i].quantity >= 1 && request.best[i].quantity <= ROUTER_SEATS_MAX);
}

static void damage_is_harmless(void **state)
{
    const struct book_request requests[] = {with_seats(), with_wishes()};
    struct queue_message message;
    const char *reason;
    int read = 0;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct dynbuf bytes;
        encode(&requests[i], &bytes);
        /* a copy of just this size, so that the sanitizer sees a read past it */
        for (size_t len = 0; len <= bytes.len; len++) {
            char *cut = malloc(len ? len : 1);
            memcpy(cut, bytes.data, len);
            if (queue_message_decode(cut, len, &message, &reason) == SG_OK)
                check_bounds(&message);
            free(cut);
        }
        for (size_t at = 0; at < bytes.len; at++) {
            for (int value = 0; value < 256; value++) {
                char before = bytes.data[at];
                bytes.data[at] = (char)value;
                if (queue_message_decode(bytes.data, bytes.len, &message, &reason) == SG_OK) {
                    check_bounds(&message);
                    read++;
                }
                bytes.data[at] = before;
            }
        }
        dynbuf_done(&bytes);
    }
    assert_true(read > 500); /* many bytes may be anything */
}

/* --- ids -------------------------------------------------------------------------------------- */

static void the_same_request_has_the_same_id(void **state)
{
    char a[UUID_TEXT_LEN + 1];
    char b[UUID_TEXT_LEN + 1];
    struct uuid uuid;
    static const struct {
        int64_t event_id;
        const char *user;
        const char *key;
    } others[] = {{2, "u", "k"}, {1, "v", "k"}, {1, "u", "l"}, {1, "u k", "x"}, {1, "u", "k x"}};
    (void)state;
    queue_message_booking_id(1, "u", "k", 1000, a);
    queue_message_booking_id(1, "u", "k", 999999999, b);
    assert_string_equal(a, b);
    assert_true(uuid_parse(a, &uuid));
    assert_int_equal(a[14], '8'); /* its version */
    assert_non_null(strchr("89ab", a[19]));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        queue_message_booking_id(others[i].event_id, others[i].user, others[i].key, 1000, b);
        assert_string_not_equal(a, b);
    }
    queue_message_booking_id(1, "u k", "x", 0, a);
    queue_message_booking_id(1, "u", "k x", 0, b);
    assert_string_not_equal(a, b);
}

static void without_a_key_each_is_new(void **state)
{
    char a[UUID_TEXT_LEN + 1];
    char b[UUID_TEXT_LEN + 1];
    (void)state;
    queue_message_booking_id(1, "u", NULL, 1000, a);
    queue_message_booking_id(1, "u", NULL, 1000, b);
    assert_string_not_equal(a, b);
    queue_message_booking_id(1, "u", "", 1000, b);
    assert_string_not_equal(a, b);
    assert_int_equal(a[14], '7');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seats_come_back),
        cmocka_unit_test(wishes_come_back),
        cmocka_unit_test(the_largest_fits),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(tiers_and_users_are_utf8),
        cmocka_unit_test(damage_is_harmless),
        cmocka_unit_test(the_same_request_has_the_same_id),
        cmocka_unit_test(without_a_key_each_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
