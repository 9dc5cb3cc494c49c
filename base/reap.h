/*
 * The reap list: what must be freed, but not while a callback of it may still be on the stack.
 *
 * One list an event loop. Objects are put on it from anywhere in that loop; they are freed when
 * control is back in the loop, before it waits again.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_REAP_H
#define SG_BASE_REAP_H

struct event_base;
struct reap_list;

struct reap_list *reap_list_new(struct event_base *base);
/* Frees what is still on it, then the list. */
void reap_list_free(struct reap_list *list);
/* Calls free_fn(object) soon, from the loop. Each object at most once. Never fails. */
void reap(struct reap_list *list, void *object, void (*free_fn)(void *object));

#endif
