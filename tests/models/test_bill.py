"""The bill of materials, checked by the schema of CycloneDX and read back by its library."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from onnx_bytes import linear

from flyball.models import bundle
from flyball.models.bill import Facts, bill
from flyball.storage.blobs.files import FileBlobs

FACTS = Facts(
    "late",
    "3",
    datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    "Is a flight late? Ärger inbegriffen",
    "binary",
    [("dataset/flights@3", "0" * 64, "trained on"), ("run/1", None, "extended to")],
    {"auc": {"value": 0.75, "low": 0.7, "high": 0.8}, "brier": {"value": 0.1, "low": None, "high": None}},
    [("carrier = UA", "auc", {"value": 0.6, "low": 0.5, "high": 0.7})],
    {"useCases": ["Telling passengers early"], "technicalLimitations": ["Only flights from New York"]},
)


@pytest.fixture
def saved(tmp_path: Path) -> bundle.Bundle:
    return bundle.save(FileBlobs(tmp_path / "blobs"), linear([1.0, 2.0], 0.5))


def problem(document: bytes) -> Any:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode())


def test_the_bill_is_valid_and_says_what_is_known(saved: bundle.Bundle) -> None:
    document = bill(saved, FACTS)
    assert problem(document) is None
    found = json.loads(document)
    assert found["specVersion"] == "1.6" and found["metadata"]["timestamp"].startswith("2026-03-01T12:00:00")
    model = found["metadata"]["component"]
    assert model["type"] == "machine-learning-model" and model["hashes"][0]["content"] == saved.digest
    card = model["modelCard"]
    assert card["modelParameters"]["task"] == "binary"
    assert [one["name"] for one in card["modelParameters"]["datasets"]] == ["dataset/flights@3", "run/1"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "auc", "value": "0.75", "confidenceInterval": {"lowerBound": "0.7", "upperBound": "0.8"}},
        {"type": "brier", "value": "0.1"},
        {
            "type": "auc",
            "value": "0.6",
            "slice": "carrier = UA",
            "confidenceInterval": {"lowerBound": "0.5", "upperBound": "0.7"},
        },
    ]
    assert card["considerations"]["technicalLimitations"] == ["Only flights from New York"]


def test_every_locked_package_is_there_with_its_address_licence_and_what_it_requires(saved: bundle.Bundle) -> None:
    found = json.loads(bill(saved, FACTS))
    locked = saved.manifest["environment"]["locked"]
    packages = {one["name"]: one for one in found["components"]}
    assert packages.keys() == locked.keys() and len(packages) > 20
    for name, package in packages.items():
        assert package["purl"] == f"pkg:pypi/{name}@{locked[name]['version']}"
        assert bool(package.get("licenses")) == bool(locked[name]["licence"])
    graph = {one["ref"]: set(one.get("dependsOn", [])) for one in found["dependencies"]}
    runtime = packages["onnxruntime"]["bom-ref"]
    assert packages["numpy"]["bom-ref"] in graph[runtime] and runtime in graph["model:late@3"]


def test_the_same_version_gives_the_same_bytes_and_the_library_reads_them(saved: bundle.Bundle) -> None:
    assert bill(saved, FACTS) == bill(saved, FACTS)
    document = json.loads(bill(saved, FACTS))
    del document["metadata"]["component"]["modelCard"]  # which the library does not know
    read: Any = Bom.from_json(document)  # type: ignore[attr-defined]
    assert {one.name for one in read.components} == set(saved.manifest["environment"]["locked"])


def test_a_bundle_of_which_little_is_known_has_a_valid_bill_too(saved: bundle.Bundle) -> None:
    bare = {key: value for key, value in saved.manifest["environment"].items() if key != "locked"}
    old = bundle.Bundle(saved.digest, saved.manifest | {"environment": bare})
    document = bill(old, Facts("late", "1"))
    assert problem(document) is None
    assert {one["name"] for one in json.loads(document)["components"]} == {"onnxruntime", "numpy"}
