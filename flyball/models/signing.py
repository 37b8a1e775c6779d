"""Signatures of bundles by OpenSSF model signing: made, and proved.

What is signed is the bundle as it is exported: `manifest.json`, whose SHA-256 is the bundle's digest, and every file
below `files/`. A signature is a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement that lists
these files with their digests, so that `model_signing verify` accepts the exported folder.

Signing is done by the library `model-signing`. Checking is done here, because the data plane does it before every load
and the library takes a second and 50 MB to import: the format is two nested JSON documents and one ECDSA signature, and
since every digest is known already, no file is read twice. The library's allowances for old formats are left out.

Who is trusted is the subject of `models.trust`.

Source: the OpenSSF Model Signing specification 1.0; in-toto Statement v1; DSSE v1.0.2 protocol.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import Corrupt, FlyballError, Forbidden, InvalidInput, MissingExtra, NotFound, Unavailable, listed
from flyball.models import _manifest
from flyball.storage.secret import kept_once

if TYPE_CHECKING:
    from flyball.models.bundle import Bundle

__all__ = [
    "SIGNATURE",
    "SIGNATURE_BYTES",
    "Key",
    "check",
    "check_keyless",
    "key_of",
    "own_key",
    "read_key",
    "sign_folder",
    "sign_folder_keyless",
]

SIGNATURE = "model.sig"  # in an exported bundle; the name that model_signing gives it
SIGNATURE_BYTES = 32 << 20  # more than 100,000 files are never listed

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Key:
    """A public key: the SHA-256 of its PEM text as `id`, what people call it, and the PEM text."""

    id: str
    name: str
    pem: bytes


def own_key(home: Path) -> Path:
    """Return the path of the home's private key, made (ECDSA, P-256) when there is none; the public one lies beside it.

    Raises:
        InvalidInput: others may read it, or it is no key.
        MissingExtra: cryptography is not installed.
    """
    serialization, ec = _cryptography()
    path = home / "keys" / "signing.pem"

    def make() -> bytes:
        private = ec.generate_private_key(ec.SECP256R1())
        pem: bytes = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem

    kept_once(path, make)
    public = path.with_name("signing.pub.pem")
    if not public.exists():
        public.write_bytes(_public(path))
    return path


def read_key(path: Path, name: str | None = None) -> Key:
    """Read a public key in PEM, called as its file is.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no public key on the curves P-256, P-384, P-521; a private one is refused too.
    """
    serialization, _ = _cryptography()
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no key at {path}") from None
    except (ValueError, OSError) as error:
        raise InvalidInput(f"{path} is no public key in PEM ({_first_line(error)})") from None
    _hash_for(found, str(path))
    pem = found.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(hashlib.sha256(pem).hexdigest(), name or path.stem, pem)


def key_of(signature: bytes) -> str | None:
    """Return the id of the key that a signature says it is by; None: a keyless one. Raises InvalidInput."""
    material = _document(signature).get("verificationMaterial")
    stated = material.get("publicKey") if isinstance(material, Mapping) else None
    if stated is None:
        return None
    hint = stated.get("hint") if isinstance(stated, Mapping) else None
    if not isinstance(hint, str) or not _HEX.fullmatch(hint):
        raise InvalidInput("the signature does not say by which key it is; sign again with a newer model_signing")
    return hint


def check(signature: bytes, key: Key, bundle: Bundle) -> None:
    """Prove that a key signed a bundle: its manifest, and by the manifest's digests all of its files.

    Raises:
        InvalidInput: it is no signature by OpenSSF model signing.
        Forbidden: it was made with another key.
        Corrupt: it was changed, or it is the signature of another bundle.
    """
    hint = key_of(signature)
    if hint != key.id:
        told = f"key {hint[:12]}" if hint else "no key of its own (keyless)"
        raise Forbidden(f"the signature was made with {told}, not with {key.name} ({key.id[:12]})")
    payload = _signed_payload(_document(signature), key)
    listed_files = _resources(payload)
    wanted = _manifest.resources(bundle.digest, bundle.manifest)
    if listed_files != wanted:
        odd = sorted(name for name in wanted.keys() | listed_files.keys() if wanted.get(name) != listed_files.get(name))
        raise Corrupt(
            f"the signature by {key.name} is of another bundle than {bundle.digest[:12]}: they differ in "
            f"{listed(odd, 3)}"
        )


def sign_folder(folder: Path, private_key: Path) -> bytes:
    """Sign an exported bundle with a private key in PEM (not encrypted) and return the signature.

    Raises:
        InvalidInput: it is no private key on P-256, P-384 or P-521.
        MissingExtra: model-signing is not installed.
    """
    config = _library()
    try:
        config = config.use_elliptic_key_signer(private_key=private_key)
    except FileNotFoundError:
        raise NotFound(f"there is no key at {private_key}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{private_key} is no private key to sign with ({_first_line(error)})") from None
    return _signed_by(config, folder)


def sign_folder_keyless(folder: Path, token: str | None = None) -> bytes:
    """Sign an exported bundle as whoever an identity token or an ambient credential names; this asks Sigstore.

    Raises:
        Unavailable: Sigstore cannot be reached, or knows nobody by that token.
        MissingExtra: model-signing is not installed.
    """
    config = _library()
    try:
        ambient = token is None
        return _signed_by(config.use_sigstore_signer(identity_token=token, use_ambient_credentials=ambient), folder)
    except FlyballError:
        raise
    except Exception as error:  # of Sigstore, its client, its trust root and the network there is no common one
        told = _first_line(error)
        raise Unavailable(f"Sigstore did not sign ({told}); it needs the network and an identity") from error


def check_keyless(folder: Path, signature: bytes, identity: str, issuer: str) -> None:
    """Prove with Sigstore that an identity signed an exported bundle; this reads Sigstore's trust root.

    Raises:
        Forbidden: it did not, or that could not be proved.
        MissingExtra: model-signing is not installed.
    """
    _library()
    from model_signing import verifying

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SIGNATURE
        path.write_bytes(signature)
        try:
            config: Any = verifying.Config  # untyped
            config().use_sigstore_verifier(identity=identity, oidc_issuer=issuer).verify(folder, path)
        except Exception as error:  # as in sign_folder_keyless
            raise Forbidden(f"that {identity} signed it could not be proved ({_first_line(error)})") from error


def _signed_by(config: Any, folder: Path) -> bytes:
    from model_signing import hashing

    hashed: Any = hashing.Config  # untyped
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SIGNATURE
        # The signature will lie in the folder that it signs, so whoever checks it must look past it.
        config.set_hashing_config(hashed().set_ignored_paths(paths=[SIGNATURE])).sign(folder, path)
        return path.read_bytes()


def _signed_payload(document: Mapping[str, Any], key: Key) -> Any:
    """Return the in-toto statement of a DSSE envelope whose one signature is by `key`."""
    serialization, ec = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        envelope = document["dsseEnvelope"]
        signatures = envelope["signatures"]
        if document["mediaType"] != _MEDIA_TYPE or envelope["payloadType"] != _PAYLOAD_TYPE or len(signatures) != 1:
            raise InvalidInput("the signature is not one DSSE envelope around one in-toto statement")
        payload = base64.b64decode(envelope["payload"], validate=True)
        value = base64.b64decode(signatures[0]["sig"], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("the signature is not one that OpenSSF model signing writes") from None
    public = serialization.load_pem_public_key(key.pem)
    authenticated = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    try:
        public.verify(value, authenticated, ec.ECDSA(_hash_for(public, key.name)))
    except InvalidSignature:
        raise Corrupt(f"the signature says that it is by {key.name}, but it is not: it was changed or forged") from None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise InvalidInput("what the signature signs is not JSON") from None


def _resources(statement: Any) -> dict[str, str]:
    """Return file → SHA-256 of a statement, proved to agree with the digest of its subject."""
    try:
        predicate, subjects = statement["predicate"], statement["subject"]
        kind = (statement["_type"], statement["predicateType"], predicate["serialization"]["method"], len(subjects))
        found: dict[str, str] = {}
        whole = hashlib.sha256()
        for resource in predicate["resources"]:
            if resource["algorithm"] != "sha256" or not _HEX.fullmatch(resource["digest"]) or resource["name"] in found:
                raise InvalidInput("the signature lists a file twice, or by another digest than SHA-256")
            found[resource["name"]] = resource["digest"]
            whole.update(bytes.fromhex(resource["digest"]))
        stated = subjects[0]["digest"]["sha256"]
    except (KeyError, TypeError, IndexError):
        raise InvalidInput("what the signature signs is no model signature of version 1.0") from None
    if kind != (_STATEMENT_TYPE, _PREDICATE_TYPE, "files", 1):
        raise InvalidInput("what the signature signs is no model signature of version 1.0 over whole files")
    if stated != whole.hexdigest():
        raise Corrupt("the statement in the signature contradicts itself: its files have another digest")
    return found


def _document(signature: bytes) -> dict[str, Any]:
    try:
        if len(signature) > SIGNATURE_BYTES:
            raise ValueError
        found = json.loads(signature)
    except (ValueError, RecursionError):
        raise InvalidInput("the signature is not JSON, or too large for one") from None
    if not isinstance(found, dict):
        raise InvalidInput("the signature is not a JSON object")
    return found


def _public(private_key: Path) -> bytes:
    serialization, _ = _cryptography()
    try:
        private = serialization.load_pem_private_key(private_key.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{private_key} is no private key in PEM ({_first_line(error)})") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = private.public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem


def _hash_for(public: Any, what: str) -> Any:
    from cryptography.hazmat.primitives import hashes

    by_curve = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    found = by_curve.get(getattr(getattr(public, "curve", None), "name", ""))
    if found is None:
        raise InvalidInput(f"{what} is no key of model signing; expected one on P-256, P-384 or P-521")
    return found


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise MissingExtra("cryptography", "supply", "a signature of a model") from None
    return serialization, ec


def _library() -> Any:
    try:
        from model_signing import signing
    except ImportError:
        raise MissingExtra("model-signing", "supply", "signing a model") from None
    config: Any = signing.Config  # untyped
    return config()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
