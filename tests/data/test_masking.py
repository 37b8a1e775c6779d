"""Masking: what each way shows of each type, that types hold, and that a reader learns nothing by filtering."""

from __future__ import annotations

import hmac
import stat
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from flyball.data.masking import REDACTED, apply, home_key, keyed_hash
from flyball.errors import Corrupt, InvalidInput

KEY = b"k" * 32
FRAME = pl.DataFrame(
    {
        "text": ["alice@example.org", "bo", None, "日本語テキスト"],
        "n": [17, -3, None, 25],
        "x": [1.25, float("nan"), None, 99.0],
        "day": [date(2020, 5, 6), date(1969, 12, 31), None, date(2024, 2, 29)],
        "at": [datetime(2020, 5, 6, 7, tzinfo=UTC)] * 2 + [None, datetime(2024, 1, 1, tzinfo=UTC)],
        "yes": [True, False, None, True],
        "inner": [
            {"mail": "a@b.org", "deep": {"n": 17}},
            {"mail": None, "deep": None},
            None,
            {"mail": "c", "deep": {"n": 5}},
        ],
        "items": [[{"mail": "a@b.org"}], [], None, [{"mail": "x"}, {"mail": None}]],
        "kind": pl.Series(["a", "b", None, "a"], dtype=pl.Categorical),
    }
)


class How(NamedTuple):
    how: str
    keep: int = 4
    band: float = 10


def shown(column: str, how: How) -> list[Any]:
    return apply(FRAME.lazy(), {column: how}, KEY).collect()[column.partition(".")[0]].to_list()


def test_what_each_way_shows() -> None:
    assert shown("text", How("redact")) == [REDACTED, REDACTED, None, REDACTED]
    assert shown("text", How("partial")) == ["•••.org", REDACTED, None, "•••テキスト"]
    assert shown("text", How("partial", keep=0)) == [REDACTED, REDACTED, None, REDACTED]
    assert shown("text", How("null")) == [None] * 4
    assert shown("n", How("generalise")) == [10, -10, None, 20]
    assert shown("x", How("generalise", band=0.5))[:1] == [1.0]
    assert shown("day", How("generalise")) == [date(2020, 1, 1), date(1969, 1, 1), None, date(2024, 1, 1)]
    assert shown("at", How("generalise"))[0] == datetime(2020, 1, 1, tzinfo=UTC)
    assert shown("yes", How("generalise")) == [None] * 4
    assert shown("n", How("partial", keep=1)) == ["•••7", "•••3", None, "•••5"]
    assert shown("kind", How("redact")) == [REDACTED, REDACTED, None, REDACTED]


def test_nested_fields_are_masked_where_they_are_and_their_neighbours_stay() -> None:
    inner = shown("inner.mail", How("redact"))
    assert inner[0] == {"mail": REDACTED, "deep": {"n": 17}}
    assert shown("inner.deep.n", How("generalise"))[0] == {"mail": "a@b.org", "deep": {"n": 10}}
    assert shown("items.mail", How("redact")) == [[{"mail": REDACTED}], [], None, [{"mail": REDACTED}, {"mail": None}]]
    assert shown("inner", How("redact")) == [None] * 4


@pytest.mark.parametrize("how", ["null", "redact", "hash", "generalise", "partial"])
def test_the_type_that_is_promised_is_the_type_that_comes(how: str) -> None:
    masked = apply(FRAME.lazy(), dict.fromkeys(FRAME.columns, How(how)), KEY)
    promised = masked.collect_schema()
    assert masked.collect().schema == promised
    assert masked.collect(engine="streaming").schema == promised
    if how in ("null", "generalise"):
        assert {n: t for n, t in promised.items() if n != "kind"} == {
            n: t for n, t in FRAME.schema.items() if n != "kind"
        }


def test_the_hash_is_a_keyed_one_equal_for_equal_values_of_any_type() -> None:
    hashed = shown("text", How("hash"))
    assert (
        hashed[0] == hmac.digest(KEY, b"alice@example.org", "sha256")[:16].hex() == keyed_hash(KEY, "alice@example.org")
    )
    assert hashed[2] is None
    left = apply(pl.LazyFrame({"id": [42, 7], "a": [1, 2]}), {"id": How("hash")}, KEY)
    right = apply(pl.LazyFrame({"id": ["7", "42"], "b": [3, 4]}), {"id": How("hash")}, KEY)
    assert left.join(right, on="id").sort("a").select("a", "b").collect().rows() == [(1, 4), (2, 3)]
    with pytest.raises(InvalidInput, match="needs the home's secret"):
        apply(FRAME.lazy(), {"text": How("hash")})


def test_filters_and_sorts_of_a_reader_see_the_masked_values_only(tmp_path: Path) -> None:
    FRAME.select("text", "n").write_parquet(tmp_path / "f.parquet")
    masked = apply(pl.scan_parquet(tmp_path / "f.parquet"), {"text": How("redact"), "n": How("null")}, KEY)
    for engine in ("in-memory", "streaming"):
        assert masked.filter(pl.col("text") == "bo").collect(engine=engine).height == 0
        assert masked.filter(pl.col("n") > 0).collect(engine=engine).height == 0
        assert masked.filter(pl.col("text") == REDACTED).collect(engine=engine).height == 3
        assert masked.select(pl.col("n").max()).collect(engine=engine).item() is None


def test_columns_that_are_not_there_are_passed_over_and_nothing_to_mask_is_no_work() -> None:
    frame = FRAME.lazy()
    assert apply(frame, {"absent": How("null"), "text.inner": How("null")}, KEY).collect().equals(FRAME)
    assert apply(frame, {}) is frame


def test_the_secret_is_made_once_with_a_mode_that_keeps_others_out(tmp_path: Path) -> None:
    key = home_key(tmp_path)
    assert home_key(tmp_path) == key
    path = tmp_path / "privacy.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="can be read by others"):
        home_key(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(Corrupt, match="has 5 bytes"):
        home_key(tmp_path)
