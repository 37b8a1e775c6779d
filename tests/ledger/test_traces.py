"""Traces, assessments, sets and scorers over SQLite and over a real PostgreSQL server."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from flyball.errors import Conflict, Forbidden, NotFound
from flyball.ledger.evaluation_sets import EvaluationRecord, EvaluationSet
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.traces import Assessment, NewSpans, SpanMark, Trace, TraceCondition
from flyball.llm.arriving import account, arrived
from flyball.llm.searching import conditions_of, orders_of
from flyball.llm.spans import Span, read_span
from flyball.tracking.filters import Comparison, judge
from tests.services import postgres_server

ME = "user/a"


def span(trace: int, number: int = 0, **more: object) -> Span:
    parent = f"{1:016x}" if number else None
    return Span(f"{trace:032x}", f"{number + 1:016x}", f"s{number}", 10**18, 2 * 10**18, parent, **more)  # type: ignore[arg-type]


def add(ledger: SqlLedger, *spans: Span) -> None:
    with ledger.write(ME) as world:
        for new in arrived("0", spans, {}):
            world.traces.add_spans(new)


def tell(ledger: SqlLedger, trace: Trace) -> None:
    with ledger.write(ME) as world:
        world.traces.keep(trace.id, account(trace))


def found(ledger: SqlLedger, filter: str, *order: str) -> list[str]:
    with ledger.read() as world:
        traces, _ = world.traces.search(["0"], conditions_of(filter), orders_of(order))
    return [trace.id for trace in traces]


def said(id: str, trace: str, value: object, **more: object) -> Assessment:
    return Assessment(id, trace, "f", "feedback", value, "HUMAN", "ann", 1, 1, **more)  # type: ignore[arg-type]


class TraceCases:
    """What every ledger must do with traces."""

    def test_parts_are_joined_and_nothing_is_lost(self, ledger: SqlLedger) -> None:
        for number in range(40):
            add(ledger, span(1, number, attributes={"text": "näme \0 😀\n" * number}))
        with ledger.read() as world:
            texts = world.traces.spans([f"tr-{1:032x}"])[f"tr-{1:032x}"]
        assert {read_span(text).id for text in texts} == {f"{n + 1:016x}" for n in range(40)}
        assert read_span(texts[-1]).attributes["text"] == "näme \0 😀\n" * 39
        with ledger.engine.connect() as connection:
            parts = connection.exec_driver_sql("SELECT count(*) FROM trace_spans").scalar_one()
        assert parts <= 6

    def test_filters_find_what_they_say(self, ledger: SqlLedger) -> None:
        add(ledger, span(1, attributes={"model": "Large", "mlflow.spanType": "LLM"}), span(1, 1, status="ERROR"))
        add(ledger, span(2, attributes={"model": "small"}))
        one, two, three = f"tr-{1:032x}", f"tr-{2:032x}", "tr-told"
        tell(ledger, Trace(three, "0", 5, 10, "OK", tags={"k": "V", "odd 'key\"": "x"}, metadata={"m": "1"}))
        with ledger.write(ME) as world:
            world.traces.assess(said("a-1", one, 0.5))
            world.traces.assess(said("a-2", two, True))
            world.traces.link([two, "nobody"], "run", "r" * 32)
            world.traces.link([one], "prompt", "p/1")
        for filter, expected in (
            ("", [one, two, three]),
            ("span.status = 'ERROR'", [one]),
            ("span.name = 's0' AND span.status = 'ERROR'", []),
            ("span.name LIKE 'S%'", []),
            ("span.name ILIKE 'S%'", [one, two]),
            ("span.attributes.model = 'Large'", [one]),
            ("span.attributes.model ILIKE 'l%'", [one]),
            ("span.attributes.model LIKE 's%' AND span.type = 'LLM'", []),
            ("trace.text LIKE '%small%'", [two]),
            ("tag.k = 'V'", [three]),
            ("tag.k = 'v'", []),
            ("tag.k ILIKE 'v'", [three]),
            ("metadata.m IS NULL", [one, two]),
            ("feedback.f > 0.1", [one]),
            ("feedback.f = 'true'", [two]),
            ("feedback.f IS NULL", [three]),
            (f"run_id = '{'r' * 32}'", [two]),
            ("prompt = 'p/1'", [one]),
            ("execution_time_ms = 10", [three]),
            ("name = 's0'", [one, two]),
            ("name RLIKE '^s[0-9]$'", [one, two]),
            (f"request_id IN ('{one}', '{three}')", [one, three]),
        ):
            assert found(ledger, filter) == expected, filter
            with ledger.read() as world:
                assert world.traces.count(["0"], conditions_of(filter)) == len(expected), filter

    def test_texts_are_found_however_json_writes_them(self, ledger: SqlLedger) -> None:
        """A text with everything that is escaped, once and twice, by equality and by every pattern of a piece of it."""
        odd = 'say "a\\b"\t50% of näme_x\n/tmp 😀 Kelvin \u212a'
        add(ledger, span(1, attributes={"odd": odd, "n": 5, "deep": {"of": [odd]}}))
        add(ledger, span(2, attributes={"odd": "plain", "n": 55}))
        (one, two) = (f"tr-{n:032x}" for n in (1, 2))
        for value in (odd, *(odd[start : start + 5] for start in range(0, len(odd) - 5, 2))):
            with ledger.read() as world:
                for sign, text in (("=", odd), ("LIKE", f"%{value}%"), ("ILIKE", f"%{value}%")):
                    asked = Comparison("span", "attributes.odd", sign, text)
                    condition = TraceCondition("span", "attributes.odd", sign, text, judge(asked))
                    assert [t.id for t in world.traces.search(["0"], [condition])[0]] == [one], (sign, value)
        assert found(ledger, "span.attributes.n = '5'") == [one]
        assert found(ledger, "span.attributes.n LIKE '5_'") == [two]
        assert found(ledger, "span.attributes.odd = 'Plain'") == []
        assert found(ledger, "span.content LIKE '%plain%' AND span.attributes.n = '55'") == [two]

    def test_orders_hold_missing_values_last(self, ledger: SqlLedger) -> None:
        for number, tag in enumerate(["b", None, "a", "B", "ä"]):
            tell(
                ledger, Trace(f"tr-{number}", "0", 5 + number % 2, number, "OK", tags={} if tag is None else {"t": tag})
            )
        assert found(ledger, "") == ["tr-1", "tr-3", "tr-0", "tr-2", "tr-4"]
        assert found(ledger, "", "execution_time_ms DESC") == [f"tr-{n}" for n in (4, 3, 2, 1, 0)]
        assert found(ledger, "", "tag.t ASC")[-1] == found(ledger, "", "tag.t DESC")[-1] == "tr-1"

    def test_pages_are_the_whole_by_place_and_by_offset(self, ledger: SqlLedger) -> None:
        chance = random.Random(3)
        for number in range(60):
            tell(ledger, Trace(f"tr-{number:02}", "0", chance.randrange(5), None, "OK", tags={"odd": str(number % 2)}))
        for filter in ("", "tag.odd = '1'"):
            whole = found(ledger, filter)
            by_place, by_offset = [], []
            after = None
            with ledger.read() as world:
                while True:
                    page, is_more = world.traces.search(["0"], conditions_of(filter), (), 7, 0, after)
                    by_place += [trace.id for trace in page]
                    by_offset += [
                        t.id for t in world.traces.search(["0"], conditions_of(filter), (), 7, len(by_offset))[0]
                    ]
                    if not is_more:
                        break
                    after = (page[-1].at_ms, page[-1].id)
            assert by_place == by_offset == whole

    def test_what_is_overridden_is_valid_again_when_that_is_withdrawn(self, ledger: SqlLedger) -> None:
        tell(ledger, Trace("tr-1", "0", 1, 1, "OK"))
        with ledger.write(ME) as world:
            world.traces.assess(said("a-1", "tr-1", True))
            world.traces.assess(said("a-2", "tr-1", False, overrides="a-1"))
            assert not world.traces.assessment("tr-1", "a-1").is_valid
            world.traces.withdraw("tr-1", "a-2")
            assert world.traces.assessment("tr-1", "a-1").is_valid
            world.traces.withdraw("tr-1", "a-2")
        with ledger.write(ME) as world, pytest.raises(Conflict):
            world.traces.assess(said("a-1", "tr-1", True))
        with ledger.write(ME) as world, pytest.raises(NotFound):
            world.traces.assess(said("a-3", "tr-1", True, overrides="nobody"))
        with ledger.read() as world, pytest.raises(NotFound):
            world.traces.assessment("tr-1", "a-3")

    def test_removing_takes_everything_along(self, ledger: SqlLedger) -> None:
        for number in range(5):
            add(ledger, span(number + 1))
            tell(ledger, Trace(f"tr-{number + 1:032x}", "0", number, 1, "OK"))
        with ledger.write(ME) as world:
            world.traces.assess(said("a-1", f"tr-{1:032x}", True))
            world.traces.link([f"tr-{1:032x}"], "run", "r")
            assert world.traces.delete("0", until_ms=3, most=2) == 2
            assert world.traces.delete("0", until_ms=3) == 2
            assert world.traces.delete("0", ids=["nobody"]) == 0
        assert found(ledger, "") == [f"tr-{5:032x}"]
        with ledger.engine.connect() as connection:
            for table in ("assessments", "trace_links"):
                assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0
            assert connection.exec_driver_sql("SELECT count(*) FROM trace_spans").scalar_one() == 1

    def test_a_deleted_experiment_takes_no_traces(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            id = world.experiments.create("gone").id
            world.experiments.discard(id)
        for experiment, error in ((id, Conflict), ("77", NotFound)):
            with pytest.raises(error):
                tell(ledger, Trace("tr-1", experiment, 1, 1, "OK"))
        assert found(ledger, "") == []

    def test_who_only_reads_may_not_write(self, ledger: SqlLedger) -> None:
        new = NewSpans("tr-1", {"a": "{}"}, frozenset({SpanMark("a", "b", "OK")}), lambda known, _read: known)  # type: ignore[arg-type,return-value]
        with ledger.read() as world:
            for act in (
                lambda: world.traces.keep("tr-1", account(Trace("tr-1", "0", 1, 1, "OK"))),
                lambda: world.traces.add_spans(new),
                lambda: world.traces.delete("0", until_ms=1),
                lambda: world.scorers.register("0", "s", "{}"),
            ):
                with pytest.raises(Forbidden):
                    act()

    def test_sets_and_their_records(self, ledger: SqlLedger) -> None:
        made = EvaluationSet("d-1", "qa", "x", 1, 1, tags={"a": "b"})
        records = [EvaluationRecord(f"r{n}", "d-1", f"h{n}", n % 2, 1, {"inputs": {"q": "\0 ä"}}) for n in range(5)]
        with ledger.write(ME) as world:
            world.evaluation_sets.create(made, ["0"])
            world.evaluation_sets.keep(records)
            world.evaluation_sets.keep([records[0]._replace(document={"inputs": 2})])
            world.evaluation_sets.change("d-1", lambda one: replace(one, count=5))
        with ledger.read() as world:
            sets = world.evaluation_sets
            assert (sets.get("d-1").count, sets.size("d-1"), sets.experiments("d-1")) == (5, 5, ["0"])
            page, is_more = sets.records("d-1", 3)
            rest, is_end = sets.records("d-1", 3, (page[-1].created_ms, page[-1].id))
            assert [r.id for r in (*page, *rest)] == ["r0", "r2", "r4", "r1", "r3"]
            assert (is_more, is_end, page[0].document, page[1].document) == (
                True,
                False,
                {"inputs": 2},
                records[2].document,
            )
            assert sets.by_inputs("d-1", ["h3", "nobody"])["h3"].id == "r3"
        with ledger.write(ME) as world:
            assert world.evaluation_sets.drop("d-1", ["r1", "nobody"]) == 1
            world.evaluation_sets.delete("d-1")
            assert world.evaluation_sets.all() == []

    def test_scorers_are_kept_in_versions(self, ledger: SqlLedger) -> None:
        with ledger.write(ME) as world:
            first, second = (world.scorers.register("0", "s", text) for text in ("{}", "[]"))
            assert (first.version, second.version, first.id == second.id) == (1, 2, True)
            assert [one.version for one in world.scorers.newest(["0"])] == [2]
            world.scorers.delete("0", "s", 1)
            assert [one.document for one in world.scorers.versions("0", "s")] == ["[]"]
            world.scorers.delete("0", "s")
            with pytest.raises(NotFound):
                world.scorers.versions("0", "s")


class TestTracesInSqlite(TraceCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


class TestTracesInPostgres(TraceCases):
    @pytest.fixture
    def ledger(self, server: str, tmp_path: Path) -> Iterator[SqlLedger]:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        opened = open_ledger(tmp_path, LedgerSettings(url=f"{server}/{name}"))
        yield opened
        opened.close()
