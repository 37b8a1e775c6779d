"""An ODPS document and the spec of a DataProduct, translated both ways.

What the spec has a field for goes there; everything else (properties of one's own, links, management ports, bills of
materials…) is kept as it is in `more` and written back, so that a document that was read is written equal. What ODPS
has no field for (datasets, service levels, who answers for it) is written as custom properties whose names begin with
`flyball`, and read back from them.

Source: https://bitol-io.github.io/open-data-product-standard/ (v1.0.0).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.data.bitol import load_document
from flyball.data.kinds import DataProduct
from flyball.data.products.lifecycle import STAGES, Stage, check_stage
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger import kinds
from flyball.ledger.refs import check_name
from flyball.wire.odps.fields import check_fields

__all__ = ["Product", "read_product", "write_product"]

API_VERSION = "v1.0.0"
_VERSIONS = ("v0.9.0", API_VERSION)
_OURS = "flyball"

# The field of the spec that a field of the document goes to.
_TEXTS = {"id": "id", "name": "label", "version": "version", "domain": "domain"}
_DESCRIPTION = {"purpose": "purpose", "limitations": "limitations", "usage": "usage"}
_PORT = {"name": "name", "version": "version", "contractId": "contract"}
_OUTPUT = {**_PORT, "description": "description", "type": "type"}
_STAGES: Mapping[str, Stage] = {"draft": "incubating"}  # the standard's word for it
_STATUSES = {stage: word for word, stage in _STAGES.items()}


@dataclass(frozen=True)
class Product:
    """A product as its document says: the name that it gets here, its spec, and the stage that it is in."""

    name: str
    spec: dict[str, Any]
    stage: Stage


def read_product(source: str | os.PathLike[str] | Mapping[str, Any], name: str | None = None) -> Product:
    """Return a product from an ODPS document.

    Args:
        source: a path, YAML text (anything with a line break in it), or a document already parsed.
        name: what it is to be called here; default: made of its name, or its id.

    Raises:
        NotFound: no such file.
        InvalidInput: not YAML, not ODPS, an unknown or missing field, or a value that cannot be.
    """
    document = (
        dict(source) if isinstance(source, Mapping) else load_document(source, "data product", "ODPS", "DataProduct")
    )
    if document.get("kind") != "DataProduct":
        raise InvalidInput(f"kind is {document.get('kind')!r}; a data product says kind: DataProduct")
    if document.get("apiVersion") not in _VERSIONS:
        raise InvalidInput(f"apiVersion is {document.get('apiVersion')!r}; expected ODPS {listed(_VERSIONS)}")
    check_fields(document)
    rest = {key: value for key, value in document.items() if key != "kind"}
    if rest["apiVersion"] == API_VERSION:
        del rest["apiVersion"]
    spec: dict[str, Any] = {}
    stage = _stage(rest)
    _move(rest, spec, _TEXTS)
    if isinstance(rest.get("description"), dict):
        rest["description"] = dict(rest["description"])
        _move(rest["description"], spec, _DESCRIPTION)
        if not rest["description"]:
            del rest["description"]
    for key in ("support", "team"):
        if rest.get(key):
            spec[key] = rest.pop(key)
    if rest.get("tags") and all(tag == tag.strip() for tag in rest["tags"]):
        spec["tags"] = rest.pop("tags")
    for key, field, texts in (("inputPorts", "inputs", _PORT), ("outputPorts", "outputs", _OUTPUT)):
        if rest.get(key):
            spec[field] = [_read_port(port, texts) for port in rest.pop(key)]
    _read_ours(rest, spec, ("owner", "levels", "description"))
    if rest:
        spec["more"] = rest
    chosen = check_name(name) if name is not None else _name_of(document)
    return Product(
        chosen, dict(kinds.validate("data-product", chosen, spec).model_dump(mode="json", exclude_defaults=True)), stage
    )


def write_product(name: str, spec: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Return the ODPS document of a product, in the order of the standard."""
    product = DataProduct.model_validate(spec)
    more = dict(product.more)
    written = more.pop("status", None)
    said = str(written or "").strip().lower()
    status = written if _STAGES.get(said, said) == stage else _STATUSES.get(stage, stage)
    document: dict[str, Any] = {
        "apiVersion": more.pop("apiVersion", API_VERSION),
        "kind": "DataProduct",
        "id": product.id or name,
        "status": status,
    }
    for key, field in _TEXTS.items():
        if value := getattr(product, field):
            document[key] = value
    description = {key: getattr(product, field) for key, field in _DESCRIPTION.items() if getattr(product, field)}
    description |= more.pop("description", {})
    if description:
        document["description"] = description
    if product.tags:
        document["tags"] = product.tags
    if product.inputs:
        document["inputPorts"] = [_write_port(port, _PORT, ("dataset", "product")) for port in product.inputs]
    if product.outputs:
        document["outputPorts"] = [_write_port(port, _OUTPUT, ("dataset",)) for port in product.outputs]
    for key in ("support", "team"):
        if value := getattr(product, key):
            document[key] = value
    ours = {
        "owner": product.owner,
        "levels": [level.model_dump(mode="json", exclude_defaults=True) for level in product.levels],
        "description": product.description,
    }
    _write_ours(more, ours)
    return {**document, **more}


def _stage(rest: dict[str, Any]) -> Stage:
    """Take the stage out of a document; a word of its own stays there, to be written back."""
    word = str(rest.pop("status"))
    lower = word.strip().lower()
    known = [*STAGES, *_STAGES]
    if lower not in known:
        raise InvalidInput(f'status is "{word}"{did_you_mean(lower, known)} (known: {listed(known)})')
    stage = _STAGES.get(lower) or check_stage(lower)
    if word != _STATUSES.get(stage, stage):
        rest["status"] = word
    return stage


def _move(source: dict[str, Any], spec: dict[str, Any], fields: Mapping[str, str]) -> None:
    """Move texts from a document to a spec; one that the spec would keep otherwise (with spaces around) stays."""
    for key, field in fields.items():
        value = source.get(key)
        if isinstance(value, str) and value and value == value.strip():
            spec[field] = source.pop(key)


def _read_port(port: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    rest = dict(port)
    spec: dict[str, Any] = {}
    _move(rest, spec, fields)
    spec.setdefault("name", str(port["name"]).strip())
    _read_ours(rest, spec, ("dataset", "product"))
    return {**spec, **({"more": rest} if rest else {})}


def _write_port(port: Any, fields: Mapping[str, str], ours: tuple[str, ...]) -> dict[str, Any]:
    document = {key: getattr(port, field) for key, field in fields.items() if getattr(port, field)}
    more = dict(port.more)
    _write_ours(more, {field: getattr(port, field) for field in ours})
    document = {**document, **more}
    for key in ("version", "contractId") if "contractId" in fields and "type" not in fields else ("version",):
        document.setdefault(key, "")  # the standard requires them
    return document


def _read_ours(rest: dict[str, Any], spec: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Take our own properties out of a document's custom ones."""
    ours = {_property(field): field for field in fields}
    kept = []
    found = False
    for item in rest.get("customProperties") or []:
        field = ours.get(item["property"])
        if field is None:
            kept.append(item)
        else:
            spec[field] = item["value"]
            found = True
    if found:
        rest["customProperties"] = kept
        if not kept:
            del rest["customProperties"]


def _write_ours(more: dict[str, Any], ours: Mapping[str, Any]) -> None:
    written = [{"property": _property(field), "value": value} for field, value in ours.items() if value]
    if written:
        more["customProperties"] = [*more.get("customProperties", []), *written]


def _property(field: str) -> str:
    return _OURS + field[:1].upper() + field[1:]


def _name_of(document: Mapping[str, Any]) -> str:
    """Return a name made of the document's: `Customer Data Product` → `customer-data-product`."""
    for key in ("name", "id"):
        made = re.sub(r"[^A-Za-z0-9_.]+", "-", str(document.get(key) or "")).strip("-.").lower()[:128]
        if made:
            return check_name(made)
    raise InvalidInput("neither the name nor the id of the data product has a letter; give it a name of its own")
