/*
 * Signatures of callbacks. See hmac.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/hmac.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <string.h>

#define DIGEST_LEN 32
#define DIGITS_MAX 18 /* of a time: fits into 64 bits */

/* --- the digest ------------------------------------------------------------------------------- */

/* HMAC-SHA256 of "TIME.BODY"; false when memory runs out. */
static bool digest(const struct hmac_secret *secret, const char *time, size_t time_len,
                   const void *body, size_t len, unsigned char ret_digest[DIGEST_LEN])
{
    char name[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", name, 0),
                                 OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    size_t digest_len = 0;
    bool done = ctx && EVP_MAC_init(ctx, secret->bytes, secret->len, params) &&
                EVP_MAC_update(ctx, (const unsigned char *)time, time_len) &&
                EVP_MAC_update(ctx, (const unsigned char *)".", 1) &&
                EVP_MAC_update(ctx, body, len) &&
                EVP_MAC_final(ctx, ret_digest, &digest_len, DIGEST_LEN) && digest_len == DIGEST_LEN;
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
    return done;
}

bool hmac_sign(const struct hmac_secret *secret, int64_t now_s, const void *body, size_t len,
               char ret_signature[HMAC_SIGNATURE_SIZE])
{
    unsigned char bytes[DIGEST_LEN];
    char time[24];
    int time_len = snprintf(time, sizeof(time), "%lld", (long long)now_s);
    if (!digest(secret, time, (size_t)time_len, body, len, bytes))
        return false;
    int used = snprintf(ret_signature, HMAC_SIGNATURE_SIZE, "t=%s,v1=", time);
    for (size_t i = 0; i < DIGEST_LEN; i++)
        used += snprintf(ret_signature + used, 3, "%02x", bytes[i]);
    return true;
}

/* --- the header ------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_digest(const char *text, size_t len, unsigned char ret_digest[DIGEST_LEN])
{
    if (len != (size_t)2 * DIGEST_LEN)
        return false;
    for (size_t i = 0; i < DIGEST_LEN; i++) {
        int high = hex_value(text[2 * i]);
        int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret_digest[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* The element that begins here with `name`, which ends in '='; NULL if it is another. */
static const char *value_of(const char *element, size_t len, const char *name, size_t *ret_len)
{
    size_t name_len = strlen(name);
    if (len < name_len || memcmp(element, name, name_len) != 0)
        return NULL;
    *ret_len = len - name_len;
    return element + name_len;
}

/* The one t= of the header, as its digits and as a number. */
static bool find_time(const char *header, const char **ret_digits, size_t *ret_len,
                      int64_t *ret_time_s)
{
    int found = 0;
    for (const char *p = header; *p; p += strspn(p, ",")) {
        size_t element_len = strcspn(p, ",");
        size_t len;
        const char *digits = value_of(p, element_len, "t=", &len);
        p += element_len;
        if (!digits)
            continue;
        if (found++ || len < 1 || len > DIGITS_MAX || strspn(digits, "0123456789") != len)
            return false;
        *ret_digits = digits;
        *ret_len = len;
        *ret_time_s = 0;
        for (size_t i = 0; i < len; i++)
            *ret_time_s = *ret_time_s * 10 + (digits[i] - '0');
    }
    return found == 1;
}

bool hmac_verify(const struct hmac_secret *secret, const char *header, const void *body, size_t len,
                 int64_t now_s, int64_t tolerance_s)
{
    const char *digits;
    size_t digits_len;
    int64_t time_s;
    unsigned char expected[DIGEST_LEN];
    bool fits = false;
    if (!header || strnlen(header, HMAC_HEADER_MAX + 1) > HMAC_HEADER_MAX ||
        !find_time(header, &digits, &digits_len, &time_s) ||
        !digest(secret, digits, digits_len, body, len, expected))
        return false;
    for (const char *p = header; *p; p += strspn(p, ",")) {
        unsigned char given[DIGEST_LEN];
        size_t element_len = strcspn(p, ",");
        size_t hex_len;
        const char *hex = value_of(p, element_len, "v1=", &hex_len);
        p += element_len;
        if (hex && parse_digest(hex, hex_len, given) &&
            CRYPTO_memcmp(given, expected, DIGEST_LEN) == 0)
            fits = true;
    }
    int64_t age_s = now_s > time_s ? now_s - time_s : time_s - now_s;
    return fits && age_s <= tolerance_s;
}

/* --- the secret ------------------------------------------------------------------------------- */

enum sg_error hmac_load(const char *path, struct hmac_secret *ret_secret, char *error_text,
                        size_t error_size)
{
    struct hmac_secret secret;
    unsigned char bytes[HMAC_SECRET_MAX + 2];
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(error_text, error_size, "%s: cannot be read: %s", path, strerror(errno));
        return SG_IO;
    }
    size_t len = fread(bytes, 1, sizeof(bytes), file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed) {
        snprintf(error_text, error_size, "%s: cannot be read", path);
        return SG_IO;
    }
    if (len && bytes[len - 1] == '\n')
        len--;
    if (len < HMAC_SECRET_MIN || len > HMAC_SECRET_MAX) {
        snprintf(error_text, error_size, "%s: holds no secret of %d to %d bytes", path,
                 HMAC_SECRET_MIN, HMAC_SECRET_MAX);
        return SG_CONFIG_INVALID;
    }
    memcpy(secret.bytes, bytes, len);
    secret.len = len;
    *ret_secret = secret;
    return SG_OK;
}
