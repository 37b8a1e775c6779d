"""Turn the values of one input into a checked NumPy array; called by `signature` for every request.

The quick way looks at the set of types in the column once and lets NumPy convert. Only when that set is not as
expected, or a number is not finite, are values looked at one by one, to name the row and to show the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from flyball.models.fields import Field

__all__ = ["column", "shown", "tensor"]

Column = np.ndarray[Any, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NONE = type(None)
_QUICK: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "int64": frozenset({int}),
    "float64": frozenset({int, float}),
    "string": frozenset({str}),
    "datetime": frozenset(),
}
_WANTED = {
    "bool": "true or false",
    "int64": "a whole number",
    "float64": "a number",
    "string": "a text",
    "datetime": "a time such as 2026-11-20T08:00:00Z",
}
# A float64 holds every integer up to here; beyond it a nullable integer column would be rounded in silence.
_EXACT_INTEGER = 2**53


def column(field: Field, values: Sequence[Any] | Column, subject: str) -> Column:
    """Return the values of a tabular input as an array of shape (rows,).

    bool → bool, int64 → int64, float64 → float64, string → object (str), datetime → datetime64[us] (UTC). A missing
    value (None, or NaN in a number) is NaN, None or NaT; nullable bool and int64 columns become float64 to hold NaN.

    Raises:
        InvalidInput: a value has the wrong type, is infinite, or is missing where the field is not nullable.
    """
    if isinstance(values, np.ndarray):
        return _from_array(field, values, subject)
    kinds = set(map(type, values))
    extra = kinds - _QUICK[field.dtype]
    if not extra or (field.nullable and extra == {_NONE}):
        try:
            found = _convert(field, values, bool(extra))
            if found is not None:
                return found
        except (OverflowError, UnicodeEncodeError):
            pass  # a value does not fit; below finds which
    cleaned = [_checked(field, value, row, subject) for row, value in enumerate(values)]
    converted = _convert(field, cleaned, None in cleaned, trusted=True)
    assert converted is not None
    return converted


def tensor(field: Field, value: object, subject: str) -> Column:
    """Return the value of a tensor input with the field's dtype, its shape checked (−1 matches any size).

    Raises:
        InvalidInput: ragged or not numeric, wrong shape, out of range, or not finite where the field is not nullable.
    """
    assert field.shape is not None
    where = f'{subject}: the input "{field.name}"'
    if field.dtype == "string":
        array = _strings(value, where)
    else:
        array = _numbers(field, value, where)
    fits = array.ndim == len(field.shape) and all(
        want in (-1, have) for want, have in zip(field.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidInput(f"{where} has shape {list(array.shape)}; expected {list(field.shape)} (-1 is any size)")
    return array


def shown(value: object) -> str:
    """Return a value as JSON users know it, cut to 40 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = f'"{value[:60]}"' if isinstance(value, str) else repr(value)
    except Exception:  # a foreign object's repr may raise anything, and that of an int of 5,000 digits does
        text = f"a {type(value).__name__}"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 40 else text[:39] + "…"


def _convert(field: Field, values: Sequence[Any], has_none: bool, *, trusted: bool = False) -> Column | None:
    """Convert values whose types are known to be right; None when a number is not finite or a text not encodable."""
    dtype = field.dtype
    if dtype == "float64":
        numbers = np.array(values, np.float64)
        if not trusted and not _all_finite(values, numbers, has_none):
            return None
        return numbers
    if dtype == "string":
        # Unpaired surrogates are legal in JSON but in no encoding; the models' libraries crash on them later.
        if not trusted:
            for value in values:
                if value is not None and not value.isascii():
                    value.encode()
        texts = np.empty(len(values), object)
        texts[:] = values
        return texts
    if dtype == "datetime":
        return np.array(values, "datetime64[us]") if trusted else None
    if field.nullable:
        if dtype == "int64" and not trusted and any(v is not None and abs(v) > _EXACT_INTEGER for v in values):
            return None
        return np.array(values, np.float64)
    return np.array(values, np.bool_ if dtype == "bool" else np.int64)


def _all_finite(values: Sequence[Any], numbers: Column, has_none: bool) -> bool:
    if has_none:
        return not np.isinf(numbers).any() and int(np.isnan(numbers).sum()) == sum(v is None for v in values)
    if len(values) <= 64:  # a sum in Python is cheaper than two NumPy calls; an overflow only costs the long way
        return math.isfinite(sum(values))
    return bool(np.isfinite(numbers).all())


def _checked(field: Field, value: Any, row: int, subject: str) -> Any:
    """Return one value as the plain Python value that `_convert` takes, or raise naming the row."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)) or _is_nat(value):
        if field.nullable:
            return None
        raise _wrong(field, value, row, subject, "it is not nullable")
    try:
        return _CHECKS[field.dtype](value)
    except (ValueError, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise _wrong(field, value, row, subject, str(error) if isinstance(error, _ReasonError) else "") from None


class _ReasonError(ValueError):
    """Why a value of the right type is still refused."""


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    if not -(2**63) <= value < 2**63:
        raise _ReasonError("it does not fit in 64 bits")
    return value


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError
    try:
        number = float(value)
    except OverflowError:
        raise _ReasonError("it does not fit in 64 bits") from None
    if math.isinf(number):
        raise _ReasonError("infinity is refused")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _ReasonError("it holds an unpaired surrogate, which is not Unicode text") from None
    return str(value)


def _moment(value: Any) -> np.datetime64:
    """A time as UTC microseconds: ISO 8601 text, `datetime`, `datetime64`, or an integer of µs since 1970."""
    if isinstance(value, np.datetime64):
        micro: np.datetime64 = value.astype("datetime64[us]")
        return micro
    if type(value) is int:
        if not -(2**62) <= value < 2**62:
            raise _ReasonError("an integer time counts microseconds since 1970, and this one is out of range")
        return np.datetime64(value, "us")
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        raise TypeError
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = aware - _EPOCH
    return np.datetime64((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds, "us")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "bool": _boolean,
    "int64": _integer,
    "float64": _number,
    "string": _text,
    "datetime": _moment,
}


def _wrong(field: Field, value: object, row: int, subject: str, why: str) -> InvalidInput:
    reason = f" ({why})" if why else ""
    null = " or null" if field.nullable else ""
    return InvalidInput(
        f'{subject}: "{field.name}" in row {row} is {shown(value)}{reason}; expected {_WANTED[field.dtype]}{null}'
    )


def _is_nat(value: object) -> bool:
    return isinstance(value, np.datetime64) and bool(np.isnat(value))


def _from_array(field: Field, values: Column, subject: str) -> Column:
    """The same checks on an array, by its dtype where that decides and value by value where it does not."""
    if values.ndim != 1:
        raise InvalidInput(f'{subject}: "{field.name}" has shape {list(values.shape)}; expected one value a row')
    kind, dtype = values.dtype.kind, field.dtype
    if kind == "f" and dtype == "float64":
        numbers = values.astype(np.float64)
        finite = np.isfinite(numbers)
        if finite.all() or (field.nullable and not np.isinf(numbers).any()):
            return numbers
    elif kind in "iu" and dtype == "float64":
        return values.astype(np.float64)
    elif kind == "i" and dtype == "int64" and not field.nullable:
        return values.astype(np.int64)
    elif kind == "f" and dtype == "int64" and field.nullable:
        # A frame keeps a column of integers with gaps as floats.
        whole = np.isnan(values) | ((np.trunc(values) == values) & (np.abs(values) <= _EXACT_INTEGER))
        if whole.all():
            return values.astype(np.float64)
    elif kind == "b" and dtype == "bool":
        return values.astype(np.float64 if field.nullable else np.bool_)
    elif kind == "M" and dtype == "datetime" and (field.nullable or not np.isnat(values).any()):
        return values.astype("datetime64[us]")
    return column(field, values.astype(object).tolist() if kind != "M" else list(values), subject)


def _numbers(field: Field, value: object, where: str) -> Column:
    target = np.dtype(field.dtype)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError):
        raise InvalidInput(f"{where} is ragged or not numeric; expected an array of {field.dtype}") from None
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[target.kind]
    if array.size and array.dtype.kind not in allowed:
        raise InvalidInput(f"{where} holds {_KINDS.get(array.dtype.kind, 'other values')}; expected {field.dtype}")
    if target.kind in "iu" and array.size:
        limits = np.iinfo(target)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InvalidInput(f"{where} holds a number outside {limits.min} to {limits.max}, the range of {target}")
    with np.errstate(over="ignore"):
        cast = array.astype(target, copy=False)
    if target.kind == "f" and not np.isfinite(cast).all() and (not field.nullable or bool(np.isinf(cast).any())):
        raise InvalidInput(f"{where} holds a number that is not finite as {target}; replace it")
    return cast


def _strings(value: object, where: str) -> Column:
    try:
        array = np.array(value, object)
    except ValueError:
        raise InvalidInput(f"{where} is ragged; expected an array of texts") from None
    for text in array.flat:
        if not isinstance(text, str):
            raise InvalidInput(f"{where} holds {shown(text)}; expected texts only")
    return array


_KINDS = {"b": "booleans", "f": "fractions", "U": "texts", "S": "bytes", "O": "mixed or too large values"}
