/*
 * The names of what SeatGrid keeps in Redis: a contract between the consumer, which writes
 * (replication/), the routers, which read, and whoever else looks. Pure.
 *
 *   sg1:{s:SHARD}                      hash     the shard: its generation, epoch, position, beat
 *   sg1:{e:EVENT}:SHARD.GEN            hash     counters of an event
 *   sg1:{e:EVENT}:SHARD.GEN:changes    stream   its latest seat changes, while somebody watches
 *   sg1:{e:EVENT}:watched              string   somebody watches (expires by itself)
 *   sg1:{e:EVENT}:live                 channel  the same changes as they come
 *   sg1:{u:USER}:SHARD.GEN             hash     tickets of a user on one shard: booking -> event
 *
 * "sg1" is the version of all of it. What stands in braces is the hash tag of Redis Cluster: every
 * script touches keys of one tag only. GEN counts the times a shard's keys were built anew; readers
 * take it from the shard's hash, and never look at keys of another generation.
 *
 *   shard    gen epoch timeline system lsn beat state status
 *            gen       the generation to read; absent until the first seed is done
 *            epoch     of the consumer that writes; a lower one is refused
 *            timeline, system   of the PostgreSQL that the generation was read from
 *            lsn       every commit up to it is in the keys (decimal)
 *            beat      counts up while a consumer keeps the keys in step
 *            state     "live", or "stale": commits are missing, readers ask PostgreSQL
 *            status    JSON for people: what `seatgrid nodes` shows of the stream
 *   event    at epoch total available held booked rows cols; a deleted one: at epoch deleted
 *            one that is to be healed: at epoch total rows cols; its counters are not known
 *   tickets  at epoch, and for each booking that is held or confirmed: BOOKING-UUID -> EVENT
 *            at        position of the last change that is in this key, 30 digits: 20 of the
 *                      commit's LSN, 10 of the change's place in its transaction. Digits alone,
 *                      because Lua compares strings by the server's locale.
 *   changes  one entry a change, with a field "c": a line as below, and perhaps a field "b": its
 *            note, without "b ". Its id is the line's ID.
 *
 * Lines on the live channel and in `changes`: eight fields with one blank between them, ASCII.
 *
 *   SHARD.GEN PREV ID TOTAL AVAILABLE HELD BOOKED SEATS
 *   alpha.7 91234-1 91300-2 100 97 1 2 x:4,5;.:9
 *
 *            ID        position of the change, "LSN-PLACE" in decimal, both without leading zeros;
 *                      PREV that of the event's change before it, watched or not ("0-0": none).
 *                      So who has seen everything up to PREV has now seen everything up to ID, and
 *                      any other reader has missed something and must look at the seats again.
 *            TOTAL ... the counters after the change
 *            SEATS     groups STATE:SEAT_NO,SEAT_NO,... with ';' between them, in order. STATE is
 *                      '.' available, 'h' held, 'x' booked; SEAT_NO = (row - 1) * cols + col - 1;
 *                      one outside of the grid is to be ignored.
 *                      Or one word: "-" no seat changed; "resync" look at all seats again (also the
 *                      grid); "gone" the event was deleted, its counters are 0.
 *
 * What was done to one booking has a note: a line before its own, "b BOOKING STATUS".
 *
 *   b 01973c6e-25a1-7c7c-8f00-0123456789ab confirmed
 *
 *            STATUS    of the booking from then on: held, confirmed, cancelled, expired, failed.
 *
 * A change of status that moves no seats is a line with "-". Whose booking it is stands nowhere. A
 * "resync" has no notes.
 *
 * A reader passes over lines and fields that it does not know, and misses nothing else by it.
 *
 * A message on the channel is one or more lines with '\n' between them (none at the end). To go on
 * from an ID: if the counters' `at` is that position, nothing happened since. Else XRANGE changes
 * ID +: if there is an entry of that ID, or one whose PREV it is, everything from there on is it,
 * as far as each PREV is the ID before; anything else means to look again. `changes` is trimmed to
 * live.history entries or a little more, and expires with `watched`, as that stood at the last
 * change; both only ever cost a reader a look at all seats.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_REDISKEYS_H
#define SG_BASE_REDISKEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDISKEY_MAX 192     /* bytes of any key with its NUL */
#define POSITION_TEXT_LEN 30 /* digits */

/* Where in the WAL a change stands: by commit, then by its place in the transaction from 1. */
struct position {
    uint64_t lsn;
    uint32_t place;
};

/* -1, 0, 1. */
int position_compare(const struct position *a, const struct position *b);
void position_format(const struct position *position, char ret_text[POSITION_TEXT_LEN + 1]);
/* False and *ret_position untouched unless the text is exactly such digits. */
bool position_parse(const char *text, size_t len, struct position *ret_position);

/* Each returns the key's length. `shard` is a name of the map, `user` 1 to 64 printable bytes. */
size_t rediskey_shard(char ret_key[REDISKEY_MAX], const char *shard);
size_t rediskey_event(char ret_key[REDISKEY_MAX], int64_t event_id, const char *shard,
                      int64_t generation);
size_t rediskey_changes(char ret_key[REDISKEY_MAX], int64_t event_id, const char *shard,
                        int64_t generation);
size_t rediskey_watched(char ret_key[REDISKEY_MAX], int64_t event_id);
size_t rediskey_live(char ret_key[REDISKEY_MAX], int64_t event_id);
size_t rediskey_tickets(char ret_key[REDISKEY_MAX], const char *user, const char *shard,
                        int64_t generation);

enum rediskey_kind { REDISKEY_OTHER, REDISKEY_EVENT, REDISKEY_CHANGES, REDISKEY_TICKETS };

/* A key of any generation of `shard`, taken apart: its kind, generation, and event or user (copied,
 * NUL-terminated). REDISKEY_OTHER, and nothing written, for any other key. */
struct rediskey {
    int64_t generation;
    int64_t event_id; /* EVENT, CHANGES */
    char user[65];    /* TICKETS */
};
enum rediskey_kind rediskey_parse(const char *key, size_t len, const char *shard,
                                  struct rediskey *ret_key);

#endif
