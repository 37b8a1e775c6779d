"""Which features a deployment looks up, and which the feature server answers: from the ledger into the snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flyball.control import Outcome, World
from flyball.errors import InvalidInput
from flyball.ledger import Transaction
from flyball.ledger.refs import ref
from flyball.serving.kinds import Deployment
from flyball.serving.snapshot import Snapshot

__all__ = ["FeaturesController", "definitions", "unmet"]


class _Renders(Protocol):
    def render(self, world: World) -> None:
        """Write the snapshot, if it differs from the one on disk."""
        ...


class FeaturesController:
    """Controller of the kinds `feature-view` and `feature-service`: what the feature server of the data plane answers.

    Args:
        kind: one of the two.
        deployments: whose snapshot the data plane reads.
    """

    def __init__(self, kind: str, deployments: _Renders) -> None:
        self.kind = kind
        self._deployments = deployments

    def reconcile(self, name: str, world: World) -> Outcome:  # noqa: ARG002 (the snapshot holds all of them)
        self._deployments.render(world)
        return None


def definitions(spec: Deployment, reading: Transaction, before: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the descriptions of all features that a deployment looks up, each once.

    Args:
        before: those that it is served with: a view that has moved on stays as a service has pinned it.

    Raises:
        InvalidInput: a service pins a version that is neither declared nor served any more.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in (ref(view, "feature-view").name for view in spec.features):
        found[name] = dict(reading.resources.get("feature-view", name).spec["definition"])
    if spec.service is None:
        return list(found.values())
    service = reading.resources.get("feature-service", ref(spec.service, "feature-service").name)
    for pinned in service.spec["views"]:
        name = ref(pinned["view"], "feature-view").name
        resource = reading.resources.get("feature-view", name)
        declared, version = dict(resource.spec["definition"]), pinned["version"]
        is_same_version = declared.get("version", 1) == version
        if is_same_version and resource.spec.get("digest") in (None, pinned["digest"]):
            found[name] = declared
            continue
        served = [d for d in before if d.get("name", d.get("on_request")) == name and d.get("version", 1) == version]
        if is_same_version or not served:
            raise InvalidInput(
                f"feature-service/{service.name} pins {name}@{version}, but feature-view/{name} is declared as "
                f"{name}@{declared.get('version', 1)} with another definition; declare the service again"
            )
        found[name] = dict(served[0])
    return list(found.values())


def unmet(spec: Deployment, reading: Transaction, before: Snapshot) -> str | None:
    """Return why a deployment's features cannot be looked up, None when they can."""
    try:
        definitions(spec, reading, [d for served in before.deployments.values() for d in served.features])
    except InvalidInput as error:
        return str(error)
    return None
