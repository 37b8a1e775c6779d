"""Request-time features: a plain function of a request's own fields, the same code in serving and in training."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, Union

from flyball.clock import parse_instant
from flyball.errors import FlyballError, InvalidInput, StepFailed, did_you_mean, listed
from flyball.features.definitions import digest_of_function, source_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["OnRequest", "on_request"]

_TYPES: tuple[type, ...] = (bool, int, float, str, datetime, date)
_LOOKED_AT = 1000  # rows from which the types of the results are found when they are not declared
_Row = dict[str, Any]
_Function = TypeVar("_Function", bound=Callable[..., Mapping[str, Any]])


@dataclass(frozen=True)
class OnRequest:
    """A function from fields of a request to features. Made by `@on_request`; calling it calls the function.

    Attributes:
        name: the function's.
        function: as written.
        inputs: parameter → its type and whether None is welcome.
        defaults: parameter → what it is when the request does not give it.
        outputs: feature → its type, when declared.
    """

    name: str
    function: Callable[..., Mapping[str, Any]]
    inputs: Mapping[str, tuple[type, bool]]
    defaults: Mapping[str, Any]
    outputs: Mapping[str, type] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        return self.function(*args, **kwargs)

    @cached_property
    def text(self) -> str:
        """The function's source, empty when it was typed at a prompt."""
        return source_of(self.function)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what the function and its helpers compute."""
        return digest_of_function(self.function)

    def compute(self, record: Mapping[str, Any]) -> _Row | None:
        """Return the features of one request, None when a needed field is null (each feature is then null).

        Fields are turned into the parameters' types first: a time is an aware UTC `datetime`, also when it comes as
        text. A float result that is not finite becomes None, as it does in JSON.

        Raises:
            InvalidInput: a field is missing or of another type.
            StepFailed: the function raised, or returned something else than a dict of plain values.
        """
        arguments: _Row = {}
        for name, (kind, is_optional) in self.inputs.items():
            if name in record:
                value = _converted(record[name], kind, name, self.name)
            elif name in self.defaults:
                value = self.defaults[name]
            else:
                near = did_you_mean(name, record)
                raise InvalidInput(f'the function {self.name} needs "{name}"{near} (given: {listed(record)})')
            if value is None and not is_optional:
                return None
            arguments[name] = value
        try:
            result = self.function(**arguments)
        except FlyballError:
            raise
        except Exception as error:
            raise StepFailed(f"the function {self.name} raised {type(error).__name__}: {str(error)[:300]}") from error
        return self._checked(result)

    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Add the features to rows, calling the function once a row: what serving computes, by construction.

        When the outputs are not declared, the function runs on the first rows now, to learn their names and types.

        Raises:
            InvalidInput: a field is missing, or a result would be a second column of its name.
            StepFailed: as `compute`, or a result does not fit the type of those before; when the rows are collected.
        """
        import polars as pl

        schema = rows.collect_schema()
        for name in self.inputs:
            if name not in schema and name not in self.defaults:
                raise InvalidInput(
                    f'the function {self.name} needs the column "{name}"{did_you_mean(name, schema)} '
                    f"(the rows have {listed(schema)})"
                )
        fields = [name for name in self.inputs if name in schema]
        outputs = (
            dict(self.outputs) if self.outputs is not None else self._learned(rows.select(fields).head(_LOOKED_AT))
        )
        for name in outputs:
            if name in schema:
                raise InvalidInput(
                    f'the rows have a column "{name}" already, which is a feature of {self.name}; '
                    "drop or rename one of them"
                )
        types = {name: _polars_type(kind) for name, kind in outputs.items()}

        def add(frame: pl.DataFrame) -> pl.DataFrame:
            results = [self.compute(record) for record in _records(frame, fields)]
            columns = []
            for name, dtype in types.items():
                values = [None if result is None else self._of(result, name) for result in results]
                try:
                    columns.append(pl.Series(name, values, dtype, strict=True))
                except (TypeError, pl.exceptions.PolarsError) as error:
                    raise StepFailed(
                        f'the function {self.name} returned for "{name}" a value that is not {dtype}; declare its '
                        f'type: @on_request(returns={{"{name}": float, …}})'
                    ) from error
            return frame.with_columns(columns)

        return rows.map_batches(add, schema={**schema, **types}, streamable=True)

    def _learned(self, rows: pl.LazyFrame) -> dict[str, type]:
        kinds: dict[str, set[type]] = {}
        for record in _records(rows.collect(), list(rows.collect_schema())):
            for name, value in (self.compute(record) or {}).items():
                kinds.setdefault(name, set()).update(() if value is None else (type(value),))
        if not kinds:
            raise InvalidInput(
                f"what the function {self.name} returns cannot be learned from rows without its fields; "
                'declare it: @on_request(returns={"hour": int, …})'
            )
        found: dict[str, type] = {}
        for name, seen in kinds.items():
            kind = float if seen == {int, float} else next(iter(seen)) if len(seen) == 1 else None
            if kind is None:
                what = "only nulls" if not seen else listed(sorted(k.__name__ for k in seen))
                raise InvalidInput(
                    f'the function {self.name} returns for "{name}" {what} in the first rows; '
                    f'declare its type: @on_request(returns={{"{name}": float, …}})'
                )
            found[name] = kind
        return found

    def _checked(self, result: Any) -> _Row:
        if not isinstance(result, Mapping):
            raise StepFailed(
                f"the function {self.name} returned a {type(result).__name__}; expected a dict of features"
            )
        if self.outputs is not None and result.keys() != self.outputs.keys():
            raise StepFailed(
                f"the function {self.name} returned {listed(result)}; declared were {listed(self.outputs)}"
            )
        row: _Row = {}
        for name, value in result.items():
            if not isinstance(name, str) or not (value is None or isinstance(value, _TYPES)):
                raise StepFailed(
                    f'the function {self.name} returned for "{name}" a {type(value).__name__}; '
                    "expected a boolean, number, text, time or None"
                )
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            elif isinstance(value, datetime):
                value = _converted(value, datetime, name, self.name)
            elif value is not None and self.outputs is not None and self.outputs[name] is float:
                value = float(value) if isinstance(value, int) else value
            row[name] = value
        return row

    def _of(self, result: _Row, name: str) -> Any:
        if name not in result:
            raise StepFailed(f'the function {self.name} returned no "{name}" for a row, though for others')
        return result[name]


def on_request(
    function: Callable[..., Mapping[str, Any]] | None = None, *, returns: Mapping[str, type] | None = None
) -> Any:
    """Declare a function whose annotated parameters are fields of the request and whose result is a dict of features.

    Args:
        returns: feature → bool, int, float, str or datetime. Without it the types are learned from rows.

    Raises:
        InvalidInput: a parameter has no annotation, or one that a request cannot hold.

    >>> @on_request
    ... def calendar(sched_dep_ts: datetime) -> dict:
    ...     return {"hour": sched_dep_ts.hour, "weekday": sched_dep_ts.weekday()}
    >>> calendar.compute({"sched_dep_ts": "2013-05-03T14:00:00Z"})
    {'hour': 14, 'weekday': 4}
    """

    def declare(function: Callable[..., Mapping[str, Any]]) -> OnRequest:
        name = getattr(function, "__name__", "")
        try:
            hints = typing.get_type_hints(function)
        except NameError as error:
            raise InvalidInput(f"the function {name} is annotated with a name that is not known: {error}") from error
        inputs: dict[str, tuple[type, bool]] = {}
        defaults: _Row = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InvalidInput(f'the function {name} takes "{parameter}"; expected parameters by name')
            inputs[parameter.name] = _annotation(hints.get(parameter.name), parameter.name, name)
            if parameter.default is not parameter.empty:
                defaults[parameter.name] = parameter.default
        if not inputs:
            raise InvalidInput(f"the function {name} takes nothing; expected fields of a request as parameters")
        for feature, kind in (returns or {}).items():
            if kind not in _TYPES or kind is date:
                raise InvalidInput(
                    f'{name}: "{feature}" is declared as {kind!r}; expected bool, int, float, str, datetime'
                )
        return OnRequest(name, function, inputs, defaults, None if returns is None else dict(returns))

    return declare if function is None else declare(function)


def _annotation(hint: Any, parameter: str, function: str) -> tuple[type, bool]:
    is_optional = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        kinds = [k for k in typing.get_args(hint) if k is not type(None)]
        is_optional = len(kinds) < len(typing.get_args(hint))
        hint = kinds[0] if len(kinds) == 1 else None
    if hint not in _TYPES:
        raise InvalidInput(
            f'the parameter "{parameter}" of {function} needs an annotation; expected bool, int, float, str, datetime '
            "or date, or one of them | None"
        )
    return hint, is_optional


def _records(frame: pl.DataFrame, fields: list[str]) -> list[_Row]:
    return frame.select(fields).to_dicts() if fields else [{}] * frame.height


def _converted(value: Any, kind: type, field: str, function: str) -> Any:
    """Return a request's value as the type that the function expects, the same for JSON and for a frame's row."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if hasattr(value, "item") and not isinstance(value, _TYPES):  # a NumPy scalar
        value = value.item()
    if kind is datetime:
        if isinstance(value, str):
            return parse_instant(value)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise InvalidInput(f'the time "{field}" given to {function} has no zone; give it one')
            return value.astimezone(UTC)
    elif kind is date:
        if isinstance(value, str):
            try:
                return date.fromisoformat(value)
            except ValueError:
                raise InvalidInput(f'"{field}" given to {function} is not a date; write it like 2013-05-03') from None
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif isinstance(value, kind):
        return value
    raise InvalidInput(f'"{field}" given to {function} is a {type(value).__name__}; expected {kind.__name__}')


def _polars_type(kind: type) -> pl.DataType:
    import polars as pl

    if kind is datetime:
        return pl.Datetime("us", "UTC")
    plain: dict[type, pl.DataType] = {
        bool: pl.Boolean(),
        int: pl.Int64(),
        float: pl.Float64(),
        str: pl.String(),
        date: pl.Date(),
    }
    return plain[kind]
