"""The locked environment: what pip itself would call complete, and nothing more than is needed."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flyball.models import environment


def test_every_requirement_of_a_locked_package_is_locked_in_a_version_that_it_allows() -> None:
    found = environment.locked(["scikit-learn", "pandas", "flyball"])
    assert {"scikit-learn", "scipy", "joblib", "numpy", "pandas", "polars", "flyball"} <= found.keys()
    assert "pytest" not in found and "ruff" not in found
    checked = 0
    for name, package in found.items():
        assert package["version"] == importlib.metadata.version(name)
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                other = str(canonicalize_name(wanted.name))
                assert other in found[name]["requires"] and other in found, (name, text)
                assert wanted.specifier.contains(found[other]["version"], prereleases=True), (name, text)
                checked += 1
    assert checked > 40


def test_extras_are_followed_and_only_where_they_are_asked_for() -> None:
    plain, extra = (environment.locked([name]) for name in ("redis", "pip-tools"))
    assert "hiredis" not in plain and "pip" in extra
    assert "hiredis" in environment.locked(["flyball", "hiredis"])


def test_the_requirements_are_what_pip_has_installed() -> None:
    recorded = environment.recorded(["scikit-learn", "skops"])
    lines = environment.requirements(recorded).splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names) and all(re.fullmatch(r"[a-z0-9][a-z0-9-]*==[\w.+!]+", line) for line in lines)
    command = [sys.executable, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    installed = {f"{canonicalize_name(one['name'])}=={one['version']}" for one in json.loads(done.stdout)}
    assert set(lines) <= installed
    assert recorded["python"] == platform.python_version()
    assert json.loads(json.dumps(recorded)) == recorded


def test_what_source_imports_is_found_by_its_distribution() -> None:
    sources = [b"import yaml, os.path\nfrom sklearn import tree\nfrom . import own\n", b"not python (", b"\xff\0"]
    assert environment.imported(sources) == {"pyyaml", "scikit-learn"}
    assert environment.imported([b"x = 1"]) == environment.imported([]) == set()


def test_licences_are_told_where_the_metadata_tells() -> None:
    found = environment.locked(["numpy", "pyyaml", "flyball"])
    assert found["flyball"]["licence"] == "Apache-2.0" and found["pyyaml"]["licence"] == "MIT License"
    assert "BSD-3-Clause" in found["numpy"]["licence"]
