"""What is kept of the rows that a model learnt from holds no erased person, and is kept as long as the model is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier

from flyball.data.blocks import Blocks
from flyball.data.rewriting import reference_of
from flyball.ledger.versions import Version
from flyball.platform import Platform
from tests.privacy.full_home import COLUMN, PERSON, eraser, people

INPUTS = ["email", "age"]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A home whose model has the person among the names that its reference counts."""
    opened = Platform.open(tmp_path / "home")
    opened.declare("dataset", "people", event_time="at", subject=COLUMN)
    data = opened.publish("people", people(30)).version
    opened.declare("model", "m")
    rows = people(30)
    unknown = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=2)
    columns = make_column_transformer((unknown, ["email"]), remainder="passthrough")
    fitted = make_pipeline(columns, DecisionTreeClassifier(max_depth=1, random_state=0))
    fitted.fit(rows.select(INPUTS).to_pandas(), rows["age"].to_numpy() > 40)
    opened.register("m", fitted, example=rows.filter(rows["email"] != PERSON).select(INPUTS), trained_on=data.ref)
    yield opened
    opened.close()


def reference(platform: Platform) -> tuple[Version, Blocks]:
    version = platform.version("model/m@1")
    digest = reference_of(version)
    assert digest is not None
    return version, Blocks.from_bytes(platform.blobs.get(digest))


def test_an_erased_person_is_no_name_of_the_reference_and_the_counts_stay(platform: Platform) -> None:
    before, counted = reference(platform)
    assert PERSON in counted.profiles["email"].bins.names
    dry = eraser(platform).erase(PERSON, [COLUMN], dry_run=True)
    assert dry.certificate["removed"]["references of models"] == 1
    assert reference(platform)[0] == before
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert done.certificate["removed"]["references of models"] == 1
    after, left = reference(platform)
    assert PERSON not in left.profiles["email"].bins.names
    assert left.rows == 30
    assert left.profiles["email"].counts.tolist() == counted.profiles["email"].counts.tolist()
    assert not platform.blobs.has(str(reference_of(before)))
    assert after.number == before.number and after.digest == platform.version("model/m@1").digest


def test_a_reference_that_says_nothing_of_the_person_is_no_orphan(platform: Platform) -> None:
    before, _ = reference(platform)
    eraser(platform).erase("nobody@example.org", [COLUMN])
    assert reference(platform)[0] == before
