"""Sending one message: one POST to the very address that was judged, within a time, its answer read to a bound.

Redirects are not followed, since where they lead nobody has judged; no proxy of the environment is asked, since it
would connect in our place.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.delivery.webhooks.addresses import Address, allowed, resolved
from flyball.delivery.webhooks.settings import WebhookSettings
from flyball.errors import InvalidInput

__all__ = ["ANSWER_BYTES", "Answer", "send"]

ANSWER_BYTES = 64 * 1024  # of an answer; the rest is not read
_ERRORS = (
    OSError,
    http.client.HTTPException,
    ValueError,
)  # ssl's are OSError; ValueError: what http.client cannot parse


@dataclass(frozen=True)
class Answer:
    """How a receiver answered: a status, or why there is none."""

    status: int | None = None
    body: str = ""
    error: str | None = None
    retry_after_s: float | None = None
    is_final: bool = False  # asking again would not change it

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def told(self) -> str | None:
        """Why it is not taken, in a sentence."""
        if self.is_taken:
            return None
        return self.error if self.status is None else f"the receiver answered {self.status}"


def send(url: str, headers: Mapping[str, str], body: bytes, settings: WebhookSettings) -> Answer:
    """Post a message; never raises for what the network or the receiver does."""
    began = time.monotonic()
    try:
        address = allowed(url, settings)
        places = resolved(address, settings)
    except InvalidInput as error:
        return Answer(error=str(error), is_final=not str(error).startswith("Cannot resolve"))
    connection = _Pinned(address, places, settings.timeout_s)
    # A socket's time-out bounds each read, so a receiver that drips bytes would be listened to for ever.
    ending = threading.Timer(max(0.1, settings.timeout_s - (time.monotonic() - began)), connection.cut)
    ending.daemon = True
    ending.start()
    try:
        connection.request("POST", address.path, body, {"User-Agent": "flyball-webhooks", **headers})
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES).decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return Answer(
            response.status,
            text,
            retry_after_s=_seconds(response.getheader("Retry-After")),
            is_final=_is_final(response.status),
        )
    except _ERRORS as error:
        if connection.is_cut or isinstance(error, TimeoutError):
            return Answer(error=f"the receiver did not answer within {settings.timeout_s:g} s")
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Answer(error=f"{type(error).__name__}: {reason}"[:300].rstrip(": "))
    finally:
        ending.cancel()
        connection.close()


class _Pinned(http.client.HTTPConnection):
    """A connection to one of the places that a name was resolved to; the name is only told and verified."""

    def __init__(self, address: Address, places: list[tuple[Any, ...]], timeout_s: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s)
        self._address = address
        self._places = places
        self._raw: socket.socket | None = None
        self._until = time.monotonic() + timeout_s
        self.is_cut = False

    def connect(self) -> None:
        self._raw = self._reach()
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._raw
        if self._address.scheme == "https":
            context = ssl.create_default_context()
            shaking = context.wrap_socket(self._raw, server_hostname=self._address.host, do_handshake_on_connect=False)
            self.sock = self._raw = shaking
            shaking.do_handshake()

    def cut(self) -> None:
        """End the connection from another thread."""
        self.is_cut = True
        if self._raw is not None:
            try:
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)
            except OSError:
                return  # it is over already

    def putheader(self, header: Any, *values: Any) -> None:
        if str(header).lower() == "host":
            values = (self._address.authority,)
        super().putheader(header, *values)

    def _reach(self) -> socket.socket:
        failed: OSError | None = None
        for family, kind, protocol, _, place in self._places:
            left = self._until - time.monotonic()
            if left <= 0:
                break
            found = socket.socket(family, kind, protocol)
            found.settimeout(left)
            self._raw = found
            try:
                found.connect(place)
            except OSError as error:
                found.close()
                failed = error
            else:
                return found
        raise failed or TimeoutError("timed out")


def _is_final(status: int) -> bool:
    """Whether a receiver means it: it refused the message itself, or sent us elsewhere."""
    return status < 500 and status not in (408, 425, 429)


def _seconds(text: str | None) -> float | None:
    if text is None or not text.strip().isascii() or not text.strip().isdigit() or len(text) > 9:
        return None  # a date is an answer, too, but nobody's clock is known to agree with ours
    return float(text)
