"""Access keys: giving, listing and revoking them; the check at the door that the servers of this home share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from flyball import settings
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.governance.identity import ROLES, Principal
from flyball.governance.keys import digest_of, new_secret
from flyball.ledger.access_keys import AccessKey
from flyball.ledger.refs import check_name
from flyball.platform.authority import MAY
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.governance.admission import Admission, AuthSettings

__all__ = ["AccessKeyActs"]

_LONGEST = timedelta(days=3660)


class AccessKeyActs(Home):
    """Who may ask from afar."""

    @property
    def auth_settings(self) -> AuthSettings:
        from flyball.governance.admission import AuthSettings

        return settings.load(AuthSettings, "auth", self.home)

    @property
    def admission(self) -> Admission:
        """The check of keys and sessions, one for all who look at this home in this process."""
        from flyball.governance.admission import Admission

        hours = self.auth_settings.session_hours if "admission" not in self._shared else 0
        return self._shared_once(  # type: ignore[no-any-return]
            "admission", lambda: Admission(self.ledger, self.clock, timedelta(hours=hours))
        )

    def create_key(
        self, name: str, role: str, *, deployments: Sequence[str] = (), expires: timedelta | None = None
    ) -> tuple[AccessKey, str]:
        """Make an access key; return it with its secret, which nothing keeps.

        Args:
            name: whoever asks with it acts as `key/NAME`.
            role: what it may do, see `governance.identity.ROLES`.
            deployments: names; the key may then ask these for predictions, and nothing else.
            expires: how long it holds; None: until it is revoked.

        Raises:
            InvalidInput: no such role; the name, a deployment or the time is none; the role may not predict.
            Conflict: there is a key of this name.
        """
        self._may("admit")
        check_name(name)
        if role not in ROLES:
            raise InvalidInput(f'there is no role "{role}"{did_you_mean(role, ROLES)} (known: {listed(ROLES)})')
        named = tuple(dict.fromkeys(check_name(one.removeprefix("deployment/")) for one in deployments))
        if named and not Principal("", role).has(MAY["predict"]):
            raise InvalidInput(f"a {role} may not ask deployments for predictions; that needs {MAY['predict']}")
        if expires is not None and not timedelta(0) < expires <= _LONGEST:
            raise InvalidInput("an access key holds for more than nothing and at most ten years; write it like 90d")
        secret = new_secret()
        until = None if expires is None else self.clock.now() + expires
        with self._writing("admit") as world:
            made = world.access_keys.add(AccessKey(name, role, digest_of(secret), named, expires_at=until))
        self.admission.forget()
        return made, secret

    def access_keys(self) -> list[AccessKey]:
        """Return all access keys by name; their secrets are not kept anywhere."""
        self._may("admit")
        with self._reading() as world:
            return world.access_keys.all()

    def revoke_key(self, name: str) -> AccessKey:
        """End an access key, and all logins by it. Raises NotFound."""
        with self._writing("admit") as world:
            gone = world.access_keys.revoke(name)
        self.admission.forget()
        return gone
