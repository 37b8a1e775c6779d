"""Access keys: who may ask a server of this home from afar, as whom, and until when.

Of a secret only the digest is kept. A session is a login by such a key in a browser; it ends with its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = ["AccessKey", "AccessKeys", "AccessSession"]


@dataclass(frozen=True)
class AccessKey:
    """A key.

    Attributes:
        name: the journal names who asks with it `key/NAME`.
        digest: SHA-256 of the secret, in hexadecimal digits.
        deployments: those that it may ask for predictions, and then nothing else; empty: all that its role may do.
        last_used_at: coarse, see `governance.admission`.
    """

    name: str
    role: str
    digest: str
    deployments: tuple[str, ...] = ()
    made_by: str = ""
    made_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None

    def has_expired(self, at: datetime) -> bool:
        """Whether it holds no more at a time."""
        return self.expires_at is not None and self.expires_at <= at


@dataclass(frozen=True)
class AccessSession:
    """A login: by the digest of what the browser holds."""

    digest: str
    key: str
    expires_at: datetime


class AccessKeys(Protocol):
    """Keeps access keys and sessions."""

    def add(self, key: AccessKey) -> AccessKey:
        """Keep a key. Raises Conflict: there is one of this name."""
        ...

    def all(self) -> list[AccessKey]:
        """Return all keys by name."""
        ...

    def revoke(self, name: str) -> AccessKey:
        """Remove a key with its sessions. Raises NotFound."""
        ...

    def used(self, at_by_name: Mapping[str, datetime]) -> None:
        """Note when keys were used last."""
        ...

    def begin(self, session: AccessSession) -> None:
        """Keep a session, and forget those that have expired. Raises NotFound: its key is gone."""
        ...

    def sessions(self) -> list[AccessSession]:
        """Return all sessions."""
        ...

    def end(self, digest: str) -> None:
        """Remove a session, if it is there."""
        ...
