"""The steps and pipelines of the tests. Each step that runs leaves a file, so that runs can be counted."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from flyball.pipelines.execution import current_run, workbench
from flyball.pipelines.steps import pipeline, resolve, step

FACTOR = 10


def scaled(x: int) -> int:
    return x * FACTOR


def mark(folder: str, name: str) -> None:
    """Leave a trace of a run of a step."""
    (Path(folder) / f"{name}.{secrets.token_hex(6)}").touch()


def marks(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}.*")))


def until(folder: str, *names: str, seconds: float = 20.0) -> None:
    """Wait until each of the files is there."""
    deadline = time.monotonic() + seconds
    while not all((Path(folder) / name).exists() for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{names} did not come")
        time.sleep(0.01)


@dataclass(frozen=True)
class Report:
    auc: float
    rows: int


@step
def number(folder: str, x: int) -> int:
    mark(folder, f"number-{x}")
    return scaled(x)


@step
def both(x: int) -> tuple[int, int]:
    return x, -x


@step
def total(folder: str, values: list[int]) -> int:
    mark(folder, "total")
    return sum(values)


@step
def frame(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"x": range(rows)})


@step
def report(rows: pl.DataFrame) -> Report:
    return Report(float(rows["x"].mean() or 0), rows.height)


@pipeline
def fan_in(folder: str, count: int = 4) -> int:
    """Fan-out, unpacking, a condition on a value, and a plain function of a value."""
    first, second = both(count)
    values = [number(folder, n) for n in range(count)]
    if first > 2:
        values.append(second)
    return total(folder, values)


@pipeline
def typed(rows: int) -> float:
    data = frame(rows)
    found = report(data)
    assert isinstance(resolve(data), pl.DataFrame)
    assert data["x"].sum() + 1 == sum(range(rows)) + 1
    assert f"{found.auc:.1f}" == f"{(rows - 1) / 2:.1f}"
    return found.auc


@step
def meet(folder: str, me: str, other: str) -> str:
    """Return only when another call of this step is running as well."""
    (Path(folder) / me).touch()
    until(folder, other)
    return me


@pipeline
def together(folder: str) -> str:
    return meet(folder, "a", "b") + meet(folder, "b", "a")


@step(cpu=1_000)
def alone(folder: str, name: str) -> bool:
    """Say whether another call was at work at the same time."""
    lock = Path(folder) / "alone"
    try:
        lock.mkdir()
    except FileExistsError:
        return False
    time.sleep(0.05)
    lock.rmdir()
    return bool(name)


@pipeline
def one_by_one(folder: str) -> bool:
    return all(resolve([alone(folder, name) for name in "abc"]))


@step
def raising(folder: str, x: int) -> int:
    mark(folder, "raising")
    print("about to divide")
    return x // 0


@step
def after(x: int) -> int:
    return x


@step
def slow_sibling(folder: str) -> int:
    until(folder, "go")
    mark(folder, "sibling")
    return 1


@pipeline
def failing(folder: str) -> int:
    bad = raising(folder, 1)
    return after(bad) + slow_sibling(folder)


@pipeline
def failing_beside(folder: str) -> list[int]:
    return [slow_sibling(folder), releasing(folder)]


@step
def releasing(folder: str) -> int:
    (Path(folder) / "go").touch()
    raise ValueError("no such luck")


@pipeline
def catching(folder: str) -> int:
    from flyball.errors import StepFailed

    try:
        return resolve(raising(folder, 1))
    except StepFailed:
        return number(folder, 7)


@step(retries=2)
def flaky(folder: str) -> int:
    mark(folder, "flaky")
    if marks(Path(folder), "flaky") < 2:
        raise RuntimeError("not yet")
    return 1


@pipeline
def trying_again(folder: str) -> int:
    return flaky(folder)


@step(timeout=0.3)
def endless(folder: str) -> int:
    mark(folder, "endless")
    threading.Event().wait()
    return 0


@pipeline
def too_long(folder: str) -> int:
    return endless(folder)


@step
def dying(folder: str, times: int) -> int:
    mark(folder, "dying")
    if marks(Path(folder), "dying") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return 5


@pipeline
def surviving(folder: str, times: int) -> int:
    return dying(folder, times)


@step
def unstorable() -> object:
    return threading.Lock()


@step
def lazy() -> pl.LazyFrame:
    return pl.LazyFrame({"x": [1]})


@step(outputs=2)
def three() -> object:
    return 1, 2, 3


@pipeline
def returning(what: str) -> object:
    return {"lock": unstorable, "lazy": lazy, "three": three}[what]()


@step
def taking(value: object) -> str:
    return type(value).__name__


@pipeline
def sending_a_lock() -> str:
    return taking([1, threading.Lock()])


@step(cache=False)
def impure(folder: str, name: str) -> str:
    mark(folder, f"impure-{name}")
    return name


@step
def stop_here(folder: str) -> int:
    """Hang in the first process that comes here, so that it can be killed."""
    mark(folder, "stop")
    if marks(Path(folder), "stop") == 1:
        (Path(folder) / "reached.part").write_text(str(os.getpid()))
        (Path(folder) / "reached.part").rename(Path(folder) / "reached")
        threading.Event().wait()
    return 1


@pipeline
def resumable(folder: str) -> int:
    first = number(folder, 1)
    resolve([first, impure(folder, "a"), impure(folder, "a")])
    return first + stop_here(folder)


@pipeline
def waiting(folder: str) -> int:
    return stop_here(folder)


@pipeline
def busy_body(folder: str) -> int:
    (Path(folder) / "reached").touch()
    while True:
        time.sleep(0.01)


@step
def surroundings(run: str | None) -> list[bool]:
    print("to standard output")
    print("to standard error", file=sys.stderr)
    os.write(1, b"past Python\n")
    return [workbench.get() is not None, current_run() == run]


@pipeline
def looking_around() -> list[bool]:
    return surroundings(current_run())


@step
def array(n: int) -> np.ndarray:
    return np.arange(n)


@pipeline
def twins(folder: str) -> int:
    return number(folder, 3) + number(folder, 3)


@step(name="fit the model")
def named(x: int, *, depth: int = 2) -> int:
    """Say what it does."""
    return x * depth


@pipeline
def deadly(folder: str) -> int:
    mark(folder, "deadly")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def no_pipeline() -> int:
    return 1
