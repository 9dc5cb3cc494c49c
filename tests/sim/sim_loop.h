/*
 * Virtual time: the event loop, the clock and the random numbers of the simulation.
 *
 *   real code ── event_add, event_active ──> one queue by (time, order) ── sim_run ──> callbacks
 *
 * Stands in for libevent's events and bases, clock_gettime, arc4random_uniform and arc4random_buf
 * at link time, so that the code under test is the code that ships. Each simulated process has an
 * event_base of its own; all live in one queue, so that one seed replays one history. A process
 * that is killed (sim_base_kill) runs no callback any more. File descriptors and signals are not
 * simulated: nothing that is linked here may ask for them.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_SIM_LOOP_H
#define SG_TESTS_SIM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct event_base;

/* Everything begins anew at time zero; what was left of the last run is freed. */
void sim_loop_reset(uint64_t seed);
int64_t sim_now_us(void);
/* A number from 0 to bound - 1, from the seed. */
uint32_t sim_random(uint32_t bound);
bool sim_chance(uint32_t percent);

/* A process. */
struct event_base *sim_base_new(void);
/* Nothing of it runs from now on. */
void sim_base_kill(struct event_base *base);
bool sim_base_lives(const struct event_base *base);

/* Calls fn(arg) once in so long, whatever lives; for the world outside the processes. */
void sim_after(int64_t us, void (*fn)(void *arg), void *arg);
/* Runs until the time, or until nothing is left to do. */
void sim_run(int64_t until_us);

#endif
