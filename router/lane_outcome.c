/*
 * The database's words for what became of a request. See lane.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane.h"

#include <string.h>

bool lane_outcome(const char *outcome, enum sg_error *ret_error)
{
    static const struct {
        const char *outcome;
        enum sg_error error;
    } outcomes[] = {{"booked", SG_OK},
                    {"ok", SG_OK},
                    {"replayed", SG_OK},
                    {"seats_taken", SG_SEATS_TAKEN},
                    {"unknown_seat", SG_UNKNOWN_SEAT},
                    {"unknown_event", SG_UNKNOWN_EVENT},
                    {"unknown_tier", SG_UNKNOWN_TIER},
                    {"sold_out", SG_SOLD_OUT},
                    {"not_together", SG_NOT_TOGETHER},
                    {"over_limit", SG_OVER_LIMIT},
                    {"key_reused", SG_KEY_REUSED},
                    {"unknown_booking", SG_UNKNOWN_BOOKING},
                    {"not_owner", SG_NOT_OWNER},
                    {"hold_expired", SG_HOLD_EXPIRED},
                    {"booking_ended", SG_BOOKING_ENDED},
                    {"not_held", SG_NOT_HELD},
                    {"not_confirmed", SG_NOT_CONFIRMED},
                    {"extensions_used", SG_EXTENSIONS_USED},
                    {"order_open", SG_ORDER_OPEN},
                    {"unknown_order", SG_UNKNOWN_ORDER},
                    {"unknown_entry", SG_UNKNOWN_ENTRY},
                    {"already_waiting", SG_ALREADY_WAITING},
                    {"too_many", SG_TOO_MANY_SEATS},
                    {"offered", SG_OFFERED},
                    {"fenced", SG_FENCED},
                    {"stale_epoch", SG_STALE_EPOCH},
                    {"not_synchronous", SG_NOT_SYNCHRONOUS}};
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        if (strcmp(outcome, outcomes[i].outcome) == 0) {
            *ret_error = outcomes[i].error;
            return true;
        }
    }
    return false;
}
