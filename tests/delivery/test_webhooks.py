"""Webhooks over a real ledger, a real deliverer in threads and real receivers that behave badly."""

from __future__ import annotations

import base64
import ipaddress
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flyball.delivery.webhooks.addresses import is_public
from flyball.delivery.webhooks.deliverer import back_off_s
from flyball.delivery.webhooks.events import EXAMPLES, MLFLOW_EVENTS
from flyball.delivery.webhooks.sending import ANSWER_BYTES, send
from flyball.delivery.webhooks.settings import WebhookSettings, webhook_settings
from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.platform import Platform
from tests.delivery.receiving import Receiver, receiving, verified, wait_for

OPEN = WebhookSettings(schemes="http", allow_private=True, timeout_s=1.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    for name, value in {
        "FLYBALL_WEBHOOKS_SCHEMES": "http",
        "FLYBALL_WEBHOOKS_ALLOW_PRIVATE": "true",
        "FLYBALL_WEBHOOKS_TIMEOUT_S": "1",
        "FLYBALL_WEBHOOKS_BACKOFF_S": "0.05",
        "FLYBALL_WEBHOOKS_POLL_S": "0.02",
        "FLYBALL_WEBHOOKS_RETRIES": "3",
    }.items():
        monkeypatch.setenv(name, value)
    with closing(Platform.open(tmp_path / "home")) as found:
        yield found


@pytest.fixture
def delivering(platform: Platform) -> Iterator[Platform]:
    deliverer = platform.deliverer()
    deliverer.start()
    yield platform
    deliverer.stop(5)


def told(receiver: Receiver, path: str = "/") -> list[str]:
    return [one.message["subject"] for one in receiver.at(path)]


def ended(platform: Platform, webhook: str) -> bool:
    return not platform.deliveries(webhook, "waiting") and bool(platform.deliveries(webhook))


def test_a_webhook_is_told_exactly_what_happens_after_it_was_made_in_order(
    delivering: Platform, receiver: Receiver
) -> None:
    delivering.create_model("before")
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    names = [f"m{number}" for number in range(30)]
    for name in names:
        delivering.create_model(name)
    wait_for(lambda: len(receiver.got) >= 30)
    wait_for(lambda: delivering.webhook("ci").counts == {"delivered": 30})
    assert told(receiver) == [f"model/{name}" for name in names]
    event = receiver.got[0].message
    assert event["specversion"] == "1.0"
    assert event["type"] == "flyball.model.created"
    assert event["data"]["actor"] == delivering.actor
    assert receiver.got[0].headers["content-type"].startswith("application/cloudevents+json")
    assert len({one.id for one in receiver.got}) == 30


def test_what_happened_while_nobody_delivered_is_told_later_from_the_events_after_its_making(
    platform: Platform, receiver: Receiver
) -> None:
    platform.create_model("before")
    platform.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    platform.create_model("after")
    for _ in range(2):  # the second finds nothing new
        deliverer = platform.deliverer()
        deliverer.start()
        wait_for(lambda: platform.webhook("ci").counts == {"delivered": 1})
        deliverer.stop(5)
    assert told(receiver) == ["model/after"]


def test_a_webhook_made_anew_under_its_name_is_not_told_what_the_first_was(
    platform: Platform, receiver: Receiver
) -> None:
    platform.create_webhook(f"{receiver.url}/old", ["model.created"], name="ci", secret="old")
    platform.create_model("a")
    platform.delete_webhook("ci")
    platform.create_webhook(f"{receiver.url}/new", ["model.created"], name="ci")
    platform.create_model("b")
    deliverer = platform.deliverer()
    deliverer.start()
    wait_for(lambda: platform.webhook("ci").counts == {"delivered": 1})
    deliverer.stop(5)
    assert (told(receiver, "/old"), told(receiver, "/new")) == ([], ["model/b"])
    assert "webhook-signature" not in receiver.got[0].headers


def test_what_is_inactive_is_not_told(delivering: Platform, receiver: Receiver) -> None:
    delivering.create_webhook(f"{receiver.url}/off", ["*"], name="off", is_active=False)
    delivering.create_webhook(f"{receiver.url}/on", ["model.*"], name="on")
    delivering.create_model("a")
    wait_for(lambda: "model/a" in told(receiver, "/on"))
    assert receiver.at("/off") == []


def test_every_event_of_mlflow_is_told_as_mlflow_tells_it(delivering: Platform, receiver: Receiver) -> None:
    events = [name for name in MLFLOW_EVENTS if not name.startswith("budget")]
    delivering.create_webhook(f"{receiver.url}/", events, name="ml", secret="s3cret ü", format="mlflow")
    prompt = {"mlflow.prompt.is_prompt": "true"}
    long = "w" * 50_000
    act = delivering
    act.create_model("späte Züge", {"team": "rail"}, "says when")
    act.create_version("späte Züge", "s3://b/m", tags={"k": "v"}, description="first", run_link="x")
    act.tag_model("späte Züge", "quiet", "yes")  # MLflow has no event of it
    act.tag_version("späte Züge", 1, "k", long)
    act.untag_version("späte Züge", 1, "k")
    act.set_alias("späte Züge", "champion", 1)
    act.remove_alias("späte Züge", "champion")
    act.create_model("ask", {**prompt, "_mlflow_prompt_type": "text", "t": "1"})
    act.create_version("ask", "prompt-template", tags={**prompt, "mlflow.prompt.text": long, "lang": "de"})
    act.tag_model("ask", "t", "2")
    act.untag_model("ask", "t")
    act.tag_version("ask", 1, "k", "v")
    act.untag_version("ask", 1, "k")
    act.set_alias("ask", "prod", 1)
    act.delete_model("ask")
    one = {"name": "späte Züge", "version": "1"}
    alias = {"name": "späte Züge", "alias": "champion"}
    expected: list[tuple[str, dict[str, Any]]] = [
        ("registered_model.created", {"name": "späte Züge", "tags": {"team": "rail"}, "description": "says when"}),
        (
            "model_version.created",
            {**one, "source": "s3://b/m", "run_id": None, "tags": {"k": "v"}, "description": "first"},
        ),
        ("model_version_tag.set", {**one, "key": "k", "value": long}),
        ("model_version_tag.deleted", {**one, "key": "k"}),
        ("model_version_alias.created", {**alias, "version": "1"}),
        ("model_version_alias.deleted", alias),
        ("prompt.created", {"name": "ask", "tags": {"t": "1"}, "description": ""}),
        (
            "prompt_version.created",
            {"name": "ask", "version": "1", "template": long, "tags": {"lang": "de"}, "description": None},
        ),
        ("prompt_tag.set", {"name": "ask", "key": "t", "value": "2"}),
        ("prompt_tag.deleted", {"name": "ask", "key": "t"}),
        ("prompt_version_tag.set", {"name": "ask", "version": "1", "key": "k", "value": "v"}),
        ("prompt_version_tag.deleted", {"name": "ask", "version": "1", "key": "k"}),
        ("prompt_alias.created", {"name": "ask", "alias": "prod", "version": "1"}),
    ]
    wait_for(lambda: len(receiver.got) >= len(expected))
    got = [(f"{m['entity']}.{m['action']}", m["data"]) for m in (one.message for one in receiver.got)]
    # What was overwritten or removed before it was read is told as far as the journal has it.
    shortened = [(name, {k: v[:8000] if v == long else v for k, v in data.items()}) for name, data in expected]
    cut = [(n, {k: v[:8000] if isinstance(v, str) else v for k, v in d.items()}) for n, d in got]
    assert cut == shortened
    for name, data in got:
        assert set(data) == set(EXAMPLES[name])
    assert all(verified(one, "s3cret ü".encode(), "x-mlflow") for one in receiver.got)
    assert {one.headers["content-type"] for one in receiver.got} == {"application/json"}


def test_a_long_text_is_told_in_full(delivering: Platform, receiver: Receiver) -> None:
    text = "ü" * 60_000
    delivering.create_webhook(f"{receiver.url}/", ["prompt_version.created"], name="ml", format="mlflow")
    prompt = {"mlflow.prompt.is_prompt": "true"}
    delivering.create_model("ask", prompt)
    delivering.create_version("ask", "p", tags={**prompt, "mlflow.prompt.text": text})
    wait_for(lambda: receiver.got)
    assert receiver.got[0].message["data"]["template"] == text


def test_signatures_of_cloud_events_are_those_of_standard_webhooks(delivering: Platform, receiver: Receiver) -> None:
    key = bytes(range(32))
    secret = "whsec_" + base64.b64encode(key).decode()
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci", secret=secret)
    delivering.create_model("a")
    wait_for(lambda: receiver.got)
    assert verified(receiver.got[0], key, "webhook")


def test_a_failure_is_tried_again_under_the_same_id_and_holds_what_follows(
    delivering: Platform, receiver: Receiver
) -> None:
    receiver.behaviours["/"] = [503, "close", "garbage", 200]
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci", secret="x")
    delivering.create_model("a")
    delivering.create_model("b")
    wait_for(lambda: delivering.webhook("ci").counts == {"delivered": 2})
    assert told(receiver) == ["model/a"] * 4 + ["model/b"]
    assert len({one.id for one in receiver.got}) == 2
    first = delivering.deliveries("ci")[-1]
    assert [attempt.status for attempt in first.log] == [503, None, None, 200]
    assert all(attempt.error for attempt in first.log[:-1])


def test_what_is_never_taken_fails_at_last_and_can_be_sent_again(delivering: Platform, receiver: Receiver) -> None:
    receiver.behaviours["/"] = [500, 500, 500, 500, 200]
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    delivering.create_model("a")
    delivering.create_model("b")
    wait_for(lambda: delivering.webhook("ci").counts == {"delivered": 1, "failed": 1})
    failed = delivering.deliveries("ci", "failed")[0]
    assert failed.attempts == 4
    delivering.redeliver("ci", failed.event)
    wait_for(lambda: delivering.webhook("ci").counts == {"delivered": 2})
    assert receiver.got[-1].id == failed.id
    with pytest.raises(NotFound):
        delivering.redeliver("ci", 10**9)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410])
def test_a_refusal_is_final_and_nobody_is_followed(status: int, delivering: Platform, receiver: Receiver) -> None:
    receiver.behaviours["/"] = [status]
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    delivering.create_model("a")
    wait_for(lambda: delivering.webhook("ci").counts == {"failed": 1})
    assert len(receiver.got) == 1


def test_receivers_that_hang_do_not_hold_up_the_others(
    platform: Platform, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_WEBHOOKS_WORKERS", "4")
    for number in range(8):
        receiver.behaviours[f"/bad{number}"] = [("hang", "drip", "close", "garbage")[number % 4]]
        platform.create_webhook(f"{receiver.url}/bad{number}", ["model.created"], name=f"a-bad{number}")
    platform.create_webhook(f"{receiver.url}/good", ["model.created"], name="z-good")
    for number in range(20):
        platform.create_model(f"m{number}")
    deliverer = platform.deliverer()
    deliverer.start()
    wait_for(lambda: len(receiver.at("/good")) == 20, 8)
    waiting = [platform.webhook(f"a-bad{number}").counts.get("waiting", 0) for number in range(8)]
    deliverer.stop(5)
    assert told(receiver, "/good") == [f"model/m{number}" for number in range(20)]
    assert min(waiting) > 0


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_no_receiver_is_listened_to_for_longer_than_the_time(behaviour: str, receiver: Receiver) -> None:
    receiver.behaviours["/"] = [behaviour]
    answer = send(f"{receiver.url}/", {}, b"{}", replace(OPEN, timeout_s=0.4))
    assert answer.status is None
    assert answer.error == "the receiver did not answer within 0.4 s"


def test_of_an_answer_only_the_beginning_is_read(receiver: Receiver) -> None:
    receiver.behaviours["/"] = ["huge"]
    answer = send(f"{receiver.url}/", {}, b"{}", OPEN)
    assert answer.status == 200
    assert len(answer.body) == ANSWER_BYTES


def test_nobody_there_is_an_error_that_may_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = send(f"http://127.0.0.1:{port}/", {}, b"{}", OPEN)
    assert answer.error is not None
    assert "refused" in answer.error
    assert not answer.is_final


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "168.63.129.16",
        "192.0.2.1",
        "2001:db8::1",
    ],
)
def test_an_address_within_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f::1", "64:ff9b::5db8:d70e", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://localhost/", "http://127.1/", "http://0177.0.0.1/", "http://2130706433/"),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/", "http://169.254.169.254/latest/meta-data"),
    ],
)
def test_a_webhook_to_an_address_within_is_refused_and_never_sent_to(url: str, platform: Platform) -> None:
    closed = replace(OPEN, allow_private=False)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLYBALL_WEBHOOKS_ALLOW_PRIVATE", "false")
        with pytest.raises(InvalidInput, match=r"non-public|Cannot resolve"):
            platform.create_webhook(url, ["*"], secret="x")
    answer = send(url, {}, b"{}", closed)
    assert answer.status is None
    assert "non-public" in str(answer.error) or "Cannot resolve" in str(answer.error)
    assert platform.webhooks() == []


def test_a_name_that_means_another_machine_the_second_time_is_asked_once_only(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = int(receiver.url.rpartition(":")[2]), []

    def rebinding(host: str, wanted: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "198.51.100.7" if len(asked) % 2 else "127.0.0.1"  # judged first, then what is within
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, wanted))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    closed = replace(OPEN, allow_private=False, timeout_s=0.3)
    for _ in range(4):
        assert send(f"http://rebinding.example:{port}/", {}, b"{}", closed).status is None
    assert len(asked) == 4
    assert receiver.got == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        *(("ftp://a/b", "scheme"), ("https://", "hostname"), ("", "empty"), ("http://a b/", "space")),
        *(("http://u:p@h/", "password"), ("http://h:99999/", "Port"), ("nothing", "scheme")),
        ("http://h/\r\nX: y", "control"),
    ],
)
def test_a_wrong_address_is_refused_with_its_reason(url: str, says: str, platform: Platform) -> None:
    with pytest.raises(InvalidInput, match=says):
        platform.create_webhook(url, ["*"])


def test_the_secret_is_nowhere_but_in_a_file_of_its_own(
    platform: Platform, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = platform.create_webhook(f"{receiver.url}/", ["*"], name="ci", secret="very-s3cret")
    kept = platform.home / "secrets" / "webhooks" / "ci"
    holding = [file for file in platform.home.rglob("*") if file.is_file() and b"very-s3cret" in file.read_bytes()]
    assert holding == [kept]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "very-s3cret" not in repr(hook)
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", key := Fernet.generate_key().decode())
    platform.update_webhook("ci", secret="another")
    sealed = kept.read_bytes()
    assert b"another" not in sealed
    assert Fernet(key).decrypt(sealed.removeprefix(b"fernet:")) == b"another"
    platform.test_webhook("ci")
    assert verified(receiver.got[-1], b"another", "webhook")
    platform.update_webhook("ci", secret="")
    platform.test_webhook("ci")
    assert "webhook-signature" not in receiver.got[-1].headers
    assert not kept.exists()


def test_a_name_that_is_taken_leaves_the_webhook_and_its_secret_as_they_are(
    platform: Platform, receiver: Receiver
) -> None:
    platform.create_webhook(f"{receiver.url}/", ["*"], name="ci", secret="first")
    with pytest.raises(Conflict):
        platform.create_webhook(f"{receiver.url}/other", ["*"], name="ci", secret="second")
    platform.test_webhook("ci")
    assert verified(receiver.at("/")[0], b"first", "webhook")


def test_a_message_that_cannot_be_signed_is_not_sent(delivering: Platform, receiver: Receiver) -> None:
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci", secret="x")
    (delivering.home / "secrets" / "webhooks" / "ci").unlink()
    delivering.create_model("a")
    wait_for(lambda: delivering.webhook("ci").counts == {"failed": 1})
    assert receiver.got == []
    assert "secret" in str(delivering.deliveries("ci")[0].log[-1].error)


def test_more_than_may_wait_fails_at_once_and_nothing_is_lost(
    platform: Platform, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_WEBHOOKS_WAITING", "3")
    monkeypatch.setenv("FLYBALL_WEBHOOKS_BACKOFF_S", "30")
    receiver.behaviours["/"] = [503]
    platform.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    deliverer = platform.deliverer()
    deliverer.start()
    for number in range(6):
        platform.create_model(f"m{number}")
    wait_for(lambda: platform.webhook("ci").counts == {"waiting": 3, "failed": 3})
    deliverer.stop(5)
    assert len(platform.deliveries("ci")) == 6


def test_what_goes_with_a_webhook_goes(delivering: Platform, receiver: Receiver) -> None:
    receiver.behaviours["/"] = [503]
    delivering.create_webhook(f"{receiver.url}/", ["model.created"], name="ci", secret="x")
    delivering.create_webhook(f"{receiver.url}/other", ["model.created"], name="other")
    delivering.create_model("a")
    wait_for(lambda: receiver.at("/"))
    delivering.delete("webhook/ci")  # as any resource is deleted
    wait_for(lambda: {one.webhook for one in delivering.deliveries()} == {"other"})


def test_delays_double_to_a_bound_and_differ() -> None:
    settings = WebhookSettings(backoff_s=1.0, backoff_max_s=60.0)
    chance = random.Random(7)
    for failed in (0, 1, 5, 6, 20, 10_000):
        longest = min(2.0 ** min(failed, 30), 60.0)
        waits = [back_off_s(failed, settings, chance) for _ in range(100)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_settings_of_mlflow_count_and_ours_count_more(tmp_path: Path) -> None:
    theirs = {
        "MLFLOW_WEBHOOK_REQUEST_TIMEOUT": "7",
        "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_WEBHOOK_DELIVERY_MAX_WORKERS": "3",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http, https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    found = webhook_settings(tmp_path, theirs)
    assert (found.timeout_s, found.retries, found.workers) == (7.0, 2, 3)
    assert (found.allowed_schemes, found.allow_private) == (("http", "https"), True)
    assert webhook_settings(tmp_path, {**theirs, "FLYBALL_WEBHOOKS_RETRIES": "9"}).retries == 9


_DELIVERS = """
import sys, threading
from flyball.platform import Platform
platform = Platform.open(sys.argv[1])
platform.deliverer().start()
threading.Event().wait()
"""


def test_a_deliverer_killed_between_sending_and_noting_sends_again_under_the_same_id(
    platform: Platform, receiver: Receiver
) -> None:
    platform.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    platform.create_model("a")
    platform.create_model("b")
    started: list[subprocess.Popen[bytes]] = []

    def kill(_handler: Any) -> None:
        wait_for(lambda: started)
        started[-1].kill()
        started[-1].wait()

    receiver.behaviours["/"] = [kill, kill, 200]
    both = {"delivered": 2}
    for _ in range(3):
        started.append(subprocess.Popen([sys.executable, "-c", _DELIVERS, str(platform.home)], env=dict(os.environ)))
        wait_for(lambda: started[-1].poll() is not None or platform.webhook("ci").counts == both, 30)
    started[-1].kill()
    started[-1].wait()
    assert told(receiver) == ["model/a", "model/a", "model/a", "model/b"]
    assert len({one.id for one in receiver.got}) == 2


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that nobody has signed but itself, with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(pem) + private)
    return file


def test_a_receiver_must_prove_who_it_is(
    certificate: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(certificate) as secure:
        settings = replace(OPEN, schemes="https", timeout_s=5.0)
        refused = send(f"{secure.url}/", {}, b"{}", settings)
        assert refused.status is None
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused.error)
        assert secure.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send(f"{secure.url}/", {}, b"{}", settings).status == 200
        wrong = secure.url.replace("127.0.0.1", "localhost")
        assert "CERTIFICATE_VERIFY_FAILED" in str(send(f"{wrong}/", {}, b"{}", settings).error)
    plain = receiver.url.replace("http://", "https://")
    assert send(f"{plain}/", {}, b"{}", settings).status is None


def test_a_handshake_that_never_ends_is_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = send(
            f"https://127.0.0.1:{silent.getsockname()[1]}/", {}, b"{}", replace(OPEN, schemes="https", timeout_s=0.3)
        )
    assert answer.error == "the receiver did not answer within 0.3 s"


def test_what_is_redacted_is_told_no_more(platform: Platform, receiver: Receiver) -> None:
    platform.create_webhook(f"{receiver.url}/", ["model.*"], name="ci")
    platform.create_model("a", description="of ada@example.org")
    receiver.behaviours["/"] = [503]
    deliverer = platform.deliverer()
    deliverer.start()
    wait_for(lambda: len(platform.deliveries("ci")) == 2)
    deliverer.stop(5)
    noted = platform.deliveries("ci")[0].event
    with platform.ledger.write("user/a") as world:
        world.journal.redact(noted, {})
    assert noted not in [one.event for one in platform.deliveries("ci")]
