"""What conformance to the Open Inference Protocol over HTTP means beyond one good request, one test a trap."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from openapi_spec_validator import validate
from planes import Home, Plane, Reply, parse_replies, until
from tritonclient.utils import InferenceServerException

from flyball.tracking.traffic import TrafficReader
from flyball.wire.oip.routes import ROUTES

INFER = "/v2/models/late/infer"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.deploy()
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


@pytest.fixture
def client(plane: Plane) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{plane.port}")
    yield made
    made.close()


def tensor(name: str, data: Any, shape: Any = None, datatype: str = "FP64") -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data}


def asked(plane: Plane, distance: Any = (1.0,), hour: Any = (2.0,), **fields: Any) -> Reply:
    body = {"inputs": [tensor("distance", list(distance)), tensor("hour", list(hour))], **fields}
    return plane.call("POST", INFER, body)


def refused(reply: Reply, status: int, part: str) -> None:
    assert reply.status == status, reply.body
    assert part in reply.json["error"], reply.body


class TestAddresses:
    def test_the_server_answers_with_and_without_the_last_slash(self, plane: Plane) -> None:
        assert plane.call("GET", "/v2").json == plane.call("GET", "/v2/").json
        assert plane.call("GET", "/v2").json["name"] == "flyball"

    @pytest.mark.parametrize("path", ["/v2/models/a%2Fb", "/v2/models/a%2Fb/ready"])
    def test_a_slash_in_a_name_is_part_of_the_name(self, plane: Plane, path: str) -> None:
        refused(plane.call("GET", path), 404, 'no deployment is called "a/b"')

    def test_a_path_that_is_not_utf_8_is_refused(self, plane: Plane) -> None:
        refused(plane.call("GET", "/v2/models/%ff"), 400, "not UTF-8")

    def test_a_query_does_not_hide_the_path(self, plane: Plane) -> None:
        assert plane.call("GET", "/v2/health/live?verbose=1").status == 200

    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/v2/health/live", "GET, HEAD, OPTIONS"),
            (INFER, "POST, OPTIONS"),
            ("/features", "GET, HEAD, POST, OPTIONS"),
        ],
    )
    def test_other_methods_are_405_and_options_says_which_there_are(self, plane: Plane, path: str, allow: str) -> None:
        wrong = plane.call("DELETE", path)
        refused(wrong, 405, "DELETE is not for this path")
        options = plane.call("OPTIONS", path)
        assert options.status == 200
        assert wrong.headers["allow"] == options.headers["allow"] == allow

    def test_head_is_get_without_a_body(self, plane: Plane) -> None:
        raw = plane.raw(b"HEAD /v2 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"HTTP/1.1 200" in head
        assert body == b""
        assert b"Content-Length: %d" % len(plane.call("GET", "/v2").body) in head

    def test_names_made_up_by_clients_do_not_crowd_out_real_ones(self, plane: Plane) -> None:
        lines = b"".join(b"GET /v2/models/x%d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(1100))
        last = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        statuses = [reply.status for reply in parse_replies(plane.raw(lines + last))]
        assert statuses == [404] * 1100 + [200]


class TestTransport:
    def test_a_client_that_expects_100_continue_gets_it_before_it_sends(self, plane: Plane) -> None:
        body = json.dumps({"inputs": [tensor("distance", [1.0]), tensor("hour", [2.0])]}).encode()
        head = b"POST %b HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as connection:
            connection.sendall(head % (INFER.encode(), len(body)))
            assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(body)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_a_chunked_body_is_put_together(self, plane: Plane) -> None:
        body = json.dumps({"inputs": [tensor("distance", [1.0]), tensor("hour", [2.0])]}).encode()
        head = b"POST %b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)
        )
        (reply,) = parse_replies(plane.raw(head % INFER.encode() + chunks + b"0\r\n\r\n"))
        assert reply.status == 200

    @pytest.mark.parametrize(
        ("accepted", "unpack"),
        [
            ("gzip", gzip.decompress),
            ("deflate", zlib.decompress),
            ("gzip;q=0, deflate;q=0.5", zlib.decompress),
            ("br", None),
            ("gzip;q=0.0", None),
        ],
    )
    @pytest.mark.parametrize("rows", [200, 5000])
    def test_a_large_answer_is_compressed_as_the_client_accepts(
        self, plane: Plane, accepted: str, unpack: Any, rows: int
    ) -> None:
        body = {"columns": {"distance": [0.25] * rows, "hour": [0.5] * rows}}
        reply = plane.call("POST", "/v1/models/late:predict", body, {"Accept-Encoding": accepted})
        assert reply.headers.get("content-encoding") == (
            None if unpack is None else accepted.split(",")[-1].split(";")[0].strip()
        )
        predictions = json.loads(unpack(reply.body) if unpack else reply.body)["predictions"]
        assert len(predictions) == rows

    def test_a_small_answer_is_not_worth_compressing(self, plane: Plane) -> None:
        reply = plane.call("POST", "/v1/models/late:predict", {"distance": 1, "hour": 1}, {"Accept-Encoding": "gzip"})
        assert "content-encoding" not in reply.headers

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    @pytest.mark.parametrize("rows", [3, 20_000])
    def test_tritonclient_may_compress_both_ways(
        self, client: triton.InferenceServerClient, coding: str, rows: int
    ) -> None:
        inputs = [triton.InferInput(name, [rows], "FP64") for name in ("distance", "hour")]
        for tensor in inputs:
            tensor.set_data_from_numpy(np.random.default_rng(5).normal(size=rows))
        plain = client.infer("late", inputs).as_numpy("probability")
        packed = client.infer(
            "late", inputs, request_compression_algorithm=coding, response_compression_algorithm=coding
        )
        np.testing.assert_array_equal(packed.as_numpy("probability"), plain)

    def test_a_damaged_compressed_body_is_the_clients_fault(self, plane: Plane) -> None:
        for size in (100, 100_000):
            broken = gzip.compress(np.random.default_rng(1).bytes(size))[:-20]
            refused(plane.call("POST", INFER, broken, {"Content-Encoding": "gzip"}), 400, "gzip")

    def test_the_trace_of_a_request_is_logged_and_a_broken_one_ignored(self, plane: Plane, home: Home) -> None:
        wanted = {}
        for parent, trace in (
            (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
            (f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes", TRACE),
            (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
            (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
            (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
            ("x" * 55, None),
        ):
            body = {"distance": 1, "hour": 1}
            reply = plane.call("POST", "/v1/models/late:predict", body, {"traceparent": parent})
            wanted[reply.headers["x-flyball-prediction-id"]] = trace
        rows, _ = TrafficReader(home.traffic).read_predictions(limit_bytes=1 << 30)
        found = {row["id"]: row["trace"] or None for row in rows.to_dicts() if row["id"] in wanted}
        assert found == wanted


class TestTensors:
    @pytest.mark.parametrize(
        "shape", [[-1], [10**12, 10**6], [1.0], [True], ["1"], [2], [1, 2], [], None, [0, 2**62, 4], [1] * 17]
    )
    def test_a_shape_is_counted_before_it_is_believed(self, plane: Plane, shape: Any) -> None:
        body = {"inputs": [{**tensor("distance", [1.0]), "shape": shape}, tensor("hour", [2.0])]}
        reply = plane.call("POST", INFER, body)
        assert reply.status == 400
        assert reply.json["error"]

    @pytest.mark.parametrize("data", [[[1.0], 2.0], [[1.0, 2.0], [3.0]], [[[1.0]], [[2.0]]]])
    def test_ragged_data_is_refused(self, plane: Plane, data: Any) -> None:
        body = {"inputs": [tensor("distance", data, [2, 1]), tensor("hour", [2.0, 1.0])]}
        refused(plane.call("POST", INFER, body), 400, '"distance"')

    def test_inputs_of_different_lengths_are_refused(self, plane: Plane) -> None:
        refused(asked(plane, [1.0, 2.0], [1.0]), 400, "rows")

    def test_a_name_given_twice_is_refused(self, plane: Plane) -> None:
        body = {"inputs": [tensor("distance", [1.0]), tensor("distance", [1.0]), tensor("hour", [1.0])]}
        refused(plane.call("POST", INFER, body), 400, "given twice")

    def test_another_datatype_is_taken_where_its_values_fit_and_refused_where_not(self, plane: Plane) -> None:
        fits = {"inputs": [tensor("distance", [1], datatype="INT32"), tensor("hour", [2.0], datatype="FP32")]}
        assert plane.call("POST", INFER, fits).status == 200
        texts = {"inputs": [tensor("distance", ["far"], datatype="BYTES"), tensor("hour", [2.0])]}
        refused(plane.call("POST", INFER, texts), 400, "distance")
        large = {"inputs": [tensor("distance", [128], datatype="INT8"), tensor("hour", [2.0])]}
        refused(plane.call("POST", INFER, large), 400, "fit INT8")

    def test_nan_is_no_json_and_null_is_a_missing_value_which_this_model_does_not_take(self, plane: Plane) -> None:
        body = b'{"inputs": [{"name": "distance", "shape": [1], "datatype": "FP64", "data": [NaN]}]}'
        refused(plane.call("POST", INFER, body), 400, "not JSON")
        refused(asked(plane, [None]), 400, "distance")
        refused(plane.call("POST", "/v1/models/late:predict", {"distance": None, "hour": 1}), 400, "distance")

    def test_outputs_are_those_that_are_asked_for_in_their_order(self, plane: Plane) -> None:
        reply = asked(plane, outputs=[{"name": "probability"}, {"name": "prediction"}])
        assert [output["name"] for output in reply.json["outputs"]] == ["probability", "prediction"]
        refused(asked(plane, outputs=[{"name": "nothing"}]), 400, 'no output "nothing"')

    def test_one_output_in_binary_and_one_in_json(self, plane: Plane, home: Home) -> None:
        wishes = [
            {"name": "probability"},
            {"name": "prediction", "parameters": {"binary_data": False}},
        ]
        reply = asked(plane, outputs=wishes, parameters={"binary_data_output": True})
        length = int(reply.headers["inference-header-content-length"])
        outputs = json.loads(reply.body[:length])["outputs"]
        assert outputs[0]["parameters"] == {"binary_data_size": 8}
        assert "data" not in outputs[0]
        assert outputs[1]["data"] == [1]
        assert np.frombuffer(reply.body[length:], "<f8")[0] == pytest.approx(home.probability("late@1", 1.0, 2.0))
        assert reply.headers["content-type"] == "application/octet-stream"

    def test_json_and_binary_inputs_may_be_mixed(self, plane: Plane, home: Home) -> None:
        raw = np.array([2.0]).tobytes()
        hour = {"name": "hour", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [tensor("distance", [1.0]), hour]}).encode()
        lengths = {"Inference-Header-Content-Length": str(len(head))}
        reply = plane.call("POST", INFER, head + raw, lengths)
        assert reply.json["outputs"][1]["data"] == [pytest.approx(home.probability("late@1", 1.0, 2.0))]
        refused(plane.call("POST", INFER, head + raw + b"!", lengths), 400, "belong to no input")
        refused(
            plane.call("POST", INFER, head + raw, {"Inference-Header-Content-Length": "-1"}), 400, "number of bytes"
        )
        refused(plane.call("POST", INFER, head + raw), 400, "not JSON")

    def test_parameters_route_as_for_records(self, plane: Plane) -> None:
        assert asked(plane, parameters={"key": 7, "priority": 1, "timeout": 3}).status == 200
        refused(asked(plane, parameters={"key": [1]}), 400, '"key"')
        refused(asked(plane, parameters={"at": "yesterday"}), 400, "yesterday")
        refused(asked(plane, parameters={"variant": "canary"}), 404, '"canary"')

    def test_a_request_longer_than_a_batch_is_answered_whole(self, plane: Plane, home: Home) -> None:
        rows = np.linspace(-3, 3, 1000)
        found = asked(plane, rows.tolist(), [0.5] * 1000).json["outputs"][1]["data"]
        assert found[::333] == [pytest.approx(home.probability("late@1", rows[at], 0.5)) for at in range(0, 1000, 333)]


class TestRepository:
    def test_a_deployment_that_is_declared_is_loaded_and_stays_loaded(
        self, client: triton.InferenceServerClient
    ) -> None:
        client.load_model("late")
        with pytest.raises(InferenceServerException, match="flyball delete deployment/late"):
            client.unload_model("late")
        with pytest.raises(InferenceServerException, match='no deployment is called "nobody"'):
            client.load_model("nobody")
        with pytest.raises(InferenceServerException, match="with a configuration or files"):
            client.load_model("late", config="{}")
        assert client.is_model_ready("late")

    def test_the_index_may_be_of_ready_ones_only(self, plane: Plane) -> None:
        everything = plane.call("POST", "/v2/repository/index").json
        assert plane.call("POST", "/v2/repository/index", {"ready": True}).json == everything
        assert everything == [{"name": "late", "version": "late@1", "state": "READY", "reason": ""}]
        assert plane.call("POST", "/v2/repository/index", b"[]").status == 400

    def test_statistics_and_configuration_are_real(self, client: triton.InferenceServerClient, plane: Plane) -> None:
        def stats() -> dict[str, Any]:
            (found,) = client.get_inference_statistics("late")["model_stats"]
            return found

        before = stats()
        asked(plane, [1.0] * 9, [2.0] * 9)
        assert stats()["inference_count"] == before["inference_count"] + 9
        assert stats()["execution_count"] == before["execution_count"] + 1
        assert stats()["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
        assert client.get_inference_statistics()["model_stats"] == [stats()]
        config = client.get_model_config("late")
        assert config["input"][0] == {"name": "distance", "data_type": "TYPE_FP64", "dims": [-1]}
        assert config["max_batch_size"] == 0


class TestOpenapi:
    @pytest.fixture
    def document(self, plane: Plane) -> Any:
        return plane.call("GET", "/openapi.json").json

    def test_it_is_valid(self, document: Any) -> None:
        validate(document)

    def test_it_has_every_route_and_no_other(self, document: Any) -> None:
        told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert told == {(method, path) for method, path, _ in ROUTES}
        operations = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
        assert len(set(operations)) == len(operations)

    @pytest.mark.parametrize(("method", "path"), sorted({(method, path) for method, path, _ in ROUTES}))
    def test_every_path_is_there(self, plane: Plane, method: str, path: str) -> None:
        found = plane.call(method, path.replace("{name}", "late").replace("{version}", "1"))
        assert found.status not in (405, 500, 501)
        if path.startswith("/v2") and method == "GET":
            assert found.status == 200

    def test_answers_are_as_it_says(self, plane: Plane, document: Any) -> None:
        import jsonschema

        for method, path, body in (
            ("GET", "/v2/models/late", None),
            ("POST", INFER, {"inputs": [tensor("distance", [1.0]), tensor("hour", [2.0])]}),
            ("POST", "/v1/models/late:predict", {"distance": 1, "hour": 2}),
            ("GET", "/v2/models/late/stats", None),
        ):
            operation = document["paths"][path.replace("late", "{name}")][method.lower()]
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            reply = until(lambda method=method, path=path, body=body: plane.call(method, path, body))  # type: ignore[misc]
            jsonschema.validate(reply.json, {**schema, "components": document["components"]})
            error = operation["responses"]["default"]["content"]["application/json"]["schema"]
            wrong = plane.call(method, path.replace("late", "nobody"), body)
            jsonschema.validate(wrong.json, {**error, "components": document["components"]})
