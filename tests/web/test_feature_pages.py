"""The feature pages over HTTP and in Chromium: what they say of real flights, for whom, and with a thousand views."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from features_home import FeatureHome, many_views, served_features
from pages_home import HOSTILE, Server
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PAGES = [
    "/features", "/features?q=tailnum&state=fresh", "/features?q=zebra", "/features?tag=gold",
    "/features/previous_leg?feature=previous_delay&compare=1", "/features/previous_leg/1",
    "/features/departures?compare=1",
    "/features/weather_then", "/features/when", "/features/broken", "/features/last_delay",
    "/feature-services/late", "/feature-services/late-before",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[FeatureHome, Server]]:
    with served_features(tmp_path_factory.mktemp("features"), shared_data) as running:
        yield running


@pytest.fixture(scope="module")
def client(site: tuple[FeatureHome, Server]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=site[1].url, timeout=60) as found:
        yield found


def words(page: httpx2.Response) -> str:
    """Return the text of a page's content, with single spaces."""
    assert page.status_code == 200, page.text[:500]
    body = page.text.partition("<main")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_list_says_of_each_view_how_it_stands_and_who_uses_it(client: httpx2.Client) -> None:
    text = words(client.get("/features"))
    assert "departures gold How many flights left the airport" in text
    for state in ("failed", "disagrees", "deprecated", "fresh", "in the request"):
        assert state in text
    assert "previous_leg@1 departures@1 deployment/late team/flights" in text
    assert "weather_then@1 moved on" in text


def test_the_list_is_narrowed_by_words_state_owner_and_tag(client: httpx2.Client) -> None:
    def found(query: str) -> list[str]:
        page = client.get(f"/features?{query}").text
        return re.findall(r'data-ref="feature-view/(\w+)"[^>]*><svg', page.partition("Feature services")[0])

    assert found("q=origin") == ["departures", "weather_then"]
    assert found("q=tailnum+previous") == ["last_delay", "previous_leg"]
    assert found("state=failed") == ["broken"]
    assert found("owner=user/alice") == ["last_delay"]
    assert found("tag=aircraft") == ["previous_leg"]
    assert found("tag=aircraft&state=stale") == []
    assert "No view is like this." in words(client.get("/features?q=zebra"))


def test_a_view_shows_figures_features_origin_versions_runs_and_users(client: httpx2.Client) -> None:
    text = words(client.get("/features/previous_leg"))
    assert "Same online as stored 100 % [100, 100] 1,000 entities" in text
    assert "time to live 14 d" in text
    assert re.search(r"previous_delay float64 .* 0 % 0 % 100 % 0.0 arr_delay by arr_ts, tailnum", text)
    assert 'def previous_leg(flown: pl.LazyFrame) -> pl.LazyFrame: """How late' in text
    assert "previous_leg@3" in text and "pushes folded in 3" in text and "stored, new rows" in text
    assert "deployment/late serves model/late through feature-service/late" in text
    assert "every 10m, and with each version of its data" in text


def test_a_late_feed_is_served_as_it_is_known(client: httpx2.Client) -> None:
    text = words(client.get("/features/weather_then"))
    assert "weather_then fresh" in text and "Same online as stored 100 %" in text


def test_what_differs_online_is_told_with_examples_when_asked_for(client: httpx2.Client) -> None:
    text = words(client.get("/features/departures"))
    assert "66.7% [20.8%, 93.9%] of 3 entities are the same online as stored, departures_1h the least" in text
    assert "EWR" not in text
    compared = words(client.get("/features/departures?compare=1"))
    assert re.search(r"Entities that differ .* departures_1h EWR 999", compared)


def test_the_overview_tells_which_views_are_wrong(client: httpx2.Client) -> None:
    text = words(client.get("/"))
    assert (
        "disagrees feature-view/departures : 66.7%" in text and "failed feature-view/broken : the view broken" in text
    )
    assert "feature-view/previous_leg :" not in text


def test_columns_hidden_from_the_reader_are_hidden_here_too(
    site: tuple[FeatureHome, Server], client: httpx2.Client
) -> None:
    """`flown_by` is made of `carrier`, which is confidential: viewers see no value of it, by its lineage."""
    viewer = site[0].as_viewer()
    assert set(viewer.view_masks("previous_leg")) == {"flown_by"}
    assert site[0].platform.view_masks("previous_leg") == {}
    shown = viewer.look_up(["previous_leg"], {"tailnum": "N14228"})
    assert shown["flown_by"] != ["UA"] and shown["previous_delay"] == [0.0]
    site[0].platform.push("previous_leg", {"tailnum": "N14228", "arr_ts": site[0].clock.now(), "previous_delay": 1.0,
                                           "flown_by": "ZZ", "was_far": False})  # fmt: skip
    mine = site[0].platform.agreement("previous_leg", sample=5_000)
    theirs = viewer.agreement("previous_leg", sample=5_000)
    assert {e["online"] for e in mine.features["flown_by"].examples} == {"ZZ"}
    assert {e["online"] for e in theirs.features["flown_by"].examples} == {"•••"}
    server = Server(viewer)
    try:
        with httpx2.Client(base_url=server.url, timeout=60) as visitor:
            text = words(visitor.get("/features/previous_leg?compare=1"))
            assert "hidden" in text and "Hidden from you: flown_by." in text and "UA 1" not in text
            assert "Deprecate" not in text
            form = {"reason": "I want it gone"}
            assert visitor.post("/features/previous_leg/deprecate", data=form).status_code == 403
    finally:
        server.close()
    assert "UA 1" in words(client.get("/features/previous_leg"))


def test_an_ending_view_says_why_and_what_to_use_and_a_form_ends_it(client: httpx2.Client) -> None:
    text = words(client.get("/features/last_delay"))
    assert "It counts cancelled flights too. Use previous_leg instead." in text
    done = client.post(
        "/features/last_delay/retire", data={"reason": "Nobody trains with it.", "successor": "previous_leg"}
    )
    assert done.status_code == 303
    assert "retired Nobody trains with it. Use previous_leg instead." in words(client.get("/features/last_delay"))
    refused = client.post("/features/previous_leg/retire", data={"reason": "gone"})
    assert refused.status_code == 409 and "is looked up by deployment/late" in html.unescape(refused.text)
    assert client.post("/features/previous_leg/deprecate", data={"reason": " "}).status_code == 400


def test_a_failed_view_shows_its_error_and_hostile_text_stays_text(client: httpx2.Client) -> None:
    page = client.get("/features/broken")
    assert "unable to find column" in words(page) and HOSTILE not in page.text
    assert "Kept up to date every 1h, and with each version of its data" in words(page)
    assert client.get("/features/nowhere").status_code == 404
    assert client.get("/features/previous_leg/99").status_code == 404
    assert client.get("/feature-services/nowhere").status_code == 404


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (400, "dark")])
def test_no_page_complains_or_is_wider_than_its_window(
    site: tuple[FeatureHome, Server], width: int, scheme: str
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for path in PAGES:
            page.goto(site[1].url + path)
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(over) == 0, path
            assert page.title().endswith(" · Flyball") and page.title() != "taken"
            assert page.locator(".question").inner_text().endswith("?"), path
        assert complaints == []
        browser.close()


def test_an_empty_home_says_what_belongs_here(tmp_path: Path, shared_data: Path) -> None:
    with (
        served_features(tmp_path, shared_data, full=False) as (_, server),
        httpx2.Client(base_url=server.url) as client,
    ):
        assert "one definition for training and for serving" in words(client.get("/features"))


def test_a_thousand_views_are_paged_and_narrowed(tmp_path: Path, shared_data: Path) -> None:
    with served_features(tmp_path, shared_data, full=False) as (home, server):
        many_views(home.platform, 1_000)
        with httpx2.Client(base_url=server.url, timeout=120) as client:
            page = client.get("/features?page=20")
            assert "view_00950" in page.text and "view_00949" not in page.text
            assert "951–1,000 of 1,000" in words(page)
            assert "1–50 of 143" in words(client.get("/features?owner=team/3"))
            assert "1–1 of 1" in words(client.get("/features?q=view_00042"))
