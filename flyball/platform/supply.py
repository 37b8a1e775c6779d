"""The supply chain of models: signed, looked through, listed, moved, and made into an image."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import Corrupt, FlyballError, Forbidden, InvalidInput, NotFound, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.platform.models import ModelActs

if TYPE_CHECKING:
    from flyball.models.bundle import Bundle
    from flyball.models.signing import Key
    from flyball.models.trust import Signed, Trust
    from flyball.models.unsafe import Finding
    from flyball.models.vulnerabilities import Report
    from flyball.storage.blobs import BlobStore

__all__ = ["SupplyActs"]

_SCANNED_BYTES = 256 << 20  # for a page; a larger model is scanned by command


class SupplyActs(ModelActs):
    """The supply chain of models: signed, looked through, listed, moved, and made into an image.

    Where a version is named without a number, `late`, its newest is meant.
    """

    @property
    def trust(self) -> Trust:
        """Whom this home trusts with its models."""
        from flyball.models.trust import Trust

        return Trust(self.home)

    def register(self, name: str, model: Any, **options: Any) -> Version:
        """Publish a model's next version with what belongs to it, and sign it where `[models] sign` asks.

        Raises: as `training.registering.register`, and MissingExtra where it is to be signed and cannot be.
        """
        files = {**self._belongings(options), **options.pop("files", {})}
        version = super().register(name, model, files=files, **options)
        if self.trust.settings().sign:
            self.sign(version.ref)
        return version

    def signing_key(self) -> Key:
        """Return the public half of the home's own key, which is made when there is none."""
        from flyball.models.signing import own_key, read_key

        self._may("sign")
        own_key(self.home)
        return read_key(self.home / "keys" / "signing.pub.pem", "this home")

    def trust_key(self, path: Path, name: str | None = None) -> Key:
        """Trust the signatures of a public key from now on, under a name; default: the file's.

        Raises:
            NotFound, InvalidInput: it is no public key, or the name cannot be one of a file.
        """
        from flyball.models.signing import read_key

        self._may("trust")
        key = read_key(path, name)
        if not key.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise InvalidInput(f'"{key.name[:80]}" cannot be the name of a key; use letters, digits, ".", "-" and "_"')
        folder = self.home / "keys" / "trusted"
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"{key.name}.pem", key.pem)
        return key

    def sign(
        self, target: str | Ref, key: Path | None = None, *, keyless: bool = False, token: str | None = None
    ) -> Signed:
        """Sign a model version with the home's own key, another private key, or keyless; every file is verified first.

        Raises:
            NotFound, InvalidInput, Corrupt: there is no such version or key, or the bundle is damaged.
            Unavailable: keyless, and Sigstore cannot be reached.
            MissingExtra: the extra `supply` is not installed.
        """
        from flyball.models import bundle, signing
        from flyball.models.trust import Signed

        self._may("sign")
        made, found = self._bundle(target, as_it_is=True)
        private = None if keyless else key or signing.own_key(self.home)
        with tempfile.TemporaryDirectory(prefix="flyball-sign-") as scratch:
            folder = Path(scratch) / made.ref.short
            bundle.export_folder(self.blobs, found.digest, folder)
            signed = (
                signing.sign_folder_keyless(folder, token) if private is None else signing.sign_folder(folder, private)
            )
        self.trust.keep(found.digest, signed)
        by = signing.key_of(signed)
        with self._writing("sign") as world:
            world.journal.note("signed", str(made.ref), {"key": by or "keyless"}, made.event)
        return next((one for one in self.trust.signed(found) if one.key == by), Signed(by, None))

    def verify_model(self, target: str | Ref, key: Path | None = None, identity: str = "", issuer: str = "") -> Signed:
        """Prove that a model version is what was signed, by a trusted key, by the public key in a file, or keyless.

        Raises:
            NotFound: nobody signed it.
            Forbidden: no trusted key did, or not that key.
            Corrupt: a file or the signature was changed, or the signature is of another bundle.
        """
        from flyball.models import bundle, signing
        from flyball.models.trust import Signed

        self._may("read")
        made, found = self._bundle(target)
        bundle.scan(self.blobs, found.digest)  # verifies every file on the way
        kept = self.trust.signatures(found.digest)
        if not kept:
            raise NotFound(f"{made.ref.short} is not signed; sign it with: flyball model sign {made.ref.short}")
        if identity:
            return self._verified_keyless(made, found, kept, identity, issuer)
        if key is None:
            signed = self.trust.signed(found)
            if signed[0].is_trusted:
                return signed[0]
            if signed[0].problem is not None:
                raise Corrupt(signed[0].problem)
            raise Forbidden(
                f"{made.ref.short} is signed by {listed([one.key or 'keyless' for one in signed], 3)}, which this home "
                "does not trust; trust a key with: flyball model key --trust FILE"
            )
        public = signing.read_key(key)
        ours = [one for one in kept if signing.key_of(one) == public.id]
        signing.check(ours[0] if ours else kept[0], public, found)
        return Signed(public.id, public.name)

    def scan_model(self, target: str | Ref) -> tuple[Finding, ...]:
        """Return what is unsafe in a model's files; nothing is loaded. Raises NotFound, Corrupt."""
        from flyball.models import bundle

        self._may("read")
        return bundle.scan(self.blobs, self._bundle(target)[1].digest)

    def export_model(self, target: str | Ref, path: Path, form: str = "bundle") -> Version:
        """Write a model version as a zip archive, or as a folder where the path has no ending `.zip`.

        Args:
            form: "bundle", or "mlmodel" for a folder that MLflow's clients load; that one is not signed.

        Raises:
            Conflict: something is there already.
            InvalidInput: an unknown form, an archive of the form mlmodel, or a flavour that MLflow cannot be given.
            NotFound, Corrupt: the version cannot be read whole.
        """
        from flyball.models import as_mlmodel, bundle

        self._may("read")
        if form not in ("bundle", "mlmodel"):
            raise InvalidInput(f'a model is exported as "bundle" or "mlmodel", not as "{form[:40]}"')
        made, found = self._bundle(target)
        if form == "mlmodel":
            if path.suffix == ".zip":
                raise InvalidInput(f"{path} names an archive; MLflow reads a folder: name one")
            bundle.scan(self.blobs, found.digest)  # verifies every file on the way
            as_mlmodel.write(path, self.blobs, found)
            return made
        signature = self.trust.exported(found)
        write = bundle.export if path.suffix == ".zip" else bundle.export_folder
        write(self.blobs, found.digest, path, signature=signature)
        return made

    def import_model(self, path: Path, name: str, *, accept_code: bool = False, note: str = "") -> Version:
        """Publish an exported bundle as the next version of a declared model; it keeps its digest and signature.

        Args:
            accept_code: take a bundle that no trusted key signed although loading it runs code: Python source.

        Raises:
            NotFound: the model was not declared, or there is no archive.
            InvalidInput, Corrupt, Incompatible: it is no whole bundle.
            Forbidden: policies forbid it, or it runs code or is in an unsafe format and no trusted key signed it.
        """
        from flyball.models import bundle
        from flyball.models.unsafe import scan_files

        self._may("register")
        with self._reading() as world:
            world.resources.get("model", name)

        def permit(found: Bundle, files: Mapping[str, Path], signature: bytes | None) -> None:
            broken = self.guard.judge(name, [field.name for field in found.signature.inputs], [])
            if broken:
                raise Forbidden(f"model/{name} may not be registered: {listed(broken, 5)}")
            if signature is not None:
                self.trust.receive(found, signature)
            contents = {path: copy.read_bytes() for path, copy in files.items() if path.startswith("model/")}
            findings = scan_files(contents)
            self.trust.admit(found, lambda: findings)
            runs = [str(finding) for finding in findings if not finding.is_unsafe]
            if runs and not accept_code and not any(one.is_trusted for one in self.trust.signed(found)):
                raise Forbidden(
                    f"{path.name} holds {listed(runs, 3)}; no trusted key signed it. Read it, then import it with "
                    "--accept-code"
                )

        found, _ = bundle.import_(self.blobs, path, permit=permit)
        told = _evaluation(self.blobs, found)
        metadata = {
            "flavor": found.manifest["flavor"],
            "signature": found.manifest["signature"],
            "size_bytes": found.size_bytes,
            "note": note or f"imported from {path.name}",
            **told,
        }
        with self._writing("register") as world:
            return world.versions.publish("model", name, found.digest, metadata=metadata)

    def bill_of(self, target: str | Ref) -> bytes:
        """Return the bill of materials of a model version, CycloneDX 1.6 as JSON. Raises MissingExtra."""
        from flyball.models.bill import Facts, bill

        self._may("read")
        made, found = self._bundle(target)
        evaluation = made.metadata.get("evaluation") or {}
        references = _json(self.blobs, found, "data/references.json")
        with self._reading() as world:
            description = str(world.resources.get("model", made.name).spec.get("description") or "")
        facts = Facts(
            made.name,
            str(made.number),
            made.created_at,
            description,
            made.metadata.get("task"),
            [(one["ref"], one.get("digest"), one["role"]) for one in references or []],
            evaluation.get("metrics", {}),
            [
                (f"{part['column']} = {part['value']}", evaluation["metric"], part["interval"])
                for part in evaluation.get("worst_slices", ())
            ],
            {"useCases": [description] if description else []},
        )
        return bill(found, facts)

    def vulnerabilities(self, target: str | Ref, database: Path) -> Report:
        """Look a version's locked packages up in an OSV database on disk; the report is kept for the version's page.

        Raises:
            NotFound, InvalidInput: there is no such database.
        """
        from flyball.models.vulnerabilities import look_up

        self._may("read")
        _, found = self._bundle(target)
        report = look_up(found.manifest["environment"], database)
        if self.principal.has("operator"):
            document = {"at": self.clock.now().isoformat(), "database": database.name, **asdict(report)}
            place = self.home / "vulnerabilities" / f"{found.digest}.json"
            place.parent.mkdir(exist_ok=True)
            _replace(place, json.dumps(document, ensure_ascii=False).encode())
        return report

    def image_of(
        self, target: str | Ref, folder: Path, base: str | None = None, wheels: Path | None = None
    ) -> list[str]:
        """Write the definition of a container image that serves a model version; return its files.

        Raises:
            Conflict: the folder is there and not empty.
            InvalidInput: the base is no image, or there are no wheels.
        """
        from flyball.models import image

        self._may("read")
        made, found = self._bundle(target)
        trusted = [one.key for one in self.trust.signed(found) if one.is_trusted]
        keys = [key for id, key in self.trust.keys().items() if id in trusted] if trusted else []
        signature = self.trust.exported(found)
        options: dict[str, Any] = {"base": base, "wheels": wheels, "signature": signature, "keys": keys}
        return image.write(folder, self.blobs, found, made.ref.short, **options)

    def supply_of(self, target: str | Ref) -> dict[str, Any]:
        """Return what a page shows of a version's supply chain; what cannot be told is a sentence under `problem`.

        {signed: [Signed], findings: [Finding] or None when the model is too large to be scanned here, packages: how
        many, vulnerabilities: the last report or None, problem}
        """
        self._may("read")
        shown: dict[str, Any] = {"signed": [], "findings": None, "packages": 0, "vulnerabilities": None}
        try:
            _, found = self._bundle(target)
            environment = found.manifest["environment"]
            shown["packages"] = len(environment.get("locked") or environment.get("packages", {}))
            shown["vulnerabilities"] = _read_report(self.home / "vulnerabilities" / f"{found.digest}.json")
            shown["signed"] = self.trust.signed(found)
            if found.size_bytes <= _SCANNED_BYTES:
                blobs: Any = self.blobs  # hashable, though the protocol does not say so
                shown["findings"] = _scanned(blobs, found.digest)
            return {**shown, "problem": None}
        except FlyballError as error:
            return {**shown, "problem": str(error)}

    def _bundle(self, target: str | Ref, *, as_it_is: bool = False) -> tuple[Version, Bundle]:
        from flyball.models.bundle import read_manifest

        made = self.version(ref(str(target)) if "/" in str(target) else ref(str(target), "model"))
        if made.kind != "model":
            raise InvalidInput(f"{made.ref} is no version of a model")
        made = self.bundled(made, as_it_is=as_it_is)
        return made, read_manifest(self.blobs, made.digest)

    def _verified_keyless(self, made: Version, found: Bundle, kept: list[bytes], identity: str, issuer: str) -> Signed:
        from flyball.models import bundle, signing
        from flyball.models.trust import Signed

        keyless = [one for one in kept if signing.key_of(one) is None]
        if not keyless:
            raise NotFound(f"{made.ref.short} has no keyless signature; verify it without --identity")
        with tempfile.TemporaryDirectory(prefix="flyball-verify-") as scratch:
            folder = Path(scratch) / "bundle"
            bundle.export_folder(self.blobs, found.digest, folder)
            signing.check_keyless(folder, keyless[0], identity, issuer)
        return Signed(None, identity)

    def _belongings(self, options: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files that registering adds: what it learnt from by digest, the run's parameters, its figures."""
        found: dict[str, Any] = {}
        trained_on, run, evaluation = (options.get(name) for name in ("trained_on", "run", "evaluation"))
        sources = [*([(trained_on, "trained on")] if trained_on else []), *options.get("also_from", ())]
        with self._reading() as world:
            if sources:
                found["data/references.json"] = [_reference(world, source, role) for source, role in sources]
            params = _params(world, run) if run else {}
        if params:
            found["configuration/params.json"] = params
        if evaluation is not None:
            # Without the slices: they name values of the data, which must be able to be erased.
            kept = {key: evaluation.to_dict()[key] for key in ("task", "metric", "rows", "metrics")}
            found["tests/evaluation.json"] = kept
        return {
            path: json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, default=str).encode()
            for path, value in found.items()
        }


def _params(world: Any, run: str) -> dict[str, Any]:
    try:
        return dict(world.runs.get(run).params)
    except NotFound:  # of another home, or not a run of the ledger's
        return {}


def _reference(world: Any, source: Ref, role: str) -> dict[str, Any]:
    try:
        made = world.versions.get(source.kind, source.name, source.version or "latest")
    except (NotFound, InvalidInput):  # of a kind without versions, such as a run
        return {"ref": str(source), "role": role, "digest": None}
    return {"ref": str(made.ref), "role": role, "digest": made.digest}


def _evaluation(blobs: BlobStore, bundle: Bundle) -> dict[str, Any]:
    """Return what an imported bundle says of its own quality, as registering would have put it."""
    found = _json(blobs, bundle, "tests/evaluation.json")
    if not isinstance(found, dict) or not {"task", "metric", "metrics", "rows"} <= found.keys():
        return {}
    return {
        "task": found["task"],
        "metric": found["metric"],
        "evaluation": {**found, "worst_slices": [], "windows": {}},
    }


def _json(blobs: BlobStore, bundle: Bundle, path: str) -> Any:
    entry = bundle.manifest["files"].get(path)
    if entry is None:
        return None
    try:
        return json.loads(blobs.get(entry["digest"]))
    except (ValueError, RecursionError):
        return None


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@lru_cache(maxsize=256)
def _scanned(blobs: Any, digest: str) -> tuple[Finding, ...]:
    """Scan a bundle once a process: what has a digest never changes."""
    from flyball.models import bundle

    return bundle.scan(blobs, digest)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
