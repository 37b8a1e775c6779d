"""The project of a demo: the files that a user would write, and that `flyball apply` would read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flyball.delivery.documents import Document, write_documents
from flyball.demo.job import Job

__all__ = ["write_project"]

_FILES = Path(__file__).parent / "project"
_FALSE_ALARMS = 0.01
_RECIPE = "flyball.recipes.continuous_training:continuous_training"


def write_project(folder: Path, job: Job) -> Path:
    """Write flyball.yaml, the contract, and the Python files of the project; return its folder."""
    (folder / "contracts").mkdir(parents=True, exist_ok=True)
    contract = f"contracts/{job.dataset}.odcs.yaml"
    (folder / contract).write_text(job.contract, encoding="utf-8")
    for name in ("pipelines.py", *(["features.py"] if job.views else [])):
        shutil.copyfile(_FILES / name, folder / name)
    text = write_documents(_documents(job, contract))
    (folder / "flyball.yaml").write_text(text, encoding="utf-8")
    return folder


def _documents(job: Job, contract: str) -> list[Document]:
    name, sizes = job.name, job.sizes
    found: list[tuple[str, str, dict[str, Any]]] = [
        ("dataset", source, dict(table.spec)) for source, table in job.sources.items()
    ]
    for view in job.views:
        description = " ".join((view.__doc__ or "").split())
        spec = {"description": description, "dataset": view.source, "function": f"features.py:{view.name}"}
        found += [("feature-view", view.name, {**spec, "definition": view.spec().to_dict()})]
    found += [
        ("dataset", job.dataset, {**job.spec, "contract": contract, "on_failure": "split"}),
        (
            "model",
            name,
            {
                "description": job.title,
                "dataset": job.dataset,
                "metric": job.metric,
                "gates": [
                    {"metric": job.metric, "at_least": job.least},
                    {"metric": job.metric, "against": "champion", "verdict": "better"},
                ],
            },
        ),
        (
            "deployment",
            name,
            {
                "model": f"{name}@champion",
                "features": [view.name for view in job.views],
                "rollout": {
                    "strategy": "canary",
                    "steps": [5, 25, 50],
                    "hold_requests": sizes.hold_requests,
                    "hold_labels": sizes.hold_labels,
                    "roll_back_if": {"quality": "worse"},
                },
            },
        ),
        (
            "monitor",
            name,
            {
                "of": f"deployment/{name}",
                "drift": {
                    "window": sizes.window,
                    "false_alarms": _FALSE_ALARMS,
                    "horizon": sizes.horizon,
                    "persistence": 2,
                },
                "quality": {"metric": job.metric, "window": sizes.quality_window},
                "every_s": 0.5,
            },
        ),
        (
            "pipeline",
            f"retrain-{name}",
            {
                "function": _RECIPE,
                "params": {"model": name, "deployment": name, "fit": "pipelines.py:fit"},
                "uses": [f"model/{name}"],
            },
        ),
        (
            "trigger",
            f"retrain-{name}",
            {
                "on": [f"monitor/{name}.drifting", f"monitor/{name}.decayed"],
                "start": f"retrain-{name}",
                "after_labels": sizes.labels,
                "budget": "3 a day",
                # One retraining shows what it is worth before the next; through the seasons, each is welcome.
                "cool_down": "0s" if job.is_watched_only else "5m",
            },
        ),
    ]
    return [Document(kind, called, spec) for kind, called, spec in found]
