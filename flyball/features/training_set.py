"""Training sets: rows with all their features, each as it was known at the row's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import polars as pl

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.joins import attach, in_order_of, in_own_order
from flyball.features.offline import StoredView, check_fits
from flyball.features.requests import OnRequest
from flyball.features.stored_joins import Asked, added_columns, attach_stored
from flyball.features.views import FeatureView
from flyball.storage.tables import TableStore

__all__ = ["StoredRows", "training_set"]

_VIEWS_AT_ONCE = 2  # one is read while the other is searched; each takes some 150 MB


class StoredRows(NamedTuple):
    """A stored view and where its rows are."""

    view: StoredView
    tables: TableStore


def training_set(
    rows: pl.LazyFrame | pl.DataFrame,
    features: Sequence[FeatureView | OnRequest],
    at: str = "asked_at",
    sources: Mapping[str, pl.LazyFrame] | None = None,
    *,
    stored: Mapping[str, StoredRows] | None = None,
    ages: bool = False,
) -> pl.LazyFrame:
    """Return the rows, in their order, with the features of every view and request-time function.

    Views are joined as known at `at`, see `joins`; request-time functions then run in the order given, so they may use
    looked-up features. Nothing is computed before the result is collected, except where `OnRequest.apply` says so.

    Args:
        rows: one a prediction; labels and other columns stay as they are.
        at: the instant at which each row would have been asked; a time with a zone.
        sources: data set by name, as the views name theirs.
        stored: stored rows by the view's name. Such a view is not computed again and may be larger than memory: held
            are the rows of the training set and one block of the view. Its source is not needed.
        ages: add `<view>_age_s` for each view: seconds, Float64.

    Raises:
        InvalidInput: a source is missing, a name would be there twice, or as `join_as_of`.
        Conflict: what is stored of a view is of another definition than the one given.
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
    joined, own = rows.lazy(), list(rows.lazy().collect_schema())
    kept = {view.name: _as_declared(view, stored[view.name]) for view in views if stored and view.name in stored}
    if kept:
        joined = _with_stored(joined, at, list(kept.values()), ages)
    if len(kept) < len(views):
        joined = in_order_of(joined, at)
        columns: list[str] = []
        for view in views:
            there = list(joined.collect_schema())
            if view.name in kept:
                spec = kept[view.name].view.spec
                columns += [*spec.features, *([spec.age_column] if ages else [])]
            else:
                joined = attach(joined, view.compute(_source(view, sources)), view, age=ages)
                columns += list(joined.collect_schema())[len(there) :]
        joined = in_own_order(joined).select(*own, *columns)
    for function in on_request:
        joined = function.apply(joined)
    return joined


def _as_declared(view: FeatureView, there: StoredRows) -> StoredRows:
    """Return stored rows with the time to live and the defaults that the view has now."""
    check_fits(there.view, view)
    ttl_s = None if view.ttl is None else view.ttl.total_seconds()
    return StoredRows(
        replace(there.view, spec=replace(there.view.spec, ttl_s=ttl_s, defaults=view.defaults)), there.tables
    )


def _with_stored(rows: pl.LazyFrame, at: str, views: Sequence[StoredRows], ages: bool) -> pl.LazyFrame:
    def joined(frame: pl.DataFrame) -> pl.DataFrame:
        asked, columns = Asked.of(frame, at), frame.columns
        for stored, _ in views:
            columns += added_columns(columns, stored.spec, age=ages)
        with ThreadPoolExecutor(_VIEWS_AT_ONCE, thread_name_prefix="flyball-join") as pool:
            added = pool.map(lambda it: attach_stored(frame, asked, it.view, it.tables, age=ages), views)
            return pl.concat([frame, *added], how="horizontal")

    empty = pl.DataFrame(schema=rows.collect_schema())
    return rows.map_batches(joined, schema=joined(empty).schema)


def _source(view: FeatureView, sources: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    if view.source not in sources:
        raise InvalidInput(
            f'the view {view.name} needs the source "{view.source}"{did_you_mean(view.source, sources)} '
            f"(given: {listed(sources)})"
        )
    return sources[view.source]
