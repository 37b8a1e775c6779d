"""What is recorded and found: experiments, their runs, points of metrics, the data sets that runs named.

Changes go through the recorder of the home, so they are in order with what is logged meanwhile, and share its commits.
Whoever must not wait uses `platform.recorder` itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.experiments import Experiment, InputDataset, InputSummary
from flyball.ledger.logged_models import ModelPoint
from flyball.ledger.points import Point
from flyball.ledger.runs import Run
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.tracking.filters import Comparison, Order
    from flyball.tracking.runs_index import RunKeys, RunsIndex

__all__ = ["TrackingActs"]

T = TypeVar("T")
View = Literal["active", "deleted", "all"]


class TrackingActs(Home):
    """What is recorded and found."""

    # -- experiments

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        """Make an experiment. Raises Conflict when the name is taken, also by a deleted one; InvalidInput."""
        return self._recorded(lambda w: w.experiments.create(name, artifact_location=artifact_location, tags=tags))

    def experiment(self, id: str) -> Experiment:
        """Return an experiment by its id, deleted or not. Raises InvalidInput (no number), NotFound."""
        with self._reading() as world:
            return world.experiments.get(id)

    def experiment_by_name(self, name: str) -> Experiment:
        """Return an experiment by its name, deleted or not. Raises NotFound."""
        with self._reading() as world:
            return world.experiments.by_name(name)

    def experiments_by_ids(self, ids: Iterable[str]) -> dict[str, Experiment]:
        """Return those of the experiments that exist, deleted or not. Raises InvalidInput (no number)."""
        with self._reading() as world:
            return {found.id: found for found in world.experiments.all(list(ids))}

    def rename_experiment(self, id: str, name: str) -> Experiment:
        """Give an experiment another name. Raises NotFound, Conflict (taken, or the experiment is deleted)."""
        return self._recorded(lambda world: world.experiments.rename(id, name))

    def tag_experiment(self, id: str, key: str, value: str) -> Experiment:
        """Set a tag of an experiment. Raises NotFound, Conflict (deleted)."""
        return self._recorded(lambda world: world.experiments.tag(id, {key: value}))

    def untag_experiment(self, id: str, key: str) -> Experiment:
        """Remove a tag of an experiment. Raises NotFound (experiment or tag), Conflict (deleted)."""
        return self._recorded(lambda world: world.experiments.untag(id, key))

    def delete_experiment(self, id: str) -> Experiment:
        """Mark an experiment and its runs deleted. Raises NotFound, also when it is already."""
        return self._recorded(lambda world: world.experiments.discard(id), "delete")

    def restore_experiment(self, id: str) -> Experiment:
        """Bring back an experiment, and the runs that were deleted with it. Raises NotFound."""
        return self._recorded(lambda world: world.experiments.restore(id), "delete")

    def search_experiments(
        self,
        filter: str = "",
        order_by: Sequence[str] = (),
        view: View = "active",
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[list[Experiment], bool]:
        """Return a page of the experiments that match, the newest first, and whether there are more.

        Raises:
            InvalidInput: the filter or the order is none of `tracking.grammars.EXPERIMENTS`, or the page is empty.
        """
        from flyball.tracking.filters import holds, parse_filter, parse_order
        from flyball.tracking.grammars import EXPERIMENTS

        _check_page(limit, offset)
        wanted, orders = parse_filter(filter, EXPERIMENTS), parse_order(order_by, EXPERIMENTS)
        with self._reading() as world:
            every = world.experiments.all()
        found = [
            experiment
            for experiment in every
            if _is_in(experiment.is_deleted, view) and all(holds(_value(experiment, c), c) for c in wanted)
        ]
        found.sort(key=lambda experiment: int(experiment.id), reverse=True)
        if not orders:
            found.sort(key=lambda experiment: experiment.created_at, reverse=True)
        for order in reversed(orders):
            found.sort(key=lambda e, order=order: _value(e, order), reverse=not order.ascending)  # type: ignore[misc]
        return found[offset : offset + limit], len(found) > offset + limit

    # -- runs

    def run_whole(self, id: str) -> Run:
        """Return the run of an experiment by its whole id, marked deleted or not. Raises NotFound."""
        with self._reading() as world:
            found = world.runs.named([id])
        if not found or found[0].experiment is None:
            raise NotFound(f"Run with id={id} not found")
        return found[0]

    def delete_run(self, id: str) -> Run:
        """Mark a run deleted; again changes nothing. `delete` removes it for good. Raises NotFound."""
        return self._recorded(lambda world: world.runs.discard(id), "delete")

    def restore_run(self, id: str) -> Run:
        """Take the mark away. Raises NotFound, Conflict (its experiment is deleted)."""
        return self._recorded(lambda world: world.runs.restore(id), "delete")

    def tag_run(self, id: str, key: str, value: str) -> None:
        """Set a tag of a run. Raises NotFound, Conflict (deleted)."""
        self.recorder.log(id, tags={key: value}).result()

    def untag_run(self, id: str, key: str) -> None:
        """Remove a tag of a run. Raises NotFound (run or tag), Conflict (deleted)."""
        self._recorded(lambda world: world.runs.untag(id, key))

    def log_inputs(
        self,
        run: str,
        datasets: Iterable[tuple[InputDataset, Mapping[str, str]]] = (),
        models: Iterable[str] = (),
    ) -> Run:
        """Record data sets, each with its tags, and logged models by id, that a run used. Raises as `tag_run`."""
        given, used = list(datasets), list(models)
        return self._recorded(lambda world: world.runs.add_inputs(run, given, used))

    def log_outputs(self, run: str, models: Iterable[tuple[str, int]]) -> Run:
        """Record logged models, by id and step, that a run made. Raises as `tag_run`."""
        made = list(models)
        return self._recorded(lambda world: world.runs.add_outputs(run, made))

    def log_measured(
        self,
        run: str,
        measured: Iterable[ModelPoint],
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Future[None]:
        """Add points, parameters and tags to a run, and points to logged models that the run measured, all or none.

        Raises (the future): as `tag_run`; NotFound when a model does not exist.
        """
        of_models = [point._replace(run=run) for point in measured]
        kept = list(points)

        def add(world: Transaction) -> None:
            world.runs.record(run, points=kept, params=params, tags=tags)
            world.logged_models.log(of_models)

        return self.recorder.change(add)

    def append_to_tag(self, run: str, key: str, item: Mapping[str, Any]) -> None:
        """Append to the JSON list that a tag of a run holds, which begins anew when it is none. Raises as `tag_run`."""

        def append(world: Transaction) -> None:
            found = world.runs.named([run])
            if not found:
                raise NotFound(f"Run with id={run} not found")
            try:
                before = json.loads(found[0].tags.get(key, "[]"))
            except ValueError:
                before = []
            listed = [*before, item] if isinstance(before, list) else [item]
            world.runs.record(run, tags={key: json.dumps(listed, ensure_ascii=False)})

        self._recorded(append)

    def search_runs(
        self,
        experiments: Iterable[str],
        filter: str = "",
        order_by: Sequence[str] = (),
        view: View = "active",
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[list[Run], bool]:
        """Return a page of the runs of experiments that match, and whether there are more.

        By the order asked for, then newest first. Without experiments nothing is found.

        Raises:
            InvalidInput: the filter or the order is none of `tracking.grammars.RUNS`, or the page is empty.
        """
        ids, is_more = self._found_runs(experiments, filter, order_by, view, limit, offset)
        with self._reading() as world:
            return world.runs.named(ids), is_more

    def search_run_marks(
        self,
        experiments: Iterable[str],
        filter: str = "",
        order_by: Sequence[str] = (),
        view: View = "active",
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[dict[str, int], bool]:
        """Return what `search_runs` does, but of each run only its id and the number of its newest change, in order.

        Who keeps what it made of a run by that number needs only the others, by `runs_whole`.
        """
        ids, is_more = self._found_runs(experiments, filter, order_by, view, limit, offset)
        with self._reading() as world:
            marks = world.run_columns.marks(ids)
        return {id: marks[id] for id in ids if id in marks}, is_more

    def run_keys(self, experiments: Iterable[str]) -> RunKeys:
        """Return which metrics, parameters and tags the runs of experiments have, with how many have each."""
        self._may("read")
        return self._runs_index.keys(list(experiments))

    def run_values(
        self, experiments: Iterable[str], kind: str, key: str, begin: str = "", limit: int = 50
    ) -> list[str]:
        """Return values of a parameter, tag or attribute that runs of experiments have; see `RunsIndex.values`."""
        self._may("read")
        return self._runs_index.values(list(experiments), kind, key, begin, limit)

    def runs_whole(self, ids: Sequence[str]) -> dict[str, tuple[int, Run]]:
        """Return runs by id, each with the number of its newest change; those that are not there are left out."""
        with self._reading() as world:
            marks = world.run_columns.marks(ids)  # first, so that a run is never newer than its number says
            return {run.id: (marks[run.id], run) for run in world.runs.named(ids) if run.id in marks}

    def _found_runs(
        self,
        experiments: Iterable[str],
        filter: str,
        order_by: Sequence[str],
        view: View,
        limit: int,
        offset: int,
    ) -> tuple[list[str], bool]:
        from flyball.tracking.filters import parse_filter, parse_order
        from flyball.tracking.grammars import RUNS

        _check_page(limit, offset)
        wanted, orders = parse_filter(filter, RUNS), parse_order(order_by, RUNS)
        self._may("read")
        return self._runs_index.search(list(experiments), wanted, orders, view, limit, offset)

    # -- points

    def metric_page(self, run: str, key: str, limit: int, offset: int = 0) -> tuple[list[Point], bool]:
        """Return points of a metric by (time, step, value), and whether there are more. Raises InvalidInput."""
        with self._reading() as world:
            return world.points.page(run, key, limit, offset)

    def metric_sample(
        self,
        runs: Iterable[str],
        key: str,
        first_step: int | None = None,
        last_step: int | None = None,
        points: int = 320,
    ) -> dict[str, list[Point]]:
        """Return points of each run, spread evenly over all that it has; see `Points.sample`."""
        with self._reading() as world:
            return world.points.sample(runs, key, points, first_step, last_step)

    def metric_bulk(self, runs: Iterable[str], key: str, limit: int) -> dict[str, list[Point]]:
        """Return points of runs, by run id and then by (time, step, value), at most `limit` of all together."""
        found: dict[str, list[Point]] = {}
        with self._reading() as world:
            for run in sorted(set(runs)):
                if limit < 1:
                    break
                points, _ = world.points.page(run, key, limit)
                limit -= len(points)
                if points:
                    found[run] = points
        return found

    # -- data sets

    def input_datasets(self, experiments: Iterable[str]) -> list[InputSummary]:
        """Return which data sets the runs of experiments used, once for each context; at most a thousand."""
        with self._reading() as world:
            return world.experiments.used(experiments)

    def input_dataset_details(
        self, experiment: str, named: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], InputDataset]:
        """Return what was told of data sets, by name and digest."""
        with self._reading() as world:
            return world.experiments.datasets(experiment, named)

    def _recorded(self, change: Callable[[Transaction], T], act: str = "record") -> T:
        self._may(act)
        return self.recorder.change(change).result()

    @property
    def _runs_index(self) -> RunsIndex:
        from flyball.tracking.runs_index import RunsIndex

        index: RunsIndex = self._shared_once("runs index", lambda: RunsIndex(self.ledger))
        return index


def _is_in(is_deleted: bool, view: str) -> bool:
    if view not in ("active", "deleted", "all"):
        raise InvalidInput(f"the view is {view!r}; expected active, deleted or all")
    return view == "all" or is_deleted == (view == "deleted")


def _value(experiment: Experiment, about: Comparison | Order) -> Any:
    if about.kind == "tag":
        return experiment.tags.get(about.key)
    return {
        "name": experiment.name,
        "experiment_id": int(experiment.id) if hasattr(about, "ascending") else experiment.id,
        "creation_time": int(experiment.created_at.timestamp() * 1000),
        "last_update_time": int(experiment.updated_at.timestamp() * 1000),
    }[about.key]


def _check_page(limit: int, offset: int) -> None:
    if limit < 1 or offset < 0:
        raise InvalidInput(f"limit {limit}, offset {offset}: expected a page of at least one, from 0 on")
