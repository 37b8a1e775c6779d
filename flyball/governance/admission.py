"""Who may come in: access keys and sessions checked for every request of the control plane.

The table of keys is kept in memory and read again once a second, so a key that is revoked, by whatever process, ends
within that time, and a request costs one hash. A wrong key never delays a right one: 256 bits are not guessed, so
what there is to protect is the server's work, and shutting an address out would let anybody behind a common proxy shut
out everybody behind it.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from flyball.clock import SYSTEM, Clock
from flyball.errors import FlyballError, InvalidInput, NotFound, Unauthenticated
from flyball.governance.keys import digest_of
from flyball.ledger import Ledger
from flyball.ledger.access_keys import AccessKey, AccessSession

__all__ = ["SESSION_COOKIE", "Admission", "AuthSettings", "Backoff", "Waiting"]

SESSION_COOKIE = "flyball_session"  # what a browser that has logged in sends

_FRESH_S = 1.0  # how long the table is believed
_AGAIN_S = 0.1  # how soon it is read again for a key that is not in it: it may have been made a moment ago
_USED_EVERY = timedelta(minutes=10)  # how exact a key's last use is: each note of it is a write
_log = logging.getLogger("flyball.access")


@dataclass(frozen=True)
class AuthSettings:
    """`[auth]` in flyball.toml, `FLYBALL_AUTH_…` in the environment."""

    required: bool | None = None  # whether the control plane asks for an access key; none: where others reach its port
    session_hours: float = 12  # how long a login in a browser holds

    def __post_init__(self) -> None:
        if not 0 < self.session_hours <= 24 * 366:
            raise InvalidInput(f"[auth] session_hours is {self.session_hours}; expected more than 0 and at most a year")


class Waiting(Unauthenticated):
    """Too many wrong keys came from this address; `seconds` from now the next is looked at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, round(seconds + 0.5))
        super().__init__(f"too many wrong access keys came from this address; try again in {self.seconds} s")


class Backoff:
    """How long an address that sent wrong keys must wait: nothing at first, then twice as long each time.

    Of IPv6 a network of 64 bits is one address, since one machine may have them all.
    """

    free = 10  # wrong keys before the first wait
    longest_s = 60.0
    forgotten_s = 600.0
    addresses = 4096  # at most so many are remembered; the oldest go first

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last

    def wait_s(self, address: str) -> float:
        """Return the seconds that an address has to wait; 0 when it need not."""
        count, last = self._failures.get(_network(address), (0, 0.0))
        if count < self.free:
            return 0.0
        wait = min(self.longest_s, 2.0 ** min(count - self.free, 30))
        return max(0.0, last + wait - self._clock.monotonic())

    def failed(self, address: str) -> None:
        """Note a wrong key."""
        name, now = _network(address), self._clock.monotonic()
        count, last = self._failures.pop(name, (0, now))
        self._failures[name] = (1 if now - last > self.forgotten_s else count + 1, now)
        while len(self._failures) > self.addresses:
            self._failures.popitem(last=False)


class Admission:
    """Checks keys and sessions against a ledger; safe to share between threads."""

    def __init__(self, ledger: Ledger, clock: Clock = SYSTEM, session: timedelta = timedelta(hours=12)) -> None:
        self._ledger = ledger
        self._clock = clock
        self._session = session
        self._backoff = Backoff(clock)
        self._keys: dict[str, AccessKey] = {}  # by digest
        self._sessions: dict[str, AccessSession] = {}  # by digest
        self._read_at = float("-inf")
        self._used: dict[str, datetime] = {}  # of keys whose last use is to be noted
        self._reading = threading.Lock()

    def known(self, secret: str) -> AccessKey | None:
        """Return the key of a secret without looking into the ledger; None when that must be asked."""
        return self._key(digest_of(secret)) if self._is_fresh(_FRESH_S) else None

    def by_secret(self, secret: str, address: str) -> AccessKey:
        """Return the key of a secret that was sent from an address.

        Raises:
            Unauthenticated: there is none, or it has expired. Unavailable: the ledger does not answer.
        """
        digest = digest_of(secret)
        self._read(_FRESH_S)
        if digest not in self._keys:
            wait = self._backoff.wait_s(address)
            if wait > 0:
                raise Waiting(wait)
            self._read(_AGAIN_S)
        found = self._key(digest)
        if found is not None:
            return found
        if digest in self._keys:
            raise Unauthenticated("this access key has expired")
        self._backoff.failed(address)
        _log.warning("a wrong access key came from %s", address)
        raise Unauthenticated("this access key does not hold")

    def by_session(self, cookie: str) -> AccessKey | None:
        """Return the key by which a browser has logged in, None when it has not or no longer."""
        self._read(_FRESH_S)
        return self.known_session(cookie)

    def known_session(self, cookie: str) -> AccessKey | None:
        """Return as `by_session` without looking into the ledger; None when that must be asked."""
        session = self._sessions.get(digest_of(cookie)) if self._is_fresh(_FRESH_S) else None
        if session is None or session.expires_at <= self._clock.now():
            return None
        key = next((key for key in list(self._keys.values()) if key.name == session.key), None)
        return None if key is None else self._key(key.digest)

    def log_in(self, secret: str, address: str) -> tuple[str, timedelta]:
        """Begin a session; return what the browser is to hold, and for how long.

        Raises:
            Unauthenticated, Unavailable: as `by_secret`.
        """
        key = self.by_secret(secret, address)
        now = self._clock.now()
        until = min(now + self._session, key.expires_at or datetime.max.replace(tzinfo=now.tzinfo))
        cookie = secrets.token_urlsafe(32)
        try:
            with self._ledger.write(f"key/{key.name}") as world:
                world.access_keys.begin(AccessSession(digest_of(cookie), key.name, until))
        except NotFound:
            raise Unauthenticated("this access key does not hold") from None
        self.forget()
        return cookie, until - now

    def log_out(self, cookie: str) -> None:
        """End a session, if there is one."""
        key = self.by_session(cookie)
        if key is not None:
            with self._ledger.write(f"key/{key.name}") as world:
                world.access_keys.end(digest_of(cookie))
            self.forget()

    def forget(self) -> None:
        """Read the table again at the next question: it was changed."""
        self._read_at = float("-inf")

    def _key(self, digest: str) -> AccessKey | None:
        found = self._keys.get(digest)
        # A guesser cannot steer the hash that is looked up by, so its time tells nothing; nor does the comparison.
        if found is None or not hmac.compare_digest(found.digest, digest) or found.has_expired(self._clock.now()):
            return None
        if found.name not in self._used:
            self._used[found.name] = self._clock.now()
        return found

    def _is_fresh(self, seconds: float) -> bool:
        return self._clock.monotonic() - self._read_at <= seconds

    def _read(self, seconds: float) -> None:
        """Read keys and sessions, unless they were read in the last `seconds`."""
        if self._is_fresh(seconds):
            return
        with self._reading:
            if self._is_fresh(seconds):
                return
            read_at = self._clock.monotonic()  # before the reading, so that no change falls between
            with self._ledger.read() as world:
                keys, sessions = world.access_keys.all(), world.access_keys.sessions()
            self._keys = {key.digest: key for key in keys}
            self._sessions = {session.digest: session for session in sessions}
            self._read_at = read_at
        self._note_use(keys)  # nobody waits for it: a write may have to

    def _note_use(self, keys: list[AccessKey]) -> None:
        due = {
            key.name: self._used[key.name]
            for key in keys
            if key.name in self._used
            and (key.last_used_at is None or self._used[key.name] - key.last_used_at >= _USED_EVERY)
        }
        self._used = {}
        if not due:
            return
        try:
            with self._ledger.write("controller/access") as world:
                world.access_keys.used(due)
        except FlyballError as error:  # such as a full disk; whoever asks must not suffer from it
            _log.warning("the last use of access keys could not be noted: %s", error)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
