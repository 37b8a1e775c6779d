"""Read data contracts in the Open Data Contract Standard, 3.0 to 3.2.

`parse_document` reads any ODCS document, also one that only names a server or a team. `read_contract` goes on to
the rules of one schema object in it and refuses a document that makes none: a contract that checks nothing would
show a green light that means "not checked". Every mistake (an unknown field, metric, format or column, a bad
pattern, a range that nothing can meet) is refused here, when the contract is read, not when data arrives.

What a document states but Flyball does not enforce (texts, rules for other engines, retention) is
listed in `Contract.unenforced`, so that nobody takes it for checked.

Source: https://bitol-io.github.io/open-data-contract-standard/ (v3.0.2, v3.1.0).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flyball.data.bitol import load_document
from flyball.data.terms import Column, Contract, Rule
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed

__all__ = ["parse_document", "read_contract"]

# Classifications whose values may be shown in a report; whatever else is written there is masked.
_OPEN = {"", "public", "open", "internal", "none", "non-sensitive", "unclassified"}
_PERSONAL_TAGS = {"pii", "personal", "personal-data", "sensitive", "confidential", "secret"}


def parse_document(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return an ODCS document as plain dictionaries, its structure checked.

    Args:
        source: a path, YAML text (anything with a line break in it), or a document already parsed.

    Raises:
        NotFound: no such file.
        InvalidInput: not YAML, not ODCS 3.0–3.2, an unknown field, or a value of the wrong type.
    """
    import pydantic
    from open_data_contract_standard.model import OpenDataContractStandard

    document = (
        dict(source) if isinstance(source, Mapping) else load_document(source, "data contract", "ODCS", "DataContract")
    )
    fields = _fields(OpenDataContractStandard)
    _refuse_unknown(document, fields, "the data contract")
    if document.get("kind") != "DataContract":
        raise InvalidInput(f"kind is {document.get('kind')!r}; a data contract says kind: DataContract")
    version = str(document.get("apiVersion", "")).removeprefix("v")
    if version.split(".")[:2] not in (["3", "0"], ["3", "1"], ["3", "2"]):
        raise InvalidInput(
            f"apiVersion is {document.get('apiVersion')!r}; expected ODCS v3.0 to v3.2, for instance v3.1.0"
        )
    for name in ("id", "version"):
        if not document.get(name):
            raise InvalidInput(f'the data contract has no "{name}"; the standard requires it')
    try:
        OpenDataContractStandard.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where} of the data contract: {first['msg']}; got {str(first['input'])[:80]!r}") from None
    _refuse_unknown_inside(document)
    return document


def read_contract(source: str | os.PathLike[str] | Mapping[str, Any], schema_name: str | None = None) -> Contract:
    """Return the contract of one schema object, ready for `checking.check`.

    Args:
        source: as for `parse_document`.
        schema_name: which schema object (by name or physical name), needed when the document has several.

    Raises:
        NotFound: no such file, or no schema object of this name.
        InvalidInput: as `parse_document`; or several schema objects and none named; or no rule at all; or a rule
            that is unknown, on an unknown column, or cannot be met.
    """
    from flyball.data.rules import rules_of

    document = parse_document(source)
    table = _choose(document, schema_name)
    name = str(document.get("name") or document["id"])
    columns = tuple(_columns(table.get("properties") or [], name))
    rules, unenforced = rules_of(document, table, columns)
    if not columns and not rules:
        raise InvalidInput(
            f'the data contract "{name}" checks nothing: its schema object "{table["name"]}" has no properties '
            "and no quality rules; add at least one"
        )
    strict = _custom(table, "strict")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidInput(f'the custom property "strict" of {table["name"]} is {strict!r}; expected true or false')
    others = Rule("table.columns", "columns", severity="error" if strict else "warning", scope="table")
    return Contract(
        name=name,
        version=str(document["version"]),
        id=str(document["id"]),
        schema_name=str(table["name"]),
        columns=columns,
        rules=(*rules, others),
        table_names=tuple(str(table[k]) for k in ("name", "physicalName") if table.get(k)),
        strict=bool(strict),
        unenforced=tuple(unenforced),
    )


def _fields(model: Any) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise InvalidInput(
                f'unknown field "{key}" in {where}{did_you_mean(key, known)} (known: {listed(sorted(known), 40)})'
            )


def _refuse_unknown_inside(document: Mapping[str, Any]) -> None:
    """Refuse unknown fields where rules are made; the library's nested models would drop them in silence."""
    from open_data_contract_standard import model

    quality = _fields(model.DataQuality) | {"validValues"}  # written there in 3.0, under `arguments` since

    def walk(item: Mapping[str, Any], known: set[str], where: str) -> None:
        _refuse_unknown(item, known, where)
        for entry in item.get("quality") or []:
            _refuse_unknown(entry, quality, f"a quality rule of {where}")
        for child in item.get("properties") or []:
            walk(child, _fields(model.SchemaProperty), f"{where}.{child.get('name')}")

    for table in document.get("schema") or []:
        walk(table, _fields(model.SchemaObject), str(table.get("name")))
    for entry in document.get("slaProperties") or []:
        _refuse_unknown(entry, _fields(model.ServiceLevelAgreementProperty), "slaProperties")


def _choose(document: Mapping[str, Any], schema_name: str | None) -> dict[str, Any]:
    tables: list[dict[str, Any]] = list(document.get("schema") or [])
    contract = f'the data contract "{document.get("name") or document["id"]}"'
    if not tables:
        raise InvalidInput(f"{contract} checks nothing: it has no schema; add a schema with properties")
    names = [str(t.get("name")) for t in tables]
    if any(not t.get("name") for t in tables):
        raise InvalidInput(f"a schema object of {contract} has no name; the standard requires it")
    if len(set(names)) < len(names):
        raise InvalidInput(f"{contract} has two schema objects of the same name ({listed(names)})")
    if schema_name is None:
        if len(tables) > 1:
            raise InvalidInput(f"{contract} describes several tables ({listed(names)}); say which one")
        return tables[0]
    for table in tables:
        if schema_name in (table["name"], table.get("physicalName")):
            return table
    raise NotFound(
        f'{contract} has no schema "{schema_name}"{did_you_mean(schema_name, names)} (it has {listed(names)})'
    )


def _columns(properties: list[dict[str, Any]], where: str, prefix: str = "") -> list[Column]:
    columns: list[Column] = []
    for item in properties:
        if not item.get("name"):
            raise InvalidInput(f"a property of {where} has no name; the standard requires it")
        name = prefix + str(item["name"])
        if any(c.name == name for c in columns):
            raise InvalidInput(f'{where} has two properties named "{name}"; remove one')
        tags = {str(t).lower() for t in item.get("tags") or []}
        columns.append(
            Column(
                name=name,
                logical_type=item.get("logicalType"),
                physical_name=prefix + str(item["physicalName"]) if item.get("physicalName") else None,
                options=dict(item.get("logicalTypeOptions") or {}),
                masked=str(item.get("classification") or "").lower() not in _OPEN or bool(tags & _PERSONAL_TAGS),
            )
        )
        columns += _columns(item.get("properties") or [], where, prefix=f"{name}.")
    return columns


def _custom(item: Mapping[str, Any], name: str) -> Any:
    return next((p.get("value") for p in item.get("customProperties") or [] if p.get("property") == name), None)
