/*
 * Representations of a seat map: states to bytes, kept with the seat map so that readers share
 * them. Pure but for that cache.
 *
 *   struct seatmap ── JSON | full JSON | protobuf ── identity | gzip ──> seatmap->bodies[form]
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_SEATMAP_BODY_H
#define SG_API_SEATMAP_BODY_H

#include <stdbool.h>
#include <stddef.h>

#include "api/accept.h"
#include "router/router.h"

#define SEATMAP_ETAG_SIZE 24

/* In the server's order of preference; the same order as enum seatmap_form, two forms each. */
enum seatmap_media { SEATMAP_MEDIA_JSON, SEATMAP_MEDIA_FULL, SEATMAP_MEDIA_PROTOBUF };
#define SEATMAP_MEDIA_COUNT 3

/* Media types by enum seatmap_media. */
extern const char *const seatmap_media_types[SEATMAP_MEDIA_COUNT];

/* The form to send: gzip if the client takes it and the body is not smaller than gzip_min_bytes.
 * Decided from rows and columns alone, so that an entity tag is known before any body is made. */
enum seatmap_form seatmap_body_form(const struct seatmap *seatmap, enum seatmap_media media,
                                    enum accept_coding coding, size_t gzip_min_bytes);
bool seatmap_body_is_gzip(enum seatmap_form form);
/* Strong entity tag, with quotes: the hash of the seats and the form. */
void seatmap_body_etag(const struct seatmap *seatmap, enum seatmap_form form,
                       char ret_etag[SEATMAP_ETAG_SIZE]);
/* The body in that form, made at first use; it lives with the seat map. NULL when memory runs
 * out. */
const struct seatmap_body *seatmap_body_get(struct seatmap *seatmap, enum seatmap_form form);

#endif
