-- What every shard holds. A free seat costs nothing: a claim exists only for a seat that is held or
-- booked, so an event of a million seats is one row and a seat map reads only what is taken.
--
-- There are no foreign keys between these tables: the functions of the next file are the only
-- writers, they check in the same statement, and a key check a seat would cost a third of the speed.
--
-- SPDX-License-Identifier: MIT

-- One row: which shard this database is, and whether it may take writes.
CREATE TABLE shard_meta (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    shard   text    NOT NULL,
    epoch   bigint  NOT NULL,          -- counts the shard's primaries; a router with another epoch is refused
    fenced  boolean NOT NULL           -- true: every write is refused (a switchover is under way)
);

CREATE TABLE events (
    event_id    bigint      PRIMARY KEY CHECK (event_id > 0),
    name        text        NOT NULL,
    starts_at   timestamptz NOT NULL,
    rows        integer     NOT NULL CHECK (rows > 0),
    cols        integer     NOT NULL CHECK (cols > 0),
    creation_id uuid        NOT NULL UNIQUE,   -- made by the router; a creation asked again is found by it
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TYPE claim_state AS ENUM ('held', 'booked');

-- The sparse seat table. seat_no = (row - 1) * cols + col - 1, rows and columns from 1.
CREATE TABLE claims (
    event_id    bigint      NOT NULL,
    booking_id  uuid        NOT NULL,
    held_until  timestamptz,           -- of a hold; past it the seat is free again, row or no row
    seat_no     integer     NOT NULL,
    state       claim_state NOT NULL,
    PRIMARY KEY (event_id, seat_no),
    CHECK ((state = 'held') = (held_until IS NOT NULL))
);

CREATE TYPE booking_status AS ENUM ('held', 'confirmed', 'cancelled', 'expired', 'failed');

CREATE TABLE bookings (
    event_id        bigint         NOT NULL,
    booking_id      uuid           NOT NULL,   -- made by the router (UUIDv7); asks again by itself
    user_id         text           NOT NULL,
    status          booking_status NOT NULL,
    seats           integer[]      NOT NULL,   -- seat_no, in the order asked for
    amount          bigint         NOT NULL DEFAULT 0,   -- integer minor units
    currency        text,                                -- ISO 4217, with an amount
    idempotency_key text,                      -- the client's, kept 24 hours
    request_hash    bigint         NOT NULL,   -- of what was asked: the same key with another body is refused
    created_at      timestamptz    NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    updated_at      timestamptz    NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, booking_id)
);

CREATE UNIQUE INDEX bookings_idempotency_key ON bookings (event_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Claims and bookings only grow under load; the default 20 % would let the visibility map go stale
-- on a busy event, and a seat count reads the index alone while it is fresh.
ALTER TABLE claims SET (autovacuum_vacuum_insert_scale_factor = 0.05);
