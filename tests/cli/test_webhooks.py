"""Webhooks through a running `flyball up`: MLflow's endpoints, the command line, and a server that is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flyball.platform import Platform
from tests.cli.running import ROOT, Up
from tests.delivery.receiving import Receiver, receiving, verified, wait_for

_PATH = "/api/2.0/mlflow"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    return tmp_path / "home"


def flyball(home: Path, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flyball.cli", "--home", str(home), *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_a_server_killed_before_it_noted_an_answer_tells_again_and_goes_on(home: Path, receiver: Receiver) -> None:
    served: list[Up] = []

    def kill(_handler: Any) -> None:
        served[-1].process.send_signal(signal.SIGKILL)
        served[-1].process.wait(20)

    receiver.behaviours["/"] = [kill, 200]
    served.append(Up(home))
    event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
    with httpx2.Client(base_url=served[-1].pages, timeout=30) as client:
        asked = {"name": "ci", "url": f"{receiver.url}/", "events": [event], "secret": "s3cret"}
        hook = client.post(f"{_PATH}/webhooks", json=asked).json()["webhook"]
        assert hook["creation_timestamp"] == hook["last_updated_timestamp"]
        with contextlib.suppress(httpx2.HTTPError):  # it may be dead before it has answered
            client.post(f"{_PATH}/registered-models/create", json={"name": "first"})
    served[-1].process.wait(30)
    assert len(receiver.got) == 1
    served.append(Up(home))
    with httpx2.Client(base_url=served[-1].pages, timeout=30) as client:
        client.post(f"{_PATH}/registered-models/create", json={"name": "second"})
        wait_for(lambda: len(receiver.got) >= 3, 30)
        tested = client.post(f"{_PATH}/webhooks/{hook['webhook_id']}/test", json={}).json()["result"]
        assert tested == {"success": True, "response_status": 200, "response_body": "ok"}
        receiver.behaviours["/"] = [404]
        tested = client.post(f"{_PATH}/webhooks/{hook['webhook_id']}/test", json={"event": event}).json()["result"]
        assert tested == {"success": False, "response_status": 404, "response_body": "ok"}
    assert served[-1].end()[0] == 0
    assert [one.message["data"]["name"] for one in receiver.got[:3]] == ["first", "first", "second"]
    assert receiver.got[0].id == receiver.got[1].id != receiver.got[2].id
    assert receiver.got[3].message["data"]["name"] == "example_model"
    assert all(verified(one, b"s3cret", "x-mlflow") for one in receiver.got)


def test_a_webhook_is_declared_signed_tested_and_sent_to_again(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    declared = tmp_path / "flyball.yaml"
    declared.write_text(f"kind: Webhook\nname: ci\nurl: {receiver.url}/\nevents: [model.created]\n")
    assert flyball(home, "init").returncode in (0, 1)
    assert flyball(home, "apply", str(declared)).returncode == 0
    assert flyball(home, "webhooks", "secret", "ci", given="s3cret\n").returncode == 0
    assert flyball(home, "webhooks", "test", "ci").returncode == 0
    assert verified(receiver.got[0], b"s3cret", "webhook")
    with closing(Platform.open(home)) as platform:
        platform.create_model("late")
        receiver.behaviours["/"] = [400, 200]
        deliverer = platform.deliverer()
        deliverer.start()
        wait_for(lambda: platform.webhook("ci").counts == {"failed": 1})
        listed = json.loads(flyball(home, "webhooks", "deliveries", "ci", "--json").stdout)["items"]
        assert [(one["name"], one["state"], one["log"][-1]["status"]) for one in listed] == [
            ("model.created", "failed", 400)
        ]
        assert flyball(home, "webhooks", "redeliver", "ci", "--failed").returncode == 0
        wait_for(lambda: platform.webhook("ci").counts == {"delivered": 1})
        deliverer.stop(5)
    (shown,) = json.loads(flyball(home, "webhooks", "list", "--json").stdout)["items"]
    assert (shown["name"], shown["signed"], shown["deliveries"]) == ("ci", True, {"delivered": 1})
    assert "s3cret" not in json.dumps(shown) + flyball(home, "get", "webhook", "ci", "-o", "json").stdout
    wrong = flyball(home, "webhooks", "redeliver", "ci", "999999")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
