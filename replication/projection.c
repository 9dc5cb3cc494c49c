/*
 * Row changes to effects. See projection.h.
 *
 *   projection_relation: table and columns, by name ─> struct relation, by oid
 *   projection_change:   relation + tuples ─> struct booking, old and new ─> effects
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/projection.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replication/pgvalue.h"

#define SCHEMA "public"
#define USER_LEN_MAX 64
#define COLUMNS_MAX 5

enum table { TABLE_BOOKINGS, TABLE_EVENTS, TABLE_COUNT };

enum booking_column { BOOKING_EVENT, BOOKING_ID, BOOKING_USER, BOOKING_STATUS, BOOKING_SEATS };
enum event_column { EVENT_ID, EVENT_ROWS, EVENT_COLS };

static const struct {
    const char *name;
    size_t column_count;
    const char *columns[COLUMNS_MAX];
} tables[TABLE_COUNT] = {
    [TABLE_BOOKINGS] = {"bookings", 5, {"event_id", "booking_id", "user_id", "status", "seats"}},
    [TABLE_EVENTS] = {"events", 3, {"event_id", "rows", "cols"}},
};

struct relation {
    uint32_t oid;
    enum table table;
    uint16_t width;                /* columns of the tuples that follow */
    uint16_t columns[COLUMNS_MAX]; /* where ours are among them */
};

/* One row of bookings; what it points to is in the message, or in the projection. */
struct booking {
    int64_t event_id;
    struct uuid id;
    const char *user;
    size_t user_len;
    char state;         /* 'h', 'x', or '.': it holds nothing */
    const char *status; /* static; NULL: one that nobody knows */
    struct pgvalue_list *seats;
};

struct projection {
    struct relation *relations; /* owned; only tables of ours */
    size_t count;
    size_t size;
    struct pgvalue_list old_seats;
    struct pgvalue_list new_seats;
};

struct projection *projection_new(void)
{
    return calloc(1, sizeof(struct projection));
}

void projection_free(struct projection *projection)
{
    if (!projection)
        return;
    free(projection->relations);
    free(projection->old_seats.items);
    free(projection->new_seats.items);
    free(projection);
}

void projection_reset(struct projection *projection)
{
    projection->count = 0;
}

static enum sg_error __attribute__((format(printf, 2, 3)))
malformed(char ret_problem[PROJECTION_PROBLEM_SIZE], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(ret_problem, PROJECTION_PROBLEM_SIZE, format, args);
    va_end(args);
    return SG_MALFORMED;
}

/* --- relations ------------------------------------------------------------------------------ */

static struct relation *find(const struct projection *projection, uint32_t oid)
{
    for (size_t i = 0; i < projection->count; i++)
        if (projection->relations[i].oid == oid)
            return &projection->relations[i];
    return NULL;
}

static void forget(struct projection *projection, uint32_t oid)
{
    struct relation *relation = find(projection, oid);
    if (relation)
        *relation = projection->relations[--projection->count];
}

static enum sg_error keep(struct projection *projection, const struct relation *relation)
{
    if (projection->count == projection->size) {
        size_t size = projection->size ? projection->size * 2 : 4;
        struct relation *relations = realloc(projection->relations, size * sizeof(*relations));
        if (!relations)
            return SG_NO_MEMORY;
        projection->relations = relations;
        projection->size = size;
    }
    projection->relations[projection->count++] = *relation;
    return SG_OK;
}

static enum table find_table(const struct pgoutput_message *message)
{
    size_t table = 0;
    if (strcmp(message->schema, SCHEMA) != 0)
        return TABLE_COUNT;
    while (table < TABLE_COUNT && strcmp(message->name, tables[table].name) != 0)
        table++;
    return (enum table)table;
}

static bool find_column(const struct pgoutput_message *message, const char *name,
                        uint16_t *ret_index)
{
    for (uint16_t i = 0; i < message->column_count; i++) {
        if (strcmp(message->columns[i].name, name) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

enum sg_error projection_relation(struct projection *projection,
                                  const struct pgoutput_message *message,
                                  char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    struct relation relation = {
        .oid = message->oid, .table = find_table(message), .width = message->column_count};
    forget(projection, message->oid);
    if (relation.table == TABLE_COUNT)
        return SG_OK;
    for (size_t i = 0; i < tables[relation.table].column_count; i++)
        if (!find_column(message, tables[relation.table].columns[i], &relation.columns[i]))
            return malformed(ret_problem, "table %s has no column %s in the stream", message->name,
                             tables[relation.table].columns[i]);
    if (relation.table == TABLE_BOOKINGS && message->identity != 'f')
        return malformed(ret_problem,
                         "table bookings has to have REPLICA IDENTITY FULL, it has '%c'",
                         message->identity);
    return keep(projection, &relation);
}

bool projection_truncates(const struct projection *projection,
                          const struct pgoutput_message *message)
{
    if (message->oid_count > PGOUTPUT_TRUNCATE_MAX)
        return true; /* not all are named */
    for (uint32_t i = 0; i < message->oid_count; i++)
        if (find(projection, message->oids[i]))
            return true;
    return false;
}

/* --- rows ----------------------------------------------------------------------------------- */

/* The value of a column of ours; where the new row has an unchanged one, that of the old row. */
static const struct pgoutput_value *value_of(const struct relation *relation, size_t column,
                                             const struct pgoutput_tuple *tuple,
                                             const struct pgoutput_tuple *older)
{
    uint16_t at = relation->columns[column];
    const struct pgoutput_value *value = &tuple->values[at];
    return value->kind == 'u' && older ? &older->values[at] : value;
}

/* Each with what it makes of the seats. */
static const struct {
    const char *label;
    char state;
} statuses[] = {
    {"confirmed", 'x'}, {"held", 'h'}, {"cancelled", '.'}, {"expired", '.'}, {"failed", '.'},
};

static void read_status(const struct pgoutput_value *value, struct booking *ret_booking)
{
    ret_booking->state = '.';
    ret_booking->status = NULL;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        const char *label = statuses[i].label;
        if (value->len != strlen(label) || memcmp(value->data, label, value->len) != 0)
            continue;
        ret_booking->state = statuses[i].state;
        ret_booking->status = label;
        return;
    }
}

static bool is_present(const struct pgoutput_value *value)
{
    return value->kind == 't' || value->kind == 'b';
}

static enum sg_error check_width(const struct relation *relation,
                                 const struct pgoutput_tuple *tuple,
                                 char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    if (tuple && tuple->count != relation->width)
        return malformed(ret_problem, "a row of %s has %u columns, not %u",
                         tables[relation->table].name, tuple->count, relation->width);
    return SG_OK;
}

/* Reads tuple into *ret_booking, whose `seats` is set; older may be NULL. */
static enum sg_error read_booking(const struct relation *relation,
                                  const struct pgoutput_tuple *tuple,
                                  const struct pgoutput_tuple *older, struct booking *ret_booking,
                                  char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    const struct pgoutput_value *values[COLUMNS_MAX];
    for (size_t i = 0; i < COLUMNS_MAX; i++)
        values[i] = value_of(relation, i, tuple, older);
    const struct pgoutput_value *user = values[BOOKING_USER];
    const struct pgoutput_value *status = values[BOOKING_STATUS];

    if (pgvalue_i64(values[BOOKING_EVENT], &ret_booking->event_id))
        return malformed(ret_problem, "bookings.event_id cannot be read");
    if (pgvalue_uuid(values[BOOKING_ID], &ret_booking->id))
        return malformed(ret_problem, "bookings.booking_id of event %lld cannot be read",
                         (long long)ret_booking->event_id);
    if (!is_present(user) || !is_present(status))
        return malformed(ret_problem, "a booking of event %lld has no user_id or status",
                         (long long)ret_booking->event_id);
    enum sg_error error = pgvalue_array(values[BOOKING_SEATS], ret_booking->seats);
    if (error == SG_MALFORMED)
        return malformed(ret_problem, "the seats of a booking of event %lld cannot be read",
                         (long long)ret_booking->event_id);
    ret_booking->user = user->data;
    ret_booking->user_len = user->len;
    read_status(status, ret_booking);
    return error;
}

/* --- effects -------------------------------------------------------------------------------- */

static struct effect *add_effect(struct effects *effects, enum effect_kind kind, int64_t event_id)
{
    struct effect *effect = &effects->item[effects->count++];
    *effect = (struct effect){.kind = kind, .event_id = event_id};
    return effect;
}

/* The booking's seats change from one state to another; its status is `status` from now on. */
static void add_seats(struct effects *effects, const struct booking *booking, char from, char to,
                      const char *status)
{
    int64_t count = (int64_t)booking->seats->count;
    if (from == to || count == 0)
        return;
    struct effect *effect = add_effect(effects, EFFECT_SEATS, booking->event_id);
    effect->booking_id = booking->id;
    effect->status = status;
    effect->d_held = count * ((to == 'h') - (from == 'h'));
    effect->d_booked = count * ((to == 'x') - (from == 'x'));
    effect->state = to;
    effect->seats = booking->seats->items;
    effect->seat_count = booking->seats->count;
}

/* Another status that moves no seats. */
static void add_status(struct effects *effects, const struct booking *was, const struct booking *is)
{
    if (was->state != is->state || was->status == is->status || !is->status)
        return;
    struct effect *effect = add_effect(effects, EFFECT_SEATS, is->event_id);
    effect->booking_id = is->id;
    effect->status = is->status;
    effect->state = is->state;
}

/* A user id that nobody can ask for is not indexed; the API takes 1 to 64 bytes. */
static bool is_ticket(const struct booking *booking)
{
    return booking && booking->state != '.' && booking->user_len >= 1 &&
           booking->user_len <= USER_LEN_MAX;
}

static void add_ticket(struct effects *effects, enum effect_kind kind,
                       const struct booking *booking)
{
    struct effect *effect = add_effect(effects, kind, booking->event_id);
    effect->user = booking->user;
    effect->user_len = booking->user_len;
    effect->booking_id = booking->id;
}

static bool same_seats(const struct booking *a, const struct booking *b)
{
    return a->event_id == b->event_id && a->seats->count == b->seats->count &&
           (a->seats->count == 0 || memcmp(a->seats->items, b->seats->items,
                                           a->seats->count * sizeof(*a->seats->items)) == 0);
}

static bool same_booking(const struct booking *a, const struct booking *b)
{
    return a->event_id == b->event_id && memcmp(&a->id, &b->id, sizeof(a->id)) == 0;
}

static bool same_ticket(const struct booking *a, const struct booking *b)
{
    return same_booking(a, b) && a->user_len == b->user_len &&
           memcmp(a->user, b->user, a->user_len) == 0;
}

/* Either may be NULL: there was, or is, no such row. */
static void compare_bookings(const struct booking *was, const struct booking *is,
                             struct effects *effects)
{
    if (was && is && same_seats(was, is)) {
        add_seats(effects, is, was->state, is->state, is->status);
        add_status(effects, was, is);
    } else {
        if (was)
            add_seats(effects, was, was->state, '.',
                      is && same_booking(was, is) ? is->status : NULL);
        if (is)
            add_seats(effects, is, '.', is->state, is->status);
    }
    bool had = is_ticket(was);
    bool has = is_ticket(is);
    if (had && has && same_ticket(was, is))
        return;
    if (had)
        add_ticket(effects, EFFECT_TICKET_REMOVE, was);
    if (has)
        add_ticket(effects, EFFECT_TICKET_ADD, is);
}

static enum sg_error change_booking(struct projection *projection, const struct relation *relation,
                                    const struct pgoutput_message *message, struct effects *effects,
                                    char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    struct booking was = {.seats = &projection->old_seats};
    struct booking is = {.seats = &projection->new_seats};
    if (message->type != PGOUTPUT_INSERT && message->old_kind != 'O')
        return malformed(ret_problem, "a change of bookings came without its old row");
    if (message->old) {
        enum sg_error error = read_booking(relation, message->old, NULL, &was, ret_problem);
        if (error)
            return error;
    }
    if (message->new) {
        enum sg_error error = read_booking(relation, message->new, message->old, &is, ret_problem);
        if (error)
            return error;
    }
    compare_bookings(message->old ? &was : NULL, message->new ? &is : NULL, effects);
    return SG_OK;
}

static enum sg_error change_event(const struct relation *relation,
                                  const struct pgoutput_message *message, struct effects *effects,
                                  char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    int64_t was = 0;
    int64_t is = 0;
    int32_t rows = 0;
    int32_t cols = 0;
    const struct pgoutput_tuple *new = message->new;
    if (message->old && pgvalue_i64(value_of(relation, EVENT_ID, message->old, NULL), &was))
        return malformed(ret_problem, "events.event_id of an old row cannot be read");
    if (!new && !message->old)
        return malformed(ret_problem, "an event was deleted without saying which");
    if (new && (pgvalue_i64(value_of(relation, EVENT_ID, new, message->old), &is) ||
                pgvalue_i32(value_of(relation, EVENT_ROWS, new, message->old), &rows) ||
                pgvalue_i32(value_of(relation, EVENT_COLS, new, message->old), &cols)))
        return malformed(ret_problem, "event_id, rows or cols of an event cannot be read");
    if (message->old && (!new || was != is))
        add_effect(effects, EFFECT_EVENT_GONE, was);
    if (new) {
        struct effect *effect = add_effect(effects, EFFECT_GRID, is);
        effect->rows = rows;
        effect->cols = cols;
        effect->altered = message->type != PGOUTPUT_INSERT;
    }
    return SG_OK;
}

enum sg_error projection_change(struct projection *projection,
                                const struct pgoutput_message *message, struct effects *ret_effects,
                                const char **ret_table, char ret_problem[PROJECTION_PROBLEM_SIZE])
{
    struct effects effects;
    enum sg_error error;
    const struct relation *relation = find(projection, message->oid);
    effects.count = 0;
    if (!relation) {
        *ret_table = "unknown";
        ret_effects->count = 0;
        return SG_OK;
    }
    error = check_width(relation, message->old, ret_problem);
    if (!error)
        error = check_width(relation, message->new, ret_problem);
    if (!error && relation->table == TABLE_BOOKINGS)
        error = change_booking(projection, relation, message, &effects, ret_problem);
    else if (!error)
        error = change_event(relation, message, &effects, ret_problem);
    if (error)
        return error;
    *ret_table = tables[relation->table].name;
    ret_effects->count = effects.count;
    memcpy(ret_effects->item, effects.item, effects.count * sizeof(effects.item[0]));
    return SG_OK;
}
