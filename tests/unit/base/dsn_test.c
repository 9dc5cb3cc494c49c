/*
 * Goal: a connection string is judged and shown without connecting and without its secrets.
 * Method: tables of strings with the target or the reason expected.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/dsn.h"

static void names_its_server(void **state)
{
    static const struct {
        const char *dsn;
        const char *host;
        const char *port;
        const char *dbname;
    } table[] = {
        {"host=h port=8100 dbname=d user=u password=p", "h", "8100", "d"},
        {"host=h user=u", "h", "5432", "u"},
        {"hostaddr=10.0.0.1", "10.0.0.1", "5432", ""},
        {"service=s1", "service:s1", "5432", ""},
        {"dbname=d", "", "5432", "d"},
        {"postgresql://u:p@h:99/d?connect_timeout=3", "h", "99", "d"},
        {"postgresql://[::1]/d", "::1", "5432", "d"},
        {"host='/var/run/it''s' dbname=d", NULL, NULL, NULL},
        {"host='/var/run/it\\'s' dbname=d", "/var/run/it's", "5432", "d"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct dsn_target target;
        char problem[100];
        bool good = dsn_check(table[i].dsn, &target, problem, sizeof(problem));
        assert_int_equal(good, table[i].host != NULL);
        if (!good)
            continue;
        assert_string_equal(target.host, table[i].host);
        assert_string_equal(target.port, table[i].port);
        assert_string_equal(target.dbname, table[i].dbname);
    }
}

static void refuses_with_a_reason(void **state)
{
    static const struct {
        const char *dsn;
        const char *reason;
    } table[] = {
        {"host", "missing \"=\""},           {"host=h nonsense=1", "nonsense"},
        {"host=a,b", "several servers"},     {"host=h port=5432,5433", "several servers"},
        {"host=h port=0", "port 0"},         {"host=h port=-1", "port -1"},
        {"host=h port=99999", "port 99999"}, {"host=h port=4294967297", "port 4294967297"},
        {"host=h port=5432x", "port 5432x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct dsn_target target;
        char problem[100] = "";
        assert_false(dsn_check(table[i].dsn, &target, problem, sizeof(problem)));
        assert_non_null(strstr(problem, table[i].reason));
        assert_null(strchr(problem, '\n'));
    }
}

static void keeps_the_password_of_a_uri(void **state)
{
    struct dsn_target target;
    char problem[200];
    (void)state;
    assert_false(dsn_check("postgresql://u:secret@[::1/d", &target, problem, sizeof(problem)));
    assert_null(strstr(problem, "secret"));
    assert_false(dsn_check("postgresql://u:secret@h:1/d?x", &target, problem, sizeof(problem)));
    assert_null(strstr(problem, "secret"));
}

static void too_long_is_refused(void **state)
{
    char dsn[600];
    struct dsn_target target;
    char problem[100];
    (void)state;
    memset(dsn, 'h', sizeof(dsn));
    memcpy(dsn, "host=", 5);
    dsn[sizeof(dsn) - 1] = '\0';
    assert_false(dsn_check(dsn, &target, problem, sizeof(problem)));
    assert_non_null(strstr(problem, "too long"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_its_server),
        cmocka_unit_test(refuses_with_a_reason),
        cmocka_unit_test(keeps_the_password_of_a_uri),
        cmocka_unit_test(too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
