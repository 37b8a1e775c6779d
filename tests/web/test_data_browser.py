"""The data pages in real Chromium: no complaint, no overflow, charts drawn, acts that work, updates by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from data_home import DataHome, served_data
from pages_home import Server
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_browser import CHROMIUM, FLAGS, WAIT_MS, Visit

LOOKED_AT = [
    "/data?q=flights&tag=gold", "/data/flights?probe=1", "/data/flights/4", "/data/flights/diff?before=1&after=4",
    "/data/flights/profile?column=sched_dep_ts", "/data/flights/profile?version=4&against=1", "/quarantine",
    "/quarantine/hospital@1", "/data/products", "/data/products/departures", "/data/labels/digit-names", "/data/notes",
    "/data/ratings", "/data/recovered/1", "/data/declared-only", "/datasets/products",
    "/lineage/dataset/recovered@1?columns=1", "/search?q=late",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[DataHome, Server]]:
    with served_data(tmp_path_factory.mktemp("databrowser") / "home", shared_data) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, site: tuple[DataHome, Server]) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    yield Visit(page, site[1].url)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (400, "dark")])
def test_no_data_page_complains_or_is_wider_than_its_window(
    browser: Browser, site: tuple[DataHome, Server], width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    visit, wide = Visit(page, site[1].url), []
    for path in LOOKED_AT:
        visit.open(path)
        over = visit.overflow()
        if over:
            wide.append(f"{path} is {over} px wider than {width} px")
    assert wide == [] and visit.complaints == []
    page.close()


def test_charts_of_data_are_drawn_with_their_tables_behind_them(visit: Visit) -> None:
    page = visit.open("/data/flights/profile?column=sched_dep_ts")
    expect(page.locator("fb-hist svg")).to_be_visible()
    expect(page.locator("fb-hist svg text").first).to_contain_text("2013")
    page.locator("fb-hist summary").click()
    expect(page.locator("fb-hist table tbody tr").first).to_contain_text("2013")
    page = visit.open("/data/flights/profile?against=1")
    first = page.locator("fb-hist").first
    expect(first.locator(".fb-statistic")).to_contain_text("PSI")
    expect(first.locator("path.live")).to_have_count(1)
    page = visit.open("/data/weather")
    expect(page.locator("fb-line .uplot")).to_be_visible()
    assert visit.complaints == []


def test_images_are_shown(visit: Visit) -> None:
    page = visit.open("/data/digits/1")
    picture = page.locator(".files img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.files img').naturalWidth === 28", timeout=WAIT_MS)
    assert visit.complaints == []


def test_a_new_version_shows_up_on_an_open_page(visit: Visit, site: tuple[DataHome, Server]) -> None:
    page = visit.open("/data/airlines")
    expect(page.locator("h1 .state")).to_have_text("not checked")
    site[0].platform.publish("airlines", pl.DataFrame({"carrier": ["XX"], "name": ["New Air"]}), mode="append")
    expect(page.locator(".facts").first).to_contain_text("airlines@2", timeout=WAIT_MS)
    assert visit.complaints == []


def test_a_batch_is_dropped_with_a_reason_and_the_page_says_so(visit: Visit) -> None:
    page = visit.open("/quarantine/weather@1")
    page.get_by_role("button", name="Drop its rows").click()
    expect(page.locator("h1 .state")).to_have_text("held")  # the browser asks for the reason first
    _reason(page).fill("a broken station")
    page.get_by_role("button", name="Drop its rows").click()
    expect(page.locator("h1 .state")).to_have_text("dropped")
    expect(page.get_by_text("a broken station").first).to_be_visible()
    assert visit.complaints == []


def test_facets_narrow_the_catalogue_and_stay_in_the_address(visit: Visit) -> None:
    page = visit.open("/data")
    page.locator(".facets").get_by_role("link", name="weather").click()
    page.wait_for_url("**/data?domain=weather")
    expect(page.locator(".rows tbody tr")).to_have_count(2)
    page.locator(".facets").get_by_role("link", name="dataset").click()
    page.wait_for_url("**domain=weather&kind=dataset")
    expect(page.locator(".rows tbody tr")).to_have_count(1)
    assert visit.complaints == []


def _reason(page: Page) -> Locator:
    return page.locator('form[action$="/drop"] input[name="reason"]')
