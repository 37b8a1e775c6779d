"""A new version is let in, promoted or rolled back, on answers that were really given."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.errors import Conflict, InvalidInput
from tests.scenarios.late import World, world


def begin(w: World, *, weak: bool = True) -> None:
    """Serve a first version."""
    w.register(w.fit(w.rows(0, 4_000), weak=weak))
    w.settle()


def go_through(w: World, rounds: int = 40, **ask: object) -> None:
    for _ in range(rounds):
        w.ask(40, **ask)  # type: ignore[arg-type]
        w.settle()
        if "rollout" not in w.platform.resource("deployment/income").status:
            return
    raise AssertionError("the rollout did not end")


def test_the_first_version_that_passes_its_gates_serves_everything(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        begin(w)
        assert w.served() == {"champion": "income@1"}
        assert {a["version"] for a in w.ask(20)} == {"income@1"}
        causes = [e.action for e in w.platform.why("deployment/income")]
        assert causes == ["serves", "aliased", "passed", "published"]


def test_a_version_that_fails_a_gate_never_serves_and_says_why(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        w.platform.declare("Model", "income", dataset="adult", gates=[{"metric": "auc", "at_least": 0.99}])
        begin(w)
        assert w.served() == {}
        status = w.platform.resource("model/income").status
        assert status["decided"]["1"]["outcome"] == "refused"
        assert "auc is 0." in status["decided"]["1"]["gates"][0]["reason"]
        assert "no champion" in w.platform.resource("deployment/income").status["blocked"]


def test_a_better_version_goes_out_by_canary_and_is_promoted_with_its_evidence(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data, hold_labels=500) as w:
        begin(w)
        w.register(w.fit(w.rows(0, 8_000)))
        w.settle()
        assert w.served() == {"champion": "income@1", "canary": "income@2", "baseline": "income@1"}
        go_through(w)
        assert w.served() == {"champion": "income@2"}
        assert w.platform.aliases("model", "income") == {"champion": 2}
        last = w.platform.resource("deployment/income").status["last_rollout"]
        assert last["verdict"] == "promoted"
        assert last["comparison"]["verdict"] == "better"
        causes = [e.action for e in w.platform.why("deployment/income")]
        assert causes == ["promoted", "rollout started", "aliased", "passed", "published"]
        assert w.platform.verify_journal() > 0


def test_a_worse_version_is_rolled_back_and_not_tried_again(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data, hold_labels=300) as w:
        begin(w, weak=False)
        w.register(w.fit(w.rows(0, 4_000), weak=True))
        w.settle()
        go_through(w, rounds=60)
        assert w.served() == {"champion": "income@1"}
        assert w.platform.aliases("model", "income") == {"champion": 1}
        assert w.platform.resource("deployment/income").status["last_rollout"]["verdict"] == "rolled back"
        w.ask(40)
        w.settle()
        assert w.served() == {"champion": "income@1"}


def test_a_key_stays_on_its_variant_while_the_canary_grows(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data, hold_requests=100_000) as w:
        begin(w)
        w.register(w.fit(w.rows(0, 8_000)))
        w.settle()
        record = w.rows(30_000, 1).X.to_dicts()[0]
        first = {k: w.platform.predict("income", record, key=f"k{k}")[0]["variant"] for k in range(60)}
        again = {k: w.platform.predict("income", record, key=f"k{k}")[0]["variant"] for k in range(60)}
        assert first == again
        assert set(first.values()) == {"champion", "canary", "baseline"}


def test_a_person_can_be_asked_to_agree(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        gates = [{"metric": "auc", "at_least": 0.55}]
        w.platform.declare("Model", "income", dataset="adult", gates=gates, approve={"by": "person"})
        begin(w)
        assert "flyball approve model/income@1" in w.platform.resource("model/income").status["blocked"]
        w.platform.approve("income@1")
        w.settle()
        assert w.served() == {"champion": "income@1"}
        assert "approved" in [e.action for e in w.platform.why("deployment/income")]


def test_rolling_back_by_hand_moves_alias_and_traffic_together(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        begin(w)
        with pytest.raises(Conflict, match="no rollout to end"):
            w.platform.rollback("income")
        w.register(w.fit(w.rows(0, 8_000)))
        w.settle()
        assert w.platform.rollback("income") == "income@1"
        w.settle()
        assert w.served() == {"champion": "income@1"}
        w.register(w.fit(w.rows(0, 9_000)))
        w.settle()
        go_through(w)
        assert w.served() == {"champion": "income@3"}
        assert w.platform.rollback("income") == "income@1"
        w.settle()
        assert w.served() == {"champion": "income@1"}


def test_a_tampered_bundle_is_not_loaded_and_the_champion_serves_on(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        begin(w)
        w.ask(1)
        version = w.register(w.fit(w.rows(0, 8_000)))
        path = w.platform.blobs.path(version.digest)
        assert path is not None
        path.write_bytes(path.read_bytes().replace(b"sklearn", b"skl3arn", 1))
        w.settle()
        assert {a["version"] for a in w.ask(20)} == {"income@1"}


def test_an_unknown_input_is_refused_with_the_one_meant(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        begin(w, weak=False)
        record = w.rows(30_000, 1).X.to_dicts()[0]
        record["ocupation"] = record.pop("occupation")
        with pytest.raises(InvalidInput, match='no input "ocupation"; did you mean "occupation"'):
            w.platform.predict("income", record)
