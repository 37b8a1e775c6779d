"""Feature views: a function from a data set to rows of (entity, event time, features), declared once.

Training joins its rows as known at each row's time (`joins`), serving looks the same rows up (`lookup`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

import polars as pl

from flyball.clock import parse_duration
from flyball.errors import FlyballError, InvalidInput, StepFailed, did_you_mean, listed
from flyball.features.definitions import digest_of_function, source_of
from flyball.features.specs import ViewSpec

__all__ = ["FeatureView", "ViewFunction", "feature_view", "instant"]

ViewFunction = Callable[[pl.LazyFrame], pl.LazyFrame]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True)
class FeatureView:
    """A declared view. Made by `@feature_view`; calling it calls the function.

    Attributes:
        name: what look-ups, bundles and pages call it.
        entity: key columns, text or whole numbers.
        event_time: the column that says since when a row's values are true; a time with a zone.
        known_at: the column that says when the row arrived; the same as `event_time` where rows arrive at once.
        ttl: values older than this are not used; None: they never age.
        source: the name of the data set that the function takes.
        function: the function as written.
        defaults: what stands for a feature without a value.
        version: grows by hand when values of the old and new definition must not mix.
        owner, tags: who answers for it, and words to find it by.
        look_back: how far before a row's event time the source rows lie that it depends on; zero: each row is made of
            one row of the source. Then rows added to the source are all that must be computed. None: it depends on
            anything, so the whole is computed again.
        source_time: the time column of the source by which `look_back` counts.
    """

    name: str
    entity: tuple[str, ...]
    event_time: str
    known_at: str
    ttl: timedelta | None
    source: str
    function: ViewFunction
    defaults: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    owner: str | None = None
    tags: tuple[str, ...] = ()
    look_back: timedelta | None = None
    source_time: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.function.__doc__)

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return self.function(frame)

    @property
    def is_bitemporal(self) -> bool:
        """Whether rows may arrive later than they became true."""
        return self.known_at != self.event_time

    @property
    def is_row_wise(self) -> bool:
        """Whether each of its rows is made of one row of the source."""
        return self.look_back == timedelta(0)

    @cached_property
    def text(self) -> str:
        """The function's source, empty when it was typed at a prompt."""
        return source_of(self.function)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what the function and its helpers compute, see `definitions`."""
        return digest_of_function(self.function)

    def compute(self, frame: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
        """Run the function on its source and return its rows, checked and in canonical form, see `check`.

        Raises:
            StepFailed: the function raised, or its plan cannot be resolved on this source.
            InvalidInput: the result lacks a column, or one has a type that cannot be served.
        """
        schema = frame.lazy().collect_schema()
        try:
            result = self.function(frame.lazy())
            rows = result.lazy() if isinstance(result, pl.DataFrame) else result
            if isinstance(rows, pl.LazyFrame):
                rows.collect_schema()
        except FlyballError:
            raise
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "")[:300]
            raise StepFailed(
                f"the view {self.name} could not be computed ({type(error).__name__}: {reason})"
            ) from error
        if not isinstance(rows, pl.LazyFrame):
            raise InvalidInput(f"the view {self.name} returned a {type(result).__name__}; expected a LazyFrame")
        checked = self.check(rows)
        object.__setattr__(self, "_source_schema", dict(schema))  # a memo for `spec`, like a cached property
        return checked

    def check(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return computed rows in canonical form: entity, times in UTC microseconds, features; nothing else moves.

        A float feature that is not finite becomes null, because an online value is JSON, which has neither NaN nor
        infinity, and training must see what serving sees. Checking twice changes nothing.

        Raises:
            InvalidInput: a column is missing, a time has no zone, a type cannot be served; says what to do.
        """
        schema = rows.collect_schema()
        times = dict.fromkeys((self.event_time, self.known_at))
        for column in (*self.entity, *times):
            if column not in schema:
                role = "entity" if column in self.entity else "event_time" if column == self.event_time else "known_at"
                raise InvalidInput(
                    f'the view {self.name} returned no column "{column}", its {role}'
                    f"{did_you_mean(column, schema)} (it returned {listed(schema)})"
                )
        for column in self.entity:
            _check_key(self.name, column, schema[column])
        features = [column for column in schema if column not in self.entity and column not in times]
        if not features:
            raise InvalidInput(f"the view {self.name} returned no feature beside its entity and times; select some")
        for column in self.defaults:
            if column not in features:
                near = did_you_mean(column, features)
                raise InvalidInput(f'the view {self.name} has a default for what is no feature, "{column}"{near}')
        return rows.select(
            *self.entity,
            *(instant(column, schema[column], f"the view {self.name}") for column in times),
            *(_served(self.name, column, schema[column]) for column in features),
        )

    def spec(self, source: pl.LazyFrame | pl.DataFrame | Mapping[str, Any] | None = None) -> ViewSpec:
        """Return the light description that serving uses. No data is read.

        Args:
            source: the data set, or its schema: names and Polars dtypes. None: as when it was last computed.

        Raises:
            StepFailed, InvalidInput: as `compute`; or it was never computed and no source is given.
        """
        source = vars(self).get("_source_schema") if source is None else source
        if source is None:
            raise InvalidInput(
                f"the view {self.name} has not been computed yet, so its features are not known; "
                f'give spec() the data set "{self.source}" or its schema'
            )
        frame = pl.LazyFrame(schema=dict(source)) if isinstance(source, Mapping) else source.lazy()
        schema = self.compute(frame).collect_schema()
        own = {*self.entity, self.event_time, self.known_at}
        return ViewSpec(
            self.name,
            self.entity,
            self.event_time,
            {column: _word(dtype) for column, dtype in schema.items() if column not in own},
            self.known_at if self.is_bitemporal else None,
            None if self.ttl is None else self.ttl.total_seconds(),
            self.defaults,
            self.version,
        )


def feature_view(
    *,
    entity: str | Sequence[str],
    event_time: str,
    known_at: str | None = None,
    ttl: str | timedelta | None = None,
    source: str | None = None,
    name: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    version: int = 1,
    owner: str | None = None,
    tags: Sequence[str] = (),
    incremental: bool = False,
    look_back: str | timedelta | None = None,
    source_time: str | None = None,
) -> Callable[[ViewFunction], FeatureView]:
    """Declare a function of one lazy frame as a feature view; see `FeatureView` for the arguments.

    Args:
        source: default: the name of the function's parameter.
        name: default: the function's.
        incremental: each row is made of one row of the source (columns computed, rows filtered out): what is added to
            the source is computed alone. Flyball takes this on trust.
        look_back: the same for a view of windows: how far back a row depends on the source, such as the period and the
            step of `windowed` together.
        source_time: the source's time column by which `look_back` counts; default: `event_time`.

    Raises:
        InvalidInput: no or a repeated entity, a wrong duration, a function that takes other than one frame.

    >>> @feature_view(entity="tailnum", event_time="arr_ts", ttl="2d")
    ... def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
    ...     return flights.select("tailnum", "arr_ts", previous_delay="arr_delay")
    >>> previous_leg.source, previous_leg.ttl.days
    ('flights', 2)
    """
    keys = (entity,) if isinstance(entity, str) else tuple(entity)
    span = None if ttl is None else parse_duration(ttl)
    depth = None if look_back is None else parse_duration(look_back)
    if incremental and depth:
        raise InvalidInput(
            "a view is either incremental, row by row, or has a look_back over several rows; give one of the two"
        )
    if depth == timedelta(0) and not incremental:
        raise InvalidInput("a look_back of zero means that each row stands alone; write incremental=True instead")

    def declare(function: ViewFunction) -> FeatureView:
        own_name = str(name or getattr(function, "__name__", ""))
        if not _NAME.fullmatch(own_name):
            raise InvalidInput(f"{own_name!r} is not a name for a view; give it one of letters, digits, _ . -")
        if not keys or len(set(keys)) < len(keys) or {event_time, known_at} & set(keys):
            raise InvalidInput(
                f"the view {own_name} has the entity {listed(keys)}; expected columns, each once, and no time column"
            )
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise InvalidInput(f"the view {own_name} has the version {version!r}; expected a whole number from 1")
        parameters = list(inspect.signature(function).parameters.values())
        required = [p for p in parameters if p.default is p.empty]
        if len(required) != 1 or required[0].kind not in (
            required[0].POSITIONAL_ONLY,
            required[0].POSITIONAL_OR_KEYWORD,
        ):
            raise InvalidInput(
                f"the view {own_name} takes {listed(p.name for p in required)}; expected one argument, the data set"
            )
        return FeatureView(
            own_name,
            keys,
            event_time,
            known_at or event_time,
            span,
            source or required[0].name,
            function,
            dict(defaults or {}),
            version,
            owner,
            tuple(tags),
            timedelta(0) if incremental else depth,
            None if depth is None else source_time or event_time,
        )

    return declare


def instant(column: str, dtype: Any, subject: str) -> pl.Expr:
    """Return the expression of a time column in UTC microseconds, Flyball's instants, whatever its zone and unit.

    Raises:
        InvalidInput: the column is not a time, or has no zone.
    """
    if not isinstance(dtype, pl.Datetime):
        raise InvalidInput(f'"{column}" of {subject} is {dtype}; expected a time with a zone, Datetime("us", "UTC")')
    if dtype.time_zone is None:
        raise InvalidInput(
            f'the time "{column}" of {subject} has no zone; say which it is in, for example '
            f'pl.col("{column}").dt.replace_time_zone("UTC")'
        )
    return pl.col(column).dt.convert_time_zone("UTC").dt.cast_time_unit("us")


def _check_key(view: str, column: str, dtype: pl.DataType) -> None:
    if not (dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)):
        raise InvalidInput(
            f'the entity "{column}" of the view {view} is {dtype}; expected text or whole numbers, cast it to String'
        )


def _served(view: str, column: str, dtype: pl.DataType) -> pl.Expr:
    """Return a feature's expression in the form that an online value keeps."""
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        return instant(column, dtype, f"the view {view}")
    if dtype.is_float():
        return pl.when(value.is_finite()).then(value).alias(column)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return value.cast(pl.String)
    if dtype.is_integer() or isinstance(dtype, pl.Boolean | pl.String):
        return value
    raise InvalidInput(
        f'the feature "{column}" of the view {view} is {dtype}, which cannot be looked up; expected a boolean, a '
        "number, text or a time with a zone: cast it, or take its parts"
    )


def _word(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    if isinstance(dtype, pl.Boolean):
        return "bool"
    if dtype.is_float():
        return "float64"
    return "int64" if dtype.is_integer() else "string"
