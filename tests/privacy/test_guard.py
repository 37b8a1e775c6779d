"""Policies in the path of rows: reads are masked at the source or refused, writes checked, models judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from flyball.errors import Forbidden
from flyball.governance.identity import Principal
from flyball.ledger.refs import ref
from flyball.platform import Platform
from tests.privacy.full_home import CONTRACT, PERSON, eraser, people

VIEWER, EDITOR = Principal("user/v", "viewer"), Principal("user/e", "editor")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    opened.declare("dataset", "people", subject="email", columns={"email": {"classification": "personal"}})
    opened.publish("people", people())
    yield opened
    opened.close()


def read(platform: Platform, who: Principal, purpose: str | None = None) -> pl.DataFrame:
    return platform.guard.read("people", platform.datasets.frame("people"), who, purpose).collect()


def test_a_viewer_sees_no_personal_column_and_an_editor_does(platform: Platform) -> None:
    assert read(platform, VIEWER)["email"].unique().to_list() == ["•••"]
    assert read(platform, VIEWER)["age"].to_list() == people()["age"].to_list()
    assert read(platform, EDITOR).equals(people())


def test_policies_of_the_home_hold_and_hashes_join(platform: Platform) -> None:
    platform.declare("policy", "join", mask=[{"classifications": ["personal"], "how": "hash"}], unless_role="admin")
    hashed = read(platform, EDITOR)
    assert hashed["email"].n_unique() == people()["email"].n_unique()
    assert PERSON not in hashed["email"]
    assert read(platform, Principal("user/a", "admin")).equals(people())
    decision = platform.guard.decision("people", ["email", "age"], EDITOR)
    assert {c: m.because for c, m in decision.masks.items()} == {"email": "policy/join"}


def test_the_contract_s_classification_counts_where_the_dataset_says_nothing(platform: Platform) -> None:
    contract = {**CONTRACT, "schema": [{"name": "c", "properties": [
        {"name": "email", "logicalType": "string", "classification": "Confidential"},
        {"name": "age", "logicalType": "integer", "tags": ["PII"]},
    ]}]}  # fmt: skip
    platform.declare("dataset", "people", subject="email", contract=contract)
    assert read(platform, VIEWER).select("email", "age").unique().rows() == [("•••", None)]
    platform.declare(
        "dataset", "people", subject="email", contract=contract, columns={"email": {"classification": "public"}}
    )
    assert read(platform, VIEWER)["email"].to_list() == people()["email"].to_list()


def test_a_read_without_its_purpose_is_refused_with_what_to_pass(platform: Platform) -> None:
    platform.declare("dataset", "people", purposes=["fraud"])
    with pytest.raises(Forbidden, match="pass purpose='fraud'"):
        read(platform, EDITOR)
    assert read(platform, EDITOR, "fraud").height == 12


def test_rows_that_must_stay_elsewhere_are_neither_published_nor_read_here(platform: Platform) -> None:
    platform.declare("dataset", "people", residency="eu")
    with pytest.raises(Forbidden, match=r'set region = "eu" under \[governance\]'):
        platform.guard.admit("people", people().lazy())
    (platform.home / "flyball.toml").write_text('[governance]\nregion = "us"\n', encoding="utf-8")
    with pytest.raises(Forbidden, match="may be kept in eu only; this home is in us"):
        platform.guard.admit("people", people().lazy())
    with pytest.raises(Forbidden, match="may be read in eu only"):
        read(platform, EDITOR)
    (platform.home / "flyball.toml").write_text('[governance]\nregion = "eu"\n', encoding="utf-8")
    assert platform.guard.admit("people", people().lazy()).frame.collect().height == 12


def test_what_is_admitted_leaves_out_the_erased_and_tells_of_columns_that_look_personal(platform: Platform) -> None:
    clean = platform.guard.admit("people", people().lazy())
    assert dict(clean.metadata) == {}
    eraser(platform).erase(PERSON, ["email"])
    admitted = platform.guard.admit("people", people().lazy())
    assert admitted.frame.collect().equals(people().filter(pl.col("email") != PERSON))
    assert admitted.metadata == {"suppressed_rows": 4}
    other = platform.guard.admit("unknown", people().rename({"email": "contact"}).lazy())
    assert [f["column"] for f in other.metadata["looks_personal"]] == ["contact"]
    assert PERSON not in str(other.metadata)


def test_a_model_is_judged_by_the_datasets_behind_it(platform: Platform) -> None:
    platform.declare("model", "m", tags=["scoring"])
    with platform.ledger.write("user/a") as world:
        version = world.versions.get("dataset", "people")
        made = world.versions.publish("feature", "f", version.digest, made_from=[(version.ref, "computed from")])
    assert platform.guard.judge("m", ["email"], [version.ref]) == []
    platform.declare(
        "policy",
        "p",
        applies_to={"models": ["*"], "tags": ["scoring"]},
        require={"without_classifications": ["personal"]},
    )
    assert platform.guard.judge("m", ["age"], [version.ref]) == []
    for source in (version.ref, made.ref):
        assert platform.guard.judge("m", ["email"], [source]) == [
            'policy/p: the input "email" of model/m is personal in dataset/people; leave it out'
        ]
    assert platform.guard.judge("m", ["email"], [ref("dataset/none@1")]) == []
