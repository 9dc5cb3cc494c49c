"""A little AMQP 0-9-1, as much as the stories need to look into a broker's queues.

    with Broker(port) as broker:
        broker.depth("seatgrid.book.alpha")          messages that are ready
        broker.publish("seatgrid.book.alpha", b"..") past our publisher
        broker.get("seatgrid.book.alpha.dead")       one message's body, taken; None if there is none
        broker.give_back("seatgrid.book.alpha")      one message, taken and let go of
        broker.delete("seatgrid.book.alpha")

One channel, one question at a time. Python's standard library only.

SPDX-License-Identifier: MIT
"""

import socket
import struct

FRAME_END = 0xCE
METHOD, HEADER, BODY = 1, 2, 3
FRAME_BODY = 131072 - 8


def short_string(text):
    """Its length in a byte, then the text."""
    data = text.encode()
    return bytes([len(data)]) + data


def long_string(data):
    """Its length in four bytes, then the bytes."""
    return struct.pack(">I", len(data)) + data


class Broker:
    """A connection to RabbitMQ on 127.0.0.1."""

    def __init__(self, port, timeout=120):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(10, 10)
        login = long_string(b"\x00guest\x00guest")
        self._call(0, 10, 11, long_string(b"") + short_string("PLAIN") + login +
                   short_string("en_US"))
        self._expect(10, 30)
        self._call(0, 10, 31, struct.pack(">HIH", 1, 131072, 0))
        self._call(0, 10, 40, short_string("/") + short_string("") + b"\x00")
        self._expect(10, 41)
        self._call(1, 20, 10, short_string(""))
        self._expect(20, 11)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def _frame(self, kind, channel, payload):
        self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload +
                            bytes([FRAME_END]))

    def _call(self, channel, class_id, method_id, arguments):
        self._frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)

    def _read(self):
        kind, _, size = struct.unpack(">BHI", self.stream.read(7))
        payload = self.stream.read(size)
        assert self.stream.read(1)[0] == FRAME_END
        return kind, payload

    def _expect(self, class_id, *method_ids):
        """(method, its arguments) of the next method, which has to be one of these."""
        kind, payload = self._read()
        got = struct.unpack(">HH", payload[:4])
        assert kind == METHOD and got[0] == class_id and got[1] in method_ids, (got, payload[4:])
        return got[1], payload[4:]

    def depth(self, queue):
        """Messages in the queue that nobody has."""
        self._call(1, 50, 10, struct.pack(">H", 0) + short_string(queue) + b"\x01" +
                   struct.pack(">I", 0))
        _, arguments = self._expect(50, 11)
        return struct.unpack(">I", arguments[1 + arguments[0]:][:4])[0]

    def publish(self, queue, body):
        """Without waiting for anything."""
        self._call(1, 60, 40, struct.pack(">H", 0) + short_string("") + short_string(queue) +
                   b"\x00")
        self._frame(HEADER, 1, struct.pack(">HHQHB", 60, 0, len(body), 0x1000, 2))
        for start in range(0, len(body), FRAME_BODY):  # one of no bytes has no frame
            self._frame(BODY, 1, body[start:start + FRAME_BODY])

    def get(self, queue):
        """Takes one message; its body, or None."""
        self._call(1, 60, 70, struct.pack(">H", 0) + short_string(queue) + b"\x01")
        method, _ = self._expect(60, 71, 72)
        return None if method == 72 else self._read_body()

    def _read_body(self):
        _, header = self._read()
        size = struct.unpack(">Q", header[4:12])[0]
        body = b""
        while len(body) < size:
            body += self._read()[1]
        return body

    def give_back(self, queue):
        """As a consumer that dies with one message does; False if there is none."""
        self._call(1, 60, 70, struct.pack(">H", 0) + short_string(queue) + b"\x00")
        method, arguments = self._expect(60, 71, 72)
        if method == 72:
            return False
        self._read_body()
        self._call(1, 60, 90, arguments[:8] + b"\x01")
        return True

    def delete(self, queue):
        """The queue, with all that is in it."""
        self._call(1, 50, 40, struct.pack(">H", 0) + short_string(queue) + b"\x00")
        self._expect(50, 41)
