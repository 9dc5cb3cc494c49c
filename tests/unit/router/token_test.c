/*
 * Goal: a token says exactly one thing, survives its way through a client, and of several the one
 * that asks for most counts; anything else is refused, not guessed.
 * Method: tables of texts, there and back.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/token.h"

static void good_tokens_come_back(void **state)
{
    static const struct {
        const char *text;
        struct read_token token;
    } good[] = {
        {"alpha.1.16B3748", {"alpha", 1, 0x16B3748}},
        {"a.2147483647.FFFFFFFFFFFFFFFF", {"a", INT32_MAX, UINT64_MAX}},
        {"0.1.1", {"0", 1, 1}},
        {"eu.west-1_b.3.A0", {"eu.west-1_b", 3, 0xA0}}, /* a name may have dots */
        {"a.1.2.3", {"a.1", 2, 3}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct read_token token;
        char text[TOKEN_TEXT_SIZE];
        if (!token_parse(good[i].text, strlen(good[i].text), &token))
            fail_msg("%s", good[i].text);
        assert_string_equal(token.shard, good[i].token.shard);
        assert_int_equal(token.timeline, good[i].token.timeline);
        assert_int_equal(token.lsn, good[i].token.lsn);
        token_format(&token, text);
        assert_string_equal(text, good[i].text);
    }
}

static void the_longest_fits(void **state)
{
    struct read_token token = {.timeline = INT32_MAX, .lsn = UINT64_MAX};
    struct read_token back;
    char text[TOKEN_TEXT_SIZE];
    (void)state;
    memset(token.shard, 'a', SHARDMAP_NAME_MAX);
    token_format(&token, text);
    assert_int_equal(strlen(text), SHARDMAP_NAME_MAX + 1 + 10 + 1 + 16);
    assert_true(token_parse(text, strlen(text), &back));
    assert_string_equal(back.shard, token.shard);
    assert_int_equal(back.lsn, UINT64_MAX);
}

static void bad_tokens_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "alpha",
        "alpha.1",
        "alpha.1.",
        "alpha..1",
        ".1.1",
        "alpha.0.1",
        "alpha.1.0",
        "alpha.-1.1",
        "alpha.1.-1",
        "alpha.+1.1",
        "alpha. 1.1",
        "alpha.1. 1",
        "alpha.01.1",
        "alpha.1.01",
        "alpha.1.0x1",
        "alpha.1.ff", /* one spelling */
        "alpha.1.G",
        "alpha.2147483648.1",
        "alpha.1.10000000000000000",
        "Alpha.1.1",
        "-a.1.1",
        "al pha.1.1",
        "al/pha.1.1",
        "al\xc3\xa9.1.1",
        "alpha.1.1 ",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.1.1",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct read_token token = {.timeline = 77};
        if (token_parse(bad[i], strlen(bad[i]), &token))
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(token.timeline, 77);
    }
    struct read_token token;
    assert_false(token_parse("alpha.1.1\0.1", 12, &token));
}

static void a_header_has_several(void **state)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    size_t count = 0;
    (void)state;
    assert_true(tokens_parse(" alpha.1.A,\tbeta.2.B ,gamma.1.1", tokens, 16, &count));
    assert_int_equal(count, 3);
    assert_string_equal(tokens[1].shard, "beta");
    assert_ptr_equal(tokens_find(tokens, count, "gamma"), &tokens[2]);
    assert_null(tokens_find(tokens, count, "gam"));
    assert_null(tokens_find(tokens, 0, "gamma"));

    count = 99;
    static const char *const bad[] = {
        "",           ",", "alpha.1.A,", ",alpha.1.A", "alpha.1.A,,beta.2.B", "alpha.1.A beta.2.B",
        "alpha.1.A;b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (tokens_parse(bad[i], tokens, 16, &count))
            fail_msg("'%s' was taken", bad[i]);
    }
    assert_int_equal(count, 99);
}

/* Somebody may have been told of a new timeline by a replica that is still behind the fork, and has
 * a token from before the fork that is further. */
static void of_one_shard_the_highest_count(void **state)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    size_t count;
    (void)state;
    assert_true(tokens_parse("a.1.B,a.1.A,b.1.1,a.1.C", tokens, 16, &count));
    assert_int_equal(count, 2);
    assert_int_equal(tokens[0].lsn, 0xC);
    for (int i = 0; i < 2; i++) {
        assert_true(tokens_parse(i ? "a.2.5,a.1.C" : "a.1.C,a.2.5", tokens, 16, &count));
        assert_int_equal(count, 1);
        assert_int_equal(tokens[0].timeline, 2);
        assert_int_equal(tokens[0].lsn, 0xC);
    }
}

static void there_is_a_bound(void **state)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    size_t count;
    (void)state;
    assert_true(tokens_parse("a.1.1,b.1.1", tokens, 2, &count));
    assert_false(tokens_parse("a.1.1,b.1.1,c.1.1", tokens, 2, &count));
    assert_true(tokens_parse("a.1.1,b.1.1,a.1.2,b.1.2", tokens, 2, &count));
    assert_int_equal(count, 2);
    assert_true(tokens_parse("a.1.1,b.1.1,c.1.1,d.1.1,e.1.1,f.1.1,g.1.1,h.1.1,i.1.1,j.1.1,k.1.1,"
                             "l.1.1,m.1.1,n.1.1,o.1.1,p.1.1",
                             tokens, 99, &count));
    assert_int_equal(count, ROUTER_TOKENS_MAX);
    assert_false(tokens_parse("a.1.1,b.1.1,c.1.1,d.1.1,e.1.1,f.1.1,g.1.1,h.1.1,i.1.1,j.1.1,k.1.1,"
                              "l.1.1,m.1.1,n.1.1,o.1.1,p.1.1,q.1.1",
                              tokens, 99, &count));
}

static void the_wal_names_it(void **state)
{
    static const char *const bad[][2] = {{"", ""},
                                         {"0/0", "000000010000000000000001"},
                                         {"16B3748", "000000010000000000000001"},
                                         {"/16B3748", "000000010000000000000001"},
                                         {"0/", "000000010000000000000001"},
                                         {"0/1 ", "000000010000000000000001"},
                                         {"123456789/1", "000000010000000000000001"},
                                         {"0/16B3748", "000000000000000000000001"},
                                         {"0/16B3748", "0000000100000000000001"},
                                         {"0/16B3748", "FFFFFFFF0000000000000001"},
                                         {"0/16B3748", "0000000x0000000000000001"}};
    struct read_token token = {.timeline = 77};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (token_from_wal("alpha", bad[i][0], bad[i][1], &token))
            fail_msg("%s %s was taken", bad[i][0], bad[i][1]);
    }
    assert_int_equal(token.timeline, 77);
    assert_true(token_from_wal("alpha", "1A/16B3748", "0000002A0000001A00000001", &token));
    assert_string_equal(token.shard, "alpha");
    assert_int_equal(token.timeline, 0x2A);
    assert_int_equal(token.lsn, UINT64_C(0x1A016B3748));
    assert_true(token_from_wal("a", "FFFFFFFF/FFFFFFFF", "7FFFFFFF0000000000000001", &token));
    assert_int_equal(token.lsn, UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_tokens_come_back),
        cmocka_unit_test(the_longest_fits),
        cmocka_unit_test(bad_tokens_are_refused),
        cmocka_unit_test(a_header_has_several),
        cmocka_unit_test(of_one_shard_the_highest_count),
        cmocka_unit_test(there_is_a_bound),
        cmocka_unit_test(the_wal_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
