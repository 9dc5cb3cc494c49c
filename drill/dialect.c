/*
 * What a drill's requests look like. See dialect.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/dialect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "router/token.h"

/* --- requests --------------------------------------------------------------------------------- */

size_t dialect_booking(const struct history *history, uint32_t index,
                       char ret_request[DIALECT_REQUEST_MAX])
{
    const struct history_booking *booking = &history->bookings[index];
    const struct history_event *event = &history->events[booking->event];
    char body[DIALECT_REQUEST_MAX / 2], key[HISTORY_KEY_SIZE];
    size_t len = (size_t)snprintf(
        body, sizeof(body), "{\"eventId\":%" PRId64 ",\"userId\":\"drill-%" PRIu32 "\",\"seats\":[",
        event->id, booking->user);
    for (size_t i = 0; i < booking->seat_count; i++) {
        int32_t seat_no = history->seats[booking->seats_at + i];
        len += (size_t)snprintf(body + len, sizeof(body) - len,
                                "%s{\"row\":%" PRId32 ",\"col\":%" PRId32 "}", i ? "," : "",
                                seat_no / event->cols + 1, seat_no % event->cols + 1);
    }
    len += (size_t)snprintf(body + len, sizeof(body) - len, "]}");
    history_key(history, index, key);
    return (size_t)snprintf(ret_request, DIALECT_REQUEST_MAX,
                            "POST /book HTTP/1.1\r\nHost: drill\r\n"
                            "Content-Type: application/json\r\nIdempotency-Key: %s\r\n"
                            "Content-Length: %zu\r\n\r\n%s",
                            key, len, body);
}

size_t dialect_read(const struct history *history, const struct history_read *read,
                    char ret_request[DIALECT_REQUEST_MAX])
{
    const struct history_event *event = &history->events[read->event];
    char bound[64] = "", token[TOKEN_TEXT_SIZE + 32] = "";
    if (read->bound_ms >= 0)
        snprintf(bound, sizeof(bound), "SeatGrid-Max-Staleness: %" PRId32 "ms\r\n", read->bound_ms);
    if (read->carried.lsn) {
        struct read_token carried = {.timeline = read->carried.timeline, .lsn = read->carried.lsn};
        char text[TOKEN_TEXT_SIZE];
        memcpy(carried.shard, history->names[event->shard], sizeof(carried.shard));
        token_format(&carried, text);
        snprintf(token, sizeof(token), "SeatGrid-Token: %s\r\n", text);
    }
    return (size_t)snprintf(ret_request, DIALECT_REQUEST_MAX,
                            "GET /events/%" PRId64 "/seats HTTP/1.1\r\nHost: drill\r\n%s%s\r\n",
                            event->id, bound, token);
}

/* --- answers ---------------------------------------------------------------------------------- */

static enum history_durability durability_of(const struct answer_text *text)
{
    if (text->len == 4 && memcmp(text->at, "sync", 4) == 0)
        return HISTORY_SYNC;
    if (text->len == 5 && memcmp(text->at, "async", 5) == 0)
        return HISTORY_ASYNC;
    return HISTORY_NOT_TOLD;
}

/* The token of the shard in a header that may hold several; lsn 0: none. */
static struct history_token token_of(const char *shard, const struct answer_text *text)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    char header[ROUTER_TOKENS_MAX * (TOKEN_TEXT_SIZE + 2)];
    size_t count;
    if (text->len == 0 || text->len >= sizeof(header))
        return (struct history_token){.lsn = 0};
    memcpy(header, text->at, text->len);
    header[text->len] = '\0';
    if (!tokens_parse(header, tokens, ROUTER_TOKENS_MAX, &count))
        return (struct history_token){.lsn = 0};
    const struct read_token *token = tokens_find(tokens, count, shard);
    return (struct history_token){.lsn = token ? token->lsn : 0,
                                  .timeline = token ? token->timeline : 0};
}

/* Is the 201 about the event and the seats that were asked for? */
static bool is_what_was_asked(const struct history *history, uint32_t index,
                              const struct answer *answer)
{
    const struct history_booking *booking = &history->bookings[index];
    const struct history_event *event = &history->events[booking->event];
    int32_t seats[DIALECT_SEATS_MAX];
    int64_t event_id;
    size_t count;
    return answer_number(answer, "eventId", &event_id) && event_id == event->id &&
           answer_seats(answer, "seats", event->cols, seats, DIALECT_SEATS_MAX, &count) &&
           count == booking->seat_count &&
           memcmp(seats, history->seats + booking->seats_at, count * sizeof(*seats)) == 0;
}

static uint8_t error_of(const struct answer *answer)
{
    struct answer_text code = answer_string(answer, "code");
    return answer->status < 300 ? SG_OK : history_error(code.at, code.len);
}

static void note_conflicts(struct history *history, uint32_t index, const struct answer *answer)
{
    uint32_t event = history->bookings[history->attempts[index].booking].event;
    int32_t seats[DIALECT_SEATS_MAX];
    size_t count;
    if (answer_seats(answer, "conflicts", history->events[event].cols, seats, DIALECT_SEATS_MAX,
                     &count))
        (void)history_set_conflicts(history, index, seats, count);
}

void dialect_note_booking(struct history *history, uint32_t index, const struct answer *answer)
{
    struct history_attempt *attempt = &history->attempts[index];
    uint32_t event = history->bookings[attempt->booking].event;
    attempt->status = (uint16_t)answer->status;
    attempt->error = error_of(answer);
    attempt->shard = history_name(history, answer->shard.at, answer->shard.len);
    attempt->node = history_name(history, answer->node.at, answer->node.len);
    attempt->durability = (uint8_t)durability_of(&answer->durability);
    attempt->replayed = answer->replayed;
    attempt->token = token_of(history->names[history->events[event].shard], &answer->token);
    if (answer->status == 201)
        attempt->differs = !answer_booking_id(answer, &attempt->booking_id) ||
                           !is_what_was_asked(history, attempt->booking, answer);
    else if (answer->status == 409)
        note_conflicts(history, index, answer);
}

static void note_seat_map(struct history *history, uint32_t index, const struct answer *answer)
{
    struct history_read *read = &history->reads[index];
    const struct history_event *event = &history->events[read->event];
    uint64_t *bitmap = history_set_seen(history, index);
    if (bitmap && answer_seat_map(answer, event->rows, event->cols, bitmap, &read->seen_booked))
        return;
    read->seen_at = HISTORY_NONE;
    read->end = HISTORY_GARBLED;
}

void dialect_note_read(struct history *history, uint32_t index, const struct answer *answer)
{
    struct history_read *read = &history->reads[index];
    read->status = (uint16_t)answer->status;
    read->error = error_of(answer);
    read->shard = history_name(history, answer->shard.at, answer->shard.len);
    read->node = history_name(history, answer->node.at, answer->node.len);
    read->staleness_ms = answer_staleness_ms(&answer->staleness);
    read->got = token_of(history->names[history->events[read->event].shard], &answer->token);
    if (answer->status == 200)
        note_seat_map(history, index, answer);
}
