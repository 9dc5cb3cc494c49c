/*
 * What a drill's requests look like, and what their answers mean for its history. Pure.
 *
 *   history ─> text of a request ... answer ─> attempt or read of the history
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_DIALECT_H
#define SG_DRILL_DIALECT_H

#include <stddef.h>
#include <stdint.h>

#include "drill/answer.h"
#include "drill/history.h"

#define DIALECT_REQUEST_MAX 2048
#define DIALECT_SEATS_MAX 8 /* of one booking */

/* The bytes of a request; its length. */
size_t dialect_booking(const struct history *history, uint32_t index,
                       char ret_request[DIALECT_REQUEST_MAX]);
size_t dialect_read(const struct history *history, const struct history_read *read,
                    char ret_request[DIALECT_REQUEST_MAX]);

/* Notes all that the answer says but when it came. A 200 without the event's seat map makes the
 * read GARBLED. */
void dialect_note_booking(struct history *history, uint32_t attempt, const struct answer *answer);
void dialect_note_read(struct history *history, uint32_t read, const struct answer *answer);

#endif
