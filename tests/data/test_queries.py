"""Data sets by SQL from other data sets."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flyball.data.queries import Query, is_query, read_query
from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.ledger.refs import Ref

TABLES = {
    "flights": pl.DataFrame({"id": [1, 2, 3], "origin": ["JFK", "EWR", "JFK"], "delay": [5.0, None, 9.0]}),
    "weather": pl.DataFrame({"origin": ["JFK", "EWR"], "temp": [60.0, 50.0]}),
    "Flüge": pl.DataFrame({"id": [7]}),
}


def query(sql: str) -> Query:
    def resolve(name: str) -> tuple[Ref, pl.LazyFrame] | None:
        plain, _, version = name.partition("@")
        return (Ref("dataset", plain, version or "2"), TABLES[plain].lazy()) if plain in TABLES else None

    return read_query(sql, resolve, list(TABLES))


def test_a_join_gives_rows_inputs_and_the_origin_of_each_column() -> None:
    made = query('SELECT f.id, w.temp FROM flights f JOIN "weather@1" w ON f.origin = w.origin WHERE f.delay > 6')
    assert made.frame.collect().rows() == [(3, 60.0)]
    assert made.inputs == {"flights": Ref("dataset", "flights", "2"), "weather@1": Ref("dataset", "weather", "1")}
    assert ("dataset/weather@1", "temp", "direct") in made.columns["temp"]
    assert ("dataset/flights@2", "delay", "indirect") in made.columns["temp"]


def test_a_name_in_a_text_or_comment_is_no_input() -> None:
    made = query("select id, 'weather' as kind -- weather\nfrom flights /* weather */")
    assert set(made.inputs) == {"flights"}


def test_names_beyond_ascii_stand_in_quotes() -> None:
    assert query('select id from "Flüge"').frame.collect().item() == 7


def test_common_table_expressions_are_no_data_sets() -> None:
    made = query("with late as (select * from flights where delay > 6) select count(*) as n from late")
    assert made.frame.collect().item() == 1
    assert set(made.inputs) == {"flights"}


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("select * from flihgts", NotFound, 'did you mean "flights"'),
        ("select 1; drop table flights", InvalidInput, "single SELECT"),
        ("select * from read_csv('/etc/passwd')", InvalidInput, "reads a file"),
        ("select * from read_csv/**/('/etc/passwd')", InvalidInput, "reads a file"),
        ("select nothere from flights", InvalidInput, "nothere"),
        ("select id,, from flights", InvalidInput, "cannot be run"),
    ],
)
def test_what_is_no_query_of_data_sets_is_refused(sql: str, error: type[FlyballError], words: str) -> None:
    with pytest.raises(error, match=words):
        query(sql)


def test_paths_are_no_queries(tmp_path: Path) -> None:
    assert is_query("select 1") and is_query("-- all\nWITH x AS (select 1) select * from x")
    assert not is_query("selected.csv") and not is_query(str(tmp_path)) and not is_query(TABLES["flights"])
