/*
 * The account of drills: figures beside the promises (docs/reliability.md), for people and
 * programs.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_REPORT_H
#define SG_DRILL_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drill/outcome.h"
#include "drill/rig.h"

struct dynbuf;

struct report_options {
    const struct rig *rig;
    int rate;
    uint64_t seed;
    bool strict; /* promises of speed decide, too */
};

/* True if every promise that decides was kept by all of them. Writes text of 80 columns, or JSON.
 */
bool report_write(const struct report_options *options, const struct outcome *outcomes,
                  size_t count, bool json, struct dynbuf *out);

#endif
