"""Which access keys the data plane takes: from the ledger into the snapshot."""

from __future__ import annotations

from typing import Protocol

from flyball.clock import format_instant
from flyball.control import Outcome, World
from flyball.governance.identity import Principal
from flyball.ledger import Transaction
from flyball.serving.snapshot import CallerKey

__all__ = ["KeysController", "calling_keys"]

_ROLE = "operator"  # the least that may predict, as `platform.authority` says, which stands above this room


class _Renders(Protocol):
    def render(self, world: World) -> None:
        """Write the snapshot, if it differs from the one on disk."""
        ...


class KeysController:
    """Woken by what the journal says of `key/NAME`: the snapshot is written with the keys as they are now.

    Args:
        deployments: whose snapshot the data plane reads.
    """

    kind = "key"

    def __init__(self, deployments: _Renders) -> None:
        self._deployments = deployments

    def reconcile(self, name: str, world: World) -> Outcome:  # noqa: ARG002 (the snapshot holds all of them)
        self._deployments.render(world)
        return None


def calling_keys(reading: Transaction) -> tuple[CallerKey, ...]:
    """Return the keys whose role may predict, by name."""
    return tuple(
        CallerKey(
            key.name, key.digest, key.deployments, None if key.expires_at is None else format_instant(key.expires_at)
        )
        for key in reading.access_keys.all()
        if Principal("", key.role).has(_ROLE)
    )
