"""The bill of materials of a model version: a CycloneDX 1.6 ML-BOM as JSON.

The model is its subject, a component of type `machine-learning-model` with what is known of its model card; every
locked package of the bundle's environment is a component with its package URL and licence, and the dependency graph is
the one that was locked. The same version gives the same document, byte for byte.

The library builds all but the model card, which it does not know; that part is written here after the schema.
Source: CycloneDX 1.6 (ECMA-424), `modelCard`; the PEP 508 names of purl-spec's type `pypi`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flyball import __version__
from flyball.errors import MissingExtra
from flyball.models.bundle import Bundle

__all__ = ["Facts", "bill"]

_CONSIDERED = ("users", "useCases", "technicalLimitations", "performanceTradeoffs")


@dataclass(frozen=True)
class Facts:
    """What the registry knows of a version besides its bundle.

    Attributes:
        name, version: `late` and `3`.
        made_at: when it was registered.
        description: what the model is for.
        task: binary, multiclass or regression.
        datasets: (reference, SHA-256 of its version or None, role) of what it learnt from.
        metrics: name → {value, low, high}.
        slices: (column = value, metric, {value, low, high}) of the worst parts.
        considerations: users, useCases, technicalLimitations, performanceTradeoffs → sentences.
    """

    name: str
    version: str
    made_at: datetime | None = None
    description: str = ""
    task: str | None = None
    datasets: Sequence[tuple[str, str | None, str]] = ()
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slices: Sequence[tuple[str, str, Mapping[str, Any]]] = ()
    considerations: Mapping[str, Sequence[str]] = field(default_factory=dict)


def bill(bundle: Bundle, facts: Facts) -> bytes:
    """Return the bill as JSON.

    Raises:
        MissingExtra: cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise MissingExtra("cyclonedx-python-lib", "supply", "a bill of materials") from None
    model = Component(
        name=facts.name,
        version=facts.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{facts.name}@{facts.version}",
        description=facts.description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=bundle.digest)],
        properties=_properties(bundle),
    )
    packages = _packages(bundle.manifest["environment"])
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"flyball:{facts.name}@{facts.version}:{bundle.digest}"),
        components=packages.values(),
    )
    bom.metadata.component = model
    bom.metadata.tools.components.add(Component(name="flyball", version=__version__, type=ComponentType.APPLICATION))
    if facts.made_at is not None:
        bom.metadata.timestamp = facts.made_at
    locked = bundle.manifest["environment"].get("locked", {})
    needed = bundle.manifest["environment"].get("packages", {})
    bom.register_dependency(model, [packages[name] for name in {*needed, "flyball"} if name in packages])
    for name, package in packages.items():
        required = locked.get(name, {}).get("requires", ())
        bom.register_dependency(package, [packages[other] for other in required if other in packages])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    if facts.made_at is None:
        document["metadata"].pop("timestamp", None)
    document["metadata"]["component"]["modelCard"] = _model_card(bundle, facts)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _packages(environment: Mapping[str, Any]) -> dict[str, Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    licences = LicenseFactory()
    locked = environment.get("locked") or {n: {"version": v} for n, v in environment.get("packages", {}).items()}
    found = {}
    for name, package in sorted(locked.items()):
        url = PackageURL("pypi", None, name, package["version"])
        stated = package.get("licence")
        found[name] = Component(
            name=name,
            version=package["version"],
            type=ComponentType.LIBRARY,
            bom_ref=url.to_string(),
            purl=url,
            licenses=[licences.make_from_string(stated)] if stated else [],
        )
    return found


def _properties(bundle: Bundle) -> Iterable[Any]:
    from cyclonedx.model import Property

    environment = bundle.manifest["environment"]
    told = {
        "flyball:flavor": bundle.manifest["flavor"],
        "flyball:python": environment.get("python"),
        "flyball:platform": environment.get("platform"),
        "flyball:size_bytes": bundle.size_bytes,
    }
    return [Property(name=name, value=str(value)) for name, value in told.items() if value is not None]


def _model_card(bundle: Bundle, facts: Facts) -> dict[str, Any]:
    signature = bundle.signature
    parameters: dict[str, Any] = {
        "approach": {"type": "supervised"} if facts.task else None,
        "task": facts.task,
        "architectureFamily": bundle.manifest["flavor"],
        "datasets": [_dataset(*one) for one in facts.datasets],
        "inputs": [{"format": f"{each.name}: {each.dtype}"} for each in signature.inputs],
        "outputs": [{"format": f"{each.name}: {each.dtype}"} for each in signature.outputs],
    }
    measured = [_measured(name, interval) for name, interval in facts.metrics.items()]
    measured += [{**_measured(name, interval), "slice": where} for where, name, interval in facts.slices]
    considered = {key: list(facts.considerations[key]) for key in _CONSIDERED if facts.considerations.get(key)}
    card: dict[str, Any] = {"modelParameters": {key: value for key, value in parameters.items() if value}}
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    if considered:
        card["considerations"] = considered
    return card


def _dataset(reference: str, digest: str | None, role: str) -> dict[str, Any]:
    told = [{"name": "flyball:role", "value": role}]
    told += [{"name": "flyball:sha256", "value": digest}] if digest else []
    return {"type": "dataset", "name": reference, "contents": {"properties": told}}


def _measured(name: str, interval: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": name, "value": str(interval.get("value"))}
    if interval.get("low") is not None and interval.get("high") is not None:
        found["confidenceInterval"] = {"lowerBound": str(interval["low"]), "upperBound": str(interval["high"])}
    return found
