#!/usr/bin/python3
"""Remakes the corpora of fuzz_pgoutput and fuzz_walframe from a real PostgreSQL 15 or later, so that
they hold what a server says and not what we think it says. Needs a server that trusts the user, with
wal_level = logical, logical_decoding_work_mem = 64kB and four free slots; speaks the protocol itself.

    tests/fuzz/capture_pgoutput.py HOST PORT USER

Makes a database of its own (seatgrid_capture), four slots, one workload, then reads the workload once
each way: protocol 1 and 2 (streaming), values as text and binary. Markers in the WAL, messages with
the prefix `step`, cut it into files:

    corpus/pgoutput/<version>_<format>_<step>   messages, each behind its length in 4 bytes (network order)
    corpus/walframe/<kind>_<n>                  one frame each, as it came in COPY data

Slots and database are dropped at the end.

SPDX-License-Identifier: MIT
"""
import os
import socket
import struct
import sys

DATABASE = 'seatgrid_capture'
HERE = os.path.dirname(os.path.abspath(__file__))
WAYS = {'v1_text': (1, False), 'v1_binary': (1, True), 'v2_text': (2, False), 'v2_binary': (2, True)}

# Tables like those of migrations/, and one whose rows fill the decoder's memory without being sent.
SCHEMA = """
CREATE TYPE booking_status AS ENUM ('held', 'confirmed', 'cancelled', 'expired', 'failed');
CREATE TABLE events (event_id bigint PRIMARY KEY, name text NOT NULL, starts_at timestamptz NOT NULL,
    rows integer NOT NULL, cols integer NOT NULL);
CREATE TABLE bookings (event_id bigint NOT NULL, booking_id uuid NOT NULL, user_id text NOT NULL,
    status booking_status NOT NULL, seats integer[] NOT NULL, amount bigint NOT NULL DEFAULT 0,
    currency text, expires_at timestamptz, PRIMARY KEY (event_id, booking_id));
ALTER TABLE bookings REPLICA IDENTITY FULL;
CREATE TABLE notes (id integer PRIMARY KEY, n integer, body text);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
CREATE TABLE ballast (filler text);
ALTER TABLE ballast ALTER filler SET STORAGE PLAIN;
CREATE PUBLICATION seatgrid FOR TABLE events, bookings, notes;
"""

INSERT = "INSERT INTO bookings VALUES (7, '0190a0de-0000-7000-8000-0000000000{:02x}', '{}', '{}', '{}', {})"
UPDATE = "UPDATE bookings SET status = '{}' WHERE booking_id = '0190a0de-0000-7000-8000-0000000000{:02x}'"
BALLAST = "INSERT INTO ballast SELECT repeat('x', 7000) FROM generate_series(1, 12)"


class Connection:
    """One connection and the simple protocol; errors are raised with the server's text."""

    def __init__(self, host, port, user, database, replication=False):
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.file = self.socket.makefile('rb')
        pairs = ['user', user, 'database', database] + (['replication', 'database'] if replication else [])
        body = struct.pack('!i', 196608) + b''.join(p.encode() + b'\0' for p in pairs) + b'\0'
        self.socket.sendall(struct.pack('!i', len(body) + 4) + body)
        self.until(b'Z')

    def receive(self):
        kind, length = struct.unpack('!ci', self.file.read(5))
        body = self.file.read(length - 4)
        if kind == b'E':
            raise RuntimeError(body.replace(b'\0', b' ').decode())
        if kind == b'R' and body != b'\0\0\0\0':
            raise RuntimeError('the server asks for a password; trust is wanted')
        return kind, body

    def until(self, wanted):
        while True:
            kind, body = self.receive()
            if kind == wanted:
                return body

    def send(self, kind, body):
        self.socket.sendall(kind + struct.pack('!i', len(body) + 4) + body)

    def start(self, sql):
        self.send(b'Q', sql.encode() + b'\0')

    def run(self, *statements):
        for sql in statements:
            self.start(sql)
            self.until(b'Z')


def booking(number, user='u-1', status='confirmed', seats='{1,2}', more="0, NULL, NULL"):
    return INSERT.format(number, user, status, seats, more)


def workload(one, two):
    """What happens on the server, step by step; `one` and `two` are sessions."""
    def step(name):
        one.run(f"SELECT pg_logical_emit_message(false, 'step', '{name}')")

    step('sale')
    one.run("INSERT INTO events VALUES (7, 'Träume', '2027-06-01 19:00Z', 10, 20)",
            booking(1, 'u-1', 'held', '{0,1}', "4200, 'EUR', '2027-01-01Z'"), UPDATE.format('confirmed', 1),
            'BEGIN', booking(2), booking(3, "ü''2", seats='{}'), UPDATE.format('cancelled', 2), 'COMMIT',
            "DELETE FROM bookings WHERE event_id = 7 AND status = 'cancelled'",
            'DELETE FROM events', "INSERT INTO events VALUES (7, 'Again', '2028-06-01Z', 1, 1)",
            'UPDATE events SET event_id = 8', 'UPDATE events SET rows = 3')
    step('message')
    one.run("SELECT pg_logical_emit_message(true, 'seatgrid', 'in a transaction')",
            "SELECT pg_logical_emit_message(false, 'heartbeat', '')")
    step('truncate')
    one.run('TRUNCATE bookings', 'TRUNCATE events, notes RESTART IDENTITY CASCADE')
    step('toast')
    one.run("INSERT INTO notes VALUES (1, 1, repeat('toast', 800))", 'UPDATE notes SET n = 2',
            'UPDATE notes SET id = 5', "UPDATE notes SET body = 'small'", 'DELETE FROM notes')
    step('alter')
    one.run("ALTER TABLE bookings ADD note text DEFAULT 'new'", booking(4), 'ALTER TABLE bookings DROP COLUMN note',
            booking(5), "ALTER TABLE bookings REPLICA IDENTITY USING INDEX bookings_pkey", booking(6),
            'DELETE FROM bookings', 'ALTER TABLE bookings REPLICA IDENTITY FULL')
    step('origin')
    one.run("SELECT pg_replication_origin_create('elsewhere')",
            "SELECT pg_replication_origin_session_setup('elsewhere')",
            'BEGIN', "SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2026-01-01Z')", booking(7), 'COMMIT',
            'BEGIN', booking(0x17), BALLAST, booking(0x18), 'COMMIT',
            'SELECT pg_replication_origin_session_reset()', "SELECT pg_replication_origin_drop('elsewhere')")
    # Larger than the decoder's memory: version 2 sends it in blocks before it commits.
    step('stream')
    one.run('BEGIN', booking(8), BALLAST, 'SAVEPOINT a', booking(9), BALLAST, 'ROLLBACK TO a', booking(10), BALLAST,
            'SAVEPOINT b', UPDATE.format('cancelled', 10), 'RELEASE b', BALLAST,
            "SELECT pg_logical_emit_message(true, 'seatgrid', 'in a block')", 'COMMIT')
    step('stream_abort')
    one.run('BEGIN', booking(11), BALLAST, 'ROLLBACK')
    # The marker would stand in the middle of two.run's transaction, so both end before the next one.
    step('stream_two')
    two.run('BEGIN', booking(12), BALLAST)
    one.run('BEGIN', booking(13), BALLAST)
    two.run(booking(14), BALLAST, 'TRUNCATE notes')
    one.run(UPDATE.format('expired', 13), BALLAST, 'COMMIT')
    two.run('ALTER TABLE notes ADD extra integer', "INSERT INTO notes VALUES (9, 9, 'nine', 9)", BALLAST, 'COMMIT')
    step('end')


def read_frames(address, user, way, slot):
    """The frames of one slot up to the marker `end`, and a keepalive."""
    version, binary = WAYS[way]
    connection = Connection(*address, user, DATABASE, replication=True)
    options = f"proto_version '{version}', publication_names 'seatgrid', messages 'true'"
    options += ", binary 'true'" if binary else ''
    options += ", streaming 'on'" if version == 2 else ''
    connection.start(f'START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})')
    connection.until(b'W')
    frames = []
    ended = False
    while not (ended and frames[-1][:1] == b'k'):
        frame = connection.until(b'd')
        frames.append(frame)
        if frame[:1] == b'w' and frame[25:26] == b'M' and b'step\0\0\0\0\x03end' in frame:
            ended = True
            connection.send(b'd', b'r' + bytes(32) + b'\x01')  # a status that asks for a keepalive
    connection.send(b'c', b'')
    connection.socket.close()
    return frames


def write_pgoutput(way, frames):
    steps = {}
    name = None
    for frame in frames:
        payload = frame[25:]
        if frame[:1] == b'w' and payload[:1] == b'M' and payload[10:15] == b'step\0':
            name = payload[19:].decode()
        if frame[:1] == b'w' and name not in (None, 'end'):
            steps[name] = steps.get(name, b'') + struct.pack('!I', len(payload)) + payload
    for name, content in steps.items():
        with open(f'{HERE}/corpus/pgoutput/{way}_{name}', 'wb') as file:
            file.write(content)


def write_walframe(frames):
    kept = {b'w': 3, b'k': 2}
    for number, frame in enumerate(frames):
        kind = frame[:1]
        if kept[kind] and len(frame) < 200:
            kept[kind] -= 1
            with open(f'{HERE}/corpus/walframe/{kind.decode()}_{kept[kind]}', 'wb') as file:
                file.write(frame)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    host, port, user = sys.argv[1:]
    for corpus in ('pgoutput', 'walframe'):
        os.makedirs(f'{HERE}/corpus/{corpus}', exist_ok=True)
    admin = Connection(host, port, user, 'postgres')
    admin.run(f'DROP DATABASE IF EXISTS {DATABASE}', f"CREATE DATABASE {DATABASE} ENCODING 'UTF8' TEMPLATE template0")
    one, two = (Connection(host, port, user, DATABASE) for _ in range(2))
    slots = {way: f'{DATABASE}_{way}' for way in WAYS}
    one.run(SCHEMA)
    try:
        for slot in slots.values():
            one.run(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
        workload(one, two)
        for way, slot in slots.items():
            frames = read_frames((host, port), user, way, slot)
            write_pgoutput(way, frames)
        write_walframe(frames)
    finally:
        admin.run("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                  f"WHERE database = '{DATABASE}' AND active",
                  f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{DATABASE}'")
        admin.run(f'DROP DATABASE {DATABASE} WITH (FORCE)')


if __name__ == '__main__':
    main()
