"""The secrets that messages are signed by: one file a webhook in the home, which only its owner reads.

They stand apart from declarations, which are shown, exported and kept in the journal. With
MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY in the environment, a Fernet key as MLflow's server has it, they are encrypted.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flyball.errors import InvalidInput, MissingExtra, NotFound, Unavailable
from flyball.ledger.refs import check_name

__all__ = ["Secrets", "new_secret"]

_KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
_SEALED = b"fernet:"
_YOUNG_S = 300.0  # a file is written before its webhook is


def new_secret() -> str:
    """Return a new secret in the form of Standard Webhooks: `whsec_` and 32 random bytes in base64."""
    import base64

    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Secrets:
    """The secrets of a home's webhooks, by their names."""

    def __init__(self, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = home / "secrets" / "webhooks"
        self._environ = environ

    def keep(self, webhook: str, secret: str) -> None:
        """Keep a secret in place of the one before, durable on return. Raises InvalidInput, MissingExtra."""
        raw = secret.encode("utf-8")
        if key := self._environ.get(_KEY):
            raw = _SEALED + bytes(_fernet(key).encrypt(raw))
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._folder / f".{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, raw)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(self._path(webhook))

    def of(self, webhook: str) -> str:
        """Return a secret.

        Raises:
            NotFound: none is kept.
            Unavailable: it is encrypted, and the environment lacks its key.
        """
        try:
            raw = self._path(webhook).read_bytes()
        except FileNotFoundError:
            raise NotFound(
                f"the secret of webhook/{webhook} is gone; set it: flyball webhooks secret {webhook}"
            ) from None
        if not raw.startswith(_SEALED):
            return raw.decode("utf-8")
        key = self._environ.get(_KEY)
        if not key:
            raise Unavailable(f"the secret of webhook/{webhook} is encrypted and the environment lacks {_KEY}")
        fernet = _fernet(key)
        from cryptography.fernet import InvalidToken

        try:
            return bytes(fernet.decrypt(raw.removeprefix(_SEALED))).decode("utf-8")
        except InvalidToken:
            raise Unavailable(f"the secret of webhook/{webhook} was encrypted by another {_KEY}") from None

    def drop(self, webhook: str) -> None:
        """Forget a secret, if there is one."""
        self._path(webhook).unlink(missing_ok=True)

    def tidy(self, webhooks: Collection[str]) -> None:
        """Forget the secrets of webhooks that are no more."""
        try:
            files = list(self._folder.iterdir())
        except FileNotFoundError:
            return
        for file in files:
            if file.name not in webhooks and time.time() - file.stat().st_mtime > _YOUNG_S:
                file.unlink(missing_ok=True)

    def _path(self, webhook: str) -> Path:
        return self._folder / check_name(webhook)


def _fernet(key: str) -> Any:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise MissingExtra("cryptography", "supply", "encrypting the secrets of webhooks") from None
    try:
        return Fernet(key)
    except ValueError:
        raise InvalidInput(f"{_KEY} is no Fernet key; expected 32 bytes in URL-safe base64") from None
