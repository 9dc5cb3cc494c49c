/*
 * Signatures of callbacks.
 *
 * Goal: what the service signed is taken, anything else is not: another secret, body or time, a
 * header with parts missing, twice or cut.
 * Method: a signature that another program made; every header of a table; each bit of a good one
 * turned.
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

#include "payment/hmac.h"

#define NOW 1764000000
#define TOLERANCE 300

static const struct hmac_secret secret = {.bytes = "swordfish-1", .len = 11};
static const char body[] = "{\"orderId\":\"x\"}";
/* printf '1764000000.{"orderId":"x"}' | openssl dgst -sha256 -hmac swordfish-1 */
#define DIGEST "94183958851dcd35edda9db04d6d95ab4ef0c217266986e93b2ccaf41aa4b86d"

static bool verify_at(const char *header, int64_t now_s)
{
    return hmac_verify(&secret, header, body, strlen(body), now_s, TOLERANCE);
}

static void the_signature_is_the_standard_one(void **state)
{
    char signature[HMAC_SIGNATURE_SIZE];
    (void)state;
    assert_true(hmac_sign(&secret, NOW, body, strlen(body), signature));
    assert_string_equal(signature, "t=1764000000,v1=" DIGEST);
    assert_true(verify_at(signature, NOW));
}

static void other_bodies_secrets_and_times_do_not_fit(void **state)
{
    struct hmac_secret other = secret;
    char signature[HMAC_SIGNATURE_SIZE];
    (void)state;
    assert_true(hmac_sign(&secret, NOW, body, strlen(body), signature));
    assert_false(hmac_verify(&secret, signature, body, strlen(body) - 1, NOW, TOLERANCE));
    assert_false(hmac_verify(&secret, signature, "", 0, NOW, TOLERANCE));
    other.bytes[10] = '2';
    assert_false(hmac_verify(&other, signature, body, strlen(body), NOW, TOLERANCE));
    other = secret;
    other.len--;
    assert_false(hmac_verify(&other, signature, body, strlen(body), NOW, TOLERANCE));
    assert_true(verify_at(signature, NOW + TOLERANCE));
    assert_false(verify_at(signature, NOW + TOLERANCE + 1));
    assert_true(verify_at(signature, NOW - TOLERANCE));
    assert_false(verify_at(signature, NOW - TOLERANCE - 1));
}

static void headers(void **state)
{
    static const struct {
        const char *header;
        bool fits;
    } cases[] = {
        {"t=1764000000,v1=" DIGEST, true},
        {"v1=" DIGEST ",t=1764000000", true},
        {"t=1764000000,v0=abc,v1=" DIGEST, true},
        {"t=1764000000,v1=00,v1=" DIGEST ",v1=11", true}, /* an old secret and a new one */
        {"t=1764000000,,v1=" DIGEST ",", true},
        {"", false},
        {"t=1764000000", false},
        {"v1=" DIGEST, false},
        {"t=,v1=" DIGEST, false},
        {"t=1764000000,t=1764000000,v1=" DIGEST, false},
        {"t=+1764000000,v1=" DIGEST, false},
        {"t=1764000000 ,v1=" DIGEST, false},
        {"t=01764000000,v1=" DIGEST, false}, /* the same time, but not what was signed */
        {"t=99999999999999999999,v1=" DIGEST, false},
        {"t=1764000001,v1=" DIGEST, false},
        {"t=1764000000,v1=" DIGEST "0", false},
        {"t=1764000000,v1= " DIGEST, false},
        {"t=1764000000,V1=" DIGEST, false},
        {"t=1764000000,v1=", false},
        {"t=1764000000;v1=" DIGEST, false},
        {NULL, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (verify_at(cases[i].header, NOW) != cases[i].fits)
            fail_msg("%s", cases[i].header ? cases[i].header : "(none)");
    }
}

static void every_digit_counts(void **state)
{
    char header[] = "t=1764000000,v1=" DIGEST;
    (void)state;
    for (size_t i = strlen("t=1764000000,v1="); i < strlen(header); i++) {
        char right = header[i];
        header[i] = right == '0' ? '1' : '0';
        assert_false(verify_at(header, NOW));
        header[i] = 'g';
        assert_false(verify_at(header, NOW));
        header[i] = right;
    }
    assert_true(verify_at(header, NOW));
}

static void a_header_too_long_is_not_looked_at(void **state)
{
    char header[HMAC_HEADER_MAX + 200];
    (void)state;
    int len = snprintf(header, sizeof(header), "t=1764000000,v1=" DIGEST ",");
    memset(header + len, 'x', sizeof(header) - (size_t)len);
    header[HMAC_HEADER_MAX] = '\0';
    assert_true(verify_at(header, NOW));
    header[HMAC_HEADER_MAX] = 'x';
    header[HMAC_HEADER_MAX + 1] = '\0';
    assert_false(verify_at(header, NOW));
}

/* --- the file --------------------------------------------------------------------------------- */

static enum sg_error load(const char *text, size_t len, struct hmac_secret *ret_secret)
{
    char path[] = "/tmp/hmac_test.XXXXXX";
    char error_text[256] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    enum sg_error error = hmac_load(path, ret_secret, error_text, sizeof(error_text));
    unlink(path);
    assert_true(error == SG_OK || strstr(error_text, path));
    return error;
}

static void secrets_come_from_a_file(void **state)
{
    static char text[HMAC_SECRET_MAX + 10];
    struct hmac_secret read = {.len = 77};
    char error_text[256];
    (void)state;
    memset(text, 's', sizeof(text));
    assert_int_equal(load("swordfish-1\n", 12, &read), SG_OK);
    assert_int_equal(read.len, 11);
    assert_memory_equal(read.bytes, "swordfish-1", 11);
    assert_int_equal(load("12345678", 8, &read), SG_OK);
    assert_int_equal(read.len, 8);
    assert_int_equal(load("1234567\n", 8, &read), SG_CONFIG_INVALID);
    assert_int_equal(load("", 0, &read), SG_CONFIG_INVALID);
    assert_int_equal(read.len, 8); /* untouched */
    assert_int_equal(load(text, HMAC_SECRET_MAX + 1, &read), SG_CONFIG_INVALID);
    text[HMAC_SECRET_MAX] = '\n';
    assert_int_equal(load(text, HMAC_SECRET_MAX + 1, &read), SG_OK);
    assert_int_equal(read.len, HMAC_SECRET_MAX);
    assert_int_equal(hmac_load("/nonexistent/secret", &read, error_text, sizeof(error_text)),
                     SG_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_signature_is_the_standard_one),
        cmocka_unit_test(other_bodies_secrets_and_times_do_not_fit),
        cmocka_unit_test(headers),
        cmocka_unit_test(every_digit_counts),
        cmocka_unit_test(a_header_too_long_is_not_looked_at),
        cmocka_unit_test(secrets_come_from_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
