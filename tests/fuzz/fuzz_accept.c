/*
 * Fuzzes what is read from headers, paths and queries: the first byte chooses which, the rest is
 * the text.
 *
 * Besides memory errors: cursors and times that are read must be written the same again, numbers
 * must keep their bounds.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "api/accept.h"
#include "api/cursor.h"
#include "api/ids.h"
#include "base/rfc3339.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_media(const char *text)
{
    static const char *const offers[] = {"application/json", "application/vnd.seatgrid.full+json",
                                         "application/x-protobuf"};
    int best = accept_media(text, offers, 3);
    assert(best >= -1 && best < 3);
}

static void fuzz_cursor(const char *text)
{
    char again[CURSOR_LEN + 1];
    int64_t id;
    if (!cursor_parse(text, &id))
        return;
    assert(id >= 1);
    cursor_write(id, again);
    assert(strcmp(again, text) == 0);
}

static void fuzz_time(const char *text)
{
    char again[RFC3339_SIZE];
    int64_t us, us_again;
    if (!rfc3339_parse(text, &us))
        return;
    assert(rfc3339_format(us, again) < RFC3339_SIZE);
    assert(rfc3339_parse(again, &us_again) && us_again == us);
}

static void fuzz_ids(const char *text, size_t len)
{
    char uuid[IDS_UUID_LEN + 1];
    int64_t value;
    if (ids_parse_event(text, len, &value))
        assert(value >= 1);
    if (ids_parse_uuid(text, len, uuid))
        assert(strlen(uuid) == IDS_UUID_LEN);
    if (accept_staleness(text, &value))
        assert(value >= 0 && value <= INT64_C(3600000000));
    ids_is_printable_ascii(text, 255);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size); /* as large as the string, so that reading past its end shows */
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] % 6) {
    case 0:
        fuzz_media(text);
        break;
    case 1:
        accept_coding(text);
        break;
    case 2:
        accept_etag_matches(text, "\"00c0ffee12345678-j\"");
        accept_is_json(text);
        break;
    case 3:
        fuzz_cursor(text);
        break;
    case 4:
        fuzz_time(text);
        break;
    default:
        fuzz_ids(text, size - 1);
    }
    free(text);
    return 0;
}
