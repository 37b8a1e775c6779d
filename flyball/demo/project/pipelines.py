"""How the model is fitted: called for the first training, and by the retraining pipeline ever after."""

from __future__ import annotations

from typing import Any

import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import flyball as fb
from flyball.evaluation.evaluate import task_of


def fit(rows: fb.Rows) -> Any:
    """Return gradient-boosted trees fitted on the rows; texts become numbers, missing values may stay missing."""
    X = rows.X
    texts = [name for name, dtype in X.schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    numbers = [name for name in X.columns if name not in texts]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    columns = make_column_transformer((encoder, texts), ("passthrough", numbers))
    trees = HistGradientBoostingRegressor if task_of(rows.y) == "regression" else HistGradientBoostingClassifier
    return make_pipeline(columns, trees(random_state=0)).fit(X, rows.y)
