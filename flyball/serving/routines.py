"""Several models as one, declared in a Deployment: a chain, an ensemble or a router, and functions after them.

`compose` says what such a routine takes and answers, or why its parts do not fit; the controller asks it before it
publishes, the data plane when it loads. `RoutineModel` answers as any loaded model does, so batching, canaries, the log
and the notebook know nothing of it. The deployment's own model is the last member: the end of a chain, one of an
ensemble, where a router sends what no other part is for.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, NamedTuple

import numpy as np
import orjson

from flyball.errors import FlyballError, InvalidInput, StepFailed, did_you_mean, listed
from flyball.features.served import LoadedFunction
from flyball.models._columns import Column
from flyball.models.bundle import LoadedModel
from flyball.models.explaining import Explanation, explained
from flyball.models.fields import Field
from flyball.models.signature import Signature
from flyball.serving.snapshot import Routine

__all__ = ["Member", "RoutineModel", "compose", "with_functions"]

_DTYPES: Mapping[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string"}
_MOST_STEPS = 1024  # kept for whoever counts them
_MISSING: Mapping[str, Any] = {"float64": np.nan, "string": None}


class Member(NamedTuple):
    """One model of a routine by its name, as it takes and answers."""

    name: str
    signature: Signature
    weight: float = 1.0
    when: tuple[Any, ...] = ()


def compose(combine: str, members: Sequence[Member], by: str | None = None) -> Signature:
    """Return what a routine takes and answers, before the functions after it.

    Args:
        members: in order, the deployment's own model last.
        by: of a router, the input whose value chooses.

    Raises:
        InvalidInput: the members do not fit together; the message names them and the field.
    """
    if combine == "chain":
        return _chained(members)
    inputs: dict[str, Field] = {}
    for member in members:
        for field in member.signature.inputs:
            _take(inputs, field, member.name)
    if combine == "router":
        _check_router(members, inputs, by)
        return Signature(tuple(inputs.values()), _same_outputs(members))
    if combine == "vote":
        labels = [next((f for f in m.signature.outputs if f.name == "prediction"), None) for m in members]
        for member, label in zip(members, labels, strict=True):
            if label is None or label.categories is None or label.dtype != (labels[-1] or label).dtype:
                raise InvalidInput(f"{member.name} answers no label of the same type, and only labels are voted on")
        assert labels[-1] is not None
        return Signature(tuple(inputs.values()), (labels[-1],))
    return Signature(tuple(inputs.values()), _averaged(_same_outputs(members), members))


def with_functions(
    signature: Signature, functions: Sequence[tuple[str, Sequence[str], Mapping[str, str]]]
) -> Signature:
    """Return a signature with the outputs that functions add or replace.

    Args:
        functions: name, the fields that it needs, output → type.

    Raises:
        InvalidInput: a function needs a field that is neither an input nor an output.
    """
    outputs = {field.name: field for field in signature.outputs}
    for name, needs, gives in functions:
        known = [*(field.name for field in signature.inputs), *outputs]
        for field in needs:
            if field not in known:
                raise InvalidInput(
                    f'the function {name} needs "{field}"{did_you_mean(field, known)}, which is neither an input nor '
                    f"an output of the routine (there are {listed(known)})"
                )
        outputs |= {output: Field(output, dtype, nullable=dtype in _MISSING) for output, dtype in gives.items()}
    return Signature(signature.inputs, tuple(outputs.values()))


class RoutineModel(LoadedModel):
    """A routine in memory.

    Arguments:
        main: the version of the deployment's own model, such as `late@2`, and the model.
        parts: the other models, in the order of the routine's parts.

    Raises:
        InvalidInput: the parts do not fit together.
    """

    def __init__(
        self,
        routine: Routine,
        main: tuple[str, LoadedModel],
        parts: Sequence[LoadedModel],
        functions: Sequence[LoadedFunction],
    ) -> None:
        self._routine = routine
        self._models = [*parts, main[1]]
        self._members = [
            *(Member(p.model, m.signature, p.weight, p.when) for p, m in zip(routine.parts, parts, strict=True)),
            Member(main[0].partition("@")[0], main[1].signature, routine.weight),
        ]
        self._versions = [*(part.version for part in routine.parts), main[0]]
        self._functions = [(function, _types(function)) for function in functions]
        self.bundle = main[1].bundle
        told = [(f.name, [n for n in f.spec.inputs if n not in f.spec.optional], t) for f, t in self._functions]
        self.signature = with_functions(compose(routine.combine, self._members, routine.by), told)
        self.warnings = [warning for model in self._models for warning in model.warnings]
        self._steps: deque[tuple[str, float]] = deque(maxlen=_MOST_STEPS)
        self._places = {value: at for at, part in enumerate(routine.parts) for value in part.when}

    def predict(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Answer as `LoadedModel.predict`. Raises what a part raises, which is named."""
        rows = len(next(iter(columns.values())))
        combine = self._routine.combine
        if combine == "chain":
            outputs = self._chain(columns)
        elif combine == "router":
            outputs = self._route(columns, rows)
        else:
            answers = [self._ask(at, columns) for at in range(len(self._models))]
            outputs = (self._vote if combine == "vote" else self._mean)(answers)
        for function, types in self._functions:
            outputs |= self._run(function, types, columns, outputs, rows)
        return outputs

    def explain(self, columns: Mapping[str, Column], is_approximate: bool = False) -> Explanation:
        """Explain as `LoadedModel.explain`; there is no exact way, so it must be asked to be sampled."""
        return explained(None, self.predict, self.signature, columns, self.example(), is_approximate)

    def example(self) -> Mapping[str, Column] | None:
        """Return example rows put together from those of the members, None where one keeps none."""
        found: dict[str, Column] = {}
        for model in self._models:
            kept = model.example()
            if kept is None:
                return None
            found = {**dict(kept.items()), **found}
        count = min(len(found[field.name]) for field in self.signature.inputs)
        return {field.name: found[field.name][:count] for field in self.signature.inputs}

    def is_resident(self) -> bool:
        """Whether no member would have to be loaded first."""
        return all(model.is_resident() for model in self._models if hasattr(model, "is_resident"))

    def steps_taken(self) -> list[tuple[str, float]]:
        """Return (step, seconds) of each call since the last look; a step is a version or a function. Of any thread."""
        found = []
        while self._steps:
            found.append(self._steps.popleft())
        return found

    def digest(self) -> str:
        """Return what tells this routine from others: its parts, how they are joined, its functions."""
        parts = [model.bundle.digest for model in self._models]
        return hashlib.sha256(orjson.dumps([parts, self._routine], option=orjson.OPT_SORT_KEYS)).hexdigest()

    # members

    def _ask(self, at: int, columns: Mapping[str, Column]) -> dict[str, Column]:
        member = self._members[at]
        given = {field.name: columns[field.name] for field in member.signature.inputs}
        began = time.perf_counter()
        try:
            return self._models[at].predict(given)
        except FlyballError as error:
            raise type(error)(f"{self._versions[at]}: {error}") from error
        finally:
            self._took(self._versions[at], time.perf_counter() - began)

    def _chain(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        known: dict[str, Column] = dict(columns.items())
        outputs: dict[str, Column] = {}
        for at, member in enumerate(self._members):
            if any(field.name not in columns for field in member.signature.inputs):
                # What came from another model was never checked: a missing value, a number of another type.
                given = {field.name: known[field.name] for field in member.signature.inputs}
                checked = member.signature.columns_from(given, subject=self._versions[at])
                outputs = self._ask(at, checked)
            else:
                outputs = self._ask(at, known)
            known |= {f"{member.name}_{name}": values for name, values in outputs.items()}
        return dict(outputs)

    def _route(self, columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
        assert self._routine.by is not None
        main = len(self._models) - 1
        chosen = np.array([self._places.get(value, main) for value in columns[self._routine.by].tolist()])
        wanted = np.unique(chosen).tolist()
        if len(wanted) == 1:
            return dict(self._ask(wanted[0], columns))
        outputs: dict[str, Column] = {}
        for at in wanted:
            own = np.flatnonzero(chosen == at)
            answer = self._ask(at, {name: values[own] for name, values in columns.items()})
            for name, values in answer.items():
                if name not in outputs:
                    outputs[name] = np.empty((rows, *values.shape[1:]), values.dtype)
                outputs[name][own] = values
        return outputs

    def _mean(self, answers: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
        weights = np.array([member.weight for member in self._members])
        weights = weights / weights.sum()

        def mean(name: str) -> Column:
            found: Column = sum(w * np.asarray(a[name], np.float64) for w, a in zip(weights, answers, strict=True))
            return found

        for name in ("probability", "probabilities"):
            if name in answers[0]:
                likely = mean(name)
                places = (likely > 0.5).astype(np.int64) if name == "probability" else likely.argmax(axis=1)
                return {"prediction": self._labels()[places], name: likely}
        return {"prediction": mean("prediction")}

    def _vote(self, answers: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
        given = [answer["prediction"].tolist() for answer in answers]
        chosen = []
        for votes in zip(*given, strict=True):
            count: dict[Any, float] = {}
            for member, vote in zip(self._members, votes, strict=True):
                count[vote] = count.get(vote, 0.0) + member.weight
            most = max(count.values())
            # The deployment's own model decides where others are even.
            chosen.append(votes[-1] if count[votes[-1]] == most else next(v for v in votes if count[v] == most))
        found = np.empty(len(chosen), answers[-1]["prediction"].dtype)
        found[:] = chosen
        return {"prediction": found}

    def _labels(self) -> Column:
        label = next(field for field in self._members[-1].signature.outputs if field.name == "prediction")
        texts = label.categories or ()
        if label.dtype == "string":
            found = np.empty(len(texts), object)
            found[:] = texts
            return found
        if label.dtype == "bool":
            return np.array([text == "True" for text in texts])
        return np.array([float(text) for text in texts]).astype(label.dtype)

    # functions

    def _run(
        self,
        function: LoadedFunction,
        types: Mapping[str, str],
        columns: Mapping[str, Column],
        outputs: Mapping[str, Column],
        rows: int,
    ) -> dict[str, Column]:
        began = time.perf_counter()
        fields = {
            name: _plain(outputs[name] if name in outputs else columns[name])
            for name in function.spec.inputs
            if name in outputs or name in columns
        }
        found: dict[str, Column] = {}
        for name, values in function.columns(fields, rows).items():
            dtype = types[name]
            if None in values:
                if dtype not in _MISSING:
                    row = values.index(None)
                    raise StepFailed(f'row {row}: the function {function.name} gave no "{name}", which is a {dtype}')
                values = [_MISSING[dtype] if value is None else value for value in values]
            found[name] = np.empty(rows, object if dtype == "string" else dtype)
            found[name][:] = values
        self._took(function.name, time.perf_counter() - began)
        return found

    def _took(self, step: str, seconds: float) -> None:
        self._steps.append((step, seconds))


def _plain(values: Column) -> list[Any]:
    if values.dtype.kind == "M":
        return [None if value is None else value.replace(tzinfo=UTC) for value in values.tolist()]
    return values.tolist()  # type: ignore[no-any-return]


def _types(function: LoadedFunction) -> dict[str, str]:
    declared = function.types
    if declared is None or any(kind not in _DTYPES for kind in declared.values()):
        raise InvalidInput(
            f"the function {function.name} must say what it returns to stand after a model: "
            "@on_request(returns={…}) with bool, int, float and str"
        )
    return {name: _DTYPES[kind] for name, kind in declared.items()}


def _take(inputs: dict[str, Field], field: Field, name: str) -> None:
    """Add an input of a member to those of the routine. Raises InvalidInput: another member has it otherwise."""
    known = inputs.setdefault(field.name, field)
    if (known.dtype, known.shape) != (field.dtype, field.shape):
        raise InvalidInput(
            f'{name} takes "{field.name}" as {field.dtype}, another part as {known.dtype}; a request has it once'
        )
    if known.nullable and not field.nullable:
        inputs[field.name] = field


def _chained(members: Sequence[Member]) -> Signature:
    inputs: dict[str, Field] = {}
    made: dict[str, tuple[str, Field]] = {}  # what models before gave, by the name under which it can be taken
    used: set[str] = set()
    for member in members:
        for field in member.signature.inputs:
            if field.name not in made:
                _take(inputs, field, member.name)
                continue
            giver, output = made[field.name]
            if output.dtype != field.dtype and (output.dtype, field.dtype) != ("int64", "float64"):
                raise InvalidInput(
                    f'{member.name} takes "{field.name}" as {field.dtype}, but {giver} answers {output.dtype}'
                )
            used.add(giver)
        made |= {f"{member.name}_{f.name}": (member.name, f) for f in member.signature.outputs if f.shape is None}
    for member in members[:-1]:
        if member.name not in used:
            names = [name for name, (giver, _) in made.items() if giver == member.name]
            raise InvalidInput(f"no model behind {member.name} takes one of its answers ({listed(names)})")
    if twice := sorted(set(inputs) & set(made)):
        raise InvalidInput(
            f'"{twice[0]}" is taken from the request by one model, and made by another that stands later'
        )
    return Signature(tuple(inputs.values()), members[-1].signature.outputs)


def _same_outputs(members: Sequence[Member]) -> tuple[Field, ...]:
    wanted = members[-1].signature.outputs
    for member in members[:-1]:
        found = {f.name: (f.dtype, f.shape, f.categories) for f in member.signature.outputs}
        for field in wanted:
            if found.pop(field.name, None) != (field.dtype, field.shape, field.categories):
                raise InvalidInput(f'{member.name} and {members[-1].name} do not answer "{field.name}" alike')
        if found:
            raise InvalidInput(f"{member.name} answers {listed(found)}, which {members[-1].name} does not")
    return wanted


def _averaged(outputs: tuple[Field, ...], members: Sequence[Member]) -> tuple[Field, ...]:
    names = [field.name for field in outputs]
    if "probability" in names or "probabilities" in names:
        return tuple(field for field in outputs if field.name in ("prediction", "probability", "probabilities"))
    number = next((f for f in outputs if f.name == "prediction" and f.shape is None and f.categories is None), None)
    if number is None or number.dtype not in ("int64", "float64"):
        raise InvalidInput(
            f"{members[-1].name} answers neither probabilities nor a number, so there is nothing to average; use vote"
        )
    return (Field("prediction", "float64", number.nullable),)


def _check_router(members: Sequence[Member], inputs: Mapping[str, Field], by: str | None) -> None:
    if by is None or by not in inputs:
        raise InvalidInput(f'a router chooses by an input; by: "{by}" is none (there are {listed(inputs)})')
    seen: dict[Any, str] = {}
    for member in members[:-1]:
        if not member.when:
            raise InvalidInput(f'{member.name} is asked for no value of "{by}"; give when: [values]')
        for value in member.when:
            if value in seen:
                raise InvalidInput(f'"{by}" = {value!r} goes to {seen[value]} and to {member.name}; choose one')
            is_fit = isinstance(value, str) == (inputs[by].dtype == "string")
            if not is_fit:
                raise InvalidInput(f'{member.name}: "{by}" is {inputs[by].dtype}, so it is never {value!r}')
            seen[value] = member.name
