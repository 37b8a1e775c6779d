"""Feature views on the command line: what there is and how it stands, declared, kept up to date, pushed to, retired."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened
from flyball.cli.show import ago, emit, heading, note, say, state, table, working
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from flyball.ledger.resources import Resource
    from flyball.platform import Platform

__all__ = ["features"]

features = typer.Typer(
    help="Feature views: list, show, declare, materialise, agreement, push, training-set, deprecate, retire.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(features, name="features")

Name = Annotated[str, typer.Argument(help="A declared view: previous_leg, or feature-view/previous_leg.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who use it.")]
Use = Annotated[str | None, typer.Option("--use", metavar="VIEW", help="The view to use instead.")]

_PUSHED_AT_ONCE = 5_000


@features.command("list")
def list_views(home: Home = None, json: Json = False) -> None:
    """List the feature views: how fresh each is, whether online and offline agree, who uses it."""
    with opened(home) as platform:
        found = [_facts(platform, view) for view in platform.resources("feature-view")]
    if json:
        emit({"items": found, "next": None})
        return
    rows = [
        [f["name"], state(f["state"]), ", ".join(f["entity"]), f["dataset"], _age(f["age_s"]), _share(f["agree"]),
         len(f["used_by"]) or None, f["owner"]]
        for f in found
    ]  # fmt: skip
    columns = ["view", "state", "entity", "from", "median age", "agree", "used by", "owner"]
    table(columns, rows, "there is no feature view yet; flyball features declare FILE.py declares those of a file")


@features.command("show")
def show_view(name: Name, home: Home = None, json: Json = False) -> None:
    """Show a view: its features with null rates and origin, versions, freshness, agreement, who uses it."""
    with opened(home) as platform:
        view = platform.resource(f"feature-view/{_name(name)}")
        facts = _facts(platform, view)
        features = _features(view)
        versions = platform.versions("feature", view.name, 10)
        kept = [{"version": v.number, "rows": v.metadata["rows"], "source": v.metadata["source"], "at": v.created_at}
                for v in versions]  # fmt: skip
    if json:
        emit({**facts, "definition": dict(view.spec["definition"]), "features": features, "versions": kept})
        return
    say(f"feature-view/{view.name} is {facts['state']}" + (f": {facts['why']}" if facts["why"] else ""))
    for what in ("description", "owner", "dataset", "function", "measured_at", "conditions"):
        if facts[what]:
            told = ", ".join(facts[what]) if what == "conditions" else facts[what]
            say(f"  {what.replace('_', ' ')}: {told}")
    heading("features")
    rows = [[f["name"], f["type"], _share(f["nulls"]), _share(f["agree"]), ", ".join(f["made_of"])] for f in features]
    table(["feature", "type", "null", "agree", "made of"], rows)
    heading("versions")
    stored = [[f"{view.name}@{v['version']}", f"{v['rows']:,}", v["source"], ago(v["at"])] for v in kept]
    table(
        ["stored", "rows", "from", "when"], stored, f"nothing is stored yet; flyball features materialise {view.name}"
    )
    heading("used by")
    users = [[u["user"], u["through"], u["model"]] for u in facts["used_by"]]
    table(["what", "through", "model"], users, "nothing uses it")


@features.command("declare")
def declare_views(
    file: Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="A Python file with decorated views.")],
    every: Annotated[
        str | None, typer.Option("--every", metavar="SPAN", help="Keep them up to date by itself: 10m.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Declare the feature views of a Python file of the project."""
    path, _, only = file.partition(":")
    if not path.endswith(".py"):
        raise WrongUse(f'"{file}" is no Python file; write it like features.py or features.py:previous_leg')
    more: dict[str, Any] = {} if every is None else {"materialise": {"every": every}}
    with opened(home) as platform:
        declared = [platform.declare_view(view, **more) for view in platform.views_in(path, only or None)]
        found = [{"ref": str(view.ref), **dict(view.spec)} for view in declared]
    if json:
        emit({"items": found, "next": None})
    else:
        for view in found:
            say(f"{view['ref']} is declared as version {view['definition'].get('version', 1)}")


@features.command()
def materialise(name: Name, home: Home = None, json: Json = False) -> None:
    """Bring a view up to date: stored from its dataset, pushes folded in, written for look-ups, measured."""
    with opened(home) as platform, working(f"materialising {name}"):
        done = platform.materialise(_name(name)).to_dict()
    if json:
        emit(done)
        return
    say(
        f"{done['view']}: {done['rows']:,} rows stored as feature/{_name(name)}@{done['version']} from {done['source']}"
    )
    say(f"  computed: {done['computed_rows']:,} ({done['how']}); pushed: {done['pushed_rows']:,}; "
        f"written for look-ups: {done['written']:,}")  # fmt: skip
    if done["refused_pushes"]:
        note(f"{done['refused_pushes']:,} pushed rows fit no key of the view and were left out")
    if done["measured"]:
        say(f"  agreement: {_interval(done['measured']['agree'])} of {done['measured']['entities']:,} entities")
    for condition, found in done["conditions"].items():
        note(f"{condition}: {found['summary']}")


@features.command()
def agreement(
    name: Name,
    sample: Annotated[int, typer.Option("--sample", min=1, max=1_000_000, help="Entities to compare.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", help="Which entities: others for another number.")] = 0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Compare what look-ups find with what is stored, feature by feature, with examples that differ."""
    with opened(home) as platform, working(f"comparing {name}"):
        found = platform.agreement(_name(name), sample=sample, seed=seed).to_dict()
    if json:
        emit(found)
        return
    say(f"{found['view']}: {_interval(found['agree'])} of {found['entities']:,} entities agree; "
        f"median age {_age(found['ages_s'].get('p50'))}")  # fmt: skip
    rows = [
        [
            feature,
            _interval(f["agree"]),
            _share(f["online_nulls"]),
            _share(f["offline_nulls"]),
            _differing(f["examples"]),
        ]
        for feature, f in found["features"].items()
    ]
    table(["feature", "agree", "null online", "null stored", "differing"], rows)


@features.command()
def push(
    name: Name,
    source: Annotated[str, typer.Argument(metavar="FILE", help="Rows: CSV, Parquet, JSON, NDJSON or Arrow.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Write new values from a file: visible to look-ups at once, trained on after the next materialisation."""
    from flyball.data.sources import open_source

    written = rows = 0
    with opened(home) as platform, working(f"pushing {source}"):
        frame = open_source(source).collect()
        for part in frame.iter_slices(_PUSHED_AT_ONCE):
            try:
                written += platform.push(_name(name), part.to_dicts())
            except InvalidInput as error:
                raise InvalidInput(f"{error}; counted from row {rows:,} of {source}, before which all are in") from None
            rows += part.height
    if json:
        emit({"view": _name(name), "rows": rows, "written": written})
    else:
        say(f"{rows:,} rows pushed to feature-view/{_name(name)}; {written:,} values were newer")


@features.command("training-set")
def training_set(
    source: Annotated[str, typer.Argument(metavar="ROWS", help="A file with keys and the time each row was asked.")],
    views: Annotated[list[str], typer.Argument(metavar="VIEW…", help="Declared views whose code is in the project.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A .parquet or .csv file.")],
    at: Annotated[str, typer.Option("--at", metavar="COLUMN", help="The column of times, with a zone.")] = "asked_at",
    ages: Annotated[bool, typer.Option("--ages", help="Add the age of each view's values.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Join features to rows, each as it was known at the row's own time."""
    from flyball.data.sources import open_source

    if output.suffix not in (".parquet", ".csv"):
        raise WrongUse(f"{output} is neither .parquet nor .csv")
    with opened(home) as platform, working(f"joining {len(views)} views"):
        found = platform.training_set(open_source(source), [_name(v) for v in views], at, ages=ages).collect()
    found.write_parquet(output) if output.suffix == ".parquet" else found.write_csv(output)
    if json:
        emit({"file": str(output), "rows": found.height, "columns": found.columns})
    else:
        say(f"wrote {output}: {found.height:,} rows, {found.width} columns")


@features.command()
def deprecate(name: Name, reason: Reason, use: Use = None, home: Home = None, json: Json = False) -> None:
    """Say that a view will go: whoever trains with it is warned."""
    with opened(home) as platform:
        view = platform.deprecate_view(_name(name), reason, use)
        _end(platform, view, json)


@features.command()
def retire(
    name: Name,
    reason: Reason,
    use: Use = None,
    force: Annotated[bool, typer.Option("--force", help="Although deployments look it up.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take a view out of use: not kept up to date any more, refused in new training sets."""
    with opened(home) as platform:
        view = platform.retire_view(_name(name), reason, use, force=force)
        _end(platform, view, json)


def _end(platform: Platform, view: Resource, json: bool) -> None:
    users = [str(use.user) for use in platform.feature_users(view.name)]
    if json:
        emit({"ref": str(view.ref), "status": view.spec["status"], "retired": view.spec["retired"], "used_by": users})
        return
    say(f"{view.ref} is {view.spec['status']}")
    if users:
        note(f"it is used by {', '.join(dict.fromkeys(users))}")


def _name(text: str) -> str:
    from flyball.ledger.refs import ref

    return ref(text, "feature-view").name


def _facts(platform: Platform, view: Resource) -> dict[str, Any]:
    from flyball.delivery.states import reason_of, state_of

    measured: Mapping[str, Any] = view.status.get("measured") or {}
    spec, definition = view.spec, view.spec["definition"]
    users = platform.feature_users(view.name)
    return {
        "name": view.name,
        "state": state_of(view),
        "why": reason_of(view) or (spec.get("retired") or {}).get("reason"),
        "entity": list(definition.get("entity", ())),
        "dataset": spec.get("dataset"),
        "function": spec.get("function"),
        "owner": spec.get("owner"),
        "tags": list(spec.get("tags", ())),
        "description": spec.get("description"),
        "measured_at": measured.get("at"),
        "age_s": measured.get("ages_s", {}).get("p50"),
        "agree": measured.get("agree", {}).get("value"),
        "conditions": {name: c["summary"] for name, c in view.status.get("conditions", {}).items()},
        "used_by": [
            {"user": str(u.user), "through": _text(u.through), "model": _text(u.model)} for u in users
        ],
    }  # fmt: skip


def _features(view: Resource) -> list[dict[str, Any]]:
    definition = view.spec["definition"]
    measured = (view.status.get("measured") or {}).get("features", {})
    made_of = view.status.get("columns", {})
    types = definition.get("features") or dict.fromkeys(definition.get("outputs", ()), "in the request")
    return [
        {
            "name": name,
            "type": dtype,
            "nulls": measured.get(name, {}).get("online_nulls"),
            "agree": measured.get(name, {}).get("agree", {}).get("value"),
            "made_of": [f"{source}.{column}" for source, column, how in made_of.get(name, ()) if how == "direct"],
        }
        for name, dtype in types.items()
    ]


def _text(target: Any) -> str | None:
    return None if target is None else str(target)


def _differing(examples: Any) -> str | None:
    return "; ".join(f"{e['entity']}: {e['online']} ≠ {e['offline']}" for e in examples) or None


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _age(seconds: float | None) -> str:
    from flyball.web.formats import duration_text

    return duration_text(seconds)
