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
