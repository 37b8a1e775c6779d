"""What is done with the values of features: stored and served, pushed, looked up, joined, compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyball.errors import Conflict, FlyballError, InvalidInput, NotFound
from flyball.ledger.refs import Ref, ref
from flyball.platform.features import VIEW, FeatureActs

if TYPE_CHECKING:
    import polars as pl

    from flyball.features.agreement import Agreement
    from flyball.features.keeping import Upkeep, ViewKeeper
    from flyball.features.requests import OnRequest
    from flyball.features.specs import ViewSpec
    from flyball.features.views import FeatureView
    from flyball.storage.streams.log import Log, Reader

__all__ = ["FeatureRowActs"]

_COVERED = "•••"  # what stands for a value that whoever asks may not see
_LOOKED_AT = 200  # entities compared for somebody who waits for the answer


class FeatureRowActs(FeatureActs):
    """What is done with the values of features."""

    @cached_property
    def _push_logs(self) -> dict[str, Log]:
        return {}

    @cached_property
    def _pushable(self) -> set[str]:
        return set()

    def close(self) -> None:
        """Close what is open."""
        for log in self.__dict__.get("_push_logs", {}).values():
            log.close()
        super().close()

    # -- stored and served

    def materialise(self, view: str | FeatureView) -> Upkeep:
        """Bring a view up to date: stored from its data set, pushes folded in, written for look-ups, measured.

        Args:
            view: a view, or the name of a declared one whose code is in the project.

        Raises:
            NotFound: no such view, or its data set has no version.
            Conflict: the code is not what was declared, or rows of another definition with this version are stored.
            StepFailed, InvalidInput: the view cannot be computed. Nothing is lost then, nor in a crash: the next call
                goes on.
        """
        self._may("materialise")
        found = self.view_code(ref(view, VIEW).name) if isinstance(view, str) else view
        declared = self._declared(found.name) or {}
        if declared.get("status") == "retired":
            raise InvalidInput(f"feature-view/{found.name} is retired: {declared['retired']['reason']}")
        dataset = ref(declared["dataset"], "dataset").name if declared.get("dataset") else None
        return self._keeper.keep(found, self.pushes_of(self._stored_as(found)), actor=self.actor, dataset=dataset)

    def keep_view(self, name: str, cause: int | None = None) -> Upkeep:
        """Do as `materialise`, for the controller: a failure is written down too. Raises as `materialise`."""
        self._may("materialise")
        try:
            view = self.view_code(name)
            dataset = ref(self.resource(Ref(VIEW, name)).spec["dataset"], "dataset").name
            pushes = self.pushes_of(self._stored_as(view))
            return self._keeper.keep(view, pushes, actor=self.actor, dataset=dataset, cause=cause)
        except FlyballError as error:
            self.view_failed(name, str(error), cause)
            raise

    def view_failed(self, name: str, error: str, cause: int | None = None) -> None:
        """Write down that a view could not be kept up to date."""
        self._may("materialise")
        self._keeper.failed(name, error, actor=self.actor, cause=cause)

    def agreement(
        self, view: str | FeatureView, *, sample: int = _LOOKED_AT, seed: int = 0, purpose: str | None = None
    ) -> Agreement:
        """Compare what look-ups find for some entities with what is stored; hidden columns show no value.

        Raises:
            Forbidden: the view's data set may not be read for this purpose.
            NotFound: nothing of it is stored yet.
            InvalidInput: the sample is no number from 1, or no row is stored.
        """
        from flyball.features.agreement import agreement

        self._may("read")
        spec = self.view_spec(view)
        stored = self.stored_views.newest(spec.name, spec.version)
        if stored is None:
            raise NotFound(f"nothing of {spec.stored_as} is stored yet; materialise it first")
        found = agreement(stored, self.tables, self.online, self.clock.now(), sample=sample, seed=seed)
        covered = frozenset(self.view_masks(spec.name, purpose))
        features = {
            name: replace(one, examples=tuple(_covered(e, name in covered, spec, covered) for e in one.examples))
            for name, one in found.features.items()
        }
        return replace(found, features=features)

    def freshness(self, view: str | FeatureView) -> dict[str, Any]:
        """Return how old and how complete a view's online values were found when it was last measured.

        Raises:
            NotFound: no such view.
        """
        name = ref(view, VIEW).name if isinstance(view, str) else view.name
        status = self.resource(Ref(VIEW, name)).status
        last = status.get("measured") or {}
        return {
            "measured_at": last.get("at"),
            "ages_s": last.get("ages_s", {}),
            "too_old": last.get("too_old"),
            "found": last.get("found"),
            "nulls": {n: one["online_nulls"] for n, one in last.get("features", {}).items()},
            "entities": status.get("online", {}).get("entities"),
            "conditions": status.get("conditions", {}),
        }

    # -- rows

    def push(self, view: str | FeatureView | ViewSpec, rows: Any) -> int:
        """Write new values: durable, and visible to look-ups when this returns; trained on once they are folded in.

        Returns:
            How many entities have a newer value.

        Raises:
            InvalidInput: a row is wrong, named with its number; nothing was written.
            Conflict: another version of the view is declared.
            Unavailable: the log or the store cannot be written now.
        """
        from flyball.features.pushes import push
        from flyball.storage.streams.log import Log

        self._may("push")
        spec = self.view_spec(view)
        if spec.stored_as not in self._pushable:
            self._check_pushable(view, spec)
            self._pushable.add(spec.stored_as)
        log = self._push_logs.get(spec.stored_as)
        if log is None:
            log = self._push_logs.setdefault(spec.stored_as, Log(self.home / "pushes" / spec.stored_as, "platform"))
        return push(spec, rows, self.online, log, self.clock)

    def look_up(
        self, views: Iterable[str | FeatureView | ViewSpec], keys: Mapping[str, Any], now: datetime | None = None,
        *, ages: bool = False, purpose: str | None = None,
    ) -> dict[str, list[Any]]:  # fmt: skip
        """Return the features that serving would see for entities; see `features.lookup`. Hidden columns are masked.

        Args:
            purpose: what they are looked up for, where the data set of a view or a policy asks for it.

        Raises as `features.lookup.look_up`, NotFound, and Forbidden: it may not be read for this purpose.
        """
        import polars as pl

        from flyball.data import masking
        from flyball.features.lookup import look_up

        self._may("read")
        specs = [self.view_spec(view) for view in views]
        covered = {name: mask for spec in specs for name, mask in self.view_masks(spec.name, purpose).items()}
        found = look_up(self.online, specs, keys, now or self.clock.now(), ages=ages)
        masks = {name: mask for name, mask in covered.items() if name in found}
        if masks:
            words = {name: dtype for spec in specs for name, dtype in spec.features.items()}
            shown = pl.DataFrame({name: pl.Series(found[name], dtype=_dtype(words[name])) for name in masks}).lazy()
            found |= masking.apply(shown, masks, masking.home_key(self.home)).collect().to_dict(as_series=False)
        return found

    def training_set(
        self,
        rows: pl.LazyFrame | pl.DataFrame,
        features: Sequence[FeatureView | OnRequest | str],
        at: str = "asked_at",
        sources: Mapping[str, pl.LazyFrame] | None = None,
        *,
        ages: bool = False,
        purpose: str | None = None,
    ) -> pl.LazyFrame:
        """Return the rows with all features as they were known at each row's time; see `features.training_set`.

        A view whose source is given is computed from it; else its stored rows are joined, pushes among them; else it is
        computed from the newest version of its data set. Of a deprecated view it warns.

        Args:
            features: views, request-time functions, names of declared views whose code is in the project.
            purpose: what it is read for, where a policy asks for it.

        Raises as `features.training_set.training_set`, and InvalidInput: a view is retired.
        """
        from flyball.data import masking
        from flyball.features.training_set import StoredRows, training_set
        from flyball.features.views import FeatureView

        self._may("read")
        chosen = [self.view_code(one) if isinstance(one, str) else one for one in features]
        views = [one for one in chosen if isinstance(one, FeatureView)]
        given, stored = dict(sources or {}), dict[str, StoredRows]()
        for view in views:
            self._warn_of(view.name)
            if view.source in (sources or {}):
                continue
            kept = self.stored_views.newest(view.name, view.version)
            if kept is not None:
                stored[view.name] = StoredRows(kept, self.tables)
                self.usage.record(self.actor, Ref("feature", view.name, str(kept.number)), purpose or "")
            elif view.source not in given and self._has_dataset(view.source):
                given[view.source] = self.frame(Ref("dataset", view.source), purpose=purpose)
        joined = training_set(rows, chosen, at, given, stored=stored, ages=ages)
        masks = {n: mask for name in stored for n, mask in self.view_masks(name, purpose).items()}
        return masking.apply(joined, masks, masking.home_key(self.home)) if masks else joined

    def pushes_of(self, stored_as: str) -> Reader:
        """Return the log of what was pushed to a view and version: `previous_leg@1`."""
        from flyball.storage.streams.log import Reader

        return Reader(self.home / "pushes" / stored_as)

    @property
    def _keeper(self) -> ViewKeeper:
        from flyball.features.keeping import ViewKeeper

        return ViewKeeper(self.ledger, self.tables, self.online, self.clock)

    def _stored_as(self, view: FeatureView) -> str:
        return f"{view.name}@{view.version}"

    def _check_pushable(self, view: str | FeatureView | ViewSpec, spec: ViewSpec) -> None:
        """Make sure that the view is declared as this version: what nobody knows of could not be erased."""
        from flyball.features.views import FeatureView

        declared = self._declared(spec.name)
        version = None if declared is None else int(declared["definition"].get("version", 1))
        if isinstance(view, FeatureView) and (version is None or version < spec.version):
            self.declare_view(view)
        elif version is None:
            self.declare(VIEW, spec.name, definition=spec.to_dict(), version=spec.version)
        elif version != spec.version:
            raise Conflict(
                f"feature-view/{spec.name} is declared as version {version}, pushed was to {spec.stored_as}; "
                "declare the newer version first"
            )


def _covered(example: Mapping[str, Any], is_covered: bool, spec: ViewSpec, covered: frozenset[str]) -> dict[str, Any]:
    shown = dict(example)
    if is_covered:
        shown |= {"online": _COVERED, "offline": _COVERED}
    if covered & set(spec.entity):
        shown["entity"] = _COVERED
    return shown


def _dtype(word: str) -> pl.DataType:
    import polars as pl

    return {
        "bool": pl.Boolean(),
        "int64": pl.Int64(),
        "float64": pl.Float64(),
        "string": pl.String(),
        "datetime": pl.Datetime("us", "UTC"),
    }[word]
