"""Log rows of requests of one row of numbers each, many at a time, as `PredictionLog.encode` writes them one by one.

The requests of a deployment differ in their numbers only. What they have in common is encoded once, and the numbers of
all requests that were answered together are turned into text by one call; the data plane's short way
(`serving.lane`) puts them into their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

__all__ = ["SingleRows", "texts_of"]

Array = np.ndarray[Any, Any]

_NULL = b"null"


class SingleRows:
    """Writes the rows that one version answers in one deployment.

    Arguments:
        deployment, revision, variant, version: as in `PredictionBatch`.
        inputs: the names of the inputs, in the order of the matrix' columns.
        outputs: of each output its name, and whether it is a list of values rather than one.
    """

    def __init__(
        self,
        deployment: str,
        revision: int,
        variant: str,
        version: str,
        inputs: Sequence[str],
        outputs: Sequence[tuple[str, bool]],
    ) -> None:
        head = {"deployment": deployment, "revision": revision, "variant": variant, "version": version}
        named = b",".join(_literal(name) + b":%b" for name in inputs)
        given = b",".join(_literal(name) + (b":[%b]" if is_list else b":%b") for name, is_list in outputs)
        self._template = (
            _literal(head)[:-1] + b',"at":%d,"latency_us":%d,"trace":%b,"ids":"%b","keys":null,"inputs":{' + named
        ) + (b'},"features":{},"outputs":{' + given + b"}}")

    def encode(
        self,
        at_us: int,
        ids: Sequence[bytes],
        latencies_us: Sequence[int],
        traces: Sequence[str | None],
        inputs: Array,
        outputs: Sequence[Sequence[bytes]],
    ) -> list[bytes]:
        """Return a payload for each row.

        Args:
            at_us: when they were answered, in microseconds since 1970 UTC.
            inputs: the matrix (rows, inputs), float64 and C-ordered; NaN is written as null.
            outputs: by output and row, as `texts_of` returns them.
        """
        template = self._template
        numbers = orjson.dumps(inputs, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
        return [
            template
            % (at_us, latency, _NULL if trace is None else orjson.dumps(trace), id_, *row.split(b","), *answered)
            for id_, latency, trace, row, answered in zip(
                ids, latencies_us, traces, numbers, zip(*outputs, strict=True), strict=True
            )
        ]


def texts_of(values: Array) -> list[bytes] | None:
    """Return the JSON of each row's value, or of its values with commas between; None for what JSON has no plain form.

    Args:
        values: of shape (rows,), or (rows, values) with at least one; numbers, booleans or texts.
    """
    if values.dtype.kind in "fiub" and values.dtype.itemsize != 2 and values.size:
        array = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
        text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
        if values.ndim == 1:
            return text[1:-1].split(b",")
        if values.ndim == 2:
            return text[2:-2].split(b"],[")
        return None
    plain = values.tolist() if values.ndim == 1 and values.dtype.kind in "OU" else [None]
    if set(map(type, plain)) != {str}:
        return None
    try:
        return [orjson.dumps(value) for value in plain]
    except TypeError:  # half of a surrogate pair
        return None


def _literal(value: Any) -> bytes:
    """Return a value's JSON as it stands in a template."""
    return orjson.dumps(value).replace(b"%", b"%%")
