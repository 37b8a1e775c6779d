"""A bundle as a folder and an archive: round trips keep the digest, hostile ones store nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from onnx_bytes import linear

from flyball.errors import Conflict, Corrupt, FlyballError, InvalidInput
from flyball.models import _manifest, bundle
from flyball.storage.blobs import digest_of
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def saved(blobs: FileBlobs) -> bundle.Bundle:
    files = {"docs/ärger.md": "Ärger".encode(), "code/train.py": b"import yaml\n", "notes.txt": b""}
    return bundle.save(blobs, linear([1.0, 2.0], 0.5), files=files)


def test_a_folder_and_an_archive_bring_the_same_bundle(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    bundle.export_folder(blobs, saved.digest, tmp_path / "out", signature=b"signature")
    bundle.export(blobs, saved.digest, tmp_path / "out.zip", signature=b"signature")
    for path in (tmp_path / "out", tmp_path / "out.zip"):
        other = FileBlobs(tmp_path / f"{path.name}-blobs")
        assert bundle.import_(other, path) == (saved, b"signature")
        assert sorted(other.digests()) == sorted(blobs.digests())
        bundle.export(other, saved.digest, tmp_path / f"{path.name}-again.zip", signature=b"signature")
    again = [tmp_path / f"{name}-again.zip" for name in ("out", "out.zip")]
    assert again[0].read_bytes() == again[1].read_bytes() == (tmp_path / "out.zip").read_bytes()
    assert "pyyaml" in saved.manifest["environment"]["locked"]
    assert saved.contents()["code"] == ("code/train.py",) and saved.contents()["other"] == ("notes.txt",)


def test_a_manifest_that_is_written_otherwise_keeps_its_digest_too(
    tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    bundle.export_folder(blobs, saved.digest, tmp_path / "out")
    text = json.dumps(saved.manifest, indent=3).encode()
    (tmp_path / "out" / "manifest.json").write_bytes(text)
    found, _ = bundle.import_(blobs, tmp_path / "out")
    assert found.digest == digest_of(text) != saved.digest
    bundle.export(blobs, found.digest, tmp_path / "out.zip")
    assert bundle.import_(blobs, tmp_path / "out.zip")[0].digest == found.digest


def test_nothing_is_overwritten_by_an_export(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name in ("full", "full/mine.txt", "link"):
        with pytest.raises(Conflict, match="is there already"):
            bundle.export_folder(blobs, saved.digest, tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    bundle.export_folder(blobs, saved.digest, tmp_path / "empty")
    assert bundle.import_(blobs, tmp_path / "empty")[0] == saved


def test_a_hostile_folder_stores_nothing(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    other = FileBlobs(tmp_path / "other")

    def refused(change: Any, says: str) -> None:
        folder = tmp_path / "bad"
        bundle.export_folder(blobs, saved.digest, folder)
        change(folder)
        with pytest.raises((InvalidInput, Corrupt), match=says):
            bundle.import_(other, folder)
        assert list(other.digests()) == []
        shutil.rmtree(folder)

    def link(folder: Path) -> None:
        (folder / "files/docs/ärger.md").unlink()
        (folder / "files/docs/ärger.md").symlink_to(secret)

    def linked_folder(folder: Path) -> None:
        (folder / "files/code").rename(tmp_path / "moved")
        (folder / "files/code").symlink_to(tmp_path / "moved")

    refused(link, "holds a link")
    refused(linked_folder, "holds a link")
    refused(lambda folder: os.mkfifo(folder / "files/pipe"), "is no file")
    refused(lambda folder: (folder / "files/extra").write_bytes(b""), "does not list")
    refused(lambda folder: (folder / "files/notes.txt").unlink(), "lacks files/notes.txt")
    refused(lambda folder: (folder / "files/notes.txt").write_bytes(b"x"), "larger than it may be")
    refused(lambda folder: (folder / "manifest.json").unlink(), "not an exported bundle")
    refused(lambda folder: (folder / "model.sig").write_bytes(bytes(33 << 20)), "larger than it may be")


def test_hostile_manifests_are_refused(tmp_path: Path, saved: bundle.Bundle) -> None:
    entry = next(iter(saved.manifest["files"].values()))
    paths = [
        ["../x"],
        ["/etc/x"],
        ["C:/x"],
        ["a\\..\\b"],
        ["a/./b"],
        ["con"],
        ["docs/aux.md"],
        ["trailing."],
        ["trailing "],
        ["a\0b"],
        ["\ud800"],
        ["docs/A", "docs/a"],
        ["straße", "STRASSE"],
        ["e\u0301", "\u00e9"],
        ["a", "a/b"],
        ["a/b", "A"],
    ]
    other = FileBlobs(tmp_path / "other")
    for names in paths:
        manifest = saved.manifest | {"files": dict.fromkeys(names, entry)}
        path = tmp_path / "bad.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
        with pytest.raises(FlyballError, match="lists its files wrongly"):
            bundle.import_(other, path)
    twice = _manifest.canonical(saved.manifest)[:-1] + b',"flavor":"python"}'
    for text in (twice, b'{"format":1,"format":1}', b"[" * 100_000):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", text)
        with pytest.raises(Corrupt, match="not JSON"):
            bundle.import_(other, path)
    for change in ({"flavor": ["onnx"]}, {"environment": 3}, {"metadata": None}):
        with pytest.raises(Corrupt, match="of another kind"):
            _manifest.read(json.dumps(saved.manifest | change).encode())
    assert list(other.digests()) == []


def test_files_that_would_be_one_on_some_systems_are_not_saved(blobs: FileBlobs) -> None:
    with pytest.raises(InvalidInput, match="would be one file on some systems"):
        bundle.save(blobs, linear([1.0], 0.0), files={"docs/Card.md": b"", "docs/card.md": b""})
    with pytest.raises(InvalidInput, match="environment/ holds what Flyball locks"):
        bundle.save(blobs, linear([1.0], 0.0), files={"environment/requirements.txt": b"evil"})
    assert list(blobs.digests()) == []


def test_links_and_bombs_in_an_archive_are_refused_in_little_memory(
    tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    zeros = 64 << 20
    sha = hashlib.sha256()
    for _ in range(zeros >> 20):
        sha.update(bytes(1 << 20))
    files = saved.manifest["files"] | {"data/zeros": {"digest": sha.hexdigest(), "size": zeros}}
    bundle.export(blobs, saved.digest, tmp_path / "good.zip")
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in good.namelist():
            if name != "manifest.json":
                archive.writestr(name, good.read(name))
        archive.writestr("manifest.json", json.dumps(saved.manifest | {"files": files}))
        with archive.open("files/data/zeros", "w") as stream:
            for _ in range(zeros >> 20):
                stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    other = FileBlobs(tmp_path / "other")
    with pytest.raises(InvalidInput, match="the limit is 1048576"):
        bundle.import_(other, path, limit_bytes=1 << 20)
    tracemalloc.start()
    bundle.import_(other, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("files/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InvalidInput, match="holds a link"):
        bundle.import_(FileBlobs(tmp_path / "third"), path)


def test_what_permit_refuses_is_not_stored(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    bundle.export(blobs, saved.digest, tmp_path / "out.zip")
    other = FileBlobs(tmp_path / "other")

    def refuse(found: bundle.Bundle, files: Any, signature: bytes | None) -> None:
        assert found == saved and files["notes.txt"].read_bytes() == b"" and signature is None
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        bundle.import_(other, tmp_path / "out.zip", permit=refuse)
    assert list(other.digests()) == []
