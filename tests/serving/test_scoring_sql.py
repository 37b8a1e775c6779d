"""Models inside SQL: typed by their signatures, over data sets by name, and nothing else can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression

from flyball.errors import Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.ledger.refs import ref
from flyball.platform import Platform
from flyball.serving.scoring.strangeness import Strangeness
from flyball.stats.profiles import bins_of, profile


def table() -> pl.DataFrame:
    random = np.random.default_rng(5)
    rows = 3_000
    return pl.DataFrame(
        {
            "distance": random.normal(10, 3, rows),
            "hour": random.normal(size=rows),
            "carrier": random.choice(["UA", "Ü B", "AA"], rows, p=[0.7, 0.01, 0.29]),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = Platform.open(tmp_path_factory.mktemp("made") / ".flyball")
    frame = table()
    inputs = frame.select("distance", "hour")
    at.declare("dataset", "flights")
    at.publish("flights", frame)
    for name in ("late", "minutes", "odd"):
        at.declare("model", name)
    late = (frame["distance"] + frame["hour"] > 10).cast(pl.Int64)
    learnt = ref("dataset/flights@1")
    at.register("late", LogisticRegression().fit(inputs, late), example=inputs[:5], trained_on=learnt)
    at.register("minutes", LinearRegression().fit(inputs, frame["distance"] - 2 * frame["hour"]), example=inputs[:5])
    at.register("odd", IsolationForest(n_estimators=20, random_state=1).fit(inputs), example=inputs[:5])
    at.loop().settle()
    at.close()
    return at.home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Iterator[Platform]:
    at = Platform.open(shutil.copytree(made, tmp_path / ".flyball"))
    yield at
    at.close()


def test_a_model_with_one_output_is_a_function_of_its_value(home: Platform) -> None:
    rows = home.sql("SELECT *, predict('minutes', distance, hour) AS p FROM flights")
    assert rows.height == table().height
    assert np.allclose(rows["p"].to_numpy(), rows["distance"].to_numpy() - 2 * rows["hour"].to_numpy())


def test_a_model_with_several_outputs_is_a_function_of_their_fields(home: Platform) -> None:
    rows = home.sql("SELECT distance, hour, predict('late', distance, hour).probability AS p FROM \"flights@1\"")
    columns = {name: rows[name].to_numpy() for name in ("distance", "hour")}
    assert rows["p"].to_list() == home.load("late").predict(columns)["probability"].tolist()
    whole = home.sql("SELECT predict('late', 12.0, 1.0) AS p")["p"][0]
    assert set(whole) == {"prediction", "probability"} and whole["prediction"] == 1


@pytest.mark.parametrize(
    "call",
    [
        "predict('minutes', hour, distance)",
        "predict('minutes', f.hour, f.distance)",
        "predict('minutes', hour := hour, distance := distance)",
        "predict('minutes')",
        "predict('minutes@1', distance + 0, hour * 1)",
        "predict('model/minutes@champion', distance, hour)",
    ],
)
def test_arguments_find_their_inputs_by_name_or_by_place(home: Platform, call: str) -> None:
    rows = home.sql(f"SELECT distance - 2 * hour - {call} AS none FROM flights f WHERE {call} > -100")
    assert rows.height == table().height and rows["none"].abs().max() < 1e-9


def test_models_stand_anywhere_in_a_query(home: Platform) -> None:
    rows = home.sql(
        "WITH asked AS (SELECT carrier, predict('late', distance, hour).probability AS p FROM flights "
        "-- predict('x')\n) "
        "SELECT carrier, 'predict(''y'', 1)' AS said, avg(p) AS p, max(predict('minutes', 1, 0)) AS one "
        "FROM asked GROUP BY carrier ORDER BY carrier"
    )
    assert rows["carrier"].to_list() == ["AA", "UA", "Ü B"]
    assert rows["one"].round(9).to_list() == [1.0] * 3


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT predict('minutes', distance) FROM flights", "takes 2 values, distance, hour.*given are 1"),
        (
            "SELECT predict('minutes', hour := 1, distanc := 2) FROM flights",
            'no input "distanc"; did you mean "distance"',
        ),
        ("SELECT predict('minutes', carrier, hour) FROM flights", "cannot be run: Binder Error"),
        ("SELECT predict(carrier, hour) FROM flights", "first argument of predict is the model's name"),
        ("SELECT * FROM fligths", 'reads "fligths", which is no data set; did you mean "flights"'),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("DELETE FROM flights", "Only SELECT"),
        ("SELEC 1", "cannot be read"),
        ("SELECT nothing FROM flights", "nothing"),
        ("SELECT predict('minutes', distance, 'x') FROM flights", "Could not convert"),
        ("SELECT predict('minutes', distance, NULL) FROM flights LIMIT 1", '"hour" is nan|"hour" is null'),
    ],
)
def test_a_wrong_query_is_refused_with_what_is_wrong(home: Platform, query: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        home.sql(query)


def test_an_unknown_model_is_not_found(home: Platform) -> None:
    with pytest.raises(NotFound, match="minute"):
        home.sql("SELECT predict('minute', 1, 2)")


def test_rows_that_a_model_cannot_answer_may_be_null(home: Platform) -> None:
    rows = home.sql(
        "SELECT predict('minutes', CASE WHEN hour > 0 THEN distance END, hour) AS p, hour FROM flights", errors="null"
    )
    assert (rows["p"].is_null() == (rows["hour"] <= 0)).all() and rows["p"].null_count() > 100


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM glob('{file}')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
        "SELECT * FROM frame",
        "SELECT getenv('HOME')",
        "COPY (SELECT 1) TO '{file}'",
        "ATTACH '{file}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM query('SET lock_configuration = false')",
        "SELECT * FROM query_table('{file}')",
    ],
)
def test_a_query_reads_no_file_no_variable_and_no_network_and_sets_nothing(
    home: Platform, tmp_path: Path, query: str
) -> None:
    frame = pl.DataFrame({"secret": ["a secret"]})
    file = tmp_path / "secret.csv"
    frame.write_csv(file)
    with pytest.raises(InvalidInput) as refused:
        home.sql(query.format(file=file))
    assert "a secret" not in str(refused.value)
    assert file.read_text() == "secret\na secret\n"


def test_files_may_be_read_when_an_admin_asks_for_it(home: Platform, tmp_path: Path) -> None:
    table().head(3).write_csv(tmp_path / "some.csv")
    query = f"SELECT predict('minutes') AS p FROM '{tmp_path / 'some.csv'}'"
    assert home.sql(query, external=True).height == 3
    with pytest.raises(Forbidden):
        home.as_(Principal("vera", "editor")).sql(query, external=True)


def test_a_query_reads_rows_as_whoever_asks_may_see_them(home: Platform) -> None:
    home.declare("policy", "hidden", mask=[{"columns": ["carrier"], "how": "redact"}], unless_role="admin")
    reader = home.as_(Principal("olga", "operator"))
    query = "SELECT DISTINCT carrier, max(predict('minutes')) OVER () AS p FROM flights"
    assert not set(reader.sql(query)["carrier"]) & {"UA", "AA", "Ü B"}
    assert set(home.sql(query)["carrier"]) == {"UA", "AA", "Ü B"}
    with pytest.raises(Forbidden):
        home.as_(Principal("vera", "viewer")).sql(query)
    assert home.as_(Principal("vera", "viewer")).sql("SELECT count(*) AS n FROM flights")["n"][0] == 3_000


def test_a_model_of_anomalies_says_itself_how_strange_a_row_is(home: Platform) -> None:
    rows = home.sql("SELECT distance, hour, anomaly('odd', distance, hour) AS score FROM flights ORDER BY score DESC")
    forest = IsolationForest(n_estimators=20, random_state=1).fit(table().select("distance", "hour"))
    assert np.allclose(rows["score"].to_numpy(), -forest.score_samples(rows.select("distance", "hour")))
    usual, odd = (home.sql(f"SELECT anomaly('odd', {at}, 0) AS s")["s"][0] for at in (10, 60))
    assert odd > usual


def test_of_another_model_a_row_is_as_strange_as_it_is_unlike_what_that_learnt(home: Platform) -> None:
    rows = home.sql("SELECT anomaly('late', distance, hour) AS score FROM flights")["score"]
    assert rows.is_between(0, 1).all()
    assert 0.03 < (rows > 0.9).sum() / len(rows) < 0.12, "about one in ten of its own rows is of the strangest tenth"
    scores = [home.sql(f"SELECT anomaly('late', {at}, 0) AS s")["s"][0] for at in (10, 18, 60, 1_000)]
    assert scores == sorted(scores) and scores[2] > 0.99
    with pytest.raises(NotFound, match="register it with the rows"):
        home.sql("SELECT anomaly('minutes', 1, 1)")


def test_strangeness_joins_the_shares_of_the_columns_as_fisher_does() -> None:
    texts, numbers = ["a"] * 90 + ["b"] * 9 + [None], np.arange(100.0)
    profiles = {"t": profile(texts, bins_of(texts)), "n": profile(numbers, bins_of(numbers))}
    rows = pl.DataFrame({"t": ["b", "a", None, "new"], "n": [50.0, 50.0, 50.0, 50.0]})
    shares = np.array([0.10, 1.0, 0.01, 1 / 101])
    tail = Strangeness({"n": profiles["n"]}).of(rows)
    assert np.all(tail < 0.05)
    found = Strangeness({"t": profiles["t"]}).of(rows)
    assert np.allclose(found, 1 - shares)
    both = Strangeness(profiles).of(rows)
    wanted = stats.combine_pvalues([0.01, 1 - tail[0]]).pvalue
    assert np.isclose(1 - both[2], wanted)
