/*
 * Request headers that choose among answers: Accept, Accept-Encoding, If-None-Match (RFC 9110) and
 * SeatGrid-Max-Staleness. Pure.
 *
 * An element that is not well-formed is skipped, as if it were not there; header values are NULL
 * when the header is missing.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_ACCEPT_H
#define SG_API_ACCEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the client says about content codings. */
enum accept_coding {
    ACCEPT_CODING_IDENTITY,  /* no gzip */
    ACCEPT_CODING_EITHER,    /* gzip if it pays */
    ACCEPT_CODING_GZIP_ONLY, /* gzip; identity is refused */
};

/* Index of the best of the offered media types ("type/subtype", lower case, in the server's order
 * of preference), or -1 if the client takes none of them. The highest q wins, then the more precise
 * media range, then the order. No or an empty header: the first. */
int accept_media(const char *accept, const char *const *offers, size_t offer_count);

enum accept_coding accept_coding(const char *accept_encoding);

/* True if the list names the entity tag (weak comparison, tag with its quotes) or is "*". */
bool accept_etag_matches(const char *if_none_match, const char *etag);

/* True for a Content-Type that is JSON in UTF-8: "application/json", with no parameter or with
 * charset=utf-8. */
bool accept_is_json(const char *content_type);

/* "250ms", "2s", "0ms": at most one hour. False and *ret_us untouched otherwise. */
bool accept_staleness(const char *text, int64_t *ret_us);

/* True if the list of preferences of a Prefer header (RFC 7240; NULL for none) has `name`, which
 * takes no value: other preferences and parameters are passed over. */
bool accept_prefers(const char *prefer, const char *name);

#endif
