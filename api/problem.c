/*
 * Problem details. See problem.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/problem.h"

#include "api/json_out.h"
#include "base/dynbuf.h"

static void add_id(struct dynbuf *out, const char *name, const char *id)
{
    if (id)
        dynbuf_addf(out, ",\"%s\":\"%s\"", name, id);
}

void problem_write_open(struct dynbuf *out, const struct problem *problem)
{
    dynbuf_adds(out, "{\"type\":\"/docs#");
    dynbuf_adds(out, sg_error_code(problem->error));
    dynbuf_adds(out, "\",\"title\":");
    dynbuf_add_json(out, sg_error_title(problem->error));
    dynbuf_adds(out, ",\"status\":");
    dynbuf_add_i64(out, sg_error_http_status(problem->error));
    dynbuf_adds(out, ",\"code\":\"");
    dynbuf_adds(out, sg_error_code(problem->error));
    dynbuf_addc(out, '"');
    if (problem->detail) {
        dynbuf_adds(out, ",\"detail\":");
        dynbuf_add_json(out, problem->detail);
    }
    if (problem->conflicts) {
        dynbuf_adds(out, ",\"conflicts\":");
        json_out_seats(out, problem->conflicts, problem->conflict_count);
    }
    if (problem->has_left) {
        dynbuf_adds(out, ",\"left\":");
        dynbuf_add_i64(out, problem->left);
    }
    add_id(out, "entryId", problem->entry_id);
    add_id(out, "orderId", problem->order_id);
    add_id(out, "bookingId", problem->booking_id);
}

void problem_write(struct dynbuf *out, const struct problem *problem)
{
    problem_write_open(out, problem);
    dynbuf_addc(out, '}');
}

int64_t problem_retry_after_s(int64_t retry_after_ms)
{
    return retry_after_ms <= 1000 ? 1 : (retry_after_ms + 999) / 1000;
}
