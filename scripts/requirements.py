"""Pin what is installed: pyproject's ranges → requirements/{core,demo,dev}.txt (`make requirements`).

    python scripts/requirements.py

All three agree with one another, because the largest set is resolved first and bounds the others. The files name
packages and versions only, no address, so that whatever index a machine is set up with serves them. Run it with the
oldest Python that is supported: what it resolves also installs on newer ones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS: dict[str, tuple[list[str], list[str]]] = {  # name: (extras, dependency groups); the largest first
    "dev": (
        [
            *("ml", "onnx", "pandas", "postgres", "lake", "objects", "redis", "kafka", "images", "text", "calendar"),
            "supply",
        ],
        ["dev"],
    ),
    "demo": (["ml"], []),
    "core": ([], []),
}
OPTIONS = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
OPTIONS += ["--no-emit-trusted-host", "--strip-extras", "--upgrade"]


def main() -> None:
    """Write the three files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    bound: str | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name, (extras, groups) in SETS.items():
            wanted = list(project["project"]["dependencies"])
            wanted += [line for extra in extras for line in project["project"]["optional-dependencies"][extra]]
            wanted += [line for group in groups for line in project["dependency-groups"][group]]
            source, result = Path(folder) / f"{name}.in", Path(folder) / f"{name}.txt"
            source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
            limits = ["--constraint", bound] if bound else []
            command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *limits, "--output-file", str(result)]
            subprocess.run([*command, str(source)], check=True, cwd=folder)
            bound = bound or str(result)
            _write(name, result.read_text(encoding="utf-8"), extras, groups)


def _write(name: str, resolved: str, extras: list[str], groups: list[str]) -> None:
    pins = [line for line in resolved.splitlines() if line and not line.startswith(("#", "-"))]
    strange = [pin for pin in pins if "://" in pin or "@" in pin or "==" not in pin]
    if strange:
        raise SystemExit(f"{name}: {strange[0]!r} is not a plain pin")
    what = " + ".join(["pyproject's dependencies", *extras, *(f"group {group}" for group in groups)])
    head = f"# {what}; written by scripts/requirements.py\n"
    (ROOT / "requirements" / f"{name}.txt").write_text(head + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"requirements/{name}.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
