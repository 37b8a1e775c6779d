"""What all tests share: where the real data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Threads of OpenMP that spin while they wait turn a fit of one second into ten when tests run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data with verified reference figures (`data/README.md` in it says what)."""
    folder = Path(os.environ.get("FLYBALL_SHARED_DATA") or ROOT.parent / "shared" / "data")
    assert folder.is_dir(), f"the reference data is missing: {folder}"
    return folder
