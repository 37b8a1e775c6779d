"""Search over the ledger, the same cases on SQLite and on PostgreSQL; the query language; old homes get an index."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flyball.errors import InvalidInput
from flyball.ledger.kinds import Spec, register
from flyball.ledger.search import Term, match, parse_query, snippet
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.words import cut, fold, words
from flyball.testing.clock import FakeClock
from tests.ledger.older import copy_rows, older_ledger
from tests.services import postgres_server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@register
class SearchCase(Spec):
    """A kind with all that a search looks at."""

    description: str = ""
    owner: str | None = None
    domain: str | None = None
    tags: list[str] = []
    columns: dict[str, dict[str, str]] = {}
    contract: dict[str, Any] | None = None
    password: str = ""
    size: int = 0


CASE = "search-case"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    settings = LedgerSettings()
    if request.param == "postgres":
        server = request.getfixturevalue("server")
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        settings = LedgerSettings(url=f"{server}/{name}")
    opened = open_ledger(tmp_path, settings, FakeClock(NOW))
    yield opened
    opened.close()


def apply(ledger: SqlLedger, name: str, **spec: Any) -> None:
    with ledger.write("user/a") as tx:
        tx.resources.apply(CASE, name, spec)


def found(ledger: SqlLedger, query: str, **more: Any) -> list[str]:
    with ledger.read() as tx:
        return [str(hit.ref).removeprefix(f"{CASE}/") for hit in tx.search.find(query, **more).hits]


def flights(ledger: SqlLedger) -> None:
    apply(
        ledger,
        "flights",
        description="Departures of New York",
        owner="user/alice",
        domain="travel",
        tags=["gold", "2013"],
        columns={"DepDelay": {"description": "minutes too late"}},
    )
    apply(ledger, "weather", description="Hourly, beside the flights", owner="team/ops", domain="travel", tags=["raw"])
    apply(ledger, "sales", description="What was sold; not late", owner="user/bob", domain="trade")


def test_every_field_is_found_and_the_name_comes_first(ledger: SqlLedger) -> None:
    flights(ledger)
    assert found(ledger, "flights") == ["flights", "weather"]
    assert found(ledger, "departures york") == ["flights"]
    assert found(ledger, "minutes late") == ["flights"]
    assert sorted(found(ledger, "travel")) == ["flights", "weather"]
    assert found(ledger, "alice") == ["flights"]
    assert found(ledger, "gold") == ["flights"]
    assert found(ledger, "nowhere") == []


ASKED: list[tuple[str, list[str]]] = [
    ('"new york"', ["flights"]),
    ('"york new"', []),
    ("depart*", ["flights"]),
    ('"new yo*"', []),
    ("new_yo*", ["flights"]),
    ("late -sold", ["flights"]),
    ("-flights", ["sales"]),
    ("kind:search-case -domain:travel", ["sales"]),
    ("kind:SearchCases tag:gold", ["flights"]),
    ("tag:gold tag:raw", ["weather", "flights"]),
    ("-tag:gold domain:travel", ["weather"]),
    ("owner:alice", ["flights"]),
    ("owner:user/alice", ["flights"]),
    ("owner:team/ops domain:travel", ["weather"]),
    ("column:DepDelay", ["flights"]),
    ("column:dep_delay", ["flights"]),
    ("column:dep*", ["flights"]),
    ("column:delay", []),
    ("depdelay", ["flights"]),
    ("dep_delay", ["flights"]),
    ("DEP delay", ["flights"]),
    ("is:run", []),
    ("kind:run", []),
    ("FLIGHTS departures", ["flights"]),
]


def test_the_query_language_says_what_is_wanted(ledger: SqlLedger) -> None:
    flights(ledger)
    assert {query: found(ledger, query) for query, _ in ASKED} == dict(ASKED)


def test_a_time_is_when_the_thing_was_last_changed(ledger: SqlLedger) -> None:
    clock = ledger.clock
    assert isinstance(clock, FakeClock)
    apply(ledger, "old")
    clock.advance(10 * 86_400)
    apply(ledger, "new")
    assert found(ledger, "after:2026-03-05") == ["new"]
    assert found(ledger, "before:2026-03-05") == ["old"]
    assert found(ledger, "after:7d") == ["new"]
    assert found(ledger, "after:2026 before:2026-04") == ["new", "old"]
    assert found(ledger, "old after:2026-03-05T00:00:00Z") == []
    apply(ledger, "old", description="changed")
    assert found(ledger, "after:7d") == ["old", "new"]


def test_what_matches_better_by_name_comes_before_and_the_last_changed_first_among_equals(ledger: SqlLedger) -> None:
    for name in ("other", "late-flights", "x-late", "late.flights-x", "flights"):
        apply(ledger, name, description="late flights")
    with ledger.read() as tx:
        hits = tx.search.find("late flights").hits
    assert [(h.ref.name, h.how) for h in hits] == [
        ("late-flights", "name"), ("late.flights-x", "in name"),
        ("flights", "partly in name"), ("x-late", "partly in name"), ("other", "in text"),
    ]  # fmt: skip


def test_versions_and_runs_are_found_behind_resources(ledger: SqlLedger) -> None:
    with ledger.write("user/carol") as tx:
        tx.resources.apply(CASE, "late", {})
        schema = {"schema": {"tail_number": "String"}, "note": "backfill of May"}
        tx.versions.publish(CASE, "late", "a" * 64, metadata=schema)
        run = tx.runs.start("training", "late", tags={"team": "blue"}, of=f"{CASE}/late")
        assert [str(h.ref) for h in tx.search.find("late").hits] == [f"{CASE}/late", str(run.ref), f"{CASE}/late@1"]
        assert [str(h.ref) for h in tx.search.find("late is:version is:run").hits] == [str(run.ref), f"{CASE}/late@1"]
        assert [str(h.ref) for h in tx.search.find("late@1").hits] == [f"{CASE}/late@1"]
        assert [str(h.ref) for h in tx.search.find("backfill").hits] == [f"{CASE}/late@1"]
        # A resource has the columns of its newest version.
        assert [str(h.ref) for h in tx.search.find("column:tail_number").hits] == [f"{CASE}/late", f"{CASE}/late@1"]
        assert [str(h.ref) for h in tx.search.find("tag:team=blue owner:carol").hits] == [str(run.ref)]
        assert tx.search.counts("late") == {CASE: 2, "run": 1}
        assert tx.search.counts("late is:run") == {"run": 1}
        tx.versions.publish(CASE, "late", "b" * 64, metadata={"schema": {"other": "String"}})
        assert [str(h.ref) for h in tx.search.find("column:tail_number").hits] == [f"{CASE}/late@1"]


def test_the_index_follows_every_change_in_the_same_transaction(ledger: SqlLedger) -> None:
    apply(ledger, "x", description="apples")
    assert (found(ledger, "apples"), found(ledger, "pears")) == (["x"], [])
    apply(ledger, "x", description="pears")
    assert (found(ledger, "apples"), found(ledger, "pears")) == ([], ["x"])
    with pytest.raises(ZeroDivisionError), ledger.write("user/a") as tx:
        tx.resources.apply(CASE, "x", {"description": "plums"})
        assert [h.ref.name for h in tx.search.find("plums").hits] == ["x"]
        _ = 1 / 0
    assert (found(ledger, "plums"), found(ledger, "pears")) == ([], ["x"])
    with ledger.write("user/a") as tx:
        run = tx.runs.start("training", "r", tags={"fruit": "quince"})
        tx.runs.update(run.id, tags={"fruit": "medlar"})
        assert (tx.search.find("quince").hits, len(tx.search.find("medlar").hits)) == ((), 1)
        tx.runs.finish(run.id, "failed")
        tx.runs.rewrite(run.id, tags={})
        assert tx.search.find("medlar").hits == ()
        tx.runs.delete(run.id)
        assert tx.search.find("is:run").hits == ()
        tx.versions.publish(CASE, "x", "a" * 64, metadata={"note": "of Jane Doe"})
        tx.versions.rewrite(CASE, "x", 1, "b" * 64, {})
        assert tx.search.find("jane").hits == ()
        tx.resources.delete(CASE, "x")
    assert found(ledger, "pears") == []


def test_a_status_changes_nothing_of_the_index(ledger: SqlLedger) -> None:
    apply(ledger, "first")
    apply(ledger, "second")
    with ledger.write("controller/x") as tx:
        tx.resources.set_status(CASE, "first", {"n": 1}, action="counted")
    assert found(ledger, "kind:search-case") == ["second", "first"]


def test_pages_have_no_gaps_and_no_repeats_even_when_things_are_written_meanwhile(ledger: SqlLedger) -> None:
    expected = []
    for number in range(25):
        name = f"late-{number}" if number % 3 else f"n{number}"
        apply(ledger, name, description="late")
        expected.append(name)
    seen: list[str] = []
    after = None
    for _page in range(30):
        with ledger.read() as tx:
            page = tx.search.find("late", limit=4, after=after)
        seen += [h.ref.name for h in page.hits]
        apply(ledger, f"late-new-{len(seen)}")
        after = page.next
        if after is None:
            break
    assert after is None
    assert [n for n in seen if "new" not in n] == sorted(
        expected, key=lambda n: (n.startswith("n"), -expected.index(n))
    )
    assert len(seen) == len(set(seen))


def test_a_limit_or_a_page_that_cannot_be_is_refused(ledger: SqlLedger) -> None:
    with ledger.read() as tx:
        for limit in (0, 1001, -5):
            with pytest.raises(InvalidInput, match="1 to 1000"):
                tx.search.find("x", limit=limit)
        for after in ("", "x", "1", "1.2.3", "1.' OR 1=1", "٣.٣x", "1." + "9" * 40):
            with pytest.raises(InvalidInput, match="does not continue"):
                tx.search.find("x", after=after)


HOSTILE = [
    '"', "'", '"""', "''';--", "NEAR(a b)", "a AND", "OR", "NOT x", "a* *b **", "col:umn:x", "{words}: a", "^late",
    "late\\", "a & b | !c <-> d", "'a':*", ":*", "n:late", "c:resource", "e:late", "\x00", "late\x00late", "%_", "-",
    "--", "-\"", '-"late', "kind:", "tag:\"", "tag:***", "before:yesterday",
    "before:0001", "before:0001-01-01T00:00:00Z", "after:0001-01-01T00:00:00+14:00", "after:99999d",
    "before:0000-99-99",
    "after:999999999999d", "\ud800", "🦄", "\u202e late", "(((((", "late)" * 50, "a" * 5000, "x " * 3000, "is:banana",
    "; DROP TABLE resources", "\n\r\t", "kind:%", "٣", "½", "a\u0301" * 400,
]  # fmt: skip


def test_no_query_is_an_error_or_reaches_the_database_as_code(ledger: SqlLedger) -> None:
    apply(ledger, "late", description="late")
    for query in HOSTILE:
        with ledger.read() as tx:
            page = tx.search.find(query)
            tx.search.counts(query)
            assert len(page.hits) <= 1, query
            assert len(tx.resources.all()) == 1, query


def test_random_queries_find_what_brute_force_finds(ledger: SqlLedger) -> None:
    chance = random.Random(7)
    vocabulary = ["late", "flight", "Zürich", "dep_delay", "ArrDelay", "東京", "x", "2013", "naïve", "gold"]
    texts = {}
    with ledger.write("user/a") as tx:
        for number in range(60):
            texts[f"n{number}"] = text = " ".join(chance.choices(vocabulary, k=chance.randint(0, 5)))
            tx.resources.apply(CASE, f"n{number}", {"description": text})
    for _round in range(60):
        parts = chance.sample(vocabulary, chance.randint(1, 3))
        is_out = [chance.random() < 0.3 for _ in parts]
        query = " ".join("-" * out + part for part, out in zip(parts, is_out, strict=True))

        def has(text: str, part: str) -> bool:
            cut, sought = [w.text for w in words(text)], [w.text for w in words(part)]
            return any(cut[i : i + len(sought)] == sought for i in range(len(cut)))

        expected = {
            name for name, text in texts.items() if all(has(text, p) != o for p, o in zip(parts, is_out, strict=True))
        }
        assert set(found(ledger, query, limit=100)) == expected, query


WRITTEN = [
        ("Zürich", "zurich"), ("zurich", "Zürich"), ("cafe\u0301", "café"), ("straße", "STRASSE"), ("Łódź", "lodz"),
        ("東京の天気", "京の"), ("東京の天気", "天気"), ("ไทยแลนด์", "แลนด์"), ("ﬁle", "file"), ("ＡＢＣ", "abc"),
        ("한국어 데이터", "한국*"), ("हिन्दी भाषा", "भाषा"), ("😀 smile", "😀"), ("Ёлка", "елка"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("İstanbul", "istanbul"), ("données", "donnees"),
]  # fmt: skip


def test_letters_are_found_without_case_and_accents_and_scripts_without_spaces_by_any_part(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as tx:
        for number, (text, _) in enumerate(WRITTEN):
            tx.resources.apply(CASE, f"n{number}", {"description": f"before {text} after"})
    for number, (_, query) in enumerate(WRITTEN):
        with ledger.read() as tx:
            hits = {hit.ref.name: hit for hit in tx.search.find(query).hits}
        assert f"n{number}" in hits, query
        assert len(hits) <= 3, query
        assert all(hit.snippet[a:b] not in ("before", "after") for hit in hits.values() for a, b in hit.marks)
        assert all(hit.marks for hit in hits.values())


def test_no_part_of_a_script_without_spaces_is_found_in_another_order(ledger: SqlLedger) -> None:
    apply(ledger, "x", description="東京")
    assert found(ledger, "京東") == []


def test_secrets_in_a_spec_are_not_indexed_and_a_contract_inside_is(ledger: SqlLedger) -> None:
    contract = {"schema": [{"name": "t", "properties": [{"name": "tail_no", "description": "the plane's"}]}]}
    apply(ledger, "x", password="hunter2", contract=contract)
    assert found(ledger, "hunter2") == []
    assert found(ledger, "column:tail_no") == found(ledger, "plane") == ["x"]


def test_a_very_long_text_is_kept_and_its_beginning_is_found(ledger: SqlLedger) -> None:
    apply(ledger, "x", description="begin " + "word " * 50_000 + "a" * 5000, tags=["t" * 3000])
    assert found(ledger, "begin") == ["x"]
    with ledger.read() as tx:
        (hit,) = tx.search.find("begin").hits
    assert len(hit.snippet) < 200


def test_a_hit_is_plain_values_with_positions_and_no_markup(ledger: SqlLedger) -> None:
    apply(ledger, "late", description="<b>How</b> late a flight & its crew are", owner="user/alice", domain="d")
    with ledger.read() as tx:
        found_page = tx.search.find("late flight").to_dict()
    (hit,) = found_page["items"]
    assert (hit["ref"], hit["kind"], hit["owner"], hit["how"]) == (f"{CASE}/late", CASE, "user/alice", "partly in name")
    assert [hit["snippet"][a:b] for a, b in hit["marks"]] == ["late", "flight"]
    assert hit["snippet"].startswith("<b>How</b>") and hit["name_marks"] == [[0, 4]]
    assert (found_page["next"], found_page["notes"], hit["at"]) == (None, [], "2026-03-01T12:00:00.000000Z")


def test_a_home_made_before_there_was_a_search_gets_its_index_when_it_is_opened(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path / "new")
    apply(opened, "late", description="flights")
    with opened.write("user/a") as tx:
        tx.versions.publish(CASE, "late", "a" * 64, metadata={"schema": {"dep_delay": "Int64"}})
        tx.runs.start("training", "late")
        before = [(h.ref, h.how) for h in tx.search.find("late").hits]
    opened.close()
    old = older_ledger(tmp_path / "old", "0002")
    copy_rows(tmp_path / "new" / "ledger.db", old, "resources", "versions", "runs", "edges", "events", "journal_head")
    opened = open_ledger(tmp_path / "old")
    with opened.read() as tx:
        assert [(h.ref, h.how) for h in tx.search.find("late").hits] == before
        assert {str(h.ref) for h in tx.search.find("column:dep_delay").hits} == {f"{CASE}/late", f"{CASE}/late@1"}
    opened.close()


def test_an_index_cut_by_another_release_is_built_anew(ledger: SqlLedger) -> None:
    from flyball.ledger.sql.reindexing import reindex

    apply(ledger, "late", description="flights")
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM search_text")
        connection.exec_driver_sql("UPDATE search_format SET format = -1")
    assert found(ledger, "late") == []
    reindex(ledger.engine)
    assert found(ledger, "late") == ["late"]


def test_erased_words_are_not_in_the_files_after_compacting(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path)
    with opened.write("user/a") as tx:
        tx.versions.publish(CASE, "x", "a" * 64, metadata={"note": "for Xanthippe"})
        for number in range(50):
            tx.runs.start("training", f"other{number}")
    with opened.write("user/a") as tx:
        tx.versions.rewrite(CASE, "x", 1, "b" * 64, {})
    opened.compact()
    opened.close()
    assert b"xanthippe" not in (tmp_path / "ledger.db").read_bytes().lower()


def test_writers_at_once_leave_one_entry_for_each_thing(ledger: SqlLedger) -> None:
    from flyball.testing.ledger import together

    apply(ledger, "x")

    def act(number: int) -> None:
        with ledger.write("user/a") as tx:
            if number % 2:
                tx.versions.publish(CASE, "x", f"{number:064x}", metadata={"schema": {f"c{number}": "Int64"}})
            else:
                tx.resources.apply(CASE, f"y{number}", {"description": "at once"})

    assert [r for r in together(8, act) if isinstance(r, Exception)] == []
    with ledger.read() as tx:
        everything = [str(h.ref) for h in tx.search.find("", limit=100).hits]
        newest = tx.versions.get(CASE, "x")
        column = next(iter(newest.metadata["schema"]))
        assert len(everything) == len(set(everything)) == 9
        assert {str(h.ref) for h in tx.search.find(f"column:{column}").hits} == {f"{CASE}/x", str(newest.ref)}


# -- pure parts


def test_what_cannot_be_read_is_left_out_with_a_sentence() -> None:
    asked = parse_query("late before:yesterday kind:search-cas tag:", NOW)
    assert [t.words for t in asked.terms] == [("late",)]
    assert "'yesterday' is not a date" in asked.notes[0] and 'did you mean "SearchCase"' in asked.notes[1]
    assert "tag: was left out" in asked.notes[2]
    assert "there is no word in" in parse_query("***", NOW).notes[0]
    assert parse_query("***", NOW).is_hopeless and parse_query("  ", NOW).is_empty


def test_snippets_show_the_words_around_the_first_match() -> None:
    text = "Lorem ipsum " * 40 + "the late flight" + " dolor sit" * 40
    field, extract, marks = snippet([("description", ""), ("notes", text)], [Term(("late",)), Term(("flight",))])
    assert field == "notes" and len(extract) < 190 and extract.startswith("…") and extract.endswith("…")
    assert [extract[a:b] for a, b in marks] == ["late", "flight"]


def test_matches_are_of_the_text_as_it_was_written() -> None:
    text = "Cafe\u0301 in DepDelay and Straße"
    assert [text[a:b] for a, b in match(text, [Term(("cafe",)), Term(("depdelay",)), Term(("strasse",))])] == [
        "Cafe\u0301", "DepDelay", "Straße",
    ]  # fmt: skip
    assert match("aaa", [Term(("a",), is_prefix=True), Term(("aaa",))]) == [(0, 3)]


def test_words_and_places_agree_with_the_text() -> None:
    chance = random.Random(3)
    letters = "aZé東京 _-.ได์😀ßА1½\u0301\n"
    for round in range(400):
        text = "".join(chance.choices(letters if round % 2 else "aZbT1 _-.", k=20))
        for word in words(text):
            assert fold(text[word.start : word.end]) == word.text
            assert not any(c.isspace() for c in word.text)
        assert cut(text) == [word.text for word in words(text)]
