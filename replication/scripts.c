/*
 * The Lua scripts as part of the binary: their texts, and their names in Redis. See outbox.h for
 * what they do, and scripts/ for the texts.
 *
 * The assembler reads them with paths relative to the project root, where the compiler is started.
 *
 * SPDX-License-Identifier: MIT
 */
#include <pthread.h>

#include "base/sha1.h"
#include "replication/outbox.h"

/* clang-format off */
#define EMBED(symbol, path)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".global " #symbol "_start\n"                                                          \
            ".global " #symbol "_end\n"                                                            \
            #symbol "_start:\n"                                                                    \
            ".incbin \"" path "\"\n"                                                               \
            #symbol "_end:\n"                                                                      \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const char symbol##_start[], symbol##_end[]
/* clang-format on */

EMBED(script_event, "replication/scripts/event.lua");
EMBED(script_tickets, "replication/scripts/tickets.lua");
EMBED(script_shard, "replication/scripts/shard.lua");

static const struct {
    const char *start;
    const char *end;
} scripts[SCRIPT_COUNT] = {
    [SCRIPT_EVENT] = {script_event_start, script_event_end},
    [SCRIPT_TICKETS] = {script_tickets_start, script_tickets_end},
    [SCRIPT_SHARD] = {script_shard_start, script_shard_end},
};

static char shas[SCRIPT_COUNT][SHA1_HEX_LEN + 1];
static pthread_once_t shas_once = PTHREAD_ONCE_INIT;

static void make_shas(void)
{
    for (size_t i = 0; i < SCRIPT_COUNT; i++)
        sha1_hex(scripts[i].start, (size_t)(scripts[i].end - scripts[i].start), shas[i]);
}

const char *script_text(enum script script, size_t *ret_len)
{
    *ret_len = (size_t)(scripts[script].end - scripts[script].start);
    return scripts[script].start;
}

const char *script_sha(enum script script)
{
    pthread_once(&shas_once, make_shas);
    return shas[script];
}
