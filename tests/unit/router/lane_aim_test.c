/*
 * Goal: a lane connects to the shard's primary and to nobody else, sends only to one that may be
 * written to, and leaves one that has been replaced, moved or asked to promise something else.
 * Method: a table of topologies over a map of one shard with three nodes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/lane_aim.h"
#include "tests/unit/shardmap/maps.h"

#define MAP(durability, port)                                                                      \
    "map_version = 1; shards = ( { name = \"a\"; " durability                                      \
    "nodes = ( { name = \"a1\"; dsn = \"host=h port=" port "\"; },"                                \
    " { name = \"a2\"; dsn = \"host=h port=2\"; }, { name = \"a3\"; dsn = \"host=h port=3\"; } );" \
    " }, { name = \"b\"; nodes = ( { name = \"b1\"; dsn = \"host=h port=9\"; } ); } );"            \
    " ranges = ( { first = 1; last = 9; shard = \"a\"; },"                                         \
    " { first = 10; last = 19; shard = \"b\"; } );"

#define MAP_USUAL MAP("", "1")
#define MAP_SYNC MAP("durability = \"sync\"; ", "1")
#define MAP_MOVED MAP("", "7")
#define MAP_WITHOUT_A                                                                              \
    "map_version = 2; shards = ( { name = \"b\"; nodes = ( { name = \"b1\";"                       \
    " dsn = \"host=h port=9\"; } ); } ); ranges = ( { first = 1; last = 9; shard = \"b\"; } );"

/* One node: name, role (P primary, R replica, - down; p, r: as they were, and down), timeline,
 * epoch and marks: F fenced, U unattested. */
struct seen {
    const char *name;
    const char *what;
    int32_t timeline;
    int64_t epoch;
};

struct aim_case {
    const char *title;
    const char *map;
    const char *at; /* the lane's node in MAP_USUAL; NULL: none */
    struct seen seen[3];
    bool leave;
    const char *connect_to; /* NULL: nobody */
    int64_t open_epoch;     /* 0: closed */
    int32_t timeline;
};

static const struct aim_case cases[] = {
    {"the first look", MAP_USUAL, NULL, {{"a1", "P", 1, 4}, {"a2", "R", 1, 4}}, false, "a1", 4, 1},
    {"nothing new", MAP_USUAL, "a1", {{"a1", "P", 1, 4}, {"a2", "R", 1, 4}}, false, NULL, 4, 1},
    {"no topology of the shard", MAP_USUAL, NULL, {{NULL, NULL, 0, 0}}, false, NULL, 0, 0},
    {"no map yet", NULL, NULL, {{"a1", "P", 1, 4}}, false, NULL, 0, 1},
    {"it is down", MAP_USUAL, "a1", {{"a1", "p", 1, 4}, {"a2", "R", 1, 4}}, false, NULL, 0, 0},
    {"fenced", MAP_USUAL, "a1", {{"a1", "PF", 1, 4}, {"a2", "R", 1, 4}}, false, NULL, 0, 1},
    {"first look, fenced: be there", MAP_USUAL, NULL, {{"a1", "PF", 1, 4}}, false, "a1", 0, 1},
    {"another was promoted, not attested: be there",
     MAP_USUAL,
     "a1",
     {{"a1", "p", 1, 4}, {"a2", "PU", 2, 4}},
     true,
     "a2",
     0,
     2},
    {"and attested", MAP_USUAL, "a2", {{"a1", "p", 1, 4}, {"a2", "P", 2, 5}}, false, NULL, 5, 2},
    {"both at once", MAP_USUAL, "a1", {{"a1", "p", 1, 4}, {"a2", "P", 2, 5}}, true, "a2", 5, 2},
    {"the old one is up and thinks it is primary",
     MAP_USUAL,
     "a1",
     {{"a1", "P", 1, 4}, {"a2", "P", 2, 5}},
     true,
     "a2",
     5,
     2},
    {"the lane is at the new one, the old one comes back with a higher epoch",
     MAP_USUAL,
     "a2",
     {{"a1", "P", 1, 9}, {"a2", "P", 2, 5}},
     false,
     NULL,
     5,
     2},
    {"a replica has seen a newer timeline than the primary",
     MAP_USUAL,
     "a1",
     {{"a1", "P", 1, 4}, {"a2", "r", 2, 5}},
     true,
     NULL,
     0,
     0},
    {"demoted", MAP_USUAL, "a1", {{"a1", "R", 1, 4}, {"a2", "R", 1, 4}}, true, NULL, 0, 0},
    {"demoted on the new timeline",
     MAP_USUAL,
     "a1",
     {{"a1", "R", 2, 5}, {"a2", "P", 2, 5}},
     true,
     "a2",
     5,
     2},
    {"two of one timeline and epoch: neither",
     MAP_USUAL,
     "a1",
     {{"a1", "P", 2, 5}, {"a2", "P", 2, 5}},
     false,
     NULL,
     0,
     0},
    {"unattested", MAP_USUAL, "a1", {{"a1", "PU", 1, 4}}, false, NULL, 0, 1},
    {"back and forth within a moment",
     MAP_USUAL,
     "a2",
     {{"a1", "P", 3, 6}, {"a2", "p", 2, 5}, {"a3", "R", 3, 6}},
     true,
     "a1",
     6,
     3},
    {"it promises more now", MAP_SYNC, "a1", {{"a1", "P", 1, 4}}, true, "a1", 4, 1},
    {"it promises more now, and is down", MAP_SYNC, "a1", {{"a1", "p", 1, 4}}, true, NULL, 0, 0},
    {"it has moved", MAP_MOVED, "a1", {{"a1", "P", 1, 4}}, true, "a1", 4, 1},
    {"its shard has left the map", MAP_WITHOUT_A, "a1", {{"a1", "P", 1, 4}}, false, NULL, 4, 1},
    {"... and its primary changes", MAP_WITHOUT_A, "a1", {{"a2", "P", 2, 5}}, true, NULL, 0, 2},
};

static struct topology *topology_of(const struct seen *seen)
{
    struct topology *topology = calloc(1, sizeof(*topology) + 4 * sizeof(topology->nodes[0]));
    for (int i = 0; i < 3 && seen[i].name; i++) {
        struct topology_node *node = &topology->nodes[topology->node_count++];
        char what = seen[i].what[0];
        node->up = what == 'P' || what == 'R';
        node->role = what == 'P' || what == 'p' ? NODE_PRIMARY : NODE_REPLICA;
        node->timeline = seen[i].timeline;
        node->epoch = seen[i].epoch;
        node->fenced = seen[i].what[1] == 'F';
        node->attested = node->role == NODE_PRIMARY && seen[i].what[1] != 'U';
        snprintf(node->name, sizeof(node->name), "%s", seen[i].name);
        snprintf(node->shard, sizeof(node->shard), "a");
    }
    /* Another shard's primary, far ahead, says nothing here. */
    struct topology_node *other = &topology->nodes[topology->node_count++];
    *other = (struct topology_node){
        .up = true, .role = NODE_PRIMARY, .timeline = 50, .epoch = 60, .attested = true};
    snprintf(other->name, sizeof(other->name), "b1");
    snprintf(other->shard, sizeof(other->shard), "b");
    return topology;
}

static struct lane_place place_at(const char *name)
{
    struct lane_place place = {.node = ""};
    if (!name)
        return place;
    struct shardmap *map = map_parse(MAP_USUAL);
    const struct shardmap_shard *shard = shardmap_shard(map, shardmap_shard_by_name(map, "a"));
    for (size_t i = 0; i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, name) == 0)
            place = lane_place_of(&shard->nodes[i], shard->durability);
    }
    shardmap_free(map);
    return place;
}

static void check(const struct aim_case *c)
{
    struct shardmap *map = c->map ? map_parse(c->map) : NULL;
    struct topology *topology = topology_of(c->seen);
    struct lane_place place = place_at(c->at);
    struct lane_aim aim = lane_aim(topology, map, "a", &place);
    const char *target = aim.connect_to ? aim.connect_to->name : NULL;
    bool same_target =
        target && c->connect_to ? strcmp(target, c->connect_to) == 0 : !target == !c->connect_to;
    if (aim.leave != c->leave || !same_target || aim.open != (c->open_epoch != 0) ||
        aim.epoch != c->open_epoch || aim.timeline != c->timeline)
        fail_msg("%s: leave %d, connect to %s, open %d with epoch %lld, timeline %d", c->title,
                 aim.leave, target ? target : "nobody", aim.open, (long long)aim.epoch,
                 (int)aim.timeline);
    if (target)
        assert_int_equal(aim.durability,
                         strcmp(c->map, MAP_SYNC) == 0 ? SHARDMAP_SYNC : SHARDMAP_ASYNC);
    free(topology);
    shardmap_free(map);
}

static void all_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(&cases[i]);
}

static void before_the_first_topology(void **state)
{
    struct shardmap *map = map_parse(MAP_USUAL);
    struct lane_place place = place_at("a1");
    struct lane_aim aim = lane_aim(NULL, map, "a", &place);
    (void)state;
    assert_false(aim.leave);
    assert_false(aim.open);
    assert_null(aim.connect_to);
    shardmap_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_cases),
        cmocka_unit_test(before_the_first_topology),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
