"""ODPS documents: read and written without loss, valid by the official schema, mistakes named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import flyball.data.kinds  # noqa: F401 (the kinds must be known)
from flyball.data.bitol import load_document
from flyball.errors import InvalidInput, NotFound
from flyball.wire.odps import read_product, write_product

SMALL: dict[str, Any] = {"apiVersion": "v1.0.0", "kind": "DataProduct", "id": "x", "status": "active"}
FULL: dict[str, Any] = {
    "description": "Departures", "owner": "team/flights", "domain": "travel", "tags": ["gold"], "version": "2.1.0",
    "purpose": "delays", "inputs": [{"name": "raw", "version": "1", "contract": "c", "dataset": "raw"}],
    "outputs": [{"name": "flights", "version": "1", "dataset": "flights@champion", "type": "tables"}],
    "levels": [
        {"measure": "freshness", "at_most": "1d"}, {"measure": "row_count", "at_least": 10.0, "port": "flights"},
    ],
    "support": [{"channel": "chat", "url": "https://chat.example/flights"}],
    "team": {"name": "Flights", "members": [{"username": "alice"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def schema(shared_data: Path) -> dict[str, Any]:
    return json.loads((shared_data / "fixtures/odps/odps-json-schema-v1.0.0.json").read_text())


def example(shared_data: Path) -> Path:
    return shared_data / "fixtures/odps/customer-data-product.odps.yaml"


def test_the_official_example_comes_back_equal(shared_data: Path, schema: dict[str, Any]) -> None:
    document = load_document(example(shared_data), "data product", "ODPS", "DataProduct")
    product = read_product(example(shared_data))
    assert (product.name, product.stage) == ("customer-data-product", "incubating")
    assert product.spec["domain"] == "seller" and len(product.spec["inputs"]) == 4
    assert product.spec["outputs"][1]["contract"] == "c2798941-1b7e-4b03-9e0d-955b1a872b33"
    written = write_product(product.name, product.spec, product.stage)
    assert written == document
    jsonschema.validate(written, schema)
    assert read_product(yaml.safe_dump(written)) == product


def test_a_product_of_ours_is_valid_and_comes_back_equal(schema: dict[str, Any]) -> None:
    for stage in ("proposed", "incubating", "active", "deprecated", "retired"):
        document = write_product("flights", FULL, stage)  # type: ignore[arg-type]
        jsonschema.validate(document, schema)
        again = read_product(document, "flights")
        assert (again.spec, again.stage) == ({**FULL, "id": "flights"}, stage)
    jsonschema.validate(write_product("least", {}, "proposed"), schema)
    assert write_product("least", {"inputs": [{"name": "a"}]}, "proposed")["inputPorts"] == [
        {"name": "a", "version": "", "contractId": ""}
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"customProperties": [{"property": "costCentre", "value": {"a": [1, None]}, "description": "x"}]},
        {"customProperties": []},
        {"tags": [], "tenant": "T", "productCreatedTs": "2023-01-15T10:30:00Z"},
        {"tags": [" spaced "], "name": " Spaced name "},
        {"description": {"purpose": "with a line end\n", "usage": "", "customProperties": []}},
        {"status": "Active"},
        {"status": "incubating"},
        {"status": "draft", "authoritativeDefinitions": [{"type": "tutorial", "url": "https://example.org/x"}]},
        {"outputPorts": [{"name": "a", "version": "1", "sbom": [{"url": "https://example.org/sbom"}], "tags": []}]},
        {"managementPorts": [{"name": "m", "content": "control", "channel": "c"}], "team": {}},
        {"name": "数据产品", "version": "1"},
    ],
)
def test_nothing_of_a_document_is_lost(more: dict[str, Any], schema: dict[str, Any]) -> None:
    document = {**SMALL, **more}
    jsonschema.validate(document, schema)
    product = read_product(document)
    assert write_product(product.name, product.spec, product.stage) == document


def test_a_stage_that_has_moved_on_is_written_in_the_standards_word() -> None:
    product = read_product({**SMALL, "status": "Active"})
    assert write_product("x", product.spec, "deprecated")["status"] == "deprecated"
    assert write_product("x", product.spec, "incubating")["status"] == "draft"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({**SMALL, "kind": "DataContract"}, "kind: DataProduct"),
        ({**SMALL, "apiVersion": "v3.0.0"}, "expected ODPS"),
        ({**SMALL, "status": "actve"}, 'did you mean "active"'),
        ({**SMALL, "status": ""}, 'no "status"'),
        ({**SMALL, "outputport": []}, 'unknown field "outputport" in the data product; did you mean "outputPorts"'),
        ({**SMALL, "outputPorts": [{"name": "a"}]}, 'number 1 has no "version"'),
        ({**SMALL, "outputPorts": [{"name": "a", "version": 1.0}]}, "expected a text, in quotes"),
        ({**SMALL, "inputPorts": {}}, "expected a list"),
        ({**SMALL, "team": ["alice"]}, "team of the data product is list"),
        ({**SMALL, "description": "text"}, "expected fields"),
        ({**SMALL, "customProperties": [{"property": "flyballLevels", "value": [{"measure": "speed"}]}]}, "measure"),
        ({**SMALL, "name": "!!!", "id": "???"}, "give it a name"),
        ("a: [1\nb", "is not YAML"),
        ("- 1\n- 2\n", "not a document with fields"),
        ("kind: !!python/object:os.system\n x", "is not YAML"),
    ],
)
def test_a_mistake_is_named(document: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read_product(document)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read_product(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_product(tmp_path / "bytes.yaml")
