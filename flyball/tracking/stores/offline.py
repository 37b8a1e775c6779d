"""Read runs that `fb.run(offline=…)` wrote; `tracking.offline` says how they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from flyball.errors import Corrupt, FlyballError, Incompatible
from flyball.ledger.artifacts import check_path
from flyball.ledger.runs import FINISHED
from flyball.tracking.offline import FILES, FORMAT, LOG, RUN
from flyball.tracking.stores.reading import RUN_ID, point, text_of
from flyball.tracking.stores.stored import Refused, StoredExperiment, StoredFile, StoredModel, StoredRun

__all__ = ["OfflineStore", "object_of", "run_of", "take"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_LOG = 4 << 30
_PARENT_TAG = "mlflow.parentRunId"


class OfflineStore:
    """Runs in folders of their own."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def experiments(self) -> Iterator[StoredExperiment | Refused]:
        """Yield nothing: experiments come with their runs."""
        yield from ()

    def models(self) -> Iterator[StoredModel | Refused]:
        """Yield nothing: there is no registry offline."""
        yield from ()

    def runs(self) -> Iterator[StoredRun | Refused]:
        """Yield the runs."""
        for folder in self._folders:
            try:
                yield _run(folder)
            except (FlyballError, TypeError, ValueError, KeyError, RecursionError) as error:
                reason = str(error) if isinstance(error, FlyballError) else f"{type(error).__name__}: {error}"
                yield Refused(folder.name, f"is no run written offline: {reason}")


def run_of(facts: dict[str, Any]) -> StoredRun:
    """Return a run that has begun, of what its `run.json` says. Raises Corrupt, Incompatible, KeyError, ValueError."""
    form = facts.get("format")
    if form != FORMAT:
        raise Incompatible(f"it has format {form!r}; this release reads {FORMAT}")
    id, name, experiment = facts["id"], facts["name"], facts.get("experiment")
    if not isinstance(id, str) or not RUN_ID.fullmatch(id) or not isinstance(name, str):
        raise Corrupt(f"the run's id is {id!r}; expected 32 hexadecimal digits")
    if experiment is not None and not isinstance(experiment, str):
        raise Corrupt("the experiment's name is no text")
    parent = facts.get("parent")
    if parent is not None and (not isinstance(parent, str) or not RUN_ID.fullmatch(parent)):
        raise Corrupt(f"the run that contains it is {str(parent)[:80]!r}; expected 32 hexadecimal digits")
    return StoredRun(
        id=id,
        name=name,
        status="running",
        started_ms=int(facts["started_ms"]),
        experiment=StoredExperiment(experiment) if experiment else None,
        user=str(facts.get("user") or ""),
        source=dict(facts.get("source") or {}),
        environment=dict(facts.get("environment") or {}),
        tags={_PARENT_TAG: parent} if parent else {},
    )


def _run(folder: Path) -> StoredRun:
    run = run_of(object_of(text_of(folder / RUN)))
    files: dict[str, StoredFile] = {}

    def bytes_of(path: str, digest: str) -> StoredFile:
        file = folder / FILES / digest
        if file.is_symlink() or (folder / FILES).is_symlink() or not file.is_file():
            raise Corrupt(f"the bytes of {path} are not there")
        return StoredFile(path, file, file.stat().st_size, digest)

    if (folder / LOG).exists():
        lines = text_of(folder / LOG, _MOST_LOG).split("\n")
        for number, line in enumerate(lines[:-1], 1):  # behind the last line break there is nothing, or half a line
            try:
                take(run, files, object_of(line), bytes_of)
            except (FlyballError, TypeError, ValueError, KeyError, AttributeError) as error:
                run.problems.append(Refused(f"{folder.name}/{LOG}:{number}", f"was left out: {error}"[:300]))
    run.files = list(files.values())
    return run


def take(
    run: StoredRun,
    files: dict[str, StoredFile],
    told: dict[str, Any],
    bytes_of: Callable[[str, str], StoredFile],
) -> None:
    """Add what a line of a log tells to a run, and its file to `files` by path.

    Args:
        bytes_of: finds a file's bytes by path and digest.

    Raises:
        FlyballError, TypeError, ValueError, KeyError, AttributeError: it tells nothing that can be taken; nothing was.
    """
    if "points" in told:
        run.points += [point(str(key), value, step, at) for key, value, step, at in told["points"]]
    elif "params" in told:
        run.params = {**told["params"], **run.params}
    elif "tags" in told:
        run.tags |= {str(key): str(value) for key, value in told["tags"].items()}
    elif "result" in told:
        run.result |= told["result"]
    elif "use" in told:
        run.uses.append((str(told["use"]), str(told["role"])))
    elif "file" in told:
        path, digest = check_path(told["file"]), str(told["digest"])
        if not _DIGEST.fullmatch(digest):
            raise Corrupt(f"{digest[:80]!r} is no digest")
        files[path] = bytes_of(path, digest)
    elif "end" in told:
        if told["end"] not in FINISHED:
            raise Corrupt(f"a run cannot end as {told['end']!r}")
        run.status, run.ended_ms, run.error = told["end"], int(told["at_ms"]), told.get("error")
    else:
        raise Corrupt("the line says nothing that is known")


def object_of(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object. Raises Corrupt."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Corrupt(f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Corrupt("it is no JSON object")
    return found
