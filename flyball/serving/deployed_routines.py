"""A declared routine with its parts as they stand: from the ledger into the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.features.functions import FunctionSpec, is_function
from flyball.ledger import Transaction
from flyball.ledger.refs import ref
from flyball.ledger.versions import Version
from flyball.models.signature import Signature
from flyball.serving.kinds import Deployment
from flyball.serving.routines import Member, compose, with_functions

__all__ = ["routine_of", "uncomposed"]

_ALIAS = "champion"  # that a part follows unless it names another


def routine_of(spec: Deployment, reading: Transaction) -> dict[str, Any] | None:
    """Return a deployment's routine as the snapshot has it, each part at the version that its alias names now.

    Raises:
        NotFound: a part has no such version yet, or a function is not declared.
    """
    wanted = spec.routine
    if wanted is None:
        return None
    parts = []
    for part in wanted.parts:
        made = _version_of(part.model, reading)
        version = f"{made.name}@{made.number}"
        one = {"model": made.name, "version": version, "bundle": made.digest, "weight": part.weight}
        parts.append({**one, "when": list(part.when)})
    views = [reading.resources.get("feature-view", ref(name, "feature-view").name) for name in wanted.post]
    post = [dict(view.spec["definition"]) for view in views]
    return {"combine": wanted.combine, "parts": parts, "by": wanted.by, "weight": wanted.weight, "post": post}


def uncomposed(spec: Deployment, model: str, aliases: Mapping[str, int], reading: Transaction) -> str | None:
    """Return why a deployment's routine cannot be served: a part that is not there, or parts that do not fit."""
    wanted = spec.routine
    if wanted is None:
        return None
    try:
        parts = [_version_of(part.model, reading) for part in wanted.parts]
        described = routine_of(spec, reading)
        assert described is not None
        functions = [_function_of(document) for document in described["post"]]
        # The functions' types are known where they are loaded; here their names are enough.
        told = [
            (f.name, [n for n in f.inputs if n not in f.optional], dict.fromkeys(f.outputs, "float64"))
            for f in functions
        ]
        for number in {aliases[name] for name in (_ALIAS, "challenger") if name in aliases}:
            own = reading.versions.get("model", model, number)
            members = [
                *(
                    Member(p.name, _signature(p), said.weight, tuple(said.when))
                    for p, said in zip(parts, wanted.parts, strict=True)
                ),
                Member(model, _signature(own), wanted.weight),
            ]
            with_functions(compose(wanted.combine, members, wanted.by), told)
    except FlyballError as error:
        return f"the routine cannot be served: {error}"
    return None


def _version_of(target: str, reading: Transaction) -> Version:
    found = ref(target, "model")
    try:
        return reading.versions.get("model", found.name, found.version or _ALIAS)
    except NotFound:
        raise NotFound(f"model/{found.name} has no version {found.version or _ALIAS} yet") from None


def _function_of(document: Mapping[str, Any]) -> FunctionSpec:
    if not is_function(document):
        raise InvalidInput(f"{document.get('name')} is a view; after a model stand request-time functions only")
    return FunctionSpec.from_dict(document)


def _signature(version: Version) -> Signature:
    kept = version.metadata.get("signature")
    if kept is None:
        raise InvalidInput(f"{version.ref.short} has no signature")
    return Signature.from_dict(kept)
