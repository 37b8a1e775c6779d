"""What `import flyball as fb` offers: the notebook's and the script's whole world, in few words.

Nothing needs to be started: the home is a folder (`FLYBALL_HOME`, else `.flyball` here), predictions are answered in
this process, and the control loop runs in a background thread once something is deployed. When `flyball up` runs on
the same home, it does the work and this only asks. With `FLYBALL_URL` set, or after `fb.connect`, the home is one on
another machine (`remote`); what cannot be done over HTTP says so.
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.notebook.datasets import Dataset
from flyball.notebook.executed import remember_displays
from flyball.notebook.labels import LabelSet
from flyball.notebook.reproducing import reproduced
from flyball.notebook.runs import Recording, experiment_named
from flyball.notebook.showing import Listing
from flyball.platform import Platform

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl
    from numpy.typing import NDArray

    from flyball.control.loop import Loop
    from flyball.data.files import Files
    from flyball.features.agreement import Agreement
    from flyball.features.keeping import Upkeep
    from flyball.features.requests import OnRequest
    from flyball.features.services import FeatureService
    from flyball.features.specs import ViewSpec
    from flyball.features.views import FeatureView
    from flyball.ledger.resources import Resource
    from flyball.ledger.runs import Run
    from flyball.ledger.search import Hit
    from flyball.models.bundle import LoadedModel
    from flyball.pipelines.steps import Pipeline
    from flyball.remote.home import RemoteHome

__all__ = [
    "Dataset",
    "LabelSet",
    "Recording",
    "agreement",
    "connect",
    "dataset",
    "declare",
    "deploy",
    "experiment",
    "feature_service",
    "files",
    "home",
    "label",
    "label_set",
    "load",
    "look_up",
    "materialise",
    "open_home",
    "predict",
    "push",
    "register",
    "run",
    "runs",
    "score",
    "search",
    "settle",
    "sql",
    "submit",
    "training_set",
    "watch",
    "why",
]

_WAIT_S = 60.0
_LEASE_S = 2.0  # so long a loop may take to become the one that acts
_PARENT_TAG = "mlflow.parentRunId"  # by which MLflow's page shows runs within runs
_LEAST_LABELS = 300  # as the recipe continuous_training asks


class _Session:
    """This process's platform and its background loop."""

    def __init__(self) -> None:
        self.platform: Platform | None = None
        self.remote: RemoteHome | None = None
        self.loop: Loop | None = None

    def close(self) -> None:
        if self.loop is not None:
            self.loop.stop()
            self.loop = None
        if self.platform is not None:
            self.platform.close()
            self.platform = None
        if self.remote is not None:
            self.remote.close()
            self.remote = None


_session = _Session()
atexit.register(_session.close)
remember_displays()


def open_home(home: str | Path | None = None) -> Platform:
    """Use another home from here on, and return its platform; the home before is closed.

    Raises:
        Incompatible: the home was made by a newer release.
        InvalidInput: the path is not a home.
    """
    _session.close()
    _session.platform = Platform.open(home)
    return _session.platform


def connect(url: str, token: str | None = None) -> RemoteHome:
    """Work with a home on another machine from here on, where `flyball up` runs; what was open before is closed.

    Runs, models and data are recorded, registered, loaded and read there. What works on a home's own files is an error
    that says so.

    Args:
        url: `http://host:7070`. The environment variable `FLYBALL_URL` says the same without this call.
        token: an access key; default: `FLYBALL_TOKEN`.

    Raises:
        InvalidInput: it is no address.
        Unavailable, Incompatible: nobody answers there, or somebody else.
        Unauthenticated, Forbidden: the access key is not good.
    """
    from flyball.remote.home import RemoteHome

    remote = RemoteHome(url, token)
    remote.check()
    _session.close()
    _session.remote = remote
    return remote


def home() -> Platform:
    """Return the platform that this process works with; inside a pipeline, the pipeline's own.

    With a home on another machine: `remote.home.RemoteHome`, which has the same methods as far as HTTP goes.
    """
    from flyball.pipelines.execution import workbench

    bench: Platform | None = workbench.get()
    if bench is not None:
        return bench
    remote = _remote()
    if remote is not None:
        return cast("Platform", remote)
    if _session.platform is None:
        _session.platform = Platform.open(principal=reproduced().principal)
    return _session.platform


def _remote() -> RemoteHome | None:
    """Return the home on another machine that this process works with, None when its home is here."""
    from flyball.pipelines.execution import workbench

    if workbench.get() is not None or reproduced().is_on:
        return None
    if _session.remote is None and _session.platform is None and os.environ.get("FLYBALL_URL"):
        from flyball.remote.home import RemoteHome

        _session.remote = RemoteHome(os.environ["FLYBALL_URL"])
    return _session.remote


def _here(what: str) -> Platform:
    """Return the home for what works on its own files. Raises InvalidInput: it is on another machine."""
    remote = _remote()
    if remote is not None:
        raise remote.not_here(f"fb.{what}")
    return home()


# -- data


def dataset(name: str, **spec: Any) -> Dataset:
    """Return a dataset by name; declare it when it is new or fields are given: `fb.dataset("x", target="y")`.

    Fields that are not given stay as they were; None takes one back.
    """
    _declared("dataset", name, spec)
    return Dataset(name, home)


def declare(kind: str, name: str, **spec: Any) -> Resource:
    """Declare a resource of any kind by its fields: `fb.declare("Policy", "no-emails", mask=[…])`."""
    return home().declare(kind, name, **spec)


def files(
    source: str | Path | NDArray[Any],
    *,
    keep: Literal["copy", "reference"] = "copy",
    label: Literal["folder"] | None = None,
    labels: Sequence[Any] | None = None,
) -> Files:
    """Return files to be published as a dataset: `fb.files("images/**/*.png", label="folder")`.

    Args:
        source: a folder or a glob; or images as an array, shape (n, height, width[, 3 or 4]), uint8.
        keep: `copy` puts the bytes into the home; `reference` leaves them where they are.
        label: `folder` takes the name of the folder that a file lies in as its label.
        labels: of an array's images, one each.

    Raises:
        InvalidInput: an array that is no images, or labels for files.
    """
    from flyball.data.files import Files

    if not isinstance(source, str | Path):
        return Files.of_images(source, labels)
    if labels is not None:
        raise InvalidInput("labels are for an array of images; files take label='folder', or a column joined later")
    parts = Path(source).parts
    plain = list(itertools.takewhile(lambda part: not set(part) & set("*?["), parts))
    if len(plain) == len(parts) and not Path(source).is_dir():
        plain.pop()  # one file
    return Files(Path(*plain), str(Path(*parts[len(plain) :])) if parts[len(plain) :] else "**/*", keep, label)


def label_set(name: str, **spec: Any) -> LabelSet:
    """Return a set of labels by people; declare it when it is new or fields are given, as with `dataset`.

    `fb.label_set("late-by-hand", dataset="flights", key=["id"], values=["yes", "no"])`
    """
    _declared("labels", name, spec)
    return LabelSet(name, home)


def search(query: str = "", limit: int = 20) -> Listing[Hit]:
    """Return what the catalogue has for words and filters, best first: `fb.search("late flights tag:gold")`."""
    found = home().search(query, limit)
    columns: dict[str, Callable[[Hit], Any]] = {
        "kind": lambda h: h.kind,
        "name": lambda h: h.ref.short if h.form == "version" else h.name,
        "owner": lambda h: h.owner,
        "found": lambda h: h.snippet,
    }
    return Listing(found.hits, columns, "nothing was found", found.notes)


# -- runs


def run(
    name: str,
    *,
    experiment: str | None = None,
    parent: Recording | str | None = None,
    offline: str | os.PathLike[str] | None = None,
    **params: Any,
) -> Recording:
    """Start recording a run: `with fb.run("late-arrivals", depth=6) as run: …`.

    Args:
        name: what the run is called; several may have one name.
        experiment: the experiment it belongs to, by name; made when it is new. Default: "Default".
        parent: the run that contains it, or its id.
        offline: a folder in which the run is written, without a home and without a network; `flyball import` takes it
            in later. Default: `FLYBALL_OFFLINE`, else the home.
        params: its parameters.

    Raises:
        Conflict: the experiment is deleted.
        InvalidInput: a parameter cannot be kept, or the folder is a file.
        Unauthenticated, Forbidden: a home on another machine does not let it in.
    """
    again = reproduced()
    folder = again.folder or offline or os.environ.get("FLYBALL_OFFLINE")
    within = parent.id if isinstance(parent, Recording) else parent
    if folder:
        from flyball.tracking.offline import OfflineRun

        sink = OfflineRun(Path(folder), name, experiment, params, within)
        return Recording(sink, home if again.is_on else None, _act, keeps_code=not again.is_on)
    remote = _remote()
    if remote is not None:
        return Recording(remote.start_run(name, experiment=experiment, params=params, parent=within), home, _act)
    at = home()
    options: dict[str, Any] = {"experiment": experiment_named(at, experiment)} if experiment is not None else {}
    if within is not None:
        options |= {"parent": within, "tags": {_PARENT_TAG: within}}
    return Recording(at.start_run(name, params=params, is_sampled=None, **options), home, _act)


def runs(
    filter: str = "", *, experiment: str | None = None, order_by: Sequence[str] = (), limit: int = 100
) -> Listing[Run]:
    """Return runs of experiments that match, newest first: `fb.runs("metrics.auc > 0.7", experiment="flights")`.

    Args:
        filter: `params.depth = '6' and metrics.auc > 0.7`, in the grammar of MLflow's searches.
        experiment: of which, by name; default: of all that are not deleted.
        order_by: `["metrics.auc DESC"]`; those that are equal by it: newest first.
        limit: at most so many.

    Raises:
        InvalidInput: the filter or the order cannot be read.
        NotFound: there is no such experiment.
    """
    at = home()
    found = at.search_experiments()[0] if experiment is None else [at.experiment_by_name(experiment)]
    kept, is_more = at.search_runs([one.id for one in found], filter, order_by, limit=limit)
    columns: dict[str, Callable[[Run], Any]] = {
        "run": lambda r: r.id[:8],
        "name": lambda r: r.name,
        "status": lambda r: r.status,
        "started": lambda r: r.started_at,
        "params": lambda r: ", ".join(f"{k}={v}" for k, v in r.params.items()),
        "metrics": lambda r: ", ".join(f"{k}={v:.4g}" for k, v in r.metrics.items() if not k.startswith("system/")),
    }
    return Listing(kept, columns, "no run matches", [f"only the first {limit} are shown"] if is_more else [])


# -- models


def register(name: str, model: Any, example: Any, note: str = "", **options: Any) -> Version:
    """Publish a fitted model as the next version of `model/<name>`, which is declared when it is new.

    Args:
        name: the model.
        model: the fitted model; what can be registered: `flyball.models.flavors`.
        example: some rows of inputs.
        note: a sentence that stays with the version.
        options: see `training.registering.register`; `run.register` gives them from what the run evaluated.

    Raises:
        InvalidInput: the model cannot be kept, or the example does not fit it.
        Forbidden: a policy does not allow it.
    """
    at, again = home(), reproduced()
    if again.is_on and again.version is not None:
        return at.version(again.version)
    if name not in [r.name for r in at.resources("model")]:
        at.declare("model", name)
    version = at.register(name, model, example=example, note=note, **options)
    _act()
    return version


def load(target: str) -> LoadedModel:
    """Load a version of a model to predict with here: `fb.load("late@champion")`, `fb.load("late@3")`.

    Its digest is verified, and whom it is signed by. Without `@` it is the champion; a version that this process has
    just registered is waited for until it was decided about.

    Raises:
        NotFound: there is no such model or version.
        Corrupt, MissingExtra, Forbidden: it cannot be loaded here, or is not trusted.
    """
    at = home()
    try:
        return at.load(target)
    except NotFound:
        if "@" in str(target) or _session.loop is None:
            raise
        _wait_for_decision(at, ref(str(target), "model").name)
        return at.load(target)


# -- serving


def deploy(
    name: str,
    model: str | Version | None = None,
    *,
    features: Iterable[Any] = (),
    service: FeatureService | str | None = None,
    key: str | None = None,
    rollout: Mapping[str, Any] | None = None,
    monitor: bool | Mapping[str, Any] = True,
    retrain: Callable[..., Any] | str | None = None,
    purpose: str | None = None,
) -> str:
    """Serve a model under a name, watch it, and let it retrain itself; return the version that serves.

    The first version serves at once. A version that is registered later passes the model's gates, goes out by canary
    and is promoted or rolled back by itself.

    Args:
        name: the deployment.
        model: a version or the name of a model; default: the model of the same name.
        features: feature views that are looked up inside a request, and request-time functions.
        service: a feature service whose pinned views are looked up too.
        key: input that keeps a caller on one variant.
        rollout: how a later version is let in; see `serving.kinds.Rollout`.
        monitor: watch drift and quality; fields of `monitoring.kinds.Monitor` to say how.
        retrain: a function from `Rows` to a fitted model, started when the monitor finds drift or decay. It is kept
            by its source, so it imports what it needs itself; or `file.py:name`.
        purpose: what the features are looked up for, the monitor looks and the retraining reads; must be said where
            the data set behind a feature or a policy asks for it.

    Raises:
        NotFound: no such model.
        Forbidden: the data behind a feature may not be read for this purpose; nothing was declared.
        Unavailable: nothing came to serve within a minute; says why.
    """
    at = _here("deploy")
    target = model.name if isinstance(model, Version) else ref(model or name, "model").name
    names = [view if isinstance(view, str) else at.declare_view(view).name for view in features]
    pinned = service.name if service is not None and not isinstance(service, str) else service
    used = at.resource(Ref("feature-service", pinned)).spec["views"] if pinned else []
    for view in (*names, *(one["view"] for one in used)):
        at.view_masks(ref(view, "feature-view").name, purpose)
    spec = {"features": names, "service": pinned, "key": key, "rollout": dict(rollout or {})}
    at.declare("deployment", name, model=f"{target}@champion", **spec)
    if monitor:
        fields = {"purpose": purpose, **(monitor if isinstance(monitor, Mapping) else {})}
        at.declare("monitor", name, of=f"deployment/{name}", **fields)
    if retrain is not None:
        function = retrain if isinstance(retrain, str) else _keep_source(at, name, retrain)
        recipe = "flyball.recipes.continuous_training:continuous_training"
        params = {"model": target, "deployment": name, "fit": function}
        params |= {"purpose": purpose} if purpose is not None else {}
        at.declare("pipeline", f"retrain-{name}", function=recipe, params=params, uses=[f"model/{target}"])
        alarms = [f"monitor/{name}.drifting", f"monitor/{name}.decayed"] if monitor else []
        if alarms:
            # A retraining needs labels; a trigger without this would start runs that can only fail.
            at.declare("trigger", f"retrain-{name}", on=alarms, start=f"retrain-{name}", after_labels=_LEAST_LABELS)
    _act()
    return _wait_for_service(at, name)


def predict(
    name: str, records: Any, key: str | None = None, *, explain: bool = False, approximate: bool = False
) -> Any:
    """Answer a record, or a list of records; each answer has an `id` by which its truth can be told later.

    Args:
        explain: each answer says too what each input did for it, see `models.explaining`.
        approximate: sample the explanation where the model has no exact one.
    """
    answers = home().predict(name, records, key, explain=explain, approximate=approximate)
    return answers[0] if isinstance(records, Mapping) else answers


def score(
    target: str,
    rows: Any,
    output: str | None = None,
    *,
    keep: Sequence[str] = (),
    errors: Literal["refuse", "null"] = "refuse",
    at: str | datetime | None = None,
    threads: int = 1,
    log: bool = False,
    purpose: str | None = None,
) -> Any:
    """Answer all rows of a table, one each, in order: `fb.score("late", "flights@3", "flights-scored", keep=["id"])`.

    Args:
        target: a deployment, whose champion answers; or a model, `late`, `late@2`, whose rows give all inputs.
        rows: a data set or its name, a path or glob, or a frame.
        output: the data set that the answers become the next version of, in bounded memory, whatever is killed in
            between; the same again is the same version. Without it they are returned as a frame.
        keep: columns of the rows to stand beside the answers.
        errors: `refuse` all for the first row that cannot be answered, or answer it with nulls and a `reason`.
        at: features as of then: an instant, or the name of a column that says when each row was; default: now.
        threads: how many call the model at once.
        log: tell the prediction log of each row too; only with `output`.
        purpose: what the rows are read for, where the data set or a policy asks for it.

    Returns:
        The version; without `output` a Polars frame.

    Raises:
        NotFound: no such model, data set, version or file.
        InvalidInput: a row or a column is wrong, or there is no row.
        Forbidden, StepFailed, Unavailable, Conflict: see `platform.scoring`.
    """
    at_home = _here("score")
    given = rows.name if isinstance(rows, Dataset) else rows
    if output is None:
        if log:
            raise InvalidInput("log=True goes with an output, so that what was logged can be told from what was not")
        return at_home.score(target, given, keep=keep, errors=errors, at=at, threads=threads, purpose=purpose)
    options: dict[str, Any] = {"keep": keep, "errors": errors, "at": at, "threads": threads, "purpose": purpose}
    return at_home.score_into(target, given, output, log=log, **options)


def sql(query: str, *, errors: Literal["refuse", "null"] = "refuse", purpose: str | None = None) -> pl.DataFrame:
    """Return the rows of a SELECT over data sets, in which models answer.

    `fb.sql("SELECT *, predict('late', distance, hour).probability AS p FROM flights")`; `anomaly('late', …)` says how
    strange a row is to a model. A query reads data sets, as whoever asks may see them, and nothing else.

    Args:
        query: tables are data sets, `flights` or `"flights@3"`.
        errors: what becomes of rows that a model cannot answer: `refuse` the query, or `null`.
        purpose: what the rows are read for, where a data set or a policy asks for it.

    Raises:
        InvalidInput: wrong SQL, no data set of that name, or arguments that a model cannot take.
        NotFound: no such model or version.
        Forbidden: a data set may not be read.
        MissingExtra: DuckDB is not installed.
    """
    return _here("sql").sql(query, errors=errors, purpose=purpose)


def label(name: str, prediction: str | Mapping[str, Any], value: Any = None) -> int:
    """Tell the truth of one prediction of a deployment, or of many: `fb.label("late", {id: 1, other: 0})`."""
    home().resource(Ref("deployment", name))
    return home().label(prediction if isinstance(prediction, Mapping) else {prediction: value})


def experiment(name: str) -> dict[str, Any]:
    """Return how a deployment's rollout or experiment stands, or how the last one ended: see `flyball experiment`."""
    return home().experiment_status(name)


# -- features


def feature_service(
    name: str, views: Sequence[FeatureView], *, owner: str | None = None, description: str = ""
) -> FeatureService:
    """Declare which views a model uses, each pinned to its version and to what its code computes now.

    Raises:
        InvalidInput: no view, or one twice; one is retired, or its features cannot be told.
    """
    service = _here("feature_service").feature_service(name, views, owner=owner, description=description)
    _act()
    return service


def materialise(view: FeatureView | str, *, every: str | None = None) -> Upkeep:
    """Store a view from its data set, fold in what was pushed, write it for look-ups, and measure how both agree.

    What is new since the last time is all that is done; after a crash it goes on where it was.

    Args:
        view: a view, or the name of a declared one whose code is in a file of the project.
        every: from now on by itself, so often and with each new version of its data set: `10m`. Needs such a file.

    Raises:
        NotFound: its data set has no version.
        Conflict: what is stored is of another definition with this version; raise `version=`.
        StepFailed, InvalidInput: it cannot be computed.
    """
    at = _here("materialise")
    if not isinstance(view, str):
        at.declare_view(view)
    if every is not None:
        name = view if isinstance(view, str) else view.name
        spec = at.resource(Ref("feature-view", name)).spec
        at.declare("feature-view", name, **{**spec, "materialise": {**(spec.get("materialise") or {}), "every": every}})
        _act()
    return at.materialise(view)


def agreement(view: FeatureView | str, *, sample: int = 1_000) -> Agreement:
    """Compare what look-ups find for a sample of entities with what is stored, feature by feature.

    Raises:
        NotFound: nothing of it is stored yet.
    """
    return _here("agreement").agreement(view, sample=sample)


def training_set(
    rows: pl.LazyFrame | pl.DataFrame,
    features: Sequence[FeatureView | OnRequest | str],
    at: str = "asked_at",
    sources: Mapping[str, pl.LazyFrame] | None = None,
    *,
    ages: bool = False,
    purpose: str | None = None,
) -> pl.LazyFrame:
    """Return the rows, in their order, with every feature as it was known at the row's own time.

    A view whose source is given is computed from it; else its stored rows are joined, and what was pushed with them;
    else it is computed from the newest version of its data set.

    Args:
        rows: one a prediction; labels and other columns stay as they are.
        features: views, request-time functions, names of declared views.
        at: the column with the instant at which each row would have been asked; a time with a zone.
        sources: data set by name, as the views name theirs.
        ages: add `<view>_age_s` for each view: seconds, Float64.
        purpose: what it is read for, where a policy asks for it.

    Raises:
        InvalidInput: a view is retired, a source is missing, a name would be there twice, or a time has no zone.
        Conflict: what is stored of a view is of another definition than the one given.
        StepFailed: a view or function failed.
    """
    return _here("training_set").training_set(rows, features, at, sources, ages=ages, purpose=purpose)


def push(view: FeatureView | ViewSpec | str, rows: Any) -> int:
    """Write feature values: durable, and visible to look-ups on return; trained on once they are folded in.

    Args:
        rows: one mapping or many: the entity, the event time with a zone, every feature.

    Returns:
        How many entities have a newer value; a row older than what is there changes nothing online.

    Raises:
        InvalidInput: a row is wrong, named with its number; nothing was written.
    """
    return _here("push").push(view, rows)


def look_up(
    views: Iterable[FeatureView | ViewSpec | str], purpose: str | None = None, /, **keys: Any
) -> dict[str, Any]:
    """Return the features that serving would see now for the given keys; `purpose`, by place, where one is asked for.

    Raises:
        Forbidden: the data behind a feature may not be read for this purpose.
    """
    found = _here("look_up").look_up(views, {name: [value] for name, value in keys.items()}, purpose=purpose)
    return {name: values[0] for name, values in found.items()}


# -- watching


def watch(name: str) -> dict[str, Any]:
    """Return how a deployment does: who serves, how much was asked, what its monitor found, what was alarmed."""
    at = _here("watch")
    found = at.resource(Ref("deployment", name))
    monitor = next((m for m in at.resources("monitor") if m.spec["of"] in (name, f"deployment/{name}")), None)
    quality = at.monitor_results.of(monitor.name, "quality") if monitor else []
    at.traffic.refresh()
    return {
        "serves": {v["name"]: v["version"] for v in found.status.get("serving", {}).get("variants", [])},
        "rollout": found.status.get("rollout"),
        "requests": at.traffic.count(name),
        "conditions": dict(monitor.status.get("conditions", {})) if monitor else {},
        "quality": quality[-1]["interval"] if quality else None,
        "alerts": [r.name for r in at.resources("alert") if r.status.get("state") == "firing"],
    }


def why(target: str) -> str:
    """Return, as text, why a thing is as it is: `print(fb.why("deployment/late"))`."""
    from flyball.delivery.explain import told

    remote = _remote()
    if remote is not None:
        return remote.why_told(target)
    at = home()
    if target.startswith("prediction/"):
        links = at.provenance(target.removeprefix("prediction/"))
        return "\n".join(
            f"{link.what}: {link.ref} ({link.said})" if link.said else f"{link.what}: {link.ref}" for link in links
        )
    with at.ledger.read() as world:
        return told(at.why(target), world)


def submit(pipeline: Pipeline[..., Any], /, **params: Any) -> Run:
    """Put a run of a pipeline in the queue: its steps run in worker processes, cached and resumable.

    The pipeline is declared when it is new. Calling it plainly, `late(depth=8)`, runs it here and now instead.

    Returns:
        The run as queued; `fb.home().run(run.id)` tells how it goes.

    Raises:
        InvalidInput: the pipeline stands in the script or notebook itself, where no other process finds it.
    """
    at = _here("submit")
    if pipeline.module == "__main__":
        raise InvalidInput(
            f"pipeline {pipeline.name} stands in the script itself, which a worker would run again from the top; "
            "move it to a file of its own and import it"
        )
    function = pipeline.reference(at.project)
    known = {r.name: r.spec.get("function") for r in at.resources("pipeline")}
    if known.get(pipeline.name) != function:
        at.declare("pipeline", pipeline.name, function=function)
    run = at.start_pipeline(pipeline.name, params)
    _act()
    return run


def settle(timeout_s: float = _WAIT_S) -> None:
    """Wait until nothing is left to do: no run, no rollout step, no deployment that does not serve yet.

    Raises:
        Unavailable: it did not come to rest in time.
    """
    at = _here("settle")
    _act()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        busy = at.runs(status=("pending", "running"), limit=1)
        loop = _session.loop
        if not busy and (loop is None or not loop.is_acting or loop.queue.is_idle()):
            return
        time.sleep(0.05)
    raise Unavailable(f"there was still something to do after {timeout_s:g} s; see flyball get runs")


def _declared(kind: str, name: str, spec: Mapping[str, Any]) -> None:
    """Declare a resource that is new or of which fields are given; those that are not stay as they were."""
    if reproduced().is_on:
        return
    at = home()
    before = next((r.spec for r in at.resources(kind) if r.name == name), None)
    if before is None or spec:
        at.declare(kind, name, **{k: v for k, v in {**(before or {}), **spec}.items() if v is not None})


def _act() -> None:
    """Let the background loop work, when this process has one to run; a pipeline's worker has none."""
    from flyball.pipelines.execution import workbench

    if workbench.get() is not None or reproduced().is_on or _remote() is not None:
        return
    if _session.loop is None:
        _session.loop = home().loop()
        _session.loop.start()
    _session.loop.nudge()


def _wait_for_decision(at: Platform, model: str) -> None:
    """Wait until the loop of this process has decided about a model's newest version, if it is to."""
    began = time.monotonic()
    while _session.loop is not None and time.monotonic() < began + _WAIT_S:
        if not _session.loop.is_acting and time.monotonic() > began + _LEASE_S:
            return  # another process acts on this home
        newest = next(iter(at.versions("model", model, limit=1)), None)
        status = at.resource(Ref("model", model)).status
        if newest is None or str(newest.number) in status.get("decided", {}) or status.get("blocked"):
            return
        time.sleep(0.02)


def _wait_for_service(at: Platform, name: str) -> str:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        status = at.resource(Ref("deployment", name)).status
        if status.get("serving"):
            try:
                if name in at.engine.refresh().served:
                    return str(status["serving"]["variants"][0]["version"])
            except NotFound:
                pass
        if status.get("blocked"):
            model = ref(at.resource(Ref("deployment", name)).spec["model"], "model").name
            decided = at.resource(Ref("model", model)).status.get("decided", {})
            if decided:
                newest = decided[max(decided, key=int)]
                failed = [g["reason"] for g in newest["gates"] if not g["passed"]]
                if failed:
                    raise Unavailable(f"deployment/{name} serves nothing: {status['blocked']} ({failed[0]})")
        time.sleep(0.05)
    raise Unavailable(f"deployment/{name} did not come to serve within {_WAIT_S:g} s: {status.get('blocked', '')}")


def _keep_source(at: Platform, name: str, function: Callable[..., Any]) -> str:
    """Keep a function's source in the home, and return how a pipeline names it."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise InvalidInput(
            "the source of the retrain function cannot be read; define it in a file and give its name as file.py:name"
        ) from error
    if not source.lstrip().startswith("def "):
        raise InvalidInput("retrain must be a plain function (def …), so that its source can be kept")
    folder = at.home / "code"
    folder.mkdir(exist_ok=True)
    path = folder / f"retrain_{name.replace('-', '_').replace('.', '_')}.py"
    path.write_text(f'"""How deployment/{name} is retrained."""\n\n{source}', encoding="utf-8")
    return f"{path}:{function.__name__}"
