"""What every stream backend must do: subclass `StreamCases` in a test module and say how its two ends are opened."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from flyball.errors import FlyballError, Unavailable
from flyball.storage.streams import Cursor, StreamReader, StreamWriter

__all__ = ["StreamCases"]


class StreamCases(ABC):
    """Contract tests of `StreamWriter` and `StreamReader`; pytest collects them from a subclass named `Test…`."""

    @abstractmethod
    def open_writer(self, folder: Path, writer: str) -> StreamWriter:
        """Open the stream that belongs to `folder` for appending."""

    @abstractmethod
    def open_reader(self, folder: Path) -> StreamReader:
        """Open the same stream for reading."""

    def test_a_stream_that_nobody_wrote_is_empty(self, tmp_path: Path) -> None:
        assert self.open_reader(tmp_path / "stream").read() == ([], {})

    def test_payloads_come_back_as_they_were_in_order(self, tmp_path: Path) -> None:
        payloads = [b"", b"\x00" * 70, bytes(range(256)), b"x" * 300_000, b"last"]
        writer = self.open_writer(tmp_path / "stream", "one")
        writer.append_wait(payloads[:2])
        writer.append_wait(payloads[2:])
        assert self.open_reader(tmp_path / "stream").read()[0] == payloads
        writer.close()

    def test_an_acknowledged_payload_can_be_read_before_the_writer_closes(self, tmp_path: Path) -> None:
        writer = self.open_writer(tmp_path / "stream", "one")
        ticket = writer.append([b"now"])
        ticket.wait()
        assert ticket.is_done
        assert ticket.error is None
        assert self.open_reader(tmp_path / "stream").read()[0] == [b"now"]
        writer.close()

    def test_a_cursor_kept_as_json_goes_on_where_it_stopped(self, tmp_path: Path) -> None:
        writer = self.open_writer(tmp_path / "stream", "one")
        cursor: Cursor | None = None
        for number in range(5):
            writer.append_wait([b"%d" % number])
            payloads, after = self.open_reader(tmp_path / "stream").read(cursor)
            assert payloads == [b"%d" % number]
            cursor = json.loads(json.dumps(after))
        assert self.open_reader(tmp_path / "stream").read(cursor) == ([], cursor)
        writer.close()

    def test_small_reads_see_each_payload_once(self, tmp_path: Path) -> None:
        sent = [b"%06d" % number * (1 + number % 50) for number in range(2000)]
        writer = self.open_writer(tmp_path / "stream", "one")
        writer.append_wait(sent)
        writer.close()
        reader, cursor = self.open_reader(tmp_path / "stream"), None
        seen: list[bytes] = []
        while payloads_and_cursor := self._next(reader, cursor):
            seen += payloads_and_cursor[0]
            cursor = payloads_and_cursor[1]
        assert seen == sent

    def test_writers_side_by_side_lose_nothing_and_keep_their_own_order(self, tmp_path: Path) -> None:
        writers = {name: self.open_writer(tmp_path / "stream", name) for name in ("a", "b", "c")}

        def fill(name: str) -> None:
            for number in range(200):
                writers[name].append([b"%s %d" % (name.encode(), number)])

        threads = [threading.Thread(target=fill, args=(name,)) for name in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for writer in writers.values():
            writer.close()
        seen = self.open_reader(tmp_path / "stream").read()[0]
        for name in writers:
            mine = [payload for payload in seen if payload.startswith(name.encode())]
            assert mine == [b"%s %d" % (name.encode(), number) for number in range(200)]
        assert len(seen) == 600

    def test_a_writer_that_comes_back_adds_to_what_is_there(self, tmp_path: Path) -> None:
        for number in range(3):
            writer = self.open_writer(tmp_path / "stream", "one")
            writer.append_wait([b"%d" % number])
            writer.close()
        assert self.open_reader(tmp_path / "stream").read()[0] == [b"0", b"1", b"2"]

    def test_close_makes_everything_durable_and_calls_back_once(self, tmp_path: Path) -> None:
        answers: list[FlyballError | None] = []
        writer = self.open_writer(tmp_path / "stream", "one")
        for number in range(3000):
            writer.append([b"%d" % number], answers.append)
        writer.close()
        writer.close()
        assert answers == [None] * 3000
        assert len(self.open_reader(tmp_path / "stream").read()[0]) == 3000

    def test_a_closed_writer_refuses(self, tmp_path: Path) -> None:
        writer = self.open_writer(tmp_path / "stream", "one")
        writer.close()
        assert "closed" in _refusal(lambda: writer.append_wait([b"late"]))
        assert self.open_reader(tmp_path / "stream").read()[0] == []

    def _next(self, reader: StreamReader, cursor: Cursor | None) -> tuple[list[bytes], Cursor] | None:
        payloads, after = reader.read(cursor, limit_bytes=1000)
        assert sum(map(len, payloads)) < 2000
        return (payloads, after) if payloads else None


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except Unavailable as error:
        return str(error)
    raise AssertionError("expected Unavailable, but nothing was raised")
