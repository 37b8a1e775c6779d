"""What a client might send that no client should: strategies for both protocols, and what must hold of every answer."""

from __future__ import annotations

import http.client
import json
import struct
from typing import Any

import grpc
import numpy as np
import orjson
import polars as pl
from hypothesis import strategies as st
from planes import Home, Plane
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tritonclient.grpc import service_pb2

from flyball.models import bundle
from flyball.serving.snapshot import ServedDeployment, Snapshot, Variant, write
from flyball.wire.oip.routes import ROUTES

SERVICE = "/inference.GRPCInferenceService"
ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
DATATYPES = ("BOOL", "UINT8", "UINT64", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES")
METHODS = (
    "ModelInfer",
    "ModelMetadata",
    "ModelReady",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
)


def prepare(home: Home) -> None:
    """Deploy `late`, of numbers, by a key, and `mixed`, of text, whole numbers, truth values and missing values."""
    random = np.random.default_rng(5)
    frame = pl.DataFrame(
        {
            "carrier": random.choice(["UA", "AA", "Zürich ✈"], 200),
            "hour": random.integers(0, 24, 200),
            "is_holiday": random.random(200) > 0.5,
            "distance": random.normal(size=200),
        }
    )
    columns = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["carrier"])],
        remainder="passthrough",
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, random.integers(0, 2, 200))
    digest = bundle.save(home.blobs, model, example=frame[:3]).digest
    home.generation += 1
    late = ServedDeployment(home.generation, "late", (home.variant("champion", "late@1"),), key="hour")
    mixed = ServedDeployment(home.generation, "mixed", (Variant("champion", "mixed@1", digest, 100.0),))
    write(home.snapshot, Snapshot(home.generation, {"late": late, "mixed": mixed}))


# JSON

numbers = st.one_of(
    st.integers(-3, 30), st.floats(width=32), st.integers(), st.sampled_from([2**63, -(2**63), 2**64, 1e308, -0.0])
)
words = ("UA", "late", "distance", "hour", "carrier", "champion", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59")
texts = st.one_of(st.sampled_from(words), st.text(max_size=12))
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
names = st.one_of(st.sampled_from(["distance", "hour", "carrier", "is_holiday"]), texts)
shapes = st.one_of(
    st.lists(st.integers(0, 4), max_size=3),
    st.lists(st.one_of(st.integers(-2, 2**63), plain), max_size=4),
    st.just([2**31, 2**31, 4]),
    anything,
)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    made = {
        "name": draw(names),
        "shape": draw(shapes),
        "datatype": draw(st.one_of(st.sampled_from(DATATYPES), plain)),
        "data": draw(
            st.one_of(st.lists(plain, max_size=6), st.lists(st.lists(plain, max_size=3), max_size=3), anything)
        ),
    }
    for name in draw(st.sets(st.sampled_from(list(made)), max_size=1)):
        del made[name]
    if draw(st.booleans()):
        sizes = st.one_of(st.integers(-1, 40), plain)
        made["parameters"] = draw(st.one_of(st.fixed_dictionaries({"binary_data_size": sizes}), anything))
        if draw(st.booleans()):
            made.pop("data", None)
    return made


parameters = st.dictionaries(
    st.sampled_from(["key", "at", "variant", "explain", "approximate", "priority", "binary_data_output"]),
    plain,
    max_size=3,
)
outputs = st.fixed_dictionaries({"name": texts}, optional={"parameters": anything})
infers = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(tensors(), max_size=4), anything)},
    optional={
        "id": st.one_of(texts, anything),
        "parameters": st.one_of(parameters, anything),
        "outputs": st.one_of(st.lists(outputs), anything),
    },
)
rows = st.dictionaries(names, plain, max_size=5)
right_rows = st.one_of(
    st.fixed_dictionaries({"distance": numbers, "hour": numbers}),
    st.fixed_dictionaries({"carrier": texts, "hour": numbers, "is_holiday": plain, "distance": plain}),
)
predicts = st.one_of(
    rows,
    right_rows,
    st.lists(st.one_of(rows, right_rows), max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "records": st.one_of(st.lists(st.one_of(rows, right_rows, plain), max_size=4), anything),
            "columns": st.one_of(st.dictionaries(names, st.lists(plain, max_size=4), max_size=4), anything),
            "key": plain,
            "at": plain,
            "variant": plain,
            "version": plain,
            "explain": plain,
        },
    ),
)
label = st.fixed_dictionaries(
    {}, optional={"id": plain, "prediction_id": plain, "label": anything, "at": plain, "source": plain}
)
right_label = st.fixed_dictionaries({"id": texts, "label": plain})
labels = st.one_of(
    label, st.fixed_dictionaries({"labels": st.lists(st.one_of(anything, label, right_label), max_size=3)})
)
asked_features = st.fixed_dictionaries(
    {}, optional={"features": anything, "service": plain, "entities": anything, "at": plain, "feature_service": plain}
)
documents = st.one_of(infers, predicts, labels, asked_features, anything)


def encoded(document: Any) -> bytes:
    """Return JSON as Python writes it: with NaN, infinities and lone surrogates too."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


latin = st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")
bodies = st.one_of(documents.map(encoded), st.binary(max_size=60))
deployments = st.one_of(st.sampled_from(["late", "mixed", "late", "mixed", "nobody", "", "%00", "..", "a%2Fb", "%ff"]))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    method, template, action = draw(st.sampled_from(ROUTES))
    path = template.replace("{name}", draw(deployments))
    path = path.replace("{version}", draw(st.sampled_from(["1", "late@1", "2", "-1", "9" * 30, "%20"])))
    suited = {"infer": infers, "predict": predicts, "label": labels, "features_asked": asked_features}
    body = draw(st.one_of(suited.get(action, documents).map(encoded), bodies))
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]))
    if draw(st.integers(0, 9)) == 0:
        path += draw(st.sampled_from(["/", "?", "?x=%ff&entity=1", "?carrier=UA&at=x", "//", "/%2e%2e/"]))
    headers = {}
    if draw(st.integers(0, 3)) == 0:
        length = draw(st.one_of(st.integers(-1, len(body) + 2), st.text("0a-", max_size=3)))
        headers["Inference-Header-Content-Length"] = str(length)
        body += draw(st.binary(max_size=40))
    if draw(st.integers(0, 9)) == 0:
        headers["Content-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "identity", "br", "", ", "]))
    for name in ("X-Flyball-Variant", "X-Request-Id", "Traceparent", "Accept-Encoding", "Authorization", "Expect"):
        if draw(st.integers(0, 19)) == 0:
            headers[name] = draw(st.text(latin, max_size=20)).strip()
    return method, path, body, headers


class Rest:
    """A connection to a data plane that is kept, and what must hold of each answer."""

    def __init__(self, plane: Plane) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20)

    def check(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Send a request and return the status of its answer, which must be one that a client's fault gets."""
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        found = reply.read()
        assert reply.status < 500 or reply.status in (501, 503, 504), (reply.status, found)
        if reply.status >= 400 and method != "HEAD":
            document = json.loads(found)
            assert list(document) == ["error"], found
            assert document["error"]
            assert "Traceback" not in document["error"]
        elif reply.getheader("content-type") == "application/json" and found:
            orjson.loads(found)  # which takes neither NaN nor infinity
        return reply.status

    def close(self) -> None:
        self._connection.close()


# gRPC


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A request to `ModelInfer` with wrong contents, and often with bytes that were changed."""
    message = service_pb2.ModelInferRequest(
        model_name=draw(st.sampled_from(["late", "mixed", "nobody", ""])), id=draw(st.text("ab\x00ü", max_size=4))
    )
    message.model_version = draw(st.sampled_from(["", "", "1", "late@1", "7", "x"]))
    for name in draw(st.lists(st.sampled_from(["distance", "hour", "carrier", "is_holiday", "x"]), max_size=4)):
        tensor = message.inputs.add(name=name, datatype=draw(st.sampled_from([*DATATYPES, "", "FP65"])))
        tensor.shape.extend(draw(st.lists(st.sampled_from([1, 1, 2, 0, -1, 2**62]), max_size=3)))
        contents = tensor.contents
        for field, values in (
            ("fp64_contents", st.floats()),
            ("int64_contents", st.integers(-5, 5)),
            ("bool_contents", st.booleans()),
            ("bytes_contents", st.binary(max_size=5)),
            ("uint_contents", st.integers(0, 300)),
        ):
            if draw(st.integers(0, 3)) == 0:
                getattr(contents, field).extend(draw(st.lists(values, max_size=3)))
    if draw(st.integers(0, 2)) == 0:
        raw = st.one_of(st.binary(max_size=20), st.just(struct.pack("<d", 1.5)), st.just(b"\x02\x00\x00\x00UA"))
        message.raw_input_contents.extend(draw(st.lists(raw, max_size=4)))
    for name in draw(st.lists(st.sampled_from(["key", "at", "variant", "explain", "priority"]), max_size=2)):
        if draw(st.booleans()):
            message.parameters[name].string_param = draw(st.text(max_size=5))
        else:
            message.parameters[name].int64_param = draw(st.integers(-5, 5))
    data = bytearray(message.SerializeToString())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


class Grpc:
    """A channel to a data plane, and what must hold of the status of each call."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def check(self, method: str, data: bytes) -> str:
        """Make a call and return its status, which must be one that a client's fault gets."""
        try:
            self._channel.unary_unary(f"{SERVICE}/{method}")(data, timeout=20)
        except grpc.RpcError as error:
            status = error.code().name
            assert status in ALLOWED, (status, error.details())
            assert error.details()
            assert "Traceback" not in error.details()
            return status
        return "OK"

    def stream(self, several: list[bytes]) -> None:
        """Send them on one stream; each is answered or told its error, in order."""
        found = list(self._channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter(several), timeout=20))
        assert len(found) == len(several)
        for data in found:
            answer = service_pb2.ModelStreamInferResponse.FromString(data)
            assert "Traceback" not in answer.error_message
            assert "failed" not in answer.error_message

    def close(self) -> None:
        self._channel.close()
