"""The snapshot: the one document that says what the data plane serves.

The deployment controller writes it (control plane), the data plane reads it again when it changes; nothing else is
shared between the two, so either may die. It is replaced whole, by rename, and checked whole before it is used.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from flyball.clock import parse_instant
from flyball.errors import Corrupt, Incompatible, InvalidInput, NotFound, did_you_mean, listed
from flyball.storage.blobs import check_digest

__all__ = [
    "FORMAT",
    "CallerKey",
    "ContextArm",
    "Contextual",
    "Limits",
    "Logging",
    "Part",
    "Routine",
    "ServedDeployment",
    "Snapshot",
    "Variant",
    "contextual_of",
    "parse",
    "parse_routine",
    "read",
    "write",
]

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WEIGHT_STEP = 0.01  # per cent: what the router resolves


@dataclass(frozen=True, slots=True)
class Variant:
    """A model version that gets a share of the requests."""

    name: str  # champion, canary, baseline, …
    version: str  # "late@2"
    bundle: str  # digest of the bundle's manifest
    weight: float = 100.0  # per cent of the keys, in steps of 0.01


@dataclass(frozen=True, slots=True)
class Logging:
    """What the prediction log keeps of a deployment."""

    requests: float = 1.0  # share of requests that are logged; "all" in the document is 1
    durability: Literal["disk", "os"] = "disk"  # disk: survives power loss; os: survives kill -9, and is faster
    when_full: Literal["refuse", "drop"] = "refuse"  # refuse the answer, or lose the row and count it


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one deployment may take; None: no bound of its own."""

    queue_rows: int = 4096  # rows waiting for a model; more are refused with 503
    batch_rows: int = 256  # rows in one call of the model; a larger request is cut into several calls
    request_rows: int = 100_000  # rows in one request
    concurrency: int | None = None  # requests in flight; more are refused with 503
    timeout_s: float | None = None  # then the answer is 504, though the model computes on
    body_bytes: int | None = None  # of one request, as sent and decompressed; more is 413
    rate: float | None = None  # requests a second; more are refused with 429
    burst: int | None = None  # requests at once after a pause; None: those of a second
    key_rate: float | None = None  # as `rate`, of each access key
    key_burst: int | None = None


@dataclass(frozen=True, slots=True)
class ContextArm:
    """One arm's regression of rewards on x = (1, *inputs): `weights` · x is expected, |`spread` x| its deviation."""

    name: str  # of the variant
    weights: tuple[float, ...]
    spread: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Contextual:
    """How the variant of a request is drawn by its context, see `serving.contextual`."""

    policy: Literal["linear_ucb", "linear_thompson"]
    inputs: tuple[str, ...]
    least: float  # the probability that every arm keeps
    arms: tuple[ContextArm, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Another model's version that takes part in a routine."""

    model: str
    version: str  # "weather@5"
    bundle: str
    weight: float = 1.0  # in a mean or a vote
    when: tuple[str | int | float | bool, ...] = ()  # of a router: the values of `by` that it is asked for


@dataclass(frozen=True, slots=True)
class Routine:
    """How the variants' model and other models answer together; see `serving.routines`."""

    combine: Literal["chain", "mean", "vote", "router"] = "chain"
    parts: tuple[Part, ...] = ()
    by: str | None = None
    weight: float = 1.0  # of the variants' model
    post: tuple[Mapping[str, Any], ...] = ()  # descriptions of the functions after the models


@dataclass(frozen=True)
class ServedDeployment:
    """One deployment as the data plane needs it.

    `variants[0]` is the champion, which takes the keys that the others leave. `key` names the field whose value routes
    a row stickily; without it each request is routed by its id. `mirrors` get a copy of their `weight` of the requests
    and answer only into the log. `mask` names inputs that never reach the log.
    """

    revision: int
    salt: str
    variants: tuple[Variant, ...]
    key: str | None = None
    mirrors: tuple[Variant, ...] = ()
    features: tuple[Mapping[str, Any], ...] = ()
    mask: tuple[str, ...] = ()
    log: Logging = Logging()
    limits: Limits = Limits()
    clear: tuple[str, ...] = ()  # inputs that are not masked, though they are protected where they come from
    contextual: Contextual | None = None  # a variant is drawn by context instead of by the hash of a key
    routine: Routine | None = None  # the variants' model answers together with others


@dataclass(frozen=True, slots=True)
class CallerKey:
    """An access key that may ask for predictions, where keys are required."""

    name: str
    digest: str  # SHA-256 of the secret
    deployments: tuple[str, ...] = ()  # empty: all
    expires_at: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """All deployments of a home at one moment, and its features; `generation` grows with every change.

    `features` are the descriptions of all feature views and request-time functions by name, and `services` the names
    that each feature service has: what the feature server answers, whether a deployment uses them or not.
    """

    generation: int
    deployments: Mapping[str, ServedDeployment] = field(default_factory=dict)
    format: int = FORMAT
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    services: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keys: tuple[CallerKey, ...] = ()

    def validate(self) -> Snapshot:
        """Return self if it can be served.

        Raises:
            InvalidInput: a name, digest, weight or limit is wrong, or the weights of a deployment do not make 100 %.
            Incompatible: the format is not this release's.
        """
        if self.format != FORMAT:
            raise Incompatible(
                f"the serving snapshot has format {self.format!r}, this release reads format {FORMAT}; "
                "start control plane and data plane of the same release"
            )
        _check(_is_int(self.generation, 0), "generation", self.generation, "a whole number from 0")
        for name, deployment in self.deployments.items():
            _check(isinstance(name, str) and bool(_NAME.fullmatch(name)), "deployment", name, "a name")
            _validate_deployment(f"deployment/{name}", deployment)
        for name, document in self.features.items():
            _check(isinstance(document, Mapping), f"feature {name}", document, "an object")
        for name, features in self.services.items():
            known = isinstance(features, list | tuple) and all(f in self.features for f in features)
            _check(known, f"feature service {name}", features, "a list of features of the snapshot")
        for key in self.keys:
            _validate_key(key)
        return self


def read(path: Path) -> Snapshot:
    """Read and check the document.

    Raises:
        NotFound: there is no document.
        Corrupt: it is not JSON.
        InvalidInput, Incompatible: it cannot be served, see `Snapshot.validate`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no serving snapshot at {path}") from None
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Corrupt(f"the serving snapshot {path} is not JSON ({error}); apply the deployments again") from None
    return parse(document)


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace the document; a reader sees the old one or the new one, and so does a machine that lost power.

    Raises:
        InvalidInput, Incompatible: it could not be served; nothing was written.
    """
    snapshot.validate()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
    try:
        with partial.open("xb") as stream:
            stream.write(orjson.dumps(dataclasses.asdict(snapshot), option=orjson.OPT_INDENT_2))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse(document: object) -> Snapshot:
    """Return the snapshot that a JSON value describes.

    Raises:
        InvalidInput, Incompatible: unknown or missing field, or a wrong value.
    """
    if isinstance(document, Mapping) and document.get("format", FORMAT) != FORMAT:
        Snapshot(0, format=document["format"]).validate()  # before the fields, which another format may name otherwise
    fields = _fields(Snapshot, document, "the serving snapshot")
    deployments = fields.get("deployments", {})
    _check(isinstance(deployments, Mapping), "deployments", deployments, "an object")
    parsed = {name: _deployment(f"deployment/{name}", value) for name, value in deployments.items()}
    for name in ("features", "services"):
        _check(isinstance(fields.get(name, {}), Mapping), name, fields.get(name), "an object")
    keys = fields.get("keys", [])
    _check(isinstance(keys, list | tuple), "keys", keys, "a list")
    known = tuple(_key(document) for document in keys)
    return Snapshot(**{**fields, "deployments": parsed, "keys": known}).validate()


def _key(document: object) -> CallerKey:
    fields = _fields(CallerKey, document, "a key")
    named = fields.get("deployments", [])
    _check(isinstance(named, list | tuple), "the deployments of a key", named, "a list")
    return CallerKey(**{**fields, "deployments": tuple(named)})


def _deployment(where: str, document: object) -> ServedDeployment:
    fields = _fields(ServedDeployment, document, where)
    for name in ("variants", "mirrors"):
        if name in fields:
            _check(isinstance(fields[name], Sequence), f"{where} {name}", fields[name], "a list")
            fields[name] = tuple(Variant(**_fields(Variant, v, f"{where} {name}")) for v in fields[name])
    for name in ("features", "mask", "clear"):
        if name in fields:
            _check(isinstance(fields[name], Sequence), f"{where} {name}", fields[name], "a list")
            fields[name] = tuple(fields[name])
    if "log" in fields:
        log = _fields(Logging, fields["log"], f"{where} log")
        if log.get("requests") == "all":
            log["requests"] = 1.0
        fields["log"] = Logging(**log)
    if fields.get("contextual") is not None:
        fields["contextual"] = _contextual(f"{where} contextual", fields["contextual"])
    if fields.get("routine") is not None:
        fields["routine"] = parse_routine(fields["routine"], where)
    if "limits" in fields:
        fields["limits"] = Limits(**_fields(Limits, fields["limits"], f"{where} limits"))
    return ServedDeployment(**fields)


def contextual_of(document: object) -> Contextual | None:
    """Return how variants are drawn by context as a deployment's status describes it, None where they are not."""
    return None if document is None else _contextual("contextual", document)


def _contextual(where: str, document: object) -> Contextual:
    fields = _fields(Contextual, document, where)
    for name in ("inputs", "arms"):
        _check(isinstance(fields[name], list | tuple), f"{where} {name}", fields[name], "a list")
    arms = []
    for one in fields["arms"]:
        arm = _fields(ContextArm, one, f"{where} arm")
        rows = [arm["weights"], *arm["spread"]] if isinstance(arm["spread"], list | tuple) else [None]
        _check(all(isinstance(row, list | tuple) for row in rows), f"{where} arm", "…", "lists of numbers")
        arms.append(ContextArm(arm["name"], tuple(arm["weights"]), tuple(tuple(row) for row in arm["spread"])))
    return Contextual(**{**fields, "inputs": tuple(fields["inputs"]), "arms": tuple(arms)})


def parse_routine(document: object, where: str) -> Routine:
    """Return the routine that a JSON value describes. Raises InvalidInput."""
    routine = _fields(Routine, document, f"{where} routine")
    for name in ("parts", "post"):
        _check(isinstance(routine.get(name, []), list | tuple), f"{where} routine {name}", "…", "a list")
    parts = [_fields(Part, part, f"{where} part") for part in routine.get("parts", ())]
    for part in parts:
        for name in ("model", "version", "bundle"):
            _check(_is_text(part[name]), f"{where} part {name}", part[name], "text")
        check_digest(part["bundle"])
        _check(
            _is_number(part.get("weight", 1.0), 0, 1e9), f"{where} part weight", part.get("weight"), "a number from 0"
        )
        _check(isinstance(part.get("when", []), list | tuple), f"{where} part when", "…", "a list of values")
    combine = routine.get("combine", "chain")
    _check(combine in ("chain", "mean", "vote", "router"), f"{where} combine", combine, "chain, mean, vote or router")
    post = tuple(routine.get("post", ()))
    _check(all(isinstance(one, Mapping) for one in post), f"{where} routine post", "…", "a list of objects")
    made = tuple(Part(**{**part, "when": tuple(part.get("when", ()))}) for part in parts)
    return Routine(**{**routine, "parts": made, "post": post})


def _fields(cls: type[Any], document: object, where: str) -> dict[str, Any]:
    """Return the members of a JSON object after checking their names against a dataclass."""
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{where} is {str(document)[:40]!r}; expected an object")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in document:
        if name not in known:
            raise InvalidInput(
                f'{where} has an unknown field "{name}"{did_you_mean(name, known)} (known: {listed(known)})'
            )
    for name, f in known.items():
        if name not in document and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InvalidInput(f'{where} lacks the field "{name}"')
    return dict(document)


def _validate_key(key: CallerKey) -> None:
    _check(_is_text(key.name), "the name of a key", key.name, "text")
    is_digest = isinstance(key.digest, str) and bool(_DIGEST.fullmatch(key.digest))
    _check(is_digest, f"the digest of the key {key.name}", "…", "a SHA-256")
    _check(all(_is_text(one) for one in key.deployments), f"the key {key.name}", key.deployments, "names")
    if key.expires_at is not None:
        _check(_is_text(key.expires_at), f"the end of the key {key.name}", key.expires_at, "a time")
        parse_instant(key.expires_at)


def _validate_deployment(where: str, deployment: ServedDeployment) -> None:
    _check(_is_int(deployment.revision, 0), f"{where} revision", deployment.revision, "a whole number from 0")
    _check(isinstance(deployment.salt, str), f"{where} salt", deployment.salt, "text")
    _check(deployment.key is None or _is_text(deployment.key), f"{where} key", deployment.key, "a field's name")
    _check(len(deployment.variants) > 0, f"{where} variants", [], "at least one")
    names = [v.name for v in (*deployment.variants, *deployment.mirrors)]
    _check(len(set(names)) == len(names), f"{where} variants", names, "different names")
    for variant in (*deployment.variants, *deployment.mirrors):
        _check(_is_text(variant.name), f"{where} variant name", variant.name, "text")
        _check(_is_text(variant.version), f"{where} variant version", variant.version, "text like late@2")
        _check(isinstance(variant.bundle, str), f"{where} variant bundle", variant.bundle, "a digest")
        check_digest(variant.bundle)
        weight, steps = variant.weight, 1 / _WEIGHT_STEP
        is_weight = _is_number(weight, 0, 100) and abs(weight * steps - round(weight * steps)) < 1e-6
        _check(is_weight, f"{where} variant weight", weight, "per cent from 0 to 100 in steps of 0.01")
    total = sum(v.weight for v in deployment.variants)
    _check(abs(total - 100) < _WEIGHT_STEP / 2, f"{where} total weight", total, "100")
    _check(
        all(isinstance(f, Mapping) for f in deployment.features),
        f"{where} features",
        "…",
        "a list of objects",
    )
    if deployment.contextual is not None:
        _validate_contextual(f"{where} contextual", deployment, deployment.contextual)
    _check(all(_is_text(m) for m in deployment.mask), f"{where} mask", deployment.mask, "a list of fields")
    _check(
        _is_number(deployment.log.requests, 0, 1),
        f"{where} log requests",
        deployment.log.requests,
        '"all" or 0 to 1',
    )
    _check(
        deployment.log.durability in ("disk", "os"),
        f"{where} durability",
        deployment.log.durability,
        "disk or os",
    )
    _check(
        deployment.log.when_full in ("refuse", "drop"),
        f"{where} when_full",
        deployment.log.when_full,
        "refuse or drop",
    )
    for name, value in dataclasses.asdict(deployment.limits).items():
        if name in ("timeout_s", "rate", "key_rate"):
            holds = value is None or (_is_number(value, 0, 1e9) and value > 0)
            _check(holds, f"{where} limits {name}", value, "a number above 0")
        else:
            is_open = value is None and name not in ("queue_rows", "batch_rows", "request_rows")
            _check(is_open or _is_int(value, 1), f"{where} limits {name}", value, "a whole number from 1")


def _validate_contextual(where: str, deployment: ServedDeployment, found: Contextual) -> None:
    _check(found.policy in ("linear_ucb", "linear_thompson"), f"{where} policy", found.policy, "a linear policy")
    _check(len(found.inputs) > 0 and all(_is_text(n) for n in found.inputs), f"{where} inputs", found.inputs, "names")
    names = [arm.name for arm in found.arms]
    known = [variant.name for variant in deployment.variants]
    _check(sorted(names) == sorted(known), f"{where} arms", names, f"the variants {known}")
    _check(_is_number(found.least, 0, 1 / len(names)), f"{where} least", found.least, "a probability all can have")
    size = len(found.inputs) + 1
    for arm in found.arms:
        is_whole = len(arm.spread) == size and all(len(row) == size for row in (arm.weights, *arm.spread))
        numbers = [x for row in (arm.weights, *arm.spread) for x in row]
        is_finite = all(_is_number(x, -1e300, 1e300) for x in numbers)
        _check(is_whole and is_finite, f"{where} arm {arm.name}", "…", f"finite numbers, {size} a row")


def _check(holds: bool, what: str, value: object, expected: str) -> None:
    if not holds:
        raise InvalidInput(f"{what} is {str(value)[:80]!r}; expected {expected}")


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
