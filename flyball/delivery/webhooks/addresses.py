"""Which addresses a webhook may have: those of the allowed schemes whose host is a public machine.

A server that sends requests wherever it is told reaches what only it can reach: its own ports, the network behind it,
the credentials that clouds serve at link-local addresses. So every address that a host's name stands for is judged
before a connection, and the connection is made to the very address that was judged: a name that is resolved once more
may mean another machine by then.

Sources: OWASP Server-Side Request Forgery Prevention; RFC 6890 (special-purpose addresses); RFC 4291 §2.5.5, RFC 3056
and RFC 6052 (IPv4 within IPv6).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flyball.delivery.webhooks.settings import WebhookSettings
from flyball.errors import InvalidInput

__all__ = ["Address", "allowed", "check_address", "is_public", "parsed", "resolved"]

_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_HOST_SERVICES = frozenset({ipaddress.ip_address("168.63.129.16")})  # Azure's, public by its number only
_AT_ONCE = threading.BoundedSemaphore(32)  # names that are being resolved; the system's resolver cannot be stopped


@dataclass(frozen=True)
class Address:
    """The parts of a webhook's address."""

    scheme: str
    host: str  # as it is resolved and named in TLS: ASCII
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS.get(self.scheme) else f"{host}:{self.port}"


def parsed(url: str) -> Address:
    """Return the parts of an address. Raises InvalidInput when it is none."""
    if not url.strip():
        raise InvalidInput(f"Webhook URL cannot be empty or just whitespace: {url!r}")
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InvalidInput(f"Invalid webhook URL {url[:200]!r}: it has a space or a control character in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path = path if path.isascii() else _quoted(path)
        ascii_host = host if host is None or host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:  # a UnicodeError is one, too
        raise InvalidInput(f"Invalid webhook URL {url[:200]!r}: {error!r}") from None
    if parts.scheme in _PORTS and not ascii_host:
        raise InvalidInput(f"Webhook URL must include a hostname: {url[:200]!r}")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("Webhook URL must not hold a user name or password: it is shown; sign with a secret instead")
    return Address(parts.scheme, ascii_host or "", port or _PORTS.get(parts.scheme, 0), path)


def check_address(url: str, settings: WebhookSettings) -> Address:
    """Return the parts of an address that a webhook may have now.

    Raises:
        InvalidInput: it is none, has another scheme, or its host cannot be resolved or is not public.
    """
    found = allowed(url, settings)
    if not settings.allow_private:
        resolved(found, settings)
    return found


def allowed(url: str, settings: WebhookSettings) -> Address:
    """Return the parts of an address of an allowed scheme, without asking where its host is. Raises InvalidInput."""
    found = parsed(url)
    if found.scheme not in settings.allowed_schemes:
        schemes = ", ".join(settings.allowed_schemes)
        raise InvalidInput(f"Invalid webhook URL scheme: {found.scheme!r}. Allowed schemes are: {schemes}.")
    if not found.host:
        raise InvalidInput(f"Webhook URL must include a hostname: {url[:200]!r}")
    return found


def resolved(address: Address, settings: WebhookSettings) -> list[tuple[Any, ...]]:
    """Return where to connect, as `socket.getaddrinfo` does, when all of it is allowed. Raises InvalidInput."""
    found = _looked_up(address, min(settings.timeout_s, 10.0))
    if not settings.allow_private:
        for info in found:
            ip = ipaddress.ip_address(str(info[4][0]).partition("%")[0])
            if not is_public(ip):
                raise InvalidInput(
                    f"Webhook URL must not resolve to a non-public IP address. {address.host!r} resolves to {ip}."
                )
    return found


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet's, an IPv4 address within an IPv6 one judged as what it is."""
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and (ip in _NAT64 or ip in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner) and ip not in _COMPATIBLE
    return ip.is_global and not ip.is_multicast and ip not in _HOST_SERVICES


def _looked_up(address: Address, timeout_s: float) -> list[tuple[Any, ...]]:
    """Resolve within a time: the system's resolver itself knows none."""
    kept: list[Any] = []
    named = f"Cannot resolve Webhook URL hostname {address.host!r}"
    if not _AT_ONCE.acquire(timeout=timeout_s):
        raise InvalidInput(f"{named}: too many names are being resolved; try again later")

    def look_up() -> None:
        try:
            kept.append(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            kept.append(error)
        finally:
            _AT_ONCE.release()

    thread = threading.Thread(target=look_up, name="webhook-resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not kept:
        raise InvalidInput(f"{named}: no answer within {timeout_s:g} s")
    if isinstance(kept[0], Exception):
        raise InvalidInput(f"{named}: {kept[0]}")
    return list(kept[0])


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path, safe="/?&=%:@!$'()*+,;~")
