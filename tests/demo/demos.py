"""Run `flyball demo` as a user does: in a process of its own, with its home in a temporary folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 240


@dataclass(frozen=True)
class Demo:
    """What a demo left: exit code, what it printed, the object of its last line, its home."""

    code: int
    printed: str
    errors: str
    home: Path

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.printed.splitlines()[-1])  # type: ignore[no-any-return]


def run(home: Path, *options: str) -> Demo:
    """Run the demo with `--json` and wait for its end."""
    command = [sys.executable, "-m", "flyball.cli", "demo", "--home", str(home), "--json", *options]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLYBALL_")}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    return Demo(done.returncode, done.stdout, done.stderr, home)


def processes_of(home: Path) -> list[str]:
    """Return the command lines of the processes that name a home: none may be left."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(home) in line:
            found.append(line)
    return found
