"""Who acts: a principal with a name and roles."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

__all__ = ["ROLES", "Principal", "local_user"]

# From least to most; each role may do what those before it may.
ROLES = ("viewer", "operator", "editor", "admin")


@dataclass(frozen=True)
class Principal:
    """One who acts. `actor` is how the journal names them: `user/alice`."""

    actor: str
    role: str

    def has(self, role: str) -> bool:
        """Whether the principal has `role` or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def local_user() -> Principal:
    """Return the person at this machine, who owns the home and may do everything in it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "local"
    return Principal(f"user/{name}", "admin")
