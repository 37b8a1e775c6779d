"""Models that MLflow's clients logged become bundles that answer as they did, or are refused with what to do."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from flyball.errors import Corrupt, FlyballError, Forbidden, InvalidInput
from flyball.models import bundle, mlmodel
from flyball.storage.blobs.files import FileBlobs
from tests.models.onnx_bytes import linear

FOLDER = Path(__file__).parent / "data" / "mlmodels"
ROW = {"distance": 0.4, "hour": 7, "carrier": "UA"}


def folder(name: str) -> dict[str, bytes]:
    root = FOLDER / name
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.mark.parametrize("name", ["sklearn_3", "xgboost_3", "lightgbm_3"])
def test_a_logged_model_answers_as_it_did_where_it_was_logged(name: str, blobs: FileBlobs) -> None:
    made = mlmodel.convert(blobs, folder(name), {"name": "late"})
    loaded = bundle.load(blobs, made.digest)
    assert made.manifest["flavor"] == name.partition("_")[0]
    assert made.manifest["metadata"]["mlflow"] == {"client": "3.17.2", "flavor": name[:-2], "example": "logged"}
    assert made.manifest["metadata"]["name"] == "late"
    assert "configuration/mlflow/MLmodel" in made.manifest["files"]
    example = loaded.example()
    assert example is not None
    answers = loaded.predict(example)
    for output, values in json.loads((FOLDER / f"{name}.json").read_text()).items():
        np.testing.assert_allclose(answers[output].astype(float), values, rtol=1e-6)
    assert [(one.name, one.dtype) for one in loaded.signature.inputs] == [
        ("distance", "float64"), ("hour", "int64"), ("carrier", "string"),
    ]  # fmt: skip
    assert len(loaded.predict(loaded.signature.columns([ROW]))["prediction"]) == 1
    with pytest.raises(InvalidInput):
        loaded.signature.columns([{**ROW, "hour": "seven"}])


def test_without_an_example_the_signature_is_tried_with_a_made_up_row(blobs: FileBlobs) -> None:
    made = mlmodel.convert(blobs, folder("xgboost_booster_3"))
    loaded = bundle.load(blobs, made.digest)
    assert made.manifest["metadata"]["mlflow"]["example"] == "made up"
    assert [field.name for field in loaded.signature.inputs] == ["distance", "hour"]
    assert 0 < loaded.predict(loaded.signature.columns([{"distance": 1.5, "hour": 3}]))["probability"][0] < 1
    files = folder("sklearn_3")
    files["MLmodel"] = files["MLmodel"].replace(b"saved_input_example_info", b"unknown")
    with pytest.raises(InvalidInput, match="input_example="):  # its encoder has never seen the text ""
        mlmodel.convert(blobs, files)
    with pytest.raises(InvalidInput, match="without a signature and without an example"):
        mlmodel.convert(blobs, folder("sklearn_bare_3"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sklearn_pickle_2", 'a pickle: .*serialization_format="skops"'),
        ("lightgbm_objects_3", r"LGBMClassifier as Python objects.*model\.booster_"),
    ],
)
def test_what_would_run_code_is_refused_with_how_to_log_it_safely(name: str, said: str, blobs: FileBlobs) -> None:
    with pytest.raises(Forbidden, match=said):
        mlmodel.convert(blobs, folder(name))
    assert not list(blobs.digests())


def test_a_graph_is_served_by_its_own_inputs(blobs: FileBlobs) -> None:
    told = {"onnx": {"data": "model.onnx", "onnx_version": "1.20.0"}, "python_function": {"data": "model.onnx"}}
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    document = {"flavors": told, "signature": {"inputs": json.dumps(tensor)}, "mlflow_version": "3.17.2"}
    files = {"MLmodel": json.dumps(document).encode(), "model.onnx": linear([2.0, -1.0], 0.5)}
    loaded = bundle.load(blobs, mlmodel.convert(blobs, files).digest)
    found = loaded.predict({"x": np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)})
    assert found["y"].tolist() == [[0.5], [5.5]]


def test_a_hostile_folder_is_refused_and_nothing_of_it_runs(blobs: FileBlobs, tmp_path: Path) -> None:
    good = folder("sklearn_3")
    text = good["MLmodel"]
    shot = tmp_path / "shot"

    class Shoots:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (shot,)

    hostile = {
        "no MLmodel": {"model.skops": b""},
        "not YAML": {**good, "MLmodel": b"\x00{[\xff"},
        "no mapping": {**good, "MLmodel": b"- 1\n- 2\n"},
        "flavours of another kind": {**good, "MLmodel": b"flavors: [sklearn]\n"},
        "Python in YAML": {**good, "MLmodel": f"flavors: !!python/object/apply:os.mkdir ['{shot}']\n".encode()},
        "too large": {**good, "MLmodel": text + b"#" * (1 << 20)},
        "a path that leads out": {**good, "MLmodel": text.replace(b"model.skops", b"../model.skops")},
        "a path that is not there": {**good, "MLmodel": text.replace(b"model.skops", b"other.skops")},
        "a pickle as skops": {**good, "model.skops": pickle.dumps(Shoots())},
        "no zip as skops": {**good, "model.skops": b"PK\x03\x04 and no more"},
        "only a Python function": {**good, "MLmodel": b"flavors:\n  python_function:\n    loader_module: os\n"},
        "an example that is none": {**good, "input_example.json": b'{"columns": ["a"], "data": 3}'},
        "an example of other columns": {**good, "input_example.json": b'{"columns": ["a"], "data": [[1]]}'},
        "a type that is none": {**good, "MLmodel": text.replace(b'"type": "long"', b'"type": "binary"')},
        "another class": {
            **folder("xgboost_3"),
            "MLmodel": folder("xgboost_3")["MLmodel"].replace(b"sklearn.XGBClassifier", b"core._check_call"),
        },
        "a forged booster": {**folder("xgboost_3"), "model.ubj": folder("xgboost_3")["model.ubj"][:900]},
        "forged leaves": {
            **folder("lightgbm_3"),
            "model.lgb": folder("lightgbm_3")["model.lgb"].replace(b"left_child=1", b"left_child=9"),
        },
    }
    for name, files in hostile.items():
        with pytest.raises((InvalidInput, Forbidden, Corrupt)) as told:
            mlmodel.convert(blobs, files)
        assert isinstance(told.value, FlyballError) and len(str(told.value)) < 900, name
    assert not shot.exists()
    assert not list(blobs.digests())


def test_a_network_is_read_from_its_program(blobs: FileBlobs) -> None:
    made = mlmodel.convert(blobs, folder("pytorch_3"))
    loaded = bundle.load(blobs, made.digest)
    assert made.manifest["flavor"] == "pytorch"
    example = loaded.example()
    assert example is not None
    wanted = json.loads((FOLDER / "pytorch_3.json").read_text())["output"]
    np.testing.assert_allclose(loaded.predict(example)["prediction"], wanted, rtol=1e-5)
    (name,) = (field.name for field in loaded.signature.inputs)
    assert len(loaded.predict({name: np.ones((7, 2), np.float32)})["prediction"]) == 7


def test_a_network_as_a_pickle_is_refused_with_how_to_log_it(blobs: FileBlobs) -> None:
    files = folder("pytorch_3")
    files["data/model.pth"] = files.pop("data/model.pt2")
    with pytest.raises(Forbidden, match=r'a pickle.*serialization_format="pt2"'):
        mlmodel.convert(blobs, files)
