"""The fields of an ODPS 1.0 document: which there are, which must be there, and which hold objects or lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["check_fields"]

_EXTRAS = {"tags": "texts", "customProperties": ["property"], "authoritativeDefinitions": ["definition"]}

# Of each object: its fields, with what they hold. "text", "texts" or "any"; the name of an object, or of those in a
# list. A field that must be there ends in "!".
_OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "document": {
        "apiVersion!": "text", "kind!": "text", "id!": "text", "status!": "text", "name": "text", "version": "text",
        "domain": "text", "tenant": "text", "description": "description", "inputPorts": ["input port"],
        "outputPorts": ["output port"], "managementPorts": ["management port"], "support": ["support channel"],
        "team": "team", "productCreatedTs": "text", **_EXTRAS,
    },
    "description": {
        "purpose": "text", "limitations": "text", "usage": "text", "customProperties": ["property"],
        "authoritativeDefinitions": ["definition"],
    },
    "property": {"property!": "text", "value!": "any", "description": "text"},
    "definition": {"type!": "text", "url!": "text", "description": "text"},
    "input port": {"name!": "text", "version!": "text", "contractId!": "text", **_EXTRAS},
    "output port": {
        "name!": "text", "version!": "text", "description": "text", "type": "text", "contractId": "text",
        "sbom": ["bill of materials"], "inputContracts": ["input contract"], **_EXTRAS,
    },
    "bill of materials": {"type": "text", "url!": "text"},
    "input contract": {"id!": "text", "version!": "text"},
    "management port": {
        "name!": "text", "content!": "text", "type": "text", "url": "text", "channel": "text", "description": "text",
        **_EXTRAS,
    },
    "support channel": {
        "channel!": "text", "url!": "text", "description": "text", "tool": "text", "scope": "text",
        "invitationUrl": "text", **_EXTRAS,
    },
    "team": {"name": "text", "description": "text", "members": ["member"], **_EXTRAS},
    "member": {
        "username!": "text", "name": "text", "description": "text", "role": "text", "dateIn": "text", "dateOut": "text",
        "replacedByUsername": "text", **_EXTRAS,
    },
}  # fmt: skip


def check_fields(value: Any, what: str = "document", where: str = "the data product") -> None:
    """Raise InvalidInput when a document has an unknown field, lacks one, or holds something else in one."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} is {type(value).__name__}; expected fields and values")
    fields = {name.rstrip("!"): holds for name, holds in _OBJECTS[what].items()}
    for name in value:
        if name not in fields:
            raise InvalidInput(
                f'unknown field "{name}" in {where}{did_you_mean(str(name), fields)} (known: {listed(fields, 20)}); '
                "what the standard has no field for goes into customProperties"
            )
    for name in _OBJECTS[what]:
        required = name[:-1] if name.endswith("!") else None
        if required and (required not in value or (required != "value" and value[required] in (None, ""))):
            raise InvalidInput(f'{where} has no "{required}"; the standard requires it')
    for name, inner in value.items():
        _check_value(inner, fields[name], f"{name} of {where}")


def _check_value(value: Any, holds: Any, where: str) -> None:
    if holds == "any":
        return
    if isinstance(holds, list) or holds == "texts":
        if not isinstance(value, list):
            raise InvalidInput(f"{where} is {str(value)[:60]!r}; expected a list")
        for number, item in enumerate(value, start=1):
            _check_value(item, "text" if holds == "texts" else holds[0], f"{where}, number {number}")
    elif holds == "text":
        if not isinstance(value, str):
            raise InvalidInput(f"{where} is {str(value)[:60]!r}; expected a text, in quotes if need be")
    else:
        check_fields(value, holds, where)
