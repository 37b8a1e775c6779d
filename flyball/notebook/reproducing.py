"""What is different in a process that `flyball reproduce` started: it reads what the run read, and changes nothing.

The script runs as it is. Runs are written into a folder for comparison, data sets are read at the versions of then,
what would publish, register or declare does nothing again, and the home is open for reading only, so that anything
else that would change it (a deployment) is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from flyball.governance.identity import Principal

__all__ = ["VARIABLE", "Reproduced", "reproduced", "versions_read"]

VARIABLE = "FLYBALL_REPRODUCE"
"""The environment variable that says what is reproduced: JSON `{"run", "folder", "pins", "version"}`."""

versions_read: dict[str, int] = {}
"""The version of each data set that this process read last, by name; a run keeps it, to be reproduced from."""


@dataclass(frozen=True)
class Reproduced:
    """What this process reproduces. `pins` are versions of data sets by name, `version` the model that came of it."""

    run: str = ""
    folder: str = ""
    pins: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None

    @property
    def is_on(self) -> bool:
        """Whether this process reproduces a run."""
        return bool(self.run)

    @property
    def principal(self) -> Principal | None:
        """Who opens the home: somebody who may only read; None for whoever is there."""
        return Principal("system/reproduce", "viewer") if self.is_on else None


@cache
def reproduced() -> Reproduced:
    """Return what this process reproduces, by its environment."""
    told = os.environ.get(VARIABLE)
    return Reproduced(**json.loads(told)) if told else Reproduced()
