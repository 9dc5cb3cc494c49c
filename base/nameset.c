/*
 * A sorted set of texts. See nameset.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/nameset.h"

#include <stdlib.h>
#include <string.h>

/* Where the name is (*ret_found), or belongs. */
static size_t place_of(const struct nameset *set, const char *name, bool *ret_found)
{
    size_t from = 0;
    size_t to = set->count;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        const int order = strcmp(set->names[middle], name);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            from = middle + 1;
        else
            to = middle;
    }
    *ret_found = false;
    return from;
}

static bool grow(struct nameset *set)
{
    const size_t size = set->size ? set->size * 2 : 16;
    char **names = realloc(set->names, size * sizeof *names);
    if (!names)
        return false;
    set->names = names;
    set->size = size;
    return true;
}

void nameset_done(struct nameset *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->names[i]);
    free(set->names);
    *set = (struct nameset){0};
}

bool nameset_has(const struct nameset *set, const char *name)
{
    bool found;
    place_of(set, name, &found);
    return found;
}

bool nameset_add(struct nameset *set, const char *name, bool *ret_added)
{
    bool found;
    const size_t at = place_of(set, name, &found);
    if (!found) {
        char *copy = strdup(name);
        if (!copy || (set->count == set->size && !grow(set))) {
            free(copy);
            return false;
        }
        memmove(set->names + at + 1, set->names + at, (set->count - at) * sizeof *set->names);
        set->names[at] = copy;
        set->count++;
    }
    if (ret_added)
        *ret_added = !found;
    return true;
}

bool nameset_remove(struct nameset *set, const char *name)
{
    bool found;
    const size_t at = place_of(set, name, &found);
    if (!found)
        return false;
    free(set->names[at]);
    set->count--;
    memmove(set->names + at, set->names + at + 1, (set->count - at) * sizeof *set->names);
    return true;
}
