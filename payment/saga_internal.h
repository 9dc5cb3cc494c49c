/*
 * What the runner's two files share: saga.c has the orders of a worker and whoever speaks to them,
 * saga_order.c drives one of them. See saga.h.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_SAGA_INTERNAL_H
#define SG_PAYMENT_SAGA_INTERNAL_H

#include <sys/queue.h>

#include "payment/saga.h"

#define PROBLEM_SIZE 40

/* What an order is at. */
enum order_doing {
    DOING_NOTHING,  /* new, or ended */
    DOING_STEP,     /* a step of the shard is under way */
    DOING_LATER,    /* the shard is told that it waits */
    DOING_QUESTION, /* the payment service is asked */
    DOING_PAUSE,    /* a timer runs */
};

/* Asked of the payment service; answered once, whatever became of the order. */
struct question {
    struct open_order *order; /* NULL: nobody wants the answer any more */
    struct saga *saga;
    enum saga_action what;
};

/* Who waits for the end of an order. */
struct waiter {
    LIST_ENTRY(waiter) entry;
    struct event *timer;
    struct open_order *order;
    saga_fn *fn;
    void *arg;
    struct book_result book;
    struct seat taken[];
};

/* What a callback said, and who wants to know that it was heard. */
struct notice {
    bool there;
    enum pay_outcome outcome;
    saga_notice_fn *fn;
    void *arg;
};

struct open_order {
    LIST_ENTRY(open_order) entry;  /* of its bucket */
    TAILQ_ENTRY(open_order) order; /* of all */
    struct saga *saga;
    char order_id[ROUTER_UUID_LEN + 1];
    int64_t event_id;
    char shard[SHARDMAP_NAME_MAX + 1]; /* that has it */
    int64_t amount;
    char currency[PAY_CURRENCY_LEN + 1];
    char method[ROUTER_METHOD_MAX + 1];
    enum saga_state state; /* as the shard had it last */
    enum order_doing doing;
    enum saga_state to; /* DOING_STEP */
    struct question *question;
    struct event *timer;
    int64_t began_us; /* monotonic */
    int64_t lease_until_us;
    unsigned pauses; /* in this state */
    int64_t pause_ms;
    char problem[PROBLEM_SIZE]; /* "" for none */
    struct read_token token;
    struct notice notice;
    bool ended;
    LIST_HEAD(, waiter) waiters;
};

/* One shard is asked for orders that are due: each by itself, so that one that does not answer
 * keeps none of the others waiting. */
struct due_look {
    LIST_ENTRY(due_look) entry;
    struct saga *saga;
    char shard[SHARDMAP_NAME_MAX + 1];
};

#define BUCKETS 4096

struct saga {
    struct saga_config config;
    struct payment_provider *provider;
    struct event *due_timer;
    const char *crash_at; /* NULL: nowhere */
    size_t open;
    size_t starting; /* requests whose reservation is under way */
    LIST_HEAD(, due_look) looks;
    bool draining;
    bool stopping;
    struct metrics_series *open_gauge;
    TAILQ_HEAD(, open_order) orders;
    LIST_HEAD(, open_order) buckets[BUCKETS];
};

/* --- saga_order.c ----------------------------------------------------------------------------- */

/* Something happened to an order that waits for nothing of the shard. It may have ended when this
 * returns: then it is on the reap list. */
void order_happen(struct open_order *order, enum saga_event event);
/* Its timer's callback. */
void order_on_pause_over(int fd, short what, void *arg);
/* The order as it stands, to one that waits, who is gone then; to all of them. */
void order_tell(struct waiter *waiter);
void order_tell_waiters(struct open_order *order);
/* Takes the answer under way, the pause and the timer from an order. */
void order_let_go(struct open_order *order);
/* A callback of the payment service; the order has none waiting. fn runs when it is durable. */
void order_notice(struct open_order *order, enum pay_outcome outcome, saga_notice_fn *fn,
                  void *arg);

/* --- saga.c ----------------------------------------------------------------------------------- */

/* Kills the process if it was told to at this point. */
void saga_crash_point(const struct saga *saga, const char *name);
/* Takes it from the list; it is freed from the loop. */
void saga_forget(struct open_order *order);

#endif
