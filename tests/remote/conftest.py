"""`flyball up` as a real process, and this process as a client on another machine: without a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import flyball as fb
from flyball import api
from flyball.remote.home import RemoteHome
from tests.cli.running import Up, declare_late, up


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A server with a home in which `late` is served."""
    home = tmp_path_factory.mktemp("remote") / "home"
    declare_late(home)
    with up(home) as running:
        yield running


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without a home: its folder of what is not sent yet, its cache, no system metrics."""
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "no-home"))
    monkeypatch.setenv("FLYBALL_REMOTE_FOLDER", str(tmp_path / "state"))
    monkeypatch.setenv("FLYBALL_REMOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLYBALL_TRACKING_SYSTEM_METRICS", "false")
    api._session.close()
    yield tmp_path
    api._session.close()
    assert not (tmp_path / "no-home").exists(), "a client made a home"


@pytest.fixture
def remote(server: Up, away: Path) -> RemoteHome:  # noqa: ARG001
    """This process connected to the server."""
    return fb.connect(server.pages)
