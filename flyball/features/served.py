"""The features that a deployment or a feature server answers with: views looked up, then request-time functions run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flyball.errors import InvalidInput, StepFailed, did_you_mean, listed
from flyball.features.freshness import Freshness
from flyball.features.functions import FunctionSpec, is_function
from flyball.features.lookup import LookUpPlan
from flyball.features.requests import OnRequest
from flyball.features.specs import ViewSpec
from flyball.storage.online import OnlineStore

__all__ = ["Feature", "LoadedFunction", "ServedFeatures", "read_feature"]


class LoadedFunction:
    """A request-time function with its description."""

    def __init__(self, spec: FunctionSpec, function: OnRequest) -> None:
        self.spec = spec
        self.name = spec.name
        self.outputs = spec.outputs
        self._function = function

    @property
    def types(self) -> Mapping[str, type] | None:
        """What its features are, None where the function does not declare it."""
        return self._function.outputs

    def columns(self, fields: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
        """Run the function once a row and return name → values; None for each feature of a row it says nothing of.

        Raises:
            InvalidInput: a field is missing, or a row's is wrong; names the row.
            StepFailed: the function failed on a row, or returned other features than it declares.
        """
        for name in self.spec.inputs:
            if name not in fields and name not in self.spec.optional:
                raise InvalidInput(
                    f'the function {self.name} needs "{name}"{did_you_mean(name, fields)} (given: {listed(fields)})'
                )
        names = [name for name in self.spec.inputs if name in fields]
        table: list[tuple[Any, ...]] = list(zip(*(fields[name] for name in names), strict=True)) or [()] * rows
        columns: dict[str, list[Any]] = {name: [] for name in self.outputs}
        for row, values in enumerate(table):
            try:
                found = self._function.compute(dict(zip(names, values, strict=True)))
            except InvalidInput as error:
                raise InvalidInput(f"row {row}: {error}") from None
            except StepFailed as error:
                raise StepFailed(f"row {row}: {error}") from error
            except SystemExit as error:
                raise StepFailed(f"row {row}: the function {self.name} asked Python to exit; it must not") from error
            if found is not None and found.keys() != columns.keys():
                raise StepFailed(
                    f"row {row}: the function {self.name} returned {listed(found)}; "
                    f"declared were {listed(self.outputs)}"
                )
            for name, column in columns.items():
                column.append(None if found is None else found[name])
        return columns


Feature = ViewSpec | LoadedFunction


class ServedFeatures:
    """Views and functions that are asked for together; may be used by several threads.

    Attributes:
        keys: the fields by which views are looked up.
        fields: those and the fields that functions take, without what views give.
        optional: of them, those that may be absent.
        names: the features in the order of the answer.

    Raises:
        InvalidInput: two of them have a feature of the same name.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.views = tuple(f for f in features if isinstance(f, ViewSpec))
        self.functions = tuple(f for f in features if isinstance(f, LoadedFunction))
        self._plan = LookUpPlan(self.views)
        by_feature: dict[str, str] = {name: view.name for view in self.views for name in view.features}
        for function in self.functions:
            for name in function.outputs:
                if name in by_feature:
                    raise InvalidInput(
                        f'both {by_feature[name]} and {function.name} have a feature "{name}"; rename it in one of them'
                    )
                by_feature[name] = function.name
        self.names = tuple(by_feature)
        self.keys = tuple(dict.fromkeys(key for view in self.views for key in view.entity))
        inputs = [name for function in self.functions for name in function.spec.inputs if name not in by_feature]
        self.fields = tuple(dict.fromkeys((*self.keys, *inputs)))
        needed = {n for function in self.functions for n in function.spec.inputs if n not in function.spec.optional}
        self.optional = frozenset(inputs) - needed - frozenset(self.keys)

    def look_up(
        self,
        store: OnlineStore,
        fields: Mapping[str, Any],
        now: datetime,
        rows: int,
        *,
        ages: bool = False,
        freshness: Freshness | None = None,
    ) -> dict[str, list[Any]]:
        """Return every feature of `rows` rows: views as of `now`, then functions of the request and of the views.

        Args:
            fields: name → a value for each row, as a list or an array.

        Raises:
            InvalidInput, StepFailed, Corrupt, Unavailable: as `LookUpPlan.look_up` and `LoadedFunction.columns`.
        """
        found: dict[str, list[Any]] = {}
        if self.views:
            keys = {
                name: v.tolist() if hasattr(v := fields[name], "tolist") else v for name in self.keys if name in fields
            }
            found = self._plan.look_up(store, keys, now, ages=ages, freshness=freshness)
        if self.functions:
            known = {name: fields[name] for name in self.fields if name in fields} | found
            for function in self.functions:
                found |= function.columns({k: _plain(v, rows) for k, v in known.items()}, rows)
        return found


def read_feature(document: Mapping[str, Any], load: Callable[[FunctionSpec], OnRequest]) -> Feature:
    """Return a view, or a function with its code, by its description. Raises as `from_dict` and as `load`."""
    if not is_function(document):
        return ViewSpec.from_dict(document)
    spec = FunctionSpec.from_dict(document)
    return LoadedFunction(spec, load(spec))


def _plain(values: Any, rows: int) -> Sequence[Any]:
    """Return a column as Python values; an array's times are in UTC."""
    if hasattr(values, "tolist"):
        kind = values.dtype.kind
        values = values.tolist()
        if kind == "M":
            values = [v if v is None else v.replace(tzinfo=UTC) for v in values]
    return values if isinstance(values, list | tuple) else [values] * rows
