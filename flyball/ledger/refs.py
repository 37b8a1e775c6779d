"""References: how anything is named, everywhere the same: `dataset/flights@12`, `model/late@champion`, `run/41f3…`.

Models are also named by clients of MLflow, which take any text. In the ledger such a name stands percent-encoded
(`ledger_name`), so that it goes into references and addresses as it is; people read it decoded (`shown_name`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from flyball.errors import InvalidInput

__all__ = ["Ref", "check_alias", "check_name", "ledger_name", "ref", "shown_name"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_]|%[0-9A-F]{2})(?:[A-Za-z0-9_.\-]|%[0-9A-F]{2})*")
_ENCODED_KINDS = frozenset({"model"})  # whose names others choose; no file is named after them
_LONGEST = 800  # of an encoded name: an index of PostgreSQL takes 2,700 bytes, and an edge has two names
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
        name, version = shown_name(self.name), self.version
        return f"{name}@{shown_name(version)}" if version is not None else f"{self.kind}/{name}"

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
    check_name(name, found_kind)
    if at and not (_NAME.fullmatch(version) or _is_encoded(version)):
        raise InvalidInput(f'"{text}" has no version after the @; write a number or an alias')
    return Ref(found_kind, name, version if at else None)


def check_name(name: str, kind: str | None = None) -> str:
    """Return `name` if it may name a thing: letters, digits, `_ . -`, at most 128; of a model also as `ledger_name`.

    Raises:
        InvalidInput: it may not.
    """
    if isinstance(name, str) and (_NAME.fullmatch(name) or (kind in _ENCODED_KINDS and _is_ledger_name(name))):
        return name
    if kind in _ENCODED_KINDS and len(str(name)) > _LONGEST:
        raise InvalidInput(
            f"the name {shown_name(str(name))[:80]!r}… is too long: it takes {len(name):,} characters percent-encoded, "
            f"at most {_LONGEST} are possible"
        )
    raise InvalidInput(
        f"{str(name)[:80]!r} cannot be a name; use letters, digits, '_', '.' and '-', at most 128, "
        "starting with a letter, a digit or '_'"
    )


def check_alias(alias: str) -> str:
    """Return `alias` if it may be one: a name, or as `ledger_name` writes any text, but no version.

    Raises:
        InvalidInput: it may not.
    """
    if not (_NAME.fullmatch(alias) or _is_encoded(alias)):
        check_name(alias)
    if alias == "latest" or alias.isdecimal():
        raise InvalidInput(f'"{alias}" cannot be an alias: it already means a version')
    return alias


def ledger_name(text: str) -> str:
    """Return how any text stands in the ledger as a name: UTF-8, percent-encoded where names have no such character.

    >>> ledger_name("late ✈")
    'late%20%E2%9C%88'
    """
    if _NAME.fullmatch(text):
        return text
    encoded = "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))
    return f"%{ord(encoded[0]):02X}{encoded[1:]}" if encoded[:1] in (".", "-") else encoded


def shown_name(name: str) -> str:
    """Return a name as people read it: the text that `ledger_name` encoded.

    >>> shown_name("late%20%E2%9C%88")
    'late ✈'
    """
    return _unquoted(name) if "%" in name else name


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


@lru_cache(16_384)  # a search sorts all names by it
def _unquoted(name: str) -> str:
    return unquote(name, errors="replace")


def _is_encoded(name: str) -> bool:
    return len(name) <= _LONGEST and _ENCODED.fullmatch(name) is not None


def _is_ledger_name(name: str) -> bool:
    """Whether a name is the one way to write its text, so that no two models look the same."""
    return _is_encoded(name) and ledger_name(shown_name(name)) == name
