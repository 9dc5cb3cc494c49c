/*
 * The states of an order.
 *
 * Goal: every state and event leads where saga_state.h says; whatever happens in whatever order,
 * crashes, two processes at once, answers lost, callbacks twice, late and stale, the money that was
 * taken is the money of confirmed orders and what was given back, and every order ends.
 * Method: the whole table once more by hand; then thousands of histories from a seed, of a model of
 * the shard (compare-and-set), a payment service (keeps its promises, has no manners) and processes
 * that run the real machine and die anywhere.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "payment/saga_state.h"

/* --- the table -------------------------------------------------------------------------------- */

/* read entered pause_over too_late free step_lost | succeeded declined pending unknown none
 * cancelled refunded. A state's name: a step there. "-": keep. */
static const struct {
    const char *state;
    const char *moves[SAGA_EVENT_COUNT];
} expected[] = {
    {"reserved",
     {"charging", "charging", "charging", "cancel", "confirmed", "wait", "charging", "failed", "-",
      "wait", "-", "failed", "charging"}},
    {"charging",
     {"ask", "charge", "ask", "cancel", "-", "wait", "charged", "failed", "wait", "wait", "charge",
      "failed", "failed"}},
    {"charged",
     {"confirmed", "confirmed", "confirmed", "confirmed", "-", "wait", "-", "-", "-", "-", "-", "-",
      "-"}},
    {"confirmed", {"end", "end", "end", "end", "-", "wait", "-", "-", "-", "-", "-", "-", "-"}},
    {"failed",
     {"end", "end", "end", "end", "-", "wait", "refunding", "-", "-", "-", "-", "-", "-"}},
    {"refunding",
     {"refund", "refund", "refund", "refund", "-", "wait", "-", "refunded", "wait", "wait", "wait",
      "refunded", "refunded"}},
    {"refunded", {"end", "end", "end", "end", "-", "wait", "-", "-", "-", "-", "-", "-", "-"}},
    {"lost",
     {"cancel", "cancel", "cancel", "cancel", "-", "wait", "refund", "end", "wait", "wait", "wait",
      "end", "end"}},
};

static void every_state_and_event(void **unused)
{
    (void)unused;
    assert_int_equal(sizeof(expected) / sizeof(*expected), SAGA_STATE_COUNT);
    for (int s = 0; s < SAGA_STATE_COUNT; s++) {
        enum saga_state state = saga_state_by_name(expected[s].state);
        assert_int_equal(state, s);
        for (int e = 0; e < SAGA_EVENT_COUNT; e++) {
            const char *wanted = expected[s].moves[e];
            struct saga_move move = saga_next(state, (enum saga_event)e);
            const char *got = move.action == SAGA_STEP   ? saga_state_name(move.to)
                              : move.action == SAGA_KEEP ? "-"
                                                         : saga_action_name(move.action);
            if (strcmp(got, wanted) != 0)
                fail_msg("%s, event %d: %s instead of %s", expected[s].state, e, got, wanted);
            if (move.action != SAGA_STEP)
                assert_int_equal(move.to, state);
            else
                assert_int_not_equal(move.to, state);
        }
    }
}

static void names_are_found_again(void **unused)
{
    (void)unused;
    for (int s = 0; s < SAGA_STATE_COUNT; s++)
        assert_int_equal(saga_state_by_name(saga_state_name((enum saga_state)s)), s);
    assert_int_equal(saga_state_by_name("releasing"), SAGA_STATE_COUNT);
    assert_int_equal(saga_state_by_name(""), SAGA_STATE_COUNT);
    for (int o = 0; o < PAY_OUTCOME_COUNT; o++) {
        assert_int_equal(pay_outcome_by_name(pay_outcome_name((enum pay_outcome)o)), o);
        assert_int_equal(saga_event_of((enum pay_outcome)o), SAGA_PAY_SUCCEEDED + o);
    }
    assert_int_equal(pay_outcome_by_name("nonsense"), PAY_OUTCOME_COUNT);
    assert_null(saga_step_name(SAGA_RESERVED));
    assert_null(saga_step_name(SAGA_LOST));
    assert_string_equal(saga_step_name(SAGA_CONFIRMED), "confirm");
}

static void only_the_whole_money_fits(void **unused)
{
    const struct payment_word taken = {.outcome = PAY_SUCCEEDED, .amount = 4500, .currency = "EUR"};
    const struct payment_word back = {.outcome = PAY_REFUNDED, .amount = 4500, .currency = "EUR"};
    const struct payment_word declined = {.outcome = PAY_DECLINED};
    (void)unused;
    assert_true(saga_word_fits(&taken, 4500, "EUR"));
    assert_false(saga_word_fits(&taken, 4501, "EUR"));
    assert_false(saga_word_fits(&taken, 4500, "USD"));
    assert_false(saga_word_fits(&taken, 4500, NULL));
    assert_true(saga_word_fits(&back, 4500, "EUR"));
    assert_false(saga_word_fits(&back, 1, "EUR"));
    assert_true(saga_word_fits(&declined, 4500, "EUR"));
}

/* --- the model -------------------------------------------------------------------------------- */

/* Nothing more happens by itself. */
static bool is_final(enum saga_state state)
{
    return state == SAGA_CONFIRMED || state == SAGA_FAILED || state == SAGA_REFUNDED;
}

#define PROCESSES 3
#define NOTICES 8
#define AMOUNT 100

/* The service: at most one charge, cancel is final. */
struct service {
    enum pay_outcome state; /* PAY_NONE: never heard of */
    bool will_succeed;
    int64_t taken;
    int64_t given_back;
    int charge_on_its_way; /* requests that were sent and have not arrived yet */
    int notice_count;
    enum pay_outcome notices[NOTICES]; /* callbacks on their way, each may come twice */
};

struct shard {
    enum saga_state state;
    bool free;       /* the order costs nothing */
    bool seats_gone; /* another has them */
    int entered[SAGA_STATE_COUNT];
};

struct process {
    bool alive;
    enum saga_state state;    /* as it knows it */
    enum saga_action waiting; /* KEEP: has nothing to do */
    enum saga_state to;
    bool paused; /* WAIT */
};

struct model {
    uint64_t random;
    struct shard shard;
    struct service service;
    struct process processes[PROCESSES];
    bool too_late;
    bool calm; /* no more faults */
};

static unsigned draw(struct model *model, unsigned below)
{
    model->random = hash_u64(model->random);
    return (unsigned)((model->random >> 20) % below);
}

static bool chance(struct model *model, unsigned percent)
{
    return draw(model, 100) < percent;
}

/* --- the model's service ---------------------------------------------------------------------- */

static void notify(struct model *model, enum pay_outcome outcome)
{
    struct service *service = &model->service;
    if (service->notice_count < NOTICES)
        service->notices[service->notice_count++] = outcome;
}

static void service_decide(struct model *model)
{
    struct service *service = &model->service;
    service->state = service->will_succeed ? PAY_SUCCEEDED : PAY_DECLINED;
    if (service->will_succeed)
        service->taken += AMOUNT;
    notify(model, service->state);
    if (chance(model, 30))
        notify(model, service->state);
}

static enum pay_outcome service_charge(struct model *model)
{
    struct service *service = &model->service;
    if (service->state == PAY_NONE) {
        service->state = PAY_PENDING;
        if (chance(model, 60))
            service_decide(model);
    }
    return service->state;
}

static enum pay_outcome service_cancel(struct model *model)
{
    struct service *service = &model->service;
    if (service->state == PAY_NONE || service->state == PAY_PENDING)
        service->state = PAY_CANCELLED;
    return service->state;
}

static enum pay_outcome service_refund(struct model *model)
{
    struct service *service = &model->service;
    if (service->state == PAY_SUCCEEDED) {
        service->state = PAY_REFUNDED;
        service->given_back += AMOUNT;
    }
    return service->state;
}

/* A question: it arrives or does not, the answer comes or does not. */
static enum pay_outcome put_question(struct model *model, enum saga_action action)
{
    struct service *service = &model->service;
    bool lost = !model->calm && chance(model, 25);
    enum pay_outcome outcome;
    if (action == SAGA_CHARGE && !model->calm && chance(model, 20)) {
        service->charge_on_its_way++; /* arrives when nobody thinks of it any more */
        return PAY_UNKNOWN;
    }
    if (lost && chance(model, 50))
        return PAY_UNKNOWN;
    if (action == SAGA_CHARGE)
        outcome = service_charge(model);
    else if (action == SAGA_CANCEL)
        outcome = service_cancel(model);
    else if (action == SAGA_REFUND)
        outcome = service_refund(model);
    else
        outcome = service->state;
    if ((action == SAGA_ASK || action == SAGA_REFUND) && !model->calm && chance(model, 10))
        return PAY_NONE; /* 404, of something in front of the service */
    return lost ? PAY_UNKNOWN : outcome;
}

/* --- the model's shard ------------------------------------------------------------------------ */

/* order_step() of migrations/0005_life.sql. False: it was in another state. */
static bool shard_step(struct model *model, enum saga_state from, enum saga_state to)
{
    struct shard *shard = &model->shard;
    if (shard->state != from)
        return false;
    bool allowed = (to == SAGA_CHARGING && from == SAGA_RESERVED) ||
                   (to == SAGA_CHARGED && from == SAGA_CHARGING) ||
                   (to == SAGA_CONFIRMED &&
                    (from == SAGA_CHARGED || (from == SAGA_RESERVED && shard->free))) ||
                   (to == SAGA_FAILED && (from == SAGA_RESERVED || from == SAGA_CHARGING)) ||
                   (to == SAGA_REFUNDING && from == SAGA_FAILED && !shard->free) ||
                   (to == SAGA_REFUNDED && from == SAGA_REFUNDING);
    if (!allowed)
        fail_msg("no step from %s to %s", saga_state_name(from), saga_state_name(to));
    if (to == SAGA_CONFIRMED && shard->seats_gone)
        to = shard->free ? SAGA_FAILED : SAGA_REFUNDING;
    shard->state = to;
    shard->entered[to]++;
    return true;
}

/* --- the model's processes -------------------------------------------------------------------- */

static void happen(struct model *model, struct process *process, enum saga_event event)
{
    bool begins = event == SAGA_READ || event == SAGA_ENTERED || event == SAGA_PAUSE_OVER;
    if (begins && model->too_late)
        event = SAGA_TOO_LATE;
    if (begins && model->shard.free && process->state == SAGA_RESERVED)
        event = SAGA_FREE;
    struct saga_move move = saga_next(process->state, event);
    if (move.action == SAGA_KEEP) { /* an answer that is no news is waited over */
        if (process->waiting == SAGA_KEEP)
            process->paused = true;
        return;
    }
    process->paused = move.action == SAGA_WAIT;
    process->waiting =
        move.action == SAGA_WAIT || move.action == SAGA_END ? SAGA_KEEP : move.action;
    process->to = move.to;
    if (move.action == SAGA_END)
        process->alive = false;
}

static void take_over(struct model *model, struct process *process)
{
    *process = (struct process){.alive = true, .state = model->shard.state};
    happen(model, process, SAGA_READ);
}

static void make_step(struct model *model, struct process *process)
{
    bool unanswered = !model->calm && chance(model, 20);
    enum saga_state from = process->state;
    process->waiting = SAGA_KEEP;
    if (unanswered && chance(model, 50)) {
        happen(model, process, SAGA_STEP_LOST);
        return;
    }
    bool done = shard_step(model, from, process->to);
    if (unanswered) {
        happen(model, process, SAGA_STEP_LOST);
        return;
    }
    process->state = model->shard.state;
    happen(model, process, done ? SAGA_ENTERED : SAGA_READ);
}

static void go_on(struct model *model, struct process *process)
{
    enum saga_action action = process->waiting;
    if (process->paused) {
        process->paused = false;
        happen(model, process, SAGA_PAUSE_OVER);
    } else if (action == SAGA_STEP) {
        make_step(model, process);
    } else if (action != SAGA_KEEP) {
        process->waiting = SAGA_KEEP;
        enum pay_outcome outcome = put_question(model, action);
        if (!model->calm && chance(model, 10))
            process->alive = false; /* killed before it heard the answer */
        else
            happen(model, process, saga_event_of(outcome));
    }
}

static struct process *any_process(struct model *model)
{
    return &model->processes[draw(model, PROCESSES)];
}

/* A callback comes to some process, which reads the order for it if need be. */
static void deliver_notice(struct model *model)
{
    struct service *service = &model->service;
    if (service->notice_count == 0)
        return;
    enum pay_outcome outcome = service->notices[draw(model, (unsigned)service->notice_count)];
    if (chance(model, 60)) /* else it comes again */
        service->notices[0] = service->notices[--service->notice_count];
    struct process *process = any_process(model);
    if (!process->alive)
        take_over(model, process);
    if (process->waiting == SAGA_STEP)
        return; /* looked at when no step is under way; here: the next time it comes */
    enum saga_action before = process->waiting;
    process->waiting = SAGA_ASK; /* so that no news changes nothing */
    bool paused = process->paused;
    happen(model, process, saga_event_of(outcome));
    if (process->waiting == SAGA_ASK && !process->paused) {
        process->waiting = before;
        process->paused = paused;
    }
    if (is_final(process->state) && process->waiting == SAGA_KEEP)
        process->alive = false;
}

static void something_happens(struct model *model)
{
    struct service *service = &model->service;
    struct process *process = any_process(model);
    switch (draw(model, 8)) {
    case 0:
        if (!process->alive)
            take_over(model, process); /* a lease ran out, or a callback came */
        break;
    case 1:
        if (chance(model, 30))
            process->alive = false;
        break;
    case 2:
        if (service->charge_on_its_way) {
            service->charge_on_its_way--;
            service_charge(model);
        }
        break;
    case 3:
        if (service->state == PAY_PENDING)
            service_decide(model);
        break;
    case 4:
        deliver_notice(model);
        break;
    case 5:
        if (chance(model, 5))
            model->too_late = true;
        if (chance(model, 5) && model->shard.state != SAGA_CONFIRMED)
            model->shard.seats_gone = true;
        break;
    default:
        if (process->alive)
            go_on(model, process);
    }
}

static void check_safe(const struct model *model)
{
    const struct service *service = &model->service;
    const struct shard *shard = &model->shard;
    assert_true(service->taken == 0 || service->taken == AMOUNT);
    assert_true(service->given_back <= service->taken);
    if (shard->state == SAGA_CONFIRMED && !shard->free)
        assert_int_equal(service->taken - service->given_back, AMOUNT);
    if (shard->state == SAGA_REFUNDED || shard->state == SAGA_FAILED)
        assert_int_equal(service->taken, service->given_back);
    for (int i = 0; i < SAGA_STATE_COUNT; i++)
        assert_true(shard->entered[i] <= 1);
}

static void run_history(uint64_t seed)
{
    struct model model = {.random = seed, .service = {.state = PAY_NONE}};
    model.service.will_succeed = chance(&model, 70);
    model.shard.free = chance(&model, 10);
    model.shard.entered[SAGA_RESERVED] = 1;
    for (int i = 0; i < 120; i++) {
        something_happens(&model);
        check_safe(&model);
    }
    /* The faults are over: one living process is enough, and time passes. */
    model.calm = true;
    model.too_late = model.too_late || chance(&model, 50);
    while (model.service.charge_on_its_way) {
        model.service.charge_on_its_way--;
        service_charge(&model);
        check_safe(&model);
    }
    for (int i = 0; i < 100 && !is_final(model.shard.state); i++) {
        struct process *process = &model.processes[0];
        if (!process->alive)
            take_over(&model, process);
        go_on(&model, process);
        if (model.service.state == PAY_PENDING && chance(&model, 30))
            service_decide(&model);
        check_safe(&model);
    }
    if (!is_final(model.shard.state))
        fail_msg("seed %llu: still %s", (unsigned long long)seed,
                 saga_state_name(model.shard.state));
    for (int i = 0; i < 40; i++) { /* what is still under way changes nothing */
        deliver_notice(&model);
        for (int k = 0; k < PROCESSES; k++) {
            if (model.processes[k].alive)
                go_on(&model, &model.processes[k]);
        }
        check_safe(&model);
    }
    assert_true(is_final(model.shard.state));
}

static void any_history_balances(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20000; seed++)
        run_history(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_and_event),
        cmocka_unit_test(names_are_found_again),
        cmocka_unit_test(only_the_whole_money_fits),
        cmocka_unit_test(any_history_balances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
