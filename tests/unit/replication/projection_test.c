/*
 * Goal: every change of a row means exactly the right effects, and what cannot be understood is
 * refused with its reason: nothing is guessed.
 * Method: a table of transitions, each with text and with binary values; tables of good and bad
 * values; relations that lack something; a second spelling of the table with columns in another
 * order.
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

#include "replication/pgvalue.h"
#include "replication/projection.h"

#define BOOKINGS 100
#define EVENTS 200
#define ID1 "01020304-0506-0708-090a-0b0c0d0e0f10"
#define ID2 "ffffffff-0506-0708-090a-0b0c0d0e0f10"

/* --- messages ------------------------------------------------------------------------------- */

static struct pgoutput_tuple tuples[2];
static struct pgoutput_column columns[16];

static struct pgoutput_message relation_of(uint32_t oid, const char *schema, const char *name,
                                           char identity, const char *const *names)
{
    struct pgoutput_message message = {.type = PGOUTPUT_RELATION,
                                       .oid = oid,
                                       .schema = schema,
                                       .name = name,
                                       .identity = identity,
                                       .columns = columns};
    while (names[message.column_count]) {
        columns[message.column_count].name = names[message.column_count];
        message.column_count++;
    }
    return message;
}

static const char *const booking_columns[] = {"event_id", "booking_id", "user_id",
                                              "status",   "seats",      NULL};
static const char *const event_columns[] = {"event_id", "name", "rows", "cols", NULL};

static struct projection *new_projection(void)
{
    char problem[PROJECTION_PROBLEM_SIZE];
    struct projection *projection = projection_new();
    assert_non_null(projection);
    struct pgoutput_message bookings =
        relation_of(BOOKINGS, "public", "bookings", 'f', booking_columns);
    assert_int_equal(projection_relation(projection, &bookings, problem), SG_OK);
    struct pgoutput_message events = relation_of(EVENTS, "public", "events", 'd', event_columns);
    assert_int_equal(projection_relation(projection, &events, problem), SG_OK);
    return projection;
}

/* "12|uuid|ann|held|{1,2}": values as text; "\N" is NULL, "\u" unchanged. */
static void fill(struct pgoutput_tuple *tuple, const char *row)
{
    tuple->count = 0;
    while (row) {
        const char *end = strchr(row, '|');
        size_t len = end ? (size_t)(end - row) : strlen(row);
        struct pgoutput_value *value = &tuple->values[tuple->count++];
        *value = (struct pgoutput_value){.kind = 't', .data = row, .len = (uint32_t)len};
        if (len == 2 && row[0] == '\\')
            *value = (struct pgoutput_value){.kind = row[1] == 'N' ? 'n' : 'u'};
        row = end ? end + 1 : NULL;
    }
}

static struct pgoutput_message change_of(uint32_t oid, const char *old, const char *new)
{
    struct pgoutput_message message = {.oid = oid,
                                       .type = !old   ? PGOUTPUT_INSERT
                                               : !new ? PGOUTPUT_DELETE
                                                      : PGOUTPUT_UPDATE};
    if (old) {
        fill(&tuples[0], old);
        message.old = &tuples[0];
        message.old_kind = 'O';
    }
    if (new) {
        fill(&tuples[1], new);
        message.new = &tuples[1];
    }
    return message;
}

/* --- binary values -------------------------------------------------------------------------- */

static char arena[4096];
static size_t arena_len;

static void put(int64_t number, size_t size)
{
    for (size_t i = size; i > 0; i--)
        arena[arena_len++] = (char)((uint64_t)number >> (8 * (i - 1)));
}

/* Turns a text value of a booking or event into what the binary option sends. */
static void make_binary(struct pgoutput_value *value, size_t column, bool booking)
{
    char text[256];
    size_t start = arena_len;
    if (value->kind != 't')
        return;
    snprintf(text, sizeof(text), "%.*s", (int)value->len, value->data);
    if (column == 0) {
        put(strtoll(text, NULL, 10), 8);
    } else if (booking && column == 1) {
        struct uuid uuid;
        assert_true(uuid_parse(text, &uuid));
        for (size_t i = 0; i < 16; i++)
            put(uuid.bytes[i], 1);
    } else if (booking && column == 4) {
        size_t count = 0;
        bool some = text[1] != '}';
        put(some, 4);
        put(0, 4);
        put(23, 4);
        if (some) {
            size_t at = arena_len;
            put(0, 4);
            put(1, 4);
            for (char *p = text; *p && *p != '}'; count++) {
                put(4, 4);
                put(strtoll(p + 1, &p, 10), 4);
            }
            size_t end = arena_len;
            arena_len = at;
            put((int64_t)count, 4);
            arena_len = end;
        }
    } else if (!booking && column >= 2) {
        put(strtoll(text, NULL, 10), 4);
    } else {
        memcpy(arena + arena_len, value->data, value->len);
        arena_len += value->len;
    }
    *value = (struct pgoutput_value){
        .kind = 'b', .data = arena + start, .len = (uint32_t)(arena_len - start)};
}

static void make_all_binary(const struct pgoutput_message *message)
{
    arena_len = 0;
    for (size_t t = 0; t < 2; t++)
        if ((t == 0 ? message->old : message->new))
            for (size_t i = 0; i < tuples[t].count; i++)
                make_binary(&tuples[t].values[i], i, message->oid == BOOKINGS);
}

/* --- effects as text ------------------------------------------------------------------------ */

static void describe(const struct effects *effects, char *ret_text, size_t size)
{
    size_t len = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *e = &effects->item[i];
        char uuid[UUID_TEXT_LEN + 1];
        len += (size_t)snprintf(ret_text + len, size - len, i ? "; " : "");
        switch (e->kind) {
        case EFFECT_SEATS:
            len += (size_t)snprintf(ret_text + len, size - len, "seats %lld %+lld %+lld %c",
                                    (long long)e->event_id, (long long)e->d_held,
                                    (long long)e->d_booked, e->state);
            for (size_t s = 0; s < e->seat_count; s++)
                len += (size_t)snprintf(ret_text + len, size - len, " %d", e->seats[s]);
            if (e->status) {
                uuid_format(&e->booking_id, uuid);
                len += (size_t)snprintf(ret_text + len, size - len, " %.8s %s", uuid, e->status);
            }
            break;
        case EFFECT_GRID:
            len +=
                (size_t)snprintf(ret_text + len, size - len, "%sgrid %lld %dx%d",
                                 e->altered ? "re" : "", (long long)e->event_id, e->rows, e->cols);
            break;
        case EFFECT_EVENT_GONE:
            len +=
                (size_t)snprintf(ret_text + len, size - len, "gone %lld", (long long)e->event_id);
            break;
        case EFFECT_TICKET_ADD:
        case EFFECT_TICKET_REMOVE:
            uuid_format(&e->booking_id, uuid);
            len += (size_t)snprintf(ret_text + len, size - len, "%s %.*s %.8s %lld",
                                    e->kind == EFFECT_TICKET_ADD ? "add" : "remove",
                                    (int)e->user_len, e->user, uuid, (long long)e->event_id);
            break;
        default:
            fail_msg("effect of kind %d", (int)e->kind);
        }
    }
}

static const struct {
    uint32_t oid;
    const char *old;
    const char *new;
    const char *effects;
} changes[] = {
    /* what one row holds */
    {BOOKINGS, NULL, "12|" ID1 "|ann|confirmed|{3,4}",
     "seats 12 +0 +2 x 3 4 01020304 confirmed; add ann 01020304 12"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|held|{3}",
     "seats 12 +1 +0 h 3 01020304 held; add ann 01020304 12"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|cancelled|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|expired|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|failed|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|some new status|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|confirme|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|confirmedd|{3}", ""},
    {BOOKINGS, NULL, "12|" ID1 "|ann|confirmed|{}", "add ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3,4}", NULL,
     "seats 12 +0 -2 . 3 4; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", NULL, "seats 12 -2 +0 . 3 4; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3,4}", NULL, ""},
    /* transitions of one booking */
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|ann|confirmed|{3,4}",
     "seats 12 -2 +2 x 3 4 01020304 confirmed"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|ann|expired|{3,4}",
     "seats 12 -2 +0 . 3 4 01020304 expired; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID1 "|ann|cancelled|{3}",
     "seats 12 +0 -1 . 3 01020304 cancelled; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|failed|{3}", "12|" ID1 "|ann|confirmed|{3}",
     "seats 12 +0 +1 x 3 01020304 confirmed; add ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|failed|{3}", "12|" ID1 "|ann|cancelled|{3}",
     "seats 12 +0 +0 . 01020304 cancelled"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3}", "12|" ID1 "|ann|held|{3}", ""},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3}", "12|" ID1 "|ann|failed|{3}",
     "seats 12 +0 +0 . 01020304 failed"},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3}", "12|" ID1 "|ann|confirmed|{3}",
     "seats 12 +0 +1 x 3 01020304 confirmed; add ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3}", "12|" ID1 "|ann|lost|{3}", ""},
    {BOOKINGS, "12|" ID1 "|ann|held|{3}", "12|" ID1 "|ann|lost|{3}",
     "seats 12 -1 +0 . 3; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3}", "12|" ID1 "|ann|expired|{3}", ""},
    /* other seats: given back, then taken */
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3,4}", "12|" ID1 "|ann|confirmed|{4,5,6}",
     "seats 12 +0 -2 . 3 4 01020304 confirmed; seats 12 +0 +3 x 4 5 6 01020304 confirmed"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|ann|confirmed|{3}",
     "seats 12 -2 +0 . 3 4 01020304 confirmed; seats 12 +0 +1 x 3 01020304 confirmed"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|ann|cancelled|{3}",
     "seats 12 -2 +0 . 3 4 01020304 cancelled; remove ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|expired|{3,4}", "12|" ID1 "|ann|confirmed|{3}",
     "seats 12 +0 +1 x 3 01020304 confirmed; add ann 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|held|{}", "12|" ID1 "|ann|held|{1}",
     "seats 12 +1 +0 h 1 01020304 held"},
    /* another user, booking, event */
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID1 "|bob|confirmed|{3}",
     "remove ann 01020304 12; add bob 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID1 "|annb|confirmed|{3}",
     "remove ann 01020304 12; add annb 01020304 12"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID2 "|ann|confirmed|{3}",
     "remove ann 01020304 12; add ann ffffffff 12"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "13|" ID1 "|bob|held|{3}",
     "seats 12 +0 -1 . 3; seats 13 +1 +0 h 3 01020304 held; remove ann 01020304 12; add bob "
     "01020304 13"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID1 "|bob|cancelled|{3}",
     "seats 12 +0 -1 . 3 01020304 cancelled; remove ann 01020304 12"},
    /* unchanged TOAST in the new row */
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|ann|confirmed|\\u",
     "seats 12 -2 +2 x 3 4 01020304 confirmed"},
    {BOOKINGS, "12|" ID1 "|ann|held|{3,4}", "12|" ID1 "|\\u|expired|\\u",
     "seats 12 -2 +0 . 3 4 01020304 expired; remove ann 01020304 12"},
    /* a user that nobody can ask for has seats, but no ticket */
    {BOOKINGS, NULL, "12|" ID1 "||confirmed|{3}", "seats 12 +0 +1 x 3 01020304 confirmed"},
    {BOOKINGS, NULL,
     "12|" ID1 "|uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu|confirmed|{3}",
     "seats 12 +0 +1 x 3 01020304 confirmed"},
    {BOOKINGS, "12|" ID1 "|ann|confirmed|{3}", "12|" ID1 "||confirmed|{3}",
     "remove ann 01020304 12"},
    {BOOKINGS, NULL, "9223372036854775807|" ID1 "|a|held|{2147483647}",
     "seats 9223372036854775807 +1 +0 h 2147483647 01020304 held; add a 01020304 "
     "9223372036854775807"},
    /* events */
    {EVENTS, NULL, "12|Name|10|20", "grid 12 10x20"},
    {EVENTS, "12|Name|10|20", "12|Other|10|30", "regrid 12 10x30"},
    {EVENTS, "12|Name|10|20", "13|Name|10|20", "gone 12; regrid 13 10x20"},
    {EVENTS, "12|Name|10|20", NULL, "gone 12"},
    {EVENTS, "12|\\N|\\N|\\N", NULL, "gone 12"},
    {EVENTS, "12|\\N|\\N|\\N", "14|\\u|10|20", "gone 12; regrid 14 10x20"},
    /* others */
    {999, NULL, "1|2|3|4|5", ""},
};

static void test_changes(void **state)
{
    struct projection *projection = new_projection();
    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        for (int binary = 0; binary < 2; binary++) {
            char problem[PROJECTION_PROBLEM_SIZE] = "";
            char text[1024];
            struct effects effects;
            const char *table = NULL;
            struct pgoutput_message message =
                change_of(changes[i].oid, changes[i].old, changes[i].new);
            if (binary)
                make_all_binary(&message);
            enum sg_error error =
                projection_change(projection, &message, &effects, &table, problem);
            if (error)
                fail_msg("%zu: %s", i, problem);
            describe(&effects, text, sizeof(text));
            if (strcmp(text, changes[i].effects) != 0)
                fail_msg("%zu: %s, not %s", i, text, changes[i].effects);
            assert_string_equal(table, changes[i].oid == BOOKINGS ? "bookings"
                                       : changes[i].oid == EVENTS ? "events"
                                                                  : "unknown");
        }
    }
    projection_free(projection);
}

/* --- what is refused ------------------------------------------------------------------------ */

static const struct {
    uint32_t oid;
    const char *old;
    const char *new;
    const char *problem; /* a part of it */
} refused[] = {
    {BOOKINGS, NULL, "\\N|" ID1 "|ann|held|{3}", "event_id"},
    {BOOKINGS, NULL, "12x|" ID1 "|ann|held|{3}", "event_id"},
    {BOOKINGS, NULL, "|" ID1 "|ann|held|{3}", "event_id"},
    {BOOKINGS, NULL, "12|\\N|ann|held|{3}", "booking_id"},
    {BOOKINGS, NULL, "12|0102|ann|held|{3}", "booking_id"},
    {BOOKINGS, NULL, "12|" ID1 "|\\N|held|{3}", "user_id"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|\\N|{3}", "status"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|held|\\N", "seats"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|held|\\u", "seats"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|expired|{3", "seats"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|held", "4 columns, not 5"},
    {BOOKINGS, NULL, "12|" ID1 "|ann|held|{3}|more", "6 columns, not 5"},
    {BOOKINGS, "12|" ID1 "|ann|held", "12|" ID1 "|ann|held|{3}", "4 columns, not 5"},
    {BOOKINGS, "12|" ID1 "|ann|held|\\u", "12|" ID1 "|ann|held|\\u", "seats"},
    {BOOKINGS, "12|" ID1 "|ann|held|{x}", NULL, "seats"},
    {EVENTS, NULL, "\\N|Name|1|1", "event_id"},
    {EVENTS, NULL, "1|Name|2147483648|1", "rows"},
    {EVENTS, NULL, "1|Name|1|\\N", "cols"},
    {EVENTS, "\\N|Name|1|1", NULL, "event_id"},
    {EVENTS, NULL, "1|Name|1", "columns"},
};

static void test_what_cannot_be_read_is_refused(void **state)
{
    struct projection *projection = new_projection();
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char problem[PROJECTION_PROBLEM_SIZE] = "";
        struct effects effects = {.count = 77};
        const char *table = "untouched";
        struct pgoutput_message message = change_of(refused[i].oid, refused[i].old, refused[i].new);
        if (projection_change(projection, &message, &effects, &table, problem) != SG_MALFORMED)
            fail_msg("%zu was taken", i);
        if (!strstr(problem, refused[i].problem))
            fail_msg("%zu: %s", i, problem);
        assert_int_equal(effects.count, 77);
        assert_string_equal(table, "untouched");
    }
    projection_free(projection);
}

static void test_an_old_row_that_is_not_whole(void **state)
{
    struct projection *projection = new_projection();
    static const char kinds[] = {0, 'K'};
    (void)state;
    for (size_t i = 0; i < sizeof(kinds); i++) {
        char problem[PROJECTION_PROBLEM_SIZE] = "";
        struct effects effects;
        const char *table;
        struct pgoutput_message message =
            change_of(BOOKINGS, "12|" ID1 "|\\N|\\N|\\N", "12|" ID1 "|ann|expired|{3}");
        message.old_kind = kinds[i];
        if (!kinds[i])
            message.old = NULL;
        assert_int_equal(projection_change(projection, &message, &effects, &table, problem),
                         SG_MALFORMED);
        assert_non_null(strstr(problem, "old row"));
        message.oid = EVENTS;
        message.old = NULL;
        message.new = NULL;
        message.type = PGOUTPUT_DELETE;
        assert_int_equal(projection_change(projection, &message, &effects, &table, problem),
                         SG_MALFORMED);
    }
    projection_free(projection);
}

/* --- relations ------------------------------------------------------------------------------ */

static void test_columns_are_found_by_name(void **state)
{
    static const char *const other_order[] = {"seats", "note",     "status",     "user_id",
                                              "x",     "event_id", "booking_id", NULL};
    char problem[PROJECTION_PROBLEM_SIZE];
    char text[256];
    struct effects effects;
    const char *table;
    struct projection *projection = new_projection();
    (void)state;
    struct pgoutput_message relation =
        relation_of(BOOKINGS, "public", "bookings", 'f', other_order);
    assert_int_equal(projection_relation(projection, &relation, problem), SG_OK);
    struct pgoutput_message message = change_of(BOOKINGS, NULL, "{9}|\\N|held|ann|\\N|12|" ID1);
    assert_int_equal(projection_change(projection, &message, &effects, &table, problem), SG_OK);
    describe(&effects, text, sizeof(text));
    assert_string_equal(text, "seats 12 +1 +0 h 9 01020304 held; add ann 01020304 12");
    projection_free(projection);
}

static void test_relations_that_lack_something(void **state)
{
    (void)state;
    for (size_t left_out = 0; left_out < 5; left_out++) {
        const char *names[6] = {NULL};
        char problem[PROJECTION_PROBLEM_SIZE] = "";
        size_t count = 0;
        for (size_t i = 0; i < 5; i++)
            if (i != left_out)
                names[count++] = booking_columns[i];
        struct projection *projection = new_projection();
        struct pgoutput_message relation = relation_of(BOOKINGS, "public", "bookings", 'f', names);
        assert_int_equal(projection_relation(projection, &relation, problem), SG_MALFORMED);
        assert_non_null(strstr(problem, booking_columns[left_out]));
        projection_free(projection);
    }
    static const char identities[] = {'d', 'n', 'i'};
    for (size_t i = 0; i < sizeof(identities); i++) {
        char problem[PROJECTION_PROBLEM_SIZE] = "";
        struct projection *projection = new_projection();
        struct pgoutput_message relation =
            relation_of(BOOKINGS, "public", "bookings", identities[i], booking_columns);
        assert_int_equal(projection_relation(projection, &relation, problem), SG_MALFORMED);
        assert_non_null(strstr(problem, "REPLICA IDENTITY FULL"));
        projection_free(projection);
    }
}

static void test_tables_of_others(void **state)
{
    static const struct {
        const char *schema;
        const char *name;
    } others[] = {{"public", "booking"}, {"archive", "bookings"}, {"", "events"},
                  {"public", "claims"},  {"public", "Bookings"},  {"public", ""}};
    char problem[PROJECTION_PROBLEM_SIZE];
    struct effects effects;
    const char *table;
    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct projection *projection = new_projection();
        /* The same oid: the table was renamed. */
        struct pgoutput_message relation =
            relation_of(BOOKINGS, others[i].schema, others[i].name, 'd', event_columns);
        assert_int_equal(projection_relation(projection, &relation, problem), SG_OK);
        struct pgoutput_message message = change_of(BOOKINGS, NULL, "not|ours");
        assert_int_equal(projection_change(projection, &message, &effects, &table, problem), SG_OK);
        assert_int_equal(effects.count, 0);
        assert_string_equal(table, "unknown");
        projection_free(projection);
    }
}

static void test_truncate_and_reset(void **state)
{
    struct projection *projection = new_projection();
    struct pgoutput_message message = {.type = PGOUTPUT_TRUNCATE, .oid_count = 3};
    (void)state;
    message.oids[0] = 1;
    message.oids[1] = 2;
    message.oids[2] = 3;
    assert_false(projection_truncates(projection, &message));
    message.oids[2] = EVENTS;
    assert_true(projection_truncates(projection, &message));
    message.oids[2] = BOOKINGS;
    assert_true(projection_truncates(projection, &message));
    message.oid_count = 2;
    assert_false(projection_truncates(projection, &message));
    memset(message.oids, 0, sizeof(message.oids));
    message.oid_count = PGOUTPUT_TRUNCATE_MAX;
    assert_false(projection_truncates(projection, &message));
    message.oid_count++; /* one that is not named */
    assert_true(projection_truncates(projection, &message));

    message.oid_count = 1;
    message.oids[0] = BOOKINGS;
    projection_reset(projection);
    assert_false(projection_truncates(projection, &message));
    projection_free(projection);
}

/* --- values --------------------------------------------------------------------------------- */

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        bool good;
        int64_t number;
    } numbers[] = {{"0", true, 0},
                   {"-1", true, -1},
                   {"9223372036854775807", true, INT64_MAX},
                   {"-9223372036854775808", true, INT64_MIN},
                   {"9223372036854775808", false, 0},
                   {"-9223372036854775809", false, 0},
                   {"99999999999999999999", false, 0},
                   {"", false, 0},
                   {"-", false, 0},
                   {"+1", false, 0},
                   {" 1", false, 0},
                   {"1 ", false, 0},
                   {"1.0", false, 0},
                   {"--1", false, 0},
                   {"0x1", false, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct pgoutput_value value = {
            .kind = 't', .data = numbers[i].text, .len = (uint32_t)strlen(numbers[i].text)};
        int64_t number = 77;
        if ((pgvalue_i64(&value, &number) == SG_OK) != numbers[i].good)
            fail_msg("%s", numbers[i].text);
        assert_true(number == (numbers[i].good ? numbers[i].number : 77));
    }
    for (uint32_t len = 0; len <= 16; len++) {
        struct pgoutput_value value = {
            .kind = 'b', .data = "\xff\xff\xff\xff\xff\xff\xff\xfe\1\2\3\4\5\6\7\10", .len = len};
        int64_t number = 77;
        bool good = len == 2 || len == 4 || len == 8;
        assert_int_equal(pgvalue_i64(&value, &number), good ? SG_OK : SG_MALFORMED);
        assert_int_equal(number, len == 8 ? -2 : good ? -1 : 77);
    }
}

static void test_arrays(void **state)
{
    static const struct {
        const char *text;
        int count; /* -1: refused */
        int32_t last;
    } arrays[] = {{"{}", 0, 0},
                  {"{1}", 1, 1},
                  {"{1,-2147483648}", 2, INT32_MIN},
                  {"{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18}", 18, 18},
                  {"[0:2]={7,8,9}", 3, 9},
                  {"[-1:-1]={7}", 1, 7},
                  {"", -1, 0},
                  {"{", -1, 0},
                  {"}", -1, 0},
                  {"{}x", -1, 0},
                  {"{1}}", -1, 0},
                  {"{1,}", -1, 0},
                  {"{,1}", -1, 0},
                  {"{1 ,2}", -1, 0},
                  {"{1;2}", -1, 0},
                  {"{1,2", -1, 0},
                  {"{1,NULL}", -1, 0},
                  {"{2147483648}", -1, 0},
                  {"{{1},{2}}", -1, 0},
                  {"[0:2]", -1, 0},
                  {"[0:2]=", -1, 0},
                  {"[0:2}={1}", -1, 0},
                  {"[0]={1}", -1, 0},
                  {"[", -1, 0}};
    struct pgvalue_list list = {0};
    (void)state;
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        size_t len = strlen(arrays[i].text);
        char *copy = malloc(len ? len : 1);
        memcpy(copy, arrays[i].text, len);
        struct pgoutput_value value = {.kind = 't', .data = copy, .len = (uint32_t)len};
        enum sg_error error = pgvalue_array(&value, &list);
        free(copy);
        enum sg_error wanted = arrays[i].count < 0 ? SG_MALFORMED : SG_OK;
        if (error != wanted)
            fail_msg("%s", arrays[i].text);
        if (error)
            continue;
        assert_int_equal(list.count, arrays[i].count);
        if (list.count)
            assert_int_equal(list.items[list.count - 1], arrays[i].last);
    }
    free(list.items);
}

static void test_binary_arrays_cut_short(void **state)
{
    struct pgvalue_list list = {0};
    (void)state;
    arena_len = 0;
    int64_t head[] = {1, 0, 23, 2, 1, 4, 7, 4, 8};
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
        put(head[i], 4);
    for (size_t len = 0; len <= arena_len; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, arena, len);
        struct pgoutput_value value = {.kind = 'b', .data = copy, .len = (uint32_t)len};
        assert_int_equal(pgvalue_array(&value, &list), len == 36 ? SG_OK : SG_MALFORMED);
        free(copy);
    }
    assert_true(list.count == 2 && list.items[0] == 7 && list.items[1] == 8);
    /* Each byte altered in a way that makes it wrong: dimensions, counts, lengths, a NULL (-1). */
    static const struct {
        size_t at;
        char to;
    } wrong[] = {{3, 2}, {0, -1}, {15, 3}, {15, 1}, {12, -1}, {23, 3}, {20, -1}, {31, 8}, {28, -1}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char copy[36];
        memcpy(copy, arena, 36);
        copy[wrong[i].at] = wrong[i].to;
        struct pgoutput_value value = {.kind = 'b', .data = copy, .len = 36};
        if (pgvalue_array(&value, &list) != SG_MALFORMED)
            fail_msg("%zu", i);
    }
    free(list.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_what_cannot_be_read_is_refused),
        cmocka_unit_test(test_an_old_row_that_is_not_whole),
        cmocka_unit_test(test_columns_are_found_by_name),
        cmocka_unit_test(test_relations_that_lack_something),
        cmocka_unit_test(test_tables_of_others),
        cmocka_unit_test(test_truncate_and_reset),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_binary_arrays_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
