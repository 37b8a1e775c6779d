from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from flyball.errors import Corrupt, FlyballError, Incompatible, InvalidInput, Unavailable
from flyball.storage.streams.log import Damage, Log, Reader
from flyball.testing.streams import StreamCases

FRAME_HEADER = 16
SEGMENT_HEADER = 8


class TestLog(StreamCases):
    def open_writer(self, folder: Path, writer: str) -> Log:
        return Log(folder, writer)

    def open_reader(self, folder: Path) -> Reader:
        return Reader(folder)


class TestLogOfTinySegmentsKeptByTheSystem(StreamCases):
    def open_writer(self, folder: Path, writer: str) -> Log:
        return Log(folder, writer, durability="os", segment_bytes=1000)

    def open_reader(self, folder: Path) -> Reader:
        return Reader(folder)


def write(folder: Path, payloads: list[bytes]) -> Path:
    """Write one segment and return it."""
    log = Log(folder, "one")
    log.append_wait(payloads)
    log.close()
    (segment,) = folder.glob("*.seg")
    return segment


def hold(gate: threading.Event) -> None:
    gate.wait(30)


def child(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


APPENDER = """
    import os, sys
    from pathlib import Path
    from flyball.storage.streams.log import Log
    folder, name, durability = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    log = Log(folder, name, durability, segment_bytes=200_000)
    number, waiting = 0, []
    while True:
        payload = f"{name} {number} ".encode() + b"x" * (number % 700)
        say = (str(number) + "\\n").encode()
        waiting.append(log.append([payload], lambda error, say=say: os.write(1, say)))
        number += 1
        if len(waiting) > 64:
            waiting.pop(0).wait()
"""


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_writers_killed_under_load_lose_nothing_acknowledged(tmp_path: Path, durability: str) -> None:
    chance = random.Random(7)
    acknowledged: dict[str, list[int]] = {}
    for round_number in range(3):
        children = {}
        for writer in ("a", "b"):
            name = f"{writer}{round_number}"
            children[name] = child(APPENDER, tmp_path / "stream", name, durability)
        for name, process in children.items():
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 2500))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
            process.stdout.close()
            assert process.wait(30) == -signal.SIGKILL
            acknowledged[name] = [int(line) for line in lines if line.endswith(b"\n")]
    damages: list[Damage] = []
    payloads, cursor = Reader(tmp_path / "stream", damages.append).read(limit_bytes=1 << 30)
    assert damages == []
    assert Reader(tmp_path / "stream").read(cursor)[0] == []
    for name, numbers in acknowledged.items():
        there = [int(p.split()[1]) for p in payloads if p.startswith(name.encode() + b" ")]
        assert there == list(range(len(there)))  # whole, in order, none twice
        assert numbers == list(range(len(numbers)))
        assert len(there) >= len(numbers) > 0


def test_a_tail_cut_at_any_byte_is_not_there_yet_and_loses_nothing_before_it(tmp_path: Path) -> None:
    segment = write(tmp_path / "whole", [b"first", b"second", b"the last one"])
    whole = segment.read_bytes()
    start = len(whole) - FRAME_HEADER - len(b"the last one")
    folder = tmp_path / "cut"
    folder.mkdir()
    for size in range(start, len(whole)):
        (folder / segment.name).write_bytes(whole[:size])
        payloads, cursor = Reader(folder).read()
        assert payloads == [b"first", b"second"]
        assert cursor == {segment.name: start}
        (folder / segment.name).write_bytes(whole)
        assert Reader(folder).read(cursor) == ([b"the last one"], {segment.name: len(whole)})


def test_a_segment_cut_within_its_own_header_is_empty(tmp_path: Path) -> None:
    segment = write(tmp_path, [b"first"])
    whole = segment.read_bytes()
    for size in range(SEGMENT_HEADER + 1):
        segment.write_bytes(whole[:size])
        assert Reader(tmp_path).read() == ([], {})


def test_zeros_that_a_power_cut_left_at_the_end_are_not_there_yet(tmp_path: Path) -> None:
    segment = write(tmp_path, [b"first"])
    size = segment.stat().st_size
    with segment.open("ab") as stream:
        stream.write(bytes(5000))
    assert Reader(tmp_path).read() == ([b"first"], {segment.name: size})


def test_damage_at_any_byte_is_reported_with_its_place_and_the_rest_is_read(tmp_path: Path) -> None:
    segment = write(tmp_path, [b"first", b"second", b"third"])
    whole = segment.read_bytes()
    start = SEGMENT_HEADER + FRAME_HEADER + len(b"first")
    size = FRAME_HEADER + len(b"second")
    for place in range(start, start + size):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        segment.write_bytes(damaged)
        found: list[Damage] = []
        assert Reader(tmp_path, found.append).read()[0] == [b"first", b"third"]
        assert [(d.segment, d.offset, d.size_bytes) for d in found] == [(segment.name, start, size)]
        payloads, cursor = Reader(tmp_path).read()
        assert payloads == [b"first"]
        with pytest.raises(Corrupt, match=f"at byte {start} of .*{segment.name}"):
            Reader(tmp_path).read(cursor)


def test_a_segment_of_another_version_or_of_something_else_is_refused(tmp_path: Path) -> None:
    segment = write(tmp_path, [b"first"])
    frames = segment.read_bytes()[SEGMENT_HEADER:]
    segment.write_bytes(b"flyball9" + frames)
    with pytest.raises(Incompatible, match="another version"):
        Reader(tmp_path).read()
    segment.write_bytes(b"whatever" + frames)
    with pytest.raises(Corrupt, match="header is not Flyball's"):
        Reader(tmp_path).read()


FULL_DISK = """
    import json, resource, sys
    from pathlib import Path
    from flyball.errors import Unavailable
    from flyball.storage.streams.log import Log
    folder = Path(sys.argv[1])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    log = Log(folder, "one")
    kept, refusals = [], []
    def room(size):  # a limit on file sizes makes write() fail half-way, as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
    def send(text, size):
        try:
            log.append_wait([f"{text} {n} ".encode() + b"x" * size for n in range(5)])
            kept.extend(f"{text} {n}" for n in range(5))
        except Unavailable as error:
            refusals.append([text, str(error)])
    send("before", 100)
    room(20_000)
    send("half", 6_000)
    files_after_half = len(list(folder.iterdir()))
    room(0)
    for attempt in range(4):
        send(f"none{attempt}", 10)
    files_when_full = len(list(folder.iterdir()))
    room(None)
    send("after", 6_000)
    log.close()
    print(json.dumps([kept, refusals, files_after_half, files_when_full]))
"""


def test_a_full_disk_refuses_keeps_nothing_half_and_recovers_by_itself(tmp_path: Path) -> None:
    output, _ = child(FULL_DISK, tmp_path / "stream").communicate(timeout=60)
    kept, refusals, files_after_half, files_when_full = json.loads(output)
    assert [text for text, _ in refusals] == ["half", "none0", "none1", "none2", "none3"]
    assert all("log is full" in message and "none of these rows was kept" in message for _, message in refusals)
    assert files_after_half == files_when_full == 1
    damages: list[Damage] = []
    payloads, _ = Reader(tmp_path / "stream", damages.append).read()
    assert [b" ".join(p.split()[:2]).decode() for p in payloads] == kept
    assert kept == [f"before {n}" for n in range(5)] + [f"after {n}" for n in range(5)]
    assert damages == []


def test_what_is_appended_now_is_durable_on_return_and_stands_in_order(tmp_path: Path) -> None:
    log = Log(tmp_path, "one", durability="os")
    assert not log.append_now([b"nobody knows yet how quick the disk is"])
    written = []
    for number in range(2000):
        payload = str(number).encode()
        if number % 3 == 0 or not log.append_now([payload]):
            log.append_wait([payload])
        elif not written:
            assert Reader(tmp_path).read()[0][-1] == payload
            written.append(payload)
    assert written
    log.close()
    assert not log.append_now([b"closed"])
    assert Reader(tmp_path).read()[0] == [str(number).encode() for number in range(2000)]


def test_writing_now_and_by_the_thread_from_several_threads_loses_and_mixes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path, "one", durability="os", segment_bytes=20_000)
    log.append_wait([b"first"])

    def send(name: int) -> None:
        for number in range(300):
            payload = f"{name} {number}".encode()
            if not log.append_now([payload]):
                log.append_wait([payload])

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    log.close()
    found = [tuple(map(int, payload.split())) for payload in Reader(tmp_path).read()[0][1:]]
    assert sorted(found) == [(name, number) for name in range(4) for number in range(300)]
    for name in range(4):
        assert [number for whose, number in found if whose == name] == list(range(300))


def test_a_full_ring_refuses_at_once_and_keeps_what_it_had_taken(tmp_path: Path) -> None:
    gate = threading.Event()
    log = Log(tmp_path, "one", ring_bytes=10_000)
    held = log.append([b"held"], lambda _: hold(gate))  # keeps the writer's thread busy
    held.wait()
    tickets = [log.append([b"x" * 4000]) for _ in range(2)]
    with pytest.raises(Unavailable, match=r"log is full: 80.. bytes wait"):
        log.append([b"x" * 4000])
    gate.set()
    for ticket in tickets:
        ticket.wait()
    log.append_wait([b"room again"])
    log.close()
    assert [len(p) for p in Reader(tmp_path).read()[0]] == [4, 4000, 4000, 10]


def test_a_payload_larger_than_the_ring_is_refused_for_good(tmp_path: Path) -> None:
    log = Log(tmp_path, "one", ring_bytes=1000)
    with pytest.raises(InvalidInput, match="1001 bytes is too large"):
        log.append([b"x" * 1001])
    log.close()


def test_the_folder_may_vanish_and_a_failing_callback_stops_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "stream", "one", segment_bytes=1)
    log.append([b"first"], lambda _: 1 / 0)  # type: ignore[arg-type]
    log.append_wait([b"second"])
    shutil.rmtree(tmp_path / "stream")
    log.append_wait([b"third"])
    log.close()
    assert Reader(tmp_path / "stream").read()[0] == [b"third"]


def test_an_event_loop_waits_for_acknowledgements_without_blocking(tmp_path: Path) -> None:
    async def main() -> list[FlyballError | None]:
        loop = asyncio.get_running_loop()
        log = Log(tmp_path, "one", deliver=loop.call_soon_threadsafe)
        answers = [loop.create_future() for _ in range(1000)]
        for number, answer in enumerate(answers):
            log.append([b"%d" % number], answer.set_result)
        done = await asyncio.wait_for(asyncio.gather(*answers), 30)
        log.close()
        return list(done)

    assert asyncio.run(main()) == [None] * 1000
    assert len(Reader(tmp_path).read()[0]) == 1000


def test_a_wrong_writer_or_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'\.\./x' cannot name a writer"):
        Log(tmp_path, "../x")
    with pytest.raises(InvalidInput, match="'tape' is not a durability"):
        Log(tmp_path, "one", durability="tape")  # type: ignore[arg-type]


def test_segments_rotate_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    log = Log(tmp_path, "one", segment_bytes=1000)
    for number in range(20):
        log.append_wait([b"%03d" % number * 100])
    log.close()
    segments = sorted(tmp_path.glob("*.seg"))
    assert len(segments) > 3
    assert all(segment.stat().st_mode & 0o777 == 0o600 for segment in segments)
    assert [int(p[:3]) for p in Reader(tmp_path).read()[0]] == list(range(20))


FORKED = """
    import os, sys
    from pathlib import Path
    from flyball.errors import Unavailable
    from flyball.storage.streams.log import Log, Reader
    log = Log(Path(sys.argv[1]), "parent")
    if os.fork() == 0:
        try:
            log.append([b"lost?"])
        except Unavailable as error:
            log.close()
            os.write(1, str(error).encode())
        os._exit(0)
    os.wait()
    log.append_wait([b"parent"])
    log.close()
"""


def test_a_forked_child_is_told_to_open_a_log_of_its_own(tmp_path: Path) -> None:
    output, _ = child(FORKED, tmp_path / "stream").communicate(timeout=60)
    assert b"was opened before this process was forked" in output
    assert Reader(tmp_path / "stream").read()[0] == [b"parent"]
