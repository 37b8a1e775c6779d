"""The tools that Flyball is compared with, each group in a virtual environment of its own, made when first asked for.

Peers bring pins that would hold the whole environment back, so they never enter `.venv`. A benchmark writes the peer's
part as a script that prints one line of JSON and runs it here:

    seconds = run("contracts", CODE, str(path))["seconds"]

Environments lie under `FLYBALL_PEERS`, by default a folder in the user's cache, and are kept between runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["GROUPS", "python_of", "run"]

# Groups that can be installed together, by trial.
GROUPS: dict[str, tuple[str, ...]] = {
    "contracts": ("great-expectations", "pandera[polars]", "pointblank", "dataframely", "patito", "polars", "pyarrow"),
    "feast": ("feast[duckdb,redis]",),
    "drift": ("evidently", "pandas<3", "pyarrow"),
    "delta": ("deltalake", "polars", "pyarrow"),
    "fastapi": ("fastapi", "uvicorn[standard]", "scikit-learn", "numpy"),
    # Later releases of uvloop end its inference workers at their start.
    "mlserver": ("mlserver", "mlserver-sklearn", "scikit-learn", "numpy", "setuptools", "uvloop<0.22"),
    "mlflow": ("mlflow==3.17.2", "psycopg2-binary"),
}
_INSTALL_LIMIT_S = 900
_RUN_LIMIT_S = 900


def python_of(group: str) -> Path:
    """Return the interpreter of a group's environment, making the environment when it is not there."""
    folder = Path(os.environ.get("FLYBALL_PEERS") or Path.home() / ".cache" / "flyball-peers") / group
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(GROUPS[group])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(GROUPS[group])} (minutes, the first time)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=_INSTALL_LIMIT_S)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *GROUPS[group]]
        subprocess.run(install, check=True, timeout=_INSTALL_LIMIT_S)
        done.write_text(wanted)
    return python


def run(group: str, code: str, *args: str, timeout_s: float = _RUN_LIMIT_S) -> dict[str, Any]:
    """Run a script in a group's environment and return the JSON object on the last line that it printed.

    Returns:
        The object; {"error": …} where the peer failed or did not finish in time, which is a result too.
    """
    python = python_of(group)
    try:
        done = subprocess.run([str(python), "-c", code, *args], capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"did not finish in {timeout_s:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"error": last[:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
