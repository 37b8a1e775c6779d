"""Known vulnerabilities of a bundle's locked packages, by a copy of the OSV database that the user brings.

Nothing is fetched: the database is a folder, a zip file (as OSV publishes one for each ecosystem) or a JSON file of
entries in the OSV schema, and only the ecosystem PyPI counts. Versions are compared after PEP 440.
Source: the OSV schema 1.7, "affected[].ranges[].events", with its evaluation algorithm.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from flyball.errors import InvalidInput, NotFound

__all__ = ["Report", "Vulnerability", "look_up"]

_ENTRY_BYTES = 8 << 20  # of one entry; the largest known is a tenth of it
_ENTRIES = 2_000_000


@dataclass(frozen=True)
class Vulnerability:
    """One entry that holds for one locked package; `fixed` are the versions that no longer have it."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    summary: str
    severity: str | None
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What was looked at and found.

    Attributes:
        packages: how many locked packages were looked up.
        entries: how many entries of PyPI the database has; without any, nothing can be said.
        newest: when the newest of them was modified (RFC 3339), the database's age.
        unreadable: how many files of it could not be read, and were left out.
        found: by package and id.
    """

    packages: int
    entries: int
    newest: str | None
    unreadable: int
    found: tuple[Vulnerability, ...]


def look_up(environment: Mapping[str, Any], database: Path) -> Report:
    """Look the locked packages of a manifest's environment up in an OSV database.

    Raises:
        NotFound: there is no database at the path.
        InvalidInput: it is none: no entry of PyPI is in it.
    """
    stated = environment.get("locked") or {n: {"version": v} for n, v in environment.get("packages", {}).items()}
    versions = {name: str(package["version"]) for name, package in stated.items()}
    entries = unreadable = 0
    newest: str | None = None
    found: dict[tuple[str, str], Vulnerability] = {}
    for raw in _documents(database):
        entry = _entry(raw)
        if entry is None:
            unreadable += 1
            continue
        affected = [one for one in _dicts(entry.get("affected")) if _ecosystem(one) == "PyPI"]
        if not affected:
            continue
        entries += 1
        modified = entry.get("modified")
        newest = max(newest or "", modified) if isinstance(modified, str) else newest
        if entry.get("withdrawn"):
            continue
        for one in affected:
            name = str(canonicalize_name(str(one["package"].get("name"))))
            if name in versions and _is_affected(one, versions[name]):
                found[name, str(entry.get("id"))] = _told(entry, one, name, versions[name])
    if not entries:
        raise InvalidInput(
            f"{database} holds no OSV entries of PyPI; expected a folder, zip or JSON file in the OSV schema, such as "
            "the archive that OSV publishes of the ecosystem PyPI"
        )
    return Report(len(versions), entries, newest, unreadable, tuple(found[key] for key in sorted(found)))


def _documents(database: Path) -> Iterator[bytes | dict[str, Any]]:
    """Yield entries, as bytes or parsed; empty bytes stand for a file that cannot be read."""
    if database.is_dir():
        for path in sorted(database.rglob("*.json")):
            try:
                yield path.read_bytes() if path.stat().st_size <= _ENTRY_BYTES else b""
            except OSError:
                yield b""
        return
    if not database.exists():
        raise NotFound(
            f"there is no vulnerability database at {database}; nothing is fetched: bring a copy of the OSV database "
            "(its folder, zip or JSON file) and name it with --database"
        )
    if zipfile.is_zipfile(database):
        with zipfile.ZipFile(database) as archive:
            for number, entry in enumerate(archive.infolist()):
                if number >= _ENTRIES:
                    raise InvalidInput(f"{database} has more than {_ENTRIES} entries; it is no OSV database")
                if entry.filename.endswith(".json"):
                    yield _unpacked(archive, entry)
        return
    try:
        document = json.loads(database.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{database} is neither a zip file nor JSON ({error})") from None
    yield from document if isinstance(document, list) else [document]


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(entry) as stream:
            data = stream.read(_ENTRY_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError):
        return b""
    return data if len(data) <= _ENTRY_BYTES else b""


def _entry(raw: object) -> dict[str, Any] | None:
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return raw if isinstance(raw, dict) and isinstance(raw.get("id"), str) else None


def _ecosystem(affected: Mapping[str, Any]) -> str | None:
    package = affected.get("package")
    return package.get("ecosystem") if isinstance(package, Mapping) and isinstance(package.get("name"), str) else None


def _is_affected(affected: Mapping[str, Any], version: str) -> bool:
    """Evaluate as the schema says: listed by name, or between an `introduced` and what ends it."""
    found = _version(version)
    here = Version(found.public) if found else None  # 2.5.1+cu121 has what 2.5.1 has
    listed = affected.get("versions")
    if isinstance(listed, list) and any(version == one or (here and _version(one) == here) for one in listed):
        return True
    if here is None:
        return False
    for span in _dicts(affected.get("ranges")):
        if span.get("type") in ("ECOSYSTEM", "SEMVER") and _is_within(_dicts(span.get("events")), here):
            return True
    return False


def _is_within(events: list[dict[str, Any]], here: Version) -> bool:
    ordered = sorted((_place(kind, text), kind) for event in events for kind, text in event.items())
    within = False
    for place, kind in ordered:
        if kind == "introduced" and here >= place:
            within = True
        elif (kind in ("fixed", "limit") and here >= place) or (kind == "last_affected" and here > place):
            within = False
    return within


def _place(kind: str, text: object) -> Version:
    """Return where an event stands; `0` is before every version, and so is an old one that PEP 440 cannot read.

    What ends a span and cannot be read ends it never: better one alarm too many.
    """
    if kind == "introduced":
        return (_version(text) if text != "0" else None) or Version("0.dev0")
    return _version(text) or Version("9999!0")


def _version(text: object) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:
        return None


def _told(entry: Mapping[str, Any], affected: Mapping[str, Any], name: str, version: str) -> Vulnerability:
    spans = [span for span in _dicts(affected.get("ranges")) if span.get("type") != "GIT"]
    events = [event for span in spans for event in _dicts(span.get("events"))]
    here = _version(version)
    fixed = {str(event["fixed"]) for event in events if "fixed" in event}
    later = [one for one in fixed if here is None or (_version(one) or here) > here]
    aliases = entry.get("aliases")
    summary = str(entry.get("summary") or entry.get("details") or "")
    return Vulnerability(
        name,
        version,
        str(entry["id"]),
        tuple(str(one) for one in aliases) if isinstance(aliases, list) else (),
        " ".join(summary.split())[:200],
        _severity(entry),
        tuple(sorted(later, key=lambda one: _version(one) or Version("0"))),
    )


def _severity(entry: Mapping[str, Any]) -> str | None:
    """Return the word that GitHub's reviewers gave it, else the CVSS vector."""
    specific = entry.get("database_specific")
    if isinstance(specific, Mapping) and isinstance(specific.get("severity"), str):
        return str(specific["severity"]).lower()
    scores = [str(one["score"]) for one in _dicts(entry.get("severity")) if "score" in one]
    return scores[-1] if scores else None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
