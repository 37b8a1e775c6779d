"""Networks of PyTorch: exact answers elsewhere, for any number of rows, from an archive that can run nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from flyball.errors import Corrupt, FlyballError, Forbidden, Incompatible, InvalidInput, StepFailed
from flyball.models import bundle
from flyball.models.flavors import _pt2, pytorch
from flyball.models.unsafe import refusal
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> FileBlobs:
    return FileBlobs(tmp_path_factory.mktemp("networks") / "blobs")


class Digits(nn.Module):
    """A small convolutional network, with what behaves otherwise in training and with an operation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.forget = nn.Dropout(0.2)
        self.say = nn.Linear(8 * 13 * 13, 10)
        self.register_buffer("scale", torch.tensor(255.0), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.see((image / self.scale).unsqueeze(1))
        return torch.softmax(self.say(self.forget(found.reshape(found.shape[0], -1))), dim=-1)


@pytest.fixture(scope="module")
def digits(shared_data: Path) -> tuple[Digits, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A network trained on real digits, still in training mode, and 500 images that it has not seen."""
    folder = shared_data / "mnist_t10k"
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Digits()
    learn = torch.optim.Adam(made.parameters(), 3e-3)
    for start in range(0, 6000, 100):
        learn.zero_grad()
        batch = torch.from_numpy(images[start : start + 100])
        loss = nn.functional.nll_loss(
            torch.log(made(batch) + 1e-9), torch.from_numpy(labels[start : start + 100].astype(np.int64))
        )
        loss.backward()
        learn.step()
    torch.set_num_threads(before)
    return made, images[-500:], labels[-500:]


def own(model: nn.Module, *given: Any) -> Any:
    model.eval()
    with torch.no_grad():
        return model(*[torch.from_numpy(np.array(one)) for one in given])


_ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
from flyball.models import bundle
from flyball.storage.blobs.files import FileBlobs
loaded = bundle.load(FileBlobs(Path(sys.argv[1])), sys.argv[2])
np.save(sys.argv[4], loaded.predict({"image": np.load(sys.argv[3])})["prediction"])
"""


def test_a_trained_network_answers_the_same_in_a_fresh_process(
    digits: tuple[Digits, Any, Any], blobs: FileBlobs, tmp_path: Path
) -> None:
    model, images, labels = digits
    model.train()
    saved = bundle.save(blobs, model, example=torch.from_numpy(images[:4]))
    assert model.training and model.forget.training  # saving left it as it was
    (field,) = saved.signature.inputs
    assert (field.name, field.dtype, field.shape) == ("image", "float32", (-1, 28, 28))
    np.save(tmp_path / "images.npy", images)
    paths = [str(tmp_path / "images.npy"), str(tmp_path / "answers.npy")]
    command = [sys.executable, "-c", _ELSEWHERE, str(blobs.root), saved.digest, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers, wanted = np.load(paths[1]), own(model, images).numpy()
    np.testing.assert_allclose(answers, wanted, rtol=1e-5, atol=1e-7)
    assert (answers.argmax(1) == labels).mean() > 0.75
    one = bundle.load(blobs, saved.digest).predict({"image": images[:4]})["prediction"]
    assert np.array_equal(one, own(model, images[:4]).numpy())  # bit by bit
    assert bundle.save(blobs, model, example=images[:4]).digest == saved.digest


@pytest.fixture
def served(digits: tuple[Digits, Any, Any], blobs: FileBlobs, tmp_path: Path) -> Iterator[str]:
    saved = bundle.save(blobs, digits[0], example=digits[1][:4])
    bundle.export(blobs, saved.digest, tmp_path / "digits.zip")
    command = [sys.executable, "-m", "flyball.cli", "model", "serve", str(tmp_path / "digits.zip"), "--as", "digits@1"]
    process = subprocess.Popen(
        [*command, "--home", str(tmp_path / "home"), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(timeout=20)


def test_the_data_plane_serves_it_and_refuses_bad_tensors(served: str, digits: tuple[Digits, Any, Any]) -> None:
    model, images, _ = digits
    shape = [2, 28, 28]
    good = {"name": "image", "shape": shape, "datatype": "FP32", "data": images[:2].ravel().tolist()}
    with httpx2.Client(base_url=served, timeout=30) as client:
        answer = client.post("/v2/models/digits/infer", json={"inputs": [good]})
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        assert output["shape"] == [2, 10] and output["datatype"] == "FP32"
        np.testing.assert_allclose(np.reshape(output["data"], (2, 10)), own(model, images[:2]), rtol=1e-5, atol=1e-7)
        for bad in ({"datatype": "BYTES"}, {"shape": [2, 784]}, {"name": "picture"}, {"data": [1.0]}):
            assert client.post("/v2/models/digits/infer", json={"inputs": [{**good, **bad}]}).status_code == 400, bad


class Reads(nn.Module):
    """Whole numbers and fractions in, two answers by name out; attention and recurrence between."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(11, 1)
        self.look = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.follow = nn.LSTM(8, 8, batch_first=True)

    def forward(self, words: torch.Tensor, about: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.look(self.words(words))
        followed, _ = self.follow(seen)
        return {"score": self.last(torch.cat([followed[:, -1], about], 1)).squeeze(1), "mean": seen.mean(1)}


def test_several_inputs_and_outputs_keep_their_names(blobs: FileBlobs) -> None:
    torch.manual_seed(1)
    model, random = Reads(), np.random.default_rng(0)
    words, about = random.integers(0, 20, (9, 6)), random.normal(size=(9, 3)).astype(np.float32)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example={"words": words[:3], "about": about[:3]}).digest)
    assert [(f.name, f.dtype, f.shape) for f in loaded.signature.inputs] == [
        ("words", "int64", (-1, 6)), ("about", "float32", (-1, 3)),
    ]  # fmt: skip
    for rows in (1, 2, 9):
        wanted = own(model, words[:rows], about[:rows])
        found = loaded.predict({"words": words[:rows], "about": about[:rows]})
        for name in ("score", "mean"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_a_frame_is_one_matrix_of_its_columns(blobs: FileBlobs) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 1), nn.Flatten(0))
    frame = pd.DataFrame({"distance": [0.5, 1.25, 3.0], "hour": [7, 23, 0]})
    saved = bundle.save(blobs, model, example=frame)
    loaded = bundle.load(blobs, saved.digest)
    assert [(f.name, f.dtype) for f in loaded.signature.inputs] == [("distance", "float64"), ("hour", "int64")]
    rows = loaded.signature.columns([{"hour": 7, "distance": 0.5}, {"hour": 23, "distance": 1.25}])
    wanted = own(model, frame[["distance", "hour"]].to_numpy(np.float32))
    np.testing.assert_allclose(loaded.predict(rows)["prediction"], wanted[:2], rtol=1e-5)
    with pytest.raises(InvalidInput, match="carrier"):
        bundle.save(blobs, model, example=pd.DataFrame({"distance": [0.5], "carrier": ["UA"]}))


def test_an_exported_program_registers_as_it_is(blobs: FileBlobs) -> None:
    model = nn.Linear(2, 1)
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(model, (torch.ones(3, 2),), dynamic_shapes=shapes)
    rows = np.array([[1.0, 2.0], [0.0, -1.0]], np.float32)
    loaded = bundle.load(blobs, bundle.save(blobs, program, example=rows).digest)
    assert np.array_equal(loaded.predict({"input": rows})["prediction"], own(model, rows).numpy())


class _Does(nn.Module):
    def __init__(self, does: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.does, self.weight = does, nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.does(x * self.weight)


class _Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x + self.seen


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (_Does(lambda x: x if x.sum() > 0 else -x), "must not branch"),
        (_Does(lambda x: x.reshape(3, 2)), "any number of rows"),
        (_Does(lambda x: x - x.mean(0)), "rows must not depend"),
        (_Does(lambda x: x.sum()), "not one entry a row"),
        (_Does(lambda x: str(x.dtype)), "expected"),
        (_Does(lambda x: (x, (x, x))), "expected"),
        (_Does(lambda x: torch.linalg.inv(x.T @ x).sum() + x), "not among those that are allowed"),
        (_Counts(), "after model.eval"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_why(model: nn.Module, said: str, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    with pytest.raises((InvalidInput, Forbidden, StepFailed), match=said):
        bundle.save(blobs, model, example=np.array([[1.0, 2.0], [3.0, 5.0], [0.5, 1.0]], np.float32))
    assert not list(blobs.digests())


def test_a_network_without_an_example_or_with_a_wrong_one_is_refused(blobs: FileBlobs) -> None:
    with pytest.raises(InvalidInput, match="give example"):
        bundle.save(blobs, nn.Linear(2, 1))
    with pytest.raises(InvalidInput, match="numbers"):
        bundle.save(blobs, nn.Linear(2, 1), example=np.array([["a", "b"]], object))
    with pytest.raises(StepFailed, match="mat1 and mat2"):
        bundle.save(blobs, nn.Linear(2, 1), example=np.ones((2, 3), np.float32))


@pytest.fixture(scope="module")
def archive() -> bytes:
    torch.manual_seed(3)
    return pytorch.dump(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), _signature(), _ROWS)["model.pt2"]


_ROWS = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


def _signature() -> Any:
    return pytorch.signature(nn.Linear(2, 3), _ROWS, None)


def changed(archive: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        files = {name: read.read(name) for name in read.namelist()}
    change(files)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as write:
        for name, data in files.items():
            write.writestr(name, data)
    return made.getvalue()


def told(archive: bytes, path: str, edit: Callable[[Any], None]) -> bytes:
    def change(files: dict[str, bytes]) -> None:
        document = json.loads(files[f"model/{path}"])
        edit(document)
        files[f"model/{path}"] = json.dumps(document).encode()

    return changed(archive, change)


def _aims(target: str) -> Callable[[Any], None]:
    return lambda document: document["graph_module"]["graph"]["nodes"][0].update(target=target)


_WEIGHTS = "data/weights/model_weights_config.json"


def test_a_forged_archive_runs_nothing_and_reads_nothing(archive: bytes, tmp_path: Path) -> None:
    assert [one.tolist() for one in _pt2.read(archive).run([torch.from_numpy(_ROWS)])]
    targets = (
        *("torch.ops.aten.from_file.default", "torch.ops.aten._unsafe_index.Tensor", "os.system", "builtins.eval"),
        *("torch.ops.aten.linear.__class__", "torch.ops.profiler._record_function_enter.default", "torch.load"),
        *("torch.ops.aten.empty.memory_format", "torch.ops.aten.set_.source_Tensor", "_operator.attrgetter"),
    )
    for target in targets:
        with pytest.raises((Forbidden, Corrupt), match=r"not among those that are allowed|no operation|no program"):
            _pt2.read(told(archive, "models/model.json", _aims(target)))
    shot = tmp_path / "shot"

    class Shoots:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (shot,)

    def meta(key: str, value: Any) -> Callable[[Any], None]:
        return lambda document: document["config"]["0.weight"]["tensor_meta"].update({key: value})

    with pytest.raises(Forbidden, match="as a pickle"):
        _pt2.read(told(archive, _WEIGHTS, lambda document: document["config"]["0.weight"].update(use_pickle=True)))
    with pytest.raises(Incompatible, match="schema 9"):
        _pt2.read(told(archive, "models/model.json", lambda d: d["schema_version"].update(major=9)))
    expression = f"__import__('pathlib').Path({str(shot)!r}).touch()"
    hostile = [
        told(archive, _WEIGHTS, meta("sizes", [{"as_int": 1 << 20}, {"as_int": 2}])),
        told(archive, _WEIGHTS, meta("strides", [{"as_int": 1 << 20}, {"as_int": 1}])),
        told(archive, _WEIGHTS, meta("storage_offset", {"as_int": 5})),
        told(archive, _WEIGHTS, meta("storage_offset", {"as_int": -1})),
        told(archive, _WEIGHTS, meta("sizes", [{"as_expr": {"expr_str": expression}}])),
        told(archive, _WEIGHTS, lambda d: d["config"]["0.weight"].update(path_name="../../../etc/passwd")),
        told(archive, "models/model.json", lambda d: d.pop("graph_module")),
        changed(archive, lambda files: files.pop("model/data/weights/weight_0")),
        archive[:200],
        b"",
        b"PK\x03\x04",
        pickle.dumps(Shoots()),
        os.urandom(300),
    ]
    for one in hostile:
        with pytest.raises(FlyballError) as raised:
            _pt2.read(one)
        assert isinstance(raised.value, (Corrupt, Forbidden, InvalidInput)) and len(str(raised.value)) < 400
    # What PyTorch's own reader would evaluate or unpickle is not looked at.
    ignored = told(archive, "models/model.json", lambda d: d["range_constraints"].update({expression: {"min_val": 2}}))
    ignored = changed(
        ignored, lambda files: files.update({"model/data/sample_inputs/model.pt": pickle.dumps(Shoots())})
    )
    assert _pt2.read(ignored).inputs == _pt2.read(archive).inputs
    assert not shot.exists()
    assert refusal(bundle.scan_files({"model/model.pt2": ignored})) is not None
    assert refusal(bundle.scan_files({"model/model.pt2": archive})) is None


def test_pytorch_reads_the_archive_too_and_it_tells_nothing_of_the_machine(archive: bytes) -> None:
    found = torch.export.load(io.BytesIO(archive)).module()(torch.from_numpy(_ROWS))
    assert torch.equal(found, _pt2.read(archive).run([torch.from_numpy(_ROWS)])[0])
    assert str(Path(__file__).parent).encode() not in archive and b"stack_trace" not in archive


def test_many_threads_ask_one_network_and_the_users_own_threads_stay(digits: tuple[Digits, Any, Any]) -> None:
    model, images, _ = digits
    files = pytorch.dump(model, pytorch.signature(model, images[:2], None), images[:2])
    predict = pytorch.load(files, {})
    before = torch.get_num_threads()
    wanted = [predict({"image": images[n : n + 3]})["prediction"] for n in range(8)]
    assert torch.get_num_threads() == before
    found: list[bool] = []

    def ask() -> None:
        for _ in range(10):
            answers = [predict({"image": images[n : n + 3]})["prediction"] for n in range(8)]
            found.extend(np.array_equal(one, other) for one, other in zip(answers, wanted, strict=True))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 320 and all(found)
