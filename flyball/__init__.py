"""Flyball keeps machine-learning systems healthy: `import flyball as fb`.

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball.api import (
        Dataset,
        LabelSet,
        Recording,
        agreement,
        connect,
        dataset,
        declare,
        deploy,
        experiment,
        feature_service,
        files,
        home,
        label,
        label_set,
        load,
        look_up,
        materialise,
        open_home,
        predict,
        push,
        register,
        run,
        runs,
        score,
        search,
        settle,
        sql,
        submit,
        training_set,
        watch,
        why,
    )
    from flyball.data.datasets import ContractBroken
    from flyball.data.rows import Rows
    from flyball.errors import FlyballError
    from flyball.features.history import encoded, lagged, running, seasonal
    from flyball.features.prepared import buckets, calendar, hashed, holidays
    from flyball.features.requests import on_request
    from flyball.features.views import feature_view
    from flyball.features.windows import windowed
    from flyball.ledger.refs import Ref, ref
    from flyball.pipelines.steps import pipeline, step

__version__ = "0.1.0"

_HOMES = {
    "ContractBroken": "flyball.data.datasets",
    "Dataset": "flyball.api",
    "FlyballError": "flyball.errors",
    "LabelSet": "flyball.api",
    "Recording": "flyball.api",
    "Ref": "flyball.ledger.refs",
    "Rows": "flyball.data.rows",
    "agreement": "flyball.api",
    "buckets": "flyball.features.prepared",
    "calendar": "flyball.features.prepared",
    "connect": "flyball.api",
    "dataset": "flyball.api",
    "declare": "flyball.api",
    "deploy": "flyball.api",
    "encoded": "flyball.features.history",
    "experiment": "flyball.api",
    "feature_service": "flyball.api",
    "feature_view": "flyball.features.views",
    "files": "flyball.api",
    "hashed": "flyball.features.prepared",
    "holidays": "flyball.features.prepared",
    "home": "flyball.api",
    "label": "flyball.api",
    "label_set": "flyball.api",
    "load": "flyball.api",
    "lagged": "flyball.features.history",
    "look_up": "flyball.api",
    "materialise": "flyball.api",
    "on_request": "flyball.features.requests",
    "open_home": "flyball.api",
    "pipeline": "flyball.pipelines.steps",
    "predict": "flyball.api",
    "push": "flyball.api",
    "ref": "flyball.ledger.refs",
    "register": "flyball.api",
    "run": "flyball.api",
    "running": "flyball.features.history",
    "runs": "flyball.api",
    "score": "flyball.api",
    "search": "flyball.api",
    "seasonal": "flyball.features.history",
    "settle": "flyball.api",
    "sql": "flyball.api",
    "step": "flyball.pipelines.steps",
    "submit": "flyball.api",
    "training_set": "flyball.api",
    "watch": "flyball.api",
    "why": "flyball.api",
    "windowed": "flyball.features.windows",
}

__all__ = [
    "ContractBroken",
    "Dataset",
    "FlyballError",
    "LabelSet",
    "Recording",
    "Ref",
    "Rows",
    "__version__",
    "agreement",
    "buckets",
    "calendar",
    "connect",
    "dataset",
    "declare",
    "deploy",
    "encoded",
    "experiment",
    "feature_service",
    "feature_view",
    "files",
    "hashed",
    "holidays",
    "home",
    "label",
    "label_set",
    "lagged",
    "load",
    "look_up",
    "materialise",
    "on_request",
    "open_home",
    "pipeline",
    "predict",
    "push",
    "ref",
    "register",
    "run",
    "running",
    "runs",
    "score",
    "search",
    "seasonal",
    "settle",
    "sql",
    "step",
    "submit",
    "training_set",
    "watch",
    "why",
    "windowed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from flyball.errors import did_you_mean

        raise AttributeError(f'flyball has no "{name}"{did_you_mean(name, _HOMES)}')
    # A submodule of the same name (flyball.platform) must not hide the function after an import of it.
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
