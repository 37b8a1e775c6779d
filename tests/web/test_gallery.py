"""The gallery in real Chromium: every macro and element draws, in both themes and at both widths, under the policy."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gallery_sample import HOSTILE, NOW, sample
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from flyball.errors import NotFound
from flyball.web.assets import STATIC_CACHE_CONTROL, asset_file
from flyball.web.render import PAGE_HEADERS, environment, render

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VARIANTS = [(width, scheme) for width in (1440, 400) for scheme in ("light", "dark")]
WAIT_MS = 20_000  # nine other workers may share the machine


class FixedClock:
    def now(self) -> Any:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Site:
    """The gallery over HTTP with the application's headers; `say` tells the open pages of a change."""

    def __init__(self) -> None:
        self.pages = environment(FixedClock())
        self.sample = sample()
        self.streams: list[queue.Queue[str | None]] = []
        self.has_changes = True
        self.series: dict[str, Any] | None = None
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def page(self) -> str:
        return render(
            self.pages,
            "gallery.html",
            title="late",
            section="deployments",
            crumbs=[("Deployments", "/deployments"), ("late", None)],
            user="alice",
            home="airline",
            version="0.1.0",
            attention={"monitors": (2, "bad"), "models": (1, "warn")},
            changes_url="/api/changes",
            sample=self.sample,
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        if parts.path.startswith("/static/"):
            try:
                file = asset_file(parts.path.split("/", 3)[3])
            except NotFound:
                self.send(request, 404, b"", {})
                return
            headers = {"Content-Type": file.media_type, "Cache-Control": STATIC_CACHE_CONTROL}
            self.send(request, 200, file.content, headers)
        elif parts.path == "/api/changes":
            self.stream(request)
        elif parts.path == "/card":
            text = f"<strong>{parse_qs(parts.query)['ref'][0]}</strong>"
            self.send(request, 200, text.encode(), PAGE_HEADERS)
        elif parts.path == "/series" and self.series is not None:
            self.send(request, 200, json.dumps(self.series).encode(), {"Content-Type": "application/json"})
        elif parts.path == "/series":
            self.send(request, 404, b"", {})
        elif parts.path == "/search":
            text = '<div id="found"><a href="/models/late/2">late@2</a></div>'
            self.send(request, 200, text.encode(), PAGE_HEADERS)
        else:
            self.send(request, 200, self.page().encode(), PAGE_HEADERS)

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Any) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def stream(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        if not self.has_changes:
            self.send(request, 503, b"", {})
            return
        messages: queue.Queue[str | None] = queue.Queue()
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        self.streams.append(messages)
        while (message := messages.get()) is not None:
            request.wfile.write(f"data: {message}\n\n".encode())
            request.wfile.flush()

    def say(self, *refs: str) -> None:
        for messages in self.streams:
            messages.put(json.dumps({"refs": refs}))

    def hang_up(self) -> None:
        for messages in self.streams:
            messages.put(None)
        self.streams = []

    def close(self) -> None:
        self.hang_up()
        self.server.shutdown()
        self.server.server_close()


class Visit:
    """One page, with all that it complained of and asked for."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page, self.site = page, site
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def open(self) -> Page:
        self.page.set_default_timeout(WAIT_MS)
        self.page.clock.set_fixed_time(NOW)
        self.page.goto(self.site.url)
        expect(self.page.locator("fb-line .uplot")).to_have_count(2, timeout=WAIT_MS)
        expect(self.page.locator("fb-stack .uplot")).to_have_count(1, timeout=WAIT_MS)
        expect(self.page.locator("fb-hist svg.fb-hist")).to_have_count(3, timeout=WAIT_MS)
        expect(self.page.locator("fb-graph canvas")).to_have_count(3, timeout=WAIT_MS)
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-GB", timezone_id="Europe/Berlin")
    yield Visit(page, site)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), VARIANTS)
def test_the_gallery_draws_without_a_complaint_or_a_foreign_address(
    browser: Browser, site: Site, width: int, scheme: Any, tmp_path: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    visit = Visit(page, site)
    visit.open()
    page.screenshot(path=tmp_path / f"gallery-{width}-{scheme}.png", full_page=True)
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over == 0, f"the page is {over} px wider than its window of {width} px"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(247, 247, 246)" if scheme == "light" else "rgb(15, 17, 19)"
    )
    assert visit.complaints == []
    assert [address for address in visit.addresses if not address.startswith(site.url)] == []
    page.close()


def test_the_policy_is_in_force_where_the_gallery_is_shown(visit: Visit) -> None:
    page = visit.open()
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    assert page.title() == "late · Flyball"
    assert len([text for text in visit.complaints if "Content Security Policy" in text]) == 2


# WCAG 2.2, 1.4.3: text against what is really behind it, as the browser has blended it.
CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith("color(srgb") ? 255 : 1;
    return [r * scale, g * scale, b * scale, a];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3 && n.nodeValue.trim());
    if (!words.length || !element.checkVisibility() || element.closest("script, [aria-disabled]")) continue;
    const style = getComputedStyle(element);
    const under = behind(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(over(ink, under)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${element.tagName}.${element.getAttribute("class")}`;
    if (ratio < 4.5) poor.push(`${name} ${ratio.toFixed(2)} ${words[0].nodeValue}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_has_contrast_aa(visit: Visit, scheme: Any) -> None:
    visit.page.emulate_media(color_scheme=scheme)
    page = visit.open()
    page.locator("fb-hist summary").first.click()
    page.locator("main tbody tr").nth(1).hover()
    assert page.evaluate(CONTRAST) == []


def test_a_hostile_text_stays_text(visit: Visit) -> None:
    page = visit.open()
    expect(page.get_by_text(HOSTILE[:40])).to_be_visible()
    assert page.title() == "late · Flyball"


def test_each_chart_has_its_table_behind_a_toggle(visit: Visit) -> None:
    page = visit.open()
    for name in ("fb-line", "fb-stack", "fb-hist", "fb-graph"):
        chart = page.locator(name).first
        chart.locator("summary").click()
        expect(chart.locator("table tbody tr").first).to_be_visible()
    assert page.locator("fb-line").first.locator("tbody tr").count() == 49
    assert "late@2 promoted: auc 0.712" in page.locator("fb-line").first.locator("tbody").inner_text()
    assert page.locator("fb-graph tbody a.ref").count() >= 9  # what a keyboard reaches instead of the picture
    assert visit.complaints == []


def test_an_event_says_its_reason_under_the_pointer(visit: Visit) -> None:
    page = visit.open()
    over = page.locator("fb-line .u-over").first
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 28 / 48, box["y"] + 40)
    expect(page.locator("fb-line .fb-tip").first).to_contain_text("the feed's local hour became UTC")
    expect(page.locator("fb-line .fb-tip").first).to_contain_text("late@1")


def test_the_keyboard_moves_selects_searches_and_goes(visit: Visit) -> None:
    page = visit.open()
    for key in ("j", "j", "k", "x"):
        page.keyboard.press(key)
    row = page.locator("table.rows tbody tr").first
    expect(row).to_have_attribute("data-current", "")
    expect(row.locator("input[type=checkbox]")).to_be_checked()
    page.keyboard.press("?")
    expect(page.locator("dialog#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator(".search input")).to_be_focused()
    page.keyboard.type("late")
    expect(page.locator("#search-results a")).to_have_text("late@2")
    page.keyboard.press("Escape")
    expect(page.locator("#search-results a")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_url("**/models")
    assert visit.complaints == []


def test_the_chosen_theme_is_remembered_and_goes_back_to_the_system(visit: Visit) -> None:
    page = visit.open()
    switch = page.locator("[data-action=theme]")
    switch.click()
    switch.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("[data-action=theme]")).to_have_attribute("aria-label", "Theme: dark")
    page.locator("[data-action=theme]").click()
    assert page.locator("html").get_attribute("data-theme") is None


def test_a_change_updates_its_section_in_place_and_keeps_what_the_reader_chose(visit: Visit) -> None:
    page = visit.open()
    page.keyboard.press("j")
    page.keyboard.press("x")
    charts = page.locator("fb-line .uplot").first.evaluate_handle("node => node")
    visit.site.sample["runs"][0]["state"] = "decayed"
    visit.site.say("run/41f3a2b1c09d")
    row = page.locator("table.rows tbody tr").first
    expect(row.locator(".state")).to_have_text("decayed")
    expect(row.locator("input[type=checkbox]")).to_be_checked()
    expect(row).to_have_attribute("data-current", "")
    assert charts.evaluate("node => node.isConnected")
    assert visit.complaints == []


def test_a_chart_inside_a_live_section_takes_new_data_and_keeps_its_table_open(visit: Visit) -> None:
    page = visit.open()
    chart = page.locator("fb-hist").nth(1)
    chart.locator("summary").click()
    expect(chart.locator("tbody tr")).to_have_count(10)
    chart.evaluate(
        """chart => {
             const text = chart.querySelector("script").textContent.replace('"UA"', '"ZZ"');
             chart.innerHTML = `<script type="application/json">${text}</script>`;
           }"""
    )
    expect(chart.locator("tbody tr").first).to_contain_text("ZZ")
    expect(chart.locator("svg text").first).to_have_text("ZZ")


def test_a_chart_fetches_its_data_and_asks_again_after_a_change(visit: Visit) -> None:
    page = visit.open()
    add = """document.querySelector("main").insertAdjacentHTML("afterbegin",
        '<fb-line id="fetched" label="Loss" src="/series"></fb-line>')"""
    page.evaluate(add)
    chart = page.locator("#fetched")
    expect(chart).to_contain_text("did not come: the server answered 404")
    steps = list(range(50_000))
    visit.site.series = {"x": "step", "xs": steps, "series": [{"name": "run a", "arm": 1, "ys": steps}]}
    visit.site.say("run/a")
    expect(chart.locator(".uplot")).to_have_count(1)
    chart.locator("summary").click()
    expect(chart.locator("caption")).to_have_text("Loss: the first 1000 of 50000 rows")


def test_a_lost_connection_says_so_and_comes_back(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#connection")).to_be_hidden()
    visit.site.has_changes = False
    visit.site.hang_up()
    expect(page.locator("#connection")).to_have_text("connection lost, trying again")
    visit.site.has_changes = True
    visit.site.sample["runs"][0]["state"] = "paused"
    expect(page.locator("#connection")).to_be_hidden(timeout=WAIT_MS)


def test_a_reference_shows_its_card_after_the_pointer_rests(visit: Visit) -> None:
    page = visit.open()
    page.locator('.page-head h1, [data-ref="monitor/late"]').nth(1).hover()
    expect(page.locator(".hover-card")).to_have_text("monitor/late")
    page.mouse.move(2, 2)
    expect(page.locator(".hover-card")).to_be_hidden()


def test_times_are_in_the_readers_zone(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("time[data-time=exact]").first).to_have_text("3 May, 16:27")
    assert "16:27:00 CEST" in (page.locator("time").first.get_attribute("title") or "")
