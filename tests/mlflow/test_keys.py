"""MLflow's own clients, of both lines, where an access key is asked for; and pages in Chromium: log in, log out."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import expect, sync_playwright

from flyball.platform import Platform
from tests.cli.running import ROOT, Up, up

_REFUSED = ("create", "log", "search", "upload", "list", "register")
_VIEWER_MAY = ("search", "list")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, dict[str, str]]]:
    home = tmp_path_factory.mktemp("keys") / "home"
    with closing(Platform.open(home)) as platform:
        secrets = {role: platform.create_key(role, role)[1] for role in ("viewer", "editor", "admin")}
    before = os.environ.get("FLYBALL_AUTH_REQUIRED")
    os.environ["FLYBALL_AUTH_REQUIRED"] = "1"
    try:
        with up(home) as server:
            yield server, secrets
    finally:
        os.environ.pop("FLYBALL_AUTH_REQUIRED")
        if before is not None:
            os.environ["FLYBALL_AUTH_REQUIRED"] = before


@pytest.mark.parametrize("client", ["mlflow2", "mlflow3"])
def test_a_client_works_with_a_key_and_is_told_at_once_what_is_wrong_without(
    running: tuple[Up, dict[str, str]], client: str
) -> None:
    server, secrets = running
    python = ROOT / ".venv" / "clients" / client / "bin" / "python"
    script = Path(__file__).parent / "with_keys.py"
    done = subprocess.run(
        [str(python), str(script), server.pages, secrets["editor"], secrets["viewer"]],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    told = json.loads([line for line in done.stdout.splitlines() if line.startswith('{"took_s"')][-1])
    assert (told["size"], told["auc"]) == (100_000, 0.75)
    assert told["took_s"] < 10  # a client that tries again does so for minutes
    for act in _REFUSED:
        assert re.search("UNAUTHENTICATED|401", told[f"keyless {act}"]), told[f"keyless {act}"]
        assert re.search("UNAUTHENTICATED|401", told[f"wrong {act}"]), told[f"wrong {act}"]
        expected = "done" if act in _VIEWER_MAY else "PERMISSION_DENIED|403"
        assert re.search(expected, told[f"viewer {act}"]), told[f"viewer {act}"]
    assert "MLFLOW_TRACKING_TOKEN" in told["keyless create"]
    assert "key/viewer is viewer and may not record; that needs editor" in told["viewer create"]


def test_nobody_comes_in_without_a_key_and_a_login_in_chromium_opens_both_web_pages(
    running: tuple[Up, dict[str, str]],
) -> None:
    server, secrets = running
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.pages}/runs?name=x")
        expect(page).to_have_url(f"{server.pages}/login?next=/runs%3Fname%3Dx")
        page.get_by_label("Access key").fill("fb_wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("this access key does not hold")).to_be_visible()
        page.get_by_label("Access key").fill(secrets["admin"])
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{server.pages}/runs?name=x")
        expect(page.locator(".who")).to_have_text("key/admin")
        assert page.evaluate("document.cookie") == ""  # no script reads the session
        page.goto(f"{server.pages}/settings/keys")
        page.get_by_role("textbox", name="Name").fill("from-the-page")
        page.locator("select[name=role]").select_option("operator")
        page.get_by_role("button", name="Make it").click()
        secret = page.locator("#secret").inner_text()
        assert secret.startswith("fb_")
        assert httpx2.get(f"{server.pages}/api", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        page.goto(f"{server.pages}/settings/keys")
        expect(page.locator("#secret")).to_have_count(0)
        page.get_by_role("button", name="Revoke from-the-page").click()
        expect(page.get_by_role("button", name="Revoke from-the-page")).to_have_count(0)
        assert httpx2.get(f"{server.pages}/api", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
        page.goto(f"{server.pages}/settings")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{server.pages}/login")
        page.goto(f"{server.pages}/settings")
        expect(page).to_have_url(f"{server.pages}/login?next=/settings")
        assert complaints == []
        browser.close()
