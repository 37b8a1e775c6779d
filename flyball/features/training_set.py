"""Training sets: rows with all their features, each as it was known at the row's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.joins import attach, in_order_of, in_own_order
from flyball.features.requests import OnRequest
from flyball.features.views import FeatureView

__all__ = ["training_set"]


def training_set(
    rows: pl.LazyFrame | pl.DataFrame,
    features: Sequence[FeatureView | OnRequest],
    at: str = "asked_at",
    sources: Mapping[str, pl.LazyFrame] | None = None,
    *,
    ages: bool = False,
) -> pl.LazyFrame:
    """Return the rows, in their order, with the features of every view and request-time function.

    Views are joined as known at `at`, see `joins`; request-time functions then run in the order given, so they may use
    looked-up features. Nothing is computed before the result is collected, except where `OnRequest.apply` says so.

    Args:
        rows: one a prediction; labels and other columns stay as they are.
        at: the instant at which each row would have been asked; a time with a zone.
        sources: data set by name, as the views name theirs.
        ages: add `<view>_age_s` for each view: seconds, Float64.

    Raises:
        InvalidInput: a source is missing, a name would be there twice, or as `join_as_of`.
        StepFailed: a view or function failed.
    """
    sources = sources or {}
    views = [feature for feature in features if isinstance(feature, FeatureView)]
    on_request = [feature for feature in features if isinstance(feature, OnRequest)]
    for feature in features:
        if not isinstance(feature, FeatureView | OnRequest):
            raise InvalidInput(
                f"{getattr(feature, '__name__', feature)!s} is a {type(feature).__name__}; expected functions "
                "decorated with @feature_view or @on_request"
            )
    names = [feature.name for feature in features]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not features:
        what = "no features were given" if twice is None else f"the feature {twice} was given twice"
        raise InvalidInput(f"{what}; expected views and request-time functions, each once")
    joined = in_order_of(rows.lazy(), at)
    computed: dict[tuple[str, int], pl.LazyFrame] = {}
    for view in views:
        if view.source not in sources:
            raise InvalidInput(
                f'the view {view.name} needs the source "{view.source}"{did_you_mean(view.source, sources)} '
                f"(given: {listed(sources)})"
            )
        frame = computed.setdefault((view.name, view.version), view.compute(sources[view.source]))
        joined = attach(joined, frame, view, age=ages)
    joined = in_own_order(joined)
    for function in on_request:
        joined = function.apply(joined)
    return joined
