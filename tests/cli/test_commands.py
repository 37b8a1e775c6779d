"""The commands over a real home, in this process: what they print, how they fail, with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from flyball.cli import app, main
from flyball.delivery.scaffold import FILES
from flyball.ledger.refs import ref
from flyball.platform import Platform
from tests.cli.running import ROOT, declare_late


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in an empty folder, whose home is the default one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", "")  # set, so that it is put back; empty counts as not set

    def run(*arguments: str) -> Done:
        code = main(arguments)
        out, error = capsys.readouterr()
        return Done(code, out, error)

    return run


@pytest.fixture
def late(flyball: Run, tmp_path: Path) -> Run:
    """The same with a model, its promotion and its deployment done."""
    home = tmp_path / ".flyball"
    declare_late(home)
    with closing(Platform.open(home)) as platform:
        with platform.start_run("fit", params={"depth": 6}) as run:
            run.log(auc=0.71)
            run.artifact("log.txt", b"hello from the step\n")
        loop = platform.loop()
        loop.settle()
        loop.stop()
    return flyball


def test_a_new_project_can_be_planned_applied_and_listed(flyball: Run, tmp_path: Path) -> None:
    assert flyball("init").code == 0
    assert all((tmp_path / name).exists() for name in FILES)
    planned = flyball("plan")
    assert planned.out.startswith("+ dataset/orders\n")
    assert planned.out.endswith("1 to create, 0 to change, 0 as they are\n")
    applied = flyball("apply")
    assert applied.code == 0
    assert applied.error == "nobody acts on this home at the moment: flyball up does\n"
    assert flyball("apply").out == "  dataset/orders (as it is)\n0 to create, 0 to change, 1 as they are\n"
    (found,) = flyball("get", "datasets", "--json").json["items"]
    assert (found["ref"], found["state"]) == ("dataset/orders", "declared")
    assert flyball("why", "dataset/orders").out.startswith("dataset/orders was declared by ")
    assert flyball("delete", "dataset/orders").out == "deleted dataset/orders\n"
    assert flyball("get", "datasets").error == "there is no dataset yet; flyball apply declares some\n"


def test_init_overwrites_nothing(flyball: Run, tmp_path: Path) -> None:
    (tmp_path / "pipelines.py").write_text("mine")
    done = flyball("init")
    assert (done.code, done.error.count("\n")) == (1, 1)
    assert "already has pipelines.py" in done.error
    assert not (tmp_path / "flyball.yaml").exists()


def test_a_home_elsewhere_remembers_the_project(flyball: Run, tmp_path: Path) -> None:
    assert flyball("init", "project", "--home", "elsewhere/home").code == 0
    with closing(Platform.open(tmp_path / "elsewhere" / "home")) as platform:
        assert platform.project == tmp_path / "project"


def test_what_the_new_project_shows_in_comments_can_be_applied_too(flyball: Run, tmp_path: Path) -> None:
    flyball("init")
    lines = FILES["flyball.yaml"].splitlines()
    first = lines.index("# ---")
    shown = [*lines[:first], *(line.removeprefix("# ") for line in lines[first:])]
    (tmp_path / "flyball.yaml").write_text("\n".join(shown))
    found = flyball("apply", "--json").json["items"]
    assert {item["ref"].partition("/")[0] for item in found} == {
        *("dataset", "model", "pipeline", "deployment", "monitor", "trigger")
    }


def test_rows_are_published_under_the_contract(flyball: Run, tmp_path: Path) -> None:
    flyball("init")
    flyball("apply")
    head = "customer,ordered_at,settled_at,amount,items,returned\n"
    (tmp_path / "good.csv").write_text(head + "ann,2026-01-02T10:00:00,2026-01-20T10:00:00,12.5,1,0\n")
    (tmp_path / "bad.csv").write_text(head + "ann,2026-01-02T10:00:00,2026-01-20T10:00:00,-1,1,0\n")
    good = flyball("publish", "orders", "good.csv")
    assert (good.code, good.out.splitlines()[0]) == (0, "dataset/orders@1 has 1 rows")
    bad = flyball("publish", "orders", "bad.csv")
    assert bad.code == 1
    assert "kept whole as quarantine/orders@1" in bad.error
    (version,) = flyball("get", "versions", "dataset/orders", "--json").json["items"]
    assert version["metadata"]["rows"] == 1
    assert len(flyball("get", "versions", "quarantine/orders", "--json").json["items"]) == 1
    assert flyball("get", "events", "quarantine/orders").out.count("was quarantined as") == 1


LISTINGS = [
    ["get"],
    ["get", "all"],
    ["get", "datasets"],
    ["get", "models"],
    ["get", "model", "late"],
    ["get", "deployments"],
    ["get", "monitors"],
    ["get", "triggers"],
    ["get", "pipelines"],
    ["get", "alerts"],
    ["get", "feature-views"],
    ["get", "runs"],
    ["get", "runs", "fit", "--status", "succeeded"],
    ["get", "events"],
    ["get", "versions", "model"],
    ["get", "versions", "model/late"],
    ["events"],
    ["events", "deployment/late", "--action", "serves"],
    ["why", "deployment/late"],
]


@pytest.mark.parametrize("arguments", LISTINGS, ids=" ".join)
def test_every_listing_prints_one_json_document_and_a_table(late: Run, arguments: list[str]) -> None:
    done = late(*arguments, "--json")
    assert (done.code, done.error) == (0, "")
    assert set(done.json) >= {"items", "next"}
    assert late(*arguments).code == 0


def test_listings_go_on_where_the_page_before_ended(late: Run) -> None:
    for arguments, key in (
        (["events"], "seq"),
        (["get", "all"], "ref"),
        (["get", "runs"], "id"),
        (["get", "versions", "model/late"], "number"),
    ):
        whole = [item[key] for item in late(*arguments, "--json").json["items"]]
        paged: list[Any] = []
        before: list[str] = []
        while True:
            page = late(*arguments, "--json", "--limit", "1", *before).json
            paged += [item[key] for item in page["items"]]
            if page["next"] is None:
                break
            before = ["--before", str(page["next"])]
        assert paged == whole


def test_describe_tells_all_of_a_resource_a_version_and_a_run(late: Run) -> None:
    deployment = late("describe", "deployment/late").out
    assert deployment.startswith("deployment/late: serving\n")
    assert "late@1 serves deployment/late" in deployment
    version = late("describe", "model/late@champion", "--json").json
    assert version["aliases"] == ["champion"]
    assert {e["role"] for e in version["lineage"]["edges"]} == {"serves"}
    run = late("describe", f"run/{late('get', 'runs', '--json').json['items'][0]['id'][:6]}").out
    assert "auc: 0.71" in run
    assert "log.txt" in run


def test_a_table_shows_what_the_ledger_holds(late: Run) -> None:
    head, row = late("get", "deployments").out.splitlines()
    assert head.split() == ["NAME", "STATE", "SERVES", "WHY", "AGE"]
    assert row.split()[:5] == ["late", "●", "serving", "late@1", "100"]


def test_logs_of_a_run_are_what_its_steps_printed(late: Run) -> None:
    run = late("get", "runs", "--json").json["items"][0]["id"]
    assert late("logs", run[:8]).out.endswith("hello from the step\n")
    assert late("logs", "control").error.startswith("error: there is no log of control at ")


def test_predictions_and_labels_without_a_server(late: Run, tmp_path: Path) -> None:
    one = late("predict", "late", '{"distance": 1, "hour": 2}', "--json").json["items"]
    (tmp_path / "rows.ndjson").write_text('{"distance": 1, "hour": 2}\n{"distance": -1, "hour": -2}\n')
    two = late("predict", "deployment/late", "rows.ndjson", "--json").json["items"]
    assert [p["outputs"]["prediction"] for p in two] == [1, 0]
    assert two[0]["outputs"]["probability"] == one[0]["outputs"]["probability"]
    assert late("label", "late", one[0]["id"], "1").out == "1 labels written\n"
    (tmp_path / "labels.json").write_text(json.dumps([{"id": p["id"], "label": True} for p in two]))
    assert late("label", "late", "labels.json", "--json").json == {"labelled": 2}
    misspelt = late("predict", "late", '{"distanse": 1, "hour": 2}')
    assert misspelt.code == 1
    assert 'did you mean "distance"?' in misspelt.error


def test_the_journal_is_verified_and_a_forged_event_is_found(late: Run, tmp_path: Path) -> None:
    import sqlite3

    assert late("verify").out.startswith("the journal is whole: ")
    with closing(sqlite3.connect(tmp_path / ".flyball" / "ledger.db")) as database:
        database.execute("UPDATE events SET actor = 'user/mallory' WHERE seq = 2")
        database.commit()
    done = late("verify")
    assert (done.code, done.error.startswith("error: event 2 of the journal")) == (1, True)


def test_rollback_and_approve_say_when_there_is_nothing_to_do(late: Run) -> None:
    assert late("rollback", "late").error == (
        "error: deployment/late has no rollout to end and no earlier champion to go back to\n"
    )
    assert late("approve", "late@1").error == (
        "error: late@1 waits for nobody's agreement; flyball approvals lists what does\n"
    )


WRONG_USE = [
    (["gett"], "error: no such command 'gett'; did you mean \"get\"?"),
    (["get", "--jsn"], 'error: no such option: --jsn; did you mean "--json"?'),
    (["predict"], "error: missing argument 'deployment'; see flyball predict --help"),
    (["get", "--limit", "0"], "error: invalid value for '--limit': Input should be greater than or equal to 1"),
    (["get", "modles"], 'error: unknown kind "modles"; did you mean "models"? (known: alerts, data-products, '),
    (["describe", "late"], 'error: "late" is not a reference; write it like deployment/late'),
    (["describe", "modl/late"], 'error: unknown kind "modl"; did you mean "Model"?'),
    (["delete", "model/no good"], "error: 'no good' cannot be a name"),
    (["run", "model/late"], 'error: "model/late" is not a pipeline; write it like pipeline/late'),
    (["predict", "late", "no-such-file"], "error: 'no-such-file' is neither JSON nor a file"),
    (["events", "--before", "x"], "error: --before is 'x'; expected the number of the last item"),
    (["get", "versions"], "error: versions of what?"),
    (["demo", "--data", "x.csv"], "error: --data x.csv needs --target COL"),
    (["demo", "--target", "y"], "error: --target says what a column of your own table is"),
]

FAILED = [
    (["get", "model", "lte"], 'error: there is no model "lte"; did you mean "late"? (there are: late)'),
    (["describe", "run/ffffffff"], 'error: there is no run "ffffffff"'),
    (["why", "dataset/none"], "error: the journal knows nothing of dataset/none"),
    (["delete", "model/late"], "error: model/late cannot be deleted: deployment/late refers to it"),
    (["apply", "none.yaml"], "error: there is no file none.yaml"),
    (["apply"], "error: there is no flyball.yaml here; name a file or folder, or write one with: flyball init"),
    (["predict", "late", '{"distance": '], "error: the record is not JSON: "),
    (["predict", "late", "[]"], "error: the record has no records; expected at least one"),
    (["predict", "none", "{}"], 'error: no deployment is called "none"'),
    (["label", "none", "x", "1"], 'error: there is no deployment "none"'),
    (["get", "runs", "--status", "done"], 'error: "done" is no status of a run'),
    (["--home", "nowhere", "get"], "error: there is no Flyball home in "),
]


@pytest.mark.parametrize(
    ("arguments", "begins", "code"),
    [(a, b, 2) for a, b in WRONG_USE] + [(a, b, 1) for a, b in FAILED],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence_on_stderr(late: Run, arguments: list[str], begins: str, code: int) -> None:
    done = late(*arguments)
    assert (done.code, done.out) == (code, "")
    assert done.error.startswith(begins)
    assert done.error.count("\n") == 1


def test_bad_declarations_change_nothing_and_say_what_was_meant(flyball: Run, tmp_path: Path) -> None:
    flyball("init")
    good = {"kind": "Model", "name": "late"}
    for bad, begins in (
        ({"kind": "Deployment", "name": "late", "model": "late", "rolout": {}}, 'did you mean "rollout"?'),
        ({"kind": "Deployment", "name": "late", "model": "lat"}, 'neither declared nor there; did you mean "late"?'),
        ({"kind": "Deploymnt", "name": "late"}, 'unknown kind "Deploymnt"; did you mean "Deployment"?'),
    ):
        (tmp_path / "system.yaml").write_text(yaml.safe_dump_all([good, bad]))
        done = flyball("apply", "system.yaml")
        assert (done.code, done.error.count("\n")) == (1, 1)
        assert begins in done.error
    (tmp_path / "system.yaml").write_bytes(b"kind: M\xf6del\n")
    assert flyball("apply", "system.yaml").error == "error: system.yaml is not UTF-8 text (byte 7)\n"
    assert flyball("get", "--json").json["items"] == []


def test_an_unforeseen_error_shows_no_traceback_unless_asked(late: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Platform, "resources", fail)
    done = late("get")
    assert (done.code, done.error) == (
        1,
        "error: an internal error (ZeroDivisionError: division by zero); FLYBALL_DEBUG=1 shows where\n",
    )
    monkeypatch.setenv("FLYBALL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        late("get")


def test_ctrl_c_ends_with_130_and_one_line(late: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flyball.cli.journal.time.sleep", interrupt)
    done = late("events", "--follow")
    assert (done.code, done.error.strip()) == (130, "stopped by Ctrl-C")


@pytest.mark.usefixtures("late")
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "flyball.cli", "get", "--home", str(tmp_path / ".flyball")]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_needs_nothing_heavy() -> None:
    heavy = ["polars", "numpy", "sqlalchemy", "fastapi", "pydantic", "rich", "yaml", "flyball.platform"]
    code = (
        f"import sys; from flyball.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_says_what_it_is_for_and_can_name_a_home() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert (command.callback.__doc__ or "").strip().endswith(".")
        if command.name != "version":
            assert "home" in command.callback.__annotations__


def test_references_read_the_same_everywhere() -> None:
    from flyball.cli.app import reference

    assert ref(reference("deployments", "late")) == ref(reference("Deployment/late")) == ref("deployment/late")
