"""Publishing: versions, contracts, quarantine, and that a refused batch changes nothing and is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.data.datasets import ContractBroken
from flyball.data.inference import infer_contract
from flyball.errors import InvalidInput, NotFound
from flyball.platform import Platform

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "people",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "people",
            "properties": [
                {"name": "age", "logicalType": "integer", "required": True, "logicalTypeOptions": {"minimum": 0}},
                {"name": "name", "logicalType": "string", "unique": True},
            ],
        }
    ],
}
GOOD = {"age": [1, 2, 3], "name": ["a", "b", "c"]}
BAD = {"age": [1, -2, 3], "name": ["a", "b", "c"]}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def declare(platform: Platform, **fields: Any) -> None:
    platform.declare("Dataset", "people", **fields)


def test_the_same_rows_again_are_the_same_version(platform: Platform) -> None:
    declare(platform)
    first = platform.publish("people", GOOD).version
    assert (first.number, first.metadata["rows"]) == (1, 3)
    assert platform.publish("people", GOOD).version.number == 1
    assert platform.publish("people", BAD).version.number == 2
    assert platform.frame("people@1").collect()["age"].to_list() == [1, 2, 3]
    assert platform.frame("people").collect()["age"].to_list() == [1, -2, 3]


def test_appended_rows_stand_behind_those_of_before(platform: Platform) -> None:
    declare(platform)
    platform.publish("people", GOOD)
    platform.publish("people", {"age": [9], "name": ["z"]}, mode="append")
    assert platform.frame("people").collect()["age"].to_list() == [1, 2, 3, 9]
    assert platform.frame("people@1").collect().height == 3


def test_a_failing_batch_goes_to_quarantine_whole_and_the_dataset_stays(platform: Platform) -> None:
    declare(platform, contract=CONTRACT)
    platform.publish("people", GOOD)
    with pytest.raises(ContractBroken, match="kept whole as quarantine/people@1") as caught:
        platform.publish("people", BAD)
    assert caught.value.report.rows_failed == 1
    assert platform.version("dataset/people").number == 1
    assert platform.frame("quarantine/people@1").collect().height == 3
    kept = platform.version("quarantine/people@1").metadata["contract"]
    assert [r["id"] for r in kept["results"] if not r["passed"]]


def test_failing_rows_can_be_split_off(platform: Platform) -> None:
    declare(platform, contract=CONTRACT, on_failure="split")
    published = platform.publish("people", BAD)
    assert published.version.metadata["rows"] == 2
    assert published.quarantined is not None
    aside = platform.frame(published.quarantined.ref).collect()
    assert aside["age"].to_list() == [-2]
    assert aside["_failed"].to_list()[0]


def test_a_missing_column_is_never_split_off_but_kept_aside_whole(platform: Platform) -> None:
    declare(platform, contract=CONTRACT, on_failure="split")
    with pytest.raises(ContractBroken):
        platform.publish("people", {"name": ["a"]})
    assert platform.versions("dataset", "people") == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("empty.csv", "empty"),
        ("header.csv", "no rows"),
        ("latin.csv", "UTF-8"),
        ("missing.csv", "missing.csv"),
        ("table.xyz", "xyz"),
        ([], "column|empty|rows"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_in_a_sentence(
    platform: Platform, tmp_path: Path, source: Any, sentence: str
) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "header.csv").write_bytes(b"age,name\n")
    (tmp_path / "latin.csv").write_bytes("age,name\n1,J\xfcrgen\n".encode("latin-1"))
    (tmp_path / "table.xyz").write_bytes(b"1")
    declare(platform)
    with pytest.raises((InvalidInput, NotFound), match=sentence):
        platform.publish("people", str(tmp_path / source) if isinstance(source, str) else source)
    assert platform.versions("dataset", "people") == []


def test_a_column_that_the_dataset_names_must_be_there(platform: Platform) -> None:
    declare(platform, target="agee")
    with pytest.raises(InvalidInput, match='no column "agee", which is its target; did you mean "age"'):
        platform.publish("people", GOOD)


def test_an_unknown_dataset_is_refused_with_the_one_meant(platform: Platform) -> None:
    declare(platform)
    with pytest.raises(NotFound, match='did you mean "people"'):
        platform.publish("peple", GOOD)


def test_a_contract_file_is_found_beside_the_declarations(platform: Platform, tmp_path: Path) -> None:
    import yaml

    declare(platform, contract="people.odcs.yaml")
    with pytest.raises(InvalidInput, match=r"people.odcs.yaml is not there"):
        platform.publish("people", GOOD)
    (tmp_path / "people.odcs.yaml").write_text(yaml.safe_dump(CONTRACT), encoding="utf-8")
    published = platform.publish("people", GOOD)
    assert published.report is not None
    assert published.report.passed
    assert published.report.checks >= 4


def test_a_contract_inferred_from_half_of_real_data_passes_on_the_other_half(
    platform: Platform, shared_data: Path
) -> None:
    frame = pl.read_parquet(shared_data / "adult" / "adult.parquet")
    declare(platform, contract=infer_contract(frame.gather_every(2), "people"))
    assert platform.publish("people", frame.gather_every(2, offset=1)).version.number == 1


_PUBLISHER = """
import sys
import polars as pl
from flyball.platform import Platform
platform = Platform.open(sys.argv[1])
for number in range(10_000):
    version = platform.publish("people", pl.DataFrame({"age": range(number, number + 20_000)})).version
    print(version.number, flush=True)
"""


def test_kill_9_while_publishing_leaves_the_last_acknowledged_version_readable(
    platform: Platform, tmp_path: Path
) -> None:
    declare(platform)
    child = subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(4)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split()]
    child.wait(30)
    versions = platform.versions("dataset", "people")
    assert versions[0].number in (told[-1], told[-1] + 1)
    for version in versions:
        assert platform.frame(version.ref).collect().height == 20_000
    assert platform.verify_journal() > 0
