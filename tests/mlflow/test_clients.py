"""MLflow's own clients, of both lines and unmodified, against a running `flyball up`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.cli.running import ROOT, up

_HERE = Path(__file__).parent
_LIMIT_S = 240.0
_PLAN = (
    ("mlflow3", "runs"),
    ("mlflow3", "registry"),
    ("mlflow3", "models"),
    ("mlflow3", "traces"),
    ("mlflow3", "autolog"),
    ("mlflow3", "lightning"),
    ("mlflow3", "networks"),
    ("mlflow3", "extras"),
    ("mlflow2", "runs"),
    ("mlflow2", "registry"),
    ("mlflow2", "extras"),
)


def _checks(scenario: str) -> list[str]:
    tree = ast.parse((_HERE / "scenarios" / f"{scenario}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")]


_CASES = [(client, scenario, check) for client, scenario in _PLAN for check in _checks(scenario)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with up(tmp_path_factory.mktemp("tracked") / "home") as running:
        yield running.pages


@cache
def _performed(client: str, scenario: str, address: str) -> dict[str, str | None]:
    """Return what each check of a scenario came to: None where it held, else its traceback."""
    python = ROOT / ".venv" / "clients" / client / "bin" / "python"
    assert python.exists(), f"there is no {python}; make it with: make clients"
    done = subprocess.run(
        [str(python), str(_HERE / "perform.py"), str(_HERE / "scenarios" / f"{scenario}.py"), address],
        cwd=_HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return {line["name"]: line["failure"] for line in lines}


@pytest.mark.parametrize(("client", "scenario", "check"), _CASES, ids=["-".join(case) for case in _CASES])
def test_the_client_finds_what_it_expects(client: str, scenario: str, check: str, address: str) -> None:
    performed = _performed(client, scenario, address)
    assert check in performed, f"{check} was not carried out"
    assert performed[check] is None, performed[check]
