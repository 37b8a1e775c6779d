"""Traces of language models, what was said of them, sets to evaluate on, and scorers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.evaluation_sets import EvaluationRecord, EvaluationSet, Scorer
from flyball.ledger.traces import Assessment, Trace
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.llm.correlation import Correlation
    from flyball.llm.measuring import Figure, Question
    from flyball.llm.spans import Span

__all__ = ["TraceActs"]

T = TypeVar("T")

_MOST_LINKED = 100


class TraceActs(Home):
    """Traces and what belongs to them."""

    def tell_trace(self, told: Trace) -> Trace:
        """Keep the account of a trace and what was said of it; its spans may be there already.

        Raises:
            InvalidInput, NotFound, Conflict: of the experiment's id; there is none; it is deleted.
        """
        from flyball.llm.arriving import account

        def keep(world: Transaction) -> Trace:
            _number(told.experiment)
            world.traces.keep(told.id, account(told))
            for one in told.assessments:
                world.traces.assess(one)
            return world.traces.get(told.id)

        return self._told(keep)

    def add_spans(
        self,
        experiment: str,
        spans: Iterable[Span],
        resources: Mapping[str, Mapping[str, Any]] | None = None,
        run: str | None = None,
    ) -> int:
        """Keep spans, all or none; return how many traces they are of.

        Args:
            experiment: where traces belong that are not there yet.
            resources: by trace, the attributes of what made the spans.
            run: the run that traces are of whose first span is among these.

        Raises: as `tell_trace`.
        """
        from flyball.llm.arriving import arrived

        kept = list(spans)
        new = arrived(_number(experiment), kept, resources or {})
        whole = sorted({f"tr-{span.trace}" for span in kept if span.parent is None})

        def keep(world: Transaction) -> None:
            for some in new:
                world.traces.add_spans(some)
            if run and whole and world.runs.named([run]):
                world.traces.link(whole, "run", run)

        self._told(keep)
        return len(new)

    def begin_trace(self, begun: Trace) -> Trace:
        """Keep the account of a trace that has only begun, as MLflow 2 tells it. Raises as `tell_trace`."""
        _number(begun.experiment)
        return self._told(lambda world: world.traces.keep(begun.id, lambda _known: begun))

    def trace(self, id: str) -> Trace:
        """Return a trace with what was said of it. Raises NotFound."""
        with self._reading() as world:
            return world.traces.get(id)

    def traces(self, ids: Iterable[str], experiments: Iterable[str] | None = None) -> list[Trace]:
        """Return those of the traces that exist, in the order asked for; only of `experiments` when given."""
        within = None if experiments is None else [_number(one) for one in experiments]
        with self._reading() as world:
            return world.traces.all(ids, within)

    def trace_spans(self, ids: Iterable[str]) -> dict[str, list[Span]]:
        """Return the spans of traces: those without a parent first, then by their beginning."""
        from flyball.llm.spans import read_span

        with self._reading() as world:
            texts = world.traces.spans(ids)
        found = {}
        for id, kept in texts.items():
            spans = {span.id: span for span in map(read_span, kept)}
            found[id] = sorted(spans.values(), key=lambda span: (span.parent is not None, span.start_ns, span.id))
        return found

    def search_traces(
        self,
        experiments: Iterable[str],
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = 100,
        offset: int = 0,
        after: tuple[int, str] | None = None,
    ) -> tuple[list[Trace], bool]:
        """Return a page of traces that match, the newest first unless ordered otherwise, and whether there are more.

        Args:
            after: time and id of the last trace of the page before; quicker than `offset`, only without `order_by`.

        Raises:
            InvalidInput: the filter or the order is none of `tracking.grammars.TRACES`.
        """
        from flyball.llm.searching import conditions_of, orders_of

        conditions, orders = conditions_of(filter), orders_of(order_by)
        ids = [_number(one) for one in experiments]
        with self._reading() as world:
            return world.traces.search(ids, conditions, orders, limit, offset, None if orders else after)

    def end_trace(self, id: str, change: Callable[[Trace], Trace]) -> Trace:
        """Replace the account of a trace by what `change` makes of it. Raises NotFound."""
        return self._changed(id, change)

    def tag_trace(self, id: str, key: str, value: str) -> None:
        """Set a tag of a trace. Raises NotFound."""
        self._changed(id, lambda trace: replace(trace, tags={**trace.tags, key: value}))

    def untag_trace(self, id: str, key: str) -> None:
        """Remove a tag of a trace. Raises NotFound (trace or tag)."""

        def without(trace: Trace) -> Trace:
            if key not in trace.tags:
                raise NotFound(f"No trace tag with key '{key}' for trace with ID '{id}'")
            return replace(trace, tags={k: v for k, v in trace.tags.items() if k != key})

        self._changed(id, without)

    def delete_traces(
        self,
        experiment: str,
        ids: Sequence[str] = (),
        until_ms: int | None = None,
        most: int | None = None,
    ) -> int:
        """Remove traces for good, by id or those that began at a time or before, the oldest first.

        Raises InvalidInput unless one of both is given, or when `most` comes with ids or is not positive.
        """
        if not ids and until_ms is None:
            raise InvalidInput("Either `max_timestamp_millis` or `trace_ids` must be specified.")
        if ids and until_ms is not None:
            raise InvalidInput("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
        if ids and most is not None:
            raise InvalidInput("`max_traces` can't be specified if `trace_ids` is specified.")
        if most is not None and most <= 0:
            raise InvalidInput(f"`max_traces` must be a positive integer, received {most}.")
        number = _number(experiment)
        self._may("delete")
        return self._told(lambda world: world.traces.delete(number, list(ids) or None, until_ms, most))

    def link_traces(self, ids: Sequence[str], run: str) -> None:
        """Note that traces belong to a run. Raises InvalidInput: more than a hundred."""
        if len(ids) > _MOST_LINKED:
            raise InvalidInput(
                f"Cannot link more than {_MOST_LINKED} traces to a run in a single request. Provided {len(ids)} traces."
            )
        self._told(lambda world: world.traces.link(ids, "run", run))

    def link_prompts(self, id: str, prompts: Iterable[str]) -> None:
        """Note which prompts, `name/version`, a trace used. Raises NotFound."""
        wanted = list(prompts)

        def link(world: Transaction) -> None:
            world.traces.get(id)
            for prompt in wanted:
                world.traces.link([id], "prompt", prompt)

        self._told(link)

    def correlate_traces(
        self, experiments: Sequence[str], first: str, second: str, within: str | None = None
    ) -> Correlation:
        """Return how much two filters go together over the traces of experiments, or those of a third filter."""
        from flyball.llm.correlation import correlation
        from flyball.llm.searching import conditions_of

        ids = [_number(one) for one in experiments]
        base, one, two = conditions_of(within), conditions_of(first), conditions_of(second)
        with self._reading() as world:
            count = world.traces.count
            found = count(ids, (*base, *one)), count(ids, (*base, *two)), count(ids, (*base, *one, *two))
            return correlation(*found, count(ids, base))

    def measure_traces(self, experiments: Sequence[str], question: Question, most: int = 1000) -> list[Figure]:
        """Return figures of many traces; see `llm.measuring`. Raises InvalidInput."""
        from flyball.llm.measuring import figures

        ids = [_number(one) for one in experiments]
        with self._reading() as world:
            return figures(world, ids, question, most)

    # -- what is said of traces

    def assess(self, assessment: Assessment) -> Assessment:
        """Add what somebody said of a trace. Raises NotFound: of the trace, or of what it overrides; Conflict."""
        return self._told(lambda world: world.traces.assess(assessment))

    def assessment(self, trace: str, id: str) -> Assessment:
        """Return what somebody said. Raises NotFound."""
        with self._reading() as world:
            return world.traces.assessment(trace, id)

    def revise_assessment(self, trace: str, id: str, change: Callable[[Assessment], Assessment]) -> Assessment:
        """Replace what somebody said by what `change` makes of it. Raises NotFound, and whatever `change` raises."""
        now = int(self.clock.now().timestamp() * 1000)
        return self._told(
            lambda world: world.traces.revise(replace(change(world.traces.assessment(trace, id)), updated_ms=now))
        )

    def withdraw_assessment(self, trace: str, id: str) -> None:
        """Remove what somebody said, if it is there. Raises NotFound: of the trace."""
        self._told(lambda world: world.traces.withdraw(trace, id))

    # -- sets to evaluate on

    def create_evaluation_set(
        self, name: str, experiments: Iterable[str] = (), tags: Mapping[str, str] | None = None
    ) -> EvaluationSet:
        """Make a set of records. Raises InvalidInput: an experiment's id is none."""
        from flyball.llm.evaluation import USER_TAG, digest_of

        now, user = self._now_ms(), (tags or {}).get(USER_TAG)
        made = EvaluationSet(
            id=f"d-{secrets.token_hex(16)}",
            name=name,
            digest=digest_of(name, now),
            created_ms=now,
            updated_ms=now,
            tags=dict(tags or {}),
            created_by=user,
            updated_by=user,
        )
        wanted = [_number(one) for one in experiments]
        return self._told(lambda world: world.evaluation_sets.create(made, wanted))

    def evaluation_set(self, id: str) -> EvaluationSet:
        """Return a set. Raises NotFound."""
        with self._reading() as world:
            return world.evaluation_sets.get(id)

    def evaluation_set_experiments(self, id: str) -> list[str]:
        """Return the experiments of a set; none where there is no such set."""
        with self._reading() as world:
            return world.evaluation_sets.experiments(id)

    def delete_evaluation_set(self, id: str) -> None:
        """Remove a set with its records, if it is there."""
        self._may("delete")
        self._told(lambda world: world.evaluation_sets.delete(id))

    def tag_evaluation_set(self, id: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a set; None removes one. Raises NotFound."""

        def change(known: EvaluationSet) -> EvaluationSet:
            joined = {**known.tags, **tags}
            return replace(known, tags={k: v for k, v in joined.items() if v is not None})

        self._told(lambda world: world.evaluation_sets.change(id, change))

    def move_evaluation_set(self, id: str, into: Iterable[str] = (), out_of: Iterable[str] = ()) -> EvaluationSet:
        """Add a set to experiments, and take it out of others. Raises NotFound (set or experiment), InvalidInput."""
        joining, leaving, now = [_number(o) for o in into], [_number(o) for o in out_of], self._now_ms()

        def move(world: Transaction) -> EvaluationSet:
            known = world.evaluation_sets.get(id)
            world.evaluation_sets.join(id, joining)
            if (world.evaluation_sets.leave(id, leaving) if leaving else False) or joining:
                known = world.evaluation_sets.change(id, lambda one: replace(one, updated_ms=now))
            return known

        return self._told(move)

    def put_records(self, id: str, records: Any) -> tuple[int, int]:
        """Add records, or change those with the same inputs; return how many are new, and how many changed.

        Raises NotFound; InvalidInput: they are no list of objects.
        """
        from flyball.llm.evaluation import USER_TAG, check_records, digest_of, inputs_hash, joined, schema_of

        given, now = check_records(records), self._now_ms()
        users = [(one.get("tags") or {}).get(USER_TAG) for one in given]
        user = next((one for one in reversed(users) if one), None)

        def put(world: Transaction) -> tuple[int, int]:
            sets = world.evaluation_sets
            sets.get(id)
            made, inserted, updated = joined(id, given, sets.by_inputs(id, map(inputs_hash, given)), now)
            sets.keep(made)
            count = sets.size(id)

            def change(known: EvaluationSet) -> EvaluationSet:
                return replace(
                    known,
                    schema=schema_of(known.schema, given),
                    count=count or None,
                    updated_ms=now,
                    updated_by=user,
                    digest=digest_of(known.name, now),
                )

            sets.change(id, change)
            return inserted, updated

        return self._told(put)

    def evaluation_records(
        self, id: str, limit: int = 1000, after: tuple[int, str] | None = None
    ) -> tuple[list[EvaluationRecord], bool]:
        """Return records behind a place (created, id), oldest first, and whether there are more. Raises NotFound."""
        with self._reading() as world:
            return world.evaluation_sets.records(id, limit, after)

    def drop_records(self, id: str, records: Iterable[str]) -> int:
        """Remove records of a set; return how many there were. Raises NotFound."""
        wanted = list(records)

        def drop(world: Transaction) -> int:
            world.evaluation_sets.get(id)
            gone = world.evaluation_sets.drop(id, wanted)
            if gone:
                count = world.evaluation_sets.size(id)
                world.evaluation_sets.change(id, lambda known: replace(known, count=count or None))
            return gone

        return self._told(drop)

    def search_evaluation_sets(
        self,
        experiments: Iterable[str] | None = None,
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[list[EvaluationSet], bool]:
        """Return a page of the sets that match, the newest first, and whether there are more. Raises InvalidInput."""
        from flyball.tracking.filters import holds, parse_filter, parse_order
        from flyball.tracking.grammars import EVALUATION_DATASETS

        wanted, orders = parse_filter(filter, EVALUATION_DATASETS), parse_order(order_by, EVALUATION_DATASETS)
        within = None if experiments is None else [_number(one) for one in experiments]
        with self._reading() as world:
            every = world.evaluation_sets.all(within)
        found = [one for one in every if all(holds(_of_set(one, c.kind, c.key), c) for c in wanted)]
        for order in reversed(orders):
            found.sort(key=lambda one, by=order: _of_set(one, by.kind, by.key), reverse=not order.ascending)  # type: ignore[misc]
        return found[offset : offset + limit], len(found) > offset + limit

    # -- scorers

    def register_scorer(self, experiment: str, name: str, document: str) -> Scorer:
        """Add a version of a scorer. Raises NotFound, Conflict (the experiment is deleted), InvalidInput."""
        number = _number(experiment)
        return self._told(lambda world: world.scorers.register(number, name, document))

    def scorer_versions(self, experiment: str, name: str) -> list[Scorer]:
        """Return the versions of a scorer, the oldest first. Raises NotFound."""
        with self._reading() as world:
            return world.scorers.versions(_number(experiment), name)

    def scorers(self, experiments: Iterable[str] | None = None) -> list[Scorer]:
        """Return the newest version of each scorer of experiments, of all when None."""
        within = None if experiments is None else [_number(one) for one in experiments]
        with self._reading() as world:
            return world.scorers.newest(within)

    def delete_scorer(self, experiment: str, name: str, version: int | None = None) -> None:
        """Remove a version of a scorer, or all. Raises NotFound."""
        self._may("delete")
        self._told(lambda world: world.scorers.delete(_number(experiment), name, version))

    def _changed(self, id: str, change: Callable[[Trace], Trace]) -> Trace:
        def make(known: Trace | None) -> Trace:
            if known is None:
                raise NotFound(f"Trace with ID '{id}' not found.")
            return change(known)

        return self._told(lambda world: world.traces.keep(id, make))

    def _told(self, change: Callable[[Transaction], T]) -> T:
        return self.recorder.change(change).result()

    def _now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)


def _of_set(one: EvaluationSet, kind: str, key: str) -> Any:
    if kind == "tag":
        return one.tags.get(key)
    names = {"created_time": "created_ms", "last_update_time": "updated_ms", "last_updated_by": "updated_by"}
    return getattr(one, names.get(key, key))


def _number(id: str) -> str:
    if not (isinstance(id, str) and id.isascii() and id.isdecimal() and len(id) <= 18):
        raise InvalidInput(f"Invalid experiment ID: {str(id)[:80]!r}; expected a decimal number, such as 0")
    return id
