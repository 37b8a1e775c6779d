"""A viewer sees no hidden value by any way out: rows, samples, profiles, reports, derived datasets, events, errors."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball.data.datasets import ContractBroken
from flyball.errors import FlyballError, Forbidden
from flyball.governance.identity import Principal
from flyball.platform import Platform
from flyball.wire.openlineage.sending import Exporter, FileReceiver

VIEWER, EDITOR = Principal("user/v", "viewer"), Principal("user/e", "editor")
SECRETS = ("ada0@hidden.example", "hidden.example", "Hidden Lane", "98765", "4711")
AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTRACT = {
    "kind": "DataContract",
    "apiVersion": "v3.1.0",
    "id": "staff",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "staff",
            "quality": [
                {
                    "type": "custom",
                    "engine": "flyball",
                    "severity": "warning",
                    "implementation": {"aggregate": "maximum", "column": "salary", "mustBeLessThan": 10},
                }
            ],
            "properties": [
                {"name": "n", "logicalType": "integer", "logicalTypeOptions": {"minimum": 0}},
                {"name": "email"},
                {"name": "address"},
                {"name": "salary"},
                {"name": "pin"},
                {"name": "at"},
            ],
        }
    ],
}
NOTES = {
    "email": {"classification": "personal"},
    "address.street": {"classification": "confidential"},
    "salary": {"tags": ["PII"]},
}


@fb.feature_view(entity="n", event_time="at", ttl="900d")
def contact(staff: pl.LazyFrame) -> pl.LazyFrame:
    return staff.select("n", "at", reach=pl.col("email").str.to_uppercase(), twice=pl.col("salary") * 1.0)


def staff(count: int, start: int = 0) -> pl.DataFrame:
    numbers = list(range(start, start + count))
    return pl.DataFrame(
        {
            "n": numbers,
            "email": [f"ada{n}@hidden.example" for n in numbers],
            "address": [{"street": f"{n} Hidden Lane", "city": "Ulm"} for n in numbers],
            "salary": [98_765_000 + n for n in numbers],
            "pin": [4_711_000 + n for n in numbers],
            "at": [AT] * count,
        }
    )


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    opened = Platform.open(tmp_path_factory.mktemp("masking") / "home")
    opened.declare("policy", "pins", applies_to={"datasets": ["staff"]}, unless_role="admin",
                   mask=[{"columns": ["pin"], "how": "null"}])  # fmt: skip
    declared: dict[str, Any] = {"key": ["n"], "event_time": "at", "columns": NOTES, "on_failure": "split"}
    opened.declare("dataset", "staff", **declared, contract=CONTRACT)
    opened.publish("staff", staff(20))
    opened.publish("staff", pl.concat([staff(18, 2), staff(3, 40).with_columns(n=-pl.col("n"))]))
    for name in ("contacts", "again", "known", "grown"):
        opened.declare("dataset", name)
    editor = opened.as_(EDITOR)
    renamed = "select n, email as contact, address, salary as pay, pin as code from staff"
    editor.publish("contacts", renamed)
    editor.publish("again", "select contact as reach, pay / 2 as half, code as key, n from contacts")
    editor.publish("grown", "select n, email as contact from staff")
    editor.publish("grown", staff(2, 60).select("n", contact="email"), mode="append")
    opened.declare("dataset", "known", columns={"people": {"classification": "internal"}})
    editor.publish("known", "select count(email) as people, max(salary) as most from staff")
    opened.declare_view(contact)
    opened.materialise(contact)
    yield opened
    opened.close()


def shown(*things: Any) -> str:
    """Return everything that can be read in some values, also what only their parts or their text say."""
    return "\n".join(repr(_plain(thing)) + repr(thing) for thing in things)


def _plain(thing: Any) -> Any:
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: _plain(getattr(thing, f.name)) for f in dataclasses.fields(thing) if f.name != "sketch"}
    if isinstance(thing, dict):
        return {str(k): _plain(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [_plain(part) for part in thing]
    if isinstance(thing, pl.LazyFrame):
        return thing.collect().rows()
    if isinstance(thing, pl.DataFrame):
        return thing.rows()
    return thing


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def test_the_owner_sees_everything_so_that_there_is_something_to_hide(platform: Platform) -> None:
    assert leaks(shown(platform.frame("staff@1"))) == list(SECRETS)
    held = platform.held("staff")[0]
    assert leaks(shown(held.report)) == list(SECRETS[1:])


@pytest.mark.parametrize("target", ["staff", "staff@1", "quarantine/staff", "contacts", "again", "grown", "grown@1",
                                    "feature/contact"])  # fmt: skip
@pytest.mark.parametrize("format", ["polars", "arrow", "duckdb", "pandas"])
def test_rows_in_every_format_are_masked(platform: Platform, target: str, format: Any) -> None:
    viewer = platform.as_(VIEWER)
    read: Any = viewer.read(target, format)
    if format == "polars":
        rows = read.collect().rows()
    elif format == "pandas":
        rows = read.to_dict("records")
    else:
        rows = pl.DataFrame(read.arrow() if format == "duckdb" else read).rows()
    assert len(rows) > 0
    assert leaks(str(rows)) == []
    assert leaks(shown(viewer.frame(target))) == []


def test_profiles_comparisons_and_differences_show_no_value(platform: Platform) -> None:
    viewer = platform.as_(VIEWER)
    for target in ("staff", "contacts", "again", "grown", "feature/contact", "quarantine/staff"):
        found = viewer.profile(target)
        assert leaks(shown(found, found.columns, found.to_dict(), found.correlations)) == [], target
        assert leaks(repr(found)) == []
    compared = viewer.compare_profiles("staff@1", "staff@2")
    assert leaks(shown(compared, [c.to_dict() for c in compared])) == []
    keys: tuple[Any, ...] = ("n", [])
    for key in keys:
        made = viewer.diff("staff", 1, 2, key=key)
        assert made.removed
        assert leaks(shown(made, made.to_dict())) == []
        assert "Hidden Lane" in shown(platform.diff("staff", 1, 2, key=key))
    admin = platform.profile("staff")
    assert admin.columns["email"].top and not viewer.profile("staff").columns["email"].top
    assert viewer.profile("staff").columns["email"].distinct == admin.columns["email"].distinct


def test_reports_of_contracts_show_no_sample_of_hidden_columns_and_no_measured_extreme(platform: Platform) -> None:
    viewer = platform.as_(VIEWER)
    told = [viewer.versions("dataset"), viewer.versions("quarantine"), viewer.version("dataset/staff@2"),
            viewer.version_of("staff", 2), viewer.held("staff"), viewer.held_batch("staff", 1)]  # fmt: skip
    assert leaks(shown(*told)) == []
    assert '"row"' in json.dumps(viewer.held("staff")[0].report)  # the samples are there, without values
    report = viewer.version("dataset/staff@1").metadata["contract"]
    aggregate = next(result for result in report["results"] if result["check"] == "aggregate")
    assert (aggregate["value"], aggregate["message"]) == (
        None,
        "the aggregate of salary, which is hidden, is not as agreed",
    )
    inspected = viewer.inspect("staff", 1).collect()
    assert inspected.height == 3 and leaks(str(inspected.rows())) == []


def test_classification_follows_the_column_until_somebody_says_otherwise(platform: Platform) -> None:
    viewer = platform.as_(VIEWER)
    decision = platform.guard.decision("again", ["reach", "half", "key", "n"], VIEWER)
    assert {c: m.how for c, m in decision.masks.items()} == {"reach": "redact", "half": "redact", "key": "null"}
    assert set(platform.guard.decision("again", ["reach", "key"], EDITOR).masks) == {"key"}  # the policy's, for editors
    assert viewer.frame("known").collect().rows() == [(18, None)]
    assert platform.frame("contacts").collect()["code"].null_count() == 18  # an editor made it, and sees no pin
    editor = platform.as_(EDITOR)
    assert leaks(shown(editor.frame("staff").select("pin"), editor.frame("again").select("key"))) == []
    assert editor.frame("grown").collect()["contact"].to_list()[-1] == "ada61@hidden.example"


def test_a_model_may_not_learn_from_a_classified_column_under_another_name(platform: Platform) -> None:
    platform.declare(
        "policy", "no-mail", applies_to={"models": ["reach"]}, require={"without_classifications": ["personal"]}
    )
    source = platform.version("dataset/again").ref
    assert "is personal in dataset/again" in platform.guard.judge("reach", ["reach"], [source])[0]
    platform.delete("policy/no-mail")


def test_search_events_logs_and_errors_say_no_value(
    platform: Platform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    viewer, editor = platform.as_(VIEWER), platform.as_(EDITOR)
    with caplog.at_level(logging.DEBUG):
        for word in ("ada0", "hidden", "staff", "lane"):
            assert leaks(shown(viewer.search(word).to_dict())) == []
        Exporter(platform.ledger, FileReceiver(tmp_path / "events.ndjson"), tmp_path).run_once()
        said = [shown(viewer.events(limit=1000)), shown(viewer.runs()), shown(viewer.uses("staff"))]
        for attempt in (
            lambda: editor.publish("known", "select cast(email as int) as people, 1 as most from staff"),
            lambda: editor.publish("staff", staff(3).with_columns(n=-1 - pl.col("n"), salary=pl.col("email"))),
            lambda: editor.publish("staff", staff(2).with_columns(n="email"), mode="append"),
            lambda: editor.fix("staff", 1, {"n": "cast(email as int)"}),
            lambda: editor.publish("staff", pl.concat([staff(2), staff(2)]), mode="upsert", key="email"),
            lambda: viewer.publish("known", staff(1)),
            lambda: viewer.frame("staff", columns=["emial"]),
        ):
            with contextlib.suppress(Forbidden):
                try:
                    attempt()
                except ContractBroken as error:
                    said.append(str(error))
                except FlyballError as error:
                    said.append(str(error))
    assert leaks((tmp_path / "events.ndjson").read_text(encoding="utf-8")) == []
    assert leaks("\n".join(said)) == []
    assert leaks(caplog.text) == []


def test_features_and_labels_of_hidden_columns_are_hidden(platform: Platform) -> None:
    viewer = platform.as_(VIEWER)
    platform.declare("labels", "known-by", dataset="staff", key=["email"])
    platform.add_labels("known-by", [{"email": "ada3@hidden.example", "label": "yes"}], labeller="user/a")
    assert leaks(shown(platform.label_table("known-by"), platform.open_labels("known-by"))) == list(SECRETS[:2])
    assert leaks(shown(viewer.label_table("known-by"), viewer.open_labels("known-by", 50))) == []
    assert leaks(shown(viewer.frame("labels/known-by"), viewer.profile("labels/known-by").to_dict())) == []
    assert leaks(shown(platform.look_up([contact], {"n": [3]}))) == ["98765"]  # and the mail, in capitals
    assert leaks(shown(viewer.look_up([contact], {"n": [3]}), viewer.agreement("contact"))) == []
    assert "HIDDEN.EXAMPLE" not in shown(viewer.look_up([contact], {"n": [3]}), viewer.frame("feature/contact"))
    asked = pl.LazyFrame({"n": [3], "asked_at": [AT.replace(year=2027)]})
    assert "HIDDEN.EXAMPLE" in shown(platform.training_set(asked, [contact]))
    assert "HIDDEN.EXAMPLE" not in shown(viewer.training_set(asked, [contact]))
    assert "98765" not in shown(viewer.training_set(asked, [contact]))


def test_a_purpose_is_asked_for_and_its_use_is_recorded(platform: Platform) -> None:
    platform.declare("dataset", "asked", purposes=["fraud"], columns={"email": {"classification": "personal"}})
    platform.publish("asked", staff(4).select("n", "email"))
    viewer = platform.as_(VIEWER)
    reads: list[Callable[[], Any]] = [lambda: viewer.frame("asked"), lambda: viewer.read("asked", "arrow")]
    for read in reads:
        with pytest.raises(Forbidden, match="pass purpose='fraud'"):
            read()
    with pytest.raises(Forbidden, match="pass purpose='fraud'"):
        platform.publish("known", "select count(email) as people, 1 as most from asked")
    assert viewer.profile("asked").columns["n"].least is None  # without its purpose nothing is told of any column
    assert viewer.profile("asked", purpose="fraud").columns["n"].least == 0
    assert viewer.frame("asked", purpose="fraud").collect()["email"].unique().to_list() == ["•••"]
    found = {use.how for use in platform.uses("asked") if use.who == VIEWER.actor}
    assert found == {"read for fraud"}


def test_rows_of_another_region_are_refused_by_every_door(platform: Platform) -> None:
    platform.declare("dataset", "local", residency="eu", on_failure="split", contract=CONTRACT)
    attempts: list[Callable[[], Any]] = [
        lambda: platform.publish("local", staff(2)),
        lambda: platform.publish("local", staff(2), mode="append"),
        lambda: platform.publish("local", "select * from staff"),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden, match="may be kept in eu only"):
            attempt()
    platform.declare("labels", "local", dataset="local", key=["n"], unknown_keys="keep")
    with pytest.raises(Forbidden, match="may be kept in eu only"):
        platform.add_labels("local", [{"n": 1, "label": "yes"}], labeller="user/a")
    assert platform.versions("dataset", "local") == []
