"""What monitors compare with: the blocks that training kept beside a version, as far as policies show them.

Nothing here reads a row of a data set. What the blocks tell is asked for like a read by a person: for a purpose, of
the columns that policies show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flyball.data.blocks import Blocks
from flyball.errors import FlyballError, NotFound, did_you_mean, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.monitoring.kinds import Monitor
from flyball.monitoring.windows import Reference, make_reference
from flyball.storage.blobs import BlobStore

__all__ = ["Ask", "References", "Watched"]


class Ask(Protocol):
    """Asks whether columns of a version may be looked at for a purpose, and notes that they were.

    Returns the columns that may not be seen as they are, each with who says so. Raises Forbidden.
    """

    def __call__(self, version: Ref, columns: Sequence[str], purpose: str | None) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Watched:
    """What one monitor compares with.

    Attributes:
        key: what it was made for.
        reference: calibrated; None when drift cannot be watched.
        why: what is not watched and why, as a sentence; None when all is.
    """

    key: tuple[Any, ...]
    reference: Reference | None
    why: str | None


class References:
    """The calibrated references of monitors, each made once.

    Args:
        blobs: where training keeps blocks.
        ask: the policies.
    """

    def __init__(self, blobs: BlobStore, ask: Ask) -> None:
        self._blobs = blobs
        self._ask = ask
        self._watched: dict[str, Watched] = {}  # by monitor

    def of(self, monitor: str, spec: Monitor, version: Version, *, is_due: bool) -> Watched:
        """Return what a monitor compares with.

        Args:
            is_due: windows are to be judged now, so policies are asked again.
        """
        known = self._watched.get(monitor)
        if is_due or known is None or known.reference is None or known.key[:2] != _key(spec, version):
            known = self._watched[monitor] = self._look_up(known, spec, version)
        return known

    def _look_up(self, before: Watched | None, spec: Monitor, version: Version) -> Watched:
        """Return the calibrated reference of a version: the one from before, where policies show the same columns."""
        assert spec.drift is not None
        key = _key(spec, version)
        try:
            kept = self._kept(version)
            columns, why = _columns(spec.drift.features, kept, version)
            hidden = self._ask(ref(version.metadata["trained_on"]), columns, spec.purpose) if columns else {}
        except FlyballError as error:
            return Watched((*key, ()), None, f"drift is not watched: {error}")
        why += [f'"{column}" is not watched: {who} hides it' for column, who in sorted(hidden.items())]
        seen = tuple(column for column in columns if column not in hidden)
        told = "; ".join(why) or None
        if not seen:
            return Watched((*key, ()), None, f"drift is not watched: {told}")
        if before is not None and before.key == (*key, seen) and before.reference is not None:
            return Watched(before.key, before.reference, told)
        reference = make_reference(
            kept,
            seen,
            window=spec.drift.window,
            false_alarms=spec.drift.false_alarms,
            horizon=spec.drift.horizon,
            persistence=spec.drift.persistence,
        )
        return Watched((*key, seen), reference, told)

    def _kept(self, version: Version) -> Blocks:
        """Return what training kept of the rows. Raises NotFound: nothing, says why."""
        if version.metadata.get("trained_on") is None:
            raise NotFound(f"{version.ref.short} does not say which rows it learnt from; register it with them")
        kept = version.metadata.get("reference")
        if kept is None:
            raise NotFound(
                f"nothing was kept of the rows that {version.ref.short} learnt from, by an older release; "
                "register it again"
            )
        if "blob" not in kept:
            raise NotFound(f"nothing could be kept of the rows that {version.ref.short} learnt from: {kept['why']}")
        return Blocks.from_bytes(self._blobs.get(kept["blob"]))


def _key(spec: Monitor, version: Version) -> tuple[Any, ...]:
    """Return what a reference depends on, besides what policies show of it."""
    return version.digest, (spec.drift.model_dump_json() if spec.drift else "", spec.purpose)


def _columns(wanted: str | Sequence[str], kept: Blocks, version: Version) -> tuple[list[str], list[str]]:
    """Return the columns that can be watched, and sentences of those that cannot. Raises NotFound: one is unknown."""
    if not isinstance(wanted, str):
        known = [*kept.profiles, *kept.left_out]
        for name in wanted:
            if name not in known:
                raise NotFound(
                    f'{version.ref.short} has no input "{name}"{did_you_mean(name, known)} (it has: {listed(known)})'
                )
    names = [*kept.profiles, *kept.left_out] if isinstance(wanted, str) else list(wanted)
    left_out = [f'"{name}" is not watched: {kept.left_out[name]}' for name in names if name in kept.left_out]
    return [name for name in names if name in kept.profiles], left_out
