"""Labels: import, correction, conflict policies, as known at a time against brute force, agreement, what is open."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.data.kinds import Labels
from flyball.data.labels.knowing import as_of
from flyball.data.labels.sets import LabelSets
from flyball.errors import InvalidInput, NotFound
from flyball.platform import Platform
from flyball.testing.clock import FakeClock
from flyball.testing.ledger import together

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home", clock=FakeClock(NOW))
    yield opened
    opened.close()


@pytest.fixture
def sets(platform: Platform) -> LabelSets:
    return LabelSets(platform.ledger, platform.tables, platform.clock)


def declare(platform: Platform, **spec: Any) -> None:
    platform.declare("Labels", "cats", **{"key": ["id"], **spec})


def said(*rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Rows of (id, label, labeller, made on this day of January, known on that day)."""
    found = []
    for id, label, who, made, *known in rows:
        day = datetime(2026, 1, made, tzinfo=UTC)
        arrived = datetime(2026, 1, known[0], tzinfo=UTC) if known else day
        found.append({"id": id, "label": label, "labeller": who, "labelled_at": day, "known_at": arrived})
    return found


def held(sets: LabelSets, at: datetime | None = None) -> dict[Any, tuple[Any, str]]:
    return {row["id"]: (row["label"], row["state"]) for row in sets.table("cats", at).iter_rows(named=True)}


def test_labels_are_versions_that_only_grow_and_the_same_batch_again_adds_nothing(
    platform: Platform, sets: LabelSets
) -> None:
    declare(platform)
    first = sets.add("cats", said((1, "cat", "a", 1), (2, "dog", "a", 1)), actor="user/a")
    assert (first.version.number, first.added, first.repeated) == (1, 2, 0)
    again = sets.add("cats", said((1, "cat", "a", 1), (2, "dog", "a", 1), (2, "dog", "a", 1)), actor="user/a")
    assert (again.version.number, again.added, again.repeated) == (1, 0, 3)
    more = sets.add("cats", said((2, "dog", "a", 1), (3, "cow", "b", 2)), actor="user/a", note="second")
    assert (more.version.number, more.added, more.repeated) == (2, 1, 1)
    assert sets.rows("cats", 1).height == 2 and sets.rows("cats").height == 3
    assert more.to_dict() == {"version": "labels/cats@2", "rows": 3, "added": 1, "repeated": 1, "dropped": 0}


def test_a_later_label_of_the_same_labeller_replaces_the_earlier_from_when_it_is_known(
    platform: Platform, sets: LabelSets
) -> None:
    declare(platform)
    sets.add("cats", said((1, "cat", "a", 1, 2), (1, "dog", "a", 5, 8)), actor="user/a")
    sets.add("cats", said((1, "cow", "a", 3, 9)), actor="user/a")  # made before the dog, arrives after it
    at = {day: held(sets, datetime(2026, 1, day, tzinfo=UTC)).get(1) for day in (1, 2, 7, 8, 9)}
    assert at == {
        1: None, 2: ("cat", "resolved"), 7: ("cat", "resolved"), 8: ("dog", "resolved"), 9: ("dog", "resolved"),
    }  # fmt: skip
    assert sets.table("cats")["label_time"].to_list() == [datetime(2026, 1, 8, tzinfo=UTC)]
    sets.add("cats", said((1, None, "a", 10)), actor="user/a")
    assert held(sets) == {}


POLICIES: dict[str, tuple[dict[str, Any], list[tuple[Any, ...]], tuple[Any, str]]] = {
    "majority": ({}, [(1, "x", "a", 1), (1, "y", "b", 2), (1, "x", "c", 3)], ("x", "resolved")),
    "tie": ({}, [(1, "x", "a", 1), (1, "y", "b", 2)], (None, "unresolved")),
    "adjudicated": ({"experts": ["e"]}, [(1, "x", "a", 1), (1, "y", "e", 2)], ("y", "resolved")),
    "latest": ({"policy": "latest"}, [(1, "x", "a", 1), (1, "x", "c", 2), (1, "y", "b", 3)], ("y", "resolved")),
    "expert": (
        {"policy": "expert", "experts": ["e", "f"]},
        [(1, "x", "a", 1), (1, "x", "b", 1), (1, "y", "f", 1), (1, "z", "e", 1)],
        ("z", "resolved"),
    ),
    "no expert yet": ({"policy": "expert", "experts": ["e"]}, [(1, "x", "a", 1), (1, "x", "b", 1)], ("x", "resolved")),
    "unanimous": ({"policy": "unanimous"}, [(1, "x", "a", 1), (1, "x", "b", 1)], ("x", "resolved")),
    "not unanimous": (
        {"policy": "unanimous"}, [(1, "x", "a", 1), (1, "x", "b", 1), (1, "y", "c", 1)], (None, "unresolved")
    ),
    "waiting": ({"needed": 2}, [(1, "x", "a", 1)], (None, "waiting")),
    "an expert ends the waiting": ({"needed": 3, "experts": ["a"]}, [(1, "x", "a", 1)], ("x", "resolved")),
    "weighted": (  # a and b agree about other items, c with nobody: together c and d weigh less than a and b
        {"policy": "weighted"},
        [
            *((n, "x", who, 1) for n in range(10, 16) for who in "ab"), *((n, "z", "c", 1) for n in range(10, 16)),
            *((n, "w", "d", 1) for n in range(10, 16)),
            (1, "x", "a", 1), (1, "x", "b", 1), (1, "y", "c", 1), (1, "y", "d", 1),
        ],
        ("x", "resolved"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_decides_what_holds(platform: Platform, sets: LabelSets, case: str) -> None:
    spec, rows, expected = POLICIES[case]
    declare(platform, **spec)
    sets.add("cats", said(*rows), actor="user/a")
    assert held(sets)[1] == expected


def brute_force(rows: list[dict[str, Any]], key: Any, at: datetime, spec: Labels) -> tuple[Any, str]:
    """What holds for an item at an instant, done the long way."""

    def now_of(item: Any) -> dict[str, dict[str, Any]]:
        mine: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["id"] == item and row["known_at"] <= at:
                before = mine.get(row["labeller"])
                if before is None or (before["labelled_at"], before["known_at"]) <= (
                    row["labelled_at"],
                    row["known_at"],
                ):
                    mine[row["labeller"]] = row
        return {who: row for who, row in mine.items() if row["label"] is not None}

    mine = now_of(key)
    if not mine:
        return None, "unlabelled"
    weight = dict.fromkeys(mine, 1.0)
    if spec.policy == "weighted":
        same: Counter[str] = Counter()
        every: Counter[str] = Counter()
        for item in {row["id"] for row in rows}:
            people = now_of(item)
            for one in people:
                for other in people:
                    if one != other:
                        every[one] += 1
                        same[one] += people[one]["label"] == people[other]["label"]
        weight = {who: (same[who] + 1) / (every[who] + 2) for who in mine}
    expert = next((mine[e]["label"] for e in spec.experts if e in mine), None)
    votes: dict[Any, float] = {}
    for who, row in mine.items():
        votes[row["label"]] = votes.get(row["label"], 0) + weight[who]
    best = [label for label, n in votes.items() if n >= max(votes.values()) - 1e-9]
    majority = best[0] if len(best) == 1 else None
    last = max(mine.values(), key=lambda r: (r["labelled_at"], r["known_at"], rows.index(r)))["label"]
    label = {
        "majority": majority, "weighted": majority, "latest": last,
        "expert": expert if expert is not None else majority,
        "unanimous": next(iter(votes)) if len(votes) == 1 else None,
    }[spec.policy]  # fmt: skip
    if len(mine) < spec.needed and expert is None:
        return None, "waiting"
    label = label if label is not None else expert
    return label, "resolved" if label is not None else "unresolved"


@pytest.mark.parametrize("policy", ["majority", "latest", "expert", "unanimous", "weighted"])
def test_labels_at_each_rows_time_are_what_brute_force_finds_and_none_comes_from_the_future(policy: str) -> None:
    chance = random.Random(policy)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for _round in range(6):
        spec = Labels(key=["id"], policy=policy, experts=["e0"], needed=chance.choice([1, 2]))  # type: ignore[arg-type]
        rows = []
        for _ in range(60):
            made = start + timedelta(hours=chance.randint(0, 20))
            rows.append({
                "id": chance.randint(0, 5), "label": chance.choice(["x", "y", "z", None]),
                "labeller": chance.choice(["a", "b", "c", "e0"]), "labelled_at": made,
                "known_at": made + timedelta(hours=chance.randint(0, 10)),
            })  # fmt: skip
        rows.sort(key=lambda r: r["known_at"])
        seen = {(r["id"], r["labeller"], r["labelled_at"], r["known_at"]): r for r in rows}
        rows = [r for r in rows if seen[r["id"], r["labeller"], r["labelled_at"], r["known_at"]] is r]
        moment = pl.Datetime("us", "UTC")
        labels = pl.DataFrame(rows, schema_overrides={"labelled_at": moment, "known_at": moment, "label": pl.String})
        asked = [
            {"id": chance.randint(0, 6), "at": start + timedelta(hours=chance.randint(-1, 32)), "n": n}
            for n in range(80)
        ]
        found = as_of(pl.DataFrame(asked, schema_overrides={"at": moment}), "at", labels, spec)
        assert found["n"].to_list() == list(range(80))
        expected = [brute_force(rows, row["id"], row["at"], spec) for row in asked]
        assert list(zip(found["label"].to_list(), found["label_state"].to_list(), strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"id": 1, "labeller": "a"}], 'no column "label"; did you mean "labeller"'),
        ([{"id": 1, "label": "x"}], "give the labeller of all of them"),
        ([{"label": "x", "labeller": "a"}], 'no column "id"'),
        ([{"id": 1, "label": "maybe", "labeller": "a"}, {"id": 2, "label": "yes", "labeller": "a"},
          {"id": 3, "label": "perhaps", "labeller": "a"}],
         "rows 1, 3: the label is 'maybe', 'perhaps'; allowed are yes, no"),
        ([{"id": None, "label": "yes", "labeller": "a"}], "row 1: id is missing"),
        ([{"id": 1, "label": "yes", "labeller": " "}], "row 1: labeller is missing"),
        ([{"id": 1, "label": "yes", "labeller": "a", "labelled_at": "2026-01-01"}],
         "row 1: labelled_at is no time with"),
        ([{"id": 1, "label": "yes", "labeller": "a", "labelled_at": datetime(2026, 1, 1)}], "has no time zone"),
        ([{"id": 1, "label": "yes", "labeller": "a", "known_at": "2027-01-01T00:00:00Z"}], "only in the future"),
        ([{"id": 1, "label": "yes", "labeller": "a", "labelled_at": "2026-02-02T00:00:00Z",
           "known_at": "2026-02-01T00:00:00Z"}], "row 1: a label is known before it was made"),
        ([{"id": 1, "label": "yes", "labeller": "a"}, {"id": 1, "label": "no", "labeller": "a"}],
         "rows 1, 2: one labeller gives an item two labels at one time"),
        ([{"id": 1, "label": ["yes"], "labeller": "a"}], "a label is a number, a text"),
        (pl.DataFrame({"id": [], "label": [], "labeller": []}), "no rows"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named_and_nothing_is_kept(
    platform: Platform, sets: LabelSets, rows: Any, sentence: str
) -> None:
    declare(platform, values=["yes", "no"])
    with pytest.raises(InvalidInput, match=sentence):
        sets.add("cats", rows, actor="user/a")
    assert platform.versions("labels", "cats") == []


def test_labels_of_items_that_the_dataset_does_not_have_are_refused_dropped_or_kept(
    platform: Platform, sets: LabelSets
) -> None:
    platform.declare("Dataset", "pets")
    platform.publish("pets", {"id": [1, 2, 3], "weight": [1.0, 2.0, 3.0]})
    declare(platform, dataset="pets")
    batch = said((1, "cat", "a", 1), (9, "dog", "a", 1))
    with pytest.raises(InvalidInput, match="1 of 2 labels are of items that dataset/pets@1 does not have"):
        sets.add("cats", batch, actor="user/a")
    declare(platform, dataset="pets", unknown_keys="drop")
    found = sets.add("cats", batch, actor="user/a")
    assert (found.added, found.dropped) == (1, 1)
    declare(platform, dataset="pets", unknown_keys="keep")
    assert sets.add("cats", batch, actor="user/a").added == 1
    assert "dataset/pets@1" in platform.lineage(found.version.ref).nodes
    with pytest.raises(InvalidInput, match="rows 1, 2: id is String and not Int64"):
        sets.add("cats", [{"id": "x1", "label": "cat", "labeller": "a"}, {"id": "", "label": "c", "labeller": "a"}],
                 actor="user/a")  # fmt: skip
    assert sets.add("cats", [{"id": "3", "label": "cow", "labeller": "a"}], actor="user/a").added == 1


def test_labels_become_a_datasets_target_with_the_time_they_were_known(platform: Platform, sets: LabelSets) -> None:
    platform.declare("Dataset", "pets")
    platform.publish("pets", {"id": [3, 1, 2], "weight": [3.0, 1.0, 2.0]})
    declare(platform, dataset="pets", values=[0, 1])
    sets.add("cats", said((1, 0, "a", 1, 4), (1, 1, "b", 5), (1, 1, "c", 6), (2, 1, "a", 2)), actor="user/a")
    joined = sets.join("cats", platform.frame("pets"), "is_cat").collect()
    assert joined["id"].to_list() == [3, 1, 2] and joined["is_cat"].to_list() == [None, 1, 1]
    # Item 1 was 0 from the 4th, disputed from the 5th, 1 from the 6th on.
    assert [t.day if t else None for t in joined["label_time"].to_list()] == [None, 6, 2]
    early = sets.join("cats", platform.frame("pets"), "is_cat", at=datetime(2026, 1, 4, tzinfo=UTC)).collect()
    assert early["is_cat"].to_list() == [None, 0, 1]
    with pytest.raises(InvalidInput, match='column "weight" already'):
        sets.join("cats", platform.frame("pets"), "weight")


def test_open_items_are_the_disputed_then_the_waiting_then_the_unlabelled(platform: Platform, sets: LabelSets) -> None:
    platform.declare("Dataset", "pets")
    platform.publish("pets", {"id": [1, 2, 3, 4, 5]})
    declare(platform, dataset="pets", needed=2, policy="unanimous")
    with pytest.raises(NotFound):
        sets.rows("cats")
    assert sets.open_items("cats")["why"].to_list() == ["unlabelled"] * 5
    sets.add(
        "cats",
        said((1, "x", "a", 1), (2, "x", "a", 1), (2, "x", "b", 1), (2, "y", "c", 1), (3, "x", "a", 1), (3, "y", "b", 1),
             (4, "x", "a", 1), (4, "x", "b", 1)),
        actor="user/a",
    )  # fmt: skip
    found = sets.open_items("cats")
    assert list(zip(found["id"], found["why"], strict=True)) == [
        (3, "unresolved"), (2, "unresolved"), (1, "waiting"), (5, "unlabelled"),
    ]  # fmt: skip
    assert found["said"].to_list()[1] == "1 × y, 2 × x"
    assert sets.open_items("cats", limit=1)["id"].to_list() == [3]


def test_agreement_tells_of_labellers_pairs_and_all(platform: Platform, sets: LabelSets) -> None:
    declare(platform, values=["x", "y"])
    rows = [(n, "x" if n % 2 else "y", who, 1) for n in range(40) for who in "ab"]
    rows += [(n, "x" if n % 3 else "y", "c", 1) for n in range(20)]
    sets.add("cats", said(*rows), actor="user/a")
    found = sets.agreement("cats")
    assert (found.items, found.items_compared, found.fleiss) == (40, 40, None)
    by = {(p.first, p.second): p for p in found.pairs}
    assert by["a", "b"].kappa.value == 1 and by["a", "b"].items == 40 and by["a", "c"].items == 20
    assert found.alpha is not None and 0.3 < found.alpha.value < 0.9
    weight = {person.name: person.weight for person in found.labellers}
    assert weight["a"] == weight["b"] > weight["c"]
    plain = found.to_dict()
    assert plain["labels"].keys() == {"x", "y"} and plain["pairs"][0]["kappa"]["value"] == 1


def test_true_and_false_and_numbers_in_order_can_be_labels(platform: Platform, sets: LabelSets, tmp_path: Path) -> None:
    declare(platform, values=[True, False])
    (tmp_path / "labels.csv").write_text("id,label,who\n1,true,a\n1,false,b\n2,TRUE,a\n2,,b\n")
    from flyball.data.labels.arrivals import Names

    sets.add("cats", str(tmp_path / "labels.csv"), actor="user/a", names=Names(labeller="who"))
    assert held(sets) == {1: (None, "unresolved"), 2: (True, "resolved")}
    assert sets.agreement("cats").items_compared == 1
    platform.declare("Labels", "stars", key=["id"], values=[1, 2, 3, 4, 5], ordered=True)
    sets.add("stars", [{"id": n, "label": 1 + n % 5, "labeller": w} for n in range(20) for w in "ab"], actor="user/a")
    found = sets.agreement("stars")
    assert found.alpha is not None and "ordinal" in found.alpha.method and "quadratic" in found.pairs[0].kappa.method


def test_importers_at_once_lose_nothing(platform: Platform, sets: LabelSets) -> None:
    declare(platform)
    results = together(5, lambda n: sets.add("cats", said((n, "x", f"p{n}", 1)), actor=f"user/{n}"))
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sorted(sets.rows("cats")["id"].to_list()) == [0, 1, 2, 3, 4]
    assert len(platform.versions("labels", "cats")) == 5


def test_a_label_set_that_cannot_be_is_refused(platform: Platform) -> None:
    for spec, sentence in (
        ({"key": []}, "key"),
        ({"key": ["id"], "policy": "expert"}, "no expert is named"),
        ({"key": ["id", "id"]}, "listed twice"),
        ({"key": ["id"], "ordered": True}, "ordered needs values"),
    ):
        with pytest.raises(InvalidInput, match=sentence):
            platform.declare("Labels", "cats", **spec)
