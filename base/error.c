/*
 * The error table's lookups. See error.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/error.h"

#include <assert.h>

static const struct {
    const char *code;
    int http_status;
    bool may_retry;
    const char *title;
} table[SG_ERROR_COUNT] = {
#define X(name, code, status, retry, title) [name] = {code, status, retry, title},
    SG_ERROR_TABLE(X)
#undef X
};

const char *sg_error_code(enum sg_error error)
{
    assert(error < SG_ERROR_COUNT);
    return table[error].code;
}

int sg_error_http_status(enum sg_error error)
{
    assert(error < SG_ERROR_COUNT);
    return table[error].http_status;
}

bool sg_error_may_retry(enum sg_error error)
{
    assert(error < SG_ERROR_COUNT);
    return table[error].may_retry;
}

const char *sg_error_title(enum sg_error error)
{
    assert(error < SG_ERROR_COUNT);
    return table[error].title;
}
