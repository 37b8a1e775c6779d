"""A model as one thing under one digest: its files, signature, example, environment and what was said about it.

Every file of a bundle is a blob; the manifest, a blob of canonical JSON, lists their digests, so the manifest's own
digest covers all of it. The registry keeps that digest; the data plane, batch scoring and exports load by it. No byte
reaches a deserialiser before its digest was verified, the home's trust was asked (`models.trust`), and, where no
trusted key signed the bundle, its files were looked through for pickles and their like (`models.unsafe`).

Besides `model/` a bundle has places for the rest of the artefact (`PARTS`): the locked environment, code,
configuration, data references, tests, documents.

    bundle = save(blobs, model, signature=None, example=X[:5])
    loaded = load(blobs, bundle.digest)
    loaded.predict(loaded.signature.columns([{"carrier": "UA", "distance": 1400}]))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball import plugins
from flyball.errors import (
    Corrupt,
    FlyballError,
    Incompatible,
    InvalidInput,
    NotFound,
    StepFailed,
    listed,
)
from flyball.models import _archive, _frames, _manifest, environment
from flyball.models._columns import Column, shown
from flyball.models.explaining import Explanation, explained
from flyball.models.signature import Signature
from flyball.models.trust import refuse_unsafe
from flyball.models.unsafe import Finding, scan_files
from flyball.storage.blobs import BlobStore, digest_of

if TYPE_CHECKING:
    from flyball.models.trust import Trust

__all__ = [
    "PARTS",
    "Bundle",
    "LoadedModel",
    "answers",
    "export",
    "export_folder",
    "import_",
    "keep",
    "load",
    "read_manifest",
    "save",
    "scan",
    "served_by",
]

Predict = Callable[[Mapping[str, Column]], dict[str, Column]]

PARTS: Mapping[str, str] = {  # part → the folder in a bundle where it is
    "model": "model/",
    "environment": "environment/",
    "code": "code/",
    "configuration": "configuration/",
    "data": "data/",
    "tests": "tests/",
    "documents": "docs/",
}

_FLAVORS = "flyball.models.flavors"
_REQUIREMENTS = "environment/requirements.txt"


@dataclass(frozen=True)
class Bundle:
    """A stored bundle: the SHA-256 of its manifest, and the manifest (plain JSON values)."""

    digest: str
    manifest: dict[str, Any]

    @property
    def signature(self) -> Signature:
        """What the model takes and answers."""
        return Signature.from_dict(self.manifest["signature"])

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def contents(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of each part in `PARTS` that the bundle has, and of what is elsewhere as `other`."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.manifest["files"]):
            part = next((part for part, folder in PARTS.items() if path.startswith(folder)), "other")
            found.setdefault(part, []).append(path)
        return {part: tuple(found[part]) for part in (*PARTS, "other") if part in found}


class LoadedModel:
    """A model in memory, ready to predict.

    Attributes:
        bundle: where it came from.
        signature: what it takes and answers; `signature.columns` makes what `predict` takes.
        warnings: how this environment differs from the one the bundle was made in; for people, not a failure.
    """

    def __init__(self, bundle: Bundle, predict: Predict) -> None:
        self.bundle = bundle
        self.signature = bundle.signature
        self.warnings = environment.differences(bundle.manifest["environment"])
        self._predict = predict

    def predict(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Answer checked columns.

        Args:
            columns: name → array, as `signature.columns` returns them; they are not checked again.

        Returns:
            The signature's outputs, one entry a row. Of a classifier "prediction" (the label) and, if it knows them,
            "probability" (two classes: of the second, float64) or "probabilities" (rows × classes, float64; the
            classes in order are the field's `categories`); of a regressor "prediction".

        Raises:
            InvalidInput: the model cannot take these values, for instance a missing one.
            StepFailed: the model's own code failed.
        """
        try:
            return self._predict(columns)
        except FlyballError:
            raise
        except Exception as error:
            raise StepFailed(f"the model failed on these rows: {type(error).__name__}: {str(error)[:300]}") from error

    def explain(self, columns: Mapping[str, Column], is_approximate: bool = False) -> Explanation:
        """Return what each input did for the answers to checked columns; see `explaining`.

        Args:
            is_approximate: sample where there is no exact way.

        Raises:
            InvalidInput: the model cannot be explained so, or not so many rows at once.
            StepFailed: the model's own code failed.
        """
        return explained(self._predict, self.predict, self.signature, columns, self.example(), is_approximate)

    def example(self) -> Mapping[str, Column] | None:
        """Return the example rows as checked columns, or None when the bundle was saved without."""
        columns = self.bundle.manifest["example"]
        return None if columns is None else self.signature.columns_from(columns)

    def warm_up(self) -> None:
        """Run the example once, so that the first request does not pay for what the library does lazily."""
        columns = self.example()
        if columns is not None:
            self.predict(columns)


def save(
    blobs: BlobStore,
    model: Any,
    *,
    signature: Signature | None = None,
    example: Any = None,
    flavor: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Store a model as a bundle and prove that it loads and answers its example as before.

    Args:
        signature: None infers it from the example, or from the model itself where that is possible (ONNX).
        example: rows as `infer_signature` takes them; the first 20 are kept in the bundle, readable to all who may
            read the model, so mask what is personal.
        flavor: the file's name in `flyball.models.flavors`; None asks each whether it recognises the model.
        metadata: plain JSON values.
        files: path → bytes of whatever else belongs to it, best below a folder of `PARTS`; what Python source among
            them imports is locked with the environment.

    Raises:
        InvalidInput: nothing recognises the model, it cannot be kept safely, or signature and example do not fit.
        StepFailed: the model fails on its own example, or answers otherwise once reloaded.

    Whatever is raised, nothing was stored.
    """
    name, module = _flavor_of(model, flavor)
    example = _frames.arrays(example)
    answers = None if example is None else _guarded(lambda: module.answer(model, example), "on its example")
    if signature is None:
        signature = module.signature(model, example, answers)
    checked = None
    if example is not None:
        checked = signature.columns_from(_named(signature, example), subject="the model's example")
    if answers is not None:
        signature = _with_outputs(signature, module, model, example, answers)
    contents = {
        f"model/{path}": data
        for path, data in _guarded(lambda: module.dump(model, signature, example), "to be kept").items()
    }
    for path, data in (files or {}).items():
        if _manifest.check_path(path).startswith(("model/", "environment/")):
            held = "the model itself" if path.startswith("model/") else "what Flyball locks"
            folder = path.partition("/")[0]
            raise InvalidInput(f'the file "{path}" cannot be added: {folder}/ holds {held}; use another folder')
        contents[path] = bytes(data)
    sources = [data for path, data in contents.items() if path.endswith(".py")]
    recorded = environment.recorded([*module.packages(), *sorted(environment.imported(sources))])
    contents[_REQUIREMENTS] = environment.requirements(recorded).encode()
    _manifest.check_paths(contents)
    manifest = {
        "format": _manifest.FORMAT,
        "flavor": name,
        "files": {path: {"digest": digest_of(data), "size": len(data)} for path, data in contents.items()},
        "signature": signature.to_dict(),
        "example": None if checked is None else _manifest.plain_columns(checked),
        "environment": recorded,
        "metadata": dict(metadata or {}),
    }
    bundle, text = _described(manifest)
    reloaded = _loaded(bundle, contents)
    if checked is not None and answers is not None:
        _check_answers(reloaded, checked, answers)
    for data in contents.values():
        blobs.put(data)
    blobs.put(text)
    return bundle


def keep(
    blobs: BlobStore, flavor: str, signature: Signature, files: Mapping[str, bytes], metadata: Mapping[str, Any]
) -> Bundle:
    """Store a model's files as a bundle without loading any of them, so without proof that they answer.

    Args:
        files: path → bytes below `model/`, as the flavour's `load` takes them.
        metadata: plain JSON values.

    Raises:
        InvalidInput: a path leads out of the bundle.
    """
    recorded = environment.recorded(plugins.find(_FLAVORS, flavor).packages())
    contents = {f"model/{path}": data for path, data in files.items()}
    contents[_REQUIREMENTS] = environment.requirements(recorded).encode()
    _manifest.check_paths(contents)
    bundle, text = _described(
        {
            "format": _manifest.FORMAT,
            "flavor": flavor,
            "files": {path: {"digest": digest_of(data), "size": len(data)} for path, data in contents.items()},
            "signature": signature.to_dict(),
            "example": None,
            "environment": recorded,
            "metadata": dict(metadata),
        }
    )
    for data in contents.values():
        blobs.put(data)
    blobs.put(text)
    return bundle


def answers(model: Any, rows: Any, flavor: str | None = None) -> dict[str, Column]:
    """Return what a model answers on rows in the user's own form, by output name, without bundling it.

    Raises:
        InvalidInput: nothing recognises the model.
    """
    _, module = _flavor_of(model, flavor)
    return dict(module.answer(model, _frames.arrays(rows)))


def read_manifest(blobs: BlobStore, digest: str) -> Bundle:
    """Read what a bundle says of itself, without its files.

    Raises:
        NotFound: no such bundle.
        Corrupt: the bytes are not what the digest says, or no manifest.
        Incompatible: a format that this release does not know.
    """
    return Bundle(digest, _manifest.read(_verified(blobs, digest, "its manifest")))


def load(blobs: BlobStore, digest: str, trust: Trust | None = None) -> LoadedModel:
    """Verify every file of a bundle and whether it may be loaded, then load the model.

    Args:
        trust: the home's; None trusts nobody, so that an unsafe format is refused whoever signed it.

    Raises:
        NotFound: no such bundle.
        Corrupt: a file is missing, or its bytes are not what the manifest says; the model was not touched.
        Forbidden: no trusted key signed it, and the home requires that or a file is in an unsafe format.
        Incompatible: a format or a flavour that this release does not know.
        MissingExtra: the model's library is not installed, or what checks signatures.
    """
    bundle = read_manifest(blobs, digest)
    contents = _contents(blobs, bundle)
    if trust is None:
        refuse_unsafe(digest, _findings(bundle, contents))
    else:
        trust.admit(bundle, lambda: _findings(bundle, contents))
    return _loaded(bundle, contents)


def served_by(blobs: BlobStore, kept: Bundle) -> str | None:
    """Return how a bundle's model answers: `trees`, `linear`, or `plain: ` and why; None where its flavour has one way.

    Raises:
        NotFound, Corrupt: the bundle's own word on it is missing or damaged.
    """
    entry = kept.manifest["files"].get("model/compiled.json")
    if entry is None:
        return None
    chosen = json.loads(_verified(blobs, entry["digest"], "model/compiled.json"))
    return f"{chosen['path']}: {chosen['why']}" if chosen["why"] else str(chosen["path"])


def scan(blobs: BlobStore, digest: str) -> tuple[Finding, ...]:
    """Verify every file of a bundle and return what is unsafe, or worth knowing, in those of the model.

    Raises:
        NotFound, Corrupt, Incompatible: as `load`.
    """
    bundle = read_manifest(blobs, digest)
    return _findings(bundle, _contents(blobs, bundle))


def export(blobs: BlobStore, digest: str, path: str | os.PathLike[str], *, signature: bytes | None = None) -> None:
    """Write a bundle as a zip archive: `manifest.json`, its files below `files/`, each verified on the way out.

    Args:
        signature: goes along as `model.sig`.

    Raises:
        NotFound, Corrupt, Incompatible: as `load`.
    """
    files = read_manifest(blobs, digest).manifest["files"]
    _archive.write(Path(path), _verified(blobs, digest, "its manifest"), files, blobs, signature)


def export_folder(
    blobs: BlobStore, digest: str, path: str | os.PathLike[str], *, signature: bytes | None = None
) -> None:
    """Write a bundle as a folder with the contents that the archive of `export` has.

    Raises:
        Conflict: the folder is there and not empty.
        NotFound, Corrupt, Incompatible: as `load`.
    """
    files = read_manifest(blobs, digest).manifest["files"]
    _archive.write_folder(Path(path), _verified(blobs, digest, "its manifest"), files, blobs, signature)


Permit = Callable[[Bundle, Mapping[str, Path], bytes | None], None]  # the bundle, its files, its signature; may raise


def import_(
    blobs: BlobStore, path: str | os.PathLike[str], *, limit_bytes: int = 8 << 30, permit: Permit | None = None
) -> tuple[Bundle, bytes | None]:
    """Store the bundle of an archive or folder that was exported, and return it with the signature that came along.

    The model is not loaded, and the signature not checked. The same bundle has the same digest.

    Args:
        limit_bytes: the most that its files may unpack to, together.
        permit: asked when all is proved and nothing stored yet; what it raises is raised.

    Raises:
        InvalidInput: neither, or more in it than its manifest lists or than the limit allows, or a link.
        Corrupt: a file is missing or not what the manifest says. Nothing was stored.
        Incompatible: a format that this release does not know.
    """
    with _archive.opened(Path(path), limit_bytes) as found:
        bundle = Bundle(digest_of(found.text), found.manifest)
        if permit is not None:
            permit(bundle, found.files, found.signature)
        for name, copy in found.files.items():
            if blobs.put(copy) != found.manifest["files"][name]["digest"]:
                raise Corrupt(f"{name} changed while it was imported; import it again")
        blobs.put(found.text)
        return bundle, found.signature


def _described(manifest: Mapping[str, Any]) -> tuple[Bundle, bytes]:
    text = _manifest.canonical(manifest)
    return Bundle(digest_of(text), _manifest.read(text)), text


def _findings(bundle: Bundle, contents: Mapping[str, bytes]) -> tuple[Finding, ...]:
    """Return what a scan finds, and that a folder which says itself what may be built is unsafe whatever it finds."""
    found = scan_files(contents)
    if bundle.manifest["flavor"] != "mlmodel":
        return found
    return (
        Finding("model/MLmodel", "a folder of MLflow kept as it is", "it names what is built when it loads"),
        *found,
    )


def _flavor_of(model: object, name: str | None) -> tuple[str, ModuleType]:
    if name is not None:
        return name, plugins.find(_FLAVORS, name)
    known = plugins.names(_FLAVORS)
    for each in known:
        module = plugins.find(_FLAVORS, each)
        if module.recognises(model):
            return each, module
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise InvalidInput(
        f'no flavour recognises a {kind} (known: {listed(known)}); wrap it in a function with flavor="python"'
    )


def _named(signature: Signature, example: Any) -> dict[str, Any]:
    """The example's columns under the signature's names; NumPy has none of its own, so there the order decides."""
    if isinstance(example, np.ndarray):
        if len(signature.inputs) == 1 and signature.inputs[0].shape is not None:
            return {signature.inputs[0].name: example}
        if example.ndim == 2 and example.shape[1] == len(signature.inputs):
            return {field.name: example[:, at] for at, field in enumerate(signature.inputs)}
    return _frames.values_of(example)


def _with_outputs(
    signature: Signature, module: ModuleType, model: object, example: object, answers: Mapping[str, Column]
) -> Signature:
    if not signature.outputs:
        return Signature(signature.inputs, module.signature(model, example, answers).outputs)
    stated = [field.name for field in signature.outputs]
    if set(stated) != set(answers):
        raise InvalidInput(f"the signature has the outputs {listed(stated)}, but the model answers {listed(answers)}")
    return signature


def _loaded(bundle: Bundle, contents: Mapping[str, bytes]) -> LoadedModel:
    try:
        module = plugins.find(_FLAVORS, bundle.manifest["flavor"])
    except NotFound as error:
        raise Incompatible(f"the bundle cannot be loaded: {error}") from None
    own = {path.removeprefix("model/"): data for path, data in contents.items() if path.startswith("model/")}
    try:
        return LoadedModel(bundle, module.load(own, bundle.manifest))
    except FlyballError:
        raise
    except Exception as error:
        raise StepFailed(f"the model refuses to load: {type(error).__name__}: {str(error)[:300]}") from error


def _contents(blobs: BlobStore, bundle: Bundle) -> dict[str, bytes]:
    contents = {}
    for path, entry in bundle.manifest["files"].items():
        try:
            contents[path] = _verified(blobs, entry["digest"], path)
        except NotFound:
            raise Corrupt(
                f"the bundle {bundle.digest[:12]} lacks its file {path}; restore it from a backup or import it again"
            ) from None
    return contents


def _guarded(act: Callable[[], Any], when: str) -> Any:
    try:
        return act()
    except FlyballError:
        raise
    except Exception as error:
        raise StepFailed(f"the model failed {when}: {type(error).__name__}: {str(error)[:300]}") from error


def _check_answers(reloaded: LoadedModel, columns: Mapping[str, Column], answers: Mapping[str, Column]) -> None:
    """The example as serving will see it must be answered as the model answered it before.

    Labels exactly, fractions within a millionth: BLAS sums in another order when a matrix lies otherwise in memory.
    """
    again = reloaded.predict(columns)
    if set(again) != set(answers):
        raise StepFailed(f"the reloaded model answers {listed(again)}, but before it answered {listed(answers)}")
    for name, before in answers.items():
        after = np.asarray(again[name])
        same = after.shape == before.shape and _equal(before, after)
        if not np.all(same):
            row = int(np.argmin(np.reshape(same, (len(before), -1)).all(axis=1))) if np.ndim(same) else 0
            now, then = (shown(a[row : row + 1].tolist()) for a in (after, before))
            raise StepFailed(
                f'the reloaded model answers row {row} of the example with "{name}" {now}, before it was {then}; '
                "give the example in the form of the training data"
            )


def _equal(before: Column, after: Column) -> Any:
    if before.dtype.kind == "f" and after.dtype.kind == "f":
        return np.isclose(after, before, rtol=1e-6, atol=1e-9, equal_nan=True)
    return before == after


def _verified(blobs: BlobStore, digest: str, what: str) -> bytes:
    # A backend may or may not verify what it reads; here it is proved either way.
    data = blobs.get(digest)
    if digest_of(data) != digest:
        raise Corrupt(f"{what} of the bundle was tampered with: its bytes do not have the digest {digest[:12]}")
    return data
