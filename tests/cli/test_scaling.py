"""Several worker processes under `flyball up`, over TLS, and `flyball scaling`."""

from __future__ import annotations

import importlib.util
import json
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from flyball.cli import main
from flyball.platform import Platform
from tests.cli.running import ROOT, until, up


def certificate(folder: Path) -> Path:
    """Make a certificate of 127.0.0.1 and its key."""
    spec = importlib.util.spec_from_file_location("certificates", ROOT / "tests" / "wire" / "certificates.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.make(folder, "server", "here")[0])


def test_pages_and_predictions_of_several_workers_are_asked_over_tls_and_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Platform.open(home).close()
    context = ssl.create_default_context(cafile=str(certificate(home)))
    (home / "flyball.toml").write_text('[tls]\ncertificate = "server.pem"\nkey = "server.key"\n')
    with up(home, "--workers", "2") as running:
        assert running.pages.startswith("https://") and running.predictions.startswith("https://")
        for address in (running.pages, running.predictions):
            assert httpx2.get(f"{address}/health", verify=context).status_code == 200
        until(lambda: len(running.told()["workers"]) == 2)
        serving = running.told()["pid"]
        running.process.kill()
        running.process.wait(20)
        with up(home) as again:
            assert again.told()["pid"] == serving
            assert httpx2.get(f"{again.pages}/health", verify=context).status_code == 200
            assert again.end()[0] == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{running.predictions}/health", verify=context)


class TestScaling:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        Platform.open(tmp_path / "home").close()
        return tmp_path / "home"

    def test_policy_is_told(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["scaling", "--home", str(home)]) == 0
        assert capsys.readouterr().out.strip() == "0 workers; 1 to 1 by the setting"
        (home / "flyball.toml").write_text("[scaling]\ntarget = 70\nmaximum = 3\n")
        assert main(["scaling", "--json", "--home", str(home)]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert found == {"workers": 0, "minimum": 1, "maximum": 3, "tracks": {"metric": "cpu", "target": 70.0}}

    def test_policy_is_a_manifest_of_kubernetes(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (home / "flyball.toml").write_text('[scaling]\ntarget = 8\nmetric = "in_flight"\nmaximum = 6\n')
        assert main(["scaling", "--hpa", "--name", "late", "--home", str(home)]) == 0
        found = yaml.safe_load(capsys.readouterr().out)
        assert (found["kind"], found["spec"]["maxReplicas"]) == ("HorizontalPodAutoscaler", 6)

    def test_without_a_target_there_is_no_manifest(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["scaling", "--hpa", "--home", str(home)]) == 1
        assert "target" in capsys.readouterr().err
