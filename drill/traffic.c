/*
 * What a drill's load asks for. See traffic.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/traffic.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/hash.h"

#define SIDE_MIN 50
#define SIDE_MAX 1000
#define SEATS_MEAN 1.5        /* of what seats_wanted gives, rounded up */
#define LARGE_MARGIN 2.0      /* large events have room for so many times what is expected */
#define WATCHED_SOLD 0.7      /* part of the watched seats that is sold after expected_s */
#define WATCHED_PART_MAX 0.25 /* of the bookings */
#define FIGHT_SEATS_BACK 12   /* a fight begins so many seats before the next free one, at most */
#define USERS 10000
#define BOUND_READERS 1000000 /* readers that are no session have numbers from here on */

struct seller {
    uint32_t event;
    int32_t seat_count;
    int32_t next; /* seat that nobody has asked for; seat_count: none is left */
    bool is_told; /* its session has a token that it has not read with */
    struct history_token token;
};

/* One shard's events. */
struct stall {
    struct seller *large;
    struct seller *watched;
    size_t large_count, watched_count;
    size_t large_turn, watched_turn, read_turn, session_turn;
    double watched_part; /* of the bookings */
};

struct traffic {
    struct load_options options;
    struct stall stalls[LOAD_SHARDS_MAX];
    struct seller *sellers; /* by event */
    size_t seller_count;
    uint64_t random_state;
};

/* --- sizes ------------------------------------------------------------------------------------ */

static double bookings_expected(const struct load_options *options)
{
    return (double)options->bookings_per_s * options->expected_s / (double)options->shard_count;
}

int32_t traffic_large_side(const struct load_options *options)
{
    double seats = bookings_expected(options) * SEATS_MEAN * LARGE_MARGIN;
    double side = ceil(sqrt(seats / options->events_per_shard));
    return side < SIDE_MIN ? SIDE_MIN : side > SIDE_MAX ? SIDE_MAX : (int32_t)side;
}

static double watched_part(const struct load_options *options)
{
    double seats = (double)options->watched_per_shard * TRAFFIC_WATCHED_ROWS * TRAFFIC_WATCHED_COLS;
    double part = seats * WATCHED_SOLD / (bookings_expected(options) * SEATS_MEAN);
    return part < WATCHED_PART_MAX ? part : WATCHED_PART_MAX;
}

/* --- chance ----------------------------------------------------------------------------------- */

static uint64_t random_next(struct traffic *traffic)
{
    return hash_u64(traffic->random_state++);
}

static int32_t random_below(struct traffic *traffic, int32_t bound)
{
    return (int32_t)(random_next(traffic) % (uint64_t)bound);
}

static bool random_is(struct traffic *traffic, double part)
{
    return (double)(random_next(traffic) >> 11) * 0x1p-53 < part;
}

/* Mostly one; now and then two, three or four. */
static int32_t seats_wanted(struct traffic *traffic)
{
    static const int8_t of_ten[] = {1, 1, 1, 1, 1, 1, 1, 2, 2, 4};
    return of_ten[random_below(traffic, sizeof(of_ten))];
}

/* --- bookings --------------------------------------------------------------------------------- */

static void take_seats(struct traffic_booking *booking, const struct seller *seller, int32_t first,
                       int32_t count)
{
    booking->event = seller->event;
    for (int32_t seat_no = first; seat_no < first + count && seat_no < seller->seat_count;
         seat_no++)
        booking->seats[booking->seat_count++] = seat_no;
}

/* Seats from a little before the next free one on: somebody asks for them at this moment. */
static void fight(struct traffic *traffic, const struct seller *seller,
                  struct traffic_booking *booking)
{
    int32_t back = seller->next < FIGHT_SEATS_BACK ? seller->next : FIGHT_SEATS_BACK;
    int32_t first = seller->next - 1 - random_below(traffic, back);
    take_seats(booking, seller, first, 1 + random_below(traffic, TRAFFIC_SEATS_MAX));
}

static struct seller *next_seller(struct traffic *traffic, struct stall *stall)
{
    if (stall->watched_count && random_is(traffic, stall->watched_part)) {
        struct seller *seller = &stall->watched[stall->watched_turn++ % stall->watched_count];
        if (seller->next < seller->seat_count)
            return seller;
    }
    return &stall->large[stall->large_turn++ % stall->large_count];
}

void traffic_next_booking(struct traffic *traffic, size_t shard,
                          struct traffic_booking *ret_booking)
{
    struct stall *stall = &traffic->stalls[shard];
    struct seller *seller = next_seller(traffic, stall);
    *ret_booking = (struct traffic_booking){.user = (uint32_t)random_below(traffic, USERS) + 1};
    if (seller->next == seller->seat_count ||
        (seller->next && random_below(traffic, 100) < traffic->options.fight_percent)) {
        fight(traffic, seller, ret_booking);
        return;
    }
    take_seats(ret_booking, seller, seller->next, seats_wanted(traffic));
    seller->next += (int32_t)ret_booking->seat_count;
}

/* --- reads ------------------------------------------------------------------------------------ */

/* The session with news, if there is one; else whose turn it is. */
static struct seller *next_session(struct stall *stall)
{
    for (size_t i = 0; i < stall->watched_count; i++) {
        struct seller *seller = &stall->watched[(stall->session_turn + i) % stall->watched_count];
        if (seller->is_told) {
            stall->session_turn += i + 1;
            return seller;
        }
    }
    return &stall->watched[stall->session_turn++ % stall->watched_count];
}

void traffic_next_read(struct traffic *traffic, size_t shard, struct traffic_read *ret_read)
{
    struct stall *stall = &traffic->stalls[shard];
    size_t turn = stall->read_turn++;
    size_t kind = turn % 4;
    if (kind == 3) {
        struct seller *session = next_session(stall);
        session->is_told = false;
        *ret_read = (struct traffic_read){.event = session->event,
                                          .reader = session->event,
                                          .bound_ms = -1,
                                          .session = true,
                                          .token = session->token};
        return;
    }
    *ret_read = (struct traffic_read){
        .event = stall->watched[turn / 4 % stall->watched_count].event,
        .reader = (uint32_t)(BOUND_READERS + shard * 4 + kind),
        .bound_ms = kind ? traffic->options.bounds_ms[kind - 1] : -1,
    };
}

static bool is_later(const struct history_token *a, const struct history_token *b)
{
    return a->timeline != b->timeline ? a->timeline > b->timeline : a->lsn > b->lsn;
}

void traffic_told(struct traffic *traffic, uint32_t event, const struct history_token *token)
{
    struct seller *seller = event < traffic->seller_count ? &traffic->sellers[event] : NULL;
    if (!seller || !token->lsn || !is_later(token, &seller->token))
        return;
    seller->token = *token;
    seller->is_told = true;
}

/* --- life ------------------------------------------------------------------------------------- */

/* Sellers stand in the order of the events: each shard's large ones, then its watched ones. */
static void set_stalls(struct traffic *traffic, const struct history *history,
                       const uint8_t *shards)
{
    for (size_t i = 0; i < traffic->options.shard_count; i++) {
        struct stall *stall = &traffic->stalls[i];
        stall->watched_part = watched_part(&traffic->options);
        for (uint32_t event = 0; event < history->event_count; event++) {
            struct seller *seller = &traffic->sellers[event];
            if (history->events[event].shard != shards[i])
                continue;
            bool watched = history->events[event].watched;
            struct seller **first = watched ? &stall->watched : &stall->large;
            size_t *count = watched ? &stall->watched_count : &stall->large_count;
            if (!*count)
                *first = seller;
            assert(seller == *first + *count);
            ++*count;
        }
    }
}

struct traffic *traffic_new(const struct load_options *options, const struct history *history,
                            const uint8_t *shards)
{
    struct traffic *traffic = calloc(1, sizeof(*traffic));
    if (!traffic)
        return NULL;
    traffic->options = *options;
    traffic->random_state = hash_u64(options->seed);
    traffic->seller_count = history->event_count;
    traffic->sellers = calloc(history->event_count + 1, sizeof(*traffic->sellers));
    if (!traffic->sellers) {
        free(traffic);
        return NULL;
    }
    for (uint32_t event = 0; event < history->event_count; event++)
        traffic->sellers[event] = (struct seller){
            .event = event,
            .seat_count = history->events[event].rows * history->events[event].cols,
        };
    set_stalls(traffic, history, shards);
    return traffic;
}

void traffic_free(struct traffic *traffic)
{
    if (!traffic)
        return;
    free(traffic->sellers);
    free(traffic);
}
