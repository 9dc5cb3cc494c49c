/*
 * Goal: the strategies of separate statements answer once and truly, whatever goes wrong at
 * whichever of their statements: a booking that was committed is never called lost or taken by
 * itself, one that was not is never called done, and no transaction is left open on a connection.
 * Method: a fake primary with a tiny model (one seat, one transaction) and every fault at every
 * statement of every strategy.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/router/router_rig.h"

#include "base/uuid.h"

#define LOOK_COLUMNS 11

enum fault {
    FAULT_NONE,
    DIES_BEFORE,     /* the statement was never carried out */
    DIES_AFTER,      /* it was, nobody heard */
    GOES_DOWN_AFTER, /* it was, and answered, and then FATAL before the Sync */
    SERIALIZATION,   /* ERROR 40001 in its place */
    FAILS_AT_SYNC,   /* done and answered, and then ERROR 40001 */
    GOES_DOWN_SOON,  /* ERROR 57P01 in its place, without an end */
    LASTING,         /* ERROR 22P05 in its place */
    FAULTS
};

/* What the fake primary holds, and where it is to fail. */
static struct {
    enum fault fault;
    char at[16];      /* the statement that fails, once */
    bool lose_claim;  /* one claim gets no seat: the way into ROLLBACK */
    unsigned open_on; /* the connection (its number) with a transaction; 0: none */
    bool claimed;     /* in the open transaction */
    bool committed;
    unsigned commits;
    char booking_id[ROUTER_UUID_LEN + 1];
} model;

static void read_booking_id(const struct fake_session *session, int param)
{
    int len;
    struct uuid uuid;
    memcpy(uuid.bytes, fake_param(session, param, &len), sizeof(uuid.bytes));
    assert_int_equal(len, sizeof(uuid.bytes));
    uuid_format(&uuid, model.booking_id);
}

static void look(struct fake_session *session)
{
    int len;
    bool recheck = *fake_param(session, 6, &len);
    char own[sizeof(model.booking_id)];
    memcpy(own, model.booking_id, sizeof(own));
    read_booking_id(session, 2);
    if (model.committed)
        assert_string_equal(own, model.booking_id); /* always under the same id */
    const char *taken[LOOK_COLUMNS] = {"seats_taken", NULL, NULL, "{1}", "{0}", "{NULL}"};
    const char *replayed[LOOK_COLUMNS] = {
        "replayed", model.booking_id, "1795219200000000", NULL, NULL, NULL, "confirmed"};
    const char *is_free[LOOK_COLUMNS] = {"free", NULL, NULL, NULL, "{0}", "{NULL}"};
    fake_describe(session, LOOK_COLUMNS);
    fake_row(session, LOOK_COLUMNS, !model.committed ? is_free : recheck ? replayed : taken);
    fake_complete(session, "SELECT 1");
}

static void claim(struct fake_session *session)
{
    bool lose = model.lose_claim;
    static const char *const seat[] = {"0"};
    model.lose_claim = false;
    model.claimed = !lose && !model.committed;
    fake_describe(session, 1);
    if (model.claimed)
        fake_row(session, 1, seat);
    fake_complete(session, "INSERT 0 1");
}

static void end_transaction(struct fake_session *session, bool commit)
{
    if (commit && model.open_on && model.claimed) {
        model.committed = true;
        model.commits++;
    }
    model.open_on = 0;
    model.claimed = false;
    fake_command(session, commit ? "COMMIT" : "ROLLBACK");
}

/* Carries out the statement. */
static void carry_out(struct rig_server *server, struct fake_session *session)
{
    const char *statement = session->statement;
    if (strcmp(statement, "begin") == 0) {
        assert_int_not_equal(model.open_on, server->postgres->accepted); /* none was left open */
        model.open_on = server->postgres->accepted;
        model.claimed = false;
        fake_command(session, "BEGIN");
    } else if (strcmp(statement, "lock") == 0) {
        fake_value(session, "");
    } else if (strcmp(statement, "look") == 0) {
        look(session);
    } else if (strncmp(statement, "claim", 5) == 0) {
        claim(session);
    } else if (strcmp(statement, "book") == 0) {
        static const char *const row[] = {"1795219200000000", "0", NULL};
        fake_describe(session, 3);
        fake_row(session, 3, row);
        fake_complete(session, "INSERT 0 1");
    } else if (strcmp(statement, "commit") == 0) {
        end_transaction(session, true);
    } else if (strcmp(statement, "rollback") == 0) {
        end_transaction(session, false);
    } else if (strcmp(statement, "wal") == 0) {
        assert_int_equal(model.open_on, 0);
        rig_wal(server, session);
    } else {
        fail_msg("the server was asked for %s", statement);
    }
}

static void forget_transaction(void)
{
    model.open_on = 0;
    model.claimed = false;
}

/* For the names of two statements that do the same step. */
static bool is_at(const char *statement)
{
    return strcmp(statement, model.at) == 0 ||
           (strcmp(model.at, "claim") == 0 && strcmp(statement, "claim_version") == 0);
}

static bool plays(struct rig_server *server, struct fake_session *session)
{
    enum fault fault = is_at(session->statement) ? model.fault : FAULT_NONE;
    size_t before = session->out.len;
    if (fault != FAULT_NONE)
        model.fault = FAULT_NONE;
    switch (fault) {
    case DIES_BEFORE:
        forget_transaction();
        fake_end(session);
        break;
    case DIES_AFTER:
        carry_out(server, session);
        session->out.len = before;
        forget_transaction();
        fake_end(session);
        break;
    case GOES_DOWN_AFTER:
        carry_out(server, session);
        forget_transaction();
        fake_fatal(session, "57P01");
        break;
    case FAILS_AT_SYNC:
        carry_out(server, session);
        fake_error_at_sync(session, "40001");
        break;
    case SERIALIZATION:
    case GOES_DOWN_SOON:
    case LASTING:
        if (strcmp(session->statement, "commit") == 0)
            forget_transaction();
        fake_error(session, fault == SERIALIZATION    ? "40001"
                            : fault == GOES_DOWN_SOON ? "57P01"
                                                      : "22P05");
        break;
    default:
        carry_out(server, session);
        break;
    }
    return true;
}

/* --- the stories -------------------------------------------------------------------------------
 */

static const char *const steps[] = {"begin", "lock",   "look",     "claim",
                                    "book",  "commit", "rollback", "wal"};

/* From there on a lasting error is nothing of the booking's own: a transaction that could not be
 * ended costs the connection, and what is behind the commit costs the token. */
static bool is_behind(const char *statement)
{
    return strcmp(statement, "rollback") == 0 || strcmp(statement, "commit") == 0 ||
           strcmp(statement, "wal") == 0;
}

static void play(struct rig *rig, enum fault fault, const char *at)
{
    unsigned first = rig->errand_count;
    memset(&model, 0, sizeof(model));
    model.fault = fault;
    model.lose_claim = strcmp(at, "rollback") == 0;
    snprintf(model.at, sizeof(model.at), "%s", at);
    rig_book(rig, 5);
    rig_wait(rig);
    struct errand *errand = &rig->errands[first];
    bool reached = model.fault == FAULT_NONE;
    enum sg_error expected = fault == LASTING && reached && !is_behind(at) ? SG_INTERNAL : SG_OK;
    if (errand->answers != 1 || errand->error != expected || errand->replayed ||
        model.committed != (expected == SG_OK) || model.commits > 1)
        fail_msg("fault %d at %s: %s, replayed %d, committed %d, commits %u", (int)fault, at,
                 sg_error_code(errand->error), errand->replayed, model.committed, model.commits);
    if (expected == SG_OK)
        assert_string_equal(errand->booking_id, model.booking_id);
    assert_int_equal(model.open_on, 0);
}

static void play_all(struct rig *rig, enum booking_strategy strategy)
{
    rig->settings.booking.strategy = strategy;
    rig->settings.booking.connections = 1;
    rig->servers[ALPHA_1].instead = plays;
    rig_start_ready(rig);
    for (int fault = FAULT_NONE; fault < FAULTS; fault++) {
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
            play(rig, (enum fault)fault, steps[i]);
    }
    rig_check_once(rig);
}

static void test_naive(void **state)
{
    play_all(*state, STRATEGY_NAIVE);
}

static void test_pessimistic(void **state)
{
    play_all(*state, STRATEGY_PESSIMISTIC);
}

static void test_optimistic(void **state)
{
    play_all(*state, STRATEGY_OPTIMISTIC);
}

static bool hangs_at_commit(struct rig_server *server, struct fake_session *session)
{
    if (strcmp(session->statement, "commit") == 0) {
        fake_hang(session);
        return true;
    }
    return plays(server, session);
}

static void test_a_silent_commit_is_an_unknown_outcome(void **state)
{
    struct rig *rig = *state;
    memset(&model, 0, sizeof(model));
    rig->settings.booking.strategy = STRATEGY_NAIVE;
    rig->settings.booking.connections = 1;
    rig->settings.booking.deadline_ms = 100;
    rig->servers[ALPHA_1].instead = hangs_at_commit;
    rig_start_ready(rig);
    rig_book(rig, 5);
    rig_wait(rig);
    rig_check_errors(rig, 0, 1, SG_OUTCOME_UNKNOWN);
    rig_stop(rig);
    rig_check_once(rig);
}

static void test_free_in_the_middle(void **state)
{
    struct rig *rig = *state;
    memset(&model, 0, sizeof(model));
    rig->settings.booking.strategy = STRATEGY_PESSIMISTIC;
    rig->settings.booking.connections = 1;
    rig->servers[ALPHA_1].instead = hangs_at_commit;
    rig_start_ready(rig);
    for (int i = 0; i < 3; i++)
        rig_book(rig, 5);
    turn_for(rig->base, 30);
    rig_stop(rig);
    assert_int_equal(rig->answers, 3);
    rig_check_once(rig);
    rig_check_errors(rig, 0, 1, SG_OUTCOME_UNKNOWN);
    rig_check_errors(rig, 1, 3, SG_SHARD_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_naive),
        RIG_TEST(test_pessimistic),
        RIG_TEST(test_optimistic),
        RIG_TEST(test_a_silent_commit_is_an_unknown_outcome),
        RIG_TEST(test_free_in_the_middle),
    };
    log_setup(LOG_LEVEL_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
