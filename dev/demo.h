/*
 * The first minute with a new cluster: a demo event, a first booking, and what to try next.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_DEMO_H
#define SG_DEV_DEMO_H

#include "base/error.h"
#include "dev/layout.h"

/* Makes the event, a booking and a hold over HTTP, and prints curl lines to try. */
enum sg_error demo_play(struct cluster *cluster);

#endif
