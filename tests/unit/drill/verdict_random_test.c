/*
 * Goal: over long random histories the verdict finds nothing in what a right system does, and finds
 * every kind of breach that is put into them.
 * Method: a simulated system with one order of commits, lost answers, replays, failed requests,
 * replicas that lag, tokens and sessions makes a history and its truth; then, seed by seed and kind
 * by kind, one breach is planted.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

#include "base/hash.h"

#define SEEDS 150
#define BOOKINGS 60
#define READS 60
#define SESSIONS 3
#define NEVER_SOLD (STORY_SEATS - 2) /* two seats that nobody ever asks for */

/* What becomes of a booking on its way. */
enum fate {
    FATE_FINE,
    FATE_ANSWER_LOST,  /* done, then asked again */
    FATE_REQUEST_LOST, /* not done, then asked again */
    FATE_FAILED,
    FATE_UNKNOWN_DONE,
    FATE_UNKNOWN_NOT,
    FATE_UNSENT,
    FATES
};

struct sim_booking {
    enum fate fate;
    uint32_t index;
    int64_t sent_us, commit_us, answered_us;
    bool done;
    bool refused;
};

struct sim {
    struct story story;
    uint64_t random;
    struct sim_booking bookings[BOOKINGS];
    uint32_t owner[STORY_SEATS];   /* HISTORY_NONE: free */
    int64_t owned_us[STORY_SEATS]; /* the commit */
    int64_t commits_us[BOOKINGS];  /* of the n-th commit; its LSN is 1000 + n */
    size_t commit_count;
    struct history_token told[SESSIONS]; /* by the session's last read */
    int64_t read_us[SESSIONS];
};

static int64_t below(struct sim *sim, int64_t bound)
{
    return (int64_t)(hash_u64(sim->random++) % (uint64_t)bound);
}

/* --- a right system --------------------------------------------------------------------------- */

static int by_commit(const void *a, const void *b)
{
    const struct sim_booking *x = a, *y = b;
    return (x->commit_us > y->commit_us) - (x->commit_us < y->commit_us);
}

static void commit(struct sim *sim, struct sim_booking *booking)
{
    struct history *history = sim->story.history;
    const struct history_booking *asked = &history->bookings[booking->index];
    for (size_t i = 0; i < asked->seat_count; i++)
        booking->refused |= sim->owner[history->seats[asked->seats_at + i]] != HISTORY_NONE;
    if (booking->refused)
        return;
    booking->done = true;
    for (size_t i = 0; i < asked->seat_count; i++) {
        sim->owner[history->seats[asked->seats_at + i]] = booking->index;
        sim->owned_us[history->seats[asked->seats_at + i]] = booking->commit_us;
    }
    sim->commits_us[sim->commit_count++] = booking->commit_us;
    story_there(&sim->story, booking->index);
}

/* The LSN of the last commit at that time. */
static struct history_token token_at(const struct sim *sim, int64_t us)
{
    size_t count = 0;
    while (count < sim->commit_count && sim->commits_us[count] <= us)
        count++;
    return (struct history_token){.lsn = 1000 + count, .timeline = 1};
}

/* Seats of the booking that others had when it came to them, as a 409. */
static void refuse(struct sim *sim, const struct sim_booking *booking, int64_t sent_us)
{
    struct history *history = sim->story.history;
    const struct history_booking *asked = &history->bookings[booking->index];
    int32_t seats[4];
    size_t count = 0;
    for (size_t i = 0; i < asked->seat_count; i++) {
        int32_t seat_no = history->seats[asked->seats_at + i];
        if (sim->owner[seat_no] != HISTORY_NONE && sim->owned_us[seat_no] <= booking->commit_us)
            seats[count++] = seat_no;
    }
    struct history_attempt *attempt =
        story_refused(&sim->story, booking->index, sent_us, booking->answered_us, 0, 0);
    uint32_t index = (uint32_t)(attempt - history->attempts);
    assert_true(history_set_conflicts(history, index, seats, count));
}

static void answer(struct sim *sim, const struct sim_booking *booking, int64_t sent_us)
{
    if (booking->done)
        story_booked(&sim->story, booking->index, sent_us, booking->answered_us)->token =
            token_at(sim, booking->commit_us);
    else
        refuse(sim, booking, sent_us);
}

static void tell(struct sim *sim, const struct sim_booking *booking)
{
    struct story *story = &sim->story;
    int64_t sent_us = booking->sent_us;
    switch (booking->fate) {
    case FATE_FINE:
        answer(sim, booking, sent_us);
        break;
    case FATE_ANSWER_LOST:
    case FATE_REQUEST_LOST:
        story_attempt(story, booking->index, sent_us - 500, sent_us - 100, HISTORY_CLOSED);
        answer(sim, booking, sent_us);
        break;
    case FATE_FAILED:
        story_failed(story, booking->index, sent_us, booking->answered_us, SG_SHARD_UNAVAILABLE);
        break;
    case FATE_UNKNOWN_DONE:
    case FATE_UNKNOWN_NOT:
        story_failed(story, booking->index, sent_us, booking->answered_us, SG_OUTCOME_UNKNOWN);
        break;
    default:
        break;
    }
}

static void make_bookings(struct sim *sim)
{
    int64_t now_us = 100000;
    for (size_t i = 0; i < BOOKINGS; i++) {
        struct sim_booking *booking = &sim->bookings[i];
        int32_t count = 1 + (int32_t)below(sim, 3);
        int32_t first = (int32_t)below(sim, NEVER_SOLD - count);
        now_us += below(sim, 5000);
        *booking = (struct sim_booking){.sent_us = now_us};
        booking->fate = below(sim, 2) ? FATE_FINE : (enum fate)below(sim, FATES);
        booking->commit_us = now_us + 1 + below(sim, 4000);
        booking->answered_us = booking->commit_us + 1 + below(sim, 2000);
        if (booking->fate == FATE_ANSWER_LOST)
            booking->commit_us = now_us - 400; /* in the first attempt */
        booking->index = story_wish(&sim->story, 0, now_us - 1000, first, count);
    }
    qsort(sim->bookings, BOOKINGS, sizeof(*sim->bookings), by_commit);
    for (size_t i = 0; i < BOOKINGS; i++) {
        enum fate fate = sim->bookings[i].fate;
        if (fate != FATE_FAILED && fate != FATE_UNKNOWN_NOT && fate != FATE_UNSENT)
            commit(sim, &sim->bookings[i]);
    }
    for (size_t i = 0; i < BOOKINGS; i++)
        tell(sim, &sim->bookings[i]);
}

/* A read that shows what had been committed at shown_us. */
static struct history_read *show(struct sim *sim, int64_t sent_us, int64_t answered_us,
                                 int64_t shown_us)
{
    struct history_read *read = story_read(&sim->story, 0, sent_us, answered_us, 0, 0);
    for (int32_t seat_no = 0; seat_no < STORY_SEATS; seat_no++) {
        if (sim->owner[seat_no] != HISTORY_NONE && sim->owned_us[seat_no] <= shown_us)
            sim->story.history->seen[read->seen_at + (uint32_t)seat_no / 64] |= UINT64_C(1)
                                                                                << (seat_no % 64);
    }
    read->staleness_ms = (int32_t)((answered_us - shown_us + 999) / 1000);
    return read;
}

static void make_reads(struct sim *sim)
{
    int64_t now_us = 100000;
    for (size_t i = 0; i < READS; i++) {
        now_us += below(sim, 5000);
        int64_t answered_us = now_us + 1 + below(sim, 2000);
        if (below(sim, 2)) {
            int32_t bound_ms = 1 + (int32_t)below(sim, 20);
            int64_t age_us = below(sim, (int64_t)bound_ms * 1000 - (answered_us - now_us) > 0
                                            ? bound_ms * 1000 - (answered_us - now_us)
                                            : 1);
            show(sim, now_us, answered_us, answered_us - age_us)->bound_ms =
                below(sim, 4) && age_us < bound_ms * 1000 ? bound_ms : -1;
            continue;
        }
        size_t session = (size_t)below(sim, SESSIONS);
        struct history_token carried = sim->told[session];
        int64_t shown_us = now_us - below(sim, 10000);
        if (shown_us < sim->read_us[session])
            shown_us = sim->read_us[session]; /* what its token asks for */
        if (now_us < sim->read_us[session])
            continue; /* it waits for its last answer */
        struct history_read *read = show(sim, now_us, answered_us, shown_us);
        read->session = true;
        read->reader = (uint32_t)session;
        read->carried = carried;
        read->got = token_at(sim, shown_us);
        sim->told[session] = read->got;
        sim->read_us[session] = shown_us;
    }
}

static void sim_new(struct sim *sim, uint64_t seed)
{
    memset(sim, 0, sizeof(*sim));
    sim->random = hash_u64(seed);
    for (size_t i = 0; i < STORY_SEATS; i++)
        sim->owner[i] = HISTORY_NONE;
    story_new(&sim->story);
    make_bookings(sim);
    make_reads(sim);
}

/* --- breaches --------------------------------------------------------------------------------- */

/* A random booking that was acknowledged by its only attempt. */
static uint32_t pick_sale(struct sim *sim)
{
    for (int tries = 0; tries < 1000; tries++) {
        const struct sim_booking *booking = &sim->bookings[below(sim, BOOKINGS)];
        if (booking->fate == FATE_FINE && booking->done)
            return booking->index;
    }
    return HISTORY_NONE;
}

static struct history_attempt *only_attempt(struct sim *sim, uint32_t booking)
{
    return &sim->story.history->attempts[sim->story.history->bookings[booking].first_attempt];
}

/* The database forgets a booking and its claims. */
static void forget(struct sim *sim, uint32_t booking)
{
    struct truth *truth = sim->story.truth;
    struct uuid id = story_id(booking);
    size_t kept = 0;
    for (size_t i = 0; i < truth->booking_count; i++) {
        if (memcmp(&truth->bookings[i].booking_id, &id, sizeof(id)) != 0)
            truth->bookings[kept++] = truth->bookings[i];
    }
    truth->booking_count = kept;
    kept = 0;
    for (size_t i = 0; i < truth->claim_count; i++) {
        if (memcmp(&truth->claims[i].booking_id, &id, sizeof(id)) != 0)
            truth->claims[kept++] = truth->claims[i];
    }
    truth->claim_count = kept;
}

static bool plant_loss(struct sim *sim, bool async)
{
    uint32_t booking = pick_sale(sim);
    if (booking == HISTORY_NONE)
        return false;
    if (async)
        only_attempt(sim, booking)->durability = HISTORY_ASYNC;
    forget(sim, booking);
    return true;
}

/* Another booking is told that it has the seats of one that was sold. */
static bool plant_second_sale(struct sim *sim)
{
    uint32_t sold = pick_sale(sim);
    if (sold == HISTORY_NONE)
        return false;
    struct history_booking first = sim->story.history->bookings[sold];
    uint32_t second = story_wish(&sim->story, 0, first.due_us,
                                 sim->story.history->seats[first.seats_at], first.seat_count);
    story_booked(&sim->story, second, first.due_us, first.due_us + 9000);
    return true;
}

static bool plant_torn(struct sim *sim)
{
    struct truth *truth = sim->story.truth;
    if (!truth->claim_count)
        return false;
    struct truth_claim *claim = &truth->claims[below(sim, (int64_t)truth->claim_count)];
    switch (below(sim, 3)) {
    case 0:
        *claim = truth->claims[--truth->claim_count];
        break;
    case 1:
        claim->booking_id = story_id(123456);
        break;
    default:
        claim->booked = false;
        break;
    }
    return true;
}

static bool plant_denial(struct sim *sim)
{
    uint32_t booking = pick_sale(sim);
    if (booking == HISTORY_NONE)
        return false;
    struct history_attempt *attempt = only_attempt(sim, booking);
    attempt->status = 503;
    attempt->error = SG_DEADLINE;
    return true;
}

static bool plant_stranger(struct sim *sim)
{
    int32_t seat_no = NEVER_SOLD;
    story_row(&sim->story, 0, "drill-0000000000000bad-1", 4321, &seat_no, 1);
    story_claim(&sim->story, 0, seat_no, 4321);
    return true;
}

static bool plant_contradiction(struct sim *sim)
{
    uint32_t booking = pick_sale(sim);
    if (booking == HISTORY_NONE)
        return false;
    only_attempt(sim, booking)->booking_id = story_id(99999);
    return true;
}

static bool plant_false_no(struct sim *sim)
{
    uint32_t booking = story_wish(&sim->story, 0, 200000, NEVER_SOLD, 2);
    story_refused(&sim->story, booking, 200000, 201000, NEVER_SOLD + 1, 1);
    return true;
}

static void hide(struct sim *sim, struct history_read *read, int32_t seat_no)
{
    sim->story.history->seen[read->seen_at + (uint32_t)seat_no / 64] &=
        ~(UINT64_C(1) << (seat_no % 64));
}

/* A seat that the read shows and whose booking was acknowledged before known_us; -1: none. */
static int32_t pick_seen(struct sim *sim, const struct history_read *read, int64_t known_us)
{
    struct history *history = sim->story.history;
    for (int32_t seat_no = 0; seat_no < STORY_SEATS; seat_no++) {
        const struct history_attempt *attempt =
            sim->owner[seat_no] == HISTORY_NONE
                ? NULL
                : history_acknowledged(history, sim->owner[seat_no]);
        if (attempt && attempt->answered_us < known_us && history_seen(history, read, seat_no))
            return seat_no;
    }
    return -1;
}

static bool plant_stale(struct sim *sim, bool bound)
{
    struct history *history = sim->story.history;
    for (size_t i = history->read_count; i-- > 0;) {
        struct history_read *read = &history->reads[i];
        int32_t age_ms = bound ? read->bound_ms : read->staleness_ms;
        int32_t seat_no =
            age_ms < 0 ? -1 : pick_seen(sim, read, read->sent_us - (int64_t)age_ms * 1000);
        if (seat_no < 0)
            continue;
        hide(sim, read, seat_no);
        return true;
    }
    return false;
}

static bool plant_missed_token(struct sim *sim)
{
    struct history *history = sim->story.history;
    for (size_t i = history->read_count; i-- > 0;) {
        struct history_read *read = &history->reads[i];
        for (size_t k = 0; k < BOOKINGS && read->carried.lsn; k++) {
            const struct history_attempt *attempt = history_acknowledged(history, (uint32_t)k);
            const struct history_booking *booking = &history->bookings[k];
            if (!attempt || attempt->answered_us > read->sent_us ||
                attempt->token.lsn > read->carried.lsn)
                continue;
            hide(sim, read, history->seats[booking->seats_at]);
            return true;
        }
    }
    return false;
}

static bool plant_backwards(struct sim *sim)
{
    struct history *history = sim->story.history;
    for (size_t i = history->read_count; i-- > 0;) {
        struct history_read *later = &history->reads[i];
        for (size_t k = 0; k < i && later->session; k++) {
            const struct history_read *earlier = &history->reads[k];
            int32_t seat_no = pick_seen(sim, earlier, INT64_MAX);
            if (!earlier->session || earlier->reader != later->reader || seat_no < 0 ||
                earlier->answered_us >= later->sent_us)
                continue;
            hide(sim, later, seat_no);
            return true;
        }
    }
    return false;
}

static bool plant_undone(struct sim *sim)
{
    struct history *history = sim->story.history;
    if (!history->read_count)
        return false;
    const struct history_read *read = &history->reads[below(sim, (int64_t)history->read_count)];
    history->seen[read->seen_at + NEVER_SOLD / 64] |= UINT64_C(1) << (NEVER_SOLD % 64);
    return true;
}

/* False: this history offers no place for it. */
static bool plant(struct sim *sim, enum verdict_kind kind)
{
    switch (kind) {
    case VERDICT_LOST:
        return plant_loss(sim, false);
    case VERDICT_LOST_ASYNC:
        return plant_loss(sim, true);
    case VERDICT_SOLD_TWICE:
        return plant_second_sale(sim);
    case VERDICT_TORN:
        return plant_torn(sim);
    case VERDICT_DENIED:
        return plant_denial(sim);
    case VERDICT_STRANGE:
        return plant_stranger(sim);
    case VERDICT_CONTRADICTION:
        return plant_contradiction(sim);
    case VERDICT_FALSE_NO:
        return plant_false_no(sim);
    case VERDICT_STALE_BOUND:
        return plant_stale(sim, true);
    case VERDICT_STALE_TOLD:
        return plant_stale(sim, false);
    case VERDICT_TOKEN_MISSED:
        return plant_missed_token(sim);
    case VERDICT_BACKWARDS:
        return plant_backwards(sim);
    case VERDICT_UNDONE:
        return plant_undone(sim);
    default:
        return false;
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_a_right_system_breaks_nothing(void **state)
{
    uint64_t outcomes[HISTORY_OUTCOMES] = {0}, resolved = 0, pairs = 0, bounds = 0, tokens = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sim sim;
        sim_new(&sim, seed);
        story_judge(&sim.story);
        assert_int_equal(sim.story.verdict.refused, 0);
        if (sim.story.verdict.example_count)
            fail_msg("seed %llu: %s: %s", (unsigned long long)seed,
                     verdict_name(sim.story.verdict.examples[0].kind),
                     sim.story.verdict.examples[0].text);
        for (size_t i = 0; i < HISTORY_OUTCOMES; i++)
            outcomes[i] += sim.story.verdict.outcomes[i];
        resolved += sim.story.verdict.resolved;
        pairs += sim.story.verdict.session_pairs;
        bounds += sim.story.verdict.reads_bound;
        tokens += sim.story.verdict.reads_token;
        story_free(&sim.story);
    }
    /* the histories hold what they are meant to hold */
    for (size_t i = 0; i < HISTORY_OUTCOMES; i++)
        assert_true(outcomes[i] > 0);
    assert_true(resolved > 0 && pairs > 0 && bounds > 0 && tokens > 0);
}

static void test_every_planted_breach_is_found(void **state)
{
    (void)state;
    for (int kind = 0; kind < VERDICT_KINDS; kind++) {
        int planted = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct sim sim;
            sim_new(&sim, seed);
            if (plant(&sim, kind)) {
                planted++;
                story_judge(&sim.story);
                if (!sim.story.verdict.breaches[kind])
                    fail_msg("seed %llu: %s was not found", (unsigned long long)seed,
                             verdict_name(kind));
            }
            story_free(&sim.story);
        }
        if (planted < SEEDS / 3)
            fail_msg("%s was planted %d times only", verdict_name(kind), planted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_right_system_breaks_nothing),
        cmocka_unit_test(test_every_planted_breach_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
