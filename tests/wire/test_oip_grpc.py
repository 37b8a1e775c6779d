"""The data plane over gRPC as a real process, asked by the real tritonclient."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from planes import ROOT, Home, Plane, until
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from flyball.tracking.traffic import TrafficReader

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.deploy(made.variant("champion", "late@1", 70.0), made.variant("canary", "late@2", 30.0), key="distance")
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def address(home: Home, plane: Plane) -> str:
    assert plane.port
    return str(until(lambda: home.told().get("grpc_address")))


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(address)
    yield made
    made.close()


def inputs(distance: Any, hour: Any, shape: tuple[int, ...] | None = None) -> list[triton.InferInput]:
    found = []
    for name, values in (("distance", distance), ("hour", hour)):
        array = np.asarray(values, np.float64).reshape(shape or (-1,))
        found.append(triton.InferInput(name, list(array.shape), "FP64"))
        found[-1].set_data_from_numpy(array)
    return found


def status_of(error: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def typed(distance: float, hour: float) -> Any:
    request = service_pb2.ModelInferRequest(model_name="late", id="t")
    for name, value in (("distance", distance), ("hour", hour)):
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    return request


def call(address: str, method: str, data: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        answer: bytes = ask(data, metadata=metadata, timeout=20)
        return answer


class TestWhatIsThere:
    def test_liveness_readiness_and_metadata(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("late")
        assert client.is_model_ready("late", "1")
        assert "binary_tensor_data" in client.get_server_metadata().extensions
        described = client.get_model_metadata("late", as_json=True)
        assert described["versions"] == ["late@1", "late@2"]
        assert described["inputs"][0] == {"name": "distance", "datatype": "FP64", "shape": ["-1"]}
        assert [output["name"] for output in described["outputs"]] == ["prediction", "probability"]

    def test_the_configuration_is_the_one_of_rest(self, client: triton.InferenceServerClient, plane: Plane) -> None:
        config = client.get_model_config("late", as_json=True)["config"]
        rest = plane.call("GET", "/v2/models/late/config").json
        assert config["input"] == [{**row, "dims": ["-1"]} for row in rest["input"]]
        assert config["output"][1] == {"name": "probability", "data_type": "TYPE_FP64", "dims": ["-1"]}

    def test_the_repository_is_what_is_declared(self, client: triton.InferenceServerClient) -> None:
        index = client.get_model_repository_index(as_json=True)["models"]
        assert [(row["version"], row["state"]) for row in index] == [("late@1", "READY"), ("late@2", "READY")]
        client.load_model("late")
        with pytest.raises(InferenceServerException, match="nobody") as unknown:
            client.load_model("nobody")
        assert status_of(unknown) == "NOT_FOUND"
        with pytest.raises(InferenceServerException, match="stays loaded") as kept:
            client.unload_model("late")
        assert status_of(kept) == "FAILED_PRECONDITION"
        with pytest.raises(InferenceServerException, match="cannot be loaded with parameters"):
            client.load_model("late", config="{}")
        assert client.is_model_ready("late")

    def test_statistics_count_rows_and_calls(self, client: triton.InferenceServerClient) -> None:
        def counted() -> dict[str, int]:
            found = client.get_inference_statistics("late")
            return {row.version: row.inference_count for row in found.model_stats}

        before = counted()
        client.infer("late", inputs([1.0] * 5, [0.0] * 5), model_version="2")
        assert counted()["late@2"] - before["late@2"] == 5
        success = client.get_inference_statistics("late", "2").model_stats[0].inference_stats.success
        assert success.ns > success.count > 0

    def test_kubernetes_may_probe_it(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=20) == b"\x08\x01"
            with pytest.raises(grpc.RpcError) as unknown:
                check(b"\x0a\x06nobody", timeout=20)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


class TestInference:
    @pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
    @pytest.mark.parametrize("shape", [(7,), (7, 1)])
    def test_it_infers_what_scikit_learn_says(
        self, client: triton.InferenceServerClient, home: Home, compression: str | None, shape: tuple[int, ...]
    ) -> None:
        rows = np.random.default_rng(1).normal(size=(7, 2))
        result = client.infer(
            "late",
            inputs(rows[:, 0], rows[:, 1], shape),
            model_version="1",
            outputs=[triton.InferRequestedOutput("probability")],
            request_id='a "quoted" ü id',
            compression_algorithm=compression,
        )
        wanted = [home.probability("late@1", *row) for row in rows]
        np.testing.assert_allclose(result.as_numpy("probability"), wanted, rtol=1e-12)
        assert result.get_response().id == 'a "quoted" ü id'
        assert result.get_response().model_version == "late@1"
        assert result.as_numpy("prediction") is None

    def test_typed_contents_are_answered_in_typed_contents(self, address: str, home: Home) -> None:
        request = typed(1.0, 2.0)
        request.model_version = "1"
        answer = service_pb2.ModelInferResponse.FromString(call(address, "ModelInfer", request.SerializeToString()))
        by_name = {output.name: output for output in answer.outputs}
        assert by_name["probability"].contents.fp64_contents[0] == pytest.approx(home.probability("late@1", 1.0, 2.0))
        assert by_name["prediction"].contents.int64_contents[:] == [1]
        assert not answer.raw_output_contents

    def test_no_rows_are_answered_with_no_rows(self, client: triton.InferenceServerClient) -> None:
        assert client.infer("late", inputs([], [])).as_numpy("probability").shape == (0,)

    def test_a_message_of_more_than_4_mib_is_taken(self, client: triton.InferenceServerClient) -> None:
        result = client.infer("late", inputs([1.0], [1.0]), parameters={"anything": "x" * (5 << 20)})
        assert result.as_numpy("probability").shape == (1,)

    def test_parameters_and_metadata_mean_what_they_mean_over_rest(
        self, client: triton.InferenceServerClient, home: Home
    ) -> None:
        one = inputs([1.0], [1.0])
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-flyball-variant": "canary"}
        by_header = client.infer("late", one, headers=headers).get_response()
        by_parameter = client.infer("late", one, parameters={"variant": "canary", "anything": 3}).get_response()
        assert by_header.model_version == by_parameter.model_version == "late@2"
        keyed = {client.infer("late", one, parameters={"key": "k"}).get_response().model_version for _ in range(8)}
        assert len(keyed) == 1
        identity = by_header.parameters["prediction_ids"].string_param
        rows, _ = TrafficReader(home.traffic).read_predictions(limit_bytes=1 << 30)
        (row,) = [row for row in rows.to_dicts() if row["id"] == identity]
        assert row["trace"] == TRACE
        with pytest.raises(InferenceServerException, match='"at" is not a text'):
            client.infer("late", one, parameters={"at": 7})

    def test_concurrent_answers_never_cross_between_grpc_and_rest(
        self, client: triton.InferenceServerClient, home: Home, plane: Plane
    ) -> None:
        wrong: list[object] = []

        def ask(start: int) -> None:
            for number in range(start, start + 25):
                value = number / 100
                wanted = home.probability("late@1", value, 0.0)
                result = client.infer("late", inputs([value], [0.0]), model_version="1", request_id=f"r{number}")
                found = float(result.as_numpy("probability")[0])
                body = {"columns": {"distance": [value], "hour": [0.0]}, "version": "1"}
                rest = plane.call("POST", "/v1/models/late:predict", body).json["predictions"][0]
                if result.get_response().id != f"r{number}" or abs(found - wanted) > 1e-12:
                    wrong.append(number)
                if abs(rest["outputs"]["probability"] - wanted) > 1e-12:
                    wrong.append(rest)

        threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 200, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_a_stream_answers_in_order_and_outlives_an_error(self, address: str, home: Home) -> None:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        streaming = triton.InferenceServerClient(address)
        streaming.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(3):
            streaming.async_stream_infer("late", inputs([number], [0.0]), model_version="1", request_id=str(number))
        streaming.async_stream_infer("nobody", inputs([1.0], [0.0]))
        streaming.async_stream_infer("late", inputs([9.0], [0.0]), model_version="1", request_id="last")
        found = [answers.get(timeout=20) for _ in range(5)]
        streaming.stop_stream()
        streaming.close()
        for number in range(3):
            result = found[number][0]
            assert result.get_response().id == str(number)
            assert result.as_numpy("probability")[0] == pytest.approx(home.probability("late@1", number, 0.0))
        assert "nobody" in str(found[3][1])
        assert found[4][0].get_response().id == "last"


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "version", "given", "status", "message"),
        [
            ("nobody", "", inputs([1], [1]), "NOT_FOUND", 'no deployment is called "nobody"'),
            ("late", "9", inputs([1], [1]), "NOT_FOUND", 'does not serve the version "9"'),
            ("late", "", inputs([1], [1])[:1], "INVALID_ARGUMENT", "lacks"),
            ("late", "", inputs([1, 2], [1, 2], (1, 2)), "INVALID_ARGUMENT", "distance"),
            ("late", "", [*inputs([1], [1]), inputs([1], [1])[0]], "INVALID_ARGUMENT", "given twice"),
        ],
    )
    def test_bad_input_is_the_clients_fault_and_never_unavailable(
        self,
        client: triton.InferenceServerClient,
        name: str,
        version: str,
        given: list[triton.InferInput],
        status: str,
        message: str,
    ) -> None:
        with pytest.raises(InferenceServerException, match=message) as refused:
            client.infer(name, given, model_version=version)
        assert status_of(refused) == status

    def test_an_unknown_output_is_refused(self, client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match='did you mean "probability"') as refused:
            client.infer("late", inputs([1], [1]), outputs=[triton.InferRequestedOutput("probabilty")])
        assert status_of(refused) == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex"])
    def test_bytes_that_are_no_message_are_refused(self, address: str, method: str) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            call(address, method, b"\x0a\xff\xff\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_a_message_above_the_limit_is_refused_with_its_size(self, address: str) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            call(address, "ModelInfer", b"\0" * ((64 << 20) + 1))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_a_call_that_is_not_offered_is_unimplemented(self, address: str) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            call(address, "TraceSetting", b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_errors_are_counted_as_those_of_rest(self, client: triton.InferenceServerClient, plane: Plane) -> None:
        with pytest.raises(InferenceServerException):
            client.infer("late", inputs([1], [1])[:1])
        line = b'flyball_request_errors_total{deployment="late",status="400"}'
        assert until(lambda: line in plane.call("GET", "/metrics").body)


class TestLife:
    def test_a_port_that_was_chosen_and_is_taken_is_one_sentence(self, home: Home, address: str) -> None:
        port = address.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(home.path), "--port", "0"]
        ended = subprocess.run(
            [*command, "--grpc-port", port], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 1
        sentence = ended.stderr.strip().splitlines()[-1]
        assert sentence.startswith(f"error: cannot listen on 127.0.0.1:{port} for gRPC")
        assert "--grpc-port" in sentence

    def test_it_can_be_turned_off_and_then_loads_no_grpc(self, tmp_path: Any) -> None:
        (tmp_path / "flyball.toml").write_text("[grpc]\nenabled = false\n")
        running = Plane(tmp_path)
        try:
            assert json.loads((tmp_path / "serving" / "status.json").read_text())["grpc_address"] == ""
            assert plane_maps(running.process.pid).isdisjoint({"grpc"})
        finally:
            assert running.stop() == 0
            running.kill()


def plane_maps(pid: int) -> set[str]:
    """The libraries that a process has mapped, of those that are looked for."""
    with open(f"/proc/{pid}/maps") as maps:  # noqa: PTH123
        return {"grpc"} if "cygrpc" in maps.read() else set()
