"""Models between this machine and a home elsewhere: bundled here and sent there, fetched from there and loaded here.

A model is proved and bundled where it was trained. Its blobs are sent once each, and only those that are not there. A
bundle that is loaded is kept below the cache by its digest; every file is verified each time before it is loaded, and
so is whom it is signed by: `keys/trusted` and `[models]` of the home on this machine say whom that trusts, and
`FLYBALL_MODELS_TRUSTED_KEYS` may name a folder of keys.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball import settings
from flyball.errors import Corrupt, Incompatible, NotFound
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.models import _manifest, bundle
from flyball.models.trust import ModelSettings, Trust
from flyball.remote.connection import Connection
from flyball.remote.values import made, version_of
from flyball.storage.blobs.files import FileBlobs

if TYPE_CHECKING:
    from flyball.evaluation.evaluate import Evaluation
    from flyball.models.bundle import LoadedModel
    from flyball.models.signing import Key

__all__ = ["load", "register"]

_RESULTS = ("task", "metric", "rows", "metrics")  # without the slices: they name values of the data


def register(
    connection: Connection,
    name: str,
    model: Any,
    *,
    version_at: Callable[[Ref], Version | None],
    params: Mapping[str, Any],
    example: Any,
    evaluation: Evaluation | None = None,
    windows: Mapping[str, Any] | None = None,
    comparison: Mapping[str, Any] | None = None,
    trained_on: Ref | None = None,
    also_from: Any = (),
    run: str | None = None,
    note: str = "",
    features: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Version:
    """Publish a fitted model as the next version of a declared model; arguments as `training.registering.register`.

    Args:
        version_at: returns a version that the model learnt from, None where there is none.
        params: of the run.

    Raises:
        InvalidInput, StepFailed: the model cannot be bundled; see `models.bundle.save`.
        NotFound, Forbidden: the home does not take it.
        Unavailable: it does not answer.
    """
    sources = [*([(trained_on, "trained on")] if trained_on else []), *also_from]
    belongings: dict[str, Any] = {}
    if sources:
        belongings["data/references.json"] = [_reference(version_at, source, role) for source, role in sources]
    if params:
        belongings["configuration/params.json"] = dict(params)
    results = None if evaluation is None else evaluation.to_dict()
    if results is not None:
        belongings["tests/evaluation.json"] = {key: results[key] for key in _RESULTS}
    contents = {path: _text(value) for path, value in belongings.items()} | dict(files or {})
    described = {"name": name, "run": run, **({} if features is None else {"features": dict(features)})}
    with tempfile.TemporaryDirectory(prefix="flyball-bundle-") as folder:
        blobs = FileBlobs(Path(folder))
        kept = bundle.save(blobs, model, example=example, metadata=described, files=contents)
        told = {
            "digest": kept.digest,
            "request": secrets.token_hex(16),
            "evaluation": results,
            "windows": None if windows is None else dict(windows),
            "comparison": None if comparison is None else dict(comparison),
            "trained_on": str(trained_on) if trained_on else None,
            "also_from": [[str(source), role] for source, role in also_from],
            "run": run,
            "note": note,
        }
        sent: set[str] = set()
        while True:
            answer = connection.ask("POST", f"/api/v1/models/{name}/versions", json=told)
            missing = answer.get("missing")
            if missing is None:
                return made(connection.url, lambda told=answer: version_of(told))  # type: ignore[misc]
            for digest in missing:
                if digest in sent or not blobs.has(digest):
                    raise Incompatible(f"{connection.url} asks for a file that the bundle does not have, or twice")
                sent.add(digest)
                path = blobs.path(digest)
                assert path is not None
                connection.upload(f"/api/v1/blobs/{digest}", path, lambda: None)


def load(connection: Connection, version: Version, cache: Path) -> LoadedModel:
    """Load a version of a model here, fetched where the cache does not have it; verified each time.

    Raises:
        Corrupt: what was sent is not that version, or the cache was changed.
        Forbidden, MissingExtra, Incompatible: it cannot be loaded here; see `models.bundle.load`.
    """
    trust = _Trust(cache)
    blobs = FileBlobs(cache / "models")
    if "flavor" in version.metadata and _is_whole(blobs, version.digest):
        return bundle.load(blobs, version.digest, trust)
    with tempfile.TemporaryDirectory(prefix="flyball-bundle-") as folder:
        archive = Path(folder) / "bundle.zip"
        connection.download(f"/api/v1/models/{version.name}@{version.number}/bundle", archive)
        found, signature = bundle.import_(blobs, archive)
        # The digest of a version that a client of MLflow made is its bundle's only once it has been asked for.
        if "flavor" in version.metadata and found.digest != version.digest:
            raise Corrupt(f"{connection.url} sent the bundle {found.digest[:12]} for {version.ref}; do not use it")
        if signature is not None:
            trust.receive(found, signature)
    return bundle.load(blobs, found.digest, trust)


class _Trust(Trust):
    """Whom the home on this machine trusts; signatures are kept below the cache."""

    def settings(self) -> ModelSettings:
        return settings.load(ModelSettings, "models", settings.home_directory())

    def keys(self) -> dict[str, Key]:
        return Trust(settings.home_directory()).keys()


def _is_whole(blobs: FileBlobs, digest: str) -> bool:
    """Whether the cache has a bundle as it was; what has changed on disk is removed, to be fetched again."""
    wanted, files = digest, [digest]
    is_whole = True
    while files:
        wanted = files.pop()
        try:
            data = blobs.get(wanted)
            if wanted == digest:
                files += {entry["digest"] for entry in _manifest.read(data)["files"].values()}
        except NotFound:
            is_whole = False
        except Corrupt:
            blobs.delete(wanted)
            is_whole = False
    return is_whole


def _reference(version_at: Callable[[Ref], Version | None], source: Ref, role: str) -> dict[str, Any]:
    found = version_at(source)
    ref, digest = (str(source), None) if found is None else (str(found.ref), found.digest)
    return {"ref": ref, "role": role, "digest": digest}


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, default=str).encode()
