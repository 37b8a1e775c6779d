"""Writes `data/shapley.json`: what the package `shap` says of small models, for `test_explaining.py` to compare with.

    python -m venv /tmp/v && /tmp/v/bin/pip install shap==0.51.0 scikit-learn==1.9.1
    /tmp/v/bin/python tests/models/make_shapley.py tests/models/data/shapley.json

`shap` is too large to be installed for the tests. Both train the models below on the same rows. HistGradientBoosting is
not among them: shap 0.51 reads it wrongly and says so itself (its check of additivity fails).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge

COLUMNS = 5
MODELS: dict[str, Callable[[], Any]] = {
    "gradient_regressor": lambda: GradientBoostingRegressor(n_estimators=20, random_state=0),
    "forest_regressor": lambda: RandomForestRegressor(n_estimators=10, random_state=0),
    "forest_classifier": lambda: RandomForestClassifier(n_estimators=10, random_state=0),
    "ridge": lambda: Ridge(),
    "logistic": lambda: LogisticRegression(),
}


def trained(name: str) -> tuple[Any, Any, Any]:
    """Return a model, the background, and the rows that are explained."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, COLUMNS))
    amount = rows[:, 0] + rows[:, 1] * rows[:, 2] + 0.3 * np.abs(rows[:, 3])
    truth: Any = (amount > 0).astype(int) if "class" in name or name == "logistic" else amount
    return MODELS[name]().fit(rows, truth), rows[:20], rows[200:206]


def main(target: Path) -> None:
    """Ask shap."""
    import shap

    found: dict[str, Any] = {"shap": shap.__version__}
    for name in MODELS:
        model, background, rows = trained(name)
        linear = name in ("ridge", "logistic")
        masker = shap.maskers.Independent(background, max_samples=len(background))
        if linear:
            explainer = shap.LinearExplainer(model, masker)
        else:
            explainer = shap.TreeExplainer(model, masker, feature_perturbation="interventional")
        values = np.asarray(explainer.shap_values(rows))
        base = np.asarray(explainer.expected_value)
        found[name] = {"base": base.tolist(), "values": values.tolist()}
    target.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
