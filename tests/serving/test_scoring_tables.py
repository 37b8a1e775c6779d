"""Whole tables scored: as the model itself, one row each, in order, whatever is killed in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression

from flyball.errors import Conflict, InvalidInput, NotFound, StepFailed
from flyball.features.lookup import ViewSpec
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref, ref
from flyball.platform import Platform
from flyball.serving.scoring.tables import Job, Parts
from flyball.tracking.traffic import TrafficReader

ROWS = 5_000


def table(rows: int = ROWS) -> pl.DataFrame:
    random = np.random.default_rng(7)
    return pl.DataFrame(
        {
            "flight": [f"Zürich–{number}" for number in range(rows)],
            "distance": random.normal(size=rows),
            "hour": random.normal(size=rows),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model `late` of two versions and the data set `flights`."""
    at = Platform.open(tmp_path_factory.mktemp("made") / ".flyball")
    frame = table()
    inputs = frame.select("distance", "hour")
    target = (frame["distance"] + frame["hour"] > 0).cast(pl.Int64)
    at.declare("model", "late")
    at.declare("dataset", "flights")
    for depth in (2, 3):
        model = HistGradientBoostingClassifier(max_iter=5, max_depth=depth).fit(inputs, target)
        at.register("late", model, example=inputs[:5])
    at.publish("flights", frame)
    at.close()
    return at.home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Iterator[Platform]:
    """A copy of that home."""
    at = Platform.open(shutil.copytree(made, tmp_path / ".flyball"))
    yield at
    at.close()


def wanted(home: Platform, version: str, frame: pl.DataFrame) -> list[float]:
    """What the model itself answers on all rows at once."""
    columns = {name: frame[name].to_numpy() for name in ("distance", "hour")}
    return home.load(version).predict(columns)["probability"].tolist()


def test_a_table_is_answered_as_by_the_model_itself_one_row_each_in_order(home: Platform) -> None:
    version = home.score_into("late@2", "flights", "flights-scored", keep=["flight"])
    rows = home.frame(version.ref).collect()
    assert rows.columns == ["flight", "prediction_id", "version", "prediction", "probability"]
    assert rows["flight"].to_list() == table()["flight"].to_list()
    assert rows["probability"].to_list() == wanted(home, "late@2", table())
    assert rows["version"].unique().to_list() == ["late@2"]
    assert rows["prediction_id"].n_unique() == ROWS and set(rows["prediction_id"].str.len_bytes()) == {32}


def test_the_version_leads_back_to_its_rows_its_model_and_its_run(home: Platform) -> None:
    version = home.score_into("late@1", "flights@1", "scored", keep=["flight"])
    assert version.metadata["columns"] == {"flight": [["dataset/flights@1", "flight", "direct"]]}
    nodes = set(home.lineage(version.ref, "upstream").nodes)
    assert {"dataset/flights@1", "model/late@1", f"run/{version.run}"} <= nodes
    run = home.run(str(version.run))
    assert (run.kind, run.status, run.result["rows"]) == ("scoring", "succeeded", ROWS)


def test_the_same_again_is_the_same_version_without_work(home: Platform) -> None:
    first = home.score_into("late@2", "flights", "scored")
    assert home.score_into("late@2", "flights@1", "scored").ref == first.ref
    assert len(home.runs(kind="scoring")) == 1
    other = home.score_into("late@1", "flights", "scored")
    assert other.number == 2
    assert home.score_into("late@2", "flights", "scored", errors="null").number == 3
    assert len(home.runs(kind="scoring")) == 3


def test_files_and_frames_are_known_by_what_is_in_them(home: Platform, tmp_path: Path) -> None:
    table().write_csv(tmp_path / "flights.csv")
    table().write_parquet(tmp_path / "flights.parquet")
    of_frame = home.score_into("late@2", table(), "scored", keep=["flight"])
    assert home.score_into("late@2", table().lazy(), "scored", keep=["flight"]).ref == of_frame.ref
    assert home.score_into("late@2", str(tmp_path / "flights.parquet"), "scored", keep=["flight"]).ref == of_frame.ref
    of_text = home.score("late@2", str(tmp_path / "flights.csv"))
    assert of_text["probability"].to_list() == wanted(home, "late@2", table())
    other = table().with_columns(pl.col("hour") + 1)
    assert home.score_into("late@2", other, "scored", keep=["flight"]).ref != of_frame.ref


def test_threads_change_nothing_but_the_time(home: Platform) -> None:
    job, _, _ = home._job("late@2", "flights", "x", ["flight"], "refuse", None, 4, None)
    one = Job(job.digest, job.rows, job.scorer, job.needed, job.keep, 1, block_rows=100)
    four = Job(job.digest, job.rows, job.scorer, job.needed, job.keep, 4, block_rows=100)
    assert pl.concat(list(four.answers())).equals(pl.concat(list(one.answers())))


def test_a_job_that_failed_goes_on_behind_its_last_part(home: Platform, tmp_path: Path) -> None:
    job, _, count = home._job("late@2", "flights", "x", ["flight"], "refuse", None, 1, None)
    small = Job(job.digest, job.rows, job.scorer, job.needed, job.keep, block_rows=100, part_rows=1_000)
    parts = Parts(tmp_path / "parts")

    def stop(safe: int) -> None:
        if safe == 3_000:
            raise StepFailed("stopped")

    with parts.claimed(), pytest.raises(StepFailed):
        parts.fill(small, stop)
    before = {path: path.stat().st_mtime_ns for path in parts.paths()}
    assert len(before) == 3
    safe: list[int] = []
    with parts.claimed():
        assert parts.fill(small, safe.append) == count
    assert safe == [4_000, 5_000]
    assert all(path.stat().st_mtime_ns == made for path, made in before.items())
    assert parts.frame().collect().equals(pl.concat(list(small.answers())))


_KILLED = """
import sys
from flyball.platform import Platform
from flyball.serving.scoring import tables
tables.PART_ROWS = 500
write = tables.Parts._write
def slowly(self, number, part):
    write(self, number, part)
    if number == 3:
        print("killing", flush=True)
        sys.stdin.read()
tables.Parts._write = slowly
Platform.open(sys.argv[1]).score_into("late@2", "flights", "scored", keep=["flight"])
"""


def test_what_kill_9_leaves_is_gone_on_with_in_the_same_run_and_comes_to_the_same(home: Platform) -> None:
    command = [sys.executable, "-c", _KILLED, str(home.home)]
    scoring = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert scoring.stdout is not None and scoring.stdout.readline() == "killing\n"
    with pytest.raises(Conflict, match="in another process"):
        home.score_into("late@2", "flights", "scored", keep=["flight"])
    scoring.send_signal(signal.SIGKILL)
    scoring.wait(30)
    (killed,) = home.runs(kind="scoring")
    assert (killed.status, killed.result["rows_done"]) == ("running", 1_500)
    assert len(list((home.home / "scoring").glob("*/part-*.parquet"))) == 4
    version = home.score_into("late@2", "flights", "scored", keep=["flight"])
    assert version.run == killed.id and home.run(killed.id).status == "succeeded"
    rows = home.frame(version.ref).collect()
    assert rows["flight"].to_list() == table()["flight"].to_list()
    assert rows["probability"].to_list() == wanted(home, "late@2", table())
    assert not list((home.home / "scoring").iterdir())


def test_a_wrong_row_refuses_the_table_and_is_named_by_its_place(home: Platform) -> None:
    bad = table().with_columns(
        distance=pl.when(pl.int_range(pl.len()) == 4_321).then(float("inf")).otherwise("distance")
    )
    with pytest.raises(InvalidInput, match='"distance" in row 4321 is inf'):
        home.score_into("late@2", bad, "scored")
    assert home.runs(kind="scoring")[0].status == "failed"
    with pytest.raises(NotFound):
        home.version("dataset/scored@1")


def test_wrong_rows_may_be_answered_with_nulls_and_a_reason(home: Platform) -> None:
    at = pl.int_range(pl.len())
    bad = table().with_columns(distance=pl.when(at.is_in([0, 77, ROWS - 1])).then(float("inf")).otherwise("distance"))
    rows = home.score("late@2", bad, errors="null", keep=["flight"])
    assert rows["reason"].is_not_null().arg_true().to_list() == [0, 77, ROWS - 1]
    assert "row 77" in rows["reason"][77]
    good = rows.filter(pl.col("reason").is_null())
    left = bad.filter(pl.col("distance").is_finite())
    assert good["probability"].to_list() == wanted(home, "late@2", left)
    assert rows["probability"].null_count() == 3


def test_missing_values_are_taken_where_the_signature_takes_them(home: Platform) -> None:
    gaps = table(10).with_columns(hour=pl.when(pl.int_range(pl.len()) % 2 == 0).then("hour"))
    assert home.score("late@2", gaps)["probability"].to_list() == wanted(home, "late@2", gaps)
    inputs = table(50).select("distance", "hour")
    home.declare("model", "plain")
    home.register("plain", LinearRegression().fit(inputs, inputs["hour"]), example=inputs[:5])
    with pytest.raises(InvalidInput, match='"hour" in row 1'):
        home.score("plain@1", gaps)
    assert home.score("plain@1", gaps, errors="null")["reason"].is_null().to_list() == [True, False] * 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop("hour"), 'needs the column "hour"'),
        (lambda t: t.with_columns(pl.col("hour").cast(pl.String)), 'the column "hour" is String; expected float64'),
        (lambda t: t.clear(), "no rows"),
    ],
)
def test_a_table_that_no_row_of_can_be_answered_is_refused_at_once(home: Platform, change, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match=told):
        home.score_into("late@2", change(table()), "scored", errors="null")


def test_a_column_cannot_be_kept_that_is_not_there_or_called_as_an_output(home: Platform) -> None:
    with pytest.raises(InvalidInput, match='no column "fligth" to keep; did you mean "flight"'):
        home.score("late@2", "flights", keep=["fligth"])
    with pytest.raises(InvalidInput, match="an output is called so"):
        home.score("late@2", table().rename({"flight": "prediction"}), keep=["prediction"])


def test_the_prediction_log_is_told_when_asked_and_by_the_same_ids(home: Platform) -> None:
    version = home.score_into("late@2", "flights", "scored", log=True)
    logged = TrafficReader(home.home / "traffic").read_predictions()[0]
    rows = home.frame(version.ref).collect()
    assert logged["id"].to_list() == rows["prediction_id"].to_list()
    assert logged["output.probability"].to_list() == rows["probability"].to_list()
    assert logged["input.hour"].to_list() == table()["hour"].to_list()


def test_whoever_may_not_see_a_column_scores_what_he_sees(home: Platform) -> None:
    home.declare("policy", "hidden", mask=[{"columns": ["flight"], "how": "redact"}], unless_role="admin")
    seen = home.as_(Principal("bert", "editor"))
    rows = seen.frame(seen.score_into("late@2", "flights", "scored", keep=["flight"]).ref).collect()
    assert not set(rows["flight"]) & set(table()["flight"])
    assert rows["probability"].to_list() == wanted(home, "late@2", table())
    again = home.score_into("late@2", "flights", "scored", keep=["flight"])
    assert again.number == 2, "what another may see is another input"


def test_a_deployment_answers_by_its_champion(home: Platform) -> None:
    home.declare("deployment", "soon", model="late")
    home.loop().settle()
    assert (home.scorer("soon").name, home.scorer("soon").version) == ("soon", "late@2")
    assert (home.scorer("late@1").name, home.scorer("late@1").version) == ("late", "late@1")
    rows = home.score(Ref("deployment", "soon"), "flights")
    assert rows["probability"].to_list() == wanted(home, "late@2", table())
    with pytest.raises(NotFound):
        home.scorer(ref("deployment/early"))


def test_features_are_looked_up_as_of_when_the_run_began_or_as_of_an_instant(tmp_path: Path) -> None:
    at = Platform.open(tmp_path / ".flyball")
    view = ViewSpec("weather", ("airport",), "at", {"wind": "float64"})
    inputs = pl.DataFrame({"wind": [1.0, 2.0, 5.0], "hour": [3.0, 1.0, 2.0]})
    at.declare("model", "windy")
    at.register("windy", LinearRegression().fit(inputs, inputs["wind"]), example=inputs)
    at.declare("feature-view", "weather", definition=view.to_dict(), version=1)
    at.declare("deployment", "windy", model="windy", features=["weather"])
    at.loop().settle()
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    at.push(view, [{"airport": "EWR", "at": noon, "wind": 3.0}])
    rows = pl.DataFrame({"hour": [1.0, 1.0], "airport": ["EWR", "nowhere"]})
    found = at.score("windy", rows, errors="null")
    assert found["prediction"].round(6).to_list() == [3.0, None]
    assert "wind" in found["reason"][1] and found["reason"][0] is None
    assert at.score("windy", rows, errors="null", at="2026-03-01T11:00Z")["prediction"].null_count() == 2
    known = rows.head(1)
    first = at.score_into("windy", known, "scored")
    at.push(view, [{"airport": "EWR", "at": noon + timedelta(hours=1), "wind": 7.0}])
    second = at.score_into("windy", known, "scored")
    assert (first.number, second.number) == (1, 2), "what is known now may be other than before"
    assert at.frame(second.ref).collect()["prediction"].round(6).to_list() == [7.0]
    at.close()


def test_memory_does_not_grow_with_the_table(home: Platform, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.parquet"
        table(1_000).select("distance", "hour").lazy().select(
            pl.col("*").repeat_by(rows // 1_000).explode()
        ).collect().write_parquet(path, row_group_size=50_000)
        code = (
            "import sys; from pathlib import Path; import polars as pl\n"
            "from flyball.platform import Platform\n"
            "from flyball.serving.scoring.tables import Job, Parts\n"
            "at = Platform.open(sys.argv[1]); rows = pl.scan_parquet(sys.argv[2])\n"
            "scorer = at.scorer('late@2'); job = Job('0' * 64, rows, scorer, scorer.needed(rows.collect_schema()),"
            " part_rows=100_000)\n"
            "assert Parts(Path(sys.argv[2] + '.parts')).folder.mkdir() is None\n"
            "print(Parts(Path(sys.argv[2] + '.parts')).fill(job),"
            " Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        )
        command = [sys.executable, "-c", code, str(home.home), str(path)]
        environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
        found, kilobytes = map(int, done.stdout.split())
        assert found == rows
        return kilobytes

    few, many = peak(200_000), peak(1_000_000)
    assert many - few < 60_000, f"{many - few} kB more for five times the rows"
