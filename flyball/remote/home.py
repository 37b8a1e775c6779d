"""A home on another machine, with those acts of `platform.Platform` that can be done over HTTP, under the same names.

What `import flyball as fb` and `notebook` ask of a home they ask of this. What works on a home's own files is an error
that says where it can be done.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from flyball import settings
from flyball.clock import format_instant
from flyball.errors import Incompatible, InvalidInput, NotFound, Unavailable
from flyball.ledger.experiments import Experiment
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Artifact, Run
from flyball.ledger.search import Found
from flyball.ledger.versions import Version
from flyball.remote import values
from flyball.remote.connection import TOKEN_VARIABLE, Connection, RemoteSettings
from flyball.remote.sending import RemoteRun, Sender

if TYPE_CHECKING:
    import polars as pl

    from flyball.models.bundle import LoadedModel

__all__ = ["RemoteHome"]

T = TypeVar("T")

_PAGE = 1000


class RemoteHome:
    """A home that a `flyball up` elsewhere answers for. Errors are those of the platform; Unavailable: it is away."""

    def __init__(self, url: str, token: str | None = None) -> None:
        chosen = settings.load(RemoteSettings, "remote", settings.home_directory())
        self.connection = Connection(url, token or os.environ.get(TOKEN_VARIABLE), chosen)
        self.url = self.connection.url
        self._token = token
        self._chosen = chosen
        self._sender: Sender | None = None
        self._lock = threading.Lock()
        self._runs: weakref.WeakValueDictionary[str, RemoteRun] = weakref.WeakValueDictionary()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._downloads = 0

    def __repr__(self) -> str:
        return f"RemoteHome({self.url!r})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise self.not_here(name)

    def not_here(self, what: str) -> InvalidInput:
        """Return the error for what works only where the home is."""
        return InvalidInput(
            f"{what} works on the home's own files, and this home is at {self.url}: do it on that machine, or on its "
            "pages"
        )

    def check(self) -> None:
        """Return when a Flyball answers that lets us in. Raises Unavailable, Incompatible, Unauthenticated, …"""
        if self._get("/api/v1/server").get("flyball") != 1:
            raise Incompatible(f"{self.url} answers, but not as a Flyball of this release does")

    def close(self) -> None:
        """Close what is open; runs that still go on are sent nevertheless."""
        if self._sender is None:
            self.connection.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    # -- recording

    @property
    def sender(self) -> Sender:
        """What sends this process's runs; made when it is first needed, and anew in a forked process."""
        with self._lock:
            if self._sender is None or self._sender.process != os.getpid():
                folder = self._chosen.folder or _default("XDG_STATE_HOME", ".local/state")
                self._sender = Sender(self.connection, folder, self._chosen.patience_s)
                self._sender.take_up()
            return self._sender

    def start_run(
        self,
        name: str,
        *,
        experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        parent: str | None = None,
    ) -> RemoteRun:
        """Start recording a run; `experiment` is a name. See `Sender.start`."""
        from flyball.tracking.system import TrackingSettings, sample

        chosen = settings.load(TrackingSettings, "tracking", settings.home_directory())
        run = self.sender.start(name, experiment, parent)
        self._runs[run.id] = run
        if params:
            run.params(**params)
        if chosen.system_metrics:
            sample(run, chosen.system_interval_s)
        return run

    def send_unsent(self) -> int:
        """Send the runs that programs on this machine left behind for this home; see `Sender.send_unsent`."""
        return self.sender.send_unsent()

    # -- runs and experiments

    def run(self, id: str) -> Run:
        """Return one run by its id or the beginning of it. Raises NotFound."""
        told = self._get(f"/api/v1/runs/{_part(id.removeprefix('run/'))}")
        return self._made(values.run_of, told)

    def artifacts(self, run: str) -> list[Artifact]:
        """Return what a run left. Raises NotFound."""
        return self._made(values.artifacts_of, self._get(f"/api/v1/runs/{_part(run)}"))

    def metric(self, run: str, key: str) -> list[Point]:
        """Return the points of one metric of a run. Raises NotFound."""
        told = self._get(f"/api/v1/runs/{_part(run.removeprefix('run/'))}/metrics/{_part(key)}")
        return self._made(lambda found: [values.point_of(key, one) for one in found["points"]], told)

    def file(self, run: str, path: str) -> bytes:
        """Return the bytes of a file that a run left. Raises NotFound."""
        to = self._place("file")
        self.connection.download(f"/api/runs/{_part(run)}/artifacts/{quote(path)}", to)
        data = to.read_bytes()
        to.unlink()
        return data

    def experiment_by_name(self, name: str) -> Experiment:
        """Return an experiment by its name, deleted or not. Raises NotFound."""
        told = self._get("/api/v1/experiments", name=name)
        return self._made(lambda found: values.experiment_of(found["items"][0]), told)

    def create_experiment(self, name: str) -> Experiment:
        """Make an experiment. Raises Conflict when the name is taken."""
        told = self.connection.ask("POST", "/api/v1/experiments", json={"name": name}, is_repeatable=False)
        return self._made(values.experiment_of, told)

    def search_experiments(
        self, filter: str = "", *, view: str = "active", limit: int = _PAGE, offset: int = 0
    ) -> tuple[list[Experiment], bool]:
        """Return a page of the experiments that match, and whether there are more."""
        told = self._get("/api/v1/experiments", filter=filter, view=view, limit=limit, offset=offset)
        return self._made(lambda f: ([values.experiment_of(e) for e in f["items"]], f["next"] is not None), told)

    def search_runs(
        self,
        experiments: Iterable[str],
        filter: str = "",
        order_by: Sequence[str] = (),
        view: str = "active",
        limit: int = _PAGE,
        offset: int = 0,
    ) -> tuple[list[Run], bool]:
        """Return a page of the runs of experiments (ids) that match, and whether there are more. InvalidInput."""
        params = {"experiment": list(experiments), "filter": filter, "order_by": list(order_by), "view": view}
        told = self._get("/api/v1/runs", **params, limit=limit, offset=offset)
        return self._made(lambda f: ([values.run_of(run) for run in f["items"]], f["next"] is not None), told)

    def search(self, query: str, limit: int = 20) -> Found:
        """Return what the catalogue has for words and filters."""
        told = self._get("/api/search", q=query, limit=limit)
        return self._made(
            lambda f: Found(tuple(values.hit_of(hit) for hit in f["items"]), f["next"], tuple(f["notes"])), told
        )

    # -- what is declared and made

    def resources(self, kind: str | None = None) -> list[Resource]:
        """Return resources, of one kind or of all."""
        return self._all("/api/resources", values.resource_of, kind=kind)

    def resource(self, target: str | Ref) -> Resource:
        """Return one resource. Raises NotFound."""
        kind, _, name = str(target).partition("/")
        return self._made(values.resource_of, self._get(f"/api/resources/{_part(kind)}/{_part(name)}"))

    def declare(self, kind: str, name: str, **spec: Any) -> Resource:
        """Apply one resource given as fields. Raises InvalidInput, Conflict."""
        self.connection.ask("POST", "/api/apply", json=[{"kind": kind, "name": name, **spec}])
        return self.resource(f"{kind}/{name}")

    def versions(self, kind: str, name: str | None = None, limit: int = _PAGE) -> list[Version]:
        """Return versions, newest first."""
        path = f"/api/versions/{_part(kind)}" + (f"/{_part(name)}" if name is not None else "")
        told = self._get(path, limit=min(limit, _PAGE))
        return self._made(lambda found: [values.version_of(one) for one in found["items"]], told)

    def version(self, target: str | Ref) -> Version:
        """Return one version: `model/late@champion`, `dataset/flights@12`. Raises NotFound."""
        found = ref(str(target))
        path = f"/api/versions/{_part(found.kind)}/{_part(found.name)}@{_part(found.version or 'latest')}"
        return self._made(values.version_of, self._get(path))

    def aliases(self, kind: str, name: str, at: datetime | None = None) -> dict[str, int]:
        """Return where each alias points, or pointed at an instant."""
        told = self._get(f"/api/v1/aliases/{_part(kind)}/{_part(name)}", at=format_instant(at) if at else None)
        return self._made(lambda found: {str(k): int(v) for k, v in found["aliases"].items()}, told)

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Point an alias of a model at a version. Raises NotFound, InvalidInput, Conflict."""
        self.connection.ask("PUT", f"/api/v1/models/{_part(name)}/aliases/{_part(alias)}", json={"number": number})

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias of a model. Raises NotFound."""
        self.connection.ask("DELETE", f"/api/v1/models/{_part(name)}/aliases/{_part(alias)}", is_repeatable=False)

    def register(self, name: str, model: Any, **options: Any) -> Version:
        """Publish a model's next version; see `remote.models.register`."""
        from flyball.remote.models import register

        run = self._runs.get(str(options.get("run")))
        params = run.given if run is not None else {}
        return register(self.connection, name, model, version_at=self._perhaps, params=params, **options)

    def load(self, target: str | Ref) -> LoadedModel:
        """Load a version of a model here; without `@` the champion. See `remote.models.load`."""
        from flyball.remote.models import load

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        version = self.version(found if found.version else f"{found}@champion")
        return load(self.connection, version, self._chosen.cache or _default("XDG_CACHE_HOME", ".cache"))

    # -- data

    def frame(
        self,
        target: str | Ref,
        *,
        purpose: str | None = None,
        at: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Return the rows of a version of a dataset, which are fetched into a file first. Raises as the platform's."""
        import polars as pl

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "dataset")
        if found.kind != "dataset":
            raise self.not_here(f"reading {found.kind}/{found.name}")
        to = self._place("rows.parquet")
        params = {
            "version": found.version or "latest",
            "purpose": purpose,
            "columns": list(columns) if columns else None,
        }
        instant = format_instant(at) if at is not None else None
        self.connection.download(f"/api/v1/data/{_part(found.name)}/rows", to, {**params, "at": instant})
        return pl.scan_parquet(to)

    def read(self, target: str | Ref, format: str = "polars", **options: Any) -> Any:
        """Return the rows of a version as `polars` (lazy), `arrow`, `duckdb` or `pandas`. Raises as `frame`."""
        from flyball.data.formats import converted

        return converted(self.frame(target, **options), None, format)

    # -- serving

    def predict(
        self,
        deployment: str,
        records: Any,
        key: str | None = None,
        *,
        explain: bool = False,
        approximate: bool = False,
    ) -> list[dict[str, Any]]:
        """Ask the data plane for answers. Raises NotFound, InvalidInput, Unavailable."""
        rows = [records] if isinstance(records, Mapping) else list(records)
        body: dict[str, Any] = {"records": rows}
        body |= {"key": key} if key is not None else {}
        body |= {name: True for name, wanted in (("explain", explain), ("approximate", approximate)) if wanted}
        path = f"/v1/models/{_part(deployment)}:predict"
        told = self._data_plane().ask("POST", path, json=body, is_repeatable=False)
        return self._made(lambda found: [dict(one) for one in found["predictions"]], told)

    def label(self, labels: Iterable[tuple[str, Any]] | Mapping[str, Any], source: str = "") -> int:
        """Tell the truth of predictions by their ids; return how many. Raises InvalidInput."""
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        rows = [{"id": id, "label": value} for id, value in pairs]
        told = self.connection.ask("POST", "/api/labels", json={"labels": rows, "source": source}, is_repeatable=False)
        return self._made(lambda found: int(found["labelled"]), told)

    def why_told(self, target: str) -> str:
        """Return, as text, why a thing is as it is. Raises NotFound."""
        kind, _, name = str(target).partition("/")
        told = self._get(f"/api/why/{_part(kind)}/{_part(name)}")
        lines = self._made(lambda found: [str(line) for line in found["story"]], told)
        return "\n".join(("   " * (depth - 1) + "└─ " if depth else "") + line for depth, line in enumerate(lines))

    # -- within

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self.connection.ask("GET", path, params=params)

    def _made(self, make: Callable[[dict[str, Any]], T], told: dict[str, Any]) -> T:
        return values.made(self.url, lambda: make(told))

    def _all(self, path: str, make: Any, **params: Any) -> list[Any]:
        found: list[Any] = []
        before: Any = None
        while True:
            told = self._get(path, **params, limit=_PAGE, before=before)
            page = self._made(lambda answer: [make(one) for one in answer["items"]], told)
            found += page
            before = told.get("next")
            if before is None or not page:
                return found

    def _perhaps(self, target: Ref) -> Version | None:
        try:
            return self.version(target)
        except (NotFound, InvalidInput):  # of a kind without versions, such as a run
            return None

    def _data_plane(self) -> Connection:
        """Return the data plane. The token goes to no host but the one it was given for, or that is configured."""
        if self._chosen.predictions:
            return Connection(self._chosen.predictions, self._token or os.environ.get(TOKEN_VARIABLE), self._chosen)
        ours = urlsplit(self.url)
        told = self._get("/api/v1/server").get("predictions")
        port = self._made(lambda t: urlsplit(t["told"]).port, {"told": told}) if isinstance(told, str) else None
        if port is None:
            raise Unavailable(f"nobody answers predictions at {self.url} now; is flyball up running there whole?")
        if ours.scheme != "http":
            raise InvalidInput(
                "predictions are answered at an address of their own, which is not known behind https; set "
                "FLYBALL_REMOTE_PREDICTIONS to it"
            )
        host = f"[{ours.hostname}]" if ":" in (ours.hostname or "") else ours.hostname
        return Connection(f"http://{host}:{port}", self._token or os.environ.get(TOKEN_VARIABLE), self._chosen)

    def _place(self, name: str) -> Path:
        """Return a new place for a file that lasts as long as this home is used."""
        with self._lock:
            if self._scratch is None:
                self._scratch = tempfile.TemporaryDirectory(prefix="flyball-remote-", ignore_cleanup_errors=True)
            self._downloads += 1
            return Path(self._scratch.name) / f"{self._downloads}-{name}"


def _default(variable: str, place: str) -> Path:
    """Return the folder of a user's own files, by the XDG Base Directory Specification."""
    given = os.environ.get(variable, "")
    return (Path(given) if given.startswith("/") else Path.home() / place) / "flyball"


def _part(text: str) -> str:
    """Return a name as one part of a path."""
    return quote(text, safe="")
