"""A logged prediction explained later: from its row in the prediction log and the model that answered it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flyball.errors import Conflict, InvalidInput
from flyball.models.bundle import LoadedModel
from flyball.tracking.traffic import Prediction

__all__ = ["explain_logged"]


def explain_logged(found: Prediction, model: LoadedModel, is_approximate: bool = False) -> dict[str, Any]:
    """Return what each input did for a logged answer, as `Explanation.records` has it.

    The model answers the row again first: an explanation of another answer than the one that was given helps nobody.

    Raises:
        Conflict: the row does not give the logged answer, since what the log keeps is masked, or was erased.
        InvalidInput: see `models.explaining`.
    """
    row = {f.name: found.features.get(f.name, found.inputs.get(f.name)) for f in model.signature.inputs}
    told = f"the prediction {found.id} cannot be explained from the log"
    try:
        columns = model.signature.columns([row], subject=found.version)
    except InvalidInput as error:
        raise Conflict(f"{told}, whose values are masked or were erased: {error}") from None
    if not _are_same(found.outputs, model.predict(columns)):
        raise Conflict(f"{told}: its row gives another answer than was logged, since values are masked or were erased")
    return model.explain(columns, is_approximate).records()[0]


def _are_same(logged: Mapping[str, Any], outputs: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    for name, values in outputs.items():
        value, before = values[0], logged.get(name)
        if values.dtype.kind == "f":
            # The log has null where an output is not finite; BLAS may sum a batch otherwise in the last bits.
            then = np.asarray(np.nan if before is None else before, np.float64)
            now = np.where(np.isfinite(value), value, np.nan)
            if then.shape != now.shape or not np.allclose(then, now, rtol=1e-9, atol=1e-12, equal_nan=True):
                return False
        elif (value.tolist() if hasattr(value, "tolist") else value) != before:
            return False
    return True
