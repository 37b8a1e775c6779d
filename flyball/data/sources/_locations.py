"""`${NAME}` in a source's texts, and what must never be shown of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from flyball.data.reasons import reason_of
from flyball.data.sources._spelling import VARIABLE
from flyball.errors import InvalidInput, did_you_mean

__all__ = ["Environment", "shown"]

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")
_QUERY = re.compile(r"\?\S*")


class Environment:
    """The environment's variables, remembering which values were used, so that no message shows one."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables
        self._used: set[str] = set()

    def filled(self, value: Any) -> Any:
        """Return the value, in texts at any depth `${NAME}` being replaced. Raises InvalidInput: one is not set."""
        if isinstance(value, str):
            return VARIABLE.sub(lambda match: self._value(match[1]), value)
        if isinstance(value, Mapping):
            return {name: self.filled(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.filled(inner) for inner in value]
        return value

    def reason(self, error: BaseException) -> str:
        """Return what an error says, in one line and without any value that came from the environment."""
        text = _PASSWORD.sub(r"\1:***@", reason_of(error))
        for value in sorted(self._used, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, name: str) -> str:
        if name not in self._variables:
            near = did_you_mean(name, self._variables)
            raise InvalidInput(f"the source names ${{{name}}}, and no environment variable is called so{near}; set it")
        value = self._variables[name]
        if value:
            self._used.add(value)
        return value


def shown(location: str) -> str:
    """Return a location fit for messages: no password, no query.

    >>> shown("postgresql://ann:secret@db/x?sslmode=require")
    'postgresql://ann:***@db/x'
    """
    return _QUERY.sub("", _PASSWORD.sub(r"\1:***@", location))
