"""Signatures: inferred from the forms users have, and strict with the rows of requests."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.models.fields import Field
from flyball.models.signature import Signature, infer_signature

LATE = Signature((Field("carrier", "string"), Field("distance", "float64"), Field("hour", "int64")))
MIXED = Signature(
    (
        Field("flag", "bool"),
        Field("count", "int64", nullable=True),
        Field("share", "float64", nullable=True),
        Field("text", "string", nullable=True),
        Field("at", "datetime", nullable=True),
    )
)
GOOD = {"flag": True, "count": 3, "share": 0.5, "text": "a", "at": "2026-11-20T09:00:00+01:00"}


def test_rows_become_one_array_an_input() -> None:
    columns = MIXED.columns([GOOD, dict.fromkeys(GOOD) | {"flag": False}])
    assert {name: array.dtype.str[1:] for name, array in columns.items()} == {
        "flag": "b1",
        "count": "f8",
        "share": "f8",
        "text": "O",
        "at": "M8[us]",
    }
    assert columns["at"][0] == np.datetime64("2026-11-20T08:00:00", "us")
    assert np.isnat(columns["at"][1]) and np.isnan(columns["count"][1]) and columns["text"].tolist() == ["a", None]


def test_a_misspelt_input_is_answered_with_the_name_that_was_meant() -> None:
    with pytest.raises(InvalidInput) as error:
        LATE.columns([{"carrier": "UA", "distanse": 1400, "hour": 3}], subject="late@2")
    expected = 'late@2 has no input "distanse"; did you mean "distance"? It needs carrier, distance, hour'
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"distance": "far"}, '"distance" in row 1 is "far"; expected a number'),
        ({"distance": True}, '"distance" in row 1 is true; expected a number'),
        ({"distance": None}, '"distance" in row 1 is null (it is not nullable)'),
        ({"distance": float("nan")}, "is nan (it is not nullable)"),
        ({"distance": float("-inf")}, "infinity is refused"),
        ({"distance": 10**400}, "does not fit in 64 bits"),
        ({"hour": 1.5}, '"hour" in row 1 is 1.5; expected a whole number'),
        ({"hour": True}, "expected a whole number"),
        ({"hour": 2**63}, "does not fit in 64 bits"),
        ({"carrier": 7}, '"carrier" in row 1 is 7; expected a text'),
        ({"carrier": "\ud800"}, "unpaired surrogate"),
        ({"carrier": ["UA"]}, "expected a text"),
    ],
)
def test_a_wrong_value_is_shown_with_its_row(change: dict[str, Any], says: str) -> None:
    good = {"carrier": "UA", "distance": 1400, "hour": 3}
    with pytest.raises(InvalidInput, match="the model: ") as error:
        LATE.columns([good, good | change])
    assert says in str(error.value)
    as_columns = {name: [good[name], (good | change)[name]] for name in good}
    with pytest.raises(InvalidInput) as again:
        LATE.columns_from(as_columns)
    assert str(again.value) == str(error.value)


def test_a_missing_input_an_empty_list_and_no_list_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r'row 0 lacks "hour"\. It needs carrier, distance, hour'):
        LATE.columns([{"carrier": "UA", "distance": 1400}])
    with pytest.raises(InvalidInput, match="no rows were given"):
        LATE.columns([])
    with pytest.raises(InvalidInput, match="no rows were given"):
        LATE.columns_from({"carrier": [], "distance": [], "hour": []})
    with pytest.raises(InvalidInput, match='row 0 is "UA"'):
        LATE.columns(["UA"])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match='"carrier" has 1 rows, but "distance" has 2'):
        LATE.columns_from({"carrier": ["UA"], "distance": [1, 2], "hour": [1, 2]})


def test_integers_beyond_what_a_float_holds_are_refused_where_a_gap_makes_the_column_floats() -> None:
    with pytest.raises(InvalidInput, match='"count" in row 0'):
        MIXED.columns_from({**{k: [v] for k, v in GOOD.items()}, "count": np.array([2.0**60])})
    assert LATE.columns([{"carrier": "", "distance": 1, "hour": 2**62 + 1}])["hour"][0] == 2**62 + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries({name: st.just(value) | JSON for name, value in GOOD.items()})


@settings(max_examples=300, deadline=None)
@given(st.lists(NEARLY, max_size=3) | JSON)
def test_arbitrary_json_is_taken_or_refused_but_never_breaks(rows: Any) -> None:
    for check in (MIXED.columns, MIXED.columns_from, IMAGE.columns_from, IMAGE.columns):
        try:
            found = check(rows)
        except InvalidInput as error:
            assert str(error).encode()
        else:
            assert len({len(array) for array in found.values()}) == 1


IMAGE = Signature((Field("image", "float32", shape=(-1, 2, 2)),))


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_arbitrary_json_as_a_tensor_is_taken_or_refused(value: Any) -> None:
    for field in (IMAGE.inputs[0], Field("image", "int8", shape=(-1,)), Field("image", "string", shape=(-1, -1))):
        try:
            assert Signature((field,)).columns_from({"image": value})["image"].ndim == len(field.shape or ())
        except InvalidInput as error:
            assert str(error).encode()


def test_tensors_are_checked_for_shape_type_and_range() -> None:
    found = IMAGE.columns([{"image": [[1, 2], [3, 4.5]]}, {"image": [[1, 2], [3, 4]]}])["image"]
    assert found.shape == (2, 2, 2) and found.dtype == np.float32
    for value, says in [
        ([[1, 2], [3]], "ragged"),
        ([[[1, 2, 3], [1, 2, 3]]], "expected [-1, 2, 2]"),
        ([[["a", "b"], ["c", "d"]]], "holds texts; expected float32"),
        ([[[1, 2], [3, 1e300]]], "not finite as float32"),
    ]:
        with pytest.raises(InvalidInput) as error:
            IMAGE.columns_from({"image": value})
        assert says in str(error.value)
    with pytest.raises(InvalidInput, match="outside -128 to 127"):
        Signature((Field("x", "int8", shape=(-1,)),)).columns_from({"x": [128]})


FRAME = pl.DataFrame(
    {
        "flag": [True, False],
        "count": [1, 2],
        "gap": [1, None],
        "share": [0.5, 1.5],
        "text": ["a", None],
        "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
    }
).with_columns(kind=pl.Series(["x", "y"], dtype=pl.Categorical), small=pl.Series([1, 2], dtype=pl.UInt8))


def test_a_signature_is_the_same_from_polars_pandas_and_plain_rows() -> None:
    described = infer_signature(FRAME)
    assert [(f.name, f.dtype, f.nullable) for f in described.inputs] == [
        ("flag", "bool", False),
        ("count", "int64", False),
        ("gap", "int64", True),
        ("share", "float64", False),
        ("text", "string", True),
        ("at", "datetime", False),
        ("kind", "string", False),
        ("small", "int64", False),
    ]
    assert described.inputs[6].categories == ("x", "y")
    in_pandas = pd.DataFrame(FRAME.to_dict(as_series=False)).astype({"gap": "Int64", "kind": "category"})
    assert infer_signature(in_pandas) == described
    without = FRAME.with_columns(pl.col("kind").cast(pl.String))
    assert infer_signature(without.to_dicts()) == infer_signature(without)
    assert infer_signature(without.to_dict(as_series=False)) == infer_signature(without)


def test_numpy_columns_are_numbered_and_images_are_one_tensor() -> None:
    table = infer_signature(np.zeros((3, 2), np.float32), np.array([1, 0, 1]))
    assert [f.name for f in table.inputs] == ["x0", "x1"] and table.outputs == (Field("prediction", "int64"),)
    assert infer_signature(np.zeros((3, 28, 28), np.uint8)).inputs == (Field("input", "uint8", shape=(-1, 28, 28)),)
    with pytest.raises(InvalidInput, match=r"X\[:5\]"):
        infer_signature(np.zeros(3))


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (pl.DataFrame({"a": [[1]]}), "has the type List"),
        (pl.DataFrame({"a": [1]}).lazy(), "call .collect"),
        ([{"a": 1}, {"a": "x"}], "mixes or holds int, str"),
        ([{"a": None}], "is empty"),
        ([], "cannot be read"),
        (pd.DataFrame({0: [1]}), "name it by a text"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(example: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as error:
        infer_signature(example)
    assert says in str(error.value)


def test_a_signature_survives_json() -> None:
    described = infer_signature(FRAME, {"probabilities": np.zeros((2, 3))})
    assert Signature.from_dict(json.loads(json.dumps(described.to_dict()))) == described
    assert described.outputs[0].oip_shape == (-1, 3) and described.outputs[0].oip_datatype == "FP64"
    assert [f.oip_datatype for f in MIXED.inputs] == ["BOOL", "INT64", "FP64", "BYTES", "INT64"]
    with pytest.raises(InvalidInput, match='did you mean "float64"'):
        Field("a", "float")
    with pytest.raises(InvalidInput, match='unknown key "dtypes"'):
        Field.from_dict({"name": "a", "dtype": "bool", "dtypes": 1})


def test_names_that_may_be_missing_can_be_said() -> None:
    described = infer_signature(FRAME, nullable=["share"])
    assert described.inputs[3].nullable and not described.inputs[1].nullable
    with pytest.raises(InvalidInput, match='did you mean "share"'):
        infer_signature(FRAME, nullable=["shares"])


def test_checking_rows_costs_microseconds() -> None:
    """Bounds are four times the aim (3 µs a row, 25 µs for one), since the machine is shared."""
    names = [f"n{i}" for i in range(8)] + [f"s{i}" for i in range(4)]
    signature = Signature(tuple(Field(n, "float64" if n[0] == "n" else "string", nullable=True) for n in names))
    rows = [{n: (i / 3 if n[0] == "n" else "abc") for n in names} for i in range(64)]

    def best(records: list[dict[str, Any]], times: int) -> float:
        found = []
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(times):
                signature.columns(records)
            found.append((time.perf_counter() - start) / times)
        return min(found)

    assert best(rows, 20) / 64 < 12e-6
    assert best(rows[:1], 200) < 100e-6
