from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flyball.errors import Corrupt, InvalidInput
from flyball.storage.streams.log import Log
from flyball.tracking.predictions import (
    Label,
    LabelLog,
    PredictionBatch,
    PredictionLog,
    new_id,
    new_ids,
)
from flyball.tracking.traffic import Traffic, TrafficReader

NOON = datetime(2013, 5, 3, 12, 0, tzinfo=UTC)


def batch(inputs: dict[str, Any], second: float = 0, **changes: Any) -> PredictionBatch:
    rows = len(next(iter(inputs.values())))
    plain = PredictionBatch(
        deployment="late",
        revision=3,
        variant="champion",
        version="late@2",
        at=NOON + timedelta(seconds=second),
        ids=new_ids(rows),
        inputs=inputs,
        outputs={"label": [1] * rows, "probability": [0.75] * rows},
        latency_us=120,
    )
    return plain._replace(**changes)


def log_all(folder: Path, *batches: PredictionBatch, **options: Any) -> None:
    log = PredictionLog(folder, "tests", **options)
    for one in batches:
        log.append(one)
    log.close()


def label_all(folder: Path, *labels: Label) -> None:
    log = LabelLog(folder, "tests")
    log.append_wait(labels)
    log.close()


def test_rows_come_back_flat_with_their_references(tmp_path: Path) -> None:
    sent = batch(
        {"carrier": ["UA", None], "distance": [1400, 200]},
        keys=["N1", None],
        features={"wind": [3.5, None]},
        trace="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    log_all(tmp_path, sent)
    frame, _ = TrafficReader(tmp_path).read_predictions()
    assert frame.to_dicts() == [
        {
            "id": sent.ids[row],
            "at": NOON,
            "deployment": "late",
            "revision": 3,
            "variant": "champion",
            "version": "late@2",
            "key": ["N1", None][row],
            "latency_us": 120,
            "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
            "input.carrier": ["UA", None][row],
            "input.distance": [1400, 200][row],
            "feature.wind": [3.5, None][row],
            "output.label": 1,
            "output.probability": 0.75,
        }
        for row in range(2)
    ]
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame.schema["input.distance"] == pl.Int64


def test_real_flights_in_requests_of_any_size_come_back_as_they_were(tmp_path: Path, shared_data: Path) -> None:
    columns = ["carrier", "tailnum", "dest", "distance", "dep_delay", "arr_delay"]
    flights = pl.read_parquet(next((shared_data / "nycflights13").glob("flights*.parquet")), columns=columns)
    flights = flights.gather_every(23).head(8000)
    chance, log, start = random.Random(3), PredictionLog(tmp_path, "tests"), 0
    ids: list[str] = []
    while start < flights.height:
        part = flights[start : start + chance.choice([1, 1, 1, 7, 100])]
        as_arrays = chance.random() < 0.3
        inputs = {n: part[n].to_numpy() if as_arrays and n == "distance" else part[n].to_list() for n in columns}
        sent = batch(inputs, second=start)
        ids += sent.ids
        log.append(sent)
        start += part.height
    log.close()
    frames, cursor = [], None
    while True:
        frame, after = TrafficReader(tmp_path).read_predictions(cursor, limit_bytes=100_000)
        if after == cursor:
            break
        frames.append(frame)
        cursor = after
    assert len(frames) > 5
    seen = pl.concat(frames, how="diagonal_relaxed")
    assert seen["id"].to_list() == ids
    assert_frame_equal(seen.select(pl.col(f"input.{n}").alias(n) for n in columns), flights, check_dtypes=False)


def test_versions_with_other_columns_and_types_stack(tmp_path: Path) -> None:
    log_all(
        tmp_path,
        batch({"x": [1], "y": ["a"]}, 0),
        batch({"x": [2.5, None], "z": [True, None]}, 1, version="late@3"),
        batch({"x": [1, 2], "y": [1, 2.5]}, 2),
        batch({"x": [None], "y": [[1.5, 2]], "w": [{"a": 1}]}, 3),
        batch({"x": [2**63 + 10]}, 4),
    )
    frame, _ = TrafficReader(tmp_path).read_predictions()
    assert frame["input.x"].to_list() == [1.0, 2.5, None, 1.0, 2.0, None, float(2**63 + 10)]
    assert frame["input.y"].to_list() == ["a", None, None, "1.0", "2.5", "[1.5,2]", None]
    assert frame["input.z"].to_list() == [None, True, None, None, None, None, None]
    assert frame["input.w"].to_list() == [None] * 5 + ['{"a":1}', None]


def test_numpy_columns_are_taken_with_strides_text_and_missing_numbers(tmp_path: Path) -> None:
    matrix = np.array([[1.5, 2.5], [np.nan, 4.5], [5.5, np.inf]])
    columns = {"a": matrix[:, 0], "b": matrix[:, 1], "c": np.array(["x", "y", "z"]), "d": np.array([1, 2, 3])}
    log_all(tmp_path, batch(columns, 0), batch({name: column[:1] for name, column in columns.items()}, 1))
    frame, _ = TrafficReader(tmp_path).read_predictions()
    assert frame["input.a"].to_list() == [1.5, None, 5.5, 1.5]
    assert frame["input.b"].to_list() == [2.5, 4.5, None, 2.5]
    assert frame["input.c"].to_list() == ["x", "y", "z", "x"]
    assert frame["input.d"].to_list() == [1, 2, 3, 1]


def test_one_deployment_is_read_without_the_others(tmp_path: Path) -> None:
    log_all(tmp_path, batch({"x": [1]}), batch({"x": ["text"]}, deployment="late2"))
    frame, _ = TrafficReader(tmp_path).read_predictions(deployment="late")
    assert frame["deployment"].to_list() == ["late"]
    assert frame.schema["input.x"] == pl.Int64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variant": "champoin"}, 'no variant is called "champoin"; did you mean "champion"'),
        ({"outputs": {"label": [1]}}, '2 ids but 1 values of "label"'),
        ({"keys": ["a"]}, "2 ids but 1 keys"),
        ({"at": datetime(2013, 5, 3)}, "has no zone"),
        ({"outputs": {"label": [object(), 1]}}, "cannot be logged"),
    ],
)
def test_a_wrong_batch_is_refused_and_nothing_is_written(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    log = PredictionLog(tmp_path, "tests")
    with pytest.raises(InvalidInput, match=message):
        log.append(batch({"x": [1, 2]}, **wrong))
    log.append_wait(batch({"x": [5]}))
    log.close()
    assert TrafficReader(tmp_path).read_predictions()[0]["input.x"].to_list() == [5]


def test_masked_columns_never_reach_the_disk(tmp_path: Path) -> None:
    masks = {"late": frozenset({"tailnum"})}
    sent = batch(
        {"tailnum": ["N13914", "N13914", "N77", None], "distance": [1, 2, 3, 4]},
        keys=["N13914", "N13914", "other", None],
        features={"tailnum": ["N13914"] * 4},
    )
    open_one = batch({"tailnum": ["N13914x"]}, deployment="open")
    log_all(tmp_path, sent, batch({"tailnum": ["N13914"]}, 1), open_one, masks=masks)
    raw = b"".join(path.read_bytes() for path in (tmp_path / "predictions").iterdir())
    assert raw.count(b"N13914") == raw.count(b"N13914x") == 1
    frame, _ = TrafficReader(tmp_path).read_predictions(deployment="late")
    hashes = frame["input.tailnum"].to_list()
    assert hashes[0] == hashes[1] == hashes[4] == frame["feature.tailnum"][0]
    assert hashes[2] not in (hashes[0], None)
    assert hashes[3] is None
    assert frame["key"].to_list() == [hashes[0], hashes[0], "other", None, None]
    assert frame["input.distance"].to_list() == [1, 2, 3, 4, None]
    assert (tmp_path / "mask.key").stat().st_mode & 0o777 == 0o600


def test_the_mask_key_must_be_private_and_whole(tmp_path: Path) -> None:
    key = tmp_path / "home" / "mask.key"
    masks = {"late": frozenset({"x"})}
    log = PredictionLog(tmp_path, "tests", masks=masks, key_file=key)
    log.close()
    assert [path.name for path in key.parent.iterdir()] == ["mask.key"]
    key.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        PredictionLog(tmp_path, "tests", masks=masks, key_file=key)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(Corrupt, match="has 5 bytes"):
        PredictionLog(tmp_path, "tests", masks=masks, key_file=key)


def test_ids_ascend_and_never_repeat_across_threads_and_processes() -> None:
    code = "from flyball.tracking.predictions import *; print(*new_ids(5000))"
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    drawn: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda d=d: d.extend(new_id() for _ in range(5000))) for d in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn += [process.communicate(timeout=60)[0].decode().split() for process in children]
    assert all(ids == sorted(ids) for ids in drawn)
    everything = [i for ids in drawn for i in ids]
    assert len(set(everything)) == len(everything) == 30_000
    assert all(len(i) == 32 and set(i) <= set("0123456789abcdef") for i in everything)
    made = datetime.fromtimestamp(int(new_id()[:12], 16) / 1000, UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)


def test_a_prediction_is_found_by_its_id(tmp_path: Path) -> None:
    several, one = batch({"x": [1, 2, 3]}, keys=["a", "b", "c"]), batch({"x": [9]}, 1)
    log_all(tmp_path, several, one)
    found = TrafficReader(tmp_path).find(several.ids[1])
    assert found is not None
    assert (found.id, found.key, found.inputs, found.at) == (several.ids[1], "b", {"x": 2}, NOON)
    alone = TrafficReader(tmp_path).find(one.ids[0])
    assert alone is not None
    assert (alone.key, alone.inputs, alone.outputs) == (None, {"x": 9}, {"label": 1, "probability": 0.75})
    assert TrafficReader(tmp_path).find("0" * 32) is None


def test_labels_arrive_late_and_the_newest_holds_while_all_are_kept(tmp_path: Path) -> None:
    sent = batch({"x": [0, 1, 2, 3, 4]})
    early = Label(sent.ids[4], 1, NOON, "before its prediction")
    label_all(tmp_path, early)
    traffic = Traffic(tmp_path)
    traffic.refresh()
    log_all(tmp_path, sent)
    assert traffic.refresh() == 5
    assert traffic.frame("late")["label"].to_list() == [None, None, None, None, 1]
    label_all(
        tmp_path,
        Label(sent.ids[0], 0, NOON + timedelta(hours=2), "correction"),
        Label(sent.ids[0], 1, NOON + timedelta(hours=1), "an older truth that comes later"),
        Label(sent.ids[1], 0, NOON, "same time, first"),
        Label(sent.ids[1], 1, NOON, "same time, second"),
        Label("unknown", 1, NOON),
    )
    label_all(tmp_path, Label(sent.ids[2], 1, NOON))
    assert traffic.refresh() == 6
    frame = traffic.frame("late")
    assert frame["label"].to_list() == [0, 1, 1, None, 1]
    assert frame.schema["label"] == pl.Int64
    assert frame["label_source"].to_list()[:2] == ["correction", "same time, second"]
    assert traffic.frame("late", labelled_only=True, last=2)["input.x"].to_list() == [2, 4]
    labels, cursor = TrafficReader(tmp_path).read_labels()
    assert labels.height == 7
    assert labels["value"].to_list()[:2] == ["1", "0"]
    assert TrafficReader(tmp_path).read_labels(cursor)[0].height == 0


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1.5, 2], pl.Float64), ([True, False], pl.Boolean), (["UA", "AA"], pl.String), (["1", 2], pl.String)],
)
def test_labels_take_the_type_of_their_values(tmp_path: Path, values: list[Any], dtype: pl.DataType) -> None:
    sent = batch({"x": [1, 2]})
    log_all(tmp_path, sent)
    label_all(tmp_path, *[Label(i, value, NOON) for i, value in zip(sent.ids, values, strict=True)])
    traffic = Traffic(tmp_path)
    traffic.refresh()
    assert traffic.frame("late").schema["label"] == dtype


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1]])
def test_a_label_without_a_plain_value_is_refused_with_all_that_came_with_it(tmp_path: Path, value: Any) -> None:
    log = LabelLog(tmp_path, "tests")
    with pytest.raises(InvalidInput, match="expected a boolean, a finite number or text"):
        log.append([Label("a", 1, NOON), Label("b", value, NOON)])
    with pytest.raises(InvalidInput, match="has no prediction id"):
        log.append([Label("", 1, NOON)])
    with pytest.raises(InvalidInput, match="no zone"):
        log.append([Label("a", 1, datetime(2013, 1, 1))])
    log.close()
    assert TrafficReader(tmp_path).read_labels()[0].height == 0


def test_windows_keep_the_last_rows_in_the_order_they_were_answered(tmp_path: Path) -> None:
    first, second = PredictionLog(tmp_path, "a"), PredictionLog(tmp_path, "b")
    traffic = Traffic(tmp_path, keep_rows=100)
    for number in range(300):
        variant = "canary" if number % 3 == 0 else "champion"
        (first, second)[number % 2].append_wait(batch({"x": [number]}, number, variant=variant))
        if number % 70 == 0:
            traffic.refresh()
    traffic.refresh()
    assert traffic.count("late") == 300
    assert traffic.frame("late")["input.x"].to_list() == list(range(200, 300))
    assert traffic.frame("late", last=5)["input.x"].to_list() == [295, 296, 297, 298, 299]
    assert traffic.frame("late", variant="canary", last=2)["input.x"].to_list() == [294, 297]
    assert traffic.frame("late", since=NOON + timedelta(seconds=297))["input.x"].to_list() == [297, 298, 299]
    first.close()
    second.close()


def test_a_deployment_never_seen_is_empty_and_an_unknown_variant_an_error(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    assert traffic.refresh() == 0
    assert (traffic.count("late"), traffic.deployments()) == (0, [])
    frame = traffic.frame("late", variant="champion", since=NOON, labelled_only=True)
    assert frame.height == 0
    assert frame.columns[0] == "id"
    assert frame.columns[-3:] == ["label", "label_at", "label_source"]
    with pytest.raises(InvalidInput, match='did you mean "canary"'):
        traffic.frame("late", variant="canari")


def test_damage_is_noted_and_the_window_goes_on(tmp_path: Path) -> None:
    log_all(tmp_path, batch({"x": [1]}), batch({"x": [2]}, 1), batch({"x": [3]}, 2))
    (segment,) = (tmp_path / "predictions").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    traffic = Traffic(tmp_path)
    assert traffic.refresh() == 2
    assert traffic.frame("late")["input.x"].to_list() == [1, 3]
    assert [damage.segment for damage in traffic.damages] == [segment.name]


def test_what_is_not_a_prediction_is_called_corrupt(tmp_path: Path) -> None:
    log = Log(tmp_path / "predictions", "stranger")
    log.append_wait([b"not json"])
    log.close()
    with pytest.raises(Corrupt, match="not JSON"):
        TrafficReader(tmp_path).read_predictions()


DATA_PLANE = """
    import os, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from flyball.tracking.predictions import *
    log, waiting = PredictionLog(Path(sys.argv[1]), sys.argv[2]), []
    while True:
        rows = 1 + len(waiting) % 3
        ids = new_ids(rows)
        one = PredictionBatch("late", 1, "champion", "late@1", datetime.now(UTC), ids, {"x": list(range(rows))}, {})
        say = (" ".join(ids) + "\\n").encode()
        waiting.append(log.append(one, lambda error, say=say: os.write(1, say)))
        if len(waiting) > 64:
            waiting.pop(0).wait()
"""


def test_a_data_plane_killed_under_load_loses_no_acknowledged_prediction(tmp_path: Path) -> None:
    chance = random.Random(11)
    acknowledged: list[str] = []
    traffic = Traffic(tmp_path)
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(DATA_PLANE), str(tmp_path)]
        children = [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in ("a", "b")]
        for process in children:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 1500))]
            traffic.refresh()
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
            process.stdout.close()
            assert process.wait(30) == -signal.SIGKILL
            acknowledged += [i for line in lines if line.endswith(b"\n") for i in line.decode().split()]
    traffic.refresh()
    logged = traffic.frame("late")["id"].to_list()
    assert len(set(logged)) == len(logged) == traffic.count("late")
    assert set(acknowledged) <= set(logged)
    assert len(acknowledged) > 0
    assert traffic.damages == []
