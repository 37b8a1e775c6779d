"""Known vulnerabilities: the spans of the OSV schema against brute force, and databases of every form."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from flyball.errors import InvalidInput, NotFound
from flyball.models.vulnerabilities import look_up


def entry(id: str = "PYSEC-1", package: str = "Numpy", **affected: Any) -> dict[str, Any]:
    return {
        "id": id,
        "modified": "2026-01-02T03:04:05Z",
        "aliases": ["CVE-2026-1"],
        "summary": "It reads  too\nfar.",
        "affected": [{"package": {"ecosystem": "PyPI", "name": package}, **affected}],
    }


def span(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return {"ranges": [{"type": kind, "events": list(events)}]}


def environment(**packages: str) -> dict[str, Any]:
    return {"locked": {name.replace("_", "-"): {"version": version} for name, version in packages.items()}}


def is_found(tmp_path: Path, version: str, **affected: Any) -> bool:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(entry(**affected)))
    return bool(look_up(environment(numpy=version), path).found)


GAP = ({"introduced": "0"}, {"fixed": "1.0.1"}, {"introduced": "1.1"}, {"fixed": "9"})
VERSIONS = [
    "0.9",
    "1.0.dev1",
    "1.0a1",
    "1.0",
    "1.0.post1",
    "1.5",
    "2.0rc1",
    "2.0",
    "2.0.0",
    "2.0+cu121",
    "2.1",
    "1!0.1",
]
SPANS: list[tuple[list[dict[str, str]], str]] = [
    ([{"introduced": "0"}, {"fixed": "2.0"}], "<2.0"),
    ([{"introduced": "1.0"}, {"fixed": "2.0"}], ">=1.0,<2.0"),
    ([{"fixed": "2.0"}, {"introduced": "1.0"}], ">=1.0,<2.0"),
    ([{"introduced": "1.0"}, {"last_affected": "1.5"}], ">=1.0,<=1.5"),
    ([{"introduced": "0"}], ">=0.dev0"),
    ([{"introduced": "2.1"}], ">=2.1"),
    ([{"introduced": "1.0"}, {"limit": "1.5"}], ">=1.0,<1.5"),
]


@pytest.mark.parametrize(("events", "wanted"), SPANS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_span_holds_what_pep_440_says(tmp_path: Path, events: list[dict[str, str]], wanted: str) -> None:
    for version in VERSIONS:
        here = Version(Version(version).public)
        # SpecifierSet leaves pre-releases of the end out of `<`; the schema counts them in, so order decides.
        expected = all(
            {"<": here < Version(one.version), ">": here >= Version(one.version)}[one.operator[0]]
            if one.operator in ("<", ">=")
            else here <= Version(one.version)
            for one in SpecifierSet(wanted)
        )
        assert is_found(tmp_path, version, **span(*events)) == expected, (version, wanted)


def test_several_spans_lists_and_odd_versions(tmp_path: Path) -> None:
    twice = span({"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "1.5"}, {"fixed": "2.0"})
    assert [is_found(tmp_path, v, **twice) for v in ("0.9", "1.0", "1.5", "2.0")] == [True, False, True, False]
    assert [is_found(tmp_path, v, versions=["1.0", "2004d"]) for v in ("1.0.0", "2004d", "1.1")] == [True, True, False]
    assert is_found(tmp_path, "1.0", **span({"introduced": "0"}, {"fixed": "abc123"}))
    assert is_found(tmp_path, "1.0", **span({"introduced": "2004d"}, {"fixed": "2.0"}))
    assert is_found(tmp_path, "2.5.1+cu121", **span({"introduced": "0"}, {"last_affected": "2.5.1"}))
    assert not is_found(tmp_path, "1.0", **span({"introduced": "0"}, kind="GIT"))
    assert not is_found(tmp_path, "1.0", package="numpy-financial", **span({"introduced": "0"}))


def test_a_folder_a_zip_and_a_list_say_the_same_and_say_how_old_they_are(tmp_path: Path) -> None:
    newer = entry("GHSA-2", "scikit_learn", **span(*GAP))
    newer |= {"modified": "2026-05-01T00:00:00Z", "database_specific": {"severity": "HIGH"}}
    gone = entry("PYSEC-3", **span({"introduced": "0"})) | {"withdrawn": "2026-01-01T00:00:00Z"}
    other = entry("RUSTSEC-4", **span({"introduced": "0"}))
    other["affected"][0]["package"]["ecosystem"] = "crates.io"
    entries = [entry(**span({"introduced": "0"}, {"fixed": "3"})), newer, gone, other]
    folder = tmp_path / "osv" / "PyPI"
    folder.mkdir(parents=True)
    for one in entries:
        (folder / f"{one['id']}.json").write_text(json.dumps(one))
    (folder / "broken.json").write_text('{"id": ')
    (folder / "odd.json").write_text('{"id": "X", "affected": [{"package": 3}, 4], "ranges": {}}')
    (tmp_path / "osv.json").write_text(json.dumps(entries))
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
        archive.writestr("bomb.json", bytes(32 << 20))
    known = environment(numpy="2.4.0", scikit_learn="1.8.0", polars="2.0")
    reports = [look_up(known, tmp_path / name) for name in ("osv", "osv.json", "all.zip")]
    assert reports[0].found == reports[1].found == reports[2].found
    assert [(v.package, v.version, v.id, v.fixed, v.severity) for v in reports[0].found] == [
        ("numpy", "2.4.0", "PYSEC-1", ("3",), None),
        ("scikit-learn", "1.8.0", "GHSA-2", ("9",), "high"),
    ]
    assert reports[0].found[0].summary == "It reads too far." and reports[0].found[0].aliases == ("CVE-2026-1",)
    assert [(r.packages, r.entries, r.newest, r.unreadable) for r in reports] == [
        (3, 3, "2026-05-01T00:00:00Z", n) for n in (1, 0, 2)
    ]


def test_without_a_database_nothing_is_said_to_be_safe(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing is fetched: bring a copy of the OSV database"):
        look_up(environment(numpy="1"), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "text.txt").write_text("hello")
    for name, says in (("empty", "no OSV entries"), ("empty.json", "no OSV entries"), ("text.txt", "neither a zip")):
        with pytest.raises(InvalidInput, match=says):
            look_up(environment(numpy="1"), tmp_path / name)
