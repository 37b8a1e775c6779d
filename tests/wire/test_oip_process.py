"""The data plane as a real process, asked by the real tritonclient and by raw sockets."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from planes import ROOT, Home, Plane, parse_replies, until
from tritonclient.utils import InferenceServerException

from flyball.storage.streams.log import Reader
from flyball.tracking.traffic import TrafficReader

ROW = {"distance": 1.25, "hour": -0.5}


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
def own_home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.deploy()
    return made


@pytest.fixture
def own_plane(own_home: Home) -> Iterator[Plane]:
    running = Plane(own_home.path)
    yield running
    running.kill()


def tensors(distance: object, hour: object, shape: list[int] | None = None) -> list[dict[str, object]]:
    return [
        {"name": name, "shape": shape or [len(data)], "datatype": "FP64", "data": data}  # type: ignore[arg-type]
        for name, data in (("distance", distance), ("hour", hour))
    ]


def logged(home: Home) -> list[str]:
    """The ids of all predictions in the log."""
    rows, _ = TrafficReader(home.traffic).read_predictions(limit_bytes=1 << 30)
    return rows["id"].to_list()


class TestTritonClient:
    @pytest.fixture
    def client(self, plane: Plane) -> Iterator[triton.InferenceServerClient]:
        client = triton.InferenceServerClient(f"127.0.0.1:{plane.port}")
        yield client
        client.close()

    def inputs(self, rows: np.ndarray, binary: bool, shape: tuple[int, ...]) -> list[triton.InferInput]:
        found = []
        for index, name in enumerate(("distance", "hour")):
            tensor = triton.InferInput(name, list(shape), "FP64")
            tensor.set_data_from_numpy(np.ascontiguousarray(rows[:, index]).reshape(shape), binary_data=binary)
            found.append(tensor)
        return found

    def test_it_reads_liveness_and_metadata(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("late")
        assert client.is_model_ready("late", "1")
        assert not client.is_model_ready("late", "7")
        assert not client.is_model_ready("nobody")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        described = client.get_model_metadata("late")
        assert described["versions"] == ["late@1"]
        assert described["inputs"][0] == {"name": "distance", "datatype": "FP64", "shape": [-1]}
        assert client.get_model_repository_index()[0]["state"] == "READY"

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
    def test_it_infers_what_scikit_learn_says(
        self, client: triton.InferenceServerClient, home: Home, binary: bool, compression: str | None
    ) -> None:
        rows = np.random.default_rng(1).normal(size=(7, 2))
        result = client.infer(
            "late",
            self.inputs(rows, binary, (7, 1)),
            outputs=[triton.InferRequestedOutput("probability", binary_data=binary)],
            request_id='a "quoted" id',
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        wanted = [home.probability("late@1", *row) for row in rows]
        np.testing.assert_allclose(result.as_numpy("probability"), wanted, rtol=1e-12)
        assert result.get_response()["id"] == 'a "quoted" id'
        assert result.as_numpy("prediction") is None

    def test_its_default_call_gets_every_output_in_binary(self, client: triton.InferenceServerClient) -> None:
        result = client.infer("late", self.inputs(np.ones((3, 2)), True, (3,)))
        assert result.as_numpy("prediction").dtype == np.int64
        assert "data" not in result.get_response()["outputs"][0]

    def test_it_shows_the_servers_own_error(self, client: triton.InferenceServerClient) -> None:
        tensor = triton.InferInput("distanse", [1], "FP64")
        tensor.set_data_from_numpy(np.ones(1))
        with pytest.raises(InferenceServerException, match='no input "distanse"; did you mean "distance"'):
            client.infer("late", [tensor])

    def test_concurrent_answers_never_cross(self, home: Home, plane: Plane) -> None:
        wrong: list[str] = []

        def ask(start: int) -> None:
            for number in range(start, start + 40):
                body = {"id": f"r{number}", "inputs": tensors([number / 100], [0.0])}
                answer = plane.call("POST", "/v2/models/late/infer", body).json
                found = dict(zip((o["name"] for o in answer["outputs"]), answer["outputs"], strict=True))
                wanted = home.probability("late@1", number / 100, 0.0)
                if answer["id"] != f"r{number}" or abs(found["probability"]["data"][0] - wanted) > 1e-12:
                    wrong.append(f"r{number}")

        threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 320, 40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestErrors:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/nowhere", 404),
            ("GET", "/v2/models/nobody", 404),
            ("GET", "/v2/models/late/versions/9", 404),
            ("GET", "/v2/models/late/infer", 405),
            ("HEAD", "/v1/models/late:predict", 405),
            ("PUT", "/v2", 405),
            ("POST", "/v2/models/late/versions/9/infer", 404),
            ("POST", "/v2/repository/models/late/unload", 409),
            ("POST", "/v2/repository/models/nobody/load", 404),
            ("GET", "/v2/models/nobody/stats", 404),
            ("GET", "/v2/models/late/trace/setting", 404),
            ("POST", "/v2/models/late/generate", 404),
        ],
    )
    def test_every_one_is_json(self, plane: Plane, method: str, path: str, status: int) -> None:
        body = {"inputs": tensors([1.0], [2.0])} if method == "POST" else None
        reply = plane.call(method, path, body)
        assert reply.status == status
        if method != "HEAD":
            assert isinstance(reply.json["error"], str)

    @pytest.mark.parametrize(
        "broken",
        [
            b"",
            b"{",
            b"[]",
            b'{"inputs": []}',
            b'{"inputs": [{"name": "distance", "shape": [-1], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": [1000000000000, 1000000], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": [1.0], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": [true], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": ["1"], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": [2], "datatype": "FP64", "data": [1]}]}',
            b'{"inputs": [{"name": "distance", "shape": [1], "datatype": "STRING", "data": [1]}]}',
        ],
    )
    def test_a_malformed_request_is_the_clients_fault(self, plane: Plane, broken: bytes) -> None:
        reply = plane.call("POST", "/v2/models/late/infer", broken)
        assert reply.status == 400
        assert reply.json["error"]

    def test_an_unknown_output_is_refused(self, plane: Plane) -> None:
        body = {"inputs": tensors([1.0], [2.0]), "outputs": [{"name": "probabilty"}]}
        reply = plane.call("POST", "/v2/models/late/infer", body)
        assert reply.status == 400
        assert 'did you mean "probability"' in reply.json["error"]

    def test_a_bad_record_names_the_field_and_the_row(self, plane: Plane) -> None:
        reply = plane.call("POST", "/v1/models/late:predict", {"records": [ROW, {"distance": "far", "hour": 1}]})
        assert reply.status == 400
        assert '"distance" in row 1 is "far"' in reply.json["error"]

    def test_a_decompression_bomb_is_stopped(self, plane: Plane) -> None:
        bomb = zlib.compress(b"0" * (80 << 20))
        reply = plane.call("POST", "/v2/models/late/infer", bomb, {"Content-Encoding": "deflate"})
        assert reply.status == 413

    def test_an_unknown_content_coding_is_415(self, plane: Plane) -> None:
        assert plane.call("POST", "/v1/models/late:predict", ROW, {"Content-Encoding": "br"}).status == 415


class TestPlainRecords:
    @pytest.mark.parametrize(
        "body",
        [
            ROW,
            [ROW],
            {"records": [ROW]},
            {"columns": {"distance": [1.25], "hour": [-0.5]}},
            {"records": [ROW], "key": 17, "variant": "champion"},
        ],
    )
    def test_all_shapes_give_the_same_answer(self, plane: Plane, home: Home, body: object) -> None:
        reply = plane.call("POST", "/v1/models/late:predict", body)
        (prediction,) = reply.json["predictions"]
        assert prediction["outputs"]["probability"] == pytest.approx(home.probability("late@1", 1.25, -0.5), rel=1e-12)
        assert prediction["version"] == reply.headers["x-flyball-version"] == "late@1"
        assert prediction["variant"] == reply.headers["x-flyball-variant"] == "champion"
        assert prediction["id"] == reply.headers["x-flyball-prediction-id"]

    def test_the_answer_is_in_the_log_when_it_comes(self, plane: Plane, home: Home) -> None:
        body = gzip.compress(json.dumps({"records": [ROW] * 5000}).encode())
        reply = plane.call("POST", "/v1/models/late:predict", body, {"Content-Encoding": "gzip"})
        ids = [p["id"] for p in reply.json["predictions"]]
        assert len(set(ids)) == 5000
        assert set(ids) <= set(logged(home))

    def test_labels_are_logged_one_or_many(self, plane: Plane, home: Home) -> None:
        made = plane.call("POST", "/v1/models/late:predict", [ROW, ROW]).json["predictions"]
        first = plane.call("POST", "/v1/models/late:label", {"id": made[0]["id"], "label": 1})
        both = [{"prediction_id": p["id"], "label": 0, "at": "2026-01-01T00:00:00Z"} for p in made]
        assert first.json == {"labelled": 1}
        assert plane.call("POST", "/v1/models/late:label", both).json == {"labelled": 2}
        assert plane.call("POST", "/v1/models/late:label", {"id": "x", "lable": 1}).status == 400
        payloads, _ = Reader(home.traffic / "labels").read()
        assert [json.loads(p)["id"] for p in payloads][-2:] == [p["id"] for p in made]

    def test_health_and_metrics_count_what_happened(self, plane: Plane) -> None:
        assert plane.call("GET", "/health").json["status"] == "ok"
        plane.call("POST", "/v1/models/late:predict", ROW)
        text = plane.call("GET", "/metrics").body.decode()
        assert 'flyball_requests_total{deployment="late",variant="champion",version="late@1"}' in text
        assert 'flyball_request_seconds_bucket{deployment="late",variant="champion",version="late@1",le="+Inf"}' in text


class TestTensorsOverTheWire:
    def ask(self, plane: Plane, **body: object) -> dict[str, object]:
        reply = plane.call("POST", "/v2/models/late/infer", body)
        assert reply.status == 200, reply.body
        assert "inference-header-content-length" not in reply.headers
        return reply.json

    def test_no_rows_are_answered_with_no_rows(self, plane: Plane) -> None:
        answer = self.ask(plane, inputs=tensors([], []))
        assert [(o["shape"], o["data"]) for o in answer["outputs"]] == [([0], []), ([0], [])]

    def test_nested_and_flat_data_are_the_same(self, plane: Plane) -> None:
        flat = self.ask(plane, inputs=tensors([1.0, 2.0], [3.0, 4.0]))
        nested = self.ask(plane, inputs=tensors([[1.0], [2.0]], [[3.0], [4.0]], [2, 1]))
        assert flat["outputs"] == nested["outputs"]

    def test_an_id_is_echoed_exactly_when_given(self, plane: Plane) -> None:
        assert self.ask(plane, inputs=tensors([1.0], [1.0]), id="ü\n")["id"] == "ü\n"
        assert "id" not in self.ask(plane, inputs=tensors([1.0], [1.0]))

    def test_unknown_parameters_are_ignored(self, plane: Plane) -> None:
        self.ask(plane, inputs=tensors([1.0], [1.0]), parameters={"priority": 3, "sequence_id": 9})

    def test_paths_may_be_percent_encoded_and_end_in_a_slash(self, plane: Plane) -> None:
        assert plane.call("GET", "/v2/").status == 200
        assert plane.call("GET", "/v2/models/%6Cate/versions/late%401").status == 200


class TestLife:
    def test_two_planes_on_one_port_get_one_sentence(self, plane: Plane, home: Home) -> None:
        command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(home.path), "--port", str(plane.port)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: cannot listen on 127.0.0.1:")
        assert "Traceback" not in ended.stderr

    def test_it_never_loads_the_control_plane(self) -> None:
        code = (
            "import sys, flyball.wire.oip.process; "
            "print([m for m in sys.modules if m in ('polars', 'sqlalchemy', 'fastapi', 'sklearn', 'pydantic') "
            "or m.startswith(('flyball.control', 'flyball.ledger'))])"
        )
        assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"

    def test_it_ends_cleanly_on_sigterm(self, own_home: Home, own_plane: Plane) -> None:
        ids = [own_plane.call("POST", "/v1/models/late:predict", ROW).headers["x-flyball-prediction-id"]]
        assert own_plane.stop() == 0
        assert logged(own_home) == ids

    def test_kill_9_loses_no_acknowledged_prediction(self, own_home: Home, own_plane: Plane) -> None:
        acknowledged: list[str] = []

        def ask() -> None:
            try:
                while True:
                    reply = own_plane.call("POST", "/v1/models/late:predict", ROW)
                    acknowledged.append(reply.headers["x-flyball-prediction-id"])
            except (OSError, IndexError):
                pass  # killed

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 150)
        own_plane.kill()
        for thread in threads:
            thread.join()
        assert set(acknowledged) <= set(logged(own_home))

    def test_a_hot_swap_under_load_loses_no_request(self, own_home: Home, own_plane: Plane) -> None:
        statuses: list[int] = []
        versions: set[str] = set()
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                reply = own_plane.call("POST", "/v1/models/late:predict", ROW)
                statuses.append(reply.status)
                versions.add(reply.headers.get("x-flyball-version", ""))
                statuses.append(own_plane.call("GET", "/v2/health/ready").status)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in ("late@2", "late@1", "late@2"):
            wanted = own_home.deploy(own_home.variant("champion", version))
            until(lambda wanted=wanted: own_home.told()["generation"] == wanted)  # type: ignore[misc]
        is_over.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        assert versions == {"late@1", "late@2"}
        assert own_plane.call("POST", "/v1/models/late:predict", ROW).headers["x-flyball-version"] == "late@2"

    def test_a_tampered_bundle_is_refused_and_the_old_one_serves_on(self, own_home: Home, own_plane: Plane) -> None:
        from flyball.models.bundle import read_manifest

        files = read_manifest(own_home.blobs, own_home.digests["late@2"]).manifest["files"]
        path = own_home.blobs.path(next(iter(files.values()))["digest"])
        assert path is not None
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        generation = own_home.deploy(
            own_home.variant("champion", "late@1", 95.0), own_home.variant("canary", "late@2", 5.0)
        )
        until(lambda: own_home.told()["generation"] == generation)
        told = own_home.told()["deployments"]["late"]
        assert told["revision"] == generation - 1
        assert told["wanted"] == generation
        assert told["refused"] == "canary"
        assert "changed on disk" in told["error"] or "tampered" in told["error"]
        assert own_plane.call("POST", "/v1/models/late:predict", ROW).headers["x-flyball-version"] == "late@1"

    def test_a_broken_snapshot_is_reported_and_the_old_one_serves_on(self, own_home: Home, own_plane: Plane) -> None:
        own_home.snapshot.write_text('{"format": 1, "generation": 9, "deploymentz": {}}')
        until(lambda: own_home.told()["error"])
        assert "deploymentz" in own_home.told()["error"]
        assert own_plane.call("POST", "/v1/models/late:predict", ROW).status == 200

    def test_a_canary_gets_its_share_and_testers_may_choose(self, own_home: Home, own_plane: Plane) -> None:
        generation = own_home.deploy(
            own_home.variant("champion", "late@1", 70.0), own_home.variant("canary", "late@2", 30.0), key="distance"
        )
        until(lambda: own_home.told()["generation"] == generation)
        records = [{"distance": number / 7, "hour": 0.0} for number in range(400)]
        first, again = (
            own_plane.call("POST", "/v1/models/late:predict", {"records": records}).json["predictions"]
            for _ in range(2)
        )
        assert [p["variant"] for p in first] == [p["variant"] for p in again]
        assert 80 < sum(p["variant"] == "canary" for p in first) < 160
        for record, p in zip(records, first, strict=True):
            wanted = own_home.probability(p["version"], record["distance"], 0.0)
            assert p["outputs"]["probability"] == pytest.approx(wanted, rel=1e-12)
        chosen = own_plane.call("POST", "/v1/models/late:predict", ROW, {"x-flyball-variant": "canary"})
        assert chosen.headers["x-flyball-version"] == "late@2"

    def test_a_full_disk_answers_503_and_says_so(self, own_plane: Plane) -> None:
        import resource

        reply = own_plane.call("POST", "/v1/models/late:predict", ROW)
        assert reply.status == 200
        resource.prlimit(own_plane.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        reply = own_plane.call("POST", "/v1/models/late:predict", ROW)
        assert reply.status == 503
        assert "log is full" in reply.json["error"]
        assert reply.headers["retry-after"] == "1"
        resource.prlimit(own_plane.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert own_plane.call("POST", "/v1/models/late:predict", ROW).status == 200

    def test_it_outlives_its_parent(self, own_home: Home) -> None:
        code = (
            "import subprocess, sys, os\n"
            "p = subprocess.Popen([sys.executable, '-m', 'flyball.wire.oip', '--home', sys.argv[1], '--port', '0'],"
            " stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
            "print(p.pid, p.stdout.readline().rsplit(':', 1)[1].strip(), flush=True)\n"
            "os._exit(0)\n"
        )
        out = subprocess.check_output([sys.executable, "-c", code, str(own_home.path)], cwd=ROOT, text=True)
        pid, port = map(int, out.split())
        try:
            orphan = Plane.__new__(Plane)
            orphan.port = port
            assert orphan.call("POST", "/v1/models/late:predict", ROW).status == 200
        finally:
            os.kill(pid, 15)


def test_pipelined_requests_are_answered_in_order(plane: Plane) -> None:
    body = json.dumps({"id": "x", "inputs": tensors([1.0], [2.0])}).encode()
    infer = b"POST /v2/models/late/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    missing = b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n"
    replies = parse_replies(plane.raw(infer + missing + infer + last))
    assert [reply.status for reply in replies] == [200, 404, 200, 200]
    assert replies[2].json["id"] == "x"
