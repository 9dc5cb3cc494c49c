/*
 * Goal: readers see whole snapshots and never a freed one, while a publisher replaces them as fast
 * as it can; what was replaced is freed, and nothing twice.
 * Method: threads that read shard maps and compare all of their parts, others that come and go;
 * a count of live values; run under the address and thread sanitizers, which see a value that is
 * freed too early.
 *
 * SPDX-License-Identifier: MIT
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/dynbuf.h"
#include "base/snapshot.h"
#include "shardmap/shardmap.h"

#define MAPS 3000
#define READERS 3
#define WORDS 16

static int live; /* values that are not freed yet; atomic */

struct value {
    uint64_t words[WORDS]; /* all the same */
};

static struct value *value_new(uint64_t content)
{
    struct value *value = malloc(sizeof(*value));
    assert_non_null(value);
    for (int i = 0; i < WORDS; i++)
        value->words[i] = content;
    __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
    return value;
}

static void value_free(void *arg)
{
    struct value *value = arg;
    memset(value, 0xff, sizeof(*value)); /* a late reader shall notice, without sanitizers too */
    free(value);
    __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
}

static void one_thread(void **state)
{
    struct snapshot_domain *domain = snapshot_domain_new();
    struct snapshot_reader *publisher = snapshot_reader_new(domain);
    struct snapshot_slot slot = {0};
    (void)state;
    snapshot_begin(publisher);
    assert_null(snapshot_get(&slot));
    snapshot_end(publisher);
    assert_int_equal(snapshot_serial(&slot), 0);
    for (uint64_t i = 1; i <= 100; i++) {
        snapshot_publish(publisher, &slot, value_new(i), value_free);
        assert_int_equal(snapshot_serial(&slot), i);
        snapshot_begin(publisher);
        assert_int_equal(((struct value *)snapshot_get(&slot))->words[0], i);
        snapshot_end(publisher);
    }
    for (int i = 0; i < 8; i++)
        snapshot_poll(publisher);
    assert_int_equal(live, 1); /* with no reader in a section all former ones are gone */
    snapshot_slot_done(&slot, value_free);
    assert_null(slot.current);
    assert_int_equal(live, 0);
    snapshot_reader_free(publisher);
    snapshot_domain_free(domain);
}

/* A value outlives its replacement for as long as somebody is in a section that began before. */
static void a_section_keeps_its_value(void **state)
{
    struct snapshot_domain *domain = snapshot_domain_new();
    struct snapshot_reader *publisher = snapshot_reader_new(domain);
    struct snapshot_reader *reader = snapshot_reader_new(domain);
    struct snapshot_slot slot = {0};
    (void)state;
    snapshot_publish(publisher, &slot, value_new(1), value_free);
    snapshot_begin(reader);
    snapshot_begin(reader); /* nested */
    const struct value *held = snapshot_get(&slot);
    for (uint64_t i = 2; i <= 50; i++) {
        snapshot_publish(publisher, &slot, value_new(i), value_free);
        snapshot_poll(publisher);
        assert_int_equal(held->words[WORDS - 1], 1);
    }
    snapshot_end(reader);
    for (int i = 0; i < 8; i++)
        snapshot_poll(publisher);
    assert_int_equal(held->words[0], 1); /* the outer section goes on */
    assert_true(live > 2);
    snapshot_end(reader);
    for (int i = 0; i < 8; i++)
        snapshot_poll(publisher);
    assert_int_equal(live, 1);
    snapshot_slot_done(&slot, value_free);
    snapshot_reader_free(reader);
    snapshot_reader_free(publisher);
    snapshot_domain_free(domain);
}

/* A publisher that leaves with values not yet freed takes them along. */
static void leaving_frees_what_waits(void **state)
{
    struct snapshot_domain *domain = snapshot_domain_new();
    struct snapshot_reader *publisher = snapshot_reader_new(domain);
    struct snapshot_reader *reader = snapshot_reader_new(domain);
    struct snapshot_slot slot = {0};
    (void)state;
    snapshot_publish(publisher, &slot, value_new(1), value_free);
    snapshot_begin(reader);
    snapshot_publish(publisher, &slot, value_new(2), value_free);
    snapshot_end(reader);
    assert_int_equal(live, 2);
    snapshot_reader_free(publisher);
    assert_int_equal(live, 1);
    snapshot_slot_done(&slot, value_free);
    assert_int_equal(live, 0);
    snapshot_reader_free(reader);
    snapshot_domain_free(domain);
}

static void records_are_used_again(void **state)
{
    struct snapshot_domain *domain = snapshot_domain_new();
    struct snapshot_reader *first = snapshot_reader_new(domain);
    (void)state;
    assert_int_equal((uintptr_t)first % 64, 0);
    snapshot_reader_free(first);
    for (int i = 0; i < 100; i++) {
        struct snapshot_reader *again = snapshot_reader_new(domain);
        assert_ptr_equal(again, first);
        snapshot_reader_free(again);
    }
    snapshot_domain_free(domain);
}

/* --- threads ---------------------------------------------------------------------------------- */

struct shared {
    struct snapshot_domain *domain;
    struct snapshot_slot maps;
    struct snapshot_slot values;
    bool stop; /* atomic */
    int torn;  /* atomic: snapshots that did not fit together */
    int reads; /* atomic */
};

/* Map number v has v % 7 + 1 ranges of ten ids, all of shard "s<v>". */
static struct shardmap *map_new(int version)
{
    struct dynbuf text;
    struct dynbuf errors;
    struct shardmap *map = NULL;
    dynbuf_init(&text, 1 << 16);
    dynbuf_init(&errors, 1 << 16);
    dynbuf_addf(&text,
                "map_version = %d; shards = ( { name = \"s%d\"; nodes = ( { name = \"n%d\"; "
                "dsn = \"host=h%d\"; } ); } ); ranges = (",
                version, version, version, version);
    for (int i = 0; i <= version % 7; i++)
        dynbuf_addf(&text, "%s { first = %d; last = %d; shard = \"s%d\"; }", i ? "," : "",
                    i * 10 + 1, i * 10 + 10, version);
    dynbuf_adds(&text, ");");
    if (shardmap_parse("map", dynbuf_text(&text), &map, &errors) != SG_OK)
        abort();
    dynbuf_done(&text);
    dynbuf_done(&errors);
    __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
    return map;
}

static void map_free(void *map)
{
    shardmap_free(map);
    __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
}

static bool map_is_whole(const struct shardmap *map)
{
    char name[32];
    size_t count;
    int version = (int)shardmap_version(map);
    snprintf(name, sizeof(name), "s%d", version);
    shardmap_ranges(map, &count);
    const struct shardmap_shard *shard = shardmap_shard(map, 0);
    return count == (size_t)version % 7 + 1 && strcmp(shard->name, name) == 0 &&
           strcmp(shard->nodes[0].dsn + 6, name + 1) == 0 &&
           shardmap_find(map, (int64_t)count * 10) == 0 &&
           shardmap_find(map, (int64_t)count * 10 + 1) == -1;
}

static bool value_is_whole(const struct value *value)
{
    for (int i = 1; i < WORDS; i++) {
        if (value->words[i] != value->words[0])
            return false;
    }
    return value->words[0] != UINT64_MAX;
}

/* One section; later versions never come before earlier ones. */
static void read_once(struct shared *shared, struct snapshot_reader *reader, int64_t *version)
{
    uint64_t serial = snapshot_serial(&shared->maps);
    snapshot_begin(reader);
    const struct shardmap *map = snapshot_get(&shared->maps);
    const struct value *value = snapshot_get(&shared->values);
    bool good = map_is_whole(map) && value_is_whole(value) && shardmap_version(map) >= *version &&
                (uint64_t)shardmap_version(map) >= serial;
    *version = shardmap_version(map);
    snapshot_end(reader);
    __atomic_add_fetch(&shared->reads, 1, __ATOMIC_RELAXED);
    if (!good)
        __atomic_add_fetch(&shared->torn, 1, __ATOMIC_RELAXED);
}

static bool stopped(struct shared *shared)
{
    return __atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE);
}

static void *read_on(void *arg)
{
    struct shared *shared = arg;
    struct snapshot_reader *reader = snapshot_reader_new(shared->domain);
    int64_t version = 0;
    while (!stopped(shared))
        read_once(shared, reader, &version);
    snapshot_reader_free(reader);
    return NULL;
}

static void *come_and_go(void *arg)
{
    struct shared *shared = arg;
    int64_t version = 0;
    while (!stopped(shared)) {
        struct snapshot_reader *reader = snapshot_reader_new(shared->domain);
        for (int i = 0; i < 5; i++)
            read_once(shared, reader, &version);
        snapshot_reader_free(reader);
    }
    return NULL;
}

static void readers_while_publishing(void **state)
{
    struct shared shared = {.domain = snapshot_domain_new()};
    struct snapshot_reader *publisher = snapshot_reader_new(shared.domain);
    pthread_t threads[READERS + 1];
    (void)state;
    snapshot_publish(publisher, &shared.maps, map_new(1), map_free);
    snapshot_publish(publisher, &shared.values, value_new(1), value_free);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &shared), 0);
    assert_int_equal(pthread_create(&threads[READERS], NULL, come_and_go, &shared), 0);

    int most = 0;
    for (int i = 2; i <= MAPS; i++) {
        snapshot_publish(publisher, &shared.maps, map_new(i), map_free);
        snapshot_publish(publisher, &shared.values, value_new((uint64_t)i), value_free);
        int now = __atomic_load_n(&live, __ATOMIC_RELAXED);
        most = now > most ? now : most;
    }
    __atomic_store_n(&shared.stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i <= READERS; i++)
        pthread_join(threads[i], NULL);

    assert_int_equal(shared.torn, 0);
    assert_true(shared.reads > 0);
    for (int i = 0; i < 8; i++)
        snapshot_poll(publisher);
    assert_int_equal(live, 2);
    assert_true(most < 2 * MAPS); /* some were freed on the way */
    snapshot_slot_done(&shared.maps, map_free);
    snapshot_slot_done(&shared.values, value_free);
    assert_int_equal(live, 0);
    snapshot_reader_free(publisher);
    snapshot_domain_free(shared.domain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread),
        cmocka_unit_test(a_section_keeps_its_value),
        cmocka_unit_test(leaving_frees_what_waits),
        cmocka_unit_test(records_are_used_again),
        cmocka_unit_test(readers_while_publishing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
