"""Whom a home trusts with its models: keys, the signatures that it keeps, and what may be loaded without one.

Keys are files in the home: `keys/signing.pem` (its own, made at first use, mode 0600), `keys/signing.pub.pem` (to give
away) and `keys/trusted/*.pem` (of others). Signatures are `signatures/<bundle>/<key>.sig`, where the data plane finds
them without a ledger.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyball import settings
from flyball.errors import Corrupt, FlyballError, Forbidden, InvalidInput, MissingExtra, listed
from flyball.models.signing import SIGNATURE_BYTES, Key, check, key_of, read_key
from flyball.models.unsafe import Finding, refusal

if TYPE_CHECKING:
    from flyball.models.bundle import Bundle

__all__ = ["ModelSettings", "Signed", "Trust", "refuse_unsafe"]


@dataclass(frozen=True)
class ModelSettings:
    """`[models]` in flyball.toml, `FLYBALL_MODELS_…` in the environment."""

    require_signature: bool = False  # load no bundle that no trusted key signed; off: a home works before it has keys
    sign: bool = False  # sign every version with the home's own key when it is registered
    trusted_keys: Path | None = None  # a folder of further public keys (*.pem), such as one that all homes share


@dataclass(frozen=True)
class Signed:
    """A signature of a bundle: by which key, what this home calls it (None: unknown), and what is wrong with it."""

    key: str | None
    name: str | None
    problem: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether the key is trusted here and the signature holds."""
        return self.name is not None and self.problem is None


class Trust:
    """Whom a home trusts, and the signatures that it keeps. Keys and settings are read anew each time."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def settings(self) -> ModelSettings:
        """Return the home's `[models]`. Raises InvalidInput."""
        return settings.load(ModelSettings, "models", self.home)

    def keys(self) -> dict[str, Key]:
        """Return the trusted keys by id: the home's own, those in `keys/trusted`, those the setting names.

        Raises:
            InvalidInput: a file is no public key; it is named.
        """
        folders = [self.home / "keys" / "trusted", self.settings().trusted_keys]
        own = self.home / "keys" / "signing.pub.pem"
        found = [read_key(own, "this home")] if own.exists() else []
        for folder in folders:
            if folder is not None and folder.is_dir():
                found += [read_key(path) for path in sorted(folder.glob("*.pem"))]
        return {key.id: key for key in reversed(found)}

    def receive(self, bundle: Bundle, signature: bytes) -> None:
        """Keep a signature that came with a bundle.

        Raises:
            InvalidInput: it is none.
            Corrupt: it names a key that is trusted here, and it does not hold for this bundle.
        """
        found = _signed(signature, self.keys(), bundle)
        if found.problem is not None:
            raise InvalidInput(found.problem) if found.name is None else Corrupt(found.problem)
        self.keep(bundle.digest, signature)

    def keep(self, digest: str, signature: bytes) -> None:
        """Keep a signature of a bundle; of one key there is one, the newest. Raises InvalidInput: it is none."""
        folder = self.home / "signatures" / digest
        folder.mkdir(parents=True, exist_ok=True)
        name = key_of(signature) or f"keyless-{hashlib.sha256(signature).hexdigest()[:32]}"
        partial = folder / f".{secrets.token_hex(8)}.part"
        try:
            partial.write_bytes(signature)
            partial.replace(folder / f"{name}.sig")
        finally:
            partial.unlink(missing_ok=True)

    def signatures(self, digest: str) -> list[bytes]:
        """Return the signatures that are kept of a bundle, in no order that means anything."""
        paths = sorted((self.home / "signatures" / digest).glob("*.sig"))
        return [path.read_bytes() for path in paths if path.stat().st_size <= SIGNATURE_BYTES]

    def signed(self, bundle: Bundle) -> list[Signed]:
        """Return who signed a bundle, trusted ones first; what is wrong with a signature is told, not raised."""
        kept = self.signatures(bundle.digest)
        keys = self.keys() if kept else {}
        found = [_signed(signature, keys, bundle) for signature in kept]
        return sorted(found, key=lambda one: (not one.is_trusted, one.key or ""))

    def exported(self, bundle: Bundle) -> bytes | None:
        """Return the signature that travels with an exported bundle: a trusted one where there is one."""
        kept = self.signatures(bundle.digest)
        keys = self.keys() if kept else {}
        kept.sort(key=lambda signature: not _signed(signature, keys, bundle).is_trusted)
        return kept[0] if kept else None

    def admit(self, bundle: Bundle, scan: Callable[[], Iterable[Finding]]) -> None:
        """Let a bundle be loaded, or raise; without a trusted signature it is scanned.

        Raises:
            Forbidden: no trusted key signed it, and the home requires that or the bundle holds an unsafe format.
            MissingExtra: there is a signature, and what checks it is not installed.
        """
        signed = self.signed(bundle)
        if any(one.is_trusted for one in signed):
            return
        why = _not_trusted(signed)
        if self.settings().require_signature:
            raise Forbidden(f"the bundle {bundle.digest[:12]} may not be loaded: {why}, and this home requires it")
        refuse_unsafe(bundle.digest, scan(), why)


def refuse_unsafe(digest: str, findings: Iterable[Finding], why: str = "no trusted key signed it") -> None:
    """Raise Forbidden where something unsafe was found."""
    found = refusal(findings)
    if found is not None:
        raise Forbidden(
            f"the bundle {digest[:12]} may not be loaded: {found}; such a file runs whatever is in it, and {why}. "
            "Save the model in a safe format, or have somebody sign it whose key this home trusts"
        )


def _signed(signature: bytes, keys: Mapping[str, Key], bundle: Bundle) -> Signed:
    try:
        by = key_of(signature)
        key = keys.get(by) if by is not None else None
        if key is None:
            return Signed(by, None)
    except InvalidInput as error:
        return Signed(None, None, str(error))
    try:
        check(signature, key, bundle)
    except MissingExtra:
        raise
    except FlyballError as error:
        return Signed(by, key.name, str(error))
    return Signed(by, key.name)


def _not_trusted(signed: Iterable[Signed]) -> str:
    found = list(signed)
    problems = [one.problem for one in found if one.problem]
    strangers = [one.key[:12] if one.key else "keyless" for one in found if one.name is None and not one.problem]
    if problems:
        return problems[0]
    if strangers:
        return f"it is signed by {listed(strangers, 3)}, which this home does not trust (see: flyball model key)"
    return "no trusted key signed it"
