/*
 * A set of texts, kept sorted: for a few thousand names that are looked up often and change now
 * and then. Pure.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_NAMESET_H
#define SG_BASE_NAMESET_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialised it is empty. The names are its own, in the order of strcmp. */
struct nameset {
    char **names;
    size_t count;
    size_t size;
};

void nameset_done(struct nameset *set);
bool nameset_has(const struct nameset *set, const char *name);
/* False when memory runs out. *ret_added, which may be NULL: it was not there before. */
bool nameset_add(struct nameset *set, const char *name, bool *ret_added);
/* True if it was there. */
bool nameset_remove(struct nameset *set, const char *name);

#endif
