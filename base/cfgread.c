/*
 * Checked reads on libconfig. See cfgread.h.
 *
 * The text is read here and given to libconfig as a string: its own file reader calls exit() when a
 * read fails, on a directory for instance. Before that it passes base/cfgscan.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/cfgread.h"

#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cfgscan.h"
#include "base/dynbuf.h"

#define PATH_MAX_BYTES 256 /* of a key with all its parents */
#define SUGGEST_MAX_BYTES 64

struct cfgread {
    config_t config;
    char *name;
    struct dynbuf *errors;
    size_t problem_count;
};

/* NULL if there is none. libconfig's own search takes the name for a path and is slower. */
static const config_setting_t *find_member(const config_setting_t *group, const char *key)
{
    unsigned count = (unsigned)config_setting_length(group);
    for (unsigned i = 0; i < count; i++) {
        const config_setting_t *found = config_setting_get_elem(group, i);
        const char *name = config_setting_name(found);
        if (name && strcmp(name, key) == 0)
            return found;
    }
    return NULL;
}

/* --- problems --------------------------------------------------------------------------------- */

/* "shards[0].nodes[1]" into `path`; longer ones are cut. */
static void key_path(const config_setting_t *setting, char *path, size_t size)
{
    path[0] = '\0';
    if (!setting || config_setting_is_root(setting))
        return;
    key_path(config_setting_parent(setting), path, size);
    size_t len = strlen(path);
    const char *name = config_setting_name(setting);
    if (name)
        snprintf(path + len, size - len, "%s%s", len ? "." : "", name);
    else
        snprintf(path + len, size - len, "[%d]", config_setting_index(setting));
}

/* A text that was cut may end in half a UTF-8 sequence: drop it. */
static void cut_whole_characters(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && (unsigned char)text[len - 1] >= 0x80)
        text[--len] = '\0';
}

void cfgread_problem(struct cfgread *read, const config_setting_t *setting, const char *key,
                     const char *format, ...)
{
    char path[PATH_MAX_BYTES];
    char what[512];
    if (++read->problem_count > CFGREAD_PROBLEMS_MAX)
        return;
    const config_setting_t *member = key ? find_member(setting, key) : NULL;
    int line = cfgread_line(member ? member : setting);
    key_path(setting, path, sizeof(path));
    size_t len = strlen(path);
    if (key)
        snprintf(path + len, sizeof(path) - len, "%s%s", len ? "." : "", key);
    va_list args;
    va_start(args, format);
    if (vsnprintf(what, sizeof(what), format, args) >= (int)sizeof(what))
        cut_whole_characters(what);
    va_end(args);
    dynbuf_addf(read->errors, "%s:%d: %s%s%s\n", read->name, line, path, path[0] ? ": " : "", what);
}

enum sg_error cfgread_verdict(struct cfgread *read)
{
    if (read->problem_count == 0)
        return SG_OK;
    if (read->problem_count > CFGREAD_PROBLEMS_MAX)
        dynbuf_addf(read->errors, "%s: %zu more problems\n", read->name,
                    read->problem_count - CFGREAD_PROBLEMS_MAX);
    return SG_CONFIG_INVALID;
}

size_t cfgread_problem_count(const struct cfgread *read)
{
    return read->problem_count;
}

/* Letters to change, add, drop or swap with a neighbour to get from a to b. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][SUGGEST_MAX_BYTES + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > SUGGEST_MAX_BYTES || b_len > SUGGEST_MAX_BYTES)
        return SIZE_MAX;
    size_t *before = rows[0];
    size_t *above = rows[1];
    size_t *row = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        above[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            best = above[j] + 1 < best ? above[j] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = before[j - 2] + 1 < best ? before[j - 2] + 1 : best;
            row[j] = best;
        }
        size_t *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[b_len];
}

const char *cfgread_suggest(const char *word, const char *const *words)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2; /* the first that is too far */
    for (; *words; words++) {
        size_t distance = edit_distance(word, *words);
        if (distance < best_distance && distance < strlen(*words)) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

/* --- reading and parsing ---------------------------------------------------------------------- */

static enum sg_error read_fully(int fd, char *text, size_t size, size_t *ret_len)
{
    size_t len = 0;
    while (len < size) {
        ssize_t got = read(fd, text + len, size - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return SG_IO;
        if (got == 0)
            break;
        len += (size_t)got;
    }
    *ret_len = len;
    return SG_OK;
}

/* *ret_text is malloc'ed and ends with a NUL that *ret_len does not count. */
static enum sg_error read_open_file(const char *path, int fd, struct dynbuf *errors,
                                    char **ret_text, size_t *ret_len)
{
    struct stat stat;
    size_t len;
    if (fstat(fd, &stat) != 0) {
        dynbuf_addf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
        return SG_IO;
    }
    if (!S_ISREG(stat.st_mode)) {
        dynbuf_addf(errors, "%s: is %s; name a regular file\n", path,
                    S_ISDIR(stat.st_mode) ? "a directory" : "not a regular file");
        return SG_IO;
    }
    if (stat.st_size > CFGREAD_FILE_MAX_BYTES) {
        dynbuf_addf(errors, "%s: is larger than %d MiB\n", path, CFGREAD_FILE_MAX_BYTES >> 20);
        return SG_CONFIG_INVALID;
    }
    char *text = malloc((size_t)stat.st_size + 1);
    if (!text)
        return SG_NO_MEMORY;
    if (read_fully(fd, text, (size_t)stat.st_size, &len) != SG_OK) {
        dynbuf_addf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
        free(text);
        return SG_IO;
    }
    text[len] = '\0';
    *ret_text = text;
    *ret_len = len;
    return SG_OK;
}

static enum sg_error parse_clean(struct cfgread *read, const struct dynbuf *clean)
{
    if (clean->failed)
        return SG_NO_MEMORY;
    if (config_read_string(&read->config, dynbuf_text(clean)) == CONFIG_TRUE)
        return SG_OK;
    dynbuf_addf(read->errors, "%s:%d: syntax: %s\n", read->name, config_error_line(&read->config),
                config_error_text(&read->config));
    return SG_CONFIG_INVALID;
}

static enum sg_error parse(struct cfgread *read, const char *text, size_t len)
{
    struct cfgscan_problem problem;
    struct dynbuf clean;
    enum sg_error error;
    dynbuf_init(&clean, 2 * len + 2);
    if (cfgscan_clean(text, len, &clean, &problem)) {
        error = parse_clean(read, &clean);
    } else {
        dynbuf_addf(read->errors, "%s:%d: %s\n", read->name, problem.line, problem.text);
        error = SG_CONFIG_INVALID;
    }
    dynbuf_done(&clean);
    return error;
}

static enum sg_error read_new(const char *name, const char *text, size_t len, struct dynbuf *errors,
                              struct cfgread **ret_read)
{
    struct cfgread *read = calloc(1, sizeof(*read));
    if (!read)
        return SG_NO_MEMORY;
    config_init(&read->config);
    read->errors = errors;
    read->name = strdup(name);
    enum sg_error error = read->name ? parse(read, text, len) : SG_NO_MEMORY;
    if (error != SG_OK) {
        cfgread_free(read);
        return error;
    }
    *ret_read = read;
    return SG_OK;
}

enum sg_error cfgread_file(const char *path, struct dynbuf *errors, struct cfgread **ret_read)
{
    char *text;
    size_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not block */
    if (fd < 0) {
        dynbuf_addf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
        return SG_IO;
    }
    enum sg_error error = read_open_file(path, fd, errors, &text, &len);
    close(fd);
    if (error != SG_OK)
        return error;
    error = read_new(path, text, len, errors, ret_read);
    free(text);
    return error;
}

enum sg_error cfgread_text(const char *name, const char *text, struct dynbuf *errors,
                           struct cfgread **ret_read)
{
    return read_new(name, text, strlen(text), errors, ret_read);
}

void cfgread_free(struct cfgread *read)
{
    if (!read)
        return;
    config_destroy(&read->config);
    free(read->name);
    free(read);
}

/* --- the tree --------------------------------------------------------------------------------- */

const config_setting_t *cfgread_root(const struct cfgread *read)
{
    return config_root_setting(&read->config);
}

bool cfgread_has(const config_setting_t *group, const char *key)
{
    return find_member(group, key) != NULL;
}

/* libconfig gives the file itself line 0. */
int cfgread_line(const config_setting_t *setting)
{
    int line = (int)config_setting_source_line(setting);
    return line > 0 ? line : 1;
}

void cfgread_known_keys(struct cfgread *read, const config_setting_t *group,
                        const char *const *keys)
{
    for (size_t i = 0; i < cfgread_length(group); i++) {
        const char *name = config_setting_name(cfgread_element(group, i));
        const char *const *key = keys;
        while (*key && strcmp(*key, name) != 0)
            key++;
        if (*key)
            continue;
        const char *meant = cfgread_suggest(name, keys);
        if (meant)
            cfgread_problem(read, group, name, "unknown key; did you mean \"%s\"?", meant);
        else
            cfgread_problem(read, group, name, "unknown key; remove it");
    }
}

static const char *type_name(const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return "a number";
    case CONFIG_TYPE_STRING:
        return "a string";
    case CONFIG_TYPE_BOOL:
        return "a boolean";
    case CONFIG_TYPE_GROUP:
        return "a group { ... }";
    case CONFIG_TYPE_ARRAY:
        return "an array [ ... ]";
    case CONFIG_TYPE_LIST:
        return "a list ( ... )";
    default:
        return "something else";
    }
}

static const config_setting_t *member(struct cfgread *read, const config_setting_t *group,
                                      const char *key, enum cfgread_need need)
{
    const config_setting_t *found = find_member(group, key);
    if (!found && need == CFGREAD_REQUIRED)
        cfgread_problem(read, group, key, "is missing; add it");
    return found;
}

const config_setting_t *cfgread_group(struct cfgread *read, const config_setting_t *group,
                                      const char *key)
{
    const config_setting_t *found = member(read, group, key, CFGREAD_OPTIONAL);
    if (!found || config_setting_is_group(found))
        return found;
    cfgread_problem(read, group, key, "is %s; write %s = { ... };", type_name(found), key);
    return NULL;
}

const config_setting_t *cfgread_groups(struct cfgread *read, const config_setting_t *group,
                                       const char *key, enum cfgread_need need)
{
    const config_setting_t *list = member(read, group, key, need);
    if (!list)
        return NULL;
    if (!config_setting_is_list(list)) {
        cfgread_problem(read, group, key, "is %s; write %s = ( { ... }, { ... } );",
                        type_name(list), key);
        return NULL;
    }
    size_t count = cfgread_length(list);
    bool good = true;
    for (size_t i = 0; i < count; i++) {
        const config_setting_t *element = cfgread_element(list, i);
        if (config_setting_is_group(element))
            continue;
        cfgread_problem(read, element, NULL, "is %s; write { ... }", type_name(element));
        good = false;
    }
    return good ? list : NULL;
}

size_t cfgread_length(const config_setting_t *list)
{
    return (size_t)config_setting_length(list);
}

const config_setting_t *cfgread_element(const config_setting_t *list, size_t index)
{
    return config_setting_get_elem(list, (unsigned)index);
}

bool cfgread_int(struct cfgread *read, const config_setting_t *group, const char *key,
                 enum cfgread_need need, int64_t min, int64_t max, int64_t *ret_value)
{
    const config_setting_t *found = member(read, group, key, need);
    int64_t value;
    if (!found)
        return false;
    if (config_setting_type(found) == CONFIG_TYPE_INT) {
        value = config_setting_get_int(found);
    } else if (config_setting_type(found) == CONFIG_TYPE_INT64) {
        value = config_setting_get_int64(found);
    } else {
        cfgread_problem(read, group, key, "is %s; write a whole number", type_name(found));
        return false;
    }
    if (value < min || value > max) {
        cfgread_problem(read, group, key, "%lld is out of bounds; choose from %lld to %lld",
                        (long long)value, (long long)min, (long long)max);
        return false;
    }
    *ret_value = value;
    return true;
}

bool cfgread_string(struct cfgread *read, const config_setting_t *group, const char *key,
                    enum cfgread_need need, size_t max_len, const char **ret_value)
{
    const config_setting_t *found = member(read, group, key, need);
    if (!found)
        return false;
    if (config_setting_type(found) != CONFIG_TYPE_STRING) {
        cfgread_problem(read, group, key, "is %s; write a string in double quotes",
                        type_name(found));
        return false;
    }
    const char *value = config_setting_get_string(found);
    if (!value)
        value = "";
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            cfgread_problem(read, group, key, "holds a control character; remove it");
            return false;
        }
    }
    if (strlen(value) > max_len) {
        cfgread_problem(read, group, key, "is %zu bytes long; at most %zu are allowed",
                        strlen(value), max_len);
        return false;
    }
    *ret_value = value;
    return true;
}
