"""The definition of a container image that serves one model version, as a folder to build from.

`Containerfile`, the exported bundle, its locked requirements, and the public keys that its signature is checked with.
The image runs as nobody in particular (10001), installs exactly the locked versions without resolving, and serves the
Open Inference Protocol by `flyball model serve`. It names no package index: what the base image and the builder are set
up with is used, or a `pip.conf` given as the build secret `pip`. The same bundle and options give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flyball.errors import Conflict, InvalidInput
from flyball.models import bundle as bundles
from flyball.models import environment
from flyball.models.bundle import Bundle
from flyball.models.signing import Key
from flyball.storage.blobs import BlobStore

__all__ = ["base_image", "write"]

PORT = 8080  # where the container listens
_USER = 10001  # no account of the base image's has it
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
_STAMP = 1_577_836_800  # 2020-01-01, the time of every file, so that layers are the same too


def base_image(bundle: Bundle) -> str:
    """Return the image of the Python that the bundle was saved under, to its last number."""
    return f"python:{bundle.manifest['environment']['python']}-slim"


def write(
    folder: Path,
    blobs: BlobStore,
    bundle: Bundle,
    version: str,
    *,
    base: str | None = None,
    signature: bytes | None = None,
    keys: Iterable[Key] = (),
    wheels: Path | None = None,
) -> list[str]:
    """Write the folder and return its files, sorted.

    Args:
        folder: must not exist, or be empty.
        version: what is served, as `late@3`.
        base: the image to build on, with tag or digest; default: `base_image`.
        signature: travels in the bundle; with `keys` the image loads nothing that they did not sign.
        keys: public keys.
        wheels: a folder of *.whl to install from before anything else, for packages that no index has.

    Raises:
        Conflict: the folder is there and not empty.
        InvalidInput: the base is no name of an image, or there is no wheel in the folder.
        NotFound, Corrupt, Incompatible: the bundle cannot be read.
    """
    chosen = base_image(bundle) if base is None else base
    if not _IMAGE.fullmatch(chosen) or ":" not in chosen.rpartition("/")[2]:
        raise InvalidInput(
            f"{chosen[:80]!r} is no image to build on; expected a name with a tag, like python:3.11-slim"
        )
    brought = sorted(wheels.glob("*.whl")) if wheels is not None else []
    if wheels is not None and not brought:
        raise InvalidInput(f"there is no *.whl in {wheels}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already; name another folder, or remove it")
    trusted = sorted(keys, key=lambda key: key.id) if signature is not None else []
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        bundles.export_folder(blobs, bundle.digest, partial / "bundle", signature=signature)
        (partial / "requirements.txt").write_text(_requirements(bundle, bool(trusted)), encoding="utf-8")
        for key in trusted:
            (partial / "trusted").mkdir(exist_ok=True)
            (partial / "trusted" / f"{key.id[:16]}.pem").write_bytes(key.pem)
        for wheel in brought:
            (partial / "wheels").mkdir(exist_ok=True)
            shutil.copyfile(wheel, partial / "wheels" / wheel.name)
        text = _containerfile(chosen, version, bool(trusted), bool(brought))
        (partial / "Containerfile").write_text(text, encoding="utf-8")
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        for path in [*partial.rglob("*"), partial]:
            os.utime(path, (_STAMP, _STAMP))
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
        return [path.relative_to(partial).as_posix() for path in files]
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _requirements(bundle: Bundle, is_signed: bool) -> str:
    """Return the bundle's locked packages, and what checks its signature."""
    recorded: Mapping[str, Any] = bundle.manifest["environment"]
    if not is_signed:
        return environment.requirements(recorded)
    checking = environment.locked(["cryptography"])
    return environment.requirements({**recorded, "locked": {**checking, **recorded.get("locked", {})}})


def _containerfile(base: str, version: str, is_signed: bool, has_wheels: bool) -> str:
    install = "python -m pip install --no-cache-dir --no-deps --requirement requirements.txt"
    install += " --find-links wheels" if has_wheels else ""
    command = ["flyball", "model", "serve", "/srv/flyball/bundle", "--as", version]
    command += ["--host", "0.0.0.0", "--port", str(PORT)]
    ready = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/v2/health/ready', timeout=3)"
    lines = [
        f"# Serves {version} by the Open Inference Protocol on port {PORT}; written by `flyball model image`.",
        f"FROM {base}",
        "WORKDIR /srv/flyball",
        "COPY requirements.txt ./",
        *(["COPY wheels/ wheels/"] if has_wheels else []),
        "# A pip.conf given as the build secret `pip` says where packages come from.",
        f"RUN --mount=type=secret,id=pip,target=/etc/pip.conf {install}",
        "COPY bundle/ bundle/",
        *(["COPY trusted/ /var/lib/flyball/keys/trusted/"] if is_signed else []),
        f"RUN mkdir -p /var/lib/flyball && chown -R {_USER}:{_USER} /var/lib/flyball",
        "ENV FLYBALL_HOME=/var/lib/flyball PYTHONUNBUFFERED=1",
        *(["ENV FLYBALL_MODELS_REQUIRE_SIGNATURE=true"] if is_signed else []),
        f"USER {_USER}:{_USER}",
        f"EXPOSE {PORT}",
        f"HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD {json.dumps(['python', '-c', ready])}",
        f"ENTRYPOINT {json.dumps(command)}",
    ]
    return "\n".join(lines) + "\n"
