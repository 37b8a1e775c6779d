"""References: how anything is named, everywhere the same: `dataset/flights@12`, `model/late@champion`, `run/41f3…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flyball.errors import InvalidInput

__all__ = ["Ref", "check_name", "ref"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_KIND = re.compile(r"[a-z][a-z\-]{0,31}")


@dataclass(frozen=True, order=True)
class Ref:
    """A kind, a name, and perhaps a version (a number or an alias)."""

    kind: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f"@{self.version}" if self.version is not None else "")

    @property
    def short(self) -> str:
        """The reference as people read it in a sentence: `late@2`, `run 41f3a2b1`, `deployment/late`."""
        if self.kind == "run":
            return f"run {self.name[:8]}"
        return f"{self.name}@{self.version}" if self.version is not None else str(self)

    @property
    def resource(self) -> Ref:
        """The reference without its version."""
        return Ref(self.kind, self.name)


def ref(text: str, kind: str | None = None) -> Ref:
    """Parse `kind/name[@version]`; with `kind` given, `name[@version]` alone is enough.

    Raises:
        InvalidInput: not a reference, or of another kind than `kind`.

    >>> ref("late@2", "model")
    Ref(kind='model', name='late', version='2')
    """
    found_kind, slash, rest = text.partition("/")
    if not slash:
        if kind is None:
            raise InvalidInput(f'"{text}" is not a reference; write it like model/late or dataset/flights@12')
        found_kind, rest = kind, text
    if kind is not None and found_kind != kind:
        raise InvalidInput(f'"{text}" refers to a {found_kind}; expected a {kind}')
    name, at, version = rest.partition("@")
    if not _KIND.fullmatch(found_kind):
        raise InvalidInput(f'"{text}" is not a reference; "{found_kind}" is not a kind')
    check_name(name)
    if at and not _NAME.fullmatch(version):
        raise InvalidInput(f'"{text}" has no version after the @; write a number or an alias')
    return Ref(found_kind, name, version if at else None)


def check_name(name: str) -> str:
    """Return `name` if it may name a thing, else raise InvalidInput: letters, digits, `_ . -`, at most 128."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{str(name)[:80]!r} cannot be a name; use letters, digits, '_', '.' and '-', at most 128, "
            "starting with a letter, a digit or '_'"
        )
    return name
