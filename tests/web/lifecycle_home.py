"""A home with requests of all states, cards and assessments, for the pages' tests: real models on real measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from flyball.data.rows import Rows
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.training.registering import compare_with, judge

HOSTILE = '<script>document.title="taken"</script>"\'><img src=x onerror=alert(1)>'
STAGES: list[dict[str, Any]] = [
    {"name": "development"},
    {"name": "staging", "checks": [{"metric": "auc", "at_least": 0.6}]},
    {
        "name": "production",
        "alias": "champion",
        "checks": [
            {"metric": "auc", "at_least": 0.8},
            {"metric": "auc", "against": "champion", "verdict": "not worse"},
        ],
        "requires": ["card.limits", "risk"],
        "approvers": {"role": "editor", "people": ["olga"], "at_least": 2},
    },
    {"name": "archived"},
]
ANSWERS = {
    "risk_class": "limited",
    "class_reason": "It advises a physician, who decides (Article 50).",
    "human_oversight": "The physician sees the image and the score side by side.",
    "accountable": "Head of radiology",
    "affected": "Patients; a miss delays treatment.",
    "misuse": "Screening without a physician.",
    "measured": "By radius of the tumour; weakest below 12 mm.",
    "personal_data": "yes, with a legal basis",
    "response": "Taken out of use within a day.",
    "residual": "low",
}


class LifecycleHome:
    """A home whose model `tumour` has declared stages, and the people around it."""

    def __init__(self, home: Path, clock: Any = None) -> None:
        root = Principal("user/root", "admin")
        self.platform = Platform.open(home, root) if clock is None else Platform.open(home, root, clock)
        self.ann, self.bob, self.cem = (self.as_(name, "editor") for name in ("ann", "bob", "cem"))
        data = load_breast_cancer()
        names = [name.replace(" ", "_") for name in data.feature_names[:6]]
        columns = {name: data.data[:, place] for place, name in enumerate(names)}
        size = pl.when(pl.col("mean_radius") < 12).then(pl.lit("small")).otherwise(pl.lit("large")).alias("size")
        self.frame = pl.DataFrame(columns).with_columns(pl.Series("benign", data.target), size)
        self.names = names

    def as_(self, name: str, role: str) -> Platform:
        return self.platform.as_(Principal(f"user/{name}", role))

    def rows(self, start: int, count: int) -> Rows:
        part = self.frame.slice(start, count)
        return Rows.of(part, "benign", inputs=self.names, origin=Ref("dataset", "tumours", "1"))

    def register(self, model: Any, who: Platform, note: str = "") -> str:
        train, unseen = self.rows(0, 300), self.rows(300, 269)
        fitted = model.fit(train.X, train.y)
        options: dict[str, Any] = {}
        if "champion" in who.aliases("model", "tumour"):
            champion = who.version("model/tumour@champion")
            metrics = compare_with(who.load("tumour@champion"), fitted, unseen, ["auc"])
            options["comparison"] = {"champion": champion.ref.short, "metrics": metrics}
        made = who.register(
            "tumour",
            fitted,
            example=unseen.X.head(5),
            evaluation=judge(fitted, unseen, slices=["size"]),
            trained_on=Ref("dataset", "tumours", "1"),
            note=note,
            **options,
        )
        return made.ref.short

    def declare(self) -> None:
        at = self.platform
        at.declare("Dataset", "tumours", target="benign", description="breast tumours, Wisconsin")
        at.publish("tumours", self.frame, note="569 measurements")
        at.declare(
            "Model",
            "tumour",
            dataset="tumours",
            promotion="by hand",
            stages=STAGES,
            description=f"benign or not {HOSTILE}",
        )

    def prepare(self, version: str, limits: str) -> None:
        texts = {
            "limits": limits,
            "intended_use": "advice to a physician",
            "licence": "cc-by-4.0",
            "owner": "radiology",
        }
        self.ann.write_card(version, texts)
        self.ann.assess_risk(version, ANSWERS)

    def furnish(self) -> None:
        """Make three versions: one in production, one asked for, one refused, and one request withdrawn."""
        self.declare()
        weak = self.register(DecisionTreeClassifier(max_depth=2, random_state=0), self.ann, "two questions only")
        self.prepare(weak, "measured on one hospital")
        self.up(weak)
        better = self.register(make_pipeline(StandardScaler(), LogisticRegression()), self.ann, "all six columns")
        self.prepare(better, f"measured on one hospital; {HOSTILE}")
        self.ann.promote(better, "staging", "ready for a look")
        refused = self.ann.promote(better, "production", "better on both sizes " + HOSTILE)
        self.bob.review(refused.id, "refused", "say what happens below 12 mm " + HOSTILE)
        taken_back = self.bob.promote(better, "production", "by mistake")
        self.bob.withdraw(taken_back.id, "ann asks")
        asked = self.ann.promote(better, "production", "limits are written now")
        self.bob.review(asked.id, "approved", "the slices hold")
        third = self.register(make_pipeline(StandardScaler(), LogisticRegression(C=0.1)), self.bob, "stronger penalty")
        self.prepare(third, "as the one before")
        self.bob.promote(third, "staging")
        self.bob.promote(third, "production", "simpler")

    def up(self, version: str) -> None:
        self.ann.promote(version, "staging", "first")
        request = self.ann.promote(version, "production", "nothing is in use yet")
        self.bob.review(request.id, "approved", "good enough to begin")
        self.cem.review(request.id, "approved")

    def close(self) -> None:
        self.platform.close()
