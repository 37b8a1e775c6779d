"""Who acts: a principal with a name and roles; and, in a server that asks for keys, who asks at the moment."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["NOBODY", "ROLES", "Principal", "asking", "local_user", "who_asks"]

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


# What a server does outside any request, such as following the journal for open pages; it may look and change nothing.
NOBODY = Principal("server/pages", "viewer")

_ASKING: ContextVar[Principal] = ContextVar("asking", default=NOBODY)


@contextmanager
def asking(principal: Principal) -> Iterator[None]:
    """Within, also in threads that were given this context, `who_asks` is this principal."""
    token = _ASKING.set(principal)
    try:
        yield
    finally:
        _ASKING.reset(token)


def who_asks() -> Principal:
    """Return whose request is answered at the moment; outside of any, nobody, who may only look."""
    return _ASKING.get()


def local_user() -> Principal:
    """Return the person at this machine, who owns the home and may do everything in it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "local"
    return Principal(f"user/{name}", "admin")
