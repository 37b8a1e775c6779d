"""MLflow's own web page, from its package, over our routes: opened in a browser with a run that its client logged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.cli.running import ROOT, Up, up

_CLIENT = ROOT / ".venv" / "clients" / "mlflow3"
_NOT_SERVED = ("gateway-proxy", "users/current", "assistant/")  # what MLflow's page asks for and nobody serves

_SCRIPT = """
import json, os, sys, mlflow
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("seen by MLflow's page")
with mlflow.start_run(run_name="a run to look at") as run:
    mlflow.log_params({"depth": 6})
    for step in range(50):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("words to read", "notes.txt")
mlflow.MlflowClient().create_registered_model("a model to look at")
print(json.dumps({"run": run.info.run_id, "experiment": run.info.experiment_id}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("page") / "home"
    home.mkdir(parents=True)
    package = next(_CLIENT.glob("lib/python3*/site-packages/mlflow"))
    (home / "flyball.toml").write_text(f'[mlflow]\npackage = "{package}"\n')
    with up(home) as running:
        yield running


@pytest.fixture(scope="module")
def logged(server: Up) -> dict[str, str]:
    command = [str(_CLIENT / "bin" / "python"), "-c", _SCRIPT, server.pages]
    environment = {**os.environ, "PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, logged: dict[str, str]) -> Iterator[Page]:  # noqa: ARG001
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        yield context.new_page()


def _open(page: Page, server: Up, path: str) -> list[str]:
    """Open a place of the page; return the requests that failed."""
    failed: list[str] = []
    page.on("response", lambda answer: failed.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.goto(f"{server.pages}/mlflow/#{path}")
    return failed


def _unexpected(failed: list[str]) -> list[str]:
    return [line for line in failed if not any(part in line for part in _NOT_SERVED)]


def test_the_table_of_runs_shows_what_the_client_logged(page: Page, server: Up, logged: dict[str, str]) -> None:
    failed = _open(page, server, f"/experiments/{logged['experiment']}/runs")
    expect(page.get_by_text("a run to look at").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("1 matching run")).to_be_visible(timeout=30_000)
    assert _unexpected(failed) == []


def test_the_page_of_a_run_shows_its_parts(page: Page, server: Up, logged: dict[str, str]) -> None:
    failed = _open(page, server, f"/experiments/{logged['experiment']}/runs/{logged['run']}")
    expect(page.get_by_role("heading", name="a run to look at")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Finished").first).to_be_visible(timeout=30_000)
    page.goto(f"{server.pages}/mlflow/#/experiments/{logged['experiment']}/runs/{logged['run']}/artifacts")
    page.get_by_text("notes.txt").first.click(timeout=30_000)
    expect(page.get_by_text("words to read").first).to_be_visible(timeout=30_000)
    assert _unexpected(failed) == []


def test_the_models_are_listed(page: Page, server: Up) -> None:
    failed = _open(page, server, "/models")
    expect(page.get_by_text("a model to look at").first).to_be_visible(timeout=30_000)
    assert _unexpected(failed) == []


@pytest.mark.parametrize(
    "path", ["/mlflow/static-files/../../handlers.py", "/mlflow/static-files/%2e%2e/%2e%2e/handlers.py"]
)
def test_nothing_beside_the_files_of_the_page_is_served(server: Up, path: str) -> None:
    with httpx2.Client() as client:
        request = client.build_request("GET", server.pages)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 404


def test_without_the_package_the_answer_says_how_to_get_it(tmp_path: Path) -> None:
    with up(tmp_path / "home") as running:
        answer = httpx2.get(f"{running.pages}/mlflow/")
    assert answer.status_code == 404
    assert "pip install mlflow" in answer.text
