"""Questions and answers: the rows of a request, who answers which, and what came of it. Pure; used by the engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.models.explaining import Explanation
from flyball.serving.batcher import Columns
from flyball.serving.contextual import Chooser, context_number
from flyball.serving.lineup import Served, ServedVariant
from flyball.serving.router import choose, named

__all__ = ["Answer", "AnsweredPart", "Part", "Plan", "Question", "check_names", "checked", "count_rows", "route"]


@dataclass(slots=True)
class Question:
    """Rows to predict: `records` (a list of objects) or `columns` (values or arrays by name).

    Attributes:
        key: routes all rows; without it each row's own key field does, or the request's id.
        request_id: routes when there is no key, so that a repeated request meets the same variant.
        variant, version: for testers: who must answer, whatever the traffic table says.
        at: the instant whose features are wanted, if not now.
        is_whole: the answer can hold only one version: the first row's key routes all rows.
        is_matrix: the only column is a matrix (rows, inputs) that stands for all inputs in the model's order.
        caller: the name of the access key that asks, where keys are required.
        is_over: nobody waits for the answer any more; it need not be computed, and is not logged.
        received: `time.perf_counter()` when the request was complete; latency counts from here.
        explain: say too what each input did for the answer; is_approximate: sampled where there is no exact way.
    """

    deployment: str
    records: Sequence[Mapping[str, Any]] | None = None
    columns: Mapping[str, Any] | None = None
    key: str | None = None
    request_id: str | None = None
    variant: str | None = None
    version: str | None = None
    at: datetime | None = None
    trace: str | None = None
    is_whole: bool = False
    received: float = field(default_factory=time.perf_counter)
    is_matrix: bool = False
    caller: str | None = None
    is_over: bool = False
    explain: bool = False
    is_approximate: bool = False

    @property
    def is_forced(self) -> bool:
        """Whether who asks named who must answer; such answers are no evidence of how variants compare."""
        return self.variant is not None or self.version is not None


@dataclass(slots=True)
class Part:
    """The rows of a question that one variant answers."""

    by: ServedVariant
    rows: Sequence[int] | None  # their places in the question; None: all of them
    ids: list[str]
    keys: list[str | None] | None
    inputs: Columns  # as received, keys of views included
    features: Columns  # as looked up
    columns: Columns  # what the model takes
    propensities: list[float] | None = None  # how probable it was that this variant answers, of draws by context


@dataclass(slots=True)
class Plan:
    """A question, checked and routed."""

    question: Question
    served: Served
    ids: list[str]
    parts: list[Part]
    is_logged: bool
    explanations: Sequence[Explanation | None] = ()  # of the parts, where the question asks for them

    def answer(self, outputs: Sequence[Columns]) -> Answer:
        """Return the answer, given what the variant of each part said."""
        explanations = self.explanations or [None] * len(self.parts)
        parts = [
            AnsweredPart(part.by.variant.name, part.by.variant.version, part.rows, out, explanation)
            for part, out, explanation in zip(self.parts, outputs, explanations, strict=True)
        ]
        return Answer(self.served.name, self.ids, parts)


@dataclass(slots=True)
class AnsweredPart:
    """What one variant answered: its outputs for the given rows (None: all)."""

    variant: str
    version: str
    rows: Sequence[int] | None
    outputs: Columns
    explanation: Explanation | None = None


@dataclass(slots=True)
class Answer:
    """The answer to a question: an id for each row, and the parts, one for each variant that answered."""

    deployment: str
    ids: list[str]
    parts: list[AnsweredPart]

    def records(self) -> list[dict[str, Any]]:
        """Return for each row `{id, version, variant, outputs: {name: value}}`, in the order of the rows.

        Where the question asked for it, `explanation` stands there too; see `Explanation.records`.
        """
        found: list[dict[str, Any]] = [{}] * len(self.ids)
        for part in self.parts:
            lists = {name: plain_values(values) for name, values in part.outputs.items()}
            places = part.rows if part.rows is not None else range(len(self.ids))
            for row, place in enumerate(places):
                found[place] = {
                    "id": self.ids[place],
                    "version": part.version,
                    "variant": part.variant,
                    "outputs": {name: values[row] for name, values in lists.items()},
                }
            if part.explanation is not None:
                for place, explanation in zip(places, part.explanation.records(), strict=True):
                    found[place]["explanation"] = explanation
        return found


def count_rows(question: Question, served: Served) -> int:
    """Return how many rows there are, after checking that they are rows at all."""
    records, columns = question.records, question.columns
    count = 1
    if records is not None:
        if not isinstance(records, list | tuple) or not all(isinstance(record, Mapping) for record in records):
            raise InvalidInput(f"{served.name} was given something else than rows; expected a list of objects")
        if not records:
            raise InvalidInput(f"{served.name} was given no rows; expected at least one")
        count = len(records)
    elif columns:
        first = next(iter(columns.values()))
        if isinstance(first, list | tuple) or (isinstance(first, np.ndarray) and first.ndim > 0):
            count = len(first)
    else:
        raise InvalidInput(f"{served.name} was given neither records nor columns")
    if count > (most := served.deployment.limits.request_rows):
        raise InvalidInput(
            f"{served.name} was given {count} rows; at most {most} are taken at once, send them in parts"
        )
    return count


_Group = tuple[ServedVariant, Sequence[int] | None, list[str | None] | None, list[float] | None]


def route(served: Served, question: Question, ids: list[str]) -> list[_Group]:
    """Return which variant answers which rows, their keys, and where it was drawn by context how probable that was."""
    keys = _row_keys(served, question, len(ids))
    if question.version is not None:
        return [(served.of_version(question.version), None, keys, None)]
    if question.variant is not None:
        named(question.variant, served.deployment.variants)
        return [(served.by_name[question.variant], None, keys, None)]
    variants = served.deployment.variants
    if len(variants) == 1:
        return [(served.variants[0], None, keys, None)]
    salt = served.deployment.salt
    alone = question.request_id or (ids[0] if ids else "")
    if served.chooser is not None and ids:
        return _drawn(served, served.chooser, question, alone, keys, len(ids))
    if keys is None or question.is_whole or question.key is not None:
        first = keys[0] if keys else None
        return [(served.by_name[choose(alone if first is None else first, salt, variants).name], None, keys, None)]
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(choose(alone if key is None else key, salt, variants).name, []).append(row)
    return _groups(served, rows_of, keys)


def _groups(
    served: Served, rows_of: Mapping[str, list[int]], keys: list[str | None] | None, odds: list[float] | None = None
) -> list[_Group]:
    if len(rows_of) == 1:
        return [(served.by_name[next(iter(rows_of))], None, keys, odds)]

    def picked(values: list[Any] | None, rows: list[int]) -> list[Any] | None:
        return None if values is None else [values[row] for row in rows]

    return [(served.by_name[name], rows, picked(keys, rows), picked(odds, rows)) for name, rows in rows_of.items()]


def _drawn(
    served: Served, chooser: Chooser, question: Question, alone: str, keys: list[str | None] | None, count: int
) -> list[_Group]:
    """Draw the variant of each row by its context; of a question that is answered whole by that of the first row."""
    contexts = _contexts(served, chooser, question, 1 if question.is_whole else count)
    if len(contexts) == 1:
        name, share = chooser.choose(contexts[0], alone)
        return [(served.by_name[name], None, keys, [share] * count)]
    rows_of: dict[str, list[int]] = {}
    odds = []
    for row, context in enumerate(contexts):
        name, share = chooser.choose(context, f"{alone} {row}" if row else alone)
        rows_of.setdefault(name, []).append(row)
        odds.append(share)
    return _groups(served, rows_of, keys, odds)


def _contexts(served: Served, chooser: Chooser, question: Question, count: int) -> list[list[float]]:
    """Return the context of the first rows as numbers, before the rows are checked: what is wrong with them is said
    by whoever checks."""
    if question.records is not None:
        return [[context_number(record.get(name)) for name in chooser.inputs] for record in question.records[:count]]
    columns = question.columns or {}
    if question.is_matrix:
        names = [f.name for f in (served.variants[0].request.inputs if served.variants[0].request else ())]
        matrix = next(iter(columns.values()))
        columns = {name: matrix[:, place] for place, name in enumerate(names[: matrix.shape[1]])}
    found = []
    for name in chooser.inputs:
        values = columns.get(name, ())
        values = values.ravel().tolist() if isinstance(values, np.ndarray) else values
        is_whole = isinstance(values, list | tuple) and len(values) >= count
        found.append([context_number(value) for value in values[:count]] if is_whole else [0.0] * count)
    return [list(context) for context in zip(*found, strict=True)]


def _row_keys(served: Served, question: Question, count: int) -> list[str | None] | None:
    if question.key is not None:
        return [question.key] * count
    name = served.deployment.key
    if name is None or count == 0:
        return None
    values: Any
    if question.records is not None:
        values = [record.get(name) for record in question.records]
    else:
        values = (question.columns or {}).get(name)
        if isinstance(values, np.ndarray):
            values = values.ravel().tolist()
        if not isinstance(values, list | tuple) or len(values) != count:
            return None  # absent, or of a wrong length, which the signature's check will word
    return [None if value is None else str(value) for value in values]


def checked(
    question: Question, by: ServedVariant, rows: Sequence[int] | None
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the inputs as checked arrays, and the values of names that are not inputs of this model.

    Raises:
        InvalidInput: an unknown or missing name, or a wrong value, named with its row.
    """
    subject = by.variant.version
    extra: dict[str, Any] = {}
    try:
        if question.records is not None:
            records = question.records if rows is None else [question.records[row] for row in rows]
            for name in by.extra:
                if any(name in record for record in records):
                    extra[name] = [record.get(name) for record in records]
            if extra:
                records = [{k: v for k, v in record.items() if k not in by.extra} for record in records]
            if by.request is None:
                check_names(by, records[0])
                return {}, extra
            return by.request.columns(records, subject=subject), extra
        columns = question.columns or {}
        if question.is_matrix and by.request is not None:
            matrix = next(iter(columns.values()))
            return by.request.table(matrix if rows is None else matrix[rows], subject=subject), extra
        if rows is not None:
            columns = {name: [values[row] for row in rows] for name, values in columns.items()}
        extra = {name: plain_values(columns[name]) for name in by.extra if name in columns}
        given = {name: values for name, values in columns.items() if name not in extra}
        if by.request is None:
            check_names(by, given)
            return {}, extra
        return by.request.columns_from(given, subject=subject), extra
    except InvalidInput as error:
        if by.looked_up is None or "It needs" not in str(error):
            raise
        features = listed(f.name for f in by.looked_up.inputs)
        raise InvalidInput(f"{error} (and looks up {features} by {listed(by.keys)})") from None


def check_names(by: ServedVariant, given: Mapping[str, Any]) -> None:
    """Check names where there are no values to check: no rows, or no inputs."""
    if isinstance(first := next(iter(given.values()), None), np.ndarray) and first.ndim == 2 and first.shape[1] > 1:
        return  # a matrix of no rows has no names
    needed = [f.name for f in by.request.inputs] if by.request is not None else []
    unknown = [name for name in given if name not in needed and name not in by.extra]
    missing = [name for name in needed if name not in given]
    if unknown:
        raise InvalidInput(
            f'{by.variant.version} has no input "{unknown[0][:60]}"{did_you_mean(unknown[0], needed)} '
            f"(known: {listed(needed)})"
        )
    if missing:
        raise InvalidInput(f"{by.variant.version} needs the inputs {listed(missing)} too")


def plain_values(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
