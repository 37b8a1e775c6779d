"""Files of runs and logged models: kept, listed, read and removed, whoever wrote them and however they are named.

MLflow's clients name a file by its path at the artifact proxy; `place_of` says whose it is. So a file that
`fb.run().artifact()` logged and one that a client of MLflow logged are the same thing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from flyball.errors import Forbidden, InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.artifacts import NOBODY, Entry, check_path, location_of, proxied
from flyball.ledger.runs import Artifact
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.storage.blobs.multipart import Part, Uploads
    from flyball.storage.blobs.receiving import Receiving

__all__ = ["ArtifactActs", "Place"]

_TREE = re.compile(r"(?:^|/)((?:m-)?[0-9a-f]{32})/artifacts(?=/|$)")  # what may be the end of a tree's address
_KEY_FILE = "urls.key"


class Place(NamedTuple):
    """Where a file or folder is: whose tree (`NOBODY`: files at other paths of the proxy), and the path in it."""

    owner: str
    path: str


class ArtifactActs(Home):
    """Files of runs and logged models."""

    @cached_property
    def uploads(self) -> Uploads:
        """The uploads in parts that are going on."""
        from flyball.storage.blobs.multipart import Uploads

        return Uploads(self.home / "uploads", self.blobs)

    def place_of(self, path: str) -> Place:
        """Return whose file or folder is at a path of the artifact proxy. Raises InvalidInput (path)."""
        with self._reading() as world:
            return _place(world, check_path(path, is_folder=True))

    def place_at(self, location: str, path: str = "") -> Place:
        """Return whose file or folder is at an address, and below it at a path.

        Args:
            location: `mlflow-artifacts:/…`, `runs:/ID/…` or `models:/m-ID/…`.

        Raises:
            InvalidInput: the address is of another scheme, so this server must not and cannot read it, or the path
                leads out.
        """
        inner = check_path(path, is_folder=True)
        scheme, _, rest = location.partition(":")
        with self._reading() as world:
            if scheme == "runs" or (scheme == "models" and rest.lstrip("/").startswith("m-")):
                owner, _, below = check_path(rest.lstrip("/")).partition("/")
                return Place(owner, _joined(below, inner))
            found = proxied(location)
            if found is None:
                raise InvalidInput(
                    f"the files at {location[:200]!r} are not kept by this server; ask the store that keeps them"
                )
            return _place(world, _joined(check_path(found, is_folder=True), inner))

    def artifact_root(self, owner: str) -> str:
        """Return the address of the tree of a run or logged model. Raises NotFound."""
        with self._reading() as world:
            found = world.artifacts.location(owner)
        if found is None:
            raise NotFound(f"Run with id={owner} not found" if not owner.startswith("m-") else _no_model(owner))
        return found

    def files_in(self, place: Place) -> list[Entry]:
        """Return what a folder holds, by name; nothing when there is no such folder."""
        with self._reading() as world:
            found = world.artifacts.listing(place.owner, place.path)
            if place.owner == NOBODY:
                named = {entry.name for entry in found}
                trees = _trees_in(world, place.path)
                found += [Entry(name, True) for name in sorted({t.partition("/")[0] for t in trees} - named)]
                found.sort()
            return found

    def file_at(self, place: Place, named: str | None = None) -> Artifact:
        """Return a file.

        Args:
            named: its path, as errors repeat it.

        Raises:
            NotFound: there is none.
            InvalidInput: it is a folder.
        """
        shown = place.path if named is None else named
        with self._reading() as world:
            found = world.artifacts.get(place.owner, place.path) if place.path else None
            if found is None and world.artifacts.below(place.owner, place.path, limit=1):
                raise InvalidInput(f"Artifact path refers to a directory, not a file: '{shown}'")
        if found is None:
            raise NotFound(f"No such artifact: '{shown}'")
        return found

    def receive_file(self) -> Receiving:
        """Return what takes the bytes of a file, which `keep_file` then records."""
        from flyball.storage.blobs.receiving import Receiving

        self._may("record")
        return Receiving(self.blobs)

    def keep_file(self, path: str, digest: str, size_bytes: int) -> Place:
        """Record a blob as the file at a path of the artifact proxy; what was there is replaced.

        Raises:
            InvalidInput: it is no path of a file.
            Conflict: the path is a folder, or one of its folders is a file.
            NotFound: the run or logged model was removed for good.
        """
        checked = check_path(path)

        def keep(world: Transaction) -> Place:
            place = _place(world, checked)
            if not place.path:
                raise InvalidInput("Invalid path")
            if place.owner == NOBODY:
                _check_not_removed(world, checked)
            world.artifacts.keep(place.owner, Artifact(place.path, digest, size_bytes))
            return place

        return self.recorder.change(keep).result()

    def keep_bytes(self, path: str, data: bytes) -> Place:
        """Keep a small file at a path of the artifact proxy; raises as `keep_file`."""
        check_path(path)
        self._may("record")
        return self.keep_file(path, self.blobs.put(data), len(data))

    def remove_files(self, path: str) -> int:
        """Forget the file at a path of the artifact proxy, or all files below it; return how many.

        Bytes that nothing else refers to go with the next sweep. Raises InvalidInput (path).
        """
        checked = check_path(path, is_folder=True)
        if not checked:
            raise InvalidInput("Invalid path")

        def remove(world: Transaction) -> int:
            place = _place(world, checked)
            count = world.artifacts.remove(*place)
            for tree in _trees_in(world, checked) if place.owner == NOBODY else ():
                count += world.artifacts.remove(*_place(world, _joined(checked, tree)))
            return count

        return self.recorder.change(remove).result()

    # -- uploads in parts

    def begin_upload(self, path: str) -> str:
        """Begin to upload a file in parts to a path of the artifact proxy; return the upload's id."""
        self._may("record")
        return self.uploads.begin({"path": check_path(path)})

    def upload_part(self, upload: str, number: int) -> Part:
        """Return what takes a part. Raises NotFound, InvalidInput."""
        self._may("record")
        return self.uploads.part(upload, number)

    def complete_upload(self, path: str, upload: str, parts: Iterable[tuple[int, str]]) -> Place:
        """Make the parts the file at the path; raises as `Uploads.complete` and `keep_file`."""
        self._may("record")
        self._check_upload(path, upload)
        place = self.keep_file(path, *self.uploads.complete(upload, parts))
        self.uploads.forget(upload)
        return place

    def abort_upload(self, path: str, upload: str) -> None:
        """Forget an upload and its parts. Raises NotFound."""
        self._may("record")
        self._check_upload(path, upload)
        self.uploads.forget(upload)

    def _check_upload(self, path: str, upload: str) -> None:
        checked = check_path(path)
        if self.uploads.about(upload).get("path") != checked:
            raise NotFound(f"there is no upload {upload[:40]!r} to {path[:200]!r}")

    # -- signed permissions, which a client may hand on

    def permit(self, what: dict[str, Any], seconds: int) -> str:
        """Return a token that permits `what` for so long: of letters, digits, `-`, `_` and a dot."""
        until = int(self.clock.now().timestamp()) + seconds
        body = base64.urlsafe_b64encode(orjson.dumps({**what, "until": until})).rstrip(b"=")
        return f"{body.decode()}.{self._signature(body)}"

    def permitted(self, token: str) -> dict[str, Any]:
        """Return what a token permits. Raises Forbidden: it is none of ours, was changed, or has run out."""
        body, _, signature = token.partition(".")
        if not hmac.compare_digest(self._signature(body.encode()).encode(), signature.encode()):
            raise Forbidden("the signature of this address is wrong; ask for a new one")
        what: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if what["until"] < self.clock.now().timestamp():
            raise Forbidden("this address has run out; ask for a new one")
        return what

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._url_key, body, hashlib.sha256).hexdigest()

    @cached_property
    def _url_key(self) -> bytes:
        from flyball.storage.secret import kept_secret

        return kept_secret(self.home / _KEY_FILE)


def _place(world: Transaction, path: str) -> Place:
    """Return whose a checked path of the proxy is: a run's or logged model's, where its tree has that address."""
    for match in _TREE.finditer(path):
        location = world.artifacts.location(match[1])
        if location is not None and proxied(location) == path[: match.end()]:
            return Place(match[1], path[match.end() + 1 :])
    return Place(NOBODY, path)


def _check_not_removed(world: Transaction, path: str) -> None:
    for match in _TREE.finditer(path):
        kind = "logged-model" if match[1].startswith("m-") else "run"
        stone = world.removal.tombstone(f"{kind}/{match[1]}")
        if stone is not None:
            raise NotFound(f"{kind} {match[1]} was removed for good (event {stone.event}) and takes no more files")


def _trees_in(world: Transaction, folder: str) -> list[str]:
    """Return the trees of runs and logged models below a folder above them, as paths relative to it.

    Only trees at their default place are told: others are seen from their own root.
    """
    experiment = folder.partition("/")[0]
    if not folder:
        return world.artifacts.experiments()
    if not experiment.isdecimal() or len(experiment) > 18:
        return []
    roots = [proxied(location_of(experiment, None, owner)) or "" for owner in world.artifacts.owners(experiment)]
    return [root[len(folder) + 1 :] for root in roots if root.startswith(f"{folder}/")]


def _joined(folder: str, path: str) -> str:
    return "/".join(part for part in (folder, path) if part)


def _no_model(id: str) -> str:
    return f"Logged model with ID '{id}' not found."
