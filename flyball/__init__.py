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
        dataset,
        declare,
        deploy,
        files,
        home,
        label,
        label_set,
        look_up,
        open_home,
        predict,
        push,
        run,
        search,
        settle,
        submit,
        watch,
        why,
    )
    from flyball.data.datasets import ContractBroken
    from flyball.data.rows import Rows
    from flyball.errors import FlyballError
    from flyball.features.requests import on_request
    from flyball.features.training_set import training_set
    from flyball.features.views import feature_view
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
    "dataset": "flyball.api",
    "declare": "flyball.api",
    "deploy": "flyball.api",
    "feature_view": "flyball.features.views",
    "files": "flyball.api",
    "home": "flyball.api",
    "label": "flyball.api",
    "label_set": "flyball.api",
    "look_up": "flyball.api",
    "on_request": "flyball.features.requests",
    "open_home": "flyball.api",
    "pipeline": "flyball.pipelines.steps",
    "predict": "flyball.api",
    "push": "flyball.api",
    "ref": "flyball.ledger.refs",
    "run": "flyball.api",
    "search": "flyball.api",
    "settle": "flyball.api",
    "step": "flyball.pipelines.steps",
    "submit": "flyball.api",
    "training_set": "flyball.features.training_set",
    "watch": "flyball.api",
    "why": "flyball.api",
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
    "dataset",
    "declare",
    "deploy",
    "feature_view",
    "files",
    "home",
    "label",
    "label_set",
    "look_up",
    "on_request",
    "open_home",
    "pipeline",
    "predict",
    "push",
    "ref",
    "run",
    "search",
    "settle",
    "step",
    "submit",
    "training_set",
    "watch",
    "why",
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
