"""The pages over HTTP: every address answers, links lead somewhere, lists are paged, texts stay texts."""

from __future__ import annotations

import html
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from pages_home import HOSTILE, Home, Server, many_runs, served

from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref
from flyball.web.formats import ref_url
from flyball.web.pages import histograms
from flyball.web.pages.figures import thinned
from flyball.web.render import CONTENT_SECURITY_POLICY

LINK = re.compile(r'(?:href|src|hx-get)="(/[^"]*)"')
SAME_PAGE = 4  # addresses of one path with other parameters that the crawl follows
TOP = (
    "/",
    "/runs",
    "/data",
    "/features",
    "/pipelines",
    "/models",
    "/deployments",
    "/monitors",
    "/journal",
    "/settings",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[Home, Server]]:
    with served(tmp_path_factory.mktemp("pages") / "home", shared_data, full=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(site: tuple[Home, Server]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=site[1].url, timeout=60) as found:
        yield found


@pytest.fixture
def home(site: tuple[Home, Server]) -> Home:
    return site[0]


def links(text: str) -> list[str]:
    return [html.unescape(found).partition("#")[0] for found in LINK.findall(text)]


def test_every_link_on_every_page_leads_somewhere(client: httpx2.Client) -> None:
    waiting, seen, by_path, broken = deque([("/", "")]), set(), Counter[str](), []
    while waiting:
        address, source = waiting.popleft()
        path = urlsplit(address).path
        kind = re.sub(r"[0-9a-f]{32}|\d+", "N", path)
        if address in seen or by_path[path] >= SAME_PAGE or by_path[kind] >= 40:
            continue
        seen.add(address)
        by_path.update({path, kind})
        answer = client.get(address)
        if answer.status_code >= 400:
            broken.append(f"{answer.status_code} {address} on {source}")
        if answer.headers["content-type"].startswith("text/html"):
            waiting.extend((found, address) for found in links(answer.text))
    assert broken == []
    assert len(seen) > 120


@pytest.mark.parametrize("path", TOP)
def test_a_page_of_an_empty_home_says_what_belongs_there(empty: httpx2.Client, path: str) -> None:
    answer = empty.get(path)
    assert answer.status_code == 200
    assert 'class="question"' in answer.text
    if path not in ("/settings",):
        assert '<div class="empty">' in answer.text and "<code>" in answer.text


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[httpx2.Client]:
    with (
        served(tmp_path_factory.mktemp("empty") / "home", shared_data, full=False) as (_, server),
        httpx2.Client(base_url=server.url, timeout=60) as found,
    ):
        yield found


def test_a_page_has_the_policy_and_answers_head(client: httpx2.Client) -> None:
    answer = client.head("/models/income")
    assert answer.status_code == 200 and answer.text == ""
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/models/incom", 404, "did you mean"),
        ("/runs/ffffffffffff", 404, "there is no run"),
        ("/nowhere/at/all", 404, "there is no page at /nowhere/at/all"),
        ("/runs?before=yesterday", 400, "go back to the newest runs"),
        ("/journal?before=-1", 400, "expected a whole number"),
        ("/journal/zero", 400, "is not the number of an event"),
        ("/journal/99999", 404, "the journal has no event 99999"),
        ("/monitors/income?feature=agee", 404, "did you mean"),
        ("/monitors/income?window=99", 404, "there is no window 99"),
        ("/quarantine/adult@9", 404, "quarantine/adult"),
        ("/predictions/abc", 404, "holds no prediction"),
        ("/lineage/Model/late", 400, "is not a kind"),
        ("/why/model/nothing", 404, "knows nothing of"),
        ("/deployments/income?range=soon", 400, "not a duration"),
        ("/runs/compare?" + "&".join(f"ref=run/{n}" for n in range(201)), 400, "at most 200"),
    ],
)
def test_an_error_stands_in_the_frame_in_the_platforms_own_sentence(
    client: httpx2.Client, path: str, status: int, sentence: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert sentence in html.unescape(answer.text) and '<nav class="nav"' in answer.text
    assert "Traceback" not in answer.text


def test_the_api_keeps_its_own_errors(client: httpx2.Client) -> None:
    answer = client.get("/api/nothing")
    assert answer.status_code == 404 and answer.json()["error"]


def test_a_hostile_text_is_escaped_on_every_page_that_shows_it(client: httpx2.Client, home: Home) -> None:
    failed = home.platform.runs(status=("failed",), limit=1)[0]
    pipeline = home.platform.runs(kind="pipeline", limit=1)[0]
    pages = [
        "/", "/runs?show=params", f"/runs/{failed.id}", f"/runs/{pipeline.id}", "/data", "/data/adult", "/journal",
        "/pipelines/retrain", "/models/income/3", f"/runs/compare?ref={failed.ref}&ref={pipeline.ref}",
        f"/search?q={HOSTILE}", f"/runs?name={HOSTILE}", f"/card?ref={HOSTILE}", f"/card?ref={failed.ref}",
    ]  # fmt: skip
    for page in pages:
        text = client.get(page).text
        assert "<script>document" not in text and "<img src=x" not in text, page
    assert HOSTILE in html.unescape(client.get(f"/runs/{failed.id}").text)


def test_an_artifact_is_a_download_that_no_browser_runs(client: httpx2.Client, home: Home) -> None:
    run = home.platform.runs(name="fit-income", limit=1)[0]
    answer = client.get(f"/runs/{run.id}/artifact", params={"path": "report.html"})
    assert answer.content == b"<script>alert('artifact')</script>"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    preview = client.get(f"/runs/{run.id}/preview", params={"path": "report.html"}).text
    assert "&lt;script&gt;alert(" in preview and "<script>alert(" not in preview


def test_ten_thousand_runs_are_paged_by_where_the_last_one_stands(client: httpx2.Client, home: Home) -> None:
    many_runs(home.platform, 10_000)
    first = client.get("/runs", params={"name": "sweep-3"})
    assert first.elapsed.total_seconds() < 10  # the machine may be busy; the benchmark measures
    seen: list[str] = []
    address: str | None = "/runs?name=sweep-3"
    while address:
        text = client.get(address).text
        seen += re.findall(r'<td><a class="ref" href="/runs/([0-9a-f]{32})"', text)
        older = re.search(r'rel="next" href="([^"]*)"', text)
        address = html.unescape(older[1]) if older else None
    oracle = [r.id for r in home.platform.runs(name="sweep-3", limit=20_000)]
    assert seen == oracle and len(seen) == len(range(3, 10_000, 7))


def test_the_filters_of_the_runs_stand_in_the_address(client: httpx2.Client) -> None:
    text = client.get("/runs", params={"status": "failed", "kind": "training"}).text
    states = re.findall(r'<span class="state [^"]*">(\w+)</span></td><td><a class="ref" href="/runs/', text)
    assert set(states) == {"failed"}
    assert '<option value="failed" selected>' in text and '<option value="training" selected>' in text


def test_the_journal_says_events_in_sentences_with_their_causes_and_verifies(client: httpx2.Client, home: Home) -> None:
    text = client.get("/journal?action=promoted").text
    event = promoted(home)
    assert "was promoted by its canary" in text and f'href="/journal/{event.cause}"' in text
    one = client.get(f"/journal/{event.seq}").text
    assert f'href="/journal/{event.cause}"' in one and "became champion" in one
    checked = client.get("/journal?verify=1").text
    assert f"Hashes checked: {home.platform.last_event():,} events" in checked


def test_why_tells_the_whole_chain(client: httpx2.Client, home: Home) -> None:
    text = client.get("/why/deployment/income").text
    for event in home.platform.why("deployment/income"):
        assert f'href="/journal/{event.seq}"' in text


def test_lineage_goes_from_the_prediction_to_the_data(client: httpx2.Client) -> None:
    explorer = client.get("/deployments/income/predictions?labelled=yes").text
    address = re.search(r'href="(/predictions/[0-9a-f]+)"', explorer)
    assert address is not None
    prediction = client.get(address[1]).text
    version = re.search(r'data-ref="model/(income@\d)"', prediction)
    assert version is not None and 'data-ref="dataset/adult@1"' in prediction
    lineage = client.get(f"/lineage/model/{version[1]}").text
    assert 'data-ref="dataset/adult@1"' in lineage and 'data-ref="deployment/income"' in lineage


def test_a_prediction_is_explained_on_its_page_when_asked(client: httpx2.Client) -> None:
    explorer = client.get("/deployments/income/predictions").text
    address = re.search(r'href="(/predictions/[0-9a-f]+)"', explorer)
    assert address is not None
    assert "?explain=exactly" in client.get(address[1]).text
    page = client.get(f"{address[1]}?explain=exactly").text
    assert "log-odds" in page and 'class="did"' in page
    bars = re.findall(r'<th scope="row">([^<]+)</th><td class="n">([+-][^<]+)</td>', page)
    sizes = [abs(float(did)) for _, did in bars]
    assert len(bars) > 2 and sizes == sorted(sizes, reverse=True)


def test_the_explorer_filters_and_pages_without_losing_a_row(client: httpx2.Client, home: Home) -> None:
    seen: list[str] = []
    address: str | None = "/deployments/income/predictions?variant=canary"
    while address:
        text = client.get(address).text
        seen += re.findall(r'href="/predictions/([0-9a-f]{32})"', text)
        older = re.search(r'rel="next" href="([^"]*)"', text)
        address = html.unescape(older[1]) if older else None
    rows = home.platform.traffic.frame("income")
    assert seen == rows.filter(rows["variant"] == "canary")["id"].reverse().to_list()


def test_traffic_over_time_adds_up_to_the_whole(client: httpx2.Client) -> None:
    data = client.get("/deployments/income/traffic").json()
    totals = [sum(shares) for shares in zip(*(one["ys"] for one in data["series"]), strict=True)]
    assert totals == pytest.approx([1.0] * len(data["xs"])) and 1 < len(totals) <= 60
    assert {"promoted", "rollout started"} <= {event["label"] for event in data["events"]}


def test_the_monitor_shows_the_reference_beside_the_window(client: httpx2.Client, home: Home) -> None:
    page = client.get("/monitors/income?feature=age").text
    assert "drifting" in page and "fb-hist" in page
    reference = home.platform.monitor_results.reference("income", "income@2")
    assert reference is not None
    assert sum(reference["columns"]["age"]["counts"]) == home.platform.version("dataset/adult@1").metadata["rows"]
    drift = client.get("/monitors/income/drift", params={"version": "income@2", "feature": "age"}).json()
    assert max(drift["series"][0]["ys"]) > drift["lines"][0]["at"]


def test_a_histogram_loses_no_row() -> None:
    numeric = histograms.histogram({"edges": [0.0, 1.0, 3.0], "counts": [1, 5, 6, 2, 3]}, [0, 4, 4, 0, 2])
    assert sum(numeric["reference"]) == 14 and sum(numeric["live"]) == 8
    assert len(numeric["edges"]) == len(numeric["reference"]) + 1
    assert numeric["missing"] == [3 / 17, 2 / 10]
    names = [f"n{k}" for k in range(20)]
    named = histograms.histogram({"names": names, "counts": [2] * 20 + [7, 1]}, None)
    assert named["categories"][-2:] == ["other", "missing"] and sum(named["reference"]) == 48
    assert named["live"] is None


def test_a_thinned_curve_keeps_its_extremes_and_its_end() -> None:
    ys = [0.0] * 100_000
    ys[77_777], ys[12_345] = 9.0, -9.0
    xs, kept = thinned([float(x) for x in range(100_000)], ys)
    assert (
        len(xs) <= 1600 and max(v for v in kept if v is not None) == 9 and min(v for v in kept if v is not None) == -9
    )
    assert xs[-1] == 99_999 and xs == sorted(xs)


def test_a_form_of_another_site_changes_nothing(client: httpx2.Client, home: Home) -> None:
    before = home.platform.last_event()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = client.post("/pipelines/retrain/start", data={"param.depth": "9"}, headers=headers)
        assert answer.status_code == 403
    assert home.platform.last_event() == before


def test_the_start_button_starts_a_run_with_changed_parameters(client: httpx2.Client, home: Home) -> None:
    fields = {"param.depth": "9", "param.name": '"plain"'}
    answer = client.post("/pipelines/retrain/start", data=fields, headers={"Origin": str(client.base_url).rstrip("/")})
    assert answer.status_code == 303
    run = home.platform.run(answer.headers["location"].removeprefix("/runs/"))
    assert run.status == "pending" and dict(run.params) == {"depth": 9, "name": "plain"}


def test_approving_lets_the_waiting_version_on(client: httpx2.Client, home: Home) -> None:
    assert "Approve reviewed@1" in client.get("/models/reviewed").text
    answer = client.post("/models/reviewed/approve", data={"version": "1"})
    assert answer.status_code == 303
    home.settle()
    assert home.platform.aliases("model", "reviewed") == {"champion": 1}
    assert "Approve reviewed@1" not in client.get("/models/reviewed").text


def test_the_roll_back_button_ends_the_rollout(client: httpx2.Client, home: Home) -> None:
    assert "rollout" in home.platform.resource("deployment/income").status
    assert client.post("/deployments/income/rollback").status_code == 303
    assert "rollout" not in home.platform.resource("deployment/income").status
    assert "a person ended it" in client.get("/deployments/income").text


def test_search_finds_names_versions_and_runs(client: httpx2.Client, home: Home) -> None:
    run = home.platform.runs(name="fit-income", limit=1)[0]
    for words, wanted in (
        ("inco", "/models/income"),
        ("income@2", "/models/income/2"),
        (run.id[:10], f"/runs/{run.id}"),
    ):
        found = client.get("/search", params={"q": words}).text.partition('id="found"')[2]
        assert f'href="{wanted}"' in found
    assert "Nothing is called" in client.get("/search", params={"q": "zzz"}).text


@pytest.mark.parametrize(
    "target",
    ["model/income", "model/income@2", "dataset/adult@1", "deployment/income", "monitor/income", "user/alice",
     "quarantine/adult@1", "controller/monitor", "nothing", "model/nothing", "policy/production"],
)  # fmt: skip
def test_a_card_is_a_fragment_whatever_is_asked(client: httpx2.Client, target: str) -> None:
    answer = client.get("/card", params={"ref": target})
    assert answer.status_code == 200 and "<html" not in answer.text and answer.text.strip()


def test_every_kind_of_reference_has_its_address() -> None:
    wanted = {
        "quarantine/adult@1": "/quarantine/adult@1",
        "trigger/retrain": "/pipelines/triggers/retrain",
        "alert/a-b": "/monitors/alerts/a-b",
        "event/12": "/journal/12",
        "controller/monitor": "/journal?actor=controller%2Fmonitor",
    }
    assert {target: ref_url(target) for target in wanted} == wanted


def promoted(home: Home) -> Event:
    return home.platform.events(ref=str(Ref("deployment", "income")), action="promoted", limit=1)[0]
