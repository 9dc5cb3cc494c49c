/*
 * What becomes of a message. See verdict.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/verdict.h"

enum queue_verdict queue_verdict(enum sg_error error, int64_t tries, int64_t tries_max)
{
    if (error == SG_OK)
        return VERDICT_BOOKED;
    if (sg_error_may_retry(error) || error == SG_NO_MEMORY)
        return VERDICT_AGAIN_ALL;
    if (sg_error_http_status(error) < 500)
        return VERDICT_REFUSED;
    return tries < tries_max ? VERDICT_AGAIN_ONE : VERDICT_DEAD;
}
