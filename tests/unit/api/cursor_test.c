/*
 * Goal: a cursor comes back as the place it was made of, and nothing else is taken for one: not a
 * mistyped one, not the other list's, not one that PostgreSQL would stumble over.
 * Method: there and back; every single character changed.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/cursor.h"
#include "base/rfc3339.h"
#include "router/router.h"

#define UUID "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"

static void ids_come_back(void **state)
{
    static const int64_t ids[] = {1, 42, 7266512, INT64_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char text[CURSOR_LEN + 1];
        int64_t id = 0;
        cursor_write(ids[i], text);
        assert_int_equal(strlen(text), CURSOR_LEN);
        assert_true(cursor_parse(text, &id));
        assert_int_equal(id, ids[i]);
    }
}

/* Cursors that clients hold must still be understood by the next release. */
static void the_text_stays_what_it_was(void **state)
{
    char text[CURSOR_LEN + 1];
    (void)state;
    cursor_write(1, text);
    assert_string_equal(text, "AAAAAAAAAAHChNCK");
}

static void places_come_back(void **state)
{
    static const struct ticket_place places[] = {
        {INT64_C(1811876400000000), 42, UUID},
        {0, 1, "00000000-0000-0000-0000-000000000000"},
        {-1, INT64_MAX, "ffffffff-ffff-ffff-ffff-ffffffffffff"},
        {RFC3339_MIN_US, 1, UUID},
        {RFC3339_MAX_US, 1, UUID},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char text[CURSOR_PLACE_LEN + 1];
        struct ticket_place place;
        cursor_write_place(&places[i], text);
        assert_int_equal(strlen(text), CURSOR_PLACE_LEN);
        assert_true(cursor_parse_place(text, &place));
        assert_int_equal(place.starts_at_us, places[i].starts_at_us);
        assert_int_equal(place.event_id, places[i].event_id);
        assert_string_equal(place.booking_id, places[i].booking_id);
    }
}

static void impossible_places_are_refused(void **state)
{
    static const struct ticket_place places[] = {
        {INT64_MIN, 1, UUID},          {INT64_MAX, 1, UUID}, {RFC3339_MIN_US - 1, 1, UUID},
        {RFC3339_MAX_US + 1, 1, UUID}, {0, 0, UUID},         {0, -5, UUID},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char text[CURSOR_PLACE_LEN + 1];
        struct ticket_place place = {.event_id = 77};
        cursor_write_place(&places[i], text); /* with a check that is right */
        assert_false(cursor_parse_place(text, &place));
        assert_int_equal(place.event_id, 77);
    }
}

static void no_character_may_change(void **state)
{
    static const char tries[] = "ABZaz09-_+/=. ";
    static const struct ticket_place place = {INT64_C(1811876400000000), 42, UUID};
    char good[CURSOR_PLACE_LEN + 1];
    char bad[CURSOR_PLACE_LEN + 1];
    struct ticket_place out;
    (void)state;
    cursor_write_place(&place, good);
    for (size_t i = 0; i < CURSOR_PLACE_LEN; i++) {
        for (const char *try = tries; *try; try++) {
            memcpy(bad, good, sizeof(bad));
            bad[i] = *try;
            if (*try != good[i] && cursor_parse_place(bad, &out))
                fail_msg("%s was taken for %s", bad, good);
        }
    }
    for (size_t len = 0; len < CURSOR_PLACE_LEN; len++) {
        memcpy(bad, good, len);
        bad[len] = '\0';
        assert_false(cursor_parse_place(bad, &out));
    }
}

static void the_lists_do_not_mix(void **state)
{
    static const struct ticket_place place = {INT64_C(1811876400000000), 42, UUID};
    char text[CURSOR_PLACE_LEN + 1];
    struct ticket_place out;
    int64_t id;
    (void)state;
    cursor_write_place(&place, text);
    assert_false(cursor_parse(text, &id));
    cursor_write(42, text);
    assert_false(cursor_parse_place(text, &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_come_back),           cmocka_unit_test(the_text_stays_what_it_was),
        cmocka_unit_test(places_come_back),        cmocka_unit_test(impossible_places_are_refused),
        cmocka_unit_test(no_character_may_change), cmocka_unit_test(the_lists_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
