/*
 * Goal: who wishes for the best seats is answered once, and truly: the seats that the view has,
 * after a miss others, "no" only when a read from after the request says so and nothing that is
 * under way could change that, what became of a double click instead of a "no", and by the deadline
 * whatever happens. Method: a router on a fake primary (router_rig.h) with one row of seats, which
 * others take and give back at the moments that matter, and which hangs and goes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

#include "base/uuid.h"

#define COLS 4
#define EVENT 5
#define TWIN "0190a8b0-0000-7000-8000-000000000001"

/* What the fake primary holds. */
static struct {
    bool taken[COLS + 1];
    bool twin;      /* a booking with everybody's key is there: of seats 1 and 2 */
    bool unknown;   /* there is no such event */
    unsigned views; /* that were read */
    unsigned takes; /* batches */
    unsigned looks; /* of their requests, those without seats */
    bool hangs;     /* at the next batch, for ever */
    struct rig *rig;
    void (*on_view)(void); /* once */
    void (*after_look)(void);
} house;

struct buyer {
    struct errand *errand;
    struct seat seats[COLS];
    size_t count;
    int64_t left;
    char tier[ROUTER_TIER_MAX + 1];
};

/* --- the server ------------------------------------------------------------------------------- */

static void put_i32(struct dynbuf *body, int32_t value)
{
    uint32_t wire = htonl((uint32_t)value);
    dynbuf_add(body, &wire, sizeof(wire));
}

/* best_view: rows, cols, booked; no holds; no tiers. */
static void view(struct fake_session *session)
{
    struct dynbuf body;
    int32_t count = 0;
    uint16_t columns = htons(7);
    for (int32_t col = 1; col <= COLS; col++)
        count += house.taken[col];
    bool unknown = house.unknown;
    house.views++;
    if (house.on_view)
        house.on_view();
    dynbuf_init(&body, 1 << 12);
    dynbuf_add(&body, &columns, 2);
    put_i32(&body, 4);
    put_i32(&body, 1);
    put_i32(&body, 4);
    put_i32(&body, COLS);
    put_i32(&body, count ? 20 + 8 * count : -1);
    if (count) {
        const int32_t head[] = {1, 0, 23, count, 1};
        for (int i = 0; i < 5; i++)
            put_i32(&body, head[i]);
    }
    for (int32_t col = 1; col <= COLS; col++) {
        if (house.taken[col]) {
            put_i32(&body, 4);
            put_i32(&body, col - 1);
        }
    }
    for (int i = 0; i < 4; i++)
        put_i32(&body, -1);
    fake_describe(session, 7);
    if (!unknown)
        fake_put(session, 'D', body.data, body.len);
    fake_complete(session, "SELECT 1");
    dynbuf_done(&body);
}

/* One request of a batch, numbered from 0. */
static void take(struct fake_session *session, unsigned number)
{
    static const char *const twin[] = {NULL, "replayed",  TWIN, "1795219200000000",
                                       NULL, "confirmed", NULL, "0",
                                       NULL, "{0,1}",     "4"};
    static const char *const done[] = {NULL, "booked",    NULL, "1795219200000000",
                                       NULL, "confirmed", NULL, "0"};
    static const char *const gone[] = {NULL, "seats_taken", NULL, NULL, "{1}"};
    const char *values[TAKE_COLUMNS] = {NULL};
    char ord[16];
    unsigned cols[COLS];
    unsigned count = 0;
    bool is_free = true;
    for (unsigned i = 0; i < fake_array_len(session, 10); i++) {
        if (fake_u32(fake_array_item(session, 10, i, 4)) != number + 1)
            continue;
        cols[count++] = fake_u32(fake_array_item(session, 12, i, 4));
        is_free &= !house.taken[cols[count - 1]];
    }
    house.looks += count == 0;
    if (house.twin && *fake_array_item(session, 6, number, 1)) /* looked for */
        memcpy(values, twin, sizeof(twin));
    else if (count && is_free)
        memcpy(values, done, sizeof(done));
    else
        memcpy(values, gone, sizeof(gone));
    for (unsigned i = 0; i < count && values[1] == done[1]; i++)
        house.taken[cols[i]] = true;
    snprintf(ord, sizeof(ord), "%u", number + 1);
    values[0] = ord;
    fake_row(session, TAKE_COLUMNS, values);
}

static bool plays(struct rig_server *server, struct fake_session *session)
{
    (void)server;
    if (strcmp(session->statement, "best_view") == 0) {
        view(session);
        return true;
    }
    if (strcmp(session->statement, "take_batch") != 0)
        return false;
    house.takes++;
    if (house.hangs) {
        house.hangs = false;
        fake_hang(session);
        return true;
    }
    unsigned looks = house.looks;
    fake_describe(session, TAKE_COLUMNS);
    for (unsigned i = 0; i < fake_array_len(session, 1); i++)
        take(session, i);
    fake_complete(session, "SELECT");
    if (house.looks > looks && house.after_look)
        house.after_look();
    return true;
}

/* --- buyers ----------------------------------------------------------------------------------- */

static void on_bought(void *arg, const struct book_result *result)
{
    struct buyer *buyer = arg;
    if (result->error == SG_OK && result->taken) {
        buyer->count = result->taken_count;
        memcpy(buyer->seats, result->taken, result->taken_count * sizeof(struct seat));
    }
    buyer->left = result->left;
    if (result->tier)
        snprintf(buyer->tier, sizeof(buyer->tier), "%s", result->tier);
    on_rig_booked(buyer->errand, result);
}

/* The same id is the twin's: what it has become is looked for. */
static void ask(struct rig *rig, struct buyer *buyer, const struct best_wish *wishes, size_t count,
                bool again)
{
    static const char *const id = "0190a8b0-0000-7000-8000-000000000002";
    *buyer = (struct buyer){.errand = rig_errand(rig)};
    struct book_request request = {.event_id = EVENT,
                                   .user_id = "u-1",
                                   .best = wishes,
                                   .best_count = count,
                                   .booking_id = again ? id : NULL,
                                   .request_id = "r"};
    assert_int_equal(router_book(rig->router, &request, on_bought, buyer), SG_OK);
    assert_int_equal(buyer->errand->answers, 0);
}

static void buy(struct rig *rig, struct buyer *buyer, int32_t quantity)
{
    ask(rig, buyer, &(struct best_wish){.quantity = quantity, .together = true}, 1, false);
}

static void expect(const struct buyer *buyer, enum sg_error error, int32_t first_col)
{
    assert_int_equal(buyer->errand->answers, 1);
    assert_string_equal(sg_error_code(buyer->errand->error), sg_error_code(error));
    if (error == SG_OK)
        assert_int_equal(buyer->seats[0].col, first_col);
}

static void sell(int32_t first, int32_t last)
{
    for (int32_t col = first; col <= last; col++)
        house.taken[col] = true;
}

static int setup(void **state)
{
    memset(&house, 0, sizeof(house));
    rig_setup(state);
    struct rig *rig = *state;
    house.rig = rig;
    rig->settings.booking.best_refresh_ms = 0;
    rig->servers[ALPHA_1].instead = plays;
    return 0;
}

/* --- choices ---------------------------------------------------------------------------------- */

static void test_the_best_that_are_left_after_one_read(void **state)
{
    struct rig *rig = *state;
    struct buyer buyers[3];
    rig_start_ready(rig);
    sell(2, 2);
    for (int i = 0; i < 3; i++)
        buy(rig, &buyers[i], 1);
    rig_wait(rig);
    expect(&buyers[0], SG_OK, 3); /* as near to the middle as what is sold */
    expect(&buyers[1], SG_OK, 1);
    expect(&buyers[2], SG_OK, 4);
    assert_int_equal(house.views, 1);
    assert_int_equal(house.takes, 1);
}

static void test_who_misses_chooses_again(void **state)
{
    struct rig *rig = *state;
    struct buyer buyer;
    rig_start_ready(rig);
    buy(rig, &buyer, 1);
    rig_wait(rig);
    expect(&buyer, SG_OK, 2);
    sell(3, 3); /* by others */
    buy(rig, &buyer, 1);
    rig_wait(rig);
    expect(&buyer, SG_OK, 1);
    assert_int_equal(house.views, 1);
    assert_int_equal(house.takes, 3);
}

static void test_a_tier_that_is_not_there_is_named(void **state)
{
    static const struct best_wish wishes[] = {{.quantity = 1}, {.quantity = 1, .tier = "pit"}};
    struct rig *rig = *state;
    struct buyer buyer;
    rig_start_ready(rig);
    ask(rig, &buyer, wishes, 2, false);
    rig_wait(rig);
    expect(&buyer, SG_UNKNOWN_TIER, 0);
    assert_string_equal(buyer.tier, "pit");
    assert_int_equal(house.takes, 0);
}

/* --- the "no" --------------------------------------------------------------------------------- */

static void test_a_no_comes_of_a_read_of_its_own(void **state)
{
    struct rig *rig = *state;
    struct buyer buyer;
    rig_start_ready(rig);
    sell(2, 3);
    buy(rig, &buyer, 2);
    rig_wait(rig);
    expect(&buyer, SG_NOT_TOGETHER, 0);
    sell(1, 1);
    buy(rig, &buyer, 2);
    rig_wait(rig);
    expect(&buyer, SG_SOLD_OUT, 0);
    assert_true(buyer.left == 1);
    house.taken[3] = false; /* given back, and nobody has told */
    buy(rig, &buyer, 2);
    rig_wait(rig);
    expect(&buyer, SG_OK, 3);
    assert_int_equal(house.views, 3);
}

static struct buyer late;

/* Behind the question, and before its answer. */
static void the_event_is_made(void)
{
    house.on_view = NULL;
    house.unknown = false;
    buy(house.rig, &late, 1);
}

static void test_an_event_is_unknown_only_to_who_came_before_the_read(void **state)
{
    struct rig *rig = *state;
    struct buyer early;
    rig_start_ready(rig);
    house.unknown = true;
    house.on_view = the_event_is_made;
    buy(rig, &early, 1);
    turn_until(rig->base, house.views == 1);
    rig_wait(rig);
    expect(&early, SG_UNKNOWN_EVENT, 0);
    expect(&late, SG_OK, 2);
    assert_int_equal(house.views, 2);
}

/* Somebody is at two of the seats, and may not get them. */
static void test_a_no_waits_for_attempts_that_matter_and_for_no_others(void **state)
{
    struct rig *rig = *state;
    struct buyer buyer;
    struct buyer first;
    struct buyer second;
    struct buyer hopeless;
    rig_start_ready(rig);
    sell(1, 1);
    buy(rig, &buyer, 1);
    rig_wait(rig);
    expect(&buyer, SG_OK, 2);
    house.hangs = true;
    buy(rig, &first, 2);
    buy(rig, &second, 2);
    buy(rig, &hopeless, 3);
    turn_until(rig->base, house.takes == 2);
    turn_until(rig->base, hopeless.errand->answers);
    expect(&hopeless, SG_SOLD_OUT, 0);
    turn_for(rig->base, 30);
    assert_int_equal(first.errand->answers + second.errand->answers, 0);
    sell(3, 4);                              /* others were faster */
    house.taken[1] = house.taken[2] = false; /* and these come back */
    fake_cut(rig->servers[ALPHA_1].postgres);
    rig_wait(rig);
    rig_check_once(rig);
    assert_true((first.errand->error == SG_OK) != (second.errand->error == SG_OK));
}

static void test_the_deadline_counts_for_who_waits(void **state)
{
    struct rig *rig = *state;
    struct buyer first;
    struct buyer second;
    rig->settings.booking.deadline_ms = 200;
    rig_start_ready(rig);
    house.hangs = true;
    buy(rig, &first, 3);
    turn_until(rig->base, house.takes == 1);
    buy(rig, &second, 3);
    rig_wait(rig);
    expect(&first, SG_OUTCOME_UNKNOWN, 0);
    expect(&second, SG_DEADLINE, 0);
    fake_cut(rig->servers[ALPHA_1].postgres);
    struct buyer third; /* what nobody knows of is not free before it has been read */
    rig->settings.booking.deadline_ms = 8000;
    buy(rig, &third, 3);
    rig_wait(rig);
    expect(&third, SG_OK, 1);
    assert_int_equal(house.views, 2);
    rig_check_once(rig);
}

/* --- double clicks ---------------------------------------------------------------------------- */

static void test_a_no_looks_for_the_twin_first(void **state)
{
    static const struct best_wish two = {.quantity = 2, .together = true};
    struct rig *rig = *state;
    struct buyer buyer;
    rig_start_ready(rig);
    sell(1, 4);
    house.twin = true;
    ask(rig, &buyer, &two, 1, true);
    rig_wait(rig);
    expect(&buyer, SG_OK, 1);
    assert_int_equal(buyer.count, 2);
    assert_string_equal(buyer.errand->booking_id, TWIN);
    house.twin = false;
    ask(rig, &buyer, &two, 1, true);
    rig_wait(rig);
    expect(&buyer, SG_SOLD_OUT, 0);
    assert_int_equal(house.looks, 2);
}

/* What changes the view behind the read that says "no". */
static void another_buys(void)
{
    struct seat seat = {1, 4};
    struct book_request request = {
        .event_id = EVENT, .user_id = "u-2", .seats = &seat, .seat_count = 1, .request_id = "r"};
    struct errand *errand = rig_errand(house.rig);
    house.on_view = NULL;
    assert_int_equal(router_book(house.rig->router, &request, on_rig_booked, errand), SG_OK);
}

/* Seats have come back, and the twin has them. */
static void the_twin_buys(void)
{
    house.twin = true;
    house.after_look = NULL;
}

static void test_behind_a_look_no_later_view_says_no(void **state)
{
    static const struct best_wish two = {.quantity = 2, .together = true};
    struct rig *rig = *state;
    struct buyer buyer;
    rig_start_ready(rig);
    sell(1, 3);
    house.on_view = another_buys;
    house.after_look = the_twin_buys;
    ask(rig, &buyer, &two, 1, true);
    rig_wait(rig);
    rig_check_once(rig);
    assert_int_equal(rig->errands[1].error, SG_OK);
    assert_int_equal(house.looks, 1);
    assert_int_equal(house.views, 1); /* a second one would not know of the twin */
    expect(&buyer, SG_SOLD_OUT, 0);
    assert_true(buyer.left == 1);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(test_the_best_that_are_left_after_one_read),
        HOUSE_TEST(test_who_misses_chooses_again),
        HOUSE_TEST(test_a_tier_that_is_not_there_is_named),
        HOUSE_TEST(test_a_no_comes_of_a_read_of_its_own),
        HOUSE_TEST(test_an_event_is_unknown_only_to_who_came_before_the_read),
        HOUSE_TEST(test_a_no_waits_for_attempts_that_matter_and_for_no_others),
        HOUSE_TEST(test_the_deadline_counts_for_who_waits),
        HOUSE_TEST(test_a_no_looks_for_the_twin_first),
        HOUSE_TEST(test_behind_a_look_no_later_view_says_no),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
