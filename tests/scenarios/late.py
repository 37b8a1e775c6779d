"""A small world for scenarios: real census rows, real models, a real home; only the network is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from flyball.control.loop import Loop
from flyball.data.rows import Rows
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.training.registering import compare_with, judge, windows_of

INPUTS = ["age", "education_num", "hours_per_week", "capital_gain", "sex", "occupation"]


class World:
    """A home with a dataset `adult`, a model and a deployment `income`."""

    def __init__(self, platform: Platform, frame: pl.DataFrame) -> None:
        self.platform = platform
        self.frame = frame
        self.loop: Loop = platform.loop()
        self._asked = 0

    def rows(self, start: int, count: int) -> Rows:
        return Rows.of(self.frame.slice(start, count), "over_50k", inputs=INPUTS, origin=Ref("dataset", "adult", "1"))

    def fit(self, rows: Rows, *, weak: bool = False) -> Any:
        """A gradient boosting model; a weak one sees two columns only and is little better than chance."""
        texts = ["sex", "occupation"]
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
        if weak:
            only = make_column_transformer(("passthrough", ["hours_per_week"]))
            return make_pipeline(only, LogisticRegression()).fit(rows.X, rows.y)
        columns = make_column_transformer((encoder, texts), remainder="passthrough")
        model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
        return make_pipeline(columns, model).fit(rows.X, rows.y)

    def register(self, model: Any, *, compare: bool = True) -> Version:
        unseen = self.rows(20_000, 6_000)
        evaluation = judge(model, unseen)
        options: dict[str, Any] = {}
        if compare and "champion" in self.platform.aliases("model", "income"):
            champion = self.platform.version("model/income@champion")
            metrics = compare_with(self.platform.load("income@champion"), model, unseen, ["auc"])
            options["comparison"] = {"champion": champion.ref.short, "metrics": metrics}
        return self.platform.register(
            "income",
            model,
            example=unseen.X.head(20),
            evaluation=evaluation,
            windows=windows_of(model, unseen, "auc"),
            trained_on=Ref("dataset", "adult", "1"),
            **options,
        )

    def ask(self, count: int, *, label: bool = True, change: pl.Expr | None = None) -> list[dict[str, Any]]:
        """Ask the next `count` rows one by one, and tell the truth of all of them."""
        part = self.frame.slice(26_000 + self._asked, count)
        self._asked += count
        sent = part.with_columns(change) if change is not None else part
        answers = []
        for record in sent.select(INPUTS).iter_rows(named=True):
            answers += self.platform.predict("income", record)
        if label:
            truth = part["over_50k"].to_list()
            self.platform.label({a["id"]: t for a, t in zip(answers, truth, strict=True)})
        return answers

    def settle(self, limit: int = 200) -> None:
        """Let the controllers work, timers included, until nothing changes any more."""
        for _ in range(limit):
            before = self.platform.events(limit=1)[0].seq
            self.platform.traffic.refresh()
            for resource in self.platform.resources():
                self.loop.wake(resource.ref)
            self.loop.settle()
            if self.platform.events(limit=1)[0].seq == before:
                return
        raise AssertionError("the controllers did not come to rest")

    def served(self) -> dict[str, str]:
        status = self.platform.resource("deployment/income").status
        return {v["name"]: v["version"] for v in status.get("serving", {}).get("variants", [])}


@contextmanager
def world(home: Path, shared_data: Path, **rollout: Any) -> Iterator[World]:
    """Open a home in which `income` is declared and its data published, and close it at the end."""
    platform = Platform.open(home)
    frame = pl.read_parquet(shared_data / "adult" / "adult.parquet").sample(fraction=1.0, shuffle=True, seed=1)
    frame = frame.with_columns(pl.col(c).cast(pl.Int64) for c in frame.columns if frame[c].dtype.is_integer())
    platform.declare("Dataset", "adult", target="over_50k", entity=["person_id"])
    platform.publish("adult", frame.head(26_000))
    platform.declare("Model", "income", dataset="adult", gates=[{"metric": "auc", "at_least": 0.55}])
    steps = {"steps": [20, 50], "hold_requests": 60, "hold_labels": 150, **rollout}
    platform.declare("Deployment", "income", model="income@champion", rollout=steps)
    opened = World(platform, frame)
    try:
        yield opened
    finally:
        opened.loop.stop()
        platform.engine.close()
        platform.close()


def auc(rows: pl.DataFrame) -> float:
    """The plain area under the curve of logged answers with known truth, for oracles."""
    truth, score = rows["label"].to_numpy(), rows["output.probability"].to_numpy()
    order = np.argsort(score)
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    positives = truth == 1
    return float(
        (ranks[positives].sum() - positives.sum() * (positives.sum() + 1) / 2) / positives.sum() / (~positives).sum()
    )
