/*
 * A read of STATEMENT_BEST_VIEW, off the wire and into a view. Pure.
 *
 *   one row, binary: rows, cols, booked int4[], held int4[], left_ms int4[] (of each held seat),
 *                    tier_names text[], tier_first_rows int4[]; arrays may be NULL
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BEST_ROWS_H
#define SG_ROUTER_BEST_ROWS_H

#include <libpq-fe.h>

#include "base/error.h"
#include "router/bestview.h"

/* SG_OK; SG_UNKNOWN_EVENT: no row; SG_INTERNAL: malformed; SG_OVERLOADED: no room (bestview_load).
 * But for SG_OK the view is as before, and without a read. */
enum sg_error best_rows_load(struct bestview *view, const PGresult *rows, int64_t now_us);

#endif
