"""The data pages over HTTP, on real data: what is told, what is hidden, what can be done, and how it fails."""

from __future__ import annotations

import html
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import polars as pl
import pytest
from data_home import DataHome, served_data
from pages_home import HOSTILE, Server

from flyball.data.files import read_file
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref
from flyball.web.formats import ref_url
from flyball.web.pages.batches import batches_of, chart, page_of, standing
from flyball.web.pages.column_lineage import column_graph
from flyball.web.pages.columns import type_text

LINK = re.compile(r'(?:href|src|hx-get)="(/[^"]*)"')
OURS = ("/data", "/datasets", "/quarantine", "/lineage", "/search", "/card")
TOP = ("/data", "/data/products", "/data/labels", "/quarantine")
PAGES = [
    "/data", "/data?q=flights&tag=gold", "/data/flights", "/data/flights?probe=1&uses=1", "/data/flights/4",
    "/data/flights/diff?before=1&after=4", "/data/flights/diff?after=2&by=rows", "/data/flights/profile",
    "/data/flights/profile?column=dep_delay", "/data/flights/profile?column=sched_dep_ts",
    "/data/hospital/profile?column=HospitalName", "/data/flights/profile?version=4&against=1", "/quarantine",
    "/quarantine?state=held", "/quarantine/flights@1", "/quarantine/flights@2", "/quarantine/flights@3",
    "/quarantine/weather@1", "/quarantine/hospital@1?row=25", "/data/products", "/data/products/departures",
    "/data/products/old-weather", "/data/products/planned", "/data/labels", "/data/labels/digit-names",
    "/data/digits/1", "/data/notes", "/data/ratings", "/data/ratings?purpose=research", "/data/recovered/1",
    "/data/weather", "/data/declared-only", "/datasets/products", "/datasets/products/profile?column=gr%C3%B6%C3%9Fe",
    "/lineage/dataset/recovered@1?columns=1&indirect=1", "/lineage/external/public.late_report-c7c4add0@1",
    "/search?q=late", "/search?q=kind:dataset",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[DataHome, Server]]:
    with served_data(tmp_path_factory.mktemp("data") / "home", shared_data) as running:
        yield running


@pytest.fixture(scope="module")
def client(site: tuple[DataHome, Server]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=site[1].url, timeout=60) as found:
        yield found


@pytest.fixture
def home(site: tuple[DataHome, Server]) -> DataHome:
    return site[0]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[httpx2.Client]:
    with (
        served_data(tmp_path_factory.mktemp("empty") / "home", shared_data, full=False) as (_, server),
        httpx2.Client(base_url=server.url, timeout=60) as found,
    ):
        yield found


@pytest.fixture
def viewer(home: DataHome) -> Iterator[httpx2.Client]:
    """The pages as somebody sees them who may only look."""
    server = Server(home.platform.as_(Principal("user/guest", "viewer")))
    try:
        with httpx2.Client(base_url=server.url, timeout=60) as found:
            yield found
    finally:
        server.close()


def text_of(client: httpx2.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[-2000:]
    return html.unescape(answer.text)


def words_of(client: httpx2.Client, path: str) -> str:
    """What a reader sees, without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", text_of(client, path)).split())


@pytest.mark.parametrize("path", PAGES)
def test_a_page_answers_its_question_and_keeps_hostile_texts_texts(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert re.search(r'<p class="question">[^<]+\?</p>', answer.text)
    assert "<script>document" not in answer.text and "<img src=x" not in answer.text
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.text)


def test_every_link_on_the_data_pages_leads_somewhere(client: httpx2.Client) -> None:
    waiting, seen, kinds, broken = deque((p, "") for p in PAGES), set(), Counter[str](), []
    while waiting:
        address, source = waiting.popleft()
        path = urlsplit(address).path
        kind = re.sub(r"[0-9a-f]{32}|\d+", "N", path)
        if address in seen or not path.startswith(OURS) or kinds[kind] >= 4:
            continue
        seen.add(address)
        kinds[kind] += 1
        answer = client.get(address)
        if answer.status_code >= 400:
            broken.append(f"{answer.status_code} {address} on {source}")
        if answer.headers["content-type"].startswith("text/html"):
            waiting.extend((html.unescape(f).partition("#")[0], address) for f in LINK.findall(answer.text))
    assert broken == [] and len(seen) > 70


@pytest.mark.parametrize("path", TOP)
def test_an_empty_home_says_what_belongs_there_and_the_line_that_puts_it_there(empty: httpx2.Client, path: str) -> None:
    answer = empty.get(path)
    assert answer.status_code == 200 and '<div class="empty">' in answer.text and "<code>" in answer.text


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/data/flihts", 404, "did you mean"),
        ("/data/flights/99", 404, "flights"),
        ("/data/flights/diff?before=1&after=77", 404, "77"),
        ("/data/airlines/diff", 404, "there is none before it"),
        ("/data/flights/profile?column=dep_dela", 404, 'did you mean "dep_delay"'),
        ("/data/flights/profile?against=x y", 400, "x y"),
        ("/data/flights?before=minus", 400, "expected a whole number"),
        ("/data/flights/4?row=-3", 400, "expected a whole number"),
        ("/quarantine?state=lost", 400, "there is no state"),
        ("/quarantine/flights@9", 404, "quarantine/flights"),
        ("/data/products/nothing", 404, "nothing"),
        ("/data/labels/nothing", 404, "nothing"),
        ("/data/digits/1/files/400", 404, "it has 400, counted from 0"),
        ("/data/digits/1/files/-1", 400, "is not the number of a row"),
        ("/data/flights/4/files/0", 404, "is not a table of files"),
        ("/data/notes/1/files/1", 400, "application/octet-stream is not a format that pages show"),
        ("/data/ratings/1/files/0", 404, "is not a table of files"),
        ("/data?after=nonsense", 400, "nonsense"),
    ],
)
def test_an_error_stands_in_the_frame(client: httpx2.Client, path: str, status: int, sentence: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert sentence in html.unescape(answer.text) and '<nav class="nav"' in answer.text


def test_the_catalogue_finds_by_words_columns_and_facets(client: httpx2.Client) -> None:
    def names(query: str) -> set[str]:
        found = re.findall(r'<td class="lead"><a class="ref" href="[^"]*" data-ref="([^"]*)"', client.get(query).text)
        return set(found)

    assert {"dataset/flights", "data-product/departures", "labels/digit-names"} <= names("/data")
    assert "policy/tails" not in names("/data") and "model/sky" not in names("/data")
    assert names("/data?column=dep_delay") == {"dataset/flights"}
    assert names("/data?kind=data-product&domain=weather") == {"data-product/old-weather"}
    assert names("/data?owner=team/flights&kind=dataset") == {"dataset/flights", "dataset/airlines"}
    assert names("/data?q=wing*") == set() and "No data is like this." in text_of(client, "/data?q=wing*")
    assert names('/data?q="minutes were"') == {"dataset/recovered"}
    page = text_of(client, "/data?tag=gold")
    assert 'aria-current="true"><span>gold</span>' in page and "<mark>" not in page
    assert "<mark>minutes</mark>" in text_of(client, "/data?q=minutes")


def test_a_dataset_is_in_the_state_of_its_newest_batch(home: DataHome) -> None:
    at = home.platform
    words = {
        name: standing(batches_of(at, name)) for name in ("flights", "weather", "hospital", "notes", "declared-only")
    }
    assert words == {
        "flights": "passed", "weather": "split", "hospital": "quarantined", "notes": "not checked",
        "declared-only": "declared",
    }  # fmt: skip
    assert [b.word for b in batches_of(at, "flights")] == [
        "passed", "passed", "held", "fixed", "dropped", "passed", "passed"
    ]  # fmt: skip


def test_the_history_of_a_contract_is_the_share_of_rows_that_broke_it_with_a_mark_a_batch(home: DataHome) -> None:
    drawn = chart(batches_of(home.platform, "weather"))
    reports = [v.metadata["contract"] for v in reversed(home.platform.versions("dataset", "weather"))]
    assert drawn["series"][0]["ys"] == [100 * r["rows_failed"] / r["rows"] for r in reports]
    assert [event["label"] for event in drawn["events"]] == ["weather@2 split"]
    assert drawn["events"][0]["href"] == "/data/weather/2" and "origin.enum" in drawn["events"][0]["reason"]


def test_a_page_of_a_dataset_says_what_is_known_of_it(client: httpx2.Client) -> None:
    text = words_of(client, "/data/flights")
    for said in (
        "19,500", "567 kB", "team/flights", "operations", "gold", "flight_id", "1 batch waits in quarantine",
        "18 of 19 rules passed", "19 rules hold for the next batch: flights 2.1.0", "tailnum is redacted, by",
        "the aircraft", "departures", "queried by", "fixed from", "an export that was cut off",
    ):  # fmt: skip
        assert said in text, said
    assert "is deprecated: the station closes; use dataset/flights" in words_of(client, "/data/weather")
    assert "is deprecated: the station closes; use dataset/flights" in words_of(client, "/models/sky")
    assert "No contract guards this table" in text_of(client, "/data/notes")
    assert "No version was published." in text_of(client, "/data/declared-only")


def test_columns_stand_in_the_tables_order_with_what_people_know_of_them(client: httpx2.Client, home: DataHome) -> None:
    text = client.get("/data/flights/1").text
    columns = re.findall(r'column=(\w+)">\1</a></th>', text)
    assert columns == home.platform.frame("flights@1").collect_schema().names()


def test_a_source_is_looked_at_when_somebody_asks(client: httpx2.Client) -> None:
    assert "answered" not in words_of(client, "/data/flights")
    assert "answered; 22 columns" in words_of(client, "/data/flights?probe=1")


def test_hidden_columns_are_hidden_on_every_page_that_shows_values(client: httpx2.Client, home: DataHome) -> None:
    tails = home.platform.datasets.frame("flights", 1).select("tailnum").drop_nulls().unique().collect()["tailnum"]
    pages = [
        "/data/flights", "/data/flights/1", "/data/flights/diff?before=1&after=4", "/data/flights/diff?by=rows",
        "/data/flights/profile?column=tailnum", "/data/flights/profile?against=1&column=tailnum",
        "/quarantine/flights@1", "/quarantine/flights@1?all=1", "/data/flights/profile",
    ]  # fmt: skip
    known = {t for t in tails if len(t) > 4}
    for page in pages:
        shown = set(re.findall(r"\bN\d{2,3}[A-Z]{2}\b|\bN\d{5}\b", client.get(page).text))
        assert not shown & known, page
    assert "Its values are not shown to you: redact, by policy/tails" in words_of(
        client, "/data/flights/profile?column=tailnum"
    )


def test_what_may_be_read_for_a_purpose_only_is_shown_for_it_only(client: httpx2.Client, home: DataHome) -> None:
    for path in ("/data/ratings", "/data/ratings/1", "/data/ratings/profile", "/data/ratings?purpose=fun"):
        text = text_of(client, path)
        assert "may be read" in text or "does not allow" in text
        assert '<svg class="bars"' not in text and "3.5016" not in text, path
    shown = text_of(client, "/data/ratings?purpose=research")
    assert '<svg class="bars"' in shown and "3.50 ± 1.04" in shown
    first = home.platform.frame("ratings", purpose="research").head(1).collect().row(0)
    assert f'<td class="num">{first[3]}</td>' in shown


def test_a_profile_tells_figures_that_the_rows_have(client: httpx2.Client, home: DataHome) -> None:
    rows = home.platform.datasets.frame("flights", 4).collect()
    delay = rows["dep_delay"].drop_nulls()
    text = words_of(client, "/data/flights/profile?column=dep_delay")
    assert f"Greatest {delay.max():,}" in text and f"Missing {rows['dep_delay'].null_count()}" in text
    assert f"50 % {delay.median():.1f}" in text and f"Mean {delay.mean():.1f}" in text
    assert "Columns that go together" in text and "Pearson" not in text.replace("pearson", "")
    times = words_of(client, "/data/flights/profile?column=sched_dep_ts")
    assert "Stretches without rows" in times and "Hours of the week" in times
    names = words_of(client, "/data/hospital/profile?column=HospitalName")
    assert "Commonest values" in names and "Length in characters" in names


def test_a_version_without_a_profile_gets_one_where_it_is_small_and_says_so_where_it_is_not(
    client: httpx2.Client, home: DataHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyball.web.pages import columns

    monkeypatch.setattr(type(home.platform.datasets), "summary", lambda *_a, **_k: None)
    assert '<svg class="bars"' in client.get("/data/airlines").text
    monkeypatch.setattr(columns, "_PROFILED_NOW", 10)
    text = text_of(client, "/data/airlines")
    assert "was published without a profile" in text and '<svg class="bars"' not in text


def test_two_profiles_stand_side_by_side_with_the_statistic_beside_the_outlines(client: httpx2.Client) -> None:
    text = text_of(client, "/data/flights/profile?version=4&against=1")
    assert text.index(">dep_delay</h2>") < text.index(">Columns</h2>")
    data = re.search(r'<fb-hist label="dep_delay in flights@1 and flights@4".*?</fb-hist>', text, re.S)
    assert data and '"reference_name":"flights@1"' in data[0] and '"verdict":"another"' in data[0]
    assert "gate" in words_of(client, "/data/flights/profile?version=4&against=1")


def test_a_difference_shows_columns_rows_by_key_and_old_and_new_values(client: httpx2.Client, home: DataHome) -> None:
    made = home.platform.diff("flights", 1, 4)
    text = words_of(client, "/data/flights/diff?before=1&after=4")
    assert f"Removed {made.removed:,}" in text and f"Changed {made.changed:,}" in text
    assert "Rows are paired by flight_id" in text
    assert "gate added String" in text and "distance other type Int32 Float64" in text
    old = home.platform.frame("flights@1").filter(pl.col("flight_id") == 0).collect()["dep_delay"][0]
    assert f"flight_id 0 dep_delay {old} {old + 30}" in text
    assert "Rows are compared as wholes" in words_of(client, "/data/flights/diff?after=2&by=rows")


def test_a_table_that_is_too_large_is_compared_row_by_row_only_when_asked(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyball.web.pages import diffs

    monkeypatch.setattr(diffs, "_ROWS_AT_ONCE", 1000)
    text = words_of(client, "/data/flights/diff?before=1&after=4")
    assert "not compared" in text and "Rows before" not in text and "Distributions" in text
    assert "Rows before" in words_of(client, "/data/flights/diff?before=1&after=4&rows=1")


def test_quarantine_lists_batches_and_shows_the_rows_that_fail_with_the_rule(client: httpx2.Client) -> None:
    states = re.findall(
        r'<span class="state tone-\w+">(\w+)</span></td><td class="num">', client.get("/quarantine").text
    )
    assert Counter(states) == {"held": 3, "fixed": 1, "dropped": 1}
    text = client.get("/quarantine/flights@1").text
    assert '<th scope="row" class="mono" title="origin.enum, distance.range">' in text
    assert '<td class=" here">ZZZ</td>' in text and "240 rows broke one" in words_of(client, "/quarantine/flights@1")
    gone = words_of(client, "/quarantine/flights@3")
    assert "were dropped by" in gone and "an export that was cut off" in gone and "Drop its rows" not in gone


def test_only_whoever_may_is_offered_the_acts(viewer: httpx2.Client) -> None:
    text = text_of(viewer, "/quarantine/flights@1")
    assert "You are viewer" in text and 'method="post"' not in text
    assert 'method="post"' not in text_of(viewer, "/data/products/departures")
    refused = viewer.post("/quarantine/flights@1/release", data={"reason": "because I like it"})
    assert refused.status_code == 403 and "user/guest is viewer and may not approve" in html.unescape(refused.text)


def test_a_form_of_another_site_does_nothing(client: httpx2.Client, home: DataHome) -> None:
    answer = client.post(
        "/quarantine/flights@1/drop", data={"reason": "gone for good"}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 403 and home.platform.quarantine.get("flights", 1).state == "held"


@pytest.mark.parametrize(
    ("act", "fields", "status", "sentence"),
    [
        ("release", {"reason": ""}, 400, "a reason is needed"),
        ("drop", {"reason": "!!!"}, 400, "a reason is needed"),
        ("fix", {}, 400, "nothing is corrected"),
        ("fix", {"column0": "distance"}, 400, "no expression is given"),
        ("fix", {"expression1": "abs(distance)"}, 400, "no column is chosen"),
        ("fix", {"column0": "distance", "expression0": "abs(", "reason": "x"}, 400, "is no SQL expression"),
        ("fix", {"column0": "a", "expression0": "1", "column1": "a", "expression1": "2"}, 400, "corrected twice"),
        ("fix", {"column0": "distence", "expression0": "1"}, 400, "did you mean"),
        ("fix", {"column0": "distance", "expression0": "abs(distance)"}, 400, "still breaks"),
    ],
)
def test_a_wrong_act_is_refused_in_a_sentence_and_the_batch_is_held_as_it_was(
    client: httpx2.Client, home: DataHome, act: str, fields: dict[str, str], status: int, sentence: str
) -> None:
    answer = client.post(f"/quarantine/flights@1/{act}", data=fields)
    assert answer.status_code == status and sentence in html.unescape(answer.text)
    assert home.platform.quarantine.get("flights", 1).state == "held"


def test_a_batch_is_fixed_released_and_dropped_from_its_page(client: httpx2.Client, home: DataHome) -> None:
    at = home.platform
    drifted = client.post("/quarantine/flights@1/fix", data={"column0": "origin", "expression0": "'EWR'"})
    assert drifted.status_code == 400
    at.publish("flights", at.datasets.frame("flights", 1))  # with the columns that the batch has
    fix = {"column0": "distance", "expression0": "abs(distance)", "column1": "origin", "expression1": "'EWR'"}
    fixed = client.post("/quarantine/flights@1/fix", data={**fix, "reason": "signs were lost"})
    newest = at.versions("dataset", "flights", limit=1)[0]
    assert fixed.status_code == 303 and fixed.headers["location"] == f"/data/flights/{newest.number}"
    assert at.quarantine.get("flights", 1).outcome == str(newest.ref)
    released = client.post("/quarantine/hospital@1/release", data={"reason": "the best there is"})
    assert released.status_code == 303
    page = words_of(client, released.headers["location"])
    assert "released from quarantine/hospital@1: the best there is" in page
    again = client.post("/quarantine/hospital@1/drop", data={"reason": "never mind"})
    assert again.status_code == 409 and "was released by" in html.unescape(again.text)
    dropped = client.post("/quarantine/weather@1/drop", data={"reason": "a broken station"})
    assert dropped.headers["location"] == "/quarantine/weather@1"
    assert at.quarantine.get("weather", 1).state == "dropped"


def test_a_product_shows_its_promises_and_what_is_not_measured_is_grey(client: httpx2.Client) -> None:
    text = client.get("/data/products/departures").text
    assert text.count('<span class="state tone-unknown">not measured</span>') == 3
    assert '<span class="state tone-bad">broken</span>' in text and '<span class="state tone-ok">kept</span>' in text
    assert "the port names no dataset of this home" in text
    listed = words_of(client, "/data/products")
    assert "Departures of New York" in listed and "promises nothing" in listed


def test_a_product_is_moved_on_from_its_page_and_its_dependents_are_told(client: httpx2.Client, home: DataHome) -> None:
    url = "/data/products/departures"
    wrong = client.post(f"{url}/advance", data={"stage": "deprecated"})
    assert wrong.status_code == 400 and "without a reason" in html.unescape(wrong.text)
    assert client.post(f"{url}/advance", data={"stage": "proposed"}).status_code == 409
    fields = {
        "stage": "deprecated",
        "reason": "a new feed",
        "replaced_by": "dataset/weather",
        "retires_on": "2099-01-01",
    }
    assert client.post(f"{url}/advance", data=fields).headers["location"] == url
    assert home.platform.products.stage("departures") == "deprecated"
    assert "a new feed Use dataset/weather instead. It goes on 2099-01-01." in words_of(client, url)
    assert "departures is deprecated, to be retired on 2099-01-01: a new feed" in words_of(client, "/data/flights")


def test_labels_show_agreement_with_intervals_and_what_is_disputed_first(client: httpx2.Client, home: DataHome) -> None:
    found = home.platform.label_sets.agreement("digit-names")
    text = words_of(client, "/data/labels/digit-names")
    assert found.alpha and f"{found.alpha.value:.3f} [{found.alpha.low:.3f}, {found.alpha.high:.3f}]" in text
    assert "needs equally many labels an item" in text and "1 × 7, 1 × 8" in text
    assert text.index("unresolved") < text.index("unlabelled")
    second = text_of(client, "/data/labels/digit-names?page=2")
    assert re.search(r"26–50", second)


def test_an_image_is_sent_as_it_was_taken_in_and_in_a_sandbox(client: httpx2.Client, home: DataHome) -> None:
    row = home.platform.frame("digits").slice(7, 1).collect().row(0, named=True)
    answer = client.get("/data/digits/1/files/7")
    assert answer.content == read_file(row, home.platform.blobs) and answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    page = client.get("/data/digits/1?row=375").text
    assert page.count("<img ") == 25 + 1 and 'src="/data/digits/1/files/399"' in page


def test_texts_are_sent_as_plain_text_whatever_they_hold(client: httpx2.Client, home: DataHome) -> None:
    paths = home.platform.frame("notes").collect()["path"].to_list()
    for path in ("page.html", "picture.svg", "late.txt", "日本語.txt"):
        answer = client.get(f"/data/notes/1/files/{paths.index(path)}")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("sandbox")
    assert client.get(f"/data/notes/1/files/{paths.index('late.txt')}").text == HOSTILE
    page = text_of(client, "/data/notes")
    assert "飛行機が遅れています" in page and "Grüße.txt" in page


def test_a_file_is_not_sent_where_a_column_is_hidden(client: httpx2.Client, home: DataHome) -> None:
    mask = {"columns": ["label"], "how": "redact"}
    home.platform.declare("Policy", "secret-digits", applies_to={"datasets": ["digits"]}, mask=[mask])
    try:
        answer = client.get("/data/digits/1/files/7")
        assert answer.status_code == 403 and "label is hidden (redact, by policy/secret-digits)" in answer.text
        page = client.get("/data/digits/1").text
        assert page.count("<img ") == 1 and "label is hidden" in page
    finally:
        home.platform.delete("policy/secret-digits")


def test_a_dataset_called_like_one_of_our_pages_stands_beside_them(client: httpx2.Client) -> None:
    assert ref_url("dataset/products@1") == "/datasets/products/1"
    text = text_of(client, "/datasets/products")
    assert "größe" in text and "名前" in text and "a%20b%2Fc%3Fd" in text
    assert "Data products" in text_of(client, "/data/products")
    assert "a b/c?d" in words_of(client, "/datasets/products/profile?column=a%20b%2Fc%3Fd")


def test_lineage_shows_what_others_told_under_their_own_names(client: httpx2.Client, home: DataHome) -> None:
    external = next(v for v in home.platform.versions("external") if v.metadata["name"] == "public.late_report")
    text = text_of(client, ref_url(external.ref))
    assert "postgres://db:5432" in text and '"label":"public.late_report"' in text and '"label":"daily.report"' in text
    fixed = text_of(client, "/lineage/quarantine/flights@2")
    assert '"label":"fixed from"' in fixed


def test_lineage_by_column_follows_queries(home: DataHome, client: httpx2.Client) -> None:
    made = Ref("dataset", "recovered", "1")
    columns = home.platform.version(made).metadata["columns"]
    drawn = column_graph(home.platform, made, None, indirect=True)
    pairs = {(e["from"], e["to"]) for e in drawn["edges"]}
    assert pairs == {(f"{s}#{c}", f"{made}#{name}") for name, of in columns.items() for s, c, _ in of}
    direct = column_graph(home.platform, made, "dest", indirect=False)
    assert [n["id"] for n in direct["nodes"]] == ["dataset/flights@4#dest", f"{made}#dest"]
    down = column_graph(home.platform, Ref("dataset", "flights", "4"), "dest", indirect=False)
    assert [n["id"] for n in down["nodes"]] == [n["id"] for n in direct["nodes"]]
    assert "joins and filters" in text_of(client, f"/lineage/{made}?columns=1")


def test_search_ranks_names_first_marks_words_and_helps_while_one_types(client: httpx2.Client) -> None:
    text = client.get("/search?q=flights").text
    assert re.search(r'id="found".*?<a href="/data/flights">.*?<mark>flights</mark>', text, re.S)
    assert "/data/flights" not in client.get("/search?q=fligh").text.partition('id="found"')[0]
    assert "begin so" in client.get("/search?q=fligh").text
    typed = client.get("/search?q=fligh", headers={"HX-Request": "true"}).text
    assert '<a href="/data/flights">' in typed
    assert 'href="/data/flights/2"' in client.get("/search?q=flights@2").text
    assert "is unknown" in text_of(client, "/search?q=is:thing") or "known" in text_of(client, "/search?q=kind:datset")
    assert client.get("/search", params={"q": HOSTILE}).status_code == 200


def test_search_is_paged(client: httpx2.Client) -> None:
    first = client.get("/search?q=is:version").text
    onwards = re.search(r'rel="next" href="([^"]*)"', first)
    if onwards:
        assert client.get(html.unescape(onwards[1])).status_code == 200


def test_versions_are_paged_by_number(home: DataHome) -> None:
    at = home.platform
    at.declare("Dataset", "many")
    for number in range(7):
        at.publish("many", pl.DataFrame({"n": [number]}))
    seen, before = [], None
    for _ in range(10):
        found, before = page_of(at, "dataset", "many", before, 3)
        seen += [v.number for v in found]
        if before is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_a_deleted_dataset_leaves_versions_whose_pages_still_answer(client: httpx2.Client, home: DataHome) -> None:
    at = home.platform
    at.declare("Dataset", "gone", description="soon deleted")
    at.publish("gone", pl.DataFrame({"a": [1, 2]}))
    at.delete("dataset/gone")
    assert client.get("/data/gone/1").status_code == 200
    assert client.get("/data/gone").status_code == 404
    assert client.get("/lineage/dataset/gone@1").status_code == 200


def test_a_contract_that_is_not_there_any_more_hides_rows_and_says_so(client: httpx2.Client, home: DataHome) -> None:
    at = home.platform
    path = at.project / "gone.odcs.yaml"
    path.write_text("apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nstatus: active\n"
                    "schema: [{name: x, properties: [{name: a, logicalType: integer, required: true}]}]\n")  # fmt: skip
    at.declare("Dataset", "guarded", contract="gone.odcs.yaml")
    at.publish("guarded", pl.DataFrame({"a": [123457, 123458]}))
    path.unlink()
    text = text_of(client, "/data/guarded")
    assert "what may be seen cannot be decided" in text and "123457" not in text


def test_a_type_reads_as_people_say_it() -> None:
    assert type_text("Datetime(time_unit='us', time_zone='UTC')") == "Datetime UTC"
    assert type_text("List(Duration(time_unit='ms'))") == "List(Duration)"
    assert type_text("Struct({'a': Int64})") == "Struct({'a': Int64})"


def test_the_catalogue_is_paged_by_where_the_last_entry_stands(tmp_path: Path, shared_data: Path) -> None:
    with served_data(tmp_path / "many", shared_data, full=False) as (home, server):
        for number in range(60):
            home.platform.declare("Dataset", f"table-{number:03d}", tags=["even" if number % 2 == 0 else "odd"])
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            seen: list[str] = []
            address: str | None = "/data?tag=even"
            while address:
                text = client.get(address).text
                seen += re.findall(r'data-ref="dataset/([^"]*)"', text)
                onwards = re.search(r'rel="next" href="([^"]*)"', text)
                address = html.unescape(onwards[1]) if onwards else None
    assert sorted(seen) == [f"table-{n:03d}" for n in range(0, 60, 2)] and len(set(seen)) == 30
