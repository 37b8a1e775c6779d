"""Signatures: what the standard verifier accepts, what is refused and why, and what a home lets be loaded."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import signing as standard_signing
from model_signing import verifying
from onnx_bytes import linear

from flyball.errors import Corrupt, Forbidden, InvalidInput, NotFound
from flyball.models import _manifest, bundle, signing
from flyball.models.trust import Trust
from flyball.storage.blobs import digest_of
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def blobs(home: Path) -> FileBlobs:
    return FileBlobs(home / "blobs")


@pytest.fixture
def saved(blobs: FileBlobs) -> bundle.Bundle:
    return bundle.save(blobs, linear([1.0, 2.0], 0.5), files={"docs/ärger.md": b"# card"})


def signed(blobs: FileBlobs, saved: bundle.Bundle, folder: Path, private: Path) -> bytes:
    bundle.export_folder(blobs, saved.digest, folder)
    return signing.sign_folder(folder, private)


def new_key(path: Path, private: Any = None) -> Path:
    """Write a private key of one's own and the public one beside it, with the ending `.pub`."""
    key = private or ec.generate_private_key(ec.SECP384R1())
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


def accept(folder: Path, public: Path) -> None:
    """Have the standard verifier say yes, or raise."""
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, folder / signing.SIGNATURE)


def test_the_homes_key_is_made_once_for_its_owner_only(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: signing.own_key(home).read_bytes(), range(8)))
    assert len(set(made)) == 1
    assert stat.S_IMODE((home / "keys" / "signing.pem").stat().st_mode) == 0o600
    assert [key.name for key in Trust(home).keys().values()] == ["this home"]
    (home / "keys" / "signing.pem").chmod(0o644)
    with pytest.raises(InvalidInput, match="can be read by others"):
        signing.own_key(home)


def test_the_standard_verifier_accepts_an_exported_folder_and_sees_every_change(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    signature = signed(blobs, saved, tmp_path / "plain", signing.own_key(home))
    folder = tmp_path / "out"
    bundle.export_folder(blobs, saved.digest, folder, signature=signature)
    public = home / "keys" / "signing.pub.pem"
    accept(folder, public)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(public)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for path in ("manifest.json", "files/model/model.onnx", "files/docs/ärger.md"):
        good = (folder / path).read_bytes()
        (folder / path).write_bytes(good + b" ")
        with pytest.raises(ValueError, match="mismatch"):
            accept(folder, public)
        with pytest.raises((Corrupt, InvalidInput)):
            found, came = bundle.import_(FileBlobs(tmp_path / "other"), folder)
            Trust(home).receive(found, came or b"")  # another manifest is another bundle, which nobody signed
        (folder / path).write_bytes(good)
    accept(folder, public)


def test_a_signature_by_the_standard_tool_is_accepted_here(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    private = new_key(tmp_path / "ann.pem")
    bundle.export_folder(blobs, saved.digest, tmp_path / "out")
    config: Any = standard_signing.Config()
    config.use_elliptic_key_signer(private_key=private).sign(tmp_path / "out", tmp_path / "ann.sig")
    Trust(home).keep(saved.digest, (tmp_path / "ann.sig").read_bytes())
    assert [one.name for one in Trust(home).signed(saved)] == [None]
    (home / "keys" / "trusted").mkdir(parents=True)
    (home / "keys" / "trusted" / "ann.pem").write_bytes(private.with_suffix(".pub").read_bytes())
    assert [(one.name, one.is_trusted) for one in Trust(home).signed(saved)] == [("ann", True)]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_every_curve_of_the_format_works(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle, curve: Any) -> None:
    private = new_key(tmp_path / "k.pem", ec.generate_private_key(curve))
    signature = signed(blobs, saved, tmp_path / "out", private)
    signing.check(signature, signing.read_key(private.with_suffix(".pub")), saved)


def test_what_is_no_key_is_refused_by_name(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    other = new_key(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    koblitz = new_key(tmp_path / "k1.pem", ec.generate_private_key(ec.SECP256K1()))
    (tmp_path / "text.pem").write_text("hello")
    for path in (other.with_suffix(".pub"), koblitz.with_suffix(".pub"), tmp_path / "text.pem", koblitz):
        with pytest.raises(InvalidInput, match=path.name):
            signing.read_key(path)
    with pytest.raises(NotFound, match=r"no key at .*none\.pem"):
        signing.read_key(tmp_path / "none.pem")
    for path in (other, koblitz, tmp_path / "text.pem"):
        with pytest.raises(InvalidInput, match=r"no private key to sign with"):
            signed(blobs, saved, tmp_path / f"{path.stem}-out", path)


def test_wrong_key_swapped_signature_and_forgery_are_told_apart(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    other = bundle.save(blobs, linear([3.0], 0.0))
    own, ann = signing.own_key(home), new_key(tmp_path / "ann.pem")
    good, swapped = signed(blobs, saved, tmp_path / "a", own), signed(blobs, other, tmp_path / "b", own)
    key = signing.read_key(home / "keys" / "signing.pub.pem", "this home")
    signing.check(good, key, saved)
    with pytest.raises(Forbidden, match=r"made with key [0-9a-f]{12}, not with ann"):
        signing.check(good, signing.read_key(ann.with_suffix(".pub")), saved)
    with pytest.raises(Corrupt, match=r"is of another bundle than .* they differ in .*files/"):
        signing.check(swapped, key, saved)
    with pytest.raises(Corrupt, match="it was changed or forged"):
        signing.check(forged(good, payload=lambda text: text.replace(b"onnx", b"onny")), key, saved)
    # Signed by ann, and saying that the home's key did it.
    by_ann = json.loads(signed(blobs, saved, tmp_path / "c", ann))
    by_ann["verificationMaterial"]["publicKey"]["hint"] = key.id
    with pytest.raises(Corrupt, match="it was changed or forged"):
        signing.check(json.dumps(by_ann).encode(), key, saved)


def forged(signature: bytes, payload: Any) -> bytes:
    document = json.loads(signature)
    text = base64.b64decode(document["dsseEnvelope"]["payload"])
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload(text)).decode()
    return json.dumps(document).encode()


def by_hand(saved: bundle.Bundle, private: Path, **change: Any) -> bytes:
    """A signature whose cryptography holds and whose statement is whatever one likes."""
    resources = [
        {"name": name, "digest": digest, "algorithm": "sha256"}
        for name, digest in sorted(_manifest.resources(saved.digest, saved.manifest).items())
    ]
    root = digest_of(b"".join(bytes.fromhex(one["digest"]) for one in resources))
    statement: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://model_signing/signature/v1.0",
        "subject": [{"name": "x", "digest": {"sha256": root}}],
        "predicate": {"resources": resources, "serialization": {"method": "files", "hash_type": "sha256"}},
    } | change
    key: Any = serialization.load_pem_private_key(private.read_bytes(), None)
    payload, kind = json.dumps(statement).encode(), b"application/vnd.in-toto+json"
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    from cryptography.hazmat.primitives import hashes

    value = key.sign(message, ec.ECDSA(hashes.SHA384()))
    public = signing.read_key(private.with_suffix(".pub"))
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": public.id}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(value).decode()}],
        },
    }
    return json.dumps(document).encode()


def test_statements_that_say_something_else_are_refused_though_the_key_is_right(
    tmp_path: Path, saved: bundle.Bundle
) -> None:
    private = new_key(tmp_path / "ann.pem")
    key = signing.read_key(private.with_suffix(".pub"))
    signing.check(by_hand(saved, private), key, saved)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]}, Corrupt, "contradicts itself"),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, InvalidInput, "version 1.0"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, InvalidInput, "version 1.0"),
        ({"predicate": {"resources": [], "serialization": {"method": "files"}}}, Corrupt, "contradicts itself"),
        ({"predicate": {"serialization": {"method": "files"}}}, InvalidInput, "version 1.0"),
        ({"predicate": None}, InvalidInput, "version 1.0"),
        ({"subject": []}, InvalidInput, "version 1.0"),
    ]
    for change, error, says in cases:
        with pytest.raises(error, match=says):
            signing.check(by_hand(saved, private, **change), key, saved)


def test_what_is_no_signature_at_all_is_refused_and_not_kept(tmp_path: Path, home: Path, saved: bundle.Bundle) -> None:
    key = signing.read_key(new_key(tmp_path / "ann.pem").with_suffix(".pub"))
    hint = {"verificationMaterial": {"publicKey": {"hint": key.id}}}
    odd: list[Any] = [[], {"verificationMaterial": {"publicKey": {"hint": "../../x"}}}]
    envelopes: list[Any] = [None, {}, {"payloadType": "x", "signatures": []}, {"signatures": 3}]
    for raw in (b"", b"no", b"[" * 100_000, *(json.dumps(one).encode() for one in odd)):
        with pytest.raises(InvalidInput):
            Trust(home).keep(saved.digest, raw)
    assert not list((home / "signatures" / saved.digest).glob("*"))
    for envelope in envelopes:
        with pytest.raises(InvalidInput):
            document = {**hint, "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": envelope}
            signing.check(json.dumps(document).encode(), key, saved)


def test_a_home_that_requires_signatures_loads_nothing_else(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    trust = Trust(home)
    bundle.load(blobs, saved.digest, trust)
    (home / "flyball.toml").write_text("[models]\nrequire_signature = true\n")
    with pytest.raises(Forbidden, match="no trusted key signed it, and this home requires it"):
        bundle.load(blobs, saved.digest, trust)
    ann = new_key(tmp_path / "ann.pem")
    trust.keep(saved.digest, signed(blobs, saved, tmp_path / "a", ann))
    with pytest.raises(Forbidden, match=r"signed by [0-9a-f]{12}, which this home does not trust"):
        bundle.load(blobs, saved.digest, trust)
    (tmp_path / "shared").mkdir()
    os.link(ann.with_suffix(".pub"), tmp_path / "shared" / "ann.pem")
    (home / "flyball.toml").write_text(f"[models]\nrequire_signature = true\ntrusted_keys = '{tmp_path / 'shared'}'\n")
    bundle.load(blobs, saved.digest, trust)
    (kept,) = (home / "signatures" / saved.digest).iterdir()
    other = bundle.save(blobs, linear([3.0], 0.0))
    kept.write_bytes(signed(blobs, other, tmp_path / "b", ann))
    with pytest.raises(Forbidden, match="is of another bundle"):
        bundle.load(blobs, saved.digest, trust)


def test_an_unsafe_format_is_loaded_only_when_a_trusted_key_signed_it(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    pickled = b"cos\nsystem\n(S'true'\ntR."
    files = saved.manifest["files"] | {"model/extra.txt": {"digest": blobs.put(pickled), "size": len(pickled)}}
    digest = blobs.put(_manifest.canonical(saved.manifest | {"files": files}))
    for trust in (None, Trust(home)):
        with pytest.raises(Forbidden, match=r"model/extra.txt: a pickle: it imports os\.system.*no trusted key signed"):
            bundle.load(blobs, digest, trust)
    odd = bundle.read_manifest(blobs, digest)
    Trust(home).keep(digest, signed(blobs, odd, tmp_path / "a", new_key(tmp_path / "ann.pem")))
    with pytest.raises(Forbidden, match=r"imports os\.system.*which this home does not trust"):
        bundle.load(blobs, digest, Trust(home))
    Trust(home).keep(digest, signed(blobs, odd, tmp_path / "b", signing.own_key(home)))
    bundle.load(blobs, digest, Trust(home))
    with pytest.raises(Forbidden, match=r"imports os\.system"):
        bundle.load(blobs, digest)


def test_a_damaged_key_of_the_home_is_named_and_nothing_is_loaded_past_it(
    tmp_path: Path, home: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    Trust(home).keep(saved.digest, signed(blobs, saved, tmp_path / "a", signing.own_key(home)))
    (home / "keys" / "trusted").mkdir()
    (home / "keys" / "trusted" / "bob.pem").write_text("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    with pytest.raises(InvalidInput, match=r"bob\.pem is no public key"):
        bundle.load(blobs, saved.digest, Trust(home))


def test_keyless_without_what_it_needs_says_so(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    own = new_key(tmp_path / "ann.pem")
    signature = signed(blobs, saved, tmp_path / "a", own)
    with pytest.raises(Forbidden, match=r"that ann@example\.org signed it could not be proved"):
        signing.check_keyless(tmp_path / "a", signature, "ann@example.org", "https://issuer.example")
