"""Monitors compare with what training kept: no row of a dataset is read again, and policies are asked like a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from flyball.data.rewriting import blobs_of
from flyball.delivery.states import reason_of
from flyball.ledger.refs import Ref
from tests.scenarios.late import INPUTS, World, world

WINDOW = 400
MIRRORED = (107 - pl.col("age")).alias("age")


@pytest.fixture
def home(tmp_path: Path, shared_data: Path) -> Iterator[World]:
    with world(tmp_path / "home", shared_data) as opened:
        yield opened


def watch(w: World, **fields: object) -> None:
    drift = {"window": WINDOW, "horizon": 20}
    w.platform.declare("Monitor", "income", of="deployment/income", **{"drift": drift, "quality": None, **fields})


def waiting(w: World) -> str | None:
    return w.platform.resource("monitor/income").status.get("waiting")


def windows(w: World) -> list[int]:
    return [r["number"] for r in w.platform.monitor_results.of("income", "drift")]


def test_drift_is_found_though_no_part_of_the_dataset_is_there_any_more(home: World) -> None:
    version = home.register(home.fit(home.rows(0, 4_000)))
    assert version.metadata["reference"]["rows"] == 26_000
    digest = home.platform.version("dataset/adult@1").digest
    for blob in {digest, *blobs_of(home.platform.tables.read(digest))}:
        assert home.platform.blobs.delete(blob)
    watch(home)
    home.settle()
    home.ask(3 * WINDOW, change=MIRRORED)
    home.settle()
    assert home.platform.resource("monitor/income").status["conditions"]["drifting"]["feature"] == "age"
    assert waiting(home) is None
    kept = home.platform.monitor_results.reference("income", "income@1")
    assert kept is not None and set(kept["columns"]) == set(INPUTS)


def test_a_version_of_which_nothing_was_kept_is_told_and_its_quality_is_watched_all_the_same(home: World) -> None:
    version = home.register(home.fit(home.rows(0, 4_000)))
    older = {name: value for name, value in version.metadata.items() if name != "reference"}
    with home.platform.ledger.write("user/test") as tx:
        tx.versions.rewrite("model", "income", 1, version.digest, older, action="made older")
    watch(home, quality={"window": WINDOW, "at_least": 0.75, "against_reference": False})
    home.settle()
    home.ask(WINDOW)
    home.settle()
    assert waiting(home) == (
        "drift is not watched: nothing was kept of the rows that income@1 learnt from, by an older release; "
        "register it again"
    )
    assert reason_of(home.platform.resource("monitor/income")) == waiting(home)
    assert windows(home) == []
    assert len(home.platform.monitor_results.of("income", "quality")) == 1


def test_rows_that_are_gone_do_not_keep_a_model_from_being_registered(home: World) -> None:
    rows = home.rows(0, 4_000)
    version = home.platform.register(
        "income", home.fit(rows), example=rows.X.head(5), trained_on=Ref("dataset", "nowhere", "7")
    )
    assert "nowhere" in version.metadata["reference"]["why"]


def test_without_its_purpose_a_monitor_does_not_look_and_with_it_what_it_looked_at_is_noted(home: World) -> None:
    home.platform.declare("Dataset", "adult", target="over_50k", entity=["person_id"], purposes=["oversight"])
    watch(home)
    home.register(home.fit(home.rows(0, 4_000)))
    home.settle()
    home.ask(WINDOW)
    home.settle()
    assert waiting(home) == (
        "drift is not watched: dataset/adult may be read only for a stated purpose; pass purpose='oversight' "
        "(allowed: oversight)"
    )
    assert windows(home) == []
    assert "controller/monitor" not in [use.who for use in home.platform.uses("dataset/adult@1")]
    watch(home, purpose="oversight")
    home.settle()
    assert waiting(home) is None
    assert windows(home) == [1]  # what came meanwhile is judged now
    (use,) = [use for use in home.platform.uses("dataset/adult@1") if use.who == "controller/monitor"]
    assert (use.how, set(use.columns)) == ("read for oversight", set(INPUTS))


def test_a_column_that_a_policy_hides_is_not_watched_from_then_on_and_the_others_are(home: World) -> None:
    watch(home)
    home.register(home.fit(home.rows(0, 4_000)))
    home.settle()
    home.ask(WINDOW)
    home.settle()
    home.platform.declare("Policy", "no-age", mask=[{"columns": ["age"], "how": "null"}])
    home.ask(WINDOW)
    home.settle()
    first, second = home.platform.monitor_results.of("income", "drift")
    assert set(first["statistics"]) - set(second["statistics"]) == {"age"}
    assert waiting(home) == '"age" is not watched: policy/no-age hides it'
    home.platform.declare("Policy", "no-age", mask=[{"columns": ["*"], "how": "null"}])
    home.ask(WINDOW)
    home.settle()
    assert len(windows(home)) == 2
    assert str(waiting(home)).startswith('drift is not watched: "age" is not watched: policy/no-age hides it; ')
    home.platform.declare(
        "Policy", "no-age", mask=[{"columns": ["*"], "how": "null"}], unless_actor=["controller/monitor"]
    )
    home.settle()
    assert waiting(home) is None
    assert len(windows(home)) == 3


def test_a_feature_that_is_no_input_is_told_with_the_nearest(home: World) -> None:
    watch(home, drift={"window": WINDOW, "features": ["agee"]})
    home.register(home.fit(home.rows(0, 4_000)))
    home.settle()
    assert str(waiting(home)).startswith(
        'drift is not watched: income@1 has no input "agee"; did you mean "age"? (it has: '
    )
