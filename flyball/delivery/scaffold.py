"""A new project: the few files that a system is declared in, with an example that can be applied as it is."""

from __future__ import annotations

from pathlib import Path

from flyball.errors import Conflict, InvalidInput, listed

__all__ = ["FILES", "scaffold"]

FILES: dict[str, str] = {
    "flyball.yaml": """\
# What this system should be. `flyball plan` shows what would change, `flyball apply` makes it so,
# `flyball up` keeps it so. Every kind and field: docs/reference.md of Flyball, or an error with "did you mean".

kind: Dataset
name: orders
description: One row an order; an example, make it yours.
# source: {files: "data/orders/*.parquet"}    # where `flyball publish orders` reads from
event_time: ordered_at                        # when the row was true: splits and windows go by it
label_time: settled_at                        # when the target became known
target: returned                              # what models learn to predict
entity: [customer]
contract: contracts/orders.odcs.yaml          # a batch that breaks it is kept aside, never published
on_failure: quarantine

# ---
# kind: Model
# name: returns
# dataset: orders
# gates:                                      # what a version must show before it may serve
#   - {metric: auc, at_least: 0.65}
#   - {metric: auc, against: champion, verdict: not worse}
# approve: {by: nobody}                       # or person: it waits for `flyball approve model/returns@2`
# ---
# kind: Pipeline
# name: returns
# function: pipelines.py:train
# uses: [dataset/orders, model/returns]
# ---
# kind: Deployment
# name: returns
# model: returns@champion
# rollout: {strategy: canary, steps: [5, 25, 50], hold_requests: 500}
# ---
# kind: Monitor
# name: returns
# of: deployment/returns
# drift: {features: all, window: 1000}
# quality: {metric: auc, at_least: 0.6, window: 1000}
# ---
# kind: Trigger
# name: retrain-returns
# on: [monitor/returns.drifting, monitor/returns.decayed, {cron: "0 4 * * 1", zone: Europe/Vienna}]
# start: pipeline/returns
# budget: 3 a day
# cool_down: 6h
""",
    "contracts/orders.odcs.yaml": """\
# What producers of orders promise: the Open Data Contract Standard, version 3.
apiVersion: v3.0.2
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: customer, logicalType: string, required: true}
      - {name: ordered_at, logicalType: timestamp, required: true}
      - {name: settled_at, logicalType: timestamp}
      - {name: amount, logicalType: number, required: true, logicalTypeOptions: {minimum: 0}}
      - {name: items, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1}}
      - {name: returned, logicalType: integer}
""",
    "pipelines.py": '''\
"""The pipelines of this project: plain functions. Call one to run it here; `flyball run pipeline/returns` queues it."""

import flyball as fb


@fb.pipeline
def train(depth: int = 6) -> str:
    """Learn which orders come back, judge on the newest month, register the model."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    learnt, unseen = fb.dataset("orders").split(test=0.2)
    with fb.run("returns", depth=depth) as run:
        model = HistGradientBoostingClassifier(max_depth=depth, random_state=0).fit(learnt.X, learnt.y)
        run.evaluate(model, unseen)
        version = run.register("returns", model, example=learnt.X.head(20))
    return str(version.ref)
''',
    ".gitignore": """\
# The home: ledger, data, models, logs. Back it up, don't commit it.
.flyball/
.venv/
__pycache__/
data/
""",
}


def scaffold(folder: Path) -> list[Path]:
    """Write a new project's files and return their paths.

    Raises:
        Conflict: one of the files is there already; nothing was written.
        InvalidInput: the folder cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise Conflict(f"{folder} already has {listed(there)}; nothing was written, choose another folder")
    written = []
    try:
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise InvalidInput(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return written
