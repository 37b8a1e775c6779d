"""Records of data sets to evaluate on: known by their inputs, joined with what is there, described by a schema."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyball.errors import InvalidInput
from flyball.ledger.evaluation_sets import EvaluationRecord

__all__ = ["USER_TAG", "digest_of", "inputs_hash", "joined", "schema_of"]

USER_TAG = "mlflow.user"
_NAMES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}
_PARTS = ("inputs", "expectations", "tags")


def check_records(records: Any) -> list[dict[str, Any]]:
    """Return records as they were given. Raises InvalidInput unless they are objects of objects."""
    if not isinstance(records, list):
        raise InvalidInput(f"records are a {type(records).__name__}; expected a list of objects")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise InvalidInput(f"records[{number}] is {str(record)[:80]!r}; expected an object with inputs")
        for part in _PARTS:
            if record.get(part) is not None and not isinstance(record[part], dict):
                raise InvalidInput(f"records[{number}].{part} is {str(record[part])[:80]!r}; expected an object")
    return records


def inputs_hash(record: Mapping[str, Any]) -> str:
    """Return what a record is known by."""
    return hashlib.sha256(json.dumps(record.get("inputs") or {}, sort_keys=True).encode()).hexdigest()


def digest_of(name: str, updated_ms: int) -> str:
    """Return the digest of a set: another for each change."""
    return hashlib.sha256(f"{name}:{updated_ms}".encode()).hexdigest()[:8]


def joined(
    set: str, records: Sequence[Mapping[str, Any]], known: Mapping[str, EvaluationRecord], now_ms: int
) -> tuple[list[EvaluationRecord], int, int]:
    """Return the records as they are kept after `records` came, how many are new, and how many changed."""
    made: dict[str, EvaluationRecord] = {}
    inserted = updated = 0
    for record in records:
        key = inputs_hash(record)
        before = made.get(key) or known.get(key)
        if before is None:
            id = f"dr-{secrets.token_hex(16)}"
            made[key] = EvaluationRecord(id, set, key, now_ms, now_ms, _new(record))
            inserted += 1
        else:
            made[key] = before._replace(updated_ms=now_ms, document=_changed(before.document, record))
            updated += 1
    return list(made.values()), inserted, updated


def schema_of(known: str | None, records: Iterable[Mapping[str, Any]]) -> str:
    """Return the schema of a set, as JSON, after records came."""
    schema: dict[str, Any] = json.loads(known) if known else {"inputs": {}, "outputs": {}, "expectations": {}}
    schema.setdefault("version", "1.0")
    for record in records:
        for part in ("inputs", "outputs", "expectations"):
            found = record.get(part)
            if isinstance(found, dict) and isinstance(schema[part], dict):
                for key, value in found.items():
                    schema[part].setdefault(key, _type(value))
            elif part == "outputs" and found is not None and not schema[part]:
                schema[part] = _type(found)
    return json.dumps(schema)


def _new(record: Mapping[str, Any]) -> dict[str, Any]:
    tags = record.get("tags") or {}
    user = tags.get(USER_TAG)
    kept: dict[str, Any] = {"inputs": record.get("inputs") or {}, "outputs": record.get("outputs", {}), "tags": tags}
    for name in ("expectations", "source"):
        if record.get(name) is not None:
            kept[name] = record[name]
    if user is not None:
        kept |= {"created_by": user, "updated_by": user}
    return kept


def _changed(before: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(before)
    if "outputs" in record:
        kept["outputs"] = record["outputs"]
    if record.get("expectations"):
        kept["expectations"] = {**(kept.get("expectations") or {}), **record["expectations"]}
    if record.get("tags"):
        kept["tags"] = {**kept["tags"], **record["tags"]}
        if USER_TAG in record["tags"]:
            kept["updated_by"] = record["tags"][USER_TAG]
    return kept


def _type(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), "unknown")
