"""Who may ask the data plane: access keys from the snapshot, so that none of it needs the ledger.

The control plane writes those that may predict, by the digests of their secrets, see `governance.keys`. Both HTTP and
gRPC ask `Callers.check` with what the request says of itself.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flyball.clock import SYSTEM, Clock, parse_instant
from flyball.errors import Forbidden, Unauthenticated
from flyball.governance.keys import digest_of, secret_in
from flyball.serving.snapshot import CallerKey

__all__ = ["Callers", "ServingSettings"]


@dataclass(frozen=True)
class ServingSettings:
    """`[serving]` in flyball.toml, `FLYBALL_SERVING_…` in the environment."""

    keys_required: bool = False  # whether predictions, labels and features are asked with an access key
    metrics_open: bool = True  # whether /metrics is answered without one where keys are required
    memory_budget_mb: int | None = None  # for models in a data plane; those longest unused are loaded when asked again
    workers: int = 1  # processes that share the ports; more only when one is at 100 % of a core with full batches
    access_log: Path | None = None  # JSON lines, one a request; relative to the home; none without it
    access_share: float = 1.0  # of the requests that are written there; errors always are
    access_log_mb: int = 100  # a longer access log is put aside as .1, and what was there is gone


class Callers:
    """The keys of one snapshot.

    Args:
        keys: those that may ask.
        is_required: without it everybody may, and keys are not looked at.
        is_metrics_open: whether metrics are told to everybody all the same.
    """

    def __init__(
        self,
        keys: Iterable[CallerKey] = (),
        is_required: bool = False,
        is_metrics_open: bool = True,
        clock: Clock = SYSTEM,
    ) -> None:
        self.is_required = is_required
        self.is_metrics_open = is_metrics_open
        self._clock = clock
        self._keys = {
            key.digest: (key, None if key.expires_at is None else parse_instant(key.expires_at)) for key in keys
        }

    def check(self, header: bytes | None, deployment: str | None) -> CallerKey | None:
        """Return the key of whoever asks; None where no key is required.

        Args:
            header: `Authorization` as the request has it, see `governance.keys.secret_in`.
            deployment: which is asked; None: none, but what all have together, such as features and listings.

        Raises:
            Unauthenticated: there is no key, or it is none of these, or it has expired.
            Forbidden: it is for other deployments.
        """
        if not self.is_required:
            return None
        secret = secret_in(header)
        if secret is None:
            raise Unauthenticated("predictions are asked with an access key here: Authorization: Bearer fb_…")
        digest = digest_of(secret)
        key, until = self._keys.get(digest, (None, None))
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise Unauthenticated("this access key does not hold here; it is unknown, or its role may not predict")
        if until is not None and until <= self._clock.now():
            raise Unauthenticated("this access key has expired")
        if key.deployments and deployment not in key.deployments:
            what = "that" if deployment is None else f"deployment/{deployment[:80]}"
            raise Forbidden(f"the access key {key.name} is not for {what}")
        return key
