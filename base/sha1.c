/*
 * SHA-1. See sha1.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/sha1.h"

#include <stdint.h>
#include <string.h>

#define BLOCK 64
#define LENGTH_AT 56 /* in the last block: the length of all in bits */
#define WORDS 5

static uint32_t rotate(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

static uint32_t read_u32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void add_block(uint32_t sum[WORDS], const uint8_t block[BLOCK])
{
    uint32_t w[80];
    for (int t = 0; t < 16; t++)
        w[t] = read_u32(block + (size_t)4 * t);
    for (int t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);

    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4];
    for (int t = 0; t < 80; t++) {
        uint32_t mixed;
        if (t < 20)
            mixed = ((b & c) | (~b & d)) + 0x5a827999;
        else if (t < 40)
            mixed = (b ^ c ^ d) + 0x6ed9eba1;
        else if (t < 60)
            mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
        else
            mixed = (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotate(a, 5) + mixed + e + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    sum[0] += a;
    sum[1] += b;
    sum[2] += c;
    sum[3] += d;
    sum[4] += e;
}

void sha1_hex(const void *bytes, size_t len, char ret_hex[SHA1_HEX_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint32_t sum[WORDS] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const uint8_t *from = bytes;
    size_t rest = len;
    for (; rest >= BLOCK; rest -= BLOCK, from += BLOCK)
        add_block(sum, from);

    /* The rest, one bit, zeros, the length: in one block, or in two. */
    uint8_t tail[2 * BLOCK] = {0};
    size_t tail_len = rest < LENGTH_AT ? BLOCK : (size_t)2 * BLOCK;
    if (rest)
        memcpy(tail, from, rest);
    tail[rest] = 0x80;
    uint64_t bits = (uint64_t)len * 8;
    for (size_t i = 1; i <= 8; i++, bits >>= 8)
        tail[tail_len - i] = (uint8_t)bits;
    for (size_t at = 0; at < tail_len; at += BLOCK)
        add_block(sum, tail + at);

    for (size_t i = 0; i < SHA1_HEX_LEN; i++)
        ret_hex[i] = digits[sum[i / 8] >> (28 - 4 * (i % 8)) & 15];
    ret_hex[SHA1_HEX_LEN] = '\0';
}
