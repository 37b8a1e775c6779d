"""How far the labellers of a label set agree: kappa of each pair, of all, and alpha where labels are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from flyball.data.kinds import Labels
from flyball.data.labels.resolving import weights
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

    from flyball.stats.intervals import Interval

__all__ = ["Agreement", "Labeller", "Pair", "agreement"]

_MOST_LABELLERS = 30  # of whom pairs are made: 435 of them; those with most labels
_FEWEST_IN_COMMON = 2


@dataclass(frozen=True)
class Labeller:
    """One labeller: how many items they labelled, and their weight by the policy weighted, in (0, 1)."""

    name: str
    items: int
    weight: float


@dataclass(frozen=True)
class Pair:
    """Two labellers: Cohen's kappa over the items that both labelled; with weights where labels have an order."""

    first: str
    second: str
    items: int
    kappa: Interval


@dataclass(frozen=True)
class Agreement:
    """What can be said. `fleiss` is None unless all items with two labels have equally many."""

    items: int
    items_compared: int
    labellers: tuple[Labeller, ...]
    alpha: Interval | None = None
    fleiss: Interval | None = None
    pairs: tuple[Pair, ...] = ()
    shares: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        return {
            "items": self.items,
            "items_compared": self.items_compared,
            "labellers": [{"name": r.name, "items": r.items, "weight": r.weight} for r in self.labellers],
            "alpha": self.alpha.as_dict() if self.alpha else None,
            "fleiss": self.fleiss.as_dict() if self.fleiss else None,
            "pairs": [
                {"first": p.first, "second": p.second, "items": p.items, "kappa": p.kappa.as_dict()} for p in self.pairs
            ],
            "labels": self.shares,
        }


def agreement(labels: pl.DataFrame, spec: Labels) -> Agreement:
    """Return the agreement over labels as `resolving.current` returns them."""
    import polars as pl

    from flyball.stats import agreement as of

    by = spec.key
    people = labels.group_by("labeller").len("items").sort(["items", "labeller"], descending=[True, False])
    weight = weights(labels, by)
    labellers = tuple(Labeller(name, items, weight[name]) for name, items in people.iter_rows())
    counted = labels.group_by("label").len("n").sort("n", descending=True)
    shares = {_text(label): int(n) for label, n in counted.iter_rows()}
    items = labels.select(by).n_unique() if labels.height else 0
    values = [v for v in spec.values if _text(v) in shares] if spec.ordered else sorted(shares)
    codes = {_text(value): code for code, value in enumerate(spec.values if spec.ordered else values)}
    coded = labels.with_columns(
        pl.Series("code", [codes[_text(v)] for v in labels["label"].to_list()], dtype=pl.Int64),
        pl.struct(by).rank("dense").alias("item") if labels.height else pl.lit(0).alias("item"),
    )
    several = coded.filter(pl.len().over(by) >= 2)
    compared = several.select(by).n_unique() if several.height else 0
    if not compared:
        return Agreement(items, 0, labellers, shares=shares)
    table = several.group_by(["item", "code"]).len("n").pivot(on="code", index="item", values="n")
    counts = pl.DataFrame(
        [table[str(c)] if str(c) in table.columns else pl.zeros(len(table), eager=True) for c in range(len(codes))]
    )
    found = counts.fill_null(0).to_numpy()
    try:
        fleiss = of.fleiss_kappa(found)
    except InvalidInput:
        fleiss = None
    pairs = []
    main = [r.name for r in labellers[:_MOST_LABELLERS]]
    wide = several.filter(pl.col("labeller").is_in(main)).pivot(on="labeller", index="item", values="code")
    for first, second in combinations([name for name in main if name in wide.columns], 2):
        both = wide.select(first, second).drop_nulls()
        if both.height >= _FEWEST_IN_COMMON:
            weighting: of.Weights = "quadratic" if spec.ordered else "none"
            kappa = of.cohen_kappa(both[first].to_numpy(), both[second].to_numpy(), len(codes), weighting)
            pairs.append(Pair(first, second, both.height, kappa))
    alpha = of.krippendorff_alpha(found, "ordinal" if spec.ordered else "nominal")
    return Agreement(items, compared, labellers, alpha, fleiss, tuple(pairs), shares)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
