-- What the consumer of the WAL needs (replication/). One booking transition is one change, of one
-- row of bookings; claims, the rows of seats, are not published.
--
-- SPDX-License-Identifier: MIT

-- An update or a delete carries the whole old row: a counter needs the status and seats that were.
-- An insert, which is what a sale is, costs the same as before.
ALTER TABLE bookings REPLICA IDENTITY FULL;

CREATE PUBLICATION seatgrid FOR TABLE events, bookings;

-- Numbers the consumers of this shard, and the generations of its keys in Redis. A number once
-- given is not given again; after the loss of a primary a consumer also looks at what Redis knows.
CREATE SEQUENCE cdc_epoch;

-- "My tickets" on this shard. Every status, so that a change of status stays a heap-only update.
CREATE INDEX bookings_user ON bookings (user_id);
