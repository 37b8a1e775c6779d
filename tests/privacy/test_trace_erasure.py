"""One person leaves traces, what was said of them, sets to evaluate on, and the files of traces and logged models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from flyball.ledger.traces import Assessment
from flyball.llm.spans import Span
from flyball.platform import Platform
from tests.privacy.full_home import COLUMN, OTHER, PERSON, eraser

TRACE = f"tr-{1:032x}"
TABLE = {"columns": ["age", COLUMN], "index": [7, 8], "data": [[1, PERSON], [2, OTHER]]}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path / "home")) as opened:
        yield opened


def fill(platform: Platform) -> str:
    """Put the person into two traces of three, a set and a logged model; return the model's id."""
    asked = {"question": f"Who is {PERSON}?", "rows": [{COLUMN: PERSON, "age": 3}, {COLUMN: OTHER, "age": 4}]}
    odd = {"deep": json.dumps({"to": PERSON}), "n": 5}
    platform.add_spans(
        "0",
        [
            Span(f"{1:032x}", f"{1:016x}", "answer", 10**18, 2 * 10**18, attributes={"mlflow.spanInputs": asked}),
            Span(f"{1:032x}", f"{2:016x}", f"mail {PERSON}", 10**18, 2 * 10**18, f"{1:016x}", attributes={"odd": odd}),
            Span(f"{2:032x}", f"{1:016x}", "answer", 10**18, 2 * 10**18, attributes={"mlflow.spanInputs": "hello"}),
            Span(f"{3:032x}", f"{1:016x}", "answer", 10**18, 2 * 10**18),
        ],
    )
    platform.tag_trace(f"tr-{3:032x}", COLUMN, PERSON)
    platform.tag_trace(f"tr-{3:032x}", "kept", OTHER)
    said = Assessment("a-1", TRACE, "correct", "feedback", False, "HUMAN", PERSON, 1, 1, rationale=f"ask {PERSON}")
    platform.assess(said)
    platform.assess(replace(said, id="a-2", source=OTHER, rationale="no", value={"rows": [{COLUMN: PERSON}]}))
    made = platform.create_evaluation_set("asked", ["0"]).id
    records = [{"inputs": {"q": PERSON}}, {"inputs": {"q": OTHER}, "expectations": {"answer": f"{PERSON} knows"}}]
    assert platform.put_records(made, records) == (2, 0)
    platform.keep_bytes(f"0/traces/{TRACE}/artifacts/seen.json", orjson.dumps({"rows": [{COLUMN: PERSON}, {"a": 1}]}))
    model = platform.create_logged_model("0", "net", params={COLUMN: PERSON, "depth": "3"}, tags={"by": PERSON}).id
    platform.keep_bytes(f"0/models/{model}/artifacts/input_example.json", orjson.dumps(TABLE))
    platform.keep_bytes(f"0/models/{model}/artifacts/rows.csv", f"{COLUMN},n\n{PERSON},1\n{OTHER},2\n".encode())
    return model


def everything(platform: Platform) -> str:
    """All that is kept of traces, sets and logged models, as text."""
    with platform.ledger.read() as world:
        traces = world.traces.every("", 100)
        spans = world.traces.spans(trace.id for trace in traces)
        records = [world.evaluation_sets.records(one.id, 10)[0] for one in world.evaluation_sets.all()]
        models = [(one.params, one.tags) for one in world.logged_models.every()]
    blobs = [platform.blobs.get(digest) for digest in platform.blobs.digests()]
    return repr((traces, spans, records, models, [blob for blob in blobs if b"erasure" not in blob]))


def test_one_person_leaves_traces_and_files_and_nobody_else_does(platform: Platform) -> None:
    model = fill(platform)
    before = everything(platform)
    assert PERSON in before
    counted = eraser(platform).erase(PERSON, [COLUMN], dry_run=True)
    assert everything(platform) == before
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert PERSON not in everything(platform)
    removed: dict[str, Any] = done.certificate["removed"]
    assert (removed["files of models and traces"], removed["evaluation records"]) == (3, 2)
    assert removed["logged models"] == 2
    places = ("traces", "logged models", "files of models and traces", "evaluation records")
    assert [removed[p] for p in places] == [counted.certificate["removed"][p] for p in places]
    spans = platform.trace_spans([TRACE])[TRACE]
    asked = spans[0].attributes["mlflow.spanInputs"]
    assert asked["rows"] == [{COLUMN: OTHER, "age": 4}]
    assert asked["question"].startswith("Who is *")
    assert spans[1].attributes["odd"]["n"] == 5
    assert [one.id for one in platform.search_traces(["0"], "span.name LIKE 'mail *%'")[0]] == [TRACE]
    assert [one.id for one in platform.search_traces(["0"], "span.attributes.odd LIKE '%\"n\": 5%'")[0]] == [TRACE]
    assert [one.id for one in platform.trace(TRACE).assessments] == ["a-1", "a-2"]
    assert platform.trace(TRACE).assessments[1].value == {"rows": []}
    assert platform.trace(f"tr-{2:032x}").span_count == 1
    assert platform.trace(f"tr-{3:032x}").tags["kept"] == OTHER
    files = {f.path: platform.blobs.get(f.digest) for f in _files(platform, model)}
    assert orjson.loads(files["input_example.json"]) == {"columns": ["age", COLUMN], "index": [8], "data": [[2, OTHER]]}
    assert files["rows.csv"] == f"{COLUMN},n\n{OTHER},2\n".encode()
    assert done.certificate["left"] == []
    again = eraser(platform).erase(PERSON, [COLUMN])
    assert not any(again.certificate["removed"].values())


def test_a_number_is_taken_out_where_it_is_a_row_of_the_person_and_nowhere_else(platform: Platform) -> None:
    rows = {"rows": [{"userId": 42, "age": 1}, {"userId": 7, "age": 42}], "total": 42}
    platform.add_spans(
        "0", [Span(f"{1:032x}", f"{1:016x}", "a", 10**18, 2 * 10**18, attributes={"mlflow.spanInputs": rows})]
    )
    eraser(platform).erase(42, ["userId"])
    (kept,) = platform.trace_spans([TRACE])[TRACE]
    assert kept.attributes["mlflow.spanInputs"] == {"rows": [{"userId": 7, "age": 42}], "total": 42}
    assert "42" in str(platform.trace(TRACE).request)
    assert '"userId": 42' not in str(platform.trace(TRACE).request)


def _files(platform: Platform, owner: str) -> list[Any]:
    with platform.ledger.read() as world:
        return world.artifacts.below(owner)
