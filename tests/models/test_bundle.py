"""Bundles: one digest over everything, proved before loading, moved as an archive that cannot do harm."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onnx_bytes import linear
from sklearn.ensemble import HistGradientBoostingClassifier

from flyball import plugins
from flyball.errors import Corrupt, Incompatible, InvalidInput, MissingExtra, NotFound, StepFailed
from flyball.models import _manifest, bundle
from flyball.models.fields import Field
from flyball.models.flavors.sklearn import limit_threads
from flyball.models.signature import Signature
from flyball.storage.blobs import digest_of
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture(scope="module")
def hearts(shared_data: Path) -> tuple[pl.DataFrame, HistGradientBoostingClassifier]:
    limit_threads()
    rows = pl.read_csv(shared_data / "heart" / "heart.csv")
    people = rows.drop("target")
    return people, HistGradientBoostingClassifier(max_iter=5).fit(people, rows["target"].to_numpy())


@pytest.fixture
def saved(blobs: FileBlobs, hearts: tuple[pl.DataFrame, Any]) -> bundle.Bundle:
    people, model = hearts
    files = {"docs/card.md": b"# Hearts"}
    return bundle.save(blobs, model, example=people[:5], metadata={"author": "ann"}, files=files)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that imports source text as a module of the given name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(name: str, source: str) -> Any:
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)
        return __import__(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


class LooseBlobs(dict[str, bytes]):
    """A store that verifies nothing, as a careless backend might."""

    def put(self, data: Any) -> str:
        digest = digest_of(data)
        self[digest] = data
        return digest

    def get(self, digest: str) -> bytes:  # type: ignore[override]
        if digest not in self:
            raise NotFound(digest)
        return self[digest]


def test_the_manifest_says_what_is_in_it_and_its_digest_covers_all(blobs: FileBlobs, saved: bundle.Bundle) -> None:
    manifest = saved.manifest
    assert saved.contents() == {
        "model": ("model/compiled.json", "model/compiled.npz", "model/feed.json", "model/model.skops"),
        "environment": ("environment/requirements.txt",),
        "documents": ("docs/card.md",),
    }
    assert manifest["flavor"] == "sklearn" and manifest["metadata"] == {"author": "ann"}
    assert {"scikit-learn", "skops", "numpy"} <= set(manifest["environment"]["packages"])
    assert manifest["environment"]["installed"]["polars"] == pl.__version__
    assert bundle.read_manifest(blobs, saved.digest) == saved
    assert digest_of(_manifest.canonical(manifest)) == saved.digest
    assert saved.size_bytes == sum(len(blobs.get(e["digest"])) for e in manifest["files"].values())


def test_saving_the_same_again_gives_the_same_digest(blobs: FileBlobs) -> None:
    graph = linear([1.0, 2.0], 0.5)
    assert bundle.save(blobs, graph).digest == bundle.save(blobs, graph).digest


def test_a_loaded_model_runs_its_example(blobs: FileBlobs, saved: bundle.Bundle) -> None:
    loaded = bundle.load(blobs, saved.digest)
    loaded.warm_up()
    example = loaded.example()
    assert example is not None and len(example["age"]) == 5
    assert loaded.warnings == [] and loaded.signature == saved.signature


def test_one_flipped_byte_in_any_file_is_refused(tmp_path: Path, saved: bundle.Bundle, blobs: FileBlobs) -> None:
    digests = [saved.digest, *(entry["digest"] for entry in saved.manifest["files"].values())]
    for digest in digests:
        path = blobs.path(digest)
        assert path is not None
        good = path.read_bytes()
        loose = LooseBlobs({d: blobs.get(d) for d in digests})
        bad = bytes([*good[:-1], good[-1] ^ 1])
        loose[digest] = bad
        path.write_bytes(bad)
        with pytest.raises(Corrupt):
            bundle.load(blobs, saved.digest)
        with pytest.raises(Corrupt, match="tampered"):
            bundle.load(loose, saved.digest)  # type: ignore[arg-type]
        with pytest.raises(Corrupt):
            bundle.export(blobs, saved.digest, str(tmp_path / "out.zip"))
        path.write_bytes(good)
    assert not list(tmp_path.glob("out.zip*"))
    bundle.load(blobs, saved.digest)


def test_a_missing_file_a_newer_format_and_an_unknown_flavour_are_told_apart(
    blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    def changed(**change: Any) -> str:
        return blobs.put(_manifest.canonical(saved.manifest | change))

    with pytest.raises(Incompatible, match="format 2; this release reads 1"):
        bundle.load(blobs, changed(format=2))
    with pytest.raises(Incompatible, match='there is no "sklern" among the flavors; did you mean "sklearn"'):
        bundle.load(blobs, changed(flavor="sklern"))
    with pytest.raises(Corrupt, match="lacks flavor"):
        bundle.load(
            blobs, blobs.put(b'{"format":1,"files":{},"signature":{},"example":null,"environment":{},"metadata":{}}')
        )
    with pytest.raises(Corrupt, match=r"lists its files wrongly .*\.\./x"):
        bundle.load(blobs, changed(files={"../x": {"digest": "0" * 64, "size": 1}}))
    with pytest.raises(Corrupt, match="is not JSON"):
        bundle.load(blobs, blobs.put(b"\x80\x04pickle"))
    blobs.delete(saved.manifest["files"]["model/model.skops"]["digest"])
    with pytest.raises(Corrupt, match=r"lacks its file model/model\.skops"):
        bundle.load(blobs, saved.digest)
    with pytest.raises(NotFound):
        bundle.load(blobs, "0" * 64)


def test_another_environment_is_a_warning_and_a_missing_library_an_error(
    blobs: FileBlobs, saved: bundle.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = saved.manifest["environment"] | {"python": "3.99.1"}
    elsewhere = elsewhere | {
        "packages": {"numpy": "1.26.0", "skops": saved.manifest["environment"]["packages"]["skops"]}
    }
    digest = blobs.put(_manifest.canonical(saved.manifest | {"environment": elsewhere}))
    warnings = bundle.load(blobs, digest).warnings
    assert len(warnings) == 2 and "Python 3.99.1" in warnings[0] and "numpy 1.26.0" in warnings[1]
    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    assert bundle.load(blobs, saved.digest).example()  # compiled: it needs no library
    files = {path: entry for path, entry in saved.manifest["files"].items() if not path.endswith(".npz")}
    digest = blobs.put(_manifest.canonical(saved.manifest | {"files": files}))
    with pytest.raises(MissingExtra, match=r"pip install 'flyball\[ml\]'"):
        bundle.load(blobs, digest)


def test_an_archive_brings_the_same_bundle_to_another_home(
    tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle
) -> None:
    bundle.export(blobs, saved.digest, str(tmp_path / "a.zip"))
    bundle.export(blobs, saved.digest, str(tmp_path / "b.zip"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    other = FileBlobs(tmp_path / "other")
    assert bundle.import_(other, str(tmp_path / "a.zip")) == (saved, None)
    bundle.load(other, saved.digest).warm_up()


def test_a_hostile_archive_writes_nothing_anywhere(tmp_path: Path, blobs: FileBlobs, saved: bundle.Bundle) -> None:
    bundle.export(blobs, saved.digest, str(tmp_path / "good.zip"))
    other, path = FileBlobs(tmp_path / "other"), tmp_path / "bad.zip"
    with zipfile.ZipFile(tmp_path / "good.zip") as good:
        contents = {name: good.read(name) for name in good.namelist()}
    skops = "files/model/model.skops"
    bomb = json.loads(contents["manifest.json"])
    bomb["files"]["model/model.skops"]["size"] = 1 << 40
    climbing = json.loads(contents["manifest.json"])
    climbing["files"]["../../escaped"] = climbing["files"].pop("docs/card.md")
    cases: list[tuple[dict[str, bytes], type[Exception], str]] = [
        (contents | {"../escaped": b"x"}, InvalidInput, "which its manifest does not list"),
        (contents | {"files/model/extra.pkl": b"x"}, InvalidInput, "does not list"),
        (contents | {"manifest.json": json.dumps(climbing).encode()}, Corrupt, "lists its files wrongly"),
        (contents | {"manifest.json": json.dumps(bomb).encode()}, InvalidInput, "the limit is"),
        (contents | {skops: contents[skops] + bytes(50_000_000)}, InvalidInput, "larger than it may be"),
        (contents | {"manifest.json": bytes(20 << 20)}, InvalidInput, "larger than it may be"),
        (contents | {skops: bytes(len(contents[skops]))}, Corrupt, "is not what its manifest says"),
        ({n: d for n, d in contents.items() if n != skops}, Corrupt, "lacks files/model"),
        ({n: d for n, d in contents.items() if n != "manifest.json"}, InvalidInput, "not an exported bundle"),
    ]
    for entries, error, says in cases:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        with pytest.raises(error, match=says):
            bundle.import_(other, str(path))
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InvalidInput, match="is no archive of a bundle"):
        bundle.import_(other, str(path))
    with pytest.raises(NotFound):
        bundle.import_(other, str(tmp_path / "none.zip"))
    assert list(other.digests()) == [] and not list(tmp_path.parent.glob("**/escaped"))


def test_wrong_arguments_are_refused_before_anything_is_stored(
    blobs: FileBlobs, hearts: tuple[pl.DataFrame, Any]
) -> None:
    people, model = hearts
    with pytest.raises(InvalidInput, match=r"no flavour recognises a builtins\.dict"):
        bundle.save(blobs, {})
    with pytest.raises(NotFound, match='did you mean "onnx"'):
        bundle.save(blobs, model, flavor="onx")
    for path in ("../x", "/etc/x", "a\\b", "", "a//b"):
        with pytest.raises(InvalidInput, match="cannot be a path in a bundle"):
            bundle.save(blobs, model, example=people[:5], files={path: b""})
    with pytest.raises(InvalidInput, match="model/ holds the model itself"):
        bundle.save(blobs, model, example=people[:5], files={"model/x": b""})
    with pytest.raises(InvalidInput, match="plain JSON"):
        bundle.save(blobs, model, example=people[:5], metadata={"auc": float("nan")})
    with pytest.raises(InvalidInput, match='"age" in row 0'):
        narrow = Signature(tuple(Field(n, "bool") for n in people.columns))
        bundle.save(blobs, model, signature=narrow, example=people[:5])
    assert list(blobs.digests()) == []


def test_an_onnx_graph_is_served_with_its_own_tensors(blobs: FileBlobs) -> None:
    saved = bundle.save(blobs, linear([1.0, 2.0, 3.0], 0.5), example=np.ones((2, 3), np.float32))
    loaded = bundle.load(blobs, saved.digest)
    assert loaded.signature.inputs == (Field("x", "float32", shape=(-1, 3)),)
    assert loaded.signature.outputs == (Field("y", "float32", shape=(-1, 1)),)
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    found = loaded.predict(loaded.signature.columns_from({"x": rows}))["y"]
    np.testing.assert_allclose(found, rows @ np.array([[1], [2], [3]], np.float32) + 0.5, rtol=1e-5)
    with pytest.raises(InvalidInput, match=r"expected \[-1, 3\]"):
        loaded.signature.columns_from({"x": [[1.0, 2.0]]})
    with pytest.raises(Incompatible, match="cannot run this graph"):
        bundle.save(blobs, b"no graph")


MODULE = """
from dataclasses import dataclass
import numpy as np

@dataclass
class Rule:
    limit: float = 10.0
    def predict(self, columns):
        return {"late": (columns["delay"] > self.limit).astype(np.int64)}

def late(columns):
    return Rule().predict(columns)

def outer():
    limit = 3
    def inner(columns):
        return columns["delay"] > limit
    return inner

short = lambda columns: columns["delay"]

def fails(columns):
    raise RuntimeError("boom")

def by_module(columns):
    return np.array([1 if __name__ == "rules_a" else 0])
"""


def test_a_python_function_or_class_is_kept_as_source(blobs: FileBlobs, write_module: Any) -> None:
    rules = write_module("rules_a", MODULE)
    example = {"delay": [1.5, 20.0]}
    digests = [bundle.save(blobs, model, example=example).digest for model in (rules.late, rules.Rule)]
    sys.modules.pop("rules_a")  # a bundle must not need the original
    for digest in digests:
        loaded = bundle.load(blobs, digest)
        assert loaded.predict(loaded.signature.columns([{"delay": 11.0}]))["late"].tolist() == [1]
        assert loaded.signature.outputs == (Field("late", "int64"),)


def test_python_code_that_cannot_be_kept_is_refused_with_the_reason(blobs: FileBlobs, write_module: Any) -> None:
    rules = write_module("rules_a", MODULE)
    example = {"delay": [1.5]}
    cases: list[tuple[Any, str]] = [
        (rules.short, "a lambda cannot be kept as source; define it with def"),
        (rules.outer(), "defined inside a function, cannot be kept"),
        (typed_in(), "no source file"),
    ]
    for model, says in cases:
        with pytest.raises(InvalidInput, match=says):
            bundle.save(blobs, model, example=example, flavor="python")
    with pytest.raises(InvalidInput, match="needs a signature or an example"):
        bundle.save(blobs, rules.late)
    with pytest.raises(InvalidInput, match="Rule object cannot be kept"):
        bundle.save(blobs, rules.Rule(), signature=Signature((Field("delay", "float64"),)), flavor="python")
    with pytest.raises(StepFailed, match="failed on its example: RuntimeError: boom"):
        bundle.save(blobs, rules.fails, example=example)
    with pytest.raises(StepFailed, match=r'answers row 0 of the example with "prediction" \[0\], before it was \[1\]'):
        bundle.save(blobs, rules.by_module, example=example)
    Path(rules.__file__).write_text(MODULE.replace("Rule().predict", "Rule(3).predict"))
    with pytest.raises(InvalidInput, match="has changed since it was imported"):
        bundle.save(blobs, rules.late, example=example)
    assert list(blobs.digests()) == []


def typed_in() -> Any:
    space: dict[str, Any] = {}
    exec(compile("def typed(columns):\n    return columns['delay']", "<ipython-input-1>", "exec"), space)
    return space["typed"]


@pytest.mark.parametrize("name", plugins.names("flyball.models.flavors"))
def test_every_flavour_has_the_protocols_functions(name: str) -> None:
    module = plugins.find("flyball.models.flavors", name)
    for function in ("recognises", "answer", "signature", "dump", "load", "packages"):
        assert callable(getattr(module, function)) and getattr(module, function).__doc__, (name, function)


def test_describing_models_imports_no_optional_library() -> None:
    import subprocess

    code = (
        "import sys, flyball.models.bundle, flyball.models.flavors.sklearn, flyball.models.flavors.onnx;"
        "bad = {'sklearn', 'skops', 'onnxruntime', 'pandas', 'polars', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
