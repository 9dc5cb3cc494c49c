/*
 * Typed, checked reads on a configuration file: the one place that talks to libconfig.
 *
 *   file ── cfgread_file ──> tree ── cfgread_int, _string, _groups ... ──> values
 *                                 └─ cfgread_problem ──> "file:line: key: what; how to mend it"
 *
 * Called by settings.c and by the shard map's loader, which go through the tree once, collect every
 * problem and ask for the verdict at the end. Hides libconfig and the differences of its versions:
 * a whole number is a whole number, of 64 bits, however it is written; nothing is converted, and a
 * key that nobody knows is a problem. Neither a file nor a text can make it exit.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_CFGREAD_H
#define SG_BASE_CFGREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct cfgread;
struct config_setting_t; /* libconfig's, opaque here; borrowed from the cfgread it came from */
struct dynbuf;

#define CFGREAD_FILE_MAX_BYTES (64 << 20)
#define CFGREAD_PROBLEMS_MAX 1000 /* further ones are only counted */

enum cfgread_need { CFGREAD_OPTIONAL, CFGREAD_REQUIRED };

/* Reads and parses a regular file of at most CFGREAD_FILE_MAX_BYTES. SG_IO if it cannot be read,
 * SG_CONFIG_INVALID, SG_NO_MEMORY; then the reason is in *errors. `errors` is borrowed until
 * cfgread_free. */
enum sg_error cfgread_file(const char *path, struct dynbuf *errors, struct cfgread **ret_read);
/* The same from memory; `name` stands for the file in messages. */
enum sg_error cfgread_text(const char *name, const char *text, struct dynbuf *errors,
                           struct cfgread **ret_read);
void cfgread_free(struct cfgread *read);

/* SG_CONFIG_INVALID if there was any problem, else SG_OK. Call once, at the end. */
enum sg_error cfgread_verdict(struct cfgread *read);
size_t cfgread_problem_count(const struct cfgread *read);

/* The group that is the file itself. */
const struct config_setting_t *cfgread_root(const struct cfgread *read);
bool cfgread_has(const struct config_setting_t *group, const char *key);
int cfgread_line(const struct config_setting_t *setting);

/* Notes a problem at `setting`, or at its member `key` if given (which may be missing). */
void cfgread_problem(struct cfgread *read, const struct config_setting_t *setting, const char *key,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));

/* A problem for every member of the group that is none of `keys` (ended by NULL). */
void cfgread_known_keys(struct cfgread *read, const struct config_setting_t *group,
                        const char *const *keys);

/* The member as a group; NULL if it is absent, or none (a problem). */
const struct config_setting_t *cfgread_group(struct cfgread *read,
                                             const struct config_setting_t *group, const char *key);
/* The member as a list of groups, `( { ... }, { ... } )`. NULL if it is absent (a problem if it is
 * required) or something else (a problem). */
const struct config_setting_t *cfgread_groups(struct cfgread *read,
                                              const struct config_setting_t *group, const char *key,
                                              enum cfgread_need need);
size_t cfgread_length(const struct config_setting_t *list);
const struct config_setting_t *cfgread_element(const struct config_setting_t *list, size_t index);

/* The member as a whole number of min..max. False and *ret_value untouched if it is absent or, a
 * problem, something else. */
bool cfgread_int(struct cfgread *read, const struct config_setting_t *group, const char *key,
                 enum cfgread_need need, int64_t min, int64_t max, int64_t *ret_value);
/* The member as a string of at most max_len bytes without control characters; borrowed. False and
 * *ret_value untouched if it is absent or, a problem, something else. */
bool cfgread_string(struct cfgread *read, const struct config_setting_t *group, const char *key,
                    enum cfgread_need need, size_t max_len, const char **ret_value);

/* The word among `words` (ended by NULL) that was probably meant, or NULL. Pure. */
const char *cfgread_suggest(const char *word, const char *const *words);

#endif
