"""Documents are true: their snippets run, their links lead somewhere, the reference is what the code says."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flyball.delivery.documents import document
from flyball.platform import KIND_MODULES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)

# A block is run when it is Python, or when it stands behind <!-- runs --> and shows commands: `$ flyball get models`.
_BLOCK = re.compile(r"(?P<runs><!-- runs -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _script(page: Path) -> str:
    """Return a page's blocks, in order, as one Python program."""
    parts = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "python":
            parts.append(block["text"])
        elif block["runs"]:
            commands = [line[2:] for line in block["text"].splitlines() if line.startswith("$ flyball")]
            assert commands, f"{page.name}: a block that runs shows no command: {block['text'][:80]!r}"
            for command in commands:
                arguments = ["-m", "flyball.cli", *shlex.split(command)[1:]]
                parts.append(f"import subprocess, sys\nsubprocess.run([sys.executable, *{arguments!r}], check=True)\n")
    return "\n".join(parts)


@pytest.mark.parametrize("page", [p for p in PAGES if _script(p)], ids=lambda p: p.name)
def test_the_snippets_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"  # a file, because retraining functions are kept by their source
    script.write_text(_script(page), encoding="utf-8")
    environment = {**os.environ, "FLYBALL_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_declarations_of_a_page_are_valid(page: Path) -> None:
    for module in KIND_MODULES:
        importlib.import_module(module)
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "yaml":
            for raw in yaml.safe_load_all(block["text"]):
                document(raw, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if heading:
            lines = found.read_text(encoding="utf-8").splitlines()
            headings = {_anchor(line.lstrip("#").strip()) for line in lines if line.startswith("#")}
            assert heading in headings, f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, f"docs/index.md does not name {page.name}"


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"docs/reference.md is old; run python scripts/reference.py\n{done.stderr[-2000:]}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
