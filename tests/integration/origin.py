"""Where an answer comes from: the headers that tell it, for the tests of the API.

SPDX-License-Identifier: MIT
"""

import re

FULL = "application/vnd.seatgrid.full+json"
PROTOBUF = "application/x-protobuf"
NODES = {"alpha": ("alpha-1", "alpha-2"), "beta": ("beta-1", "beta-2")}


def check_origin(answer, shard, is_read):
    """The headers that tell where an answer comes from."""
    headers = answer.headers
    assert headers["seatgrid-shard"] == shard, answer
    assert headers["seatgrid-map-version"] == "1", answer
    if is_read:
        assert headers["seatgrid-node"] in NODES[shard], answer
        assert re.fullmatch(r"\d+ms", headers["seatgrid-staleness"]), answer
        assert int(headers["seatgrid-staleness"][:-2]) < 5000, answer
    else:
        assert "seatgrid-staleness" not in headers and "seatgrid-node" not in headers, answer
