/*
 * Signatures of callbacks: HMAC-SHA256 over the time and the body, with a secret that both sides
 * know. Pure but for the reading of the secret's file.
 *
 *   SeatGrid-Signature: t=1764000000,v1=5257a869...
 *                                       64 hex digits of HMAC(secret, "1764000000.BODY")
 *
 * The time is part of what is signed, so that an old callback cannot be played again for ever.
 * There may be several v1, of an old secret and a new one: one that fits is enough. Other elements
 * are passed over. OpenSSL stays behind this line.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_HMAC_H
#define SG_PAYMENT_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define HMAC_HEADER "SeatGrid-Signature"
#define HMAC_HEADER_LOWER "seatgrid-signature"
#define HMAC_SECRET_MAX 256    /* bytes */
#define HMAC_SECRET_MIN 8      /* bytes; shorter ones are a mistake */
#define HMAC_SIGNATURE_SIZE 96 /* t=, a time, ,v1=, 64 digits, NUL */
#define HMAC_HEADER_MAX 512    /* bytes of a header that is looked at */

struct hmac_secret {
    unsigned char bytes[HMAC_SECRET_MAX];
    size_t len;
};

/* Reads the file; a final newline does not count. SG_IO or SG_CONFIG_INVALID with a readable line
 * in error_text. */
enum sg_error hmac_load(const char *path, struct hmac_secret *ret_secret, char *error_text,
                        size_t error_size);
/* The header's value for this body. False when memory runs out. */
bool hmac_sign(const struct hmac_secret *secret, int64_t now_s, const void *body, size_t len,
               char ret_signature[HMAC_SIGNATURE_SIZE]);
/* True if one of the header's v1 fits and its time is at most tolerance_s from now_s. Takes as long
 * for a signature that nearly fits as for any other. header NULL: false. */
bool hmac_verify(const struct hmac_secret *secret, const char *header, const void *body, size_t len,
                 int64_t now_s, int64_t tolerance_s);

#endif
