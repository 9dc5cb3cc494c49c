/*
 * The books of the stand-in for a payment service.
 *
 * Goal: what was told is found again after any death of the process, sums included; a line that was
 * cut off is not; a journal that is something else is refused.
 * Method: the journal cut after each of its bytes, read again and compared with what had been told
 * by then; thousands of charges through the table's growth.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "payment/ledger.h"

static char folder[] = "/tmp/ledger_test.XXXXXX";
static char path[100];

static const char *id_of(int i)
{
    static char id[PAY_ORDER_ID_MAX + 1];
    snprintf(id, sizeof(id), "01890000-0000-7000-8000-%012x", i);
    return id;
}

static struct ledger *reopen(struct ledger *ledger)
{
    char error_text[256];
    ledger_close(ledger);
    if (ledger_open(path, &ledger, error_text, sizeof(error_text)) != SG_OK)
        fail_msg("%s", error_text);
    return ledger;
}

static void add(struct ledger *ledger, int i, enum pay_outcome outcome)
{
    struct wire_charge request = {.amount = 100 + i, .currency = "EUR", .method = "x"};
    const struct ledger_charge *charge;
    if (i % 2)
        strcpy(request.callback_url, "http://127.0.0.1:1/x?event=1");
    assert_int_equal(ledger_add(ledger, id_of(i), &request, outcome, &charge), SG_OK);
    assert_string_equal(charge->order_id, id_of(i));
}

static void sums_are_found_again(void **state)
{
    struct ledger *ledger = reopen(NULL);
    const struct ledger_charge *charge;
    struct ledger_totals totals;
    (void)state;
    add(ledger, 1, PAY_SUCCEEDED);
    add(ledger, 2, PAY_DECLINED);
    add(ledger, 3, PAY_PENDING);
    add(ledger, 4, PAY_PENDING);
    assert_int_equal(ledger_add(ledger, id_of(5), NULL, PAY_CANCELLED, &charge), SG_OK);
    assert_int_equal(ledger_set(ledger, id_of(3), PAY_SUCCEEDED), SG_OK);
    assert_int_equal(ledger_set(ledger, id_of(1), PAY_REFUNDED), SG_OK);
    for (int i = 0; i < 3; i++) {
        ledger_totals(ledger, &totals);
        assert_int_equal(totals.charged, 101 + 103);
        assert_int_equal(totals.refunded, 101);
        assert_int_equal(totals.count, 5);
        assert_int_equal(totals.by_outcome[PAY_PENDING], 1);
        assert_int_equal(totals.by_outcome[PAY_SUCCEEDED], 1);
        assert_int_equal(totals.by_outcome[PAY_REFUNDED], 1);
        assert_string_equal(ledger_find(ledger, id_of(3))->callback_url,
                            "http://127.0.0.1:1/x?event=1");
        assert_null(ledger_find(ledger, id_of(4))->callback_url);
        assert_string_equal(ledger_find(ledger, id_of(5))->currency, "");
        assert_null(ledger_find(ledger, id_of(6)));
        assert_string_equal(ledger_at(ledger, 0)->order_id, id_of(1));
        assert_null(ledger_at(ledger, 5));
        ledger = reopen(ledger);
    }
    ledger_close(ledger);
    unlink(path);
}

static long file_size(void)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

/* A crash may leave any beginning of the last line. */
static void a_cut_line_is_taken_off(void **state)
{
    struct ledger *ledger = reopen(NULL);
    long one, two;
    (void)state;
    add(ledger, 1, PAY_PENDING);
    one = file_size();
    assert_int_equal(ledger_set(ledger, id_of(1), PAY_SUCCEEDED), SG_OK);
    two = file_size();
    ledger_close(ledger);
    for (long size = two; size >= 0; size--) {
        assert_int_equal(truncate(path, size), 0);
        ledger = reopen(NULL);
        const struct ledger_charge *charge = ledger_find(ledger, id_of(1));
        if (size < one)
            assert_null(charge);
        else
            assert_int_equal(charge->outcome, size == two ? PAY_SUCCEEDED : PAY_PENDING);
        assert_int_equal(file_size(), size == two ? two : size >= one ? one : 0);
        add(ledger, 2, PAY_DECLINED); /* goes on behind the last whole line */
        ledger = reopen(ledger);
        assert_non_null(ledger_find(ledger, id_of(2)));
        ledger_close(ledger);
        /* as it was before, for the next cut */
        unlink(path);
        ledger = reopen(NULL);
        add(ledger, 1, PAY_PENDING);
        assert_int_equal(ledger_set(ledger, id_of(1), PAY_SUCCEEDED), SG_OK);
        ledger_close(ledger);
    }
    unlink(path);
}

#define ONE "CHARGE 01890000-0000-7000-8000-000000000001 succeeded 1 EUR -\n"
#define TWICE ONE ONE

static void other_files_are_no_journals(void **state)
{
    static const char *const texts[] = {
        "hello\n",
        "\n",
        "CHARGE x succeeded 1 EUR -\n",
        "CHARGE 01890000-0000-7000-8000-000000000001 paid 1 EUR -\n",
        "CHARGE 01890000-0000-7000-8000-000000000001 succeeded -1 EUR -\n",
        "CHARGE 01890000-0000-7000-8000-000000000001 succeeded 1 EUR\n",
        "STATUS 01890000-0000-7000-8000-000000000001 succeeded\n",
        TWICE,
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct ledger *ledger = NULL;
        char error_text[256];
        FILE *file = fopen(path, "w");
        fputs(texts[i], file);
        fclose(file);
        if (ledger_open(path, &ledger, error_text, sizeof(error_text)) != SG_CONFIG_INVALID)
            fail_msg("taken for a journal: %s", texts[i]);
        assert_null(ledger);
        assert_non_null(strstr(error_text, path));
        assert_int_equal(file_size(), strlen(texts[i])); /* not touched */
    }
    unlink(path);
}

static void a_folder_that_is_not_there(void **state)
{
    struct ledger *ledger = NULL;
    char error_text[256];
    (void)state;
    assert_int_equal(ledger_open("/nonexistent/journal", &ledger, error_text, sizeof(error_text)),
                     SG_IO);
    assert_null(ledger);
}

static void many_charges_are_all_found(void **state)
{
    char error_text[256];
    struct ledger *ledger;
    struct ledger_totals totals;
    int64_t sum = 0;
    (void)state;
    assert_int_equal(ledger_open(NULL, &ledger, error_text, sizeof(error_text)), SG_OK);
    for (int i = 0; i < 20000; i++) {
        add(ledger, i, PAY_SUCCEEDED);
        sum += 100 + i;
    }
    for (int i = 0; i < 20000; i++) {
        const struct ledger_charge *charge = ledger_find(ledger, id_of(i));
        assert_non_null(charge);
        assert_int_equal(charge->amount, 100 + i);
    }
    ledger_totals(ledger, &totals);
    assert_int_equal(totals.charged, sum);
    ledger_close(ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_found_again),        cmocka_unit_test(a_cut_line_is_taken_off),
        cmocka_unit_test(other_files_are_no_journals), cmocka_unit_test(a_folder_that_is_not_there),
        cmocka_unit_test(many_charges_are_all_found),
    };
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/journal", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
