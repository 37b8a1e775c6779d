"""Rows out of PostgreSQL's messages: torn anywhere, with texts that look like messages, ended by an error or a loss."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball.data.sources._copying as copying
from flyball.data.sources._copying import CopyFailed, rows_of_copy

ROWS = st.lists(st.binary(max_size=30).map(lambda row: row.replace(b"Z", b"z") + b"\n"), max_size=20)
LOOKALIKE = b'"\nd\0\0\0\x09ab\nd\0\0\0\5"\n'
END = b"c\0\0\0\4" + b"C\0\0\0\x0bCOPY 1\0" + b"Z\0\0\0\5T"


def message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def copied(answer: bytes, block_bytes: int, pieces: int) -> bytes:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        theirs.recv(100)
        for start in range(0, len(answer), pieces):
            theirs.sendall(answer[start : start + pieces])
        theirs.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        return b"".join(rows_of_copy(ours.fileno(), b"COPY x TO STDOUT", block_bytes))
    finally:
        ours.close()
        server.join(10)


@given(rows=ROWS, looks=st.integers(0, 3), block=st.integers(1, 100), pieces=st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_rows_arrive_whole_however_they_are_torn(rows: list[bytes], looks: int, block: int, pieces: int) -> None:
    sent = [*rows[:5], *[LOOKALIKE] * looks, *rows[5:]]
    answer = message(b"H", b"\0\0\0") + b"".join(message(b"d", row) for row in sent) + END
    assert copied(answer, block, pieces) == b"".join(sent)


def test_an_error_or_a_loss_in_the_middle_is_never_the_end() -> None:
    start = message(b"H", b"\0\0\0") + message(b"d", b"1,2\n") * 3
    error = message(b"E", b"SFATAL\0C57P01\0Mterminating connection\0\0")
    with pytest.raises(CopyFailed, match="terminating connection") as caught:
        copied(start + error, 10, 7)
    assert caught.value.sqlstate == "57P01"
    for cut in range(len(start + END)):
        with pytest.raises(CopyFailed, match="closed the connection"):
            copied((start + END)[:cut], 10, 1000)
    assert copying._HEAD == 5
