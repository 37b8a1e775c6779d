"""Read declarations: YAML files of documents, each with a kind, a name and the fields of that kind's spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flyball.errors import InvalidInput
from flyball.ledger import kinds
from flyball.ledger.refs import Ref, check_name

__all__ = ["Document", "document", "read_documents", "write_documents"]


@dataclass(frozen=True)
class Document:
    """One declared resource. `source` says where it stands, for messages."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.name)


def read_documents(paths: Iterable[Path]) -> list[Document]:
    """Return the documents of YAML files, in order, and of all `*.yaml` and `*.yml` in folders.

    Raises:
        InvalidInput: a file cannot be read, a document is malformed, two have the same kind and name.
    """
    found: dict[Ref, Document] = {}
    for path in paths:
        files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
        if path.is_dir() and not files:
            raise InvalidInput(f"{path} has no .yaml file; name a file, or write flyball.yaml (flyball init does)")
        for file in files:
            for number, raw in enumerate(_load(file), start=1):
                read = document(raw, f"{file.name}, document {number}")
                if read.ref in found:
                    raise InvalidInput(f"{read.ref} stands in {found[read.ref].source} and again in {read.source}")
                found[read.ref] = read
    return list(found.values())


def document(raw: Any, source: str = "") -> Document:
    """Return a declaration from its parsed form: `kind`, `name`, perhaps `labels`, and the spec's fields."""
    where = f"{source}: " if source else ""
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where}expected fields such as `kind: Dataset`, got {type(raw).__name__}")
    try:
        return _document(raw, source)
    except InvalidInput as error:
        raise InvalidInput(f"{where}{error}") from None


def _document(raw: dict[str, Any], source: str) -> Document:
    missing = [key for key in ("kind", "name") if not isinstance(raw.get(key), str)]
    if missing:
        raise InvalidInput(f"the field {missing[0]!r} is missing or not a text")
    kind = kinds.kind_of(raw["kind"])
    labels = raw.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidInput(f"labels of {raw['name']} must map names to texts")
    spec = {k: v for k, v in raw.items() if k not in ("kind", "name", "labels")}
    check_name(raw["name"])
    kinds.validate(kind.word, raw["name"], spec)
    return Document(kind.word, raw["name"], spec, labels, source)


def write_documents(documents: Iterable[Document]) -> str:
    """Return documents as YAML that `read_documents` reads back."""
    plain = [
        {
            "kind": kinds.kind_of(d.kind).title,
            "name": d.name,
            **({"labels": dict(d.labels)} if d.labels else {}),
            **d.spec,
        }
        for d in documents
    ]
    return yaml.safe_dump_all(plain, sort_keys=False, allow_unicode=True, width=110)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `on`, `yes` and `no` are words, as in YAML 1.2; only `true` and `false` are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))


def _load(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    try:
        return [raw for raw in yaml.load_all(text, Loader=_Loader) if raw is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"{path}{where} is not YAML: {getattr(error, 'problem', error)}") from None
