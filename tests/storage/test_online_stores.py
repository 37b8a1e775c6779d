"""The online stores over the real thing: a SQLite file, a Redis server; and what each of them can suffer."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt, Incompatible, InvalidInput, Unavailable
from flyball.storage.online import OnlineStore, OnlineValue, micros_of
from flyball.storage.online import redis as redis_file
from flyball.storage.online.opening import OnlineSettings, open_online
from flyball.storage.online.places import place_of
from flyball.storage.online.redis import RedisOnline
from flyball.storage.online.sqlite import SqliteOnline
from flyball.testing.storage import OnlineCases
from tests.services import free_port, redis_server

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_store(redis_url: str, request: pytest.FixtureRequest) -> RedisOnline:
    return RedisOnline(redis_url, prefix=request.node.nodeid, timeout_s=10)


class TestSqliteOnline(OnlineCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteOnline:
        return SqliteOnline(tmp_path / "online.sqlite")


class TestRedisOnline(OnlineCases):
    @pytest.fixture
    def store(self, redis_store: RedisOnline) -> RedisOnline:
        return redis_store


writes = st.lists(
    st.tuples(
        st.sampled_from(["7", "a key that is long"]), st.integers(0, 3), st.none() | st.integers(0, 3), st.booleans()
    ),
    max_size=12,
)


def check_against_a_dictionary(store: OnlineStore, rows: list[tuple[str, int, int | None, bool]]) -> None:
    """Write rows one by one, each in one of the two ways; the greatest (event, arrival) must stay, the last of ties."""
    store.delete("v")
    expected: dict[str, tuple[int, float, int]] = {}
    for n, (key, event, arrival, is_encoded) in enumerate(rows):
        if is_encoded:
            store.put_encoded("v", ["n"], [key], [event], [b"[%d]" % n], None if arrival is None else [arrival])
        else:
            at = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us) for us in (event, arrival or 0)]
            store.put("v", [(key, OnlineValue(at[0], {"n": n}, None if arrival is None else at[1]))])
        entry = (event, -1.0 if arrival is None else arrival, n)
        expected[key] = max(expected.get(key, entry), entry)
    keys = ["7", "a key that is long"]
    found = {k: v.values["n"] for k, v in zip(keys, store.get("v", keys), strict=True) if v}
    assert found == {key: n for key, (_, _, n) in expected.items()}


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> SqliteOnline:
    return SqliteOnline(tmp_path_factory.mktemp("online") / "online.sqlite")


@settings(deadline=None)
@given(rows=writes)
def test_a_file_equals_a_dictionary_of_the_newest(
    one_file: SqliteOnline, rows: list[tuple[str, int, int | None, bool]]
) -> None:
    check_against_a_dictionary(one_file, rows)


@settings(max_examples=50, deadline=None)
@given(rows=writes)
def test_a_server_equals_a_dictionary_of_the_newest(
    redis_url: str, rows: list[tuple[str, int, int | None, bool]]
) -> None:
    check_against_a_dictionary(RedisOnline(redis_url, prefix="dictionary", timeout_s=10), rows)


@settings(deadline=None)
@given(st.text(max_size=20) | st.integers().map(str), st.text(max_size=8) | st.integers(-(10**18), 10**18).map(str))
def test_no_two_keys_have_the_same_place(one: str, other: str) -> None:
    assert (place_of(one) == place_of(other)) == (one == other)
    place = place_of(one)
    assert isinstance(place, str) or -(2**63) <= place < 2**63


def test_a_thousand_keys_of_both_sorts_come_back_in_the_order_asked(one_file: SqliteOnline) -> None:
    keys = [str(n) if n % 3 else f"customer {n}" for n in range(5000)]
    one_file.put_encoded("mixed", ["n"], keys, [1] * 5000, [b"[%d]" % n for n in range(5000)])
    for count in (2, 15, 16, 17, 128, 129, 1024, 1025, 5000):
        asked = [*keys[:count][::-1], "nobody"]
        found = one_file.read("mixed", asked)
        assert [row and orjson.loads(row[3])[0] for row in found] == [*range(count - 1, -1, -1), None]


@pytest.mark.parametrize("kept", ["numbers", "texts", "both"])
def test_rows_together_and_heads_are_what_is_read_one_by_one(one_file: SqliteOnline, kept: str) -> None:
    name = {"numbers": "{}", "texts": "customer {}", "both": "{}"}[kept]
    keys = [name.format(n) if kept != "both" or n % 2 else f"customer {n}" for n in range(300)]
    there = keys[:200]
    view = f"together {kept}"
    assert one_file.together(view, keys) is None
    one_file.put_encoded(
        view, ["n", "t"], there, range(200), [b'[%d,"\xc3\xa9,\\""]' % n for n in range(200)], range(9, 209)
    )
    for asked in (keys[:8], keys[100:228], [*keys[190:210], keys[3], keys[3]], keys[250:260], keys[:200]):
        rows, found = one_file.read(view, asked), one_file.together(view, asked)
        assert [row and row[:2] for row in one_file.heads(view, asked)] == [row and row[:2] for row in rows]
        if kept == "both" or len(asked) > 128 or not any(rows):
            assert found is None
            continue
        assert found is not None
        assert found.events == [row and row[0] for row in rows]
        assert orjson.loads(found.values) == [row and orjson.loads(row[3]) for row in rows]
        present = [row for row in rows if row]
        assert (found.found, found.told, found.latest) == (len(present), len(present), max(row[1] for row in present))
        assert one_file.names(view, found.shape) == ("n", "t")
    one_file.put_encoded(view, ["other"], keys[:1], [999], [b"[1]"])
    assert one_file.together(view, keys[:8]) is None, "rows of two shapes"


def test_keys_of_several_lines_are_never_taken_for_several_keys(one_file: SqliteOnline) -> None:
    keys = ["line one", "line one\nline two", "line two", "two\nlines\nthree"]
    one_file.put_encoded("lines", ["n"], keys, range(4), [b"[%d]" % n for n in range(4)])
    for asked in (keys, keys[::-1], [keys[0], keys[2], keys[0]], ["line one\nline", "two"]):
        rows, found = one_file.read("lines", asked), one_file.together("lines", asked)
        assert [row and row[0] for row in rows] == [keys.index(key) if key in keys else None for key in asked]
        assert found is None or found.events == [row and row[0] for row in rows]


def test_rows_of_a_server_are_the_same_together_as_one_by_one(redis_url: str) -> None:
    store = RedisOnline(redis_url, prefix="together")
    keys = [f"é {n}" for n in range(40)]
    assert store.together("v", keys) is None
    store.put_encoded("v", ["n"], keys[:30], range(30), [b"[%d]" % n for n in range(30)], range(9, 39))
    store.put_encoded("w", ["n"], keys[:30], range(30), [b"[%d]" % n for n in range(30)])
    for view, told in (("v", 30), ("w", 0)):
        for asked in (keys[:30], keys, [keys[35], *keys[:30], keys[3]]):
            rows, found = store.read(view, asked), store.together(view, asked)
            assert found is not None
            assert found.events == [row and row[0] for row in rows]
            assert orjson.loads(found.values) == [row and orjson.loads(row[3]) for row in rows]
            present = [row for row in rows if row]
            assert (found.found, found.told) == (len(present), len(present) if told else 0)
            assert found.latest == (max(row[1] for row in present) if told else None)
            assert store.names(view, found.shape) == ("n",)
    store.put_encoded("v", ["other"], keys[:1], [999], [b"[1]"])
    assert store.together("v", keys[:8]) is None, "rows of two shapes"
    with pytest.raises(InvalidInput, match="surrogate"):
        store.read("v", ["a", "\ud800"])


clashes = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 4), st.sampled_from(["put", "bulk", "delete"])), max_size=15
)


@settings(max_examples=60, deadline=None)
@given(steps=clashes)
def test_keys_with_the_same_hash_are_kept_apart(one_file: SqliteOnline, steps: list[tuple[int, int, str]]) -> None:
    one_file.delete("clash")
    expected: dict[str, int] = {}
    keys = [f"a key of text {n}" for n in range(7)]
    with patch("flyball.storage.online.places._HASH_MODULUS", 3):
        for n, event, act in steps:
            if act == "put":
                one_file.put("clash", [(keys[n], OnlineValue(datetime.fromtimestamp(event, UTC), {"e": event}))])
                expected[keys[n]] = max(expected.get(keys[n], event), event)
            elif act == "bulk":
                some = [*keys[n:], keys[n]]
                one_file.put_encoded("clash", ["e"], some, [event * 10**6] * len(some), [b"[%d]" % event] * len(some))
                expected |= {key: max(expected.get(key, event), event) for key in some}
            else:
                assert one_file.delete("clash", [keys[n]]) == (expected.pop(keys[n], None) is not None)
        wanted = [expected.get(key) for key in keys]
        assert [v and v.values["e"] for v in one_file.get("clash", keys)] == wanted
        assert [(v := one_file.get("clash", [key])[0]) and v.values["e"] for key in keys] == wanted
        assert one_file.count("clash") == len(expected)
        together = one_file.together("clash", keys)
        if together is not None:
            assert [row and row[0] for row in orjson.loads(together.values)] == wanted


# the file


def second_format(path: Path) -> None:
    """Write a file as the second format was."""
    connection = sqlite3.connect(path)
    columns = "event INTEGER NOT NULL, arrival INTEGER, shape INTEGER NOT NULL, value BLOB NOT NULL"
    connection.executescript(
        "CREATE TABLE views (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
        "CREATE TABLE shapes (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);"
        f"CREATE TABLE numbered_1 (key INTEGER PRIMARY KEY, {columns});"
        f"CREATE TABLE named_1 (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, {columns});"
        "INSERT INTO views VALUES (1, 'a@1'); INSERT INTO shapes VALUES (1, '[\"x\"]'); PRAGMA user_version=2"
    )
    micros = micros_of(NOW)
    connection.execute("INSERT INTO numbered_1 VALUES (?, ?, NULL, 1, ?)", (place_of("7"), micros, b"[7]"))
    named = [(f"customer {n}", micros, n, b"[%d]" % n) for n in range(20_050)]
    connection.executemany("INSERT INTO named_1 (key, event, arrival, shape, value) VALUES (?, ?, ?, 1, ?)", named)
    connection.commit()
    connection.close()


def test_a_file_of_the_second_format_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "online.sqlite"
    second_format(path)
    for _ in range(2):
        store = SqliteOnline(path)
        assert store.count("a@1") == 20_051
        keys = ["7", *(f"customer {n}" for n in range(20_050))]
        assert [v.values["x"] for v in store.get("a@1", keys) if v] == [7, *range(20_050)]
    earlier = OnlineValue(NOW, {"x": 0}, datetime.fromtimestamp(0, UTC))
    assert store.put("a@1", [("customer 9", earlier), ("customer 20050", earlier)]) == 1
    assert store.delete("a@1", ["customer 1"]) == 1
    assert store.count("a@1") == 20_051


def first_format(path: Path) -> None:
    """Write a file as the release before did."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE online (view TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, value BLOB NOT NULL, "
        "PRIMARY KEY (view, key)) WITHOUT ROWID"
    )
    rows = [("a@1", str(n), micros_of(NOW), orjson.dumps({"x": n, "y": "é"})) for n in range(20_050)]
    rows += [("b@2", "a long key of text", micros_of(NOW), b'{"z":null,"known":"2026-01-01T00:00:00.000000Z"}')]
    connection.executemany("INSERT INTO online VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


def test_a_file_of_the_first_format_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "online.sqlite"
    first_format(path)
    store = SqliteOnline(path)
    assert (store.count("a@1"), store.count("b@2")) == (20_050, 1)
    assert store.get("a@1", ["7", "20049"]) == [OnlineValue(NOW, {"x": n, "y": "é"}) for n in (7, 20049)]
    assert store.put("a@1", [("7", OnlineValue(NOW - timedelta(1), {"x": 0}))]) == 0
    assert store.put("a@1", [("7", OnlineValue(NOW, {"x": 0}))]) == 1
    again = SqliteOnline(path)
    assert again.get("a@1", ["7"]) == [OnlineValue(NOW, {"x": 0})]
    assert again.get("b@2", ["a long key of text"])[0] is not None


_OPENER = """
import sys
from pathlib import Path
from flyball.storage.online.sqlite import SqliteOnline
print("opening", flush=True)
SqliteOnline(Path(sys.argv[1]))
"""


def test_a_rewriting_that_is_killed_or_made_twice_at_once_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "online.sqlite"
    first_format(path)
    child = subprocess.Popen([sys.executable, "-c", _OPENER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    child.stdout.close()
    others = [subprocess.Popen([sys.executable, "-c", _OPENER, str(path)], stdout=subprocess.DEVNULL) for _ in "12"]
    assert [other.wait(60) for other in others] == [0, 0]
    store = SqliteOnline(path)
    assert (store.count("a@1"), store.count("b@2")) == (20_050, 1)


def test_files_that_are_none_and_of_a_later_release_are_refused(tmp_path: Path) -> None:
    later, other = tmp_path / "later.sqlite", tmp_path / "other.sqlite"
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version=4")
    connection.close()
    with pytest.raises(Incompatible, match="has format 4, this release reads 3"):
        SqliteOnline(later)
    other.write_bytes(b"no database" * 1000)
    with pytest.raises(Corrupt, match="is no file of online values"):
        SqliteOnline(other)
    with pytest.raises(Unavailable, match="cannot be used now"):
        SqliteOnline(tmp_path)


def test_what_was_deleted_is_not_in_the_files_any_more(tmp_path: Path) -> None:
    store = SqliteOnline(tmp_path / "online.sqlite")
    rows = [(f"subject-{n}", OnlineValue(NOW, {"mail": f"person{n}@example.org"})) for n in range(2000)]
    store.put("v", rows)
    assert store.delete("v", ["subject-77"]) == 1
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"person77@example.org" not in found
    assert b"subject-77\x00" not in found
    assert b"person78@example.org" in found


_WRITER = """
import sys
from pathlib import Path
from flyball.storage.online.sqlite import SqliteOnline
store, turn = SqliteOnline(Path(sys.argv[1])), 0
while True:
    turn += 1
    store.put_encoded("v", ["a", "b"], [str(n) for n in range(3000)], [turn] * 3000, [b"[%d,%d]" % (turn, turn)] * 3000)
    print(turn, flush=True)
"""


def test_readers_see_whole_rows_while_another_process_writes_and_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "online.sqlite"
    store = SqliteOnline(path)
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = int(child.stdout.readline())
    seen: list[int] = []
    for _ in range(300):
        rows = [orjson.loads(row[3]) for row in store.read("v", ["0", "1500", "2999"]) if row]
        assert all(a == b for a, b in rows)
        assert len({a for a, _ in rows}) == 1, "one read is one moment"
        seen.append(rows[0][0])
    assert seen == sorted(seen) and seen[0] >= told
    told = int(child.stdout.readline())
    child.kill()
    told = max([told, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line.isdigit())])
    child.wait(30)
    child.stdout.close()
    rest = SqliteOnline(path).get("v", [str(n) for n in range(3000)])
    assert {v.values["a"] for v in rest if v} <= {told, told + 1}
    assert store.put("v", [("0", OnlineValue(NOW, {"a": -1, "b": -1}))]) == 1


def test_threads_share_a_store(one_file: SqliteOnline) -> None:
    def write(start: int) -> None:
        for n in range(start, start + 50):
            one_file.put("threads", [(f"k{n}", OnlineValue(NOW, {"n": n}))])

    threads = [threading.Thread(target=write, args=(50 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = one_file.get("threads", [f"k{n}" for n in range(200)])
    assert [v.values["n"] for v in found if v] == list(range(200))


# the server


def test_a_dead_server_is_told_at_once_and_a_new_one_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, clock = free_port(), [100.0]
    monkeypatch.setattr(redis_file.time, "monotonic", lambda: clock[0])
    store = RedisOnline(f"redis://127.0.0.1:{port}/0", timeout_s=10)
    with pytest.raises(Unavailable, match=f"Redis at 127.0.0.1:{port}, does not answer; see that it runs"):
        store.count("v")
    with redis_server(tmp_path / "one", port=port):
        with pytest.raises(Unavailable):  # not asked again yet, so that requests need not wait
            store.count("v")
        clock[0] += 2
        store.put("v", [("k", OnlineValue(NOW, {"x": 1}))])
    with pytest.raises(Unavailable):
        store.get("v", ["k"])
    clock[0] += 2
    with redis_server(tmp_path / "two", port=port):  # an empty one: names must be written again
        assert store.get("v", ["k"]) == [None]
        store.put_encoded("v", ["y", "x"], ["k"], [1], [b"[2,3]"])
        assert [dict(v.values) for v in store.get("v", ["k"]) if v] == [{"y": 2, "x": 3}]


def test_a_restart_between_two_requests_is_not_noticed(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path / "one", port=port) as url:
        store = RedisOnline(url, timeout_s=10)
        store.put("v", [("k", OnlineValue(NOW, {"x": 1}))])
    with redis_server(tmp_path / "two", port=port):
        assert store.get("v", ["k"]) == [None]


def test_a_password_comes_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "p@ss:word/%") as url:
        asked = OnlineSettings("redis", url.replace("redis://", "redis://:${SECRET}@"), timeout_s=10)
        store = open_online(tmp_path, asked, {"SECRET": "p@ss:word/%"})
        store.put("v", [("k", OnlineValue(NOW, {"x": 1}))])
        assert store.count("v") == 1
        wrong = open_online(tmp_path, asked, {"SECRET": "p@ss:wurd"})
        with pytest.raises(Unavailable, match="refused the password") as caught:
            wrong.count("v")
        assert "wurd" not in str(caught.value)
        with pytest.raises(InvalidInput, match=r"names \$\{SECRET\}, which is not set"):
            open_online(tmp_path, asked, {})


def test_keys_of_another_program_are_not_touched(redis_url: str) -> None:
    import redis

    client = redis.Redis.from_url(redis_url)
    client.set("other:v", "text")
    store = RedisOnline(redis_url, prefix="other", timeout_s=10)
    for ask in (lambda: store.get("v", ["k"]), lambda: store.put("v", [("k", OnlineValue(NOW, {"x": 1}))])):
        with pytest.raises(Corrupt, match="another program wrote it"):
            ask()
    client.hset("other:w", "k", b"short")
    with pytest.raises(Corrupt, match="too short"):
        store.read("w", ["k"])


def test_a_full_server_refuses_and_says_so(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as url:
        store = RedisOnline(url, timeout_s=10)
        with pytest.raises(Unavailable, match=r"refused the request \(.*memory"):
            store.put_encoded("v", ["x"], [str(n) for n in range(9000)], [1] * 9000, [b'["%s"]' % (b"x" * 500)] * 9000)


# the settings


def test_settings_choose_the_store(tmp_path: Path) -> None:
    assert isinstance(open_online(tmp_path), SqliteOnline)
    (tmp_path / "flyball.toml").write_text('[online]\nbackend = "redis"\nurl = "redis://localhost:6379/0"\n')
    assert isinstance(open_online(tmp_path), RedisOnline)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (OnlineSettings("redis"), 'the backend "redis" but no url'),
        (OnlineSettings("sqlite", "redis://x"), "has a url, but its backend"),
        (OnlineSettings("redis", "http://:secret@x"), "is not one; write redis://"),
        (OnlineSettings("redis", "redis://x", timeout_s=0), "expected seconds above 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, asked: OnlineSettings, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        open_online(tmp_path, asked)
    assert "secret" not in str(caught.value)
