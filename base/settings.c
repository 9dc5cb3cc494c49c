/*
 * The table of settings, and what goes through it: defaults, the file, the example. See settings.h.
 *
 *   file ── cfgread ──> for each row of the table: type, bounds ──> struct settings
 *                       then what no row alone can tell: check_together
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/settings.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cfgread.h"
#include "base/dynbuf.h"

enum setting_type {
    SETTING_INT,
    SETTING_PATH,    /* a file; relative to the settings file */
    SETTING_ADDRESS, /* host:port or [v6]:port */
    SETTING_TEXT,    /* any */
    SETTING_CHOICE,  /* one of `choices`, kept as text */
    SETTING_ENUM,    /* one of `choices`, kept as its place among them in an enum */
};

struct setting {
    const char *section; /* "" for the file itself */
    const char *key;
    enum setting_type type;
    size_t offset;
    size_t size; /* bytes of a text with its NUL */
    int64_t min;
    int64_t max;
    int64_t standard; /* default of a number or an enum */
    const char *text; /* default of a text; "" also means that it may be empty */
    const char *const *choices;
    const char *help; /* lines without a final newline */
};

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const strategies[] = {
    [STRATEGY_BATCHED] = "batched",
    [STRATEGY_PESSIMISTIC] = "pessimistic",
    [STRATEGY_OPTIMISTIC] = "optimistic",
    [STRATEGY_NAIVE] = "naive",
    NULL,
};

static const char *const best_chooses[] = {
    [BEST_CHOOSE_MEMORY] = "memory",
    [BEST_CHOOSE_DATABASE] = "database",
    NULL,
};

static const char *const streamings[] = {
    [CDC_STREAMING_OFF] = "off",
    [CDC_STREAMING_ON] = "on",
    NULL,
};

/* clang-format off */
#define TOP_INT(key, min, max, standard, help) \
    {"", #key, SETTING_INT, offsetof(struct settings, key), 0, min, max, standard, NULL, NULL, help}
#define INT(section, key, min, max, standard, help) \
    {#section, #key, SETTING_INT, offsetof(struct settings, section.key), 0, min, max, standard, \
     NULL, NULL, help}
#define TEXT(section, key, type, text, choices, help) \
    {#section, #key, type, offsetof(struct settings, section.key), \
     sizeof(((struct settings *)0)->section.key), 0, 0, 0, text, choices, help}

/* Rows of one section stand together. */
static const struct setting table[] = {
    TOP_INT(workers, 0, 256, 0,
        "Worker threads, each with its own listener and connections. 0: one a core."),
    {"", "shard_map", SETTING_PATH, offsetof(struct settings, shard_map), SETTINGS_TEXT_MAX,
     0, 0, 0, "shardmap.cfg", NULL,
        "The shard map. A relative path starts at the folder of this file."},

    TEXT(log, level, SETTING_CHOICE, "info", log_levels, "The lowest level that is written."),
    TEXT(log, format, SETTING_CHOICE, "text", log_formats,
        "Text for people, or one JSON object a line."),

    TEXT(http, listen, SETTING_ADDRESS, "127.0.0.1:8080", NULL, "Address of the API, host:port."),
    INT(http, backlog, 1, 65535, 4096,
        "Connections that the kernel keeps waiting to be accepted, a worker."),
    INT(http, max_connections, 1, 1000000, 20000,
        "Open connections over all workers; one more is closed at once."),
    INT(http, max_header_bytes, 1024, 1048576, 16384,
        "Request line and header together: 431 past it (414 if the line alone is longer)."),
    INT(http, max_headers, 8, 1000, 100, "Header lines of a request: 431 past it."),
    INT(http, max_body_bytes, 1024, 16777216, 65536, "Body of a request: 413 past it."),
    INT(http, request_timeout_ms, 100, 600000, 10000,
        "From the first byte of a request to its last: 408 past it."),
    INT(http, idle_timeout_ms, 100, 86400000, 75000,
        "A connection without a request for so long is closed."),
    INT(http, write_timeout_ms, 100, 600000, 15000,
        "A client that takes no byte of its answer for so long is cut off."),
    INT(http, gzip_min_bytes, 0, 1073741824, 1400, "Smaller bodies are never compressed."),
    INT(http, retry_after_ms, 0, 3600000, 1000,
        "What Retry-After tells on 429 and 503, rounded up to seconds."),
    INT(http, drain_timeout_ms, 0, 600000, 5000,
        "How long requests may take to finish when the server stops."),

    TEXT(admin, listen, SETTING_ADDRESS, "127.0.0.1:8081", NULL,
        "Address of the admin listener, host:port. It knows no users: keep it private."),

    TEXT(booking, strategy, SETTING_ENUM, NULL, strategies,
        "How a booking is made. batched: many requests in one statement.\n"
        "The others are for comparison: pessimistic locks before it reads, optimistic checks a\n"
        "version when it writes, naive is one transaction of separate statements."),
    INT(booking, max_seats, 1, 100, 20, "Seats in one booking."),
    INT(booking, deadline_ms, 10, 600000, 5000,
        "From accepting a booking to its answer: 503 past it."),
    INT(booking, connections, 0, 128, 0,
        "To a shard's primary, a worker. 0: 1 for batched, 16 for the other strategies."),
    INT(booking, batch_max, 1, 1024, 256, "Bookings in one batch."),
    INT(booking, gather_us, 0, 100000, 1000,
        "How long a lane that is busy lets a batch gather, in microseconds; a quiet one never waits."),
    INT(booking, queue_max, 1, 10000000, 10000,
        "Bookings waiting or in flight, a worker and shard: 503 past it. They wait while the shard\n"
        "has no primary, deadline_ms at most."),
    INT(booking, queue_bytes, 65536, 1099511627776, 67108864,
        "Their memory, likewise: 503 past it."),
    INT(booking, optimistic_tries, 1, 100, 5,
        "How often the optimistic strategy tries before it gives up."),

    TEXT(booking, best_choose, SETTING_ENUM, NULL, best_chooses,
        "Who chooses the best seats. memory: the lane, from what it knows of the event, and the\n"
        "database only takes them; many go in one statement. database: a call for each booking, for\n"
        "comparison."),
    INT(booking, best_tries, 1, 1000, 8,
        "So many times the seats chosen in memory may have gone to others before the event's seats are\n"
        "read anew; all within the booking's deadline."),
    INT(booking, best_refresh_ms, 0, 3600000, 1000,
        "What is known of an event in use is read anew beside the work when it is so old, so that seats\n"
        "that other processes gave back are found; less often when reading takes long. 0: never."),
    INT(booking, best_views_bytes, 1048576, 1099511627776, 67108864,
        "What is known of events for that, a worker and shard. 10,000 seats take about 8 kB. The\n"
        "longest unused goes first."),

    INT(holds, default_ms, 1, 86400000, 120000, "How long a hold lasts that does not say."),
    INT(holds, min_ms, 1, 86400000, 1000, "The shortest hold that may be asked for."),
    INT(holds, max_ms, 1, 86400000, 900000,
        "The longest one; an extension lasts no longer either, from the moment it is made."),
    INT(holds, max_extensions, 0, 1000, 3, "How often a hold may be extended."),

    INT(sweeper, interval_ms, 10, 600000, 200,
        "How often each shard is looked through for holds whose time is over. Their seats are free at\n"
        "that instant without it; it makes counters and streams follow, and offers the seats to those\n"
        "on the waiting list."),
    INT(sweeper, limit, 1, 100000, 1000, "Seats, and bookings, that it ends in one transaction."),

    INT(waitlist, offer_ms, 1000, 86400000, 300000,
        "How long seats are held for whom on the waiting list they are offered to."),

    INT(events, max_seats, 1, 1000000, 1000000, "Seats of one event: rows times columns."),

    INT(reads, deadline_ms, 10, 600000, 2000, "From accepting a read to its answer: 503 past it."),
    INT(reads, connections, 1, 1000, 2, "To a node, a worker."),
    INT(reads, pipeline_max, 1, 1024, 16, "Reads in flight on one connection."),
    INT(reads, queue_max, 1, 10000000, 10000, "Reads not yet answered, a worker and shard: 503 past it."),
    INT(reads, max_staleness_ms, 0, 3600000, 1000,
        "A replica that is further behind is not read from, unless the reader sets another bound."),
    INT(reads, token_wait_ms, 0, 60000, 30,
        "A read with a SeatGrid-Token waits so long for a replica that has replayed it, then the\n"
        "primary answers."),
    INT(reads, primary_max, 1, 1000000, 64,
        "Reads in flight at a primary, a worker, that are there only because no replica would do.\n"
        "Past it: the freshest replica, or for readers with a bound or a token a wait, then 503."),
    INT(reads, partial_timeout_ms, 10, 600000, 250,
        "\"My tickets\" waits no longer for a shard: the answer comes without it and names it."),
    INT(reads, seatmap_recent_ms, 0, 60000, 20,
        "A seat map this young is served again without asking. 0: never."),
    INT(reads, seatmap_recent_bytes, 0, 17179869184, 33554432, "Memory kept for that, a worker."),

    INT(postgres, connect_timeout_ms, 10, 600000, 2000,
        "A connection that is not made in this time is given up and tried again."),
    INT(postgres, statement_timeout_ms, 10, 600000, 4000,
        "A batch or read without an answer for so long: its connection is made anew."),
    INT(postgres, backoff_min_ms, 1, 600000, 50, "Pause before the first try to connect again."),
    INT(postgres, backoff_max_ms, 1, 600000, 2000, "The pause doubles up to this."),

    INT(health, interval_ms, 10, 600000, 100, "Time between two probes of a node."),
    INT(health, urgent_ms, 1, 600000, 10,
        "The same while a shard has no primary that can be written to."),
    INT(health, timeout_ms, 10, 600000, 500, "A probe without an answer for so long has failed."),
    INT(health, down_after, 1, 100, 2, "Failed probes in a row before a node counts as down."),
    INT(health, up_after, 1, 100, 2, "Good probes in a row before it counts as up again."),
    INT(health, lag_samples, 1, 32, 3,
        "A replica's newest probes that decide whether it is in rotation: read from without asking."),
    INT(health, lag_out, 1, 32, 2,
        "So many of them staler than reads.max_staleness_ms take it out, so many good ones back."),
    INT(health, lag_back_percent, 1, 100, 50,
        "A probe is good when its staleness is below this part of reads.max_staleness_ms."),
    INT(health, slow_start_ms, 0, 600000, 1000,
        "A replica that is back gets its full share of the reads after so long. 0: at once."),

    INT(failover, attest_wait_ms, 0, 600000, 2000,
        "A switchover attests the primary it has made. After so long the server does it instead."),

    INT(switchover, timeout_ms, 100, 600000, 5000,
        "A switchover that has not asked for the promotion by then undoes itself."),
    INT(switchover, fence_ms, 50, 60000, 2000,
        "Of that: how long writes may be kept waiting. The fence ends by itself after it.\n"
        "Less than booking.deadline_ms, or clients see it."),
    INT(switchover, max_lag_bytes, 0, 1099511627776, 16777216,
        "A node that is further behind its primary does not take over."),
    INT(switchover, promote_ms, 100, 600000, 10000,
        "From asking for the promotion, after which there is no way back, to seeing a primary;\n"
        "then as long again for its attestation."),
    INT(switchover, slot_ms, 10, 60000, 500,
        "For making the consumer's slot on the new primary. Writes wait meanwhile; past it the\n"
        "consumer builds its keys anew."),
    INT(switchover, lead_ms, 0, 600000, 2000,
        "Before writes wait: for the shard's other standbys to follow the new primary while that is\n"
        "still a standby. Those that do not by then follow afterwards; with durability sync, writes\n"
        "wait until one follows."),
    TEXT(switchover, rejoin_command, SETTING_TEXT, "", NULL,
         "Run without a shell; words are parted by blanks. As COMMAND NODE UPSTREAM before writes\n"
         "wait: it makes the standby follow that node, the new primary or, if that came to nothing, the\n"
         "old one. As COMMAND NODE afterwards: it makes the node follow the shard's primary. Empty:\n"
         "nobody does."),
    INT(switchover, rejoin_ms, 1000, 3600000, 120000, "How long that may take, a node."),

    TEXT(payment, provider_url, SETTING_TEXT, "", NULL,
        "Where the payment service is, http://host:port or with a path behind it. Empty: there is\n"
        "none, and orders are refused (503 payment_off). Write an address: looking up a name blocks."),
    TEXT(payment, secret_file, SETTING_TEXT, "", NULL,
        "File with the secret that signs the service's callbacks; a final newline does not count.\n"
        "A relative path starts at the folder of this file."),
    TEXT(payment, callback_url, SETTING_TEXT, "", NULL,
        "Where the service reaches POST /payments/callback. Empty: it does not, and is asked instead."),
    INT(payment, timeout_ms, 10, 600000, 5000,
        "A question to the service without an answer for so long has an unknown outcome."),
    INT(payment, connections, 1, 1000, 16, "To the service, a worker."),
    INT(payment, ask_ms, 1, 600000, 500, "First pause before an open outcome is asked for again."),
    INT(payment, ask_max_ms, 1, 3600000, 10000, "The pause doubles up to this."),
    INT(payment, give_up_ms, 100, 86400000, 60000,
        "An order without its money for so long is cancelled at the service, then given up."),
    INT(payment, hold_ms, 1000, 86400000, 120000,
        "How long an order keeps its seats. More than give_up_ms, or money comes for seats that may\n"
        "be gone, and has to be given back."),
    INT(payment, wait_ms, 0, 600000, 10000,
        "POST /events/{id}/orders without respond-async waits so long for the end, then tells the\n"
        "state as it is."),
    INT(payment, signature_tolerance_ms, 1000, 86400000, 300000,
        "How far the time in a callback's signature may be from now."),
    INT(payment, max_open, 1, 1000000, 10000, "Orders under way, a worker: 503 past it."),
    INT(payment, due_ms, 10, 600000, 1000,
        "How often a worker looks for orders that nobody looks after any more, in each shard."),
    INT(payment, lease_ms, 1000, 3600000, 15000,
        "So long after its last step an order whose process died is taken over."),

    INT(reload, ask_timeout_ms, 10, 600000, 1000,
        "How long a reload waits for the shards to say which events a new map would strand."),

    TEXT(redis, address, SETTING_ADDRESS, "", NULL, "Address of Redis, host:port. Empty: none."),
    INT(redis, connect_timeout_ms, 10, 600000, 1000,
        "A connection that is not made in this time is given up and tried again."),
    INT(redis, reply_timeout_ms, 10, 600000, 2000,
        "Without an answer for so long the connection is made anew."),
    INT(redis, backoff_min_ms, 1, 600000, 50, "Pause before the first try to connect again."),
    INT(redis, backoff_max_ms, 1, 600000, 1000, "The pause doubles up to this."),
    INT(redis, read_timeout_ms, 1, 600000, 100,
        "A request waits no longer for Redis; then PostgreSQL answers it."),
    INT(redis, max_staleness_ms, 100, 3600000, 5000,
        "Counters that no consumer has kept in step for so long are not shown; PostgreSQL answers."),
    INT(redis, poll_ms, 10, 60000, 250,
        "How often a worker looks which keys of a shard are the current ones."),

    INT(live, max_streams, 0, 1000000, 10000,
        "Open event streams (GET /events/{id}/stream) over all workers: 503 past it."),
    INT(live, buffer_bytes, 1024, 16777216, 65536,
        "What may wait for a reader that is slow; past it the stream is closed."),
    INT(live, heartbeat_ms, 100, 600000, 15000,
        "A stream with nothing to tell sends an empty comment this often."),
    INT(live, history, 1, 100000, 256,
        "Changes of an event kept in Redis for readers that come back with Last-Event-ID."),
    INT(live, keep_ms, 1000, 86400000, 300000,
        "An event that nobody watches any more keeps its history for so long."),

    TEXT(queue, url, SETTING_TEXT, "", NULL,
        "RabbitMQ, amqp://user:password@host:port/vhost. Empty: none, and a booking that asks for\n"
        "respond-async is answered when it is made."),
    INT(queue, confirm_ms, 10, 600000, 2000,
        "From accepting a message to RabbitMQ's word that it keeps it: 503 past it."),
    INT(queue, max_pending, 1, 1000000, 10000, "Messages without that word, a worker: 503 past it."),
    INT(queue, connect_timeout_ms, 10, 600000, 1000,
        "A connection that is not made in this time is given up and tried again."),
    INT(queue, heartbeat_ms, 1000, 600000, 10000,
        "A broker that is silent for two of these is gone. Rounded up to seconds."),
    INT(queue, backoff_min_ms, 1, 600000, 50, "Pause before the first try to connect again."),
    INT(queue, backoff_max_ms, 1, 600000, 2000, "The pause doubles up to this."),
    TEXT(queue, worker_listen, SETTING_ADDRESS, "127.0.0.1:8083", NULL,
        "Address of the admin listener of `seatgrid worker`, host:port. Keep it private."),
    INT(queue, prefetch, 1, 65535, 512, "Messages under way in a worker, a shard."),
    INT(queue, gather_us, 0, 1000000, 20000,
        "How long a busy shard's messages gather to a batch, in microseconds; with half of prefetch\n"
        "there, or after a pause, they go at once."),
    INT(queue, retry_ms, 1, 600000, 200,
        "Pause before a booking that cannot be made now (no primary, ...) is tried again."),
    INT(queue, tries, 1, 1000, 20,
        "A message that fails for reasons of its own so often goes to the dead letters."),
    INT(queue, deliveries, 1, 1000000, 200,
        "So does one that came back so often unanswered: workers died on it, or just ended or lost\n"
        "RabbitMQ while they had it. The queues of a broker keep what they were first made with."),

    TEXT(cdc, listen, SETTING_ADDRESS, "127.0.0.1:8082", NULL,
        "Address of the admin listener of `seatgrid cdc`, host:port. Keep it private."),
    TEXT(cdc, streaming, SETTING_ENUM, NULL, streamings,
        "Have the server send transactions before they commit; they wait in a file until they do.\n"
        "off: the server keeps them, which costs it disk and saves it here."),
    INT(cdc, batch_max, 1, 65536, 2048, "Keys written to Redis in one batch."),
    INT(cdc, batch_bytes, 4096, 67108864, 1048576, "Bytes of one batch."),
    INT(cdc, batches_in_flight, 1, 64, 2,
        "Batches that Redis has not answered; then the stream is not read any further."),
    INT(cdc, gather_us, 0, 1000000, 1000,
        "How long a busy feed lets a batch gather, in microseconds; a quiet one never waits."),
    INT(cdc, redis_loss_ms, 0, 600000, 2000,
        "What Redis may lose in a crash (appendfsync everysec: up to 2 s). PostgreSQL keeps the WAL\n"
        "that much longer, so that it can be read again."),
    INT(cdc, feedback_ms, 10, 600000, 500, "Time between two reports to PostgreSQL."),
    INT(cdc, heartbeat_ms, 100, 600000, 2000,
        "A shard without changes gets a message in its WAL this often, so that its slot moves on."),
    INT(cdc, connect_timeout_ms, 10, 600000, 2000,
        "A connection to PostgreSQL that is not made in this time is given up."),
    INT(cdc, silence_timeout_ms, 1000, 600000, 10000,
        "A stream without a byte for so long is made anew."),
    INT(cdc, takeover_ms, 1000, 600000, 5000,
        "A waiting consumer takes over from one that has been silent for so long."),
    INT(cdc, repair_min_ms, 1, 600000, 200, "Pause before a failed repair is tried again."),
    INT(cdc, repair_max_ms, 1, 600000, 5000, "The pause doubles up to this."),
    INT(cdc, wal_budget_bytes, 1048576, 1099511627776, 1073741824,
        "WAL that PostgreSQL keeps for a consumer; past it there is an alarm."),
    INT(cdc, spool_bytes, 1048576, 1099511627776, 4294967296,
        "Files of streamed transactions, a shard; past it the stream starts anew with streaming off."),
    INT(cdc, seed_timeout_ms, 1000, 86400000, 60000,
        "Building a shard's keys anew waits no longer for PostgreSQL: for running transactions to end,\n"
        "then for its next rows."),
    INT(cdc, reconcile_ms, 0, 86400000, 10000,
        "Time between two slices of the slow reconcile, which never ends. 0: none."),
    INT(cdc, reconcile_slice, 1, 1000000, 1000, "Events, and users, compared in one slice."),
    INT(cdc, reconcile_timeout_ms, 100, 3600000, 10000,
        "A slice that takes longer is given up and tried later."),
};
/* clang-format on */

_Static_assert(sizeof(enum booking_strategy) == sizeof(unsigned) &&
                   sizeof(enum cdc_streaming) == sizeof(unsigned),
               "SETTING_ENUM writes an unsigned");

#define TABLE_LEN (sizeof(table) / sizeof(table[0]))

static void *field(struct settings *settings, const struct setting *row)
{
    return (char *)settings + row->offset;
}

const char *booking_strategy_name(enum booking_strategy strategy)
{
    return strategies[strategy];
}

void settings_init(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (size_t i = 0; i < TABLE_LEN; i++) {
        const struct setting *row = &table[i];
        if (row->type == SETTING_INT)
            *(int64_t *)field(settings, row) = row->standard;
        else if (row->type == SETTING_ENUM)
            *(unsigned *)field(settings, row) = (unsigned)row->standard;
        else
            snprintf(field(settings, row), row->size, "%s", row->text);
    }
}

/* --- the file --------------------------------------------------------------------------------- */

/* "host:port" with a host that has no colon, or "[v6]:port". */
static bool address_valid(const char *text)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text)
        return false;
    size_t host_len = (size_t)(colon - text);
    bool bracketed = text[0] == '[' && text[host_len - 1] == ']' && host_len > 2;
    size_t skipped = bracketed ? 1 : 0;
    if (strcspn(text + skipped, bracketed ? "[] " : "[] :") < host_len - 2 * skipped)
        return false;
    size_t digits = strspn(colon + 1, "0123456789");
    long port = strtol(colon + 1, NULL, 10);
    return digits >= 1 && digits <= 5 && colon[1 + digits] == '\0' && port >= 1 && port <= 65535;
}

static void add_choices(struct dynbuf *out, const char *const *choices)
{
    for (size_t i = 0; choices[i]; i++)
        dynbuf_addf(out, "%s%s", i ? ", " : "", choices[i]);
}

/* Index of the chosen word, or -1 and a problem. */
static int find_choice(struct cfgread *read, const struct config_setting_t *group,
                       const struct setting *row, const char *value)
{
    for (int i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], value) == 0)
            return i;
    }
    struct dynbuf words;
    dynbuf_init(&words, 256);
    add_choices(&words, row->choices);
    cfgread_problem(read, group, row->key, "\"%s\" is none of %s; choose one", value,
                    dynbuf_text(&words));
    dynbuf_done(&words);
    return -1;
}

static void read_text(struct cfgread *read, const struct config_setting_t *group,
                      const struct setting *row, struct settings *settings)
{
    const char *value;
    size_t max_len = row->type == SETTING_ENUM ? SETTINGS_TEXT_MAX : row->size - 1;
    if (!cfgread_string(read, group, row->key, CFGREAD_OPTIONAL, max_len, &value))
        return;
    if (row->type == SETTING_CHOICE || row->type == SETTING_ENUM) {
        int choice = find_choice(read, group, row, value);
        if (choice >= 0 && row->type == SETTING_ENUM)
            *(unsigned *)field(settings, row) = (unsigned)choice;
        if (choice < 0 || row->type == SETTING_ENUM)
            return;
    }
    bool may_be_empty = row->text[0] == '\0';
    if (row->type == SETTING_ADDRESS && !(may_be_empty && !*value) && !address_valid(value)) {
        cfgread_problem(read, group, row->key,
                        "\"%s\" is no address; write host:port, with a port of 1 to 65535", value);
        return;
    }
    if (row->type == SETTING_PATH && !*value) {
        cfgread_problem(read, group, row->key, "is empty; name a file");
        return;
    }
    snprintf(field(settings, row), row->size, "%s", value);
}

static void read_section(struct cfgread *read, const struct config_setting_t *group,
                         const char *section, struct settings *settings)
{
    for (size_t i = 0; i < TABLE_LEN; i++) {
        const struct setting *row = &table[i];
        if (strcmp(row->section, section) != 0)
            continue;
        if (row->type == SETTING_INT)
            cfgread_int(read, group, row->key, CFGREAD_OPTIONAL, row->min, row->max,
                        field(settings, row));
        else
            read_text(read, group, row, settings);
    }
}

/* Keys of the section, for the file itself also the names of the sections; ended by NULL. */
static void list_keys(const char *section, const char *ret_keys[TABLE_LEN + 1])
{
    size_t count = 0;
    const char *last = "";
    for (size_t i = 0; i < TABLE_LEN; i++) {
        const struct setting *row = &table[i];
        if (strcmp(row->section, section) == 0)
            ret_keys[count++] = row->key;
        else if (!*section && strcmp(row->section, last) != 0)
            ret_keys[count++] = row->section;
        last = row->section;
    }
    ret_keys[count] = NULL;
}

static void read_all(struct cfgread *read, struct settings *settings)
{
    const struct config_setting_t *root = cfgread_root(read);
    const char *keys[TABLE_LEN + 1];
    list_keys("", keys);
    cfgread_known_keys(read, root, keys);
    read_section(read, root, "", settings);
    for (size_t i = 1; i < TABLE_LEN; i++) {
        const char *section = table[i].section;
        if (strcmp(section, table[i - 1].section) == 0)
            continue;
        const struct config_setting_t *group = cfgread_group(read, root, section);
        if (!group)
            continue;
        list_keys(section, keys);
        cfgread_known_keys(read, group, keys);
        read_section(read, group, section, settings);
    }
}

/* Notes a problem at section.key, or at the file if the key is left to its default. */
#define TOGETHER(read, section, key, ...)                                                          \
    do {                                                                                           \
        const struct config_setting_t *root_ = cfgread_root(read);                                 \
        const struct config_setting_t *group_ = cfgread_group(read, root_, section);               \
        cfgread_problem(read, group_ ? group_ : root_, group_ ? (key) : NULL, __VA_ARGS__);        \
    } while (0)

static void check_payment(struct cfgread *read, const struct settings *settings)
{
    static const char scheme[] = "http://";
    const char *url = settings->payment.provider_url;
    char address[256];
    bool on = *url;
    if (on) {
        bool http = strncmp(url, scheme, strlen(scheme)) == 0;
        const char *host = http ? url + strlen(scheme) : "";
        snprintf(address, sizeof(address), "%.*s", (int)strcspn(host, "/"), host);
        if (!address_valid(address))
            TOGETHER(read, "payment", "provider_url",
                     "\"%s\" is no address; write http://host:port, or with a path behind it", url);
    }
    if (on && !settings->payment.secret_file[0])
        TOGETHER(read, "payment", "secret_file",
                 "is empty; name the file of the secret that signs callbacks");
    if (settings->payment.ask_ms > settings->payment.ask_max_ms)
        TOGETHER(read, "payment", "ask_max_ms", "%lld is less than payment.ask_ms, %lld; raise it",
                 (long long)settings->payment.ask_max_ms, (long long)settings->payment.ask_ms);
    if (on && settings->payment.lease_ms <= settings->payment.timeout_ms)
        TOGETHER(read, "payment", "lease_ms",
                 "%lld is not more than payment.timeout_ms, %lld; raise it",
                 (long long)settings->payment.lease_ms, (long long)settings->payment.timeout_ms);
    if (on && settings->payment.hold_ms <= settings->payment.give_up_ms)
        TOGETHER(read, "payment", "hold_ms",
                 "%lld is not more than payment.give_up_ms, %lld; raise it",
                 (long long)settings->payment.hold_ms, (long long)settings->payment.give_up_ms);
}

static void check_holds(struct cfgread *read, const struct settings *settings)
{
    if (settings->holds.min_ms > settings->holds.max_ms)
        TOGETHER(read, "holds", "max_ms", "%lld is less than holds.min_ms, %lld; raise it",
                 (long long)settings->holds.max_ms, (long long)settings->holds.min_ms);
    else if (settings->holds.default_ms < settings->holds.min_ms ||
             settings->holds.default_ms > settings->holds.max_ms)
        TOGETHER(read, "holds", "default_ms", "%lld is not between holds.min_ms and holds.max_ms",
                 (long long)settings->holds.default_ms);
}

static void check_together(struct cfgread *read, const struct settings *settings)
{
    if (settings->queue.backoff_min_ms > settings->queue.backoff_max_ms)
        TOGETHER(read, "queue", "backoff_max_ms",
                 "%lld is less than queue.backoff_min_ms, %lld; raise it",
                 (long long)settings->queue.backoff_max_ms,
                 (long long)settings->queue.backoff_min_ms);
    if (settings->postgres.backoff_min_ms > settings->postgres.backoff_max_ms)
        TOGETHER(read, "postgres", "backoff_max_ms",
                 "%lld is less than postgres.backoff_min_ms, %lld; raise it",
                 (long long)settings->postgres.backoff_max_ms,
                 (long long)settings->postgres.backoff_min_ms);
    if (settings->health.lag_out > settings->health.lag_samples)
        TOGETHER(read, "health", "lag_samples", "%lld is less than health.lag_out, %lld; raise it",
                 (long long)settings->health.lag_samples, (long long)settings->health.lag_out);
    if (settings->redis.backoff_min_ms > settings->redis.backoff_max_ms)
        TOGETHER(read, "redis", "backoff_max_ms",
                 "%lld is less than redis.backoff_min_ms, %lld; raise it",
                 (long long)settings->redis.backoff_max_ms,
                 (long long)settings->redis.backoff_min_ms);
    if (settings->cdc.repair_min_ms > settings->cdc.repair_max_ms)
        TOGETHER(read, "cdc", "repair_max_ms",
                 "%lld is less than cdc.repair_min_ms, %lld; raise it",
                 (long long)settings->cdc.repair_max_ms, (long long)settings->cdc.repair_min_ms);
    if (strcmp(settings->cdc.listen, settings->http.listen) == 0 ||
        strcmp(settings->cdc.listen, settings->admin.listen) == 0)
        TOGETHER(read, "cdc", "listen", "%s is taken by http.listen or admin.listen; take another",
                 settings->cdc.listen);
    if (strcmp(settings->http.listen, settings->admin.listen) == 0)
        TOGETHER(read, "admin", "listen", "is also http.listen, %s; take another port",
                 settings->http.listen);
    check_payment(read, settings);
    check_holds(read, settings);
}

/* Makes it a path that means the same wherever the program stands. */
static void resolve_path(struct cfgread *read, const char *settings_path, const char *key,
                         char path[SETTINGS_TEXT_MAX])
{
    char resolved[SETTINGS_TEXT_MAX];
    const char *slash = strrchr(settings_path, '/');
    if (path[0] == '/' || path[0] == '\0' || !slash)
        return;
    int len = snprintf(resolved, sizeof(resolved), "%.*s/%s", (int)(slash - settings_path),
                       settings_path, path);
    if (len >= (int)sizeof(resolved)) {
        cfgread_problem(read, cfgread_root(read), key,
                        "is too long with the folder of this file; write an absolute path");
        return;
    }
    memcpy(path, resolved, (size_t)len + 1);
}

enum sg_error settings_load(const char *path, struct settings *ret_settings, struct dynbuf *errors)
{
    struct cfgread *read;
    struct settings settings;
    enum sg_error error = cfgread_file(path, errors, &read);
    if (error != SG_OK)
        return error;
    settings_init(&settings);
    read_all(read, &settings);
    check_together(read, &settings);
    resolve_path(read, path, "shard_map", settings.shard_map);
    resolve_path(read, path, "secret_file", settings.payment.secret_file);
    error = cfgread_verdict(read);
    if (error == SG_OK)
        *ret_settings = settings;
    cfgread_free(read);
    return error;
}

/* --- the example ------------------------------------------------------------------------------ */

static void add_comment(struct dynbuf *out, const char *indent, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        dynbuf_addf(out, "%s# %.*s\n", indent, (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void add_example(struct dynbuf *out, const struct setting *row)
{
    const char *indent = *row->section ? "    " : "";
    add_comment(out, indent, row->help);
    if (row->choices) {
        dynbuf_addf(out, "%s# One of: ", indent);
        add_choices(out, row->choices);
        dynbuf_addc(out, '\n');
    }
    if (row->type == SETTING_INT)
        dynbuf_addf(out, "%s# From %lld to %lld.\n", indent, (long long)row->min,
                    (long long)row->max);
    dynbuf_addf(out, "%s%s = ", indent, row->key);
    if (row->type == SETTING_INT)
        dynbuf_addf(out, "%lld;\n", (long long)row->standard);
    else
        dynbuf_addf(out, "\"%s\";\n", row->text ? row->text : row->choices[row->standard]);
}

void settings_write_example(struct dynbuf *out)
{
    add_comment(
        out, "",
        "Settings of SeatGrid: every key with its default, so that this file changes nothing.\n"
        "Leave out what you do not change. Check a file with: seatgrid check-config -c FILE\n"
        "Written by: seatgrid check-config --example");
    const char *section = "";
    for (size_t i = 0; i < TABLE_LEN; i++) {
        const struct setting *row = &table[i];
        if (strcmp(row->section, section) != 0) {
            dynbuf_addf(out, "%s\n%s = {\n", *section ? "};\n" : "", row->section);
            section = row->section;
        } else {
            dynbuf_addc(out, '\n');
        }
        add_example(out, row);
    }
    dynbuf_adds(out, "};\n");
}
