"""What lies in the repository: nothing of one machine, nothing unfinished, nothing large, and all of it named."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "flyball"
VENDOR = PACKAGE / "web" / "static" / "vendor"

MOST_BYTES = 512 * 1024
LARGE = {"flyball/demo/data/flights.parquet"}

# Written in pieces, so that this file does not find itself.
STRANGERS = {
    "a path of one machine": r"/(?:work|root|opt/wheels|opt/pypi[\w-]*)/|/home/(?!\{)[a-z]+/",
    "a registry's address": r"py"
    + r"pi\.org|pythonhosted\.org|npmjs\.(?:org|com)/|(?<!emit-)(?:extra-)?index-"
    + r"url",
    "something unfinished": r"\bTO" + r"DO\b|\bFIX" + r"ME\b|raise NotImplemented" + r"Error",
}

# Import names of declared dependencies where they differ from the package's.
IMPORTS = {"grpcio": "grpc", "graphql-core": "graphql", "opentelemetry-proto": "opentelemetry", "pyyaml": "yaml"}
# Used without an import of ours: by the interpreter, for its time zones.
UNSEEN = {"tzdata"}


def _files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    return [ROOT / name for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file()]


def _texts() -> list[tuple[str, str]]:
    found = []
    for path in _files():
        if VENDOR in path.parents or path.name == "LICENSE":
            continue
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("what", STRANGERS)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(STRANGERS[what])
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in _texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_large_files_are_the_listed_ones() -> None:
    assert {p.relative_to(ROOT).as_posix() for p in _files() if p.stat().st_size > MOST_BYTES} <= LARGE


def test_no_lock_file_of_a_package_manager_is_kept() -> None:
    assert not [p.name for p in _files() if p.suffix == ".lock" or p.name in ("package-lock.json", "pnpm-lock.yaml")]


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = _drawn_folders()
    packages = {
        p.parent.relative_to(PACKAGE).as_posix() for p in _files() if p.suffix == ".py" and PACKAGE in p.parents
    }
    covered = {folder for name in drawn for folder in [name, *(q.as_posix() for q in Path(name).parents)]}
    assert not sorted(packages - covered), "ARCHITECTURE.md does not draw these folders"
    assert not [name for name in drawn if not (PACKAGE / name).is_dir()], "ARCHITECTURE.md draws what is not there"


def test_every_module_says_what_it_is_for() -> None:
    silent = []
    for path in _files():
        if path.suffix == ".py" and (PACKAGE in path.parents or (ROOT / "scripts") in path.parents):
            text = path.read_text(encoding="utf-8")
            if text.strip() and not ast.get_docstring(ast.parse(text)):
                silent.append(path.relative_to(ROOT).as_posix())
    assert not silent


def test_vendored_files_are_what_their_list_says_and_are_credited() -> None:
    listed = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))["libraries"]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8").lower()
    known = {"vendor.json"}
    for library in listed:
        assert f"{library['name']} {library['version']}" in notice.replace(".js", "")
        for part in [library, *library.get("bundles", [])]:
            known.add(part["licence_file"])
            assert (VENDOR / part["licence_file"]).stat().st_size > 100
        for file in library["files"]:
            known.add(file["file"])
            assert hashlib.sha256((VENDOR / file["file"]).read_bytes()).hexdigest() == file["sha256"], file["file"]
    assert {p.relative_to(VENDOR).as_posix() for p in VENDOR.rglob("*") if p.is_file()} == known


def test_pins_are_plain_agree_with_one_another_and_cover_what_is_declared() -> None:
    pins = {name: _pins(name) for name in ("core", "demo", "dev")}
    assert pins["core"].items() <= pins["demo"].items() <= pins["dev"].items()
    missing = [d for d in _declared() if d not in pins["core"]]
    assert not missing, "run make requirements"


def test_every_declared_dependency_is_used() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    unused = []
    for dependency in set(_declared()) - UNSEEN:
        name = IMPORTS.get(dependency, dependency.replace("-", "_"))
        if not re.search(rf"^\s*(?:from|import) {name}\b", sources, re.MULTILINE):
            unused.append(dependency)
    assert not unused


def _declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[\[>=<;!~ ]", line)[0].lower() for line in project["dependencies"]]


def _pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    plain = re.compile(r"([a-z0-9][a-z0-9._-]*)==([\w.+!-]+)(?: ; .+)?")
    found = {}
    for line in lines:
        if not line.startswith("#"):
            match = plain.fullmatch(line)
            assert match, f"{name}: {line!r} is not a plain pin"
            found[match[1]] = match[2]
    return found


def _drawn_folders() -> list[str]:
    """Return the folders of the tree in ARCHITECTURE.md, relative to the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text.split("flyball/\n", 1)[1].split("\n\n", 1)[0]
    found: list[str] = []
    path: list[str] = []
    for line in tree.splitlines():
        match = re.match(r"(?P<rail>[│├└─ ]*)(?P<name>[\w/]+)/\s", line)
        if match:
            depth = len(match["rail"]) // 4 - 1
            path = [*path[:depth], match["name"]]
            found.append("/".join(path))
    return found
