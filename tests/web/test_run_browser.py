"""The run pages in real Chromium: completion, columns, keys, zoom, drawings; no complaint, no overflow, live."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import runs_home
from pages_home import Server
from playwright.sync_api import Browser, Page, expect, sync_playwright

from flyball.ledger.runs import Run
from flyball.platform import Platform

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WAIT_MS = 20_000
Home = tuple[Platform, list[Run], str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    platform = Platform.open(tmp_path_factory.mktemp("runs-browser") / "home")
    sweep = runs_home.furnish(platform)
    server = Server(platform)
    yield platform, sweep, server.url
    server.close()
    platform.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, home: Home, complaints: list[str]) -> Iterator[Page]:
    found = browser.new_page(base_url=home[2], viewport={"width": 1440, "height": 900})
    listen(found, complaints)
    yield found
    found.close()
    assert complaints == []


def listen(page: Page, complaints: list[str]) -> None:
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (2560, "light")])
def test_no_run_page_complains_or_is_wider_than_its_window(
    browser: Browser, home: Home, complaints: list[str], width: int, scheme: str
) -> None:
    platform, sweep, url = home
    hostile = platform.runs(name=runs_home.HOSTILE, limit=1)[0]
    compared = "&".join(f"ref={run.id}" for run in [*sweep[:10], hostile])
    paths = ["/runs", "/runs?view=deleted", "/experiments", "/experiments/1", f"/runs/{sweep[0].id}"]
    paths += [f"/runs/{hostile.id}", f"/runs/{sweep[0].id}/preview?path=plots/roc.png"]
    paths += [
        f"/runs/compare?{compared}&show={part}" for part in ("tables", "curves", "parallel", "scatter", "box", "files")
    ]
    page = browser.new_page(base_url=url, viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    listen(page, complaints)
    wide = []
    for path in paths:
        page.goto(path)
        for chart in page.locator("fb-line, fb-parallel, fb-scatter, fb-box").all():
            expect(chart.locator("canvas, svg, .fb-said").first).to_be_visible()
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(path)
        assert page.title() != "taken"
    page.close()
    assert wide == [] and complaints == []


def test_a_filter_is_completed_by_keyboard_and_filters(page: Page) -> None:
    page.goto("/runs?experiment=1")
    field = page.get_by_label("Filter", exact=True).locator("visible=true").last
    field.press_sequentially("params.dep")
    expect(page.locator(".completions li").first).to_contain_text("depth")
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value("params.depth")
    field.press_sequentially(" = '12")
    expect(page.locator(".completions li").first).to_contain_text("12'")
    field.press("ArrowDown")
    field.press("Tab")
    expect(field).to_have_value("params.depth = '12'")
    field.press("Enter")
    page.wait_for_url(re.compile(r"filter=params\.depth"))
    expect(page.locator("table.rows tbody tr").first).to_be_visible()


def test_columns_are_found_and_shown(page: Page) -> None:
    page.goto("/runs?experiment=1")
    page.locator(".columns-box summary").click()
    page.get_by_label("Search keys").fill("model")
    expect(page.locator(".keys-list label")).to_have_count(1)
    page.locator(".keys-list input").check()
    page.get_by_role("button", name="Show these").click()
    page.wait_for_url(re.compile(r"col=params\.model"))
    expect(page.locator("thead")).to_contain_text("model name")


def test_rows_are_selected_by_keys_and_deleted_together(page: Page, home: Home) -> None:
    page.goto("/runs?experiment=1&sort=run_name")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    chosen = [box.get_attribute("value") for box in page.locator("td.pick input:checked").all()]
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(f'td.pick input[value="{chosen[0]}"]')).to_have_count(0)
    assert len(chosen) == 2
    for target in chosen:
        assert target is not None
        id = target.removeprefix("run/")
        assert home[0].run(id).is_deleted
        home[0].restore_run(id)


def test_zooming_into_a_curve_asks_for_that_stretch(page: Page, home: Home) -> None:
    page.goto(f"/runs/{home[1][0].id}")
    over = page.locator("fb-line .u-over").first
    over.scroll_into_view_if_needed()
    expect(over).to_be_visible()
    box = over.bounding_box()
    assert box is not None
    with page.expect_response(lambda answer: "from=" in answer.url) as waiting:
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 42, steps=4)
        page.mouse.up()
    (series,) = waiting.value.json()["series"]
    assert len(series["xs"]) == series["xs"][-1] - series["xs"][0] + 1  # every step that was left out before
    with page.expect_response(lambda answer: "/series" in answer.url and "from=" not in answer.url):
        page.locator("fb-line .u-over").first.dblclick()


def test_every_drawing_has_its_table(page: Page, home: Home) -> None:
    refs = "&".join(f"ref={run.id}" for run in home[1][:20])
    for shown, element in (("parallel", "fb-parallel"), ("scatter", "fb-scatter"), ("box", "fb-box")):
        page.goto(f"/runs/compare?{refs}&show={shown}")
        page.locator(f"{element} summary").click()
        expect(page.locator(f"{element} tbody tr").first).to_be_visible()


def test_what_a_client_logs_shows_up_on_the_open_table(page: Page, home: Home) -> None:
    page.goto("/runs?experiment=1&filter=tags.live+%3D+%27yes%27&col=metrics.auc")
    expect(page.get_by_text("No run is like this.")).to_be_visible()
    recorder = home[0].recorder
    run = recorder.create_run("1", name="live", tags={"live": "yes"}).result()
    expect(page.locator("table.rows tbody tr")).to_have_count(1)
    recorder.update_run(run.id, status="succeeded").result()
    expect(page.locator("table.rows tbody .state")).to_have_text("succeeded")
