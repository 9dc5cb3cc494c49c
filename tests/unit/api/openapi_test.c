/*
 * Goal: the OpenAPI document tells the truth: the same endpoints and error codes as the program,
 * and no reference that leads nowhere.
 * Method: parse the embedded document and compare it with the tables.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/embedded.h"
#include "api/endpoints.h"
#include "base/error.h"

static json_t *document;

static int setup(void **state)
{
    json_error_t error;
    (void)state;
    document = json_loadb(embedded_openapi.start, embedded_len(&embedded_openapi),
                          JSON_REJECT_DUPLICATES, &error);
    if (!document)
        fprintf(stderr, "api/openapi.json:%d: %s\n", error.line, error.text);
    return document ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(document);
    return 0;
}

static json_t *at(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        fail_msg("no '%s'", key);
    return value;
}

static bool has_endpoint(const char *path, const char *method)
{
    for (size_t i = 0; i < endpoint_count; i++) {
        const char *name = endpoints[i].method == HTTP_GET      ? "get"
                           : endpoints[i].method == HTTP_DELETE ? "delete"
                                                                : "post";
        if (strcmp(endpoints[i].path, path) == 0 && strcmp(name, method) == 0)
            return true;
    }
    return false;
}

static void the_same_endpoints(void **state)
{
    const char *path, *method;
    json_t *item, *operation;
    size_t operations = 0;
    (void)state;
    assert_string_equal(json_string_value(at(document, "openapi")), "3.1.0");
    json_object_foreach(at(document, "paths"), path, item)
    {
        json_object_foreach(item, method, operation)
        {
            if (strcmp(method, "parameters") == 0)
                continue;
            if (!has_endpoint(path, method))
                fail_msg("%s %s is documented and not there", method, path);
            at(operation, "operationId");
            at(at(operation, "responses"), "default");
            operations++;
        }
    }
    assert_int_equal(operations, endpoint_count);
}

/* "#/components/schemas/Seat" */
static void follow(const char *reference)
{
    char copy[256], *rest = copy;
    json_t *value = document;
    assert_true(strncmp(reference, "#/", 2) == 0);
    snprintf(copy, sizeof(copy), "%s", reference + 2);
    for (char *key = strsep(&rest, "/"); key; key = strsep(&rest, "/")) {
        value = json_object_get(value, key);
        if (!value)
            fail_msg("%s leads nowhere", reference);
    }
}

static void check_references(json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    json_object_foreach(value, key, member)
    {
        if (strcmp(key, "$ref") == 0)
            follow(json_string_value(member));
        check_references(member);
    }
    json_array_foreach(value, i, member) check_references(member);
}

static void references_lead_somewhere(void **state)
{
    (void)state;
    check_references(document);
}

/* Problems that only the admin listener or the commands tell. */
static bool is_internal(enum sg_error error)
{
    return error == SG_OK || error == SG_MAP_REFUSED || error == SG_RELOAD_BUSY ||
           error == SG_CONFIG_INVALID;
}

static void the_same_error_codes(void **state)
{
    json_t *schemas = at(at(document, "components"), "schemas");
    json_t *codes = at(at(schemas, "ErrorCode"), "enum");
    size_t documented = 0;
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        const char *code = sg_error_code((enum sg_error)i);
        bool found = false;
        for (size_t k = 0; k < json_array_size(codes); k++)
            found = found || strcmp(json_string_value(json_array_get(codes, k)), code) == 0;
        if (found == is_internal((enum sg_error)i))
            fail_msg("%s is %s", code, found ? "documented" : "not documented");
        documented += found;
    }
    assert_int_equal(documented, json_array_size(codes));
}

/* Every problem in an example says what the error table says; a refusal that is kept has a code,
 * and is no problem. */
static void check_problems(json_t *value, bool seen[SG_ERROR_COUNT])
{
    const char *key;
    json_t *member;
    size_t i;
    const char *code = json_string_value(json_object_get(value, "code"));
    bool is_problem =
        json_object_get(value, "title") != NULL || !json_object_get(value, "bookingId");
    for (int k = 0; code && is_problem && k < SG_ERROR_COUNT; k++) {
        enum sg_error error = (enum sg_error)k;
        if (strcmp(sg_error_code(error), code) != 0)
            continue;
        seen[k] = true;
        assert_string_equal(json_string_value(at(value, "title")), sg_error_title(error));
        assert_int_equal(json_integer_value(at(value, "status")), sg_error_http_status(error));
    }
    json_object_foreach(value, key, member) check_problems(member, seen);
    json_array_foreach(value, i, member) check_problems(member, seen);
}

static void examples_of_problems_agree_with_the_table(void **state)
{
    bool seen[SG_ERROR_COUNT] = {false};
    (void)state;
    check_problems(document, seen);
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        if (!seen[i] && !is_internal((enum sg_error)i))
            fail_msg("no example of %s", sg_error_code((enum sg_error)i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_endpoints),
        cmocka_unit_test(references_lead_somewhere),
        cmocka_unit_test(the_same_error_codes),
        cmocka_unit_test(examples_of_problems_agree_with_the_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
