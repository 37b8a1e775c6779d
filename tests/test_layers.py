"""Who imports whom: the contracts of .importlinter, third-party clients in their own files, and what stays unloaded."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A library that talks to something of its own is imported only by files whose path begins like this.
CLIENTS = {
    "alembic": ("ledger/sql/",),
    "boto3": (),
    "confluent_kafka": ("data/sources/kafka.py", "tracking/sinks/kafka.py", "serving/scoring/kafka.py"),
    "cronsim": ("pipelines/", "serving/scaling.py"),
    "cryptography": ("models/signing.py", "delivery/webhooks/secrets.py"),
    "cyclonedx": ("models/bill.py",),
    "deltalake": ("data/sources/delta.py",),
    "duckdb": ("data/formats.py", "serving/scoring/queries.py"),
    "fastapi": ("wire/native/", "wire/openlineage/routes.py", "web/", "cli/up.py"),
    "grpc": ("wire/oip/grpc.py",),
    "httptools": ("serving/connection.py",),
    "httpx2": ("data/sources/", "remote/connection.py", "wire/openlineage/sending.py"),
    "jinja2": ("web/",),
    "lightgbm": ("models/flavors/lightgbm.py",),
    "model_signing": ("models/signing.py",),
    "obstore": ("data/sources/s3.py",),
    "onnxruntime": ("models/flavors/onnx.py",),
    "open_data_contract_standard": ("data/contracts.py",),
    "psycopg": ("ledger/sql/", "data/sources/postgresql.py"),
    "ray": (),
    "redis": ("storage/online/redis.py",),
    "scipy": (),
    "skops": ("models/flavors/sklearn.py", "models/flavors/_sklearn", "models/flavors/mlmodel.py"),
    "sklearn": ("models/flavors/sklearn.py", "models/flavors/_sklearn", "demo/"),
    "sqlalchemy": ("ledger/sql/",),
    "starlette": ("wire/native/", "wire/mlflow/", "web/"),
    "torch": ("models/flavors/_pt2.py",),
    "typer": ("cli/",),
    "uvicorn": ("cli/", "wire/native/"),
    "uvloop": ("wire/oip/process.py", "cli/"),
    "xgboost": ("models/flavors/xgboost.py",),
}


def test_the_rooms_import_as_the_contracts_say() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("library", sorted(CLIENTS))
def test_a_third_party_client_is_imported_only_where_it_belongs(library: str) -> None:
    importers = {file for file, imported in _imports() if imported == library}
    strangers = [f for f in sorted(importers) if not any(f.startswith(home) for home in CLIENTS[library])]
    assert not strangers, f"{library} belongs to {CLIENTS[library] or 'no file yet'}"


def test_the_data_plane_loads_neither_the_loop_nor_the_ledger_nor_polars() -> None:
    loaded = _loaded_by("import flyball.serving.server, flyball.wire.oip.process")
    strangers = ("flyball.control", "flyball.ledger", "polars", "sqlalchemy", "alembic", "fastapi", "sklearn", "rich")
    assert not {m for m in loaded if m.startswith(tuple(f"{s}." for s in strangers)) or m in strangers}


@functools.cache
def _imports() -> frozenset[tuple[str, str]]:
    """Return (file below flyball/, top-level name of what it imports), from anywhere in the file."""
    return frozenset(_imported())


def _imported() -> Iterator[tuple[str, str]]:
    package = ROOT / "flyball"
    for path in package.rglob("*.py"):
        file = path.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield file, node.module.partition(".")[0]


def _loaded_by(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))
