"""Static files: their addresses follow their content, and what came from elsewhere is what the lock says."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from flyball.errors import NotFound
from flyball.web import assets
from flyball.web.assets import asset, asset_file

STATIC = Path(assets.__file__).parent / "static"
LOCK = json.loads((STATIC / "vendor" / "vendor.json").read_text())


def test_an_address_holds_the_digest_of_the_folder() -> None:
    assert re.fullmatch(r"/static/[0-9a-f]{12}/flyball\.css", asset("flyball.css"))
    assert asset("fb.js").split("/")[2] == asset("flyball.css").split("/")[2]


def test_a_misspelt_file_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(NotFound, match=r'"flybal\.css"; did you mean "flyball\.css"'):
        asset("flybal.css")


@pytest.mark.parametrize("path", ["../render.py", "/etc/passwd", "..", "", "vendor/../../render.py", "vendor"])
def test_no_path_leaves_the_folder(path: str) -> None:
    with pytest.raises(NotFound):
        asset_file(path)


def test_files_come_with_their_type() -> None:
    assert asset_file("fb-line.js").media_type == "text/javascript; charset=utf-8"
    assert asset_file("logo.svg").media_type == "image/svg+xml"
    assert asset_file("flyball.css").content == (STATIC / "flyball.css").read_bytes()


def test_vendored_files_are_what_the_lock_says_and_no_more() -> None:
    known = {file["file"]: file["sha256"] for library in LOCK["libraries"] for file in library["files"]}
    found = {path.name for path in (STATIC / "vendor").iterdir() if path.suffix in (".js", ".css")}
    assert found == set(known)
    for name, digest in known.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_every_vendored_library_has_its_licence_beside_it() -> None:
    for library in LOCK["libraries"]:
        for part in (library, *library.get("bundles", [])):
            text = (STATIC / "vendor" / part["licence_file"]).read_text()
            assert "Permission" in text and part["licence"] in ("MIT", "0BSD"), part["name"]


def test_our_own_scripts_and_styles_name_no_foreign_address_and_evaluate_nothing() -> None:
    for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css")]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\beval\(|new Function|@import", text), path.name


def test_every_import_of_a_script_is_a_file_of_the_package() -> None:
    for path in STATIC.glob("*.js"):
        for target in re.findall(r"""(?:from|import|import\()\s*["']\./([^"'$]+)["']""", path.read_text()):
            asset(target)
