"""Kinds: what a resource's spec may say and whom it refers to.

A room defines its kinds in `<room>/kinds.py` as pydantic models derived from `Spec`; the composition root imports
those modules. A field annotated as `Annotated[str, RefersTo("model")]` holds a reference, `late@champion` or
`model/late@champion`; the index of references, deletion checks, impact analysis and the wake-up rule all come from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pydantic
from pydantic import BaseModel, ConfigDict

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger.refs import Ref, ref

__all__ = ["Kind", "RefersTo", "Spec", "all_kinds", "kind_of", "register", "validate"]


@dataclass(frozen=True)
class RefersTo:
    """Marks text that is a reference: to `kind`, or to anything (then written with its kind) when that is `*`."""

    kind: str


class Spec(BaseModel):
    """Base of all specs: unknown fields are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, str_strip_whitespace=True)

    kind: ClassVar[str] = ""  # the word in references, such as "feature-view"
    title: ClassVar[str] = ""  # the word in files, such as "FeatureView"

    def references(self) -> set[Ref]:
        """Return every reference in this spec."""
        return set(_references(self))


@dataclass(frozen=True)
class Kind:
    """A registered kind: its word in references, its title in files, its spec."""

    word: str
    title: str
    spec: type[Spec]

    @property
    def plural(self) -> str:
        """The word for several: `models`, `policies`, `labels`."""
        if self.word.endswith("s"):
            return self.word
        return f"{self.word[:-1]}ies" if self.word.endswith("y") else f"{self.word}s"


_kinds: dict[str, Kind] = {}


def register(spec: type[Spec]) -> type[Spec]:
    """Make a kind known (a class decorator). The word comes from the class's name: `FeatureView` → `feature-view`."""
    title = spec.title or spec.__name__.removesuffix("Spec")
    word = spec.kind or re.sub(r"(?<!^)(?=[A-Z])", "-", title).lower()
    spec.title, spec.kind = title, word
    _kinds[word] = Kind(word, title, spec)
    return spec


def all_kinds() -> list[Kind]:
    """Return the known kinds by word."""
    return [_kinds[word] for word in sorted(_kinds)]


def kind_of(word: str) -> Kind:
    """Return a kind by its word, its title or the plural of either: `models`, `FeatureView`.

    Raises:
        InvalidInput: unknown; the message lists the kinds.
    """
    wanted = word.lower().replace("_", "-")
    for kind in _kinds.values():
        if wanted.replace("-", "") in {word.replace("-", "") for word in (kind.word, kind.plural)}:
            return kind
    known = [k.title for k in all_kinds()]
    raise InvalidInput(f'unknown kind "{word}"{did_you_mean(word, known)} (known: {listed(known)})')


def validate(word: str, name: str, spec: Mapping[str, Any]) -> Spec:
    """Return the typed spec.

    Raises:
        InvalidInput: the kind or a field is unknown, a value is wrong; one sentence that names the field.
    """
    kind = kind_of(word)
    try:
        typed = kind.spec.model_validate(dict(spec))
    except pydantic.ValidationError as error:
        raise InvalidInput(_sentence(kind, name, error)) from None
    typed.references()  # a malformed reference is refused here
    return typed


def _sentence(kind: Kind, name: str, error: pydantic.ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False)[:3]:
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(kind.spec, problem["loc"][:-1])
            problems.append(f'unknown field "{path}"{did_you_mean(str(problem["loc"][-1]), known)}')
        elif problem["type"] == "missing":
            problems.append(f'the field "{path}" is missing')
        elif isinstance(problem.get("input"), Mapping):  # of no help, and it may hold what must not be shown
            problems.append(f'"{path}": {problem["msg"].removeprefix("Value error, ")}')
        else:
            value = str(problem.get("input"))[:60]
            problems.append(f'"{path}" is {value!r}: {problem["msg"].removeprefix("Value error, ")}')
    return f"{kind.word}/{name}: " + "; ".join(problems)


def _fields_at(spec: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the nested model at `location`, as far as it can be followed."""
    model: Any = spec
    for part in location:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        if part in model.model_fields:
            model = next(iter(_models_in(model.model_fields[part].annotation)), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _references(model: BaseModel) -> Iterator[Ref]:
    for field_name, info in type(model).model_fields.items():
        value = getattr(model, field_name)
        marks = [m for m in info.metadata if isinstance(m, RefersTo)] or list(_marks_in(info.annotation))
        yield from _references_in(value, marks[0] if marks else None)


def _marks_in(annotation: Any) -> Iterator[RefersTo]:
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, RefersTo):
            yield mark
    for inner in getattr(annotation, "__args__", ()):
        yield from _marks_in(inner)


def _references_in(value: Any, mark: RefersTo | None) -> Iterator[Ref]:
    if isinstance(value, BaseModel):
        yield from _references(value)
    elif isinstance(value, str):
        if mark is not None:
            yield ref(value, None if mark.kind == "*" else mark.kind)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _references_in(inner, mark)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _references_in(inner, mark)
