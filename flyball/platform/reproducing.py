"""Make a run again from what it keeps: its code, the versions of data sets that it read, its arguments and seed.

A script of `fb.run()` keeps itself and its modules (`tracking.code`). It runs in a fresh process, in an empty folder
with these files, and changes nothing in the home; see `notebook.reproducing` for what is different in it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.ledger.refs import ref
from flyball.ledger.runs import Artifact, Run
from flyball.platform.runs import RunActs

__all__ = ["ReproduceActs"]

_VARIABLE = "FLYBALL_REPRODUCE"  # as notebook.reproducing reads it
_DEFAULT_S = 24 * 3600.0
_OUTPUT = 4000  # characters of what the script printed last


class ReproduceActs(RunActs):
    """Runs made again."""

    def reproduce(
        self,
        run: str,
        *,
        tolerance: float = 1e-6,
        directory: Path | None = None,
        timeout_s: float = _DEFAULT_S,
        environment: bool = False,
    ) -> Any:
        """Make a run again and compare; return `tracking.comparing.Reproduction`. Nothing in the home changes.

        Args:
            run: its id, or the beginning of it.
            tolerance: the largest relative difference of a metric's value that is no difference.
            directory: where the script is run, when it reads files besides data sets; default: with its code alone.
            environment: run it in a virtual environment of the packages that the run recorded, at their versions.

        Raises:
            NotFound: there is no such run, or a version that it read is gone.
            InvalidInput: it keeps no code: of a notebook, imported, recorded by MLflow's client, or of a pipeline; or
                it recorded no packages.
            Unavailable: the script did not end in time, or wrote no run of the same name, or its environment cannot
                be built.
        """
        from flyball.platform import environments
        from flyball.tracking.code import FOLDER
        from flyball.tracking.comparing import (
            Likeness,
            Reproduction,
            compared_metric,
            environment_changes,
            package_changes,
        )
        from flyball.tracking.stores.offline import OfflineStore
        from flyball.tracking.stores.stored import StoredRun

        self._may("start")
        if not tolerance >= 0:
            raise InvalidInput(f"the tolerance is {tolerance}; expected 0 or more")
        then = self.run(run)
        _refuse_pipeline(then)
        kept = self.artifacts(then.id)
        code = [artifact for artifact in kept if artifact.path.startswith(f"{FOLDER}/")]
        script = str(then.source.get("script") or "")
        if f"{FOLDER}/{script}" not in {artifact.path for artifact in code}:
            raise InvalidInput(
                f"run {then.id[:8]} keeps no script that could be run again; scripts that record with fb.run() do, "
                "notebooks and clients of MLflow do not"
            )
        pins = self._pins(then)
        with tempfile.TemporaryDirectory(prefix="flyball-reproduce-") as made:
            folder = Path(made)
            self._lay_out(code, folder / FOLDER)
            told = {"run": then.id, "folder": str(folder / "runs"), "pins": pins, "version": then.result.get("version")}
            python, path = (
                Path(sys.executable),
                os.pathsep.join(p for p in (_here(), os.environ.get("PYTHONPATH", "")) if p),
            )
            if environment:
                python, path = environments.build(then.environment, folder / "environment"), ""
            arguments = [str(argument) for argument in then.source.get("arguments") or ()]
            output, code_of_exit = _ran(
                [str(python), str(folder / FOLDER / script), *arguments],
                directory or folder / FOLDER,
                {
                    **os.environ,
                    "FLYBALL_HOME": str(self.home),
                    _VARIABLE: json.dumps(told),
                    "PYTHONHASHSEED": str(then.source.get("hash_seed") or "random"),
                    "PYTHONPATH": path,
                },
                timeout_s,
            )
            written = sorted((folder / "runs").iterdir()) if (folder / "runs").is_dir() else []
            found = [
                one for one in OfflineStore(written).runs() if isinstance(one, StoredRun) and one.name == then.name
            ]
            if not found:
                end = " ".join(output.split())[-600:]
                raise Unavailable(f"the script ended with code {code_of_exit} before a run {then.name!r} began: {end}")
            now = min(found, key=lambda one: one.started_ms)
            made_files = {file.path: file.file.name for file in now.files}
        changed = package_changes(then.environment, now.environment)
        result = Reproduction(then.id, now.status, output=output[-_OUTPUT:], environment=changed)
        for key in dict.fromkeys([*then.metrics, *(point.key for point in now.points)]):
            if not key.startswith("system/"):
                before = self.metric(then.id, key) if key in then.metrics else []
                after = [point for point in now.points if point.key == key]
                result.metrics.append(compared_metric(key, before, after, tolerance))
        old_files = {a.path: a.digest for a in kept if not a.path.startswith(f"{FOLDER}/")}
        for path in sorted({*old_files, *made_files}):
            result.files.append(_compared(Likeness, path, old_files.get(path), made_files.get(path)))
        for key in dict.fromkeys([*then.params, *now.params]):
            result.params.append(_compared(Likeness, key, _text(then.params, key), _text(now.params, key)))
        if not result.is_same or any(one.verdict != "identical" for one in (*result.metrics, *result.files)):
            result.reasons = environment_changes(then.environment, now.environment)
            if now.error:
                result.reasons.insert(0, f"the script failed: {now.error.strip().splitlines()[-1][:300]}")
            if not any("seed" in key.lower() or key == "random_state" for key in then.params):
                result.reasons.append("no parameter names a seed; what is drawn at random differs from run to run")
            if not pins:
                result.reasons.append("the run read no version of a data set; what it read elsewhere may have changed")
        return result

    def _pins(self, run: Run) -> dict[str, int]:
        """Return the versions of data sets that a run read, by name. Raises NotFound: one of them is gone."""
        found = {str(name): int(number) for name, number in (run.result.get("read") or {}).items()}
        with self._reading() as world:
            for edge in world.lineage.walk(run.ref, "upstream", depth=1).edges:
                used = ref(edge.source) if edge.target == str(run.ref) else None
                if used is not None and used.kind == "dataset" and str(used.version or "").isdecimal():
                    found.setdefault(used.name, int(str(used.version)))
            for name, number in found.items():
                world.versions.get("dataset", name, number)
        return found

    def _lay_out(self, code: list[Artifact], folder: Path) -> None:
        for artifact in code:
            path = folder.joinpath(*artifact.path.split("/")[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.blobs.get(artifact.digest))


def _refuse_pipeline(run: Run) -> None:
    """Raise InvalidInput for a run of a pipeline, and say how it is made again."""
    if not (run.of or "").startswith("pipeline/"):
        return
    words = [f"--param {name}={json.dumps(value, default=str)}" for name, value in sorted(run.params.items())]
    again = shlex.join(["flyball", "run", (run.of or "").partition("/")[2]])
    raise InvalidInput(
        f"run {run.id[:8]} is of {run.of}, which keeps a digest of its steps' code and not the code, and whose steps "
        f"read and publish versions themselves; run it again where its code is as it was: "
        f"{' '.join([again, *words])} (a step with the same code and inputs gives back what it gave then)"
    )


def _ran(command: list[str], directory: Path, environment: dict[str, str], timeout_s: float) -> tuple[str, int]:
    if not directory.is_dir():
        raise NotFound(f"there is no folder {directory}")
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the script did not end within {timeout_s:g} s and was stopped") from None
    return done.stdout.decode(errors="replace"), done.returncode


def _compared(make: Any, name: str, then: str | None, now: str | None) -> Any:
    if then == now:
        return make(name, "identical")
    if now is None:
        return make(name, "missing", "not made this time")
    if then is None:
        return make(name, "new", "was not made then")
    is_short = len(then) + len(now) < 200
    return make(name, "different", f"{then} then, {now} now" if is_short else "")


def _text(values: Any, key: str) -> str | None:
    return json.dumps(values[key], sort_keys=True, default=str) if key in values else None


def _here() -> str:
    """Return where this Flyball is imported from, so that the script finds the same one."""
    return str(Path(__file__).resolve().parents[2])
