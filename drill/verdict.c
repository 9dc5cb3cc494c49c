/*
 * The verdict on bookings and databases. See verdict.h.
 *
 *   history ─> outcome of each booking ─┐
 *   truth ───> who is there ────────────┴─> who lost what, who may have had a seat, and when
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/verdict.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "drill/verdict_internal.h"

#define EXAMPLES_A_KIND 3

static const struct {
    const char *name;
    const char *text;
} kinds[VERDICT_KINDS] = {
#define X(kind, label, words) [kind] = {label, words},
    VERDICT_TABLE(X)
#undef X
};

const char *verdict_name(enum verdict_kind kind)
{
    return kinds[kind].name;
}

const char *verdict_text(enum verdict_kind kind)
{
    return kinds[kind].text;
}

void verdict_breach(struct judge *judge, enum verdict_kind kind, const char *format, ...)
{
    struct verdict *verdict = judge->verdict;
    va_list args;
    if (verdict->breaches[kind]++ >= EXAMPLES_A_KIND ||
        verdict->example_count == VERDICT_EXAMPLES_MAX)
        return;
    struct verdict_example *example = &verdict->examples[verdict->example_count++];
    example->kind = kind;
    va_start(args, format);
    vsnprintf(example->text, sizeof(example->text), format, args);
    va_end(args);
}

/* --- the tables ------------------------------------------------------------------------------- */

static bool same_id(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static bool make_tables(struct judge *judge)
{
    const struct history *history = judge->history;
    size_t total = 0;
    judge->seats_at = calloc(history->event_count + 1, sizeof(*judge->seats_at));
    judge->bookings = calloc(history->booking_count + 1, sizeof(*judge->bookings));
    if (!judge->seats_at || !judge->bookings)
        return false;
    for (size_t i = 0; i < history->event_count; i++) {
        judge->seats_at[i] = total;
        total += event_seats(&history->events[i]);
    }
    judge->seats = calloc(total + 1, sizeof(*judge->seats));
    if (!judge->seats)
        return false;
    for (size_t i = 0; i < total; i++)
        judge->seats[i] = (struct judged_seat){
            .known_us = INT64_MAX,
            .rival = {{.booking = HISTORY_NONE}, {.booking = HISTORY_NONE}},
            .acknowledged = HISTORY_NONE,
            .owner = HISTORY_NONE,
            .claim = HISTORY_NONE,
        };
    for (size_t i = 0; i < history->booking_count; i++) {
        judge->bookings[i].outcome = (uint8_t)history_outcome(history, (uint32_t)i);
        judge->bookings[i].there = HISTORY_NONE;
    }
    return true;
}

static void free_tables(struct judge *judge)
{
    free(judge->seats_at);
    free(judge->bookings);
    free(judge->seats);
}

/* --- what the databases hold ------------------------------------------------------------------ */

static bool in_grid(const struct judge *judge, uint32_t event, int32_t seat_no)
{
    return seat_no >= 0 && (size_t)seat_no < event_seats(&judge->history->events[event]);
}

static void place_owner(struct judge *judge, uint32_t index)
{
    const struct truth_booking *booking = &judge->truth->bookings[index];
    for (size_t i = 0; i < booking->seat_count; i++) {
        int32_t seat_no = judge->truth->seats[booking->seats_at + i];
        if (!in_grid(judge, booking->event, seat_no)) {
            verdict_breach(judge, VERDICT_TORN, "booking %s has seat %" PRId32 " outside the grid",
                           booking->key, seat_no);
            continue;
        }
        struct judged_seat *seat = judged_seat(judge, booking->event, seat_no);
        if (seat->owner != HISTORY_NONE)
            seat->owned_twice = true;
        else
            seat->owner = index;
    }
}

/* A booking of the truth finds its booking of the history, or is strange. */
static void place_booking(struct judge *judge, uint32_t index)
{
    const struct truth_booking *booking = &judge->truth->bookings[index];
    int64_t event_id = judge->history->events[booking->event].id;
    char id[UUID_TEXT_LEN + 1];
    uuid_format(&booking->booking_id, id);
    if (strcmp(booking->status, "confirmed") != 0) {
        verdict_breach(judge, VERDICT_STRANGE, "event %" PRId64 " booking %s (key %s) is %s",
                       event_id, id, booking->key, booking->status);
        return;
    }
    place_owner(judge, index);
    uint32_t own = history_key_booking(judge->history, booking->key);
    if (own == HISTORY_NONE || judge->history->bookings[own].event != booking->event)
        verdict_breach(judge, VERDICT_STRANGE,
                       "event %" PRId64 " booking %s has the key '%s', which is none of ours there",
                       event_id, id, booking->key);
    else if (judge->bookings[own].there != HISTORY_NONE)
        verdict_breach(judge, VERDICT_STRANGE, "event %" PRId64 " booking %s: key %s twice",
                       event_id, id, booking->key);
    else
        judge->bookings[own].there = index;
}

static bool is_claims_owner(const struct judge *judge, const struct judged_seat *seat,
                            const struct truth_claim *claim)
{
    return claim->booked && seat->owner != HISTORY_NONE &&
           same_id(&judge->truth->bookings[seat->owner].booking_id, &claim->booking_id);
}

static void place_claim(struct judge *judge, uint32_t index)
{
    const struct truth_claim *claim = &judge->truth->claims[index];
    char id[UUID_TEXT_LEN + 1];
    bool fits = in_grid(judge, claim->event, claim->seat_no);
    if (fits) {
        struct judged_seat *seat = judged_seat(judge, claim->event, claim->seat_no);
        seat->claim = index;
        fits = seat->owned_twice || is_claims_owner(judge, seat, claim);
    }
    uuid_format(&claim->booking_id, id);
    if (!fits)
        verdict_breach(judge, VERDICT_TORN,
                       "event %" PRId64 " seat %" PRId32
                       " is %s by %s, which is no booking with it",
                       judge->history->events[claim->event].id, claim->seat_no,
                       claim->booked ? "claimed" : "held", id);
}

/* Seats that have an owner and no claim, or two owners. */
static void judge_owned_seats(struct judge *judge, uint32_t event)
{
    const struct history_event *of = &judge->history->events[event];
    for (int32_t seat_no = 0; (size_t)seat_no < event_seats(of); seat_no++) {
        const struct judged_seat *seat = judged_seat(judge, event, seat_no);
        if (!seat->owned_twice && seat->owner != HISTORY_NONE && seat->claim == HISTORY_NONE)
            verdict_breach(judge, VERDICT_TORN,
                           "event %" PRId64 " seat %" PRId32 " is in booking %s, without a claim",
                           of->id, seat_no, judge->truth->bookings[seat->owner].key);
        if (seat->owned_twice || seat->told_twice)
            verdict_breach(judge, VERDICT_SOLD_TWICE, "event %" PRId64 " seat %" PRId32 " %s",
                           of->id, seat_no,
                           seat->owned_twice ? "stands in two confirmed bookings"
                                             : "was acknowledged to two bookings");
    }
}

static void place_truth(struct judge *judge)
{
    for (size_t i = 0; i < judge->truth->booking_count; i++)
        place_booking(judge, (uint32_t)i);
    for (size_t i = 0; i < judge->truth->claim_count; i++)
        place_claim(judge, (uint32_t)i);
}

/* --- a booking, from what it was told and what is there --------------------------------------- */

static bool asked_for(const struct judge *judge, const struct history_booking *booking,
                      int32_t seat_no)
{
    const int32_t *seats = judge->history->seats + booking->seats_at;
    for (size_t i = 0; i < booking->seat_count; i++) {
        if (seats[i] == seat_no)
            return true;
    }
    return false;
}

/* Has the truth's booking exactly the seats that were asked for? No seat is asked for twice. */
static bool same_seats(const struct judge *judge, const struct history_booking *asked,
                       const struct truth_booking *there)
{
    const int32_t *seats = judge->truth->seats + there->seats_at;
    if (asked->seat_count != there->seat_count)
        return false;
    for (size_t i = 0; i < there->seat_count; i++) {
        if (!asked_for(judge, asked, seats[i]))
            return false;
        for (size_t k = 0; k < i; k++) {
            if (seats[k] == seats[i])
                return false;
        }
    }
    return true;
}

static bool all_told_async(const struct history *history, uint32_t index)
{
    for (uint32_t i = history->bookings[index].first_attempt; i != HISTORY_NONE;
         i = history->attempts[i].next) {
        if (history_is_booked(&history->attempts[i]) &&
            history->attempts[i].durability != HISTORY_ASYNC)
            return false;
    }
    return true;
}

static void judge_loss(struct judge *judge, uint32_t index)
{
    const struct history *history = judge->history;
    const struct history_booking *booking = &history->bookings[index];
    struct judged_booking *judged = &judge->bookings[index];
    char key[HISTORY_KEY_SIZE];
    bool there = judged->there != HISTORY_NONE;
    if (there && same_seats(judge, booking, &judge->truth->bookings[judged->there]))
        return;
    judged->lost = true;
    judged->lost_async = all_told_async(history, index);
    history_key(history, index, key);
    verdict_breach(judge, judged->lost_async ? VERDICT_LOST_ASYNC : VERDICT_LOST,
                   "event %" PRId64 " %s, acknowledged at %" PRId64 " us, is %s",
                   history->events[booking->event].id, key,
                   history_acknowledged(history, index)->answered_us,
                   there ? "there with other seats" : "not there");
}

/* Why its 201s contradict each other or the truth; NULL: they do not. */
static const char *contradiction(const struct judge *judge, uint32_t index)
{
    const struct history *history = judge->history;
    const struct uuid *id = NULL;
    if (judge->bookings[index].there != HISTORY_NONE)
        id = &judge->truth->bookings[judge->bookings[index].there].booking_id;
    for (uint32_t i = history->bookings[index].first_attempt; i != HISTORY_NONE;
         i = history->attempts[i].next) {
        const struct history_attempt *attempt = &history->attempts[i];
        if (!history_is_booked(attempt))
            continue;
        if (attempt->differs)
            return "was acknowledged for another event or other seats";
        if (id && !same_id(id, &attempt->booking_id))
            return "has two booking ids";
        id = &attempt->booking_id;
    }
    return NULL;
}

static bool is_resolved(const struct history *history, const struct history_booking *booking)
{
    bool was_ambiguous = false;
    for (uint32_t i = booking->first_attempt; i != HISTORY_NONE; i = history->attempts[i].next) {
        const struct history_attempt *attempt = &history->attempts[i];
        if (was_ambiguous && (history_is_booked(attempt) || history_is_refusal(attempt)))
            return true;
        was_ambiguous |= history_is_ambiguous(attempt);
    }
    return false;
}

static void judge_booking(struct judge *judge, uint32_t index)
{
    const struct history *history = judge->history;
    const struct history_booking *booking = &history->bookings[index];
    const struct judged_booking *judged = &judge->bookings[index];
    enum history_outcome outcome = judged->outcome;
    int64_t event_id = history->events[booking->event].id;
    const char *problem = contradiction(judge, index);
    char key[HISTORY_KEY_SIZE];
    history_key(history, index, key);
    judge->verdict->outcomes[outcome]++;
    judge->verdict->resolved += is_resolved(history, booking);
    if (problem)
        verdict_breach(judge, VERDICT_CONTRADICTION, "event %" PRId64 " %s %s", event_id, key,
                       problem);
    if (outcome == HISTORY_BOOKED)
        judge_loss(judge, index);
    else if (judged->there != HISTORY_NONE && outcome == HISTORY_AMBIGUOUS)
        judge->verdict->ambiguous_done++;
    else if (judged->there != HISTORY_NONE)
        verdict_breach(judge, VERDICT_DENIED, "event %" PRId64 " %s is there, and was told %s",
                       event_id, key, history_outcome_name(outcome));
}

/* --- who may have had a seat, and when -------------------------------------------------------- */

static void add_rival(struct judged_seat *seat, struct rival rival)
{
    if (seat->rival[0].booking == HISTORY_NONE || rival.sent_us < seat->rival[0].sent_us) {
        seat->rival[1] = seat->rival[0];
        seat->rival[0] = rival;
    } else if (seat->rival[1].booking == HISTORY_NONE || rival.sent_us < seat->rival[1].sent_us) {
        seat->rival[1] = rival;
    }
}

/* The first attempt that reached somebody; HISTORY_NONE if none did. */
static uint32_t first_sent(const struct history *history, const struct history_booking *booking)
{
    uint32_t i = booking->first_attempt;
    while (i != HISTORY_NONE && history->attempts[i].end == HISTORY_UNREACHED)
        i = history->attempts[i].next;
    return i;
}

/* Notes at its seats what is known of a booking. */
static void place_asker(struct judge *judge, uint32_t index)
{
    const struct history *history = judge->history;
    const struct history_booking *booking = &history->bookings[index];
    const struct judged_booking *judged = &judge->bookings[index];
    bool booked = judged->outcome == HISTORY_BOOKED;
    bool there = judged->there != HISTORY_NONE;
    uint32_t first = first_sent(history, booking);
    if (first == HISTORY_NONE || (!booked && !there && judged->outcome != HISTORY_AMBIGUOUS))
        return;
    struct rival rival = {.sent_us = history->attempts[first].sent_us, .booking = index};
    for (size_t i = 0; i < booking->seat_count; i++) {
        struct judged_seat *seat =
            judged_seat(judge, booking->event, history->seats[booking->seats_at + i]);
        add_rival(seat, rival);
        if (booked && !judged->lost_async) {
            seat->told_twice |= seat->acknowledged != HISTORY_NONE;
            seat->acknowledged = index;
        }
        if (booked && !judged->lost) {
            int64_t known_us = history_acknowledged(history, index)->answered_us;
            if (known_us < seat->known_us)
                seat->known_us = known_us;
        }
    }
}

/* --- refusals --------------------------------------------------------------------------------- */

/* May another than `booking` have had the seat before `us`? */
static bool may_be_taken(const struct judged_seat *seat, uint32_t booking, int64_t us)
{
    for (size_t i = 0; i < 2; i++) {
        const struct rival *rival = &seat->rival[i];
        if (rival->booking != HISTORY_NONE && rival->booking != booking && rival->sent_us < us)
            return true;
    }
    return false;
}

static void judge_refusal(struct judge *judge, const struct history_attempt *attempt)
{
    const struct history *history = judge->history;
    const struct history_booking *booking = &history->bookings[attempt->booking];
    int64_t event_id = history->events[booking->event].id;
    char key[HISTORY_KEY_SIZE];
    history_key(history, attempt->booking, key);
    if (!attempt->conflict_count)
        verdict_breach(judge, VERDICT_FALSE_NO, "event %" PRId64 " %s: refused, no seat named",
                       event_id, key);
    for (size_t i = 0; i < attempt->conflict_count; i++) {
        int32_t seat_no = history->seats[attempt->conflicts_at + i];
        const char *problem = NULL;
        if (!asked_for(judge, booking, seat_no))
            problem = "was not asked for";
        else if (!may_be_taken(judged_seat(judge, booking->event, seat_no), attempt->booking,
                               attempt->answered_us))
            problem = "nobody else had by then";
        if (problem) {
            verdict_breach(judge, VERDICT_FALSE_NO,
                           "event %" PRId64 " %s: refused at %" PRId64 " us for seat %" PRId32
                           ", which %s",
                           event_id, key, attempt->answered_us, seat_no, problem);
            return;
        }
    }
}

static bool is_taken(const struct history_attempt *attempt)
{
    return attempt->end == HISTORY_ANSWERED && attempt->status == 409 &&
           attempt->error == SG_SEATS_TAKEN;
}

/* --- all of it -------------------------------------------------------------------------------- */

static enum sg_error judge_all(struct judge *judge)
{
    const struct history *history = judge->history;
    if (!make_tables(judge))
        return SG_NO_MEMORY;
    place_truth(judge);
    for (size_t i = 0; i < history->booking_count; i++)
        judge_booking(judge, (uint32_t)i);
    for (size_t i = 0; i < history->booking_count; i++)
        place_asker(judge, (uint32_t)i);
    for (size_t i = 0; i < history->event_count; i++)
        judge_owned_seats(judge, (uint32_t)i);
    for (size_t i = 0; i < history->attempt_count; i++) {
        if (is_taken(&history->attempts[i]))
            judge_refusal(judge, &history->attempts[i]);
    }
    return verdict_judge_reads(judge);
}

enum sg_error verdict_judge(const struct history *history, const struct truth *truth,
                            struct verdict *ret_verdict)
{
    struct verdict *verdict = calloc(1, sizeof(*verdict));
    struct judge judge = {.history = history, .truth = truth, .verdict = verdict};
    if (!verdict)
        return SG_NO_MEMORY;
    verdict->bookings = history->booking_count;
    verdict->refused = history->refused;
    enum sg_error error = judge_all(&judge);
    if (error == SG_OK)
        *ret_verdict = *verdict;
    free_tables(&judge);
    free(verdict);
    return error;
}
