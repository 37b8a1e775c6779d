"""Certificates for the servers of a home: read from files, and read again when these change.

Both the data plane and the pages listen with what `Certificates.context` gives. Python's `ssl` lets a context take
another certificate while it serves: connections that are open keep theirs, new ones get the new one.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from flyball.errors import InvalidInput

__all__ = ["Certificates", "TlsSettings"]

_log = logging.getLogger("flyball.serving")


@dataclass(frozen=True)
class TlsSettings:
    """`[tls]` in flyball.toml, `FLYBALL_TLS_…` in the environment: pages, API and predictions over TLS."""

    certificate: Path | None = None  # PEM, with the intermediate ones behind it; read again when it changes
    key: Path | None = None  # its private key, PEM, without a passphrase
    client_authority: Path | None = None  # PEM; who asks for predictions must show a certificate that it has signed

    def certificates(self, home: Path, *, for_predictions: bool = True) -> Certificates | None:
        """Return what is to be shown; None where TLS is not wanted. Relative paths are of the home.

        Raises:
            InvalidInput: only one of certificate and key is named, or they cannot be used.
        """
        if self.certificate is None and self.key is None and self.client_authority is None:
            return None
        if self.certificate is None or self.key is None:
            raise InvalidInput("[tls] names only a part of certificate and key; name both, or neither")
        authority = self.client_authority if for_predictions else None
        return Certificates(home / self.certificate, home / self.key, None if authority is None else home / authority)


class Certificates:
    """A certificate with its key in PEM files, and the authorities whose clients are let in.

    Args:
        certificate: with the intermediate ones behind it.
        key: its private key, without a passphrase.
        client_authority: certificates of those that sign clients' certificates; None: clients need none.

    Raises:
        InvalidInput: a file cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_authority: Path | None = None) -> None:
        self._files = (certificate, key, *((client_authority,) if client_authority else ()))
        self.certificate = certificate
        self.key = key
        self.client_authority = client_authority
        self._seen = self._look()
        self.context = self._made()

    def refresh(self) -> bool:
        """Read the files again if they have changed; return whether they were. What is wrong is logged, the old stay.

        Authorities of clients are read at the start only: `ssl` can add to a context's, and never take any away.
        """
        try:
            seen = self._look()
            if seen == self._seen:
                return False
            self._seen = seen
            self._made()  # two files that do not belong together must not spoil the context that serves
            self.context.load_cert_chain(self.certificate, self.key)
        except (InvalidInput, OSError) as error:
            _log.error("the old certificate stays: %s", error)
            return False
        _log.info("the certificate %s was read again", self.certificate)
        return True

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A passphrase would be asked for on the terminal, and a server has none.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            raise InvalidInput(
                f"the certificate {self.certificate} and the key {self.key} cannot be used ({reason}); "
                "expected PEM files that belong together, the key without a passphrase"
            ) from None
        if self.client_authority is not None:
            try:
                context.load_verify_locations(self.client_authority)
            except (OSError, ValueError) as error:
                raise InvalidInput(
                    f"{self.client_authority} holds no certificates of authorities ({error}); expected a PEM file"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        marks = []
        for path in self._files:
            try:
                found = path.stat()
            except OSError as error:
                raise InvalidInput(f"{path} cannot be read ({error.strerror}); expected a PEM file") from None
            marks.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return tuple(marks)
