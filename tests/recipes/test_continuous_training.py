"""Continuous training reads rows as a person does: for a purpose, as policies show them, noted, in the run's name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import Forbidden
from flyball.ledger.runs import Run
from flyball.pipelines.execution import run_id, workbench
from flyball.recipes.continuous_training import collect
from tests.scenarios.late import World, world

FIT = '''
from sklearn.tree import DecisionTreeClassifier
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline


def fit(rows):
    """A small tree over the numbers."""
    numbers = make_column_transformer(("passthrough", ["age", "education_num", "hours_per_week", "capital_gain"]))
    return make_pipeline(numbers, DecisionTreeClassifier(max_depth=3, random_state=0)).fit(rows.X, rows.y)
'''
RECIPE = "flyball.recipes.continuous_training:continuous_training"


@pytest.fixture
def home(tmp_path: Path, shared_data: Path) -> Iterator[World]:
    """A home whose deployment has enough labelled answers to learn from."""
    (tmp_path / "fitting.py").write_text(FIT, encoding="utf-8")
    with world(tmp_path / "home", shared_data) as opened:
        opened.register(opened.fit(opened.rows(0, 2_000)), compare=False)
        opened.settle()
        opened.ask(320)
        yield opened


def retrain(w: World, **params: object) -> Run:
    """Run the recipe in a process of its own, as the controller does."""
    at = w.platform
    given = {"model": "income", "deployment": "income", "fit": "fitting.py:fit", **params}
    at.declare("Pipeline", "retrain", function=RECIPE, params=given)
    run = at.start_pipeline("retrain")
    command = [sys.executable, "-m", "flyball.worker", "--home", str(at.home), "--run", run.id]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    return at.run(run.id)


def test_a_run_without_the_purpose_fails_with_the_sentence_and_with_it_is_noted_as_the_reader(home: World) -> None:
    home.platform.declare("Dataset", "adult", target="over_50k", entity=["person_id"], purposes=["scoring"])
    refused = retrain(home)
    assert refused.status == "failed"
    assert "dataset/adult may be read only for a stated purpose; pass purpose='scoring'" in str(refused.error)
    assert [v.number for v in home.platform.versions("dataset", "adult")] == [1]
    done = retrain(home, purpose="scoring")
    assert (done.status, done.error) == ("succeeded", None)
    assert home.platform.version("dataset/adult@2").actor == f"run/{done.id}"
    assert home.platform.version("model/income@2").metadata["reference"]["rows"] == 26_000 + 224
    read = [(u.of, u.how) for u in home.platform.uses("dataset/adult") if u.who == f"run/{done.id}" and "for" in u.how]
    assert sorted(read) == [("dataset/adult@1", "read for scoring"), ("dataset/adult@2", "read for scoring")]


def test_a_run_from_which_a_policy_hides_a_column_publishes_nothing_and_says_which(home: World) -> None:
    at = home.platform
    at.declare("Pipeline", "retrain", function=RECIPE)
    tokens = workbench.set(at), run_id.set(at.start_pipeline("retrain").id)
    try:
        at.declare("Policy", "no-age", mask=[{"columns": ["age"], "how": "null"}])
        with pytest.raises(Forbidden, match=r"policy/no-age hides age of dataset/adult@1 from run/"):
            collect.function("income", "income", 0.3, None)
        assert [v.number for v in at.versions("dataset", "adult")] == [1]
        at.declare("Policy", "no-age", mask=[{"columns": ["age"], "how": "null"}], unless_actor=["run/*"])
        learnt, unseen = collect.function("income", "income", 0.3, None)
    finally:
        workbench.reset(tokens[0])
        run_id.reset(tokens[1])
    assert (len(learnt), len(unseen)) == (26_000 + 224, 96)
    assert learnt.frame["age"].null_count() == 0
