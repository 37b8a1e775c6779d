"""The document that says what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyball.errors import Corrupt, FlyballError, Incompatible, InvalidInput, NotFound
from flyball.serving.snapshot import Limits, Logging, ServedDeployment, Snapshot, Variant, parse, read, write

DIGEST = "ab" * 32
CHAMPION = Variant("champion", "late@1", DIGEST, 95.0)
CANARY = Variant("canary", "late@2", DIGEST, 5.0)


def document(**changes: Any) -> dict[str, Any]:
    variant = {"name": "champion", "version": "late@1", "bundle": DIGEST, "weight": 100}
    deployment = {"revision": 3, "salt": "late", "variants": [variant], **changes}
    return {"format": 1, "generation": 7, "deployments": {"late": deployment}}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    served = ServedDeployment(
        3, "s", (CHAMPION, CANARY), "tailnum", (Variant("shadow", "late@3", DIGEST, 10),),
        ({"name": "view"},), ("tailnum",), Logging(0.5, "os"), Limits(10, 5, 20),
    )  # fmt: skip
    snapshot = Snapshot(7, {"late": served})
    path = tmp_path / "serving" / "snapshot.json"
    write(path, snapshot)
    assert read(path) == snapshot
    assert [p.name for p in path.parent.iterdir()] == ["snapshot.json"]


def test_a_snapshot_that_cannot_be_served_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    write(path, Snapshot(1))
    with pytest.raises(InvalidInput, match="total weight"):
        write(path, Snapshot(2, {"late": ServedDeployment(1, "s", (CHAMPION,))}))
    assert read(path) == Snapshot(1)


def test_all_requests_is_a_share_of_one() -> None:
    assert parse(document(log={"requests": "all"})).deployments["late"].log == Logging(1.0)


def test_no_document_and_no_json_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": 1, "gen')
    with pytest.raises(Corrupt):
        read(tmp_path / "half.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variantz": []}, 'unknown field "variantz"; did you mean "variants"'),
        ({"variants": []}, "at least one"),
        ({"variants": [{"name": "champion"}]}, 'lacks the field "version"'),
        ({"variants": 3}, "expected a list"),
        ({"variants": [{"name": "c", "version": "v", "bundle": "../x", "weight": 100}]}, "not a digest"),
        ({"variants": [{"name": "c", "version": "v", "bundle": DIGEST, "weight": 101}]}, "from 0 to 100"),
        ({"variants": [{"name": "c", "version": "v", "bundle": DIGEST, "weight": True}]}, "from 0 to 100"),
        ({"revision": -1}, "revision"),
        ({"revision": "1"}, "revision"),
        ({"log": {"durability": "tape"}}, "disk or os"),
        ({"log": {"requests": 1.5}}, "0 to 1"),
        ({"limits": {"queue_rows": 0}}, "whole number from 1"),
        ({"mask": [""]}, "mask"),
    ],
)
def test_a_wrong_document_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(document(**changes))


def test_another_format_is_incompatible() -> None:
    with pytest.raises(Incompatible, match="format 2"):
        parse({"format": 2, "generation": 1, "unheard": "of"})


@pytest.mark.parametrize("value", [None, [], 3, "x", {"generation": None}, {"generation": 1, "deployments": []}])
def test_any_other_json_is_refused_with_our_own_error(value: object) -> None:
    with pytest.raises(FlyballError):
        parse(value)
