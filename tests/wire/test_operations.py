"""Limits, TLS, the access log and traces of a data plane as a real process, over HTTP and gRPC."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import certificates
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from planes import ROOT, Home, Plane, parse_replies, until
from tritonclient.utils import InferenceServerException

from flyball.serving.snapshot import Limits

ROW = {"distance": 1.25, "hour": -0.5}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.deploy()
    certificates.make(made.path, "server", "first")
    certificates.make(made.path, "client", "client")
    (made.path / "flyball.toml").write_text(
        '[serving]\naccess_log = "logs/access.log"\n'
        '[tls]\ncertificate = "server.pem"\nkey = "server.key"\nclient_authority = "client.pem"\n'
    )
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.stop()
    running.kill()


def context(home: Home, is_known: bool = True) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=str(home.path / "server.pem"))
    if is_known:
        found.load_cert_chain(home.path / "client.pem", home.path / "client.key")
    return found


def ask(
    home: Home, plane: Plane, body: Any, path: str = "/v1/models/late:predict", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    client = http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=20, context=context(home))
    try:
        client.request(
            "POST" if body is not None else "GET", path, json.dumps(body) if body is not None else None, headers
        )
        reply = client.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        client.close()


def infer(home: Home, **options: Any) -> Any:
    made = [triton.InferInput(name, [1], "FP64") for name in ROW]
    for tensor, value in zip(made, ROW.values(), strict=True):
        tensor.set_data_from_numpy(np.array([value]))
    with triton.InferenceServerClient(
        home.told()["grpc_address"],
        ssl=True,
        root_certificates=str(home.path / "server.pem"),
        private_key=str(home.path / "client.key"),
        certificate_chain=str(home.path / "client.pem"),
    ) as client:
        return client.infer("late", made, **options)


@pytest.fixture
def limited(home: Home, plane: Plane) -> Iterator[Any]:
    """Sets limits and waits until they hold; afterwards there are none."""

    def limit(**limits: Any) -> None:
        wanted = home.deploy(limits=Limits(**limits))
        until(lambda: home.told()["generation"] == wanted)

    yield limit
    limit()
    assert ask(home, plane, ROW)[0] == 200


class TestLimits:
    def test_above_the_rate_is_429_with_the_time_to_wait_and_counted(
        self, home: Home, plane: Plane, limited: Any
    ) -> None:
        limited(rate=0.05, burst=2)
        statuses = [ask(home, plane, ROW)[0] for _ in range(2)]
        status, headers, body = ask(home, plane, ROW)
        assert [*statuses, status] == [200, 200, 429]
        assert 15 <= int(headers["retry-after"]) <= 20
        assert "0.05 times a second" in json.loads(body)["error"]
        with pytest.raises(InferenceServerException) as found:
            infer(home)
        assert found.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        text = ask(home, plane, None, "/metrics")[2].decode()
        assert 'flyball_requests_refused_total{deployment="late",reason="rate"} 2' in text

    def test_what_is_not_there_in_time_is_504_and_in_no_log(self, home: Home, plane: Plane, limited: Any) -> None:
        limited(timeout_s=1e-6)
        before = logged(home)
        status, headers, body = ask(home, plane, ROW)
        assert (status, headers["retry-after"]) == (504, "1")
        assert "did not answer within" in json.loads(body)["error"]
        with pytest.raises(InferenceServerException) as found:
            infer(home)
        assert found.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        limited()
        assert ask(home, plane, ROW)[0] == 200
        assert logged(home) == before + 1

    def test_body_above_the_limit_of_its_deployment_is_413(self, home: Home, plane: Plane, limited: Any) -> None:
        limited(body_bytes=100)
        assert ask(home, plane, ROW)[0] == 200
        status, _, body = ask(home, plane, [ROW] * 10)
        assert status == 413
        assert "takes at most 100" in json.loads(body)["error"]
        with pytest.raises(InferenceServerException) as found:
            infer(home, request_id="x" * 100)
        assert found.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


class TestTls:
    def test_client_without_a_certificate_is_not_let_in(self, home: Home, plane: Plane) -> None:
        client = http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=20, context=context(home, False))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.request("GET", "/health")
            client.getresponse()
        client.close()
        stranger = grpc.ssl_channel_credentials((home.path / "server.pem").read_bytes())
        with grpc.secure_channel(home.told()["grpc_address"], stranger) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=20)

    def test_plain_http_is_refused_and_others_are_served(self, home: Home, plane: Plane) -> None:
        plain = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            plain.request("GET", "/health")
            plain.getresponse()
        plain.close()
        assert ask(home, plane, ROW)[0] == 200
        assert infer(home).as_numpy("probability").shape[0] == 1

    def test_what_is_no_http_is_answered_within_tls(self, home: Home, plane: Plane) -> None:
        with (
            socket.create_connection(("127.0.0.1", plane.port), timeout=20) as plain,
            context(home).wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"nonsense\r\n\r\n")
            found = b""
            while part := client.recv(4096):
                found += part
        assert parse_replies(found)[0].status == 400

    def test_renewed_certificate_is_shown_without_a_restart_and_a_damaged_one_is_not(
        self, home: Home, plane: Plane
    ) -> None:
        (home.path / "server.key").write_text("nothing")
        plane.process.send_signal(signal.SIGHUP)
        assert ask(home, plane, ROW)[0] == 200
        certificates.make(home.path, "server", "second")
        plane.process.send_signal(signal.SIGHUP)

        def is_second() -> bool:
            try:
                return ask(home, plane, ROW)[0] == 200  # the context trusts the second only
            except ssl.SSLError:
                return False

        until(is_second)
        assert infer(home).as_numpy("probability").shape[0] == 1

    def test_files_that_cannot_be_used_keep_it_from_starting_with_a_sentence(self, tmp_path: Any) -> None:
        (tmp_path / "flyball.toml").write_text('[tls]\ncertificate = "no.pem"\nkey = "no.key"\n')
        command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(tmp_path), "--port", "0"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: ")
        assert "expected a PEM file" in ended.stderr


class TestAccessLog:
    def test_each_request_is_a_line_that_its_trace_finds(self, home: Home, plane: Plane) -> None:
        _, headers, _ = ask(home, plane, ROW, traceparent=TRACE)
        version, trace, span, flags = headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01")
        assert span != TRACE.split("-")[2]
        line = until(lambda: next((one for one in lines(home) if one.get("span_id") == span), None))
        assert line["trace_id"] == trace
        assert line["prediction_id"] == headers["x-flyball-prediction-id"]
        assert (line["status"], line["path"], line["protocol"]) == (200, "/v1/models/late:predict", "http")
        assert not any("1.25" in json.dumps(one) for one in lines(home))

    def test_grpc_stands_there_too(self, home: Home) -> None:
        infer(home, headers={"traceparent": TRACE.replace("4bf9", "5bf9")})
        until(
            lambda: [one for one in lines(home) if one["protocol"] == "grpc" and one.get("trace_id", "")[:4] == "5bf9"]
        )

    def test_trace_that_is_none_is_not_answered(self, home: Home, plane: Plane) -> None:
        assert "traceparent" not in ask(home, plane, ROW, traceparent="00-zz")[1]


def lines(home: Home) -> list[dict[str, Any]]:
    path = home.path / "logs" / "access.log"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def logged(home: Home) -> int:
    from flyball.tracking.traffic import TrafficReader

    return TrafficReader(home.traffic).read_predictions(limit_bytes=1 << 30)[0].height
