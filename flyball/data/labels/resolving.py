"""Decide which label holds for an item that several people labelled: a file of pure functions of frames.

    majority    the label that most labellers gave; a tie is unresolved
    latest      the label that was given last
    expert      the label of the first of the named experts who gave one, else as majority
    unanimous   the label that all gave; a difference is unresolved
    weighted    as majority, each labeller counting by how often they agree with the others (`weights`)

Whatever a policy leaves open is decided by the first named expert who labelled the item: that is how an item is
adjudicated. An item with fewer labellers than `needed` waits; an expert's label ends the waiting too.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from flyball.data.kinds import Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

__all__ = ["STATES", "current", "resolve", "weight_history", "weights"]

STATES = ("resolved", "unresolved", "waiting")
_SAME = 1e-9  # sums of weights nearer than this are a tie


def current(labels: pl.DataFrame, item: Sequence[str]) -> pl.DataFrame:
    """Return the label of each labeller for each item: the one made last, of those the one that arrived last.

    Args:
        labels: rows that are known, in the order of arrival, with columns of `item`, label, labeller, labelled_at and
            known_at. Labels that are null withdraw: what they replace is gone, and so are they.
        item: columns that name what is resolved: a key, or a number for each question.
    """
    import polars as pl

    last = labels.with_row_index("__order").sort([*item, "labeller", "labelled_at", "known_at", "__order"])
    last = last.unique([*item, "labeller"], keep="last", maintain_order=True)
    return last.filter(pl.col("label").is_not_null())


def resolve(labels: pl.DataFrame, item: Sequence[str], spec: Labels) -> pl.DataFrame:
    """Return the outcome for each item: label, state, labellers, share.

    Args:
        labels: as `current` returns them; with the policy weighted, with a column `weight`.
        item: columns that name an item.

    Returns:
        One row an item: `item`, `label` (null unless resolved), `state` (of `STATES`), `labellers`, and `share`, the
        part of the votes that the strongest label has, in [0, 1].
    """
    import polars as pl

    by = list(item)
    count = pl.col("weight").sum() if spec.policy == "weighted" else pl.len().cast(pl.Float64)
    votes = labels.group_by([*by, "label"]).agg(count.alias("votes"), pl.len().alias("people"))
    top = votes.group_by(by).agg(
        pl.col("label").sort_by("votes", descending=True).first().alias("strongest"),
        (pl.col("votes") >= pl.col("votes").max() - _SAME).sum().alias("leaders"),
        (pl.col("votes").max() / pl.col("votes").sum()).alias("share"),
        pl.col("people").sum().alias("labellers"),
        pl.len().alias("different"),
    )
    expert = _expert(labels, by, spec)
    last = labels.group_by(by).agg(pl.col("label").sort_by("labelled_at", "known_at", "__order").last().alias("last"))
    found = top.join(last, on=by, nulls_equal=True).join(expert, on=by, how="left", nulls_equal=True)
    majority = pl.when(pl.col("leaders") == 1).then(pl.col("strongest"))
    decided = {
        "majority": majority,
        "weighted": majority,
        "latest": pl.col("last"),
        "expert": pl.coalesce("expert", majority),
        "unanimous": pl.when(pl.col("different") == 1).then(pl.col("strongest")),
    }[spec.policy]
    is_waiting = (pl.col("labellers") < spec.needed) & pl.col("expert").is_null()
    label = pl.when(~is_waiting).then(pl.coalesce(decided, pl.col("expert")))
    outcome = found.with_columns(label.alias("label"), is_waiting.alias("waits"))
    state = pl.when("waits").then(pl.lit("waiting")).when(pl.col("label").is_null()).then(pl.lit("unresolved"))
    return outcome.with_columns(state.otherwise(pl.lit("resolved")).alias("state")).select(
        *by, "label", "state", "labellers", "share"
    )


def weights(labels: pl.DataFrame, item: Sequence[str]) -> dict[str, float]:
    """Return what each labeller's vote counts in (0, 1): how often they agree with another labeller of the same item.

    (agreements + 1) / (comparisons + 2): one half for who was never compared, and near the share of agreements for who
    often was (Laplace's rule of succession).

    Args:
        labels: as `current` returns them.
    """
    import polars as pl

    by = list(item)
    of_label = labels.group_by([*by, "label"]).len("same")
    of_item = labels.group_by(by).len("all")
    joined = labels.join(of_label, on=[*by, "label"], nulls_equal=True).join(of_item, on=by, nulls_equal=True)
    counts = joined.group_by("labeller").agg((pl.col("same") - 1).sum(), (pl.col("all") - 1).sum())
    return {who: (same + 1) / (every + 2) for who, same, every in counts.iter_rows()}


def weight_history(labels: pl.DataFrame, item: Sequence[str]) -> pl.DataFrame:
    """Return each labeller's weight from every moment on at which it changed: labeller, known_at, weight.

    Args:
        labels: all rows of a label set, in the order of arrival.
    """
    import polars as pl

    ordered = labels.with_row_index("__order").sort(["known_at", "__order"])
    # The labels that count for an item now: by labeller, when it was made and arrived, and what it says.
    here: dict[Any, dict[str, tuple[Any, Any]]] = defaultdict(dict)
    agreements: dict[str, int] = defaultdict(int)
    comparisons: dict[str, int] = defaultdict(int)
    changes: list[tuple[str, Any, float]] = []
    touched: set[str] = set()
    moment: Any = None

    def note() -> None:
        changes.extend((who, moment, (agreements[who] + 1) / (comparisons[who] + 2)) for who in touched)
        touched.clear()

    columns = [*item, "label", "labeller", "labelled_at", "known_at"]
    for row in ordered.select(columns).iter_rows():
        key, (label, who, made, known) = row[:-4], row[-4:]
        if known != moment:
            note()
            moment = known
        others = here[key]
        before = others.get(who)
        if before is not None and before[0] > made:
            continue  # what was said later stands, though this arrived later
        for other, (_, said) in others.items():
            if other == who or said is None:
                continue
            for sign, mine in ((-1, before[1] if before is not None else None), (1, label)):
                if mine is not None:
                    for person in (who, other):
                        comparisons[person] += sign
                        agreements[person] += sign * (mine == said)
            touched.add(other)
        others[who] = (made, label)
        touched.add(who)
    note()
    schema: dict[str, Any] = {"labeller": pl.String, "known_at": pl.Datetime("us", "UTC"), "weight": pl.Float64}
    return pl.DataFrame(changes, schema=schema, orient="row")


def _expert(labels: pl.DataFrame, by: list[str], spec: Labels) -> pl.DataFrame:
    """Return the label of the first expert who labelled each item, in a column `expert`."""
    import polars as pl

    ranks = {who: rank for rank, who in enumerate(spec.experts)}
    known = labels.filter(pl.col("labeller").is_in(list(ranks)))
    ranked = known.with_columns(
        pl.col("labeller").replace_strict(ranks, default=None, return_dtype=pl.Int64).alias("rank")
    )
    return ranked.group_by(by).agg(pl.col("label").sort_by("rank").first().alias("expert"))
