/*
 * Fuzzes what comes on the live channel and in Last-Event-ID. What is taken for an id comes back as
 * the same text; a message tells a reader only seats of the grid, and never the same change twice.
 * The first line is a Last-Event-ID, the rest a message.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router/live_topic.h"

#define ROWS 3
#define COLS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct live_id last;

static void on_change(void *arg, const struct live_change *change)
{
    struct live_id id;
    (void)arg;
    if (!live_id_parse(change->id, &id))
        abort();
    if (change->seat_count && position_compare(&id.position, &last.position) <= 0)
        abort();
    last = id;
    if (change->status && (change->resync || !strchr("hcef", change->status[0])))
        abort();
    for (size_t i = 0; i < change->seat_count; i++) {
        const struct seat *seat = &change->seats[i];
        if (seat->row < 1 || seat->col < 1 || seat->col > COLS || !change->states[i] ||
            !strchr(".hx", change->states[i]))
            abort();
    }
}

static void check_id(const char *text)
{
    struct live_id id;
    char back[ROUTER_LIVE_ID_MAX + 1];
    if (!live_id_parse(text, &id))
        return;
    live_id_format(&id, back);
    if (strcmp(back, text) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct live_seats scratch;
    struct live_topic topic;
    const struct live_reading reading = {.at = {100, 1}, .counts = {15, 15, 0, 0}, .cols = COLS};
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    size_t id_len = line ? (size_t)(line - data) : size;
    char *text = malloc(size + 1);
    char *id = malloc(id_len + 1);
    struct position from;
    memcpy(text, data, size);
    text[size] = '\0';
    memcpy(id, text, id_len);
    id[id_len] = '\0';
    check_id(id);
    last = (struct live_id){.generation = 0};
    live_topic_init(&topic, 1, "a", 1, &scratch);
    live_topic_join(&topic, "", on_change, NULL);
    live_topic_join(&topic, id, on_change, NULL);
    live_topic_leave(TAILQ_LAST(&topic.watches, live_watches));
    (void)live_topic_ask(&topic, &from);
    (void)live_topic_read(&topic, &reading);
    if (line)
        (void)live_topic_message(&topic, text + id_len + 1, size - id_len - 1);
    live_topic_done(&topic);
    free(text);
    free(id);
    return 0;
}
