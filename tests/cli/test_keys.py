"""`flyball key`, and a server beyond the loopback address, which asks for keys unless it is told not to."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from flyball.cli import main
from flyball.platform import Platform
from tests.cli.running import up


def test_a_key_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    Platform.open(tmp_path / "home").close()
    assert (
        main(["key", "create", "ci", "--role", "operator", "--deployments", "late, fraud", "--expires", "90d", *home])
        == 0
    )
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("fb_") and len(secret) == 46
    assert main(["key", "list", "--json", *home]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["items"]
    assert (listed["name"], listed["role"], listed["deployments"]) == ("ci", "operator", ["late", "fraud"])
    assert secret not in json.dumps(listed) and "digest" not in listed
    assert main(["key", "list", *home]) == 0
    assert "late, fraud" in capsys.readouterr().out
    for wrong in (
        ["ci", "--role", "viewer"],  # there is one of this name
        ["x", "--role", "owner"],
        ["x", "--role", "viewer", "--deployments", "late"],
        ["x", "--role", "viewer", "--expires", "soon"],
        ["x", "--role", "viewer", "--expires", "0s"],
        ["a b", "--role", "viewer"],
    ):
        assert main(["key", "create", *wrong, *home]) == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["key", "revoke", "ci", *home]) == 0
    assert main(["key", "revoke", "ci", *home]) == 1
    bytes_of_home = b"".join(file.read_bytes() for file in (tmp_path / "home").rglob("*") if file.is_file())
    assert secret.encode() not in bytes_of_home


def test_a_server_beyond_the_loopback_address_asks_for_a_key_and_makes_the_first(tmp_path: Path) -> None:
    with up(tmp_path / "home", "--host", "0.0.0.0") as running:
        address = running.pages.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{address}/api").status_code == 401
        assert running.process.stdout is not None
        told = running.process.stdout.readline()
        assert f"{running.pages}/login" in told
        headers = {"Authorization": f"Bearer {told.split()[-1]}"}
        assert [key["role"] for key in httpx2.get(f"{address}/api/keys", headers=headers).json()["items"]] == ["admin"]


def test_a_server_that_is_told_not_to_ask_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_AUTH_REQUIRED", "false")
    with up(tmp_path / "home", "--host", "0.0.0.0") as running:
        assert httpx2.get(f"{running.pages.replace('0.0.0.0', '127.0.0.1')}/api").status_code == 200
        assert "there is no login" in running.end()[2]
