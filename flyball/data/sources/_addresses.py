"""Which servers a URL may lead to. Whoever may write a URL must not thereby reach what only this machine can.

A name is looked up once and the connection is made to the address that was judged, so a name server cannot answer
differently the second time. Link-local addresses (where clouds keep a machine's credentials) are never reached.
"""

from __future__ import annotations

import ipaddress
import socket

from flyball.data.sources._protocol import SourceSettings
from flyball.errors import InvalidInput, Unavailable

__all__ = ["allowed_address"]


def allowed_address(host: str, port: int, settings: SourceSettings, *, from_public: bool = False) -> tuple[str, bool]:
    """Return the address to connect to, and whether it is public.

    Args:
        host, port: where a URL leads.
        settings: whether this machine and private networks may be reached.
        from_public: a public server led here by a redirect or a link; then only public addresses are reached.

    Raises:
        InvalidInput: the address may not be reached.
        Unavailable: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the name {host} is not known; check it, or the network") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        kind = _kind(address)
        if kind == "forbidden":
            raise InvalidInput(f"{host} is {address}, which no source may be; give the address of a server")
        if kind != "public" and from_public:
            raise InvalidInput(f"a public server leads to {host}, which is {kind}; such a way is not followed")
        if kind == "loopback" and not settings.allow_loopback:
            raise InvalidInput(f"{host} is this machine; allow_loopback in [sources] would have to permit it")
        if kind == "private" and not settings.allow_private:
            raise InvalidInput(f"{host} is in a private network; allow_private in [sources] would have to permit it")
    return str(addresses[0]), _kind(addresses[0]) == "public"


def _kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _kind(address.ipv4_mapped)
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return "forbidden"
    return "public" if address.is_global else "private"
