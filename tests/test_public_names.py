"""`import flyball as fb`: its names, and that importing it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import flyball as fb


def test_the_list_of_names_is_sorted_and_has_each_once() -> None:
    assert fb.__all__ == sorted(set(fb.__all__))


@pytest.mark.parametrize("name", fb.__all__)
def test_a_public_name_can_be_used_and_is_explained(name: str) -> None:
    found = getattr(fb, name)
    assert found is not None
    assert name.startswith("__") or found.__doc__, f"fb.{name} has no docstring"


def test_completion_offers_the_public_names() -> None:
    assert dir(fb) == fb.__all__


def test_a_misspelt_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(AttributeError, match='has no "dataste"; did you mean "dataset"'):
        fb.dataste  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import json, sys; import flyball; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    heavy = {"polars", "numpy", "sqlalchemy", "alembic", "fastapi", "pydantic", "yaml", "rich", "sklearn"}
    assert not heavy & set(json.loads(done.stdout))


def test_no_room_of_the_same_name_hides_a_function() -> None:
    code = "import types; import flyball.api, flyball as fb; "
    code += "print([n for n in fb.__all__ if isinstance(getattr(fb, n), types.ModuleType)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
