"""One exported bundle served by itself, without registry and control plane: what a container of one model runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from flyball.errors import InvalidInput
from flyball.models import bundle as bundles
from flyball.models.bundle import Bundle
from flyball.models.trust import Trust
from flyball.models.unsafe import scan_files
from flyball.serving import snapshot
from flyball.serving.engine import Places
from flyball.storage.blobs.files import FileBlobs

__all__ = ["prepare"]

_VERSION = re.compile(r"([a-z0-9][a-z0-9_.-]*)@([0-9]+)")


def prepare(home: Path, path: Path, version: str) -> Bundle:
    """Make a home serve an exported bundle, and nothing else; the data plane is started after that.

    Args:
        home: where bytes, the snapshot and the log of predictions are kept; made when it is not there.
        path: an archive or folder that `flyball model export` wrote.
        version: the deployment's name and the version's number, as `late@3`.

    Raises:
        InvalidInput, Corrupt, Incompatible, NotFound: the bundle cannot be read, or the version is not named so.
        Forbidden: the home does not trust it, see `models.trust`.
    """
    named = _VERSION.fullmatch(version)
    if named is None:
        raise InvalidInput(f'"{version[:80]}" is no version of a model; write it like late@3')
    trust, places = Trust(home), Places.of(home)

    def permit(bundle: Bundle, files: Mapping[str, Path], signature: bytes | None) -> None:
        if signature is not None:
            trust.receive(bundle, signature)
        trust.admit(bundle, lambda: scan_files({name: copy.read_bytes() for name, copy in files.items()}))

    bundle, _ = bundles.import_(FileBlobs(places.blobs), path, permit=permit)
    champion = snapshot.Variant("champion", version, bundle.digest)
    served = snapshot.ServedDeployment(revision=1, salt=bundle.digest[:16], variants=(champion,))
    try:
        generation = snapshot.read(places.snapshot).generation + 1
    except LookupError:
        generation = 1
    snapshot.write(places.snapshot, snapshot.Snapshot(generation, {named[1]: served}))
    return bundle
