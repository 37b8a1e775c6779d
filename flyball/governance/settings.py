"""What a home says of itself that policies go by."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GovernanceSettings"]


@dataclass(frozen=True)
class GovernanceSettings:
    """`[governance]` in flyball.toml, `FLYBALL_GOVERNANCE_…` in the environment."""

    region: str | None = None  # where this home's bytes are, in the words that datasets and policies use, such as eu
