/*
 * The books of the stand-in. See ledger.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

#define LINE_MAX_BYTES 1024
#define FIRST_SLOTS 1024 /* a power of two */

struct ledger {
    int fd; /* -1: no journal */
    struct ledger_charge **entries;
    size_t count;
    size_t entries_size;
    uint32_t *slots; /* open addressing: index into entries + 1, 0 free */
    size_t slot_count;
    struct ledger_totals totals;
};

/* --- in memory -------------------------------------------------------------------------------- */

static size_t find_slot(const struct ledger *ledger, const char *order_id)
{
    size_t mask = ledger->slot_count - 1;
    size_t slot = (size_t)hash_u64(hash_bytes(HASH_START, order_id, strlen(order_id))) & mask;
    while (ledger->slots[slot] &&
           strcmp(ledger->entries[ledger->slots[slot] - 1]->order_id, order_id) != 0)
        slot = (slot + 1) & mask;
    return slot;
}

static struct ledger_charge *find(const struct ledger *ledger, const char *order_id)
{
    uint32_t index = ledger->slots[find_slot(ledger, order_id)];
    return index ? ledger->entries[index - 1] : NULL;
}

const struct ledger_charge *ledger_find(const struct ledger *ledger, const char *order_id)
{
    return find(ledger, order_id);
}

const struct ledger_charge *ledger_at(const struct ledger *ledger, size_t index)
{
    return index < ledger->count ? ledger->entries[index] : NULL;
}

/* Room for one more, so that adding it cannot fail. */
static bool make_room(struct ledger *ledger)
{
    if (ledger->count == ledger->entries_size) {
        size_t size = ledger->entries_size ? 2 * ledger->entries_size : FIRST_SLOTS / 2;
        struct ledger_charge **entries =
            realloc(ledger->entries, size * sizeof(struct ledger_charge *));
        if (!entries)
            return false;
        ledger->entries = entries;
        ledger->entries_size = size;
    }
    if (2 * (ledger->count + 1) <= ledger->slot_count)
        return true;
    size_t slot_count = ledger->slot_count ? 2 * ledger->slot_count : FIRST_SLOTS;
    uint32_t *slots = calloc(slot_count, sizeof(uint32_t));
    if (!slots)
        return false;
    free(ledger->slots);
    ledger->slots = slots;
    ledger->slot_count = slot_count;
    for (size_t i = 0; i < ledger->count; i++)
        slots[find_slot(ledger, ledger->entries[i]->order_id)] = (uint32_t)i + 1;
    return true;
}

static void count_outcome(struct ledger *ledger, const struct ledger_charge *charge)
{
    ledger->totals.by_outcome[charge->outcome]++;
    if (charge->outcome == PAY_SUCCEEDED)
        ledger->totals.charged += charge->amount;
    if (charge->outcome == PAY_REFUNDED)
        ledger->totals.refunded += charge->amount;
}

static struct ledger_charge *entry_new(const char *order_id, const struct wire_charge *request,
                                       enum pay_outcome outcome)
{
    struct ledger_charge *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    snprintf(entry->order_id, sizeof(entry->order_id), "%s", order_id);
    entry->outcome = outcome;
    if (!request)
        return entry;
    entry->amount = request->amount;
    memcpy(entry->currency, request->currency, sizeof(entry->currency));
    if (request->callback_url[0]) {
        entry->callback_url = strdup(request->callback_url);
        if (!entry->callback_url) {
            free(entry);
            return NULL;
        }
    }
    return entry;
}

static void entry_free(struct ledger_charge *entry)
{
    free(entry->callback_url);
    free(entry);
}

/* After make_room. */
static void insert(struct ledger *ledger, struct ledger_charge *entry)
{
    size_t slot = find_slot(ledger, entry->order_id);
    ledger->entries[ledger->count++] = entry;
    ledger->slots[slot] = (uint32_t)ledger->count;
    ledger->totals.count++;
    count_outcome(ledger, entry);
}

static void change(struct ledger *ledger, struct ledger_charge *entry, enum pay_outcome outcome)
{
    ledger->totals.by_outcome[entry->outcome]--;
    entry->outcome = outcome;
    count_outcome(ledger, entry);
}

/* --- the journal ------------------------------------------------------------------------------ */

/* Writes the line and has it on disk, or nothing of it is left. */
static bool append(struct ledger *ledger, const char *line, size_t len)
{
    if (ledger->fd < 0)
        return true;
    off_t end = lseek(ledger->fd, 0, SEEK_END);
    if (end < 0)
        return false;
    ssize_t written = write(ledger->fd, line, len);
    if (written == (ssize_t)len && fdatasync(ledger->fd) == 0)
        return true;
    if (ftruncate(ledger->fd, end) < 0)
        abort(); /* half a line in the middle would end the next start */
    return false;
}

enum sg_error ledger_add(struct ledger *ledger, const char *order_id,
                         const struct wire_charge *request, enum pay_outcome outcome,
                         const struct ledger_charge **ret_charge)
{
    char line[LINE_MAX_BYTES];
    if (ledger->count >= LEDGER_CHARGES_MAX)
        return SG_OVERLOADED;
    struct ledger_charge *entry = make_room(ledger) ? entry_new(order_id, request, outcome) : NULL;
    if (!entry)
        return SG_NO_MEMORY;
    int len = snprintf(line, sizeof(line), "CHARGE %s %s %lld %s %s\n", order_id,
                       pay_outcome_name(outcome), (long long)entry->amount,
                       entry->currency[0] ? entry->currency : "-",
                       entry->callback_url ? entry->callback_url : "-");
    if (!append(ledger, line, (size_t)len)) {
        entry_free(entry);
        return SG_IO;
    }
    insert(ledger, entry);
    *ret_charge = entry;
    return SG_OK;
}

enum sg_error ledger_set(struct ledger *ledger, const char *order_id, enum pay_outcome outcome)
{
    char line[LINE_MAX_BYTES];
    int len = snprintf(line, sizeof(line), "STATUS %s %s\n", order_id, pay_outcome_name(outcome));
    if (!append(ledger, line, (size_t)len))
        return SG_IO;
    change(ledger, find(ledger, order_id), outcome);
    return SG_OK;
}

static bool replay_charge(struct ledger *ledger, const char *order_id, enum pay_outcome outcome,
                          const char *line)
{
    struct wire_charge request = {0};
    long long amount;
    if (sscanf(line, "CHARGE %*s %*s %lld %3s %511s", &amount, request.currency,
               request.callback_url) != 3 ||
        amount < 0 || amount > WIRE_AMOUNT_MAX || find(ledger, order_id) || !make_room(ledger))
        return false;
    request.amount = amount;
    if (strcmp(request.callback_url, "-") == 0)
        request.callback_url[0] = '\0';
    if (strcmp(request.currency, "-") == 0)
        request.currency[0] = '\0';
    struct ledger_charge *entry = entry_new(order_id, &request, outcome);
    if (!entry)
        return false;
    insert(ledger, entry);
    return true;
}

/* False: the line means nothing here. */
static bool replay_line(struct ledger *ledger, const char *line)
{
    char what[8];
    char order_id[PAY_ORDER_ID_MAX + 1];
    char status[16];
    if (sscanf(line, "%7s %36s %15s", what, order_id, status) != 3 || !wire_is_order_id(order_id))
        return false;
    enum pay_outcome outcome = pay_outcome_by_name(status);
    if (outcome == PAY_OUTCOME_COUNT)
        return false;
    if (strcmp(what, "CHARGE") == 0)
        return replay_charge(ledger, order_id, outcome, line);
    struct ledger_charge *entry = find(ledger, order_id);
    if (strcmp(what, "STATUS") != 0 || !entry)
        return false;
    change(ledger, entry, outcome);
    return true;
}

static enum sg_error replay(struct ledger *ledger, const char *path, FILE *file, char *error_text,
                            size_t error_size)
{
    char line[LINE_MAX_BYTES];
    long number = 0;
    long whole = 0; /* bytes of whole lines */
    while (fgets(line, sizeof(line), file)) {
        size_t len = strlen(line);
        if ((len == 0 || line[len - 1] != '\n') && feof(file))
            break;
        number++;
        if (!replay_line(ledger, line)) {
            snprintf(error_text, error_size, "%s:%ld: is no line of a journal", path, number);
            return SG_CONFIG_INVALID;
        }
        whole += (long)len;
    }
    if (ferror(file) || ftruncate(ledger->fd, whole) < 0) {
        snprintf(error_text, error_size, "%s: %s", path, strerror(errno));
        return SG_IO;
    }
    return SG_OK;
}

static enum sg_error open_journal(struct ledger *ledger, const char *path, char *error_text,
                                  size_t error_size)
{
    enum sg_error error = SG_IO;
    ledger->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    FILE *file = ledger->fd >= 0 ? fopen(path, "re") : NULL;
    if (!file) {
        snprintf(error_text, error_size, "%s: cannot be opened: %s", path, strerror(errno));
        return error;
    }
    error = replay(ledger, path, file, error_text, error_size);
    fclose(file);
    return error;
}

/* --- life ------------------------------------------------------------------------------------- */

enum sg_error ledger_open(const char *path, struct ledger **ret_ledger, char *error_text,
                          size_t error_size)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    snprintf(error_text, error_size, "out of memory");
    if (!ledger)
        return SG_NO_MEMORY;
    ledger->fd = -1;
    enum sg_error error = make_room(ledger) ? SG_OK : SG_NO_MEMORY;
    if (error == SG_OK && path)
        error = open_journal(ledger, path, error_text, error_size);
    if (error == SG_OK)
        *ret_ledger = ledger;
    else
        ledger_close(ledger);
    return error;
}

void ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return;
    for (size_t i = 0; i < ledger->count; i++)
        entry_free(ledger->entries[i]);
    free(ledger->entries);
    free(ledger->slots);
    if (ledger->fd >= 0)
        close(ledger->fd);
    free(ledger);
}

void ledger_totals(const struct ledger *ledger, struct ledger_totals *ret_totals)
{
    *ret_totals = ledger->totals;
}
