"""A run as a notebook or a script holds it: `with fb.run("late", depth=6) as run: …`.

What it is recorded in is a matter of `RunSink`: the home's ledger (`tracking.runs.ActiveRun`), or a folder on a
machine without a network (`tracking.offline.OfflineRun`), which `flyball import` takes in later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from flyball.errors import Conflict, FlyballError, InvalidInput, NotFound
from flyball.ledger.refs import Ref
from flyball.ledger.runs import Artifact
from flyball.ledger.versions import Version
from flyball.notebook.reproducing import reproduced, versions_read

if TYPE_CHECKING:
    from flyball.data.rows import Rows
    from flyball.evaluation.evaluate import Evaluation
    from flyball.features.services import FeatureService
    from flyball.platform import Platform

__all__ = ["Recording", "RunSink", "experiment_named"]

_EXAMPLE_ROWS = 20
_TABLES_TAG = "mlflow.loggedArtifacts"  # where MLflow's page looks for tables


class RunSink(Protocol):
    """What a run is recorded in; `tracking.runs.ActiveRun` says what each method does and raises."""

    @property
    def id(self) -> str: ...

    def log(self, values: Mapping[str, float] | None = None, step: int = 0, **metrics: float) -> None: ...

    def params(self, **params: Any) -> None: ...

    def tags(self, **tags: str) -> None: ...

    def artifact(self, path: str, data: bytes | os.PathLike[str]) -> Artifact: ...

    def artifacts(self, path: str, folder: os.PathLike[str]) -> list[Artifact]: ...

    def use(self, what: Ref, role: str = "used by") -> None: ...

    def result(self, **values: Any) -> None: ...

    def flush(self) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def _repr_html_(self) -> str: ...


class Recording:
    """A run that is being recorded; a context manager. Metrics, parameters and files stay with it."""

    def __init__(
        self,
        sink: RunSink,
        home: Callable[[], Platform] | None,
        act: Callable[[], None],
        *,
        keeps_code: bool = True,
    ) -> None:
        self._sink = sink
        self._home = home
        self._act = act
        self._evaluated: tuple[Any, Rows, Evaluation] | None = None
        self._purposes: set[str] = set()  # what the rows were read for
        self._tables: list[str] = []
        self._code: set[str] | None = set() if keeps_code else None
        self.log = sink.log
        self.params = sink.params
        self.tags = sink.tags
        self.use = sink.use
        self.flush = sink.flush
        self._keep_code()

    @property
    def id(self) -> str:
        """The run's id."""
        return self._sink.id

    # -- files

    def artifact(self, path: str | os.PathLike[str], data: bytes | os.PathLike[str] | None = None) -> list[Artifact]:
        """Keep a file with the run, or a folder with all that is in it; return the files.

        Args:
            path: where it is kept, relative to the run: `plots/roc.svg`. Alone: a file or folder of this machine, which
                is kept under its own name.
            data: bytes, a file or a folder.

        Raises:
            InvalidInput: the path leads out of the run, or there is no such file.
            Conflict: the path is a folder of the run, or one of its folders is a file; or the run has ended.
        """
        if data is None:
            source = Path(path)
            if not source.exists():
                raise InvalidInput(f"there is no file or folder {source}; give its bytes behind the path")
            path, data = source.absolute().name, source
        if isinstance(data, os.PathLike) and Path(data).is_dir():
            return self._sink.artifacts(os.fspath(path), data)
        return [self._sink.artifact(os.fspath(path), data)]

    def log_table(self, name: str, frame: Any) -> Artifact:
        """Keep a table with the run: as JSON, which both pages show, or as Parquet when `name` ends so.

        Args:
            name: `predictions`, `predictions.parquet`.
            frame: a Polars, pandas or Arrow frame, records, or `{column: values}`.

        Raises:
            InvalidInput: it is no table, or JSON would have more than 100,000 rows.
        """
        from flyball.notebook.logging import table_file

        kept = self._sink.artifact(*table_file(name, frame))
        if kept.path.endswith(".json") and kept.path not in self._tables:
            self._tables.append(kept.path)
            told = [{"path": path, "type": "table"} for path in self._tables]
            self._sink.tags(**{_TABLES_TAG: json.dumps(told, ensure_ascii=False)})
        return kept

    def log_figure(self, name: str, figure: Any) -> Artifact:
        """Keep a figure with the run: of matplotlib, Plotly or Pillow, or bytes; the suffix of `name` says the format.

        Raises:
            InvalidInput: it is no figure, or cannot be written in that format.
        """
        from flyball.notebook.logging import figure_file

        return self._sink.artifact(*figure_file(name, figure))

    # -- models

    def evaluate(self, model: Any, rows: Rows, metric: str | None = None, slices: Sequence[str] = ()) -> Evaluation:
        """Judge a model on rows that it has not seen; the metrics stay with the run. Prints itself as a table."""
        from flyball.training.registering import judge

        found = judge(model, rows, metric_name=metric, slices=slices)
        if rows.origin is not None:
            self._sink.use(rows.origin)
        if rows.purpose is not None:
            self._purposes.add(rows.purpose)
            self._sink.tags(purpose=", ".join(sorted(self._purposes)))
        self._sink.log({name: interval.value for name, interval in found.metrics.items()})
        self._evaluated = (model, rows, found)
        return found

    def register(
        self,
        name: str,
        model: Any,
        example: Any = None,
        note: str = "",
        features: FeatureService | None = None,
        **spec: Any,
    ) -> Version:
        """Publish the model as the next version of `model/<name>`, with what `evaluate` found on it.

        Args:
            name: the model; it is declared when it is new. Further fields go into its declaration.
            model: the fitted model.
            example: some rows of inputs; default: from the rows that it was evaluated on.
            note: a sentence that stays with the version.
            features: the feature service that it was trained with; it travels in the bundle, pinned.

        Raises:
            InvalidInput: no example is known, or the model cannot be kept.
            Conflict: the run is recorded offline, where there is no registry.
        """
        from flyball.training.registering import windows_of

        again = reproduced()
        if again.is_on and again.version is not None and self._home is not None:
            return self._home().version(again.version)  # registering it again would be news to others
        if self._home is None:
            raise Conflict(
                "this run is recorded offline, where no model can be registered; keep the model with run.artifact(…) "
                "and register it after flyball import"
            )
        at = self._home()
        options: dict[str, Any] = {}
        if self._evaluated is not None and self._evaluated[0] is model:
            _, rows, evaluation = self._evaluated
            options = {"evaluation": evaluation, "trained_on": rows.origin}
            options["windows"] = windows_of(model, rows, evaluation.metric)
            example = rows.X.head(_EXAMPLE_ROWS) if example is None else example
        if example is None:
            raise InvalidInput("give register() an example of the inputs, or evaluate the model first")
        if features is not None:
            options["features"] = features.pinned()
        if spec or name not in [r.name for r in at.resources("model")]:
            at.declare("model", name, **spec)
        version = at.register(name, model, example=example, run=self.id, note=note, **options)
        self._sink.result(version=str(version.ref))
        self._act()
        return version

    # -- its end

    def __enter__(self) -> Recording:
        self._sink.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FlyballError):  # what ended the run counts more than its code
            self._keep_code()
            self._keep_notebook()
            if versions_read:
                self._sink.result(read=dict(versions_read))
        self._sink.__exit__(kind, error, trace)

    def _keep_code(self) -> None:
        """Keep the script and its modules; at the run's end those that were imported meanwhile."""
        from flyball.tracking.code import FOLDER, code_files

        if self._code is None:
            return
        for path, file in code_files().items():
            if path not in self._code:
                self._code.add(path)
                with suppress(InvalidInput, OSError):  # a name that no run can keep, a file that is gone
                    self._sink.artifact(f"{FOLDER}/{path}", file)

    def _keep_notebook(self) -> None:
        from flyball.notebook.executed import NOTEBOOK, executed_notebook

        notebook = executed_notebook()
        if notebook is not None:
            self._sink.artifact(NOTEBOOK, notebook)

    def _repr_html_(self) -> str:
        return self._sink._repr_html_()


def experiment_named(at: Platform, name: str) -> str:
    """Return the id of the experiment of this name, making it when it is new. Raises InvalidInput (name)."""
    try:
        return at.experiment_by_name(name).id
    except NotFound:
        pass
    try:
        return at.create_experiment(name).id
    except Conflict:  # another process has just made it
        return at.experiment_by_name(name).id
