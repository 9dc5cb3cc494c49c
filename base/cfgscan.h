/*
 * The gate in front of libconfig: looks over a configuration text and says what is wrong with it.
 *
 *   text ── cfgscan_clean ──> fine: the same text, its large numbers suffixed with L, to libconfig
 *                        └──> not: line and reason, libconfig never sees it
 *
 * Pure. libconfig's own scanner takes some texts in silence and for something else than was
 * written: 5000000000 without a suffix loses its upper half in version 1.5, so does 0x100000000 in
 * both; 9223372036854775808L is read as one less, 010 as ten or as eight depending on the version,
 * `\x00` cuts a string; @include opens other files; and what it does refuse is a "syntax error"
 * somewhere behind the mistake. Everything that passes here means the same to libconfig 1.5
 * and 1.7, and no line changes its number. The accepted language is libconfig's without fractions,
 * @include, line breaks inside strings, commas before a closing bracket and nesting deeper than
 * CFGSCAN_DEPTH_MAX.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_CFGSCAN_H
#define SG_BASE_CFGSCAN_H

#include <stdbool.h>
#include <stddef.h>

struct dynbuf;

#define CFGSCAN_DEPTH_MAX 16  /* brackets inside brackets */
#define CFGSCAN_KEYS_MAX 1000 /* settings in one group: libconfig compares each with all */

struct cfgscan_problem {
    int line;
    char text[200]; /* what is wrong; how to mend it */
};

/* True if all is well: `out` then holds the text for libconfig, unless memory ran out
 * (out->failed). Else the first problem is in *ret_problem and `out` means nothing. */
bool cfgscan_clean(const char *text, size_t len, struct dynbuf *out,
                   struct cfgscan_problem *ret_problem);

#endif
