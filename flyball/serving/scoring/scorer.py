"""Rows in frames, answered by one version of a model as the data plane answers them: checked, looked up, predicted.

A `Scorer` is made by `platform.scoring` for a deployment or a model. A block of rows is one call of the model; where a
block fails, it is halved until the rows that are to blame stand alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast, get_args

import numpy as np
import polars as pl

from flyball.errors import InvalidInput, StepFailed, did_you_mean, listed
from flyball.models.bundle import LoadedModel
from flyball.models.fields import Field
from flyball.serving.batcher import Columns, call_model
from flyball.serving.engine import Engine
from flyball.serving.lineup import ServedVariant
from flyball.serving.questions import Part, Question
from flyball.serving.scoring.columns import check_types, dtype_of, frame_of, values_of
from flyball.serving.snapshot import Variant
from flyball.tracking.predictions import Columns as LogColumns
from flyball.tracking.predictions import PredictionBatch

__all__ = ["ID", "REASON", "VERSION", "Errors", "Scorer", "check_errors", "check_kept", "variant_of"]

ID, VERSION, REASON = "prediction_id", "version", "reason"
Errors = Literal["refuse", "null"]
_Cause = InvalidInput | StepFailed


def variant_of(version: str, model: LoadedModel) -> ServedVariant:
    """Return a model by itself, whose rows give all its inputs."""
    variant = Variant("champion", version, model.bundle.digest)
    return ServedVariant(variant, model, model.signature, None, None)


def check_errors(errors: str) -> None:
    """Raise InvalidInput unless `errors` is a policy."""
    if errors not in get_args(Errors):
        raise InvalidInput(f'errors is "{errors}"{did_you_mean(errors, get_args(Errors))}; expected refuse or null')


@dataclass(frozen=True)
class Scorer:
    """Answers frames by one version.

    Attributes:
        name: what the prediction log calls whoever answers: the deployment, or the model.
        revision: the deployment's; 0 of a model by itself.
        by: the version, with the features that it looks up.
        engine: looks up features.
        at: as of when; None: now.
        errors: `refuse` a frame for the first row that cannot be answered, or answer it with nulls and a reason.
    """

    name: str
    revision: int
    by: ServedVariant
    engine: Engine
    at: datetime | None = None
    errors: Errors = "refuse"

    @property
    def version(self) -> str:
        """Who answers, like `late@2`."""
        return self.by.variant.version

    @property
    def fields(self) -> tuple[Field, ...]:
        """The inputs that rows give."""
        return self.by.request.inputs if self.by.request is not None else ()

    @property
    def outputs(self) -> tuple[Field, ...]:
        """What comes out."""
        return self.by.model.signature.outputs

    @property
    def looks_up(self) -> bool:
        """Whether answers depend on the time at which features are looked up."""
        return self.by.features is not None and bool(self.by.features.views)

    def needed(self, schema: pl.Schema) -> list[str]:
        """Return the columns of a table that are read: inputs, and what features are looked up by.

        Raises:
            InvalidInput: one is missing, or of a type that cannot be such an input.
        """
        by = self.by.features
        fields = list(by.fields) if by is not None else []
        inputs = [field.name for field in self.fields]
        optional = by.optional if by is not None else frozenset()
        check_types(self.fields, [n for n in fields if n not in optional and n not in inputs], schema, self.version)
        return list(dict.fromkeys([*inputs, *(name for name in fields if name in schema)]))

    def answer(self, rows: pl.DataFrame, first: int = 0) -> tuple[pl.DataFrame, pl.Series]:
        """Return the outputs of each row, and for each row why there are none, or null.

        Args:
            rows: the columns of `needed`.
            first: the number of the first row, for messages.

        Raises:
            InvalidInput, StepFailed: a row cannot be answered, and `errors` is refuse; names the row.
        """
        parts = self._parts(rows, first)
        frames, reasons = [], []
        for count, outputs, reason in parts:
            if outputs is not None:
                frames.append(frame_of(outputs, self.outputs))
            else:
                frames.append(self._nothing(count))
            reasons += [reason] * count
        whole = pl.concat(frames, how="diagonal") if len(frames) > 1 else frames[0]
        return whole, pl.Series(REASON, reasons, dtype=pl.String)

    def records(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | _Cause]:
        """Return for each record its outputs, or why there are none."""
        found: list[dict[str, Any] | _Cause] = []
        waiting = [(0, len(records))] if records else []
        while waiting:
            start, stop = waiting.pop()
            try:
                part = self._part(Question(self.name, records=list(records[start:stop])), stop - start)
                outputs = self._call(part)
            except (InvalidInput, StepFailed) as error:
                if stop - start == 1:
                    found.append(error)
                else:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
                continue
            lists = {name: np.asarray(values).tolist() for name, values in outputs.items()}
            found += [{name: values[row] for name, values in lists.items()} for row in range(stop - start)]
        return found

    def logged(
        self, rows: Mapping[str, Any], outputs: Mapping[str, Any], ids: Sequence[str], now: datetime, began: float
    ) -> PredictionBatch:
        """Return answered rows as the prediction log takes them; `began` is of `time.perf_counter`."""
        return PredictionBatch(
            self.name,
            self.revision,
            self.by.variant.name,
            self.version,
            now,
            ids,
            cast(LogColumns, rows),
            cast(LogColumns, outputs),
            latency_us=int((time.perf_counter() - began) * 1e6),
        )

    def _parts(self, rows: pl.DataFrame, first: int) -> list[tuple[int, Columns | None, str | None]]:
        """Answer rows together; where that fails, halve them."""
        parts: list[tuple[int, Columns | None, str | None]] = []
        waiting = [(0, rows.height)]
        fields = {field.name: field for field in self.fields}
        while waiting:
            start, stop = waiting.pop()
            piece = rows.slice(start, stop - start)
            try:
                question = Question(self.name, columns=values_of(piece, fields), at=self.at)
                parts.append((stop - start, self._call(self._part(question, stop - start)), None))
            except (InvalidInput, StepFailed) as error:
                if stop - start > 1:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
                    continue
                text = str(error).replace("row 0", f"row {first + start}")
                if self.errors == "refuse":
                    raise type(error)(text) from error
                parts.append((1, None, text))
        return parts

    def _part(self, question: Question, rows: int) -> Part:
        return self.engine.part(question, self.by, [""] * rows)

    def _call(self, part: Part) -> Columns:
        return call_model(self.by.model.predict, part.columns, len(part.ids), self.version)

    def _nothing(self, rows: int) -> pl.DataFrame:
        known = {field.name: dtype_of(field) or pl.Null() for field in self.outputs}
        return pl.DataFrame({name: pl.Series(name, [None] * rows, dtype=dtype) for name, dtype in known.items()})


def check_kept(keep: Sequence[str], schema: pl.Schema, outputs: Sequence[Field]) -> None:
    """Check the columns of a table that are to stand beside the answers.

    Raises:
        InvalidInput: one is not there, or called as an output is.
    """
    taken = {ID, VERSION, REASON, *(field.name for field in outputs)}
    for name in keep:
        if name not in schema:
            raise InvalidInput(
                f'there is no column "{name}" to keep{did_you_mean(name, schema.names())} '
                f"(the rows have: {listed(schema.names())})"
            )
        if name in taken:
            raise InvalidInput(f'the column "{name}" cannot be kept: an output is called so; rename it first')
