"""The definition of an image: the same bytes twice, nobody's account, no address, and what it starts really serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from onnx_bytes import linear

from flyball.errors import Conflict, InvalidInput
from flyball.models import bundle, image, signing
from flyball.models.bundle import Bundle
from flyball.models.trust import Trust
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("image") / "home"


@pytest.fixture(scope="module")
def saved(home: Path) -> Bundle:
    blobs = FileBlobs(home / "blobs")
    made = bundle.save(blobs, linear([1.0, 2.0], 0.5))
    bundle.export_folder(blobs, made.digest, home / "signed")
    Trust(home).keep(made.digest, signing.sign_folder(home / "signed", signing.own_key(home)))
    return made


@pytest.fixture(scope="module")
def signed_image(home: Path, saved: Bundle) -> Path:
    return written(home, saved, home / "signed-image")


def written(home: Path, saved: Bundle, folder: Path, **options: object) -> Path:
    trust = Trust(home)
    given = {"signature": trust.exported(saved), "keys": trust.keys().values(), **options}
    image.write(folder, FileBlobs(home / "blobs"), saved, "late@3", **given)  # type: ignore[arg-type]
    return folder


def bytes_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode, int(p.stat().st_mtime)) for p in files}


def instructions(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (folder / "Containerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


def test_the_same_bundle_gives_the_same_bytes(home: Path, saved: Bundle, signed_image: Path, tmp_path: Path) -> None:
    assert bytes_of(written(home, saved, tmp_path / "again")) == bytes_of(signed_image)


def test_it_runs_as_nobody_installs_what_is_locked_and_names_no_index(signed_image: Path, saved: Bundle) -> None:
    found = instructions(signed_image)
    assert found["FROM"] == [f"python:{saved.manifest['environment']['python']}-slim"]
    assert found["USER"] == ["10001:10001"]
    texts = [(signed_image / name).read_text() for name in ("Containerfile", "requirements.txt")]
    assert not any(re.search(r"index.url|trusted.host|https?://(?!127\.0\.0\.1)", text) for text in texts)
    lines = (signed_image / "requirements.txt").read_text().splitlines()
    locked = {f"{name}=={one['version']}" for name, one in saved.manifest["environment"]["locked"].items()}
    assert locked < set(lines) and any(line.startswith("cryptography==") for line in lines)
    for copied in found["COPY"]:
        assert (signed_image / copied.split()[0]).exists(), copied


def test_an_image_of_an_unsigned_bundle_asks_for_no_signature(home: Path, saved: Bundle, tmp_path: Path) -> None:
    folder = written(home, saved, tmp_path / "out", signature=None, base="registry.example/python@sha256:" + "a" * 64)
    assert not (folder / "trusted").exists() and not (folder / "bundle" / "model.sig").exists()
    text = (folder / "Containerfile").read_text()
    assert "REQUIRE_SIGNATURE" not in text and "FROM registry.example/python@sha256:aaaa" in text


def test_what_is_no_image_or_no_room_is_refused_and_nothing_written(
    home: Path, saved: Bundle, signed_image: Path, tmp_path: Path
) -> None:
    for base in ("python", "python:3.11\nRUN evil", "", "Python:3.11", "host:5000/python", "a b:c"):
        with pytest.raises(InvalidInput, match="is no image to build on"):
            written(home, saved, tmp_path / "out", base=base)
    with pytest.raises(InvalidInput, match=r"no \*\.whl"):
        written(home, saved, tmp_path / "out", wheels=tmp_path)
    with pytest.raises(Conflict, match="is there already"):
        written(home, saved, signed_image)
    assert list(tmp_path.iterdir()) == []


def test_wheels_are_brought_along(home: Path, saved: Bundle, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "flyball-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    folder = written(home, saved, tmp_path / "out", wheels=tmp_path / "wheels")
    assert (folder / "wheels" / "flyball-0.1.0-py3-none-any.whl").read_bytes() == b"wheel"
    assert "--find-links wheels" in (folder / "Containerfile").read_text()


@pytest.fixture
def started(signed_image: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """What the image's entry point starts, with its folders where they are here and a free port."""
    found = instructions(signed_image)
    (keys,) = [line.split() for line in found["COPY"] if line.startswith("trusted/")]
    state = tmp_path / "state"
    (state / "keys").mkdir(parents=True)
    (signed_image / keys[0]).rename(state / "keys" / "trusted")
    variables = dict(part.split("=", 1) for line in found["ENV"] for part in line.split())
    assert variables["FLYBALL_MODELS_REQUIRE_SIGNATURE"] == "true"
    (command,) = (json.loads(line) for line in found["ENTRYPOINT"])
    command[command.index("--port") + 1], command[command.index("--host") + 1] = "0", "127.0.0.1"
    command = [str(signed_image / "bundle") if word == "/srv/flyball/bundle" else word for word in command]
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball.cli", *command[1:]],
        env={**os.environ, **variables, "FLYBALL_HOME": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, process.stdout.readline()
    process.terminate()
    process.wait(timeout=20)
    (state / "keys" / "trusted").rename(signed_image / keys[0])


def test_what_the_image_starts_answers_by_the_open_inference_protocol(
    started: tuple[subprocess.Popen[str], str],
) -> None:
    _, line = started
    address = line.split()[-1]
    asked = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]}
    with httpx2.Client(base_url=address, timeout=20) as client:
        assert client.get("/v2/health/ready").status_code == 200
        answer = client.post("/v2/models/late/infer", json=asked)
        assert answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [3.5]
        assert client.get("/v2/models/late").json()["versions"] == ["late@3"]


def test_a_bundle_that_was_changed_is_not_served(home: Path, saved: Bundle, tmp_path: Path) -> None:
    blobs, trust = FileBlobs(home / "blobs"), Trust(home)
    bundle.export_folder(blobs, saved.digest, tmp_path / "out", signature=trust.exported(saved))
    other = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    other["metadata"]["note"] = "mine"
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(other))
    (tmp_path / "state" / "keys" / "trusted").mkdir(parents=True)
    (tmp_path / "state" / "keys" / "trusted" / "home.pem").write_bytes((home / "keys/signing.pub.pem").read_bytes())
    command = [sys.executable, "-m", "flyball.cli", "model", "serve", str(tmp_path / "out"), "--as", "late@3"]
    command += ["--home", str(tmp_path / "state"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "is of another bundle" in done.stderr, done.stderr
    assert not (tmp_path / "state" / "serving").exists()
