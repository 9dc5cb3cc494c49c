/*
 * The simulated servers' SQL. See sim_sql.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/sim/sim_sql.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/probe.h"
#include "router/switchover_ask.h"
#include "tests/sim/sim_loop.h"

#define PARAMS_COUNT 4
#define BATCH_LIMIT 1024
#define LOCK_TIMEOUT_US 1000000 /* whatever was asked for: at most so long */

struct sim_request {
    const char *sql; /* NULL: a statement */
    char params[PARAMS_COUNT][SIM_TEXT_SIZE];
    enum statement statement;
    int item_count;
    struct {
        const uint8_t *at;
        int len;
    } items[PARAMS_MAX];
    uint8_t data[];
};

struct sim_request *sim_request_text(const char *sql, const char *const *params, int count)
{
    struct sim_request *request = calloc(1, sizeof(*request));
    assert(request && count <= PARAMS_COUNT);
    request->sql = sql;
    for (int i = 0; i < count; i++)
        snprintf(request->params[i], SIM_TEXT_SIZE, "%s", params[i] ? params[i] : "");
    return request;
}

struct sim_request *sim_request_statement(enum statement statement, const struct params *params)
{
    size_t len = params ? params->data.len : 0;
    struct sim_request *request = calloc(1, sizeof(*request) + len);
    assert(request);
    request->statement = statement;
    if (!params)
        return request;
    memcpy(request->data, params->data.data, len);
    request->item_count = params->count;
    for (int i = 0; i < params->count; i++) {
        request->items[i].at = request->data + params->item[i].offset;
        request->items[i].len = params->item[i].len;
    }
    return request;
}

/* --- results ---------------------------------------------------------------------------------- */

#define COLUMNS_MAX 16

static PGresult *new_result(int columns)
{
    static char name[] = "?";
    PGresAttDesc descriptions[COLUMNS_MAX];
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    memset(descriptions, 0, sizeof(descriptions));
    for (int i = 0; i < columns; i++)
        descriptions[i].name = name;
    PQsetResultAttrs(result, columns, descriptions);
    return result;
}

static void put(PGresult *result, int row, int column, const char *text)
{
    char *value = (char *)(uintptr_t)text; /* PQsetvalue copies */
    PQsetvalue(result, row, column, value, text ? (int)strlen(text) : -1);
}

static void put_number(PGresult *result, int row, int column, int64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, number);
    put(result, row, column, text);
}

static void put_bool(PGresult *result, int row, int column, bool value)
{
    put(result, row, column, value ? "t" : "f");
}

static void put_lsn(PGresult *result, int row, int column, uint64_t lsn)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIX64 "/%" PRIX64, lsn >> 32, lsn & 0xffffffff);
    put(result, row, column, text);
}

static void reply_error(struct sim_session *session, const char *sqlstate)
{
    struct sim_answer answer = {.result = NULL};
    snprintf(answer.sqlstate, sizeof(answer.sqlstate), "%s", sqlstate);
    sim_reply(session, &answer);
}

static void reply(struct sim_session *session, PGresult *result)
{
    sim_reply(session, &(struct sim_answer){.result = result});
}

static void reply_committed(struct sim_session *session, PGresult *result)
{
    sim_reply_committed(session, &(struct sim_answer){.result = result});
}

/* --- questions: health ------------------------------------------------------------------------ */

static uint64_t end_of_wal(const struct sim_node *node)
{
    return sim_lsn(node, sim_visible(node));
}

static void put_role(PGresult *result, const struct sim_node *node)
{
    put_bool(result, 0, 0, node->standby);
    put_number(result, 0, 1, node->timeline);
    put_number(result, 0, 2, (int64_t)end_of_wal(node));
    if (node->standby)
        put_number(result, 0, 3, (int64_t)sim_lsn(node, node->wal_count));
    else
        put(result, 0, 3, NULL);
}

static void serve_hello(struct sim_session *session)
{
    PGresult *result = new_result(6);
    put_role(result, session->node);
    put_number(result, 0, 4, 4711);
    put_bool(result, 0, 5, true);
    reply(session, result);
}

static void serve_state(struct sim_session *session)
{
    const struct sim_meta meta = sim_meta_of(session->node);
    PGresult *result = new_result(10);
    put_role(result, session->node);
    put(result, 0, 4, SIM_SHARD);
    put_number(result, 0, 5, meta.epoch);
    put_number(result, 0, 6, meta.timeline);
    put_bool(result, 0, 7, sim_fenced(session->node, &meta));
    put(result, 0, 8, meta.fence_id);
    put_number(result, 0, 9, SIM_EVENTS);
    reply(session, result);
}

/* --- questions: fences and attestation -------------------------------------------------------- */

static void write_meta(struct sim_node *node, const struct sim_meta *meta)
{
    const struct sim_record record = {.kind = SIM_META, .meta = *meta};
    sim_append(node, &record);
}

static void serve_fence(struct sim_session *session, struct sim_request *request)
{
    struct sim_meta meta = sim_meta_of(session->node);
    const bool by_hand = strstr(request->sql, "shard_fence(NULL") != NULL;
    const char *id = by_hand ? "" : request->params[0];
    if (by_hand && atoi(request->params[0]) != session->node->timeline) {
        reply(session, new_result(2)); /* no row */
        return;
    }
    PGresult *result = new_result(by_hand ? 2 : 3);
    put_number(result, 0, 1, meta.epoch);
    if (!by_hand)
        put_number(result, 0, 2, session->node->timeline);
    if (sim_fenced(session->node, &meta) && strcmp(meta.fence_id, id) != 0) {
        put(result, 0, 0, "busy");
        reply(session, result);
        return;
    }
    meta.fenced = true;
    snprintf(meta.fence_id, sizeof(meta.fence_id), "%s", id);
    meta.fenced_until_us = by_hand ? -1
                                   : sim_now_us() + session->node->clock_off_us +
                                         strtoll(request->params[1], NULL, 10) * 1000;
    write_meta(session->node, &meta);
    put(result, 0, 0, "ok");
    reply_committed(session, result);
}

static void serve_fence_change(struct sim_session *session, struct sim_request *request, bool keep)
{
    struct sim_meta meta = sim_meta_of(session->node);
    bool ours = strcmp(meta.fence_id, request->params[0]) == 0 &&
                (!keep || sim_fenced(session->node, &meta));
    PGresult *result = new_result(1);
    put(result, 0, 0, ours ? "ok" : "lost");
    if (!ours) {
        reply(session, result);
        return;
    }
    if (keep) {
        meta.fenced_until_us = SIM_FOREVER;
    } else {
        meta.fenced = false;
        meta.fence_id[0] = '\0';
        meta.fenced_until_us = -1;
    }
    write_meta(session->node, &meta);
    reply_committed(session, result);
}

static void serve_attest(struct sim_session *session, struct sim_request *request)
{
    struct sim_meta meta = sim_meta_of(session->node);
    const int32_t timeline = atoi(request->params[0]);
    const char *outcome = "ok";
    PGresult *result = new_result(request->sql == switchover_attest_sql ? 3 : 2);
    if (session->node->timeline != timeline)
        outcome = "stale";
    else if (meta.timeline == timeline)
        outcome = "already";
    else if (meta.fenced && !meta.fence_id[0])
        outcome = "fenced";
    put(result, 0, 0, outcome);
    if (strcmp(outcome, "ok") != 0) {
        put_number(result, 0, 1, meta.epoch);
        reply(session, result);
        return;
    }
    meta.epoch++;
    meta.timeline = timeline;
    meta.fenced = false;
    meta.fence_id[0] = '\0';
    meta.fenced_until_us = -1;
    put_number(result, 0, 1, meta.epoch);
    write_meta(session->node, &meta);
    reply_committed(session, result);
}

/* --- questions: switchover -------------------------------------------------------------------- */

static bool streams(const struct sim_node *node)
{
    const struct sim_node *from = sim_node(node->upstream);
    return node->standby && node->upstream != node->index && from->process == SIM_UP &&
           sim_is_prefix(node, from);
}

static void serve_look(struct sim_session *session)
{
    const struct sim_node *node = session->node;
    const struct sim_meta meta = sim_meta_of(node);
    PGresult *result = new_result(SWITCHOVER_LOOK_COLUMNS);
    put_bool(result, 0, 0, node->standby);
    put_number(result, 0, 1, node->timeline);
    put_number(result, 0, 2, (int64_t)end_of_wal(node));
    put_number(result, 0, 3, 4711);
    put_bool(result, 0, 4, true);
    put(result, 0, 5, SIM_SHARD);
    put_number(result, 0, 6, meta.epoch);
    put_number(result, 0, 7, meta.timeline);
    put_bool(result, 0, 8, sim_fenced(session->node, &meta));
    put(result, 0, 9, meta.fence_id);
    put(result, 0, 10, meta.fenced_until_us == SIM_FOREVER ? "infinity" : "soon");
    put_bool(result, 0, 11, streams(node));
    put_bool(result, 0, 12, node->paused);
    put_bool(result, 0, 13, false);
    put_bool(result, 0, 14, true);
    put(result, 0, SWITCHOVER_SYNC_COLUMN, "");
    reply(session, result);
}

static void serve_lock(struct sim_session *session, bool take)
{
    PGresult *result = new_result(1);
    put_bool(result, 0, 0, take ? sim_try_lock(session) : true);
    if (!take)
        sim_unlock(session);
    reply(session, result);
}

static void serve_replay(struct sim_session *session, struct sim_request *request)
{
    const struct sim_meta meta = sim_meta_of(session->node);
    const bool ours = meta.fenced && strcmp(meta.fence_id, request->params[0]) == 0;
    PGresult *result = new_result(3);
    put_number(result, 0, 0, (int64_t)end_of_wal(session->node));
    put_bool(result, 0, 1, ours);
    put_bool(result, 0, 2, ours && meta.fenced_until_us == SIM_FOREVER);
    reply(session, result);
}

static void on_promoted(void *arg)
{
    sim_promote(((struct sim_node *)arg)->index);
}

static void serve_promote(struct sim_session *session, struct sim_request *request)
{
    const struct sim_meta meta = sim_meta_of(session->node);
    const bool ours = meta.fenced && strcmp(meta.fence_id, request->params[0]) == 0 &&
                      meta.fenced_until_us == SIM_FOREVER;
    if (!session->node->standby) {
        reply_error(session, "55000");
        return;
    }
    PGresult *result = new_result(1);
    if (ours) {
        put_bool(result, 0, 0, true);
        sim_after(1000 + sim_random(60000), on_promoted, session->node);
    }
    reply(session, result);
}

static void serve_watch(struct sim_session *session)
{
    PGresult *result = new_result(2);
    put_bool(result, 0, 0, session->node->standby);
    if (session->node->standby)
        put(result, 0, 1, NULL);
    else
        put_number(result, 0, 1, session->node->timeline);
    reply(session, result);
}

/* True if it was one of a switchover's own. */
static bool serve_switchover(struct sim_session *session, struct sim_request *request)
{
    if (request->sql == switchover_look_sql) {
        serve_look(session);
    } else if (request->sql == switchover_lock_sql || request->sql == switchover_unlock_sql) {
        serve_lock(session, request->sql == switchover_lock_sql);
    } else if (request->sql == switchover_rival_sql || request->sql == switchover_tidy_sql) {
        reply(session, new_result(4)); /* nobody; nothing left */
    } else if (request->sql == switchover_end_sql) {
        PGresult *result = new_result(1);
        put_number(result, 0, 0, (int64_t)end_of_wal(session->node));
        reply(session, result);
    } else if (request->sql == switchover_replay_sql) {
        serve_replay(session, request);
    } else if (request->sql == switchover_promote_sql) {
        serve_promote(session, request);
    } else if (request->sql == switchover_watch_sql) {
        serve_watch(session);
    } else {
        return false;
    }
    return true;
}

/* --- questions, all of them ------------------------------------------------------------------- */

static bool has(const struct sim_request *request, const char *text)
{
    return strstr(request->sql, text) != NULL;
}

static bool takes_fence(const struct sim_request *request)
{
    return has(request, "shard_fence") || has(request, "shard_unfence") ||
           has(request, "shard_attest");
}

void sim_serve_text(struct sim_session *session, void *arg)
{
    struct sim_request *request = arg;
    if (takes_fence(request)) {
        if (session->node->standby) {
            reply_error(session, "25006");
            return;
        }
        if (!sim_take_fence(session, sim_serve_text, true))
            return;
        if (session->waited_us > LOCK_TIMEOUT_US) {
            reply_error(session, "55P03");
            return;
        }
    }
    if (request->sql == probe_hello_sql) {
        serve_hello(session);
    } else if (request->sql == probe_state_sql) {
        serve_state(session);
    } else if (serve_switchover(session, request)) {
        return;
    } else if (has(request, "shard_fence_keep")) {
        serve_fence_change(session, request, true);
    } else if (has(request, "shard_fence")) {
        serve_fence(session, request);
    } else if (has(request, "shard_unfence")) {
        serve_fence_change(session, request, false);
    } else if (has(request, "shard_attest")) {
        serve_attest(session, request);
    } else {
        fprintf(stderr, "the simulation does not know: %s\n", request->sql);
        abort();
    }
}

/* --- arrays ----------------------------------------------------------------------------------- */

struct array {
    const uint8_t *at;
    int left;
};

static uint32_t wire_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return ntohl(value);
}

static struct array open_array(const struct sim_request *request, int item)
{
    const uint8_t *at = request->items[item].at;
    if (wire_u32(at) == 0)
        return (struct array){.left = 0};
    return (struct array){.at = at + 20, .left = (int)wire_u32(at + 12)};
}

/* The next element's bytes; -1 for a NULL. */
static int next_item(struct array *array, const uint8_t **ret_at)
{
    assert(array->left-- > 0);
    int32_t len = (int32_t)wire_u32(array->at);
    *ret_at = array->at + 4;
    array->at += 4 + (len > 0 ? len : 0);
    return len;
}

static int64_t next_i64(struct array *array)
{
    const uint8_t *at;
    uint64_t value;
    assert(next_item(array, &at) == 8);
    memcpy(&value, at, sizeof(value));
    return (int64_t)be64toh(value);
}

static int32_t next_i32(struct array *array)
{
    const uint8_t *at;
    assert(next_item(array, &at) == 4);
    return (int32_t)wire_u32(at);
}

static bool next_bool(struct array *array)
{
    const uint8_t *at;
    assert(next_item(array, &at) == 1);
    return *at != 0;
}

static void next_text(struct array *array, char ret_text[SIM_TEXT_SIZE])
{
    const uint8_t *at;
    int len = next_item(array, &at);
    assert(len < SIM_TEXT_SIZE);
    if (len > 0)
        memcpy(ret_text, at, (size_t)len);
    ret_text[len > 0 ? len : 0] = '\0';
}

/* --- take_batch ------------------------------------------------------------------------------- */

struct asked {
    struct sim_booking booking;
    bool recheck;
    bool rival;
    int seat_count;
};

static int decode_batch(const struct sim_request *request, struct asked *ret_asked)
{
    struct array events = open_array(request, 1), ids = open_array(request, 2);
    struct array users = open_array(request, 3), keys = open_array(request, 4);
    struct array hashes = open_array(request, 5), rechecks = open_array(request, 6);
    struct array rivals = open_array(request, 7), ords = open_array(request, 10);
    struct array cols = open_array(request, 12);
    const int count = events.left;
    assert(count <= BATCH_LIMIT);
    for (int i = 0; i < count; i++) {
        struct asked *asked = &ret_asked[i];
        const uint8_t *id;
        memset(asked, 0, sizeof(*asked));
        asked->booking.event_id = next_i64(&events);
        assert(next_item(&ids, &id) == 16);
        memcpy(asked->booking.id.bytes, id, 16);
        next_text(&users, asked->booking.user);
        next_text(&keys, asked->booking.key);
        asked->booking.hash = next_i64(&hashes);
        asked->recheck = next_bool(&rechecks);
        asked->rival = next_bool(&rivals);
    }
    while (ords.left) {
        struct asked *asked = &ret_asked[next_i32(&ords) - 1];
        asked->booking.seats |= 1u << (next_i32(&cols) - 1);
        asked->seat_count++;
    }
    return count;
}

/* By id, else by key. */
static const struct sim_booking *find_booking(const struct sim_node *node,
                                              const struct sim_booking *wanted)
{
    const struct sim_booking *by_key = NULL;
    for (int i = 0; i < sim_visible(node); i++) {
        const struct sim_record *record = sim_record(node->wal[i]);
        if (record->kind != SIM_BOOKING || record->booking.event_id != wanted->event_id)
            continue;
        if (memcmp(&record->booking.id, &wanted->id, sizeof(wanted->id)) == 0)
            return &record->booking;
        if (wanted->key[0] && strcmp(record->booking.key, wanted->key) == 0)
            by_key = &record->booking;
    }
    return by_key;
}

static uint32_t taken_seats(const struct sim_node *node, int64_t event_id)
{
    uint32_t taken = 0;
    for (int i = 0; i < sim_visible(node); i++) {
        const struct sim_record *record = sim_record(node->wal[i]);
        if (record->kind == SIM_BOOKING && record->booking.event_id == event_id)
            taken |= record->booking.seats;
    }
    return taken;
}

/* The outcome; `booked` and `replayed` fill *ret_id. */
static const char *book(struct sim_node *node, struct asked *asked, struct uuid *ret_id,
                        int64_t *ret_created_us)
{
    struct sim_booking *booking = &asked->booking;
    const struct sim_booking *known =
        asked->recheck || booking->key[0] ? find_booking(node, booking) : NULL;
    if (known) {
        *ret_id = known->id;
        *ret_created_us = known->created_us;
        return known->hash == booking->hash ? "replayed" : "key_reused";
    }
    if (taken_seats(node, booking->event_id) & booking->seats)
        return "seats_taken";
    if (asked->rival)
        return "again";
    booking->created_us = sim_now_us();
    *ret_id = booking->id;
    *ret_created_us = booking->created_us;
    const struct sim_record record = {.kind = SIM_BOOKING, .booking = *booking};
    sim_append(node, &record);
    return "booked";
}

static PGresult *wal_row(const struct sim_session *session)
{
    char file[32];
    PGresult *behind = new_result(3);
    snprintf(file, sizeof(file), "%08X0000000000000001", (unsigned)session->node->timeline);
    put_lsn(behind, 0, 0, end_of_wal(session->node));
    put(behind, 0, 1, file);
    put_bool(behind, 0, 2, session->sync);
    return behind;
}

/* write_guard() */
static const char *guard(const struct sim_session *session, int64_t epoch)
{
    const struct sim_meta meta = sim_meta_of(session->node);
    if (sim_fenced(session->node, &meta))
        return "fenced";
    if (meta.epoch != epoch || meta.timeline != session->node->timeline)
        return "stale_epoch";
    return session->sync && !sim_has_standby(session->node) ? "not_synchronous" : "ok";
}

#define TAKE_COLUMNS 12

static void serve_batch(struct sim_session *session, struct sim_request *request)
{
    static struct asked asked[BATCH_LIMIT];
    uint64_t epoch;
    if (session->node->standby) {
        reply_error(session, "25006");
        return;
    }
    if (!sim_take_fence(session, sim_serve_statement, false))
        return;
    memcpy(&epoch, request->items[0].at, sizeof(epoch));
    const char *verdict = guard(session, (int64_t)be64toh(epoch));
    PGresult *result = new_result(TAKE_COLUMNS);
    if (strcmp(verdict, "ok") != 0) {
        put_number(result, 0, 0, 0);
        put(result, 0, 1, verdict);
        for (int column = 2; column < TAKE_COLUMNS; column++)
            put(result, 0, column, NULL);
        sim_reply(session, &(struct sim_answer){.result = result, .behind = wal_row(session)});
        return;
    }
    const int count = decode_batch(request, asked);
    bool wrote = false;
    for (int i = 0; i < count; i++) {
        struct uuid id;
        char text[UUID_TEXT_LEN + 1];
        int64_t created_us = 0;
        const char *outcome = book(session->node, &asked[i], &id, &created_us);
        bool done = strcmp(outcome, "booked") == 0 || strcmp(outcome, "replayed") == 0;
        wrote |= done;
        put_number(result, i, 0, i + 1);
        put(result, i, 1, outcome);
        put(result, i, 2, NULL);
        put_number(result, i, 3, created_us);
        put(result, i, 4, strcmp(outcome, "seats_taken") == 0 ? "{1}" : NULL);
        put(result, i, 5, done ? "confirmed" : NULL);
        for (int column = 6; column < TAKE_COLUMNS; column++)
            put(result, i, column, NULL);
        if (strcmp(outcome, "replayed") == 0) {
            const struct sim_record mark = {.kind = SIM_NOISE};
            uuid_format(&id, text);
            put(result, i, 2, text);
            sim_append(session->node, &mark); /* so that the commit waits for it */
        }
    }
    struct sim_answer answer = {.result = result, .behind = wal_row(session)};
    if (wrote)
        sim_reply_committed(session, &answer);
    else
        sim_reply(session, &answer);
}

void sim_serve_statement(struct sim_session *session, void *arg)
{
    struct sim_request *request = arg;
    if (request->statement == STATEMENT_TAKE_BATCH) {
        serve_batch(session, request);
        return;
    }
    fprintf(stderr, "the simulation does not know statement %d\n", (int)request->statement);
    abort();
}
