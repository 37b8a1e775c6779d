"""The pages in real Chromium, with a furnished home and an empty one: no complaint, no overflow, live, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages_home import HOSTILE, Home, Server, served
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WAIT_MS = 20_000  # other workers may share the machine
TOP = ["/", "/runs?show=params", "/data", "/features", "/pipelines", "/models", "/deployments", "/monitors"]
TOP += ["/journal?verify=1", "/settings", "/runs/compare", "/search?q=income"]
FURNISHED = [
    "/data/adult", "/data/adult/1", "/quarantine/adult@1", "/features/person", "/pipelines/retrain",
    "/pipelines/triggers/retrain", "/models/income", "/models/reviewed", "/models/income/2", "/deployments/income",
    "/deployments/income/predictions", "/monitors/income", "/monitors/alerts/income-drifting", "/journal/28",
    "/why/deployment/income", "/lineage/model/income@2", "/lineage/dataset/adult", "/settings/people/alice",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[Home, Server]]:
    with served(tmp_path_factory.mktemp("browser") / "home", shared_data, full=True) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A page with all that the browser complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        for name, drawn in (("fb-line", ".uplot, .fb-said"), ("fb-stack", ".uplot, .fb-said")):
            for chart in self.page.locator(name).all():
                expect(chart.locator(drawn).first).to_be_visible(timeout=WAIT_MS)
        return self.page

    def overflow(self) -> int:
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))


@pytest.fixture
def visit(browser: Browser, site: tuple[Home, Server]) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-GB", timezone_id="Europe/Berlin")
    yield Visit(page, site[1].url)
    page.close()


def pages_of(home: Home) -> list[str]:
    runs = [home.platform.runs(kind=kind, limit=1)[0] for kind in ("training", "pipeline", "step")]
    runs += home.platform.runs(name="fit-income", limit=1)
    prediction = home.platform.traffic.frame("income")["id"][-1]
    compared = "&".join(f"ref={run.ref}" for run in runs)
    preview = f"/runs/{runs[-1].id}/preview?path=model/notes.txt"
    return [*TOP, *FURNISHED, *(f"/runs/{run.id}" for run in runs), f"/runs/compare?{compared}", preview,
            f"/predictions/{prediction}"]  # fmt: skip


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (400, "dark")])
def test_no_page_complains_or_is_wider_than_its_window(
    browser: Browser, site: tuple[Home, Server], width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    visit, wide = Visit(page, site[1].url), []
    for path in pages_of(site[0]):
        visit.open(path)
        over = visit.overflow()
        if over:
            wide.append(f"{path} is {over} px wider than {width} px")
        assert page.title().endswith(" · Flyball") and page.title() != "taken"
        assert page.locator(".question").inner_text().endswith("?"), path
    assert wide == []
    assert visit.complaints == []
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "dark"), (400, "light")])
def test_no_page_of_an_empty_home_complains(
    browser: Browser, tmp_path: Path, shared_data: Path, width: int, scheme: str
) -> None:
    with served(tmp_path / "home", shared_data, full=False) as (_, server):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        visit = Visit(page, server.url)
        for path in TOP:
            visit.open(path)
            assert visit.overflow() == 0, path
        assert visit.complaints == []
        page.close()


def test_what_is_written_shows_up_on_an_open_page_without_a_reload(visit: Visit, site: tuple[Home, Server]) -> None:
    page = visit.open("/runs?name=live")
    expect(page.get_by_text("No run is like this.")).to_be_visible()
    page.evaluate("window.isTheSame = true")
    with site[0].platform.start_run("live") as run:
        row = page.locator("table.rows tbody tr")
        expect(row.locator(".state")).to_have_text("running", timeout=WAIT_MS)
        run.log(auc=0.7125)
    expect(row.locator(".state")).to_have_text("succeeded", timeout=WAIT_MS)
    expect(row).to_contain_text("0.713")
    assert page.evaluate("window.isTheSame") is True
    assert visit.complaints == []


def test_a_change_that_came_before_the_page_listened_is_not_missed(visit: Visit, site: tuple[Home, Server]) -> None:
    page = visit.page
    page.route("**/api/changes", lambda route: (start(site[0]), route.continue_()))  # between page and stream
    page.goto(visit.url + "/runs?name=between")
    expect(page.locator("table.rows tbody tr .state").first).to_have_text("succeeded", timeout=WAIT_MS)


def start(home: Home) -> None:
    with home.platform.start_run("between"):
        pass


def test_what_the_journal_does_not_tell_is_asked_for_again(visit: Visit, site: tuple[Home, Server]) -> None:
    page = visit.open("/deployments/income")
    figure = page.locator(".figure .value").first
    before = figure.inner_text()
    site[0].ask(7, label=False)
    expect(figure).not_to_have_text(before, timeout=WAIT_MS)
    assert int(figure.inner_text().replace(",", "")) == int(before.replace(",", "")) + 7


def test_the_keyboard_selects_two_runs_and_compares_them(visit: Visit) -> None:
    page = visit.open("/runs?name=fit-income")
    for key in ("j", "x", "j", "x", "c"):
        page.keyboard.press(key)
    page.wait_for_url("**/runs/compare?ref=*&ref=*")
    expect(page.locator("thead").first.locator("a.ref")).to_have_count(2)
    assert "back=" not in page.url and "tag=" not in page.url
    page.get_by_role("link", name="Curves").click()
    expect(page.locator("fb-line").first.locator(".uplot")).to_be_visible()


def test_search_as_one_types_and_a_card_on_hover(visit: Visit) -> None:
    page = visit.open("/")
    page.keyboard.press("/")
    page.keyboard.type("income@2")
    expect(page.locator("#search-results a").first).to_have_attribute("href", "/models/income/2")
    page.keyboard.press("Escape")
    page.locator('main a[data-ref="deployment/income"]').first.hover()
    expect(page.locator(".hover-card")).to_contain_text("rolling out")
    assert visit.complaints == []


def test_choosing_a_feature_and_a_window_stays_in_the_address(visit: Visit) -> None:
    page = visit.open("/monitors/income")
    page.get_by_role("link", name="occupation").click()
    page.wait_for_url("**feature=occupation**")
    page.get_by_role("link", name="Window before").click()
    page.wait_for_url(re.compile(r"feature=occupation.*window=\d"))
    expect(page.locator("fb-hist svg").first).to_be_visible()
    expect(page.locator('[aria-current="true"]')).to_have_text("occupation")
    assert visit.complaints == []


def test_a_hostile_name_stays_text(visit: Visit) -> None:
    page = visit.open("/runs?status=failed")
    expect(page.get_by_text(HOSTILE[:30]).first).to_be_visible()
    assert page.title() == "Runs · Flyball"
    assert visit.complaints == []


def test_a_button_of_our_own_page_is_taken(visit: Visit, site: tuple[Home, Server]) -> None:
    page = visit.open("/pipelines/retrain")
    page.get_by_label("depth").fill("11")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f]{32}$"))
    expect(page.locator("h1 .state")).to_have_text("pending")
    assert site[0].platform.runs(kind="pipeline", limit=1)[0].params["depth"] == 11
