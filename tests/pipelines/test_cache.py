"""What makes two calls of a step the same, and what makes them different."""

from __future__ import annotations

import dataclasses
import enum
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.pipelines.cache import call_key, code_key
from flyball.pipelines.steps import step

BASE = {
    "flow": '''
        from flyball.pipelines.steps import step
        import tables
        from helpers import clean, LIMIT
        FACTOR = 2
        class Shape:
            """A class."""
            size: int = 1
            def area(self):
                return self.size * FACTOR
        def inner(x):
            return x + LIMIT
        def unused(x):
            return 1
        @step
        def fit(x, y=1):
            """Say so."""
            def nested(z):
                return [inner(v) for v in z]
            from late import later
            return clean(nested(x)), Shape().area(), tables.join(x), later(y)
    ''',
    "helpers": """
        LIMIT = 3
        OTHER = 4
        def clean(x):
            return deeper(x)
        def deeper(x):
            return x if x else deeper([1])
    """,
    "tables": "def join(x):\n    return x\ndef split(x):\n    return x\n",
    "late": "def later(y):\n    return y\n",
}
SAME = {
    "nothing": ("flow", "FACTOR = 2", "FACTOR = 2"),
    "a comment": ("flow", "return x + LIMIT", "return x + LIMIT  # as agreed"),
    "blank lines and breaks": (
        "flow",
        "return x + LIMIT",
        "\n            return (\n                x\n                + LIMIT)",
    ),
    "a docstring": ("flow", '"""Say so."""', '"""Say it otherwise."""'),
    "a function that is not reached": ("flow", "return 1\n", "return 2\n"),
    "a constant that is not reached": ("helpers", "OTHER = 4", "OTHER = 5"),
    "another function of a module": ("tables", "def split(x):\n    return x", "def split(x):\n    return None"),
}
DIFFERENT = {
    "the step": ("flow", "later(y)", "later(y + 1)"),
    "a default": ("flow", "y=1", "y=2"),
    "a helper": ("flow", "x + LIMIT", "x - LIMIT"),
    "a helper's helper in another file": ("helpers", "else deeper([1])", "else deeper([2])"),
    "a constant": ("flow", "FACTOR = 2", "FACTOR = 3"),
    "a constant in another file": ("helpers", "LIMIT = 3", "LIMIT = 30"),
    "a method": ("flow", "self.size * FACTOR", "self.size + FACTOR"),
    "an attribute of a class": ("flow", "size: int = 1", "size: int = 2"),
    "a function of a module": ("tables", "def join(x):\n    return x", "def join(x):\n    return None"),
    "what is imported when it runs": ("late", "return y", "return -y"),
}


def key_of(folder: Path, change: tuple[str, str, str] | None) -> str:
    """The key of `fit` in a project of four files, one of them changed, told by a process of its own."""
    from textwrap import dedent

    folder.mkdir()
    for name, text in BASE.items():
        source = dedent(text)
        if change is not None and change[0] == name:
            assert change[1] in source
            source = source.replace(change[1], change[2])
        (folder / f"{name}.py").write_text(source)
    code = "import flow; from flyball.pipelines.cache import code_key; print(code_key(flow.fit))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return key_of(tmp_path_factory.mktemp("plain") / "p", None)


@pytest.mark.parametrize("what", SAME)
def test_the_key_stays_when_this_changes(what: str, plain: str, tmp_path: Path) -> None:
    assert key_of(tmp_path / "p", SAME[what]) == plain


@pytest.mark.parametrize("what", DIFFERENT)
def test_the_key_changes_with(what: str, plain: str, tmp_path: Path) -> None:
    assert key_of(tmp_path / "p", DIFFERENT[what]) != plain


def test_running_a_function_often_does_not_change_its_key() -> None:
    before = code_key(hot)
    for n in range(5_000):  # the interpreter rewrites the bytecode of hot functions in place
        hot(n)
    assert code_key(hot) == before


def hot(n: int) -> int:
    return sum(i * n for i in range(3))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Options:
    depth: int = 1
    names: tuple[str, ...] = ()


def key(*args: Any, **kwargs: Any) -> str:
    return call_key("code", args, kwargs, ())[0]


VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: 0,
    lambda: False,
    lambda: 0.0,
    lambda: -0.0,
    lambda: "",
    lambda: b"",
    list,
    lambda: (),
    dict,
    lambda: set(),
    lambda: [[]],
    lambda: ["a", "b"],
    lambda: ["ab"],
    lambda: {"a": 1},
    lambda: {"a": 2},
    lambda: {"a", "b", "c"},
    lambda: {1, 2},
    lambda: Colour.RED,
    lambda: Colour.BLUE,
    lambda: Options(),
    lambda: Options(2),
    lambda: Options(names=("a",)),
    lambda: Path("a"),
    lambda: np.arange(4),
    lambda: np.arange(4).reshape(2, 2),
    lambda: np.arange(4, dtype="int32"),
    lambda: pl.DataFrame({"a": [1, 2]}),
    lambda: pl.DataFrame({"a": [1, 3]}),
    lambda: pl.DataFrame({"b": [1, 2]}),
    lambda: hot,
    lambda: Options,
]


def test_different_values_have_different_keys_and_equal_ones_the_same() -> None:
    keys = [key(make()) for make in VALUES]
    assert len(set(keys)) == len(VALUES)
    assert keys == [key(make()) for make in VALUES]


def test_a_keyword_is_not_a_position_and_the_order_of_keywords_does_not_matter() -> None:
    assert key(1) != key(x=1)
    assert key(x=1, y=2) == key(y=2, x=1)
    assert key(x=1, y=2) != key(x=2, y=1)


def test_the_key_of_a_frame_does_not_depend_on_its_chunks() -> None:
    whole = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
    assert key(pl.concat([whole[:1], whole[1:]], rechunk=False)) == key(whole)


def test_a_list_that_holds_itself_has_a_key() -> None:
    def knot() -> list[Any]:
        made: list[Any] = [1]
        made.append(made)
        return made

    assert key(knot()) == key(knot())


def test_a_set_has_the_same_key_in_another_process_with_other_hashes() -> None:
    code = (
        "from flyball.pipelines.cache import call_key\n"
        "print(call_key('code', ({'a', 'b', 'c', 'long'}, {'k': frozenset('xyz')}), {}, ())[0])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(_plain, st.randoms(use_true_random=False))
def test_a_copy_of_any_plain_value_has_its_key(value: Any, chance: random.Random) -> None:
    import copy
    import pickle

    other = chance.choice([copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])(value)
    assert key(other) == key(value)


def test_a_recursive_step_has_a_key() -> None:
    assert code_key(down) == code_key(down)


@step
def down(n: int) -> int:
    return n and down.function(n - 1)
