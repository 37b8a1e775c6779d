"""Declared stages over a real rollout: people agree, the canary moves the alias, and the stage follows."""

from __future__ import annotations

from pathlib import Path

from flyball.governance.identity import Principal
from tests.scenarios.late import world
from tests.scenarios.test_rollouts import begin, go_through

STAGES = [
    {"name": "development"},
    {"name": "production", "alias": "champion", "rollout": True, "approvers": {"separate_duties": False}},
    {"name": "archived"},
]


def test_an_approved_version_goes_out_by_canary_and_the_history_has_its_evidence(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data) as w:
        gates = [{"metric": "auc", "at_least": 0.55}]
        w.platform.declare("Model", "income", dataset="adult", gates=gates, stages=STAGES)
        begin(w)
        bob = w.platform.as_(Principal("user/bob", "editor"))
        bob.review(bob.inbox().mine[0].request.id, "approved", "it is the first")
        w.settle()
        assert w.served() == {"champion": "income@1"}
        w.register(w.fit(w.rows(0, 8_000)))
        w.settle()
        bob.review(bob.inbox().mine[0].request.id, "approved", "better on unseen rows")
        w.settle()
        assert w.platform.stage_of("income@2").name == "development"  # as long as the canary is asked
        go_through(w)
        assert [w.platform.stage_of(f"income@{n}").name for n in (1, 2)] == ["archived", "production"]
        [now] = [one for one in w.platform.history("income") if one.stage == "production" and one.until is None]
        assert (str(now.ref), now.request.reviews[0].comment) == ("model/income@2", "better on unseen rows")
        assert now.rollout is not None and now.rollout["arms"]["canary"]["requests"] > 0
        assert w.platform.rollback("model/income") == "income@1"
        w.settle()
        assert w.served() == {"champion": "income@1"}
        assert w.platform.stage_of("income@2").name == "archived"
